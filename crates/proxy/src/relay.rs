//! Both directions of one session, in one task: read, look, forward, with backpressure.
use crate::buffer::Outbox;
use crate::handshake::{Login, Stream};
use crate::listener::Gate;
use bytes::{Bytes, BytesMut};
use pgshadow_capture::{Output, Session, Shared, ToServer};
use pgshadow_telemetry::{Counter, Direction, RoundTrip, StatementClass};
use pgshadow_wire::{Frame, Header, backend, error, frontend};
use std::future::Future;
use std::io::Result;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Bytes asked of a socket at once.
const READ: usize = 16 * 1024;
/// Bytes that may wait for a peer before its counterpart is no longer read.
const OUTBOX_MAX: usize = 256 * 1024;

/// What becomes of frames.
enum Phase<J: Gate> {
    /// Authentication and parameters: forwarded as they are; the client's other frames wait for the end of it.
    Login(Login, bool),
    /// Looked into.
    Capture(Box<Session<J>>),
    /// Counted.
    Plain { idle: bool },
    /// Not even cut any more. A session that was looked into is there to its end: it can't be followed.
    Raw { _unfollowed: Option<Box<Session<J>>> },
}

type Halves<T> = (ReadHalf<T>, WriteHalf<T>);
type Durable = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn wait(durable: &mut Option<Durable>) {
    if let Some(durable) = durable {
        durable.await;
    }
}

/// One client and its server connection.
pub(crate) struct Relay<J: Gate> {
    client: Halves<TcpStream>,
    server: Halves<Box<dyn Stream>>,
    from_client: BytesMut,
    from_server: BytesMut,
    to_client: Outbox,
    to_server: Outbox,
    output: Output,
    shared: Option<Arc<Shared<J>>>,
    phase: Phase<J>,
    /// Bytes of a frame that is forwarded in parts.
    passing_client: usize,
    passing_server: usize,
    durable: Option<Durable>,
    round_trip: RoundTrip,
    client_ended: bool,
    client_gone: bool,
    server_told: bool,
    server_ended: bool,
}

impl<J: Gate> Relay<J> {
    pub fn new(
        client: TcpStream,
        server: Box<dyn Stream>,
        shared: Option<Arc<Shared<J>>>,
        from_client: BytesMut,
    ) -> Self {
        Self {
            client: tokio::io::split(client),
            server: tokio::io::split(server),
            from_client,
            from_server: BytesMut::new(),
            to_client: Outbox::default(),
            to_server: Outbox::default(),
            output: Output::default(),
            shared,
            phase: Phase::Login(Login::default(), false),
            passing_client: 0,
            passing_server: 0,
            durable: None,
            round_trip: RoundTrip::default(),
            client_ended: false,
            client_gone: false,
            server_told: false,
            server_ended: false,
        }
    }

    /// Relays until both sides have closed. `startup`: the client's startup packet.
    pub async fn run(mut self, startup: Bytes, shutdown: CancellationToken) -> Result<()> {
        self.to_server.push(startup);
        let result = self.relay(shutdown).await;
        if let Phase::Capture(session) = &mut self.phase {
            session.closed();
        }
        result
    }

    async fn relay(&mut self, shutdown: CancellationToken) -> Result<()> {
        loop {
            self.pump_server();
            self.pump_client();
            self.empty_output();
            if self.server_ended && self.to_client.is_empty() {
                if !self.client_gone {
                    self.client.1.shutdown().await?;
                }
                return Ok(());
            }
            if self.client_ended && !self.server_told && self.nothing_for_server() {
                self.server_told = true;
                self.server.1.shutdown().await?;
            }
            if shutdown.is_cancelled() && self.idle() {
                return self.say_goodbye().await;
            }
            self.exchange(&shutdown).await?;
        }
    }

    /// Waits for, and does, one thing.
    async fn exchange(&mut self, shutdown: &CancellationToken) -> Result<()> {
        // what a client sends ahead of its login's end waits here
        let too_early = matches!(self.phase, Phase::Login(..)) && self.from_client.len() >= OUTBOX_MAX;
        let reads_client = !self.client_ended && !too_early && self.takes_client() && self.to_server.len() < OUTBOX_MAX;
        let reads_server = !self.server_ended && self.to_client.len() < OUTBOX_MAX;
        let waits = self.durable.is_some();
        self.from_client.reserve(if reads_client { READ } else { 0 });
        self.from_server.reserve(if reads_server { READ } else { 0 });
        tokio::select! {
            biased;
            written = self.to_server.write_to(&mut self.server.1), if !self.to_server.is_empty() => {
                if written.is_err() {
                    // what the server still has to say is read to its end
                    self.to_server = Outbox::default();
                    self.client_ended = true;
                    self.server_told = true;
                }
            }
            written = self.to_client.write_to(&mut self.client.1), if !self.to_client.is_empty() => {
                if written.is_err() {
                    self.lose_client();
                }
            }
            read = self.server.0.read_buf(&mut self.from_server), if reads_server => {
                match read {
                    Ok(n) if n > 0 => Counter::RelayedBytes(Direction::ToClient).add(n as u64),
                    _ => self.server_ended = true,
                }
            }
            read = self.client.0.read_buf(&mut self.from_client), if reads_client => {
                match read {
                    Ok(n) if n > 0 => Counter::RelayedBytes(Direction::ToPrimary).add(n as u64),
                    Ok(_) => self.client_ended = true,
                    Err(_) => self.lose_client(),
                }
            }
            () = wait(&mut self.durable), if waits => self.durable = None,
            () = shutdown.cancelled(), if !shutdown.is_cancelled() => {}
        }
        Ok(())
    }

    /// The client went away. The server is told when it has got all that was sent; its answers are still read, since they
    /// tell what became of the transaction.
    fn lose_client(&mut self) {
        self.client_ended = true;
        self.client_gone = true;
        self.to_client = Outbox::default();
    }

    fn takes_client(&self) -> bool {
        match &self.phase {
            Phase::Capture(session) => session.takes_client_frames() && self.output.to_server.is_empty(),
            _ => true,
        }
    }

    fn nothing_for_server(&self) -> bool {
        let held = matches!(&self.phase, Phase::Capture(session) if !session.takes_client_frames());
        self.to_server.is_empty() && self.output.to_server.is_empty() && self.durable.is_none() && !held
    }

    fn idle(&self) -> bool {
        let idle = match &self.phase {
            Phase::Capture(session) => session.idle(),
            Phase::Plain { idle } => *idle,
            Phase::Login(..) | Phase::Raw { .. } => true,
        };
        idle && self.from_client.is_empty() && self.to_client.is_empty() && self.nothing_for_server()
    }

    async fn say_goodbye(&mut self) -> Result<()> {
        let message = "terminating connection due to administrator command";
        self.client.1.write_all(&error::fatal("57P01", message, "pgshadow is shutting down.")).await?;
        self.client.1.shutdown().await?;
        self.server.1.write_all(b"X\0\0\0\x04").await?;
        self.server.1.shutdown().await
    }

    /// Moves what capture has put out towards the sockets, up to the next record that must be durable first.
    fn empty_output(&mut self) {
        for bytes in self.output.to_client.drain(..) {
            if !self.client_gone {
                self.to_client.push(bytes);
            }
        }
        while self.durable.is_none() {
            match self.output.to_server.pop_front() {
                Some(ToServer::Bytes(bytes)) => self.to_server.push(bytes),
                Some(ToServer::Durable(sequence)) => {
                    if let Some(shared) = &self.shared {
                        let journal = Arc::clone(&shared.journal);
                        self.durable = Some(Box::pin(async move { journal.durable(sequence).await }));
                    }
                }
                None => return,
            }
        }
    }

    fn pump_client(&mut self) {
        while !self.from_client.is_empty() && self.to_server.len() < OUTBOX_MAX {
            if self.passing_client > 0 {
                let part = self.from_client.split_to(self.passing_client.min(self.from_client.len())).freeze();
                self.passing_client -= part.len();
                self.output.to_server.push_back(ToServer::Bytes(part));
                self.empty_output();
                continue;
            }
            if !self.takes_client() {
                return;
            }
            if matches!(self.phase, Phase::Raw { .. }) {
                self.to_server.push(self.from_client.split().freeze());
                return;
            }
            let header = match Header::read(&self.from_client) {
                Ok(Some(header)) => header,
                Ok(None) => return self.partial_at_end(),
                Err(_) => {
                    self.lose_track("a client sent a message that can't be cut");
                    continue;
                }
            };
            if !self.client_frame(header) {
                return self.partial_at_end();
            }
            self.empty_output();
        }
    }

    /// What a client left unfinished goes to the server as it is, which then says what it says to such a client.
    fn partial_at_end(&mut self) {
        if self.client_ended && !self.from_client.is_empty() {
            self.to_server.push(self.from_client.split().freeze());
        }
    }

    /// Takes the client's frame at the front of the buffer; false if it must wait for more bytes or for the login's end.
    fn client_frame(&mut self, header: Header) -> bool {
        let whole = self.from_client.len() >= header.size;
        match &mut self.phase {
            Phase::Login(_, asked) => {
                // while the server waits for a password anything goes to it: it will refuse what isn't one
                if header.tag != b'p' && !*asked {
                    return false;
                }
                // one answer to each request: what comes behind it waits for what the server says
                *asked = false;
                self.passing_client = header.size;
            }
            Phase::Capture(session) => {
                if !session.reads_client(header.tag) {
                    self.passing_client = header.size;
                } else if !whole {
                    return false;
                } else if let Ok(Some(frame)) = Frame::cut(&mut self.from_client) {
                    session.client(frame, &mut self.output);
                }
            }
            Phase::Plain { idle } => {
                *idle = false;
                if matches!(header.tag, frontend::QUERY | frontend::EXECUTE) {
                    Counter::Statements(StatementClass::Other).add(1);
                }
                self.passing_client = header.size;
            }
            Phase::Raw { .. } => {}
        }
        Counter::Frames(Direction::ToPrimary).add(1);
        if matches!(header.tag, frontend::QUERY | frontend::SYNC | frontend::FUNCTION_CALL) {
            self.round_trip.begin();
        }
        true
    }

    fn lose_track(&mut self, reason: &'static str) {
        Counter::FramesUnreadable.add(1);
        self.phase = match std::mem::replace(&mut self.phase, Phase::Raw { _unfollowed: None }) {
            Phase::Capture(mut session) => {
                session.lose_track(reason);
                self.output.to_client.append(&mut session.take_withheld());
                Phase::Raw { _unfollowed: Some(session) }
            }
            _ => Phase::Raw { _unfollowed: None },
        };
        while let Some(next) = self.output.to_server.pop_front() {
            if let ToServer::Bytes(bytes) = next {
                self.to_server.push(bytes);
            }
        }
    }

    fn pump_server(&mut self) {
        while !self.from_server.is_empty() {
            let raw = matches!(self.phase, Phase::Raw { .. });
            if self.passing_server > 0 || raw {
                let length = if raw { self.from_server.len() } else { self.passing_server.min(self.from_server.len()) };
                self.passing_server = self.passing_server.saturating_sub(length);
                self.output.to_client.push(self.from_server.split_to(length).freeze());
                continue;
            }
            let header = match Header::read(&self.from_server) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(_) => {
                    self.lose_track("the server sent a message that can't be cut");
                    continue;
                }
            };
            if !self.server_frame(header) {
                break;
            }
        }
        if let (true, Phase::Capture(session)) = (self.server_ended, &mut self.phase) {
            self.output.to_client.append(&mut session.take_withheld());
        }
        if self.server_ended && !self.from_server.is_empty() {
            self.output.to_client.push(self.from_server.split().freeze());
        }
    }

    /// Takes the server's frame at the front of the buffer; false if it must wait for more bytes.
    fn server_frame(&mut self, header: Header) -> bool {
        let whole = self.from_server.len() >= header.size;
        match &mut self.phase {
            Phase::Login(login, asked) => {
                if !whole {
                    return false;
                }
                if let Ok(Some(frame)) = Frame::cut(&mut self.from_server) {
                    login.saw(&frame);
                    if frame.tag == backend::AUTHENTICATION {
                        // every request but AuthenticationOk (0) and SASLFinal (12) wants an answer
                        *asked = !matches!(frame.body().first_chunk::<4>(), Some([0, 0, 0, 0 | 12]));
                    }
                    self.output.to_client.push(frame.bytes);
                    if login.ready {
                        let login = std::mem::take(login);
                        self.phase = self.after_login(login);
                    }
                }
            }
            Phase::Capture(session) => {
                if !session.reads_server(header.tag) {
                    self.passing_server = header.size;
                } else if !whole {
                    return false;
                } else if let Ok(Some(frame)) = Frame::cut(&mut self.from_server) {
                    session.server(frame, &mut self.output);
                }
            }
            Phase::Plain { idle } => {
                if header.tag == backend::READY_FOR_QUERY {
                    if !whole {
                        return false;
                    }
                    *idle = self.from_server.get(Header::SIZE) == Some(&b'I');
                }
                self.passing_server = header.size;
            }
            Phase::Raw { .. } => {}
        }
        Counter::Frames(Direction::ToClient).add(1);
        if header.tag == backend::READY_FOR_QUERY {
            self.round_trip.end();
        }
        true
    }

    fn after_login(&self, login: Login) -> Phase<J> {
        match &self.shared {
            Some(shared) => {
                let unknown = || pgshadow_model::Backend { pid: 0, cancel_key: Bytes::new() };
                let mut session = Session::new(Arc::clone(shared), login.backend.unwrap_or_else(unknown));
                login.reported.iter().for_each(|status| session.reported(status));
                Phase::Capture(Box::new(session))
            }
            None => Phase::Plain { idle: true },
        }
    }
}
