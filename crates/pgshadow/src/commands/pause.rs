use crate::arguments::PauseArguments;
use crate::failure::{Ending, Failure};
use crate::output::{self, milliseconds, printable};
use pgshadow_admin::{Client, Offender, PauseRequest};
use std::time::Duration;

/// Holds new transactions; returns once none is open.
///
/// # Errors
/// When the proxy doesn't answer, or another command holds them.
pub async fn pause(client: &Client, arguments: &PauseArguments) -> Result<Ending, Failure> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let request = PauseRequest { timeout_ms: ms(arguments.timeout), lease_ms: ms(arguments.lease) };
    let report = client.pause(&request).await?;
    if arguments.json {
        output::print_json(&report)?;
    } else if report.paused {
        let lease = humantime::format_duration(arguments.lease);
        output::print(&format!(
            "paused: open transactions ended within {} ms, new ones are held until `pgshadow resume`, or for {lease}",
            report.drain_ms
        ))?;
    } else {
        let waited = milliseconds(report.drain_ms);
        eprintln!("pgshadow: not paused: these transactions did not end within {waited}; all goes on");
        output::print(&describe(&report.waited_for))?;
    }
    Ok(if report.paused { Ending::Done } else { Ending::TimedOut })
}

/// Lets new transactions begin.
///
/// # Errors
/// When the proxy doesn't answer, or nothing is paused.
pub async fn resume(client: &Client) -> Result<Ending, Failure> {
    client.resume().await?;
    output::print("resumed")?;
    Ok(Ending::Done)
}

/// A table of sessions that hold a pause up.
pub fn describe(offenders: &[Offender]) -> String {
    let mut table = output::table(&["pid", "user", "application", "from", "state", "transaction", "query"]);
    for one in offenders {
        let age = one.transaction_ms.map(milliseconds).unwrap_or_default();
        let texts = [&one.user, &one.application, &one.address, &one.state, &age, &one.query];
        let mut row = vec![one.pid.to_string()];
        row.extend(texts.map(|text| printable(text)));
        table.add_row(row);
    }
    table.to_string()
}
