//! The careful path: one entry in one transaction, each change behind a savepoint, so that one that the shadow refuses
//! doesn't take the others with it.

use crate::batch::{BEGIN, role};
use crate::copying::OpenCopy;
use crate::entry::Loaded;
use crate::failure::{Class, classify, shadow_error};
use crate::lane::{Lane, refers_to_itself};
use crate::needing::{Waiting, may_wait};
use crate::pieces::{Pieces, all_of};
use crate::report::{Evidence, Report, Reports};
use crate::rows::{Planned, row_report, run};
use crate::session::Session;
use crate::target::Target;
use crate::{Error, plan};
use futures::TryStreamExt;
use pgshadow_compare::ShadowError;
use pgshadow_model::{Change, Operation, QualifiedName, RowImage};
use std::time::Duration;

/// Attempts at an entry whose statement can't get its locks, before it is a finding: the lane must go on.
const ATTEMPTS_MAX: u32 = 30;

const UNSURE: &str = "a transaction on it was not known to be on the primary's disk when that one went down";

/// What goes along with an entry's changes, from piece to piece.
struct With<'a> {
    refused: &'a [Refused],
    /// Locks that can't be had are refusals now.
    last: bool,
    waiting: &'a mut Waiting,
    copy: &'a mut Option<OpenCopy>,
}

/// What a deferred check refused at the end of an entry.
struct Refused {
    error: ShadowError,
    table: Option<QualifiedName>,
}

impl Refused {
    fn leaves_out(&self, change: &Change) -> bool {
        match (&self.table, change) {
            (None, _) => true,
            (Some(table), Change::Row(image)) => image.relation.name == *table,
            (Some(_), _) => false,
        }
    }
}

impl Lane {
    /// Applies one entry, whatever it takes.
    pub(crate) async fn apply_carefully(&mut self, session: &mut Session, entry: &Loaded) -> Result<(), Error> {
        let (mut attempts, mut refused) = (0, Vec::new());
        loop {
            let error = match self.attempt(session, entry, &refused, attempts >= ATTEMPTS_MAX).await {
                Ok(None) => return Ok(()),
                Ok(Some(again)) => {
                    session.client().batch_execute("ROLLBACK").await?;
                    refused.push(again);
                    continue;
                }
                Err(e) => e,
            };
            if classify(&error) == Class::Row {
                tracing::error!(error = %error, sequence = entry.sequence, "an entry failed where no change did");
            }
            self.after(session, error).await?;
            attempts += 1;
            let pause = Duration::from_millis(200) * attempts.min(10);
            tokio::time::sleep(pause.min(self.config.backoff_max)).await;
        }
    }

    /// One attempt. What a deferred check refuses comes back: the next attempt leaves those tables out.
    async fn attempt(
        &mut self,
        session: &mut Session,
        entry: &Loaded,
        refused: &[Refused],
        last: bool,
    ) -> Result<Option<Refused>, Error> {
        let mut reports = Reports::default();
        if entry.unsure {
            session.client().batch_execute(BEGIN).await?;
            entry.changes.iter().zip(0..).for_each(|(change, n)| reports.add(unsure((entry, n), change)));
            entry.vast.iter().for_each(|vast| reports.add(all_of(entry, vast, UNSURE)));
            self.finish(session, std::slice::from_ref(entry), reports).await?;
            return Ok(None);
        }
        self.run_outside(session, entry, &mut reports).await?;
        session.client().batch_execute(BEGIN).await?;
        let (mut waiting, mut copy, mut pieces) = (Waiting::default(), None, Pieces::default());
        while let Some(piece) = self.next_piece(entry, &mut pieces, &mut reports).await? {
            let number = pieces.number;
            pieces.number += u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let at_once = entry.vast.is_some() && refused.is_empty() && waiting.rows.is_empty();
            if !at_once || !self.write_piece(session, (entry, number), &piece, &mut reports).await? {
                let with = With { refused, last, waiting: &mut waiting, copy: &mut copy };
                self.attempt_piece(session, (entry, number), &piece, with, &mut reports).await?;
            }
        }
        if let Some(OpenCopy::Runs(running)) = &copy {
            return Err(self.give_up_copy(entry, running.first));
        }
        self.write_waiting(session, entry, &mut waiting, true, &mut reports).await?;
        if let Some(refusal) = check_deferred(session).await? {
            // A table that was left out already, or that the entry has no rows of: then all of the entry is left out.
            let known = |t: &QualifiedName| refused.iter().any(|r| r.table.as_ref() == Some(t));
            let table = refusal.table.filter(|t| !known(t) && entry.names(t));
            return Ok(Some(Refused { table, ..refusal }));
        }
        self.finish(session, std::slice::from_ref(entry), reports).await?;
        Ok(None)
    }

    /// Changes of an entry one by one, from this number on.
    async fn attempt_piece(
        &mut self,
        session: &mut Session,
        (entry, number): (&Loaded, u32),
        piece: &[Change],
        with: With<'_>,
        reports: &mut Reports,
    ) -> Result<(), Error> {
        let With { refused, last, waiting, copy } = with;
        let of_rows = |change: &Change| matches!(change, Change::Row(_) | Change::Statement(_));
        let rows_only = entry.vast.is_none() && piece.iter().all(of_rows) && !self.sheds_statements();
        for (n, change) in (number..).zip(piece) {
            let leave_out = refused.iter().find(|r| r.leaves_out(change));
            if waiting.come_before(change) {
                let end = waiting.end_before(change);
                self.write_waiting(session, entry, waiting, end, reports).await?;
            }
            match change {
                Change::Ddl(ddl) if !ddl.in_transaction => {}
                Change::Statement(statement) => {
                    if rows_only && refused.is_empty() && waiting.rows.is_empty() {
                        self.rehearse(session, (entry, n), statement, reports).await?;
                    }
                }
                Change::Row(image) if image.operation == Operation::Reread => {
                    reports.add(unsure((entry, n), change));
                }
                Change::Row(image) => match leave_out {
                    Some(why) => self.leave_out(session, (entry, n), image, why, reports).await?,
                    None => {
                        let others = waiting.has_rows_of(&image.relation.name);
                        if !self.careful_row(session, (entry, n), image, Some(others), reports).await? {
                            waiting.add(n, image);
                        }
                    }
                },
                Change::Copy(copy) if leave_out.is_some() && copy.rows.is_none() => {}
                other => match leave_out {
                    Some(why) => self.report_statement(session, (entry, n), other, &why.error, reports).await?,
                    None if matches!(other, Change::Copy(_)) => {
                        self.copy_change(session, (entry, n), other, copy, last, reports).await?;
                    }
                    None => self.careful_statement(session, (entry, n), other, last, reports).await?,
                },
            }
        }
        Ok(())
    }

    /// Rows that others of the same table stood in the way of, or were missing for: again, as long as one of them goes. What
    /// doesn't go then is a finding, if it is the `end` of the entry.
    async fn write_waiting(
        &mut self,
        session: &mut Session,
        entry: &Loaded,
        waiting: &mut Waiting,
        end: bool,
        reports: &mut Reports,
    ) -> Result<(), Error> {
        let mut again = true;
        while !waiting.rows.is_empty() {
            let before = waiting.rows.len();
            let mut left = Waiting::default();
            // the other way round: what came in first often needs what came in last
            for (n, image) in std::mem::take(waiting).rows.into_iter().rev() {
                let wait = again.then_some(before > 1);
                if !self.careful_row(session, (entry, n), &image, wait, reports).await? {
                    left.add(n, &image);
                }
            }
            *waiting = left;
            // as the primary wrote them
            waiting.rows.sort_by_key(|(n, _)| *n);
            let stuck = waiting.rows.len() == before;
            if stuck && again && self.write_at_once(session, entry, &waiting.rows, reports).await? {
                *waiting = Waiting::default();
            }
            if stuck && !end {
                break;
            }
            again = !stuck;
        }
        Ok(())
    }

    /// The first row of a refused table gives the finding, all of them are read again.
    async fn leave_out(
        &mut self,
        session: &mut Session,
        place: (&Loaded, u32),
        image: &RowImage,
        why: &Refused,
        reports: &mut Reports,
    ) -> Result<(), Error> {
        if self.is_known(image, reports) {
            self.tolerate(&image.relation.name);
        } else if let Some(mut report) = self.report_error(session, place, image, why.error.clone()).await? {
            self.explain(&mut report, image, &why.error, reports);
            reports.add(report);
        }
        Ok(())
    }

    /// Where rows that are still to be read again may be what it lacks, or what stands in its way: it is read again too, and
    /// nothing is found.
    fn explain(&self, report: &mut Report, image: &RowImage, error: &ShadowError, reports: &Reports) {
        if self.healing.may_explain(image, &error.sqlstate) || reports.may_explain(image, &error.sqlstate) {
            report.finding = None;
            self.tolerate(&image.relation.name);
        }
    }

    /// Whether nothing more is to be said of this row.
    fn is_known(&self, image: &RowImage, reports: &Reports) -> bool {
        self.suspects.is_suspect(&image.relation.name).is_some()
            || self.healing.waits_for(image)
            || reports.speak_of(image)
    }

    /// False if it may be written once other rows of its table are, and may `wait` for that: true where some wait already.
    async fn careful_row(
        &mut self,
        session: &mut Session,
        place: (&Loaded, u32),
        image: &RowImage,
        wait: Option<bool>,
        reports: &mut Reports,
    ) -> Result<bool, Error> {
        session.client().batch_execute("SAVEPOINT change").await?;
        let mut outcome = self.try_row(session, place, image, reports).await;
        if self.is_outdated(session, image, &outcome, reports).await? {
            outcome = self.try_row(session, place, image, reports).await;
        }
        match outcome {
            Ok(report) => {
                session.client().batch_execute("RELEASE SAVEPOINT change").await?;
                report.into_iter().for_each(|report| reports.add(report));
                return Ok(true);
            }
            Err(e) if classify(&e) != Class::Row => return Err(e),
            Err(e) => {
                session.client().batch_execute("ROLLBACK TO SAVEPOINT change; RELEASE SAVEPOINT change").await?;
                if wait.is_some_and(|others| may_wait(image, &e, others)) {
                    return Ok(false);
                }
                if self.is_known(image, reports) {
                    self.tolerate(&image.relation.name);
                    return Ok(true);
                }
                let report = self.report_error(session, place, image, shadow_error(&e)).await?;
                if let Some(mut report) = report {
                    self.explain(&mut report, image, &shadow_error(&e), reports);
                    report.heal.extend(self.in_the_way(session, image, &e).await?);
                    reports.add(report);
                }
            }
        }
        Ok(true)
    }

    /// What the shadow holds there in place of the image, if so.
    async fn try_row(
        &mut self,
        session: &mut Session,
        place: (&Loaded, u32),
        image: &RowImage,
        reports: &mut Reports,
    ) -> Result<Option<Report>, Error> {
        let row = match self.plan_row(session, image, reports).await? {
            Planned::Run(row) => row,
            Planned::PassOver => return Ok(None),
            Planned::Skip => {
                self.tolerate(&image.relation.name);
                return Ok(None);
            }
            Planned::Unplaceable => {
                let reason = "an UPDATE of a table without a key doesn't say which row it means".to_owned();
                self.suspect(Some(&image.relation.name), reason).await?;
                return Ok(None);
            }
            Planned::Schema(verdict) => {
                reports.add(row_report(place, image, &verdict, Evidence::default()));
                let reason = verdict.message.clone();
                self.suspect(Some(&image.relation.name), reason).await?;
                return Box::pin(self.try_row(session, place, image, reports)).await;
            }
        };
        if session.may_replica {
            session.client().batch_execute(role(row.replica)).await?;
        }
        let hit = run(session.client(), &row).await?;
        if hit.fits() {
            return Ok(None);
        }
        // a cascade from another row of the same statement has got there first
        let cascaded = image.operation == Operation::Delete && refers_to_itself(&image.relation);
        if row.tolerant || cascaded {
            self.tolerate(&image.relation.name);
            return Ok(None);
        }
        self.report_hit(session, place, image, &row, &hit).await
    }

    /// Rows of the shadow that take the image's unique values under another key: they are read again too.
    async fn in_the_way(
        &mut self,
        session: &mut Session,
        image: &RowImage,
        error: &Error,
    ) -> Result<Vec<Target>, Error> {
        let relation = &image.relation;
        let (Some(table), true) = (session.table(&relation.name).await?, shadow_error(error).sqlstate == "23505")
        else {
            return Ok(Vec::new());
        };
        let mut targets = Vec::new();
        for unique in &relation.unique_keys {
            let values: Option<Vec<_>> = unique
                .iter()
                .map(|p| image.values.get(usize::from(*p))?.clone().map(|v| crate::raw::Raw(Some(v))))
                .collect();
            let Some(values) = values.filter(|_| !relation.key.is_empty()) else { continue };
            let sql = plan::read_by(relation, Some(&table), table.partitioned, &relation.key, unique);
            let statement = session.client().prepare(&sql).await?;
            let rows: Vec<_> = session.client().query_raw(&statement, values).await?.try_collect().await?;
            for row in rows {
                let key = crate::fence::values_of(&row)?;
                targets.push(Target { relation: relation.clone(), key });
            }
        }
        Ok(targets)
    }
}

/// A change that the primary committed and may have lost when it went: its rows are read again.
fn unsure(place: (&Loaded, u32), change: &Change) -> Report {
    let reason = UNSURE.to_owned();
    let (heal, tables) = match change {
        Change::Row(image) if image.relation.key.is_empty() => (Vec::new(), vec![Some(image.relation.name.clone())]),
        Change::Row(image) => (Target::of(image), Vec::new()),
        Change::Copy(copy) => (Vec::new(), vec![Some(copy.relation.name.clone())]),
        Change::Truncate(truncate) => (Vec::new(), truncate.tables.iter().cloned().map(Some).collect()),
        Change::Ddl(_) => (Vec::new(), vec![None]),
        Change::Statement(_) => (Vec::new(), Vec::new()),
    };
    let suspect = tables.into_iter().map(|t| (t, reason.clone())).collect();
    Report { origin: (place.0.sequence, place.1), finding: None, heal, suspect }
}

/// Runs the deferred checks now, where their error can still be told apart from the connection's.
async fn check_deferred(session: &Session) -> Result<Option<Refused>, Error> {
    let client = session.client();
    let Err(e) = client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await else {
        return Ok(None);
    };
    let db = e.as_db_error();
    let table = db.and_then(|d| Some(QualifiedName::new(d.schema()?, d.table()?)));
    let error = Error::Postgres(e);
    if classify(&error) != Class::Row {
        return Err(error);
    }
    Ok(Some(Refused { error: shadow_error(&error), table }))
}
