//! Whether each server has room for pgshadow's connections, and the target for the application's.
use super::Found;
use crate::error::word;
use crate::finding::{Finding, Sure};
use crate::pair::Pair;
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = "SELECT (SELECT s.setting::int8 FROM pg_catalog.pg_settings s WHERE s.name = 'max_connections')
          - (SELECT pg_catalog.sum(s.setting::int8)::int8 FROM pg_catalog.pg_settings s WHERE s.name IN ('superuser_reserved_connections', 'reserved_connections')),
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a WHERE a.backend_type = 'client backend'),
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a WHERE a.backend_type = 'client backend' AND a.datname = pg_catalog.current_database())";
    // Lanes, a definition beside them, readers with their snapshot and its watch, the watch of the server, probes.
    let own = i64::try_from(pair.facts.lanes + pair.facts.readers).unwrap_or(i64::MAX) + 6;
    let mut found = Vec::new();
    let mut clients = 0;
    for server in pair.both() {
        let row = server.one(sql).await?;
        let (most, used, here): (i64, i64, i64) = (server.get(&row, 0)?, server.get(&row, 1)?, server.get(&row, 2)?);
        let needed = if server.place == Place::Source { own } else { own + clients };
        clients = here;
        if most - used < needed {
            let happens = format!(
                "{used} of {most} connections are in use, and {needed} more will be needed ({own} by pgshadow{}): sessions are refused",
                if server.place == Place::Source { "" } else { ", the others by the application after the flip" }
            );
            let mend = format!(
                "ALTER SYSTEM SET max_connections = {}; -- then restart the {}",
                used + needed + 10,
                word(server.place)
            );
            found.push(Finding::warn(server.place, "max_connections", happens).sure(Sure::Likely).mend(mend));
        }
    }
    Ok(found)
}
