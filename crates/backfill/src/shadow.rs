//! The shadow's side of a load: its connections, and what is noted there of how far the load is.

use crate::Error;
use crate::archive::Entry;
use crate::handover::Handover;
use crate::progress::Progress;
use crate::source::{Table, Unit};
use futures::future::BoxFuture;
use pgshadow_apply::{Connected, PairError};
use pgshadow_model::QualifiedName;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

/// `loading`: ranges of tables that are there. `restored`: entries of the schema's archive that are. `backfill`: how far the whole is.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS pgshadow.loading (schema text, name text, start int8, rows int8 NOT NULL, PRIMARY KEY (schema, name, start));
CREATE TABLE IF NOT EXISTS pgshadow.restored (entry int4 PRIMARY KEY);
CREATE TABLE IF NOT EXISTS pgshadow.backfill (one bool PRIMARY KEY DEFAULT true CHECK (one), step text NOT NULL,
    makes_schema bool NOT NULL, at timestamptz NOT NULL DEFAULT pg_catalog.now())";

/// What was answered is on the disk: a crash of the shadow takes nothing back that the load goes by.
///
/// What is read or written there means what it means on the primary, however the role is set up; triggers and foreign keys look at
/// nothing meanwhile, where that may be had.
const SETTINGS: &str = "
SET DateStyle = 'ISO, MDY'; SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'; SET lc_monetary = 'C'; SET xmloption = 'content';
SET search_path = pg_catalog; SET row_security = off; SET standard_conforming_strings = on; SET default_transaction_read_only = off;
SET default_transaction_isolation = 'read committed'; SET statement_timeout = 0; SET lock_timeout = '30s'; SET synchronous_commit = on;
SELECT pg_catalog.set_config(s.name, w.value, false) FROM pg_catalog.pg_settings s JOIN (VALUES
    ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'), ('transaction_timeout', '0'))
    AS w (name, value) ON w.name = s.name";

/// How long an applier that has lost the shadow may take to be back, and the pause before it is asked again. It connects anew
/// also where a table is missing on the shadow.
const BACK_WITHIN: Duration = Duration::from_secs(5);
const ASKED_AGAIN: Duration = Duration::from_millis(100);

/// How far a backfill is, as the shadow notes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The schema is being made.
    Schema,
    /// Tables are loaded.
    Load,
    /// What comes last is being made.
    Finish,
    /// All is done.
    Done,
}

impl Step {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Schema, "schema"), (Self::Load, "load"), (Self::Finish, "finish"), (Self::Done, "done")];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step == self).map_or("", |(_, word)| word)
    }
}

/// Its connections.
pub(crate) struct Shadow<'a> {
    handover: &'a dyn Handover,
    progress: &'a Progress,
    /// For texts.
    encoding: String,
    idle: Mutex<Vec<Connected>>,
}

impl<'a> Shadow<'a> {
    /// `encoding`: the primary's, in which texts come.
    pub(crate) fn new(handover: &'a dyn Handover, progress: &'a Progress, encoding: &str) -> Self {
        Self { handover, progress, encoding: encoding.to_owned(), idle: Mutex::default() }
    }

    /// One that is idle, or a new one. To be given back only when nothing of it is open.
    pub(crate) async fn writer(&self) -> Result<Connected, Error> {
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|writer| !writer.client.is_closed());
            idle.pop()
        };
        if let Some(writer) = idle {
            return Ok(writer);
        }
        let asked = once_it_is_back(|| self.handover.writer());
        let writer = self.progress.named("a connection to the shadow", asked).await?;
        let settings = format!("{SETTINGS}; SET client_encoding = '{}'", self.encoding.replace('\'', "''"));
        writer.client.batch_execute(&settings).await.map_err(Error::shadow)?;
        // without the right to it user triggers and foreign keys are in force
        let _ = writer.client.batch_execute("SET session_replication_role = replica").await;
        Ok(writer)
    }

    pub(crate) fn give_back(&self, writer: Connected) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(writer);
    }

    /// Runs statements on a connection of their own.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), Error> {
        let writer = self.writer().await?;
        writer.client.batch_execute(sql).await.map_err(Error::shadow)?;
        self.give_back(writer);
        Ok(())
    }

    /// Rows of this range, if it is there.
    pub(crate) async fn copied(&self, client: &Client, name: &QualifiedName, start: u32) -> Result<Option<u64>, Error> {
        let sql = "SELECT rows FROM pgshadow.loading WHERE schema = $1 AND name = $2 AND start = $3";
        let row = client.query_opt(sql, &[&name.schema, &name.name, &i64::from(start)]).await.map_err(Error::shadow)?;
        let rows: Option<i64> = row.map(|row| row.try_get(0)).transpose().map_err(Error::shadow)?;
        Ok(rows.map(i64::unsigned_abs))
    }

    /// Notes a range, in the transaction that writes it.
    pub(crate) async fn note(&self, client: &Client, name: &QualifiedName, start: u32, rows: u64) -> Result<(), Error> {
        let sql = "INSERT INTO pgshadow.loading (schema, name, start, rows) VALUES ($1, $2, $3, $4)";
        let (start, rows) = (i64::from(start), rows.cast_signed());
        client.execute(sql, &[&name.schema, &name.name, &start, &rows]).await.map_err(Error::shadow)?;
        Ok(())
    }

    /// One of these tables (in SQL) on which triggers or foreign keys would act; `None` too where they can be kept from it.
    pub(crate) async fn would_act(&self, names: &[String]) -> Result<Option<String>, Error> {
        let writer = self.writer().await?;
        let sql = "SELECT t.tgrelid::pg_catalog.regclass::text || CASE WHEN t.tgenabled IN ('A', 'R') THEN ' (by ' || t.tgname || ')' ELSE '' END
            FROM pg_catalog.pg_trigger t
            WHERE CASE WHEN pg_catalog.current_setting('session_replication_role') = 'replica' THEN t.tgenabled IN ('A', 'R')
                ELSE t.tgenabled IN ('O', 'A') END
            AND t.tgrelid IN (SELECT pg_catalog.to_regclass(n) FROM unnest($1::text[]) AS x (n)) LIMIT 1";
        let row = writer.client.query_opt(sql, &[&names]).await.map_err(Error::shadow)?;
        self.give_back(writer);
        row.map(|row| row.try_get(0)).transpose().map_err(Error::shadow)
    }

    /// Tables that await their load.
    pub(crate) async fn awaited(&self) -> Result<BTreeSet<QualifiedName>, Error> {
        let writer = self.writer().await?;
        let rows =
            writer.client.query("SELECT schema, name FROM pgshadow.awaited", &[]).await.map_err(Error::shadow)?;
        self.give_back(writer);
        let name = |row: &Row| Ok(QualifiedName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
        rows.iter().map(|row| name(row).map_err(Error::shadow)).collect()
    }

    /// Makes pgshadow's own tables.
    pub(crate) async fn prepare(&self) -> Result<(), Error> {
        self.execute(TABLES).await
    }

    /// How far the last backfill came, and whether it makes the schema.
    pub(crate) async fn step(&self) -> Result<Option<(Step, bool)>, Error> {
        let writer = self.writer().await?;
        let row = writer.client.query_opt("SELECT step, makes_schema FROM pgshadow.backfill", &[]).await;
        let row = row.map_err(Error::shadow)?;
        self.give_back(writer);
        let Some(row) = row else { return Ok(None) };
        let word: String = row.try_get(0).map_err(Error::shadow)?;
        let step = Step::ALL.iter().find(|(_, known)| *known == word).map(|(step, _)| *step);
        Ok(step.zip(row.try_get(1).ok()))
    }

    /// Entries of the schema's archive that are there.
    pub(crate) async fn restored(&self) -> Result<HashSet<i32>, Error> {
        let writer = self.writer().await?;
        let rows = writer.client.query("SELECT entry FROM pgshadow.restored", &[]).await.map_err(Error::shadow)?;
        self.give_back(writer);
        rows.iter().map(|row| row.try_get(0).map_err(Error::shadow)).collect()
    }

    pub(crate) async fn note_restored(&self, entries: &[Entry]) -> Result<(), Error> {
        let numbers: Vec<i32> = entries.iter().map(Entry::number).collect();
        let writer = self.writer().await?;
        let sql = "INSERT INTO pgshadow.restored SELECT unnest($1::int4[]) ON CONFLICT DO NOTHING";
        writer.client.execute(sql, &[&numbers]).await.map_err(Error::shadow)?;
        self.give_back(writer);
        Ok(())
    }

    pub(crate) async fn set_step(&self, step: Step, makes_schema: bool) -> Result<(), Error> {
        self.execute(&format!(
            "INSERT INTO pgshadow.backfill (step, makes_schema) VALUES ('{word}', {makes_schema})
            ON CONFLICT (one) DO UPDATE SET step = excluded.step, makes_schema = excluded.makes_schema, at = excluded.at{forget}",
            forget = if step == Step::Done || step == Step::Schema { "; DELETE FROM pgshadow.restored; DELETE FROM pgshadow.loading" } else { "" },
            word = step.word(),
        ))
        .await
    }

    /// Present names of tables that got another one there since they await their load.
    pub(crate) async fn renamed(&self) -> Result<Vec<QualifiedName>, Error> {
        let writer = self.writer().await?;
        let sql = "SELECT n.nspname::text, c.relname::text FROM pgshadow.awaited a
            JOIN pg_catalog.pg_class c ON c.oid = a.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE (n.nspname, c.relname) IS DISTINCT FROM (a.schema::name, a.name::name)";
        let rows = writer.client.query(sql, &[]).await.map_err(Error::shadow)?;
        self.give_back(writer);
        let name = |row: &Row| Ok(QualifiedName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
        rows.iter().map(|row| name(row).map_err(Error::shadow)).collect()
    }

    /// Tables that were just made, all of them by the names that are awaited, are known by more than these from now on.
    pub(crate) async fn know_awaited(&self) -> Result<(), Error> {
        self.execute(
            "UPDATE pgshadow.awaited SET oid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', schema, name))",
        )
        .await
    }

    /// Statistics over several columns, and of partitioned tables: nobody else makes them.
    pub(crate) async fn analyze_last(&self) -> Result<Vec<String>, Error> {
        let writer = self.writer().await?;
        let sql = "SELECT pg_catalog.format('ANALYZE %I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_' AND (c.relkind = 'p' AND NOT EXISTS
                (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)
              OR c.relkind = 'r' AND c.oid IN (SELECT stxrelid FROM pg_catalog.pg_statistic_ext))";
        let mut failed = Vec::new();
        for row in writer.client.query(sql, &[]).await.map_err(Error::shadow)? {
            let analyze: String = row.try_get(0).map_err(Error::shadow)?;
            match writer.client.batch_execute(&analyze).await {
                Err(error) if error.as_db_error().is_some() => failed.push(format!("{analyze}: {error}")),
                done => done.map_err(Error::shadow)?,
            }
        }
        self.give_back(writer);
        Ok(failed)
    }

    /// Nothing is left in the unit's tables, nor noted of them. The tables first: a range of an earlier load may be about to commit, with its note,
    /// and is waited for.
    pub(crate) async fn empty(&self, unit: &Unit) -> Result<(), Error> {
        let own: Vec<&Table> = unit.tables.iter().filter(|table| !table.partitioned).collect();
        let names: Vec<String> = own.iter().map(|table| format!("ONLY {}", table.name.sql())).collect();
        let noted: String = own
            .iter()
            .map(|table| {
                let (schema, name) = (table.name.schema.replace('\'', "''"), table.name.name.replace('\'', "''"));
                format!("DELETE FROM pgshadow.loading WHERE schema = '{schema}' AND name = '{name}';")
            })
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let truncate = format!("BEGIN; TRUNCATE {}; {noted} COMMIT", names.join(", "));
        match self.execute(&truncate).await {
            // another table refers to it, or the role may not
            Err(error)
                if matches!(
                    error.code(),
                    Some(&SqlState::FEATURE_NOT_SUPPORTED | &SqlState::INSUFFICIENT_PRIVILEGE)
                ) =>
            {
                let delete: String = names.iter().map(|name| format!("DELETE FROM {name};")).collect();
                let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE;", names.join(", "));
                self.execute(&format!("BEGIN; {lock} {delete} {noted} COMMIT")).await
            }
            done => done,
        }
    }
}

/// Asks the applier, and again while it has lost the shadow, for a while.
async fn once_it_is_back<T>(mut ask: impl FnMut() -> BoxFuture<'static, Result<T, PairError>>) -> Result<T, PairError> {
    let until = Instant::now() + BACK_WITHIN;
    loop {
        match ask().await {
            Err(PairError::Lost) if Instant::now() < until => tokio::time::sleep(ASKED_AGAIN).await,
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many times it has lost the shadow, then it answers this.
    fn answers(
        lost: u32,
        then: fn() -> Result<u32, PairError>,
    ) -> impl FnMut() -> BoxFuture<'static, Result<u32, PairError>> {
        let mut asked = 0;
        move || {
            asked += 1;
            Box::pin(std::future::ready(if asked > lost { then() } else { Err(PairError::Lost) }))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_applier_that_has_lost_the_shadow_is_asked_again() {
        let begun = Instant::now();
        assert!(matches!(once_it_is_back(answers(7, || Ok(3))).await, Ok(3)));
        assert_eq!(begun.elapsed(), 7 * ASKED_AGAIN);
        // another answer is one
        assert!(matches!(once_it_is_back(answers(0, || Err(PairError::Long))).await, Err(PairError::Long)));
        assert_eq!(begun.elapsed(), 7 * ASKED_AGAIN);
        assert!(matches!(once_it_is_back(answers(u32::MAX, || Ok(3))).await, Err(PairError::Lost)));
        assert_eq!(begun.elapsed(), 7 * ASKED_AGAIN + BACK_WITHIN);
    }
}
