//! Changes that are statements: TRUNCATE and DDL, run as the client wrote them under its session's settings.

use crate::Error;
use crate::entry::Loaded;
use crate::failure::{Class, classify, shadow_error};
use crate::lane::Lane;
use crate::report::{Report, Reports, finding};
use crate::session::Session;
use pgshadow_compare::{ShadowError, judge_error};
use pgshadow_model::{Change, DdlStatement, Finding, Kind, QualifiedName, SessionSettings, Severity, quote};
use tokio_postgres::Client;

/// Errors that say that a statement's work is there already.
const DONE_ALREADY: [&str; 6] = ["42P07", "42710", "42701", "42P01", "42704", "42703"];

impl Lane {
    /// A statement behind a savepoint. `last`: a lock that can't be had counts as a refusal now.
    pub(crate) async fn careful_statement(
        &mut self,
        session: &mut Session,
        place: (&Loaded, u32),
        change: &Change,
        last: bool,
        reports: &mut Reports,
    ) -> Result<(), Error> {
        session.client().batch_execute("SAVEPOINT change").await?;
        let outcome = self.run_statement(session, place, change, reports).await;
        if matches!(change, Change::Ddl(_)) {
            session.forget_tables();
        }
        let error = match outcome {
            Ok(()) => {
                session.client().batch_execute("RELEASE SAVEPOINT change").await?;
                return Ok(());
            }
            Err(e) => match classify(&e) {
                Class::Row => shadow_error(&e),
                Class::Again if last => shadow_error(&e),
                Class::Again | Class::Lost => return Err(e),
            },
        };
        session.client().batch_execute("ROLLBACK TO SAVEPOINT change; RELEASE SAVEPOINT change").await?;
        self.report_statement(session, place, change, &error, reports).await
    }

    async fn run_statement(
        &mut self,
        session: &mut Session,
        place: (&Loaded, u32),
        change: &Change,
        reports: &mut Reports,
    ) -> Result<(), Error> {
        let client = session.client();
        match change {
            Change::Ddl(ddl) => {
                let entered = enter(client, &ddl.settings, false).await?;
                let owners = if entered.role { None } else { Some(owned_tables(client).await?) };
                client.batch_execute(&ddl.sql).await?;
                if let Some(before) = owners {
                    let made = owned_tables(client).await?.into_iter().filter(|t| !before.contains(t)).collect();
                    foreign_owner(place, change, ddl, made).into_iter().for_each(|report| reports.add(report));
                }
                leave(client, entered).await?;
            }
            Change::Truncate(truncate) => {
                let entered = enter(client, &truncate.settings, false).await?;
                client.batch_execute(&truncate.sql).await?;
                leave(client, entered).await?;
                if truncate.sql.to_ascii_lowercase().contains("cascade") && keys_are_missing(client).await? {
                    let reason = "TRUNCATE ... CASCADE came before a backfill had made the target's foreign keys: what else it emptied isn't known there";
                    self.suspect(None, reason.to_owned()).await?;
                }
            }
            Change::Copy(_) | Change::Row(_) | Change::Statement(_) => {}
        }
        Ok(())
    }

    /// A statement that the shadow refused: a finding, and the tables that it would have changed are suspect.
    pub(crate) async fn report_statement(
        &mut self,
        session: &mut Session,
        place: (&Loaded, u32),
        change: &Change,
        error: &ShadowError,
        reports: &mut Reports,
    ) -> Result<(), Error> {
        let (tables, sql) = match change {
            Change::Copy(copy) => (vec![copy.relation.name.clone()], &copy.sql),
            Change::Truncate(truncate) => (truncate.tables.clone(), &truncate.sql),
            Change::Ddl(ddl) => (named_tables(session.client(), &ddl.sql).await?, &ddl.sql),
            Change::Row(_) | Change::Statement(_) => return Ok(()),
        };
        let clean: Vec<_> = tables.iter().filter(|t| self.suspects.is_suspect(t).is_none()).cloned().collect();
        if clean.is_empty() && !tables.is_empty() {
            tables.iter().for_each(|table| self.tolerate(table));
            return Ok(());
        }
        let first = clean.first().cloned();
        // Refused for rows that are still to be read again: the shadow lacks its rows, but does nothing else than the primary.
        let explained = match change {
            Change::Copy(copy) => self.healing.may_explain_in(&copy.relation, &error.sqlstate),
            _ => false,
        };
        // a shadow without any table is to be loaded first
        let lacks_all = self.awaited.is_bare() && ["42P01", "3F000"].contains(&error.sqlstate.as_str());
        let found = || statement_finding(place.0, change, first.as_ref(), error, sql);
        // What names no table that is there may have been to change any.
        let suspect: Vec<_> = if tables.is_empty() { vec![None] } else { clean.into_iter().map(Some).collect() };
        reports.add(Report {
            origin: (place.0.sequence, place.1),
            finding: (!explained && !lacks_all).then(found),
            heal: Vec::new(),
            suspect: suspect
                .into_iter()
                .map(|t| (t, format!("the shadow refused a statement that changes it: {}", error.message)))
                .collect(),
        });
        Ok(())
    }

    /// Statements that refuse a transaction block, run before the entry's own transaction. That they were started is
    /// on the shadow first: after a crash, what they did is not an error.
    pub(crate) async fn run_outside(
        &mut self,
        session: &mut Session,
        entry: &Loaded,
        reports: &mut Reports,
    ) -> Result<(), Error> {
        for (n, change) in (0_u32..).zip(entry.changes.iter()) {
            let Change::Ddl(ddl) = change else { continue };
            if ddl.in_transaction {
                continue;
            }
            let sql =
                "INSERT INTO pgshadow.started (stream, sequence, change) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            let (sequence, position) = (entry.sequence.cast_signed(), n.cast_signed());
            let started = session.client().execute(sql, &[&self.config.stream, &sequence, &position]).await? == 0;
            let outcome = run_alone(session.client(), ddl).await;
            session.settle_settings(&self.config).await?;
            session.forget_tables();
            match outcome {
                Ok(()) => {}
                Err(e) if classify(&e) != Class::Row => return Err(e),
                Err(e) => {
                    let error = shadow_error(&e);
                    if !(started && DONE_ALREADY.contains(&error.sqlstate.as_str())) {
                        self.report_statement(session, (entry, n), change, &error, reports).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn statement_finding(
    entry: &Loaded,
    change: &Change,
    table: Option<&QualifiedName>,
    error: &ShadowError,
    sql: &str,
) -> Finding {
    let mut verdict = judge_error(error);
    let own = error.sqlstate.starts_with("PGS");
    if matches!(change, Change::Ddl(_)) {
        verdict.kind = Kind::Schema;
    } else if own {
        verdict.kind = Kind::RowCount;
    }
    let mut finding = finding(entry, table, &verdict, (!own).then(|| error.sqlstate.clone()));
    finding.sql = Some(sql.to_owned());
    finding
}

/// Tables of the shadow whose names stand in the statement: rather too many than too few.
async fn named_tables(client: &Client, sql: &str) -> Result<Vec<QualifiedName>, Error> {
    let query = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgshadow') \
                 AND n.nspname NOT LIKE 'pg\\_%' AND position(lower(c.relname::text) IN lower($1)) > 0";
    let rows = client.query(query, &[&sql]).await?;
    rows.iter().map(|r| Ok(QualifiedName::new(r.try_get::<_, String>(0)?, r.try_get::<_, String>(1)?))).collect()
}

/// Tables of the role that runs statements now.
async fn owned_tables(client: &Client) -> Result<Vec<QualifiedName>, Error> {
    let query = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'p', 'm') AND pg_catalog.pg_get_userbyid(c.relowner) = current_user";
    let rows = client.query(query, &[]).await?;
    rows.iter().map(|r| Ok(QualifiedName::new(r.try_get::<_, String>(0)?, r.try_get::<_, String>(1)?))).collect()
}

/// A statement that ran as another role than on the primary: the tables that it made are another's; that something else is, is worth
/// knowing.
fn foreign_owner(
    place: (&Loaded, u32),
    change: &Change,
    ddl: &DdlStatement,
    made: Vec<QualifiedName>,
) -> Option<Report> {
    const OF_A_TABLE: &[&str] = &["index", "unique", "trigger", "constraint", "policy", "rule", "statistics"];
    let mut words = ddl.sql.split_ascii_whitespace().map(str::to_ascii_lowercase);
    let creates = words.next().is_some_and(|w| w == "create");
    let owned = creates && words.next().is_some_and(|w| !OF_A_TABLE.contains(&w.as_str()));
    if made.is_empty() && !owned {
        return None;
    }
    let role = &ddl.settings.role;
    let message =
        format!("pgshadow may not act for the role {role} on the shadow: what its DDL makes has another owner there");
    let error = ShadowError { sqlstate: "PGS02".to_owned(), message: message.clone(), own_key_taken: false };
    let finding = made.is_empty().then(|| {
        let finding = statement_finding(place.0, change, None, &error, &ddl.sql);
        Finding { severity: Severity::Warning, ..finding }
    });
    let suspect = made.into_iter().map(|table| (Some(table), message.clone())).collect();
    Some(Report { origin: (place.0.sequence, place.1), finding, heal: Vec::new(), suspect })
}

/// What was taken on.
pub(crate) struct Entered {
    /// Settings as they were, by name.
    saved: Vec<(String, String)>,
    /// The role is the session's.
    role: bool,
}

/// Takes on a session's settings and role for a while, within the open transaction. What the shadow doesn't know or
/// doesn't allow is left as it is, and said.
pub(crate) async fn enter(client: &Client, settings: &SessionSettings, with_encoding: bool) -> Result<Entered, Error> {
    let mut saved = Vec::new();
    for (name, value) in wanted(settings, with_encoding) {
        let before = client.query_one("SELECT pg_catalog.current_setting($1, true)", &[&name]).await?;
        let Some(before) = before.try_get::<_, Option<String>>(0)? else { continue };
        let set = "SELECT pg_catalog.set_config($1, $2, true)";
        if before != value && attempt(client, client.execute(set, &[&name, &value])).await? {
            saved.push((name.to_owned(), before));
        }
    }
    let mut role = true;
    if !settings.role.is_empty() {
        let set = format!("SET LOCAL ROLE {}", quote(&settings.role));
        role = attempt(client, client.execute(&set, &[])).await?;
    }
    if !role && settings.search_path.contains("\"$user\"") {
        // that is the session's role, not pgshadow's
        let before: String =
            client.query_one("SELECT pg_catalog.current_setting('search_path')", &[]).await?.try_get(0)?;
        let path = settings.search_path.replace("\"$user\"", &quote(&settings.role));
        let set = "SELECT pg_catalog.set_config('search_path', $1, true)";
        if attempt(client, client.execute(set, &[&path])).await? && !saved.iter().any(|(n, _)| n == "search_path") {
            saved.push(("search_path".to_owned(), before));
        }
    }
    Ok(Entered { saved, role })
}

fn wanted(settings: &SessionSettings, with_encoding: bool) -> Vec<(&str, &str)> {
    // The statement's text is UTF-8 here, whatever the client's encoding was; a COPY's data are not.
    let kept = |name: &str| with_encoding || !name.eq_ignore_ascii_case("client_encoding");
    let others = settings.others.iter().filter(|(n, _)| kept(n)).map(|(n, v)| (n.as_str(), v.as_str()));
    let path = (!settings.search_path.is_empty()).then_some(("search_path", settings.search_path.as_str()));
    others.chain(path).collect()
}

/// Behind a savepoint of its own; false if the shadow refuses.
async fn attempt(
    client: &Client,
    work: impl Future<Output = Result<u64, tokio_postgres::Error>>,
) -> Result<bool, Error> {
    client.batch_execute("SAVEPOINT setting").await?;
    match work.await {
        Ok(_) => {
            client.batch_execute("RELEASE SAVEPOINT setting").await?;
            Ok(true)
        }
        Err(e) if e.code().is_some() => {
            tracing::warn!(error = %Error::Postgres(e), "a session's setting can't be taken on for its statement");
            client.batch_execute("ROLLBACK TO SAVEPOINT setting; RELEASE SAVEPOINT setting").await?;
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

pub(crate) async fn leave(client: &Client, entered: Entered) -> Result<(), Error> {
    client.batch_execute("SET LOCAL ROLE NONE").await?;
    for (name, value) in entered.saved {
        client.execute("SELECT pg_catalog.set_config($1, $2, true)", &[&name, &value]).await?;
    }
    Ok(())
}

/// Outside a transaction: settings hold until they are set back.
pub(crate) async fn run_alone(client: &Client, ddl: &DdlStatement) -> Result<(), Error> {
    for (name, value) in wanted(&ddl.settings, false) {
        let set = "SELECT pg_catalog.set_config($1, $2, false)";
        let _ = client.execute(set, &[&name, &value]).await;
    }
    if !ddl.settings.role.is_empty() {
        let _ = client.batch_execute(&format!("SET ROLE {}", quote(&ddl.settings.role))).await;
    }
    let outcome = client.batch_execute(&ddl.sql).await;
    client.batch_execute("RESET ROLE").await?;
    Ok(outcome?)
}

/// Whether a backfill that makes the schema isn't over: foreign keys come last.
async fn keys_are_missing(client: &Client) -> Result<bool, Error> {
    let there = "SELECT pg_catalog.to_regclass('pgshadow.backfill') IS NOT NULL";
    if !client.query_one(there, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(false);
    }
    let sql = "SELECT EXISTS (SELECT FROM pgshadow.backfill WHERE makes_schema AND step <> 'done')";
    Ok(client.query_one(sql, &[]).await?.try_get(0)?)
}
