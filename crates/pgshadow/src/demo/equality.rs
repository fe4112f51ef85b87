//! Are the two databases equal? Told by their own COPY, row for row, without any of pgshadow's code.
use super::cluster::Endpoint;
use super::error::DemoError;
use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt};
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::pin::pin;
use tokio_postgres::{Client, Error};

/// So that the same value is the same text on both sides, whatever the version.
const SETTINGS: &str = "
SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1;
SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET xmloption = 'content'; SET row_security = off;
SET client_encoding = 'UTF8'; SET search_path = pg_catalog";

/// Every table that holds rows, but for the proxy's own.
const TABLES: &str = "
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('information_schema', 'pgshadow') AND n.nspname !~ '^pg_'";

/// How much of a differing row is shown.
const EXAMPLE_CHARACTERS: usize = 160;

/// A table on both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TableEquality {
    /// `schema.name`.
    pub table: String,
    /// Whether all rows are the same, as often.
    pub equal: bool,
    /// Rows on the source.
    pub rows: u64,
    /// Rows that only the source has; a changed row counts on both sides.
    pub only_source: u64,
    /// Rows that only the target has.
    pub only_target: u64,
    /// The first row that differs, and where it is.
    pub example: Option<String>,
}

/// Compares all tables.
///
/// # Errors
/// When a server refuses.
pub async fn compare(source: &Endpoint, target: &Endpoint) -> Result<Vec<TableEquality>, DemoError> {
    let failed = |error| DemoError::database("comparing the two databases")(error);
    let (source, target) = (open(source).await.map_err(failed)?, open(target).await.map_err(failed)?);
    let (here, there) = (tables(&source).await.map_err(failed)?, tables(&target).await.map_err(failed)?);
    let mut compared = Vec::new();
    for table in here.union(&there) {
        let equality = match (here.contains(table), there.contains(table)) {
            (true, true) => compare_table(&source, &target, table).await.map_err(failed)?,
            (here, _) => {
                let place = if here { "source" } else { "target" };
                let example = Some(format!("the table is only on the {place}"));
                TableEquality { table: table.clone(), example, ..TableEquality::default() }
            }
        };
        compared.push(equality);
    }
    Ok(compared)
}

async fn open(place: &Endpoint) -> Result<Client, Error> {
    let client = place.connect().await?;
    client.batch_execute(SETTINGS).await?;
    Ok(client)
}

async fn tables(client: &Client) -> Result<BTreeSet<String>, Error> {
    client.query(TABLES, &[]).await?.iter().map(|row| row.try_get(0)).collect()
}

async fn compare_table(source: &Client, target: &Client, table: &str) -> Result<TableEquality, Error> {
    let copy = format!("COPY (SELECT t::text FROM ONLY {table} t ORDER BY t::text COLLATE \"C\") TO STDOUT");
    let (here, there) = (source.copy_out(&copy).await?, target.copy_out(&copy).await?);
    Ok(TableEquality { table: table.to_owned(), ..merge(here, there).await? })
}

/// Walks two sorted streams of lines as one.
async fn merge<E>(
    source: impl Stream<Item = Result<Bytes, E>>,
    target: impl Stream<Item = Result<Bytes, E>>,
) -> Result<TableEquality, E> {
    let (mut source, mut target) = (Lines { stream: pin!(source), rest: BytesMut::new() }, pin!(target));
    let mut target = Lines { stream: target.as_mut(), rest: BytesMut::new() };
    let mut result = TableEquality::default();
    let (mut here, mut there) = (source.next().await?, target.next().await?);
    loop {
        let order = match (&here, &there) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(here), Some(there)) => here.cmp(there),
        };
        let differs = match order {
            Ordering::Equal => None,
            Ordering::Less => here.as_ref().map(|row| ("source", row)),
            Ordering::Greater => there.as_ref().map(|row| ("target", row)),
        };
        if let (Some((place, row)), None) = (differs, &result.example) {
            let row: String = String::from_utf8_lossy(row).chars().take(EXAMPLE_CHARACTERS).collect();
            result.example = Some(format!("only on the {place}: {row}"));
        }
        result.only_source += u64::from(order == Ordering::Less);
        result.only_target += u64::from(order == Ordering::Greater);
        if order != Ordering::Greater {
            result.rows += 1;
            here = source.next().await?;
        }
        if order != Ordering::Less {
            there = target.next().await?;
        }
    }
    result.equal = result.only_source == 0 && result.only_target == 0;
    Ok(result)
}

/// Lines of a stream of pieces.
struct Lines<S> {
    stream: S,
    rest: BytesMut,
}

impl<S, E> Lines<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    async fn next(&mut self) -> Result<Option<Bytes>, E> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1).freeze();
                return Ok(Some(line.slice(..end)));
            }
            match self.stream.try_next().await? {
                Some(piece) => self.rest.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    async fn merged(source: &[&'static str], target: &[&'static str]) -> TableEquality {
        let pieces = |pieces: &[&'static str]| {
            let pieces: Vec<Result<Bytes, ()>> =
                pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
            stream::iter(pieces)
        };
        merge(pieces(source), pieces(target)).await.unwrap()
    }

    #[tokio::test]
    async fn pieces_are_no_rows() {
        let equality = merged(&["(1)\n(2", ")\n"], &["(1)\n", "(2)\n"]).await;
        assert_eq!((equality.equal, equality.rows), (true, 2));
        assert!(merged(&[], &[]).await.equal);
    }

    #[tokio::test]
    async fn a_row_that_is_there_twice_is_not_the_same_as_once() {
        let equality = merged(&["(1)\n", "(1)\n", "(3)\n"], &["(1)\n", "(2)\n"]).await;
        assert_eq!((equality.equal, equality.rows), (false, 3));
        assert_eq!((equality.only_source, equality.only_target), (2, 1));
        assert_eq!(equality.example.unwrap(), "only on the source: (1)");
    }
}
