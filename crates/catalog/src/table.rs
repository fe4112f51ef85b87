//! A table as the probe saw it.
use pgshadow_model::{Column, ColumnType, ForeignKey, QualifiedName, Relation, RelationKind, Shape};
use serde::Deserialize;
use std::sync::Arc;

/// What a column gets when an INSERT or COPY leaves it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Default {
    /// NULL, or the same constant on both sides.
    Constant,
    /// Something computed: a sequence, a function, an identity.
    Computed,
    /// Generated from the other columns.
    Generated,
}

/// What is known of a view.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct View {
    /// Its query, as `pg_get_viewdef` prints it for the session that asked.
    pub definition: String,
    /// What the server does by itself with a write to it (`pg_relation_is_updatable`): 4 UPDATE, 8 INSERT, 16 DELETE.
    pub updatable: i32,
    /// Its options, as `pg_class.reloptions` prints.
    pub options: Option<String>,
    /// It has no rules but its own, and no triggers.
    pub plain: bool,
    /// Its owner may read what it names, and no row-level security applies there.
    pub owner_reads: Option<bool>,
}

/// How a partitioned table tells in which partition a row belongs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Routing {
    /// By these columns, of whatever level.
    #[serde(deserialize_with = "or_none")]
    pub columns: Vec<String>,
    /// By expressions too, over any columns.
    pub expressions: bool,
    /// A column stands at different places in different partitions.
    pub mixed: bool,
}

fn or_none<'de, D: serde::Deserializer<'de>>(list: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(list)?.unwrap_or_default())
}

/// A relation that a statement names, with all that decides how its writes can be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its rows' description.
    pub relation: Arc<Relation>,
    /// Temporary tables aren't mirrored.
    pub temporary: bool,
    /// Row-level security applies to this role.
    pub row_security: bool,
    /// It applies to the table's owner too.
    pub forced: bool,
    /// The role may read every column, and those of the system's that our questions name.
    pub selectable: bool,
    /// Children by plain inheritance (not partitions).
    pub has_inheritance_children: bool,
    /// Names of the table and of all its partitions and children.
    pub tree: Vec<QualifiedName>,
    /// OIDs of the same: a row's `tableoid` must be one of them.
    pub tree_oids: Vec<u32>,
    /// A rule on the table or below it.
    pub rules: bool,
    /// `relhastriggers` on the table or below it: user triggers, foreign keys on either side, deferrable keys.
    pub triggers: bool,
    /// A foreign table is among the partitions.
    pub foreign: bool,
    /// User triggers BEFORE.
    pub before_triggers: bool,
    /// User triggers AFTER.
    pub after_triggers: bool,
    /// A constraint is deferrable: its check may come at commit.
    pub deferrable: bool,
    /// Names of the functions of its user triggers.
    pub trigger_functions: Vec<String>,
    /// Names of functions, not built in, that defaults and constraints call.
    pub functions: Vec<String>,
    /// A foreign key's cascade reaches a table with user triggers.
    pub cascade_triggers: bool,
    /// A foreign key refers to the table itself, and changes with the key.
    pub own_cascade: bool,
    /// What each column gets when it is left out.
    pub defaults: Vec<Default>,
    /// If it is a view.
    pub view: Option<View>,
    /// If it is partitioned.
    pub routing: Option<Routing>,
}

impl Table {
    /// A table of which nothing but its rows' description matters.
    #[must_use]
    pub fn plain(relation: Relation) -> Self {
        let (tree, tree_oids) = (vec![relation.name.clone()], vec![relation.oid]);
        let defaults = relation.columns.iter().map(|_| Default::Constant).collect();
        Self {
            relation: Arc::new(relation),
            temporary: false,
            row_security: false,
            forced: false,
            selectable: true,
            has_inheritance_children: false,
            tree,
            tree_oids,
            rules: false,
            triggers: false,
            foreign: false,
            before_triggers: false,
            after_triggers: false,
            deferrable: false,
            trigger_functions: Vec::new(),
            functions: Vec::new(),
            cascade_triggers: false,
            own_cascade: false,
            defaults,
            view: None,
            routing: None,
        }
    }

    /// A column whose values can't be carried in binary form to another database, if there is one.
    #[must_use]
    pub fn opaque_column(&self) -> Option<&Column> {
        self.relation.columns.iter().find(|c| c.column_type.shape == Shape::Opaque && !c.generated)
    }
}

#[derive(Deserialize)]
pub(crate) struct RawTable {
    oid: u32,
    schema: String,
    name: String,
    kind: String,
    persistence: String,
    row_security: bool,
    forced: bool,
    indexes: Option<Vec<RawIndex>>,
    columns: Option<Vec<RawColumn>>,
    // only of what was asked for as a whole
    #[serde(default)]
    told: bool,
    selectable: Option<bool>,
    #[serde(default)]
    inherits: bool,
    #[serde(default)]
    children: i64,
    tree: Option<RawTree>,
    functions: Option<Vec<String>>,
    #[serde(default)]
    cascade_triggers: bool,
    #[serde(default)]
    own_cascade: bool,
    parents: Option<Vec<(String, String)>>,
    view: Option<View>,
    routing: Option<Routing>,
}

impl RawTable {
    /// Whether all is told that decides how it can be captured: what a domain checks is told only with the whole.
    pub(crate) fn is_told(&self) -> bool {
        self.told || !self.columns.iter().flatten().any(|column| column.type_kind == "d")
    }
}

/// A table and what is below it. `None` where there is nothing that it could be of.
#[derive(Default, Deserialize)]
struct RawTree {
    names: Vec<(String, String)>,
    oids: Vec<u32>,
    rules: bool,
    triggers: bool,
    foreign: bool,
    before_triggers: Option<bool>,
    after_triggers: Option<bool>,
    trigger_functions: Vec<Option<Vec<Option<String>>>>,
    deferrable: Option<bool>,
    exclusion: Option<bool>,
    foreign_keys: Option<bool>,
}

#[derive(Deserialize)]
struct RawIndex {
    primary: bool,
    immediate: bool,
    valid: bool,
    exclusion: bool,
    plain: bool,
    columns: Vec<i16>,
    /// The first ones make the key; all of them before PostgreSQL 11.
    key_columns: Option<usize>,
}

#[derive(Deserialize)]
struct RawColumn {
    number: i16,
    name: String,
    not_null: bool,
    generated: String,
    identity: String,
    default: Option<String>,
    #[serde(rename = "type")]
    type_oid: u32,
    type_schema: String,
    type_name: String,
    type_kind: String,
    sendable: bool,
    element: Option<u32>,
    element_schema: Option<String>,
    element_name: Option<String>,
    element_kind: Option<String>,
}

/// First OID that isn't the same in every database (`FirstNormalObjectId`).
const FIRST_NORMAL_OID: u32 = 16_384;

impl RawColumn {
    fn shape(&self) -> Shape {
        // reg* types travel as OIDs, which mean something else in the other database
        let object_reference = |name: &str| name.starts_with("reg");
        let opaque = |kind: &str, name: &str| kind == "c" || kind == "p" || object_reference(name);
        if !self.sendable || opaque(&self.type_kind, &self.type_name) {
            return Shape::Opaque;
        }
        match (self.element, &self.element_schema, &self.element_name, &self.element_kind) {
            (Some(_), _, Some(name), Some(kind)) if opaque(kind, name) => Shape::Opaque,
            (Some(oid), Some(schema), Some(name), Some(_)) if oid >= FIRST_NORMAL_OID => {
                Shape::Array(Box::new(ColumnType { oid, name: QualifiedName::new(schema, name), shape: Shape::Plain }))
            }
            _ => Shape::Plain,
        }
    }

    fn default(&self) -> Default {
        if !self.generated.is_empty() {
            Default::Generated
        // a domain may have a default of its own
        } else if !self.identity.is_empty()
            || self.type_kind == "d"
            || self.default.as_deref().is_some_and(|d| !is_constant(d))
        {
            Default::Computed
        } else {
            Default::Constant
        }
    }
}

/// Whether the text of a default, as `pg_get_expr` prints it, is a plain constant: it names no function.
fn is_constant(default: &str) -> bool {
    let Some(rest) = default.strip_prefix('\'') else {
        let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | 'e' | '+');
        let (value, cast) = default.split_once("::").unwrap_or((default, ""));
        let value = value.trim_matches(|c| matches!(c, '(' | ')'));
        return !cast.contains('(') && (value.chars().all(plain) || matches!(value, "true" | "false" | "NULL"));
    };
    // a quoted literal, perhaps with a cast to a type; input functions like that of timestamptz read 'now' as the time of
    // the insert, but a stored default holds the constant that it was turned into
    let mut characters = rest.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\'' && characters.next_if_eq(&'\'').is_none() {
            let cast: String = characters.collect();
            return cast.is_empty()
                || cast.starts_with("::") && !cast.contains("nextval") && !cast.contains("regclass");
        }
    }
    false
}

impl From<RawTable> for Table {
    fn from(raw: RawTable) -> Self {
        let columns = raw.columns.unwrap_or_default();
        let positions = |numbers: &[i16]| -> Option<Vec<u16>> {
            numbers
                .iter()
                .map(|n| columns.iter().position(|c| c.number == *n).and_then(|p| u16::try_from(p).ok()))
                .collect()
        };
        let alone = || RawTree {
            names: vec![(raw.schema.clone(), raw.name.clone())],
            oids: vec![raw.oid],
            ..RawTree::default()
        };
        let tree = raw.tree.unwrap_or_else(alone);
        let (mut key, mut unique_keys) = (None, Vec::new());
        // its rows can be written under another table's name
        let mut coarse = raw.inherits || tree.exclusion == Some(true) || tree.foreign_keys == Some(true);
        for index in raw.indexes.unwrap_or_default() {
            if index.exclusion {
                coarse = true;
                continue;
            }
            let key_columns = index.key_columns.unwrap_or(index.columns.len());
            let numbers = index.columns.get(..key_columns).unwrap_or_default();
            let Some(place) = positions(numbers).filter(|_| index.plain) else {
                coarse = true;
                continue;
            };
            let all_not_null = place.iter().all(|p| columns.get(usize::from(*p)).is_some_and(|c| c.not_null));
            let usable = index.immediate && index.valid && all_not_null;
            if usable && (index.primary || key.is_none()) {
                unique_keys.extend(key.replace(place));
            } else {
                unique_keys.push(place);
            }
        }
        let kind = match raw.kind.as_str() {
            "r" => RelationKind::Table,
            "p" => RelationKind::Partitioned,
            "v" => RelationKind::View,
            "f" => RelationKind::Foreign,
            _ => RelationKind::Other,
        };
        let relation = Relation {
            oid: raw.oid,
            name: QualifiedName::new(raw.schema, raw.name),
            kind,
            columns: columns
                .iter()
                .map(|c| Column {
                    name: c.name.clone(),
                    column_type: ColumnType {
                        oid: c.type_oid,
                        name: QualifiedName::new(c.type_schema.clone(), c.type_name.clone()),
                        shape: c.shape(),
                    },
                    not_null: c.not_null,
                    generated: !c.generated.is_empty(),
                    identity_always: c.identity == "a",
                })
                .collect(),
            key: key.unwrap_or_default(),
            unique_keys,
            foreign_keys: raw
                .parents
                .unwrap_or_default()
                .into_iter()
                .map(|(s, n)| ForeignKey { parent: QualifiedName::new(s, n) })
                .collect(),
            coarse,
        };
        let mut trigger_functions: Vec<String> =
            tree.trigger_functions.into_iter().flatten().flatten().flatten().collect();
        trigger_functions.sort();
        trigger_functions.dedup();
        Self {
            relation: Arc::new(relation),
            temporary: raw.persistence == "t",
            row_security: raw.row_security,
            forced: raw.forced,
            selectable: raw.selectable.unwrap_or(true),
            has_inheritance_children: kind == RelationKind::Table && raw.children > 0,
            tree: tree.names.into_iter().map(|(s, n)| QualifiedName::new(s, n)).collect(),
            tree_oids: tree.oids,
            rules: tree.rules,
            triggers: tree.triggers,
            foreign: tree.foreign,
            before_triggers: tree.before_triggers == Some(true),
            after_triggers: tree.after_triggers == Some(true),
            deferrable: tree.deferrable == Some(true),
            trigger_functions,
            functions: raw.functions.unwrap_or_default(),
            cascade_triggers: raw.cascade_triggers,
            own_cascade: raw.own_cascade,
            defaults: columns.iter().map(RawColumn::default).collect(),
            view: raw.view,
            routing: raw.routing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_constant;

    #[test]
    fn constants_and_computed_defaults() {
        for constant in
            ["0", "'-1'::integer", "(-1)", "true", "NULL::character varying", "'a''b'::text", "'{}'::jsonb", "1.5"]
        {
            assert!(is_constant(constant), "{constant}");
        }
        for computed in [
            "now()",
            "nextval('s'::regclass)",
            "gen_random_uuid()",
            "CURRENT_TIMESTAMP",
            "('a'::text || 'b'::text)",
            "'x'",
        ] {
            assert_eq!(is_constant(computed), computed == "'x'", "{computed}");
        }
    }
}
