//! Sequences that the target lacks, or that count otherwise there.
use super::Found;
use crate::finding::Finding;
use crate::pair::{Pair, USERS, free};
use crate::sides::Sides;
use crate::words::plain;
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let counts = "pg_catalog.format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s %s',
        pg_catalog.format_type(s.seqtypid, NULL), s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcache, CASE WHEN s.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)";
    let sql = format!(
        "SELECT ARRAY[n.nspname::text, c.relname::text], {counts}, pg_catalog.format('CREATE SEQUENCE %I.%I %s; ALTER SEQUENCE %I.%I OWNER TO %I;',
            n.nspname, c.relname, {counts}, n.nspname, c.relname, r.rolname),
          ARRAY[pg_catalog.format('ALTER SEQUENCE %I.%I %s;', n.nspname, c.relname, {counts})]
        FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
        WHERE c.relpersistence <> 't' AND {USERS} AND {} AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = c.oid
          AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype = 'i')",
        free("pg_class", "c.oid")
    );
    let sides = Sides::ask(pair, |_| sql.clone()).await?;
    let mut found = Vec::new();
    for sequence in sides.missing() {
        let happens = "the target lacks the sequence: what takes numbers from it fails after the flip";
        found.push(Finding::block(Place::Target, sequence.shown(), happens).mend(&sequence.statement));
    }
    for (source, target) in sides.different() {
        let (ours, theirs) = (plain(&source.definition), plain(&target.definition));
        let happens = format!("{ours} on the source, {theirs} on the target: other numbers are given after the flip");
        found.push(Finding::warn(Place::Target, source.shown(), happens).mend(source.detail(0)));
    }
    Ok(found)
}
