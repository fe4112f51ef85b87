//! `docs/exactness.md`, made of what a run gave.
use crate::case::{Around, Case, Promise, Protocol, Way};
use crate::open;
use crate::verdict::Outcome;
use integration_tests::flip::{COMMITTED, STEPS};
use integration_tests::installation::{repository, setting};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Where it is, from the root of the repository.
pub const PATH: &str = "docs/exactness.md";

/// Outcomes by kind, then by source and way.
pub type Results = BTreeMap<&'static str, BTreeMap<(u32, Way), Outcome>>;

const INTRODUCTION: &str = "\
<!-- Made by a test from what it saw: PGSHADOW_WRITE_DOCS=1 cargo test -p integration-tests --test exactness; changes here are lost. -->
# What is mirrored exactly, and what is declared

Each line is a kind of statement that a test sends, directly to a database and through pgshadow, in both protocols where both
exist: each statement by itself, in a block with BEGIN and COMMIT, and several as one implicit transaction (one string, or
one Sync). The client must be told the same, the source must hold the same, and the target is compared with the source by
a program that shares no code with pgshadow.

- **exact**: all tables are equal afterwards, row for row, and none is suspect; nothing was found and nothing had to be mended.
- **suspect: table \\[n\\]**: the statement did on the source what it does without pgshadow, but its rows could not be captured
  with certainty. The table is named with the reason *n* (at the end), and it isn't taken as equal until it is loaded again.
  All other tables are equal.
- **every table**: what was written can't be told, so that all tables are suspect.
- **reported**: not done on the target; a finding tells the DBA what to do there.
";

const CRASHES: &str = "
## Kills amid a flip

In front of each step of a cutover, and of a rollback, one is killed (`kill -9`) while clients write; then the flip goes on, or the next process puts it in order. In
every cell the clients go on, no acknowledged row is missing on either side, one of the two databases lets clients in, and a verify finds both equal.
Run by `flip_crash` (all of it in `make flips`); a cell says where the primary is afterwards.

| in front of | pgshadow | the old primary | the new primary | the commanding client |
|---|---|---|---|---|
";

/// The text that this run gives.
pub fn text(cases: &[Case], majors: &[(u32, u32)], results: &Results) -> String {
    let mut reasons = Reasons::default();
    let mut out = INTRODUCTION.to_owned();
    let pairs: Vec<_> = majors.iter().map(|(source, target)| format!("{source} to {target}")).collect();
    write!(out, "\nSource and target are PostgreSQL {}.\n", pairs.join(", and ")).expect("a String");
    let mut section = "";
    for case in cases {
        if case.section != section {
            section = case.section;
            write!(out, "\n## {section}\n\n| statement |").expect("a String");
            for (source, _) in majors {
                write!(out, " from {source}, simple | from {source}, extended |").expect("a String");
            }
            writeln!(out, "\n|---|{}", "---|".repeat(majors.len() * 2)).expect("a String");
        }
        write!(out, "| {} |", case.kind.replace('|', "\\|")).expect("a String");
        for (source, _) in majors {
            for protocol in [Protocol::Simple, Protocol::Extended] {
                let found = results.get(case.kind).into_iter().flatten();
                let found: Vec<_> =
                    found.filter(|((major, way), _)| major == source && way.protocol == protocol).collect();
                write!(out, " {} |", cell(case, &found, &mut reasons)).expect("a String");
            }
        }
        out.push('\n');
    }
    out.push_str(CRASHES);
    for step in STEPS {
        let comes = if COMMITTED.contains(&step) { "finished: the new primary" } else { "undone: the old primary" };
        let server = if COMMITTED.contains(&step) { comes } else { "undone, or done once it is back" };
        let client = if step.ends_with("Undoing") { "(it was, to come here)" } else { comes };
        writeln!(out, "| {step} | {comes} | {server} | {server} | {client} |").expect("a String");
    }
    out.push_str("\n## Reasons\n\n");
    for (number, reason) in reasons.list.iter().enumerate() {
        writeln!(out, "{}. {reason}", number + 1).expect("a String");
    }
    out
}

#[derive(Default)]
struct Reasons {
    list: Vec<String>,
}

impl Reasons {
    fn number(&mut self, reason: &str) -> usize {
        let known = self.list.iter().position(|known| known == reason);
        known.unwrap_or_else(|| {
            self.list.push(reason.to_owned());
            self.list.len() - 1
        }) + 1
    }
}

/// One word where all ways gave the same.
fn cell(case: &Case, found: &[(&(u32, Way), &Outcome)], reasons: &mut Reasons) -> String {
    if case.unsettled && !found.is_empty() {
        let wrong = open::WRONG.iter().any(|(kind, _)| *kind == case.kind);
        let word = match case.promise(0) {
            _ if wrong => "**wrong** by chance, to be mended",
            Promise::Declared(_) => "suspect, and more tables for a moment after a definition",
            _ => "exact, or suspect for a moment after a definition",
        };
        return word.to_owned();
    }
    let mut by_word: Vec<(String, Vec<&str>)> = Vec::new();
    for ((_, way), outcome) in found {
        let (word, name) = (word(outcome, reasons), around(way.around));
        match by_word.iter_mut().find(|(known, _)| *known == word) {
            Some((_, ways)) => ways.push(name),
            None => by_word.push((word, vec![name])),
        }
    }
    match by_word.as_slice() {
        [] => "–".to_owned(),
        [(word, _)] => word.clone(),
        several => {
            let named: Vec<_> = several.iter().map(|(word, ways)| format!("{}: {word}", ways.join(", "))).collect();
            named.join("; ")
        }
    }
}

fn around(around: Around) -> &'static str {
    match around {
        Around::Nothing => "alone",
        Around::Block => "in a block",
        Around::Together => "together",
    }
}

fn word(outcome: &Outcome, reasons: &mut Reasons) -> String {
    if !outcome.wrong.is_empty() {
        return "**wrong**, to be mended".to_owned();
    }
    if !outcome.reported.is_empty() {
        return "reported".to_owned();
    }
    if outcome.suspects.is_empty() {
        return "exact".to_owned();
    }
    let numbers = |why: &BTreeSet<String>, reasons: &mut Reasons| {
        let numbers: BTreeSet<_> = why.iter().map(|reason| reasons.number(reason)).collect();
        numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let tables = outcome.suspects.iter().map(|(table, why)| format!("{table} \\[{}\\]", numbers(why, reasons)));
    format!("suspect: {}", tables.collect::<Vec<_>>().join(", "))
}

/// Writes it with `PGSHADOW_WRITE_DOCS=1`; else it must be what is there. `None` where it is.
pub fn difference(text: &str) -> Option<String> {
    let path = repository().join(PATH);
    if setting("PGSHADOW_WRITE_DOCS").is_some() {
        std::fs::write(&path, text).expect("the repository can be written");
        return None;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if kept == text {
        return None;
    }
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (kept.lines().collect(), text.lines().collect());
    let mut lines: Vec<_> = old.difference(&new).map(|line| format!("- {line}")).collect();
    lines.extend(new.difference(&old).map(|line| format!("+ {line}")));
    Some(format!(
        "{PATH} is not what this run gave; where the change is meant:\n  PGSHADOW_WRITE_DOCS=1 cargo test -p integration-tests --test exactness\n{}",
        lines.join("\n")
    ))
}
