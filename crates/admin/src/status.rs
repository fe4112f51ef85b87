use pgshadow_model::Place;
use pgshadow_telemetry::{Counter, StatementClass};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What [`Status::note`] says as long as nothing proves that both databases are equal.
pub const EQUAL_AT_START_NOTE: &str = "both databases are taken to start equal: load the target by `pgshadow backfill`, and compare them by `pgshadow verify`";

/// What it says while a certificate covers every table.
pub const PROVEN_NOTE: &str = "both databases were proven equal, and all that came since was applied exactly";

/// Answer of `/api/status`, and of `pgshadow status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the running program: [`VERSION`].
    pub version: String,
    /// Where the application's data is.
    pub primary: Place,
    /// Where in the migration we are.
    pub phase: Phase,
    /// Whether writes are mirrored.
    pub mirroring: bool,
    /// Whether new transactions are held.
    pub paused: bool,
    /// A flip is under way, or what one has left is still to be put in order.
    pub flipping: bool,
    /// How far the shadow is behind.
    pub lag: Lag,
    /// The mirror log.
    pub log: LogState,
    /// Tables that may differ without anyone knowing how.
    pub suspect_tables: Vec<SuspectTable>,
    /// Tables that are to be loaded: what is written to them isn't applied until then.
    pub awaiting_load: Vec<String>,
    /// Findings neither healed nor acknowledged.
    pub findings_open: u64,
    /// Rows of the shadow that were mended from the primary.
    pub healed_rows: u64,
    /// Proof of equality.
    pub certificate: Certificate,
    /// Clients connected.
    pub clients: u64,
    /// What the operator should do now, in one sentence.
    pub next_step: String,
    /// What must be known to read the rest rightly.
    pub note: String,
    /// The writer to the shadow.
    pub applier: Applier,
    /// What was counted since the start of the process.
    pub counters: Counters,
}

/// Where in the migration we are. A closed list, longer with every phase that is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reading catalogs and log; no client is served yet.
    Starting,
    /// A plain proxy: nothing is mirrored.
    Forwarding,
    /// Committed writes go to the shadow.
    Mirroring,
    /// The same, and the shadow is loaded meanwhile.
    Backfill,
    /// Ending: no new clients.
    Stopping,
}

impl Phase {
    /// The word in the JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Forwarding => "forwarding",
            Self::Mirroring => "mirroring",
            Self::Backfill => "backfill",
            Self::Stopping => "stopping",
        }
    }
}

/// How far the shadow is behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// Committed transactions not applied.
    pub entries: u64,
    /// Their bytes in the log.
    pub bytes: u64,
    /// Age of the oldest of them.
    pub ms: u64,
}

/// The mirror log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// Bytes on disk.
    pub bytes: u64,
    /// Their limit.
    pub bytes_max: u64,
    /// Whether a sync has failed, so that nothing more is written.
    pub poisoned: bool,
}

/// A table that may differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspectTable {
    /// `schema.name`.
    pub table: String,
    /// What happened.
    pub reason: String,
    /// Since when, RFC 3339 UTC.
    pub since: String,
}

/// Proof of equality.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whether it holds for every table now.
    pub valid: bool,
    /// Tables that it covers.
    pub tables: u64,
    /// Why it doesn't hold.
    pub reason: Option<String>,
}

impl Certificate {
    /// None was ever issued.
    #[must_use]
    pub fn none(reason: impl Into<String>) -> Self {
        Self { valid: false, tables: 0, reason: Some(reason.into()) }
    }
}

/// The writer to the shadow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applier {
    /// Whether it has its connection.
    pub connected: bool,
    /// The last error, until something was applied after it.
    pub last_error: Option<String>,
    /// Rows written since the start of the process.
    pub rows_applied: u64,
    /// Rows that did not fit and wait to be read again on the primary.
    pub rows_to_heal: u64,
}

/// What was counted since the start of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Statements of clients by class.
    pub statements: BTreeMap<String, u64>,
    /// Client connections accepted.
    pub client_connections: u64,
    /// Row images captured.
    pub rows_captured: u64,
    /// Committed transactions written to the log.
    pub transactions_mirrored: u64,
    /// Transactions applied to the shadow.
    pub transactions_applied: u64,
    /// Rows of the shadow compared.
    pub rows_compared: u64,
}

impl Counters {
    /// As the metrics of this process have them now.
    #[must_use]
    pub fn now() -> Self {
        let statements = StatementClass::ALL
            .iter()
            .map(|class| (class.word().to_owned(), Counter::Statements(*class).value()))
            .collect();
        Self {
            statements,
            client_connections: Counter::ClientConnections.value(),
            rows_captured: Counter::RowsCaptured.value(),
            transactions_mirrored: Counter::TransactionsMirrored.value(),
            transactions_applied: Counter::TransactionsApplied.value(),
            rows_compared: Counter::RowsCompared.value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            version: "0.1.0".into(),
            primary: Place::Source,
            phase: Phase::Mirroring,
            mirroring: true,
            paused: false,
            flipping: false,
            lag: Lag { entries: 3, bytes: 400, ms: 12 },
            log: LogState { bytes: 4096, bytes_max: 1 << 30, poisoned: false },
            suspect_tables: vec![SuspectTable {
                table: "public.orders".into(),
                reason: "LO import".into(),
                since: "2026-11-22T10:00:00Z".into(),
            }],
            awaiting_load: vec!["public.new".into()],
            findings_open: 1,
            healed_rows: 2,
            certificate: Certificate::none("no verify was run"),
            clients: 8,
            next_step: "look at `pgshadow report`".into(),
            note: EQUAL_AT_START_NOTE.into(),
            applier: Applier { connected: true, last_error: None, rows_applied: 7, rows_to_heal: 0 },
            counters: Counters { statements: [("insert".to_owned(), 5)].into(), ..Counters::default() },
        }
    }

    #[test]
    fn the_json_has_the_words_of_the_interface() {
        let json = serde_json::to_value(status()).unwrap();
        let expected = serde_json::json!({
            "version": "0.1.0", "primary": "source", "phase": "mirroring", "mirroring": true, "paused": false, "flipping": false,
            "lag": {"entries": 3, "bytes": 400, "ms": 12},
            "log": {"bytes": 4096, "bytes_max": 1 << 30, "poisoned": false},
            "suspect_tables": [{"table": "public.orders", "reason": "LO import", "since": "2026-11-22T10:00:00Z"}],
            "awaiting_load": ["public.new"], "findings_open": 1, "healed_rows": 2,
            "certificate": {"valid": false, "tables": 0, "reason": "no verify was run"},
            "clients": 8, "next_step": "look at `pgshadow report`",
            "note": "both databases are taken to start equal: load the target by `pgshadow backfill`, and compare them by `pgshadow verify`",
            "applier": {"connected": true, "last_error": null, "rows_applied": 7, "rows_to_heal": 0},
            "counters": {
                "statements": {"insert": 5}, "client_connections": 0, "rows_captured": 0,
                "transactions_mirrored": 0, "transactions_applied": 0, "rows_compared": 0,
            },
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status());
    }

    #[test]
    fn phases_have_the_words_of_the_json() {
        for phase in [Phase::Starting, Phase::Forwarding, Phase::Mirroring, Phase::Backfill, Phase::Stopping] {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.word());
        }
    }

    #[test]
    fn every_class_is_counted() {
        assert_eq!(Counters::now().statements.len(), StatementClass::ALL.len());
    }
}
