//! What ties the position on the shadow to the log: the numbers of one log say nothing about another, and a log that ends below
//! the position would give numbers out again that the shadow takes as applied.

use crate::AppliedPosition;
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

/// `first_time`: since the log was opened; later positions are ahead of what it held then, and it may have been trimmed.
pub(crate) fn standing(stored: Option<Stored>, log: &LogExtent, first_time: bool) -> Standing {
    let Some(Stored { position, identity, source }) = stored else {
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
        let shown = |stored, log: &LogExtent, first_time| match standing(stored, log, first_time) {
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
    }
}
