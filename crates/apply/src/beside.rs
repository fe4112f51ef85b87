//! Beside the lanes: indexes that are built or dropped concurrently, on a connection of their own, for as long as they take.
//! Lanes go on with rows meanwhile, those of the same table too; only other definitions of the table wait.

use crate::common::Common;
use crate::entry::Loaded;
use crate::failure::{Class, classify, shadow_error};
use crate::lane::Lane;
use crate::lock::Life;
use crate::report::{Report, Reports};
use crate::session::Session;
use crate::statement::{run_alone, statement_finding};
use crate::{Error, LogExtent};
use pgshadow_compare::ShadowError;
use pgshadow_model::{Change, DdlStatement, Sequence, quote};
use pgshadow_sql::StatementKind;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Attempts at a statement that the shadow refuses, before it is a finding.
const ATTEMPTS_MAX: u32 = 5;
/// How long a statement waits for what comes before it and no lane has yet.
const LOWER_WITHIN: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// What runs beside the lanes.
pub(crate) struct Beside {
    /// It takes no batches; what it has in hand is one entry.
    lane: Lane,
    pid: Option<i32>,
}

/// An index of the shadow.
struct Index {
    oid: i64,
    name: String,
    valid: bool,
}

impl Beside {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        Self { lane: Lane::new(common), pid: None }
    }

    /// Keeps what is in hand only if that is still to be done.
    pub(crate) fn keep(&mut self, is_left: impl Fn(Sequence) -> bool) {
        self.lane.take_over([], |sequence| !is_left(sequence));
    }

    /// Works for one life of the lanes. Its own connection may come and go.
    pub(crate) async fn serve(&mut self, life: Life) -> Result<Infallible, Error> {
        let common = Arc::clone(&self.lane.common);
        let mut pause = PAUSE_MIN;
        loop {
            if !self.lane.has_entries() {
                match common.book.take_beside() {
                    Some(entry) => self.lane.take(vec![entry]),
                    None => {
                        common.book.wait_for_work_beside().await;
                        continue;
                    }
                }
            }
            match self.work(life).await {
                Ok(()) => pause = PAUSE_MIN,
                Err(error) => {
                    tracing::warn!(%error, "a statement beside the lanes was interrupted; it is tried again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(common.config.backoff_max);
                }
            }
        }
    }

    async fn work(&mut self, life: Life) -> Result<(), Error> {
        self.lane.load().await?;
        let common = Arc::clone(&self.lane.common);
        let number = i32::try_from(common.config.lanes).unwrap_or(i32::MAX);
        let log: LogExtent = common.log.extent();
        let mut session = Session::follow(&*common.dial, &common.config, log, life, number).await?;
        if let Some(before) = self.pid.replace(session.pid) {
            end(&session, before).await?;
        }
        common.remember_pids([session.pid]);
        while let Some(entry) = self.lane.in_hand.first().cloned() {
            self.lane.run_beside(&mut session, &entry).await?;
            self.lane.in_hand.retain(|e| e.sequence != entry.sequence);
        }
        Ok(())
    }
}

/// Ends an earlier connection, which may still be at it.
async fn end(session: &Session, pid: i32) -> Result<(), Error> {
    let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
               WHERE pid = $1 AND application_name = 'pgshadow apply'";
    while session.client().execute(sql, &[&pid]).await? > 0 {
        tokio::time::sleep(PAUSE_MIN).await;
    }
    Ok(())
}

impl Lane {
    /// Runs an entry's statement until it is done, or refused for good.
    async fn run_beside(&mut self, session: &mut Session, entry: &Loaded) -> Result<(), Error> {
        let [change @ Change::Ddl(ddl)] = entry.changes.as_slice() else {
            return self.finish_beside(session, entry, Reports::default()).await;
        };
        // An index that has become unique may refuse what other rows still have to make room for.
        self.book.wait_for_lower(entry.sequence, LOWER_WITHIN).await;
        let mut attempt = 1;
        let refusal = loop {
            let error = match self.build(session, entry, ddl).await {
                Ok(()) => break None,
                Err(error) => error,
            };
            match classify(&error) {
                Class::Lost => return Err(error),
                Class::Row if attempt >= ATTEMPTS_MAX => break Some(shadow_error(&error)),
                Class::Row => attempt += 1,
                Class::Again => {}
            }
            tracing::info!(%error, sql = ddl.sql, "a statement beside the lanes failed; it is tried again");
            tokio::time::sleep(PAUSE_MIN * 2_u32.pow(attempt)).await;
        };
        let mut reports = Reports::default();
        if let Some(error) = refusal {
            let before = self.started(session, entry, ddl).await?;
            clear(session, ddl, &before.unwrap_or_default()).await?;
            reports.add(refused(entry, change, ddl, &error));
        }
        self.finish_beside(session, entry, reports).await
    }

    async fn finish_beside(&mut self, session: &mut Session, entry: &Loaded, reports: Reports) -> Result<(), Error> {
        session.client().batch_execute("BEGIN").await?;
        self.finish(session, std::slice::from_ref(entry), reports).await
    }

    /// One attempt. What an earlier one left half done is taken away first.
    async fn build(&mut self, session: &mut Session, entry: &Loaded, ddl: &DdlStatement) -> Result<(), Error> {
        session.settle_settings(&self.config).await?;
        session.client().batch_execute("SET lock_timeout = 0").await?;
        let before = self.started(session, entry, ddl).await?;
        if let Some(before) = &before
            && clear(session, ddl, before).await?
        {
            return Ok(());
        }
        match run_alone(session.client(), ddl).await {
            // an earlier attempt has dropped it
            Err(error) if before.is_some() && shadow_error(&error).sqlstate == "42704" => Ok(()),
            done => done,
        }
    }

    /// The indexes that the table had when the statement was first begun; `None`: it begins now. That is on the shadow first.
    async fn started(
        &mut self,
        session: &Session,
        entry: &Loaded,
        ddl: &DdlStatement,
    ) -> Result<Option<Vec<i64>>, Error> {
        let (stream, sequence) = (&self.config.stream, entry.sequence.cast_signed());
        let known = "SELECT indexes FROM pgshadow.started WHERE stream = $1 AND sequence = $2 AND change = 0";
        if let Some(row) = session.client().query_opt(known, &[stream, &sequence]).await? {
            return Ok(Some(row.try_get::<_, Option<Vec<i64>>>(0)?.unwrap_or_default()));
        }
        let there: Vec<i64> = indexes(session, ddl).await?.iter().map(|i| i.oid).collect();
        let begin = "INSERT INTO pgshadow.started (stream, sequence, change, indexes) VALUES ($1, $2, 0, $3)";
        session.client().execute(begin, &[stream, &sequence, &there]).await?;
        Ok(None)
    }
}

/// The table that an index is made of, as the statement names it; `None`: it is another statement.
fn table_of(ddl: &DdlStatement) -> Option<String> {
    let parsed = pgshadow_sql::parse(&ddl.sql).ok()?;
    let [statement] = parsed.statements.as_slice() else { return None };
    let StatementKind::Ddl(index) = &statement.kind else { return None };
    let table = index.tables.first().filter(|_| index.tag == "CREATE INDEX")?;
    let schema = table.schema.as_ref().map_or_else(String::new, |schema| format!("{}.", quote(schema)));
    Some(format!("{schema}{}", quote(&table.name)))
}

/// Takes away what attempts have left half done; true if one was done to the end.
async fn clear(session: &Session, ddl: &DdlStatement, before: &[i64]) -> Result<bool, Error> {
    for index in indexes(session, ddl).await?.into_iter().filter(|i| !before.contains(&i.oid)) {
        if index.valid {
            return Ok(true);
        }
        session.client().batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {}", index.name)).await?;
    }
    Ok(false)
}

/// The indexes of the table that a session with these settings means; none if the statement isn't about one.
async fn indexes(session: &Session, ddl: &DdlStatement) -> Result<Vec<Index>, Error> {
    let Some(table) = table_of(ddl) else { return Ok(Vec::new()) };
    let client = session.client();
    let path = Some(&ddl.settings.search_path).filter(|path| !path.is_empty());
    if let Some(path) = path {
        client.execute("SELECT pg_catalog.set_config('search_path', $1, false)", &[path]).await?;
    }
    let sql = "SELECT x.indexrelid::int8, x.indisvalid, \
               pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) \
               FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE x.indrelid = pg_catalog.to_regclass($1)";
    let rows = client.query(sql, &[&table]).await?;
    let found = rows.iter().map(|r| Ok(Index { oid: r.try_get(0)?, valid: r.try_get(1)?, name: r.try_get(2)? }));
    found.collect()
}

/// Rows are equal without the index too: it is a finding, and no table is suspect.
fn refused(entry: &Loaded, change: &Change, ddl: &DdlStatement, error: &ShadowError) -> Report {
    let finding = statement_finding(entry, change, None, error, &ddl.sql);
    Report { origin: (entry.sequence, 0), finding: Some(finding), heal: Vec::new(), suspect: Vec::new() }
}
