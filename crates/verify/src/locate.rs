//! Which rows differ: first the buckets of keys that do, then the rows in them.

use crate::Error;
use crate::expression::Common;
use crate::outcome::{Difference, DifferentColumn};
use crate::table::{Column, Table};
use crate::totals::{Side, Totals};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use pgshadow_model::Kind;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio_postgres::Row;

/// Rows in a bucket, about.
const BUCKET_ROWS: i64 = 32;
const BUCKETS_MIN: u32 = 1 << 8;
const BUCKETS_MAX: u32 = 1 << 16;
/// Rows that are fetched from each side at most: they are held in memory. Beyond, differing rows are only told to be there.
const ROWS_MAX: i64 = 100_000;
/// Differences that are kept.
const DIFFERENCES_MAX: usize = 1000;

/// The rows that differ.
#[derive(Debug, Default)]
pub(crate) struct Located {
    pub(crate) missing: u64,
    pub(crate) extra: u64,
    pub(crate) different: u64,
    pub(crate) differences: Vec<Difference>,
    pub(crate) not_located: u64,
}

impl Located {
    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.missing + self.extra + self.different + self.not_located
    }

    /// Those of another part.
    pub(crate) fn add(&mut self, mut other: Self) {
        self.missing += other.missing;
        self.extra += other.extra;
        self.different += other.different;
        self.not_located += other.not_located;
        self.differences.append(&mut other.differences);
        self.differences.truncate(DIFFERENCES_MAX);
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
}

/// A row: what it is, and each of its columns.
struct Found {
    hashes: (i64, i64),
    values: Vec<Option<String>>,
}

type Rows = BTreeMap<String, Vec<Found>>;

impl Place<'_> {
    pub(crate) async fn locate(&self, rows: i64) -> Result<Located, Error> {
        let wanted = u32::try_from(rows / BUCKET_ROWS).unwrap_or(BUCKETS_MAX);
        let buckets = wanted.clamp(BUCKETS_MIN, BUCKETS_MAX).next_power_of_two();
        let sql = |condition: &str| self.common.totals_by_bucket(self.table, self.columns, condition, buckets);
        let [here, there] = [self.primary, self.shadow].map(|side| side.by_bucket(self.at_once, &sql));
        let (here, there) = futures::try_join!(here, there)?;
        let (looked_at, not_located) = choose(&here, &there);
        let [here, there] = [self.primary, self.shadow].map(|side| self.rows(side, buckets, &looked_at));
        let (mut here, mut there) = futures::try_join!(here, there)?;
        let mut located = Located { not_located, ..Located::default() };
        let keys: BTreeSet<String> = here.keys().chain(there.keys()).cloned().collect();
        for key in keys {
            let (ours, theirs) = (here.remove(&key).unwrap_or_default(), there.remove(&key).unwrap_or_default());
            self.compare(&mut located, ours, theirs);
        }
        Ok(located)
    }

    async fn rows(&self, side: &Side<'_>, buckets: u32, wanted: &[i32]) -> Result<Rows, Error> {
        let mut asked: Vec<BoxFuture<'_, Result<Vec<Row>, Error>>> = Vec::with_capacity(side.pieces.len());
        for condition in &side.pieces {
            let sql = self.common.rows(self.table, self.columns, condition, buckets);
            asked.push(Box::pin(async move { side.piece(&sql, &[&wanted]).await }));
        }
        let mut fetched = stream::iter(asked).buffer_unordered(self.at_once);
        let mut rows = Rows::new();
        while let Some(part) = fetched.try_next().await? {
            for row in part {
                let (key, found) = self.found(&row).map_err(Error::of(side.pool.whom()))?;
                rows.entry(key).or_default().push(found);
            }
        }
        Ok(rows)
    }

    fn found(&self, row: &Row) -> Result<(String, Found), tokio_postgres::Error> {
        let values = (0..self.columns.len()).map(|i| row.try_get(i + 3)).collect::<Result<_, _>>()?;
        Ok((row.try_get(0)?, Found { hashes: (row.try_get(1)?, row.try_get(2)?), values }))
    }

    /// Rows of one key; of a table without a key, equal rows.
    fn compare(&self, located: &mut Located, mut ours: Vec<Found>, mut theirs: Vec<Found>) {
        ours.retain(|row| match theirs.iter().position(|other| other.hashes == row.hashes) {
            Some(place) => {
                theirs.swap_remove(place);
                false
            }
            None => true,
        });
        let (mut ours, mut theirs) = (ours.into_iter(), theirs.into_iter());
        loop {
            let difference = match (ours.next(), theirs.next()) {
                (None, None) => return,
                (Some(row), None) => {
                    located.missing += 1;
                    self.alone(Kind::MissingRow, &row)
                }
                (None, Some(row)) => {
                    located.extra += 1;
                    self.alone(Kind::ExtraRow, &row)
                }
                (Some(row), Some(other)) => {
                    located.different += 1;
                    self.both(&row, &other)
                }
            };
            if located.differences.len() < DIFFERENCES_MAX {
                located.differences.push(difference);
            }
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

/// Which of the buckets that differ are looked into, and how many rows at least differ in the others.
fn choose(here: &HashMap<i32, Totals>, there: &HashMap<i32, Totals>) -> (Vec<i32>, u64) {
    let of = |side: &HashMap<i32, Totals>, bucket: i32| side.get(&bucket).copied().unwrap_or_default();
    let mut differ: Vec<i32> = here.keys().chain(there.keys()).copied().collect();
    differ.sort_unstable();
    differ.dedup();
    let (mut chosen, mut rows, mut left) = (Vec::new(), 0, 0);
    for bucket in differ {
        let (ours, theirs) = (of(here, bucket), of(there, bucket));
        if ours == theirs {
            continue;
        }
        let most = ours.rows.max(theirs.rows);
        if chosen.is_empty() || rows + most <= ROWS_MAX {
            rows += most;
            chosen.push(bucket);
        } else {
            left += ours.rows.abs_diff(theirs.rows).max(1);
        }
    }
    (chosen, left)
}
