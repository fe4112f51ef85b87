//! What came of a trial, and whether that is what was promised.
use crate::case::{EVERY_TABLE, Promise};
use crate::contents::{Contents, differences};
use crate::play::Told;
use crate::stage::Trial;
use integration_tests::proxy::Pgshadow;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What came of a trial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Suspect tables, without their schema where it is the trial's own, and the reasons.
    pub suspects: BTreeMap<String, BTreeSet<String>>,
    /// What the DBA was told of statements that were not repeated.
    pub reported: Vec<String>,
    /// What is wrong whatever is promised: an error that the database itself doesn't give, a row that differs in a
    /// table that isn't suspect, a finding where nothing differs.
    pub wrong: Vec<String>,
}

/// What pgshadow says at the end.
#[derive(Debug)]
pub struct Seen {
    /// Table with its schema, reason.
    suspects: Vec<(String, String)>,
    findings: Vec<Value>,
    healed_rows: u64,
    /// The only schema there is.
    only: bool,
}

impl Seen {
    /// Asks it.
    pub fn of<'a>(pgshadow: &Pgshadow, schemas: impl Iterator<Item = &'a str>) -> Seen {
        let status = pgshadow.status();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let schemas: Vec<_> = schemas.map(|schema| format!("{schema}.")).collect();
        let findings = pgshadow.findings();
        let named = |finding: &Value| {
            let text = |field: &str| finding[field].as_str().unwrap_or_default().to_owned();
            schemas.iter().any(|own| text("table").starts_with(own) || text("sql").contains(own))
        };
        let nobodys: Vec<_> = findings.iter().filter(|finding| schemas.len() > 1 && !named(finding)).collect();
        assert!(nobodys.is_empty(), "findings of no case: {nobodys:#?}");
        let tables = status["suspect_tables"].as_array().expect("status --json has suspect_tables");
        let text_of_every = |suspect: &&Value| suspect["table"] == EVERY_TABLE;
        let everywhere: Vec<_> = tables.iter().filter(text_of_every).map(|suspect| text(&suspect["reason"])).collect();
        assert!(
            schemas.len() == 1 || everywhere.is_empty(),
            "a case that must be alone makes every table suspect; PGSHADOW_CASE finds it: {everywhere:?}"
        );
        Seen {
            suspects: tables.iter().map(|suspect| (text(&suspect["table"]), text(&suspect["reason"]))).collect(),
            findings,
            healed_rows: status["healed_rows"].as_u64().expect("status --json has healed_rows"),
            only: schemas.len() == 1,
        }
    }
}

/// Holds what a trial's sessions were told, directly and through pgshadow, and what the databases hold, against each other.
pub fn judge(trial: &Trial<'_>, told: &[Told; 2], places: [&Contents; 3], seen: &Seen) -> Outcome {
    let mut outcome = Outcome::default();
    let own = format!("{}.", trial.schema);
    let mut suspects = BTreeSet::new();
    for (table, reason) in &seen.suspects {
        let name = table.strip_prefix(&own).or_else(|| seen.only.then_some(table.as_str()));
        if let Some(name) = name {
            suspects.insert(name);
            let reason = trial.forget_names(&reason.replace(&own, ""));
            outcome.suspects.entry(trial.forget_names(name)).or_default().insert(reason);
        }
    }
    outcome.findings(seen, &own);
    let [direct, proxied] = told;
    outcome.wrong.extend(direct.errors.iter().map(|error| format!("the case itself fails: {error}")));
    if direct != proxied {
        outcome.wrong.push(format!("the client was told something else\n  direct  {direct:?}\n  proxied {proxied:?}"));
    }
    let [direct, source, target] = places.map(|place| place.rows.get(&trial.schema));
    if !trial.case.volatile {
        let changed = differences(direct, source, &|_| false);
        outcome
            .wrong
            .extend(changed.iter().map(|line| format!("the source holds something else than directly: {line}")));
    }
    let suspect = |table: &str| suspects.contains(table) || suspects.contains(EVERY_TABLE);
    let lost = differences(source, target, &suspect);
    outcome.wrong.extend(lost.iter().map(|line| format!("source and target differ, not suspect: {line}")));
    let [_, source, target] = places.map(|place| place.definitions.get(&trial.schema));
    if outcome.reported.is_empty() {
        let other = differences(source, target, &suspect);
        outcome
            .wrong
            .extend(other.iter().map(|line| format!("defined otherwise, neither suspect nor reported: {line}")));
    }
    outcome
}

impl Outcome {
    fn findings(&mut self, seen: &Seen, own: &str) {
        for finding in &seen.findings {
            let text = |field: &str| finding[field].as_str().unwrap_or_default().to_owned();
            let mine = seen.only || text("table").starts_with(own) || text("sql").contains(own);
            if text("message").contains("was not repeated on the shadow") {
                if mine {
                    self.reported.push(text("message"));
                }
            } else if mine {
                self.wrong.push(format!("a finding: {finding}"));
            }
        }
        // What was healed among many trials has a finding, which names its table.
        if seen.only && seen.healed_rows > 0 {
            self.wrong.push(format!("{} rows were healed", seen.healed_rows));
        }
    }

    /// `None` where the promise is kept, or what came in its place.
    pub fn broken(&self, promise: Promise) -> Option<String> {
        let suspects: Vec<_> =
            self.suspects.iter().map(|(table, why)| format!("{table} is suspect: {why:?}")).collect();
        match promise {
            Promise::Exact if !self.reported.is_empty() => Some(self.reported.join("; ")),
            Promise::Exact => (!suspects.is_empty()).then(|| suspects.join("; ")),
            Promise::Declared(tables) => {
                let named = |table: &str, why: &BTreeSet<String>| {
                    let found = tables.iter().find(|(name, _)| *name == table || *name == EVERY_TABLE);
                    found.is_some_and(|(_, text)| why.iter().any(|reason| reason.contains(text)))
                };
                let kept = self.suspects.iter().all(|(table, why)| named(table, why));
                (!kept).then(|| format!("{}; promised: {tables:?}", suspects.join("; ")))
            }
            Promise::Reported(text) => {
                let told = self.reported.iter().any(|message| message.contains(text));
                (!told || !suspects.is_empty()).then(|| format!("{:?} {}", self.reported, suspects.join("; ")))
            }
        }
    }
}
