//! Sums over rows, of one side.

use crate::Error;
use crate::expression::Pages;
use crate::pool::Pool;
use crate::progress::Progress;
use crate::table::Table;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use tokio_postgres::Row;

/// Pages in one statement: it takes a moment, and holds the table's lock for no longer.
const PIECE_PAGES: u32 = 4096;

/// Rows with their hashes, added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
    /// 64 bits of each row: so many rows that this overflows can't be.
    hashes: [i128; 2],
}

impl Totals {
    fn add(&mut self, other: Self) {
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

/// One side of a table.
pub(crate) struct Side<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) table: &'a Table,
    /// What is asked for in one statement; `None`: all of it.
    pub(crate) pieces: Vec<Option<Pages>>,
}

impl<'a> Side<'a> {
    /// `by_pages`: the server can be asked for some of a table's pages.
    pub(crate) fn new(pool: &'a Pool, table: &'a Table, by_pages: bool) -> Self {
        let pieces =
            if by_pages { Pages::of(table.size, PIECE_PAGES).into_iter().map(Some).collect() } else { vec![None] };
        Self { pool, table, pieces }
    }

    /// Asks for all pieces, several at a time. `done`: after each.
    async fn ask<T: Default>(
        &self,
        at_once: usize,
        sql: &impl Fn(Option<&Pages>) -> String,
        add: impl Fn(&mut T, &Row) -> Result<(), Error>,
        done: impl Fn(),
    ) -> Result<T, Error> {
        let mut asked: Vec<BoxFuture<'_, Result<Vec<Row>, Error>>> = Vec::with_capacity(self.pieces.len());
        for pages in &self.pieces {
            let sql = sql(pages.as_ref());
            asked.push(Box::pin(async move { self.pool.ask(&sql, &[]).await }));
        }
        let mut answers = stream::iter(asked).buffer_unordered(at_once);
        let mut sum = T::default();
        while let Some(rows) = answers.try_next().await? {
            rows.iter().try_for_each(|row| add(&mut sum, row))?;
            done();
        }
        Ok(sum)
    }

    pub(crate) async fn totals(
        &self,
        at_once: usize,
        sql: &impl Fn(Option<&Pages>) -> String,
        progress: &Progress,
    ) -> Result<Totals, Error> {
        let whom = self.pool.whom();
        let bytes = self.table.size / self.pieces.len().max(1) as u64;
        let add = |sum: &mut Totals, row: &Row| Totals::read(row, 0, whom).map(|part| sum.add(part));
        self.ask(at_once, sql, add, || progress.read(bytes)).await
    }

    pub(crate) async fn by_bucket(
        &self,
        at_once: usize,
        sql: &impl Fn(Option<&Pages>) -> String,
    ) -> Result<HashMap<i32, Totals>, Error> {
        let whom = self.pool.whom();
        let add = |sums: &mut HashMap<i32, Totals>, row: &Row| {
            let bucket = row.try_get(0).map_err(Error::of(whom))?;
            sums.entry(bucket).or_default().add(Totals::read(row, 1, whom)?);
            Ok(())
        };
        self.ask(at_once, sql, add, || ()).await
    }

    /// Whether the table still is the one that the snapshot shows, which a look at it says as it is at present.
    pub(crate) async fn is_as_it_was(&self) -> Result<bool, Error> {
        let rows = self.pool.ask("SELECT pg_catalog.pg_relation_filenode($1::oid)", &[&self.table.oid]).await?;
        let file = rows.first().map(|row| row.try_get::<_, Option<u32>>(0)).transpose();
        Ok(file.map_err(Error::of(self.pool.whom()))?.flatten() == Some(self.table.file))
    }
}
