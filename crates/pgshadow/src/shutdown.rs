//! The end of the program: the first SIGTERM or SIGINT asks everyone to finish, the second ends it at once.
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code after a second signal.
const IMPATIENT: i32 = 130;

/// A token that the first signal cancels.
///
/// # Errors
/// When the system doesn't let signals be handled.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if token.is_cancelled() {
                tracing::warn!("{name} again: ending at once");
                std::process::exit(IMPATIENT);
            }
            tracing::info!("{name}: shutting down; send it again to end at once");
            token.cancel();
        }
    });
    Ok(shutdown)
}
