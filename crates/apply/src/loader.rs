//! Brings what was left in the log back to the book, as soon as there is room.

use crate::common::Common;
use crate::entry::{Entry, Payload};
use crate::lane::{LOG_ATTEMPTS, PAUSE_MIN};
use crate::release::Held;
use crate::{Error, Log, LogError, OrderBook};
use pgshadow_model::Sequence;
use std::convert::Infallible;
use std::sync::Arc;

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
