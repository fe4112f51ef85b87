use pgshadow_model::{Epoch, Intent, Outcome, QualifiedName, Sequence, Suspect};

/// What the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A transaction that may commit from now on.
    Intent(Intent),
    /// What became of it.
    Outcome {
        /// The intent's sequence.
        of: Sequence,
        /// It is known to be on the primary's disk; else a crash of that one may have taken it back.
        flushed: bool,
        /// What became of it.
        outcome: Outcome,
    },
    /// Tables that can no longer be taken as equal.
    Suspects(Vec<Suspect>),
    /// Tables that were resynchronised.
    SuspectsCleared(Vec<QualifiedName>),
    /// The primary's life that following records belong to.
    Epoch {
        /// Its number.
        epoch: Epoch,
        /// What it was told apart by.
        fingerprint: String,
    },
    /// Every record below is applied, or needs no applying.
    Applied {
        /// The first that may not be.
        below: Sequence,
    },
}
