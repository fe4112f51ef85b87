use crate::label::{Direction, FINDING_KINDS, Room, StatementClass, kind_word};
use pgshadow_model::Kind;
use std::sync::atomic::{AtomicU64, Ordering};

/// What only grows, from the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Statements that clients sent, by class.
    Statements(StatementClass),
    /// Findings recorded, by kind; one seen again counts again.
    Findings(Kind),
    /// Frames forwarded.
    Frames(Direction),
    /// Bytes forwarded.
    RelayedBytes(Direction),
    /// Errors of pgshadow's own, by room.
    Errors(Room),
    /// Client connections accepted.
    ClientConnections,
    /// Client connections that pgshadow itself refused.
    ClientConnectionsRefused,
    /// Cancel requests forwarded.
    CancelRequests,
    /// Frames that capture couldn't read; they were forwarded all the same.
    FramesUnreadable,
    /// Statements sent with an extended RETURNING list.
    StatementsRewritten,
    /// Row images captured from the primary, committed or not.
    RowsCaptured,
    /// Transactions written to the mirror log with a committed outcome.
    TransactionsMirrored,
    /// Transactions that wrote and rolled back.
    TransactionsRolledBack,
    /// Transactions whose outcome had to be looked up or is unknown.
    TransactionsInDoubt,
    /// Transactions applied to the shadow.
    TransactionsApplied,
    /// Rows written to the shadow.
    RowsApplied,
    /// Rows of the shadow compared with the primary's image.
    RowsCompared,
    /// Rows of the shadow mended from the primary.
    HealedRows,
    /// Times that a table was made suspect.
    Suspects,
    /// Records appended to the mirror log.
    LogAppends,
    /// Bytes appended to the mirror log.
    LogAppendedBytes,
    /// Bytes of large transactions written to files of their own.
    LogSpilledBytes,
    /// Transactions that waited in the log alone, and were read again.
    LogReadAgain,
    /// Syncs of the mirror log.
    LogFsyncs,
    /// Connections that the applier opened to the shadow.
    ApplierConnects,
    /// Batches that the applier had to repeat.
    ApplyRetries,
    /// Clients' own statements that ran on the shadow for comparison.
    StatementsCompared,
    /// Those that were left out since the shadow lagged.
    StatementsShed,
    /// Definitions that would have kept others waiting, run or refused.
    DdlObjections,
    /// Those that were refused.
    DdlRefused,
}

/// Counters without a label, in the order of their declaration.
const PLAIN: &[Counter] = &[
    Counter::ClientConnections,
    Counter::ClientConnectionsRefused,
    Counter::CancelRequests,
    Counter::FramesUnreadable,
    Counter::StatementsRewritten,
    Counter::RowsCaptured,
    Counter::TransactionsMirrored,
    Counter::TransactionsRolledBack,
    Counter::TransactionsInDoubt,
    Counter::TransactionsApplied,
    Counter::RowsApplied,
    Counter::RowsCompared,
    Counter::HealedRows,
    Counter::Suspects,
    Counter::LogAppends,
    Counter::LogAppendedBytes,
    Counter::LogFsyncs,
    Counter::ApplierConnects,
    Counter::ApplyRetries,
    Counter::StatementsCompared,
    Counter::StatementsShed,
    Counter::LogSpilledBytes,
    Counter::LogReadAgain,
    Counter::DdlObjections,
    Counter::DdlRefused,
];

// Where each family starts in VALUES.
const STATEMENTS: usize = PLAIN.len();
const FINDINGS: usize = STATEMENTS + StatementClass::ALL.len();
const FRAMES: usize = FINDINGS + FINDING_KINDS.len();
const RELAYED_BYTES: usize = FRAMES + Direction::ALL.len();
const ERRORS: usize = RELAYED_BYTES + Direction::ALL.len();
const COUNT: usize = ERRORS + Room::ALL.len();

static VALUES: [AtomicU64; COUNT] = [const { AtomicU64::new(0) }; COUNT];

impl Counter {
    /// Adds `n`.
    pub fn add(self, n: u64) {
        if let Some(value) = VALUES.get(self.index()) {
            value.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Adds one.
    pub fn increment(self) {
        self.add(1);
    }

    /// What was counted since the process started.
    #[must_use]
    pub fn value(self) -> u64 {
        VALUES.get(self.index()).map_or(0, |value| value.load(Ordering::Relaxed))
    }

    /// Every counter with every label value.
    pub fn all() -> impl Iterator<Item = Self> {
        PLAIN
            .iter()
            .copied()
            .chain(StatementClass::ALL.iter().copied().map(Self::Statements))
            .chain(FINDING_KINDS.iter().copied().map(Self::Findings))
            .chain(Direction::ALL.iter().copied().map(Self::Frames))
            .chain(Direction::ALL.iter().copied().map(Self::RelayedBytes))
            .chain(Room::ALL.iter().copied().map(Self::Errors))
    }

    const fn index(self) -> usize {
        match self {
            Self::Statements(class) => STATEMENTS + class as usize,
            Self::Findings(kind) => FINDINGS + kind as usize,
            Self::Frames(direction) => FRAMES + direction as usize,
            Self::RelayedBytes(direction) => RELAYED_BYTES + direction as usize,
            Self::Errors(room) => ERRORS + room as usize,
            Self::ClientConnections => 0,
            Self::ClientConnectionsRefused => 1,
            Self::CancelRequests => 2,
            Self::FramesUnreadable => 3,
            Self::StatementsRewritten => 4,
            Self::RowsCaptured => 5,
            Self::TransactionsMirrored => 6,
            Self::TransactionsRolledBack => 7,
            Self::TransactionsInDoubt => 8,
            Self::TransactionsApplied => 9,
            Self::RowsApplied => 10,
            Self::RowsCompared => 11,
            Self::HealedRows => 12,
            Self::Suspects => 13,
            Self::LogAppends => 14,
            Self::LogAppendedBytes => 15,
            Self::LogFsyncs => 16,
            Self::ApplierConnects => 17,
            Self::ApplyRetries => 18,
            Self::StatementsCompared => 19,
            Self::StatementsShed => 20,
            Self::LogSpilledBytes => 21,
            Self::LogReadAgain => 22,
            Self::DdlObjections => 23,
            Self::DdlRefused => 24,
        }
    }

    /// The name in Prometheus.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name_and_description().0
    }

    /// What `# HELP` says.
    #[must_use]
    pub const fn description(self) -> &'static str {
        self.name_and_description().1
    }

    /// The label and its value, if it has one.
    #[must_use]
    pub const fn label(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Statements(class) => Some(("class", class.word())),
            Self::Findings(kind) => Some(("kind", kind_word(kind))),
            Self::Frames(direction) | Self::RelayedBytes(direction) => Some(("direction", direction.word())),
            Self::Errors(room) => Some(("room", room.word())),
            _ => None,
        }
    }

    const fn name_and_description(self) -> (&'static str, &'static str) {
        match self {
            Self::Statements(_) => ("pgshadow_statements_total", "Statements that clients sent."),
            Self::Findings(_) => ("pgshadow_findings_total", "Findings recorded; one seen again counts again."),
            Self::Frames(_) => ("pgshadow_frames_total", "Protocol frames forwarded."),
            Self::RelayedBytes(_) => ("pgshadow_relayed_bytes_total", "Bytes forwarded."),
            Self::Errors(_) => ("pgshadow_errors_total", "Errors of pgshadow's own."),
            Self::ClientConnections => ("pgshadow_client_connections_total", "Client connections accepted."),
            Self::ClientConnectionsRefused => {
                ("pgshadow_client_connections_refused_total", "Client connections that pgshadow itself refused.")
            }
            Self::CancelRequests => ("pgshadow_cancel_requests_total", "Cancel requests forwarded."),
            Self::FramesUnreadable => {
                ("pgshadow_frames_unreadable_total", "Frames that capture could not read; forwarded all the same.")
            }
            Self::StatementsRewritten => {
                ("pgshadow_statements_rewritten_total", "Statements sent with an extended RETURNING list.")
            }
            Self::RowsCaptured => ("pgshadow_rows_captured_total", "Row images captured from the primary."),
            Self::TransactionsMirrored => {
                ("pgshadow_transactions_mirrored_total", "Committed transactions written to the mirror log.")
            }
            Self::TransactionsRolledBack => {
                ("pgshadow_transactions_rolled_back_total", "Transactions that wrote and were rolled back.")
            }
            Self::TransactionsInDoubt => {
                ("pgshadow_transactions_in_doubt_total", "Transactions whose outcome had to be looked up.")
            }
            Self::TransactionsApplied => ("pgshadow_transactions_applied_total", "Transactions applied to the shadow."),
            Self::RowsApplied => ("pgshadow_rows_applied_total", "Rows written to the shadow."),
            Self::RowsCompared => ("pgshadow_rows_compared_total", "Rows of the shadow compared with their image."),
            Self::HealedRows => ("pgshadow_healed_rows_total", "Rows of the shadow mended from the primary."),
            Self::Suspects => ("pgshadow_suspects_total", "Times that a table was made suspect."),
            Self::LogAppends => ("pgshadow_log_appends_total", "Records appended to the mirror log."),
            Self::LogAppendedBytes => ("pgshadow_log_appended_bytes_total", "Bytes appended to the mirror log."),
            Self::LogSpilledBytes => {
                ("pgshadow_log_spilled_bytes_total", "Bytes of large transactions written to files of their own.")
            }
            Self::LogReadAgain => (
                "pgshadow_log_read_again_total",
                "Transactions that waited in the mirror log alone, and were read again.",
            ),
            Self::DdlObjections => (
                "pgshadow_ddl_objections_total",
                "Definitions that would have kept others from a table, run or refused.",
            ),
            Self::DdlRefused => ("pgshadow_ddl_refused_total", "Definitions that the guard refused."),
            Self::LogFsyncs => ("pgshadow_log_fsyncs_total", "Syncs of the mirror log."),
            Self::ApplierConnects => ("pgshadow_applier_connects_total", "Connections opened to the shadow."),
            Self::ApplyRetries => ("pgshadow_apply_retries_total", "Batches that had to be repeated."),
            Self::StatementsCompared => {
                ("pgshadow_statements_compared_total", "Clients' own statements that ran on the shadow for comparison.")
            }
            Self::StatementsShed => {
                ("pgshadow_statements_shed_total", "Statements not compared since the shadow lagged.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_own_place() {
        let places: Vec<usize> = Counter::all().map(Counter::index).collect();
        assert_eq!(places, (0..COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn names_follow_the_convention() {
        for counter in Counter::all() {
            assert!(counter.name().starts_with("pgshadow_"), "{}", counter.name());
            assert!(counter.name().ends_with("_total"), "{}", counter.name());
        }
    }
}
