use crate::arguments::BackfillArguments;
use crate::commands::preflight::listed;
use crate::commands::screen::{self, Screen};
use crate::failure::{Ending, Failure};
use crate::output;
use pgshadow_admin::{BackfillReport, BackfillRequest, Client};
use pgshadow_backfill::{Shown, TableLoad};

/// Tables named that are at work.
const AT_WORK: usize = 3;
/// Differences of the schemas that are named.
const TOLD_MAX: usize = 30;

/// Loads the shadow.
///
/// # Errors
/// When the proxy doesn't answer, or can't.
pub async fn backfill(client: &Client, arguments: &BackfillArguments) -> Result<Ending, Failure> {
    if arguments.stop {
        client.stop_backfill().await?;
        output::print("stopped: `pgshadow backfill` goes on with what is left")?;
        return Ok(Ending::Done);
    }
    let BackfillArguments { table, create_schema, again, rate_max, skip_preflight, .. } = arguments;
    let request = BackfillRequest {
        tables: table.clone(),
        create_schema: *create_schema,
        again: *again,
        rate_max_bytes: *rate_max,
        skip_preflight: *skip_preflight,
    };
    let started = client.backfill(&request).await?;
    let screen = Screen::new("backfill");
    let report = loop {
        let state = client.backfill_state().await?;
        match (state.running, state.last) {
            (Some(running), _) if running.number == started.number => {
                screen.show(running.progress.bytes_done, running.progress.bytes, words(&running.progress));
            }
            (_, Some(last)) if last.number == started.number => break last,
            _ => return Err(Failure::Backfill("pgshadow was restarted meanwhile: begin again, it goes on".to_owned())),
        }
        tokio::time::sleep(screen::LOOKS_EVERY).await;
    };
    screen.end();
    if arguments.json {
        output::print_json(&report)?;
    } else if report.failed.is_none() {
        output::print(&describe(&report))?;
    } else if !report.blocked_by.is_empty() {
        output::print(&format!(
            "{}\nNothing was begun. Mend what is named, or load all the same: --skip-preflight.",
            listed(&report.blocked_by)
        ))?;
    }
    match report.failed {
        Some(_) if !report.blocked_by.is_empty() => Ok(Ending::DifferencesFound),
        Some(why) => Err(Failure::Backfill(why)),
        None if report.is_whole() => Ok(Ending::Done),
        None => Ok(Ending::DifferencesFound),
    }
}

fn words(shown: &Shown) -> String {
    let mut text =
        format!("{}: {} of {} tables, {} rows", shown.stage.word(), shown.tables_done, shown.tables, shown.rows);
    let at_work = shown.each.iter().filter(|load| load.state != "waiting" && load.state != "done");
    let named: Vec<String> = at_work.take(AT_WORK).map(at_work_words).collect();
    if !named.is_empty() {
        text.push_str(&format!(" ({})", named.join(", ")));
    }
    if let Some(left) = shown.left_ms {
        text.push_str(&format!(", {} left", output::milliseconds(left / 1000 * 1000)));
    }
    if shown.snapshot_age_ms > 0 {
        text.push_str(&format!(", snapshot {} old", output::milliseconds(shown.snapshot_age_ms / 1000 * 1000)));
    }
    if let Some(waiting) = &shown.waiting {
        text.push_str(&format!(", waiting: {waiting}"));
    }
    text
}

fn at_work_words(load: &TableLoad) -> String {
    match load.state.as_str() {
        "copying" => {
            format!(
                "{}: {} of {}",
                load.table,
                output::bytes(load.bytes_done.min(load.bytes)),
                output::bytes(load.bytes)
            )
        }
        state => format!("{}: {state}", load.table),
    }
}

fn describe(report: &BackfillReport) -> String {
    let mut table = output::table(&["table", "rows", "bytes", "seconds", ""]);
    for load in &report.tables {
        let suspect = if report.suspect.contains(&load.table) { "suspect again" } else { "" };
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        let seconds = format!("{:.1}", load.elapsed_ms as f64 / 1000.0);
        table.add_row([
            load.table.clone(),
            load.rows.to_string(),
            output::bytes(load.bytes),
            seconds,
            suspect.to_owned(),
        ]);
    }
    let mut text = format!("{table}\n");
    if !report.not_made.is_empty() {
        text.push_str("Not made on the target, and to be done by hand:\n");
        report.not_made.iter().for_each(|told| text.push_str(&output::printable(&format!("  {told}\n"))));
    }
    if !report.differences.is_empty() {
        text.push_str("Defined otherwise on the target:\n");
        let told = report.differences.iter().take(TOLD_MAX);
        told.for_each(|difference| text.push_str(&output::printable(&format!("  {difference}\n"))));
        if report.differences.len() > TOLD_MAX {
            text.push_str(&format!("  ... and {} more: see --json\n", report.differences.len() - TOLD_MAX));
        }
    }
    let rows: u64 = report.tables.iter().map(|load| load.rows).sum();
    text.push_str(&format!("{} tables, {rows} rows are loaded.", report.tables.len()));
    if !report.suspect.is_empty() {
        text.push_str(&format!(
            " Suspect again, since something was done that isn't known (see `pgshadow status`): {}.",
            report.suspect.join(", ")
        ));
    }
    text.push_str(" Prove that both databases are equal: pgshadow verify");
    text
}
