//! Plays a session's script and notes what came of it.
use crate::program_player::ProgramPlayer;
use crate::raw_player::RawPlayer;
use crate::script::{Carrier, End, Script, Step, Unit};
use crate::statement::{CONCURRENCY, Statement};
use crate::tokio_player::TokioPlayer;
use crate::value::literal;
use integration_tests::client::Endpoint;
use integration_tests::drivers::Driver;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// ROLLBACKs in a row that a client's own timeout may stop.
const ROLLBACKS_MAX: usize = 20;

/// What the server said of one statement.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// SQLSTATE and message.
    pub error: Option<(String, String)>,
    /// Something in the answer that isn't as the statement's own would be.
    pub odd: Option<String>,
}

/// The connection is gone.
#[derive(Debug)]
pub struct Lost(pub String);

/// What sends steps.
pub trait Player {
    /// One exchange: a reply for each statement that was answered; fewer where one failed.
    fn play(&mut self, step: &Step) -> Result<Vec<Reply>, Lost>;
    /// Statements without parameters, not looked at any further: BEGIN, COMMIT, SAVEPOINT.
    fn control(&mut self, sql: &str) -> Result<Reply, Lost>;
}

/// How a prepared transaction shall end.
#[derive(Debug)]
pub struct Gid {
    /// Its name.
    pub gid: String,
    /// By COMMIT PREPARED.
    pub commit: bool,
}

/// What all sessions of a bout share.
#[derive(Debug)]
pub struct Shared {
    /// Where they connect.
    pub place: Endpoint,
    /// Things break: lost connections are part of the load.
    pub faulty: bool,
    /// The bout is given up: end soon.
    pub stop: AtomicBool,
    /// Units done by all sessions.
    pub done: AtomicU64,
    /// To the session that ends prepared transactions.
    pub prepared: SyncSender<Gid>,
    /// Runs the asynchronous clients.
    pub runtime: tokio::runtime::Handle,
}

/// What a session has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Writing transactions that committed.
    pub committed: u64,
    /// Statements, committed or not.
    pub statements: u64,
    /// By SQLSTATE.
    pub errors: BTreeMap<String, u64>,
    /// Connections lost.
    pub lost: u64,
    /// What the database itself wouldn't have said.
    pub complaints: Vec<String>,
}

/// Plays all of a script; connects again where a connection is lost by a fault.
pub fn play(script: &Script, shared: &Shared) -> Seen {
    let mut seen = Seen::default();
    let mut player = None;
    for unit in &script.units {
        if shared.stop.load(Ordering::Relaxed) || seen.complaints.len() > 20 {
            break;
        }
        if player.is_none() {
            player = connect(script, shared, &mut seen);
        }
        let Some(connected) = player.as_mut() else { break };
        let mut session =
            Session { player: connected.as_mut(), seen: &mut seen, shared, converted: script.encoding.is_some() };
        if let Err(Lost(why)) = session.unit(unit) {
            player = None;
            seen.lost += 1;
            let hung_up = unit.steps.iter().any(|step| matches!(step, Step::HangUp(_)));
            if !shared.faulty && !hung_up {
                seen.complaints.push(format!("connection lost: {why} in\n{}", unit.sql()));
            }
        }
        shared.done.fetch_add(1, Ordering::Relaxed);
    }
    seen
}

fn connect(script: &Script, shared: &Shared, seen: &mut Seen) -> Option<Box<dyn Player>> {
    let mut last = String::new();
    for _ in 0..600 {
        let opened: Result<Box<dyn Player>, String> = match script.carrier {
            Carrier::Raw => RawPlayer::connect(&shared.place, script.encoding).map(|player| Box::new(player) as _),
            Carrier::Psycopg => program(&shared.place, Driver::Psycopg3),
            Carrier::Node => program(&shared.place, Driver::NodePg),
            Carrier::Tokio => TokioPlayer::connect(&shared.place, &shared.runtime).map(|player| Box::new(player) as _),
        };
        match opened {
            Ok(player) => return Some(player),
            Err(error) => last = error,
        }
        if !shared.faulty || shared.stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    seen.complaints.push(format!("session {} can't connect: {last}", script.number));
    None
}

fn program(place: &Endpoint, driver: Driver) -> Result<Box<dyn Player>, String> {
    ProgramPlayer::connect(place, driver).map(|player| Box::new(player) as _)
}

struct Session<'a> {
    player: &'a mut dyn Player,
    seen: &'a mut Seen,
    shared: &'a Shared,
    converted: bool,
}

impl Session<'_> {
    fn unit(&mut self, unit: &Unit) -> Result<(), Lost> {
        let Some(begin) = unit.begin else {
            for step in &unit.steps {
                let failed = self.step(step, unit)?;
                let writes = step.statements().iter().any(|statement| !statement.tables.is_empty());
                self.seen.committed += u64::from(writes && !failed);
            }
            return Ok(());
        };
        self.control(begin, &[])?;
        let mut savepoint = false;
        for step in &unit.steps {
            match step {
                Step::Savepoint => savepoint = true,
                Step::Release => savepoint = false,
                _ => {}
            }
            if self.step(step, unit)? {
                let back = savepoint && self.control("ROLLBACK TO s", timeouts(unit))?.error.is_none();
                if !back {
                    return self.roll_back(unit);
                }
            }
        }
        self.end(unit)
    }

    fn end(&mut self, unit: &Unit) -> Result<(), Lost> {
        let statements = unit.steps.iter().flat_map(Step::statements);
        let mut states: Vec<&str> = statements.flat_map(|statement| statement.states.iter().copied()).collect();
        states.extend(timeouts(unit));
        match &unit.end {
            End::None => {}
            End::Rollback => self.roll_back(unit)?,
            End::Commit => {
                let reply = self.control("COMMIT", &states)?;
                self.seen.committed += u64::from(reply.error.is_none());
                if reply.error.is_some_and(|(state, _)| state == "57014") {
                    // one that was stopped before it had begun (its Parse was done) leaves the block open
                    self.roll_back(unit)?;
                }
            }
            End::Prepare { gid, commit } => {
                let told = Gid { gid: gid.clone(), commit: *commit };
                match self.control(&format!("PREPARE TRANSACTION '{gid}'"), &states) {
                    Ok(reply) if reply.error.is_none() => {
                        self.seen.committed += u64::from(*commit);
                        drop(self.shared.prepared.send(told));
                    }
                    Ok(_) => {}
                    Err(lost) => {
                        drop(self.shared.prepared.send(told));
                        return Err(lost);
                    }
                }
            }
        }
        Ok(())
    }

    /// Again, where the client's own timeout stops it before it has begun.
    fn roll_back(&mut self, unit: &Unit) -> Result<(), Lost> {
        for _ in 0..ROLLBACKS_MAX {
            if self.control("ROLLBACK", timeouts(unit))?.error.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn control(&mut self, sql: &str, states: &[&str]) -> Result<Reply, Lost> {
        let reply = self.player.control(sql)?;
        if let Some((state, message)) = &reply.error {
            *self.seen.errors.entry(state.clone()).or_default() += 1;
            self.lost_by_fault(state, message)?;
            if !states.contains(&state.as_str()) && !CONCURRENCY.contains(&state.as_str()) {
                self.seen.complaints.push(format!("{sql}: {state} {message}"));
            }
        }
        Ok(reply)
    }

    /// Whether one of its statements failed.
    fn step(&mut self, step: &Step, unit: &Unit) -> Result<bool, Lost> {
        match step {
            Step::Pause(ms) => {
                std::thread::sleep(Duration::from_millis(*ms));
                return Ok(false);
            }
            Step::Savepoint => return self.control("SAVEPOINT s", timeouts(unit)).map(|reply| reply.error.is_some()),
            Step::RollbackTo => {
                return self.control("ROLLBACK TO s", timeouts(unit)).map(|reply| reply.error.is_some());
            }
            Step::Release => return self.control("RELEASE s", timeouts(unit)).map(|reply| reply.error.is_some()),
            _ => {}
        }
        let replies = self.player.play(step)?;
        let mut failed = false;
        for (statement, reply) in step.statements().iter().zip(&replies) {
            self.seen.statements += 1;
            failed |= reply.error.is_some();
            self.judge(statement, reply, step, unit)?;
        }
        if replies.len() < step.statements().len() && !failed {
            self.seen.complaints.push(format!("only {} answers in\n{}", replies.len(), unit.sql()));
        }
        Ok(failed)
    }

    fn judge(&mut self, statement: &Statement, reply: &Reply, step: &Step, unit: &Unit) -> Result<(), Lost> {
        let sql = literal(&statement.sql);
        if let Some(odd) = &reply.odd {
            self.seen.complaints.push(format!("{odd}: {sql} in\n{}", unit.sql()));
        }
        let Some((state, message)) = &reply.error else { return Ok(()) };
        *self.seen.errors.entry(state.clone()).or_default() += 1;
        self.lost_by_fault(state, message)?;
        // A failure of one statement ends the others of a pipeline in a block, and of a transaction.
        let behind = state == "25P02" && matches!(step, Step::Pipeline { sync_each: true, .. });
        // What the server can't say in the client's encoding: rows, and the values that its errors show.
        let shows = statement.columns > 0 || ["23502", "23503", "23505"].iter().any(|state| statement.allows(state));
        let unsayable = state == "22P05" && self.converted && shows;
        // Deferred checks of a string or a pipeline are answered in the place of its last statement.
        let mut around: Vec<&Statement> = step.statements().iter().collect();
        if statement.form == "constraints" {
            around.extend(unit.steps.iter().flat_map(Step::statements));
        }
        let deferred = around.iter().any(|other| other.allows(state));
        if !(deferred || behind || unsayable || timeouts(unit).contains(&state.as_str())) {
            self.seen.complaints.push(format!("{state} {message}\n  {sql} [{}] in\n{}", statement.form, unit.sql()));
        }
        Ok(())
    }

    /// The server goes down, or pgshadow does.
    fn lost_by_fault(&self, state: &str, message: &str) -> Result<(), Lost> {
        let down = ["57P01", "57P02", "57P03", "08006", "08003", "08001", "08004"];
        if self.shared.faulty && down.contains(&state) { Err(Lost(format!("{state} {message}"))) } else { Ok(()) }
    }
}

fn timeouts(unit: &Unit) -> &'static [&'static str] {
    if unit.timed { &["57014", "55P03"] } else { &[] }
}
