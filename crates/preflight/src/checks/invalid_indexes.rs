//! Indexes that are kept and not used.
use super::Found;
use crate::finding::Finding;
use crate::pair::{Pair, USERS};
use crate::words::shown;
use pgshadow_model::QualifiedName;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE NOT i.indisvalid AND c.relkind = 'i' AND {USERS}
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.relation = c.oid AND l.mode = 'ShareUpdateExclusiveLock') ORDER BY 1, 2"
    );
    let mut found = Vec::new();
    for server in pair.both() {
        for row in server.rows(&sql).await? {
            let index = QualifiedName::new(server.get::<String>(&row, 0)?, server.get::<String>(&row, 1)?);
            let happens = "it is invalid: no query uses it, and if it is unique, nothing is certain of that; each write keeps it up";
            let concurrently = server.from(120_000, "CONCURRENTLY ", "");
            let mend = format!("REINDEX INDEX {concurrently}{};", index.sql());
            found.push(Finding::warn(server.place, shown(&[&index.schema, &index.name]), happens).mend(mend));
        }
    }
    Ok(found)
}
