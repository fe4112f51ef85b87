//! How a command ends other than well, and the exit code for it.
use crate::assembly::AssemblyError;
use crate::config::ConfigError;
use crate::demo::DemoError;
use pgshadow_admin::ClientError;
use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// 0: done.
    Done,
    /// 1: it was undone, and is told why.
    NotDone,
    /// 3: differences found, or a gate is closed.
    DifferencesFound,
    /// 4: `wait` timed out.
    TimedOut,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(match ending {
            Ending::Done => 0,
            Ending::NotDone => 1,
            Ending::DifferencesFound => 3,
            Ending::TimedOut => 4,
        })
    }
}

/// 1: why a command failed, in one line that names cause and remedy. (2, wrong use, comes from the arguments.)
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The running proxy didn't answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The proxy can't run.
    #[error(transparent)]
    Run(#[from] AssemblyError),
    /// The demo ended otherwise than well.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// A backfill ended before all was done.
    #[error("backfill: {0}")]
    Backfill(String),
    /// A verify has no result.
    #[error("verify: {0}")]
    Verify(String),
    /// A finding isn't there.
    #[error("acknowledge: {0}")]
    Acknowledge(String),
    /// A server can't be looked at.
    #[error("preflight: {0}")]
    Preflight(String),
    /// The system refused something.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// Something can't be written as JSON.
    #[error("can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}
