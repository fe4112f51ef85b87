//! Joins the rooms.
use crate::config::Config;
use tokio_util::sync::CancellationToken;

/// Why the proxy can't run.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// The rooms aren't joined yet.
    #[error("not assembled")]
    NotAssembled,
}

/// Runs the proxy until `shutdown`.
///
/// # Errors
/// When it can't start, or can't go on.
pub async fn run(_config: Config, _shutdown: CancellationToken) -> Result<(), AssemblyError> {
    Err(AssemblyError::NotAssembled)
}
