//! Healing: a row that did not fit is read again on the primary and written as it is there.
//!
//! What waits is on the shadow, in `pgshadow.heal`, written with the transaction in which the misfit was seen; it goes
//! once the row is healed and its finding is marked. A crash in between heals again, which changes nothing.
//!
//! The lane that heals has the shadow for itself meanwhile. Where the primary can't be reached, the lanes go on: healing is
//! right at any later fence too, since everything that the fence contains is applied before. Rows that wait are written
//! tolerantly until then.

use crate::Error;
use crate::batch::{BEGIN, role};
use crate::failure::{Class, classify};
use crate::fence::Held;
use crate::lane::Lane;
use crate::report::Reports;
use crate::rows::{Planned, run};
use crate::session::Session;
use crate::target::Target;
use pgshadow_divergence::Origin;
use pgshadow_model::{Operation, QualifiedName, RowImage};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Rows healed behind one fence.
const TARGETS_MAX: usize = 1000;
/// How long the other lanes may take to be done with what they are at; a statement that takes longer is not waited for.
pub(crate) const QUIET_WITHIN: Duration = Duration::from_millis(500);

impl Lane {
    /// One round of healing. Fails only for the shadow's sake; the primary's troubles put it off.
    pub(crate) async fn heal(&mut self, session: &mut Session) -> Result<(), Error> {
        let common = Arc::clone(&self.common);
        if self.book.is_holding() {
            // a fence can't be reached
            self.put_off_healing();
            return Ok(());
        }
        self.doing("healing rows: other lanes end what they are at");
        let quiet = tokio::time::timeout(QUIET_WITHIN, common.quiet.write()).await;
        if !self.healing.is_due() {
            // another lane has done it
            return Ok(());
        }
        if self.book.is_holding() {
            // something is since then
            self.put_off_healing();
            return Ok(());
        }
        if quiet.is_err() || self.book.is_in_hand() {
            tracing::info!("healing waits: a lane is at work on something long");
            self.put_off_healing();
            return Ok(());
        }
        session.keep_up(&common.definitions);
        self.doing("healing rows: a snapshot of the primary is taken");
        let targets = self.healing.some(TARGETS_MAX);
        let (fence, held) = match self.read_behind_fence(session, targets).await {
            Ok(read) => read,
            Err(e) if session.client().is_closed() => return Err(e),
            Err(e) => {
                tracing::warn!(error = %e, "rows can't be read again on the primary now");
                self.shared.update(|s| s.last_error = Some(format!("healing: {e}")));
                self.put_off_healing();
                return Ok(());
            }
        };
        self.doing("healing rows: waiting for what was in flight at the snapshot");
        if !self.bring_to(session, &fence).await? {
            tracing::info!("healing waits: a transaction that was in flight has no outcome yet");
            self.put_off_healing();
            return Ok(());
        }
        self.doing("healing rows");
        self.healing.goes_well();
        self.write_held(session, held).await
    }

    fn put_off_healing(&self) {
        self.healing.put_off(self.config.heal_retry);
    }

    async fn write_held(&mut self, session: &mut Session, held: Vec<Held>) -> Result<(), Error> {
        // Rows that wait are written tolerantly anyway; here the outcome is looked at.
        let mut broken = HashMap::new();
        let images: Vec<(Target, RowImage)> = held
            .into_iter()
            .filter_map(|(target, row)| match row {
                Ok(row) => Some((target.clone(), target.image(row))),
                Err(reason) => {
                    broken.insert(target, format!("its row can't be read again on the primary: {reason}"));
                    None
                }
            })
            .collect();
        if let Err(e) = self.write_together(session, &images, &mut broken).await {
            if self.after(session, e).await? == Class::Again {
                self.put_off_healing();
                return Ok(());
            }
            self.write_one_by_one(session, &images, &mut broken).await?;
        }
        let targets: Vec<Target> = images.into_iter().map(|(t, _)| t).chain(broken.keys().cloned()).collect();
        self.close(session, targets, broken).await
    }

    /// All in one transaction, so that rows that need each other come together.
    async fn write_together(
        &mut self,
        session: &mut Session,
        images: &[(Target, RowImage)],
        broken: &mut HashMap<Target, String>,
    ) -> Result<(), Error> {
        session.client().batch_execute(BEGIN).await?;
        // Rows that go first make room for unique values; what is refused is tried again once others are in place.
        let (gone, there): (Vec<_>, Vec<_>) = images.iter().partition(|(_, i)| i.operation == Operation::Delete);
        let mut left: Vec<&(Target, RowImage)> = gone.into_iter().chain(there).collect();
        loop {
            let mut refused = Vec::new();
            for pair in left.iter().copied() {
                if let Some(reason) = self.write_one(session, &pair.1).await? {
                    refused.push((pair, reason));
                }
            }
            let images: Vec<&RowImage> = refused.iter().map(|(pair, _)| &pair.1).collect();
            if refused.len() == left.len() && self.run_at_once(session, &images, &Reports::default()).await?.is_some() {
                break;
            }
            if refused.is_empty() || refused.len() == left.len() {
                broken.extend(refused.into_iter().map(|(pair, reason)| (pair.0.clone(), reason)));
                break;
            }
            left = refused.into_iter().map(|(pair, _)| pair).collect();
        }
        session.client().batch_execute("COMMIT").await?;
        Ok(())
    }

    async fn write_one_by_one(
        &mut self,
        session: &mut Session,
        images: &[(Target, RowImage)],
        broken: &mut HashMap<Target, String>,
    ) -> Result<(), Error> {
        for pair in images {
            let Err(e) = self.write_together(session, std::slice::from_ref(pair), broken).await else {
                continue;
            };
            let reason = format!("the shadow refuses the primary's row: {e}");
            self.after(session, e).await?;
            broken.insert(pair.0.clone(), reason);
        }
        Ok(())
    }

    /// Writes one row; the reason if it can't be made equal.
    async fn write_one(&mut self, session: &mut Session, image: &RowImage) -> Result<Option<String>, Error> {
        session.client().batch_execute("SAVEPOINT row").await?;
        match self.try_write_one(session, image).await {
            Ok(reason) => {
                session.client().batch_execute("RELEASE SAVEPOINT row").await?;
                Ok(reason)
            }
            Err(e) if classify(&e) == Class::Row => {
                session.client().batch_execute("ROLLBACK TO SAVEPOINT row; RELEASE SAVEPOINT row").await?;
                Ok(Some(format!("the shadow refuses the primary's row: {e}")))
            }
            Err(e) => Err(e),
        }
    }

    async fn try_write_one(&mut self, session: &mut Session, image: &RowImage) -> Result<Option<String>, Error> {
        let row = match self.plan_row(session, image, &Reports::default()).await? {
            Planned::Run(row) => row,
            Planned::Schema(verdict) => return Ok(Some(verdict.message)),
            // it will be loaded
            Planned::PassOver => return Ok(None),
            Planned::Skip | Planned::Unplaceable => return Ok(Some("the shadow can't take its rows".to_owned())),
        };
        if session.may_replica {
            session.client().batch_execute(role(row.replica)).await?;
        }
        let hit = run(session.client(), &row).await?;
        if image.operation == Operation::Delete || hit.fits() {
            return Ok(None);
        }
        Ok(Some("the shadow can't hold the primary's row: it stores another value".to_owned()))
    }

    /// Marks findings, counts, and takes the targets off the shadow's list.
    async fn close(
        &mut self,
        session: &Session,
        targets: Vec<Target>,
        broken: HashMap<Target, String>,
    ) -> Result<(), Error> {
        let mut unhealed: BTreeSet<Origin> = BTreeSet::new();
        let mut tables: HashMap<QualifiedName, String> = HashMap::new();
        for (target, reason) in broken {
            unhealed.extend(self.healing.origins(&target));
            tables.entry(target.relation.name.clone()).or_insert(reason);
        }
        for (table, reason) in tables {
            self.suspect(Some(&table), reason).await?;
        }
        let over: Vec<Origin> = targets.iter().flat_map(|t| self.healing.done(t)).collect();
        let healed: Vec<Origin> = over.iter().copied().filter(|o| !unhealed.contains(o)).collect();
        let (store, below) = (Arc::clone(&self.store), self.book.applied_position().below);
        let mark = move || {
            healed.into_iter().try_for_each(|origin| store.mark_origin_healed(origin))?;
            store.forget_origins(below)
        };
        tokio::task::spawn_blocking(mark).await??;
        let sequences: Vec<i64> = over.iter().map(|o| o.0.cast_signed()).collect();
        let changes: Vec<i32> = over.iter().map(|o| o.1.cast_signed()).collect();
        let sql = "DELETE FROM pgshadow.heal h USING unnest($2::int8[], $3::int4[]) AS o(s, c) \
                   WHERE h.stream = $1 AND h.sequence = o.s AND h.change = o.c";
        session.client().execute(sql, &[&self.config.stream, &sequences, &changes]).await?;
        self.healing.show(&self.shared);
        Ok(())
    }
}
