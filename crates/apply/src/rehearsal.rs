//! The client's own statement runs on the shadow, in a savepoint, before its images are applied, and is taken back: the
//! rehearsal of the new database with the real SQL. What it does there is compared; what is applied doesn't depend on it.
//!
//! It never makes a lane fail or wait for long: its time is limited by the primary's, what passes by itself (locks,
//! timeouts, resources) is no finding, and while the shadow lags it is left out.

use crate::Error;
use crate::entry::Loaded;
use crate::failure::{Class, classify, shadow_error};
use crate::lane::Lane;
use crate::own::{Own, Settled};
use crate::plan::Form;
use crate::report::{Report, Reports, finding};
use crate::rows::{Hit, query_texts};
use crate::session::{Plan, Session};
use futures::future::join_all;
use pgshadow_compare::{Answer, Difference, Verdict, describe_row, judge_statement, shape};
use pgshadow_model::{Cause, Change, Finding, Kind, Operation, RowImage, Severity, Statement, hash_text};
use pgshadow_telemetry::Counter;
use std::sync::Arc;
use std::time::Duration;

/// While the oldest entry waits longer than this, statements are left out.
pub const SHED_BEHIND: Duration = Duration::from_secs(1);
/// The shortest time that a statement is given on the shadow.
const TIMEOUT_MIN_MS: u64 = 500;
/// The longest.
const TIMEOUT_MAX_MS: u64 = 5_000;
/// How many times the primary's time it is given.
const TIMEOUT_RATIO: u64 = 20;

const END: &str = "ROLLBACK TO SAVEPOINT rehearsal; RELEASE SAVEPOINT rehearsal";

/// A statement with the images of what it wrote, and how each is looked for on the shadow.
struct Looked<'a> {
    statement: &'a Statement,
    images: Vec<(&'a RowImage, Arc<Plan>)>,
}

/// What a finding is about, besides the difference.
struct Seen<'a> {
    place: (&'a Loaded, u32),
    statement: &'a Statement,
    image: &'a RowImage,
}

impl Lane {
    /// Whether the shadow is so far behind that statements are left out, or somebody waits for it.
    pub(crate) fn sheds_statements(&self) -> bool {
        self.hurries() || u128::from(self.book.lag().ms) > SHED_BEHIND.as_millis()
    }

    /// Runs a statement and takes it back; the findings that it gives go to `reports`. An error is the connection's, or that
    /// of the open transaction.
    pub(crate) async fn rehearse(
        &mut self,
        session: &mut Session,
        place: (&Loaded, u32),
        statement: &Statement,
        reports: &mut Reports,
    ) -> Result<(), Error> {
        let Some(looked) = self.look(session, place, statement, reports).await? else { return Ok(()) };
        let Some((image, _)) = looked.images.first() else { return Ok(()) };
        let seen = Seen { place, statement, image };
        let Some(answer) = self.run_and_take_back(session, &looked).await? else { return Ok(()) };
        Counter::StatementsCompared.add(1);
        if let Some(error) = &answer.error
            && (self.healing.may_explain(image, &error.sqlstate) || reports.may_explain(image, &error.sqlstate))
        {
            return Ok(());
        }
        let micros = (statement.elapsed_micros, answer.micros);
        if answer.error.is_none() {
            self.rehearsals.took(micros);
        }
        if let Some(difference) = judge_statement(statement, &answer) {
            Self::note(&seen, Kind::Statement, difference, answer.error.map(|e| e.sqlstate), reports);
        } else if let Some(slow) = self.rehearsals.pace(hash_text(&shape(&statement.sql)), micros) {
            let difference = slower(slow);
            Self::note(&seen, Kind::Latency, difference, None, reports);
        }
        Ok(())
    }

    /// The statement with its images; `None` if what the shadow holds of its rows isn't certain, or can't be looked at.
    async fn look<'a>(
        &mut self,
        session: &mut Session,
        place: (&'a Loaded, u32),
        statement: &'a Statement,
        reports: &Reports,
    ) -> Result<Option<Looked<'a>>, Error> {
        let (entry, change) = place;
        let behind = entry.changes.iter().skip(change as usize + 1);
        let rows = usize::try_from(statement.rows).unwrap_or(usize::MAX);
        let mut images = Vec::new();
        for change in behind.take(rows) {
            let Change::Row(image) = change else { return Ok(None) };
            let relation = &image.relation;
            let named = std::iter::once(&relation.name).chain(relation.foreign_keys.iter().map(|key| &key.parent));
            let uncertain = named.into_iter().any(|name| self.suspects.is_suspect(name).is_some())
                || self.healing.waits_for(image)
                || reports.speak_of(image)
                || image.operation == Operation::Reread
                || relation.key.is_empty();
            if uncertain {
                return Ok(None);
            }
            let Some(table) = session.table(&relation.name).await? else { return Ok(None) };
            let missing = !table.missing(relation).is_empty();
            match session.plan(relation, &table, Form::Check).await? {
                Some(plan) if !missing => images.push((image, plan)),
                _ => return Ok(None),
            }
        }
        Ok((images.len() == rows).then_some(Looked { statement, images }))
    }

    async fn run_and_take_back(&self, session: &mut Session, looked: &Looked<'_>) -> Result<Option<Answer>, Error> {
        let limit = (looked.statement.elapsed_micros / 1000).saturating_mul(TIMEOUT_RATIO);
        let limit = limit.clamp(TIMEOUT_MIN_MS, TIMEOUT_MAX_MS);
        let Settled { begin, run_as_self } = session.own.begin(&looked.statement.settings, limit, session.may_replica);
        let own = match session.own.known(looked.statement) {
            Some(own) => own,
            None => {
                let client = session.client();
                let entered = client.batch_execute(&begin).await;
                let prepared = match entered {
                    Ok(()) => Own::prepare(client, looked.statement).await,
                    Err(e) => {
                        client.batch_execute(END).await?;
                        return Ok(refused(session, looked.statement, e));
                    }
                };
                let ended = client.batch_execute(END).await;
                match prepared {
                    Ok(own) => {
                        ended?;
                        session.own.remember(looked.statement, own)
                    }
                    Err(e) => {
                        ended?;
                        return Ok(self.of_error(session, looked.statement, e.into(), run_as_self));
                    }
                }
            }
        };
        let client = session.client();
        let checks = looked.images.iter().filter_map(|(image, plan)| {
            let values = plan.values(image)?;
            Some(async move { query_texts(client, plan, values).await })
        });
        let (began, ran, reset, hits, ended) = futures::join!(
            client.simple_query(&begin),
            own.run(client, looked.statement),
            client.simple_query(crate::own::RESET),
            join_all(checks),
            client.batch_execute(END)
        );
        ended?;
        let began = match began {
            Ok(messages) => crate::own::micros(&messages),
            Err(e) => return Ok(refused(session, looked.statement, e)),
        };
        let ran = match ran {
            Ok(ran) => ran,
            Err(e) => return Ok(self.of_error(session, looked.statement, e.into(), run_as_self)),
        };
        let ended_at = reset.ok().and_then(|messages| crate::own::micros(&messages));
        let Ok(hits) = hits.into_iter().collect::<Result<Vec<Hit>, _>>() else { return Ok(None) };
        let micros = began.zip(ended_at).map_or(0, |(from, to)| to.saturating_sub(from));
        let row = looked.images.iter().zip(&hits).find_map(|((image, _), hit)| other_row(image, hit));
        Ok(Some(Answer { rows: ran.rows, returned: ran.returned, row, error: None, micros }))
    }

    /// The answer that an error is; `None` if it says nothing of the database.
    fn of_error(&self, session: &Session, statement: &Statement, error: Error, run_as_self: bool) -> Option<Answer> {
        let of_shadow = shadow_error(&error);
        // 25P02: what failed is what stands before it; 0A000: a plan that was kept is out of date
        let ours = matches!(of_shadow.sqlstate.as_str(), "25P02" | "0A000" | "XX000")
            || run_as_self && of_shadow.sqlstate == "42501";
        if ours || classify(&error) != Class::Row {
            tracing::debug!(error = %error, sql = statement.sql, pid = session.pid, "a statement could not be rehearsed");
            return None;
        }
        Some(Answer { error: Some(of_shadow), ..Answer::default() })
    }

    /// A finding about the statement as such: its rows are applied all the same.
    fn note(seen: &Seen<'_>, kind: Kind, difference: Difference, sqlstate: Option<String>, reports: &mut Reports) {
        let Seen { place: (entry, change), statement, image } = *seen;
        let Difference { what, cause, severity, message, primary, shadow } = difference;
        let columns = vec![format!("{:016x}", hash_text(&shape(&statement.sql))), what.to_owned()];
        let verdict = Verdict { kind, cause, severity, columns, message };
        let found = finding(entry, Some(&image.relation.name), &verdict, sqlstate);
        let finding = Finding {
            column: None,
            primary: Some(primary),
            shadow: Some(shadow),
            sql: Some(statement.sql.trim().to_owned()),
            user: Some(statement.settings.role.clone()).filter(|role| !role.is_empty()),
            ..found
        };
        let origin = (entry.sequence, change);
        reports.add(Report { origin, finding: Some(finding), heal: Vec::new(), suspect: Vec::new() });
    }
}

/// The role or the settings can't be taken on: from now on the role's statements run as pgshadow's own.
fn refused(session: &mut Session, statement: &Statement, error: tokio_postgres::Error) -> Option<Answer> {
    session.own.refuse(&statement.settings);
    tracing::debug!(error = %Error::Postgres(error), "a session's role or settings can't be taken on by the shadow");
    None
}

/// The row as it is on both sides, where the statement left another one on the shadow.
fn other_row(image: &RowImage, hit: &Hit) -> Option<(String, String)> {
    const NONE: &str = "no such row";
    match (image.operation, hit.rows, &hit.texts) {
        (Operation::Delete, 0, _) | (_, 1, None) if (image.operation == Operation::Delete) == (hit.rows == 0) => None,
        (Operation::Delete, _, _) => Some((NONE.to_owned(), "the row is still there".to_owned())),
        (_, _, Some(texts)) => {
            let (shadow, primary) = texts.split_at(texts.len() / 2);
            let differs = |n: &usize| primary.get(*n) != shadow.get(*n);
            let names: Vec<String> = (0..primary.len())
                .filter(differs)
                .filter_map(|n| image.relation.columns.get(n).map(|c| c.name.clone()))
                .collect();
            // the same value may have several forms inside: only what can be read counts
            let show = |texts: &[Option<String>]| describe_row(&image.relation, &names, texts);
            (!names.is_empty()).then(|| (show(primary), show(shadow)))
        }
        _ => Some(("the row that the primary has".to_owned(), NONE.to_owned())),
    }
}

fn slower((primary, shadow): (u64, u64)) -> Difference {
    #[allow(clippy::cast_precision_loss)] // for people
    let ms = |micros: u64| format!("{:.1} ms", micros as f64 / 1000.0);
    Difference {
        what: "latency",
        cause: Cause::Plan,
        severity: Severity::Warning,
        message: "the client's own statement is slower on the shadow in every one of its last runs: another plan, or \
                  an index that it lacks"
            .to_owned(),
        primary: format!("mostly about {}", ms(primary)),
        shadow: format!("at least {}", ms(shadow)),
    }
}
