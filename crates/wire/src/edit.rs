//! Edits of server messages: what pgshadow added to a statement is taken out of its answers again.
use crate::{Frame, backend};
use bytes::{BufMut, Bytes, BytesMut};

fn rebuilt(tag: u8, body_len: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(body_len + 5);
    out.put_u8(tag);
    out.put_i32(i32::try_from(body_len + 4).unwrap_or(i32::MAX));
    out
}

/// A RowDescription without its last column; `None` if it is malformed or has no column.
#[must_use]
pub fn without_last_column(frame: &Frame) -> Option<Bytes> {
    let body = frame.body();
    let start = backend::last_column(body)?;
    without_tail(frame.tag, body, start)
}

/// A DataRow without its last field; `None` if it is malformed or has no field.
#[must_use]
pub fn without_last_field(frame: &Frame) -> Option<Bytes> {
    let body = frame.body();
    let (field, _) = backend::last_field(body)?;
    without_tail(frame.tag, body, field.start)
}

fn without_tail(tag: u8, body: &[u8], start: usize) -> Option<Bytes> {
    let count = body.first_chunk().map(|b| i16::from_be_bytes(*b))?;
    let mut out = rebuilt(tag, start);
    out.put_i16(count - 1);
    out.put_slice(body.get(2..start)?);
    Some(out.freeze())
}

/// An ErrorResponse or NoticeResponse whose position field (`P`) went through `map`.
#[must_use]
pub fn with_position(frame: &Frame, map: impl Fn(usize) -> usize) -> Option<Bytes> {
    let body = frame.body();
    let position = backend::error_field(body, b'P')?;
    let mapped = map(std::str::from_utf8(position).ok()?.parse().ok()?).to_string();
    let at = position.as_ptr() as usize - body.as_ptr() as usize;
    let mut out = rebuilt(frame.tag, body.len() - position.len() + mapped.len());
    out.put_slice(body.get(..at)?);
    out.put_slice(mapped.as_bytes());
    out.put_slice(body.get(at + position.len()..)?);
    Some(out.freeze())
}

/// An error whose message names the statement `ours`, with `theirs` in its place; `None` if it doesn't.
#[must_use]
pub fn with_statement(frame: &Frame, ours: &[u8], theirs: &[u8]) -> Option<Bytes> {
    let body = frame.body();
    let message = backend::error_field(body, b'M')?;
    let within = message.windows(ours.len()).position(|part| part == ours)?;
    let at = message.as_ptr() as usize - body.as_ptr() as usize + within;
    let mut out = rebuilt(frame.tag, body.len() - ours.len() + theirs.len());
    out.put_slice(body.get(..at)?);
    out.put_slice(theirs);
    out.put_slice(body.get(at + ours.len()..)?);
    Some(out.freeze())
}

/// The server's refusal of a Bind that has another number of result formats than its statement has columns: without the column
/// and the format that pgshadow added, each number in the message is one less. `None` for any other error.
#[must_use]
pub fn without_a_format(frame: &Frame) -> Option<Bytes> {
    let body = frame.body();
    if backend::error_field(body, b'R') != Some(b"PortalSetResultFormat") {
        return None;
    }
    let message = backend::error_field(body, b'M')?;
    let at = message.as_ptr() as usize - body.as_ptr() as usize;
    let mut fewer = Vec::with_capacity(message.len());
    for part in message.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()) {
        match std::str::from_utf8(part).ok().and_then(|part| part.parse::<u64>().ok()) {
            Some(number) => fewer.extend(number.saturating_sub(1).to_string().bytes()),
            None => fewer.extend_from_slice(part),
        }
    }
    let mut out = rebuilt(frame.tag, body.len() - message.len() + fewer.len());
    out.put_slice(body.get(..at)?);
    out.put_slice(&fewer);
    out.put_slice(body.get(at + message.len()..)?);
    Some(out.freeze())
}

/// ParameterDescription; `types` are the count and the OIDs as Parse has them.
#[must_use]
pub fn parameter_description(types: &[u8]) -> Bytes {
    let mut out = rebuilt(backend::PARAMETER_DESCRIPTION, types.len());
    out.put_slice(types);
    out.freeze()
}

/// NoData, in place of the RowDescription of a statement that only pgshadow made to return rows.
#[must_use]
pub fn no_data() -> Bytes {
    Bytes::from_static(b"n\0\0\0\x04")
}

/// PortalSuspended, where pgshadow does the paging.
#[must_use]
pub fn portal_suspended() -> Bytes {
    Bytes::from_static(b"s\0\0\0\x04")
}

/// A CommandComplete with another number of rows; unchanged where its tag has none.
#[must_use]
pub fn with_rows(complete: &Bytes, rows: usize) -> Bytes {
    let tag = complete.get(5..).and_then(|body| body.strip_suffix(b"\0")).and_then(|tag| std::str::from_utf8(tag).ok());
    let Some((words, _)) = tag.and_then(|tag| tag.rsplit_once(' ')) else { return complete.clone() };
    let tag = format!("{words} {rows}\0");
    let mut out = rebuilt(backend::COMMAND_COMPLETE, tag.len());
    out.put_slice(tag.as_bytes());
    out.freeze()
}

/// The server's answer to Execute of a portal that there isn't.
#[must_use]
pub fn no_such_portal(name: &[u8]) -> Bytes {
    let message = format!("portal \"{}\" does not exist", String::from_utf8_lossy(name));
    crate::error::error("34000", &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Frame {
        let mut out = rebuilt(tag, body.len());
        out.put_slice(body);
        Frame { tag, bytes: out.freeze() }
    }

    #[test]
    fn takes_the_last_field_out() {
        let row = frame(b'D', b"\0\x02\0\0\0\x01a\0\0\0\x02bc");
        assert_eq!(without_last_field(&row).unwrap(), frame(b'D', b"\0\x01\0\0\0\x01a").bytes);
        assert_eq!(without_last_field(&frame(b'D', b"\0\x05")), None);
    }

    #[test]
    fn takes_the_last_column_out() {
        let column = [&b"x\0"[..], &[7; 18]].concat();
        let two = [&b"\0\x02"[..], &column, &column].concat();
        let one = [&b"\0\x01"[..], &column].concat();
        assert_eq!(without_last_column(&frame(b'T', &two)).unwrap(), frame(b'T', &one).bytes);
        assert_eq!(without_last_column(&frame(b'T', b"\0\x01x\0")), None);
    }

    #[test]
    fn takes_a_format_out_of_a_refusal() {
        let refusal = |numbers: (u8, u8)| {
            let body = format!("C08P01\0M{} formats but {} columns\0RPortalSetResultFormat\0\0", numbers.0, numbers.1);
            frame(b'E', body.as_bytes())
        };
        assert_eq!(without_a_format(&refusal((10, 3))).unwrap(), refusal((9, 2)).bytes);
        assert_eq!(without_a_format(&frame(b'E', b"C08P01\0M1 2\0\0")), None);
    }

    #[test]
    fn maps_an_error_position() {
        let error = frame(b'E', b"C42601\0P120\0Mno\0\0");
        assert_eq!(with_position(&error, |p| p - 100).unwrap(), frame(b'E', b"C42601\0P20\0Mno\0\0").bytes);
        assert_eq!(with_position(&frame(b'E', b"C42601\0\0"), |p| p), None);
    }
}
