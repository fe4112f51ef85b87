//! Messages of authentication (manual, "Message Formats"): readers for what pgshadow must understand where it logs in, or checks a client,
//! itself; the few that it sends are built by pgwire and postgres-protocol.
use crate::{Reader, scram};
use bytes::{Bytes, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::startup::Authentication;
use postgres_protocol::message::frontend;

/// What a server asks for, or says, in an Authentication message ('R').
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// AuthenticationOk.
    Ok,
    /// AuthenticationCleartextPassword.
    Cleartext,
    /// AuthenticationMD5Password, with its salt.
    Md5([u8; 4]),
    /// AuthenticationSASL that has [`scram::MECHANISM`] among its mechanisms.
    Scram,
    /// AuthenticationSASLContinue.
    Continue(&'a [u8]),
    /// AuthenticationSASLFinal.
    Final(&'a [u8]),
    /// Anything else (GSSAPI, SSPI, other mechanisms), by its code.
    Other(i32),
}

impl<'a> Request<'a> {
    /// Reads the body; `None` if it is malformed.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        Some(match reader.i32()? {
            0 => Self::Ok,
            3 => Self::Cleartext,
            5 => Self::Md5(*reader.take(4)?.first_chunk()?),
            10 => loop {
                match reader.cstr()? {
                    b"" => break Self::Other(10),
                    name if name == scram::MECHANISM.as_bytes() => break Self::Scram,
                    _ => {}
                }
            },
            11 => Self::Continue(reader.rest()),
            12 => Self::Final(reader.rest()),
            other => Self::Other(other),
        })
    }
}

/// The mechanism that a SASLInitialResponse chooses, and the client's first message; `None` if it is malformed or has no message.
#[must_use]
pub fn initial_response(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader::new(body);
    let (mechanism, message) = (reader.cstr()?, reader.value()??);
    reader.rest().is_empty().then_some((mechanism, message))
}

fn encoded(message: &Authentication) -> Bytes {
    let mut out = BytesMut::new();
    // encoding into memory can't fail; an empty answer would only close the connection without a word
    let _ = message.encode(&mut out);
    out.freeze()
}

/// AuthenticationSASL with [`scram::MECHANISM`] alone: channel binding would bind to a connection that isn't the client's.
#[must_use]
pub fn ask() -> Bytes {
    encoded(&Authentication::SASL(vec![scram::MECHANISM.to_owned()]))
}

/// AuthenticationSASLContinue.
#[must_use]
pub fn go_on(message: String) -> Bytes {
    encoded(&Authentication::SASLContinue(message.into()))
}

/// AuthenticationSASLFinal.
#[must_use]
pub fn end(message: String) -> Bytes {
    encoded(&Authentication::SASLFinal(message.into()))
}

fn built(build: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Bytes {
    let mut out = BytesMut::new();
    // fails by a zero byte in a password, or by 2 GiB
    if build(&mut out).is_err() {
        out.clear();
    }
    out.freeze()
}

/// A SASLInitialResponse with [`scram::MECHANISM`].
#[must_use]
pub fn first(message: &[u8]) -> Bytes {
    built(|out| frontend::sasl_initial_response(scram::MECHANISM, message, out))
}

/// A SASLResponse.
#[must_use]
pub fn response(message: &[u8]) -> Bytes {
    built(|out| frontend::sasl_response(message, out))
}

/// A PasswordMessage.
#[must_use]
pub fn password(text: &[u8]) -> Bytes {
    built(|out| frontend::password_message(text, out))
}

/// A PasswordMessage for a server that asks for md5.
#[must_use]
pub fn md5_password(user: &[u8], text: &[u8], salt: [u8; 4]) -> Bytes {
    password(postgres_protocol::authentication::md5_hash(user, text, salt).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let body = |bytes: Bytes| {
            let frame = Frame::cut(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
            frame.body().to_vec()
        };
        assert_eq!(Request::read(&body(ask())), Some(Request::Scram));
        assert_eq!(Request::read(&body(go_on("r=x".into()))), Some(Request::Continue(b"r=x")));
        assert_eq!(Request::read(&body(end("v=x".into()))), Some(Request::Final(b"v=x")));
        assert_eq!(initial_response(&body(first(b"n,,n=,r=x"))), Some((&b"SCRAM-SHA-256"[..], &b"n,,n=,r=x"[..])));
        assert_eq!(body(password(b"secret")), b"secret\0");
    }

    #[test]
    fn other_requests_and_broken_ones() {
        assert_eq!(Request::read(b"\0\0\0\x05abcd"), Some(Request::Md5(*b"abcd")));
        assert_eq!(Request::read(b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"), Some(Request::Scram));
        assert_eq!(Request::read(b"\0\0\0\x0aOAUTHBEARER\0\0"), Some(Request::Other(10)));
        assert_eq!(Request::read(b"\0\0\0\x07"), Some(Request::Other(7)));
        assert_eq!(Request::read(b"\0\0\0\x05ab"), None);
        assert_eq!(Request::read(b"\0\0\0\x0aSCRAM"), None);
        assert_eq!(initial_response(b"SCRAM-SHA-256\0\0\0\0\x09n"), None);
        assert_eq!(initial_response(b"SCRAM-SHA-256\0\xff\xff\xff\xff"), None);
    }
}
