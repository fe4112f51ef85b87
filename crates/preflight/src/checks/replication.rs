//! Logical replication and event triggers on the source, which aren't carried over.
use super::Found;
use crate::finding::Finding;
use crate::pair::Pair;
use crate::words::name;
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = "SELECT 'publication', p.pubname::text FROM pg_catalog.pg_publication p
        UNION ALL SELECT 'subscription', s.subname::text FROM pg_catalog.pg_subscription s
          WHERE s.subdbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
        UNION ALL SELECT 'replication slot', r.slot_name::text FROM pg_catalog.pg_replication_slots r
          WHERE r.database = pg_catalog.current_database() AND NOT r.temporary
        UNION ALL SELECT 'event trigger', e.evtname::text FROM pg_catalog.pg_event_trigger e WHERE e.evtenabled <> 'D'
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend x WHERE x.classid = 'pg_catalog.pg_event_trigger'::regclass AND x.objid = e.oid AND x.deptype = 'e')
        ORDER BY 1, 2";
    let mut target = Vec::new();
    for row in pair.target.rows(sql).await? {
        target.push((pair.target.get::<String>(&row, 0)?, pair.target.get::<String>(&row, 1)?));
    }
    let mut found = Vec::new();
    for row in pair.source.rows(sql).await? {
        let (kind, object): (String, String) = (pair.source.get(&row, 0)?, pair.source.get(&row, 1)?);
        if !target.contains(&(kind.clone(), object.clone())) {
            let happens =
                format!("the {kind} isn't carried over: what depends on it stops at the flip; set it up on the target");
            found.push(Finding::warn(Place::Source, name(&object), happens));
        }
    }
    Ok(found)
}
