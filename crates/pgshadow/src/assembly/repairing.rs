//! Mending what a verify found: its rows are read again on the primary and written by the applier, in order.
use pgshadow_admin::{RepairReport, RepairedTable, VerifyReport};
use pgshadow_apply::{Error, Plain, Reread, connect};
use pgshadow_catalog::probe::{self, Found};
use pgshadow_model::{QualifiedName, Relation};
use pgshadow_verify::{Difference, TableOutcome};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long the primary may take to connect, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be mended, and what can't be.
pub(super) struct Plan {
    pub report: RepairReport,
    pub rows: Vec<Reread>,
}

/// What a verify found in these tables (none named: in all).
///
/// # Errors
/// The primary can't be asked what its tables are.
pub(super) async fn plan(
    primary: &tokio_postgres::Config,
    found: &VerifyReport,
    only: &[QualifiedName],
) -> Result<Plan, Error> {
    let wanted = |table: &&TableOutcome| !table.is_equal() && (only.is_empty() || only.contains(&table.table));
    let outcomes: Vec<&TableOutcome> = found.tables.iter().filter(wanted).collect();
    let relations = relations(primary, outcomes.iter().map(|outcome| &outcome.table)).await?;
    let mut plan = Plan { report: RepairReport::default(), rows: Vec::new() };
    for outcome in outcomes {
        let rows = match &outcome.not_compared {
            Some(why) => Err(why.clone()),
            None => match relations.get(&outcome.table) {
                Some(relation) => rows(relation, outcome),
                None => Err("the primary has no such table any more".to_owned()),
            },
        };
        let mut table = RepairedTable { table: outcome.table.to_string(), ..RepairedTable::default() };
        match rows {
            Ok(rows) => {
                table.rows = outcome.differences.clone();
                plan.rows.extend(rows);
            }
            Err(why) => table.not_repaired = Some(why),
        }
        let told = outcome.differ();
        table.left = told - u64::try_from(table.rows.len()).unwrap_or(told).min(told);
        plan.report.tables.push(table);
    }
    Ok(plan)
}

fn rows(relation: &Arc<Relation>, outcome: &TableOutcome) -> Result<Vec<Reread>, String> {
    if relation.key.is_empty() {
        return Err("the table has no key by which a row could be written; load it again".to_owned());
    }
    let places = relation.key.iter().filter_map(|place| relation.columns.get(usize::from(*place)));
    let names: Vec<&str> = places.map(|column| column.name.as_str()).collect();
    let row = |difference: &Difference| {
        let value =
            |name: &&str| difference.key_columns.iter().find(|(column, _)| column == name).map(|(_, v)| v.clone());
        let key = names.iter().map(value).collect::<Option<Vec<_>>>();
        let key = key.ok_or_else(|| "its key was redefined meanwhile; verify it again".to_owned())?;
        Ok(Reread { relation: Arc::clone(relation), key })
    };
    outcome.differences.iter().map(row).collect()
}

/// What the primary's tables are.
async fn relations(
    primary: &tokio_postgres::Config,
    tables: impl Iterator<Item = &QualifiedName>,
) -> Result<HashMap<QualifiedName, Arc<Relation>>, Error> {
    let names: Vec<String> = tables.map(QualifiedName::sql).collect();
    let connected = connect(&Plain, primary, PATIENCE, "primary").await?;
    let asked = tokio::time::timeout(PATIENCE, connected.client.query_one(probe::sql(), &[&names])).await;
    let answer: Vec<u8> = asked.map_err(|_| Error::Timeout("primary"))??.try_get(0)?;
    let tables = probe::answer(&answer).map(|probed| probed.tables).unwrap_or_default();
    let known = tables.into_iter().filter_map(|found| match found {
        Found::Table(table) => Some((table.relation.name.clone(), Arc::clone(&table.relation))),
        _ => None,
    });
    Ok(known.collect())
}
