//! What a transaction touches, as 64-bit hashes: two transactions may be applied in any order only if they share no
//! unit. A collision only delays.

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

/// The units of one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Units {
    /// Everything: DDL, TRUNCATE, or changes that aren't known.
    everything: bool,
    /// Rows, by key and by unique keys.
    rows: Box<[u64]>,
    /// Tables of those rows.
    shared: Box<[u64]>,
    /// Whole tables.
    whole: Box<[u64]>,
}

impl Units {
    /// Conflicts with every other entry.
    pub(crate) fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    pub(crate) fn of(changes: &[Change]) -> Self {
        let mut into = Collector::default();
        for change in changes {
            match change {
                Change::Row(image) => into.row(image),
                Change::Copy(copy) if copy.relation.kind == RelationKind::Partitioned => return Self::everything(),
                Change::Copy(copy) => into.table(&copy.relation),
                // CASCADE, partitions and dropped dependents reach tables that the change doesn't name.
                Change::Truncate(_) | Change::Ddl(_) => return Self::everything(),
            }
        }
        into.finish()
    }
}

#[derive(Default)]
struct Collector {
    rows: HashSet<u64>,
    shared: HashSet<u64>,
    whole: HashSet<u64>,
}

impl Collector {
    fn table(&mut self, relation: &Relation) {
        self.whole.insert(hash_table(&relation.name));
        if has_relatives(relation) {
            self.whole.insert(RELATIVES);
        }
    }

    fn row(&mut self, image: &RowImage) {
        let relation = &*image.relation;
        // The unique values that an UPDATE frees aren't in its image.
        let frees =
            !relation.unique_keys.is_empty() && matches!(image.operation, Operation::Update | Operation::Upsert);
        let by_row = !relation.key.is_empty() && is_exact(relation) && !has_relatives(relation) && !frees;
        if !by_row || self.rows.len() >= ROWS_MAX {
            return self.table(relation);
        }
        self.shared.insert(hash_table(&relation.name));
        let key = select(&image.values, &relation.key);
        self.rows.insert(hash_row(&relation.name, 0, &key));
        if let Some(old) = &image.old_key {
            self.rows.insert(hash_row(&relation.name, 0, &old.iter().map(Option::as_deref).collect::<Vec<_>>()));
        }
        for (n, unique) in relation.unique_keys.iter().enumerate() {
            let values = select(&image.values, unique);
            if values.iter().all(Option::is_some) {
                self.rows.insert(hash_row(&relation.name, n + 1, &values));
            }
        }
    }

    fn finish(self) -> Units {
        let list = |set: HashSet<u64>| set.into_iter().collect::<Box<[u64]>>();
        Units { everything: false, rows: list(self.rows), shared: list(self.shared), whole: list(self.whole) }
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

fn select<'a>(values: &'a Values, positions: &[u16]) -> Vec<Option<&'a [u8]>> {
    positions.iter().map(|p| values.get(usize::from(*p)).and_then(Option::as_deref)).collect()
}

fn hash_table(name: &QualifiedName) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
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
    rows: HashSet<u64>,
    shared: HashSet<u64>,
    whole: HashSet<u64>,
}

impl HeldUnits {
    pub(crate) fn hold(&mut self, units: &Units) {
        self.any = true;
        self.everything |= units.everything;
        self.rows.extend(units.rows.iter());
        self.shared.extend(units.shared.iter());
        self.whole.extend(units.whole.iter());
    }

    pub(crate) fn hold_everything(&self) -> bool {
        self.everything
    }

    pub(crate) fn conflict(&self, units: &Units) -> bool {
        self.everything
            || (units.everything && self.any)
            || units.rows.iter().any(|u| self.rows.contains(u))
            || units.shared.iter().any(|u| self.whole.contains(u))
            || units.whole.iter().any(|u| self.whole.contains(u) || self.shared.contains(u))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgshadow_model::Column;
    use std::sync::Arc;

    fn table(name: &str, kind: RelationKind, key_type: (&str, &str)) -> Relation {
        let column_type = ColumnType { oid: 0, name: QualifiedName::new(key_type.0, key_type.1), shape: Shape::Plain };
        let column = Column { name: "k".into(), column_type, not_null: true, generated: false, identity_always: false };
        Relation {
            oid: 0,
            name: QualifiedName::new("public", name),
            kind,
            columns: vec![column],
            key: vec![0],
            unique_keys: vec![],
            foreign_keys: vec![],
            coarse: false,
        }
    }

    fn conflict(a: (&Relation, &'static str), b: (&Relation, &'static str)) -> bool {
        let units = |(relation, key): (&Relation, &'static str)| {
            let (relation, values) = (Arc::new(relation.clone()), vec![Some(key.into())]);
            Units::of(&[Change::Row(RowImage { relation, operation: Operation::Insert, values, old_key: None })])
        };
        let mut held = HeldUnits::default();
        held.hold(&units(a));
        held.conflict(&units(b))
    }

    #[test]
    fn keys_that_may_be_equal_without_equal_bytes_conflict() {
        let by = |key_type| table("t", RelationKind::Table, key_type);
        for exact in ["int4", "text", "uuid"] {
            let t = by(("pg_catalog", exact));
            assert!(conflict((&t, "1"), (&t, "1")) && !conflict((&t, "1"), (&t, "2")), "{exact}");
        }
        for inexact in [("pg_catalog", "numeric"), ("pg_catalog", "float8"), ("public", "citext"), ("x", "int4")] {
            let t = by(inexact);
            assert!(conflict((&t, "1.0"), (&t, "1.00")), "{inexact:?}");
            assert!(!conflict((&t, "1.0"), (&table("u", RelationKind::Table, inexact), "1.0")), "{inexact:?}");
        }
    }

    #[test]
    fn a_partition_conflicts_with_its_root() {
        let int4 = ("pg_catalog", "int4");
        let root = table("root", RelationKind::Partitioned, int4);
        let partition = Relation { coarse: true, ..table("part", RelationKind::Table, int4) };
        assert!(conflict((&root, "1"), (&partition, "1")) && conflict((&partition, "1"), (&root, "1")));
        assert!(!conflict((&root, "1"), (&table("other", RelationKind::Table, int4), "1")));
    }
}
