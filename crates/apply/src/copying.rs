//! COPY: the client's own statement with its own data, which may come in several changes.

use crate::entry::Loaded;
use crate::failure::{Class, classify, shadow_error};
use crate::lane::Lane;
use crate::report::Reports;
use crate::session::Session;
use crate::statement::{Entered, enter, leave};
use crate::{Error, batch};
use bytes::Bytes;
use futures::SinkExt;
use pgshadow_compare::ShadowError;
use pgshadow_model::{Change, CopyData};
use std::pin::Pin;
use tokio_postgres::CopyInSink;

/// A COPY of which a change was seen, and not the last one.
pub(crate) enum OpenCopy {
    /// The shadow takes its data.
    Runs(Box<Running>),
    /// It is known that the shadow refuses it.
    Refused,
}

pub(crate) struct Running {
    /// The change that it began with.
    pub(crate) first: u32,
    sink: Pin<Box<CopyInSink<Bytes>>>,
    entered: Entered,
    replica: bool,
}

impl Lane {
    /// One change of a COPY. `last`: a lock that can't be had counts as a refusal now.
    pub(crate) async fn copy_change(
        &mut self,
        session: &mut Session,
        place: (&Loaded, u32),
        change: &Change,
        open: &mut Option<OpenCopy>,
        last: bool,
        reports: &mut Reports,
    ) -> Result<(), Error> {
        let Change::Copy(copy) = change else { return Ok(()) };
        // with the snapshot that it is loaded from none of its data is left, and before that all of it is passed over
        if open.is_none() && self.awaited.contains(&copy.relation.name) {
            return Ok(());
        }
        let first = match open {
            Some(OpenCopy::Runs(running)) => running.first,
            _ => place.1,
        };
        let at = (place.0.sequence, first);
        if open.is_none()
            && let Some(error) = self.refused_copy(at)
        {
            *open = Some(OpenCopy::Refused);
            self.report_statement(session, place, change, &error, reports).await?;
        }
        if !matches!(open, Some(OpenCopy::Refused)) {
            match self.copy_data(session, place.1, copy, open).await {
                Ok(None) => {}
                Ok(Some(error)) => self.report_statement(session, place, change, &error, reports).await?,
                Err(e) if classify(&e) == Class::Row || (last && classify(&e) == Class::Again) => {
                    // The driver loses count of the answers when COPY is refused: this connection is of no use any more. The
                    // next one finds the refusal here.
                    self.refuse_copy(at, shadow_error(&e));
                    return Err(Error::Closed);
                }
                Err(e) => return Err(e),
            }
        }
        if copy.rows.is_some() {
            *open = None;
        }
        Ok(())
    }

    /// The rest of its data is lost: the connection that waits for them is of no use, and the next one passes the COPY over.
    pub(crate) fn give_up_copy(&self, entry: &Loaded, first: u32) -> Error {
        let message = "the rest of its data is lost".to_owned();
        self.refuse_copy(
            (entry.sequence, first),
            ShadowError { sqlstate: "PGS01".to_owned(), message, own_key_taken: false },
        );
        Error::Closed
    }

    /// Begins it where it isn't, sends its data, and ends it with the last of them. An error of its own if the shadow stored other
    /// rows than the primary without refusing.
    async fn copy_data(
        &mut self,
        session: &mut Session,
        number: u32,
        copy: &CopyData,
        open: &mut Option<OpenCopy>,
    ) -> Result<Option<ShadowError>, Error> {
        let mut running = match open.take() {
            Some(OpenCopy::Runs(running)) => running,
            _ => Box::new(self.begin_copy(session, number, copy).await?),
        };
        for data in &copy.data {
            running.sink.send(data.clone()).await?;
        }
        let Some(expected) = copy.rows else {
            *open = Some(OpenCopy::Runs(running));
            return Ok(None);
        };
        let rows = running.sink.as_mut().finish().await?;
        let client = session.client();
        leave(client, running.entered).await?;
        if running.replica {
            client.batch_execute(batch::role(false)).await?;
        }
        if rows == expected {
            client.batch_execute("RELEASE SAVEPOINT change").await?;
            return Ok(None);
        }
        client.batch_execute("ROLLBACK TO SAVEPOINT change; RELEASE SAVEPOINT change").await?;
        let message = format!("COPY stored {rows} rows on the shadow, {expected} on the primary");
        Ok(Some(ShadowError { sqlstate: "PGS01".to_owned(), message, own_key_taken: false }))
    }

    async fn begin_copy(&mut self, session: &mut Session, first: u32, copy: &CopyData) -> Result<Running, Error> {
        let table = session.table(&copy.relation.name).await?;
        let replica = session.may_replica && table.is_some_and(|t| t.origin_triggers);
        let client = session.client();
        client.batch_execute("SAVEPOINT change").await?;
        if replica {
            client.batch_execute(batch::role(true)).await?;
        }
        let entered = enter(client, &copy.settings, true).await?;
        let sink = Box::pin(client.copy_in(copy.sql.as_str()).await?);
        Ok(Running { first, sink, entered, replica })
    }
}
