//! What the log held at the start: committed transactions go into the book, open ones are looked up.
use super::error::AssemblyError;
use super::mirror::Mirror;
use pgshadow_capture::Unsettled;
use pgshadow_mirror_log::{Record, Recovery};
use pgshadow_model::{Change, Intent, Order, Outcome, Sequence};
use std::collections::BTreeMap;

/// A committed transaction that the log held.
#[derive(Debug)]
pub(super) struct Recovered {
    pub sequence: Sequence,
    pub outcome_at: Sequence,
    pub flushed: bool,
    pub order: Order,
    pub changes: Vec<Change>,
}

/// Reads the log; returns what must be looked up.
pub(super) fn restore(mirror: &Mirror, recovery: Recovery) -> Result<Vec<Unsettled>, AssemblyError> {
    if let Some(torn) = &recovery.torn_tail {
        tracing::warn!(
            ?torn,
            "the log ended in the middle of a record, as after a crash; that record was never acknowledged"
        );
    }
    if let Some(reason) = &recovery.stopped {
        let reason = format!("mirroring was stopped ({reason}); tables may have been written meanwhile");
        mirror.store.suspect(None, &reason, None)?;
        mirror.log.clear_stopped()?;
    }
    let mut intents: BTreeMap<Sequence, Intent> = BTreeMap::new();
    let mut committed = Vec::new();
    for record in recovery.read_all() {
        let (sequence, record) = record?;
        match record {
            Record::Intent(intent) => {
                intents.insert(sequence, intent);
            }
            Record::Outcome { of, flushed, outcome } => {
                let Some(intent) = intents.remove(&of) else { continue };
                if let Outcome::Committed { order, changes, suspects } = outcome {
                    mirror.keep_suspects(&suspects);
                    let mut all = intent.changes;
                    all.extend(changes);
                    if let Some(order) = order.filter(|_| !all.is_empty()) {
                        let (sequence, outcome_at) = (of, sequence);
                        committed.push(Recovered { sequence, outcome_at, flushed, order, changes: all });
                    }
                }
            }
            Record::Suspects(suspects) => mirror.keep_suspects(&suspects),
            Record::SuspectsCleared(_) | Record::Epoch { .. } | Record::Applied { .. } => {}
        }
    }
    tracing::info!(committed = committed.len(), open = intents.len(), last = recovery.last, "the log was read");
    let mut numbers: Vec<Sequence> = intents.keys().copied().chain(committed.iter().map(|c| c.sequence)).collect();
    numbers.sort_unstable();
    for sequence in numbers {
        // nothing is applied yet in this process, so no number can come late
        let _ = mirror.book.begin(sequence);
    }
    for recovered in committed {
        mirror.reenter(recovered);
    }
    Ok(intents.into_iter().map(|(sequence, intent)| open(mirror, sequence, intent)).collect())
}

fn open(mirror: &Mirror, sequence: Sequence, intent: Intent) -> Unsettled {
    let order = intent.token.zip(intent.xid).map(|(token, xid)| Order { epoch: intent.epoch, token, xid });
    let complete = intent.may_write.is_empty() && !intent.may_write_any;
    Unsettled {
        sequence,
        epoch: intent.epoch,
        order,
        barrier: mirror.book.barrier(),
        backend: intent.backend,
        intent_changes: intent.changes,
        changes: Vec::new(),
        complete,
        may_write: intent.may_write,
        may_write_any: intent.may_write_any,
        suspects: intent.suspects,
    }
}
