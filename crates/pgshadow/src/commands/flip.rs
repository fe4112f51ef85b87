use crate::arguments::FlipArguments;
use crate::failure::{Ending, Failure};
use crate::output::{self, printable};
use pgshadow_admin::{Client, End, FinishRequest, FlipOutcome, FlipReport, FlipRequest};
use pgshadow_model::Place;
use std::time::Duration;

/// How long a flip may take beyond the time that open transactions have: the mirror of the other direction is opened, sessions follow.
const BEYOND: Duration = Duration::from_secs(600);
/// With a flag file it may be put off for as long as one likes.
const POSTPONED: Duration = Duration::from_secs(30 * 24 * 3600);

/// Makes another database the primary.
///
/// # Errors
/// When the proxy doesn't answer, or the flip can't be begun.
pub async fn flip(client: &Client, to: Place, arguments: &FlipArguments) -> Result<Ending, Failure> {
    let report = client.flip(&request(to, arguments), wait(arguments)).await?;
    if arguments.json {
        output::print_json(&report)?;
    } else {
        output::print(&describe(&report))?;
    }
    Ok(ending(&report))
}

/// A cutover and a rollback.
///
/// # Errors
/// As [`flip`].
pub async fn rehearse(client: &Client, arguments: &FlipArguments) -> Result<Ending, Failure> {
    let reports = client.rehearse(&request(Place::Target, arguments), wait(arguments)).await?;
    if arguments.json {
        output::print_json(&reports)?;
    } else {
        output::print(&reports.iter().map(describe).collect::<Vec<_>>().join("\n\n"))?;
    }
    Ok(reports.last().map_or(Ending::NotDone, ending))
}

/// Ends the migration.
///
/// # Errors
/// When the proxy doesn't answer, or it can't be ended so.
pub async fn finish(client: &Client, end: End, json: bool) -> Result<Ending, Failure> {
    let report = client.finish(&FinishRequest { end }).await?;
    if json {
        output::print_json(&report)?;
    } else {
        let list = |title: &str, all: &[String]| all.iter().map(|one| format!("{title}: {one}")).collect::<Vec<_>>();
        let lines = [list("removed", &report.removed), list("left", &report.left)].concat();
        output::print(&lines.join("\n"))?;
    }
    Ok(Ending::Done)
}

fn request(to: Place, arguments: &FlipArguments) -> FlipRequest {
    FlipRequest {
        to,
        dry_run: arguments.dry_run,
        timeout_ms: u64::try_from(arguments.timeout.as_millis()).unwrap_or(u64::MAX),
        unrehearsed: arguments.unrehearsed,
        postpone_flag_file: arguments.postpone_cut_over_flag_file.as_ref().map(|path| path.display().to_string()),
    }
}

fn wait(arguments: &FlipArguments) -> Duration {
    let postponed = arguments.postpone_cut_over_flag_file.is_some();
    arguments.timeout.saturating_add(if postponed { POSTPONED } else { BEYOND })
}

fn ending(report: &FlipReport) -> Ending {
    match report.outcome {
        FlipOutcome::Flipped | FlipOutcome::DryRun => Ending::Done,
        FlipOutcome::Refused => Ending::DifferencesFound,
        FlipOutcome::Undone => Ending::NotDone,
    }
}

/// Gates, what was done when, and how it ended.
pub fn describe(report: &FlipReport) -> String {
    let mut gates = output::table(&["", "gate", "measured", "must be", "what opens it"]);
    for gate in &report.gates {
        let open = if gate.open { "open" } else { "CLOSED" };
        gates.add_row([open, &gate.name, &printable(&gate.value), &gate.threshold, &gate.mend]);
    }
    let ms = |us: u64| format!("{:.1} ms", us as f64 / 1000.0);
    let mut lines = vec![format!("from {} to {}, {}", report.from, report.to, report.started), gates.to_string()];
    lines.extend(report.timeline.iter().map(|moment| format!("{:>12}  {}", ms(moment.at_us), printable(&moment.what))));
    if let Some(predicted) = report.predicted_pause_ms {
        lines.push(format!("predicted pause: {predicted} ms and what open transactions take"));
    }
    if let Some(pause) = report.pause_us {
        lines.push(format!("new transactions were held for {}", ms(pause)));
        if let Some([p50, p99, max]) = report.added_us {
            let (p50, p99, max) = (ms(p50), ms(p99), ms(max));
            lines.push(format!("{} waited: p50 {p50}, p99 {p99}, longest {max}", report.held));
        }
        lines.push(format!(
            "sessions: {} taken along, {} ended (drivers connect again); {} sequences set",
            report.moved, report.ended, report.sequences
        ));
    }
    if !report.unmovable.is_empty() {
        let mut table = output::table(&["pid", "user", "application", "from", "can't be taken along, since"]);
        for one in &report.unmovable {
            table.add_row([
                &one.pid.to_string(),
                &printable(&one.user),
                &printable(&one.application),
                &one.address,
                &one.why,
            ]);
        }
        lines.push(table.to_string());
    }
    if !report.waited_for.is_empty() {
        lines.push("these transactions did not end in time:".to_owned());
        lines.push(super::pause::describe(&report.waited_for));
    }
    let reason = report.reason.as_deref().map(printable).unwrap_or_default();
    lines.push(match report.outcome {
        FlipOutcome::Flipped => format!("done: the {} is the primary", report.to),
        FlipOutcome::DryRun => "a dry run: all gates are open, and nothing was changed".to_owned(),
        FlipOutcome::Refused => format!("refused, and nothing was changed: {reason}"),
        FlipOutcome::Undone => format!("not done; all was undone, and the {} stays the primary: {reason}", report.from),
    });
    lines.join("\n")
}
