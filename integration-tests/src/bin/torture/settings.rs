//! What the environment says.
use crate::schema::{Schema, Table, Use};
use integration_tests::client::Endpoint;
use integration_tests::installation::repository;
use std::path::PathBuf;
use std::time::Duration;

/// A difference made on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// None.
    Nothing,
    /// A row of the shadow is changed once all is applied.
    Row,
    /// A constraint that only the shadow has refuses some rows.
    Constraint,
}

impl Plant {
    fn table(schema: &Schema) -> &Table {
        schema.tables.iter().find(|table| !table.allows(Use::View)).expect("a table")
    }

    /// Ahead of the load.
    pub fn before(self, schema: &Schema, target: &Endpoint) {
        if self == Plant::Constraint {
            let table = &Plant::table(schema).name;
            target.psql(&format!("ALTER TABLE {table} ADD CONSTRAINT planted CHECK (n % 2 = 0) NOT VALID"));
        }
    }

    /// Once the shadow has all.
    pub fn after(self, schema: &Schema, target: &Endpoint) {
        if self == Plant::Row {
            let table = &Plant::table(schema).name;
            target.as_user("postgres", "postgres").psql(&format!(
                "SET session_replication_role = replica; UPDATE {table} SET n = n + 1000000 WHERE ctid = (SELECT min(ctid) FROM {table});"
            ));
        }
    }
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The first seed: `TORTURE_SEED`.
    pub seed: u64,
    /// So many seeds: `TORTURE_SEEDS`.
    pub seeds: u64,
    /// For each of them: `TORTURE_SECONDS`.
    pub per_seed: Duration,
    /// For all of them: `TORTURE_MINUTES`; seeds that aren't begun by then are left for the next run.
    pub all: Duration,
    /// Only this bout of each seed: `TORTURE_BOUT`.
    pub bout: Option<u64>,
    /// Where results are written, and read to go on: `TORTURE_LOG`.
    pub log: PathBuf,
    /// Begin the log anew: `TORTURE_AGAIN=1`.
    pub again: bool,
    /// So many units for all sessions of a bout together: `TORTURE_UNITS`.
    pub units: Option<u64>,
    /// What must be exact one day must be so now: `TORTURE_WANTED=1`.
    pub wanted: bool,
    /// Only bouts of one kind: `TORTURE_KIND=strict`, `wide` or `faulty`.
    pub kind: Option<String>,
    /// What isn't drawn, for as long as it is known to fail: forms of statements, kinds of tables, `cancel`, `encoding`,
    /// `define`. `TORTURE_WITHOUT`, commas between.
    pub without: Vec<String>,
    /// Sessions go to the source, past pgshadow: only what clients see is judged, to know what drivers and the database do by
    /// themselves. `TORTURE_DIRECT=1`.
    pub direct: bool,
    /// The share of statements whose own SQL runs on the shadow, `[compare] statements`: `TORTURE_STATEMENTS`.
    pub statements: f64,
    /// How long to look for the smallest history: `TORTURE_SHRINK`, seconds.
    pub shrink: Duration,
    /// `TORTURE_PLANT=row` or `constraint`.
    pub plant: Plant,
}

impl Settings {
    /// From the environment.
    pub fn read() -> Result<Settings, String> {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name: &str, otherwise: u64| match text(name) {
            None => Ok(otherwise),
            Some(value) => value.parse::<u64>().map_err(|_| format!("{name} is no number: {value}")),
        };
        let log = text("TORTURE_LOG").map_or_else(|| repository().join("target/torture/torture.log"), PathBuf::from);
        let bout = text("TORTURE_BOUT").map(|value| value.parse().map_err(|_| format!("TORTURE_BOUT: {value}")));
        let statements = text("TORTURE_STATEMENTS").map_or(Ok(1.0), |value| {
            let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
            share.ok_or_else(|| format!("TORTURE_STATEMENTS is no share from 0 to 1: {value}"))
        });
        let plant = match text("TORTURE_PLANT").as_deref() {
            None => Plant::Nothing,
            Some("row") => Plant::Row,
            Some("constraint") => Plant::Constraint,
            Some(other) => return Err(format!("TORTURE_PLANT: {other}")),
        };
        Ok(Settings {
            seed: number("TORTURE_SEED", 1)?,
            seeds: number("TORTURE_SEEDS", 30)?,
            per_seed: Duration::from_secs(number("TORTURE_SECONDS", 60)?),
            all: Duration::from_secs(60 * number("TORTURE_MINUTES", 1_000_000)?),
            bout: bout.transpose()?,
            log,
            again: text("TORTURE_AGAIN").is_some_and(|value| value != "0"),
            units: Some(number("TORTURE_UNITS", 0)?).filter(|units| *units > 0),
            direct: text("TORTURE_DIRECT").is_some_and(|value| value != "0"),
            statements: statements?,
            wanted: text("TORTURE_WANTED").is_some_and(|value| value != "0"),
            kind: text("TORTURE_KIND"),
            without: text("TORTURE_WITHOUT").map_or_else(Vec::new, |list| list.split(',').map(str::to_owned).collect()),
            shrink: Duration::from_secs(number("TORTURE_SHRINK", 120)?),
            plant,
        })
    }
}
