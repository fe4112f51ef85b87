/// A relation as the text names it. A database name in front is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RelationName {
    /// The schema, if it is given.
    pub schema: Option<String>,
    /// The name, in the parser's case folding.
    pub name: String,
    /// The alias, if it has one.
    pub alias: Option<String>,
    /// ONLY
    pub only: bool,
}

impl RelationName {
    /// The name by which the statement's own expressions refer to it.
    pub fn exposed(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.name)
    }

    /// Whether its schema says that it is temporary.
    pub fn is_temporary(&self) -> bool {
        self.schema.as_deref().is_some_and(|schema| schema == "pg_temp" || schema.starts_with("pg_temp_"))
    }
}

/// INSERT, UPDATE, DELETE or MERGE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The table or view written.
    pub target: RelationName,
    /// The client's own RETURNING list is there.
    pub returning: bool,
    /// How many columns it has.
    pub returned: Returned,
    /// It has options (WITH), which name the old and the new row.
    pub returning_options: bool,
    /// ON CONFLICT
    pub on_conflict: OnConflict,
    /// The columns that ON CONFLICT names; empty where it names none, or expressions, a constraint or a part of the rows.
    pub conflict_columns: Vec<String>,
    /// Columns assigned by SET, also by that of ON CONFLICT DO UPDATE and those of MERGE.
    pub assigned: Vec<String>,
    /// The column list of INSERT, empty if it has none.
    pub insert_columns: Vec<String>,
    /// Tables written by data-modifying CTEs anywhere in it.
    pub writes_in_with: Vec<RelationName>,
    /// Columns of the target with a value that the text fixes.
    ///
    /// For UPDATE and DELETE: conjuncts `column = value` of WHERE that are certainly about the target, so every row
    /// written had this value before (UPDATE may change it). For INSERT with one VALUES row: the listed columns whose value
    /// is a constant or parameter, **before** the assignment cast to the column's type and its modifier.
    pub fixed: Vec<(String, Fixed)>,
    /// The same for an INSERT of one VALUES row without a column list, by the place of each value.
    pub fixed_in_order: Vec<Option<Fixed>>,
    /// WHERE CURRENT OF
    pub current_of: bool,
    /// Of UPDATE and DELETE: WHERE compares columns of the target with constants and with each other, and calls nothing; or there is
    /// none.
    pub constant_condition: bool,
    /// It certainly reads columns of the target (of INSERT: returns them), so that the server asks for the right to read them, and applies
    /// the policies for SELECT, whatever is returned beside.
    pub reads_target: bool,
    /// OVERRIDING SYSTEM VALUE or USER VALUE
    pub overriding: bool,
    /// Number of rows of INSERT ... VALUES; 1 for DEFAULT VALUES.
    pub rows_values: Option<usize>,
    /// The statement joins other tables (FROM, USING).
    pub joins: bool,
}

/// How many columns a RETURNING list has. (Those that JOIN ... USING merges count twice.)
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Returned {
    /// Columns that the text tells.
    pub columns: usize,
    /// Stars that stand for the columns of the table or view written.
    pub targets: usize,
    /// For each other star the relations whose columns it stands for.
    pub relations: Vec<RelationName>,
    /// There are stars whose columns only the server knows: of functions, say.
    pub uncounted: bool,
}

/// What INSERT does on a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// No such clause.
    None,
    /// DO NOTHING
    Nothing,
    /// DO UPDATE
    Update,
}

/// A value that the text fixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fixed {
    /// `$n`
    Parameter(u16),
    /// A constant, as text in the form that the column's type reads.
    Literal(String),
}
