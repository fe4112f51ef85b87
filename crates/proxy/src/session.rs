//! One client, from accept to close.
use crate::cancel;
use crate::config::Config;
use crate::handshake::{Admission, Request, admit, connect, request};
use crate::listener::Gate;
use crate::relay::Relay;
use bytes::{Bytes, BytesMut};
use pgshadow_capture::Shared;
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
    shared: Option<Arc<Shared<J>>>,
    shutdown: CancellationToken,
    full: bool,
) -> Result<()> {
    let mut buffer = BytesMut::with_capacity(1024);
    let asked = tokio::time::timeout(config.startup_timeout, request(&mut client, &mut buffer));
    let Ok(asked) = asked.await else { return Ok(()) };
    match asked? {
        Request::Gone => Ok(()),
        Request::Cancel(bytes) => cancel::forward(config, bytes).await,
        Request::Unreadable(bytes) => pass_refusal(client, config, bytes).await,
        Request::Session(_) if full => {
            let hint = "Raise the limit, or put a connection pool in front.";
            refuse(client, error::fatal("53300", "sorry, too many clients already (pgshadow)", hint)).await
        }
        Request::Session(startup) => {
            let shared = match admit(config, &startup, shared.is_some()) {
                Admission::Refused(error) => return refuse(client, error).await,
                Admission::Mirrored => shared,
                Admission::Unmirrored => None,
            };
            let server = match tokio::time::timeout(config.connect_timeout, connect(&config.upstream)).await {
                Ok(Ok(server)) => server,
                failed => return refuse(client, unreachable(config, failed.err().is_some())).await,
            };
            if let Some(shared) = &shared {
                shared.journal.known_life().await;
            }
            Relay::new(client, server, shared, buffer).run(startup.bytes, shutdown).await
        }
    }
}

fn unreachable(config: &Config, timed_out: bool) -> Bytes {
    let primary = config.upstream.describe();
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
async fn pass_refusal(mut client: TcpStream, config: &Config, bytes: Bytes) -> Result<()> {
    let exchange = async {
        let mut server = connect(&config.upstream).await?;
        server.write_all(&bytes).await?;
        server.shutdown().await?;
        tokio::io::copy(&mut server, &mut client).await
    };
    // a server that waits for the rest of a packet that never comes
    let _ = tokio::time::timeout(config.startup_timeout, exchange).await;
    client.shutdown().await
}
