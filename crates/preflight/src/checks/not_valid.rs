//! Constraints that older rows were not checked by.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS};
use crate::words::shown;
use pgshadow_model::{QualifiedName, quote};

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT n.nspname, c.relname, k.conname FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE NOT k.convalidated AND k.contype IN ('c', 'f')
        AND coalesce((pg_catalog.to_jsonb(k) ->> 'conenforced')::bool, true) AND {USERS} ORDER BY 1, 2, 3"
    );
    let mut found = Vec::new();
    for server in pair.both() {
        for row in server.rows(&sql).await? {
            let table = QualifiedName::new(server.get::<String>(&row, 0)?, server.get::<String>(&row, 1)?);
            let constraint: String = server.get(&row, 2)?;
            if pair.is_excluded(&table) {
                continue;
            }
            let happens =
                "it is NOT VALID: older rows may break it, and are refused where they are written again or loaded";
            let mend = format!("ALTER TABLE {} VALIDATE CONSTRAINT {};", table.sql(), quote(&constraint));
            let subject = shown(&[&table.schema, &table.name, &constraint]);
            found.push(Finding::warn(server.place, subject, happens).sure(Sure::Possible).mend(mend));
        }
    }
    Ok(found)
}
