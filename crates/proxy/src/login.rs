//! Authentication mode `scram`: pgshadow checks the client itself, against a verifier, and logs in to the server with what the client's
//! proof gives away. So it can do that again, on the other server, when the primary is flipped.
use crate::handshake::Stream;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use pgshadow_wire::authentication::{self, Request};
use pgshadow_wire::scram::{self, Challenge, Credential, Verifier};
use pgshadow_wire::{Frame, Header, backend, error};
use std::fmt;
use std::future::Future;
use std::io::Result;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// How long it may take all together, as PostgreSQL's `authentication_timeout`.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest message of a client that isn't logged in (PostgreSQL's `PG_MAX_AUTH_TOKEN_LENGTH`), bytes.
const CLIENT_MESSAGE_MAX: usize = 65_535;
/// Longest message that a server may send meanwhile, bytes.
const SERVER_MESSAGE_MAX: usize = 1 << 20;

/// What a user is checked against.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// A verifier: the session is logged in with the key that the client's proof holds.
    Verifier(Verifier),
    /// A password, with a verifier made of it: the session is logged in with the password, whatever verifier, or md5 hash, the server keeps.
    Password(Vec<u8>, Verifier),
}

/// Nothing of it.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verifier(_) => "Verifier",
            Self::Password(..) => "Password",
        })
    }
}

/// Where users' secrets are known.
pub trait Secrets: fmt::Debug + Send + Sync {
    /// The user's; `None` for a user who has none. An error says why that can't be found out now: for the log, since the client isn't known.
    fn of<'a>(&'a self, user: &'a [u8]) -> BoxFuture<'a, std::result::Result<Option<Secret>, String>>;
    /// Random, and the same for as long as the process lives: of it the salts of unknown users are made.
    fn salt(&self) -> &[u8; 32];
}

/// Why nobody is logged in.
enum Refusal {
    /// The client has been told, or went away.
    Told,
    /// It is told this.
    With(Bytes),
}

impl From<std::io::Error> for Refusal {
    fn from(_: std::io::Error) -> Self {
        Self::Told
    }
}

/// Checks a client, before any server knows of it. `None`: it was told why it isn't let in, or went away.
pub(crate) async fn check(
    client: &mut TcpStream,
    from_client: &mut BytesMut,
    (user, secrets): (&[u8], &dyn Secrets),
    shutdown: &CancellationToken,
) -> Result<Option<Credential>> {
    let checked = in_time(exchange(client, from_client, user, secrets), shutdown).await;
    told(client, checked).await
}

/// Logs a client in that was checked, up to the server's AuthenticationOk, which is left at the front of `from_server`. `None`: it was told
/// why that can't be, or went away.
pub(crate) async fn log_in(
    client: &mut TcpStream,
    server: (&mut Box<dyn Stream>, &mut BytesMut),
    (packet, user): (&Bytes, &[u8]),
    credential: &Credential,
    shutdown: &CancellationToken,
) -> Result<Option<()>> {
    let entered = in_time(enter(client, server, packet, user, credential), shutdown).await;
    told(client, entered).await
}

async fn in_time<T>(
    work: impl Future<Output = std::result::Result<T, Refusal>>,
    shutdown: &CancellationToken,
) -> std::result::Result<T, Refusal> {
    tokio::select! {
        done = tokio::time::timeout(TIMEOUT, work) => done.unwrap_or(Err(Refusal::Told)),
        () = shutdown.cancelled() => Err(Refusal::With(error::shutting_down())),
    }
}

async fn told<T>(client: &mut TcpStream, done: std::result::Result<T, Refusal>) -> Result<Option<T>> {
    match done {
        Ok(done) => return Ok(Some(done)),
        Err(Refusal::With(error)) => client.write_all(&error).await?,
        Err(Refusal::Told) => {}
    }
    client.shutdown().await?;
    Ok(None)
}

async fn exchange(
    client: &mut TcpStream,
    from_client: &mut BytesMut,
    user: &[u8],
    secrets: &dyn Secrets,
) -> std::result::Result<Credential, Refusal> {
    let name = String::from_utf8_lossy(user).into_owned();
    let secret = secrets.of(user).await.map_err(|why| {
        tracing::warn!(user = name, why, "a client can't be checked");
        let hint = "Look into pgshadow's log; [auth] says where users are known.";
        Refusal::With(error::fatal("58000", &format!("pgshadow can't check user \"{name}\" now"), hint))
    })?;
    let verifier = match &secret {
        Some(Secret::Verifier(verifier) | Secret::Password(_, verifier)) => verifier.clone(),
        None => Verifier::of_nobody(user, secrets.salt()),
    };
    let refused = |why: scram::Error| match why {
        scram::Error::WrongPassword => {
            tracing::info!(user = name, "password authentication failed");
            let message = format!("password authentication failed for user \"{name}\"");
            Refusal::With(error::fatal("28P01", &message, ""))
        }
        why => Refusal::With(error::fatal("08P01", &why.to_string(), "")),
    };
    let malformed = |what: &str| refused(scram::Error::Malformed(what.to_owned()));
    client.write_all(&authentication::ask()).await?;
    let response = answer(client, from_client).await?;
    let initial = authentication::initial_response(response.body());
    let (mechanism, first) = initial.ok_or_else(|| malformed("no initial response"))?;
    if mechanism != scram::MECHANISM.as_bytes() {
        return Err(malformed("client selected an invalid SASL authentication mechanism"));
    }
    let (challenge, server_first) = Challenge::begin(verifier, first).map_err(refused)?;
    client.write_all(&authentication::go_on(server_first)).await?;
    let response = answer(client, from_client).await?;
    let (keys, server_final) = challenge.finish(response.body()).map_err(refused)?;
    client.write_all(&authentication::end(server_final)).await?;
    Ok(match secret {
        Some(Secret::Password(password, _)) => Credential::Password(password),
        _ => Credential::Keys(keys),
    })
}

/// The client's answer.
async fn answer(client: &mut TcpStream, from_client: &mut BytesMut) -> std::result::Result<Frame, Refusal> {
    let frame = read(client, from_client, CLIENT_MESSAGE_MAX).await?.ok_or(Refusal::Told)?;
    if frame.tag == b'p' {
        return Ok(frame);
    }
    let message = format!("expected SASL response, got message type {}", frame.tag);
    Err(Refusal::With(error::fatal("08P01", &message, "")))
}

async fn enter(
    client: &mut TcpStream,
    (server, from_server): (&mut Box<dyn Stream>, &mut BytesMut),
    packet: &Bytes,
    user: &[u8],
    credential: &Credential,
) -> std::result::Result<(), Refusal> {
    server.write_all(packet).await?;
    let mut exchange = Exchange::new(user, credential);
    loop {
        let frame = read(server, from_server, SERVER_MESSAGE_MAX).await?.ok_or(Refusal::Told)?;
        if frame.tag != backend::AUTHENTICATION {
            client.write_all(&frame.bytes).await?;
            if frame.tag == backend::ERROR {
                return Err(Refusal::Told);
            }
            continue;
        }
        match exchange.answer(frame.body()) {
            Ok(Answer::Send(bytes)) => server.write_all(&bytes).await?,
            Ok(Answer::Nothing) => {}
            Ok(Answer::LoggedIn) => {
                let behind = std::mem::take(from_server);
                from_server.extend_from_slice(&frame.bytes);
                from_server.extend_from_slice(&behind);
                return Ok(());
            }
            Err((why, remedy)) => {
                let name = String::from_utf8_lossy(user);
                tracing::warn!(user = %name, why, "a client can't be logged in to the primary");
                let message = format!("pgshadow can't log in user \"{name}\" to the primary: {why}");
                return Err(Refusal::With(error::fatal("28000", &message, remedy)));
            }
        }
    }
}

/// A login to a server.
pub(crate) struct Exchange<'a> {
    user: &'a [u8],
    credential: &'a Credential,
    scram: Option<scram::Login>,
    begun: bool,
}

/// What is to be done about a server's Authentication message.
pub(crate) enum Answer {
    Send(Bytes),
    Nothing,
    LoggedIn,
}

const WITH_A_PASSWORD: &str = "Put the user's password into [auth] users_file in place of the verifier, or have the server ask for scram-sha-256.";
const SAME_VERIFIER: &str = "Give the role the same verifier (pg_authid.rolpassword) on both servers and in [auth] users_file, or put its password into that file.";

impl<'a> Exchange<'a> {
    pub fn new(user: &'a [u8], credential: &'a Credential) -> Self {
        Self { user, credential, scram: None, begun: false }
    }

    /// Answers the body of an Authentication message; an error is why that can't be done, and a remedy.
    pub fn answer(&mut self, body: &[u8]) -> std::result::Result<Answer, (String, &'static str)> {
        let told = |error: scram::Error| (error.to_string(), SAME_VERIFIER);
        Ok(match (Request::read(body), self.credential) {
            // a server that hasn't shown that it knows the verifier isn't the one
            (Some(Request::Ok), _) if self.scram.is_some() => return Err(out_of_turn()),
            (Some(Request::Ok), _) => Answer::LoggedIn,
            (Some(Request::Scram), credential) => {
                let (exchange, first) = scram::Login::begin(credential);
                (self.scram, self.begun) = (Some(exchange), true);
                Answer::Send(authentication::first(&first))
            }
            (Some(Request::Continue(message)), _) => {
                let exchange = self.scram.as_mut().ok_or_else(out_of_turn)?;
                Answer::Send(authentication::response(&exchange.proof(message).map_err(told)?))
            }
            (Some(Request::Final(message)), _) => {
                self.scram.take().ok_or_else(out_of_turn)?.finish(message).map_err(told)?;
                Answer::Nothing
            }
            // who has asked for SCRAM has no use for the password itself, but for somebody else
            (Some(Request::Cleartext | Request::Md5(_)), _) if self.begun => return Err(out_of_turn()),
            (Some(Request::Cleartext), Credential::Password(password)) => {
                Answer::Send(authentication::password(password))
            }
            (Some(Request::Md5(salt)), Credential::Password(password)) => {
                Answer::Send(authentication::md5_password(self.user, password, salt))
            }
            (Some(Request::Cleartext | Request::Md5(_)), Credential::Keys(_)) => {
                return Err((
                    "the server asks for the password itself, which pgshadow doesn't have".to_owned(),
                    WITH_A_PASSWORD,
                ));
            }
            (Some(Request::Other(code)), _) => {
                let why = format!(
                    "the server asks for a kind of authentication that pgshadow can't do for a client (code {code})"
                );
                return Err((why, "Have pg_hba.conf ask for scram-sha-256 of connections from pgshadow."));
            }
            (None, _) => return Err(out_of_turn()),
        })
    }
}

fn out_of_turn() -> (String, &'static str) {
    ("the server sent an authentication message that can't be read".to_owned(), "Look into the server's log.")
}

/// The next frame; `None` at the end of the stream, or of one that is no frame or too long.
pub(crate) async fn read<S: AsyncRead + Unpin + ?Sized>(
    stream: &mut S,
    buffer: &mut BytesMut,
    max: usize,
) -> Result<Option<Frame>> {
    loop {
        match Header::read(buffer) {
            Ok(Some(header)) if header.size > max => return Ok(None),
            Err(_) => return Ok(None),
            Ok(_) => {}
        }
        if let Ok(Some(frame)) = Frame::cut(buffer) {
            return Ok(Some(frame));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AuthenticationSASL with the one mechanism.
    const SCRAM: &[u8] = b"\0\0\0\x0aSCRAM-SHA-256\0\0";

    /// Who has begun to show that it knows the verifier isn't given the password, and isn't believed before it has.
    #[test]
    fn a_server_that_breaks_off_is_told_nothing() {
        let credential = Credential::Password(b"secret".to_vec());
        for next in [&b"\0\0\0\x03"[..], b"\0\0\0\x05abcd", b"\0\0\0\0"] {
            let mut exchange = Exchange::new(b"app", &credential);
            assert!(matches!(exchange.answer(SCRAM), Ok(Answer::Send(_))));
            assert!(exchange.answer(next).is_err(), "{next:?}");
        }
        assert!(matches!(Exchange::new(b"app", &credential).answer(b"\0\0\0\x03"), Ok(Answer::Send(_))));
        assert!(matches!(Exchange::new(b"app", &credential).answer(b"\0\0\0\0"), Ok(Answer::LoggedIn)));
    }
}
