//! Which rows differ: first the buckets of keys that do, then the rows in them; where those are too many to be held, all are counted by their hashes.

use crate::Error;
use crate::expression::Common;
use crate::outcome::{Difference, DifferentColumn};
use crate::table::{Column, Table};
use crate::totals::{Side, Totals};
use pgshadow_model::Kind;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::sync::Mutex;
use tokio_postgres::Row;

/// Rows in a bucket, about.
const BUCKET_ROWS: i64 = 32;
const BUCKETS_MIN: i64 = 1 << 8;
const BUCKETS_MAX: i64 = 1 << 16;
/// Rows that are fetched from each side at most, and how many bytes, as texts: they are held in memory (docs/memory.md).
const ROWS_MAX: i64 = 100_000;
const BYTES_MAX: i64 = 32 * 1_048_576;
/// Of a row of so many bytes no more is fetched, without its key.
const ROW_BYTES_MAX: usize = 65_536;
/// Rows of each side whose hashes are held at most, 48 bytes each (docs/memory.md).
const HASHES_MAX: i64 = 500_000;
/// A bucket for each hash.
const ALL_BITS: i64 = -1;
/// Differences that are kept.
const DIFFERENCES_MAX: usize = 1000;

/// The rows that differ.
#[derive(Debug, Default)]
pub(crate) struct Located {
    pub(crate) missing: u64,
    pub(crate) extra: u64,
    pub(crate) different: u64,
    /// Some of them.
    pub(crate) differences: Vec<Difference>,
}

impl Located {
    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.missing + self.extra + self.different
    }

    /// Those of another part.
    pub(crate) fn add(&mut self, mut other: Self) {
        self.missing += other.missing;
        self.extra += other.extra;
        self.different += other.different;
        self.differences.append(&mut other.differences);
        self.differences.truncate(DIFFERENCES_MAX);
    }

    fn keep(&mut self, rows: i64, difference: &Difference) {
        let room = DIFFERENCES_MAX.saturating_sub(self.differences.len());
        let kept = usize::try_from(rows).unwrap_or(0).min(room);
        self.differences.extend(std::iter::repeat_n(difference, kept).cloned());
    }
}

/// A table to be looked into.
pub(crate) struct Place<'a> {
    pub(crate) common: Common,
    pub(crate) table: &'a Table,
    pub(crate) columns: &'a [Column],
    pub(crate) at_once: usize,
    pub(crate) primary: &'a Side<'a>,
    pub(crate) shadow: &'a Side<'a>,
    /// Held by whoever holds many hashes.
    pub(crate) counting: &'a Mutex<()>,
}

/// A row, so many times: what it is, and each of its columns.
struct Found {
    hashes: (i64, i64),
    rows: i64,
    values: Vec<Option<String>>,
}

type Rows = BTreeMap<String, Vec<Found>>;

/// A row of the primary's, so many times, or of the shadow's (then the number is negative).
#[derive(Debug, Clone, Copy)]
struct Hashed {
    /// Hashes of its key.
    key: [i64; 2],
    /// Hashes of the whole.
    row: [i64; 2],
    rows: i64,
    bytes: i64,
}

/// Keys that differ, of which the rows are to be looked at.
#[derive(Debug, Default)]
struct Differ {
    /// Hashes.
    keys: Vec<i64>,
    /// What is fetched for them, at most.
    bytes: i64,
}

impl Differ {
    fn add(&mut self, of_key: &[Hashed]) {
        let most = i64::try_from(ROW_BYTES_MAX).unwrap_or(i64::MAX);
        let bytes: i64 = of_key.iter().map(|one| one.bytes.min(most)).sum();
        let is_room = self.keys.is_empty() || self.bytes + bytes <= BYTES_MAX;
        if let Some(one) = of_key.first().filter(|_| is_room && self.keys.len() < DIFFERENCES_MAX) {
            self.keys.push(one.key[0]);
            self.bytes += bytes;
        }
    }
}

impl Place<'_> {
    pub(crate) async fn locate(&self, rows: i64) -> Result<Located, Error> {
        let wanted = (rows / BUCKET_ROWS).clamp(BUCKETS_MIN, BUCKETS_MAX);
        // a power of two, less one
        let bits = (1 << (i64::BITS - (wanted - 1).leading_zeros())) - 1;
        let sql = |condition: &str| self.common.totals_by_bucket(self.table, self.columns, condition, bits);
        let [here, there] = [self.primary, self.shadow].map(|side| side.by_bucket(self.at_once, &sql));
        let (here, there) = futures::try_join!(here, there)?;
        let mut located = Located::default();
        let Chosen { looked_at, counted } = choose(&here, &there, &mut located);
        if !looked_at.is_empty() {
            self.look_at(&mut located, bits, &looked_at).await?;
        }
        let mut differ = Differ::default();
        for wanted in counted {
            let _one = self.counting.lock().await;
            let [here, there] = [(self.primary, 1), (self.shadow, -1)].map(|side| self.hashes(side, bits, &wanted));
            let (mut all, mut there) = futures::try_join!(here, there)?;
            all.append(&mut there);
            tally(&mut located, all, &mut differ);
        }
        if !differ.keys.is_empty() && located.differences.len() < DIFFERENCES_MAX {
            // some of those as well
            let mut seen = Located { differences: std::mem::take(&mut located.differences), ..Located::default() };
            self.look_at(&mut seen, ALL_BITS, &differ.keys).await?;
            located.differences = seen.differences;
        }
        Ok(located)
    }

    /// Compares the rows of these buckets.
    async fn look_at(&self, located: &mut Located, bits: i64, wanted: &[i64]) -> Result<(), Error> {
        let [here, there] = [self.primary, self.shadow].map(|side| self.rows(side, bits, wanted));
        let (mut here, mut there) = futures::try_join!(here, there)?;
        let keys: BTreeSet<String> = here.keys().chain(there.keys()).cloned().collect();
        for key in keys {
            let (ours, theirs) = (here.remove(&key).unwrap_or_default(), there.remove(&key).unwrap_or_default());
            self.compare(located, ours, theirs);
        }
        Ok(())
    }

    async fn rows(&self, side: &Side<'_>, bits: i64, wanted: &[i64]) -> Result<Rows, Error> {
        let sql = |condition: &str| self.common.rows(self.table, self.columns, condition, bits, ROW_BYTES_MAX);
        let add = |rows: &mut Rows, row: &Row| {
            let (key, found) = self.found(row).map_err(Error::of(side.pool.whom()))?;
            let of_key = rows.entry(key).or_default();
            // from another page
            match of_key.iter_mut().find(|other| other.hashes == found.hashes) {
                Some(other) => other.rows += found.rows,
                None => of_key.push(found),
            }
            Ok(())
        };
        side.ask(self.at_once, &sql, &[&wanted], add, |_| ()).await
    }

    fn found(&self, row: &Row) -> Result<(String, Found), tokio_postgres::Error> {
        let values = (0..self.columns.len()).map(|i| row.try_get(i + 4)).collect::<Result<_, _>>()?;
        let found = Found { hashes: (row.try_get(1)?, row.try_get(2)?), rows: row.try_get(3)?, values };
        Ok((row.try_get(0)?, found))
    }

    async fn hashes(&self, (side, sign): (&Side<'_>, i64), bits: i64, wanted: &[i64]) -> Result<Vec<Hashed>, Error> {
        let sql = |condition: &str| self.common.hashes(self.table, self.columns, condition, bits);
        let hashed = |row: &Row| -> Result<Hashed, tokio_postgres::Error> {
            let (key, whole) = ([row.try_get(0)?, row.try_get(1)?], [row.try_get(2)?, row.try_get(3)?]);
            Ok(Hashed { key, row: whole, rows: sign * row.try_get::<_, i64>(4)?, bytes: row.try_get(5)? })
        };
        let add = |all: &mut Vec<Hashed>, row: &Row| {
            all.push(hashed(row).map_err(Error::of(side.pool.whom()))?);
            Ok(())
        };
        side.ask(self.at_once, &sql, &[&wanted], add, |_| ()).await
    }

    /// Rows of one key; of a table without a key, equal rows.
    fn compare(&self, located: &mut Located, mut ours: Vec<Found>, mut theirs: Vec<Found>) {
        for row in &mut ours {
            if let Some(other) = theirs.iter_mut().find(|other| other.hashes == row.hashes) {
                let same = row.rows.min(other.rows);
                row.rows -= same;
                other.rows -= same;
            }
        }
        loop {
            [&mut ours, &mut theirs].into_iter().for_each(|rows| rows.retain(|row| row.rows > 0));
            let (count, rows, difference) = match (ours.first_mut(), theirs.first_mut()) {
                (None, None) => return,
                (Some(row), None) => {
                    (&mut located.missing, std::mem::take(&mut row.rows), self.alone(Kind::MissingRow, row))
                }
                (None, Some(row)) => {
                    (&mut located.extra, std::mem::take(&mut row.rows), self.alone(Kind::ExtraRow, row))
                }
                (Some(row), Some(other)) => {
                    let rows = row.rows.min(other.rows);
                    row.rows -= rows;
                    other.rows -= rows;
                    (&mut located.different, rows, self.both(row, other))
                }
            };
            *count += rows.unsigned_abs();
            located.keep(rows, &difference);
        }
    }

    fn alone(&self, kind: Kind, row: &Found) -> Difference {
        Difference {
            key: self.key(row),
            key_columns: self.key_columns(row),
            kind,
            columns: Vec::new(),
            row: Some(self.describe(row, |_| true)),
        }
    }

    fn both(&self, row: &Found, other: &Found) -> Difference {
        let columns = self.columns.iter().zip(row.values.iter().zip(&other.values));
        let differ = columns.filter(|(_, (here, there))| here != there);
        let different = |(column, (here, there)): (&Column, (&Option<String>, &Option<String>))| DifferentColumn {
            name: column.name.clone(),
            primary: here.clone(),
            shadow: there.clone(),
        };
        let columns = differ.map(different).collect();
        Difference { key: self.key(row), key_columns: self.key_columns(row), kind: Kind::Value, columns, row: None }
    }

    fn key_columns(&self, row: &Found) -> Vec<(String, Option<String>)> {
        let columns = self.columns.iter().zip(&row.values);
        let of_key = columns.filter(|(column, _)| self.table.key.contains(&column.name));
        of_key.map(|(column, value)| (column.name.clone(), value.clone())).collect()
    }

    fn key(&self, row: &Found) -> String {
        self.describe(row, |column| self.table.key.is_empty() || self.table.key.contains(&column.name))
    }

    fn describe(&self, row: &Found, wanted: impl Fn(&Column) -> bool) -> String {
        let columns = self.columns.iter().zip(&row.values).filter(|(column, _)| wanted(column));
        let text = |(column, value): (&Column, &Option<String>)| {
            format!("{}={}", column.name, value.as_deref().unwrap_or("NULL"))
        };
        columns.map(text).collect::<Vec<_>>().join(", ")
    }
}

/// Buckets that differ.
#[derive(Debug, Default)]
struct Chosen {
    /// Their rows are fetched.
    looked_at: Vec<i64>,
    /// Their rows are counted by their hashes, so many at a time.
    counted: Vec<Vec<i64>>,
}

/// What is done with the buckets that differ. Of those of which one side has nothing all rows differ: once there are some to be shown, the others are
/// counted at once.
fn choose(here: &HashMap<i64, Totals>, there: &HashMap<i64, Totals>, located: &mut Located) -> Chosen {
    let of = |side: &HashMap<i64, Totals>, bucket: i64| side.get(&bucket).copied().unwrap_or_default();
    let buckets: BTreeSet<i64> = here.keys().chain(there.keys()).copied().collect();
    let both = buckets.into_iter().map(|bucket| (bucket, of(here, bucket), of(there, bucket)));
    let mut differ: Vec<_> = both.filter(|(_, ours, theirs)| ours != theirs).collect();
    // the smallest first: equal rows, however many, are all in one
    differ.sort_by_key(|(bucket, ours, theirs)| (ours.rows.max(theirs.rows), *bucket));
    let (mut chosen, mut rows, mut bytes, mut hashes) = (Chosen::default(), 0, 0, HASHES_MAX);
    for (bucket, ours, theirs) in differ {
        let (most, most_bytes) = (ours.rows.max(theirs.rows), ours.bytes.max(theirs.bytes));
        let is_shown = !chosen.looked_at.is_empty() || !chosen.counted.is_empty();
        if rows + most <= ROWS_MAX && bytes + most_bytes <= BYTES_MAX {
            rows += most;
            bytes += most_bytes;
            chosen.looked_at.push(bucket);
        } else if is_shown && (ours.rows == 0 || theirs.rows == 0) {
            located.missing += ours.rows.unsigned_abs();
            located.extra += theirs.rows.unsigned_abs();
        } else {
            hashes += most;
            match chosen.counted.last_mut() {
                Some(together) if hashes <= HASHES_MAX => together.push(bucket),
                _ => {
                    hashes = most;
                    chosen.counted.push(vec![bucket]);
                }
            }
        }
    }
    chosen
}

/// Counts what differs. `differ`: some of the keys.
fn tally(located: &mut Located, mut all: Vec<Hashed>, differ: &mut Differ) {
    all.sort_unstable_by_key(|one| (one.key, one.row));
    for of_key in all.chunk_by(|one, other| one.key == other.key) {
        let same = of_key.chunk_by(|one, other| one.row == other.row);
        let left = same.map(|same| same.iter().map(|one| one.rows).sum::<i64>());
        let (mut ours, mut theirs) = (0, 0);
        for rows in left {
            ours += rows.max(0).unsigned_abs();
            theirs += rows.min(0).unsigned_abs();
        }
        let different = ours.min(theirs);
        located.different += different;
        located.missing += ours - different;
        located.extra += theirs - different;
        if ours + theirs > 0 {
            differ.add(of_key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rows as `(key, value)`, with what there is of each.
    fn hashed(ours: &[(i64, i64)], theirs: &[(i64, i64)]) -> Vec<Hashed> {
        let of = |rows: &[(i64, i64)], sign: i64| {
            let hashed =
                |(key, value): &(i64, i64)| Hashed { key: [*key, 0], row: [*value, *key], rows: sign, bytes: 9 };
            rows.iter().map(hashed).collect::<Vec<_>>()
        };
        [of(ours, 1), of(theirs, -1)].concat()
    }

    fn told(located: &Located) -> [u64; 3] {
        [located.missing, located.extra, located.different]
    }

    #[test]
    fn hashes_tell_how_many_differ() {
        for (ours, theirs, expected) in [
            (vec![(1, 1), (2, 2)], vec![(2, 2), (1, 1)], [0, 0, 0]),
            (vec![(1, 1), (2, 2)], vec![(1, 1)], [1, 0, 0]),
            (vec![(1, 1)], vec![(1, 1), (2, 2), (3, 3)], [0, 2, 0]),
            (vec![(1, 1), (2, 2)], vec![(1, 9), (2, 2)], [0, 0, 1]),
            // a row that is there several times
            (vec![(1, 1), (1, 1), (1, 1)], vec![(1, 1)], [2, 0, 0]),
            (vec![(1, 1), (1, 1), (1, 2)], vec![(1, 3), (1, 1)], [1, 0, 1]),
        ] {
            let mut located = Located::default();
            tally(&mut located, hashed(&ours, &theirs), &mut Differ::default());
            assert_eq!(told(&located), expected, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn all_that_differ_are_looked_at_or_counted() {
        let all = |side: &[(i64, i64, i64)]| -> HashMap<i64, Totals> {
            side.iter().map(|(bucket, rows, hash)| (*bucket, Totals::of(*rows, *rows, *hash))).collect()
        };
        let here = all(&[(0, 50, 1), (1, 60_000, 1), (2, 70_000, 1), (3, 80_000, 1), (4, 1_950_000, 1), (5, 7, 7)]);
        let there = all(&[(0, 50, 2), (1, 60_000, 2), (2, 70_000, 2), (4, 1_950_000, 2), (5, 7, 7), (6, 90_000, 1)]);
        let mut located = Located::default();
        let Chosen { looked_at, counted } = choose(&here, &there, &mut located);
        assert_eq!(looked_at, [0, 1]);
        assert_eq!(counted, [vec![2], vec![4]], "no more than are held at a time");
        assert_eq!(told(&located), [80_000, 90_000, 0]);
    }

    #[test]
    fn no_more_bytes_are_fetched_than_are_held() {
        let side = |hash| -> HashMap<i64, Totals> {
            let wide = [(0, 10), (1, BYTES_MAX), (2, BYTES_MAX / 2), (3, BYTES_MAX / 2)];
            wide.into_iter().map(|(bucket, bytes)| (bucket, Totals::of(32, bytes, hash))).collect()
        };
        let mut located = Located::default();
        let Chosen { looked_at, counted } = choose(&side(1), &side(2), &mut located);
        assert_eq!((looked_at, counted), (vec![0, 2], vec![vec![1, 3]]));
        // nothing on the other side, and all of it too much: some are to be shown all the same
        let only = HashMap::from([(7, Totals::of(9, 2 * BYTES_MAX, 1)), (8, Totals::of(9, 2 * BYTES_MAX, 1))]);
        let Chosen { looked_at, counted } = choose(&only, &HashMap::new(), &mut located);
        assert_eq!((looked_at, counted, located.missing), (vec![], vec![vec![7]], 9));
        let mut differ = Differ::default();
        let of_key = |key, bytes| [Hashed { key: [key, 0], row: [1, 1], rows: 1, bytes }];
        (0..2000).for_each(|key| differ.add(&of_key(key, 1 << 30)));
        assert_eq!(differ.keys.len(), 512, "64 KiB each, at most");
        let mut narrow = Differ::default();
        (0..2000).for_each(|key| narrow.add(&of_key(key, 10)));
        assert_eq!(narrow.keys.len(), DIFFERENCES_MAX);
    }

    proptest! {
        #[test]
        fn both_ways_of_counting_agree(
            ours in proptest::collection::vec((0..6i64, 0..3i64), 0..30),
            theirs in proptest::collection::vec((0..6i64, 0..3i64), 0..30),
        ) {
            let mut located = Located::default();
            tally(&mut located, hashed(&ours, &theirs), &mut Differ::default());
            // one by one: equal rows of a key go away, the others stand against one another
            let mut expected = [0, 0, 0];
            for key in 0..6 {
                let of = |rows: &[(i64, i64)]| rows.iter().filter(|row| row.0 == key).map(|row| row.1).collect::<Vec<_>>();
                let (mut mine, mut others) = (of(&ours), of(&theirs));
                mine.retain(|row| match others.iter().position(|other| other == row) {
                    Some(place) => { others.remove(place); false }
                    None => true,
                });
                let different = mine.len().min(others.len());
                for (sum, more) in expected.iter_mut().zip([mine.len() - different, others.len() - different, different]) {
                    *sum += more as u64;
                }
            }
            prop_assert_eq!(told(&located), expected);
        }
    }
}
