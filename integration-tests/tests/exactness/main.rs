//! Every kind of statement, in both protocols, through pgshadow: its tables are equal afterwards, or they are called suspect
//! with a reason. `docs/exactness.md` is written by this test.
//!
//! `PGSHADOW_CASE=words` runs only the kinds whose name holds these words and prints what came of them.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod case;
mod cases;
mod contents;
mod document;
mod load;
mod open;
mod play;
mod session;
mod stage;
mod verdict;

use case::Case;
use document::Results;
use integration_tests::history::Inversions;
use integration_tests::installation::{Installation, setting};
use integration_tests::repeats;
use load::Load;
use stage::{Pair, Trial};
use std::collections::BTreeSet;
use verdict::Outcome;

/// What is to be said at the end.
#[derive(Default)]
struct Report {
    failed: Vec<String>,
    /// Lines of `open.rs` that were needed.
    open: BTreeSet<(&'static str, &'static str)>,
    results: Results,
}

impl Report {
    fn add(&mut self, major: u32, trial: &Trial<'_>, outcome: Outcome) {
        let kind = trial.case.kind;
        let name = format!("{kind} ({major}, {:?}, {:?}, {})", trial.way.protocol, trial.way.around, trial.schema);
        for wrong in &outcome.wrong {
            match open::WRONG.iter().find(|(known, part)| *known == kind && wrong.contains(part)) {
                Some(known) => drop(self.open.insert(*known)),
                None => self.failed.push(format!("{name}: {wrong}")),
            }
        }
        if let Some(broken) =
            outcome.broken(trial.case.promise(major)).filter(|_| outcome.wrong.is_empty() && !trial.case.unsettled)
        {
            match open::SUSPECT.iter().find(|(known, part)| *known == kind && broken.contains(part)) {
                Some(known) => drop(self.open.insert(*known)),
                None => self.failed.push(format!("{name}: {broken}")),
            }
        }
        if setting("PGSHADOW_CASE").is_some() {
            eprintln!("{name}: {outcome:#?}");
        }
        self.results.entry(kind).or_default().insert((major, trial.way), outcome);
    }

    fn end(mut self, cases: &[Case], majors: &[(u32, u32)]) {
        if setting("PGSHADOW_CASE").is_none() {
            let by_chance = |kind: &str| cases.iter().any(|case| case.kind == kind && case.unsettled);
            let stale = open::SUSPECT.iter().chain(open::WRONG);
            let stale = stale.filter(|line| !self.open.contains(*line) && !by_chance(line.0));
            self.failed.extend(stale.map(|line| format!("no longer so, take it out of open.rs: {line:?}")));
            eprintln!("{} kinds are not as promised yet:", self.open.len());
            self.open.iter().for_each(|(kind, part)| eprintln!("  {kind}: {part}"));
            self.failed.extend(document::difference(&document::text(cases, majors, &self.results)));
        }
        assert!(self.failed.is_empty(), "{} failed\n{}", self.failed.len(), self.failed.join("\n"));
    }
}

#[test]
fn every_kind_of_statement_is_exact_or_declared() {
    let cases = cases::all();
    let kinds: BTreeSet<_> = cases.iter().map(|case| case.kind).collect();
    assert_eq!(kinds.len(), cases.len(), "two cases of one name");
    let wanted = setting("PGSHADOW_CASE").unwrap_or_default();
    let chosen: Vec<_> = cases.iter().enumerate().filter(|(_, case)| case.kind.contains(&wanted)).collect();
    let mut report = Report::default();
    let (old, newest) = (Installation::old(), Installation::newest());
    let outcomes = std::thread::scope(|scope| {
        let chosen = &chosen;
        let run = |source| {
            scope.spawn(move || {
                let pair = Pair::of(source, newest);
                let outcomes = stage::run(&pair, chosen);
                pair.assert_remote_rows_are_written_once();
                (source.major, outcomes)
            })
        };
        [run(old), run(newest)].map(|pair| pair.join().expect("its cases run"))
    });
    for (major, outcomes) in outcomes {
        for (trial, outcome) in outcomes {
            report.add(major, &trial, outcome);
        }
    }
    report.end(&cases, &[(old.major, newest.major), (newest.major, newest.major)]);
}

#[test]
fn what_is_written_past_pgshadow_is_noticed() {
    let schema =
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2); CREATE TABLE k (v int);";
    let lost =
        case::case("A row", schema).q("UPDATE t SET v = 5 WHERE id = 1").behind("UPDATE t SET v = 6 WHERE id = 2");
    let found = case::case("A row", schema).behind("DELETE FROM t WHERE id = 2").q("INSERT INTO t VALUES (2, 7)");
    let defined = case::case("A column", schema).q("UPDATE t SET v = 5").behind("ALTER TABLE k ADD COLUMN w int");
    let pair = Pair::of(Installation::old(), Installation::newest());
    for (case, expected) in
        [(lost, "not suspect: t"), (found, "a finding"), (defined, "neither suspect nor reported: k")]
    {
        let case = case.alone();
        let outcomes = stage::run(&pair, &[(0, &case)]);
        pair.forget();
        assert_eq!(outcomes.len(), 2, "both protocols");
        for (trial, outcome) in outcomes {
            assert!(outcome.wrong.iter().any(|wrong| wrong.contains(expected)), "{:?} {outcome:#?}", trial.way);
        }
    }
}

fn in_order(source: &Installation, load: Load) {
    let pair = Pair::of(source, Installation::newest());
    let runs: Vec<Inversions> = (1..=repeats().max(2)).map(|seed| load::run(&pair, load, u64::from(seed))).collect();
    let sum = |of: fn(&Inversions) -> usize| runs.iter().map(of).sum::<usize>();
    assert!(sum(|run| run.rows) > 300, "{runs:?}");
    assert_eq!(sum(|run| run.applied), 0, "{runs:?}");
    assert!(sum(|run| run.replied) > 0, "too tame: the order of replies was right by chance: {runs:?}");
}

/// No table is suspect.
const STRICT: Load = Load { moves: false, two_phase: false, commits_fail: false, reasons: &[] };
/// With what is still declared.
const WHOLE: Load = Load {
    moves: true,
    two_phase: true,
    commits_fail: true,
    reasons: &[
        "other rows were written than had been locked ahead",
        "no key",
        "prepared transaction",
        "the end of its transaction was not seen",
        "the end of a transaction was not seen",
        "the end of its transaction was not drawn",
        "it was written before pgshadow had noted",
        "was not looked for",
        "beside the rows",
    ],
};

#[test]
fn tables_of_all_kinds_are_written_in_the_primarys_order() {
    in_order(Installation::old(), STRICT);
}

#[test]
fn tables_of_all_kinds_are_written_in_the_primarys_order_of_a_newer_source() {
    in_order(Installation::newest(), STRICT);
}

#[test]
fn tables_of_all_kinds_with_moves_and_prepared_transactions() {
    in_order(Installation::old(), WHOLE);
}
