//! The one difference that the demo makes itself.
use super::cluster::Endpoint;
use super::error::DemoError;
use super::schema::PLANTED_CUSTOMER;
use pgshadow_admin::FindingView;
use pgshadow_model::Kind;

/// The table of the planted difference.
pub const TABLE: &str = "public.customers";

/// The row's key as findings name it.
pub fn key() -> String {
    format!("id={PLANTED_CUSTOMER}")
}

/// Deletes one row on the target, past pgshadow, then updates it through pgshadow.
///
/// # Errors
/// When a server refuses, or the row wasn't there.
pub async fn plant(target: &Endpoint, through_pgshadow: &Endpoint) -> Result<(), DemoError> {
    let (what, statement) = delete();
    one_row(target, what, &statement).await?;
    let (what, statement) = update();
    one_row(through_pgshadow, what, &statement).await
}

fn delete() -> (&'static str, String) {
    let statement = format!("DELETE FROM customers WHERE id = {PLANTED_CUSTOMER}");
    ("deleting a row behind pgshadow's back", statement)
}

fn update() -> (&'static str, String) {
    let set = "tier = 'gold', profile = profile || '{\"upgraded\": true}'";
    let statement = format!("UPDATE customers SET {set} WHERE id = {PLANTED_CUSTOMER}");
    ("updating that row through pgshadow", statement)
}

async fn one_row(place: &Endpoint, what: &str, statement: &str) -> Result<(), DemoError> {
    let client = place.connect().await.map_err(DemoError::database(what))?;
    match client.execute(statement, &[]).await.map_err(DemoError::database(what))? {
        1 => Ok(()),
        rows => Err(DemoError::Failed(format!("{what}: {rows} rows instead of one"))),
    }
}

/// Whether a finding is the planted one.
pub fn is_planted(finding: &FindingView) -> bool {
    finding.kind == Kind::MissingRow
        && finding.table.as_deref() == Some(TABLE)
        && finding.key.as_deref().is_some_and(|found| found.replace(' ', "") == key())
}
