//! What a transaction touches, as 64-bit hashes: two transactions may be applied in any order only if they share no
//! unit. A collision only delays.

use pgshadow_model::{Change, Operation, QualifiedName, Relation, RelationKind, RowImage, Values};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Above this many rows a transaction is taken to touch its tables whole.
const ROWS_MAX: usize = 4096;

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
        if is_coarse(relation) {
            self.whole.insert(RELATIVES);
        }
    }

    fn row(&mut self, image: &RowImage) {
        let relation = &*image.relation;
        // The unique values that an UPDATE frees aren't in its image.
        let frees =
            !relation.unique_keys.is_empty() && matches!(image.operation, Operation::Update | Operation::Upsert);
        if is_coarse(relation) || relation.key.is_empty() || frees || self.rows.len() >= ROWS_MAX {
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

fn is_coarse(relation: &Relation) -> bool {
    relation.coarse || !relation.foreign_keys.is_empty()
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
