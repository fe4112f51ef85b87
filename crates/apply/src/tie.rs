//! What ties the position on the shadow to the log: the numbers of one log say nothing about another, and a log that ends below
//! the position would give numbers out again that the shadow takes as applied.

use crate::AppliedPosition;
use pgshadow_divergence::Store;
use pgshadow_model::Sequence;

/// Which log this is, and what it held when it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogExtent {
    /// Random, made with the log.
    pub identity: String,
    /// System identifier of the primary whose transactions it holds, where the primary tells.
    pub source: Option<String>,
    /// The first record that it still had; one above `last` where there was none.
    pub first: Sequence,
    /// The last record, 0 in a new log.
    pub last: Sequence,
}

/// Name of the store's text that says below which number the shadow had all of the log at least, when something was last loaded or proven there.
const HAD: &str = "shadow_had";

/// Keeps that the shadow has all of the log below this number.
///
/// # Errors
/// The store can't be written.
pub fn keep_had(store: &Store, log: &LogExtent, below: Sequence) -> Result<(), pgshadow_divergence::Error> {
    let text = format!("{} {below}", log.identity);
    // it may be told again and again
    if store.meta_get(HAD)?.as_ref() == Some(&text) { Ok(()) } else { store.meta_set(HAD, &text) }
}

/// What was kept: below which number it had all of this log; of another log, 0.
pub(crate) fn had(store: &Store, log: &LogExtent) -> Result<Option<Sequence>, pgshadow_divergence::Error> {
    let text = store.meta_get(HAD)?;
    let below = |text: &str| text.strip_prefix(log.identity.as_str())?.trim_start().parse().ok();
    Ok(text.map(|text| below(&text).unwrap_or(0)))
}

/// What the shadow says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) position: AppliedPosition,
    pub(crate) identity: String,
    pub(crate) source: Option<String>,
}

impl Stored {
    /// Another lane's row besides. A row of another log counts for all: they are written together.
    pub(crate) fn with(self, other: Self, log: &str) -> Self {
        if self.identity != log || other.identity != log {
            return if self.identity == log { other } else { self };
        }
        let source = self.source.or(other.source);
        Self { position: self.position.with(&other.position), identity: self.identity, source }
    }
}

/// How the shadow's position stands to the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The log goes on where the position ends.
    Follows(AppliedPosition),
    /// It does, but records between are gone.
    Gap(AppliedPosition, String),
    /// The position isn't one in this log.
    Foreign(String),
}

/// `first_time`: since the log was opened; later positions are ahead of what it held then, and it may have been trimmed. `had`: what the shadow is known
/// to have had of this log; what a load brought isn't in the log.
pub(crate) fn standing(stored: Option<Stored>, log: &LogExtent, first_time: bool, had: Option<Sequence>) -> Standing {
    let Some(Stored { position, identity, source }) = stored else {
        if had.is_some() {
            let reason = "the target has no position any more: it was replaced or made anew";
            return Standing::Gap(AppliedPosition::default(), reason.to_owned());
        }
        let reason = "the target has no position, but the mirror log has been trimmed already: what was written before is missing";
        let position = AppliedPosition::default();
        return if log.first > 1 { Standing::Gap(position, reason.to_owned()) } else { Standing::Follows(position) };
    };
    if identity != log.identity {
        return Standing::Foreign(
            "the target was mirrored from another mirror log (one that was deleted or moved away?)".to_owned(),
        );
    }
    if source.is_some() && log.source.is_some() && source != log.source {
        return Standing::Foreign("the target was mirrored from another source".to_owned());
    }
    let end = position.above.last().map_or(position.below, |r| r.end);
    if first_time && end > log.last + 1 {
        let last = log.last;
        return Standing::Foreign(format!(
            "the target is ahead of the mirror log, which ends with record {last} where {} was applied: its end was lost",
            end - 1
        ));
    }
    if first_time && had.is_some_and(|had| position.below < had) {
        let reason = "the target is at an older state than one that it was known to have: it was restored from a backup, or lost its last writes";
        return Standing::Gap(position, reason.to_owned());
    }
    let below = position.below.max(1);
    if first_time && below < log.first {
        let gone = log.first - 1;
        return Standing::Gap(
            position,
            format!("the target is at an older state: records {below} to {gone} are gone from the mirror log"),
        );
    }
    Standing::Follows(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_only_in_its_own_log() {
        let log = |first, last| LogExtent { identity: "a".into(), source: Some("s".into()), first, last };
        let stored = |below, above: Option<std::ops::Range<u64>>| {
            let position = AppliedPosition { below, above: above.into_iter().collect() };
            Some(Stored { position, identity: "a".into(), source: Some("s".into()) })
        };
        let shown = |stored, log: &LogExtent, first_time| match standing(stored, log, first_time, None) {
            Standing::Follows(_) => "follows",
            Standing::Gap(..) => "gap",
            Standing::Foreign(_) => "foreign",
        };
        for (position, first, last, expected) in [
            (None, 1, 0, "follows"),
            (None, 1, 20, "follows"),
            (None, 7, 20, "gap"),
            (stored(0, None), 1, 0, "follows"),
            (stored(1, None), 1, 0, "follows"),
            (stored(21, None), 7, 20, "follows"),
            (stored(7, None), 7, 20, "follows"),
            (stored(6, Some(9..11)), 7, 20, "gap"),
            (stored(22, None), 7, 20, "foreign"),
            (stored(8, Some(20..21)), 7, 20, "follows"),
            (stored(8, Some(20..22)), 7, 20, "foreign"),
            (stored(500, None), 1, 0, "foreign"),
        ] {
            assert_eq!(shown(position.clone(), &log(first, last), true), expected, "{position:?} {first} {last}");
        }
        assert_eq!(shown(stored(500, None), &log(1, 20), false), "follows", "numbers go on after the log was opened");
        let other = |identity: &str, source: Option<&str>| LogExtent {
            identity: identity.into(),
            source: source.map(Into::into),
            ..log(1, 20)
        };
        assert_eq!(shown(stored(3, None), &other("b", Some("s")), false), "foreign");
        assert_eq!(shown(stored(3, None), &other("a", Some("t")), false), "foreign");
        assert_eq!(shown(stored(3, None), &other("a", None), true), "follows");
        for (position, had, expected) in
            [(None, Some(1), "gap"), (stored(9, None), Some(10), "gap"), (stored(10, None), Some(10), "follows")]
        {
            let standing = standing(position, &log(1, 20), true, had);
            assert_eq!(matches!(standing, Standing::Gap(..)), expected == "gap", "{standing:?}");
        }
    }
}
