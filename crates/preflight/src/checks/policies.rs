//! Row-level security: policies that differ, and whether it holds for owners too.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS, free};
use crate::sides::{Object, Sides};
use crate::words::plain;
use pgshadow_model::{Place, quote};

/// Places in the details of a table.
const ENABLED: usize = 0;
const FORCED: usize = 1;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let named = "SELECT CASE WHEN u.role = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END
        FROM pg_catalog.unnest(p.polroles) AS u (role) LEFT JOIN pg_catalog.pg_roles r ON r.oid = u.role ORDER BY 1";
    let definition = format!(
        "pg_catalog.format('AS %s FOR %s TO %s%s%s', CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
          CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
          pg_catalog.array_to_string(ARRAY({named}), ', '), ' USING (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')',
          ' WITH CHECK (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')')"
    );
    let sql = format!(
        "SELECT ARRAY[n.nspname::text, c.relname::text, p.polname::text], {definition},
          pg_catalog.format('CREATE POLICY %I ON %I.%I %s;', p.polname, n.nspname, c.relname, {definition}), ARRAY[]::text[]
        FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE {USERS} AND {}",
        free("pg_class", "c.oid")
    );
    let sides = Sides::in_tables(pair, |_| sql.clone()).await?;
    let mut found = Vec::new();
    for policy in sides.missing() {
        let text = plain(&policy.definition);
        let happens = format!("the target lacks the policy ({text}): after the flip other rows are seen or taken");
        found.push(Finding::block(Place::Target, policy.shown(), happens).mend(&policy.statement));
    }
    for policy in sides.extra() {
        let text = plain(&policy.definition);
        let happens = format!("only the target has the policy ({text}): after the flip other rows are seen or taken");
        found.push(Finding::warn(Place::Target, policy.shown(), happens).mend(drop(policy)));
    }
    for (source, target) in sides.different() {
        let (ours, theirs) = (plain(&source.definition), plain(&target.definition));
        let happens =
            format!("{ours} on the source, {theirs} on the target: after the flip other rows are seen or taken");
        let sure = if pair.same_major() { Sure::Certain } else { Sure::Likely };
        let mend = format!("{} {}", drop(target), source.statement);
        found.push(Finding::warn(Place::Target, source.shown(), happens).sure(sure).mend(mend));
    }
    found.extend(states(pair).await?);
    Ok(found)
}

fn drop(policy: &Object) -> String {
    format!("DROP POLICY {} ON {};", quote(policy.part(2)), policy.table().sql())
}

/// Where it is on on the target only, or holds for the owner on one side only. That it is off there is told with the triggers.
async fn states(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT ARRAY[n.nspname::text, c.relname::text], '', '', ARRAY[c.relrowsecurity::text, c.relforcerowsecurity::text]
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {USERS} AND {}",
        free("pg_class", "c.oid")
    );
    let tables = Sides::in_tables(pair, |_| sql.clone()).await?;
    let mut found = Vec::new();
    for (source, target) in tables.common() {
        let alter = |what: &str| format!("ALTER TABLE {} {what} ROW LEVEL SECURITY;", target.table().sql());
        if target.is(ENABLED) && !source.is(ENABLED) {
            let happens = "row-level security is on on the target only: rows that are seen on the source are hidden after the flip";
            found.push(Finding::warn(Place::Target, source.shown(), happens).mend(alter("DISABLE")));
        }
        if target.is(FORCED) != source.is(FORCED) {
            let (happens, mend) = if source.is(FORCED) {
                (
                    "row-level security holds for the owner too on the source only: after the flip it sees all rows",
                    "FORCE",
                )
            } else {
                (
                    "row-level security holds for the owner too on the target only: after the flip rows are hidden from it",
                    "NO FORCE",
                )
            };
            found.push(Finding::warn(Place::Target, source.shown(), happens).mend(alter(mend)));
        }
    }
    Ok(found)
}
