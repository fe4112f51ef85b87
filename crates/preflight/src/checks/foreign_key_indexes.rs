//! Foreign keys whose own columns have no index.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS};
use crate::words::shown;
use pgshadow_model::{QualifiedName, quote};

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT n.nspname, c.relname, k.conname, c.relkind = 'p', ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u (num, n)
          JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.num ORDER BY u.n)
        FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE k.contype = 'f' AND (k.coninhcount = 0 OR k.conislocal) AND NOT c.relispartition AND {USERS}
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL
            AND (SELECT pg_catalog.count(DISTINCT i.indkey[p.n]) = pg_catalog.cardinality(k.conkey)
              FROM pg_catalog.generate_series(0, pg_catalog.cardinality(k.conkey) - 1) AS p (n) WHERE i.indkey[p.n] = ANY (k.conkey)))
        ORDER BY 1, 2, 3"
    );
    let mut found = Vec::new();
    for server in pair.both() {
        for row in server.rows(&sql).await? {
            let table = QualifiedName::new(server.get::<String>(&row, 0)?, server.get::<String>(&row, 1)?);
            let constraint: String = server.get(&row, 2)?;
            if pair.is_excluded(&table) {
                continue;
            }
            let columns: Vec<String> = server.get::<Vec<String>>(&row, 4)?.iter().map(|column| quote(column)).collect();
            let concurrently = if server.get(&row, 3)? { "" } else { "CONCURRENTLY " };
            let mend = format!("CREATE INDEX {concurrently}ON {} ({});", table.sql(), columns.join(", "));
            let happens = "no index leads with its columns: each DELETE, and each UPDATE of a key, of the table that is referred to reads this one as a whole";
            let subject = shown(&[&table.schema, &table.name, &constraint]);
            found.push(Finding::warn(server.place, subject, happens).sure(Sure::Likely).mend(mend));
        }
    }
    Ok(found)
}
