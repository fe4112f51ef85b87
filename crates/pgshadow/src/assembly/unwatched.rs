//! What was written to the primary while pgshadow wasn't there to see who was connected: certificates of such tables lapse.
//!
//! With each look at the clients ([`super::bypass`]) the primary's own counts of each table's writes are kept. Once nobody has looked for a
//! while, a table is as it was only if they are the same. They say nothing where the primary was started again meanwhile: of the time before that
//! nobody knows then who was connected.
use super::bypass;
use super::mirror::Mirror;
use super::primary::{self, Connection, Unanswered, answered};
use pgshadow_divergence::LapseOf;
use pgshadow_model::{Epoch, QualifiedName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long nobody may look, so that a client who came and went between two looks is no matter of this.
const UNWATCHED: Duration = Duration::from_secs(5);
/// Pause between two readings, in times that one takes.
const PAUSES: u32 = 100;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long the last sessions' processes may take to end, which then have counted what they wrote.
const ENDING: Duration = Duration::from_secs(2);
/// Before 15 counts are read from a file that is so old at most (`PGSTAT_STAT_INTERVAL`, and a little).
const STALE: Duration = Duration::from_millis(600);
/// Name of the text that keeps the counts.
const NOTED: &str = "writes_seen";

/// Of each table: rows written, its file, and the version of its definition. What only truncates it, or only redefines it, counts no row.
const COUNTS: &str = "
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, pg_catalog.concat_ws(' ', pg_catalog.pg_stat_get_tuples_inserted(c.oid),
    pg_catalog.pg_stat_get_tuples_updated(c.oid), pg_catalog.pg_stat_get_tuples_deleted(c.oid), c.relfilenode, c.xmin)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) 'r' AND NOT c.relpersistence OPERATOR(pg_catalog.=) 't'
  AND NOT n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['information_schema', 'pgshadow']) AND NOT n.nspname OPERATOR(pg_catalog.~) '^pg_'";
const ENDED: &str =
    "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) ANY ($1))";
/// Whether counts are read from a file.
const FROM_FILE: &str =
    "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.<) 150000";
/// Whether they are counted at all; and what is another text once a column, an enum's value, a constraint or a
/// trigger of a table was renamed or changed, which may leave the version of the table as it was. Temporary tables come and go.
const SERVER: &str = "SELECT pg_catalog.current_setting('track_counts')::pg_catalog.bool,
    (WITH lasting AS (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.>=) 16384
        AND NOT c.relpersistence OPERATOR(pg_catalog.=) 't' AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p']::pg_catalog.\"char\"[]))
     SELECT pg_catalog.concat_ws(',',
      (SELECT pg_catalog.concat(pg_catalog.count(*), ' ', pg_catalog.sum(a.xmin::pg_catalog.text::pg_catalog.int8))
        FROM pg_catalog.pg_attribute a JOIN lasting l ON l.oid OPERATOR(pg_catalog.=) a.attrelid),
      (SELECT pg_catalog.concat(pg_catalog.count(*), ' ', pg_catalog.sum(a.xmin::pg_catalog.text::pg_catalog.int8))
        FROM pg_catalog.pg_constraint a JOIN lasting l ON l.oid OPERATOR(pg_catalog.=) a.conrelid),
      (SELECT pg_catalog.concat(pg_catalog.count(*), ' ', pg_catalog.sum(a.xmin::pg_catalog.text::pg_catalog.int8))
        FROM pg_catalog.pg_trigger a JOIN lasting l ON l.oid OPERATOR(pg_catalog.=) a.tgrelid),
      (SELECT pg_catalog.concat(pg_catalog.count(*), ' ', pg_catalog.sum(a.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_enum a)))";

/// The counts of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    epoch: Epoch,
    /// The server counts at all.
    counted: bool,
    /// Another text once definitions have changed; an earlier version kept none.
    definitions: Option<String>,
    tables: BTreeMap<String, BTreeMap<String, String>>,
}

/// What was read last.
#[derive(Debug)]
pub(super) struct Unwatched {
    last: Option<(Instant, Counts)>,
    /// When the clients were looked at.
    seen: Instant,
    /// What was read last isn't what is kept.
    changed: bool,
    pause: Duration,
}

impl Unwatched {
    /// Before any session may write: what the last process has kept is compared with what is.
    pub async fn begin(client: &Connection, mirror: &Mirror) -> Self {
        let begun = begin(client, mirror).await;
        if let Err(error) = &begun {
            tracing::warn!(%error, "it can't be told who wrote to the primary while pgshadow was not running");
            mirror.redefined(
                &[LapseOf::Every],
                "it could not be told who wrote to the primary while pgshadow was not running",
            );
        }
        let now = Instant::now();
        Self { last: begun.ok().map(|counts| (now, counts)), seen: now, changed: false, pause: PAUSE_MIN }
    }

    /// Each time that the clients have been looked at.
    pub async fn look(&mut self, client: &Connection, mirror: &Mirror) -> Result<(), Unanswered> {
        let is_due = self.last.as_ref().is_none_or(|(at, _)| at.elapsed() >= self.pause);
        let was_unwatched = self.seen.elapsed() > UNWATCHED;
        if is_due || was_unwatched {
            let begun = Instant::now();
            let now = if was_unwatched { latest_counts(client).await? } else { counts(client).await? };
            if let Some((_, last)) = self.last.as_ref().filter(|_| was_unwatched) {
                if last.epoch == now.epoch {
                    lapse_changed(mirror, last, &now);
                } else {
                    let why = "the primary was started again, and pgshadow could not look at it for a while before";
                    mirror.redefined(&[LapseOf::Every], why);
                }
            }
            self.changed |= self.last.as_ref().is_none_or(|(_, last)| *last != now);
            if self.changed && mirror.store.certificates().is_ok_and(|all| !all.tables.is_empty()) {
                keep(mirror, &now);
                self.changed = false;
            }
            self.last = Some((Instant::now(), now));
            self.pause = (begun.elapsed() * PAUSES).clamp(PAUSE_MIN, PAUSE_MAX);
        }
        self.seen = Instant::now();
        Ok(())
    }

    /// Once the sessions have ended, whose processes these were: what they wrote is what pgshadow has seen. Where others were there, or nobody has
    /// looked for long, what was kept before stands: it will not be the same at the next start.
    pub async fn end(&self, config: &tokio_postgres::Config, mirror: &Mirror, pids: &[i32]) {
        let ended = tokio::time::timeout(2 * ENDING, self.counts_at_end(config, mirror, pids)).await;
        match ended {
            Ok(Ok(Some(counts))) => keep(mirror, &counts),
            _ => tracing::info!(
                "the last writes to the primary may have been somebody else's: certificates may lapse at the next start"
            ),
        }
    }

    async fn counts_at_end(
        &self,
        config: &tokio_postgres::Config,
        mirror: &Mirror,
        pids: &[i32],
    ) -> Result<Option<Counts>, Unanswered> {
        let client = primary::connect(config, mirror).await?;
        let begun = Instant::now();
        while begun.elapsed() < ENDING && !answered(client.query_one(ENDED, &[&pids])).await?.get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let counts = latest_counts(&client).await?;
        let same_life = self.last.as_ref().is_some_and(|(_, last)| last.epoch == counts.epoch);
        let watched = same_life && self.seen.elapsed() <= UNWATCHED;
        Ok((watched && bypass::are_all_of(&client, pids).await?).then_some(counts))
    }
}

async fn begin(client: &Connection, mirror: &Mirror) -> Result<Counts, Unanswered> {
    let now = latest_counts(client).await?;
    let kept = mirror.store.meta_get(NOTED).ok().flatten();
    match kept.and_then(|kept| serde_json::from_str::<Counts>(&kept).ok()) {
        Some(kept) if kept.epoch == now.epoch => lapse_changed(mirror, &kept, &now),
        Some(_) => mirror.redefined(&[LapseOf::Every], "the primary was started again while pgshadow was not running"),
        None => mirror.redefined(&[LapseOf::Every], "pgshadow was not running, and nobody knows who wrote meanwhile"),
    }
    keep(mirror, &now);
    Ok(now)
}

/// Whatever was written by processes that have ended is counted.
async fn latest_counts(client: &Connection) -> Result<Counts, Unanswered> {
    if answered(client.query_one(FROM_FILE, &[])).await?.get::<_, bool>(0) {
        tokio::time::sleep(STALE).await;
    }
    counts(client).await
}

async fn counts(client: &Connection) -> Result<Counts, Unanswered> {
    let mut tables: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let server = answered(client.query_one(SERVER, &[])).await?;
    let (counted, definitions) = (server.get(0), server.get(1));
    for row in answered(client.query(COUNTS, &[])).await? {
        tables.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
    }
    Ok(Counts { epoch: client.epoch, counted, definitions, tables })
}

fn keep(mirror: &Mirror, counts: &Counts) {
    let kept = serde_json::to_string(counts).map_err(|error| error.to_string());
    // the disk is waited for: sessions go on meanwhile
    let write = |text: String| tokio::task::block_in_place(|| mirror.store.meta_set(NOTED, &text));
    let kept = kept.and_then(|text| write(text).map_err(|error| error.to_string()));
    if let Err(error) = kept {
        tracing::error!(
            error,
            "the primary's counts of writes could not be kept: certificates may lapse at the next start"
        );
    }
}

fn lapse_changed(mirror: &Mirror, then: &Counts, now: &Counts) {
    if !(then.counted && now.counted) {
        let why = "pgshadow was not looking, and the primary doesn't count writes (track_counts)";
        return mirror.redefined(&[LapseOf::Every], why);
    }
    if then.definitions.is_some() && then.definitions != now.definitions {
        let why = "definitions were changed while pgshadow was not looking, perhaps past it";
        return mirror.redefined(&[LapseOf::Every], why);
    }
    let (changed, new) = changed(then, now);
    if !changed.is_empty() {
        tracing::info!(tables = changed.len(), "tables were written while pgshadow was not looking");
        let changed: Vec<LapseOf> = changed.into_iter().map(LapseOf::Table).collect();
        mirror.lapse(&changed, "it was written while pgshadow was not looking, perhaps past it");
    }
    if let Some(one) = new.first() {
        let why = format!("{one} was made while pgshadow was not looking, perhaps past it");
        mirror.redefined(&new.into_iter().map(LapseOf::Table).collect::<Vec<_>>(), &why);
    }
}

/// Tables whose counts aren't what they were, or that are gone; and new ones.
fn changed(then: &Counts, now: &Counts) -> (Vec<QualifiedName>, Vec<QualifiedName>) {
    let all = |counts: &Counts| -> BTreeMap<QualifiedName, String> {
        let named = |(schema, tables): (&String, &BTreeMap<String, String>)| {
            let schema = schema.clone();
            let tables: Vec<_> = tables.iter().map(|(name, count)| (name.clone(), count.clone())).collect();
            tables.into_iter().map(move |(name, count)| (QualifiedName::new(schema.clone(), name), count))
        };
        counts.tables.iter().flat_map(named).collect()
    };
    let (then, now) = (all(then), all(now));
    let differ = then.iter().filter(|(table, count)| now.get(*table) != Some(*count)).map(|(table, _)| table.clone());
    let new = now.keys().filter(|table| !then.contains_key(*table)).cloned();
    (differ.collect(), new.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(tables: &[(&str, &str)]) -> Counts {
        let tables = tables.iter().map(|(name, count)| ((*name).to_owned(), (*count).to_owned())).collect();
        Counts {
            epoch: Epoch(1),
            counted: true,
            definitions: None,
            tables: BTreeMap::from([("public".to_owned(), tables)]),
        }
    }

    #[test]
    fn what_isnt_the_same_has_changed() {
        let then = counts(&[("a", "1 0 0 5 7"), ("b", "1 0 0 6 7"), ("gone", "0")]);
        let now = counts(&[("a", "1 0 0 5 7"), ("b", "1 1 0 6 7"), ("new", "0")]);
        let (changed_ones, new) = changed(&then, &now);
        let names = |tables: Vec<QualifiedName>| tables.into_iter().map(|table| table.name).collect::<Vec<_>>();
        assert_eq!(
            (names(changed_ones), names(new)),
            (vec!["b".to_owned(), "gone".to_owned()], vec!["new".to_owned()])
        );
        assert_eq!(changed(&then, &then.clone()), (vec![], vec![]));
    }
}
