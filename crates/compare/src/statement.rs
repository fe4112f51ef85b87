use crate::cause::of_sqlstate;
use crate::verdict::ShadowError;
use pgshadow_model::{Cause, RowsHash, Severity, Statement};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the shadow answered to the client's own statement.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Rows of its command tag.
    pub rows: u64,
    /// Over the rows that it returned; `None` where they can't be compared.
    pub returned: Option<RowsHash>,
    /// The first row that isn't as the primary's image: both as texts (primary, shadow).
    pub row: Option<(String, String)>,
    /// The error in its place.
    pub error: Option<ShadowError>,
    /// How long it took.
    pub micros: u64,
}

/// What differs between two answers to one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `error`, `row_count`, `row` or `returned_rows`: part of the finding's fingerprint.
    pub what: &'static str,
    /// Why.
    pub cause: Cause,
    /// How bad.
    pub severity: Severity,
    /// A sentence for a DBA.
    pub message: String,
    /// The primary's result.
    pub primary: String,
    /// The shadow's.
    pub shadow: String,
}

/// The verdict on the shadow's answer; `None` if it is the primary's.
#[must_use]
pub fn judge_statement(statement: &Statement, answer: &Answer) -> Option<Difference> {
    let of_primary = describe(statement.rows, statement.elapsed_micros);
    let of_shadow = describe(answer.rows, answer.micros);
    let difference = |what, cause, message: &str, primary, shadow| Difference {
        what,
        cause,
        severity: Severity::Error,
        message: message.to_owned(),
        primary,
        shadow,
    };
    if let Some(error) = &answer.error {
        let (_, cause) = of_sqlstate(&error.sqlstate);
        let shadow = format!("ERROR {}: {}", error.sqlstate, error.message);
        return Some(difference("error", cause, "the shadow refuses the client's own statement", of_primary, shadow));
    }
    if answer.rows != statement.rows {
        let message = "the client's own statement writes another number of rows on the shadow";
        return Some(difference("row_count", Cause::Unknown, message, of_primary, of_shadow));
    }
    if let Some((primary, shadow)) = &answer.row {
        let message = "the client's own statement stores another row on the shadow";
        return Some(difference("row", Cause::Unknown, message, primary.clone(), shadow.clone()));
    }
    match (statement.returned, answer.returned.map(RowsHash::get)) {
        (Some(primary), Some(shadow)) if primary != shadow => {
            let message = "the client's own statement returns other values on the shadow";
            Some(difference("returned_rows", Cause::Unknown, message, of_primary, of_shadow))
        }
        _ => None,
    }
}

fn describe(rows: u64, micros: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // for people
    let ms = micros as f64 / 1000.0;
    format!("{rows} row{} in {ms:.1} ms", if rows == 1 { "" } else { "s" })
}

/// How long a statement took on both sides, as often as it was seen: enough to say that the shadow is slower for certain.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    primary: Vec<u64>,
    shadow_shortest: u64,
}

impl Pace {
    /// Runs that must agree.
    pub const RUNS: usize = 20;
    /// Below this no time is long, in microseconds.
    pub const FLOOR_MICROS: u64 = 20_000;
    /// How many times as long.
    pub const RATIO: u64 = 5;

    /// Takes in one run. Once in [`Pace::RUNS`] runs: the primary's median and the shadow's shortest time of them, if even
    /// that one was so much longer.
    pub fn add(&mut self, primary_micros: u64, shadow_micros: u64) -> Option<(u64, u64)> {
        if self.primary.is_empty() {
            self.shadow_shortest = u64::MAX;
        }
        self.primary.push(primary_micros);
        self.shadow_shortest = self.shadow_shortest.min(shadow_micros);
        if self.primary.len() < Self::RUNS {
            return None;
        }
        let mut primary = std::mem::take(&mut self.primary);
        primary.sort_unstable();
        let median = primary.get(Self::RUNS / 2).copied()?;
        let long = self.shadow_shortest >= Self::FLOOR_MICROS && self.shadow_shortest / Self::RATIO >= median;
        long.then_some((median, self.shadow_shortest))
    }
}

/// Times of the last runs on both sides, of all statements together.
#[derive(Debug, Clone, Default)]
pub struct Latencies(VecDeque<(Instant, u64, u64)>);

/// What 99 of 100 runs took at most on each side, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct P99 {
    /// Runs that it is of.
    pub runs: usize,
    /// On the primary, in the client's own transaction.
    pub primary_micros: u64,
    /// On the shadow.
    pub shadow_micros: u64,
}

impl Latencies {
    /// Runs that are kept.
    pub const RUNS: usize = 1_000;
    /// For how long.
    pub const KEPT: Duration = Duration::from_secs(600);

    /// Takes in one run.
    pub fn add(&mut self, now: Instant, primary_micros: u64, shadow_micros: u64) {
        if self.0.len() >= Self::RUNS {
            self.0.pop_front();
        }
        self.0.push_back((now, primary_micros, shadow_micros));
    }

    /// Of the runs that are kept; zeros where there are none.
    #[must_use]
    pub fn p99(&self, now: Instant) -> P99 {
        let lately = || self.0.iter().filter(|(at, ..)| now.saturating_duration_since(*at) < Self::KEPT);
        let of = |mut times: Vec<u64>| {
            times.sort_unstable();
            let place = (times.len() * 99).div_ceil(100);
            place.checked_sub(1).and_then(|place| times.get(place)).copied().unwrap_or_default()
        };
        P99 {
            runs: lately().count(),
            primary_micros: of(lately().map(|(_, primary, _)| *primary).collect()),
            shadow_micros: of(lately().map(|(.., shadow)| *shadow).collect()),
        }
    }
}

/// The statement without its constants: what is the same in all runs of it.
#[must_use]
pub fn shape(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql.chars().peekable();
    let mut word = false;
    while let Some(c) = rest.next() {
        match c {
            '\'' => {
                while let Some(inside) = rest.next() {
                    if inside == '\'' && rest.next_if_eq(&'\'').is_none() {
                        break;
                    }
                }
                out.push('?');
            }
            c if c.is_ascii_digit() && !word => {
                while rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '.').is_some() {}
                out.push('?');
            }
            c if c.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
                word = false;
            }
            c => {
                out.push(c);
                word = c.is_alphanumeric() || c == '_' || c == '$';
            }
        }
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgshadow_model::SessionSettings;

    fn statement(rows: u64, returned: Option<u64>) -> Statement {
        let settings = SessionSettings::default();
        Statement { sql: "x".into(), settings, bound: None, rows, returned, elapsed_micros: 400 }
    }

    #[test]
    fn each_difference_has_its_name() {
        let what = |statement: &Statement, answer: &Answer| judge_statement(statement, answer).map(|d| d.what);
        let same = Answer { rows: 1, ..Answer::default() };
        assert_eq!(what(&statement(1, None), &same), None);
        assert_eq!(what(&statement(2, None), &same), Some("row_count"));
        let hash = RowsHash::default();
        let returned = Answer { returned: Some(hash), ..same.clone() };
        assert_eq!(what(&statement(1, Some(hash.get())), &returned), None);
        assert_eq!(what(&statement(1, Some(1)), &returned), Some("returned_rows"));
        assert_eq!(what(&statement(1, Some(1)), &same), None);
        let row = Answer { row: Some(("v=1".into(), "v=2".into())), ..same.clone() };
        assert_eq!(what(&statement(1, None), &row), Some("row"));
        let error = ShadowError { sqlstate: "23514".into(), message: "no".into(), own_key_taken: false };
        let refused = judge_statement(&statement(1, None), &Answer { error: Some(error), ..same }).unwrap();
        assert_eq!((refused.what, refused.cause), ("error", Cause::Constraint));
        assert_eq!(refused.primary, "1 row in 0.4 ms");
    }

    #[test]
    fn the_last_runs_have_a_p99_on_each_side() {
        let (mut latencies, begun) = (Latencies::default(), Instant::now());
        assert_eq!(latencies.p99(begun), P99 { runs: 0, primary_micros: 0, shadow_micros: 0 });
        (1..=200).for_each(|n| latencies.add(begun, n, 10 * n));
        assert_eq!(latencies.p99(begun), P99 { runs: 200, primary_micros: 198, shadow_micros: 1980 });
        (0..1000).for_each(|_| latencies.add(begun + Duration::from_secs(5), 7, 9));
        assert_eq!(latencies.p99(begun), P99 { runs: 1000, primary_micros: 7, shadow_micros: 9 });
        assert_eq!(latencies.p99(begun + Duration::from_secs(606)).runs, 0);
    }

    #[test]
    fn only_what_is_slow_every_time_is_slow() {
        let mut pace = Pace::default();
        let seen: Vec<_> = (0..19).filter_map(|_| pace.add(400, 30_000)).collect();
        assert!(seen.is_empty());
        assert_eq!(pace.add(50_000, 31_000), Some((400, 30_000)));
        // one fast run among them: the shadow can
        let seen: Vec<_> = (0..20).filter_map(|n| pace.add(400, if n == 7 { 900 } else { 90_000 })).collect();
        assert!(seen.is_empty());
        // slow on both
        assert!((0..20).filter_map(|_| pace.add(30_000, 90_000)).next().is_none());
    }

    #[test]
    fn constants_make_no_difference() {
        assert_eq!(
            shape("update t1 set v = 'it''s', w=-2.5\n where id = 17"),
            "update t1 set v = ?, w=-? where id = ?"
        );
        assert_eq!(shape("insert into t values ($1, $2)"), "insert into t values ($1, $2)");
    }
}
