//! A session that is taken along to another primary: logged in there with its own credential, and given what it had: settings, role, LISTENs,
//! prepared statements. These go through the capture, as if the client had sent them; what comes back isn't the client's.
use super::spare::{Spare, WarmUp, login_to};
use super::{Phase, Relay, USED_LATELY};
use crate::handshake::Stream;
use crate::listener::Gate;
use crate::login::read;
use crate::route::{Asked, Route};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use pgshadow_capture::{OWN_STATEMENT, Session};
use pgshadow_wire::{Frame, backend, error, frontend};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Result;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

/// How long behind a survey's begin sessions are still warmed up: with very many of them the survey would last too long.
const WARM_UPS_WITHIN: Duration = Duration::from_secs(2);
/// How long all of it may take.
pub(super) const MOVE_MAX: Duration = Duration::from_secs(10);
pub(super) const TOO_LONG: &str = "the old primary, or the new one, doesn't answer in time";
/// Name of the statement, and of its portal, that asks for it.
const ASKING: &[u8] = b"_pgshadow_state";
const UNFOLLOWED: &str = "its transactions can't be followed";
/// Longest message of a server meanwhile, bytes.
pub(super) const MESSAGE_MAX: usize = 64 << 20;
/// What may end a statement of ours, and everybody may set.
const TIMEOUTS: [&str; 5] = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
];
/// What a warming up may take on the server, statement by statement.
const WARM_UP_TIMEOUTS: [(&str, &str); 2] = [("statement_timeout", "500ms"), ("lock_timeout", "100ms")];
/// Settings that are set in one statement.
const SETTINGS_AT_ONCE: usize = 100;

/// What the old server tells of the session, as JSON in UTF-8, in base64, whatever the session's encoding is. In front of the list of types.
const STATE: &str = "SELECT pg_catalog.encode(pg_catalog.convert_to(pg_catalog.json_build_object(
 'settings', (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(s.name, pg_catalog.current_setting(s.name)) ORDER BY s.name)
   FROM pg_catalog.pg_show_all_settings() s WHERE s.source OPERATOR(pg_catalog.=) 'session' AND NOT s.name OPERATOR(pg_catalog.=) ANY
     (ARRAY['transaction_isolation', 'transaction_read_only', 'transaction_deferrable'])),
 'role', pg_catalog.current_setting('role'), 'authorization', pg_catalog.current_setting('session_authorization'),
 'channels', (SELECT pg_catalog.json_agg(c) FROM pg_catalog.pg_listening_channels() AS c),
 'temporary', CASE WHEN pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.=) 0 THEN false ELSE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())
   OR EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())
   OR EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) END,
 'cursors', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_cursor() c WHERE c.is_holdable),
 'locks', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_lock_status() l WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory'
   AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()),
 'prepared', (SELECT pg_catalog.json_object_agg(p.name, p.statement) FROM pg_catalog.pg_prepared_statement() p),
 'types', (SELECT pg_catalog.json_object_agg(t.oid, pg_catalog.format('%I.%I', n.nspname, t.typname)) FROM pg_catalog.pg_type t
   JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace WHERE t.oid OPERATOR(pg_catalog.=) ANY (ARRAY[";
/// In front of the list of names of the application's own settings, and behind it.
const STATE_NAMES: &str = "]::pg_catalog.oid[])),
 'own', (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(n, pg_catalog.current_setting(n, true))) FROM pg_catalog.unnest(ARRAY[";
const STATE_END: &str = "]::pg_catalog.text[]) AS n WHERE pg_catalog.current_setting(n, true) IS NOT NULL))::pg_catalog.text, 'UTF8'), 'base64')";

#[derive(Debug, Deserialize)]
struct State {
    settings: Option<Vec<(String, String)>>,
    own: Option<Vec<(String, String)>>,
    role: String,
    authorization: String,
    channels: Option<Vec<String>>,
    temporary: bool,
    cursors: u64,
    locks: u64,
    prepared: Option<BTreeMap<String, String>>,
    types: Option<BTreeMap<String, String>>,
}

impl State {
    /// Why it can't be taken along.
    fn stays(&self) -> Option<&'static str> {
        if self.temporary {
            Some("it has temporary objects")
        } else if self.cursors > 0 {
            Some("it has a cursor WITH HOLD")
        } else if self.locks > 0 {
            Some("it holds session-level advisory locks")
        } else {
            None
        }
    }

    /// What gives another session the same: settings, then who it is, then what it listens to; and what comes last, behind its prepared
    /// statements, since none of this shall run into it.
    fn statements(&self, user: &str) -> (Vec<String>, Vec<String>) {
        let set = |(name, value): (&str, &str)| set(name, value, Scope::Session);
        let settings = self.settings.iter().chain(&self.own).flatten();
        let (last, first): (Vec<_>, Vec<_>) = settings.partition(|(name, _)| TIMEOUTS.contains(&name.as_str()));
        let [first, last] = [first, last].map(|some| {
            let some: Vec<String> = some.into_iter().map(|(name, value)| set((name, value))).collect();
            some.chunks(SETTINGS_AT_ONCE).map(|some| format!("SELECT {}", some.join(", "))).collect::<Vec<String>>()
        });
        let mut all = first;
        if self.authorization != user {
            all.push(format!("SELECT {}", set(("session_authorization", &self.authorization))));
        }
        // also none, where the login gives one
        all.push(format!("SELECT {}", set(("role", &self.role))));
        all.extend(self.channels.iter().flatten().map(|channel| format!("LISTEN {}", identifier(channel))));
        (all, last)
    }

    /// Begins a transaction in which another session has the same settings and is the same role, and waits for nothing long. Without the
    /// application's own settings, and extensions': of those something would stay behind a rollback (an empty text instead of NULL).
    fn for_a_transaction(&self, user: &str) -> String {
        let set = |(name, value): (&str, &str)| set(name, value, Scope::Transaction);
        let settings = self.settings.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()));
        let usual = settings.filter(|(name, _)| !TIMEOUTS.contains(name) && !name.contains('.'));
        let settings = usual.chain(WARM_UP_TIMEOUTS);
        let all: Vec<String> = settings.map(set).collect();
        let mut text = "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned();
        for some in all.chunks(SETTINGS_AT_ONCE) {
            let _ = write!(text, "; SELECT {}", some.join(", "));
        }
        if self.authorization != user {
            let _ = write!(text, "; SELECT {}", set(("session_authorization", &self.authorization)));
        }
        let _ = write!(text, "; SELECT {}", set(("role", &self.role)));
        text
    }
}

/// How long a setting holds.
#[derive(Clone, Copy)]
enum Scope {
    Session,
    Transaction,
}

fn set(name: &str, value: &str, scope: Scope) -> String {
    let is_local = matches!(scope, Scope::Transaction);
    format!("pg_catalog.set_config({}, {}, {is_local})", in_ascii(name), in_ascii(value))
}

/// Any text, as SQL in ASCII.
fn in_ascii(text: &str) -> String {
    format!("pg_catalog.convert_from(pg_catalog.decode('{}', 'base64'), 'UTF8')", STANDARD.encode(text))
}

/// As an identifier of ASCII alone.
fn identifier(name: &str) -> String {
    if name.is_ascii() {
        return pgshadow_model::quote(name);
    }
    let mut out = "U&\"".to_owned();
    for character in name.chars() {
        match character {
            '"' => out.push_str("\"\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_ascii() => out.push(c),
            c => {
                let _ = write!(out, "\\+{:06X}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

/// A session that is being given what it had.
pub(super) struct Restoring<J: Gate> {
    /// What the client has sent, and waits.
    client: BytesMut,
    /// What the new server has said and the client doesn't get.
    said: BytesMut,
    failed: Option<String>,
    /// ReadyForQuery messages that have come.
    answered: usize,
    /// Of them, those of named prepared statements, and the first of the unnamed one: one that can't be prepared any more is lost, as it would fail
    /// where it is used.
    named: Range<usize>,
    behind: usize,
    begun: Instant,
    route: Arc<Route<J>>,
    pid: i32,
    /// When it is given up.
    pub until: Instant,
    /// The session as the client knows it.
    old: Box<Session<J>>,
}

impl<J: Gate> Relay<J> {
    /// Takes part in a survey: can it be taken along? If so it logs in to where it is to go, and runs there what is slow the first time.
    pub(super) async fn look_at_itself(&mut self) {
        let Some(Asked { number, begun, next, ahead, leave }) = self.survey.take() else { return };
        self.surveyed = number;
        // one that has still to go where the others are now keeps what waits for it there
        self.spare.take_if(|spare| next.is_some() || !spare.leads_to(&self.routes.now()));
        let Some(next) = next else { return };
        // a cancel request is for what the client has sent meanwhile, not for ours
        self.key.as_ref().inspect(|key| key.waits());
        let state = self.state(&next.settings).await;
        // one that isn't used is in no hurry
        if let (Ok(state), Some(credential)) = (&state, &self.credential)
            && ahead
            && self.used.elapsed() < USED_LATELY
        {
            let warm_up = (begun.elapsed() < WARM_UPS_WITHIN).then(|| self.warm_up(state)).flatten();
            self.spare = Some(Spare::begin(self.startup.clone(), next, (credential.clone(), warm_up), leave));
        }
        if let Some(turn) = &self.turn {
            turn.surveyed(number, state.err());
        }
        self.ours_is_over();
    }

    /// What its session on the new server is to have run already.
    fn warm_up(&self, state: &State) -> Option<WarmUp> {
        let Phase::Capture(session) = &self.phase else { return None };
        let known = state.prepared.clone().unwrap_or_default();
        let (named, _) = session.prepared_again(&without_own(known))?;
        Some(WarmUp::new(&state.for_a_transaction(&String::from_utf8_lossy(self.startup.user())), &named))
    }

    /// What it has. `settings`: of the application's own, which functions may have set. An error: why it can't be taken along.
    async fn state(&mut self, settings: &[String]) -> std::result::Result<State, String> {
        if self.credential.is_none() {
            return Err("the primary alone knows its password ([auth] mode = \"relay\")".to_owned());
        }
        let Phase::Capture(session) = &self.phase else { return Err(UNFOLLOWED.to_owned()) };
        if session.may_have_loaded() {
            return Err("it may have loaded a library (LOAD)".to_owned());
        }
        let list: Vec<String> = session.own_types().iter().map(ToString::to_string).collect();
        let Some(own) = session.own_settings() else {
            return Err("it may have settings whose names aren't known".to_owned());
        };
        let names: Vec<String> = own.iter().chain(settings).map(|name| in_ascii(name)).collect();
        let question = format!("{STATE}{}{STATE_NAMES}{}{STATE_END}", list.join(","), names.join(","));
        let told = self.ask(&question).await?;
        let state = read_state(&told).ok_or("what the old primary tells of it can't be read")?;
        match state.stays() {
            Some(why) => Err(why.to_owned()),
            None => Ok(state),
        }
    }

    /// Logs the session in to the present primary, and begins to give it what it had there. It is at rest, and busy in the eyes of others. An error:
    /// why that can't be.
    pub(super) async fn begin_move(&mut self) -> std::result::Result<(), String> {
        let until = Instant::now() + MOVE_MAX;
        tokio::time::timeout_at(until, self.log_in_there(until)).await.unwrap_or_else(|_| Err(TOO_LONG.to_owned()))
    }

    async fn log_in_there(&mut self, until: Instant) -> std::result::Result<(), String> {
        let (route, begun) = (self.routes.now(), Instant::now());
        // those that nobody uses wait for it
        self.urgent = self.permit.is_none().then(|| self.routes.urgent());
        let mut state = self.state(&route.settings).await?;
        let told = begun.elapsed();
        let Some(credential) = self.credential.clone() else { return Err(UNFOLLOWED.to_owned()) };
        let Some(shared) = route.shared.clone() else { return Err(UNFOLLOWED.to_owned()) };
        let spare = match self.spare.take() {
            Some(spare) => spare.ready(&route).await,
            None => None,
        };
        let ahead = spare.is_some();
        let ((server, login, mut from_server), _registered) = match spare {
            Some(ready) => ready,
            None => (login_to(&self.startup, &route, &credential).await?, None),
        };
        tracing::debug!(ahead, ?told, took = ?begun.elapsed(), "a session is logged in at the new primary");
        shared.journal.known_life().await;
        let Some(backend) = login.backend.clone() else { return Err("the new primary tells no process".to_owned()) };
        let mut server = tokio::io::split(server);
        if let Some(names) = &state.types
            && !same_types(&mut server, &mut from_server, names).await?
        {
            return Err("it knows types of the database's own by numbers that are other ones there".to_owned());
        }
        let Phase::Capture(old) = &self.phase else { return Err(UNFOLLOWED.to_owned()) };
        let known = without_own(state.prepared.take().unwrap_or_default());
        let (prepared, unnamed) = old.prepared_again(&known).ok_or("a statement that it has prepared isn't known")?;
        let user = String::from_utf8_lossy(self.startup.user()).into_owned();
        let mut frames = BytesMut::new();
        let queries = |texts: Vec<String>| texts.into_iter().map(|text| frontend::query(text.as_bytes()));
        let (first, last) = state.statements(&user);
        let answers = |frames: &[Bytes]| {
            frames.iter().filter(|frame| matches!(frame.first(), Some(&(frontend::QUERY | frontend::SYNC)))).count()
        };
        let named = first.len()..first.len() + answers(&prepared);
        let behind = named.end + last.len();
        for frame in queries(first).chain(prepared).chain(queries(last)).chain(unnamed) {
            frames.extend_from_slice(&frame);
        }
        let mut session = Session::new(Arc::clone(&shared), backend.clone());
        login.reported.iter().for_each(|status| session.reported(status));
        let Phase::Capture(old) = std::mem::replace(&mut self.phase, Phase::Capture(Box::new(session))) else {
            return Err(UNFOLLOWED.to_owned());
        };
        // the old server may go on without this one; whether it gets the word doesn't matter
        let (_, mut left) = std::mem::replace(&mut self.server, server);
        let _ = left.write_all(b"X\0\0\0\x04").await;
        self.from_server = from_server;
        // commits wait for the log of what is mirrored from there
        self.shared = Some(shared);
        if let Some(key) = &self.key {
            key.moved(&route.upstream, &backend);
        }
        let client = std::mem::replace(&mut self.from_client, frames);
        self.restoring = Some(Box::new(Restoring {
            client,
            said: BytesMut::new(),
            failed: None,
            answered: 0,
            named,
            behind,
            begun,
            route,
            pid: backend.pid,
            until,
            old,
        }));
        Ok(())
    }

    /// One statement of ours that the server answers with one value, while nothing else is under way.
    async fn ask(&mut self, sql: &str) -> std::result::Result<Vec<u8>, String> {
        let failed = |error: std::io::Error| format!("the connection to the old primary is lost: {error}");
        // a Query would end the client's unnamed statement
        let question = [
            frontend::close_statement(ASKING),
            frontend::parse(ASKING, sql.as_bytes(), &0_i16.to_be_bytes()),
            frontend::bind_nothing(ASKING, ASKING),
            frontend::execute_frame(ASKING, 0),
            frontend::close_statement(ASKING),
            frontend::sync(),
        ];
        self.server.1.write_all(&question.concat()).await.map_err(failed)?;
        let mut value = None;
        loop {
            let frame = read(&mut self.server.0, &mut self.from_server, MESSAGE_MAX).await.map_err(failed)?;
            let frame = frame.ok_or("the connection to the old primary is lost")?;
            match frame.tag {
                backend::READY_FOR_QUERY => {
                    return value.unwrap_or_else(|| Err("the old primary tells nothing".to_owned()));
                }
                backend::DATA_ROW => {
                    value =
                        backend::fields(frame.body()).and_then(|f| f.first().copied().flatten().map(|v| Ok(v.to_vec())))
                }
                backend::ERROR => {
                    // the session's end is the client's to know
                    if backend::error_field(frame.body(), b'V') == Some(b"FATAL") {
                        self.to_client.push(frame.bytes.clone());
                    }
                    value = Some(Err(format!("the old primary doesn't tell what it has: {}", message(&frame))))
                }
                backend::NOTIFICATION | backend::PARAMETER_STATUS => self.to_client.push(frame.bytes),
                _ => {}
            }
        }
    }

    /// What the new server says while it is given what the session had.
    pub(super) fn keep_back(&mut self, bytes: &Bytes) {
        let Some(restoring) = &mut self.restoring else { return };
        restoring.said.extend_from_slice(bytes);
        while let Ok(Some(frame)) = Frame::cut(&mut restoring.said) {
            match frame.tag {
                backend::READY_FOR_QUERY => restoring.answered += 1,
                backend::ERROR => {
                    let of_statement =
                        restoring.named.contains(&restoring.answered) || restoring.answered >= restoring.behind;
                    if !of_statement && restoring.failed.is_none() {
                        restoring.failed = Some(message(&frame));
                    }
                }
                backend::NOTIFICATION => self.to_client.push(frame.bytes),
                _ => {}
            }
        }
    }

    /// What has become of a session that is given what it had: nothing yet, or it is the client's again. An error: why it can't go on.
    pub(super) fn moving_on(&mut self) -> Option<std::result::Result<(), String>> {
        let late = self.restoring.as_ref()?.until <= Instant::now();
        if self.from_client.is_empty() && self.is_at_rest() {
            let finished = self.finish_move();
            self.ours_is_over();
            return Some(finished);
        }
        match (self.server_ended, late) {
            (true, _) => Some(Err("the new primary has closed the connection".to_owned())),
            (false, true) => Some(Err(TOO_LONG.to_owned())),
            (false, false) => None,
        }
    }

    fn finish_move(&mut self) -> std::result::Result<(), String> {
        let Some(restoring) = self.restoring.take() else { return Ok(()) };
        let Restoring { client, failed, route, pid, mut old, begun, .. } = *restoring;
        if let Some(why) = failed {
            return Err(format!("the new primary refuses what it had: {why}"));
        }
        let waited = self.waits_since.map(|since| since.elapsed());
        tracing::debug!(?waited, took = ?begun.elapsed(), "a session is taken along");
        self.from_client = client;
        if let Some(turn) = &self.turn {
            turn.logged_in(pid, route.number);
            turn.moved();
        }
        (self.route, self.permit, self.urgent) = (route, None, None);
        if let Phase::Capture(session) = &mut self.phase {
            session.has_settings_of(&mut old);
            session.has_types_of(&old);
            session.reported_otherwise(&old).into_iter().for_each(|frame| self.to_client.push(frame));
        }
        Ok(())
    }

    /// Ends a session that can't be taken along, with what drivers reconnect on.
    pub(super) async fn leave_behind(&mut self, why: &str) -> Result<()> {
        if let Some(turn) = &self.turn {
            turn.left_behind();
        }
        let user = String::from_utf8_lossy(self.startup.user()).into_owned();
        tracing::info!(user, why, "a session is ended, since it can't be taken along to the new primary");
        let hint = format!(
            "The database was moved to another server, and this session could not be taken along: {why}. Connect again."
        );
        self.goodbye(error::fatal("57P01", "terminating connection due to administrator command", &hint)).await
    }
}

/// The client's prepared statements alone.
fn without_own(mut prepared: BTreeMap<String, String>) -> BTreeMap<String, String> {
    prepared.retain(|name, _| name.as_bytes() != OWN_STATEMENT && name.as_bytes() != ASKING);
    prepared
}

fn read_state(base64: &[u8]) -> Option<State> {
    let text: Vec<u8> = base64.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()
}

pub(super) fn message(error: &Frame) -> String {
    let field =
        |code| String::from_utf8_lossy(backend::error_field(error.body(), code).unwrap_or_default()).into_owned();
    format!("{} (SQLSTATE {})", field(b'M'), field(b'C'))
}

type Halves = (tokio::io::ReadHalf<Box<dyn Stream>>, tokio::io::WriteHalf<Box<dyn Stream>>);

/// Whether types have the same numbers on the new server.
async fn same_types(
    server: &mut Halves,
    buffer: &mut BytesMut,
    names: &BTreeMap<String, String>,
) -> std::result::Result<bool, String> {
    let list: Vec<String> =
        names.iter().map(|(oid, name)| format!("({oid}::pg_catalog.oid, {})", in_ascii(name))).collect();
    let sql = format!(
        "SELECT pg_catalog.count(*) FROM (VALUES {}) AS v (o, n) WHERE pg_catalog.to_regtype(n)::pg_catalog.oid IS DISTINCT FROM o",
        list.join(", ")
    );
    let failed = |error: std::io::Error| format!("the connection to the new primary is lost: {error}");
    server.1.write_all(&frontend::query(sql.as_bytes())).await.map_err(failed)?;
    let mut same = false;
    loop {
        let frame = read(&mut server.0, buffer, MESSAGE_MAX).await.map_err(failed)?;
        let frame = frame.ok_or("the connection to the new primary is lost")?;
        match frame.tag {
            backend::READY_FOR_QUERY => return Ok(same),
            backend::ERROR => return Err(format!("the new primary doesn't tell its types: {}", message(&frame))),
            backend::DATA_ROW => same = backend::fields(frame.body()).as_deref() == Some(&[Some(&b"0"[..])]),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_channel_is_named_in_ascii() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(identifier("\u{e4}\\\"x"), "U&\"\\+0000E4\\\\\"\"x\"");
    }

    #[test]
    fn a_state_is_read_and_given_again() {
        let json = r#"{"settings":[["work_mem","5MB"],["statement_timeout","1ms"]],"role":"none","authorization":"app","channels":["c"],"own":[["app.x","y"]],"temporary":false,"cursors":0,"locks":0,"types":null,"prepared":null}"#;
        let mut text = STANDARD.encode(json).into_bytes();
        text.insert(20, b'\n');
        let state = read_state(&text).unwrap();
        assert_eq!(state.stays(), None);
        let (statements, last) = state.statements("app");
        assert!(matches!(&last[..], [one] if one.contains(&STANDARD.encode("1ms"))), "{last:?}");
        assert_eq!(statements.len(), 3);
        assert!(statements[0].contains(&STANDARD.encode("5MB")) && statements[2] == "LISTEN \"c\"", "{statements:?}");
        assert_eq!(state.statements("other").0.len(), 4);
    }
}
