//! One row: how it is written on the shadow, and what came of it.

use crate::failure::{Class, classify, is_stale};
use crate::lane::Lane;
use crate::plan::{Form, form_of};
use crate::raw::Raw;
use crate::report::{Evidence, Report, Reports, row_finding};
use crate::session::{Plan, Session};
use crate::shadow_table::ShadowTable;
use crate::{Error, entry::Loaded};
use futures::TryStreamExt;
use pgshadow_compare::{Seen, ShadowError, Verdict, judge};
use pgshadow_model::{Cause, Kind, Operation, RowImage, Severity};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio_postgres::Client;

/// How a row is written.
pub(crate) enum Planned {
    /// By this statement.
    Run(Prepared),
    /// Not at all: its table awaits its load.
    PassOver,
    /// Not at all: its table is suspect, and the shadow can't take it.
    Skip,
    /// The shadow's schema is another one.
    Schema(Verdict),
    /// The image doesn't say which row is meant.
    Unplaceable,
}

/// A statement with its values.
pub(crate) struct Prepared {
    pub(crate) plan: Arc<Plan>,
    pub(crate) values: Vec<Raw>,
    pub(crate) table: Arc<ShadowTable>,
    /// In replica role, so that user triggers don't run.
    pub(crate) replica: bool,
    /// Whatever comes of it is no finding.
    pub(crate) tolerant: bool,
}

/// What a row's statement gave.
#[derive(Debug, Default)]
pub(crate) struct Hit {
    pub(crate) rows: u64,
    /// Texts of the shadow's row and of the image, where they differ.
    pub(crate) texts: Option<Vec<Option<String>>>,
}

impl Hit {
    pub(crate) fn fits(&self) -> bool {
        self.rows == 1 && self.texts.is_none()
    }
}

/// Runs a prepared row. The message is on its way once this was polled first.
pub(crate) async fn run(client: &Client, row: &Prepared) -> Result<Hit, tokio_postgres::Error> {
    query_texts(client, &row.plan, row.values.clone()).await
}

pub(crate) async fn query_texts(client: &Client, plan: &Plan, values: Vec<Raw>) -> Result<Hit, tokio_postgres::Error> {
    let rows: Vec<_> = client.query_raw(&plan.statement, values).await?.try_collect().await?;
    let texts = rows.first().map(|r| r.try_get(0)).transpose()?.flatten();
    Ok(Hit { rows: rows.len() as u64, texts })
}

impl Lane {
    pub(crate) async fn plan_row(
        &mut self,
        session: &mut Session,
        image: &RowImage,
        reports: &Reports,
    ) -> Result<Planned, Error> {
        let name = &image.relation.name;
        if self.awaited.contains(name) {
            return Ok(Planned::PassOver);
        }
        let mut suspect = self.suspects.is_suspect(name).is_some();
        let Some(table) = session.table(name).await? else {
            let message = format!("the shadow has no table {name}");
            if !suspect && self.awaited.is_bare() {
                self.suspect(Some(name), message).await?;
                return Ok(Planned::Skip);
            }
            return Ok(if suspect { Planned::Skip } else { Planned::Schema(schema(message, Vec::new())) });
        };
        let missing = table.missing(&image.relation);
        if !missing.is_empty() && !suspect {
            let message = format!("the shadow's table {name} has no column {}", missing.join(", "));
            return Ok(Planned::Schema(schema(message, missing)));
        }
        suspect |= self.mind_triggers(session.may_replica, image, &table).await?;
        let tolerant = suspect || self.healing.waits_for(image) || reports.speak_of(image);
        let plan = session.plan(&image.relation, &table, form_of(image, tolerant)).await?;
        let values = plan.as_ref().and_then(|p| p.values(image));
        let (Some(plan), Some(values)) = (plan, values) else {
            return Ok(if suspect { Planned::Skip } else { Planned::Unplaceable });
        };
        let replica = table.origin_triggers && session.may_replica;
        Ok(Planned::Run(Prepared { plan, values, table, replica, tolerant }))
    }

    /// Whether the shadow's table may be another one than the row was planned for (somebody has made a trigger there): then it is
    /// read again, by all lanes, and the row's savepoint is as it was before the row.
    pub(crate) async fn is_outdated(
        &mut self,
        session: &mut Session,
        image: &RowImage,
        outcome: &Result<Option<Report>, Error>,
        reports: &mut Reports,
    ) -> Result<bool, Error> {
        const BACK: &str = "ROLLBACK TO SAVEPOINT change";
        match outcome {
            Ok(None) => return Ok(false),
            Ok(Some(_)) if reports.looks_at(&image.relation.name) => {}
            Err(error) if is_stale(error) => {
                session.client().batch_execute(BACK).await?;
                session.forget_tables();
                return Ok(true);
            }
            Err(error) if classify(error) == Class::Row && reports.looks_at(&image.relation.name) => {
                session.client().batch_execute(BACK).await?;
            }
            Ok(Some(_)) | Err(_) => return Ok(false),
        }
        if !session.is_outdated(&image.relation.name).await? {
            return Ok(false);
        }
        session.client().batch_execute(BACK).await?;
        self.definitions.fetch_add(1, Ordering::SeqCst);
        Ok(true)
    }

    /// Makes tables suspect that the shadow's triggers would change; true if the image's own table is one.
    async fn mind_triggers(&mut self, may: bool, image: &RowImage, table: &ShadowTable) -> Result<bool, Error> {
        let name = &image.relation.name;
        let replica = table.origin_triggers && may;
        if image.operation == Operation::Delete || image.old_key.is_some() {
            for (child, fires) in &table.cascades {
                let reason = if replica {
                    format!(
                        "a cascade from {name}, whose triggers are kept from running on the shadow, doesn't run there"
                    )
                } else if *fires {
                    format!("a cascade from {name} reaches it on the shadow and runs its user triggers there")
                } else {
                    continue;
                };
                self.suspect(Some(child), reason).await?;
            }
        }
        let reason = match (table.origin_triggers, may) {
            (true, false) => "has user triggers on the shadow and the role may not set session_replication_role",
            (true, true) if table.replica_triggers => "has ENABLE ALWAYS or REPLICA triggers on the shadow",
            _ => return Ok(false),
        };
        self.suspect(Some(name), reason.to_owned()).await?;
        Ok(true)
    }

    /// The report on a row that did not fit, by what its statement gave.
    pub(crate) async fn report_hit(
        &mut self,
        session: &mut Session,
        place: (&Loaded, u32),
        image: &RowImage,
        row: &Prepared,
        hit: &Hit,
    ) -> Result<Option<Report>, Error> {
        let columns = row.table.by_position(&image.relation);
        let (shadow, primary) = match &hit.texts {
            Some(texts) => {
                let (shadow, primary) = texts.split_at(texts.len() / 2);
                (Some(shadow.to_vec()), Some(primary.to_vec()))
            }
            None => (None, self.texts(session, image, &row.table, Form::Texts).await?),
        };
        let seen = Seen {
            rows: hit.rows,
            equal: hit.texts.is_none(),
            primary: primary.as_deref(),
            shadow: shadow.as_deref(),
            columns: &columns,
            ..Seen::default()
        };
        Ok(judge(image, &seen).map(|verdict| row_report(place, image, &verdict, Evidence::of(&seen))))
    }

    /// The report on a row whose statement failed; its savepoint is rolled back. Its evidence is read now.
    pub(crate) async fn report_error(
        &mut self,
        session: &mut Session,
        place: (&Loaded, u32),
        image: &RowImage,
        mut error: ShadowError,
    ) -> Result<Option<Report>, Error> {
        let (mut primary, mut shadow, mut columns) = (None, None, Vec::new());
        if let Some(table) = session.table(&image.relation.name).await? {
            columns = table.by_position(&image.relation);
            primary = self.texts_or_none(session, image, &table, Form::Texts).await?;
            if !image.relation.key.is_empty() {
                shadow = self.texts_or_none(session, image, &table, Form::Read).await?;
            }
        }
        error.own_key_taken = error.sqlstate == "23505" && shadow.is_some();
        let seen = Seen {
            error: Some(&error),
            primary: primary.as_deref(),
            shadow: shadow.as_deref(),
            columns: &columns,
            ..Seen::default()
        };
        Ok(judge(image, &seen).map(|verdict| row_report(place, image, &verdict, Evidence::of(&seen))))
    }

    async fn texts(
        &mut self,
        session: &mut Session,
        image: &RowImage,
        table: &ShadowTable,
        form: Form,
    ) -> Result<Option<Vec<Option<String>>>, Error> {
        let plan = session.plan(&image.relation, table, form).await?;
        let values = plan.as_ref().and_then(|p| p.values(image));
        match (plan, values) {
            (Some(plan), Some(values)) => Ok(query_texts(session.client(), &plan, values).await?.texts),
            _ => Ok(None),
        }
    }

    /// As `texts`, where the fault of the row may be such that its texts can't be had either.
    async fn texts_or_none(
        &mut self,
        session: &mut Session,
        image: &RowImage,
        table: &ShadowTable,
        form: Form,
    ) -> Result<Option<Vec<Option<String>>>, Error> {
        session.client().batch_execute("SAVEPOINT evidence").await?;
        match self.texts(session, image, table, form).await {
            Ok(texts) => {
                session.client().batch_execute("RELEASE SAVEPOINT evidence").await?;
                Ok(texts)
            }
            Err(e) if classify(&e) == Class::Row => {
                session.client().batch_execute("ROLLBACK TO SAVEPOINT evidence; RELEASE SAVEPOINT evidence").await?;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

fn schema(message: String, columns: Vec<String>) -> Verdict {
    Verdict { kind: Kind::Schema, cause: Cause::Unknown, severity: Severity::Error, columns, message }
}

/// A row's report with its remedy: read again on the primary, or where that can't be, its table is suspect.
pub(crate) fn row_report(place: (&Loaded, u32), image: &RowImage, verdict: &Verdict, by: Evidence<'_>) -> Report {
    let (entry, change) = place;
    let table = &image.relation.name;
    let schema = verdict.kind == Kind::Schema;
    let reason = if schema {
        Some(verdict.message.clone())
    } else if image.relation.key.is_empty() {
        Some(format!("it has no key, so its row can't be read again: {}", verdict.message))
    } else {
        None
    };
    Report {
        origin: (entry.sequence, change),
        finding: Some(row_finding(image, entry, verdict, by, !schema)),
        heal: if reason.is_none() { crate::target::Target::of(image) } else { Vec::new() },
        suspect: reason.map(|r| (Some(table.clone()), r)).into_iter().collect(),
    }
}
