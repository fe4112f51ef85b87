use super::verify::{self, describe_difference};
use crate::arguments::{RepairArguments, VerifyArguments};
use crate::failure::{Ending, Failure};
use crate::output;
use pgshadow_admin::{Client, Drained, RepairReport, RepairRequest};
use std::time::Duration;

/// How long the applier may take for the rows.
const WAIT: Duration = Duration::from_secs(600);

/// Mends what the last verify found, and verifies these tables again.
///
/// # Errors
/// When the proxy doesn't answer, or can't.
pub async fn repair(client: &Client, arguments: &RepairArguments) -> Result<Ending, Failure> {
    let request = RepairRequest { tables: arguments.table.clone(), dry_run: arguments.dry_run };
    let report = client.repair(&request).await?;
    if arguments.json && arguments.dry_run {
        output::print_json(&report)?;
    } else if !arguments.json {
        output::print(&describe(&report, arguments.dry_run))?;
    }
    if arguments.dry_run {
        return Ok(if report.tables.is_empty() { Ending::Done } else { Ending::DifferencesFound });
    }
    let tables: Vec<String> = report.tables.iter().map(|table| table.table.clone()).collect();
    if tables.is_empty() {
        return Ok(Ending::Done);
    }
    if client.drained(WAIT).await? != Drained::Yes {
        let waited = humantime::format_duration(WAIT);
        eprintln!("pgshadow: the rows were not written within {waited}; they still will be: see `pgshadow status`");
        return Ok(Ending::TimedOut);
    }
    let again = VerifyArguments { table: tables, certificate: None, again: false, stop: false, json: arguments.json };
    verify::verify(client, &again).await
}

fn describe(report: &RepairReport, dry_run: bool) -> String {
    if report.tables.is_empty() {
        return "The last verify found nothing to mend.".to_owned();
    }
    let mut text = String::new();
    for table in &report.tables {
        let name = &table.table;
        if let Some(why) = &table.not_repaired {
            text.push_str(&format!("{name}: can't be mended row by row: {why}\n"));
            continue;
        }
        let what = if dry_run { "would be read again" } else { "are read again" };
        text.push_str(&format!("{name}: {} rows {what} on the primary and written to the shadow\n", table.rows.len()));
        if dry_run {
            table.rows.iter().for_each(|row| text.push_str(&describe_difference(name, row)));
        }
        if table.left > 0 {
            text.push_str(&format!("{name}: {} more differ; verify and repair again for them\n", table.left));
        }
    }
    text.trim_end().to_owned()
}
