use crate::write::RelationName;

/// A lock on a table, the weakest first (PostgreSQL's manual, 13.3.1). Those that conflict with no read or write of rows are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// SHARE: nobody writes.
    Share,
    /// SHARE ROW EXCLUSIVE: nobody writes.
    ShareRowExclusive,
    /// EXCLUSIVE: nobody writes.
    Exclusive,
    /// ACCESS EXCLUSIVE: nobody reads.
    AccessExclusive,
}

impl LockMode {
    /// The mode in SQL.
    #[must_use]
    pub fn sql(self) -> &'static str {
        match self {
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::Exclusive => "EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }
}

/// What takes as long as a table is large, under the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongWork {
    /// What it does with all rows of the relation, such as `reads all rows of`.
    pub what: &'static str,
    /// How the same is had without, as far as it is.
    pub instead: &'static str,
}

/// A lock that a change of definitions takes on a relation which is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLock {
    /// The relation.
    pub relation: RelationName,
    /// It is an index: the lock is on its table.
    pub of_index: bool,
    /// The same lock is taken on its partitions, and on what inherits from it.
    pub children: bool,
    /// The strongest lock that the statement takes on it.
    pub mode: LockMode,
    /// What it does there for as long as the relation is large.
    pub work: Option<LongWork>,
}
