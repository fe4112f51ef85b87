use crate::arguments::ReportArguments;
use crate::failure::{Ending, Failure};
use crate::output;
use pgshadow_admin::{Client, FindingView, FlipReport, Report};
use serde::Serialize;
use std::collections::BTreeMap;

/// How many findings of one origin are shown.
const EXAMPLES: usize = 3;

/// Shows the findings.
///
/// # Errors
/// When the proxy doesn't answer.
pub async fn report(client: &Client, arguments: &ReportArguments) -> Result<Ending, Failure> {
    let report = client.report(arguments.since).await?;
    let mut flips = client.flips().await?;
    if let Some(since) = arguments.since {
        flips.retain(|flip| humantime::parse_rfc3339(&flip.started).is_ok_and(|started| started >= since));
    }
    if arguments.json {
        output::print_json(&Told { report: &report, flips: &flips })?;
    } else {
        let flips = flips.iter().map(|flip| format!("{}\n\n", super::flip::describe(flip)));
        output::print(&(flips.collect::<String>() + &describe(&report)))?;
    }
    Ok(if report.open() == 0 { Ending::Done } else { Ending::DifferencesFound })
}

/// As JSON has it.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    report: &'a Report,
    flips: &'a [FlipReport],
}

fn describe(report: &Report) -> String {
    if report.findings.is_empty() {
        return "No findings.".to_owned();
    }
    let mut origins: BTreeMap<(&Option<String>, &str), Vec<&FindingView>> = BTreeMap::new();
    for finding in &report.findings {
        origins.entry((&finding.table, &finding.fingerprint)).or_default().push(finding);
    }
    let mut text = String::new();
    for findings in origins.values() {
        text.push_str(&describe_origin(findings));
        text.push('\n');
    }
    text.push_str(&format!("{} findings, {} open.", report.findings.len(), report.open()));
    text
}

/// One origin: a heading, and a table for each of a few examples.
fn describe_origin(findings: &[&FindingView]) -> String {
    let Some(first) = findings.first() else { return String::new() };
    let seen: u64 = findings.iter().map(|finding| finding.count).sum();
    let open = findings.iter().filter(|finding| finding.is_open()).count();
    let table = first.table.as_deref().unwrap_or("no table");
    let mut text = format!(
        "{} on {table}, cause {}, severity {}: {} findings seen {seen} times, {open} open (fingerprint {})\n",
        word(&first.kind),
        word(&first.cause),
        word(&first.severity),
        findings.len(),
        first.fingerprint,
    );
    for finding in findings.iter().take(EXAMPLES) {
        text.push_str(&format!("{}\n", evidence(finding)));
    }
    if findings.len() > EXAMPLES {
        text.push_str(&format!("... and {} more: see `pgshadow report --json`\n", findings.len() - EXAMPLES));
    }
    text
}

fn evidence(finding: &FindingView) -> comfy_table::Table {
    let state = match (finding.healed, finding.acknowledged) {
        (true, _) => "healed",
        (false, true) => "acknowledged",
        (false, false) => "open",
    };
    let mut table = output::table(&[]);
    let rows = [
        ("finding", Some(format!("{}, {state}", finding.id))),
        ("key", finding.key.clone()),
        ("column", finding.column.clone()),
        ("primary", finding.primary.clone()),
        ("shadow", finding.shadow.clone()),
        ("sqlstate", finding.sqlstate.clone()),
        ("message", finding.message.clone()),
        ("sql", finding.sql.clone()),
        ("transaction", finding.xid.map(|xid| xid.to_string())),
        ("user", finding.user.clone()),
        ("application", finding.application.clone()),
        ("seen", Some(format!("{} times, {} to {}", finding.count, finding.first_seen, finding.last_seen))),
    ];
    for (name, value) in rows {
        if let Some(value) = value {
            table.add_row([name.to_owned(), output::printable(&value)]);
        }
    }
    table
}

/// The word of a closed list, as JSON has it.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|json| json.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::finding;
    use super::*;

    #[test]
    fn people_see_three_examples_of_each_origin() {
        let report = Report::new((1..=5).map(|id| finding(id, id == 5)).collect(), None);
        let text = describe(&report);
        for expected in [
            "missing_row on public.orders, cause written_behind, severity error: 5 findings seen 10 times, 4 open",
            "id=3",
            "... and 2 more",
            "5 findings, 4 open.",
            "new \u{fffd}[31mred",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
        assert!(!text.contains("id=4") && !text.contains('\x1b'), "{text}");
        assert_eq!(describe(&Report::new(Vec::new(), None)), "No findings.");
    }
}
