//! One client, from accept to close.
use crate::cancel::{self, Cancels};
use crate::config::{Authentication, Config, Upstream};
use crate::handshake::{Admission, Request, admit, connect, request};
use crate::listener::Gate;
use crate::login;
use crate::relay::{Beginning, Relay, resumed};
use crate::route::Routes;
use crate::sessions::Sessions;
use bytes::{Bytes, BytesMut};
use pgshadow_telemetry::Counter;
use pgshadow_wire::error;
use std::io::Result;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Serves one client to its end. `full`: there are as many clients as are allowed.
pub(crate) async fn run<J: Gate>(
    mut client: TcpStream,
    config: &Config,
    (routes, sessions, cancels): (&Arc<Routes<J>>, &Arc<Sessions>, &Arc<Cancels>),
    shutdown: CancellationToken,
    full: bool,
) -> Result<()> {
    let mut buffer = BytesMut::with_capacity(1024);
    let asked = tokio::time::timeout(config.startup_timeout, request(&mut client, &mut buffer));
    let Ok(asked) = asked.await else { return Ok(()) };
    match asked? {
        Request::Gone => Ok(()),
        Request::Cancel(bytes) => cancel::forward(config, &routes.now().upstream, cancels, bytes).await,
        Request::Unreadable(bytes) => pass_refusal(client, config, &routes.now().upstream, bytes).await,
        Request::Session(_) if full => {
            let hint = "Raise the limit, or put a connection pool in front.";
            refuse(client, error::fatal("53300", "sorry, too many clients already (pgshadow)", hint)).await
        }
        Request::Session(startup) => {
            let mirrored = match admit(config, &startup, routes.now().shared.is_some()) {
                Admission::Refused(error) => return refuse(client, error).await,
                Admission::Mirrored => true,
                Admission::Unmirrored => false,
            };
            let mut credential = None;
            if let Authentication::Scram(secrets) = &config.authentication {
                let who = (startup.user(), &**secrets);
                credential = login::check(&mut client, &mut buffer, who, &shutdown).await?;
                if credential.is_none() {
                    return Ok(());
                }
            }
            let turn = match startup.database() == config.database.as_bytes() {
                true => Some(sessions.enter(&startup, client.peer_addr()?)),
                false => None,
            };
            while turn.as_ref().is_some_and(|turn| !turn.begins()) {
                tokio::select! {
                    () = resumed(turn.as_ref()) => {}
                    () = shutdown.cancelled() => return refuse(client, error::shutting_down()).await,
                }
            }
            // as long as it is busy there is no other one; other databases stay where they are
            let route = if turn.is_some() { routes.now() } else { routes.first() };
            let mut server = match tokio::time::timeout(config.connect_timeout, connect(&route.upstream)).await {
                Ok(Ok(server)) => server,
                failed => return refuse(client, unreachable(&route.upstream, failed.err().is_some())).await,
            };
            let shared = route.shared.clone().filter(|_| mirrored);
            if let Some(shared) = &shared {
                shared.journal.known_life().await;
            }
            let packet = if turn.is_some() { route.packet(&startup) } else { startup.bytes.clone() };
            let mut from_server = BytesMut::new();
            if let Some(credential) = &credential {
                let there = (&mut server, &mut from_server);
                let entered =
                    login::log_in(&mut client, there, (&packet, startup.user()), credential, &shutdown).await?;
                if entered.is_none() {
                    return Ok(());
                }
            }
            let (routes, cancels) = (Arc::clone(routes), Arc::clone(cancels));
            let beginning = Beginning {
                client,
                server,
                shared,
                routes,
                route,
                startup,
                packet,
                credential,
                cancels,
                turn,
                from_client: buffer,
                from_server,
            };
            Relay::new(beginning).run(shutdown).await
        }
    }
}

fn unreachable(primary: &Upstream, timed_out: bool) -> Bytes {
    let primary = primary.describe();
    let how = if timed_out { "did not answer in time" } else { "refused the connection" };
    let hint = "Check that the database server runs and that pgshadow can reach it.";
    error::fatal("08001", &format!("the primary at {primary} {how}"), hint)
}

async fn refuse(mut client: TcpStream, error: Bytes) -> Result<()> {
    Counter::ClientConnectionsRefused.add(1);
    client.write_all(&error).await?;
    client.shutdown().await
}

/// A first packet that isn't one: the server's own answer is the best one. Nothing that the client sends later
/// goes through, so that no session can come of it.
async fn pass_refusal(mut client: TcpStream, config: &Config, primary: &Upstream, bytes: Bytes) -> Result<()> {
    let exchange = async {
        let mut server = connect(primary).await?;
        server.write_all(&bytes).await?;
        server.shutdown().await?;
        tokio::io::copy(&mut server, &mut client).await
    };
    // a server that waits for the rest of a packet that never comes
    let _ = tokio::time::timeout(config.startup_timeout, exchange).await;
    client.shutdown().await
}
