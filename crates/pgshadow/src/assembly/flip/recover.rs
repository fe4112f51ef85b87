//! What goes from one direction to the next, and what an earlier process has left.
use super::super::own;
use super::fence;
use super::{AGAIN, Flipping};
use crate::assembly::direction::{Direction, stream};
use crate::assembly::primary::answered;
use crate::config::Config;
use pgshadow_cutover::{Effect, Event, State, transition};
use pgshadow_model::Place;
use std::sync::Arc;

/// What a shadow keeps of a stream.
const KEPT_OF_STREAM: [&str; 5] = ["applied", "life", "heal", "started", "awaited"];

/// Both databases hold the same, and nobody writes: what was proven of one direction is proven of the other.
pub(super) fn carry_certificates(old: &Direction, new: &Direction) {
    let (from, to) = (&old.mirror.store, &new.mirror.store);
    let carried = tokio::task::block_in_place(|| {
        let kept = from.certificates()?;
        let mark = to.lapse_mark();
        let mut tables = Vec::new();
        for certificate in kept.tables {
            tables.push(certificate.table.clone());
            to.certify(mark, certificate)?;
        }
        if kept.not_whole.is_none() {
            to.certify_whole(mark, &tables)?;
        }
        new.mirror.keep_shadow_had()
    });
    if let Err(error) = carried {
        tracing::warn!(%error, "certificates could not be carried over: verify again before the way back");
    }
}

/// What a DBA has said of statements holds in the other direction as well: they are repeated there too.
pub(super) fn carry_acknowledged(old: &Direction, new: &Direction) {
    let (from, to) = (&old.mirror.store, &new.mirror.store);
    let carried = tokio::task::block_in_place(|| {
        for finding in from.list()?.into_iter().filter(|finding| finding.acknowledged && finding.is_of_statements()) {
            let known = to.record(finding)?;
            to.acknowledge(known)?;
        }
        Ok::<(), pgshadow_divergence::Error>(())
    });
    if let Err(error) = carried {
        tracing::warn!(%error, "acknowledged findings could not be carried over: acknowledge them again if they come");
    }
}

/// Removes what an earlier attempt at this era has left, here and on its shadow.
pub(super) async fn forget(config: &Config, era: u64, primary: Place) -> Result<(), String> {
    let config = config.towards(era, primary);
    remove(&config);
    let own = own::connect(&config.target).await?;
    let failed = |error: crate::assembly::primary::Unanswered| {
        format!("what an earlier attempt has left can't be removed: {error}")
    };
    for table in KEPT_OF_STREAM {
        let there = format!("SELECT pg_catalog.to_regclass('pgshadow.{table}') IS NOT NULL");
        if answered(own.client.query_one(&there, &[])).await.map_err(failed)?.get(0) {
            let sql = format!("DELETE FROM pgshadow.{table} WHERE stream = $1");
            answered(own.client.execute(&sql, &[&stream(era, primary)])).await.map_err(failed)?;
        }
    }
    Ok(())
}

/// Removes the directory of a direction that never came to be.
pub(super) fn remove(config: &Config) {
    let directory = &config.mirror_log.directory;
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(directory = %directory.display(), %error, "what an attempt to flip has left can't be removed");
        }
        _ => {}
    }
}

impl Flipping {
    /// Puts in order what a process has left that ended amid a flip: before the point of no return it is undone, after it it is finished. The present
    /// direction is the one that the journal names already. Until it has succeeded it is tried again.
    pub async fn recover(self: &Arc<Self>) {
        let Ok(_one) = Arc::clone(&self.leaves).acquire_owned().await else { return };
        let mut from = self.journal.kept().state;
        let mut event = Event::Restarted;
        loop {
            let (state, effects) = transition(from, event);
            if effects.is_empty() {
                return;
            }
            tracing::warn!(?state, "an earlier process ended amid a flip; it is put in order");
            // a server that can't be reached doesn't keep the other one from being put in order
            let mut failed = false;
            for effect in effects {
                self.step(&format!("Recover {effect:?}")).await;
                if let Err(error) = self.put_in_order(*effect, state).await {
                    tracing::error!(
                        error,
                        "what an earlier process has left can't be put in order yet; it is tried again"
                    );
                    failed = true;
                }
            }
            if failed {
                // once more from where it is on disk
                tokio::time::sleep(AGAIN).await;
            } else {
                (from, event) = (state, Event::Done);
            }
        }
    }

    async fn put_in_order(&self, effect: Effect, state: State) -> Result<(), String> {
        let mut kept = self.journal.kept();
        let (primary, old) = (kept.primary, kept.primary.other());
        match effect {
            Effect::Keep => {
                let keep = self.keep(|kept| {
                    kept.state = state;
                    *kept.rights(primary) = None;
                });
                keep.map_err(|error| error.to_string())
            }
            Effect::Fence => {
                let Some(rights) = kept.rights(old).clone() else { return Ok(()) };
                let own = own::connect(self.database(old)).await?;
                fence::fence(&own.client, self.database(old), &rights).await?;
                fence::end_others(&own.client).await.map(drop)
            }
            Effect::Unfence | Effect::Lift => {
                let Some(rights) = kept.rights(primary).clone() else { return Ok(()) };
                let own = own::connect(self.database(primary)).await?;
                fence::unfence(&own.client, self.database(primary), &rights).await
            }
            Effect::Leave => {
                remove(&self.config.towards(kept.era + 1, old));
                Ok(())
            }
            // the process began with the journal's primary, and holds nothing
            Effect::Prepare | Effect::Hold | Effect::Swap | Effect::Resume => Ok(()),
        }
    }
}
