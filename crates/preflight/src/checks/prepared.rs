//! Transactions that were prepared and never ended.
use super::Found;
use crate::finding::Finding;
use crate::pair::Pair;
use crate::words::{literal, seconds};

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = "SELECT p.gid, p.owner::text, pg_catalog.date_part('epoch', pg_catalog.now() - p.prepared)::int8
        FROM pg_catalog.pg_prepared_xacts p WHERE p.database = pg_catalog.current_database() ORDER BY p.prepared";
    let mut found = Vec::new();
    for server in pair.both() {
        for row in server.rows(sql).await? {
            let (gid, owner): (String, String) = (server.get(&row, 0)?, server.get(&row, 1)?);
            let age = seconds(server.get(&row, 2)?);
            let happens = format!(
                "prepared by {owner} {age} ago: it keeps its locks and holds back vacuum; a cutover waits for its end"
            );
            let (commit, back) = (literal(&gid), literal(&gid));
            let mend = format!("ROLLBACK PREPARED {back}; -- or: COMMIT PREPARED {commit};");
            found.push(Finding::warn(server.place, gid, happens).mend(mend));
        }
    }
    Ok(found)
}
