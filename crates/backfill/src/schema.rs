//! Both schemas, compared: what rows need, and what else is otherwise.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// Everything that is defined, as (kind, name, definition). Definitions are as the server writes them, where all majors write them alike; of
/// views only that they are there. An unqualified name falls to `known` where the catalog has no such column yet.
const DEFINITIONS: &str = "
WITH known AS (SELECT ''::\"char\" AS attgenerated),
own AS (SELECT n.oid, n.nspname FROM pg_catalog.pg_namespace n
    WHERE n.nspname NOT IN ('information_schema', 'pgshadow') AND n.nspname !~ '^pg_'),
of_extension AS (SELECT d.classid, d.objid FROM pg_catalog.pg_depend d WHERE d.deptype = 'e'),
relation AS (SELECT c.oid, n.nspname || '.' || c.relname AS name, c.relkind, c.relpersistence, c.relrowsecurity
    FROM pg_catalog.pg_class c JOIN own n ON n.oid = c.relnamespace
    WHERE c.relpersistence <> 't' AND NOT EXISTS (SELECT FROM of_extension e
        WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid)),
stored AS (SELECT * FROM relation r WHERE r.relkind IN ('r', 'p')),
all_of AS (
SELECT 'table' AS kind, r.name, CASE r.relkind WHEN 'p' THEN 'partitioned' ELSE '' END
    || CASE r.relpersistence WHEN 'u' THEN ' unlogged' ELSE '' END || CASE WHEN r.relrowsecurity THEN ' row security' ELSE '' END AS text
  FROM stored r
UNION ALL SELECT 'column', r.name || '.' || a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) FROM stored r
  JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT 'column property', r.name || '.' || a.attname, pg_catalog.concat_ws(', ', CASE WHEN a.attnotnull THEN 'NOT NULL' END,
    nullif(a.attidentity::text, ''), nullif(a.g::text, ''), pg_catalog.pg_get_expr(d.adbin, d.adrelid))
  FROM stored r CROSS JOIN known k CROSS JOIN LATERAL (SELECT a.attrelid, a.attnum, a.attname, a.attnotnull, a.attidentity, attgenerated AS g
      FROM pg_catalog.pg_attribute a WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped) AS a
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL SELECT 'constraint', r.name || '.' || c.conname, pg_catalog.pg_get_constraintdef(c.oid) FROM stored r
  JOIN pg_catalog.pg_constraint c ON c.conrelid = r.oid WHERE c.contype IN ('c', 'f', 'p', 'u', 'x')
    AND NOT (c.contype = 'f' AND coalesce(pg_catalog.to_jsonb(c) ->> 'conparentid', '0') <> '0')
UNION ALL SELECT 'index', r.name, pg_catalog.pg_get_indexdef(r.oid) FROM relation r JOIN pg_catalog.pg_index i ON i.indexrelid = r.oid
  WHERE r.relkind IN ('i', 'I') AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.conindid = r.oid AND c.contype IN ('p', 'u', 'x'))
UNION ALL SELECT CASE r.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END,
    r.name, '' FROM relation r WHERE r.relkind IN ('S', 'v', 'm', 'f')
UNION ALL SELECT 'trigger', r.name || '.' || t.tgname, pg_catalog.pg_get_triggerdef(t.oid) FROM relation r
  JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
UNION ALL SELECT 'policy', r.name || '.' || p.polname, pg_catalog.concat_ws(' ', p.polcmd, pg_catalog.pg_get_expr(p.polqual, p.polrelid),
    pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)) FROM stored r JOIN pg_catalog.pg_policy p ON p.polrelid = r.oid
UNION ALL SELECT 'rule', r.name || '.' || w.rulename, '' FROM relation r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid
  WHERE w.rulename <> '_RETURN'
UNION ALL SELECT 'function', n.nspname || '.' || p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')',
    pg_catalog.md5(p.prosrc) FROM pg_catalog.pg_proc p JOIN own n ON n.oid = p.pronamespace
  WHERE NOT EXISTS (SELECT FROM of_extension e WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = p.oid)
UNION ALL SELECT 'type', n.nspname || '.' || t.typname, pg_catalog.concat_ws(', ', t.typtype, (SELECT pg_catalog.string_agg(e.enumlabel, ', '
    ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid))
  FROM pg_catalog.pg_type t JOIN own n ON n.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r') AND NOT EXISTS (SELECT FROM of_extension e
    WHERE e.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND e.objid = t.oid)
UNION ALL SELECT 'extension', e.extname, '' FROM pg_catalog.pg_extension e
UNION ALL SELECT 'owner', r.name, pg_catalog.pg_get_userbyid(c.relowner) FROM stored r JOIN pg_catalog.pg_class c ON c.oid = r.oid
UNION ALL SELECT 'rights', r.name, (SELECT pg_catalog.string_agg(x::text, ', ' ORDER BY x::text COLLATE \"C\") FROM (
    SELECT pg_catalog.pg_get_userbyid(a.grantee) || ' ' || a.privilege_type FROM pg_catalog.aclexplode(c.relacl) AS a
    WHERE a.grantee <> c.relowner AND a.privilege_type <> 'MAINTAIN') AS x)
  FROM stored r JOIN pg_catalog.pg_class c ON c.oid = r.oid)
SELECT kind, name, coalesce(text, '') FROM all_of";

/// Something that is defined otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What it is: table, column, constraint, index, ...
    pub kind: String,
    /// `schema.name`, and the name of the part.
    pub name: String,
    /// As the primary has it; `None`: it doesn't.
    pub primary: Option<String>,
    /// As the shadow has it, likewise.
    pub shadow: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, name, primary, shadow } = self;
        match (primary, shadow) {
            (Some(primary), None) if primary.is_empty() => write!(f, "{kind} {name}: the shadow has none"),
            (Some(primary), None) => write!(f, "{kind} {name}: the shadow has none ({primary})"),
            (None, _) => write!(f, "{kind} {name}: only the shadow has it"),
            (Some(primary), Some(shadow)) => write!(f, "{kind} {name}: primary {primary}, shadow {shadow}"),
        }
    }
}

pub(crate) type Definitions = BTreeMap<(String, String), String>;

/// Everything that is defined.
pub(crate) async fn definitions(client: &Client) -> Result<Definitions, tokio_postgres::Error> {
    // names in definitions are written out only where the search path doesn't find them
    client.batch_execute("SET search_path = pg_catalog").await?;
    let rows = client.query(DEFINITIONS, &[]).await?;
    rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))).collect()
}

/// What isn't the same.
pub(crate) fn differences(primary: &Definitions, shadow: &Definitions) -> Vec<Difference> {
    let mut all = Vec::new();
    let names = primary.keys().chain(shadow.keys().filter(|name| !primary.contains_key(*name)));
    for key in names {
        let (here, there) = (primary.get(key), shadow.get(key));
        if here == there || (there.is_none() && is_implied(key, |table| shadow.contains_key(table))) {
            continue;
        }
        let (kind, name) = key.clone();
        all.push(Difference { kind, name, primary: here.cloned(), shadow: there.cloned() });
    }
    all
}

/// Of a table that isn't there, its parts aren't told as well.
fn is_implied((kind, name): &(String, String), has: impl Fn(&(String, String)) -> bool) -> bool {
    let of = match kind.as_str() {
        "column" | "column property" | "constraint" | "trigger" | "policy" | "rule" => {
            name.rsplit_once('.').map(|(table, _)| table)
        }
        "owner" | "rights" => Some(name.as_str()),
        _ => None,
    };
    of.is_some_and(|table| !has(&("table".to_owned(), table.to_owned())))
}

/// Why these tables' rows can't be loaded, if they can't: `wanted` by `schema.name`.
pub(crate) fn hinders(differences: &[Difference], wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let hinders = |difference: &&Difference| {
        let Difference { kind, name, primary, shadow } = difference;
        match kind.as_str() {
            "table" => primary.is_some() && shadow.is_none() && wanted(name),
            "column" => primary.is_some() && name.rsplit_once('.').is_some_and(|(table, _)| wanted(table)),
            "column property" => {
                // a column of the shadow's own that must be given a value
                primary.is_none()
                    && shadow.as_deref() == Some("NOT NULL")
                    && name.rsplit_once('.').is_some_and(|(table, _)| wanted(table))
            }
            _ => false,
        }
    };
    differences.iter().filter(hinders).map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definitions(of: &[(&str, &str, &str)]) -> Definitions {
        of.iter().map(|(kind, name, text)| (((*kind).to_owned(), (*name).to_owned()), (*text).to_owned())).collect()
    }

    #[test]
    fn what_hinders_is_told_from_what_does_not() {
        let primary = definitions(&[
            ("table", "public.a", ""),
            ("column", "public.a.x", "integer"),
            ("column", "public.a.y", "text"),
            ("index", "public.a_y", "CREATE INDEX"),
            ("table", "public.b", ""),
            ("column", "public.b.z", "text"),
        ]);
        let shadow = definitions(&[
            ("table", "public.a", ""),
            ("column", "public.a.x", "bigint"),
            ("column", "public.a.y", "text"),
            ("column property", "public.a.w", "NOT NULL"),
            ("table", "public.c", ""),
        ]);
        let all = differences(&primary, &shadow);
        let names: Vec<&str> = all.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["public.a.x", "public.a_y", "public.b", "public.a.w", "public.c"]);
        let hinders = |wanted: &str| hinders(&all, |name| name == wanted);
        assert_eq!(
            hinders("public.a"),
            ["column public.a.x: primary integer, shadow bigint", "column property public.a.w: only the shadow has it"]
        );
        assert_eq!(hinders("public.b"), ["table public.b: the shadow has none"]);
        assert_eq!(hinders("public.c"), Vec::<String>::new());
    }
}
