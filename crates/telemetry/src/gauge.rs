use std::sync::atomic::{AtomicU64, Ordering};

/// What goes up and down. Never negative; units come last in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gauge {
    /// Committed transactions in the log that the shadow hasn't applied.
    LagEntries,
    /// Their bytes.
    LagBytes,
    /// Age of the oldest of them.
    LagMs,
    /// Bytes of the mirror log on disk.
    LogBytes,
    /// What they are limited to.
    LogBytesMax,
    /// 1 when a failed sync has poisoned the log.
    LogPoisoned,
    /// Findings neither healed nor acknowledged.
    FindingsOpen,
    /// Tables that are suspect now.
    SuspectTables,
    /// Clients connected now.
    Clients,
    /// 1 while the applier has its connection to the shadow.
    ApplierConnected,
    /// 1 while writes are mirrored.
    Mirroring,
    /// 1 while new transactions are held.
    Paused,
    /// Transactions open now that have written.
    OpenTransactions,
    /// Bytes of row images held in memory.
    CaptureBytes,
    /// Commits that wait for the log.
    LogQueueEntries,
    /// Transactions read from the log that wait for their release or the applier.
    ApplyQueueEntries,
}

impl Gauge {
    /// Every gauge, in order of declaration.
    pub const ALL: &'static [Self] = &[
        Self::LagEntries,
        Self::LagBytes,
        Self::LagMs,
        Self::LogBytes,
        Self::LogBytesMax,
        Self::LogPoisoned,
        Self::FindingsOpen,
        Self::SuspectTables,
        Self::Clients,
        Self::ApplierConnected,
        Self::Mirroring,
        Self::Paused,
        Self::OpenTransactions,
        Self::CaptureBytes,
        Self::LogQueueEntries,
        Self::ApplyQueueEntries,
    ];

    /// Sets the value; a yes or no goes in as `u64::from(flag)`.
    pub fn set(self, value: u64) {
        if let Some(place) = VALUES.get(self as usize) {
            place.store(value, Ordering::Relaxed);
        }
    }

    /// Adds `n`.
    pub fn raise(self, n: u64) {
        if let Some(place) = VALUES.get(self as usize) {
            place.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Takes `n` away, down to zero.
    pub fn lower(self, n: u64) {
        if let Some(place) = VALUES.get(self as usize) {
            place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| Some(value.saturating_sub(n))).ok();
        }
    }

    /// The value now.
    #[must_use]
    pub fn value(self) -> u64 {
        VALUES.get(self as usize).map_or(0, |place| place.load(Ordering::Relaxed))
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

    const fn name_and_description(self) -> (&'static str, &'static str) {
        match self {
            Self::LagEntries => ("pgshadow_lag_entries", "Committed transactions that the shadow has not applied."),
            Self::LagBytes => ("pgshadow_lag_bytes", "Bytes of the committed transactions not applied."),
            Self::LagMs => ("pgshadow_lag_ms", "Age of the oldest committed transaction not applied, in milliseconds."),
            Self::LogBytes => ("pgshadow_log_bytes", "Bytes of the mirror log on disk."),
            Self::LogBytesMax => ("pgshadow_log_bytes_max", "Limit of the mirror log."),
            Self::LogPoisoned => ("pgshadow_log_poisoned", "1 when a failed sync has poisoned the mirror log."),
            Self::FindingsOpen => ("pgshadow_findings_open", "Findings neither healed nor acknowledged."),
            Self::SuspectTables => ("pgshadow_suspect_tables", "Tables that are suspect."),
            Self::Clients => ("pgshadow_clients", "Clients connected."),
            Self::ApplierConnected => ("pgshadow_applier_connected", "1 while the applier is connected to the shadow."),
            Self::Mirroring => ("pgshadow_mirroring", "1 while writes are mirrored."),
            Self::Paused => ("pgshadow_paused", "1 while new transactions are held."),
            Self::OpenTransactions => ("pgshadow_open_transactions", "Open transactions that have written."),
            Self::CaptureBytes => ("pgshadow_capture_bytes", "Bytes of row images held in memory."),
            Self::LogQueueEntries => ("pgshadow_log_queue_entries", "Commits that wait for the mirror log."),
            Self::ApplyQueueEntries => {
                ("pgshadow_apply_queue_entries", "Transactions that wait for their release or the applier.")
            }
        }
    }
}

const COUNT: usize = Gauge::ALL.len();
static VALUES: [AtomicU64; COUNT] = [const { AtomicU64::new(0) }; COUNT];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gauge_has_its_own_place() {
        for (position, gauge) in Gauge::ALL.iter().enumerate() {
            assert_eq!(*gauge as usize, position);
            assert!(gauge.name().starts_with("pgshadow_"));
        }
    }

    #[test]
    fn a_gauge_never_falls_below_zero() {
        Gauge::CaptureBytes.set(1);
        Gauge::CaptureBytes.lower(5);
        assert_eq!(Gauge::CaptureBytes.value(), 0);
    }
}
