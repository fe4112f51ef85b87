//! Versions of both servers, and whether they take writes at all.
use super::Found;
use crate::error::word;
use crate::finding::{Finding, Sure};
use crate::pair::Pair;
use pgshadow_model::Place;

/// The oldest major that pgshadow knows.
const OLDEST: i32 = 10;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let mut found = Vec::new();
    for server in pair.both() {
        let major = server.version / 10_000;
        if major < OLDEST {
            let happens = format!("PostgreSQL {major}: pgshadow needs {OLDEST} or newer");
            found.push(Finding::block(server.place, "server", happens).before_load());
        }
        if server.value::<bool>("SELECT pg_catalog.pg_is_in_recovery()").await? {
            let happens = format!("the {} is a standby, which takes no writes", word(server.place));
            found.push(Finding::block(server.place, "server", happens).before_load());
        }
    }
    let (source, target) = (pair.source.version / 10_000, pair.target.version / 10_000);
    if target < source {
        let happens = format!(
            "the target is older ({target}) than the source ({source}): definitions and statements may fail there"
        );
        found.push(Finding::block(Place::Target, "server", happens).sure(Sure::Likely));
    }
    Ok(found)
}
