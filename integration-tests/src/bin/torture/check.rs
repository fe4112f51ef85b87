//! Whether a bout kept what it must: told by a comparison outside pgshadow, by what clients saw, and by what pgshadow says
//! of itself.
use crate::player::Seen;
use crate::round::{Bout, Kind};
use crate::schema::Schema;
use crate::script::{Script, Step};
use crate::settings::Plant;
use crate::tier::Tier;
use integration_tests::client::Endpoint;
use integration_tests::equal;
use integration_tests::history::Inversions;
use integration_tests::proxy::Pgshadow;
use integration_tests::scene::EVERY_TABLE;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

const DRAIN: Duration = Duration::from_secs(120);

/// What went wrong; a smaller history must go wrong in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fail {
    /// Rows differ in a table that isn't suspect.
    Differs,
    /// A finding is open.
    Finding,
    /// A row had to be mended.
    Healed,
    /// A row was applied with a falling token.
    Inverted,
    /// A table is suspect that must be exact.
    Suspect,
    /// A client saw what the database itself doesn't say.
    Client,
    /// pgshadow's log complains.
    Log,
    /// Something ended, hung or could not be asked.
    Broken,
}

/// What came of a bout.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// What went wrong, with its evidence.
    pub failures: Vec<(Fail, String)>,
    /// Tables that failures name.
    pub tables: BTreeSet<String>,
    /// Suspect tables with their reasons.
    pub suspects: Vec<(String, String)>,
    /// Tables in all.
    pub tables_total: usize,
    /// Writing transactions committed.
    pub committed: u64,
    /// Statements sent.
    pub statements: u64,
    /// Errors that clients saw, by SQLSTATE.
    pub errors: BTreeMap<String, u64>,
    /// Connections lost.
    pub lost: u64,
    /// Rows applied, and in which order.
    pub order: Inversions,
    /// Rows mended.
    pub healed: u64,
    /// pgshadow's log.
    pub log: String,
    /// The source's and the target's, where something went wrong.
    pub servers: [String; 2],
}

/// So many failures of a kind are shown.
const SHOWN: usize = 3;

/// What a smaller history must share with this failure: a suspect's reason, a client's SQLSTATE.
fn kind(way: Fail, text: &str) -> String {
    match way {
        Fail::Suspect => text.split_once(": ").map(|(_, reason)| reason.to_owned()).unwrap_or_default(),
        Fail::Client => text.split(' ').next().unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

impl Verdict {
    /// How many tables are suspect.
    pub fn suspect_tables(&self) -> usize {
        self.suspects.iter().map(|(table, _)| table).collect::<BTreeSet<_>>().len()
    }

    /// A bout that came to no end.
    pub fn broken(text: &str) -> Verdict {
        Verdict { failures: vec![(Fail::Broken, text.to_owned())], ..Verdict::default() }
    }

    /// The ways in which it failed, told apart by what a smaller history must share with it: the reason, the SQLSTATE.
    pub fn ways(&self) -> BTreeSet<(Fail, String)> {
        self.failures.iter().map(|(way, text)| (*way, kind(*way, text))).collect()
    }

    fn fail(&mut self, way: Fail, text: impl Into<String>) {
        self.failures.push((way, text.into()));
    }

    fn add(&mut self, seen: Seen) {
        self.committed += seen.committed;
        self.statements += seen.statements;
        self.lost += seen.lost;
        for (state, count) in seen.errors {
            *self.errors.entry(state).or_default() += count;
        }
        for complaint in seen.complaints {
            self.fail(Fail::Client, complaint);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<_> = self.errors.iter().map(|(state, count)| format!("{state}:{count}")).collect();
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, reason) in &self.suspects {
            *reasons.entry(reason).or_default() += 1;
        }
        let reasons: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} \"{reason}\"")).collect();
        write!(
            formatter,
            "{} committed of {} statements, {} rows applied ({} replies out of order), errors [{}], {} lost, suspect {}/{}",
            self.committed,
            self.statements,
            self.order.rows,
            self.order.replied,
            errors.join(" "),
            self.lost,
            self.suspect_tables(),
            self.tables_total,
        )?;
        if !reasons.is_empty() {
            write!(formatter, " [{}]", reasons.join(", "))?;
        }
        if self.healed > 0 {
            write!(formatter, ", {} rows healed", self.healed)?;
        }
        let mut told: BTreeMap<(Fail, String), usize> = BTreeMap::new();
        for (way, text) in &self.failures {
            let told = told.entry((*way, kind(*way, text))).or_default();
            *told += 1;
            if *told <= SHOWN {
                write!(formatter, "\n  FAILED {way:?}: {text}")?;
            }
        }
        for ((way, kind), count) in told.iter().filter(|(_, count)| **count > SHOWN) {
            write!(formatter, "\n  FAILED {way:?}: {count} in all of the kind {kind}")?;
        }
        Ok(())
    }
}

/// Judges a bout whose sessions have ended.
pub fn verdict(
    bout: &Bout,
    schema: &Schema,
    scripts: &[Script],
    seen: Vec<Seen>,
    pgshadow: &Pgshadow,
    databases: &[Endpoint; 2],
    plant: Plant,
) -> Verdict {
    let [source, target] = databases;
    let mut verdict = Verdict::default();
    seen.into_iter().for_each(|seen| verdict.add(seen));
    if bout.direct {
        return verdict;
    }
    if let Err(text) = drained(pgshadow) {
        verdict.fail(Fail::Broken, text);
        verdict.log = pgshadow.log();
        return verdict;
    }
    plant.after(schema, target);
    let status = pgshadow.status();
    verdict.suspects = suspects(&status);
    let tainted = tainted(scripts);
    for (table, reason) in verdict.suspects.clone() {
        let allowed = match bout.kind {
            Kind::Faulty => true,
            Kind::Wide | Kind::Strict => tainted.contains(&table),
        };
        if !allowed {
            verdict.fail(Fail::Suspect, format!("{table}: {reason}"));
            verdict.tables.insert(table);
        }
    }
    differences(&mut verdict, source, target);
    let number = |key: &str| status[key].as_u64().unwrap_or(u64::MAX);
    verdict.healed = number("healed_rows");
    let found = findings(&verdict, schema, pgshadow);
    if number("findings_open") > 0 && !found.is_empty() || bout.kind == Kind::Strict && !found.is_empty() {
        verdict.fail(
            Fail::Finding,
            format!("{} findings\n    {}", found.len(), found[..found.len().min(4)].join("\n    ")),
        );
    }
    if verdict.healed > 0 && bout.kind == Kind::Strict {
        verdict.fail(Fail::Healed, format!("{} rows", verdict.healed));
    }
    verdict.order = Inversions::of(&pgshadow.trace());
    if verdict.order.applied > 0 {
        verdict.fail(Fail::Inverted, format!("{:?}", verdict.order));
    }
    verdict.log = pgshadow.log();
    log(&mut verdict, bout, pgshadow);
    verdict
}

fn drained(pgshadow: &Pgshadow) -> Result<(), String> {
    let timeout = format!("{}s", DRAIN.as_secs());
    let finished = pgshadow.run(&["wait", "drained", "--timeout", &timeout], DRAIN + Duration::from_secs(10));
    if finished.status.success() {
        return Ok(());
    }
    Err(format!("not drained within {DRAIN:?}: {} {}\n{}", finished.stdout, finished.stderr, pgshadow.log_tail()))
}

/// A line for each, but for tables that are tied to a suspect one: what the shadow has there may stand in the way of rows.
fn findings(verdict: &Verdict, schema: &Schema, pgshadow: &Pgshadow) -> Vec<String> {
    let tied = |table: &str| {
        let suspect = |name: &str| verdict.suspects.iter().any(|(other, _)| other == name || other == EVERY_TABLE);
        suspect(table) || schema.holding(table).is_some_and(|table| table.family.iter().any(|name| suspect(name)))
    };
    let line = |finding: &Value| {
        let fields = ["table", "kind", "key", "message", "primary", "shadow", "sqlstate", "sql"];
        let told = fields.iter().filter(|name| !finding[**name].is_null());
        told.map(|name| format!("{name} {}", finding[*name])).collect::<Vec<_>>().join(", ")
    };
    let found = pgshadow.findings();
    found.iter().filter(|finding| !tied(finding["table"].as_str().unwrap_or_default())).map(line).collect()
}

fn suspects(status: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let tables = status["suspect_tables"].as_array().cloned().unwrap_or_default();
    tables.iter().map(|suspect| (text(&suspect["table"]), text(&suspect["reason"]))).collect()
}

/// Relations that statements may have written which aren't promised to be exact.
fn tainted(scripts: &[Script]) -> BTreeSet<String> {
    let steps = scripts.iter().flat_map(|script| script.units.iter().flat_map(|unit| &unit.steps));
    let loose = steps.flat_map(Step::statements).filter(|statement| statement.tier > Tier::Exact);
    let mut tables: BTreeSet<String> = loose.flat_map(|statement| statement.tables.iter().cloned()).collect();
    // A prepared transaction's tables are those of its whole block.
    for unit in scripts.iter().flat_map(|script| &script.units) {
        if matches!(unit.end, crate::script::End::Prepare { .. }) {
            tables.extend(unit.tables().into_iter().map(str::to_owned));
        }
    }
    tables
}

fn differences(verdict: &mut Verdict, source: &Endpoint, target: &Endpoint) {
    let suspect: BTreeSet<String> = verdict.suspects.iter().map(|(table, _)| table.clone()).collect();
    verdict.tables_total = equal::tables(source).len();
    for difference in equal::differences(source, target) {
        let table = unquoted(&difference.table);
        if !suspect.contains(&table) && !suspect.contains(EVERY_TABLE) {
            verdict.fail(Fail::Differs, difference.to_string());
            verdict.tables.insert(table);
        }
    }
}

/// `odd."T t1"""` as `odd.T t1"`.
fn unquoted(name: &str) -> String {
    let plain = |part: &str| match part.strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => part.to_owned(),
    };
    match name.split_once('.') {
        Some((schema, table)) => format!("{}.{}", plain(schema), plain(table)),
        None => plain(name),
    }
}

fn log(verdict: &mut Verdict, bout: &Bout, pgshadow: &Pgshadow) {
    // What pgshadow says of servers that go, and of sessions whose client did.
    const OF_FAULTS: [&str; 2] = [" WARN ", "\"level\":\"WARN\""];
    let mut allowed = vec!["table is suspect"];
    if bout.kind == Kind::Wide {
        // A COPY that a suspect table refuses costs the applier its connection.
        allowed.push("the shadow closed the connection");
    }
    if bout.kind == Kind::Faulty {
        allowed.extend(OF_FAULTS);
    }
    if !verdict.ways().iter().any(|(way, _)| *way == Fail::Finding) {
        // Those that are left are of suspect tables.
        allowed.push("\"target\":\"pgshadow::finding\"");
    }
    let complaints = pgshadow.complaints(&allowed);
    if !complaints.is_empty() {
        let lines: Vec<String> = complaints.iter().take(3).map(|line| line.chars().take(300).collect()).collect();
        verdict.fail(Fail::Log, format!("{} lines\n    {}", complaints.len(), lines.join("\n    ")));
    }
}
