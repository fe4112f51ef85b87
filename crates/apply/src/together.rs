//! Rows that need each other: what one statement has written on the primary, written by one statement on the shadow.

use crate::Error;
use crate::batch::role;
use crate::entry::Loaded;
use crate::failure::{Class, classify};
use crate::lane::Lane;
use crate::plan::{self, form_of};
use crate::raw::Raw;
use crate::report::Reports;
use crate::rows::{Hit, Planned, Prepared};
use crate::session::{Session, values_of};
use futures::TryStreamExt;
use pgshadow_model::RowImage;
use tokio_postgres::Client;

/// Rows of one statement: it is planned anew each time.
const ROWS_MAX: usize = 200;
/// Parameters that a statement can have (PostgreSQL's protocol counts them in 16 bits).
const PARAMS_MAX: usize = 65_535;

impl Lane {
    /// Writes rows that stand in each other's way one by one. False if that isn't how they can be written; then nothing is.
    pub(crate) async fn write_at_once(
        &mut self,
        session: &mut Session,
        entry: &Loaded,
        rows: &[(u32, RowImage)],
        reports: &mut Reports,
    ) -> Result<bool, Error> {
        let images: Vec<&RowImage> = rows.iter().map(|(_, image)| image).collect();
        let Some(written) = self.run_at_once(session, &images, reports).await? else { return Ok(false) };
        for ((n, image), (row, hit)) in rows.iter().zip(&written) {
            if hit.fits() {
                continue;
            }
            if row.tolerant {
                self.tolerate(&image.relation.name);
            } else if let Some(report) = self.report_hit(session, (entry, *n), image, row, hit).await? {
                reports.add(report);
            }
        }
        Ok(true)
    }

    /// What each of these rows gave, written by one statement; `None` if they can't be, or the shadow refuses it.
    pub(crate) async fn run_at_once(
        &mut self,
        session: &mut Session,
        images: &[&RowImage],
        reports: &Reports,
    ) -> Result<Option<Vec<(Prepared, Hit)>>, Error> {
        if !(2..=ROWS_MAX).contains(&images.len()) {
            return Ok(None);
        }
        let mut planned: Vec<Prepared> = Vec::with_capacity(images.len());
        for image in images {
            let Planned::Run(row) = self.plan_row(session, image, reports).await? else { return Ok(None) };
            planned.push(row);
        }
        let replica = planned.first().is_some_and(|row| row.replica);
        let forms = images.iter().zip(&planned);
        let forms: Vec<_> =
            forms.map(|(image, row)| (&*image.relation, &*row.table, form_of(image, row.tolerant))).collect();
        let Some((sql, params)) = plan::together(&forms).filter(|_| planned.iter().all(|r| r.replica == replica))
        else {
            return Ok(None);
        };
        let values: Option<Vec<_>> = images.iter().zip(&params).map(|(image, of)| values_of(of, image)).collect();
        let Some(values) = values.map(|all| all.concat()).filter(|all| all.len() <= PARAMS_MAX) else {
            return Ok(None);
        };
        let client = session.client();
        client.batch_execute("SAVEPOINT change").await?;
        if session.may_replica {
            client.batch_execute(role(replica)).await?;
        }
        let outcome = query_rows(client, &sql, values, images.len()).await.map_err(Error::from);
        match outcome {
            Ok(hits) => {
                client.batch_execute("RELEASE SAVEPOINT change").await?;
                Ok(Some(planned.into_iter().zip(hits).collect()))
            }
            Err(error) if classify(&error) != Class::Row => Err(error),
            Err(_) => {
                client.batch_execute("ROLLBACK TO SAVEPOINT change; RELEASE SAVEPOINT change").await?;
                Ok(None)
            }
        }
    }
}

async fn query_rows(
    client: &Client,
    sql: &str,
    values: Vec<Raw>,
    count: usize,
) -> Result<Vec<Hit>, tokio_postgres::Error> {
    let mut hits: Vec<Hit> = (0..count).map(|_| Hit::default()).collect();
    let statement = client.prepare(sql).await?;
    let answers: Vec<_> = client.query_raw(&statement, values).await?.try_collect().await?;
    for answer in answers {
        let place = usize::try_from(answer.try_get::<_, i32>(0)?).unwrap_or(usize::MAX);
        if let Some(hit) = hits.get_mut(place) {
            hit.rows += 1;
            hit.texts = answer.try_get(1)?;
        }
    }
    Ok(hits)
}
