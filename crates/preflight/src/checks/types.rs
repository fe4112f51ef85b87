//! Enums, domains and composite types that the target lacks, and types whose OIDs differ.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS, free};
use crate::sides::Sides;
use crate::words::{plain, shown, some};
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT ARRAY[k.nspname::text, k.typname::text], k.definition, pg_catalog.format('CREATE %s %I.%I AS %s; ALTER %s %I.%I OWNER TO %I;',
            k.kind, k.nspname, k.typname, k.definition, k.kind, k.nspname, k.typname, k.owner), ARRAY[]::text[]
        FROM (SELECT n.nspname, t.typname, r.rolname AS owner, CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END AS kind, CASE t.typtype
            WHEN 'e' THEN 'ENUM (' || coalesce((SELECT pg_catalog.string_agg(pg_catalog.quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder)
                FROM pg_catalog.pg_enum l WHERE l.enumtypid = t.oid), '') || ')'
            WHEN 'd' THEN pg_catalog.concat_ws(' ', pg_catalog.format_type(t.typbasetype, t.typtypmod), 'DEFAULT ' || t.typdefault,
                CASE WHEN t.typnotnull THEN 'NOT NULL' END, (SELECT pg_catalog.string_agg(pg_catalog.format('CONSTRAINT %I %s', k.conname,
                  pg_catalog.pg_get_constraintdef(k.oid)), ' ' ORDER BY k.conname) FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'))
            ELSE '(' || coalesce((SELECT pg_catalog.string_agg(pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)), ', '
                ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped), '') || ')' END AS definition
          FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace JOIN pg_catalog.pg_roles r ON r.oid = t.typowner
          LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
          WHERE (t.typtype IN ('e', 'd') OR t.typtype = 'c' AND c.relkind = 'c') AND {USERS} AND {}) AS k",
        free("pg_type", "t.oid")
    );
    let sides = Sides::ask(pair, |_| sql.clone()).await?;
    let mut found = Vec::new();
    for kind in sides.missing() {
        let happens = "the target lacks the type: tables and statements that use it fail there";
        found.push(Finding::block(Place::Target, kind.shown(), happens).mend(&kind.statement));
    }
    for (source, target) in sides.different() {
        let (ours, theirs) = (plain(&source.definition), plain(&target.definition));
        let happens =
            format!("{ours} on the source, {theirs} on the target: values may be refused there, or act otherwise");
        found.push(Finding::block(Place::Target, source.shown(), happens).sure(Sure::Likely));
    }
    Ok(found)
}

/// Drivers keep OIDs of types for each pool.
pub(super) async fn look_at_oids(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT ARRAY[n.nspname::text, t.typname::text], t.oid::text, '', ARRAY[]::text[] FROM pg_catalog.pg_type t
        JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
        WHERE (t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND c.relkind = 'c' OR t.typtype = 'b' AND t.typelem = 0) AND {USERS}"
    );
    let sides = Sides::ask(pair, |_| sql.clone()).await?;
    let differ: Vec<String> = sides.different().map(|(kind, _)| shown(&kind.key)).collect();
    if differ.is_empty() {
        return Ok(Vec::new());
    }
    let happens = "their OIDs differ on both servers, and drivers that keep them for each pool (Npgsql, say) fail or misread after the flip: \
        restart applications, or have their pools read types anew, at the flip";
    Ok(vec![Finding::warn(Place::Target, some(&differ, 5), happens)])
}
