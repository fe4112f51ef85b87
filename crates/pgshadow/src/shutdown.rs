//! The end of the program: the first SIGTERM or SIGINT asks everyone to finish, the second ends it at once.
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};
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
        let mut name = next(&mut terminate, &mut interrupt).await;
        tracing::info!("{name}: shutting down; send it again to end at once");
        token.cancel();
        name = next(&mut terminate, &mut interrupt).await;
        tracing::warn!("{name} again: ending at once");
        std::process::exit(IMPATIENT);
    });
    Ok(shutdown)
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, id};
    use std::time::Duration;

    #[tokio::test]
    async fn the_first_signal_asks_for_the_end() {
        let shutdown = on_signal().unwrap();
        assert!(!shutdown.is_cancelled());
        assert!(Command::new("kill").args(["-TERM", &id().to_string()]).status().unwrap().success());
        tokio::time::timeout(Duration::from_secs(5), shutdown.cancelled()).await.unwrap();
    }
}
