//! Transactions that are too large to be held: read part by part, each part's rows in one go behind a savepoint, and one by one
//! where the shadow refuses some of them.

use crate::batch::run_rows;
use crate::entry::{Loaded, Vast};
use crate::failure::{Class, classify, is_stale};
use crate::lane::{LOG_ATTEMPTS, Lane, PAUSE_MIN, refers_to_itself};
use crate::report::{Report, Reports};
use crate::session::Session;
use crate::{Error, LogError};
use pgshadow_model::{Change, Operation};
use std::sync::Arc;

/// Where a walk along an entry's changes stands.
#[derive(Default)]
pub(crate) struct Pieces {
    part: usize,
    /// The number of the next piece's first change.
    pub(crate) number: u32,
}

impl Lane {
    /// The next changes of an entry: all of them, or a part where they are too many.
    pub(crate) async fn next_piece(
        &self,
        entry: &Loaded,
        pieces: &mut Pieces,
        reports: &mut Reports,
    ) -> Result<Option<Arc<Vec<Change>>>, Error> {
        let part = pieces.part;
        pieces.part += 1;
        let Some(vast) = &entry.vast else { return Ok((part == 0).then(|| Arc::clone(&entry.changes))) };
        let mut attempt = 1;
        loop {
            let (log, sequence) = (Arc::clone(&self.log), entry.sequence);
            let error = match tokio::task::spawn_blocking(move || log.read_part(sequence, part)).await? {
                Ok(piece) => return Ok(piece.map(Arc::new)),
                Err(LogError::NotYet) => {
                    tokio::time::sleep(PAUSE_MIN).await;
                    continue;
                }
                Err(e) => Error::Log(sequence, e),
            };
            tracing::error!(error = %error, attempt, part, "the log gives no changes");
            self.shared.update(|s| s.last_error = Some(error.to_string()));
            if attempt >= LOG_ATTEMPTS {
                reports.add(all_of(entry, vast, &format!("a part of a committed transaction is lost: {error}")));
                return Ok(None);
            }
            tokio::time::sleep(PAUSE_MIN * 2_u32.pow(attempt)).await;
            attempt += 1;
        }
    }

    /// All rows of a piece, one behind the other on the wire. False if they need a closer look: then nothing was written.
    pub(crate) async fn write_piece(
        &mut self,
        session: &mut Session,
        place: (&Loaded, u32),
        piece: &[Change],
        reports: &mut Reports,
    ) -> Result<bool, Error> {
        let simple = |change: &Change| match change {
            Change::Row(image) => image.operation != Operation::Reread && !refers_to_itself(&image.relation),
            Change::Statement(_) => true,
            _ => false,
        };
        if !piece.iter().all(simple) {
            return Ok(false);
        }
        let Some(items) = self.plan_rows(session, place, piece).await? else { return Ok(false) };
        session.client().batch_execute("SAVEPOINT piece").await?;
        let error = match run_rows(self, session, &items, reports).await {
            Ok(()) => {
                session.client().batch_execute("RELEASE SAVEPOINT piece").await?;
                return Ok(true);
            }
            Err(error) => error,
        };
        if classify(&error) != Class::Row && !is_stale(&error) {
            return Err(error);
        }
        session.client().batch_execute("ROLLBACK TO SAVEPOINT piece; RELEASE SAVEPOINT piece").await?;
        if is_stale(&error) {
            session.forget_tables();
        }
        Ok(false)
    }
}

/// Every table of a large entry is in doubt.
pub(crate) fn all_of(entry: &Loaded, vast: &Vast, reason: &str) -> Report {
    let suspect = vast.tables.iter().map(|table| (table.clone(), reason.to_owned())).collect();
    Report { origin: (entry.sequence, 0), finding: None, heal: Vec::new(), suspect }
}
