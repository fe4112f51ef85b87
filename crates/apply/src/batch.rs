//! The fast path: many entries in one transaction on the shadow, row after row on the wire without waiting between.

use crate::Error;
use crate::entry::Loaded;
use crate::lane::Lane;
use crate::report::Reports;
use crate::rows::{Hit, Planned, Prepared, run};
use crate::session::Session;
use futures::FutureExt;
use futures::future::{BoxFuture, MaybeDone, maybe_done};
use pgshadow_model::{Change, RowImage, Statement};
use pgshadow_telemetry::Counter;
use std::pin::Pin;
use std::sync::atomic::Ordering;

/// Rows on their way at once.
const IN_FLIGHT_ROWS: usize = 512;

pub(crate) const BEGIN: &str = "BEGIN; SET CONSTRAINTS ALL DEFERRED";

/// A part of a batch.
enum Part<'a> {
    Row(Item<'a>),
    /// A client's own statement, to be run and taken back.
    Statement(&'a Loaded, u32, &'a Statement),
}

/// A row of a batch.
pub(crate) struct Item<'a> {
    entry: &'a Loaded,
    change: u32,
    image: &'a RowImage,
    row: Prepared,
}

impl<'a> Part<'a> {
    fn row(&self) -> Option<&Item<'a>> {
        if let Self::Row(item) = self { Some(item) } else { None }
    }
}

type Sent<'a> = Pin<Box<MaybeDone<BoxFuture<'a, Result<Hit, tokio_postgres::Error>>>>>;

/// Puts a request on the wire now: requests are sent in the order of their first poll.
async fn send<'a>(request: BoxFuture<'a, Result<Hit, tokio_postgres::Error>>) -> Sent<'a> {
    let mut sent = Box::pin(maybe_done(request));
    let _ = futures::poll!(sent.as_mut());
    sent
}

impl Lane {
    /// Applies entries that hold rows only. False if something in them needs care; then nothing is applied.
    pub(crate) async fn apply_batch(&mut self, session: &mut Session, batch: &[Loaded]) -> Result<bool, Error> {
        let Some(parts) = self.plan_batch(session, batch).await? else {
            return Ok(false);
        };
        session.client().batch_execute(BEGIN).await?;
        let (mut replica, mut reports) = (false, Reports::default());
        let mut rest = parts.as_slice();
        while let Some((first, behind)) = rest.split_first() {
            if let Part::Statement(entry, change, statement) = first {
                self.rehearse(session, (entry, *change), statement, &mut reports).await?;
                rest = behind;
                continue;
            }
            let chunk: Vec<&Item<'_>> = rest.iter().map_while(Part::row).take(IN_FLIGHT_ROWS).collect();
            let hits = run_chunk(session, &chunk, &mut replica).await?;
            for (item, hit) in chunk.iter().zip(hits) {
                let name = &item.image.relation.name;
                let first = !hit.fits() && !item.row.tolerant && reports.looks_at(name);
                if first && session.is_outdated(name).await? {
                    session.client().batch_execute("ROLLBACK").await?;
                    self.definitions.fetch_add(1, Ordering::SeqCst);
                    return Ok(false);
                }
                self.judge_item(session, item, &hit, &mut reports).await?;
            }
            rest = rest.get(chunk.len()..).unwrap_or_default();
        }
        self.finish(session, batch, reports).await?;
        Ok(true)
    }

    async fn plan_batch<'a>(
        &mut self,
        session: &mut Session,
        batch: &'a [Loaded],
    ) -> Result<Option<Vec<Part<'a>>>, Error> {
        let (mut items, none) = (Vec::new(), Reports::default());
        let sheds = self.sheds_statements();
        for entry in batch {
            for (change, image) in (0..).zip(entry.changes.iter()) {
                let image = match image {
                    Change::Row(image) => image,
                    Change::Statement(_) if sheds => {
                        Counter::StatementsShed.add(1);
                        continue;
                    }
                    Change::Statement(statement) => {
                        items.push(Part::Statement(entry, change, statement));
                        continue;
                    }
                    _ => return Ok(None),
                };
                match self.plan_row(session, image, &none).await? {
                    Planned::Run(row) => items.push(Part::Row(Item { entry, change, image, row })),
                    Planned::PassOver => {}
                    Planned::Skip => self.tolerate(&image.relation.name),
                    Planned::Schema(_) | Planned::Unplaceable => return Ok(None),
                }
            }
        }
        Ok(Some(items))
    }

    /// The rows of a piece whose first change has this number. `None` if one of them needs care.
    pub(crate) async fn plan_rows<'a>(
        &mut self,
        session: &mut Session,
        (entry, number): (&'a Loaded, u32),
        piece: &'a [Change],
    ) -> Result<Option<Vec<Item<'a>>>, Error> {
        let (mut items, none) = (Vec::new(), Reports::default());
        for (change, image) in (number..).zip(piece) {
            let Change::Row(image) = image else { continue };
            match self.plan_row(session, image, &none).await? {
                Planned::Run(row) => items.push(Item { entry, change, image, row }),
                Planned::PassOver => {}
                Planned::Skip => self.tolerate(&image.relation.name),
                Planned::Schema(_) | Planned::Unplaceable => return Ok(None),
            }
        }
        Ok(Some(items))
    }

    async fn judge_item(
        &mut self,
        session: &mut Session,
        item: &Item<'_>,
        hit: &Hit,
        reports: &mut Reports,
    ) -> Result<(), Error> {
        if hit.fits() {
            return Ok(());
        }
        if item.row.tolerant || reports.speak_of(item.image) {
            self.tolerate(&item.image.relation.name);
            return Ok(());
        }
        let place = (item.entry, item.change);
        if let Some(report) = self.report_hit(session, place, item.image, &item.row, hit).await? {
            reports.add(report);
        }
        Ok(())
    }
}

/// Writes rows one behind the other, and looks at what each of them did.
pub(crate) async fn run_rows(
    lane: &mut Lane,
    session: &mut Session,
    items: &[Item<'_>],
    reports: &mut Reports,
) -> Result<(), Error> {
    let items: Vec<&Item<'_>> = items.iter().collect();
    // the role may be another one from what came before
    let mut replica = false;
    if session.may_replica {
        session.client().batch_execute(role(false)).await?;
    }
    for chunk in items.chunks(IN_FLIGHT_ROWS) {
        let hits = run_chunk(session, chunk, &mut replica).await?;
        for (item, hit) in chunk.iter().zip(hits) {
            lane.judge_item(session, item, &hit, reports).await?;
        }
    }
    Ok(())
}

/// Sends a chunk's rows one behind the other, then reads what they gave.
async fn run_chunk(session: &Session, chunk: &[&Item<'_>], replica: &mut bool) -> Result<Vec<Hit>, Error> {
    let client = session.client();
    let mut sent: Vec<(bool, Sent<'_>)> = Vec::with_capacity(chunk.len());
    for item in chunk {
        if item.row.replica != *replica {
            *replica = item.row.replica;
            let change = client.batch_execute(role(*replica)).map(|done| done.map(|()| Hit::default()));
            sent.push((false, send(change.boxed()).await));
        }
        sent.push((true, send(run(client, &item.row).boxed()).await));
    }
    let mut hits = Vec::with_capacity(chunk.len());
    for (is_row, mut request) in sent {
        request.as_mut().await;
        let hit = request.as_mut().take_output().unwrap_or_else(|| Ok(Hit::default()))?;
        if is_row {
            hits.push(hit);
        }
    }
    Ok(hits)
}

pub(crate) fn role(replica: bool) -> &'static str {
    if replica { "SET LOCAL session_replication_role = replica" } else { "SET LOCAL session_replication_role = origin" }
}
