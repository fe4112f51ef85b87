//! Messages of the client: readers for those that capture looks into, writers for those that it adds.
use crate::Reader;
use bytes::{BufMut, Bytes, BytesMut};

/// Query ('Q').
pub const QUERY: u8 = b'Q';
/// Parse ('P').
pub const PARSE: u8 = b'P';
/// Bind ('B').
pub const BIND: u8 = b'B';
/// Describe ('D').
pub const DESCRIBE: u8 = b'D';
/// Execute ('E').
pub const EXECUTE: u8 = b'E';
/// Close ('C').
pub const CLOSE: u8 = b'C';
/// Sync ('S').
pub const SYNC: u8 = b'S';
/// Flush ('H').
pub const FLUSH: u8 = b'H';
/// FunctionCall ('F').
pub const FUNCTION_CALL: u8 = b'F';
/// CopyData ('d', both ways).
pub const COPY_DATA: u8 = b'd';
/// CopyDone ('c', both ways).
pub const COPY_DONE: u8 = b'c';
/// CopyFail ('f').
pub const COPY_FAIL: u8 = b'f';
/// Terminate ('X').
pub const TERMINATE: u8 = b'X';

/// The text of a Query message; `None` if it has no terminating zero or bytes after it.
#[must_use]
pub fn query_text(body: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(body);
    let text = reader.cstr()?;
    reader.rest().is_empty().then_some(text)
}

/// A Parse message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Statement name, empty for the unnamed one.
    pub name: &'a [u8],
    /// The query.
    pub query: &'a [u8],
    /// Count and OIDs of the parameter types, as they stand in the message.
    pub types: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads the body; `None` if it is malformed.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let (name, query) = (reader.cstr()?, reader.cstr()?);
        let types = reader.rest();
        let count = usize::try_from(reader.i16()?).ok()?;
        (reader.rest().len() == count * 4).then_some(Self { name, query, types })
    }
}

/// A Bind message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Portal name.
    pub portal: &'a [u8],
    /// Statement name.
    pub statement: &'a [u8],
    /// Formats of the parameters: none (all text), one (for all), or one each.
    pub formats: Vec<i16>,
    /// The parameters; `None` is NULL.
    pub parameters: Vec<Option<&'a [u8]>>,
    /// Formats of the result columns: none (all text), one (for all), or one each.
    pub result_formats: Vec<i16>,
    /// Bytes of the body before the count of result formats.
    pub head: &'a [u8],
}

impl<'a> Bind<'a> {
    /// Reads the body; `None` if it is malformed.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let (portal, statement) = (reader.cstr()?, reader.cstr()?);
        let formats = codes(&mut reader)?;
        let count = usize::try_from(reader.i16()?).ok()?;
        let parameters = (0..count).map(|_| reader.value()).collect::<Option<Vec<_>>>()?;
        let head = body.get(..body.len() - reader.rest().len())?;
        let result_formats = codes(&mut reader)?;
        reader.rest().is_empty().then_some(Self { portal, statement, formats, parameters, result_formats, head })
    }

    /// The format of parameter `index` (from 0): 0 text, 1 binary.
    #[must_use]
    pub fn format(&self, index: usize) -> i16 {
        match self.formats.as_slice() {
            [] => 0,
            [all] => *all,
            each => each.get(index).copied().unwrap_or(0),
        }
    }
}

fn codes(reader: &mut Reader<'_>) -> Option<Vec<i16>> {
    let count = usize::try_from(reader.i16()?).ok()?;
    (0..count).map(|_| reader.i16()).collect()
}

/// Describe and Close: 'S' (statement) or 'P' (portal), and the name.
#[must_use]
pub fn kind_and_name(body: &[u8]) -> Option<(u8, &[u8])> {
    let mut reader = Reader::new(body);
    let (kind, name) = (reader.u8()?, reader.cstr()?);
    reader.rest().is_empty().then_some((kind, name))
}

/// Execute: portal name and row limit (0: none).
#[must_use]
pub fn execute(body: &[u8]) -> Option<(&[u8], i32)> {
    let mut reader = Reader::new(body);
    let (portal, limit) = (reader.cstr()?, reader.i32()?);
    reader.rest().is_empty().then_some((portal, limit))
}

/// Appends a frame: type byte, length word and whatever `body` writes.
pub fn put_frame(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_i32(0);
    body(out);
    let length = i32::try_from(out.len() - at).unwrap_or(i32::MAX);
    if let Some(word) = out.get_mut(at..at + 4) {
        word.copy_from_slice(&length.to_be_bytes());
    }
}

fn frame(tag: u8, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    put_frame(&mut out, tag, body);
    out.freeze()
}

fn put_cstr(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(text);
    out.put_u8(0);
}

/// A Query message.
#[must_use]
pub fn query(text: &[u8]) -> Bytes {
    frame(QUERY, |out| put_cstr(out, text))
}

/// A Parse message; `types` as in [`Parse::types`].
#[must_use]
pub fn parse(name: &[u8], query: &[u8], types: &[u8]) -> Bytes {
    frame(PARSE, |out| {
        put_cstr(out, name);
        put_cstr(out, query);
        out.put_slice(types);
    })
}

/// A Close message for a prepared statement.
#[must_use]
pub fn close_statement(name: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(name.len() + 8);
    put_close(&mut out, b'S', name);
    out.freeze()
}

/// A Describe message for a prepared statement.
#[must_use]
pub fn describe_statement(name: &[u8]) -> Bytes {
    frame(DESCRIBE, |out| {
        out.put_u8(b'S');
        put_cstr(out, name);
    })
}

/// A Close message for a portal.
#[must_use]
pub fn close_portal(name: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(name.len() + 8);
    put_close(&mut out, b'P', name);
    out.freeze()
}

/// A Bind message without parameters and result formats.
#[must_use]
pub fn bind_nothing(portal: &[u8], statement: &[u8]) -> Bytes {
    bind_nulls(portal, statement, 0)
}

/// A Bind message of so many NULLs, without result formats.
#[must_use]
pub fn bind_nulls(portal: &[u8], statement: &[u8], count: i16) -> Bytes {
    frame(BIND, |out| {
        put_cstr(out, portal);
        put_cstr(out, statement);
        out.put_i16(0);
        out.put_i16(count);
        (0..count).for_each(|_| out.put_i32(-1));
        out.put_i16(0);
    })
}

/// A Bind message from [`Bind::head`] and other result formats.
#[must_use]
pub fn bind_with_result_formats(head: &[u8], result_formats: &[i16]) -> Bytes {
    frame(BIND, |out| {
        out.put_slice(head);
        out.put_i16(i16::try_from(result_formats.len()).unwrap_or(i16::MAX));
        result_formats.iter().for_each(|f| out.put_i16(*f));
    })
}

/// An Execute message.
#[must_use]
pub fn execute_frame(portal: &[u8], limit: i32) -> Bytes {
    frame(EXECUTE, |out| {
        put_cstr(out, portal);
        out.put_i32(limit);
    })
}

/// Sync.
#[must_use]
pub fn sync() -> Bytes {
    Bytes::from_static(b"S\0\0\0\x04")
}

/// Flush.
#[must_use]
pub fn flush() -> Bytes {
    Bytes::from_static(b"H\0\0\0\x04")
}

/// A parameter of [`own_statement_with`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Its type's OID; 0 leaves it to the server.
    pub type_oid: u32,
    /// 0 text, 1 binary.
    pub format: i16,
    /// Its value; `None` is NULL.
    pub value: Option<&'a [u8]>,
}

/// [`own_statement_with`] at most one parameter in binary format.
#[must_use]
pub fn own_statement(name: &[u8], query: &[u8], parameter: Option<&[u8]>) -> Bytes {
    let parameter = parameter.map(|value| Parameter { type_oid: 0, format: 1, value: Some(value) });
    own_statement_with(name, query, parameter.as_slice())
}

/// One statement of pgshadow's own in the extended protocol: Close (what an earlier one left, whose own Close the server skipped
/// after an error), Parse, Bind, Execute and Close of a statement and a portal called `name`, with the result in binary format.
/// The names are gone afterwards, and the client's unnamed statement and portal are untouched.
#[must_use]
pub fn own_statement_with(name: &[u8], query: &[u8], parameters: &[Parameter<'_>]) -> Bytes {
    let count = i16::try_from(parameters.len()).unwrap_or(i16::MAX);
    let values: usize = parameters.iter().map(|p| 10 + p.value.map_or(0, <[u8]>::len)).sum();
    let mut out = BytesMut::with_capacity(query.len() + values + 128);
    put_close(&mut out, b'S', name);
    put_frame(&mut out, PARSE, |out| {
        put_cstr(out, name);
        put_cstr(out, query);
        out.put_i16(count);
        parameters.iter().for_each(|p| out.put_u32(p.type_oid));
    });
    put_frame(&mut out, BIND, |out| {
        put_cstr(out, name);
        put_cstr(out, name);
        out.put_i16(count);
        parameters.iter().for_each(|p| out.put_i16(p.format));
        out.put_i16(count);
        for parameter in parameters {
            let value = parameter.value;
            out.put_i32(value.map_or(-1, |v| i32::try_from(v.len()).unwrap_or(i32::MAX)));
            out.put_slice(value.unwrap_or_default());
        }
        out.put_i16(1);
        out.put_i16(1);
    });
    put_frame(&mut out, EXECUTE, |out| {
        put_cstr(out, name);
        out.put_i32(0);
    });
    put_close(&mut out, b'P', name);
    put_close(&mut out, b'S', name);
    out.freeze()
}

fn put_close(out: &mut BytesMut, kind: u8, name: &[u8]) {
    put_frame(out, CLOSE, |out| {
        out.put_u8(kind);
        put_cstr(out, name);
    });
}

/// How many replies [`own_statement`] gets besides its rows: CloseComplete, ParseComplete, BindComplete, CommandComplete (or
/// EmptyQueryResponse), CloseComplete twice.
pub const OWN_STATEMENT_REPLIES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let bytes = own_statement(b"p", b"select $1", Some(b"\x01\x02"));
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut tags = Vec::new();
        while let Some(frame) = crate::Frame::cut(&mut buffer).unwrap() {
            match frame.tag {
                PARSE => assert_eq!(Parse::read(frame.body()).unwrap().query, b"select $1"),
                BIND => {
                    let bind = Bind::read(frame.body()).unwrap();
                    assert_eq!((bind.portal, bind.statement), (&b"p"[..], &b"p"[..]));
                    assert_eq!(bind.parameters, vec![Some(&b"\x01\x02"[..])]);
                    assert_eq!((bind.format(0), bind.result_formats.as_slice()), (1, &[1][..]));
                }
                _ => {}
            }
            tags.push(frame.tag);
        }
        assert_eq!((tags.as_slice(), buffer.len()), (&b"CPBECC"[..], 0));
    }

    #[test]
    fn malformed_bodies_are_none() {
        assert_eq!(query_text(b"select"), None);
        assert_eq!(query_text(b"select\0x"), None);
        assert_eq!(Parse::read(b"\0select 1\0\0\x02\0\0\0\x17"), None);
        assert_eq!(Bind::read(b"\0\0\0\0\0\x01\x7f\xff\xff\xff"), None);
        assert_eq!(Bind::read(b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"), None);
        assert_eq!(Bind::read(b"\0\0\xff\xff"), None);
        assert_eq!(execute(b"\0\0\0"), None);
    }
}
