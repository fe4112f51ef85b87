use crate::{Lsn, QualifiedName, Xid};
use serde::{Deserialize, Serialize};

/// What differs. A closed list: the same words in reports, logs, metrics and JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The primary has the row, the shadow has not.
    MissingRow,
    /// The shadow has a row that the primary has not.
    ExtraRow,
    /// The row is on both, with different values.
    Value,
    /// A statement wrote another number of rows.
    RowCount,
    /// Only the shadow refused.
    ErrorShadowOnly,
    /// Only the primary refused.
    ErrorPrimaryOnly,
    /// Both refused, differently.
    ErrorDiffers,
    /// A statement returned other rows.
    ResultRows,
    /// A statement took another time.
    Latency,
    /// The schemas differ.
    Schema,
    /// The client's own statement, run on the shadow, did something else than on the primary.
    Statement,
}

/// Why it differs. A closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A constraint that only one side has.
    Constraint,
    /// A trigger that only one side has.
    Trigger,
    /// Another default.
    Default,
    /// Another type, scale or length.
    Type,
    /// Another collation.
    Collation,
    /// Another setting.
    Setting,
    /// Another plan.
    Plan,
    /// An index that only one side has.
    MissingIndex,
    /// Somebody wrote past pgshadow.
    WrittenBehind,
    /// Not known.
    Unknown,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warning,
    /// Data differ.
    Error,
}

/// One divergence with its evidence. The same finding seen again raises `count`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Number in the store, from 1; 0 before it is stored.
    pub id: u64,
    /// What differs.
    pub kind: Kind,
    /// Why.
    pub cause: Cause,
    /// How bad.
    pub severity: Severity,
    /// The table.
    pub table: Option<QualifiedName>,
    /// The row's key, as `column=value, ...` in text under fixed settings.
    pub key: Option<String>,
    /// The columns that differ, separated by commas.
    pub column: Option<String>,
    /// What the primary holds (text under fixed settings).
    pub primary: Option<String>,
    /// What the shadow holds.
    pub shadow: Option<String>,
    /// The shadow's SQLSTATE where an error is the finding.
    pub sqlstate: Option<String>,
    /// The message of that error, or a sentence that says what was seen.
    pub message: Option<String>,
    /// The client's statement where it is known.
    pub sql: Option<String>,
    /// Groups findings of one origin: kind, table, columns, SQLSTATE; hexadecimal.
    pub fingerprint: String,
    /// The transaction on the primary.
    pub xid: Option<Xid>,
    /// Its token.
    pub lsn: Option<Lsn>,
    /// Who wrote.
    pub user: Option<String>,
    /// The application's name.
    pub application: Option<String>,
    /// Whether the shadow's row was mended since.
    pub healed: bool,
    /// How many times it was seen.
    pub count: u64,
    /// First seen, RFC 3339 UTC.
    pub first_seen: String,
    /// Last seen, RFC 3339 UTC.
    pub last_seen: String,
    /// Whether a DBA has acknowledged it.
    pub acknowledged: bool,
}

impl Finding {
    /// Whether it is about what a client's own statement does on the shadow, not about rows or definitions.
    #[must_use]
    pub fn is_of_statements(&self) -> bool {
        matches!(self.kind, Kind::Statement | Kind::Latency)
    }

    /// Seen once, not stored yet, and nothing else known of it. `fingerprint`: what it is grouped by.
    #[must_use]
    pub fn new(kind: Kind, cause: Cause, severity: Severity, fingerprint: String) -> Self {
        Self {
            id: 0,
            kind,
            cause,
            severity,
            table: None,
            key: None,
            column: None,
            primary: None,
            shadow: None,
            sqlstate: None,
            message: None,
            sql: None,
            fingerprint,
            xid: None,
            lsn: None,
            user: None,
            application: None,
            healed: false,
            count: 1,
            first_seen: String::new(),
            last_seen: String::new(),
            acknowledged: false,
        }
    }
}
