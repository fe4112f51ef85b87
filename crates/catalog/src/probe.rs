//! The question that is asked in the client's session, and its answer.
use crate::table::{RawTable, Table};
use serde::Deserialize;
use std::sync::{Arc, LazyLock};

/// Who a session is at the moment, as far as it decides what a statement's names mean and how its values are read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Identity {
    /// `current_user`.
    pub role: String,
    /// `search_path` as SHOW gives it.
    pub search_path: String,
    /// `current_schemas(true)`: the effective path, temporary schema included once it exists; where the path names that one (and the
    /// function would make it), only it, if it exists, and the path as it is written.
    pub schemas: Vec<String>,
    /// Its types and domains in the temporary schema, without those of relations.
    pub temporary_types: Vec<String>,
    /// Extended statistics of its temporary tables: schema, name, and whether the name alone finds them.
    pub temporary_statistics: Vec<(String, String, bool)>,
    /// `DateStyle`.
    pub date_style: String,
    /// `TimeZone`.
    pub time_zone: String,
    /// `IntervalStyle`.
    pub interval_style: String,
    /// `client_encoding`.
    pub client_encoding: String,
    /// `standard_conforming_strings`.
    pub standard_conforming_strings: String,
    /// `synchronous_commit`.
    pub synchronous_commit: String,
    /// `row_security`.
    pub row_security: String,
    /// `server_version_num`: 150018 is 15.18.
    pub version: u32,
    /// `session_replication_role`: triggers don't fire as the catalog says where it isn't `origin`.
    pub session_replication_role: String,
    /// It may ask for its transaction's id and for its place in the log, and have a row in binary form.
    pub may_draw: bool,
    /// It may change a setting by a function.
    pub may_set: bool,
    /// `temp_file_limit` doesn't limit what a statement's rows may take.
    pub temp_files: bool,
}

impl Identity {
    /// Whether the session has temporary objects, which can hide any unqualified name.
    #[must_use]
    pub fn has_temporary_objects(&self) -> bool {
        self.schemas.iter().any(|s| s.starts_with("pg_temp_"))
    }

    /// Key under which sessions share what they found.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}\0{}\0{}\0{}", self.role, self.schemas.join("\0"), self.row_security, self.session_replication_role)
    }
}

/// Names that were asked for by sessions that find the same ([`Identity::key`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedFor {
    /// `current_user`.
    pub role: String,
    /// The effective path.
    pub schemas: Vec<String>,
    /// `row_security`.
    pub row_security: String,
    /// As [`parameter`] takes them.
    pub names: Vec<String>,
}

impl AskedFor {
    pub(crate) fn of(key: &str, names: Vec<String>) -> Option<Self> {
        match key.split('\0').collect::<Vec<&str>>()[..] {
            [role, ref schemas @ .., row_security, "origin"] => Some(Self {
                role: role.to_owned(),
                schemas: schemas.iter().filter(|schema| !schema.is_empty()).map(|&schema| schema.to_owned()).collect(),
                row_security: row_security.to_owned(),
                names,
            }),
            _ => None,
        }
    }
}

/// The answer to a probe.
#[derive(Debug, Clone)]
pub struct Probed {
    /// Who asked.
    pub identity: Identity,
    /// For each name asked, in order.
    pub tables: Vec<Found>,
}

/// What stands under a name.
#[derive(Debug, Clone)]
pub enum Found {
    /// No relation that is visible.
    Nothing,
    /// This one.
    Table(Arc<Table>),
    /// One that [`plain_sql`] doesn't tell enough of.
    Involved,
}

/// The answer could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the catalog probe's answer can't be read: {0}")]
pub struct ProbeError(#[from] serde_json::Error);

#[derive(Deserialize)]
struct RawAnswer {
    identity: Identity,
    #[serde(default)]
    found: RawFound,
}

#[derive(Default, Deserialize)]
struct RawFound {
    tables: Option<Vec<Option<RawTable>>>,
    /// `None` where there is no relation, or where it has just gone.
    involved: Option<Vec<Option<bool>>>,
}

/// The parameter of [`sql`]: names as SQL text (`"schema"."name"` or `"name"`), a binary `text[]`. The names' bytes are in the
/// client's encoding, as they came.
#[must_use]
pub fn parameter(names: &[String]) -> Vec<u8> {
    const TEXT: u32 = 25;
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = Vec::new();
    // one dimension, no NULLs, element type, its length, lower bound
    for word in [1u32.to_be_bytes(), 0u32.to_be_bytes(), TEXT.to_be_bytes(), length(names.len()), 1u32.to_be_bytes()] {
        out.extend(word);
    }
    for name in names {
        out.extend(length(name.len()));
        out.extend(name.as_bytes());
    }
    out
}

/// Reads the one value that [`sql`] returns: UTF-8 JSON.
///
/// # Errors
/// [`ProbeError`] if it isn't what was asked for.
pub fn answer(json: &[u8]) -> Result<Probed, ProbeError> {
    let raw: RawAnswer = serde_json::from_slice(json)?;
    let involved = raw.found.involved.unwrap_or_default().into_iter();
    let tables = raw.found.tables.unwrap_or_default().into_iter().zip(involved);
    let found = |(table, involved): (Option<RawTable>, Option<bool>)| match (table, involved) {
        (None, None) => Found::Nothing,
        (Some(table), Some(false)) if table.is_told() => Found::Table(Arc::new(Table::from(table))),
        _ => Found::Involved,
    };
    Ok(Probed { identity: raw.identity, tables: tables.map(found).collect() })
}

/// One SELECT with one `text[]` parameter ([`parameter`]) and one bytea result ([`answer`]); changes nothing, and names
/// everything by schema, operators included, so that no object of the user's can take a name's place.
///
/// Constraints are reached through the triggers that check them, and everything by an index: in a session with
/// `enable_seqscan = off` a plan with a scan looks dear enough to be compiled.
///
/// (The names come as an array, of which the planner knows the length: with an estimate of a hundred names the plan would
/// look dear enough to be compiled, which takes a second.)
#[must_use]
pub fn sql() -> &'static str {
    static SQL: LazyLock<String> = LazyLock::new(|| of_names(&[ABOUT, COLUMNS, WHOLE, ")"].concat(), "false"));
    &SQL
}

/// The same for tables with nothing about them: no triggers, keys to other tables, partitions, checks and the like. It takes the
/// server a quarter of the time, most of which goes into planning, and says where there is more to ask.
#[must_use]
pub fn plain_sql() -> &'static str {
    const UNLESS: &str = "CASE WHEN i.involved THEN NULL ELSE ";
    static SQL: LazyLock<String> = LazyLock::new(|| of_names(&[UNLESS, ABOUT, COLUMNS, ") END"].concat(), INVOLVED));
    &SQL
}

fn of_names(about: &str, involved: &str) -> String {
    let of_one =
        ["SELECT i.involved, ", about, " AS info ", FROM, "(SELECT ", involved, " AS involved OFFSET 0) AS i ", WHERE]
            .concat();
    let of_all = [NAMES, "LEFT JOIN LATERAL (", &of_one, " OFFSET 0) AS info ON true)"].concat();
    expand(&[IDENTITY, ", 'found', ", &of_all, ")::~text, 'UTF8')"].concat())
}

/// [`sql`] without any name to look up, and without a parameter.
#[must_use]
pub fn identity_sql() -> &'static str {
    static SQL: LazyLock<String> = LazyLock::new(|| expand(&[IDENTITY, ")::~text, 'UTF8')"].concat()));
    &SQL
}

fn expand(template: &str) -> String {
    let text = template.replace("BELOW", BELOW).replace("CASCADED", CASCADED);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace(" = ", " OPERATOR(pg_catalog.=) ").replace('~', "pg_catalog.")
}

// `~` stands for `pg_catalog.`; ` = ` becomes a qualified operator.
//
// One text for all majors from 10 on: a column that an older catalog lacks is written without its table, so that its name
// falls to `before_12` further out, which says what stands in its place.
const IDENTITY: &str = r"
SELECT ~convert_to(~json_build_object(
 'identity', ~json_build_object('role', current_user, 'search_path', ~current_setting('search_path'),
  'schemas', CASE WHEN ~strpos(~current_setting('search_path'), 'pg_temp') = 0 THEN ~current_schemas(true)::~text[]
   ELSE ~array_append(ARRAY(SELECT n.nspname::~text FROM ~pg_namespace n WHERE n.oid = ~pg_my_temp_schema()),
    ~current_setting('search_path')) END,
  'temporary_types', ARRAY(SELECT of.name FROM (SELECT ~pg_my_temp_schema() AS oid) AS own CROSS JOIN LATERAL
    (SELECT d.classid, d.objid FROM ~pg_depend d WHERE d.refclassid = 'pg_catalog.pg_namespace'::~regclass AND d.refobjid = own.oid
     OFFSET 0) AS d CROSS JOIN LATERAL (SELECT t.typname AS name FROM ~pg_type t
      WHERE d.classid = 'pg_catalog.pg_type'::~regclass AND t.oid = d.objid UNION ALL
     SELECT c.relname FROM ~pg_class c WHERE d.classid = 'pg_catalog.pg_class'::~regclass AND c.oid = d.objid
      AND c.relkind = 'c'::~char OFFSET 0) AS of WHERE NOT own.oid = 0::~oid),
  'temporary_statistics', ARRAY(SELECT ~json_build_array(n.nspname, s.stxname, ~pg_statistics_obj_is_visible(s.oid))
    FROM ~pg_statistic_ext s CROSS JOIN LATERAL (SELECT c.relnamespace FROM ~pg_class c WHERE c.oid = s.stxrelid OFFSET 0) AS c
     JOIN ~pg_namespace n ON n.oid = s.stxnamespace WHERE c.relnamespace = ~pg_my_temp_schema()),
  'date_style', ~current_setting('DateStyle'), 'time_zone', ~current_setting('TimeZone'),
  'interval_style', ~current_setting('IntervalStyle'), 'client_encoding', ~current_setting('client_encoding'),
  'standard_conforming_strings', ~current_setting('standard_conforming_strings'),
  'synchronous_commit', ~current_setting('synchronous_commit'), 'row_security', ~current_setting('row_security'),
  'version', ~current_setting('server_version_num')::~int4,
  'session_replication_role', ~current_setting('session_replication_role'),
  'may_draw', ~has_function_privilege('pg_catalog.pg_current_wal_insert_lsn()'::~regprocedure::~oid, 'EXECUTE')
   AND ~has_function_privilege('pg_catalog.txid_current()'::~regprocedure::~oid, 'EXECUTE')
   AND ~has_function_privilege('pg_catalog.txid_current_if_assigned()'::~regprocedure::~oid, 'EXECUTE')
   AND ~has_function_privilege('pg_catalog.record_send(record)'::~regprocedure::~oid, 'EXECUTE'),
  'may_set', ~has_function_privilege('pg_catalog.set_config(text,text,boolean)'::~regprocedure::~oid, 'EXECUTE'),
  'temp_files', ~current_setting('temp_file_limit') = '-1')";

// Each relation is described by a subquery that isn't pulled up: the planner would copy it about.
const NAMES: &str = r"
 (SELECT ~json_build_object('tables', ~json_agg(info.info ORDER BY asked.place USING OPERATOR(pg_catalog.<)),
   'involved', ~json_agg(info.involved ORDER BY asked.place USING OPERATOR(pg_catalog.<)))
  FROM ~unnest($1::~text[]) WITH ORDINALITY AS asked(name, place) ";

const FROM: &str = r"FROM ~pg_class c JOIN ~pg_namespace n ON n.oid = c.relnamespace
   CROSS JOIN (SELECT ''::~char AS attgenerated, NULL::~int2 AS indnkeyatts) AS before_12 CROSS JOIN LATERAL ";

const WHERE: &str = r"WHERE c.oid = ~to_regclass(asked.name)";

const ABOUT: &str = r"~json_build_object(
    'oid', c.oid::~int8, 'schema', n.nspname, 'name', c.relname, 'kind', c.relkind::~text, 'persistence', c.relpersistence::~text,
    'row_security', ~row_security_active(c.oid), 'forced', c.relforcerowsecurity,";

// What opens a relation fails where that has just been dropped, and would fail the client's transaction with it: a default is
// printed without one, since it names no column.
const COLUMNS: &str = r"
    'indexes', (SELECT ~json_agg(~json_build_object('primary', x.indisprimary, 'immediate', x.indimmediate, 'valid', x.indisvalid,
       'exclusion', x.indisexclusion,
       'plain', x.indpred IS NULL AND x.indexprs IS NULL, 'columns', x.indkey::~int2[], 'key_columns', indnkeyatts)
       ORDER BY x.indexrelid USING OPERATOR(pg_catalog.<)) FROM ~pg_index x WHERE x.indrelid = c.oid AND (x.indisunique OR x.indisexclusion)),
    'columns', (SELECT ~json_agg(~json_build_object('number', a.attnum, 'name', a.attname, 'not_null', a.attnotnull,
       'generated', attgenerated::~text, 'identity', a.attidentity::~text,
       'default', CASE WHEN attgenerated = ''::~char THEN
         (SELECT ~pg_get_expr(d.adbin, 0::~oid) FROM ~pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum) END,
       'type', y.oid::~int8, 'type_name', y.typname, 'type_kind', y.typtype::~text,
       'type_schema', (SELECT n.nspname FROM ~pg_namespace n WHERE n.oid = y.typnamespace),
       'sendable', NOT y.typsend = 0::~oid::~regproc AND (e.oid IS NULL OR NOT e.typsend = 0::~oid::~regproc),
       'element', e.oid::~int8, 'element_name', e.typname, 'element_kind', e.typtype::~text,
       'element_schema', (SELECT n.nspname FROM ~pg_namespace n WHERE n.oid = e.typnamespace))
       ORDER BY a.attnum USING OPERATOR(pg_catalog.<))
      FROM ~pg_attribute a JOIN ~pg_type y ON y.oid = a.atttypid
      LEFT JOIN ~pg_type e ON e.oid = y.typelem AND y.typlen = (-1)::~int2 AND NOT y.typelem = 0::~oid
      WHERE a.attrelid = c.oid AND ~int2gt(a.attnum, 0::~int2) AND NOT a.attisdropped)";

/// Whether there is more about a relation than [`ABOUT`] and [`COLUMNS`] tell.
const INVOLVED: &str = r"NOT c.relkind = 'r'::~char OR c.relhastriggers OR c.relhasrules OR c.relhassubclass OR c.relispartition
     OR NOT c.relchecks = 0::~int2 OR NOT ~has_table_privilege(c.oid, 'SELECT')
     OR (SELECT true FROM ~pg_inherits h WHERE h.inhrelid = c.oid LIMIT 1) IS NOT NULL
     OR (SELECT true FROM ~pg_attrdef d CROSS JOIN LATERAL (SELECT true FROM ~pg_depend p
        WHERE p.classid = 'pg_catalog.pg_attrdef'::~regclass AND p.objid = d.oid AND p.refclassid = 'pg_catalog.pg_proc'::~regclass
        OFFSET 0) AS calls WHERE d.adrelid = c.oid LIMIT 1) IS NOT NULL";

// The oids of a table and of what is below it, as a recursive query `tree`.
const BELOW: &str = r"SELECT c.oid UNION SELECT h.inhrelid FROM tree CROSS JOIN LATERAL (SELECT h.inhrelid FROM ~pg_inherits h
   WHERE h.inhparent = tree.oid OFFSET 0) AS h";

// The table that a trigger `r` changes with its own by a foreign key's action.
const CASCADED: &str = r"SELECT k.conrelid FROM ~pg_constraint k WHERE k.oid = r.tgconstraint AND k.confrelid = r.tgrelid
   AND k.contype = 'f'::~char AND (~btrim(k.confdeltype::~text, 'cnd') = '' OR ~btrim(k.confupdtype::~text, 'cnd') = '') OFFSET 0";

// OFFSET 0: a subquery is run for each row, by index, where the planner would rather read the whole of a catalog once, since it
// thinks that a tree has many members.
const WHOLE: &str = r",
    'told', true,
    'view', CASE WHEN c.relkind = 'v'::~char THEN ~json_build_object('definition', ~pg_get_viewdef(c.oid),
      'updatable', ~pg_relation_is_updatable(c.oid, false), 'options', c.reloptions::~text,
      'plain', NOT EXISTS (SELECT FROM ~pg_rewrite w WHERE w.ev_class = c.oid AND NOT w.ev_type = '1'::~char)
        AND NOT EXISTS (SELECT FROM ~pg_trigger g WHERE g.tgrelid = c.oid),
      'owner_reads', (SELECT ~bool_and(~has_table_privilege(c.relowner, r.oid, 'SELECT') AND NOT r.relrowsecurity)
        FROM ~pg_rewrite w JOIN ~pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::~regclass AND d.objid = w.oid
          AND d.refclassid = 'pg_catalog.pg_class'::~regclass
        JOIN ~pg_class r ON r.oid = d.refobjid WHERE w.ev_class = c.oid AND NOT r.oid = c.oid)) END,
    'selectable', NOT EXISTS (SELECT FROM ~pg_attribute a WHERE a.attrelid = c.oid
      AND (~int2gt(a.attnum, 0::~int2) OR a.attname = ANY ('{tableoid,xmax,xmin,cmin,ctid}'::~name[]))
      AND NOT a.attisdropped AND NOT ~has_column_privilege(c.oid, a.attnum, 'SELECT')),
    'inherits', c.relispartition OR EXISTS (SELECT FROM ~pg_inherits i WHERE i.inhparent = c.oid)
      OR EXISTS (SELECT FROM ~pg_inherits i WHERE i.inhrelid = c.oid),
    'children', (SELECT ~count(*) FROM ~pg_inherits i WHERE i.inhparent = c.oid),
    'tree', (WITH RECURSIVE tree(oid) AS (BELOW) SELECT ~json_build_object(
       'names', ~json_agg(~json_build_array((SELECT n.nspname FROM ~pg_namespace n WHERE n.oid = t.relnamespace), t.relname)),
       'oids', ~json_agg(tree.oid::~int8), 'rules', ~bool_or(t.relhasrules), 'triggers', ~bool_or(t.relhastriggers),
       'foreign', ~bool_or(t.relkind = 'f'::~char),
       'before_triggers', ~bool_or(g.before_triggers), 'after_triggers', ~bool_or(g.after_triggers),
       'trigger_functions', ~json_agg(g.functions),
       'deferrable', ~bool_or(g.deferrable), 'foreign_keys', ~bool_or(g.foreign_keys),
       'exclusion', ~bool_or((SELECT ~bool_or(x.indisexclusion) FROM ~pg_index x WHERE x.indrelid = tree.oid)))
      FROM tree CROSS JOIN LATERAL (SELECT t.relnamespace, t.relname, t.relhasrules, t.relhastriggers, t.relkind
        FROM ~pg_class t WHERE t.oid = tree.oid OFFSET 0) AS t
      CROSS JOIN LATERAL (SELECT ~bool_or(own AND ~int2and(g.tgtype, 2::~int2) = 2::~int2) AS before_triggers,
         ~bool_or(own AND ~int2and(g.tgtype, 66::~int2) = 0::~int2) AS after_triggers,
         ~json_agg(CASE WHEN own THEN (SELECT f.proname FROM ~pg_proc f WHERE f.oid = g.tgfoid) END) AS functions,
         ~bool_or(k.condeferrable) AS deferrable, ~bool_or(k.contype = 'f'::~char) AS foreign_keys
        FROM ~pg_trigger g CROSS JOIN LATERAL (SELECT NOT g.tgisinternal AND NOT g.tgenabled = 'D'::~char AS own) AS by_user
        LEFT JOIN LATERAL (SELECT k.condeferrable, k.contype FROM ~pg_constraint k WHERE k.oid = g.tgconstraint OFFSET 0) AS k ON true
        WHERE g.tgrelid = tree.oid OFFSET 0) AS g),
    'routing', CASE WHEN c.relkind = 'p'::~char THEN (WITH RECURSIVE tree(oid) AS (BELOW) SELECT ~json_build_object(
       'columns', (SELECT ~json_agg(DISTINCT a.attname) FROM tree CROSS JOIN LATERAL (SELECT a.attname
         FROM ~pg_partitioned_table p JOIN ~pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::~int2[])
         WHERE p.partrelid = tree.oid OFFSET 0) AS a),
       'expressions', (SELECT ~bool_or(p.expressions) FROM tree CROSS JOIN LATERAL (SELECT p.partexprs IS NOT NULL AS expressions
         FROM ~pg_partitioned_table p WHERE p.partrelid = tree.oid OFFSET 0) AS p),
       'mixed', EXISTS (SELECT FROM tree CROSS JOIN LATERAL (SELECT a.attname, a.attnum
         FROM ~pg_class t JOIN ~pg_attribute a ON a.attrelid = t.oid WHERE t.oid = tree.oid AND NOT t.relkind = 'p'::~char
          AND ~int2gt(a.attnum, 0::~int2) AND NOT a.attisdropped OFFSET 0) AS a
         GROUP BY a.attname HAVING NOT ~min(a.attnum) = ~max(a.attnum)))) END,
    'functions', (SELECT ~json_agg(DISTINCT (SELECT f.proname FROM ~pg_proc f WHERE f.oid = d.refobjid)) FROM
      (SELECT 'pg_catalog.pg_attrdef'::~regclass::~oid AS class, d.oid FROM ~pg_attrdef d WHERE d.adrelid = c.oid
       UNION ALL SELECT 'pg_catalog.pg_constraint'::~regclass::~oid, k.oid FROM ~pg_constraint k WHERE k.conrelid = c.oid
       UNION ALL SELECT 'pg_catalog.pg_constraint'::~regclass::~oid, k.oid FROM ~pg_attribute a CROSS JOIN LATERAL (SELECT k.oid
         FROM ~pg_constraint k WHERE k.conrelid = 0::~oid AND k.contypid = a.atttypid OFFSET 0) AS k
        WHERE a.attrelid = c.oid AND ~int2gt(a.attnum, 0::~int2) AND NOT a.attisdropped) AS of
      CROSS JOIN LATERAL (SELECT d.refobjid FROM ~pg_depend d WHERE d.classid = of.class AND d.objid = of.oid
        AND d.refclassid = 'pg_catalog.pg_proc'::~regclass OFFSET 0) AS d WHERE NOT ~int8lt(d.refobjid::~int8, 16384::~int8)),
    'cascade_triggers', c.relhastriggers AND EXISTS (WITH RECURSIVE down(oid) AS (
       SELECT k.conrelid FROM ~pg_trigger r CROSS JOIN LATERAL (CASCADED) AS k WHERE r.tgrelid = c.oid
       UNION SELECT k.conrelid FROM down CROSS JOIN LATERAL (SELECT k.conrelid FROM ~pg_trigger r CROSS JOIN LATERAL (CASCADED) AS k
         WHERE r.tgrelid = down.oid OFFSET 0) AS k)
      SELECT FROM down CROSS JOIN LATERAL (SELECT true FROM ~pg_trigger g WHERE g.tgrelid = down.oid
        AND NOT g.tgisinternal AND NOT g.tgenabled = 'D'::~char OFFSET 0) AS g),
    'own_cascade', EXISTS (SELECT FROM ~pg_constraint k WHERE k.conrelid = c.oid AND k.confrelid = c.oid AND k.contype = 'f'::~char
      AND ~btrim(k.confupdtype::~text, 'cnd') = ''),
    'parents', (SELECT ~json_agg(~json_build_array(pn.nspname, p.relname)) FROM ~pg_constraint k JOIN ~pg_class p ON p.oid = k.confrelid
      JOIN ~pg_namespace pn ON pn.oid = p.relnamespace WHERE k.conrelid = c.oid AND k.contype = 'f'::~char)";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One that is usual, but for these.
    pub(crate) fn identity(other: &serde_json::Value) -> Identity {
        let mut all = serde_json::json!({
            "role": "app", "search_path": "public", "schemas": ["pg_catalog", "public"], "temporary_types": [],
            "temporary_statistics": [], "date_style": "ISO, MDY", "time_zone": "UTC", "interval_style": "postgres",
            "client_encoding": "UTF8", "standard_conforming_strings": "on", "synchronous_commit": "on", "row_security": "on",
            "version": 150_000, "session_replication_role": "origin", "may_draw": true, "may_set": true, "temp_files": true
        });
        for (name, value) in other.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn the_probe_names_everything() {
        for text in [sql(), plain_sql(), identity_sql()] {
            assert!(!text.contains('~'));
            assert!(!text.contains(" = "));
            assert_eq!(text.matches('(').count(), text.matches(')').count());
        }
    }

    #[test]
    fn the_parameter_is_a_binary_array() {
        let expected = b"\0\0\0\x01\0\0\0\0\0\0\0\x19\0\0\0\x01\0\0\0\x01\0\0\0\x03\"t\"";
        assert_eq!(parameter(&["\"t\"".into()]), expected);
    }
}
