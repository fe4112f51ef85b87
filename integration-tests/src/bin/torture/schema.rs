//! A round's tables, as the statements need to know them.
use crate::tier::Tier;
use crate::value::{Ty, null, put};
use integration_tests::history::Dice;

/// What a column is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Part of the key: one of few values.
    Key,
    /// `n`, a number that statements compute from what it was.
    Number,
    /// Any value of its type.
    Any,
    /// One of so many values: unique, or refers to another table.
    Few(i32),
    /// One of these: decides on the partition.
    Among(&'static [&'static str]),
    /// Has a default that is computed; may be given.
    Made,
    /// Identity GENERATED ALWAYS.
    MadeAlways,
    /// Generated from others.
    Generated,
}

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Name, quoted where needed.
    pub name: String,
    /// Type.
    pub ty: Ty,
    /// Role.
    pub role: Role,
    /// Whether it takes NULL.
    pub nullable: bool,
}

impl Column {
    /// A value for it.
    pub fn value(&self, dice: &mut Dice, space: i32) -> String {
        match &self.role {
            _ if self.nullable && dice.percent(12) => null(self.ty),
            Role::Key => put(self.ty, &self.ty.key(dice.between(1, space))),
            Role::Few(few) => put(self.ty, &self.ty.key(dice.between(1, *few))),
            Role::Among(values) => put(self.ty, dice.pick::<&str>(values)),
            Role::Number => put(self.ty, &dice.between(0, 999_999).to_string()),
            _ => put(self.ty, &self.ty.any(dice)),
        }
    }

    /// Whether UPDATE may assign it without touching a key.
    pub fn is_plain(&self) -> bool {
        matches!(self.role, Role::Any | Role::Few(_) | Role::Number | Role::Made)
    }
}

/// What else may be done with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// TRUNCATE.
    Truncate,
    /// A queue: state 0 to 1 and back, SKIP LOCKED.
    Queue,
    /// DDL.
    Alter,
    /// COPY FROM.
    Copy,
    /// Rows that refer to others of the table, or that others refer to.
    Related,
    /// A view.
    View,
    /// A partitioned table.
    Partitioned,
    /// One whose partitions have their columns at different places.
    Mixed,
    /// An inheritance parent.
    Parent,
}

/// A table or view that statements write to.
#[derive(Debug, Clone)]
pub struct Table {
    /// What kind it is, as `TORTURE_WITHOUT` names it.
    pub kind: &'static str,
    /// As SQL names it: quoted and with its schema where needed.
    pub name: String,
    /// As pgshadow and the comparison may call it, with all that is written with it: partitions, children of cascades,
    /// what its triggers write. The table itself first.
    pub family: Vec<String>,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// Keys are drawn from so many.
    pub space: i32,
    /// Whether it has a key.
    pub keyed: bool,
    /// What ON CONFLICT may name.
    pub arbiters: Vec<String>,
    /// SQLSTATEs that a write of it may give, besides those that any may.
    pub states: Vec<&'static str>,
    /// What else may be done with it.
    pub uses: Vec<Use>,
    /// What any write of it is promised.
    pub tier: Tier,
    /// Forms that aren't exact may be drawn for it. Others stay as they are, so that it shows whether they stay equal.
    pub loose: bool,
    /// Statements that make it, on both sides.
    pub ddl: String,
}

impl Table {
    /// A table without columns in `public`.
    pub fn named(kind: &'static str, name: &str) -> Table {
        Table {
            kind,
            name: name.to_owned(),
            family: vec![format!("public.{name}")],
            columns: Vec::new(),
            space: 8,
            keyed: true,
            arbiters: Vec::new(),
            states: vec!["23505"],
            uses: vec![Use::Copy],
            tier: Tier::Exact,
            loose: false,
            ddl: String::new(),
        }
    }

    /// Adds a column.
    pub fn column(mut self, name: &str, ty: Ty, role: Role) -> Table {
        let nullable = matches!(role, Role::Any);
        self.columns.push(Column { name: name.to_owned(), ty, role, nullable });
        self
    }

    /// Makes the last column nullable.
    pub fn nullable(mut self) -> Table {
        self.columns.last_mut().expect("a column").nullable = true;
        self
    }

    /// Adds what ON CONFLICT may name.
    pub fn arbiter(mut self, target: &str) -> Table {
        self.arbiters.push(target.to_owned());
        self
    }

    /// Adds SQLSTATEs.
    pub fn may(mut self, states: &[&'static str]) -> Table {
        self.states.extend(states);
        self
    }

    /// Adds uses.
    pub fn uses(mut self, uses: &[Use]) -> Table {
        self.uses.extend(uses);
        self
    }

    /// Whether this may be done with it.
    pub fn allows(&self, what: Use) -> bool {
        self.uses.contains(&what)
    }

    /// Adds relations that are written with it.
    pub fn with(mut self, names: &[String]) -> Table {
        self.family.extend(names.iter().map(|name| format!("public.{name}")));
        self
    }

    /// The columns with a role.
    pub fn with_role(&self, wanted: impl Fn(&Role) -> bool) -> Vec<&Column> {
        self.columns.iter().filter(|column| wanted(&column.role)).collect()
    }

    /// Whether its values are declared where a session's client_encoding isn't UTF8.
    pub fn needs_utf8(&self) -> bool {
        let declared = [Ty::Mood, Ty::Moods, Ty::Texts, Ty::Percent];
        self.columns.iter().any(|column| declared.contains(&column.ty))
    }

    /// Whether its keys are made by the database.
    pub fn makes_keys(&self) -> bool {
        self.with_role(|role| *role == Role::Key).is_empty() && self.keyed
    }
}

/// A round's tables.
#[derive(Debug, Clone)]
pub struct Schema {
    /// Types, functions, schemas: made ahead of the tables.
    pub prelude: String,
    /// Tables and views.
    pub tables: Vec<Table>,
}

impl Schema {
    /// The table or view that has this name, or has a relation of this name in its family.
    pub fn holding(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.family.iter().any(|own| own == name))
    }

    /// All statements that make it, with its first rows.
    pub fn ddl(&self) -> String {
        let tables: String = self.tables.iter().map(|table| table.ddl.as_str()).collect();
        format!("{}{tables}", self.prelude)
    }
}
