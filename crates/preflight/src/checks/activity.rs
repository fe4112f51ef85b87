//! Long transactions, and sessions that are idle in one.
use super::Found;
use crate::finding::Finding;
use crate::pair::Pair;
use crate::words::{name, seconds};

/// Characters of a query that are shown.
const QUERY_MAX: usize = 120;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = "SELECT a.pid, coalesce(a.usename, '')::text, coalesce(a.application_name, ''), coalesce(a.client_addr::text, 'local'),
          pg_catalog.date_part('epoch', pg_catalog.now() - a.xact_start)::int8, coalesce(a.state, ''), coalesce(a.query, '')
        FROM pg_catalog.pg_stat_activity a WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
          AND a.backend_type = 'client backend' AND pg_catalog.date_part('epoch', pg_catalog.now() - a.xact_start) >= $1 ORDER BY a.xact_start";
    let at_least = pair.facts.transaction_age_max.as_secs_f64();
    let mut found = Vec::new();
    for server in pair.both() {
        for row in server.rows_with(sql, &[&at_least]).await? {
            let (pid, user): (i32, String) = (server.get(&row, 0)?, server.get(&row, 1)?);
            let (program, address): (String, String) = (server.get(&row, 2)?, server.get(&row, 3)?);
            let (age, state): (i64, String) = (server.get(&row, 4)?, server.get(&row, 5)?);
            let query: String = server.get::<String>(&row, 6)?.split_whitespace().collect::<Vec<_>>().join(" ");
            if pair.is_own(&user) {
                continue;
            }
            let query: String = query.chars().take(QUERY_MAX).collect();
            let what = if state.starts_with("idle in transaction") {
                "idle in a transaction for"
            } else {
                "in a transaction for"
            };
            let happens = format!(
                "{} ({program}, {address}) is {what} {}: it keeps its locks, and definitions and a cutover wait for it; last: {query}",
                name(&user),
                seconds(age)
            );
            let mend = format!("SELECT pg_catalog.pg_terminate_backend({pid});");
            found.push(Finding::warn(server.place, format!("pid {pid}"), happens).mend(mend));
        }
    }
    Ok(found)
}
