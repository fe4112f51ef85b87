//! What isn't as promised yet. A line that is no longer true fails the test: take it away.

/// Suspect or only reported today, to be exact: the kind, and a part of the reason.
#[rustfmt::skip]
pub const SUSPECT: &[(&str, &str)] = &[
    ("COPY FROM STDIN of texts that mean a moment ('now', 'today')", "name a moment"),
    ("Row-level security, forced on the owner", "row-level security"),
    ("ALTER TABLE ... DETACH PARTITION CONCURRENTLY", "was not repeated"),
];

/// Wrong today: the kind, and a part of what is wrong.
pub const WRONG: &[(&str, &str)] = &[];
