//! Sessions on the server where clients' are to go, logged in ahead, and made to know there what they will run.
use super::moving::{MESSAGE_MAX, MOVE_MAX, TOO_LONG, message};
use crate::handshake::{self, Stream, connect};
use crate::listener::Gate;
use crate::login::{Answer, Exchange, read};
use crate::route::{Leave, Route};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use pgshadow_capture::Registered;
use pgshadow_wire::scram::Credential;
use pgshadow_wire::startup::Startup;
use pgshadow_wire::{Frame, Header, Reader, backend, frontend};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a warming up may take.
const WARM_UP_MAX: Duration = Duration::from_secs(2);
/// Prepared statements of one session that are warmed up.
const WARM_UP_STATEMENTS_MAX: usize = 100;

type LoggedIn = (Box<dyn Stream>, handshake::Login, BytesMut);
/// The same, and that its process is known to be a session's.
type Known = (LoggedIn, Option<Registered>);

/// A session on the server where a client's is to go, logged in ahead.
pub(super) struct Spare<J: Gate> {
    route: Arc<Route<J>>,
    work: tokio::task::JoinHandle<std::result::Result<Known, String>>,
}

impl<J: Gate> Drop for Spare<J> {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl<J: Gate> Spare<J> {
    /// `leave` is given back once it is logged in, and warmed up.
    pub(super) fn begin(
        startup: Startup,
        route: Arc<Route<J>>,
        (credential, warm_up): (Credential, Option<WarmUp>),
        leave: Leave,
    ) -> Self {
        let of = Arc::clone(&route);
        let work = tokio::spawn(async move {
            let _leave = leave;
            let logged_in = tokio::time::timeout(MOVE_MAX, login_to(&startup, &of, &credential)).await;
            let mut logged_in = logged_in.map_err(|_| TOO_LONG.to_owned())??;
            let pid = logged_in.1.backend.as_ref().map(|backend| backend.pid);
            let registered = of.shared.as_ref().zip(pid).map(|(shared, pid)| shared.backends.register(pid));
            if let Some(warm_up) = warm_up {
                let warm = tokio::time::timeout(WARM_UP_MAX, warm_up.run(&mut logged_in)).await;
                warm.map_err(|_| TOO_LONG.to_owned())??;
            }
            Ok((logged_in, registered))
        });
        Self { route, work }
    }

    pub(super) fn leads_to(&self, route: &Route<J>) -> bool {
        self.route.upstream == route.upstream && self.route.database == route.database
    }

    /// The session, if it is one of this way, and the server hasn't ended it since.
    pub(super) async fn ready(mut self, route: &Route<J>) -> Option<Known> {
        if !self.leads_to(route) {
            return None;
        }
        let ((mut server, mut login, mut buffer), registered) = (&mut self.work).await.ok()?.ok()?;
        // what it has said since
        while let Some(read) = server.read_buf(&mut buffer).now_or_never() {
            if !matches!(read, Ok(length) if length > 0) {
                return None;
            }
        }
        while let Ok(Some(frame)) = Frame::cut(&mut buffer) {
            match frame.tag {
                backend::ERROR => return None,
                _ => login.saw(&frame),
            }
        }
        Some(((server, login, buffer), registered))
    }
}

/// What is slow in a session's first transaction, done ahead: the server reads its catalogs for what the session has prepared. Each statement is parsed,
/// and planned for NULLs, with what functions the planner calls; none is executed, and all is rolled back.
pub(super) struct WarmUp {
    begin: Bytes,
    /// Text, and types as they stand in a Parse message.
    statements: Vec<(Bytes, Bytes)>,
}

impl WarmUp {
    /// `begin` begins the transaction. `prepared`: messages that prepare what it has, of which those of the extended protocol are taken.
    pub(super) fn new(begin: &str, prepared: &[Bytes]) -> Self {
        let parses = prepared.iter().filter(|frame| frame.first() == Some(&frontend::PARSE));
        let statements = parses.filter_map(|frame| {
            let parse = frontend::Parse::read(frame.get(Header::SIZE..)?)?;
            Some((frame.slice_ref(parse.query), frame.slice_ref(parse.types)))
        });
        Self { begin: frontend::query(begin.as_bytes()), statements: statements.take(WARM_UP_STATEMENTS_MAX).collect() }
    }

    /// An error: the connection is of no use any more. A statement that fails ends the warming up, and nothing else: the server skips what follows.
    async fn run(self, session: &mut LoggedIn) -> std::result::Result<(), String> {
        let parses = || self.statements.iter().map(|(text, types)| frontend::parse(b"", text, types));
        // one Sync for all: `statement_timeout` is for what stands in front of it
        let described = parses().flat_map(|parse| [parse, frontend::describe_statement(b"")]);
        let described = std::iter::once(self.begin.clone()).chain(described).chain([frontend::sync()]);
        let told = exchanged(session, described).await?;
        let mut rest = Vec::new();
        if told.len() == self.statements.len() {
            let counts = told.iter().map(|frame| Reader::new(frame.body()).i16().unwrap_or_default());
            rest.extend(parses().zip(counts).flat_map(|(p, count)| [p, frontend::bind_nulls(b"", b"", count)]));
            rest.push(frontend::sync());
        }
        rest.push(frontend::query(b"ROLLBACK"));
        exchanged(session, rest.into_iter()).await?;
        Ok(())
    }
}

/// Sends these, and reads what comes: the answers' ParameterDescription messages.
async fn exchanged(
    (server, login, buffer): &mut LoggedIn,
    frames: impl Iterator<Item = Bytes>,
) -> std::result::Result<Vec<Frame>, String> {
    let failed = |error: std::io::Error| format!("the connection to the new primary is lost: {error}");
    let (mut out, mut awaited) = (BytesMut::new(), 0_usize);
    for frame in frames {
        awaited += usize::from(matches!(frame.first(), Some(&(frontend::QUERY | frontend::SYNC))));
        out.extend_from_slice(&frame);
    }
    let mut told = Vec::new();
    let (mut reads, mut writes) = tokio::io::split(server);
    // both at once: it may not read on before its answers are read
    let write = async { writes.write_all(&out).await.map_err(failed) };
    let read = async {
        while awaited > 0 {
            let frame = read(&mut reads, buffer, MESSAGE_MAX).await.map_err(failed)?;
            let frame = frame.ok_or("the new primary has closed the connection")?;
            match frame.tag {
                backend::READY_FOR_QUERY => awaited -= 1,
                backend::PARAMETER_DESCRIPTION => told.push(frame),
                backend::ERROR => tracing::debug!(error = message(&frame), "a session is not warmed up"),
                backend::PARAMETER_STATUS => login.saw(&frame),
                _ => {}
            }
        }
        Ok::<(), String>(())
    };
    tokio::try_join!(write, read)?;
    Ok(told)
}

/// A session of this client's on the new server, up to its first ReadyForQuery.
pub(super) async fn login_to<J>(
    startup: &Startup,
    route: &Route<J>,
    credential: &Credential,
) -> std::result::Result<LoggedIn, String> {
    let failed = |error: std::io::Error| format!("no connection to the new primary: {error}");
    let lost = || "the new primary has closed the connection".to_owned();
    let mut server = connect(&route.upstream).await.map_err(failed)?;
    server.write_all(&route.packet(startup)).await.map_err(failed)?;
    let (mut buffer, mut login) = (BytesMut::new(), handshake::Login::default());
    let mut exchange = Some(Exchange::new(startup.user(), credential));
    while !login.ready {
        let frame = read(&mut server, &mut buffer, MESSAGE_MAX).await.map_err(failed)?.ok_or_else(lost)?;
        match frame.tag {
            backend::ERROR => return Err(format!("the new primary doesn't let it in: {}", message(&frame))),
            backend::AUTHENTICATION => {
                let Some(asked) = &mut exchange else { return Err(lost()) };
                match asked.answer(frame.body()) {
                    Ok(Answer::Send(bytes)) => server.write_all(&bytes).await.map_err(failed)?,
                    Ok(Answer::Nothing) => {}
                    Ok(Answer::LoggedIn) => exchange = None,
                    Err((why, _)) => return Err(format!("the new primary doesn't let it in: {why}")),
                }
            }
            // nothing but errors, notices and requests comes ahead of AuthenticationOk
            _ if exchange.is_none() => login.saw(&frame),
            _ => {}
        }
    }
    Ok((server, login, buffer))
}
