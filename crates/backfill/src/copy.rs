//! One range of a table: out of the snapshot, by COPY, into the shadow, with a mark that it is there.

use crate::Error;
use crate::progress::Progress;
use crate::shadow::Shadow;
use crate::source::Table;
use futures::{SinkExt, StreamExt, pin_mut};
use pgshadow_verify::{Pace, Pages, Pool, Turn};
use std::time::Duration;
use tokio_postgres::Client;

/// Bytes of a page.
const PAGE: u64 = 8192;
/// Pages in one range: it takes a second or so, and what is lost with a connection is no more than this.
const RANGE_PAGES: u32 = 8192;
/// From here a range of pages can be asked for.
pub(crate) const READS_PAGES: u32 = 140_000;
/// Attempts at one range, with new connections to the shadow.
const ATTEMPTS: u32 = 60;
const AGAIN: Duration = Duration::from_millis(500);
/// From so many times on that a range has given way, and begun again, it is told.
const GAVE_WAY_TOLD: u32 = 3;
/// How long the shadow may take nothing while somebody waits for the table that is read.
const STALLED: Duration = Duration::from_secs(3);

/// A part of a table's pages; `None`: all of it.
pub(crate) type Range = Option<Pages>;

/// The table in parts. `by_pages`: the server can be asked for some of its pages.
pub(crate) fn ranges(table: &Table, by_pages: bool) -> Vec<Range> {
    let parts = Pages::of(table.size, RANGE_PAGES);
    if by_pages && parts.len() > 1 { parts.into_iter().map(Some).collect() } else { vec![None] }
}

/// The first page.
fn start(range: &Range) -> u32 {
    range.as_ref().map_or(0, |pages| pages.0)
}

/// Bytes of the table's file.
fn bytes(range: &Range, table: &Table) -> u64 {
    let to = range.as_ref().and_then(|pages| pages.1).map_or(table.size, |to| u64::from(to) * PAGE);
    to.min(table.size).saturating_sub(u64::from(start(range)) * PAGE)
}

fn select(range: &Range, table: &Table) -> String {
    let pages = range.as_ref().map(Pages::condition).unwrap_or_default();
    format!("SELECT {} FROM ONLY {} AS r{pages}", table.column_list(), table.name.sql())
}

/// What all copies of a load have in common.
pub(crate) struct Copying<'a> {
    pub(crate) primary: &'a Pool,
    pub(crate) shadow: &'a Shadow<'a>,
    pub(crate) pace: &'a Pace,
    pub(crate) progress: &'a Progress,
}

impl Copying<'_> {
    /// Brings a range to the shadow, once. Over lost connections to the shadow it is tried again.
    pub(crate) async fn range(&self, table: &Table, range: &Range) -> Result<(), Error> {
        let (mut attempt, mut gave_way) = (0, 0);
        loop {
            let turn = self.primary.turn().await?;
            let copied = match self.attempt(&turn, table, range).await {
                Ok(rows) => Ok(Ok(rows)),
                Err(Failed::Shadow(error)) => Ok(Err(error)),
                Err(Failed::Primary(error)) => Err(error),
            };
            let Some(copied) = turn.end(copied).await? else {
                gave_way += 1;
                if gave_way >= GAVE_WAY_TOLD {
                    let why = format!(
                        "whoever locks {} again and again: its copy has given way {gave_way} times",
                        table.name
                    );
                    self.progress.waits(Some(why));
                }
                continue;
            };
            let error = match copied {
                Ok(rows) => {
                    self.progress.copied(&table.name, rows, bytes(range, table));
                    self.progress.waits(None);
                    return Ok(());
                }
                Err(error) => error,
            };
            attempt += 1;
            if !error.is_lost() || attempt >= ATTEMPTS {
                return Err(error);
            }
            tracing::info!(%error, table = %table.name, attempt, "backfill: a range begins again");
            self.progress.waits(Some(format!("the shadow: {error}")));
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn attempt(&self, turn: &Turn<'_>, table: &Table, range: &Range) -> Result<u64, Failed> {
        let writer = self.shadow.writer().await.map_err(Failed::Shadow)?;
        let rows = self.copy(turn, &writer.client, table, range).await?;
        // only a connection of which all is known is used again
        self.shadow.give_back(writer);
        Ok(rows)
    }

    async fn copy(&self, turn: &Turn<'_>, shadow: &Client, table: &Table, range: &Range) -> Result<u64, Failed> {
        let on_shadow = |error| Failed::Shadow(Error::shadow(error));
        let primary = turn.client();
        if let Some(rows) = self.shadow.copied(shadow, &table.name, start(range)).await.map_err(Failed::Shadow)? {
            return Ok(rows);
        }
        let rows = if table.columns.is_empty() {
            self.copy_bare(primary, shadow, table, range).await?
        } else {
            let format = if table.binary { "binary" } else { "text" };
            let (name, columns, select) = (table.name.sql(), table.column_list(), select(range, table));
            shadow.batch_execute("BEGIN").await.map_err(on_shadow)?;
            let to = format!("COPY {name} ({columns}) FROM STDIN (FORMAT {format})");
            let sink = shadow.copy_in(&to).await.map_err(on_shadow)?;
            let from = format!("COPY ({select}) TO STDOUT (FORMAT {format})");
            let stream = primary.copy_out(&from).await.map_err(Failed::Primary)?;
            pin_mut!(sink, stream);
            let mut gives_way = false;
            while let Some(data) = stream.next().await {
                let data = data.map_err(Failed::Primary)?;
                if !gives_way {
                    gives_way = tokio::select! {
                        _ = self.pace.take(data.len() as u64) => false,
                        () = turn.gives_way() => true,
                    };
                }
                unless_stalled(turn, gives_way, sink.feed(data)).await?.map_err(on_shadow)?;
            }
            unless_stalled(turn, gives_way, sink.finish()).await?.map_err(on_shadow)?
        };
        // under the lock that the copy has taken: what was read was this table, in the file that the snapshot shows
        let look = "SELECT pg_catalog.to_regclass($1)::oid = $2 AND pg_catalog.pg_relation_filenode($2) = $3";
        let looked = primary.query_one(look, &[&table.name.sql(), &table.oid, &table.file]).await;
        let same: Option<bool> = looked.and_then(|row| row.try_get(0)).map_err(Failed::Primary)?;
        // the same of the columns that have these names: what is prepared shows them as they are, catalogs as the snapshot has them
        let named = primary.prepare(&select(&None, table)).await.map_err(Failed::Primary)?;
        let numbers = named.columns().iter().map(tokio_postgres::Column::column_id);
        if same != Some(true) || !numbers.eq(table.numbers.iter().copied().map(Some)) {
            return Err(Failed::Shadow(Error::Redefined(table.name.clone())));
        }
        // whoever waits for the table needn't wait for the shadow; ended once more it is told only that there is none
        primary.batch_execute("COMMIT").await.map_err(Failed::Primary)?;
        self.shadow.note(shadow, &table.name, start(range), rows).await.map_err(Failed::Shadow)?;
        shadow.batch_execute("COMMIT").await.map_err(on_shadow)?;
        Ok(rows)
    }

    /// Rows without a column.
    async fn copy_bare(&self, primary: &Client, shadow: &Client, table: &Table, range: &Range) -> Result<u64, Failed> {
        let on_shadow = |error| Failed::Shadow(Error::shadow(error));
        let select = select(range, table);
        let row = primary.query_one(&format!("SELECT pg_catalog.count(*) FROM ({select}) AS r"), &[]).await;
        let rows: i64 = row.and_then(|row| row.try_get(0)).map_err(Failed::Primary)?;
        shadow.batch_execute("BEGIN").await.map_err(on_shadow)?;
        let columns: Vec<tokio_postgres::Row> = shadow
            .query("SELECT FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass($1) AND attnum > 0 AND NOT attisdropped",
                &[&table.name.sql()])
            .await
            .map_err(on_shadow)?;
        if columns.is_empty() {
            let insert =
                format!("INSERT INTO {} SELECT FROM pg_catalog.generate_series(1, $1::int8)", table.name.sql());
            shadow.execute(&insert, &[&rows]).await.map_err(on_shadow)?;
        } else {
            let insert = format!("INSERT INTO {} DEFAULT VALUES", table.name.sql());
            for _ in 0..rows {
                shadow.execute(&insert, &[]).await.map_err(on_shadow)?;
            }
        }
        Ok(rows.unsigned_abs())
    }
}

/// A shadow that takes nothing is waited for only as long as nobody waits for the table on the primary. `told`: somebody does already.
async fn unless_stalled<T>(turn: &Turn<'_>, told: bool, taken: impl Future<Output = T>) -> Result<T, Failed> {
    let stalled = async {
        if !told {
            turn.gives_way().await;
        }
        tokio::time::sleep(STALLED).await;
    };
    tokio::select! {
        taken = taken => Ok(taken),
        () = stalled => Err(Failed::Shadow(Error::Server(pgshadow_verify::Error::Timeout("shadow")))),
    }
}

/// On which side a copy has failed.
pub(crate) enum Failed {
    Primary(tokio_postgres::Error),
    /// There, or for another reason: the primary's transaction is whole.
    Shadow(Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgshadow_model::QualifiedName;

    #[test]
    fn ranges_leave_nothing_out() {
        let mut table = Table::bare(QualifiedName::new("s", "t"), 3 * u64::from(RANGE_PAGES) * PAGE + 1);
        table.columns = vec!["a".to_owned()];
        let parts = ranges(&table, true);
        let texts: Vec<String> = parts.iter().map(|part| select(part, &table)).collect();
        let [first, _, _, last] = texts.as_slice() else { panic!("{texts:?}") };
        assert!(first.ends_with("AS r WHERE r.ctid >= '(0,0)'::tid AND r.ctid < '(8192,0)'::tid"), "{first}");
        assert!(last.ends_with("AS r WHERE r.ctid >= '(24576,0)'::tid"), "{last}");
        assert_eq!(parts.iter().map(|part| bytes(part, &table)).sum::<u64>(), table.size);
        assert_eq!(ranges(&table, false), [None]);
        table.size = 0;
        assert_eq!(ranges(&table, true), [None]);
    }
}
