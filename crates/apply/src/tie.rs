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

/// Name of the store's text that says what the shadow had at least, when something was last loaded or proven there.
const HAD: &str = "shadow_had";

/// What the shadow had when something was loaded or proven there: an older state of it has less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Had {
    /// It had all of the log below this number.
    pub below: Sequence,
    /// Its mark, which goes up with every load and every pair of snapshots: these aren't in the log.
    pub mark: u64,
}

/// Keeps what the shadow has.
///
/// # Errors
/// The store can't be written.
pub fn keep_had(store: &Store, log: &LogExtent, had: Had) -> Result<(), pgshadow_divergence::Error> {
    let text = format!("{} {} {}", log.identity, had.below, had.mark);
    // it may be told again and again
    if store.meta_get(HAD)?.as_ref() == Some(&text) { Ok(()) } else { store.meta_set(HAD, &text) }
}

/// What was kept; of another log, its mark alone.
pub(crate) fn had(store: &Store, log: &LogExtent) -> Result<Option<Had>, pgshadow_divergence::Error> {
    let read = |text: String| {
        let mut parts = text.split_whitespace();
        let same = parts.next() == Some(log.identity.as_str());
        let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        let (below, mark) = (number(), number());
        Had { below: if same { below } else { 0 }, mark }
    };
    Ok(store.meta_get(HAD)?.map(read))
}

/// What the shadow says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) position: AppliedPosition,
    pub(crate) identity: String,
    pub(crate) source: Option<String>,
    pub(crate) mark: u64,
}

impl Stored {
    /// Another lane's row besides. A row of another log counts for all: they are written together.
    pub(crate) fn with(self, other: Self, log: &str) -> Self {
        if self.identity != log || other.identity != log {
            return if self.identity == log { other } else { self };
        }
        let source = self.source.or(other.source);
        Self { position: self.position.with(&other.position), source, ..self }
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
/// to have had.
pub(crate) fn standing(stored: Option<Stored>, log: &LogExtent, first_time: bool, had: Option<Had>) -> Standing {
    let Some(Stored { position, identity, source, mark }) = stored else {
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
    if had.is_some_and(|had| mark < had.mark || first_time && position.below < had.below) {
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
            Some(Stored { position, identity: "a".into(), source: Some("s".into()), mark: 3 })
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
        let had = |below, mark| Some(Had { below, mark });
        for (position, had, first_time, expected) in [
            (None, had(1, 0), true, "gap"),
            (stored(9, None), had(10, 3), true, "gap"),
            (stored(9, None), had(10, 3), false, "follows"),
            (stored(10, None), had(10, 3), true, "follows"),
            (stored(10, None), had(10, 4), true, "gap"),
            (stored(10, None), had(10, 4), false, "gap"),
        ] {
            let standing = standing(position, &log(1, 20), first_time, had);
            assert_eq!(matches!(standing, Standing::Gap(..)), expected == "gap", "{standing:?}");
        }
    }
}
