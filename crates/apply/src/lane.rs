use crate::applier::Shared;
use crate::{Config, Dial, Log, OrderBook, Suspects};
use pgshadow_divergence::Store;
use std::sync::Arc;
use tokio::sync::watch;
pub(crate) struct Lane {
    pub(crate) shared: Arc<Shared>,
}
impl Lane {
    pub(crate) fn new(
        _c: Config,
        _d: Arc<dyn Dial>,
        _b: Arc<OrderBook>,
        _l: Arc<dyn Log>,
        _s: Arc<Store>,
        _u: Arc<dyn Suspects>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { shared }
    }
    pub(crate) async fn run(self, mut stopped: watch::Receiver<bool>) {
        self.shared.update(|s| s.connected = false);
        let _ = stopped.wait_for(|s| *s).await;
    }
}
