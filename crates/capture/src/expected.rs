//! What is awaited of the server, and what prepared statements and portals stand for.
use crate::by_name::Given;
use crate::locked::LockedRows;
use crate::moments::Moments;
use crate::plan::{Plan, Step, Strip};
use crate::rehearsal::{BoundStatement, Sampled};
use bytes::Bytes;
use pgshadow_catalog::Identity;
use pgshadow_model::{RowImage, RowsHash, SessionSettings, Statement, Suspect};
use pgshadow_sql::LockAhead;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

/// A reply that is awaited, in the order of sending.
#[derive(Debug)]
pub(crate) enum Expected {
    /// A Query's results, up to ReadyForQuery.
    Query(Box<QueryRun>),
    /// ParseComplete, BindComplete or CloseComplete; error positions go through the plan.
    Reply { plan: Option<Arc<Plan>>, before: Before },
    /// The answer to Describe; where the parameters' description is kept.
    Describe(Strip, Option<Arc<OnceLock<Bytes>>>),
    /// The same, asked by us.
    Parameters(Arc<OnceLock<Bytes>>),
    /// What the client is told in its turn: no answer of the server's.
    Told(Bytes),
    /// An Execute's results.
    Execute(Box<ExecuteRun>),
    /// The next rows of a portal whose rows are here already: no answer of the server's.
    Page { portal: Bytes, limit: i32 },
    /// ReadyForQuery after Sync.
    Sync { ends_unit: bool, purpose: SyncPurpose },
    /// ReadyForQuery after Syncs that were sent amid a COPY's data, and after one of ours: the last that came, and whether the client
    /// got any.
    Syncs { last: Option<Bytes>, passed: bool },
    /// FunctionCallResponse and ReadyForQuery.
    FunctionCall { suspects: Vec<Suspect> },
    /// A statement of ours.
    Own(OwnRun),
}

/// What a Parse, Bind or Close took the place of: it stands again if the server refuses or skips the message.
#[derive(Debug)]
pub(crate) enum Before {
    Nothing,
    Statement(Bytes, Option<Prepared>),
    /// With one column more than the client's own has.
    Portal(Bytes, Option<Portal>, bool),
    /// Close of what SQL had prepared.
    Given(Given),
}

/// Whose Sync it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncPurpose {
    /// The client's.
    Client,
    /// Ours, after a probe outside any batch of the client's.
    Probe,
    /// Ours, before the client's COMMIT in a Query.
    BeforeCommit,
    /// Ours, after a ROLLBACK of ours: what it is answered is the answer to the client's before it.
    RollBack,
    /// The client's, or ours in its place, after which its batch is taken again.
    Again,
    /// Ours, after the failure of a COPY amid whose data the client sent Syncs.
    AfterCopy,
}

/// Images of a statement that hasn't finished yet.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    pub images: Vec<RowImage>,
    pub bytes: usize,
    pub rows: u64,
    /// A row was of a table that the statement isn't known to write.
    pub elsewhere: bool,
    /// Only a part of the table was read back.
    pub partial: bool,
    /// Why the images can't be used.
    pub broken: Option<&'static str>,
    /// Rows that were locked ahead, as they came.
    pub locked: LockedRows,
    /// What the look behind it found.
    pub looked: LockedRows,
    /// Over the rows that the client got.
    pub returned: Option<RowsHash>,
    /// The statement itself, where it is to be compared.
    pub statement: Option<Box<Statement>>,
    /// Data of a COPY, as far as they aren't with the transaction's changes yet.
    pub copy: Vec<Bytes>,
    pub copy_bytes: usize,
    pub moments: Moments,
    /// Its first changes are with those of the transaction already, from this number on.
    pub begun: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct QueryRun {
    pub plan: Arc<Plan>,
    /// Statement that answers at present.
    pub at: usize,
    /// Its rows have been locked ahead.
    pub locked: bool,
    /// It is over (its CommandComplete), and the look behind it answers.
    pub looking: Option<(Bytes, LockedRows)>,
    /// It is over, and has copied so many rows (`None`: not told): the look back answers.
    pub copied: Option<Option<u64>>,
    pub stage: Stage,
    /// Statements of ours after the client's.
    pub suffix: Vec<Purpose>,
    /// The last value that a statement of ours returned.
    pub own_value: Option<Bytes>,
    /// The client's last CommandComplete, held until ours are done.
    pub held: Option<Bytes>,
    pub ends_unit: bool,
    pub failed: bool,
    /// It is taken again once the server is ready.
    pub again: bool,
    /// Characters of the client's text in front of this piece of it.
    pub offset: usize,
    /// False: more pieces of the same text follow, so the client doesn't see ReadyForQuery yet.
    pub last_piece: bool,
    /// An error of ours that takes the place of the answer to COMMIT.
    pub instead: Option<Bytes>,
    /// The same of the server's own error, where the client's text isn't run.
    pub refusal: Option<Bytes>,
    /// Characters of ours in front of the client's text.
    pub ahead: usize,
    /// They set something: the answer to that is to come.
    pub sets: bool,
    /// The session's settings when it was sent, where a statement is to be repeated under them.
    pub settings: Option<SessionSettings>,
    /// What is kept of it for comparison.
    pub sampled: Option<Box<Sampled>>,
    /// The unnamed statement, which it put an end to.
    pub unnamed: Option<Prepared>,
    /// Portals that it put an end to.
    pub ended: HashMap<Bytes, Portal>,
}

#[derive(Debug)]
pub(crate) struct ExecuteRun {
    pub step: Arc<Step>,
    pub plan: Option<Arc<Plan>>,
    pub stage: Stage,
    /// The added column comes in binary format.
    pub binary: bool,
    pub ends_unit: bool,
    /// The client's row limit, where the server has none.
    pub page: Option<Page>,
    /// The portal, where it is executed for the first time and returns nothing.
    pub first: Option<Bytes>,
    /// Portals that it put an end to.
    pub ended: HashMap<Bytes, Portal>,
    /// Names that it gave another meaning.
    pub given: Given,
    /// As in [`QueryRun::settings`].
    pub settings: Option<SessionSettings>,
    /// As in [`QueryRun::sampled`].
    pub sampled: Option<Box<Sampled>>,
}

/// Why a statement of ours runs.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    Probe {
        names: Vec<String>,
        epoch: u64,
    },
    /// Gives the server another text of a prepared statement, which stays what it was if that one is refused.
    Parse {
        name: Bytes,
        before: Box<Prepared>,
        plan: Arc<Plan>,
    },
    /// Puts a portal that has returned nothing in the place of one that the server thinks has returned rows.
    Ran,
    /// Ends what a COMMIT that never came to run was to end.
    RollBack,
    Constraints,
    /// Asks for the session's own `lock_timeout`.
    LockTimeout,
    /// Sets it around the client's Execute, or puts it back behind a Query.
    SetLockTimeout,
    /// Fails in place of the client's Execute, which is answered by this error.
    Refused(Bytes),
    /// Locks and reads the rows of the client's Execute behind it.
    Lock(Arc<LockAhead>),
    /// Looks whether the client's Execute in front of it has written the rows that were locked.
    LookBehind(Arc<Step>),
    /// Reads the rows that the COPY in front of it has stored.
    LookBack(Arc<Step>),
    End {
        locks: bool,
    },
}

#[derive(Debug)]
pub(crate) struct OwnRun {
    pub purpose: Purpose,
    pub left: usize,
    /// What it returned.
    pub values: Vec<Bytes>,
    /// The same of [`Purpose::Lock`] and [`Purpose::LookBehind`].
    pub locked: LockedRows,
    /// The same of [`Purpose::LookBack`], and how many rows there should be.
    pub stage: Stage,
    pub copied: Option<u64>,
}

impl OwnRun {
    /// `left`: replies that it gets.
    pub fn new(purpose: Purpose, left: usize) -> Self {
        let (locked, stage) = (LockedRows::default(), Stage::default());
        Self { purpose, left, values: Vec::new(), locked, stage, copied: None }
    }
}

/// A prepared statement of the protocol.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub text: Bytes,
    pub plan: Arc<Plan>,
    pub step: Arc<Step>,
    /// The parameters' types as they came in Parse.
    pub types: Bytes,
    /// [`Session::identity_changes`] when it was planned.
    pub generation: u64,
    /// Who the session was then, where that was known.
    pub identity: Option<Arc<Identity>>,
    /// The parameters' description (a frame), once it is known.
    pub parameters: Arc<OnceLock<Bytes>>,
    /// An error came while the server was given it anew: it has none by that name, or one of another text.
    pub lost: bool,
    /// Tables that the server may write in place of those that its text means now, where the rows can't tell.
    pub kept: Vec<Suspect>,
}

/// What PREPARE prepared.
#[derive(Debug, Clone)]
pub(crate) struct SqlPrepared {
    /// PREPARE's own text.
    pub text: Bytes,
    /// The text as it was sent, where it differs.
    pub sent: Option<Bytes>,
    pub step: Arc<Step>,
    pub epoch: u64,
    pub generation: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Portal {
    pub plan: Option<Arc<Plan>>,
    pub step: Arc<Step>,
    pub binary: bool,
    /// Locks its rows, with the values that it was bound to.
    pub lock: Option<Bytes>,
    /// It was executed with a row limit, but without one on the server: later Executes are answered from [`Session::pages`].
    pub paged: bool,
    /// It was executed with the client's own row limit.
    pub in_parts: bool,
    /// It was executed, and returns nothing: the server won't run it again.
    pub ran: bool,
    /// Savepoints that there were when the server bound it.
    pub savepoints: Option<usize>,
    /// One of them was rolled back to, or a Query was to take its place: the server is asked whether it still has it.
    pub gone: bool,
    /// What is kept of it for comparison, until it is executed.
    pub bound: Option<BoundStatement>,
}

impl Portal {
    pub fn new(plan: Option<Arc<Plan>>, step: Arc<Step>) -> Self {
        Self {
            plan,
            step,
            binary: false,
            lock: None,
            paged: false,
            in_parts: false,
            ran: false,
            savepoints: None,
            gone: false,
            bound: None,
        }
    }
}

/// Rows of a portal that the client takes in parts.
#[derive(Debug)]
pub(crate) struct Page {
    pub portal: Bytes,
    /// Rows that the client still takes of its present Execute.
    pub left: usize,
    /// Rows beyond.
    pub rows: VecDeque<Bytes>,
    /// The statement's CommandComplete.
    pub complete: Bytes,
}

impl Page {
    pub fn new(portal: Bytes, limit: i32) -> Self {
        let left = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { portal, left, rows: VecDeque::new(), complete: Bytes::new() }
    }
}
