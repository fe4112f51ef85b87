//! What a database holds, schema by schema, read without any of pgshadow's code: rows as text, and what the catalog says of
//! each relation.
use integration_tests::client::Endpoint;
use integration_tests::raw::{Frame, RawClient};
use std::collections::BTreeMap;

/// Of one schema: table -> its rows, sorted.
pub type Rows = BTreeMap<String, Vec<String>>;

/// A database.
#[derive(Debug, Default)]
pub struct Contents {
    /// By schema.
    pub rows: BTreeMap<String, Rows>,
    /// By schema: relation -> what defines it.
    pub definitions: BTreeMap<String, Rows>,
}

const OWN: &str = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgshadow', 'public')";

/// Ordinary tables; a partition's rows are its own.
const TABLES: &str = "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND ";

/// Columns, keys and constraints, indexes, triggers, owner and rights. What a major version prints otherwise is left out.
const DEFINITIONS: &str = "SELECT n.nspname, c.relname, what FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (
        SELECT concat_ws(' ', 'relation', c.relkind, c.relpersistence, pg_get_userbyid(c.relowner), (
                SELECT string_agg(concat_ws('=', a.grantee::regrole, a.privilege_type), ',' ORDER BY 1, a.grantee, a.privilege_type)
                FROM aclexplode(c.relacl) a WHERE a.privilege_type <> 'MAINTAIN'),
            c.relrowsecurity, c.relforcerowsecurity, pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid)) AS what
        UNION ALL SELECT concat_ws(' ', 'column', row_number() OVER (ORDER BY a.attnum), quote_ident(a.attname),
            format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid))
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT 'index ' || pg_get_indexdef(i.indexrelid) || i.indisvalid FROM pg_index i WHERE i.indrelid = c.oid
        UNION ALL SELECT concat_ws(' ', 'constraint', o.conname, pg_get_constraintdef(o.oid)) FROM pg_constraint o
        WHERE o.conrelid = c.oid AND o.contype <> 'n' AND o.conparentid = 0
        UNION ALL SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
    ) definition WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't' AND ";

const SETTINGS: &str =
    "SET search_path = pg_catalog; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET TimeZone = 'UTC';
    SET row_security = off";

/// Reads the schemas whose names begin like this, but not `public` and the servers' own, as the superuser.
pub fn read(place: &Endpoint, only: &str) -> Contents {
    let mut client = superuser(place);
    rows_of(&mut client, SETTINGS);
    let mut contents = Contents::default();
    for line in rows_of(&mut client, &format!("{TABLES}{OWN} AND starts_with(n.nspname, '{only}')")) {
        let [schema, table] = <[String; 2]>::try_from(line).expect("two columns");
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let sql = format!("SELECT t::text FROM ONLY {}.{} t", quote(&schema), quote(&table));
        let mut rows: Vec<_> = rows_of(&mut client, &sql).into_iter().flatten().collect();
        rows.sort_unstable();
        contents.rows.entry(schema).or_default().insert(table, rows);
    }
    for line in
        rows_of(&mut client, &format!("{DEFINITIONS}{OWN} AND starts_with(n.nspname, '{only}') ORDER BY 1, 2, 3"))
    {
        let [schema, relation, what] = <[String; 3]>::try_from(line).expect("three columns");
        contents.definitions.entry(schema).or_default().entry(relation).or_default().push(what);
    }
    contents
}

/// The superuser's session.
pub fn superuser(place: &Endpoint) -> RawClient {
    RawClient::login(place.port, "postgres", "", &place.database).expect("the superuser is let in").0
}

/// Runs SQL and returns its rows; NULL is an empty text. An error ends the test.
#[track_caller]
pub fn rows_of(client: &mut RawClient, sql: &str) -> Vec<Vec<String>> {
    let frames = client.query(sql).expect("an answer");
    if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
        panic!("{}: {sql}", error.field(b'M').unwrap_or_default());
    }
    let row = |frame: &Frame| frame.columns().into_iter().map(Option::unwrap_or_default).collect();
    frames.iter().filter(|frame| frame.tag == b'D').map(row).collect()
}

/// What two lists of the same schema have different, in one line for each table; tables in `but` are left out.
pub fn differences(one: Option<&Rows>, other: Option<&Rows>, but: &dyn Fn(&str) -> bool) -> Vec<String> {
    let empty = Rows::new();
    let (one, other) = (one.unwrap_or(&empty), other.unwrap_or(&empty));
    let names: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let mut found = Vec::new();
    for name in names.into_iter().filter(|name| !but(name)) {
        match (one.get(name), other.get(name)) {
            (Some(here), Some(there)) if here == there => {}
            (Some(here), Some(there)) => {
                let only = |these: &[String], those: &[String]| {
                    let rows: Vec<_> = these.iter().filter(|row| !those.contains(row)).take(4).cloned().collect();
                    rows.join(" ")
                };
                let (left, right) = (only(here, there), only(there, here));
                found.push(format!("{name}: {} lines [{left}] and {} lines [{right}]", here.len(), there.len()));
            }
            (here, _) => found.push(format!("{name} is only {}", if here.is_some() { "here" } else { "there" })),
        }
    }
    found
}
