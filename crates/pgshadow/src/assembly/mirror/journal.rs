//! What sessions tell of their transactions.
use super::{InFlight, Mirror};
use crate::assembly::spilled;
use pgshadow_capture::{Journal, Question, Settled, Spill, SpillRefused, Stopped, Unsettled, Verdict};
use pgshadow_mirror_log::{AppendError, Record};
use pgshadow_model::{
    Cause, Changes, Epoch, Finding, Intent, Kind, Lsn, Outcome, QualifiedName, Sequence, Severity, Suspect,
};
use pgshadow_proxy::Gate;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Sessions that may wait for room in the log at once (`on_full = "block_writes"`).
const BLOCKED_MAX: usize = 256;
/// How often one of them looks whether there is room.
const ROOM_POLL: Duration = Duration::from_millis(5);
/// One session among those that wait for room, until it is dropped.
struct Waiting<'a> {
    all: &'a AtomicUsize,
    number: usize,
}

impl<'a> Waiting<'a> {
    fn of(all: &'a AtomicUsize) -> Self {
        Self { all, number: all.fetch_add(1, Ordering::AcqRel) + 1 }
    }

    fn is_one_of(&self, most: usize) -> bool {
        self.number <= most
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Mirror {
    /// Appends an intent and begins it in the book. Its changes come back in any case.
    fn append_intent(&self, intent: Intent) -> (Changes, Result<Sequence, Stopped>) {
        if self.is_stopped() {
            return (intent.changes, Err(Stopped));
        }
        if let Some(unsynced) = &self.unsynced
            && let Err(error) = unsynced.note(&self.store, &intent)
        {
            self.stop(&error.to_string());
            return (intent.changes, Err(Stopped));
        }
        let (pid, xid) = (intent.backend.pid, intent.xid);
        let record = Record::Intent(intent);
        let mut waiting = None;
        let result = loop {
            let numbering = self.numbering.lock().unwrap_or_else(PoisonError::into_inner);
            let drawn = self.log.append(&record);
            let drawn = match drawn {
                Ok(sequence) => self.begin(sequence, &record).map(|()| sequence).map_err(|late| {
                    // never sent under this number
                    let aborted = Record::Outcome { of: late.0, flushed: false, outcome: Outcome::Aborted };
                    let _ = self.log.append(aborted);
                    None
                }),
                Err(error) => Err(Some(error)),
            };
            drop(numbering);
            match drawn {
                Ok(sequence) => {
                    self.in_flight.insert(sequence, InFlight { pid, xid, since: Instant::now() });
                    break Ok(sequence);
                }
                Err(None) => {}
                Err(Some(AppendError::Busy)) => {
                    tokio::task::block_in_place(|| std::thread::sleep(std::time::Duration::from_millis(1)));
                }
                // a thread each: above the limit there would be none left to make room with
                Err(Some(AppendError::Full))
                    if self.log.blocks_writes()
                        && waiting.get_or_insert_with(|| Waiting::of(&self.blocked)).is_one_of(BLOCKED_MAX) =>
                {
                    tokio::task::block_in_place(|| std::thread::sleep(ROOM_POLL));
                }
                Err(Some(AppendError::TooLarge { .. } | AppendError::Encode(_))) => break Err(Stopped),
                Err(Some(error)) => {
                    self.stop(&error.to_string());
                    break Err(Stopped);
                }
            }
        };
        let changes = if let Record::Intent(intent) = record { intent.changes } else { Changes::default() };
        (changes, result)
    }
}

impl Journal for Mirror {
    fn mirroring(&self) -> bool {
        !self.is_stopped()
    }

    fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    fn spill(&self) -> Result<Box<dyn Spill>, SpillRefused> {
        if self.is_stopped() {
            // nothing will ever refer to it
            return Err(SpillRefused("mirroring has stopped".to_owned()));
        }
        spilled::begin(&self.spilled, &self.log)
    }

    fn intent(&self, intent: Intent) -> (Changes, Result<Sequence, Stopped>) {
        let (changes, result) = self.append_intent(intent);
        match &result {
            Ok(sequence) => self.spilled.add(*sequence, [&changes]),
            Err(_) => changes.spilled.iter().for_each(|spilled| self.log.remove_spilled(spilled.file)),
        }
        (changes, result)
    }

    fn barrier(&self) -> Sequence {
        self.book.barrier()
    }

    fn latest(&self) -> Lsn {
        self.book.latest()
    }

    fn settle(&self, settled: Settled) {
        self.conclude(settled);
    }

    fn lost(&self, unsettled: Unsettled) {
        let sequence = unsettled.sequence;
        if let Err(error) = self.lost.try_send(unsettled) {
            // the log still has its intent without an outcome: a restart looks it up
            tracing::error!(sequence, %error, "a lost transaction can't be looked up now; it waits for the next start");
        }
    }

    fn prepared(&self, gid: String, unsettled: Unsettled) {
        self.in_flight.remove(&unsettled.sequence);
        self.book.park(unsettled.sequence, unsettled.order.map(|o| o.xid));
        if let Some(ended_unseen) = self.prepared.add(gid, unsettled) {
            self.lost(ended_unseen);
        }
    }

    fn finishing_prepared(&self, gid: &str) -> Option<Sequence> {
        let sequence = self.prepared.ending(gid)?;
        self.book.park(sequence, None);
        Some(sequence)
    }

    fn finished_prepared(&self, gid: &str, committed: bool) {
        if let Some(open) = self.prepared.take(gid) {
            self.found_out(open, committed, None);
        }
    }

    fn suspect(&self, suspects: Vec<Suspect>) {
        self.keep_suspects(&suspects);
    }

    fn is_suspect(&self, table: &QualifiedName) -> Option<String> {
        self.store.is_suspect(table)
    }

    fn not_repeated(&self, sql: &str, reason: &str) {
        let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        let statement = (!sql.is_empty()).then(|| sql.to_owned());
        let fingerprint = "schema-not-repeated".to_owned();
        let finding = Finding {
            key: statement.clone(),
            message: Some(format!(
                "a statement was not repeated on the shadow, since {reason}; run it there yourself where it is wanted"
            )),
            sql: statement,
            first_seen: now.clone(),
            last_seen: now,
            ..Finding::new(Kind::Schema, Cause::Unknown, Severity::Warning, fingerprint)
        };
        if let Err(error) = self.store.record(finding) {
            tracing::error!(%error, "a finding could not be written down");
        }
    }
}

impl Gate for Mirror {
    async fn durable(&self, sequence: Sequence) {
        if let Err(error) = self.log.durable(sequence).await {
            self.stop(&error.to_string());
        }
    }

    async fn known_life(&self) {
        self.watch.wait().await;
    }

    async fn judge(&self, question: Question) -> Verdict {
        match self.guard.get() {
            Some(guard) => guard.judge(self, question).await,
            None => Verdict::Goes,
        }
    }
}
