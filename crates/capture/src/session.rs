//! The capture of one session, and what it holds.
use crate::again::Attempt;
use crate::backends::{Backends, Registered};
use crate::carried::OwnSettings;
use crate::copying::Copying;
use crate::expected::{Expected, Page, Portal, Prepared, SqlPrepared};
use crate::guard::{Guard, Guarding};
use crate::journal::{Journal, Unsettled};
use crate::notices::Reported;
use crate::plan::{Effect, Plan, Strip};
use crate::shape::Shaped;
use crate::unit::Unit;
use bytes::Bytes;
use pgshadow_catalog::{Catalog, Identity, Table};
use pgshadow_model::{Backend, Epoch, Order, QualifiedName, Sequence, Suspect};
use pgshadow_wire::{Frame, backend, frontend};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// What goes to the server next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToServer {
    /// These bytes.
    Bytes(Bytes),
    /// Nothing more until this record of the log is durable.
    Durable(Sequence),
}

/// Where a session's frames go: filled by [`Session`], emptied by the relay.
#[derive(Debug, Default)]
pub struct Output {
    /// For the primary.
    pub to_server: VecDeque<ToServer>,
    /// For the client.
    pub to_client: Vec<Bytes>,
}

impl Output {
    pub(crate) fn server(&mut self, bytes: Bytes) {
        self.to_server.push_back(ToServer::Bytes(bytes));
    }

    pub(crate) fn client(&mut self, bytes: Bytes) {
        self.to_client.push(bytes);
    }
}

/// What all sessions share.
#[derive(Debug)]
pub struct Shared<J> {
    /// Where transactions are written down.
    pub journal: Arc<J>,
    /// What sessions have found in the catalog.
    pub catalog: Arc<Catalog>,
    /// Tables that aren't mirrored.
    pub excluded: HashSet<QualifiedName>,
    /// Where sessions are registered.
    pub backends: Arc<Backends>,
    /// Share of the statements determined by the rows that they name which are recorded for comparison, from 0 to 1.
    pub statements: f64,
    /// What is done about definitions that lock tables.
    pub guard: Guard,
}

/// Why the client's frames aren't taken at present.
#[derive(Debug)]
pub(crate) enum Hold {
    /// They are.
    Free,
    /// Until a probe has answered; then this frame is taken again.
    Probe(Frame),
    /// Until all Syncs and Queries before it are answered; then this frame is taken again.
    Answers(Frame),
    /// Until it is known whether a COPY FROM STDIN has begun; then this frame is taken again.
    Copy(Frame),
    /// Until somebody has said whether it may run; then this frame is taken again.
    Judgement(Frame),
    /// Until the server is ready: what was sent may have changed the transaction's state.
    Ready,
}

/// The capture of one session: frames in, frames out.
#[derive(Debug)]
pub struct Session<J: Journal> {
    pub(crate) shared: Arc<Shared<J>>,
    pub(crate) backend: Backend,
    /// The process that its client was told of.
    pub(crate) client_pid: i32,
    /// Told of for as long as the session lives.
    registered: Registered,
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) tables: HashMap<String, Option<Arc<Table>>>,
    pub(crate) tables_epoch: u64,
    /// [`Catalog::functions_version`] of what is planned.
    pub(crate) functions_version: u64,
    pub(crate) plans: HashMap<Bytes, Arc<Plan>>,
    pub(crate) shapes: HashMap<Vec<u8>, Arc<Shaped>>,
    pub(crate) statements: HashMap<Bytes, Prepared>,
    pub(crate) portals: HashMap<Bytes, Portal>,
    /// What texts may have set of settings of the application's own.
    pub(crate) own_settings: OwnSettings,
    /// The database's own types that the client was told the number of.
    pub(crate) told_types: BTreeSet<u32>,
    /// By portal.
    pub(crate) pages: HashMap<Bytes, Page>,
    /// Executes that wait for the message behind them, all of one portal, and its Close.
    pub(crate) limited: Vec<Frame>,
    pub(crate) sql_prepared: HashMap<String, SqlPrepared>,
    /// How often names or settings may have got another meaning.
    pub(crate) identity_changes: u64,
    /// Names that got another meaning (`S` statement, `P` portal), and after how many Syncs.
    pub(crate) replaced: HashMap<(u8, Bytes), u64>,
    pub(crate) syncs_sent: u64,
    pub(crate) syncs_answered: u64,
    pub(crate) units: VecDeque<Unit>,
    pub(crate) pending: VecDeque<Expected>,
    pub(crate) hold: Hold,
    pub(crate) guarding: Guarding,
    pub(crate) attempt: Attempt,
    /// Pieces of a Query that are sent one after the other: text and characters in front.
    pub(crate) pieces: VecDeque<(Bytes, usize)>,
    /// Answers to pieces that the client gets with those to a later one.
    pub(crate) withheld: Vec<Bytes>,
    /// In a transaction block, as far as was sent.
    pub(crate) block: bool,
    /// Frames were sent since the last Sync.
    pub(crate) batch: bool,
    /// One of them controls the transaction.
    pub(crate) batch_control: bool,
    /// The client's frames are dropped up to its Sync, as the server would.
    pub(crate) skip_to_sync: bool,
    /// COPY FROM STDIN runs.
    pub(crate) copying: bool,
    pub(crate) copy: Copying,
    pub(crate) reported: Reported,
    /// Frames can't be cut or made sense of any more: everything is forwarded as it is.
    pub(crate) lost_track: bool,
    /// A COMMIT that our own statement failed left a block open: end it before the client sees ReadyForQuery.
    pub(crate) roll_back_at_ready: bool,
    /// Transaction status of the last ReadyForQuery.
    pub(crate) status: u8,
    pub(crate) probe_failed: bool,
    /// Lookups one after the other that ran into the client's statement_timeout.
    pub(crate) probe_timeouts: u8,
    /// Where the next statement that is recorded for comparison falls.
    pub(crate) sample: f64,
}

/// What it wrote after the first doubt was told may be in a snapshot that was taken since: it is told again, ahead of the session's end.
impl<J: Journal> Drop for Session<J> {
    fn drop(&mut self) {
        if self.lost_track {
            let reason = "a session could not be followed to its end: what it wrote wasn't seen".to_owned();
            self.shared.journal.suspect(vec![Suspect { table: None, reason }]);
        }
    }
}

impl<J: Journal> Session<J> {
    /// A session whose login has just succeeded (the first ReadyForQuery has been forwarded).
    pub fn new(shared: Arc<Shared<J>>, backend: Backend) -> Self {
        let registered = shared.backends.register(backend.pid);
        Self {
            shared,
            client_pid: backend.pid,
            backend,
            registered,
            identity: None,
            tables: HashMap::new(),
            tables_epoch: 0,
            functions_version: 0,
            plans: HashMap::new(),
            shapes: HashMap::new(),
            statements: HashMap::new(),
            portals: HashMap::new(),
            own_settings: OwnSettings::default(),
            told_types: BTreeSet::new(),
            pages: HashMap::new(),
            limited: Vec::new(),
            sql_prepared: HashMap::new(),
            identity_changes: 0,
            replaced: HashMap::new(),
            syncs_sent: 0,
            syncs_answered: 0,
            units: VecDeque::new(),
            pending: VecDeque::new(),
            hold: Hold::Free,
            guarding: Guarding::Unasked,
            attempt: Attempt::default(),
            pieces: VecDeque::new(),
            withheld: Vec::new(),
            block: false,
            batch: false,
            batch_control: false,
            skip_to_sync: false,
            copying: false,
            copy: Copying::default(),
            reported: Reported::default(),
            lost_track: false,
            roll_back_at_ready: false,
            status: b'I',
            probe_failed: false,
            probe_timeouts: 0,
            sample: 0.0,
        }
    }

    /// Whether the client's next frame may be taken.
    #[must_use]
    pub fn takes_client_frames(&self) -> bool {
        matches!(self.hold, Hold::Free) && self.attempt.taken()
    }

    /// Whether a client's frame of this type is looked into; others may be forwarded in parts as they come.
    #[must_use]
    pub fn reads_client(&self, tag: u8) -> bool {
        !self.lost_track && (tag != frontend::COPY_DATA || self.reads_copy_data())
    }

    /// Whether a server's frame of this type is looked into; others may be forwarded in parts as they come.
    #[must_use]
    pub fn reads_server(&self, tag: u8) -> bool {
        if self.lost_track {
            return false;
        }
        if !self.pieces.is_empty() || !self.withheld.is_empty() {
            // nothing overtakes what is withheld
            return true;
        }
        match tag {
            frontend::COPY_DATA => false,
            backend::DATA_ROW => match self.pending.front() {
                Some(Expected::Query(run)) => {
                    run.plan.steps.get(run.at).is_none_or(|s| self.resolved(s).strip() != Strip::Nothing)
                        || !run.suffix.is_empty()
                        || run.copied.is_some()
                }
                Some(Expected::Execute(run)) => run.step.strip() != Strip::Nothing,
                _ => true,
            },
            _ => true,
        }
    }

    /// Whether nothing is under way: no answer is awaited and no transaction is open.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.pending.is_empty() && self.units.is_empty() && !self.block && self.pieces.is_empty()
    }

    /// Whether nothing is under way and no batch has begun: the server is ready, outside a transaction.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        let open = self.batch || self.skip_to_sync || self.copying || self.lost_track;
        self.idle() && !open && self.takes_client_frames()
    }

    /// Whether all that was sent ends with a Sync or a Query whose answer is to come, and leaves no transaction block open, as far
    /// as that can be told.
    #[must_use]
    pub fn between_batches(&self) -> bool {
        !self.block && !self.batch && !self.copying && !self.lost_track && self.awaits_ready()
    }

    /// Whether its frames can't be made sense of any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost_track
    }

    /// Frames can't be cut any more: what follows is forwarded as it is, and whatever the session has open is declared.
    pub fn lose_track(&mut self, reason: &'static str) {
        if !self.lost_track {
            self.lost_track = true;
            self.registered.unfollow();
            self.hold = Hold::Free;
            self.pieces.clear();
            tracing::warn!(
                pid = self.backend.pid,
                reason,
                "a session can't be followed any more; every table is suspect"
            );
            self.shared.journal.suspect(vec![Suspect { table: None, reason: reason.to_owned() }]);
            self.closed();
        }
    }

    /// What is kept back of the server's answers, where no more will come.
    pub fn take_withheld(&mut self) -> Vec<Bytes> {
        let mut withheld = std::mem::take(&mut self.withheld);
        withheld.append(&mut self.reported.take());
        withheld
    }

    /// The session is over: whatever may have committed unseen is handed over to be looked up.
    pub fn closed(&mut self) {
        for mut unit in std::mem::take(&mut self.units) {
            let Some(sequence) = unit.intent else {
                if unit.unmirrored {
                    unit.give_up("mirroring had stopped when it was written");
                    self.shared.journal.suspect(unit.all_suspects(&*self.shared.journal));
                }
                continue;
            };
            let (intent_changes, changes) = unit.all_changes();
            let suspects = unit.all_suspects(&*self.shared.journal);
            self.shared.journal.lost(Unsettled {
                sequence,
                epoch: unit.epoch,
                order: Self::order(&unit, unit.epoch),
                barrier: unit.barrier,
                backend: self.backend.clone(),
                intent_changes,
                changes,
                complete: unit.outstanding == 0 && !unit.needs_end() && unit.undoing == 0,
                may_write_any: unit.hidden_writes || unit.may_write_any(),
                may_write: unit.may_write.into_iter().collect(),
                suspects,
                prepared: unit.prepared,
            });
        }
    }

    /// Its place in a life of the primary: that in which its outcome is seen, else that in which it began.
    pub(crate) fn order(unit: &Unit, epoch: Epoch) -> Option<Order> {
        Some(Order { epoch, token: unit.token?, xid: unit.xid? })
    }

    /// The unit that what is sent now belongs to.
    pub(crate) fn open_unit(&mut self) -> &mut Unit {
        if self.units.back().is_none_or(|u| u.closed) {
            let epoch = self.shared.journal.epoch();
            self.units.push_back(Unit { explicit: self.block, begun: self.block, epoch, ..Unit::default() });
        }
        let last = self.units.len() - 1;
        #[allow(clippy::indexing_slicing, reason = "one was pushed if there was none")]
        &mut self.units[last]
    }

    /// A COPY FROM STDIN was sent whose stream is to be recorded, and hasn't been answered.
    pub(crate) fn copy_sent(&self) -> bool {
        self.pending.iter().any(|e| match e {
            Expected::Query(run) => run.plan.steps.iter().any(|s| matches!(s.effect, Effect::Copy { .. })),
            Expected::Execute(run) => matches!(run.step.effect, Effect::Copy { .. }),
            _ => false,
        })
    }

    pub(crate) fn flushes(&self) -> bool {
        self.identity.as_ref().is_some_and(|i| i.synchronous_commit != "off")
    }

    /// Whether statements of ours must come ahead of a COMMIT sent now, while the transaction may have failed unseen: they
    /// would get an error of their own.
    pub(crate) fn must_know_before_commit(&self) -> bool {
        self.units.back().is_some_and(|u| u.explicit && !u.closed && !u.failed && u.needs_end()) && self.awaits_ready()
    }

    /// The rows of a portal that is executed page by page are to come.
    pub(crate) fn awaits_page(&self, portal: &Bytes) -> bool {
        let runs =
            |e: &Expected| matches!(e, Expected::Execute(run) if run.page.as_ref().is_some_and(|p| p.portal == portal));
        self.pending.iter().any(runs)
    }

    /// A ReadyForQuery is to come.
    pub(crate) fn awaits_ready(&self) -> bool {
        let is_end = |e: &Expected| {
            matches!(
                e,
                Expected::Query(_) | Expected::Sync { .. } | Expected::Syncs { .. } | Expected::FunctionCall { .. }
            )
        };
        self.pending.iter().any(is_end)
    }
}
