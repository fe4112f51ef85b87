//! Cancel requests go to the primary as they came: the client holds the server's own key. Where its session was taken along to another
//! server since, they go there, with the key that it has there.
use crate::config::{Config, Upstream};
use crate::handshake::connect;
use bytes::{BufMut, Bytes, BytesMut};
use dashmap::DashMap;
use pgshadow_model::Backend;
use pgshadow_telemetry::Counter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

/// Length and code of a CancelRequest, in front of pid and key.
const HEAD: usize = 8;

/// Sessions by pid and key as their clients have them.
#[derive(Debug, Default)]
pub(crate) struct Cancels(DashMap<Bytes, Known>);

/// Where a session's server process is, its pid and key there, and what of the client's waits here.
#[derive(Debug, Clone)]
struct Known {
    upstream: Upstream,
    key: Bytes,
    held: Arc<Held>,
}

/// A client's pid and key; with it goes what is known of them.
#[derive(Debug)]
pub(crate) struct Key {
    cancels: Arc<Cancels>,
    of_client: Bytes,
    held: Arc<Held>,
}

impl Drop for Key {
    fn drop(&mut self) {
        self.cancels.0.remove(&self.of_client);
    }
}

/// Whether what a client has sent waits here, where no server could cancel it.
#[derive(Debug, Default)]
struct Held {
    /// [`Held::NOTHING`], [`Held::WAITS`] or [`Held::CANCELLED`].
    state: AtomicU8,
    cancelled: Notify,
}

impl Held {
    const NOTHING: u8 = 0;
    const WAITS: u8 = 1;
    const CANCELLED: u8 = 2;

    /// False if nothing waits.
    fn cancel(&self) -> bool {
        let waits =
            self.state.compare_exchange(Self::WAITS, Self::CANCELLED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if waits {
            self.cancelled.notify_one();
        }
        waits
    }
}

fn pid_and_key(backend: &Backend) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(backend.pid);
    out.put_slice(&backend.cancel_key);
    out.freeze()
}

impl Cancels {
    /// What the client was told at its login.
    pub fn key(self: &Arc<Self>, upstream: &Upstream, backend: &Backend) -> Key {
        let (of_client, held) = (pid_and_key(backend), Arc::new(Held::default()));
        let known = Known { upstream: upstream.clone(), key: of_client.clone(), held: Arc::clone(&held) };
        self.0.insert(of_client.clone(), known);
        Key { cancels: Arc::clone(self), of_client, held }
    }

    fn find(&self, request: &Bytes) -> Option<Known> {
        Some(self.0.get(request.get(HEAD..)?)?.value().clone())
    }
}

/// The request for a client that holds this pid and key.
fn request_with(request: &Bytes, key: &Bytes) -> Option<Bytes> {
    let mut out = BytesMut::new();
    out.put_u32(u32::try_from(HEAD + key.len()).ok()?);
    out.put_slice(request.get(4..HEAD)?);
    out.put_slice(key);
    Some(out.freeze())
}

impl Key {
    /// Its session has another process now.
    pub fn moved(&self, upstream: &Upstream, backend: &Backend) {
        let known = Known { upstream: upstream.clone(), key: pid_and_key(backend), held: Arc::clone(&self.held) };
        self.cancels.0.insert(self.of_client.clone(), known);
    }

    /// What the client sends waits from now on.
    pub fn waits(&self) {
        let _ = self.held.state.compare_exchange(Held::NOTHING, Held::WAITS, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// It doesn't wait any more; true if it was cancelled.
    pub fn goes_on(&self) -> bool {
        self.held.state.swap(Held::NOTHING, Ordering::SeqCst) == Held::CANCELLED
    }

    /// Until what waits is cancelled.
    pub async fn cancelled(&self) {
        while self.held.state.load(Ordering::SeqCst) != Held::CANCELLED {
            self.held.cancelled.notified().await;
        }
    }
}

/// Forwards one CancelRequest and waits until the server has closed the connection, which it does after it has signalled
/// the backend: a client that waits for the close may rely on it.
pub(crate) async fn forward(
    config: &Config,
    primary: &Upstream,
    cancels: &Cancels,
    request: Bytes,
) -> std::io::Result<()> {
    Counter::CancelRequests.add(1);
    let known = cancels.find(&request);
    if known.as_ref().is_some_and(|known| known.held.cancel()) {
        return Ok(());
    }
    let there = known.and_then(|known| Some((known.upstream, request_with(&request, &known.key)?)));
    let (upstream, request) = there.unwrap_or_else(|| (primary.clone(), request));
    let exchange = async {
        let mut server = connect(&upstream).await?;
        server.write_all(&request).await?;
        let mut rest = [0; 16];
        while server.read(&mut rest).await? > 0 {}
        Ok(())
    };
    tokio::time::timeout(config.connect_timeout, exchange)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_follows_its_session() {
        let backend = |pid, key: &'static [u8]| Backend { pid, cancel_key: Bytes::from_static(key) };
        let tcp = |host: &str| Upstream::Tcp { host: host.into(), port: 1 };
        let (cancels, here, there) = (Arc::new(Cancels::default()), tcp("old"), tcp("new"));
        let request = Bytes::from_static(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd");
        let found = |request: &Bytes| {
            cancels.find(request).map(|known| (known.upstream, request_with(request, &known.key).unwrap()))
        };
        assert_eq!(found(&request), None);
        let key = cancels.key(&here, &backend(7, b"abcd"));
        assert_eq!(found(&request), Some((here, request.clone())));
        key.moved(&there, &backend(9, b"longer key"));
        let now = Bytes::from_static(b"\0\0\0\x16\x04\xd2\x16\x2e\0\0\0\x09longer key");
        assert_eq!(found(&request), Some((there, now)));
        drop(key);
        assert_eq!(found(&request), None);
        assert_eq!(found(&Bytes::from_static(b"\0\0")), None);
    }

    #[tokio::test]
    async fn what_waits_is_cancelled_here() {
        let cancels = Arc::new(Cancels::default());
        let backend = Backend { pid: 7, cancel_key: Bytes::from_static(b"abcd") };
        let key = cancels.key(&Upstream::Unix("x".into()), &backend);
        let request = Bytes::from_static(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd");
        let cancel = || cancels.find(&request).unwrap().held.cancel();
        assert!(!cancel());
        key.waits();
        assert!(!key.goes_on() && !cancel());
        key.waits();
        assert!(cancel() && !cancel());
        key.waits();
        key.cancelled().await;
        assert!(key.goes_on() && !key.goes_on());
    }
}
