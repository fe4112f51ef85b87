use std::path::PathBuf;

/// Why the proxy can't run.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// An address can't be listened on.
    #[error("can't listen on {key} = \"{address}\": {source}; choose another address, or end what uses it")]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// Its value.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The relay can't start.
    #[error(transparent)]
    Proxy(#[from] pgshadow_proxy::Error),
    /// The data directory can't be made.
    #[error("can't make the directory [mirror_log] directory = \"{directory}\": {source}", directory = directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The log can't be opened.
    #[error(transparent)]
    Log(#[from] pgshadow_mirror_log::Error),
    /// The store of findings can't be opened or written.
    #[error(transparent)]
    Store(#[from] pgshadow_divergence::Error),
    /// The journal of flips can't be used.
    #[error(transparent)]
    Journal(#[from] pgshadow_cutover::Error),
    /// The primary refuses what pgshadow needs.
    #[error("the primary can't be used: {0}")]
    Primary(String),
    /// The shadow can't be one.
    #[error("the shadow can't be used: {0}; [target] url names it")]
    Shadow(String),
    /// Something else at the start.
    #[error("can't start: {0}")]
    Start(String),
}
