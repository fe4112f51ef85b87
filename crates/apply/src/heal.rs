//! Healing: a row that did not fit is read again on the primary and written as it is there.
//!
//! What waits is on the shadow, in `pgshadow.heal`, written with the transaction in which the misfit was seen; it goes
//! once the row is healed and its finding is marked. A crash in between heals again, which changes nothing.
//!
//! Where the primary can't be reached, the lane goes on: healing is right at any later fence too, since everything that
//! the fence contains is applied before. Rows that wait are written tolerantly until then.

use crate::Error;
use crate::applier::Shared;
use crate::batch::{BEGIN, role};
use crate::failure::{Class, classify};
use crate::fence::Held;
use crate::lane::Lane;
use crate::report::{Report, Reports};
use crate::rows::{Planned, run};
use crate::session::Session;
use pgshadow_divergence::Origin;
use pgshadow_model::{Operation, QualifiedName, Relation, RowImage, Sequence, Values};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Rows healed behind one fence.
const TARGETS_MAX: usize = 1000;

/// A row by its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) relation: Arc<Relation>,
    pub(crate) key: Values,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.relation.name == other.relation.name && self.key == other.key
    }
}

impl Eq for Target {}

impl Hash for Target {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.relation.name, &self.key).hash(state);
    }
}

impl Target {
    /// The rows that an image touches; none if its table has no key.
    pub(crate) fn of(image: &RowImage) -> Vec<Self> {
        let relation = &image.relation;
        if relation.key.is_empty() {
            return Vec::new();
        }
        let key = relation.key.iter().map(|p| image.values.get(usize::from(*p)).cloned().flatten()).collect();
        let new = Self { relation: Arc::clone(relation), key };
        let old = image.old_key.clone().map(|key| Self { relation: Arc::clone(relation), key });
        std::iter::once(new).chain(old).collect()
    }

    /// The image that writes the row as it is on the primary, or deletes it.
    fn image(&self, row: Option<Values>) -> RowImage {
        let relation = Arc::clone(&self.relation);
        if let Some(values) = row {
            // Equal keys may have several spellings (1.0 and 1.00): the primary's is written too.
            let key = relation.key.iter().map(|p| values.get(usize::from(*p)).and_then(Option::as_ref));
            let old_key = (!key.eq(self.key.iter().map(Option::as_ref))).then(|| self.key.clone());
            return RowImage { relation, operation: Operation::Upsert, values, old_key };
        }
        let mut values = vec![None; relation.columns.len()];
        for (position, value) in relation.key.iter().zip(&self.key) {
            if let Some(slot) = values.get_mut(usize::from(*position)) {
                slot.clone_from(value);
            }
        }
        RowImage { relation, operation: Operation::Delete, values, old_key: None }
    }
}

/// What waits to be healed.
pub(crate) struct Healing {
    waiting: HashMap<Target, BTreeSet<Origin>>,
    due: Instant,
    put_off: u32,
}

impl Default for Healing {
    fn default() -> Self {
        Self { waiting: HashMap::new(), due: Instant::now(), put_off: 0 }
    }
}

impl Healing {
    /// What an earlier connection or process left.
    pub(crate) async fn load(session: &Session, stream: &str) -> Result<Self, Error> {
        let mut healing = Self::default();
        let sql = "SELECT sequence, change, target FROM pgshadow.heal WHERE stream = $1";
        for row in session.client().query(sql, &[&stream]).await? {
            let (sequence, change): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
            let target: Target = postcard::from_bytes(row.try_get(2)?)?;
            let origin = (sequence.cast_unsigned(), change.cast_unsigned());
            healing.waiting.entry(target).or_default().insert(origin);
        }
        Ok(healing)
    }

    /// Writes what a report wants healed, in the transaction that is open.
    pub(crate) async fn write(session: &Session, stream: &str, report: &Report) -> Result<(), Error> {
        let sql = "INSERT INTO pgshadow.heal (stream, sequence, change, part, target) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT DO NOTHING";
        let (sequence, change) = (report.origin.0.cast_signed(), report.origin.1.cast_signed());
        for (part, target) in (0_i32..).zip(&report.heal) {
            let target = postcard::to_stdvec(target)?;
            session.client().execute(sql, &[&stream, &sequence, &change, &part, &target]).await?;
        }
        Ok(())
    }

    pub(crate) fn add(&mut self, reports: &Reports) {
        for report in &reports.list {
            for target in &report.heal {
                self.waiting.entry(target.clone()).or_default().insert(report.origin);
            }
        }
    }

    pub(crate) fn waits_for(&self, image: &RowImage) -> bool {
        !self.waiting.is_empty() && Target::of(image).iter().any(|t| self.waiting.contains_key(t))
    }

    /// The oldest entry of which a row waits.
    fn from(&self) -> Sequence {
        self.waiting.values().filter_map(|origins| origins.first()).map(|o| o.0).min().unwrap_or(Sequence::MAX)
    }

    pub(crate) fn show(&self, shared: &Shared) {
        shared.heals(self.waiting.len() as u64, self.from());
    }

    pub(crate) fn is_due(&self) -> bool {
        !self.waiting.is_empty() && Instant::now() >= self.due
    }

    pub(crate) fn until_due(&self) -> Duration {
        if self.waiting.is_empty() { Duration::MAX } else { self.due.saturating_duration_since(Instant::now()) }
    }

    /// Takes a target off; its origins that wait for no other one come back.
    fn done(&mut self, target: &Target) -> Vec<Origin> {
        let origins = self.waiting.remove(target).unwrap_or_default();
        origins.into_iter().filter(|o| !self.waiting.values().any(|w| w.contains(o))).collect()
    }
}

impl Lane {
    /// One round of healing. Fails only for the shadow's sake; the primary's troubles put it off.
    pub(crate) async fn heal(&mut self, session: &mut Session) -> Result<(), Error> {
        self.doing("healing rows: a snapshot of the primary is taken");
        let targets: Vec<Target> = self.healing.waiting.keys().take(TARGETS_MAX).cloned().collect();
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
            tracing::warn!("healing waits: a transaction that was in flight has no outcome yet");
            self.put_off_healing();
            return Ok(());
        }
        self.doing("healing rows");
        self.healing.put_off = 0;
        self.write_held(session, held).await
    }

    fn put_off_healing(&mut self) {
        // Longer each time: behind a fence that can't be reached the lane is held in vain.
        self.healing.due = Instant::now() + self.config.heal_retry * 2_u32.pow(self.healing.put_off.min(5));
        self.healing.put_off += 1;
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
            unhealed.extend(self.healing.waiting.get(&target).into_iter().flatten());
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
