//! Tables that one side lacks.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS, free};
use crate::sides::Sides;
use crate::words::shell;
use pgshadow_model::Place;

/// One note in the place of all differences.
pub(super) async fn look_for_any(pair: &Pair<'_>) -> Found {
    let note = Finding::note(Place::Target, &pair.target.database, "the target is empty: a backfill makes its schema")
        .mend("pgshadow backfill --create-schema");
    Ok(if pair.target_is_empty { vec![note] } else { Vec::new() })
}

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT ARRAY[n.nspname::text, c.relname::text], c.relkind::text, '', ARRAY[pg_catalog.format('%I.%I', n.nspname, c.relname)]
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {USERS} AND {}",
        free("pg_class", "c.oid")
    );
    let sides = Sides::of_tables(pair, |_| sql.clone()).await?;
    let mut found = Vec::new();
    for table in sides.missing() {
        let happens = "the target lacks the table: it is suspect with its first write; load it (`pgshadow backfill --table`) once it is there";
        let mend = format!(
            "pg_dump --schema-only --table={} -d {} | psql -X -v ON_ERROR_STOP=1 -d {}",
            shell(table.detail(0)),
            shell(&pair.facts.source),
            shell(&pair.facts.target)
        );
        found.push(Finding::block(Place::Target, table.shown(), happens).mend(mend));
    }
    for (table, _) in sides.different() {
        let happens = "it is partitioned on one side only: definitions of its partitions can't be repeated";
        found.push(Finding::warn(Place::Target, table.shown(), happens).sure(Sure::Likely));
    }
    for table in sides.extra() {
        let happens = "only the target has the table: nothing is known of its rows";
        found.push(Finding::note(Place::Target, table.shown(), happens));
    }
    Ok(found)
}
