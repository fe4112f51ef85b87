//! What a client sends before its session: SSLRequest, GSSENCRequest, CancelRequest, StartupMessage.
use crate::Reader;
use bytes::{BufMut, Bytes, BytesMut};

/// Longest packet that PostgreSQL accepts before authentication (`MAX_STARTUP_PACKET_LENGTH`), bytes.
pub const PACKET_MAX: usize = 10_000;

const CANCEL: i32 = 80_877_102;
const SSL: i32 = 80_877_103;
const GSSENC: i32 = 80_877_104;

/// The first packet, or the next one after a refused encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Asks for TLS.
    Ssl,
    /// Asks for GSSAPI encryption.
    Gssenc,
    /// Asks to cancel another session's query; to be forwarded as it is.
    Cancel(Bytes),
    /// Starts a session.
    Startup(Startup),
    /// Something that only the server itself can answer (an old protocol, a broken packet): to be forwarded as it is.
    Unreadable(Bytes),
}

/// A StartupMessage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// Protocol version: major in the high 16 bits.
    pub protocol: i32,
    /// Name and value in the client's order, duplicates included (PostgreSQL takes the last).
    pub parameters: Vec<(Bytes, Bytes)>,
    /// The packet as it came.
    pub bytes: Bytes,
}

impl Startup {
    /// The value that PostgreSQL would take: the last of that name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().rev().find(|(n, _)| n.as_ref() == name.as_bytes()).map(|(_, v)| v.as_ref())
    }

    /// User name.
    #[must_use]
    pub fn user(&self) -> &[u8] {
        self.parameter("user").unwrap_or_default()
    }

    /// Database name; the user's name where none, or an empty one, is given.
    #[must_use]
    pub fn database(&self) -> &[u8] {
        self.parameter("database").filter(|d| !d.is_empty()).unwrap_or_else(|| self.user())
    }

    /// The packet with another database, its other parameters as they are.
    #[must_use]
    pub fn with_database(&self, database: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes.len() + database.len() + 16);
        out.put_i32(0);
        out.put_i32(self.protocol);
        let others = self.parameters.iter().filter(|(name, _)| name.as_ref() != b"database");
        let others = others.map(|(name, value)| (name.as_ref(), value.as_ref()));
        for (name, value) in others.chain([(&b"database"[..], database)]) {
            for text in [name, value] {
                out.put_slice(text);
                out.put_u8(0);
            }
        }
        out.put_u8(0);
        let length = i32::try_from(out.len()).unwrap_or(i32::MAX);
        if let Some(word) = out.get_mut(..4) {
            word.copy_from_slice(&length.to_be_bytes());
        }
        out.freeze()
    }

    /// Whether a walsender is asked for (`replication` set to anything but a false boolean).
    #[must_use]
    pub fn replication(&self) -> bool {
        self.parameter("replication").is_some_and(|v| {
            let value = v.to_ascii_lowercase();
            !matches!(value.as_slice(), b"" | b"false" | b"off" | b"no" | b"0" | b"f" | b"n")
        })
    }
}

/// Cuts the packet at the front of `buffer`; `None` while it isn't whole.
///
/// A length that PostgreSQL would refuse makes everything read so far [`Packet::Unreadable`].
pub fn cut(buffer: &mut BytesMut) -> Option<Packet> {
    let length = i32::from_be_bytes(*buffer.first_chunk::<4>()?);
    let size = match usize::try_from(length) {
        Ok(n) if (8..=PACKET_MAX).contains(&n) => n,
        _ => return Some(Packet::Unreadable(buffer.split().freeze())),
    };
    if buffer.len() < size {
        return None;
    }
    let bytes = buffer.split_to(size).freeze();
    Some(read(bytes.clone()).unwrap_or(Packet::Unreadable(bytes)))
}

fn read(bytes: Bytes) -> Option<Packet> {
    let mut reader = Reader::new(bytes.get(4..)?);
    Some(match reader.i32()? {
        SSL if bytes.len() == 8 => Packet::Ssl,
        GSSENC if bytes.len() == 8 => Packet::Gssenc,
        CANCEL => Packet::Cancel(bytes),
        protocol if protocol >> 16 == 3 => {
            let mut parameters = Vec::new();
            loop {
                let name = reader.cstr()?;
                if name.is_empty() {
                    break;
                }
                parameters.push((bytes.slice_ref(name), bytes.slice_ref(reader.cstr()?)));
            }
            if !reader.rest().is_empty() {
                return None;
            }
            Packet::Startup(Startup { protocol, parameters, bytes })
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    fn packet(code: i32, rest: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_i32(i32::try_from(rest.len()).unwrap() + 8);
        out.put_i32(code);
        out.put_slice(rest);
        out
    }

    #[test]
    fn takes_the_last_of_two_users_as_the_server_does() {
        let Some(Packet::Startup(startup)) = cut(&mut packet(196_608, b"user\0a\0user\0b\0\0")) else { panic!() };
        assert_eq!((startup.user(), startup.database()), (&b"b"[..], &b"b"[..]));
    }

    #[test]
    fn encryption_requests_and_garbage() {
        assert_eq!(cut(&mut packet(SSL, b"")), Some(Packet::Ssl));
        assert_eq!(cut(&mut packet(GSSENC, b"")), Some(Packet::Gssenc));
        assert!(matches!(cut(&mut packet(SSL, b"x")), Some(Packet::Unreadable(_))));
        assert!(matches!(cut(&mut packet(131_072, b"user\0a\0\0")), Some(Packet::Unreadable(_))));
        assert!(matches!(cut(&mut packet(196_608, b"user\0a\0")), Some(Packet::Unreadable(_))));
        assert!(matches!(cut(&mut BytesMut::from(&b"GET / HTTP/1.1"[..])), Some(Packet::Unreadable(_))));
        assert_eq!(cut(&mut BytesMut::from(&b"\0\0\0\x08\x04"[..])), None);
    }
}
