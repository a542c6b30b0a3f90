//! How a node is told to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit status of a process that a second signal ended.
pub const INTERRUPTED: u8 = 130;

/// The first SIGTERM or SIGINT cancels `shutdown`, which drains and stops; the second ends the process at once with
/// [`INTERRUPTED`].
///
/// # Errors
/// If the system does not let signals be listened for.
pub fn stop_on_signals(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for again in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if again {
                std::process::exit(INTERRUPTED.into());
            }
            tracing::info!("stopping: draining first; a second signal stops at once");
            shutdown.cancel();
        }
    });
    Ok(())
}
