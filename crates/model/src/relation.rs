use serde::{Deserialize, Serialize};
use std::fmt;

/// A schema-qualified name, unquoted as in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QualifiedName {
    /// Schema.
    pub schema: String,
    /// Name inside the schema.
    pub name: String,
}

impl QualifiedName {
    /// Both parts, as the catalog spells them.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// The name as SQL text: both parts always quoted.
    #[must_use]
    pub fn sql(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }
}

/// `schema.name`, for people (not for SQL: see [`QualifiedName::sql`]).
impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// An identifier as SQL text.
#[must_use]
pub fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// What a relation is (`pg_class.relkind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RelationKind {
    /// An ordinary table ("r").
    Table,
    /// A partitioned table ("p").
    Partitioned,
    /// A view ("v").
    View,
    /// A foreign table ("f").
    Foreign,
    /// Anything else that a statement may name.
    Other,
}

/// How a column's type is built, so that its binary form can be read by another database, whose OIDs differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shape {
    /// The binary form holds no OID: base types, enums (label as text), domains over such.
    Plain,
    /// An array: its binary form holds the OID of the element.
    Array(Box<ColumnType>),
    /// Composite, or something else whose binary form holds OIDs that aren't translated yet.
    Opaque,
}

/// A column's type by OID (of the primary) and by name (for the shadow).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ColumnType {
    /// `pg_type.oid` on the database that the relation was read from. Below 16384: the same everywhere.
    pub oid: u32,
    /// Schema and name of the type.
    pub name: QualifiedName,
    /// How its binary form is built.
    pub shape: Shape,
}

/// A column of a relation, dropped columns left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Type.
    pub column_type: ColumnType,
    /// NOT NULL.
    pub not_null: bool,
    /// Generated always as expression, stored or virtual: its value is never written.
    pub generated: bool,
    /// Identity GENERATED ALWAYS: an INSERT needs OVERRIDING SYSTEM VALUE.
    pub identity_always: bool,
}

/// A foreign key of the relation, by column position.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ForeignKey {
    /// The referenced table.
    pub parent: QualifiedName,
}

/// A table as it was when its rows were written: what an applier needs to write the same row elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Relation {
    /// `pg_class.oid` on the primary.
    pub oid: u32,
    /// Name.
    pub name: QualifiedName,
    /// What it is.
    pub kind: RelationKind,
    /// Columns in the order of `attnum`, which is the order of [`crate::RowImage`] values.
    pub columns: Vec<Column>,
    /// Positions (in `columns`) of the primary key, else of a usable unique key (immediate, not partial, all NOT NULL,
    /// columns only), else empty: a keyless table.
    pub key: Vec<u16>,
    /// Positions of further unique keys (partial ones and expression keys make the table `coarse`).
    pub unique_keys: Vec<Vec<u16>>,
    /// Its foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// Whether rows of this table can conflict otherwise than by key and unique keys (exclusion constraints, expression
    /// or partial unique indexes, foreign keys on either side): then the whole table, with its relatives, is one
    /// unit of conflict.
    pub coarse: bool,
}
