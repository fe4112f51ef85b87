//! Programs of ops' own, before and after a flip. They are told by the environment: `PGSHADOW_FROM`, `PGSHADOW_TO`, and behind it `PGSHADOW_OUTCOME`,
//! `PGSHADOW_REASON`; the report is on their standard input, as JSON.
use crate::config::Cutover;
use pgshadow_admin::FlipReport;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long one may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// What it says is told up to so many characters.
const SAID_MAX: usize = 500;

/// The one that may veto.
///
/// # Errors
/// It does, or can't be run.
pub(super) async fn before(hooks: &Cutover, report: &FlipReport) -> Result<(), String> {
    match &hooks.before {
        Some(program) => {
            run(program, report, false).await.map_err(|why| format!("[cutover] before = {}: {why}", program.display()))
        }
        None => Ok(()),
    }
}

/// The one that is told how it ended.
pub(super) async fn after(hooks: &Cutover, report: &FlipReport) {
    let Some(program) = &hooks.after else { return };
    if let Err(why) = run(program, report, true).await {
        tracing::warn!(program = %program.display(), why, "the program behind a flip has failed");
    }
}

async fn run(program: &Path, report: &FlipReport, ended: bool) -> Result<(), String> {
    let mut command = Command::new(program);
    command.env("PGSHADOW_FROM", report.from.to_string()).env("PGSHADOW_TO", report.to.to_string());
    if ended {
        let outcome = serde_json::to_value(report.outcome).ok().and_then(|word| word.as_str().map(str::to_owned));
        command.env("PGSHADOW_OUTCOME", outcome.unwrap_or_default());
        command.env("PGSHADOW_REASON", report.reason.clone().unwrap_or_default());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("it can't be run: {error}"))?;
    let (input, text) = (child.stdin.take(), serde_json::to_vec(report).unwrap_or_default());
    let written = async move {
        // one that doesn't read it is no matter
        if let Some(mut input) = input {
            let _ = input.write_all(&text).await;
        }
    };
    let ended = async { tokio::join!(written, child.wait_with_output()).1 };
    let output = tokio::time::timeout(TIMEOUT, ended).await;
    let output =
        output.map_err(|_| format!("it did not end within {TIMEOUT:?}"))?.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said: String = String::from_utf8_lossy(&said).trim().chars().take(SAID_MAX).collect();
    Err(format!("it ended with {}: {said}", output.status))
}
