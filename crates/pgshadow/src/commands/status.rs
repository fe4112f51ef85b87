use crate::arguments::StatusArguments;
use crate::failure::{Ending, Failure};
use crate::output;
use pgshadow_admin::{Client, Status};
use std::io::{IsTerminal, stdout};
use std::time::Duration;

/// How often `--watch` asks.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Clears a terminal and puts the cursor in its first corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows the state, once or again and again.
///
/// # Errors
/// When the proxy doesn't answer.
pub async fn status(client: &Client, arguments: &StatusArguments) -> Result<Ending, Failure> {
    loop {
        let status = client.status().await?;
        if arguments.json {
            if arguments.watch {
                output::print(&serde_json::to_string(&status)?)?;
            } else {
                output::print_json(&status)?;
            }
        } else {
            let clear = if arguments.watch && stdout().is_terminal() { CLEAR } else { "" };
            output::print(&format!("{clear}{}", describe(&status)))?;
        }
        if !arguments.watch {
            return Ok(Ending::Done);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn describe(status: &Status) -> String {
    let mut table = output::table(&[]);
    let yes_no = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    let certificate = match (&status.certificate.reason, status.certificate.valid) {
        (_, true) => format!("valid for {} tables", status.certificate.tables),
        (Some(reason), false) => format!("none: {reason}"),
        (None, false) => "none".to_owned(),
    };
    let applier = match (&status.applier.last_error, status.applier.connected) {
        (Some(error), connected) => format!("{}: {error}", if connected { "connected" } else { "not connected" }),
        (None, true) => "connected".to_owned(),
        (None, false) => "not connected".to_owned(),
    };
    let log = format!("{} of {}", output::bytes(status.log.bytes), output::bytes(status.log.bytes_max));
    let lag = &status.lag;
    let rows = [
        ("version", status.version.clone()),
        ("phase", status.phase.word().to_owned()),
        ("primary", status.primary.to_string()),
        ("mirroring", yes_no(status.mirroring)),
        ("paused", yes_no(status.paused)),
        ("clients", status.clients.to_string()),
        ("lag", format!("{} entries, {}, {}", lag.entries, output::bytes(lag.bytes), output::milliseconds(lag.ms))),
        ("log", if status.log.poisoned { format!("{log}, POISONED by a failed sync") } else { log }),
        ("shadow", format!("{applier}, {} rows applied", status.applier.rows_applied)),
        ("open findings", status.findings_open.to_string()),
        ("healed rows", status.healed_rows.to_string()),
        ("suspect tables", status.suspect_tables.len().to_string()),
        ("certificate", certificate),
    ];
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    let mut text = table.to_string();
    if !status.suspect_tables.is_empty() {
        let mut suspects = output::table(&["suspect table", "reason", "since"]);
        for suspect in &status.suspect_tables {
            suspects.add_row([&suspect.table, &suspect.reason, &suspect.since]);
        }
        text.push_str(&format!("\n{suspects}"));
    }
    if !status.note.is_empty() {
        text.push_str(&format!("\nNote: {}.", status.note));
    }
    if !status.next_step.is_empty() {
        text.push_str(&format!("\nNext: {}", status.next_step));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::status_with_a_suspect;
    use super::*;

    #[test]
    fn people_see_what_matters() {
        let text = describe(&status_with_a_suspect());
        for expected in [
            "2 entries, 2.0 KiB, 1s 500ms",
            "POISONED",
            "not connected: connection refused, 5 rows applied",
            "public.orders",
            "written while mirroring was off",
            "none: no verify was run",
            "Note: both databases are taken to start equal: load the target by",
            "Next: look at `pgshadow report`",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }
}
