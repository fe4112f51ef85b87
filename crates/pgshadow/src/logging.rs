//! Logs: on stderr, for people on a terminal, else one JSON object a line.
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// Sets up the logs of this process: what `RUST_LOG` says, else `level`; JSON when stderr is no terminal, or with
/// `PGSHADOW_LOG=json` (`PGSHADOW_LOG=text` is the opposite).
pub fn start(level: &str) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("{level},tokio_postgres=warn")));
    let json = match std::env::var("PGSHADOW_LOG").as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        _ => !io::stderr().is_terminal(),
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if json {
        logs.json().flatten_event(true).init();
    } else {
        logs.with_ansi(io::stderr().is_terminal()).init();
    }
}
