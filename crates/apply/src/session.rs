//! One connection to the shadow, prepared for applying: its settings, its lock, pgshadow's own tables, and what is
//! known of the shadow's tables.

use crate::dial::{Connected, connect};
use crate::lock::{self, Life};
use crate::own::Kept;
use crate::plan::{self, Form, Param};
use crate::raw::Raw;
use crate::shadow_table::ShadowTable;
use crate::tie::Stored;
use crate::{AppliedPosition, Config, Dial, Error, LogExtent};
use pgshadow_model::{QualifiedName, Relation, RowImage};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

/// Statements cached; above it the cache starts again.
const PLANS_MAX: usize = 2000;
/// How long a table is taken to be as it was read; somebody may add a trigger, or a load may make the table.
const TABLE_KEPT: Duration = Duration::from_secs(30);
const ABSENCE_KEPT: Duration = Duration::from_secs(2);

pub(crate) struct Session {
    connected: Connected,
    tables: HashMap<QualifiedName, Known>,
    plans: HashMap<(Arc<Relation>, Form), Option<Arc<Plan>>>,
    /// What is kept to run clients' statements.
    pub(crate) own: Kept,
    write_position: Statement,
    /// The log whose numbers the position has.
    log: LogExtent,
    /// Whose row of the position it writes.
    lane: i32,
    /// As [`crate::common::Common::definitions`] was when tables were read.
    definitions: u64,
    /// The role may set `session_replication_role`.
    pub(crate) may_replica: bool,
    /// The server's process.
    pub(crate) pid: i32,
}

/// What is known of a table, and since when.
struct Known {
    table: Option<Arc<ShadowTable>>,
    read_at: Instant,
}

/// A prepared statement for rows of one shape.
pub(crate) struct Plan {
    pub(crate) statement: Statement,
    params: Vec<Param>,
}

impl Plan {
    /// The parameters' values; `None` if the image doesn't have them all.
    pub(crate) fn values(&self, image: &RowImage) -> Option<Vec<Raw>> {
        values_of(&self.params, image)
    }
}

/// Parameters' values; `None` if the image doesn't have them all.
pub(crate) fn values_of(params: &[Param], image: &RowImage) -> Option<Vec<Raw>> {
    let value = |param: &Param| match param {
        Param::New(i) => image.values.get(*i),
        Param::Old(i) => image.old_key.as_ref().and_then(|k| k.get(*i)),
    };
    params.iter().map(|p| value(p).cloned().map(Raw)).collect()
}

/// Settings that the texts of values, the meaning of names and the safety of the data depend on; the last ones not in every
/// major.
const SETTINGS: &str = "
SET application_name = 'pgshadow apply'; SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, MDY'; SET TimeZone = 'UTC';
SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET search_path = pg_catalog;
SET standard_conforming_strings = on; SET xmloption = 'content'; SET row_security = off;
SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;
SET synchronous_commit = on; SET statement_timeout = 0;
SELECT pg_catalog.set_config(s.name, w.value, false) FROM pg_catalog.pg_settings s JOIN (VALUES ('jit', 'off'),
    ('plan_cache_mode', 'force_generic_plan'), ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'),
    ('transaction_timeout', '0')) AS w (name, value) ON w.name = s.name";

/// What tells one life of a server from another: also a crash of a backend, after which the postmaster goes on with another
/// checkpointer. Other processes come and go within one life, but a role that may not see what each of them is sees them all.
pub const LIFE: &str = "
SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_postmaster_start_time()::pg_catalog.text,
  (SELECT pg_catalog.string_agg(a.pid::pg_catalog.text, ',' ORDER BY a.pid) FROM pg_catalog.pg_stat_activity a
    WHERE a.datid IS NULL AND a.usesysid IS NULL AND coalesce(a.backend_type, 'checkpointer') OPERATOR(pg_catalog.=) 'checkpointer')),
  pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_version')";
/// Tables that a crash empties.
pub const UNLOGGED: &str = "
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) 'r' AND c.relpersistence OPERATOR(pg_catalog.=) 'u'";

/// `applied.above` holds pairs: first and one past the last of each range. Each lane has a row, so that none waits for another
/// one; each row is true by itself, and all of them together are the position. The last statements bring on what a version with
/// one lane has made.
const SCHEMA: &str = "
CREATE SCHEMA IF NOT EXISTS pgshadow;
CREATE TABLE IF NOT EXISTS pgshadow.applied (stream text, lane int4, log text NOT NULL, source text,
    below int8 NOT NULL, above int8[] NOT NULL, PRIMARY KEY (stream, lane));
CREATE TABLE IF NOT EXISTS pgshadow.life (stream text PRIMARY KEY, number int8 NOT NULL, mark int8 NOT NULL DEFAULT 0);
ALTER TABLE pgshadow.life ADD COLUMN IF NOT EXISTS mark int8 NOT NULL DEFAULT 0;
CREATE TABLE IF NOT EXISTS pgshadow.heal (stream text, sequence int8, change int4, part int4, target bytea NOT NULL,
    PRIMARY KEY (stream, sequence, change, part));
CREATE TABLE IF NOT EXISTS pgshadow.started (stream text, sequence int8, change int4, indexes int8[],
    PRIMARY KEY (stream, sequence, change));
CREATE TABLE IF NOT EXISTS pgshadow.awaited (stream text, schema text, name text, oid oid, PRIMARY KEY (stream, schema, name));
ALTER TABLE pgshadow.awaited ADD COLUMN IF NOT EXISTS oid oid;
ALTER TABLE pgshadow.applied ADD COLUMN IF NOT EXISTS lane int4 NOT NULL DEFAULT 0;
ALTER TABLE pgshadow.applied DROP CONSTRAINT IF EXISTS applied_pkey, ADD PRIMARY KEY (stream, lane);
ALTER TABLE pgshadow.started ADD COLUMN IF NOT EXISTS indexes int8[]";

const WRITE_POSITION: &str =
    "INSERT INTO pgshadow.applied (stream, lane, log, source, below, above) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (stream, lane) DO UPDATE SET log = excluded.log, source = coalesce(excluded.source, applied.source),
    below = excluded.below, above = excluded.above";

impl Session {
    /// Connects as the first of a new life of the stream: once it is there, no connection of an older life still writes, and
    /// none will again. `own_pids`: servers' processes of this process's earlier connections, which may be ended if they
    /// hang on.
    pub(crate) async fn lead(
        dial: &dyn Dial,
        config: &Config,
        log: LogExtent,
        own_pids: &[i32],
    ) -> Result<(Self, Life), Error> {
        let connected = connect(dial, &config.shadow, config.connect_timeout, "shadow").await?;
        let client = &connected.client;
        let prepare = async {
            settle_settings(client, config).await?;
            lock::take_lead(client, &config.stream, own_pids).await?;
            // the newest thing in it
            let there = "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass('pgshadow.awaited') AND attname = 'oid'
                AND attnum > 0)";
            let there = client.query_one(there, &[]).await?;
            if !there.try_get::<_, bool>(0)? {
                client.batch_execute(SCHEMA).await?;
            }
            lock::begin_life(client, &config.stream).await
        };
        let longest = config.connect_timeout + config.lock_timeout * 2;
        let life = tokio::time::timeout(longest, prepare).await.map_err(|_| Error::Timeout("shadow"))??;
        Ok((Self::prepared(connected, log, 0).await?, life))
    }

    /// Connects as another one of this life.
    pub(crate) async fn follow(
        dial: &dyn Dial,
        config: &Config,
        log: LogExtent,
        life: Life,
        lane: i32,
    ) -> Result<Self, Error> {
        let connected = connect(dial, &config.shadow, config.connect_timeout, "shadow").await?;
        let client = &connected.client;
        let prepare = async {
            settle_settings(client, config).await?;
            lock::join_life(client, &config.stream, life).await
        };
        let longest = config.connect_timeout + config.lock_timeout;
        tokio::time::timeout(longest, prepare).await.map_err(|_| Error::Timeout("shadow"))??;
        Self::prepared(connected, log, lane).await
    }

    async fn prepared(connected: Connected, log: LogExtent, lane: i32) -> Result<Self, Error> {
        let client = &connected.client;
        let pid: i32 = client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.try_get(0)?;
        let attempt = "BEGIN; SET LOCAL session_replication_role = replica";
        let may_replica = client.batch_execute(attempt).await.is_ok();
        client.batch_execute("ROLLBACK").await?;
        let write_position = client.prepare(WRITE_POSITION).await?;
        let (tables, plans) = (HashMap::new(), HashMap::new());
        Ok(Self {
            connected,
            write_position,
            log,
            lane,
            definitions: 0,
            tables,
            plans,
            own: Kept::default(),
            may_replica,
            pid,
        })
    }

    /// Forgets tables if another lane has changed a definition since they were read.
    pub(crate) fn keep_up(&mut self, definitions: &AtomicU64) {
        let now = definitions.load(Ordering::SeqCst);
        if std::mem::replace(&mut self.definitions, now) != now {
            self.forget_tables();
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.connected.client
    }

    pub(crate) async fn settle_settings(&self, config: &Config) -> Result<(), Error> {
        settle_settings(self.client(), config).await
    }

    /// After DDL, or an error that may come from it.
    pub(crate) fn forget_tables(&mut self) {
        self.tables.clear();
        self.plans.clear();
        self.own.forget();
        self.connected.client.clear_type_cache();
    }

    /// The shadow's table of that name, if it has one.
    pub(crate) async fn table(&mut self, name: &QualifiedName) -> Result<Option<Arc<ShadowTable>>, Error> {
        if let Some(known) = self.tables.get(name) {
            let kept = if known.table.is_some() { TABLE_KEPT } else { ABSENCE_KEPT };
            if known.read_at.elapsed() < kept {
                return Ok(known.table.clone());
            }
        }
        self.read_table(name).await
    }

    async fn read_table(&mut self, name: &QualifiedName) -> Result<Option<Arc<ShadowTable>>, Error> {
        let table = ShadowTable::read(&self.connected.client, name).await?.map(Arc::new);
        let known = Known { table: table.clone(), read_at: Instant::now() };
        if self.tables.insert(name.clone(), known).is_some_and(|before| before.table != table) {
            self.plans.retain(|(relation, _), _| relation.name != *name);
        }
        Ok(table)
    }

    /// Whether the shadow's table isn't as it was read last; if so, it is now.
    pub(crate) async fn is_outdated(&mut self, name: &QualifiedName) -> Result<bool, Error> {
        let before = self.tables.get(name).and_then(|known| known.table.clone());
        Ok(self.read_table(name).await? != before)
    }

    /// The statement for rows of this shape; `None` if such a row can't be found on the shadow by what its image says.
    pub(crate) async fn plan(
        &mut self,
        relation: &Arc<Relation>,
        table: &ShadowTable,
        form: Form,
    ) -> Result<Option<Arc<Plan>>, Error> {
        let key = (Arc::clone(relation), form);
        if let Some(known) = self.plans.get(&key) {
            return Ok(known.clone());
        }
        let plan = match plan::text(relation, table, form) {
            None => None,
            Some(text) => {
                let statement = self.connected.client.prepare(&text.sql).await?;
                Some(Arc::new(Plan { statement, params: text.params }))
            }
        };
        if self.plans.len() >= PLANS_MAX {
            self.plans.clear();
        }
        self.plans.insert(key, plan.clone());
        Ok(plan)
    }

    /// Which life of the server this is, and its unlogged tables.
    pub(crate) async fn life(&self) -> Result<(String, Vec<QualifiedName>), Error> {
        let life = self.client().query_one(LIFE, &[]).await?.try_get(0)?;
        let tables = self.client().query(UNLOGGED, &[]).await?;
        let named = |row: &Row| Ok(QualifiedName::new(row.try_get::<_, &str>(0)?, row.try_get::<_, &str>(1)?));
        Ok((life, tables.iter().map(named).collect::<Result<_, Error>>()?))
    }

    /// What the shadow says that it holds, by all lanes' rows.
    pub(crate) async fn stored(&self, stream: &str) -> Result<Option<Stored>, Error> {
        let sql = "SELECT below, above, log, source, coalesce((SELECT mark FROM pgshadow.life l WHERE l.stream = a.stream), 0)
            FROM pgshadow.applied a WHERE stream = $1";
        let mut all: Option<Stored> = None;
        for row in self.client().query(sql, &[&stream]).await? {
            let (below, above): (i64, Vec<i64>) = (row.try_get(0)?, row.try_get(1)?);
            let (pairs, _) = above.as_chunks::<2>();
            let above = pairs.iter().map(|[from, to]| from.cast_unsigned()..to.cast_unsigned()).collect();
            let position = AppliedPosition { below: below.cast_unsigned(), above };
            let mark: i64 = row.try_get(4)?;
            let mark = mark.cast_unsigned();
            let stored = Stored { position, identity: row.try_get(2)?, source: row.try_get(3)?, mark };
            all = Some(match all {
                None => stored,
                Some(all) => all.with(stored, &self.log.identity),
            });
        }
        Ok(all)
    }

    /// Gives the shadow a mark that no older state of it has, nor one that had `known`.
    pub(crate) async fn mark(&self, stream: &str, known: u64) -> Result<u64, Error> {
        let sql = "UPDATE pgshadow.life SET mark = greatest(mark, $2) + 1 WHERE stream = $1 RETURNING mark";
        let mark: i64 = self.client().query_one(sql, &[&stream, &known.cast_signed()]).await?.try_get(0)?;
        Ok(mark.cast_unsigned())
    }

    /// Writes the position that all lanes' rows make together in place of them.
    pub(crate) async fn join_positions(&self, stream: &str, position: &AppliedPosition) -> Result<(), Error> {
        self.client().batch_execute("BEGIN").await?;
        let sql = "DELETE FROM pgshadow.applied WHERE stream = $1 AND lane <> $2";
        self.client().execute(sql, &[&stream, &self.lane]).await?;
        self.write_position(stream, position).await?;
        Ok(self.client().batch_execute("COMMIT").await?)
    }

    /// How many rows make up the position.
    pub(crate) async fn count_positions(&self, stream: &str) -> Result<i64, Error> {
        let sql = "SELECT pg_catalog.count(*) FROM pgshadow.applied WHERE stream = $1";
        Ok(self.client().query_one(sql, &[&stream]).await?.try_get(0)?)
    }

    /// Drops all that is remembered of entries by numbers that aren't this log's.
    pub(crate) async fn forget_numbers(&self, stream: &str) -> Result<(), Error> {
        self.client().execute("DELETE FROM pgshadow.started WHERE stream = $1", &[&stream]).await?;
        self.client().execute("DELETE FROM pgshadow.heal WHERE stream = $1", &[&stream]).await?;
        Ok(())
    }

    /// Drops the marks of statements whose entries are applied.
    pub(crate) async fn forget_started(&self, stream: &str, below: u64) -> Result<(), Error> {
        let sql = "DELETE FROM pgshadow.started WHERE stream = $1 AND sequence < $2";
        self.client().execute(sql, &[&stream, &below.cast_signed()]).await?;
        Ok(())
    }

    /// Writes the position, in the transaction that is open.
    pub(crate) async fn write_position(&self, stream: &str, position: &AppliedPosition) -> Result<(), Error> {
        let above: Vec<i64> =
            position.above.iter().flat_map(|r| [r.start.cast_signed(), r.end.cast_signed()]).collect();
        let (below, LogExtent { identity, source, .. }) = (position.below.cast_signed(), &self.log);
        let values: [&(dyn ToSql + Sync); 6] = [&stream, &self.lane, identity, source, &below, &above];
        self.client().execute(&self.write_position, &values).await?;
        Ok(())
    }
}

async fn settle_settings(client: &Client, config: &Config) -> Result<(), Error> {
    client.batch_execute(SETTINGS).await?;
    client.batch_execute(&format!("SET lock_timeout = {}", config.lock_timeout.as_millis())).await?;
    Ok(())
}
