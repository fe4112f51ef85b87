use crate::arguments::VerifyArguments;
use crate::commands::screen::{self, Screen};
use crate::failure::{Ending, Failure};
use crate::output;
use pgshadow_admin::{Client, VerifyReport, VerifyRequest};
use pgshadow_model::Kind;
use pgshadow_verify::{Difference, DifferentColumn, Shown, TableOutcome};

/// Differing rows shown of a table.
const EXAMPLES: usize = 3;

/// Compares both databases row by row.
///
/// # Errors
/// When the proxy doesn't answer, or can't.
pub async fn verify(client: &Client, arguments: &VerifyArguments) -> Result<Ending, Failure> {
    if arguments.stop {
        client.stop_verify().await?;
        output::print("stopped: tables that were compared by then keep what was found; the next one begins anew")?;
        return Ok(Ending::Done);
    }
    let started = client.verify(&VerifyRequest { tables: arguments.table.clone(), again: arguments.again }).await?;
    let screen = Screen::new("verify");
    let report = loop {
        let state = client.verify_state().await?;
        match (state.running, state.last) {
            (Some(running), _) if running.number == started.number => {
                screen.show(running.progress.bytes_done, running.progress.bytes, words(&running.progress))
            }
            (_, Some(last)) if last.number == started.number => break last,
            _ => {
                return Err(Failure::Verify(
                    "no result: pgshadow was restarted meanwhile; begin again, it goes on".to_owned(),
                ));
            }
        }
        tokio::time::sleep(screen::LOOKS_EVERY).await;
    };
    screen.end();
    if arguments.json {
        output::print_json(&report)?;
    } else if report.failed.is_none() {
        output::print(&describe(&report))?;
    }
    if let Some(why) = report.failed {
        return Err(Failure::Verify(format!("no result: {why}")));
    }
    if let Some(file) = &arguments.certificate {
        let mut text = serde_json::to_string_pretty(&client.certificate().await?)?;
        text.push('\n');
        std::fs::write(file, text).map_err(|error| {
            Failure::Verify(format!("the certificate can't be written to {}: {error}", file.display()))
        })?;
    }
    Ok(if report.is_equal() { Ending::Done } else { Ending::DifferencesFound })
}

fn words(shown: &Shown) -> String {
    let mut text = format!("{} of {} tables", shown.tables_done, shown.tables);
    if shown.tables_unequal > 0 {
        text.push_str(&format!(", {} not equal", shown.tables_unequal));
    }
    if let Some(left) = shown.left_ms {
        text.push_str(&format!(", {} left", output::milliseconds(left / 1000 * 1000)));
    }
    if let Some(waiting) = &shown.waiting {
        text.push_str(&format!(", waiting: {waiting}"));
    }
    text
}

fn describe(report: &VerifyReport) -> String {
    let mut table = output::table(&["table", "rows", "bytes", "hash", "missing", "extra", "different", "seconds"]);
    for t in &report.tables {
        let verdict = match &t.not_compared {
            Some(why) => format!("not compared: {why}"),
            None => t.hash.clone(),
        };
        table.add_row([
            t.table.to_string(),
            t.rows.to_string(),
            output::bytes(t.bytes),
            verdict,
            t.missing.to_string(),
            t.extra.to_string(),
            t.different.to_string(),
            if t.snapshots == 0 { "before".to_owned() } else { format!("{:.1}", t.seconds) },
        ]);
    }
    let mut text = format!("{table}\n");
    for t in report.tables.iter().filter(|t| !t.differences.is_empty()) {
        text.push_str(&examples(t));
    }
    if !report.excluded.is_empty() {
        text.push_str(&format!("Not mirrored, and not compared: {}.\n", report.excluded.join(", ")));
    }
    let before = report.tables.iter().filter(|t| t.snapshots == 0).count();
    if before > 0 {
        text.push_str(&format!(
            "{before} tables were found equal before pgshadow was restarted, and have been applied exactly since (--again compares them anew).\n"
        ));
    }
    let unequal = report.tables.iter().filter(|t| !t.is_equal()).count();
    let rows: u64 = report.tables.iter().map(|t| t.rows).sum();
    let held = report.held_ms.iter().copied().fold(0.0, f64::max);
    let verdict = match unequal {
        0 => "equal".to_owned(),
        n => format!("{n} tables are not equal"),
    };
    text.push_str(&format!(
        "{} tables, {rows} rows: {verdict}. The applier was held for {held:.0} ms at most.",
        report.tables.len()
    ));
    text
}

fn examples(outcome: &TableOutcome) -> String {
    let name = outcome.table.to_string();
    let shown = outcome.differences.iter().take(EXAMPLES);
    let mut text: String = shown.map(|difference| describe_difference(&name, difference)).collect();
    let more = outcome.differ().saturating_sub(EXAMPLES as u64);
    if more > 0 {
        text.push_str(&format!("{name}: ... and {more} more: see `pgshadow report` and --json\n"));
    }
    text
}

/// A row that differs, for people.
pub(super) fn describe_difference(table: &str, difference: &Difference) -> String {
    let (key, row) = (&difference.key, difference.row.as_deref().unwrap_or_default());
    let text = match difference.kind {
        Kind::MissingRow => format!("{table}: {key}: the shadow has no such row\n    primary: {row}\n"),
        Kind::ExtraRow => format!("{table}: {key}: only the shadow has this row\n    shadow: {row}\n"),
        _ => {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
            let column = |column: &DifferentColumn| {
                format!("    {}: primary {}, shadow {}\n", column.name, value(&column.primary), value(&column.shadow))
            };
            format!("{table}: {key}: the rows differ\n{}", difference.columns.iter().map(column).collect::<String>())
        }
    };
    output::printable(&text)
}
