//! Sums over rows, of one side.

use crate::Error;
use crate::expression::Pages;
use crate::pace::Pace;
use crate::pool::Pool;
use crate::progress::Progress;
use crate::table::{PAGE, Table};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Pages in one statement: it takes a moment, and holds the table's lock for no longer.
const PIECE_PAGES: u32 = 1024;
/// Where the application sets the pace: a few milliseconds.
const PIECE_PAGES_GENTLE: u32 = 128;

/// Rows with their hashes, added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
    /// 64 bits of each row: so many rows that this overflows can't be.
    hashes: [i128; 2],
}

impl Totals {
    pub(crate) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        for (mine, theirs) in self.hashes.iter_mut().zip(other.hashes) {
            *mine = mine.wrapping_add(theirs);
        }
    }

    /// 128 bits, hexadecimal.
    pub(crate) fn hash(&self) -> String {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low bits are wanted")]
        let [one, two] = self.hashes.map(|sum| sum as u64);
        format!("{one:016x}{two:016x}")
    }

    #[cfg(test)]
    pub(crate) fn of(rows: i64, bytes: i64, hash: i64) -> Self {
        Self { rows, bytes, hashes: [hash.into(); 2] }
    }

    /// From four columns: rows, bytes, both sums as texts.
    fn read(row: &Row, from: usize, whom: &'static str) -> Result<Self, Error> {
        let failed = Error::of(whom);
        let sum = |column: usize| {
            let text: &str = row.try_get(column).map_err(failed)?;
            text.parse().map_err(|_| Error::Answer { whom, what: format!("{text:?} is no sum of hashes") })
        };
        Ok(Self {
            rows: row.try_get(from).map_err(failed)?,
            bytes: row.try_get(from + 1).map_err(failed)?,
            hashes: [sum(from + 2)?, sum(from + 3)?],
        })
    }
}

/// Which rows of a table.
enum Wanted {
    /// All of them; the table has so many pages, which the server can be asked for.
    Pages(u32),
    /// Those of which this is so, asked for in one statement.
    Where(String),
}

/// One side of a table.
pub(crate) struct Side<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) table: &'a Table,
    wanted: Wanted,
    /// Bytes of all of them, about.
    bytes: u64,
    /// How fast it may be read.
    pace: &'a Pace,
    /// Says whether the name is, at present, that of the table that the snapshot shows, and its rows are in the same file. Asked under the lock
    /// of each statement, as tables may swap their names and swap them back.
    is_same: String,
}

/// Pages of one statement, where so many of plain rows are to be read at most: fewer where long values come with them.
fn piece_pages(most: u32, page_bytes: u64) -> u32 {
    let pages = u64::from(most) * PAGE / page_bytes.max(PAGE);
    u32::try_from(pages).unwrap_or(most).max(1)
}

impl<'a> Side<'a> {
    /// `by_pages`: the server can be asked for some of a table's pages.
    pub(crate) fn new(pool: &'a Pool, table: &'a Table, by_pages: bool, pace: &'a Pace) -> Self {
        let pages = || u32::try_from(table.size / PAGE).unwrap_or(u32::MAX - PIECE_PAGES);
        let wanted = if by_pages { Wanted::Pages(pages()) } else { Wanted::Where(String::new()) };
        let is_same = format!(
            "SELECT pg_catalog.to_regclass('{name}')::oid = {oid} AND pg_catalog.pg_relation_filenode({oid}) = {file}",
            name = table.name.sql().replace('\'', "''"),
            oid = table.oid,
            file = table.file
        );
        Self { pool, table, wanted, bytes: table.bytes(), pace, is_same }
    }

    /// Only the rows of which this is so, of one in so many parts.
    pub(crate) fn part(&mut self, condition: &str, parts: usize) {
        self.wanted = Wanted::Where(condition.to_owned());
        self.bytes = self.table.bytes() / parts.max(1) as u64;
    }

    /// What is asked for in one statement, as a condition, and about how many bytes that is; as large as it may be by then. The last has no end.
    fn pieces(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let from = next.take()?;
            let Wanted::Pages(all) = &self.wanted else {
                let Wanted::Where(condition) = &self.wanted else { return None };
                return Some((condition.clone(), self.bytes));
            };
            let most = if self.pace.is_gentle() { PIECE_PAGES_GENTLE } else { PIECE_PAGES };
            let to = from + piece_pages(most, self.table.page_bytes());
            next = (to <= *all).then_some(to);
            let pages = next.unwrap_or(*all).saturating_sub(from);
            Some((Pages(from, next).condition(), u64::from(pages) * self.table.page_bytes()))
        })
    }

    /// Asks for all of it, several pieces at a time. `add`: each row of the answers; `done`: after each piece, with its bytes.
    pub(crate) async fn ask<T: Default>(
        &self,
        at_once: usize,
        sql: &(impl Fn(&str) -> String + Sync),
        parameters: &[&(dyn ToSql + Sync)],
        mut add: impl FnMut(&mut T, &Row) -> Result<(), Error>,
        done: impl Fn(u64),
    ) -> Result<T, Error> {
        let asked = self.pieces().map(|(condition, bytes)| -> BoxFuture<'_, Result<(Vec<Row>, u64), Error>> {
            let sql = sql(&condition);
            Box::pin(async move {
                let _reads = self.pace.take(bytes).await;
                let rows = self.pool.ask_if(&sql, parameters, Some(&self.is_same)).await?;
                Ok((rows.ok_or(Error::Redefined(self.pool.whom()))?, bytes))
            })
        });
        let mut answers = stream::iter(asked).buffer_unordered(at_once);
        let mut sum = T::default();
        while let Some((rows, bytes)) = answers.try_next().await? {
            rows.iter().try_for_each(|row| add(&mut sum, row))?;
            done(bytes);
        }
        Ok(sum)
    }

    /// Whether its columns have the names at present that the snapshot shows. What is asked for by name is what has it at present, and what
    /// is prepared shows that: catalogs are read as the snapshot has them.
    pub(crate) async fn has_its_columns(&self) -> Result<bool, Error> {
        let all = format!("SELECT * FROM ONLY {}", self.table.name.sql());
        let shown = self.table.columns.iter().map(|column| (column.name.as_str(), Some(column.number)));
        loop {
            let turn = self.pool.turn().await?;
            let prepared = turn.client().prepare(&all).await;
            if let Some(statement) = turn.end(prepared).await? {
                return Ok(statement.columns().iter().map(|column| (column.name(), column.column_id())).eq(shown));
            }
        }
    }

    pub(crate) async fn totals(
        &self,
        at_once: usize,
        sql: &(impl Fn(&str) -> String + Sync),
        progress: &Progress,
    ) -> Result<Totals, Error> {
        let whom = self.pool.whom();
        let add = |sum: &mut Totals, row: &Row| Totals::read(row, 0, whom).map(|part| sum.add(part));
        self.ask(at_once, sql, &[], add, |bytes| progress.read(bytes)).await
    }

    pub(crate) async fn by_bucket(
        &self,
        at_once: usize,
        sql: &(impl Fn(&str) -> String + Sync),
    ) -> Result<HashMap<i64, Totals>, Error> {
        let whom = self.pool.whom();
        let add = |sums: &mut HashMap<i64, Totals>, row: &Row| {
            let bucket = row.try_get(0).map_err(Error::of(whom))?;
            sums.entry(bucket).or_default().add(Totals::read(row, 1, whom)?);
            Ok(())
        };
        self.ask(at_once, sql, &[], add, |_| ()).await
    }
}
