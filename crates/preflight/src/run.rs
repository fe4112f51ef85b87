use crate::checks;
use crate::checks::Check;
use crate::facts::Facts;
use crate::finding::{Finding, NotRun, Report, Step, Sure};
use crate::pair::Pair;
use pgshadow_model::Place;
use tokio_postgres::Client;

/// Looks at both databases. Both sessions are made read-only, with short timeouts, and stay so.
///
/// A check that fails is a finding and stands in [`Report::not_run`]; where a server can't be asked at all, that is all there is.
pub async fn run(source: &Client, target: &Client, facts: &Facts) -> Report {
    look(source, target, facts, |_| true).await
}

/// Looks for what a load must not begin with, and for nothing else: the report has only findings that are in its way.
///
/// How both databases' definitions differ is none of them: a load makes what is missing, or says itself what hinders it, before it begins.
pub async fn before_load(source: &Client, target: &Client, facts: &Facts) -> Report {
    let report = look(source, target, facts, |check| check.before_load).await;
    let mut findings = report.findings;
    findings.retain(|finding| finding.blocks == Some(Step::Load));
    Report::new(findings, report.ran, report.not_run)
}

async fn look(source: &Client, target: &Client, facts: &Facts, wanted: impl Fn(&Check<'_>) -> bool) -> Report {
    let pair = match Pair::new(source, target, facts).await {
        Ok(pair) => pair,
        Err(error) => {
            let not_run = NotRun { check: "all".to_owned(), why: error.to_string() };
            return Report::new(vec![unseen("all", &error.to_string())], Vec::new(), vec![not_run]);
        }
    };
    let (mut findings, mut ran, mut not_run) = (Vec::new(), Vec::new(), Vec::new());
    for check in checks::all(&pair).into_iter().filter(wanted) {
        let name = check.name.to_owned();
        if check.compares && pair.target_is_empty {
            not_run.push(NotRun { check: name, why: "the target is empty".to_owned() });
            continue;
        }
        match check.look.await {
            Ok(found) => {
                findings.extend(found.into_iter().map(|finding| Finding { check: name.clone(), ..finding }));
                ran.push(name);
            }
            Err(error) => {
                tracing::debug!(check = name, %error, "a check could not look");
                findings.push(unseen(&name, &error.to_string()));
                not_run.push(NotRun { check: name, why: error.to_string() });
            }
        }
    }
    Report::new(findings, ran, not_run)
}

/// A check that could not look.
fn unseen(check: &str, why: &str) -> Finding {
    let happens = format!("could not be looked at, and nothing is known of it: {why}");
    let finding = Finding::warn(Place::Source, check, happens).sure(Sure::Possible);
    Finding { check: check.to_owned(), ..finding }
}
