//! The few ErrorResponses that pgshadow sends of its own accord, built by pgwire.
use bytes::{Bytes, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::response::ErrorResponse;

/// A FATAL ErrorResponse with SQLSTATE, message and hint.
#[must_use]
pub fn fatal(sqlstate: &str, message: &str, hint: &str) -> Bytes {
    report("FATAL", sqlstate, message, hint)
}

/// What a session is ended with when pgshadow stops (`ERRCODE_ADMIN_SHUTDOWN`).
#[must_use]
pub fn shutting_down() -> Bytes {
    fatal("57P01", "terminating connection due to administrator command", "pgshadow is shutting down.")
}

/// An ERROR with SQLSTATE and message.
#[must_use]
pub fn error(sqlstate: &str, message: &str) -> Bytes {
    report("ERROR", sqlstate, message, "")
}

/// An ERROR with SQLSTATE, message and the remedy.
#[must_use]
pub fn refusal(sqlstate: &str, message: &str, hint: &str) -> Bytes {
    report("ERROR", sqlstate, message, hint)
}

fn report(severity: &str, sqlstate: &str, message: &str, hint: &str) -> Bytes {
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', sqlstate.to_owned()),
        (b'M', message.to_owned()),
    ];
    if !hint.is_empty() {
        fields.push((b'H', hint.to_owned()));
    }
    let mut out = BytesMut::new();
    // encoding into memory can't fail for these fields; an empty answer would only close the connection without a word
    let _ = ErrorResponse::new(fields).encode(&mut out);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_frame_that_names_the_cause() {
        let frame = crate::Frame::cut(&mut BytesMut::from(&fatal("3D000", "no such database", "try app")[..]))
            .unwrap()
            .unwrap();
        assert_eq!(frame.tag, b'E');
        assert_eq!(crate::backend::error_field(frame.body(), b'C'), Some(&b"3D000"[..]));
        assert_eq!(crate::backend::error_field(frame.body(), b'H'), Some(&b"try app"[..]));
    }
}
