//! Messages of the server: readers for those that capture looks into.
use crate::{Reader, frontend};
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Range;

/// Authentication ('R').
pub const AUTHENTICATION: u8 = b'R';
/// BackendKeyData ('K').
pub const BACKEND_KEY_DATA: u8 = b'K';
/// ReadyForQuery ('Z').
pub const READY_FOR_QUERY: u8 = b'Z';
/// RowDescription ('T').
pub const ROW_DESCRIPTION: u8 = b'T';
/// DataRow ('D').
pub const DATA_ROW: u8 = b'D';
/// CommandComplete ('C').
pub const COMMAND_COMPLETE: u8 = b'C';
/// EmptyQueryResponse ('I').
pub const EMPTY_QUERY: u8 = b'I';
/// ErrorResponse ('E').
pub const ERROR: u8 = b'E';
/// NoticeResponse ('N').
pub const NOTICE: u8 = b'N';
/// NotificationResponse ('A').
pub const NOTIFICATION: u8 = b'A';
/// ParameterStatus ('S').
pub const PARAMETER_STATUS: u8 = b'S';
/// ParseComplete ('1').
pub const PARSE_COMPLETE: u8 = b'1';
/// BindComplete ('2').
pub const BIND_COMPLETE: u8 = b'2';
/// CloseComplete ('3').
pub const CLOSE_COMPLETE: u8 = b'3';
/// NoData ('n').
pub const NO_DATA: u8 = b'n';
/// ParameterDescription ('t').
pub const PARAMETER_DESCRIPTION: u8 = b't';
/// PortalSuspended ('s').
pub const PORTAL_SUSPENDED: u8 = b's';
/// CopyInResponse ('G').
pub const COPY_IN: u8 = b'G';
/// CopyOutResponse ('H').
pub const COPY_OUT: u8 = b'H';
/// CopyBothResponse ('W').
pub const COPY_BOTH: u8 = b'W';
/// FunctionCallResponse ('V').
pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
/// NegotiateProtocolVersion ('v').
pub const NEGOTIATE: u8 = b'v';

/// A ParameterStatus message.
#[must_use]
pub fn parameter_status_frame(name: &[u8], value: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    frontend::put_frame(&mut out, PARAMETER_STATUS, |out| {
        for text in [name, value] {
            out.put_slice(text);
            out.put_u8(0);
        }
    });
    out.freeze()
}

/// The last field of a DataRow: where it stands in the body (its length word included), and its value.
#[must_use]
pub fn last_field(body: &[u8]) -> Option<(Range<usize>, Option<Range<usize>>)> {
    let mut reader = Reader::new(body);
    let count = usize::try_from(reader.i16()?).ok()?;
    for _ in 1..count {
        reader.value()?;
    }
    let start = body.len() - reader.rest().len();
    if count == 0 {
        return None;
    }
    let value = reader.value()?;
    let end = body.len() - reader.rest().len();
    reader.rest().is_empty().then(|| (start..end, value.map(|v| end - v.len()..end)))
}

/// A ReadyForQuery with this transaction status.
#[must_use]
pub fn ready_for_query(status: u8) -> Bytes {
    let mut out = BytesMut::new();
    frontend::put_frame(&mut out, READY_FOR_QUERY, |out| out.put_u8(status));
    out.freeze()
}

/// The fields of a DataRow.
#[must_use]
pub fn fields(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let mut reader = Reader::new(body);
    let count = usize::try_from(reader.i16()?).ok()?;
    (0..count).map(|_| reader.value()).collect()
}

/// OIDs of the types that a RowDescription names; up to where it can be read.
pub fn column_types(body: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let mut reader = Reader::new(body);
    let count = reader.i16().unwrap_or_default();
    (0..count).map_while(move |_| {
        reader.cstr()?;
        // the column's table and number
        reader.take(6)?;
        let oid = reader.u32()?;
        // the type's size and modifier, and the format
        reader.take(8)?;
        Some(oid)
    })
}

/// Where the last field of a RowDescription starts in its body.
#[must_use]
pub fn last_column(body: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(body);
    let count = usize::try_from(reader.i16()?).ok()?;
    let mut start = None;
    for _ in 0..count {
        start = Some(body.len() - reader.rest().len());
        reader.cstr()?;
        reader.take(18)?;
    }
    reader.rest().is_empty().then_some(start)?
}

/// The tag of a CommandComplete, without its zero.
#[must_use]
pub fn command_tag(body: &[u8]) -> Option<&[u8]> {
    Reader::new(body).cstr()
}

/// The row count at the end of a command tag, as in `UPDATE 3` or `INSERT 0 1`.
#[must_use]
pub fn tag_rows(tag: &[u8]) -> Option<u64> {
    std::str::from_utf8(tag).ok()?.rsplit(' ').next()?.parse().ok()
}

/// Name and value of a ParameterStatus.
#[must_use]
pub fn parameter_status(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader::new(body);
    Some((reader.cstr()?, reader.cstr()?))
}

/// Process id and secret key of a BackendKeyData (4 bytes in protocol 3.0, up to 256 in 3.2).
#[must_use]
pub fn key_data(body: &[u8]) -> Option<(i32, &[u8])> {
    let mut reader = Reader::new(body);
    Some((reader.i32()?, reader.rest()))
}

/// One field of an ErrorResponse or NoticeResponse by its code (`C` SQLSTATE, `M` message, `P` position, ...).
#[must_use]
pub fn error_field(body: &[u8], code: u8) -> Option<&[u8]> {
    let mut reader = Reader::new(body);
    loop {
        match reader.u8()? {
            0 => return None,
            c if c == code => return reader.cstr(),
            _ => {
                reader.cstr()?;
            }
        }
    }
}

/// Bytea in text format (either `bytea_output`) to bytes.
#[must_use]
pub fn bytea_text(text: &[u8]) -> Option<Vec<u8>> {
    if let Some(hex) = text.strip_prefix(b"\\x") {
        return hex.chunks(2).map(|pair| Some(nibble(*pair.first()?)? << 4 | nibble(*pair.get(1)?)?)).collect();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match (byte, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                out.push(b'\\');
                tail
            }
            (b'\\', [a, b, c, tail @ ..]) => {
                let digit = |d: u8| (b'0'..=b'7').contains(&d).then(|| u32::from(d - b'0'));
                out.push(u8::try_from(digit(*a)? << 6 | digit(*b)? << 3 | digit(*c)?).ok()?);
                tail
            }
            (b'\\', _) => return None,
            _ => {
                out.push(byte);
                tail
            }
        };
    }
    Some(out)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytea_in_both_outputs() {
        assert_eq!(bytea_text(b"\\x00ff41").unwrap(), b"\x00\xffA");
        assert_eq!(bytea_text(b"a\\\\b\\000\\377").unwrap(), b"a\\b\x00\xff");
        assert_eq!(bytea_text(b"\\x0"), None);
        assert_eq!(bytea_text(b"\\9"), None);
        assert_eq!(bytea_text(b"\\777"), None);
    }

    #[test]
    fn finds_the_last_field() {
        let body = b"\0\x02\0\0\0\x01a\0\0\0\x02bc";
        assert_eq!(last_field(body), Some((7..13, Some(11..13))));
        assert_eq!(last_field(b"\0\x01\xff\xff\xff\xff"), Some((2..6, None)));
        assert_eq!(last_field(b"\0\0"), None);
        assert_eq!(last_field(b"\0\x01\0\0\0\x09a"), None);
    }

    #[test]
    fn tags_and_errors() {
        assert_eq!(tag_rows(b"INSERT 0 12"), Some(12));
        assert_eq!(tag_rows(b"BEGIN"), None);
        assert_eq!(error_field(b"SERROR\0C23505\0P7\0\0", b'P'), Some(&b"7"[..]));
        assert_eq!(error_field(b"SERROR\0", b'P'), None);
    }
}
