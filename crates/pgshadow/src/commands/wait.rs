use crate::failure::{Ending, Failure};
use crate::output;
use pgshadow_admin::{Client, Drained};
use std::time::Duration;

/// Waits until the shadow has what was committed when this was called.
///
/// # Errors
/// When the proxy doesn't answer.
pub async fn wait_drained(client: &Client, timeout: Duration) -> Result<Ending, Failure> {
    match client.drained(timeout).await? {
        Drained::Yes => {
            output::print("drained: the shadow has everything that was committed when this was asked")?;
            Ok(Ending::Done)
        }
        Drained::TimedOut { mirroring, lag, applier } => {
            let cause = match (mirroring, applier.last_error) {
                (false, _) => "; mirroring is off, so waiting longer won't help".to_owned(),
                (true, Some(error)) => format!("; the shadow says: {error}"),
                (true, None) if !applier.connected => "; there is no connection to the shadow".to_owned(),
                (true, None) => String::new(),
            };
            let mut left = format!("{} transactions ({}) are left", lag.entries, output::bytes(lag.bytes));
            if applier.rows_to_heal > 0 {
                left.push_str(&format!(", {} rows wait to be read again on the primary", applier.rows_to_heal));
            }
            eprintln!("pgshadow: not drained within {}: {left}{cause}", humantime::format_duration(timeout));
            Ok(Ending::TimedOut)
        }
    }
}
