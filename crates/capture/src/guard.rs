//! Definitions that keep others from a table's rows: judged before they take their lock, and run with a `lock_timeout`.
//!
//! Who else has the table locked, and how large it is, is asked by others than the session ([`Question`]): it is asked nothing that
//! would open a snapshot. Its own `lock_timeout` is put back behind the statement; outside a block the end of the transaction does that.
use crate::expected::{Expected, OwnRun, Purpose, QueryRun};
use crate::journal::Journal;
use crate::own::NAME;
use crate::plan::{Control, Effect, Plan, Step};
use crate::session::{Hold, Output, Session};
use bytes::Bytes;
use pgshadow_sql::TableLock;
use pgshadow_telemetry::StatementClass;
use pgshadow_wire::{Frame, frontend};
use std::sync::Arc;
use std::time::Duration;

/// Who writes this into a statement's text wants it run whatever is said against it.
pub const ALLOW: &str = "pgshadow: allow";
/// What the server is sent in place of a refused text: whatever a session is in, it answers with an error, and runs nothing.
const REFUSED: &[u8] = b"refused by pgshadow";

/// What is done about definitions that lock tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Guard {
    /// Somebody is asked.
    pub judges: bool,
    /// How long they may wait for a lock, unless the session's own `lock_timeout` is shorter.
    pub lock_timeout: Option<Duration>,
}

/// What one statement locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locks {
    /// Its command, such as `ALTER TABLE`.
    pub command: String,
    /// Its locks.
    pub locks: Vec<TableLock>,
}

/// Whether statements may take their locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The server's process that would take them.
    pub pid: i32,
    /// The statements.
    pub statements: Arc<[Locks]>,
    /// Where the session looks for names without a schema.
    pub schemas: Vec<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// They may.
    Goes,
    /// The client gets this ErrorResponse; none of its text is run.
    Refused(Bytes),
}

/// How far the client's present frame has come.
#[derive(Debug, Default)]
pub(crate) enum Guarding {
    #[default]
    Unasked,
    /// Somebody is to be asked.
    Asks(Question),
    /// Somebody is asked.
    Asked,
    Judged,
    Refused(Bytes),
    /// The session is asked for its own `lock_timeout`.
    Showing,
    Shown(Bytes),
    /// It goes, with this `lock_timeout`.
    Goes(Option<LockTimeout>),
}

/// Ours, and what the session had.
#[derive(Debug, Clone)]
pub(crate) struct LockTimeout {
    ours: Duration,
    own: String,
}

impl LockTimeout {
    fn set(&self) -> String {
        format!("SET LOCAL lock_timeout = {}", self.ours.as_millis())
    }

    fn put_back(&self) -> String {
        format!("SET LOCAL lock_timeout = '{}'", self.own.replace('\'', "''"))
    }
}

impl<J: Journal> Session<J> {
    /// What somebody is to be asked now; the answer goes to [`Session::judged`].
    pub fn question(&mut self) -> Option<Question> {
        if !matches!(self.guarding, Guarding::Asks(_)) {
            return None;
        }
        match std::mem::replace(&mut self.guarding, Guarding::Asked) {
            Guarding::Asks(question) => Some(question),
            _ => None,
        }
    }

    /// Takes the frame on that waited for the answer.
    pub fn judged(&mut self, verdict: Verdict, out: &mut Output) {
        if !matches!(self.hold, Hold::Judgement(_)) {
            // an error of what was in front of it has come meanwhile: it is skipped
            return;
        }
        let Hold::Judgement(frame) = std::mem::replace(&mut self.hold, Hold::Free) else { return };
        self.guarding = match verdict {
            Verdict::Goes => Guarding::Judged,
            Verdict::Refused(error) => Guarding::Refused(error),
        };
        if frame.tag == 0 {
            self.next_piece(out);
        } else {
            self.take(frame, out);
        }
        self.take_what_is_left(out);
    }

    /// The client's frame where it goes on now: it may run, or [`Session::refusal`] is there for it.
    pub(crate) fn guarded(&mut self, plan: &Plan, frame: Frame, out: &mut Output) -> Option<Frame> {
        let guard = self.shared.guard;
        let failed = self.status == b'E' || self.units.back().is_some_and(|unit| unit.failed && !unit.closed);
        if plan.locks.is_empty() || failed {
            return Some(frame);
        }
        self.guarding = match std::mem::take(&mut self.guarding) {
            Guarding::Unasked if guard.judges => {
                let schemas = self.identity.as_ref().map(|identity| identity.schemas.clone()).unwrap_or_default();
                let statements = Arc::clone(&plan.locks);
                self.hold = Hold::Judgement(frame);
                self.guarding = Guarding::Asks(Question { pid: self.backend.pid, statements, schemas });
                return None;
            }
            Guarding::Unasked | Guarding::Judged if guard.lock_timeout.is_some() && takes_timeout(plan) => {
                self.guarding = Guarding::Showing;
                // SHOW opens no snapshot, and may come ahead of SET TRANSACTION
                self.ask_session("SHOW lock_timeout", None, Purpose::LockTimeout, frame, out);
                return None;
            }
            Guarding::Shown(own) => {
                let own = String::from_utf8_lossy(&own).into_owned();
                let shorter = guard
                    .lock_timeout
                    .filter(|ours| milliseconds(&own).is_some_and(|ms| ms == 0 || ms > ours.as_millis()));
                Guarding::Goes(shorter.map(|ours| LockTimeout { ours, own }))
            }
            Guarding::Refused(error) => Guarding::Refused(error),
            goes @ Guarding::Goes(_) => goes,
            _ => Guarding::Goes(None),
        };
        Some(frame)
    }

    /// Why the frame that [`Session::guarded`] let through isn't to run.
    pub(crate) fn refusal(&mut self) -> Option<Bytes> {
        match std::mem::take(&mut self.guarding) {
            Guarding::Refused(error) => Some(error),
            other => {
                self.guarding = other;
                None
            }
        }
    }

    /// The `lock_timeout` that a text, or a piece of one, is to run with.
    fn lock_timeout_of(&self, plan: &Plan) -> Option<LockTimeout> {
        match &self.guarding {
            Guarding::Goes(timeout) if !plan.locks.is_empty() && takes_timeout(plan) => timeout.clone(),
            _ => None,
        }
    }

    /// The text of a Query with `lock_timeout` around what it locks.
    pub(crate) fn with_lock_timeout(&self, plan: &Plan, in_block: bool, run: &mut QueryRun, sent: Bytes) -> Bytes {
        let Some(timeout) = self.lock_timeout_of(plan) else { return sent };
        let mut text = format!("{}; ", timeout.set()).into_bytes();
        let tail = sent.get(plan.end..).unwrap_or_default();
        if in_block && !tail.is_ascii() {
            // what stands behind the statement may be no whole characters
            return sent;
        }
        (run.ahead, run.sets) = (text.len(), true);
        if in_block {
            text.extend_from_slice(sent.get(..plan.end).unwrap_or(&sent));
            text.extend_from_slice(format!("; {}", timeout.put_back()).as_bytes());
            run.suffix.push(Purpose::SetLockTimeout);
        } else {
            text.extend_from_slice(&sent);
        }
        Bytes::from(text)
    }

    /// Sets it ahead of an Execute; what is to be sent behind it: the transaction may go on outside a block too, up to the Sync.
    pub(crate) fn set_lock_timeout(&mut self, plan: Option<&Plan>, out: &mut Output) -> Option<String> {
        let timeout = plan.and_then(|plan| self.lock_timeout_of(plan))?;
        self.own_set(&timeout.set(), out);
        Some(timeout.put_back())
    }

    /// A SET of ours in the client's batch.
    pub(crate) fn own_set(&mut self, sql: &str, out: &mut Output) {
        out.server(frontend::own_statement(NAME, sql.as_bytes(), None));
        self.pending.push_back(Expected::Own(OwnRun::new(Purpose::SetLockTimeout, frontend::OWN_STATEMENT_REPLIES)));
    }

    /// The server runs nothing of the client's Query, and the client gets this error.
    pub(crate) fn refuse_query(&mut self, error: Bytes, out: &mut Output) {
        let plan = Plan { steps: vec![Arc::new(Step::none(StatementClass::Ddl))], ..Plan::empty() };
        self.send_query(&Bytes::from_static(REFUSED), Arc::new(plan), 0, true, out);
        if let Some(Expected::Query(run)) = self.pending.back_mut() {
            run.refusal = Some(error);
        }
    }

    /// The same of an Execute.
    pub(crate) fn refuse_execute(&mut self, error: Bytes, out: &mut Output) {
        self.batch = true;
        self.open_unit();
        out.server(frontend::parse(NAME, REFUSED, &0_i16.to_be_bytes()));
        self.pending.push_back(Expected::Own(OwnRun::new(Purpose::Refused(error), 1)));
    }
}

/// Whether a `lock_timeout` can be set around it. Not where what runs outside any block has no end that would put it back: CREATE INDEX
/// CONCURRENTLY (which keeps nobody waiting, and would leave half an index), VACUUM, and REINDEX and CLUSTER, which are refused in a
/// block where their table has partitions. Nor where a text may set one itself, or hold a savepoint that keeps ours.
fn takes_timeout(plan: &Plan) -> bool {
    let takes = |step: &Arc<Step>| match (&step.effect, step.class) {
        (Effect::Control(control), _) => {
            matches!(control, Control::Begin | Control::Commit { .. } | Control::Rollback { .. })
        }
        (_, StatementClass::Ddl | StatementClass::Read) => !step.alone && !step.hidden_anywhere,
        _ => false,
    };
    plan.text.is_none() && plan.steps.iter().all(takes)
}

/// A time as the server shows settings: `0`, `500ms`, `5s`, `2min`, `1h`, `1d`.
fn milliseconds(shown: &str) -> Option<u128> {
    let digits = shown.find(|c: char| !c.is_ascii_digit()).unwrap_or(shown.len());
    let (number, unit) = shown.split_at(digits);
    let factor = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(number.parse::<u128>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_server_shows() {
        let all = ["0", "500ms", "5s", "2min", "1h", "1d", "x"].map(milliseconds);
        assert_eq!(all, [Some(0), Some(500), Some(5_000), Some(120_000), Some(3_600_000), Some(86_400_000), None]);
    }
}
