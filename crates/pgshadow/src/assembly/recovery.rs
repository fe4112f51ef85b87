//! What the log held at the start: committed transactions go into the book, open ones are looked up.
use super::error::AssemblyError;
use super::mirror::Mirror;
use pgshadow_capture::Unsettled;
use pgshadow_mirror_log::{Record, Recovery};
use pgshadow_model::{Epoch, Intent, Order, Outcome, Sequence, Suspect};
use std::collections::BTreeMap;

/// A transaction that was open at the crash, with the life of the primary that it belongs to.
#[derive(Debug)]
pub(super) struct Open {
    pub epoch: Epoch,
    pub unsettled: Unsettled,
}

/// Reads the log; returns what must be looked up.
pub(super) fn restore(mirror: &Mirror, recovery: Recovery) -> Result<Vec<Open>, AssemblyError> {
    if let Some(torn) = &recovery.torn_tail {
        tracing::warn!(
            ?torn,
            "the log ended in the middle of a record, as after a crash; that record was never acknowledged"
        );
    }
    if let Some(reason) = &recovery.stopped {
        let reason = format!("mirroring was stopped ({reason}); tables may have been written meanwhile");
        mirror.keep_suspects(&[Suspect { table: None, reason }]);
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
            Record::Outcome { of, outcome } => {
                let Some(intent) = intents.remove(&of) else { continue };
                if let Outcome::Committed { order, changes, suspects } = outcome {
                    mirror.keep_suspects(&suspects);
                    let mut all = intent.changes;
                    all.extend(changes);
                    if let Some(order) = order.filter(|_| !all.is_empty()) {
                        committed.push((of, sequence, order, all));
                    }
                }
            }
            Record::Suspects(suspects) => mirror.keep_suspects(&suspects),
            Record::SuspectsCleared(_) | Record::Epoch { .. } | Record::Applied { .. } => {}
        }
    }
    tracing::info!(committed = committed.len(), open = intents.len(), last = recovery.last, "the log was read");
    let mut numbers: Vec<Sequence> = intents.keys().copied().chain(committed.iter().map(|c| c.0)).collect();
    numbers.sort_unstable();
    for sequence in numbers {
        // nothing is applied yet in this process, so no number can come late
        let _ = mirror.book.begin(sequence);
    }
    for (sequence, outcome_at, order, changes) in committed {
        mirror.reenter(sequence, outcome_at, order, changes);
    }
    Ok(intents.into_iter().map(|(sequence, intent)| open(mirror, sequence, intent)).collect())
}

fn open(mirror: &Mirror, sequence: Sequence, intent: Intent) -> Open {
    let order = intent.token.zip(intent.xid).map(|(token, xid)| Order { epoch: intent.epoch, token, xid });
    let complete = intent.may_write.is_empty() && !intent.may_write_any;
    Open {
        epoch: intent.epoch,
        unsettled: Unsettled {
            sequence,
            order,
            barrier: mirror.book.barrier(),
            backend: intent.backend,
            intent_changes: intent.changes,
            changes: Vec::new(),
            complete,
            may_write: intent.may_write,
            may_write_any: intent.may_write_any,
            suspects: intent.suspects,
        },
    }
}
