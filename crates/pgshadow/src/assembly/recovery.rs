//! What the log held at the start: committed transactions go into the book, open ones are looked up.
use super::error::AssemblyError;
use super::mirror::{Mirror, runs_beside};
use pgshadow_apply::LogExtent;
use pgshadow_capture::Unsettled;
use pgshadow_mirror_log::{Record, Recovery};
use pgshadow_model::{Changes, Intent, Order, Outcome, Sequence};
use std::collections::BTreeMap;

/// Reads the log; returns what must be looked up. `source`: the primary's system identifier.
pub(super) fn restore(
    mirror: &Mirror,
    recovery: Recovery,
    source: Option<String>,
) -> Result<Vec<Unsettled>, AssemblyError> {
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
    let first = first_of_source(mirror, &recovery, source.as_deref())?;
    let _ = mirror.extent.set(LogExtent {
        identity: mirror.log.identity().to_owned(),
        source,
        first: first.max(recovery.first),
        last: recovery.last,
    });
    let mut intents: BTreeMap<Sequence, Intent> = BTreeMap::new();
    let mut committed = 0;
    for record in recovery.read_all() {
        let (sequence, record) = record?;
        match record {
            // what another source committed is nothing to this one's shadow
            Record::Intent(_) if sequence < first => {}
            Record::Intent(intent) => {
                intents.insert(sequence, intent);
            }
            Record::Outcome { of, flushed, outcome } => {
                let Some(intent) = intents.remove(&of) else { continue };
                if let Outcome::Committed { order, changes, suspects } = outcome {
                    mirror.keep_suspects(&suspects);
                    if let Some(order) = order.filter(|_| flushed) {
                        mirror.history.reached(order.epoch, order.token);
                    }
                    let intent_changes = intent.changes;
                    if let Some(order) = order.filter(|_| !(intent_changes.is_empty() && changes.is_empty())) {
                        committed += 1;
                        mirror.reenter(of, sequence, order, [&intent_changes, &changes]);
                    }
                }
            }
            Record::Suspects(suspects) => mirror.keep_suspects(&suspects),
            Record::SuspectsCleared(_) | Record::Epoch { .. } | Record::Applied { .. } => {}
        }
    }
    mirror.keep_suspects(&mirror.history.begins());
    mirror.history.keep(&mirror.store, true);
    tracing::info!(committed, open = intents.len(), last = recovery.last, "the log was read");
    for (sequence, intent) in &intents {
        // nothing is applied yet in this process, so no number can come late
        let beside = runs_beside(&intent.changes.rest);
        let _ = if beside { mirror.book.begin_beside(*sequence) } else { mirror.book.begin(*sequence) };
    }
    let open: Vec<Unsettled> = intents.into_iter().map(|(sequence, intent)| open(mirror, sequence, intent)).collect();
    open.iter().for_each(|open| mirror.spilled.add(open.sequence, [&open.intent_changes]));
    mirror.spilled.sweep(&mirror.log)?;
    Ok(open)
}

/// The first record that belongs to the source at hand. With another one than before nothing in the log can be looked up or read
/// again, and the target may be anything.
fn first_of_source(mirror: &Mirror, recovery: &Recovery, source: Option<&str>) -> Result<Sequence, AssemblyError> {
    const SOURCE: &str = "source";
    const FROM: &str = "source_from";
    let (store, log) = (&mirror.store, mirror.log.identity());
    let known = store.meta_get(SOURCE)?;
    if let Some(source) = source.filter(|source| known.as_deref() != Some(source)) {
        if known.is_some() {
            let reason = "the source is another database cluster than before, so what the target holds is not from it";
            store.suspect(None, reason, None)?;
            // before the source: a crash in between does it again
            store.meta_set(FROM, &format!("{log} {}", recovery.last + 1))?;
        }
        store.meta_set(SOURCE, source)?;
    }
    let from = store.meta_get(FROM)?;
    let from = from.as_deref().and_then(|from| from.split_once(' ')).filter(|(of, _)| *of == log);
    Ok(from.and_then(|(_, from)| from.parse().ok()).unwrap_or(1))
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
        changes: Changes::default(),
        complete,
        may_write: intent.may_write,
        may_write_any: intent.may_write_any,
        suspects: intent.suspects,
        prepared: intent.prepared,
    }
}
