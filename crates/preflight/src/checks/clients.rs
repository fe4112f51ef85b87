//! Who is connected to the databases directly.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::Pair;
use crate::words::name;
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = "SELECT coalesce(a.usename, '')::text, coalesce(a.application_name, ''), coalesce(a.client_addr::text, 'local'), pg_catalog.count(*)
        FROM pg_catalog.pg_stat_activity a WHERE a.datname = pg_catalog.current_database() AND a.backend_type = 'client backend'
          AND a.pid <> pg_catalog.pg_backend_pid() GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3";
    let mut found = Vec::new();
    for server in pair.both() {
        for row in server.rows(sql).await? {
            let (user, program): (String, String) = (server.get(&row, 0)?, server.get(&row, 1)?);
            let (address, many): (String, i64) = (server.get(&row, 2)?, server.get(&row, 3)?);
            if pair.is_own(&user) {
                continue;
            }
            let who = format!("{many} sessions ({program}, from {address})");
            found.push(match server.place {
                Place::Source => {
                    let happens = format!("{who}: if they don't come through pgshadow (not yet: normal while a deployment rolls out), what they write is suspect");
                    Finding::note(Place::Source, name(&user), happens).sure(Sure::Possible)
                }
                Place::Target => {
                    let happens = format!("{who} are connected to the target: what they write there is a difference, until the flip nobody but pgshadow may");
                    Finding::warn(Place::Target, name(&user), happens).sure(Sure::Possible)
                }
            });
        }
    }
    Ok(found)
}
