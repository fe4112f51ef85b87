//! Large objects.
use super::Found;
use crate::finding::Finding;
use crate::pair::Pair;
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let many: i64 = pair.source.value("SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata").await?;
    if many == 0 {
        return Ok(Vec::new());
    }
    let happens = format!(
        "{many} large objects: a backfill copies them, without rights granted on them, but later changes aren't mirrored"
    );
    Ok(vec![Finding::warn(Place::Source, "pg_catalog.pg_largeobject", happens)])
}
