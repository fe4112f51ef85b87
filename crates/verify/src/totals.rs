//! Sums over rows, of one side.

use crate::Error;
use crate::expression::Pages;
use crate::pace::Pace;
use crate::pool::Pool;
use crate::progress::Progress;
use crate::table::Table;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Pages in one statement: it takes a moment, and holds the table's lock for no longer.
const PIECE_PAGES: u32 = 1024;

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
    /// What is asked for in one statement, as conditions.
    pub(crate) pieces: Vec<String>,
    /// Bytes of all of them, about.
    bytes: u64,
    /// How fast it may be read.
    pace: &'a Pace,
}

impl<'a> Side<'a> {
    /// `by_pages`: the server can be asked for some of a table's pages.
    pub(crate) fn new(pool: &'a Pool, table: &'a Table, by_pages: bool, pace: &'a Pace) -> Self {
        let pieces = if by_pages {
            Pages::of(table.size, PIECE_PAGES).iter().map(Pages::condition).collect()
        } else {
            vec![String::new()]
        };
        Self { pool, table, pieces, bytes: table.size, pace }
    }

    /// Only the rows of which this is so, of one in so many parts.
    pub(crate) fn part(&mut self, condition: &str, parts: usize) {
        self.pieces = vec![condition.to_owned()];
        self.bytes = self.table.size / parts.max(1) as u64;
    }

    /// Bytes of a piece, about.
    fn piece_bytes(&self) -> u64 {
        self.bytes / self.pieces.len().max(1) as u64
    }

    /// Asks for one piece.
    pub(crate) async fn piece(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let _reads = self.pace.take(self.piece_bytes()).await;
        self.pool.ask(sql, parameters).await
    }

    /// Asks for all pieces, several at a time. `done`: after each.
    async fn ask<T: Default>(
        &self,
        at_once: usize,
        sql: &impl Fn(&str) -> String,
        add: impl Fn(&mut T, &Row) -> Result<(), Error>,
        done: impl Fn(),
    ) -> Result<T, Error> {
        let mut asked: Vec<BoxFuture<'_, Result<Vec<Row>, Error>>> = Vec::with_capacity(self.pieces.len());
        for condition in &self.pieces {
            let sql = sql(condition);
            asked.push(Box::pin(async move { self.piece(&sql, &[]).await }));
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
        sql: &impl Fn(&str) -> String,
        progress: &Progress,
    ) -> Result<Totals, Error> {
        let whom = self.pool.whom();
        let bytes = self.piece_bytes();
        let add = |sum: &mut Totals, row: &Row| Totals::read(row, 0, whom).map(|part| sum.add(part));
        self.ask(at_once, sql, add, || progress.read(bytes)).await
    }

    pub(crate) async fn by_bucket(
        &self,
        at_once: usize,
        sql: &impl Fn(&str) -> String,
    ) -> Result<HashMap<i32, Totals>, Error> {
        let whom = self.pool.whom();
        let add = |sums: &mut HashMap<i32, Totals>, row: &Row| {
            let bucket = row.try_get(0).map_err(Error::of(whom))?;
            sums.entry(bucket).or_default().add(Totals::read(row, 1, whom)?);
            Ok(())
        };
        self.ask(at_once, sql, add, || ()).await
    }

    /// Whether the name still is that of the table that the snapshot shows, and its rows are in the same file: a look at both says what is at present.
    pub(crate) async fn is_as_it_was(&self) -> Result<bool, Error> {
        let sql = "SELECT pg_catalog.to_regclass($1)::oid = $2 AND pg_catalog.pg_relation_filenode($2) = $3";
        let rows = self.pool.ask(sql, &[&self.table.name.sql(), &self.table.oid, &self.table.file]).await?;
        let same = rows.first().map(|row| row.try_get::<_, Option<bool>>(0)).transpose();
        Ok(same.map_err(Error::of(self.pool.whom()))?.flatten() == Some(true))
    }
}
