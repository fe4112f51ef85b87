//! Tables that are loaded from a snapshot of the primary, while all else goes on.
//!
//! A table that awaits its load is passed over: what is written to it before the snapshot is in the snapshot. From the snapshot on it is
//! held, so that what the snapshot doesn't contain is applied once the load is done. Which tables await theirs is on the shadow, in
//! `pgshadow.awaited`: after a crash they are passed over until another snapshot is taken.

use crate::Error;
use crate::dial::{Connected, connect};
use crate::heal::QUIET_WITHIN;
use crate::hold::{Hold, HoldOf};
use crate::lane::Lane;
use crate::lock;
use crate::pair::{Exported, PairError};
use crate::session::Session;
use pgshadow_model::QualifiedName;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Client;

/// The primary at one moment, from which tables are loaded.
pub struct LoadSnapshot {
    /// Of the primary.
    pub primary: Exported,
    /// What it sees, as `txid_current_snapshot()` writes it.
    pub sees: String,
    /// Entries that it doesn't contain are held as was asked for, until this is dropped. All others are on the shadow.
    pub hold: Hold,
    /// How long no lane could apply for it.
    pub held: Duration,
    /// The store's mark of doubts, read before it was taken.
    pub doubts: u64,
}

/// Tables that await their load.
#[derive(Default)]
pub(crate) struct Awaited {
    tables: RwLock<HashSet<QualifiedName>>,
    /// Of tables of which it isn't known.
    unsure: Mutex<Vec<Hold>>,
    /// The shadow has no table at all: it waits to be loaded, and what it lacks is no finding.
    bare: AtomicBool,
}

const HAS_TABLES: &str =
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('information_schema', 'pgshadow') AND n.nspname !~ '^pg_')";

impl Awaited {
    /// Whether what is written to it is passed over. Asked for every row.
    pub(crate) fn contains(&self, table: &QualifiedName) -> bool {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).contains(table)
    }

    /// Whether the shadow had no table when it was looked at, and nothing was loaded since.
    pub(crate) fn is_bare(&self) -> bool {
        self.bare.load(Ordering::SeqCst)
    }

    fn change(&self, change: impl FnOnce(&mut HashSet<QualifiedName>)) {
        change(&mut self.tables.write().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn all(&self) -> Vec<QualifiedName> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) fn keep_until_read(&self, hold: Option<Hold>) {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner).extend(hold);
    }

    /// As the shadow has it. No lane is at work.
    pub(crate) async fn read(&self, client: &Client, stream: &str) -> Result<(), Error> {
        let sql = "SELECT schema, name FROM pgshadow.awaited WHERE stream = $1";
        let rows = client.query(sql, &[&stream]).await?;
        let name = |row: &tokio_postgres::Row| {
            Ok::<_, Error>(QualifiedName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?))
        };
        let names = rows.iter().map(name).collect::<Result<HashSet<_>, _>>()?;
        self.change(|tables| *tables = names);
        let has_tables: bool = client.query_one(HAS_TABLES, &[]).await?.try_get(0)?;
        self.bare.store(!has_tables, Ordering::SeqCst);
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }
}

impl Lane {
    /// From now on these are passed over. One that is awaited already stays what it was: it may have got another name, and this be another's.
    pub(crate) async fn await_load(&self, session: &Session, tables: &[QualifiedName]) -> Result<(), Error> {
        let sql = "INSERT INTO pgshadow.awaited (stream, schema, name, oid)
            SELECT $1, s, n, pg_catalog.to_regclass(pg_catalog.format('%I.%I', s, n)) FROM unnest($2::text[], $3::text[]) AS t (s, n)
            ON CONFLICT (stream, schema, name) DO UPDATE SET oid = CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = awaited.oid)
              THEN awaited.oid ELSE excluded.oid END";
        self.write_awaited(session, sql, tables).await?;
        self.awaited.change(|awaited| awaited.extend(tables.iter().cloned()));
        Ok(())
    }

    /// These are loaded: what is written to them is applied.
    pub(crate) async fn end_load(&self, session: &Session, tables: &[QualifiedName]) -> Result<(), Error> {
        let sql = "DELETE FROM pgshadow.awaited a USING unnest($2::text[], $3::text[]) AS t (s, n)
            WHERE a.stream = $1 AND a.schema = t.s AND a.name = t.n";
        // first, so that nothing counts as loaded without it
        self.log.marked(session.mark(&self.config.stream, 0).await?);
        self.write_awaited(session, sql, tables).await?;
        self.awaited.change(|awaited| awaited.retain(|table| !tables.contains(table)));
        self.awaited.bare.store(false, Ordering::SeqCst);
        // they may have been made since lanes looked
        self.definitions.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn write_awaited(&self, session: &Session, sql: &str, tables: &[QualifiedName]) -> Result<(), Error> {
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).unzip();
        session.client().execute(sql, &[&self.config.stream, &schemas, &names]).await?;
        Ok(())
    }

    /// A snapshot of the primary; what it contains is on the shadow, of the rest what is held waits.
    pub(crate) async fn load_snapshot(
        &mut self,
        session: &mut Session,
        held: &HoldOf,
    ) -> Result<LoadSnapshot, PairError> {
        self.doing("a snapshot to load from: connecting");
        let on_primary = self.connected(&self.config.primary, "primary").await?;
        let common = Arc::clone(&self.common);
        let quiet = self.hold_lanes(&common).await?;
        let (held_since, doubts) = (Instant::now(), self.store.doubt_mark());
        let (primary, sees) = self.bring_to_snapshot(session, on_primary).await?;
        let hold = self.book.hold(held);
        drop(quiet);
        Ok(LoadSnapshot { primary, sees, hold, held: held_since.elapsed(), doubts })
    }

    /// Holds these; nothing that reaches them is in a lane's hands any more.
    pub(crate) async fn still(&self, held: &HoldOf) -> Result<Hold, PairError> {
        self.doing("other lanes end what they are at");
        let quiet = tokio::time::timeout(QUIET_WITHIN, self.quiet.write()).await.map_err(|_| PairError::Long)?;
        if self.book.is_in_hand() {
            return Err(PairError::Long);
        }
        let hold = self.book.hold(held);
        drop(quiet);
        Ok(hold)
    }

    /// A connection to the shadow that may write there as long as this life lasts.
    pub(crate) async fn writer(&self) -> Result<Connected, Error> {
        let config = &self.config;
        let connected = connect(&*self.dial, &config.shadow, config.connect_timeout, "shadow").await?;
        let join = async {
            connected.client.batch_execute("SET application_name = 'pgshadow load'; SET lock_timeout = '10s'").await?;
            lock::join_life(&connected.client, &config.stream, self.life()?).await?;
            Ok::<i32, Error>(connected.client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.try_get(0)?)
        };
        let joined = tokio::time::timeout(config.connect_timeout + config.lock_timeout, join).await;
        self.remember_pids([joined.map_err(|_| Error::Timeout("shadow"))??]);
        Ok(connected)
    }
}
