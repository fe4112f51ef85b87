//! Room on disks, as far as a server tells of it.
use super::Found;
use crate::error::word;
use crate::finding::{Finding, Sure};
use crate::pair::Pair;
use crate::server::Server;
use crate::words::{bytes, literal, name, seconds};
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let size = "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())";
    let (ours, theirs): (i64, i64) = (pair.source.value(size).await?, pair.target.value(size).await?);
    let wal = "SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_wal_size'))";
    let wal: i64 = pair.target.value(wal).await?;
    let happens = format!(
        "the source has {}, the target {} of that: what is left will be needed there, with {} beside it for its write-ahead log (max_wal_size) while it is loaded; \
        what is free on its disk can't be seen from here",
        bytes(ours),
        bytes(theirs),
        bytes(wal)
    );
    let mut found = vec![Finding::note(Place::Target, name(&pair.target.database), happens).sure(Sure::Possible)];
    let log = i64::try_from(pair.facts.log_bytes_max).unwrap_or(i64::MAX);
    let happens = format!(
        "pgshadow's own machine needs up to {} for the mirror log: what is written waits there while the target is loaded or away, and is lost to it beyond that",
        bytes(log)
    );
    found.push(Finding::note(Place::Source, "[mirror_log] size_max", happens).sure(Sure::Possible));
    for server in pair.both() {
        found.extend(slots(server).await?);
        found.extend(archive(server).await?);
    }
    Ok(found)
}

/// Replication slots that nobody reads keep all that is written since.
async fn slots(server: &Server<'_>) -> Found {
    let end = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn() ELSE pg_catalog.pg_current_wal_lsn() END";
    let sql = format!(
        "SELECT r.slot_name::text, coalesce(pg_catalog.pg_wal_lsn_diff({end}, r.restart_lsn), 0)::int8
        FROM pg_catalog.pg_replication_slots r WHERE NOT r.active AND NOT r.temporary AND r.restart_lsn IS NOT NULL ORDER BY 1"
    );
    let mut found = Vec::new();
    for row in server.rows(&sql).await? {
        let (slot, kept): (String, i64) = (server.get(&row, 0)?, server.get(&row, 1)?);
        let happens = format!(
            "nobody reads from this replication slot, and the {} keeps its write-ahead log from there on: {} so far, and all that a load writes",
            word(server.place),
            bytes(kept)
        );
        let mend = format!("SELECT pg_catalog.pg_drop_replication_slot({});", literal(&slot));
        found.push(Finding::warn(server.place, name(&slot), happens).sure(Sure::Likely).mend(mend));
    }
    Ok(found)
}

/// What can't be archived is kept.
async fn archive(server: &Server<'_>) -> Found {
    let sql = "SELECT pg_catalog.date_part('epoch', pg_catalog.now() - a.last_failed_time)::int8 FROM pg_catalog.pg_stat_archiver a
        WHERE pg_catalog.current_setting('archive_mode') <> 'off' AND a.last_failed_time > coalesce(a.last_archived_time, '-infinity')";
    let failing = server.values::<i64>(sql).await?;
    Ok(failing
        .into_iter()
        .map(|ago| {
            let happens = format!(
                "it could not be archived last ({} ago), and what isn't is kept: a load fills the disk of the {}; see its log for why",
                seconds(ago),
                word(server.place)
            );
            Finding::warn(server.place, "write-ahead log", happens).sure(Sure::Likely)
        })
        .collect())
}
