//! Tables without a key by which one of their rows can be named.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS, free};
use crate::words::shown_table;
use pgshadow_model::{Place, QualifiedName};

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' AND {USERS} AND {}
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
            AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull)) ORDER BY 1, 2",
        free("pg_class", "c.oid")
    );
    let server = &pair.source;
    let mut found = Vec::new();
    for row in server.rows(&sql).await? {
        let table = QualifiedName::new(server.get::<String>(&row, 0)?, server.get::<String>(&row, 1)?);
        if !pair.is_excluded(&table) {
            let happens = "it has no key of columns that are NOT NULL: its rows are found on the shadow by all their values, slowly in a large table, \
                and before PostgreSQL 18 some UPDATEs make it suspect; a PRIMARY KEY over its own columns mends that";
            found.push(Finding::warn(Place::Source, shown_table(&table), happens).sure(Sure::Possible));
        }
    }
    Ok(found)
}
