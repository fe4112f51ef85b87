//! A primary, a shadow, a book, an applier between them, and sessions that do what the proxy does.

use crate::cluster::{self, Cluster};
use bytes::Bytes;
use pgshadow_apply::{Applier, Config, Entry, Handle, Log, LogError, LogExtent, OrderBook, Payload, Plain};
use pgshadow_divergence::Store;
use pgshadow_model::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_postgres::{Client, types::FromSql, types::Type};

/// Changes of a part, where they are read part by part.
pub const PART: usize = 10;

pub struct Raw(pub Bytes);

impl FromSql<'_> for Raw {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Bytes::copy_from_slice(raw)))
    }
    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The mirror log, in memory: what was begun, and what it came to.
#[derive(Default)]
pub struct MemoryLog {
    next: Mutex<Sequence>,
    committed: Mutex<BTreeMap<Sequence, (Order, Vec<Change>)>>,
    begun: Mutex<Vec<Sequence>>,
    pub below: Mutex<Sequence>,
    pub reads: Mutex<u64>,
    /// How many were read that had been left.
    pub left: Mutex<u64>,
    pub extent: Mutex<LogExtent>,
    /// So many reads find that it isn't written yet.
    pub not_yet: Mutex<u64>,
}

impl Log for MemoryLog {
    fn read(&self, sequence: Sequence) -> Result<Vec<Change>, LogError> {
        let mut not_yet = self.not_yet.lock().unwrap();
        if *not_yet > 0 {
            *not_yet -= 1;
            return Err(LogError::NotYet);
        }
        *self.reads.lock().unwrap() += 1;
        let committed = self.committed.lock().unwrap();
        committed.get(&sequence).map(|(_, c)| c.clone()).ok_or_else(|| "not in the log".to_owned().into())
    }
    fn read_left(
        &self,
        outcome: Sequence,
        _gate: Option<Lsn>,
        wanted: &dyn Fn(Sequence) -> bool,
    ) -> Result<Option<Entry>, LogError> {
        // here an outcome has its intent's number
        let committed = self.committed.lock().unwrap();
        let (order, changes) = committed.get(&outcome).cloned().ok_or_else(|| LogError::from("gone".to_owned()))?;
        *self.left.lock().unwrap() += 1;
        let (sequence, changes) = (outcome, Payload::memory(changes));
        Ok(wanted(sequence).then_some(Entry { sequence, order, changes, flush_gate: None, reply_number: sequence }))
    }
    fn read_part(&self, sequence: Sequence, part: usize) -> Result<Option<Vec<Change>>, LogError> {
        let all = self.read(sequence)?;
        Ok(all.chunks(PART).nth(part).map(<[Change]>::to_vec))
    }
    fn extent(&self) -> LogExtent {
        self.extent.lock().unwrap().clone()
    }
    fn let_go(&self, _: Sequence) {}
    fn applied(&self, below: Sequence) {
        let mut old = self.below.lock().unwrap();
        assert!(*old <= below, "the position went back");
        *old = below;
    }

    fn marked(&self, _: u64) {}
}

impl MemoryLog {
    /// A number, begun in the book before the next one is given.
    fn begin(&self, book: &OrderBook) -> Sequence {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        book.begin(*next).unwrap();
        self.begun.lock().unwrap().push(*next);
        *next
    }

    /// The book as it is after a restart: everything again from the log.
    pub fn replay(&self, memory: usize) -> Arc<OrderBook> {
        let book = OrderBook::new(memory);
        book.set_epoch(Epoch(1));
        for sequence in self.begun.lock().unwrap().iter().copied() {
            book.begin(sequence).unwrap();
            let entry = self.committed.lock().unwrap().get(&sequence).map(|(order, changes)| Entry {
                sequence,
                order: *order,
                changes: Payload::memory(changes.clone()),
                flush_gate: None,
                reply_number: sequence,
            });
            book.settle(sequence, book.barrier(), entry);
        }
        Arc::new(book)
    }
}

pub struct Rig {
    pub primary: Cluster,
    pub shadow: Cluster,
    pub on_primary: Client,
    pub book: Arc<OrderBook>,
    pub log: Arc<MemoryLog>,
    pub store: Arc<Store>,
    pub handle: Option<Handle>,
    pub dir: tempfile::TempDir,
    pub memory: usize,
    pub user: &'static str,
    pub lock_timeout: Duration,
    /// The flush gate of what is committed from now on; 0 for none.
    pub gate: Arc<AtomicU64>,
}

impl Rig {
    /// Both databases with this schema; no applier yet.
    pub async fn new(schema: &str) -> Self {
        let (primary, shadow) = tokio::task::spawn_blocking(cluster::pair).await.unwrap();
        let on_primary = primary.client().await;
        on_primary.batch_execute(schema).await.unwrap();
        // Another OID for every type of the user's.
        let on_shadow = shadow.client().await;
        on_shadow.batch_execute("CREATE TYPE pad1 AS ENUM ('a'); CREATE TABLE pad2 (); DROP TABLE pad2").await.unwrap();
        on_shadow.batch_execute(schema).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path().join("findings.redb")).unwrap());
        let log = Arc::new(MemoryLog::default());
        let memory = 64 << 20;
        let book = log.replay(memory);
        Self {
            primary,
            shadow,
            on_primary,
            book,
            log,
            store,
            handle: None,
            dir,
            memory,
            user: "postgres",
            lock_timeout: Duration::from_secs(2),
            gate: Arc::default(),
        }
    }

    pub fn trace_path(&self) -> std::path::PathBuf {
        self.dir.path().join("trace")
    }

    pub fn start(&mut self) {
        let mut shadow = self.shadow.config();
        shadow.user(self.user);
        let mut config = Config::new(shadow, self.primary.config(), "source-target");
        config.trace = Some(self.trace_path());
        config.heal_retry = Duration::from_millis(200);
        config.fence_wait_max = Duration::from_secs(3);
        config.connect_timeout = Duration::from_secs(2);
        config.lock_timeout = self.lock_timeout;
        config.backoff_max = Duration::from_millis(500);
        let (book, log, store) = (Arc::clone(&self.book), Arc::clone(&self.log), Arc::clone(&self.store));
        let suspects = Arc::clone(&self.store);
        self.handle = Some(Applier::spawn(config, Arc::new(Plain), book, log, store, suspects));
    }

    /// Ends the applier and starts it again with a book from the log, as after a crash of the process.
    pub async fn restart(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.stop().await;
        }
        self.log.extent.lock().unwrap().last = *self.log.next.lock().unwrap();
        self.book = self.log.replay(self.memory);
        self.start();
    }

    pub async fn drained(&self) {
        let done = async {
            let mark = self.book.barrier();
            self.book.wait_applied(mark).await;
            self.handle.as_ref().unwrap().healed(mark).await;
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), done).await;
        assert!(waited.is_ok(), "not drained: {:?} {:?}", self.book.lag(), self.handle.as_ref().unwrap().status());
    }

    pub async fn session(&self) -> Session {
        let (book, log, gate) = (Arc::clone(&self.book), Arc::clone(&self.log), Arc::clone(&self.gate));
        Session { client: self.primary.client().await, book, log, gate }
    }

    /// Both sides' rows of a table as text, sorted.
    pub async fn rows(&self, table: &str) -> (Vec<String>, Vec<String>) {
        (rows(&self.on_primary, table).await, rows(&self.shadow.client().await, table).await)
    }

    pub async fn assert_equal(&self, tables: &[&str]) {
        for table in tables {
            let (primary, shadow) = self.rows(table).await;
            assert!(primary == shadow, "{table}\n primary {primary:#?}\n shadow {shadow:#?}");
        }
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.store.list().unwrap()
    }

    pub fn suspects(&self) -> Vec<String> {
        let all = self.store.suspects().unwrap();
        all.into_iter().map(|s| format!("{}: {}", s.table.map_or("*".into(), |t| t.to_string()), s.reason)).collect()
    }
}

async fn rows(client: &Client, table: &str) -> Vec<String> {
    let sql = format!("SELECT whole::text FROM {table} whole ORDER BY whole::text COLLATE \"C\"");
    client.batch_execute("SET TimeZone = 'UTC'; SET extra_float_digits = 1").await.unwrap();
    client.query(&sql, &[]).await.unwrap().iter().map(|r| r.get(0)).collect()
}

/// A client's session, seen through a proxy.
pub struct Session {
    pub client: Client,
    pub book: Arc<OrderBook>,
    pub log: Arc<MemoryLog>,
    pub gate: Arc<AtomicU64>,
}

/// A statement with what it does: `old`: the key before, if the statement changes it.
pub struct Write<'a> {
    pub relation: &'a Arc<Relation>,
    pub operation: Operation,
    pub sql: String,
    pub old_key: Option<Values>,
}

pub fn write<'a>(relation: &'a Arc<Relation>, operation: Operation, sql: impl Into<String>) -> Write<'a> {
    Write { relation, operation, sql: sql.into(), old_key: None }
}

type Failed = tokio_postgres::Error;

impl Session {
    async fn returning(&self, w: &Write<'_>) -> Result<(Vec<Change>, Option<Order>), Failed> {
        let columns: Vec<_> = w.relation.columns.iter().map(|c| format!("\"{}\"", c.name)).collect();
        let sql = format!(
            "{} RETURNING {}, pg_catalog.pg_current_xact_id()::text, pg_catalog.pg_current_wal_insert_lsn()::text",
            w.sql,
            columns.join(", ")
        );
        let (mut changes, mut last) = (Vec::new(), None);
        for row in self.client.query(&sql, &[]).await? {
            let n = columns.len();
            let values = (0..n).map(|i| row.get::<_, Option<Raw>>(i).map(|r| r.0)).collect();
            let (relation, operation) = (Arc::clone(w.relation), w.operation);
            changes.push(Change::Row(RowImage { relation, operation, values, old_key: w.old_key.clone() }));
            let order = order(row.get(n), row.get(n + 1));
            last = last.max(Some(order));
        }
        Ok((changes, last))
    }

    /// One statement by itself: its RETURNING token, its barrier at its reply.
    pub async fn autocommit(&self, w: &Write<'_>) -> Result<(), Failed> {
        let sequence = self.log.begin(&self.book);
        let outcome = self.returning(w).await;
        let barrier = self.book.barrier();
        self.settle(sequence, barrier, outcome)
    }

    /// An intent that comes to nothing.
    pub fn rolled_back(&self) {
        let sequence = self.log.begin(&self.book);
        self.book.settle(sequence, self.book.barrier(), None);
    }

    /// As `autocommit`, but the proxy comes to read the reply only after a while.
    pub async fn autocommit_read_late(&self, w: &Write<'_>, late: std::time::Duration) -> Result<(), Failed> {
        let sequence = self.log.begin(&self.book);
        let outcome = self.returning(w).await;
        tokio::time::sleep(late).await;
        self.settle(sequence, self.book.barrier(), outcome)
    }

    /// A transaction with an end token.
    pub async fn transaction(&self, writes: &[Write<'_>]) -> Result<(), Failed> {
        let statements = async {
            let mut all = Vec::new();
            for w in writes {
                all.extend(self.returning(w).await?.0);
            }
            Ok(all)
        };
        self.commit(statements).await
    }

    /// A statement that is mirrored as it is: DDL, TRUNCATE, COPY.
    pub async fn statement(&self, sql: &str, change: Change) -> Result<(), Failed> {
        self.commit(async { self.client.batch_execute(sql).await.map(|()| vec![change]) }).await
    }

    async fn commit(&self, work: impl Future<Output = Result<Vec<Change>, Failed>>) -> Result<(), Failed> {
        self.client.batch_execute("BEGIN").await?;
        let end =
            "SELECT pg_catalog.pg_current_xact_id_if_assigned()::text, pg_catalog.pg_current_wal_insert_lsn()::text";
        let changes = match work.await {
            Ok(changes) => changes,
            Err(e) => {
                self.client.batch_execute("ROLLBACK").await?;
                return Err(e);
            }
        };
        self.client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
        let row = self.client.query_one(end, &[]).await?;
        let barrier = self.book.barrier();
        let order = row.get::<_, Option<String>>(0).map(|xid| order(xid, row.get(1)));
        let sequence = self.log.begin(&self.book);
        let outcome = self.client.batch_execute("COMMIT").await.map(|()| (changes, order));
        self.settle(sequence, barrier, outcome)
    }

    fn settle(
        &self,
        sequence: Sequence,
        barrier: Sequence,
        outcome: Result<(Vec<Change>, Option<Order>), Failed>,
    ) -> Result<(), Failed> {
        let entry = match &outcome {
            Ok((changes, Some(order))) => {
                self.log.committed.lock().unwrap().insert(sequence, (*order, changes.clone()));
                let changes = Payload::memory(changes.clone());
                let gate = self.gate.load(Ordering::SeqCst);
                let flush_gate = (gate > 0).then_some(Lsn(gate));
                Some(Entry { sequence, order: *order, changes, flush_gate, reply_number: sequence })
            }
            _ => None,
        };
        self.book.settle(sequence, barrier, entry);
        outcome.map(|_| ())
    }
}

fn order(xid: String, token: String) -> Order {
    Order { epoch: Epoch(1), token: token.parse().unwrap(), xid: Xid(xid.parse().unwrap()) }
}

/// What the catalog says of a table.
pub async fn relation(client: &Client, table: &str) -> Arc<Relation> {
    let sql = "SELECT c.oid::int8, c.relkind::text, a.attnum, a.attname::text, t.oid::int8, tn.nspname::text, t.typname::text,
        a.attgenerated <> '', a.attidentity = 'a', e.oid::int8, en.nspname::text, e.typname::text,
        exists (select 1 from pg_constraint k where k.contype = 'f' and (k.conrelid = c.oid or k.confrelid = c.oid))
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
        JOIN pg_namespace tn ON tn.oid = t.typnamespace
        LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typlen = -1 AND t.typname LIKE '\\_%'
        LEFT JOIN pg_namespace en ON en.oid = e.typnamespace
        WHERE c.oid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let rows = client.query(sql, &[&table]).await.unwrap();
    let oid = |v: i64| u32::try_from(v).unwrap();
    let mut positions = BTreeMap::new();
    let mut columns = Vec::new();
    for row in &rows {
        positions.insert(row.get::<_, i16>(2), u16::try_from(columns.len()).unwrap());
        let name = |i| QualifiedName::new(row.get::<_, String>(i), row.get::<_, String>(i + 1));
        let shape = match row.get::<_, Option<i64>>(9) {
            Some(e) => Shape::Array(Box::new(ColumnType { oid: oid(e), name: name(10), shape: Shape::Plain })),
            None => Shape::Plain,
        };
        let column_type = ColumnType { oid: oid(row.get(4)), name: name(5), shape };
        let (generated, identity_always) = (row.get(7), row.get(8));
        columns.push(Column { name: row.get(3), column_type, not_null: false, generated, identity_always });
    }
    let keys = "SELECT conkey, contype::text FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype IN ('p', 'u') ORDER BY contype";
    let (mut key, mut unique_keys) = (Vec::new(), Vec::new());
    for row in client.query(keys, &[&table]).await.unwrap() {
        let columns: Vec<u16> = row.get::<_, Vec<i16>>(0).iter().map(|n| positions[n]).collect();
        if row.get::<_, String>(1) == "p" { key = columns } else { unique_keys.push(columns) }
    }
    let first = &rows[0];
    let kind = if first.get::<_, String>(1) == "p" { RelationKind::Partitioned } else { RelationKind::Table };
    let (name, coarse) = (QualifiedName::new("public", table), first.get(12));
    Arc::new(Relation { oid: oid(first.get(0)), name, kind, columns, key, unique_keys, foreign_keys: vec![], coarse })
}

pub fn settings() -> SessionSettings {
    SessionSettings {
        role: "postgres".into(),
        search_path: "\"$user\", public".into(),
        others: vec![("DateStyle".into(), "German, DMY".into()), ("client_encoding".into(), "LATIN1".into())],
    }
}
