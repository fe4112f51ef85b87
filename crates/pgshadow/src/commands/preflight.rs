use crate::arguments::PreflightArguments;
use crate::config::{Config, Database};
use crate::facts::facts;
use crate::failure::{Ending, Failure};
use crate::output;
use pgshadow_model::Place;
use pgshadow_preflight::{Facts, Finding, Level, Report, Sure};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Looks at both databases directly; no proxy needs to run.
///
/// # Errors
/// When a server can't be reached.
pub async fn preflight(config: &Config, arguments: &PreflightArguments) -> Result<Ending, Failure> {
    let facts = Facts { transaction_age_max: arguments.older_than, ..facts(config) };
    let (source, source_work) = connect("source", &config.source).await?;
    let (target, target_work) = connect("target", &config.target).await?;
    let ending = look(&source, &target, &facts, arguments).await;
    source_work.abort();
    target_work.abort();
    ending
}

async fn look(
    source: &Client,
    target: &Client,
    facts: &Facts,
    arguments: &PreflightArguments,
) -> Result<Ending, Failure> {
    if arguments.grants {
        let text = pgshadow_preflight::grants(source, target, facts).await;
        output::print(text.map_err(|error| Failure::Preflight(error.to_string()))?.trim_end())?;
        return Ok(Ending::Done);
    }
    let report = pgshadow_preflight::run(source, target, facts).await;
    if arguments.json {
        output::print_json(&report)?;
    } else {
        output::print(&describe(&report))?;
    }
    Ok(if report.blocked { Ending::DifferencesFound } else { Ending::Done })
}

async fn connect(place: &str, database: &Database) -> Result<(Client, JoinHandle<()>), Failure> {
    let failed = |why: String| Failure::Preflight(format!("the {place} ({database}) can't be reached: {why}"));
    let connected = tokio::time::timeout(CONNECT_MAX, database.postgres.connect(NoTls)).await;
    let connected = connected.map_err(|_| failed("it doesn't answer".to_owned()))?;
    let (client, connection) = connected.map_err(|error| {
        failed(error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned()))
    })?;
    let work = tokio::spawn(async move { drop(connection.await) });
    Ok((client, work))
}

fn describe(report: &Report) -> String {
    let mut text = String::new();
    if !report.findings.is_empty() {
        text.push_str(&format!("{}\n", listed(&report.findings)));
    }
    let counts = report.counts;
    text.push_str(&format!(
        "{} block, {} warnings, {} notes; {} checks ran",
        counts.block,
        counts.warn,
        counts.note,
        report.ran.len()
    ));
    if !report.not_run.is_empty() {
        let left_out: Vec<_> = report.not_run.iter().map(|check| format!("{} ({})", check.check, check.why)).collect();
        text.push_str(&format!(", not run: {}", output::printable(&left_out.join(", "))));
    }
    text.push('.');
    text
}

/// A table of findings.
pub(super) fn listed(findings: &[Finding]) -> String {
    let mut table = output::table(&["level", "check", "subject", "what happens", "mend"]);
    for finding in findings {
        table.add_row(row(finding).map(|cell| output::printable(&cell)));
    }
    table.to_string()
}

fn row(finding: &Finding) -> [String; 5] {
    let level = match finding.level {
        Level::Block => "block",
        Level::Warn => "warn",
        Level::Note => "note",
    };
    let place = match finding.place {
        Place::Source => "source",
        Place::Target => "target",
    };
    let sure = match finding.sure {
        Sure::Certain => "",
        Sure::Likely => " (likely)",
        Sure::Possible => " (possible)",
    };
    [
        level.to_owned(),
        finding.check.clone(),
        format!("{place}: {}", finding.subject),
        format!("{}{sure}", finding.happens),
        finding.mend.clone().unwrap_or_default(),
    ]
}
