//! Objects that belong to another role on the target.
use super::Found;
use super::roles;
use crate::finding::{Finding, Level, Sure};
use crate::pair::{Pair, USERS, free};
use crate::server::Server;
use crate::sides::Sides;
use crate::words::{literal, name, shown};
use pgshadow_model::{Place, quote};
use std::collections::BTreeMap;

/// Places in the details.
const KIND: usize = 0;
const SUPERUSER: usize = 1;

/// What has an owner of its own: sequences and indexes of a table go with it.
fn sql(server: &Server<'_>) -> String {
    let procedure = server.from(
        110_000,
        "CASE p.prokind WHEN 'p' THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END",
        "CASE WHEN p.proisagg THEN 'AGGREGATE' ELSE 'FUNCTION' END",
    );
    let kind = "CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END";
    format!(
        "SELECT ARRAY[o.kind] || o.path, r.rolname::text, o.named, ARRAY[o.kind, r.rolsuper::text] FROM (
          SELECT 'SCHEMA', ARRAY[n.nspname::text], pg_catalog.format('%I', n.nspname), n.nspowner
          FROM pg_catalog.pg_namespace n WHERE {USERS} AND {}
          UNION ALL SELECT {kind}, ARRAY[n.nspname::text, c.relname::text], pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't' AND {USERS} AND {}
            AND NOT (c.relkind = 'S' AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
              AND d.objid = c.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i')))
          UNION ALL SELECT {procedure}, ARRAY[n.nspname::text, p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid)],
            pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, CASE WHEN {procedure} = 'AGGREGATE' AND p.pronargs = 0 THEN '*'
              ELSE pg_catalog.pg_get_function_identity_arguments(p.oid) END), p.proowner
          FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE {USERS} AND {}
          UNION ALL SELECT CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, ARRAY[n.nspname::text, t.typname::text],
            pg_catalog.format('%I.%I', n.nspname, t.typname), t.typowner
          FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
          WHERE (t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND c.relkind = 'c') AND {USERS} AND {}
        ) AS o (kind, path, named, owner) JOIN pg_catalog.pg_roles r ON r.oid = o.owner",
        free("pg_namespace", "n.oid"),
        free("pg_class", "c.oid"),
        free("pg_proc", "p.oid"),
        free("pg_type", "t.oid")
    )
}

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let mut sides = Sides::ask(pair, sql).await?;
    sides.keep(|object| !pair.is_excluded(&pgshadow_model::QualifiedName::new(object.part(1), object.part(2))));
    let there = roles::known(&pair.target).await?;
    let mut acts_as = BTreeMap::new();
    let mut found = Vec::new();
    for (source, target) in sides.different() {
        let (ours, theirs) = (&source.definition, &target.definition);
        if !there.contains_key(ours)
            || is_the_servers_own(source.part(1), [ours, theirs], [source.is(SUPERUSER), target.is(SUPERUSER)])
        {
            continue;
        }
        let kind = source.detail(KIND);
        let mend = format!("ALTER {kind} {} OWNER TO {};", target.statement, quote(ours));
        let subject = shown_object(kind, &source.key);
        let both = format!("it belongs to {} on the source and to {} on the target", name(ours), name(theirs));
        let key = (ours.clone(), theirs.clone());
        if !acts_as.contains_key(&key) {
            let test = format!("SELECT pg_catalog.pg_has_role({}, {}, 'USAGE')", literal(ours), literal(theirs));
            acts_as.insert(key.clone(), pair.target.value::<bool>(&test).await?);
        }
        let finding = if acts_as.get(&key) == Some(&true) {
            let happens =
                format!("{both}, whose rights {} has: only what it makes there belongs to another role", name(ours));
            Finding::note(Place::Target, subject, happens).sure(Sure::Possible)
        } else {
            let happens = format!(
                "{both}: {} can't redefine it there, nor use it without a right granted, after the flip",
                name(ours)
            );
            // A superuser of the source needn't be one on the target: services give none.
            let level = if source.is(SUPERUSER) { Level::Warn } else { Level::Block };
            Finding::new(level, Place::Target, subject, happens)
        };
        found.push(finding.mend(mend));
    }
    Ok(found)
}

/// The schema `public` comes with the server, and belongs to whom the server's version says.
fn is_the_servers_own(schema: &str, owners: [&str; 2], superusers: [bool; 2]) -> bool {
    let [ours, theirs] = [0, 1].map(|side| {
        let owner = owners.get(side).copied().unwrap_or_default();
        owner == "pg_database_owner" || superusers.get(side).copied().unwrap_or_default()
    });
    schema == "public" && ours && theirs
}

/// A function with its arguments, all else by its name.
fn shown_object(kind: &str, key: &[String]) -> String {
    match (kind, key) {
        ("FUNCTION" | "PROCEDURE" | "AGGREGATE", [_, schema, name, arguments]) => {
            format!("{}({})", shown(&[schema, name]), crate::words::plain(arguments))
        }
        (_, [_, path @ ..]) => shown(path),
        _ => String::new(),
    }
}
