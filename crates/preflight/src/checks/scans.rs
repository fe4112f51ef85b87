//! Large tables that live traffic reads as a whole.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS};
use crate::words::{bytes, shown_table};
use pgshadow_model::{Place, QualifiedName};

/// Fewer scans may be those of a backup.
const SCANS_MIN: i64 = 100;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT n.nspname, c.relname, s.seq_scan, coalesce(s.idx_scan, 0), c.relpages::int8 * pg_catalog.current_setting('block_size')::int8,
          s.seq_tup_read / s.seq_scan
        FROM pg_catalog.pg_stat_user_tables s JOIN pg_catalog.pg_class c ON c.oid = s.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE s.seq_scan >= {SCANS_MIN} AND s.seq_tup_read / s.seq_scan > c.reltuples / 10 AND {USERS} ORDER BY s.seq_tup_read DESC"
    );
    let server = &pair.source;
    let mut found = Vec::new();
    for row in server.rows(&sql).await? {
        let table = QualifiedName::new(server.get::<String>(&row, 0)?, server.get::<String>(&row, 1)?);
        let (scans, by_index): (i64, i64) = (server.get(&row, 2)?, server.get(&row, 3)?);
        let (size, rows): (i64, i64) = (server.get(&row, 4)?, server.get(&row, 5)?);
        if u64::try_from(size).is_ok_and(|size| size >= pair.facts.large_bytes) {
            let happens = format!(
                "{} were read as a whole {scans} times ({by_index} times by an index), {rows} rows each: an index seems to be missing, and the target feels it too",
                bytes(size)
            );
            found.push(Finding::warn(Place::Source, shown_table(&table), happens).sure(Sure::Likely));
        }
    }
    Ok(found)
}
