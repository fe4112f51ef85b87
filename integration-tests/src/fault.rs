//! What goes wrong: a server that hangs, a network that does.
use crate::port;
use crate::postgres::Cluster;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A server that is frozen until this is dropped.
#[derive(Debug)]
pub struct Frozen<'a> {
    cluster: &'a Cluster,
}

impl Frozen<'_> {
    /// Freezes it.
    pub fn new(cluster: &Cluster) -> Frozen<'_> {
        cluster.freeze();
        Frozen { cluster }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.cluster.thaw();
    }
}

const OPEN: u8 = 0;
const STALLED: u8 = 1;
const CUT: u8 = 2;
const ENDED: u8 = 3;

#[derive(Debug)]
struct State {
    now: AtomicU8,
    streams: Mutex<Vec<TcpStream>>,
}

/// A network between a client and a server: a plain TCP forwarder that can hang or be cut.
#[derive(Debug)]
pub struct Link {
    port: u16,
    state: Arc<State>,
}

impl Link {
    /// Forwards a port of its own to this one.
    pub fn to(server: u16) -> Link {
        let port = port::free();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let state = Arc::new(State { now: AtomicU8::new(OPEN), streams: Mutex::default() });
        let link = Link { port, state: Arc::clone(&state) };
        std::thread::spawn(move || accept(&listener, server, &state));
        link
    }

    /// Where to connect instead of the server's own port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections stay open, nothing passes any more in either direction.
    pub fn stall(&self) {
        self.state.now.store(STALLED, Ordering::SeqCst);
    }

    /// Ends all connections; new ones are closed at once.
    pub fn cut(&self) {
        self.state.now.store(CUT, Ordering::SeqCst);
        self.close_all();
    }

    /// All passes again, what was held back too.
    pub fn mend(&self) {
        self.state.now.store(OPEN, Ordering::SeqCst);
    }

    fn close_all(&self) {
        for stream in self.state.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.state.now.store(ENDED, Ordering::SeqCst);
        self.close_all();
        // Wakes the listener, which then ends.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn accept(listener: &TcpListener, server: u16, state: &Arc<State>) {
    for client in listener.incoming().flatten() {
        match state.now.load(Ordering::SeqCst) {
            ENDED => return,
            CUT => continue,
            _ => {}
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
        drop(client.set_nodelay(true));
        drop(server.set_nodelay(true));
        let copies = (client.try_clone(), server.try_clone(), client.try_clone(), server.try_clone());
        let (Ok(client_in), Ok(server_in), Ok(client_kept), Ok(server_kept)) = copies else { continue };
        state.streams.lock().unwrap_or_else(PoisonError::into_inner).extend([client_kept, server_kept]);
        let (there, back) = (Arc::clone(state), Arc::clone(state));
        std::thread::spawn(move || pump(client_in, server, &there));
        std::thread::spawn(move || pump(server_in, client, &back));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        while state.now.load(Ordering::SeqCst) == STALLED {
            std::thread::sleep(Duration::from_millis(5));
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Write));
    drop(from.shutdown(Shutdown::Read));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                });
            }
        });
        port
    }

    #[test]
    fn a_link_passes_stalls_mends_and_is_cut() {
        let link = Link::to(echo());
        let mut client = TcpStream::connect(("127.0.0.1", link.port())).unwrap();
        let mut byte = [0];
        client.write_all(b"a").unwrap();
        client.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"a");

        link.stall();
        client.write_all(b"b").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(client.read_exact(&mut byte).is_err(), "nothing passes a stalled link");
        link.mend();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"b");

        link.cut();
        assert_eq!(client.read(&mut byte).unwrap_or(0), 0, "a cut link ends connections");
    }
}
