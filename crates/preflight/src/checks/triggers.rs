//! Triggers and row-level security that differ.
use super::Found;
use crate::finding::Finding;
use crate::pair::{Pair, USERS, free};
use crate::server::Server;
use crate::sides::Sides;
use pgshadow_model::{Place, quote};

fn sql(server: &Server<'_>) -> String {
    let parent = server.from(130_000, "g.tgparentid = 0", "true");
    let not_own = free("pg_class", "c.oid");
    format!(
        "SELECT ARRAY[n.nspname::text, c.relname::text, g.tgname::text], pg_catalog.replace(pg_catalog.pg_get_triggerdef(g.oid),
            ' EXECUTE PROCEDURE ', ' EXECUTE FUNCTION ') || g.tgenabled::text, pg_catalog.pg_get_triggerdef(g.oid) || ';', ARRAY[g.tgenabled::text]
        FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT g.tgisinternal AND {parent} AND c.relpersistence <> 't' AND {USERS} AND {not_own}"
    )
}

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sides = Sides::in_tables(pair, sql).await?;
    let mut found = Vec::new();
    for trigger in sides.missing() {
        let happens = "the target lacks the trigger: what it does is left out after the flip";
        found.push(Finding::block(Place::Target, trigger.shown(), happens).mend(&trigger.statement));
    }
    let drop = |name: &str, table: &str| format!("DROP TRIGGER {} ON {table};", quote(name));
    for trigger in sides.extra() {
        let happens = "only the target has the trigger: it fires after the flip";
        let mend = drop(trigger.part(2), &trigger.table().sql());
        found.push(Finding::warn(Place::Target, trigger.shown(), happens).mend(mend));
    }
    for (source, target) in sides.different() {
        let happens = "it is defined or enabled otherwise on the target: it acts otherwise after the flip";
        let table = source.table().sql();
        let mut mend = format!("{} {}", drop(target.part(2), &table), source.statement);
        let state = match source.detail(0) {
            "D" => "DISABLE",
            "R" => "ENABLE REPLICA",
            "A" => "ENABLE ALWAYS",
            _ => "ENABLE",
        };
        mend.push_str(&format!(" ALTER TABLE {table} {state} TRIGGER {};", quote(source.part(2))));
        found.push(Finding::warn(Place::Target, source.shown(), happens).mend(mend));
    }
    let security = format!(
        "SELECT ARRAY[n.nspname::text, c.relname::text], '', '', ARRAY[c.relrowsecurity::text, c.relforcerowsecurity::text] FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {USERS}"
    );
    let tables = Sides::in_tables(pair, |_| security.clone()).await?;
    for (source, target) in tables.common().filter(|(source, target)| source.is(0) && !target.is(0)) {
        let happens = "row-level security is off on the target: all its rows are seen after the flip";
        let mend = format!("ALTER TABLE {} ENABLE ROW LEVEL SECURITY;", target.table().sql());
        found.push(Finding::block(Place::Target, source.shown(), happens).mend(mend));
    }
    Ok(found)
}
