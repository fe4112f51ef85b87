//! What runs by itself on the source, and what reaches out of it: a flip carries neither over.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::Pair;
use crate::words::name;
use pgshadow_model::Place;

/// Extensions, and what is to be known of each.
const KNOWN: [(&str, &str); 5] = [
    (
        "pg_cron",
        "jobs of pg_cron run on the source until they are unscheduled there, also after the flip, and are refused then: unschedule them \
        there at the flip and schedule them on the target, not before",
    ),
    (
        "pg_partman",
        "partitions are made by pg_partman's maintenance: it must run on the source before the flip and on the target after it, not on both; the \
        contents of its own tables aren't mirrored",
    ),
    ("pgagent", "jobs of pgAgent run where its daemon connects to: have it connect to the target at the flip"),
    (
        "dblink",
        "functions may reach other databases by dblink, which the target's machine must reach as well; what they write there isn't known to pgshadow, \
        and one that reaches this database itself comes past pgshadow",
    ),
    (
        "timescaledb",
        "policies of TimescaleDB run as jobs on each server: its tables are of its own making, and can't be mirrored as they are",
    ),
];

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let installed: Vec<String> = pair.source.values("SELECT x.extname::text FROM pg_catalog.pg_extension x").await?;
    let of_known = |(extension, happens): &(&str, &str)| {
        Finding::note(Place::Source, name(extension), *happens).sure(Sure::Likely)
    };
    let mut found: Vec<_> =
        KNOWN.iter().filter(|(extension, _)| installed.iter().any(|one| one == extension)).map(of_known).collect();
    // It keeps the jobs of all databases in one of them.
    let elsewhere = "SELECT pg_catalog.current_setting('cron.database_name', true)";
    let kept_in: Option<String> = pair.source.value(elsewhere).await?;
    if let Some(database) = kept_in.filter(|kept_in| *kept_in != pair.source.database) {
        let happens = format!(
            "pg_cron keeps its jobs in database {}, and some may run in this one: unschedule these there at the flip, and schedule them on the target",
            name(&database)
        );
        found.push(Finding::note(Place::Source, "pg_cron", happens).sure(Sure::Possible));
    }
    let workers = "SELECT DISTINCT a.backend_type || coalesce(' ' || nullif(a.application_name, ''), '') FROM pg_catalog.pg_stat_activity a
        WHERE a.datname = pg_catalog.current_database() AND a.backend_type NOT IN ('client backend', 'autovacuum worker', 'parallel worker', 'walsender') ORDER BY 1";
    for worker in pair.source.values::<String>(workers).await? {
        let happens = "this background worker is at the database: what it writes isn't seen by pgshadow; stop it at the flip, and start its like on the target";
        found.push(Finding::note(Place::Source, worker, happens).sure(Sure::Possible));
    }
    Ok(found)
}
