//! Plain data that every room shares: places and roles, positions, relations, row images, transactions, findings.
//!
//! Nothing here does I/O, knows a socket, a file format or a parser. Types that go into the mirror log derive
//! `Serialize`/`Deserialize`; their field order is part of the log's format (see `pgshadow-mirror-log`).
#![warn(missing_docs)]

mod changes;
mod finding;
mod hash;
mod place;
mod position;
mod relation;
mod transaction;

pub use changes::{Changes, Spilled, SpilledPart};
pub use finding::{Cause, Finding, Kind, Severity};
pub use hash::{RowsHash, hash_text};
pub use place::{Place, Role};
pub use position::{Epoch, Lsn, ParseLsnError, Sequence, Xid};
pub use relation::{Column, ColumnType, ForeignKey, QualifiedName, Relation, RelationKind, Shape, quote};
pub use transaction::{
    Backend, Bound, Change, CopyData, DdlStatement, Intent, Operation, Order, Outcome, Parameter, RowImage,
    SessionSettings, Statement, Suspect, Transaction, Truncate, Values,
};
