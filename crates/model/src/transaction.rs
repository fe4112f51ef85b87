use crate::{Changes, Epoch, Lsn, QualifiedName, Relation, Sequence, Xid};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Values of one row in PostgreSQL's binary format (`typsend`), in the order of [`Relation::columns`]; `None` is NULL.
pub type Values = Vec<Option<Bytes>>;

/// What was done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// A new row: the shadow must not have it.
    Insert,
    /// A changed row: the shadow must have it.
    Update,
    /// A deleted row: the image is the old row, and the shadow must have it.
    Delete,
    /// INSERT ... ON CONFLICT DO UPDATE where insert and update can't be told apart.
    Upsert,
    /// A row was written whose values could not be seen: only its key is in the image, and it is to be read again on the primary.
    Reread,
}

/// One row that a statement wrote, as the primary returned it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowImage {
    /// The table that holds the row (of a partitioned table: the partition's root is used on the shadow by name).
    pub relation: Arc<Relation>,
    /// What was done.
    pub operation: Operation,
    /// The new row; for DELETE the old one.
    pub values: Values,
    /// The old key where the statement changed it, in the order of [`Relation::key`].
    pub old_key: Option<Values>,
}

/// Session settings that change how a statement or COPY text is read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionSettings {
    /// Current role (`current_user`).
    pub role: String,
    /// `search_path`, as `SHOW` gives it.
    pub search_path: String,
    /// Others, name and value: `DateStyle`, `TimeZone`, `IntervalStyle`, `client_encoding`, ...
    pub others: Vec<(String, String)>,
}

/// A COPY FROM STDIN whose stream is exactly what was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyData {
    /// The table.
    pub relation: Arc<Relation>,
    /// The client's own statement.
    pub sql: String,
    /// Its session's settings.
    pub settings: SessionSettings,
    /// The payloads of its CopyData messages, in order.
    pub data: Vec<Bytes>,
    /// Rows copied, by the command tag. `None`: its data go on in the change that follows, which is of the same COPY.
    pub rows: Option<u64>,
}

/// TRUNCATE, as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncate {
    /// Tables named (CASCADE may reach more).
    pub tables: Vec<QualifiedName>,
    /// The client's own statement.
    pub sql: String,
    /// Its session's settings.
    pub settings: SessionSettings,
}

/// A data definition statement, as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DdlStatement {
    /// The client's own statement.
    pub sql: String,
    /// Its session's settings.
    pub settings: SessionSettings,
    /// False for statements that refuse a transaction block (CREATE INDEX CONCURRENTLY).
    pub in_transaction: bool,
}

/// A parameter's value as the client bound it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// In binary format; else as text.
    pub binary: bool,
    /// The value; `None` is NULL.
    pub value: Option<Bytes>,
}

/// The client's own statement, whose effect is determined by the rows that it names, and what the primary answered. The
/// images of the rows that it wrote come right behind it; it changes nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// As the client wrote it.
    pub sql: String,
    /// Its session's settings.
    pub settings: SessionSettings,
    /// It came by the extended protocol: types of its parameters as Parse gave them (0: not given), and their values.
    pub bound: Option<Bound>,
    /// Rows of its command tag: as many images follow.
    pub rows: u64,
    /// [`RowsHash`](crate::RowsHash) of the rows that it returned; `None` if it returned none, or they can't be compared.
    pub returned: Option<u64>,
    /// From sending to the command tag.
    pub elapsed_micros: u64,
}

/// What came with a Bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Types as Parse gave them, by OID; 0 is one to be inferred.
    pub types: Vec<u32>,
    /// Values.
    pub parameters: Vec<Parameter>,
}

/// One change of a transaction, in the order in which the primary made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A row.
    Row(RowImage),
    /// A COPY.
    Copy(CopyData),
    /// A TRUNCATE.
    Truncate(Truncate),
    /// A DDL statement.
    Ddl(DdlStatement),
    /// What wrote the rows that follow: no change by itself, and for comparison only.
    Statement(Box<Statement>),
}

/// A table that can no longer be taken as equal, with the reason; it is reloaded before a cutover.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Suspect {
    /// The table; `None` means every table (the writer could have reached any).
    pub table: Option<QualifiedName>,
    /// Why, in words for a DBA.
    pub reason: String,
}

/// The primary's backend that runs a transaction, so that a restart can cancel or outwait it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Process id.
    pub pid: i32,
    /// Secret of its BackendKeyData (4 bytes in protocol 3.0, up to 256 in 3.2).
    pub cancel_key: Bytes,
}

/// Written to the log, and durable, before anything that may commit is sent to the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Life of the primary.
    pub epoch: Epoch,
    /// Who runs it.
    pub backend: Backend,
    /// Its xid where it is known (explicit transactions that have written).
    pub xid: Option<Xid>,
    /// Highest token drawn so far, where that is enough to place it (`None`: its place comes with the outcome only).
    pub token: Option<Lsn>,
    /// Its changes where they are known before the commit (explicit transactions); an autocommit statement's come with
    /// the outcome.
    pub changes: Changes,
    /// Tables that it may write and whose images are not in `changes`: suspect if the outcome stays unknown.
    pub may_write: Vec<QualifiedName>,
    /// It may write tables that can't be named: if the outcome stays unknown, every table is suspect.
    pub may_write_any: bool,
    /// What becomes suspect if it commits.
    pub suspects: Vec<Suspect>,
    /// `PREPARE TRANSACTION`: its gid.
    pub prepared: Option<String>,
}

/// Where a transaction stands among others: sort key of the applier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Order {
    /// Life of the primary.
    pub epoch: Epoch,
    /// Highest token that the transaction drew.
    pub token: Lsn,
    /// Makes the order deterministic where tokens tie.
    pub xid: Xid,
}

/// What became of an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It committed.
    Committed {
        /// Its place; `None` if it committed without an xid, or if nothing of it is to be applied.
        order: Option<Order>,
        /// Changes that were not in the intent yet, to be appended to those.
        changes: Changes,
        /// What became suspect by it, beyond the intent's.
        suspects: Vec<Suspect>,
    },
    /// It rolled back, or did nothing.
    Aborted,
}

/// A committed transaction, whole: what the applier works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its intent's number in the log.
    pub sequence: Sequence,
    /// Its place.
    pub order: Order,
    /// Its changes.
    pub changes: Vec<Change>,
}
