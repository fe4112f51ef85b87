//! What a transaction touches, as 64-bit hashes: two transactions may be applied in any order only if they share no
//! unit. A collision only delays.

use crate::entry::Vast;
use crate::hold::HoldOf;
use crate::reach::Reach;
use pgshadow_model::{Change, ColumnType, Operation, QualifiedName, Relation, RelationKind, RowImage, Shape, Values};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Above this many rows a transaction is taken to touch its tables whole.
const ROWS_MAX: usize = 4096;

/// Types of `pg_catalog` whose values are equal only if their bytes are. Of others that isn't known: 1.0 and 1.00 are one key of
/// a numeric column, 'a' and 'A' of a citext one. (Text under a nondeterministic collation isn't either; its column doesn't tell.)
const EXACT_TYPES: [&str; 28] = [
    "int2",
    "int4",
    "int8",
    "oid",
    "uuid",
    "bool",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "text",
    "varchar",
    "bpchar",
    "name",
    "char",
    "bytea",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "money",
    "bit",
    "varbit",
    "xid8",
    "pg_lsn",
    "int4range",
    "int8range",
    "daterange",
];

/// Shared by all coarse tables: which of them are relatives isn't known from one image (a cascade reaches
/// grandchildren), so they are all taken to be. It only orders them against entries that are held.
const RELATIVES: u64 = 1;

/// Shared by the definitions of all tables.
const DEFINITIONS: u64 = 2;

/// The units of one entry. Two entries conflict where one holds a unit exclusively that the other one holds as well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Units {
    /// It conflicts with every other entry: statements whose reach isn't known, changes that aren't.
    pub(crate) everything: bool,
    /// It changes no rows and waits for none: it runs on a connection of its own, beside the lanes.
    pub(crate) beside: bool,
    /// Rows, by key and by unique keys; whole tables; definitions.
    pub(crate) exclusive: Box<[u64]>,
    /// Tables of rows, and what else others may hold at the same time.
    pub(crate) shared: Box<[u64]>,
    /// Tables in which it looks for one among equal rows.
    pub(crate) alike: Box<[u64]>,
}

impl Units {
    /// Conflicts with every other entry.
    pub(crate) fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// An index that is built beside the lanes: it may refuse rows and frees nothing. (Of one that is dropped the table isn't
    /// known.)
    pub(crate) fn is_added_beside(&self) -> bool {
        self.beside && !self.exclusive.contains(&DEFINITIONS)
    }

    /// Of changes that are too many to be looked at: their tables as a whole, with all that may be relatives of theirs.
    pub(crate) fn whole(vast: &Vast) -> Self {
        let tables: Option<Vec<&QualifiedName>> = vast.tables.iter().map(Option::as_ref).collect();
        let Some(tables) = tables.filter(|_| !vast.defines) else { return Self::everything() };
        let alike: Box<[u64]> = tables.into_iter().map(|table| hash_table(&table.name)).collect();
        let exclusive = alike.iter().copied().chain([RELATIVES]).collect();
        Self { exclusive, alike, ..Self::default() }
    }

    /// Of what is held back.
    pub(crate) fn of_hold(held: &HoldOf) -> Self {
        let exclusive = match held {
            HoldOf::Everything => return Self::everything(),
            HoldOf::Definitions => [DEFINITIONS].into(),
            HoldOf::Tables { tables, relatives } => {
                let of = |table: &QualifiedName| [hash_table(&table.name), hash_definition(&table.name)];
                tables.iter().flat_map(of).chain(relatives.then_some(RELATIVES)).collect()
            }
        };
        Self { exclusive, ..Self::default() }
    }

    pub(crate) fn of(changes: &[Change]) -> Self {
        if let [Change::Ddl(ddl)] = changes
            && let Some(beside) = Reach::beside(ddl)
        {
            return Collector::beside(&beside);
        }
        let mut into = Collector::default();
        for change in changes {
            match change {
                Change::Row(image) => into.row(image),
                Change::Copy(copy) => into.table(&copy.relation),
                Change::Truncate(truncate) => into.definition(Reach::of(&truncate.sql).truncated(&truncate.tables)),
                Change::Ddl(ddl) => into.definition(Reach::of(&ddl.sql)),
                Change::Statement(_) => {}
            }
        }
        into.finish()
    }
}

#[derive(Default)]
struct Collector {
    everything: bool,
    exclusive: HashSet<u64>,
    shared: HashSet<u64>,
    alike: HashSet<u64>,
    rows: usize,
}

impl Collector {
    fn table(&mut self, relation: &Relation) {
        self.exclusive.insert(hash_table(&relation.name.name));
        if has_relatives(relation) {
            self.exclusive.insert(RELATIVES);
        }
    }

    /// A statement that changes tables as a whole, and what stands to them in a foreign key or an inheritance: those are coarse.
    fn definition(&mut self, reach: Reach) {
        let Reach::Tables(names) = reach else {
            self.everything = true;
            return;
        };
        self.exclusive.insert(RELATIVES);
        self.shared.insert(DEFINITIONS);
        for name in names {
            self.exclusive.extend([hash_table(&name), hash_definition(&name)]);
        }
    }

    /// An index that is built or dropped concurrently: only other definitions of its table are in its way.
    fn beside(reach: &Reach) -> Units {
        let mut into = Self::default();
        match reach {
            Reach::Tables(names) => {
                into.shared.insert(DEFINITIONS);
                into.exclusive.extend(names.iter().map(|name| hash_definition(name)));
            }
            Reach::Everything => drop(into.exclusive.insert(DEFINITIONS)),
        }
        Units { beside: true, ..into.finish() }
    }

    fn row(&mut self, image: &RowImage) {
        let relation = &*image.relation;
        let is_insert = image.operation == Operation::Insert;
        // The unique values that an UPDATE frees aren't in its image.
        let frees = !relation.unique_keys.is_empty()
            && matches!(image.operation, Operation::Update | Operation::Upsert | Operation::Reread);
        // New rows of a table without a key are in nobody's way but of those who look for one among equals.
        let keyed = !relation.key.is_empty() || is_insert;
        if !keyed {
            self.alike.insert(hash_table(&relation.name.name));
        }
        let by_row = keyed && is_exact(relation) && !has_relatives(relation) && !frees;
        if !by_row || self.rows >= ROWS_MAX {
            return self.table(relation);
        }
        self.rows += 1;
        self.shared.insert(hash_table(&relation.name.name));
        if !relation.key.is_empty() {
            self.exclusive.insert(hash_row(&relation.name, 0, &select(relation, &image.values, &relation.key)));
        }
        if let Some(old) = &image.old_key {
            let old = old.iter().map(Option::as_deref).zip(&relation.key);
            let old: Vec<_> = old.map(|(value, p)| bare(relation, *p, value)).collect();
            self.exclusive.insert(hash_row(&relation.name, 0, &old));
        }
        for (n, unique) in relation.unique_keys.iter().enumerate() {
            let values = select(relation, &image.values, unique);
            if values.iter().all(Option::is_some) {
                self.exclusive.insert(hash_row(&relation.name, n + 1, &values));
            }
        }
    }

    fn finish(self) -> Units {
        if self.everything {
            return Units::everything();
        }
        let Self { exclusive, shared, alike, .. } = self;
        let shared = shared.into_iter().filter(|unit| !exclusive.contains(unit)).collect();
        let (exclusive, alike) = (exclusive.into_iter().collect(), alike.into_iter().collect());
        Units { everything: false, beside: false, exclusive, shared, alike }
    }
}

/// Whether a row of it may conflict with one of another table. A partitioned table is all of its partitions, which the catalog
/// says are coarse.
fn has_relatives(relation: &Relation) -> bool {
    relation.coarse || !relation.foreign_keys.is_empty() || relation.kind == RelationKind::Partitioned
}

/// Whether equal keys have equal bytes.
fn is_exact(relation: &Relation) -> bool {
    let mut positions = relation.key.iter().chain(relation.unique_keys.iter().flatten());
    positions.all(|p| relation.columns.get(usize::from(*p)).is_some_and(|c| is_exact_type(&c.column_type)))
}

fn is_exact_type(of: &ColumnType) -> bool {
    match &of.shape {
        Shape::Array(element) => is_exact_type(element),
        Shape::Plain => of.name.schema == "pg_catalog" && EXACT_TYPES.contains(&of.name.name.as_str()),
        Shape::Opaque => false,
    }
}

fn select<'a>(relation: &Relation, values: &'a Values, positions: &[u16]) -> Vec<Option<&'a [u8]>> {
    let value = |p: &u16| bare(relation, *p, values.get(usize::from(*p)).and_then(Option::as_deref));
    positions.iter().map(value).collect()
}

/// A value as its equality sees it: blanks at the end of a `bpchar` don't count, and only one with a length has them all.
fn bare<'a>(relation: &Relation, position: u16, value: Option<&'a [u8]>) -> Option<&'a [u8]> {
    let column = relation.columns.get(usize::from(position));
    match value {
        Some(value) if column.is_some_and(|c| c.column_type.name.name == "bpchar") => {
            let blanks = value.iter().rev().take_while(|b| **b == b' ').count();
            value.get(..value.len() - blanks)
        }
        value => value,
    }
}

/// By the bare name: a statement need not say the schema. Tables of one name in several schemas only delay each other.
fn hash_table(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn hash_definition(table: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (DEFINITIONS, table).hash(&mut hasher);
    hasher.finish()
}

fn hash_row(table: &QualifiedName, which_key: usize, values: &[Option<&[u8]>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (table, which_key, values).hash(&mut hasher);
    hasher.finish()
}

/// The units of the entries that are held so far in a walk along the order.
#[derive(Debug, Default)]
pub(crate) struct HeldUnits {
    any: bool,
    everything: bool,
    exclusive: HashSet<u64>,
    shared: HashSet<u64>,
}

impl HeldUnits {
    pub(crate) fn hold(&mut self, units: &Units) {
        self.any = true;
        self.everything |= units.everything;
        self.exclusive.extend(units.exclusive.iter());
        self.shared.extend(units.shared.iter());
    }

    pub(crate) fn hold_everything(&self) -> bool {
        self.everything
    }

    pub(crate) fn conflict(&self, units: &Units) -> bool {
        self.everything
            || (units.everything && self.any)
            || units.shared.iter().any(|u| self.exclusive.contains(u))
            || units.exclusive.iter().any(|u| self.exclusive.contains(u) || self.shared.contains(u))
    }
}
