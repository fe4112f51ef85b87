//! Collations whose version is another one than when indexes were made by them.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS};
use crate::words::{name, shown};
use pgshadow_model::quote;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let mut found = Vec::new();
    for server in pair.both() {
        let of_database =
            "SELECT d.datcollversion FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
            AND d.datcollversion <> pg_catalog.pg_database_collation_actual_version(d.oid)";
        if server.version >= 150_000
            && let Some(version) = server.values::<String>(of_database).await?.first()
        {
            let database = quote(&server.database);
            let happens = format!(
                "indexes of texts were made by version {version} of the default collation, and another one is in use: rows may not be found, or be there twice"
            );
            let mend = format!("REINDEX DATABASE {database}; ALTER DATABASE {database} REFRESH COLLATION VERSION;");
            found.push(Finding::warn(server.place, name(&server.database), happens).sure(Sure::Possible).mend(mend));
        }
        let own = format!(
            "SELECT n.nspname, k.collname, k.collversion FROM pg_catalog.pg_collation k
            JOIN pg_catalog.pg_namespace n ON n.oid = k.collnamespace
            WHERE k.collversion <> pg_catalog.pg_collation_actual_version(k.oid) AND (({USERS}) OR EXISTS (SELECT FROM
                pg_catalog.pg_attribute a WHERE a.attcollation = k.oid AND a.attrelid >= 16384))"
        );
        for row in server.rows(&own).await? {
            let (schema, collation): (String, String) = (server.get(&row, 0)?, server.get(&row, 1)?);
            let version: String = server.get(&row, 2)?;
            let happens = format!(
                "indexes by it were made by its version {version}, and another one is in use: rows may not be found, or be there twice"
            );
            let mend = format!(
                "REINDEX DATABASE {}; ALTER COLLATION {}.{} REFRESH VERSION;",
                quote(&server.database),
                quote(&schema),
                quote(&collation)
            );
            found.push(
                Finding::warn(server.place, shown(&[schema, collation]), happens).sure(Sure::Possible).mend(mend),
            );
        }
    }
    Ok(found)
}
