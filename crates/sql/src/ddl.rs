use crate::write::RelationName;

/// What the objects of a definition are: where their names are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ObjectKind {
    /// Functions and the like, which are temporary only where their names say so.
    #[default]
    Other,
    /// Types and domains, which may be temporary without their names' saying so.
    Type,
    /// Extended statistics that are there already: they have a schema of their own, and may be of a temporary table.
    Statistics,
}

/// A change of definitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ddl {
    /// The command tag, such as `CREATE TABLE`.
    pub tag: String,
    /// Tables (views, foreign tables) that it creates, changes or drops and names, with those that a foreign key or
    /// an inheritance relation ties them to. Empty: none, or not known from the text.
    pub tables: Vec<RelationName>,
    /// It changes something all databases of the cluster share: roles, databases, tablespaces, ALTER SYSTEM.
    pub cluster_wide: bool,
    /// CONCURRENTLY
    pub concurrently: bool,
    /// Indexes and sequences that it changes or drops.
    pub others: Vec<RelationName>,
    /// Functions, types and the like that it makes, changes or drops.
    pub objects: Vec<RelationName>,
    /// What they are.
    pub kind: ObjectKind,
    /// Relations that a view is to read.
    pub reads: Vec<RelationName>,
    /// The table, view, sequence or index that it makes, or the new name that it gives to one; an index has the schema of its table.
    pub made: Option<RelationName>,
    /// `false`: the server refuses it inside a transaction block.
    pub in_transaction_block_allowed: bool,
    /// Why the same text can give other row values on another server.
    pub computes_values: Option<&'static str>,
    /// It is about temporary objects, by its text.
    pub temporary: bool,
    /// ALTER TABLE in a form that may rewrite the table.
    pub rewrites: bool,
    /// Why the statement must not be repeated on another server.
    pub opaque: Option<&'static str>,
    /// CASCADE: more may be dropped than is named.
    pub cascade: bool,
    /// RENAME, SET SCHEMA: the first table goes on as the second.
    pub moves: bool,
    /// Names (without schemas) of functions, views and types that may do something else afterwards, besides those that are gone;
    /// `None`: it isn't known which.
    pub redefines: Option<Vec<String>>,
}
