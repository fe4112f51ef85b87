//! Superusers, whom nothing keeps out at a cutover.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::Pair;
use crate::words::{name, some};
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = "SELECT r.rolname::text FROM pg_catalog.pg_roles r WHERE r.rolsuper AND r.rolcanlogin AND r.rolname <> session_user ORDER BY 1";
    let names: Vec<String> = pair.source.values::<String>(sql).await?.iter().map(|role| name(role)).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let happens =
        "superusers can't be fenced off at a cutover: they may write to the old primary all the same, and are watched";
    Ok(vec![Finding::note(Place::Source, some(&names, 10), happens).sure(Sure::Possible)])
}
