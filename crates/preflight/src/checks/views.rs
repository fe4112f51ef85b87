//! Views and materialized views that the target lacks.
use super::Found;
use crate::finding::Finding;
use crate::pair::{Pair, USERS, free};
use crate::sides::Sides;
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let kind = "CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END";
    let sql = format!(
        "SELECT ARRAY[n.nspname::text, c.relname::text], (SELECT pg_catalog.string_agg(pg_catalog.format('%I %s', a.attname,
            pg_catalog.format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
          pg_catalog.format('CREATE %s %I.%I%s AS %s ALTER %s %I.%I OWNER TO %I;', {kind}, n.nspname, c.relname,
            ' WITH (' || pg_catalog.array_to_string(c.reloptions, ', ') || ')', pg_catalog.pg_get_viewdef(c.oid), {kind}, n.nspname, c.relname, r.rolname),
          ARRAY[]::text[]
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
        WHERE c.relkind IN ('v', 'm') AND c.relpersistence <> 't' AND {USERS} AND {}",
        free("pg_class", "c.oid")
    );
    let sides = Sides::ask(pair, |_| sql.clone()).await?;
    let mut found = Vec::new();
    for view in sides.missing() {
        let happens = "the target lacks the view: what reads it fails after the flip";
        found.push(Finding::block(Place::Target, view.shown(), happens).mend(&view.statement));
    }
    for (view, _) in sides.different() {
        let happens = "its columns differ: what reads it fails, or gets others, after the flip";
        found.push(Finding::warn(Place::Target, view.shown(), happens));
    }
    Ok(found)
}
