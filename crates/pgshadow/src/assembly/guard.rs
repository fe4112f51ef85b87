//! Definitions that clients change through pgshadow, before they take their lock: whom they would keep from a table, and for how long.
//!
//! Lock × size × oldest transaction. A lock that nobody can share is harmless while it is there for a moment: it does harm where it has
//! to wait (all that comes later waits behind it) and where it is held for as long as a large table takes.
use super::mirror::Mirror;
use super::primary::{Connection, Unanswered, answered, connect};
use crate::config::{Ddl, DdlGuard};
use bytesize::ByteSize;
use pgshadow_capture::{ALLOW, Journal as _, Locks, Question, Verdict};
use pgshadow_sql::{LockMode, TableLock};
use pgshadow_telemetry::Counter;
use pgshadow_wire::error;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_postgres::Statement;

/// What the client waits for an answer at most.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// What the size of a table that somebody holds is waited for, milliseconds.
const SIZE_MAX_MS: u32 = 100;

/// The relations meant, their sizes by the catalog, and who is in the way of the lock. Takes no lock on them itself.
const LOOK: &str = "
WITH RECURSIVE wanted AS (
  SELECT * FROM unnest($1::text[], $2::text[], $3::bool[], $4::text[], $7::bool[]) WITH ORDINALITY AS w (schema, name, of_index, mode, children, n)),
found AS (
  SELECT w.n, w.mode, w.children, coalesce(CASE WHEN w.of_index THEN (SELECT i.indrelid FROM pg_index i WHERE i.indexrelid = r.oid) END, r.oid) AS oid
  FROM wanted w CROSS JOIN LATERAL (
    SELECT c.oid FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
    WHERE c.relname = w.name AND CASE WHEN w.schema = '' THEN s.nspname::text = ANY ($5) ELSE s.nspname = w.schema END
    ORDER BY array_position($5, s.nspname::text) LIMIT 1) r),
tree (n, mode, children, oid) AS (
  SELECT n, mode, children, oid FROM found
  UNION SELECT t.n, t.mode, t.children, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid WHERE t.children),
others AS (
  SELECT t.n, l.pid, bool_or(l.granted) AS has, max(coalesce(a.xact_start, p.prepared)) AS since,
    max(CASE WHEN l.pid IS NULL THEN concat('prepared transaction ', p.gid)
      ELSE concat_ws(' ', 'pid', l.pid, a.usename, nullif(a.application_name, ''), a.state, left(a.query, 60)) END) AS who
  FROM tree t JOIN pg_locks l ON l.locktype = 'relation' AND l.relation = t.oid
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
    AND l.mode = ANY (CASE t.mode
      WHEN 'SHARE' THEN ARRAY['RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock']
      WHEN 'SHARE ROW EXCLUSIVE' THEN ARRAY['RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
        'AccessExclusiveLock']
      WHEN 'EXCLUSIVE' THEN ARRAY['RowShareLock', 'RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
        'AccessExclusiveLock']
      ELSE ARRAY['AccessShareLock', 'RowShareLock', 'RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
        'AccessExclusiveLock'] END)
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN pg_locks x ON l.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction
  LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
  -- what gives way by itself isn't waited for: autovacuum, unless it must, and pgshadow's own reading
  WHERE l.pid IS DISTINCT FROM $6
    -- who has the lock already waits for nobody
    AND NOT EXISTS (SELECT FROM pg_locks h WHERE h.pid = $6 AND h.granted AND h.locktype = 'relation' AND h.relation = t.oid
      AND (h.mode = 'AccessExclusiveLock' OR h.mode = replace(initcap(t.mode), ' ', '') || 'Lock'))
    AND NOT coalesce(a.usename = CURRENT_USER AND a.application_name LIKE 'pgshadow%', false)
    AND NOT coalesce(a.backend_type = 'autovacuum worker' AND a.query NOT LIKE '%to prevent wraparound%', false)
  GROUP BY t.n, l.pid, l.virtualtransaction)
SELECT f.n, concat(quote_ident(s.nspname), '.', quote_ident(c.relname)),
  (SELECT coalesce(sum(greatest(m.relpages, 0)::int8), 0)::int8 FROM tree t JOIN pg_class m ON m.oid = t.oid WHERE t.n = f.n)
    * current_setting('block_size')::int8,
  ARRAY(SELECT t.oid FROM tree t WHERE t.n = f.n),
  (SELECT o.who FROM others o WHERE o.n = f.n ORDER BY o.since LIMIT 1),
  (SELECT extract(epoch FROM clock_timestamp() - min(o.since))::float8 FROM others o WHERE o.n = f.n),
  (SELECT count(*) FROM others o WHERE o.n = f.n)
FROM found f JOIN pg_class c ON c.oid = f.oid JOIN pg_namespace s ON s.oid = c.relnamespace ORDER BY f.n";

/// How large they really are; this waits where somebody has one for himself.
const SIZE: &str = "SELECT coalesce(sum(pg_table_size(t.oid)), 0)::int8 FROM unnest($1::oid[]) t (oid)";

/// What the capture of sessions is to do about definitions.
pub(super) fn of(ddl: &Ddl) -> pgshadow_capture::Guard {
    pgshadow_capture::Guard { judges: ddl.guard != DdlGuard::Off, lock_timeout: ddl.lock_timeout }
}

/// Judges by what the primary says.
#[derive(Debug)]
pub(super) struct Guard {
    primary: tokio_postgres::Config,
    ddl: Ddl,
    mirror: Weak<Mirror>,
    connection: Arc<Mutex<Option<Asks>>>,
}

/// A connection that asks; what it asks is planned once.
#[derive(Debug)]
struct Asks {
    client: Connection,
    look: Statement,
}

/// What is known of a relation that is to be locked.
#[derive(Debug, Clone, PartialEq)]
struct Looked {
    name: String,
    bytes: u64,
    others: i64,
    /// Who of them has been at it for longest, and for how long (seconds), where that can be seen.
    oldest: Option<(String, f64)>,
}

/// Why a statement would keep others waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Objection {
    sqlstate: &'static str,
    says: String,
    mend: String,
}

impl Guard {
    pub fn new(primary: tokio_postgres::Config, ddl: Ddl, mirror: Weak<Mirror>) -> Self {
        Self { primary, ddl, mirror, connection: Arc::default() }
    }

    /// Whether they may take their locks. What can't be found out is no objection.
    pub async fn judge(&self, mirror: &Mirror, question: Question) -> Verdict {
        let statements = question.statements.clone();
        let looked = tokio::time::timeout(ANSWER_MAX, self.look(mirror, &question)).await;
        let looked = match looked {
            Ok(Ok(looked)) => looked,
            failed => {
                let why = failed.map_or("the primary did not answer in time".to_owned(), |failed| {
                    failed.err().map(|error| error.to_string()).unwrap_or_default()
                });
                let command = statements.first().map(|one| one.command.as_str());
                tracing::warn!(command, why, "a definition could not be judged: it is run");
                return Verdict::Goes;
            }
        };
        let mut looked = looked.into_iter();
        let mut objections = Vec::new();
        for (statement, lock) in all(&statements) {
            if let Some(looked) = looked.next().flatten() {
                tracing::info!(
                    command = statement.command,
                    table = looked.name,
                    lock = lock.mode.sql(),
                    bytes = looked.bytes,
                    others = looked.others,
                    oldest_s = looked.oldest.as_ref().map(|(_, age)| *age),
                    "a definition is judged"
                );
                objections.extend(weigh(&self.ddl, &statement.command, lock, &looked));
            }
        }
        let Some(first) = objections.first() else { return Verdict::Goes };
        Counter::DdlObjections.increment();
        let refuses = self.ddl.guard == DdlGuard::Refuse;
        for objection in &objections {
            tracing::warn!(pid = question.pid, refuses, mend = objection.mend, "{}", objection.says);
        }
        if !refuses {
            return Verdict::Goes;
        }
        Counter::DdlRefused.increment();
        let says: Vec<&str> = objections.iter().map(|objection| objection.says.as_str()).collect();
        let message = format!("pgshadow has not run it: {}", says.join("; "));
        let hint = format!("{}. To have it run all the same, put /* {ALLOW} */ into its text.", first.mend);
        Verdict::Refused(error::refusal(first.sqlstate, &message, &hint))
    }

    /// Makes the connection that is kept. Whoever waits for it may give up: it is there for the next one.
    pub async fn connect(&self) -> Result<(), Unanswered> {
        let (Some(mirror), primary, slot) = (self.mirror.upgrade(), self.primary.clone(), Arc::clone(&self.connection))
        else {
            return Err(Unanswered::Timeout);
        };
        let work = tokio::spawn(async move {
            let mut kept = slot.lock().await;
            if kept.as_ref().is_none_or(|known| !is_of(known, &mirror)) {
                let client = connect(&primary, &mirror).await?;
                let settings = format!("SET search_path = pg_catalog, pg_temp; SET lock_timeout = {SIZE_MAX_MS}");
                answered(client.batch_execute(&settings)).await?;
                let look = answered(client.prepare(LOOK)).await?;
                *kept = Some(Asks { client, look });
            }
            Ok(())
        });
        work.await.map_err(|_| Unanswered::Timeout)?
    }

    /// What is known of each relation; `None`: there is none.
    async fn look(&self, mirror: &Mirror, question: &Question) -> Result<Vec<Option<Looked>>, Unanswered> {
        let mut kept = self.connection.lock().await;
        let asks = match kept.take().filter(|known| is_of(known, mirror)) {
            Some(asks) => asks,
            None => {
                drop(kept);
                self.connect().await?;
                kept = self.connection.lock().await;
                kept.take().ok_or(Unanswered::Timeout)?
            }
        };
        let locks: Vec<&TableLock> = all(&question.statements).map(|(_, lock)| lock).collect();
        let schemas: Vec<&str> = locks.iter().map(|l| l.relation.schema.as_deref().unwrap_or_default()).collect();
        let names: Vec<&str> = locks.iter().map(|lock| lock.relation.name.as_str()).collect();
        let of_index: Vec<bool> = locks.iter().map(|lock| lock.of_index).collect();
        let modes: Vec<&str> = locks.iter().map(|lock| lock.mode.sql()).collect();
        let children: Vec<bool> = locks.iter().map(|lock| lock.children).collect();
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&schemas, &names, &of_index, &modes, &question.schemas, &question.pid, &children];
        let client = &asks.client;
        let rows = answered(client.query(&asks.look, &parameters)).await?;
        let (mut all, mut measures) = (vec![None; locks.len()], true);
        for row in rows {
            let place = usize::try_from(row.try_get::<_, i64>(0)?).ok().and_then(|n| n.checked_sub(1));
            let Some((place, lock)) = place.and_then(|place| all.get_mut(place).zip(locks.get(place))) else {
                continue;
            };
            let mut bytes = row.try_get::<_, i64>(2)?.unsigned_abs();
            if lock.work.is_some() && measures {
                // one that was filled a moment ago has no size in the catalog yet
                let measured = answered(client.query_one(SIZE, &[&row.try_get::<_, Vec<u32>>(3)?])).await;
                // where somebody, perhaps the session itself, has one for himself the others aren't waited for as well
                measures = measured.is_ok();
                bytes = bytes.max(measured.map_or(Ok(0), |row| row.try_get::<_, i64>(0))?.unsigned_abs());
            }
            let oldest = row.try_get::<_, Option<String>>(4)?.zip(row.try_get(5)?);
            *place = Some(Looked { name: row.try_get(1)?, bytes, others: row.try_get(6)?, oldest });
        }
        *kept = Some(asks);
        Ok(all)
    }
}

/// Whether it can be used, and reaches the primary as it lives now.
fn is_of(known: &Asks, mirror: &Mirror) -> bool {
    !known.client.is_closed() && known.client.epoch == mirror.epoch()
}

fn all(statements: &[Locks]) -> impl Iterator<Item = (&Locks, &TableLock)> {
    statements.iter().flat_map(|statement| statement.locks.iter().map(move |lock| (statement, lock)))
}

/// What is against a lock.
fn weigh(ddl: &Ddl, command: &str, lock: &TableLock, looked: &Looked) -> Vec<Objection> {
    let (mode, table) = (lock.mode.sql(), &looked.name);
    let kept_off = match lock.mode {
        LockMode::AccessExclusive => "reads or writes",
        _ => "writes",
    };
    let mut objections = Vec::new();
    if let Some((who, age)) = looked.oldest.as_ref().filter(|(_, age)| *age >= ddl.oldest_transaction_max.as_secs_f64())
    {
        objections.push(Objection {
            sqlstate: "55P03",
            says: format!(
                "{command} would wait for its {mode} lock on {table} behind a transaction that is {age:.0} s old ({who}), and whatever {kept_off} \
                 {table} would wait behind it"
            ),
            mend: "Let that transaction end, and try again".to_owned(),
        });
    }
    if let Some(work) = lock.work.filter(|_| looked.bytes >= ddl.table_size_max_bytes) {
        objections.push(Objection {
            sqlstate: "55000",
            says: format!(
                "{command} {} {table} ({}) under a {mode} lock, and nobody {kept_off} it until that is done",
                work.what,
                ByteSize(looked.bytes)
            ),
            mend: format!("Instead: {}", work.instead),
        });
    }
    objections
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgshadow_sql::parse;

    fn weighed(text: &str, bytes: u64, age: Option<f64>) -> Vec<String> {
        let ddl = Ddl {
            guard: DdlGuard::Log,
            lock_timeout: None,
            oldest_transaction_max: Duration::from_secs(5),
            table_size_max_bytes: 1 << 30,
        };
        let locks = parse(text).expect("SQL").statements.remove(0).locks;
        let oldest = age.map(|age| ("pid 7".to_owned(), age));
        let looked = Looked { name: "public.t".into(), bytes, others: i64::from(age.is_some()), oldest };
        weigh(&ddl, "X", locks.first().expect("a lock"), &looked).into_iter().map(|objection| objection.says).collect()
    }

    #[test]
    fn lock_size_and_age_are_weighed() {
        let (small, large) = (1 << 20, 1 << 31);
        assert!(weighed("ALTER TABLE t ADD COLUMN a int", large, Some(4.9)).is_empty());
        assert!(weighed("ALTER TABLE t ALTER a TYPE bigint", small, None).is_empty());
        let waits = "X would wait for its ACCESS EXCLUSIVE lock on public.t behind a transaction that is 12 s old (pid 7), \
            and whatever reads or writes public.t would wait behind it";
        assert_eq!(weighed("ALTER TABLE t ADD COLUMN a int", small, Some(12.0)), [waits]);
        let makes = "X makes an index over all rows of public.t (2.0 GiB) under a SHARE lock, and nobody writes it until that is done";
        assert_eq!(weighed("CREATE INDEX ON t (a)", large, None), [makes]);
        let both = weighed("ALTER TABLE t ALTER a TYPE bigint", large, Some(60.0));
        assert!(
            both.len() == 2 && both.iter().any(|says| says.starts_with("X writes anew all rows of public.t")),
            "{both:?}"
        );
    }
}
