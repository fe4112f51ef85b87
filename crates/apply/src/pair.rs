//! Two snapshots that hold the same: one of the primary, and one of the shadow, brought to exactly that meanwhile.
//!
//! Lanes are held from a moment before the first is taken until the second is; what the first contains is applied in between, by
//! transaction id, and nothing else. An entry that it contains never depends on one that it doesn't, so that nothing of the latter
//! is missed. Rows that wait to be read again would differ: while there are some, no pair is made.

use crate::Error;
use crate::common::Common;
use crate::dial::{Connected, connect};
use crate::fence::insert_position;
use crate::heal::QUIET_WITHIN;
use crate::lane::Lane;
use crate::position::{Fence, Snapshot};
use crate::session::Session;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::RwLockWriteGuard;
use tokio::time::Instant;

/// How long a server may take to open its snapshot.
const OPEN_MAX: Duration = Duration::from_secs(20);

/// A transaction that only holds a snapshot must be ended by nobody but us.
const SETTINGS: &str = "
SET application_name = 'pgshadow snapshot'; SET search_path = pg_catalog; SET statement_timeout = '10s';
SET default_transaction_read_only = on;
SELECT pg_catalog.set_config(s.name, '0', false) FROM pg_catalog.pg_settings s
    WHERE s.name IN ('idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')";
const OPEN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A snapshot that other connections can take over for as long as this lives (`SET TRANSACTION SNAPSHOT`, PostgreSQL manual). Its
/// transaction touches no table, so that it holds no lock on any.
pub struct Exported {
    name: String,
    connected: Connected,
}

impl Exported {
    /// What `SET TRANSACTION SNAPSHOT` takes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it can still be taken over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.connected.client.is_closed()
    }
}

/// Snapshots of both databases that hold the same.
pub struct SnapshotPair {
    /// Of the primary.
    pub primary: Exported,
    /// Of the shadow.
    pub shadow: Exported,
    /// What the primary's sees, as `txid_current_snapshot()` writes it.
    pub sees: String,
    /// How long no lane could apply for it.
    pub held: Duration,
}

/// Why the applier can't do now what it was asked for; to be asked again.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// A lane is at something that takes long.
    #[error("the applier is at work on something long")]
    Long,
    /// A transaction that was in flight at the snapshot has no outcome yet.
    #[error("a transaction that was in flight has no outcome yet")]
    InFlight,
    /// Tables are loaded from a snapshot, and held meanwhile.
    #[error("tables are being loaded")]
    Loading,
    /// Rows are to be read again first.
    #[error("rows wait to be read again")]
    Heals,
    /// The applier has no connection to the shadow, or lost it.
    #[error("the applier has lost the shadow")]
    Lost,
    /// A server did not do its part.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Lane {
    pub(crate) async fn pair(&mut self, session: &mut Session) -> Result<SnapshotPair, PairError> {
        self.doing("two snapshots: connecting");
        let (on_primary, on_shadow) = futures::try_join!(
            self.connected(&self.config.primary, "primary"),
            self.connected(&self.config.shadow, "shadow"),
        )?;
        let common = Arc::clone(&self.common);
        let quiet = self.hold_lanes(&common).await?;
        let held_since = Instant::now();
        let (primary, sees) = self.bring_to_snapshot(session, on_primary).await?;
        // what is proven by it is proven of no older state
        self.log.marked(session.mark(&self.config.stream, 0).await?);
        self.doing("two snapshots: the shadow's");
        let brought = held_since.elapsed();
        let (shadow, _) = open(on_shadow, "shadow").await?;
        drop(quiet);
        let held = held_since.elapsed();
        tracing::debug!(?held, of_it_for_the_shadows = ?(held - brought), "two snapshots");
        Ok(SnapshotPair { primary, shadow, sees, held })
    }

    /// Waits until the other lanes have done what they are at; they take nothing more as long as what it gives lives.
    pub(crate) async fn hold_lanes<'a>(&self, common: &'a Common) -> Result<RwLockWriteGuard<'a, ()>, PairError> {
        self.doing("a snapshot: other lanes end what they are at");
        let quiet = tokio::time::timeout(QUIET_WITHIN, common.quiet.write()).await;
        let quiet = quiet.map_err(|_| PairError::Long)?;
        // now that no lane can answer anybody who has something held
        if self.book.is_holding() {
            return Err(PairError::Loading);
        }
        if self.book.is_in_hand() {
            return Err(PairError::Long);
        }
        if !self.healing.is_empty() {
            return Err(PairError::Heals);
        }
        Ok(quiet)
    }

    /// A snapshot of the primary, and the shadow brought to it. Other lanes are held.
    pub(crate) async fn bring_to_snapshot(
        &mut self,
        session: &mut Session,
        on_primary: Connected,
    ) -> Result<(Exported, String), PairError> {
        let common = Arc::clone(&self.common);
        session.keep_up(&common.definitions);
        let epoch = self.book.epoch();
        self.doing("a snapshot of the primary");
        let begun = Instant::now();
        let (primary, text) = open(on_primary, "primary").await?;
        let opened = begun.elapsed();
        // After the snapshot: whatever it sees had begun before it could commit.
        let mark = self.book.barrier();
        let after = insert_position(&primary.connected.client).await?;
        let fence = Fence { snapshot: Snapshot::parse(epoch, &text).map_err(Error::from)?, mark, after };
        if self.book.epoch() != epoch {
            return Err(Error::EpochChanged.into());
        }
        self.doing("a snapshot: the shadow is brought to the primary's");
        let brought = self.bring_to(session, &fence).await;
        tracing::debug!(?opened, brought_after = ?begun.elapsed(), "a snapshot of the primary, and the shadow brought to it");
        if !brought? {
            return Err(PairError::InFlight);
        }
        if !self.healing.is_empty() {
            return Err(PairError::Heals);
        }
        Ok((primary, text))
    }

    pub(crate) async fn connected(
        &self,
        config: &tokio_postgres::Config,
        whom: &'static str,
    ) -> Result<Connected, Error> {
        let within = self.config.connect_timeout;
        let made = connect(&*self.dial, config, within, whom).await?;
        let settled = tokio::time::timeout(within, made.client.batch_execute(SETTINGS)).await;
        settled.map_err(|_| Error::Timeout(whom))??;
        Ok(made)
    }
}

/// Opens a transaction, and tells what its snapshot sees.
async fn open(connected: Connected, whom: &'static str) -> Result<(Exported, String), Error> {
    let open = async {
        connected.client.batch_execute(OPEN).await?;
        let sql = "SELECT pg_catalog.txid_current_snapshot()::text, pg_catalog.pg_export_snapshot()";
        let row = connected.client.query_one(sql, &[]).await?;
        Ok::<(String, String), Error>((row.try_get(0)?, row.try_get(1)?))
    };
    let (text, name) = tokio::time::timeout(OPEN_MAX, open).await.map_err(|_| Error::Timeout(whom))??;
    Ok((Exported { name, connected }, text))
}
