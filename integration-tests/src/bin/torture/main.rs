//! A random workload against real servers through pgshadow, drawn from a seed, and a verdict by a comparison outside of it.
//!
//! Each seed is a round of bouts. A bout draws a schema, the scripts of its sessions and what befalls it, runs them, and
//! judges: tables that aren't suspect are equal row for row; nothing was found, mended or applied in a wrong order; clients
//! saw no error that the database doesn't give by itself. `strict` bouts hold only what must be exact, so that no table
//! may be suspect; `wide` ones hold all that there is, and what can't be exact must be named; in `faulty` ones things break.
//!
//! A failure is run again with ever less, and the smallest history that still fails is printed as SQL for each session.
//! Everything is set by the environment: see [`settings`].
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's program fails by a panic"
)]
mod bout;
mod change;
mod check;
mod insert;
mod journal;
mod kinds;
mod other;
mod player;
mod program_player;
mod raw_player;
mod relations;
mod round;
mod schema;
mod script;
mod settings;
mod shrink;
mod stage;
mod statement;
mod tier;
mod tokio_player;
mod unit;
mod value;

use crate::check::Fail;
use crate::journal::Journal;
use crate::round::{Bout, Kind};
use crate::script::Script;
use crate::settings::Settings;
use crate::shrink::History;
use crate::stage::Stage;
use integration_tests::history::Dice;
use std::process::ExitCode;
use std::time::Instant;

/// A history longer than this is only written to files.
const SHOWN_UNITS: usize = 60;
/// Of a bout that fails in many ways, the smallest history of so many is looked for.
const WAYS_MAX: usize = 4;

fn main() -> ExitCode {
    let settings = match Settings::read() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("torture: {error}");
            return ExitCode::from(2);
        }
    };
    let mut journal = match Journal::open(&settings) {
        Ok(journal) => journal,
        Err(error) => {
            eprintln!("torture: {}: {error}", settings.log.display());
            return ExitCode::from(2);
        }
    };
    // A panic within a bout is its failure, told in its verdict.
    std::panic::set_hook(Box::new(|_| {}));
    let mut stage = Stage::default();
    let (started, mut failed, mut left) = (Instant::now(), 0, 0);
    for seed in settings.seed..settings.seed + settings.seeds {
        if journal.is_done(seed) {
            println!("seed {seed} was done before");
        } else if started.elapsed() >= settings.all {
            left += 1;
        } else {
            failed += round(&mut stage, &settings, &mut journal, seed);
        }
    }
    let seeds = settings.seeds - left;
    journal.say(&format!("{seeds} seeds, {failed} bouts failed, {left} seeds left; log: {}", settings.log.display()));
    ExitCode::from(u8::from(failed > 0))
}

/// What a round's bouts have come to.
#[derive(Debug, Default)]
struct Sum {
    bouts: u64,
    strict: u64,
    committed: u64,
    rows: usize,
    replied: usize,
    tables: usize,
    suspects: usize,
    failures: usize,
}

/// Runs a seed's bouts until its time is over; returns how many failed.
fn round(stage: &mut Stage, settings: &Settings, journal: &mut Journal, seed: u64) -> usize {
    let (started, mut sum) = (Instant::now(), Sum::default());
    for number in 1_u64.. {
        let over = started.elapsed() >= settings.per_seed && sum.bouts > 0;
        if over || settings.bout.is_some_and(|only| number > only) || number > 999 {
            break;
        }
        if settings.bout.is_some_and(|only| number != only) {
            continue;
        }
        let mut bout = round::bout(seed, number, stage::majors(), settings.wanted, &settings.without);
        bout.direct = settings.direct;
        bout.statements = settings.statements;
        if let Some(units) = settings.units {
            bout.plan.units = (units / bout.plan.sessions).max(1) as u32;
        }
        let kind = format!("{:?}", bout.kind).to_lowercase();
        if settings.kind.as_ref().is_some_and(|wanted| *wanted != kind) {
            continue;
        }
        one(stage, settings, journal, &bout, &format!("seed {seed} bout {number}"), &mut sum);
    }
    let summary = format!(
        "{} bouts ({} strict), {} committed, {} rows applied ({} replies out of order), {}/{} tables suspect, {} bouts failed, {:.0} s",
        sum.bouts,
        sum.strict,
        sum.committed,
        sum.rows,
        sum.replied,
        sum.suspects,
        sum.tables,
        sum.failures,
        started.elapsed().as_secs_f64()
    );
    journal.done(seed, sum.failures, &summary);
    sum.failures
}

fn one(stage: &mut Stage, settings: &Settings, journal: &mut Journal, bout: &Bout, name: &str, sum: &mut Sum) {
    let started = Instant::now();
    let schema = round::schema(&mut Dice::new(bout.plan.seed, 0), bout.plan.tier, &settings.without);
    let scripts: Vec<Script> =
        (0..bout.plan.sessions).map(|number| unit::script(&bout.plan, &schema, number)).collect();
    let verdict = bout::run(stage, bout, &schema, &scripts, settings.plant);
    let target = stage::majors()[1];
    journal.say(&format!(
        "{name} {:?} {} -> {target}, {} sessions, {} units each, {}, {} held{}: {:.1} s, {verdict}",
        bout.kind,
        bout.plan.source,
        bout.plan.sessions,
        bout.plan.units,
        bout.durability,
        bout.held,
        if bout.faults.is_empty() { String::new() } else { format!(", {:?}", bout.faults) },
        started.elapsed().as_secs_f64()
    ));
    sum.bouts += 1;
    sum.strict += u64::from(bout.kind == Kind::Strict);
    sum.committed += verdict.committed;
    sum.rows += verdict.order.rows;
    sum.replied += verdict.order.replied;
    sum.tables += verdict.tables_total;
    sum.suspects += verdict.suspect_tables();
    if !verdict.failures.is_empty() {
        sum.failures += 1;
        failure(stage, settings, journal, bout, name, History { schema, scripts, verdict });
    }
}

/// Keeps a failing history, looks for a smaller one, and shows it.
fn failure(stage: &mut Stage, settings: &Settings, journal: &mut Journal, bout: &Bout, name: &str, found: History) {
    let directory = name.replace(' ', "-");
    let kept = |result: std::io::Result<std::path::PathBuf>| match result {
        Ok(path) => path.display().to_string(),
        Err(error) => format!("not written: {error}"),
    };
    journal.say(&format!("{name}: the whole history is in {}", kept(journal.keep(&directory, &found))));
    // A log that complains tells of what else went wrong.
    let mut ways = found.verdict.ways();
    if ways.len() > 1 {
        ways.retain(|(way, _)| *way != Fail::Log);
    }
    for (number, way) in ways.into_iter().take(WAYS_MAX).enumerate() {
        let title = format!("{name}, {:?} {}", way.0, way.1);
        let Some(smallest) = shrink::shrink(stage, bout, &found, way, settings.plant, settings.shrink) else {
            journal
                .say(&format!("{title}: did not fail again in the time that there was to look for a smaller history"));
            continue;
        };
        let path = kept(journal.keep(&format!("{directory}/smallest-{number}"), &smallest));
        let (sessions, units) = (smallest.scripts.len(), smallest.units());
        journal.say(&format!("{title}: smallest failing history, {sessions} sessions, {units} units, in {path}:"));
        journal.say(&format!("{}", smallest.verdict));
        if units <= SHOWN_UNITS {
            journal.say(&smallest.schema.ddl());
            for script in &smallest.scripts {
                journal.say(&script.sql());
            }
        }
    }
}
