//! Whether the primary's history goes on where it was left. It doesn't after a restore to an earlier state, nor after a failover
//! to a standby that lagged: the shadow then holds what the primary has lost.
//!
//! A timeline that changes, or a new life that begins below what is known to be on the old one's disk, tells so. What was
//! written after the point that both histories share is suspect. That point is known where a standby was promoted and has
//! run since then; the insert position that was read after a table's last write tells on which side of it that lies.
use super::primary::{Unanswered, answered};
use pgshadow_divergence::Store;
use pgshadow_model::{Epoch, Lsn, QualifiedName, Suspect};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, Row};

const META: &str = "history";
/// How often at most the position is written down; the log knows later ones.
const KEPT_EVERY: Duration = Duration::from_secs(5);
/// So often, after the last write, it is looked whether what was read is on disk: a server without work may leave it in memory.
const READINGS_MAX: u32 = 50;

/// What the primary says of its history when it is reached, to be asked beside the fingerprint of its life: no answers from a standby.
pub(super) const STANDING: &str = "
  CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END,
  CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text END,
  pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text";

/// The primary's answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// System identifier, where the role may ask for it.
    pub system: Option<String>,
    pub timeline: u32,
    /// Insert position.
    pub at: Lsn,
    /// Where this life's recovery ended, if it began with one.
    pub recovered_to: Option<Lsn>,
    /// The last checkpoint: after a clean stop and start that of the stop, until there is another one.
    pub checkpoint: Option<Lsn>,
    /// The last point of the timeline before, where that is certain.
    pub switched_at: Option<Lsn>,
}

impl Standing {
    /// Reads the columns of [`STANDING`], of which `first` is the number of the first one.
    pub fn read(row: &Row, first: usize) -> Option<Self> {
        let lsn = |column| row.get::<_, Option<String>>(first + column).and_then(|text| text.parse().ok());
        let file = row.get::<_, Option<String>>(first)?;
        let timeline = u32::from_str_radix(file.get(..8)?, 16).ok()?;
        Some(Self { timeline, at: lsn(1)?, recovered_to: lsn(2), ..Self::default() })
    }
}

/// The point at which a standby was promoted to this timeline: the end of its recovery, if it began no other one since then. Its
/// checkpointer is older then than the file that the promotion wrote. `None` where that can't be seen.
pub(super) async fn switch_point(client: &Client, timeline: u32) -> Option<Lsn> {
    let sql = "SELECT pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text FROM pg_catalog.pg_ls_waldir() AS f
      WHERE f.name OPERATOR(pg_catalog.=) $1 AND f.modification OPERATOR(pg_catalog.>) (SELECT pg_catalog.max(a.backend_start)
        FROM pg_catalog.pg_stat_activity a WHERE a.backend_type OPERATOR(pg_catalog.=) 'checkpointer')";
    match answered(client.query_opt(sql, &[&format!("{timeline:08X}.history")])).await {
        Ok(row) => row?.get::<_, Option<String>>(0)?.parse().ok(),
        Err(Unanswered::Postgres(error)) => {
            tracing::info!(%error, "the primary doesn't tell where its timeline began");
            None
        }
        Err(_) => None,
    }
}

/// When a table was last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// No position was read since then.
    Now,
    /// One is being read.
    Reading,
    /// Its commit lies below this position.
    Below(Lsn),
}

#[derive(Debug, Default)]
struct Known {
    system: Option<String>,
    timeline: Option<u32>,
    epoch: Epoch,
    /// What lies below is on the primary's disk.
    durable: Lsn,
    /// The last insert position that was read.
    read: Lsn,
    /// What was written before this position, by which table isn't known. `None`: so of all that was written.
    from: Option<Lsn>,
    /// By table; `None` stands for every table.
    written: HashMap<Option<QualifiedName>, Written>,
    kept: Option<(Lsn, Instant)>,
    /// Readings since the last write.
    readings: u32,
    /// The first contact, until the log was read.
    first: Option<(Standing, Epoch, bool)>,
}

/// What is known of the primary's history.
#[derive(Debug, Default)]
pub(super) struct History {
    known: Mutex<Known>,
}

impl History {
    /// As an earlier process wrote it down.
    pub fn of(store: &Store) -> Self {
        let text = store.meta_get(META).ok().flatten().unwrap_or_default();
        let mut words = text.split(' ');
        let mut known = Known::default();
        if let (Some(epoch), Some(timeline), Some(durable)) = (words.next(), words.next(), words.next())
            && let (Ok(epoch), Ok(timeline), Ok(durable)) = (epoch.parse(), timeline.parse(), durable.parse())
        {
            known = Known { epoch: Epoch(epoch), timeline: Some(timeline), durable, ..known };
        }
        Self { known: Mutex::new(known) }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the primary is on another timeline than it was.
    pub fn is_other_timeline(&self, timeline: u32) -> bool {
        self.lock().timeline.is_some_and(|known| known != timeline)
    }

    /// A transaction of this epoch with this token is committed, and on the primary's disk.
    pub fn reached(&self, epoch: Epoch, token: Lsn) {
        let mut known = self.lock();
        if known.epoch == epoch {
            known.durable = known.durable.max(token);
        }
    }

    /// Changes of these tables were committed.
    pub fn written(&self, tables: impl IntoIterator<Item = Option<QualifiedName>>) {
        let mut known = self.lock();
        known.readings = 0;
        known.written.extend(tables.into_iter().map(|table| (table, Written::Now)));
    }

    /// Whether positions are to be read, which are then given to [`History::read`].
    pub fn begins_to_read(&self) -> bool {
        let mut known = self.lock();
        let mut any = known.read > known.durable && known.readings < READINGS_MAX;
        known.readings += 1;
        for written in known.written.values_mut().filter(|w| !matches!(w, Written::Below(_))) {
            *written = Written::Reading;
            any = true;
        }
        any
    }

    /// Insert and flush position of this epoch, read at once.
    pub fn read(&self, epoch: Epoch, insert: Lsn, flush: Lsn) {
        let mut known = self.lock();
        if known.epoch != epoch {
            return;
        }
        if flush >= known.read {
            known.durable = known.durable.max(known.read);
        }
        let insert = end_of_record(insert);
        known.read = known.read.max(insert);
        for written in known.written.values_mut().filter(|w| **w == Written::Reading) {
            *written = Written::Below(insert);
        }
    }

    /// The first contact of this process, before its log is read: [`History::begins`] comes to it.
    pub fn contacted(&self, standing: Standing, epoch: Epoch, new_life: bool) {
        self.lock().first = Some((standing, epoch, new_life));
    }

    /// The log is read, and told what was [`reached`](History::reached): whether the history found at the first contact goes on
    /// from there. What is suspect.
    pub fn begins(&self) -> Vec<Suspect> {
        let first = self.lock().first.take();
        first.map_or_else(Vec::new, |(standing, epoch, new_life)| self.goes_on(&standing, epoch, new_life))
    }

    /// Goes on with the history that the primary now has. `new_life`: it isn't the one that was known last. What is suspect.
    pub fn goes_on(&self, standing: &Standing, epoch: Epoch, new_life: bool) -> Vec<Suspect> {
        let mut known = self.lock();
        let begun = standing.recovered_to.or(standing.checkpoint).filter(|_| new_life).unwrap_or(standing.at);
        let other_system = known.system.as_ref().zip(standing.system.as_ref()).is_some_and(|(a, b)| a != b);
        let other_timeline = known.timeline.is_some_and(|timeline| timeline != standing.timeline);
        // within one life no position goes back; what sessions have reached since this one was read lies above it
        let behind = new_life && begun < known.durable;
        let shared = standing.switched_at.filter(|_| known.timeline.map(|t| t + 1) == Some(standing.timeline));
        let suspects = if other_system {
            every_table("the source is another database cluster than before".to_owned())
        } else if other_timeline {
            known.since(shared, standing.timeline)
        } else if behind {
            every_table(format!(
                "the primary was set back to an earlier state: it is at {begun}, and was at {}",
                known.durable
            ))
        } else {
            Vec::new()
        };
        let cut = other_system || other_timeline || behind;
        if cut || known.from.is_none() {
            let from = if cut { shared.unwrap_or(standing.at) } else { standing.at };
            let durable = if cut { begun } else { known.durable };
            *known = Known { durable, from: Some(from), ..Known::default() };
        }
        known.system = standing.system.clone().or(known.system.take());
        (known.timeline, known.epoch) = (Some(standing.timeline), epoch);
        suspects
    }

    /// Writes down how far the history is known, now and then; `now`: in any case.
    pub fn keep(&self, store: &Store, now: bool) {
        let mut known = self.lock();
        let Some(timeline) = known.timeline else { return };
        let due = known.kept.is_none_or(|(lsn, at)| lsn != known.durable && (now || at.elapsed() >= KEPT_EVERY));
        if !due {
            return;
        }
        let text = format!("{} {timeline} {}", known.epoch.0, known.durable);
        if let Err(error) = store.meta_set(META, &text) {
            tracing::warn!(%error, "the primary's position could not be written down");
        }
        known.kept = Some((known.durable, Instant::now()));
    }
}

impl Known {
    /// The tables that were written after this point of the timeline that is left.
    fn since(&self, shared: Option<Lsn>, timeline: u32) -> Vec<Suspect> {
        let known_since = |point: &Lsn| self.from.is_some_and(|from| from <= *point);
        let Some(point) = shared.filter(known_since) else {
            let reason = "the primary went on on timeline";
            return every_table(format!(
                "{reason} {timeline} (a failover or a restore), and what was lost isn't known"
            ));
        };
        let reason =
            format!("the primary went on on timeline {timeline} from {point}, perhaps without its last writes");
        let later = self.written.iter().filter(|(_, written)| !matches!(written, Written::Below(lsn) if *lsn <= point));
        later.map(|(table, _)| Suspect { table: table.clone(), reason: reason.clone() }).collect()
    }
}

fn every_table(reason: String) -> Vec<Suspect> {
    vec![Suspect { table: None, reason }]
}

/// An insert position behind a page's header is the end of the record in front of it, which a recovery names by the page's start.
fn end_of_record(insert: Lsn) -> Lsn {
    const PAGE: u64 = 8192;
    const HEADER_MAX: u64 = 40;
    let within = insert.0 % PAGE;
    if within <= HEADER_MAX { Lsn(insert.0 - within) } else { insert }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Option<QualifiedName> {
        Some(QualifiedName::new("public", name))
    }

    fn at(timeline: u32, at: u64) -> Standing {
        Standing { system: Some("one".into()), timeline, at: Lsn(at), ..Standing::default() }
    }

    fn named(suspects: &[Suspect]) -> Vec<Option<QualifiedName>> {
        suspects.iter().map(|s| s.table.clone()).collect()
    }

    /// On timeline 1 from 1000 on; `early` was written below 2000, `late` below 3000, `now` since then.
    fn history() -> History {
        let history = History::default();
        assert_eq!(history.goes_on(&at(1, 1000), Epoch(1), true), []);
        for (name, insert) in [("early", Some(2000)), ("late", Some(3000)), ("now", None)] {
            history.lock().written.insert(table(name), Written::Now);
            if let Some(insert) = insert {
                assert!(history.begins_to_read());
                history.read(Epoch(1), Lsn(insert), Lsn(insert - 1));
            }
        }
        history
    }

    #[test]
    fn what_lies_below_the_point_of_a_failover_is_kept() {
        for (point, expected) in [
            (Some(3500), vec![table("now")]),
            (Some(2999), vec![table("late"), table("now")]),
            (Some(2000), vec![table("late"), table("now")]),
            (Some(1999), vec![table("early"), table("late"), table("now")]),
            (Some(999), vec![None]),
            (None, vec![None]),
        ] {
            let history = history();
            let standing = Standing { switched_at: point.map(Lsn), ..at(2, 5000) };
            let mut found = named(&history.goes_on(&standing, Epoch(2), true));
            found.sort();
            assert_eq!(found, expected, "{point:?}");
            assert_eq!(history.goes_on(&at(2, 5000), Epoch(2), false), [], "it is told once");
        }
    }

    #[test]
    fn a_point_is_that_of_the_next_timeline_only() {
        let standing = Standing { switched_at: Some(Lsn(3500)), ..at(3, 5000) };
        assert_eq!(named(&history().goes_on(&standing, Epoch(2), true)), [None]);
    }

    #[test]
    fn a_crash_loses_what_is_not_on_disk_and_a_restore_more() {
        // 2000 was read, and a later look found more than that flushed.
        for (recovered_to, suspect) in [(2000, false), (1999, true)] {
            let standing = Standing { recovered_to: Some(Lsn(recovered_to)), ..at(1, 5000) };
            assert_eq!(
                named(&history().goes_on(&standing, Epoch(2), true)).len(),
                usize::from(suspect),
                "{recovered_to}"
            );
        }
        // After a clean stop there was no recovery: its last checkpoint tells.
        let standing = Standing { checkpoint: Some(Lsn(1500)), ..at(1, 5000) };
        assert_eq!(named(&history().goes_on(&standing, Epoch(2), true)), [None]);
        // Within one life both are old.
        let standing = Standing { recovered_to: Some(Lsn(10)), checkpoint: Some(Lsn(1500)), ..at(1, 5000) };
        assert_eq!(history().goes_on(&standing, Epoch(1), false), []);
    }

    #[test]
    fn a_committed_token_is_durable_in_its_own_epoch() {
        for (epoch, suspect) in [(1, true), (0, false)] {
            let history = history();
            history.reached(Epoch(epoch), Lsn(4000));
            assert_eq!(history.goes_on(&at(1, 3999), Epoch(2), true).len(), usize::from(suspect));
        }
    }

    #[test]
    fn another_system_is_no_history_of_this_one() {
        let standing = Standing { system: Some("two".into()), ..at(1, 5000) };
        assert_eq!(named(&history().goes_on(&standing, Epoch(2), true)), [None]);
    }

    #[test]
    fn it_is_read_back_as_it_was_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("findings.redb")).unwrap();
        let history = history();
        history.reached(Epoch(1), Lsn(0x1_0000_4000));
        history.keep(&store, true);
        let again = History::of(&store);
        assert!(again.is_other_timeline(2) && !again.is_other_timeline(1));
        assert_eq!(again.lock().durable, Lsn(0x1_0000_4000));
        // Of what the earlier process wrote no table is known.
        let standing = Standing { switched_at: Some(Lsn(0x2_0000_0000)), ..at(2, 0x2_0000_0100) };
        assert_eq!(named(&again.goes_on(&standing, Epoch(2), true)), [None]);
    }

    #[test]
    fn the_end_of_a_page_is_before_the_next_header() {
        let ends = [8192 + 24, 8192, 8192 + 41, 8191].map(|lsn| end_of_record(Lsn(lsn)).0);
        assert_eq!(ends, [8192, 8192, 8192 + 41, 8191]);
    }
}
