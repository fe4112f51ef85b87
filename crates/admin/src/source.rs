use crate::Status;
use pgshadow_model::Finding;
use std::time::Duration;

/// What the windows look at; the assembly implements it.
pub trait Source: Send + Sync + 'static {
    /// The state now. Cheap: it is asked for every second by `status --watch`.
    fn status(&self) -> Status;

    /// Everything in the store of findings, in order of `id`. May read from disk.
    fn findings(&self) -> Vec<Finding>;

    /// Waits until the shadow has applied all that was committed when this was called, and rows that did not fit are
    /// healed. `false`: not within `timeout`.
    fn drained(&self, timeout: Duration) -> impl Future<Output = bool> + Send;

    /// Whether clients can be served; if not, why.
    ///
    /// # Errors
    /// The one reason for not being ready.
    fn ready(&self) -> Result<(), String>;
}
