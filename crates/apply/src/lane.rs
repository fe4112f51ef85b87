//! A lane: takes entries that nothing stands before, applies them in order, writes the position with them.

use crate::choice::LEFT_FOR;
use crate::common::Common;
use crate::entry::{Entry, Loaded, Payload};
use crate::failure::{Class, classify, is_stale};
use crate::report::Reports;
use crate::session::Session;
use crate::waiting::Healing;
use crate::{Error, LogError};
use pgshadow_model::{Change, Operation, Relation, Sequence};
use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Attempts to read an entry's changes from the log before its tables are given up.
pub(crate) const LOG_ATTEMPTS: u32 = 5;

/// How long what the shadow refuses waits for entries that come before it and that no lane has yet.
const LOWER_WITHIN: Duration = Duration::from_secs(1);

/// One of those that bring entries to the shadow, with one connection at a time.
pub(crate) struct Lane {
    pub(crate) common: Arc<Common>,
    /// Taken from the book, in order; their changes aren't read yet.
    taken: VecDeque<Entry>,
    /// Before those; not yet on the shadow.
    pub(crate) in_hand: Vec<Loaded>,
}

impl Deref for Lane {
    type Target = Common;
    fn deref(&self) -> &Common {
        &self.common
    }
}

impl Lane {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        Self { common, taken: VecDeque::new(), in_hand: Vec::new() }
    }

    /// Works on one connection until it is lost.
    pub(crate) async fn serve(&mut self, session: &mut Session) -> Result<Infallible, Error> {
        loop {
            let worked = self.work(session).await?;
            if self.healing.is_due() {
                self.heal(session).await?;
            } else if let Some(request) = self.asked.next() {
                self.answer(session, request).await?;
            } else if !worked {
                self.idle(session).await?;
            }
        }
    }

    /// Applies what can be had; false if there was nothing.
    async fn work(&mut self, session: &mut Session) -> Result<bool, Error> {
        let common = Arc::clone(&self.common);
        let _at_work = common.quiet.read().await;
        if !self.has_entries() {
            let batch = self.book.take_for_lane(self.config.batch_entries_max, self.config.batch_rows_max);
            self.take(batch);
        }
        self.load().await?;
        if self.in_hand.is_empty() {
            return Ok(false);
        }
        self.doing("applying");
        session.keep_up(&common.definitions);
        self.apply_in_hand(session).await?;
        Ok(true)
    }

    async fn idle(&mut self, session: &Session) -> Result<(), Error> {
        self.doing("waiting for commits");
        if let Some(position) = self.to_pass() {
            match session.write_position(&self.config.stream, &position).await {
                Ok(()) => self.passed(position.below),
                // a shadow that is read-only for a while has nothing to do anyway
                Err(error) => drop(self.after(session, error).await?),
            }
        }
        if self.book.has_ready() {
            // left to another lane, if that is soon done
            tokio::time::sleep(LEFT_FOR).await;
            return Ok(());
        }
        let longest = Duration::from_secs(1).min(self.healing.until_due());
        tokio::select! {
            () = self.book.wait_for_work() => {}
            () = self.healing.wait_for_more() => {}
            () = self.asked.wait() => {}
            () = tokio::time::sleep(longest) => {}
        }
        if session.client().is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    pub(crate) fn has_entries(&self) -> bool {
        !(self.in_hand.is_empty() && self.taken.is_empty())
    }

    /// Takes entries in hand, from now on, whatever comes.
    pub(crate) fn take(&mut self, batch: Vec<Entry>) {
        self.taken.extend(batch);
    }

    /// What another lane had in hand, or this one on an earlier connection, leaving out what the shadow holds already.
    pub(crate) fn take_over(&mut self, others: impl IntoIterator<Item = Lane>, applied: impl Fn(Sequence) -> bool) {
        for other in others {
            self.in_hand.extend(other.in_hand);
            self.taken.extend(other.taken);
        }
        self.in_hand.retain(|e| !applied(e.sequence));
        self.taken.retain(|e| !applied(e.sequence));
        // Those of different lanes don't conflict; of each lane, what is loaded comes before what isn't.
        self.in_hand.sort_by_key(|e| (e.order, e.sequence));
        self.taken.make_contiguous().sort_by_key(|e| (e.order, e.sequence));
    }

    /// Reads the changes of what is taken. Cut short, it goes on where it was.
    pub(crate) async fn load(&mut self) -> Result<(), Error> {
        while let Some(entry) = self.taken.front_mut() {
            let sequence = entry.sequence;
            let (changes, vast) = match entry.changes.take() {
                Payload::Memory { changes, .. } => (changes, None),
                Payload::Spilled => (self.read_log(sequence).await?, None),
                Payload::Vast(vast) => (Vec::new(), Some(vast)),
            };
            let Some(entry) = self.taken.pop_front() else { break };
            let (order, reply_number) = (entry.order, entry.reply_number);
            // The book says a gate only where it was not passed in the life of the primary that set it.
            let (unsure, changes) = (entry.flush_gate.is_some(), Arc::new(changes));
            self.in_hand.push(Loaded { sequence, order, reply_number, unsure, changes, vast });
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
        let mut together = usize::MAX;
        while !self.in_hand.is_empty() {
            let simple = self.in_hand.iter().take(together).take_while(|e| is_simple(e)).count();
            let batch: Vec<Loaded> = self.in_hand.iter().take(simple.max(1)).cloned().collect();
            if simple > 0 {
                if self.apply_fast(session, &batch).await? {
                    self.in_hand.drain(..batch.len());
                    continue;
                }
                if batch.len() > 1 {
                    // Each by itself: most of them will do.
                    together = 1;
                    continue;
                }
            }
            for entry in &batch {
                if simple > 0 {
                    // The shadow may have a constraint that the primary doesn't have, or no more: then the order matters after all.
                    self.book.wait_for_lower(entry.sequence, LOWER_WITHIN).await;
                }
                self.apply_carefully(session, entry).await?;
                self.in_hand.retain(|e| e.sequence != entry.sequence);
            }
        }
        Ok(())
    }

    /// The fast path; for one entry over and over while what hinders it will pass. False if it needs care.
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
            if self.after(session, error).await? == Class::Row || batch.len() > 1 {
                return Ok(false);
            }
            self.keep_only_first();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.config.backoff_max);
        }
    }

    /// What is behind an entry that can't be applied now may be applied by another lane.
    fn keep_only_first(&mut self) {
        let behind = self.in_hand.drain(1..).map(|e| e.sequence).chain(self.taken.drain(..).map(|e| e.sequence));
        let behind: Vec<Sequence> = behind.collect();
        self.book.give_back(&behind);
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
        self.lapse_by(entries).await?;
        let sequences: Vec<Sequence> = entries.iter().map(|e| e.sequence).collect();
        let position = self.book.position_with(&sequences);
        let commit = session.client().batch_execute("COMMIT");
        let (written, committed) = futures::join!(session.write_position(&self.config.stream, &position), commit);
        written?;
        committed?;
        self.healing.add(&reports);
        self.applied(entries, &position)
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
        let found = reports.list.iter().filter_map(|r| Some((Some(r.origin), r.finding.clone()?)));
        let findings: Vec<_> = found.filter_map(|(origin, f)| Some((origin, self.rehearsals.due(f)?))).collect();
        if findings.is_empty() {
            return Ok(());
        }
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.record_all(findings)).await??;
        Ok(())
    }
}

/// Whether its rows can be written one after the other without a look back.
fn is_simple(entry: &Loaded) -> bool {
    let has_values = |c: &Change| match c {
        Change::Row(image) => image.operation != Operation::Reread,
        Change::Statement(_) => true,
        _ => false,
    };
    !entry.unsure && entry.vast.is_none() && entry.changes.iter().all(has_values) && !has_rows_of_one_tree(entry)
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
