//! Rows that somebody else found to differ: they are healed like those that did not fit.

use crate::Error;
use crate::batch::BEGIN;
use crate::fence::values_of;
use crate::lane::Lane;
use crate::report::{Report, Reports};
use crate::session::Session;
use crate::target::Target;
use crate::waiting::Healing;
use pgshadow_model::{Column, Relation, Values};
use std::sync::Arc;

/// Rows asked for are no change's: in the list of what waits they come before all.
const ORIGIN: u64 = 0;

/// A row, by its key.
#[derive(Debug, Clone)]
pub struct Reread {
    /// Its table on the primary, which has a key.
    pub relation: Arc<Relation>,
    /// The key's values as texts, in the order of [`Relation::key`].
    pub key: Vec<Option<String>>,
}

impl Lane {
    /// Puts them into the list of rows that wait to be read again, on the shadow too.
    pub(crate) async fn add_rereads(&mut self, session: &Session, rows: Vec<Reread>) -> Result<(), Error> {
        let mut reports = Reports::default();
        let first = Healing::next(session, &self.config.stream, ORIGIN).await?;
        for (number, row) in (first..).zip(rows) {
            let key = self.key_of(session, &row).await?;
            let heal = vec![Target { relation: row.relation, key }];
            reports.list.push(Report { origin: (ORIGIN, number), finding: None, heal, suspect: Vec::new() });
        }
        session.client().batch_execute(BEGIN).await?;
        for report in &reports.list {
            Healing::write(session, &self.config.stream, report).await?;
        }
        session.client().batch_execute("COMMIT").await?;
        self.healing.add(&reports);
        self.healing.show(&self.shared);
        Ok(())
    }

    /// The key in binary form, which the server that has the types makes of the texts.
    async fn key_of(&self, session: &Session, row: &Reread) -> Result<Values, Error> {
        let columns = row.relation.key.iter().filter_map(|place| row.relation.columns.get(usize::from(*place)));
        let value = |(n, column): (usize, &Column)| format!("${n}::text::{}", column.column_type.name.sql());
        let values: Vec<String> = (1..).zip(columns).map(value).collect();
        let sql = format!("SELECT {}", values.join(", "));
        let parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = row.key.iter().map(|v| v as _).collect();
        values_of(&session.client().query_one(&sql, &parameters).await?)
    }
}
