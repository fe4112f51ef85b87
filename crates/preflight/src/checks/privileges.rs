//! Rights that were granted on one side only, and default privileges.
use super::Found;
use super::roles;
use crate::error::Error;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS, free};
use crate::server::Server;
use crate::sides::{Object, Sides};
use crate::words::{literal, name, plain, shown, some};
use pgshadow_model::{Place, QualifiedName, quote};
use std::collections::{BTreeMap, BTreeSet};

/// The kinds whose keys stand for nothing but what is granted: one that isn't there has none.
const COLUMN: &str = "COLUMN";
const DEFAULT: &str = "DEFAULT";
const DATABASE: &str = "DATABASE";
/// PUBLIC, in the place of a role's name.
const EVERYBODY: &str = "";

/// What is granted on one object, but to its owner: `privilege grantee`, with a star where it may be granted on. PUBLIC has no name.
const ENTRIES: &str = "ARRAY(SELECT a.privilege_type || CASE WHEN pg_catalog.bool_or(a.is_grantable) THEN '* ' ELSE ' ' END
    || coalesce(g.rolname::text, '') FROM pg_catalog.aclexplode(o.acl) AS a LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
    WHERE a.grantee <> o.owner AND (a.grantee = 0 OR g.oid IS NOT NULL) GROUP BY a.privilege_type, g.rolname ORDER BY 1)";

/// Objects: their kind and path, how they are named behind ON, what asks for them (a name of a function of `has_..._privilege`, and its
/// argument), their owner, and what is granted.
fn sql(server: &Server<'_>) -> String {
    let procedure = server.from(110_000, "CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END", "'FUNCTION'");
    let of = |catalog, oid| free(catalog, oid);
    format!(
        "SELECT ARRAY[o.kind] || o.path, ({ENTRIES})::text, o.named, ARRAY[r.rolname::text, o.asked] || {ENTRIES} FROM (
          SELECT '{DATABASE}', ARRAY[]::text[], '', '', d.datdba, coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))
          FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
          UNION ALL SELECT 'SCHEMA', ARRAY[n.nspname::text], pg_catalog.format('SCHEMA %I', n.nspname), n.nspname::text, n.nspowner,
            coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))
          FROM pg_catalog.pg_namespace n WHERE {USERS} AND {}
          UNION ALL SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, ARRAY[n.nspname::text, c.relname::text],
            pg_catalog.format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname),
            pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner,
            coalesce(c.relacl, pg_catalog.acldefault(CASE c.relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r'::\"char\" END, c.relowner))
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't' AND {USERS} AND {}
          UNION ALL SELECT '{COLUMN}', ARRAY[n.nspname::text, c.relname::text, a.attname::text],
            pg_catalog.format('TABLE %I.%I', n.nspname, c.relname), pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner, a.attacl
          FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' AND {USERS} AND {}
          UNION ALL SELECT 'FUNCTION', ARRAY[n.nspname::text, p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid)],
            pg_catalog.format('%s %s', {procedure}, p.oid::pg_catalog.regprocedure),
            p.oid::pg_catalog.regprocedure::text, p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
          FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE {USERS} AND {}
          UNION ALL SELECT 'TYPE', ARRAY[n.nspname::text, t.typname::text], pg_catalog.format('TYPE %I.%I', n.nspname, t.typname),
            pg_catalog.format('%I.%I', n.nspname, t.typname), t.typowner, coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))
          FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
          WHERE (t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND c.relkind = 'c') AND {USERS} AND {}
          UNION ALL SELECT 'SERVER', ARRAY[s.srvname::text], pg_catalog.format('FOREIGN SERVER %I', s.srvname), s.srvname::text, s.srvowner,
            coalesce(s.srvacl, pg_catalog.acldefault('S', s.srvowner))
          FROM pg_catalog.pg_foreign_server s WHERE {}
        ) AS o (kind, path, named, asked, owner, acl) JOIN pg_catalog.pg_roles r ON r.oid = o.owner
        UNION ALL {}",
        of("pg_namespace", "n.oid"),
        of("pg_class", "c.oid"),
        of("pg_class", "c.oid"),
        of("pg_proc", "p.oid"),
        of("pg_type", "t.oid"),
        of("pg_foreign_server", "s.oid"),
        defaults()
    )
}

/// Default privileges: what they grant beyond the server's own, and, with a minus, what they take of these. For one schema
/// they only add.
fn defaults() -> String {
    let given = "pg_catalog.aclexplode(d.defaclacl)";
    let usual = "pg_catalog.aclexplode(CASE WHEN d.defaclnamespace = 0 THEN pg_catalog.acldefault(CASE d.defaclobjtype WHEN 'S' THEN 's'::\"char\"
        ELSE d.defaclobjtype END, d.defaclrole) END)";
    let only = |sign: &str, of: &str, not_of: &str| {
        format!(
            "SELECT '{sign}' || a.privilege_type || CASE WHEN a.is_grantable THEN '* ' ELSE ' ' END || coalesce(g.rolname::text, '')
            FROM {of} AS a LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee WHERE a.grantee <> d.defaclrole AND (a.grantee = 0 OR g.oid IS NOT NULL)
              AND NOT EXISTS (SELECT FROM {not_of} AS b WHERE b.grantee = a.grantee AND b.privilege_type = a.privilege_type)"
        )
    };
    let entries = format!("ARRAY({} UNION ALL {} ORDER BY 1)", only("", given, usual), only("-", usual, given));
    format!(
        "SELECT ARRAY['{DEFAULT}', r.rolname::text, coalesce(n.nspname::text, ''), d.defaclobjtype::text], ({entries})::text,
          CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES'
            WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END, ARRAY[r.rolname::text, ''] || {entries}
        FROM pg_catalog.pg_default_acl d JOIN pg_catalog.pg_roles r ON r.oid = d.defaclrole LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace"
    )
}

/// A privilege that one side has granted and the other one hasn't.
struct Granted {
    /// With a minus: one that is taken of what the server grants by itself.
    privilege: String,
    grantable: bool,
    /// The other side has it as well, but it mayn't be granted on there.
    option_only: bool,
}

/// What one role has of one object: privileges, and whether each may be granted on.
type Held<'a> = BTreeMap<&'a str, BTreeMap<&'a str, bool>>;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let mut sides = Sides::ask(pair, sql).await?;
    sides.keep(|object| {
        let table = || QualifiedName::new(object.part(1), object.part(2));
        match object.part(0) {
            "TABLE" => !pair.is_excluded(&table()),
            COLUMN => !pair.is_excluded(&table()) && pair.common.contains(&table()),
            _ => true,
        }
    });
    let there = roles::known(&pair.target).await?;
    let fenced = is_fenced(&pair.source).await? || is_fenced(&pair.target).await?;
    let keys: BTreeSet<&Vec<String>> = sides.source.keys().chain(sides.target.keys()).collect();
    let mut found = Vec::new();
    for key in keys {
        let (source, target) = (sides.source.get(key), sides.target.get(key));
        let Some(any) = source.or(target) else { continue };
        let has_none = matches!(any.part(0), COLUMN | DEFAULT);
        if !has_none && (source.is_none() || target.is_none())
            || source.map(|s| &s.definition) == target.map(|t| &t.definition)
        {
            continue;
        }
        if any.part(0) == DEFAULT && (!there.contains_key(any.part(1)) || pair.is_own(any.part(1))) {
            continue;
        }
        let owners = [source, target].map(|side| side.map_or("", |object| object.detail(0)));
        let (ours, theirs) = (source.map(held).unwrap_or_default(), target.map(held).unwrap_or_default());
        let grantees: BTreeSet<&str> = ours.keys().chain(theirs.keys()).copied().collect();
        for grantee in grantees {
            let known = there.get(grantee);
            let is_theirs = |known: &bool| *known || pair.is_own(grantee) || owners.contains(&grantee);
            if grantee != EVERYBODY && known.is_none_or(is_theirs) {
                continue;
            }
            let none = BTreeMap::new();
            let (ours, theirs) = (ours.get(grantee).unwrap_or(&none), theirs.get(grantee).unwrap_or(&none));
            let only = |these: &BTreeMap<&str, bool>, those: &BTreeMap<&str, bool>| {
                let lacks = |(privilege, grantable): &(&&str, &bool)| {
                    those.get(*privilege).is_none_or(|there| **grantable && !there)
                };
                let kept = |(privilege, _): &(&&str, &bool)| {
                    are_on_both(pair, privilege) && !(fenced && any.part(0) == DATABASE && **privilege == "CONNECT")
                };
                let granted = |(privilege, grantable): (&&str, &bool)| Granted {
                    privilege: (*privilege).to_owned(),
                    grantable: *grantable,
                    option_only: those.contains_key(*privilege),
                };
                these.iter().filter(kept).filter(lacks).map(granted).collect::<Vec<_>>()
            };
            let (missing, extra) = (only(ours, theirs), only(theirs, ours));
            let object = target.unwrap_or(any);
            if !missing.is_empty() {
                found.push(lacking(pair, object, grantee, &missing).await?);
            }
            if !extra.is_empty() {
                found.push(too_many(pair, object, grantee, &extra));
            }
        }
    }
    Ok(found)
}

/// Whether pgshadow keeps clients off a database that isn't the primary any more, for which it takes the right to connect.
async fn is_fenced(server: &Server<'_>) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
        WHERE d.datname = pg_catalog.current_database() AND s.setrole = 0 AND 'default_transaction_read_only=on' = ANY (s.setconfig))";
    server.value(sql).await
}

fn held(object: &Object) -> Held<'_> {
    let mut held = Held::new();
    for (privilege, grantee) in object.detail.iter().skip(2).filter_map(|entry| entry.split_once(' ')) {
        let (name, grantable) = privilege.strip_suffix('*').map_or((privilege, false), |name| (name, true));
        held.entry(grantee).or_default().insert(name, grantable);
    }
    held
}

/// MAINTAIN is 17's.
fn are_on_both(pair: &Pair<'_>, privilege: &str) -> bool {
    !privilege.ends_with("MAINTAIN") || pair.both().iter().all(|server| server.version >= 170_000)
}

/// What the source has granted and the target hasn't.
async fn lacking(pair: &Pair<'_>, object: &Object, grantee: &str, missing: &[Granted]) -> Result<Finding, Error> {
    let (who, what) = (shown_grantee(grantee), listed(missing));
    let (subject, mend) = (subject(pair, object), statement(pair, object, grantee, missing, true));
    if object.part(0) == DEFAULT {
        let happens = format!(
            "by default {who} gets other rights on the source ({what}): what is made after the flip has others"
        );
        return Ok(Finding::warn(Place::Target, subject, happens).mend(mend));
    }
    let opened = pair.source.version < 150_000 && pair.target.version >= 150_000 && grantee == EVERYBODY;
    if opened && object.part(0) == "SCHEMA" && object.part(1) == "public" {
        let happens = format!(
            "since 15 {what} isn't granted to {who} there by itself: whoever makes tables in it without owning the database is refused after the flip"
        );
        return Ok(Finding::warn(Place::Target, subject, happens).sure(Sure::Possible).mend(mend));
    }
    let mut has_all = true;
    for one in missing {
        has_all = has_all && has(pair, object, grantee, &one.privilege, one.grantable).await?;
    }
    Ok(if has_all {
        let happens =
            format!("{what} isn't granted to {who} on the target, which has it by another role or from PUBLIC");
        Finding::note(Place::Target, subject, happens).sure(Sure::Possible).mend(mend)
    } else {
        let happens = format!("{what} isn't granted to {who} on the target: what needs it is refused after the flip");
        Finding::block(Place::Target, subject, happens).mend(mend)
    })
}

/// What the target has granted and the source hasn't.
fn too_many(pair: &Pair<'_>, object: &Object, grantee: &str, extra: &[Granted]) -> Finding {
    let (who, what) = (shown_grantee(grantee), listed(extra));
    let happens = match object.part(0) {
        DEFAULT => {
            format!("by default {who} gets other rights on the target ({what}): what is made after the flip has others")
        }
        _ => format!("{what} is granted to {who} on the target only: it may do more after the flip"),
    };
    let mend = statement(pair, object, grantee, extra, false);
    Finding::warn(Place::Target, subject(pair, object), happens).mend(mend)
}

/// Whether a role has a right on the target all the same.
async fn has(pair: &Pair<'_>, object: &Object, grantee: &str, privilege: &str, grantable: bool) -> Result<bool, Error> {
    let who = literal(if grantee == EVERYBODY { "public" } else { grantee });
    let what = literal(&format!("{privilege}{}", if grantable { " WITH GRANT OPTION" } else { "" }));
    let of = match object.part(0) {
        // The column may be missing itself.
        COLUMN => {
            let (table, column) = (literal(object.detail(1)), literal(object.part(3)));
            let sql = format!(
                "SELECT coalesce((SELECT pg_catalog.has_column_privilege({who}, a.attrelid, a.attnum, {what}) FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = pg_catalog.to_regclass({table}) AND a.attname = {column} AND NOT a.attisdropped), false)"
            );
            return pair.target.value(&sql).await;
        }
        DATABASE => format!("database_privilege({who}, {}", literal(&pair.target.database)),
        kind => format!("{}_privilege({who}, {}", kind.to_lowercase(), literal(object.detail(1))),
    };
    pair.target.value(&format!("SELECT pg_catalog.has_{of}, {what})")).await
}

/// GRANTs or REVOKEs.
fn statement(pair: &Pair<'_>, object: &Object, grantee: &str, privileges: &[Granted], gives: bool) -> String {
    let who = if grantee == EVERYBODY { "PUBLIC".to_owned() } else { quote(grantee) };
    let column = if object.part(0) == COLUMN { format!(" ({})", quote(object.part(3))) } else { String::new() };
    let on = match object.part(0) {
        DATABASE => format!("DATABASE {}", quote(&pair.target.database)),
        _ => object.statement.clone(),
    };
    let before = match (object.part(0), object.part(2)) {
        (DEFAULT, "") => format!("ALTER DEFAULT PRIVILEGES FOR ROLE {} ", quote(object.part(1))),
        (DEFAULT, schema) => {
            format!("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} ", quote(object.part(1)), quote(schema))
        }
        _ => String::new(),
    };
    // One statement for all privileges that go the same way.
    let mut ways: BTreeMap<[String; 2], Vec<String>> = BTreeMap::new();
    for Granted { privilege, grantable, option_only } in privileges {
        let taken = privilege.starts_with('-');
        let way = match (gives != taken, *grantable && *option_only) {
            (true, _) => ["GRANT", if *grantable { "WITH GRANT OPTION" } else { "" }],
            (false, true) => ["REVOKE GRANT OPTION FOR", ""],
            (false, false) => ["REVOKE", ""],
        };
        ways.entry(way.map(str::to_owned)).or_default().push(format!("{}{column}", privilege.trim_start_matches('-')));
    }
    let write = |([verb, more], these): (&[String; 2], &Vec<String>)| {
        let to = if verb == "GRANT" { "TO" } else { "FROM" };
        format!("{};", format!("{before}{verb} {} ON {on} {to} {who} {more}", these.join(", ")).trim_end())
    };
    ways.iter().map(write).collect::<Vec<_>>().join(" ")
}

fn listed(privileges: &[Granted]) -> String {
    let word = |Granted { privilege, grantable, .. }: &Granted| {
        let (no, privilege) = privilege.strip_prefix('-').map_or(("", privilege.as_str()), |taken| ("no ", taken));
        format!("{no}{privilege}{}", if *grantable { " WITH GRANT OPTION" } else { "" })
    };
    some(&privileges.iter().map(word).collect::<Vec<_>>(), 10)
}

fn shown_grantee(grantee: &str) -> String {
    if grantee == EVERYBODY { "PUBLIC".to_owned() } else { name(grantee) }
}

fn subject(pair: &Pair<'_>, object: &Object) -> String {
    match (object.part(0), object.key.as_slice()) {
        (DATABASE, _) => name(&pair.target.database),
        (DEFAULT, [_, role, schema, ..]) => {
            let within = if schema.is_empty() { String::new() } else { format!(" in {}", name(schema)) };
            format!("{} of {}{within}", object.statement.to_lowercase(), name(role))
        }
        ("FUNCTION", [_, schema, function, arguments]) => {
            format!("{}({})", shown(&[schema, function]), plain(arguments))
        }
        (_, [_, path @ ..]) => shown(path),
        _ => String::new(),
    }
}
