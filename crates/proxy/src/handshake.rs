//! From accept to the primary's first ReadyForQuery.
use crate::config::{Config, OtherDatabases, Upstream};
use crate::listener::tune;
use bytes::{Bytes, BytesMut};
use pgshadow_model::Backend;
use pgshadow_wire::startup::{self, Packet, Startup};
use pgshadow_wire::{Frame, backend, error};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// A connection to the primary.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What the client wants.
#[derive(Debug)]
pub(crate) enum Request {
    /// A session; the bytes are to be forwarded.
    Session(Startup),
    /// Another session's query cancelled.
    Cancel(Bytes),
    /// Something that the server itself must answer.
    Unreadable(Bytes),
    /// Nothing: it went away, or broke the rules of encryption.
    Gone,
}

/// Reads what the client wants; SSLRequest and GSSENCRequest are answered with a no.
pub(crate) async fn request(client: &mut TcpStream, buffer: &mut BytesMut) -> std::io::Result<Request> {
    loop {
        match startup::cut(buffer) {
            None => {
                if client.read_buf(buffer).await? == 0 {
                    let rest = buffer.split().freeze();
                    return Ok(if rest.is_empty() { Request::Gone } else { Request::Unreadable(rest) });
                }
            }
            Some(Packet::Ssl | Packet::Gssenc) => {
                // bytes behind the request were sent in the clear by somebody who could not know the answer
                if !buffer.is_empty() {
                    let message = "received unencrypted data after SSL or GSSENC request";
                    client.write_all(&error::fatal("08P01", message, "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.")).await?;
                    return Ok(Request::Gone);
                }
                client.write_all(b"N").await?;
            }
            Some(Packet::Cancel(bytes)) => return Ok(Request::Cancel(bytes)),
            Some(Packet::Startup(startup)) => return Ok(Request::Session(startup)),
            Some(Packet::Unreadable(bytes)) => return Ok(Request::Unreadable(bytes)),
        }
    }
}

/// Whether, and how, a session to this database is let through.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Mirrored,
    Unmirrored,
    Refused(Bytes),
}

/// Judges a startup packet.
pub(crate) fn admit(config: &Config, startup: &Startup, mirroring: bool) -> Admission {
    let database = String::from_utf8_lossy(startup.database()).into_owned();
    if !mirroring {
        return Admission::Unmirrored;
    }
    if database != config.database && startup.parameter("replication") != Some(b"true") {
        return match config.other_databases {
            OtherDatabases::Pass => Admission::Unmirrored,
            OtherDatabases::Refuse => Admission::Refused(error::fatal(
                "3D000",
                &format!("pgshadow migrates the database \"{}\", not \"{database}\"", config.database),
                "Connect to that database's server directly, or set [listen] other_databases = \"pass\".",
            )),
        };
    }
    if startup.replication() {
        return Admission::Refused(error::fatal(
            "0A000",
            "pgshadow can't mirror a replication connection, which could write unseen",
            "Connect replication clients (pg_basebackup, logical decoding) to the database server directly.",
        ));
    }
    Admission::Mirrored
}

/// Connects to a server.
pub(crate) async fn connect(upstream: &Upstream) -> std::io::Result<Box<dyn Stream>> {
    Ok(match upstream {
        Upstream::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            tune(&stream);
            Box::new(stream)
        }
        Upstream::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

/// Looks through the server's login answers as they are forwarded, for the key data and the end of the login.
#[derive(Debug, Default)]
pub(crate) struct Login {
    pub backend: Option<Backend>,
    /// ParameterStatus messages.
    pub reported: Vec<Frame>,
    pub ready: bool,
}

impl Login {
    /// Takes one of the server's frames up to the first ReadyForQuery.
    pub fn saw(&mut self, frame: &Frame) {
        match frame.tag {
            backend::BACKEND_KEY_DATA => {
                self.backend = backend::key_data(frame.body())
                    .map(|(pid, key)| Backend { pid, cancel_key: Bytes::copy_from_slice(key) });
            }
            backend::PARAMETER_STATUS => self.reported.push(frame.clone()),
            backend::READY_FOR_QUERY => self.ready = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Authentication;
    use std::time::Duration;

    fn config(other_databases: OtherDatabases) -> Config {
        Config {
            listen: ([127, 0, 0, 1], 0).into(),
            database: "app".into(),
            other_databases,
            authentication: Authentication::Relay,
            connect_timeout: Duration::from_secs(1),
            startup_timeout: Duration::from_secs(1),
            clients_max: 10,
        }
    }

    fn startup(parameters: &[(&str, &str)]) -> Startup {
        let own = |s: &str| Bytes::copy_from_slice(s.as_bytes());
        let parameters = parameters.iter().map(|(n, v)| (own(n), own(v))).collect();
        Startup { protocol: 196_608, parameters, bytes: Bytes::new() }
    }

    #[test]
    fn only_the_migrated_database_is_mirrored() {
        let refuse = config(OtherDatabases::Refuse);
        assert_eq!(admit(&refuse, &startup(&[("user", "u"), ("database", "app")]), true), Admission::Mirrored);
        assert_eq!(admit(&refuse, &startup(&[("user", "app")]), true), Admission::Mirrored);
        assert!(matches!(admit(&refuse, &startup(&[("user", "u")]), true), Admission::Refused(_)));
        assert_eq!(admit(&config(OtherDatabases::Pass), &startup(&[("user", "u")]), true), Admission::Unmirrored);
        let twice = startup(&[("user", "u"), ("database", "app"), ("database", "other")]);
        assert!(matches!(admit(&refuse, &twice, true), Admission::Refused(_)));
    }

    #[test]
    fn a_walsender_is_refused() {
        let walsender = startup(&[("user", "u"), ("database", "app"), ("replication", "database")]);
        assert!(matches!(admit(&config(OtherDatabases::Pass), &walsender, true), Admission::Refused(_)));
        assert!(matches!(
            admit(
                &config(OtherDatabases::Pass),
                &startup(&[("user", "u"), ("database", "app"), ("replication", "true")]),
                true
            ),
            Admission::Refused(_)
        ));
    }
}
