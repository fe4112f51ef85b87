use std::sync::OnceLock;
use std::time::Duration;

/// What is measured again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Histogram {
    /// One sync of the mirror log.
    LogFsync,
    /// What a commit waited for its intent to be durable.
    LogAppendWait,
    /// Transactions that shared one sync.
    LogGroupEntries,
    /// One batch on the shadow, from its first statement to its commit.
    ApplyBatch,
    /// Transactions in one batch.
    ApplyBatchEntries,
    /// From the commit on the primary to the commit on the shadow.
    MirrorDelay,
    /// From accepting a client to the primary's ReadyForQuery.
    Handshake,
    /// One healing: fence, settle, read, write.
    Heal,
}

const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
const ENTRIES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

static RECORDERS: OnceLock<Vec<metrics::Histogram>> = OnceLock::new();

impl Histogram {
    /// Every histogram, in order of declaration.
    pub const ALL: &'static [Self] = &[
        Self::LogFsync,
        Self::LogAppendWait,
        Self::LogGroupEntries,
        Self::ApplyBatch,
        Self::ApplyBatchEntries,
        Self::MirrorDelay,
        Self::Handshake,
        Self::Heal,
    ];

    /// Records a time, for those whose name ends in `_seconds`.
    pub fn observe(self, duration: Duration) {
        self.record(duration.as_secs_f64());
    }

    /// Records a number, for those whose name ends in `_entries`.
    pub fn observe_entries(self, entries: usize) {
        self.record(entries as f64);
    }

    fn record(self, value: f64) {
        if let Some(recorder) = RECORDERS.get().and_then(|recorders| recorders.get(self as usize)) {
            recorder.record(value);
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

    pub(crate) fn buckets(self) -> &'static [f64] {
        match self {
            Self::LogGroupEntries | Self::ApplyBatchEntries => ENTRIES,
            _ => SECONDS,
        }
    }

    /// Registers all of them with the process's recorder; the first call counts.
    pub(crate) fn register_all() {
        RECORDERS.get_or_init(|| Self::ALL.iter().map(|histogram| metrics::histogram!(histogram.name())).collect());
    }

    const fn name_and_description(self) -> (&'static str, &'static str) {
        match self {
            Self::LogFsync => ("pgshadow_log_fsync_seconds", "Duration of a sync of the mirror log."),
            Self::LogAppendWait => ("pgshadow_log_append_wait_seconds", "Wait of a commit for its durable intent."),
            Self::LogGroupEntries => ("pgshadow_log_group_entries", "Records that shared one sync."),
            Self::ApplyBatch => ("pgshadow_apply_batch_seconds", "Duration of a batch on the shadow."),
            Self::ApplyBatchEntries => ("pgshadow_apply_batch_entries", "Transactions in one batch."),
            Self::MirrorDelay => {
                ("pgshadow_mirror_delay_seconds", "From the commit on the primary to that on the shadow.")
            }
            Self::Handshake => ("pgshadow_handshake_seconds", "From accepting a client to its session being ready."),
            Self::Heal => ("pgshadow_heal_seconds", "Duration of one healing."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_histogram_has_its_own_place() {
        for (position, histogram) in Histogram::ALL.iter().enumerate() {
            assert_eq!(*histogram as usize, position);
        }
    }
}
