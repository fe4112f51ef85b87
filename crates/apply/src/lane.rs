//! The lane: takes entries in order, applies them, writes the position, heals, and starts again after every loss.

use crate::applier::Shared;
use crate::entry::{Entry, Payload};
use crate::failure::{Class, classify, is_stale};
use crate::fence::Primary;
use crate::heal::Healing;
use crate::report::Reports;
use crate::session::Session;
use crate::tie::{Standing, standing};
use crate::trace::Trace;
use crate::{AppliedPosition, Config, Dial, Error, Log, LogError, LogExtent, OrderBook, Suspects};
use pgshadow_compare::ShadowError;
use pgshadow_divergence::Store;
use pgshadow_model::{Change, Order, Relation, Sequence};
use pgshadow_telemetry::Counter;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Attempts to read an entry's changes from the log before its tables are given up.
const LOG_ATTEMPTS: u32 = 5;

/// Pause between two positions that pass nothing but what wasn't to be applied.
const PASS_EVERY: Duration = Duration::from_secs(1);

/// An entry with its changes.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) sequence: Sequence,
    pub(crate) order: Order,
    pub(crate) reply_number: u64,
    /// The primary may have lost it: its rows are read again instead of applied.
    pub(crate) unsure: bool,
    pub(crate) changes: Arc<Vec<Change>>,
}

/// One serial lane with one connection at a time.
pub(crate) struct Lane {
    pub(crate) config: Config,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) book: Arc<OrderBook>,
    log: Arc<dyn Log>,
    pub(crate) store: Arc<Store>,
    pub(crate) suspects: Arc<dyn Suspects>,
    pub(crate) shared: Arc<Shared>,
    /// Taken from the book and not yet on the shadow, in order.
    pub(crate) in_hand: Vec<Loaded>,
    pub(crate) healing: Healing,
    pub(crate) primary: Primary,
    pub(crate) tolerated: u64,
    /// COPYs that the shadow refused, by entry and change.
    pub(crate) refused_copies: HashMap<(Sequence, u32), ShadowError>,
    trace: Option<Trace>,
    pids: Vec<i32>,
    /// The applied position as it was last on the shadow.
    below: Sequence,
    /// Whether that was read, since the log was opened.
    resumed: bool,
    /// When it was last looked whether it has moved without anything to apply.
    passed_at: Instant,
    entries_applied: u64,
    rows_applied: u64,
    rate_from: (Instant, u64),
}

impl Lane {
    pub(crate) fn new(
        config: Config,
        dial: Arc<dyn Dial>,
        book: Arc<OrderBook>,
        log: Arc<dyn Log>,
        store: Arc<Store>,
        suspects: Arc<dyn Suspects>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            config,
            dial,
            book,
            log,
            store,
            suspects,
            shared,
            in_hand: Vec::new(),
            healing: Healing::default(),
            primary: Primary::default(),
            tolerated: 0,
            refused_copies: HashMap::new(),
            trace: None,
            pids: Vec::new(),
            below: 0,
            resumed: false,
            passed_at: Instant::now(),
            entries_applied: 0,
            rows_applied: 0,
            rate_from: (Instant::now(), 0),
        }
    }

    pub(crate) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => {}
            () = self.live() => {}
        }
        shared.update(|s| (s.connected, s.doing) = (false, "stopped".to_owned()));
    }

    async fn live(&mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let before = self.entries_applied;
            self.doing("connecting to the shadow");
            let error = match Session::open(&*self.dial, &self.config, self.log.extent(), &self.pids).await {
                Ok(mut session) => {
                    self.pids = vec![session.pid];
                    match self.serve(&mut session).await {
                        Ok(never) => match never {},
                        Err(e) => e,
                    }
                }
                Err(e) => e,
            };
            tracing::warn!(error = %error, "the applier lost the shadow and tries again");
            self.shared.update(|s| (s.connected, s.last_error) = (false, Some(error.to_string())));
            pause = if self.entries_applied > before { PAUSE_MIN } else { (pause * 2).min(self.config.backoff_max) };
            self.doing("waiting before the next attempt to reach the shadow");
            tokio::time::sleep(pause).await;
        }
    }

    /// Works on one connection until it is lost.
    async fn serve(&mut self, session: &mut Session) -> Result<Infallible, Error> {
        let position = self.resume(session).await?;
        session.forget_started(&self.config.stream, position.below).await?;
        self.healing = Healing::load(session, &self.config.stream).await?;
        if let (Some(path), None) = (&self.config.trace, &self.trace) {
            self.trace = Some(Trace::open(path)?);
        }
        self.healing.show(&self.shared);
        self.shared.update(|s| (s.connected, s.last_error) = (true, None));
        loop {
            if self.in_hand.is_empty() {
                let batch = self.book.take_batch(self.config.batch_entries_max, self.config.batch_rows_max, None);
                self.load(batch).await?;
            }
            let worked = !self.in_hand.is_empty();
            if worked {
                self.doing("applying");
                self.apply_in_hand(session).await?;
            }
            if self.healing.is_due() {
                self.heal(session).await?;
            } else if !worked {
                self.idle(session).await?;
            }
        }
    }

    /// Finds out where the shadow stands. What it doesn't have and nobody can bring any more makes every table suspect.
    async fn resume(&mut self, session: &Session) -> Result<AppliedPosition, Error> {
        let log = self.log.extent();
        let position = match standing(session.stored(&self.config.stream).await?, &log, !self.resumed) {
            Standing::Follows(position) => position,
            Standing::Gap(position, reason) => {
                self.suspect(None, reason).await?;
                position
            }
            Standing::Foreign(reason) => return self.start_anew(session, &log, reason).await,
        };
        if position.below < self.below {
            let reason = "the shadow is back at an older state: transactions that were applied are gone from it";
            self.suspect(None, reason.to_owned()).await?;
        }
        (self.below, self.resumed) = (position.below, true);
        self.book.restore(&position);
        self.log.applied(position.below);
        self.in_hand.retain(|e| !position.contains(e.sequence));
        Ok(position)
    }

    /// The shadow's numbers aren't this log's: every table is to be reloaded, and this log's own numbers count from here on.
    async fn start_anew(
        &mut self,
        session: &Session,
        log: &LogExtent,
        reason: String,
    ) -> Result<AppliedPosition, Error> {
        self.suspect(None, reason).await?;
        if !self.resumed {
            // Nobody knows what of it the shadow has; and a statement must not be run there twice.
            self.book.skip(log.last);
            self.book.restore(&AppliedPosition::default());
        }
        session.forget_numbers(&self.config.stream).await?;
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.forget_all_origins()).await??;
        let position = self.book.applied_position();
        session.write_position(&self.config.stream, &position).await?;
        (self.below, self.resumed) = (position.below, true);
        self.log.applied(position.below);
        Ok(position)
    }

    async fn idle(&mut self, session: &Session) -> Result<(), Error> {
        self.doing("waiting for commits");
        self.pass_nothing(session).await?;
        let longest = Duration::from_secs(1).min(self.healing.until_due());
        let _ = tokio::time::timeout(longest, self.book.wait_for_work()).await;
        if session.client().is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Where nothing is to be applied, rolled back transactions still let the log be trimmed. Not for each of them.
    async fn pass_nothing(&mut self, session: &Session) -> Result<(), Error> {
        if self.passed_at.elapsed() < PASS_EVERY {
            return Ok(());
        }
        self.passed_at = Instant::now();
        let position = self.book.applied_position();
        if position.below > self.below {
            if let Err(error) = session.write_position(&self.config.stream, &position).await {
                // a shadow that is read-only for a while has nothing to do anyway
                return self.after(session, error).await.map(|_| ());
            }
            self.below = position.below;
            self.log.applied(position.below);
        }
        Ok(())
    }

    pub(crate) fn doing(&self, what: &str) {
        self.shared.update(|s| {
            if s.doing != what {
                what.clone_into(&mut s.doing);
            }
        });
    }

    /// Takes entries in hand, with their changes. They are in hand even if this is cut short.
    pub(crate) async fn load(&mut self, batch: Vec<Entry>) -> Result<(), Error> {
        for entry in batch {
            let changes = match entry.changes {
                Payload::Memory { changes, .. } => changes,
                Payload::Spilled => self.read_log(entry.sequence).await?,
            };
            let (sequence, order, reply_number) = (entry.sequence, entry.order, entry.reply_number);
            // The book says a gate only where it was not passed in the life of the primary that set it.
            let (unsure, changes) = (entry.flush_gate.is_some(), Arc::new(changes));
            self.in_hand.push(Loaded { sequence, order, reply_number, unsure, changes });
        }
        Ok(())
    }

    async fn read_log(&self, sequence: Sequence) -> Result<Vec<Change>, Error> {
        let mut attempt = 1;
        loop {
            let log = Arc::clone(&self.log);
            let error = match tokio::task::spawn_blocking(move || log.read(sequence)).await? {
                Ok(changes) => return Ok(changes),
                Err(LogError::NotYet) => {
                    tokio::time::sleep(PAUSE_MIN).await;
                    continue;
                }
                Err(e) => Error::Log(sequence, e),
            };
            tracing::error!(error = %error, attempt, "the log gives no changes");
            self.shared.update(|s| s.last_error = Some(error.to_string()));
            if attempt >= LOG_ATTEMPTS {
                self.suspect(None, format!("a committed transaction is lost: {error}")).await?;
                return Ok(Vec::new());
            }
            tokio::time::sleep(PAUSE_MIN * 2_u32.pow(attempt)).await;
            attempt += 1;
        }
    }

    /// Applies all that is in hand.
    pub(crate) async fn apply_in_hand(&mut self, session: &mut Session) -> Result<(), Error> {
        while !self.in_hand.is_empty() {
            let simple = self.in_hand.iter().take_while(|e| is_simple(e)).count();
            let batch: Vec<Loaded> = self.in_hand.iter().take(simple.max(1)).cloned().collect();
            if simple > 0 && self.apply_fast(session, &batch).await? {
                self.in_hand.drain(..batch.len());
                continue;
            }
            for entry in &batch {
                self.apply_carefully(session, entry).await?;
                self.in_hand.retain(|e| e.sequence != entry.sequence);
            }
        }
        Ok(())
    }

    /// The fast path, over and over while what hinders it will pass. False if the entries need care.
    async fn apply_fast(&mut self, session: &mut Session, batch: &[Loaded]) -> Result<bool, Error> {
        let mut pause = PAUSE_MIN;
        loop {
            let error = match self.apply_batch(session, batch).await {
                Ok(done) => return Ok(done),
                Err(e) => e,
            };
            if is_stale(&error) {
                session.forget_tables();
            }
            if self.after(session, error).await? == Class::Row {
                return Ok(false);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.config.backoff_max);
        }
    }

    /// Rolls back after an error that the connection survived, and says what it was.
    pub(crate) async fn after(&self, session: &Session, error: Error) -> Result<Class, Error> {
        let class = classify(&error);
        if class == Class::Lost {
            return Err(error);
        }
        session.client().batch_execute("ROLLBACK").await?;
        if class == Class::Again {
            tracing::info!(error = %error, "the shadow could not take a transaction now; it is tried again");
            self.shared.update(|s| s.last_error = Some(error.to_string()));
        }
        Ok(class)
    }

    /// Ends the transaction on the shadow that applied these entries: what was found is written down first, then the
    /// position with the rows.
    pub(crate) async fn finish(
        &mut self,
        session: &mut Session,
        entries: &[Loaded],
        reports: Reports,
    ) -> Result<(), Error> {
        self.write_down(session, &reports).await?;
        let sequences: Vec<Sequence> = entries.iter().map(|e| e.sequence).collect();
        let position = self.book.position_with(&sequences);
        let commit = session.client().batch_execute("COMMIT");
        let (written, committed) = futures::join!(session.write_position(&self.config.stream, &position), commit);
        written?;
        committed?;
        self.healing.add(&reports);
        // Before the book's waiters wake: who sees the entries applied also sees what waits to be healed.
        self.healing.show(&self.shared);
        self.count(entries);
        self.book.applied(&sequences);
        self.below = position.below;
        self.log.applied(position.below);
        if let Some(trace) = &mut self.trace {
            trace.write(entries)?;
        }
        Ok(())
    }

    /// Findings into the store, what is to be healed into the open transaction, suspect tables. All of it may be
    /// repeated after a crash.
    async fn write_down(&self, session: &Session, reports: &Reports) -> Result<(), Error> {
        if reports.list.is_empty() {
            return Ok(());
        }
        for report in &reports.list {
            for (table, reason) in &report.suspect {
                self.suspect(table.as_ref(), reason.clone()).await?;
            }
            Healing::write(session, &self.config.stream, report).await?;
        }
        let findings = reports.list.iter().filter_map(|r| Some((Some(r.origin), r.finding.clone()?))).collect();
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.record_all(findings)).await??;
        Ok(())
    }

    fn count(&mut self, entries: &[Loaded]) {
        self.entries_applied += entries.len() as u64;
        let rows = entries.iter().map(|e| e.changes.len() as u64).sum::<u64>();
        self.rows_applied += rows;
        Counter::TransactionsApplied.add(entries.len() as u64);
        Counter::RowsApplied.add(rows);
        // every applied row is compared: by its own RETURNING, or by what the careful way reads
        Counter::RowsCompared.add(rows);
        let (entries, rows, tolerated) = (self.entries_applied, self.rows_applied, self.tolerated);
        let (since, rows_then) = self.rate_from;
        let seconds = since.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss)] // a rate for people
        let rate = (seconds >= 1.0).then(|| (rows - rows_then) as f64 / seconds);
        if rate.is_some() {
            self.rate_from = (Instant::now(), rows);
        }
        self.shared.update(|s| {
            (s.entries_applied, s.rows_applied, s.tolerated) = (entries, rows, tolerated);
            s.last_error = None;
            if let Some(rate) = rate {
                s.rows_per_second = rate;
            }
        });
    }
}

/// Whether its rows can be written one after the other without a look back.
fn is_simple(entry: &Loaded) -> bool {
    !entry.unsure && entry.changes.iter().all(|c| matches!(c, Change::Row(_))) && !has_rows_of_one_tree(entry)
}

/// Several rows of a table whose foreign key refers to the table itself: the primary checked them at the statement's end, the
/// shadow checks them row by row, and cascades from one to another.
fn has_rows_of_one_tree(entry: &Loaded) -> bool {
    let mut seen = HashSet::new();
    let trees = entry.changes.iter().filter_map(|change| match change {
        Change::Row(image) if refers_to_itself(&image.relation) => Some(&image.relation.name),
        _ => None,
    });
    trees.into_iter().any(|name| !seen.insert(name))
}

pub(crate) fn refers_to_itself(relation: &Relation) -> bool {
    relation.foreign_keys.iter().any(|key| key.parent == relation.name)
}
