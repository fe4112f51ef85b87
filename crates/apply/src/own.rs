//! Running the client's own SQL: with its settings, its role and its parameters as it bound them.

use crate::raw::{Raw, RawOwned};
use bytes::BytesMut;
use futures::{TryStreamExt, pin_mut};
use pgshadow_model::{Finding, Kind, Parameter, RowsHash, SessionSettings, Statement, hash_text, quote};
use postgres_types::{Format, IsNull, ToSql, Type, to_sql_checked};
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::{Duration, Instant};
use tokio_postgres::{Client, SimpleQueryMessage};

/// Prepared statements kept by a connection; above it the list starts again.
const KEPT_MAX: usize = 500;
/// Statements whose pace is kept.
const PACES_MAX: usize = 5_000;
/// The same finding is written at most so often; the occurrences between are counted.
const AGAIN: Duration = Duration::from_secs(1);

/// Back to what the texts of values depend on, as pgshadow's own role. The last value is the moment.
pub(crate) const RESET: &str = "SET LOCAL ROLE NONE; SET LOCAL statement_timeout = 0; SET LOCAL row_security = off;
SET LOCAL search_path = pg_catalog; SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL TimeZone = 'UTC'; SET LOCAL IntervalStyle = 'postgres';
SELECT (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::int8";

/// The moment in the last row, in microseconds.
pub(crate) fn micros(messages: &[SimpleQueryMessage]) -> Option<u64> {
    let rows = messages.iter().filter_map(|m| if let SimpleQueryMessage::Row(row) = m { Some(row) } else { None });
    rows.last()?.get(0)?.parse().ok()
}

/// What a connection keeps to run clients' statements.
#[derive(Default)]
pub(crate) struct Kept {
    prepared: HashMap<(u64, u64), Own>,
    /// Roles that the shadow doesn't have, or doesn't allow.
    refused: HashSet<String>,
}

/// How a statement is begun.
pub(crate) struct Settled {
    pub(crate) begin: String,
    /// As pgshadow's own role, since the client's can't be taken on.
    pub(crate) run_as_self: bool,
}

/// How a statement is run.
#[derive(Clone)]
pub(crate) enum Own {
    /// As a query string.
    Simple,
    /// Prepared, with parameters.
    Prepared(tokio_postgres::Statement),
}

/// What it gave.
pub(crate) struct Ran {
    pub(crate) rows: u64,
    pub(crate) returned: Option<RowsHash>,
}

impl Kept {
    pub(crate) fn forget(&mut self) {
        self.prepared.clear();
        self.refused.clear();
    }

    /// A savepoint with the settings of the client's session; the last value is the moment.
    pub(crate) fn begin(&self, settings: &SessionSettings, limit_ms: u64, may_replica: bool) -> Settled {
        let run_as_self = settings.role.is_empty() || self.refused.contains(&settings.role);
        let mut begin = format!(
            "SAVEPOINT rehearsal; SET LOCAL statement_timeout = {limit_ms}; SET LOCAL lock_timeout = {limit_ms}; \
             SET LOCAL row_security = on; "
        );
        if may_replica {
            begin.push_str("SET LOCAL session_replication_role = origin; ");
        }
        let kept = settings.others.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("client_encoding"));
        let mut path = settings.search_path.clone();
        if run_as_self {
            path = path.replace("\"$user\"", &quote(&settings.role));
        }
        let all = kept.map(|(n, v)| (n.as_str(), v.as_str())).chain([("search_path", path.as_str())]);
        let set = all.map(|(n, v)| format!("pg_catalog.set_config({}, {}, true)", literal(n), literal(v)));
        let _ = write!(begin, "SELECT {}; ", set.collect::<Vec<_>>().join(", "));
        if !run_as_self {
            let _ = write!(begin, "SET LOCAL ROLE {}; ", quote(&settings.role));
        }
        begin.push_str("SELECT (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::int8");
        Settled { begin, run_as_self }
    }

    /// The role can't be taken on.
    pub(crate) fn refuse(&mut self, settings: &SessionSettings) {
        self.refused.insert(settings.role.clone());
    }

    pub(crate) fn known(&self, statement: &Statement) -> Option<Own> {
        match &statement.bound {
            None => Some(Own::Simple),
            Some(_) => self.prepared.get(&key(statement)).cloned(),
        }
    }

    pub(crate) fn remember(&mut self, statement: &Statement, own: Own) -> Own {
        if self.prepared.len() >= KEPT_MAX {
            self.prepared.clear();
        }
        self.prepared.insert(key(statement), own.clone());
        own
    }
}

fn key(statement: &Statement) -> (u64, u64) {
    let types = statement.bound.as_ref().map(|b| b.types.as_slice()).unwrap_or_default();
    let SessionSettings { role, search_path, .. } = &statement.settings;
    (hash_text(&statement.sql), hash_text(&format!("{role}\0{search_path}\0{types:?}")))
}

impl Own {
    pub(crate) async fn prepare(client: &Client, statement: &Statement) -> Result<Self, tokio_postgres::Error> {
        let Some(bound) = &statement.bound else { return Ok(Self::Simple) };
        let types: Vec<Type> = bound.types.iter().map(|oid| Type::from_oid(*oid).unwrap_or(Type::UNKNOWN)).collect();
        Ok(Self::Prepared(client.prepare_typed(&statement.sql, &types).await?))
    }

    /// Runs it. The message is on its way once this was polled first.
    pub(crate) async fn run(&self, client: &Client, statement: &Statement) -> Result<Ran, tokio_postgres::Error> {
        let (prepared, bound) = match (self, &statement.bound) {
            (Self::Prepared(prepared), Some(bound)) => (prepared, bound),
            _ => return run_simple(client, &statement.sql).await,
        };
        let values = bound.parameters.iter().map(AsBound);
        let stream = client.query_raw(prepared, values).await?;
        pin_mut!(stream);
        let (mut hash, mut any) = (RowsHash::default(), false);
        while let Some(row) = stream.try_next().await? {
            any = true;
            for n in 0..row.len() {
                let value: Option<RawOwned> = row.try_get(n)?;
                hash.field(value.as_ref().map(|v| &v.0[..]));
            }
            hash.end_row();
        }
        // what holds OIDs of the server's own can't be compared
        let same = prepared.columns().iter().all(|c| is_same_in_binary(c.type_()));
        Ok(Ran { rows: stream.rows_affected().unwrap_or(0), returned: (any && same).then_some(hash) })
    }
}

async fn run_simple(client: &Client, sql: &str) -> Result<Ran, tokio_postgres::Error> {
    let (mut rows, mut hash, mut any, mut same) = (0, RowsHash::default(), false, true);
    for message in client.simple_query(sql).await? {
        match message {
            SimpleQueryMessage::Row(row) => {
                any = true;
                for n in 0..row.len() {
                    // text of floats and bytea depends on settings that aren't known
                    same &= row.get(n).is_none_or(is_same_in_text);
                    hash.field(row.get(n).map(str::as_bytes));
                }
                hash.end_row();
            }
            SimpleQueryMessage::CommandComplete(count) => rows = count,
            _ => {}
        }
    }
    Ok(Ran { rows, returned: (any && same).then_some(hash) })
}

/// Whether a text can't be that of a value whose text depends on settings: floats with many digits or exponents, bytea.
fn is_same_in_text(text: &str) -> bool {
    !(text.contains("\\x") || text.contains('\\') || text.contains('.') || text.contains("e+") || text.contains("e-"))
}

/// Whether the binary form holds nothing of the server's own.
fn is_same_in_binary(of: &Type) -> bool {
    const RECORD: u32 = 2249;
    of.oid() < 16384 && of.oid() != RECORD
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A parameter as the client bound it.
#[derive(Debug)]
struct AsBound<'a>(&'a Parameter);

impl ToSql for AsBound<'_> {
    fn to_sql(&self, to: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (&self.0.value, self.0.binary) {
            (None, _) => Ok(IsNull::Yes),
            (Some(value), true) => Raw(Some(value.clone())).to_sql(to, out),
            (Some(value), false) => {
                out.extend_from_slice(value);
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        if self.0.binary { Format::Binary } else { Format::Text }
    }

    to_sql_checked!();
}

/// What all lanes remember of statements that ran.
#[derive(Default)]
pub(crate) struct Rehearsals(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    paces: HashMap<u64, pgshadow_compare::Pace>,
    latencies: pgshadow_compare::Latencies,
    /// Findings by fingerprint: when it was last written, and occurrences since.
    written: HashMap<String, (Instant, u64)>,
}

impl Rehearsals {
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the primary's and the shadow's time of one run; both, if the shadow is slower for certain.
    pub(crate) fn pace(&self, shape: u64, (primary, shadow): (u64, u64)) -> Option<(u64, u64)> {
        let mut remembered = self.lock();
        if remembered.paces.len() >= PACES_MAX {
            remembered.paces.clear();
        }
        remembered.paces.entry(shape).or_default().add(primary, shadow)
    }

    /// Takes in the times of one run that did on both sides what it does.
    pub(crate) fn took(&self, (primary, shadow): (u64, u64)) {
        self.lock().latencies.add(std::time::Instant::now(), primary, shadow);
    }

    /// What the last runs took on both sides.
    pub(crate) fn p99(&self) -> pgshadow_compare::P99 {
        let latencies = self.lock().latencies.clone();
        latencies.p99(std::time::Instant::now())
    }

    /// A finding as it is to be written now, with the occurrences that it stands for. Those about statements are written at
    /// most once in a while: `None`, not now.
    pub(crate) fn due(&self, mut finding: Finding) -> Option<Finding> {
        if matches!(finding.kind, Kind::Statement | Kind::Latency) {
            finding.count = self.occurrences(&finding.fingerprint)?;
        }
        Some(finding)
    }

    fn occurrences(&self, fingerprint: &str) -> Option<u64> {
        let mut remembered = self.lock();
        if remembered.written.len() >= PACES_MAX {
            remembered.written.clear();
        }
        match remembered.written.get_mut(fingerprint) {
            Some((last, since)) if last.elapsed() < AGAIN => {
                *since += 1;
                None
            }
            Some((last, since)) => {
                *last = Instant::now();
                Some(std::mem::take(since) + 1)
            }
            None => {
                remembered.written.insert(fingerprint.to_owned(), (Instant::now(), 0));
                Some(1)
            }
        }
    }
}
