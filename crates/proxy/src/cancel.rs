//! Cancel requests go to the primary as they came: the client holds the server's own key.
use crate::config::Config;
use crate::handshake::connect;
use bytes::Bytes;
use pgshadow_telemetry::Counter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Forwards one CancelRequest and waits until the server has closed the connection, which it does after it has signalled
/// the backend: a client that waits for the close may rely on it.
pub(crate) async fn forward(config: &Config, request: Bytes) -> std::io::Result<()> {
    Counter::CancelRequests.add(1);
    let exchange = async {
        let mut server = connect(&config.upstream).await?;
        server.write_all(&request).await?;
        let mut rest = [0; 16];
        while server.read(&mut rest).await? > 0 {}
        Ok(())
    };
    tokio::time::timeout(config.connect_timeout, exchange)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
