//! Functions and procedures that the target lacks, or that differ.
use super::Found;
use crate::finding::Finding;
use crate::pair::{Pair, USERS, free};
use crate::sides::{Object, Sides};
use crate::words::{plain, shown};
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sides = Sides::ask(pair, |server| {
        let aggregate = server.from(110_000, "p.prokind = 'a'", "p.proisagg");
        let kind = server.from(110_000, "CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END", "'FUNCTION'");
        format!(
            "SELECT ARRAY[n.nspname::text, p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid)],
              pg_catalog.concat_ws(' ', pg_catalog.pg_get_function_result(p.oid), l.lanname, p.provolatile, p.prosecdef, p.proisstrict,
                p.proconfig::text, p.prosrc),
              pg_catalog.pg_get_functiondef(p.oid) || pg_catalog.format(E';\\nALTER %s %I.%I(%s) OWNER TO %I;', {kind}, n.nspname, p.proname,
                pg_catalog.pg_get_function_identity_arguments(p.oid), r.rolname) , ARRAY[]::text[]
            FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang
            JOIN pg_catalog.pg_roles r ON r.oid = p.proowner WHERE NOT {aggregate} AND {USERS} AND {}",
            free("pg_proc", "p.oid")
        )
    })
    .await?;
    let subject =
        |function: &Object| format!("{}({})", shown(&[function.part(0), function.part(1)]), plain(function.part(2)));
    let mut found = Vec::new();
    for function in sides.missing() {
        let happens = "the target lacks it: what calls it fails after the flip";
        found.push(Finding::block(Place::Target, subject(function), happens).mend(&function.statement));
    }
    for (function, _) in sides.different() {
        let happens = "its text or its properties differ: it acts otherwise after the flip";
        found.push(Finding::warn(Place::Target, subject(function), happens).mend(&function.statement));
    }
    Ok(found)
}
