//! Unlogged tables.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS};
use crate::words::shown_table;
use pgshadow_model::QualifiedName;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND {USERS} ORDER BY 1, 2"
    );
    let mut found = Vec::new();
    for server in pair.both() {
        for row in server.rows(&sql).await? {
            let table = QualifiedName::new(server.get::<String>(&row, 0)?, server.get::<String>(&row, 1)?);
            if !pair.is_excluded(&table) {
                let happens = "it is unlogged: a crash of its server empties it, and it is suspect then";
                let mend = format!("ALTER TABLE {} SET LOGGED;", table.sql());
                found.push(Finding::note(server.place, shown_table(&table), happens).sure(Sure::Possible).mend(mend));
            }
        }
    }
    Ok(found)
}
