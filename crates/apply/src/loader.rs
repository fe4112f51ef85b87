//! Leaves in the log what the book has no room for, and brings it back as soon as there is some.

use crate::backlog::Left;
use crate::common::Common;
use crate::entry::{Entry, Payload};
use crate::lane::{LOG_ATTEMPTS, PAUSE_MIN};
use crate::queues::Key;
use crate::release::{Held, State};
use crate::{Error, Log, LogError, OrderBook};
use pgshadow_model::Sequence;
use pgshadow_telemetry::Counter;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::time::Instant;

/// Bytes of changes that are read at once; what is beyond is read a second time when its turn comes.
const BYTES_MAX: usize = 16 << 20;

/// Works until the applier ends.
pub(crate) async fn run(common: &Common) -> Infallible {
    let mut attempt = 1;
    loop {
        common.book.wait_for_room().await;
        let (book, log) = (Arc::clone(&common.book), Arc::clone(&common.log));
        let error = match tokio::task::spawn_blocking(move || book.load(&*log)).await {
            Ok(Loaded::Nothing) => continue,
            Ok(Loaded::Some) => {
                attempt = 1;
                continue;
            }
            Ok(Loaded::NotYet) => {
                tokio::time::sleep(PAUSE_MIN).await;
                continue;
            }
            Ok(Loaded::Failed(sequence, error)) => Error::Log(sequence, error),
            Err(error) => Error::Task(error),
        };
        tracing::error!(error = %error, attempt, "the log gives no changes");
        common.shared.update(|s| s.last_error = Some(error.to_string()));
        if attempt >= LOG_ATTEMPTS {
            // before anything that came behind it is applied as if it had been there
            let reason = format!("a committed transaction is lost: {error}");
            if let Err(error) = common.suspect(None, reason).await {
                tracing::error!(%error, "a lost transaction could not be written down");
                tokio::time::sleep(PAUSE_MIN).await;
                continue;
            }
            if let Error::Log(outcome, _) = error {
                common.book.lose_left(outcome);
            }
            attempt = 1;
            continue;
        }
        tokio::time::sleep(PAUSE_MIN * 2_u32.pow(attempt)).await;
        attempt += 1;
    }
}

/// How it went with what was left in the log.
#[derive(Debug)]
pub enum Loaded {
    /// There is nothing, or no room for it.
    Nothing,
    /// A block of it is in the book.
    Some,
    /// Something of it isn't on the disk yet.
    NotYet,
    /// The entry whose outcome has this number can't be read. Those before it are in the book.
    Failed(Sequence, LogError),
}

impl State {
    /// Whether what is settled now is better left in the log. What is left goes before what comes later.
    pub(crate) fn is_full(&self, bytes: usize) -> bool {
        // while tables are held, what finds no room in memory is only read again, and others pass it by
        let crowded = self.memory_bytes + bytes > self.memory_bytes_max && !self.entries.is_empty();
        !self.backlog.is_empty() || self.entries.len() >= self.held_max || (crowded && !self.is_holding())
    }

    /// Settles an entry that stays in the log.
    pub(crate) fn leave(&mut self, entry: &Entry, outcome: Sequence) {
        let sequence = entry.sequence;
        self.settle(sequence, None);
        if entry.order.epoch == self.epoch {
            self.latest = self.latest.max(entry.order.token);
        }
        if !(self.is_restored(sequence) || self.applied.contains(sequence) || self.unapplied.contains_key(&sequence)) {
            self.backlog.leave((entry.order, sequence), outcome, entry.changes.log_bytes(), entry.flush_gate);
        }
    }

    /// What is to be read from the log now, if there is room for it.
    pub(crate) fn next_left(&self) -> Option<Left> {
        let room = self.entries.len() <= self.held_max / 2 && self.memory_bytes <= self.memory_bytes_max / 2;
        // what could go waits for what is left
        let held_back = self.choice.first_ready().is_some_and(|first| self.is_held_back(&first));
        if room || held_back { self.backlog.first_block() } else { None }
    }

    /// These were left, and are held from now on; all of these outcomes were read.
    pub(crate) fn loaded(&mut self, all: Vec<Held>, outcomes: &[Sequence], since: Instant) {
        for held in all {
            if self.backlog.take(held.entry.sequence) {
                Counter::LogReadAgain.add(1);
                self.add_since(held, since);
            }
        }
        self.backlog.read(outcomes);
        self.advance();
    }

    /// Whether what is left may stand before it.
    pub(crate) fn is_held_back(&self, key: &Key) -> bool {
        !self.is_floor_off() && self.backlog.floor().is_some_and(|floor| *key >= floor)
    }
}

impl OrderBook {
    /// Reads some of what was left in the log, if there is room for it. Blocks on the disk.
    pub fn load(&self, log: &dyn Log) -> Loaded {
        let Some(left) = self.next_left() else { return Loaded::Nothing };
        let (mut bytes, mut held, mut read) = (0, Vec::new(), Vec::new());
        let mut result = Loaded::Some;
        for outcome in &left.outcomes {
            match log.read_left(*outcome, left.gate, &|sequence| self.is_left(sequence)) {
                Ok(entry) => {
                    read.push(*outcome);
                    held.extend(entry.map(|entry| hold(entry, *outcome, &mut bytes)));
                }
                Err(LogError::NotYet) => {
                    result = Loaded::NotYet;
                    break;
                }
                Err(error) => {
                    result = Loaded::Failed(*outcome, error);
                    break;
                }
            }
        }
        self.loaded(held, &read, left.since);
        result
    }
}

/// What it depends on began before its outcome was written.
fn hold(entry: Entry, outcome: Sequence, bytes: &mut usize) -> Held {
    let mut held = Held::new(entry, outcome);
    let takes = held.entry.changes.bytes();
    if *bytes + takes > BYTES_MAX {
        if let Payload::Memory { .. } = held.entry.changes {
            held.entry.changes = Payload::Spilled;
        }
    } else {
        *bytes += takes;
    }
    held
}
