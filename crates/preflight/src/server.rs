//! One of both servers, set up for looking.
use crate::error::Error;
use pgshadow_model::Place;
use std::time::Duration;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, Row};

/// How long one answer may take; the server gives up a little earlier.
const ANSWER_MAX: Duration = Duration::from_secs(25);

/// Nothing is written, nobody waits for long, and definitions read the same on both sides.
const SETUP: &str = "SET default_transaction_read_only = on; SET statement_timeout = '20s'; SET lock_timeout = '500ms';
SET search_path = pg_catalog; SET quote_all_identifiers = on; SET application_name = 'pgshadow preflight'; SET DateStyle = 'ISO, MDY';
SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET standard_conforming_strings = on; SET row_security = off; SET jit = off";

/// A server, and who pgshadow is there.
#[derive(Debug)]
pub(crate) struct Server<'a> {
    client: &'a Client,
    pub(crate) place: Place,
    /// `server_version_num`.
    pub(crate) version: i32,
    /// pgshadow's role.
    pub(crate) role: String,
    pub(crate) superuser: bool,
    pub(crate) database: String,
}

impl<'a> Server<'a> {
    /// Sets the session up; it stays so.
    pub(crate) async fn new(client: &'a Client, place: Place) -> Result<Self, Error> {
        let (role, database) = (String::new(), String::new());
        let mut server = Self { client, place, version: 0, role, superuser: false, database };
        let version = "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4";
        server.version = server.value(version).await?;
        // jit is 11's.
        server
            .execute(if server.version < 110_000 { SETUP.trim_end_matches("; SET jit = off") } else { SETUP })
            .await?;
        let sql = "SELECT r.rolname, r.rolsuper, pg_catalog.current_database() FROM pg_catalog.pg_roles r WHERE r.rolname = session_user";
        let row = server.one(sql).await?;
        server.role = server.get(&row, 0)?;
        server.superuser = server.get(&row, 1)?;
        server.database = server.get(&row, 2)?;
        Ok(server)
    }

    /// All rows.
    pub(crate) async fn rows(&self, sql: &str) -> Result<Vec<Row>, Error> {
        self.rows_with(sql, &[]).await
    }

    pub(crate) async fn rows_with(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.answered(self.client.query(sql, values)).await
    }

    /// The only row.
    pub(crate) async fn one(&self, sql: &str) -> Result<Row, Error> {
        self.answered(self.client.query_one(sql, &[])).await
    }

    /// The first column of the only row.
    pub(crate) async fn value<T: FromSqlOwned>(&self, sql: &str) -> Result<T, Error> {
        let row = self.one(sql).await?;
        self.get(&row, 0)
    }

    /// The first column of all rows.
    pub(crate) async fn values<T: FromSqlOwned>(&self, sql: &str) -> Result<Vec<T>, Error> {
        self.rows(sql).await?.iter().map(|row| self.get(row, 0)).collect()
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<(), Error> {
        self.answered(self.client.batch_execute(sql)).await
    }

    pub(crate) fn get<T: FromSqlOwned>(&self, row: &Row, column: usize) -> Result<T, Error> {
        row.try_get(column).map_err(|error| Error::Postgres { place: self.place, error })
    }

    /// One of two pieces of SQL: what is there from a version on, or what stands in its place before.
    pub(crate) fn from(&self, version: i32, since: &'static str, before: &'static str) -> &'static str {
        if self.version >= version { since } else { before }
    }

    async fn answered<T>(&self, question: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Error> {
        let answer = tokio::time::timeout(ANSWER_MAX, question).await.map_err(|_| Error::Timeout(self.place))?;
        answer.map_err(|error| Error::Postgres { place: self.place, error })
    }
}
