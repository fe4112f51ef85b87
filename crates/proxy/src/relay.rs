//! Both directions of one session, in one task: read, look, forward, with backpressure.
mod moving;
mod spare;
mod turns;

use crate::buffer::Outbox;
use crate::cancel::{Cancels, Key};
use crate::handshake::{Login, Stream};
use crate::listener::Gate;
use crate::route::{Asked, Leave, Route, Routes, Urgent};
use crate::sessions::Turn;
use bytes::{Bytes, BytesMut};
use moving::Restoring;
use pgshadow_capture::{Output, Session, Shared, ToServer, Verdict};
use pgshadow_telemetry::{Counter, Direction, RoundTrip, StatementClass};
use pgshadow_wire::scram::Credential;
use pgshadow_wire::startup::Startup;
use pgshadow_wire::{Frame, Header, backend, error, frontend};
use spare::Spare;
use std::future::Future;
use std::io::Result;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use turns::Dropping;

/// Bytes asked of a socket at once.
const READ: usize = 16 * 1024;
/// Bytes that may wait for a peer before its counterpart is no longer read.
const OUTBOX_MAX: usize = 256 * 1024;

/// How long a client that is sent away may take to read what it still gets.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// A session is used if its last transaction began within this time.
const USED_LATELY: Duration = Duration::from_secs(10);

/// What becomes of frames.
enum Phase<J: Gate> {
    /// Authentication and parameters: forwarded as they are; the client's other frames wait for the end of it.
    Login(Login, bool),
    /// Looked into.
    Capture(Box<Session<J>>),
    /// Counted.
    Plain(Plain),
    /// Not even cut any more. A session that was looked into is there to its end: it can't be followed.
    Raw { _unfollowed: Option<Box<Session<J>>> },
}

/// A session that isn't looked into, as far as its frames' types tell.
struct Plain {
    /// Answers (ReadyForQuery) to come.
    awaited: usize,
    /// Something was sent since the last Sync or Query.
    batch: bool,
    /// Transaction status of the last ReadyForQuery.
    status: u8,
    /// The server takes a stream: a Sync means nothing to it until its end.
    copying: bool,
}

impl Plain {
    /// Nothing is under way.
    fn at_rest(&self) -> bool {
        !self.batch && self.awaited == 0 && self.status == b'I'
    }

    /// The answer to all that was sent is to come: it tells whether a transaction is open.
    fn between_batches(&self) -> bool {
        !self.batch && self.awaited > 0
    }

    fn client(&mut self, tag: u8) {
        match tag {
            frontend::SYNC if self.copying => {}
            frontend::COPY_DONE | frontend::COPY_FAIL => self.copying = false,
            frontend::QUERY | frontend::SYNC | frontend::FUNCTION_CALL => {
                self.awaited += 1;
                self.batch = false;
            }
            // a stream belongs to the Query that has asked for it
            frontend::COPY_DATA | frontend::TERMINATE => {}
            _ => self.batch = true,
        }
    }
}

type Halves<T> = (ReadHalf<T>, WriteHalf<T>);
type Awaited<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

async fn awaited<T>(what: &mut Awaited<T>) -> T {
    match what {
        Some(what) => what.await,
        None => std::future::pending().await,
    }
}

async fn cancelled(key: Option<&Key>) {
    match key {
        Some(key) => key.cancelled().await,
        None => std::future::pending().await,
    }
}

pub(crate) async fn resumed(turn: Option<&Turn>) {
    if let Some(turn) = turn {
        turn.over().await;
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
    /// `None`: frames are only counted.
    shared: Option<Arc<Shared<J>>>,
    phase: Phase<J>,
    routes: Arc<Routes<J>>,
    /// The way that it has taken.
    route: Arc<Route<J>>,
    startup: Startup,
    /// The startup packet as the server is to get it.
    packet: Bytes,
    /// `None`: only the primary knows it.
    credential: Option<Credential>,
    cancels: Arc<Cancels>,
    key: Option<Key>,
    /// There is another way, and it is this session's turn to take it.
    due: bool,
    urgent: Option<Urgent>,
    /// Leave to take it, for one that nobody uses at present.
    permit: Option<Leave>,
    restoring: Option<Box<Restoring<J>>>,
    /// The last survey that it has taken part in, and the one that it is to.
    surveyed: u64,
    survey: Option<Asked<J>>,
    /// When a transaction began last.
    used: Instant,
    /// Its session on the server where it is to go.
    spare: Option<Spare<J>>,
    /// `None`: a session that no pause is for.
    turn: Option<Turn>,
    /// The client's next frame waits for the end of a pause.
    held: bool,
    /// Since when a frame of the client's waits, also for the move that comes behind a pause.
    waits_since: Option<Instant>,
    dropping: Option<Dropping>,
    /// Bytes of a frame that is forwarded in parts.
    passing_client: usize,
    passing_server: usize,
    durable: Awaited<()>,
    /// Somebody is asked whether what the client sent may run.
    judging: Awaited<Verdict>,
    round_trip: RoundTrip,
    client_ended: bool,
    client_gone: bool,
    server_told: bool,
    server_ended: bool,
}

/// What a session begins with.
pub(crate) struct Beginning<J: Gate> {
    pub client: TcpStream,
    pub server: Box<dyn Stream>,
    /// `None`: frames are only counted.
    pub shared: Option<Arc<Shared<J>>>,
    pub routes: Arc<Routes<J>>,
    pub route: Arc<Route<J>>,
    pub startup: Startup,
    pub packet: Bytes,
    pub credential: Option<Credential>,
    pub cancels: Arc<Cancels>,
    pub turn: Option<Turn>,
    pub from_client: BytesMut,
    pub from_server: BytesMut,
}

impl<J: Gate> Relay<J> {
    pub fn new(beginning: Beginning<J>) -> Self {
        let Beginning { client, server, shared, routes, route, startup, credential, .. } = beginning;
        let Beginning { cancels, turn, packet, from_client, from_server, .. } = beginning;
        let surveyed = routes.last_survey();
        Self {
            client: tokio::io::split(client),
            server: tokio::io::split(server),
            routes,
            route,
            startup,
            packet,
            credential,
            cancels,
            key: None,
            due: false,
            urgent: None,
            permit: None,
            restoring: None,
            surveyed,
            survey: None,
            used: Instant::now(),
            spare: None,
            from_client,
            from_server,
            to_client: Outbox::default(),
            to_server: Outbox::default(),
            output: Output::default(),
            shared,
            phase: Phase::Login(Login::default(), false),
            turn,
            held: false,
            waits_since: None,
            dropping: None,
            passing_client: 0,
            passing_server: 0,
            durable: None,
            judging: None,
            round_trip: RoundTrip::default(),
            client_ended: false,
            client_gone: false,
            server_told: false,
            server_ended: false,
        }
    }

    /// Relays until both sides have closed.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<()> {
        // where pgshadow has checked the client the server has its startup packet already
        if self.credential.is_none() {
            self.to_server.push(self.packet.clone());
        }
        let result = self.relay(shutdown).await;
        if let Phase::Capture(session) = &mut self.phase {
            session.closed();
        }
        result
    }

    async fn relay(&mut self, shutdown: CancellationToken) -> Result<()> {
        loop {
            self.pump_server();
            // whose answers these are is told by what is under way now
            self.empty_output();
            self.rest();
            if let Some(moved) = self.moving_on() {
                if let Err(why) = moved {
                    return self.leave_behind(&why).await;
                }
                continue;
            }
            if self.is_due() && self.to_client.is_empty() {
                self.due = false;
                self.key.as_ref().inspect(|key| key.waits());
                let moved = tokio::select! {
                    moved = self.begin_move() => moved,
                    () = shutdown.cancelled() => return self.say_goodbye().await,
                };
                if let Err(why) = moved {
                    return self.leave_behind(&why).await;
                }
                continue;
            }
            if self.survey.is_some() && self.is_at_rest() && self.to_client.is_empty() {
                tokio::select! {
                    () = self.look_at_itself() => {}
                    () = shutdown.cancelled() => return self.say_goodbye().await,
                }
                continue;
            }
            self.pump_client();
            self.empty_output();
            self.ask_for_judgement();
            if self.server_ended && self.to_client.is_empty() {
                if !self.client_gone {
                    self.client.1.shutdown().await?;
                }
                return Ok(());
            }
            if self.client_ended && !self.server_told && !self.waits_for_turn() && self.nothing_for_server() {
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
        let waits_for_turn = self.waits_for_turn();
        let reads_client = !self.client_ended
            && !too_early
            && !waits_for_turn
            && self.takes_client()
            && self.to_server.len() < OUTBOX_MAX;
        let reads_server = !self.server_ended && self.to_client.len() < OUTBOX_MAX;
        if self.due && self.to_client.is_empty() {
            return Ok(());
        }
        let (waits, judges, held) = (self.durable.is_some(), self.judging.is_some(), self.held);
        let movable = self.turn.is_some() && self.permit.is_none() && !waits_for_turn && self.is_at_rest();
        let listens = movable && self.listens();
        let (routes, number) = (Arc::clone(&self.routes), self.route.number);
        // what the client still gets comes first
        let asked = movable && self.survey.is_none() && self.to_client.is_empty();
        let (surveyed, is_used) = (self.surveyed, self.used.elapsed() < USED_LATELY);
        let restored_by = self.restoring.as_ref().map(|restoring| restoring.until);
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
            () = awaited(&mut self.durable), if waits => self.durable = None,
            verdict = awaited(&mut self.judging), if judges => {
                self.judging = None;
                if let Phase::Capture(session) = &mut self.phase {
                    session.judged(verdict, &mut self.output);
                }
            }
            () = resumed(self.turn.as_ref()), if held => self.held = false,
            () = cancelled(self.key.as_ref()), if held => self.drop_what_waits(),
            leave = routes.leave_to_move(number, listens), if movable => self.permit = Some(leave),
            survey = routes.surveyed(surveyed, is_used), if asked => self.survey = Some(survey),
            () = sleep_until(restored_by.unwrap_or_else(Instant::now)), if restored_by.is_some() => {}
            () = shutdown.cancelled(), if !shutdown.is_cancelled() => {}
        }
        Ok(())
    }

    /// Has what the client sent judged, where that is due.
    fn ask_for_judgement(&mut self) {
        if let (Phase::Capture(session), Some(shared)) = (&mut self.phase, &self.shared)
            && let Some(question) = session.question()
        {
            let journal = Arc::clone(&shared.journal);
            self.judging = Some(Box::pin(async move { journal.judge(question).await }));
        }
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
            Phase::Plain(plain) => plain.at_rest(),
            Phase::Login(..) | Phase::Raw { .. } => true,
        };
        idle && (self.from_client.is_empty() || self.held) && self.to_client.is_empty() && self.nothing_for_server()
    }

    async fn say_goodbye(&mut self) -> Result<()> {
        self.goodbye(error::shutting_down()).await
    }

    async fn goodbye(&mut self, word: Bytes) -> Result<()> {
        self.to_client.push(word);
        let told = async {
            while !self.to_client.is_empty() {
                self.to_client.write_to(&mut self.client.1).await?;
            }
            self.client.1.shutdown().await
        };
        let _ = tokio::time::timeout(GOODBYE_MAX, told).await;
        self.server.1.write_all(b"X\0\0\0\x04").await?;
        self.server.1.shutdown().await
    }

    /// Moves what capture has put out towards the sockets, up to the next record that must be durable first.
    fn empty_output(&mut self) {
        for bytes in std::mem::take(&mut self.output.to_client) {
            if self.restoring.is_some() {
                self.keep_back(&bytes);
            } else if !self.client_gone {
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
            if self.dropping.is_some() {
                if self.drop_some() {
                    continue;
                }
                return self.partial_at_end();
            }
            if !self.takes_client() || !self.has_its_turn() {
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
            Phase::Plain(plain) => {
                plain.client(header.tag);
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
        if let Some(turn) = &self.turn {
            turn.unfollowed();
        }
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
            Phase::Plain(plain) => {
                if header.tag == backend::READY_FOR_QUERY {
                    if !whole {
                        return false;
                    }
                    plain.status = self.from_server.get(Header::SIZE).copied().unwrap_or_default();
                    plain.awaited = plain.awaited.saturating_sub(1);
                    plain.copying = false;
                }
                if header.tag == backend::COPY_IN {
                    plain.copying = true;
                    // those that were sent ahead of its stream
                    plain.awaited = plain.awaited.min(1);
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

    fn after_login(&mut self, login: Login) -> Phase<J> {
        if let (Some(turn), Some(backend)) = (&self.turn, &login.backend) {
            turn.logged_in(backend.pid, self.route.number);
        }
        self.key = login.backend.as_ref().map(|backend| self.cancels.key(&self.route.upstream, backend));
        match &self.shared {
            Some(shared) => {
                let unknown = || pgshadow_model::Backend { pid: 0, cancel_key: Bytes::new() };
                let mut session = Session::new(Arc::clone(shared), login.backend.unwrap_or_else(unknown));
                login.reported.iter().for_each(|status| session.reported(status));
                Phase::Capture(Box::new(session))
            }
            None => Phase::Plain(Plain { awaited: 0, batch: false, status: b'I', copying: false }),
        }
    }
}
