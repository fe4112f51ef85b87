//! Looks for the smallest history that fails in the same way. A load is concurrent: each attempt is made several times.
use crate::bout;
use crate::check::{Fail, Verdict};
use crate::round::Bout;
use crate::schema::Schema;
use crate::script::{End, Script, Unit};
use crate::settings::Plant;
use crate::stage::Stage;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Attempts at one history before it counts as sound.
const ATTEMPTS: u32 = 3;

/// A history that fails, and how.
#[derive(Debug, Clone)]
pub struct History {
    /// Its tables.
    pub schema: Schema,
    /// Its sessions.
    pub scripts: Vec<Script>,
    /// What came of it.
    pub verdict: Verdict,
}

impl History {
    /// Units of all sessions.
    pub fn units(&self) -> usize {
        self.scripts.iter().map(|script| script.units.len()).sum()
    }
}

struct Shrinker<'a> {
    stage: &'a mut Stage,
    bout: &'a Bout,
    plant: Plant,
    deadline: Instant,
    way: (Fail, String),
    smallest: History,
}

/// The smallest one that was found within the time to fail in this way. `None`: it did not fail again at all.
pub fn shrink(
    stage: &mut Stage,
    bout: &Bout,
    found: &History,
    way: (Fail, String),
    plant: Plant,
    limit: Duration,
) -> Option<History> {
    let deadline = Instant::now() + limit;
    let mut shrinker = Shrinker { stage, bout, plant, deadline, way, smallest: found.clone() };
    let tables = found.verdict.tables.clone();
    let again = shrinker.narrow(&tables) || shrinker.try_scripts(found.scripts.clone());
    if !again {
        return None;
    }
    shrinker.sessions();
    shrinker.units();
    shrinker.steps();
    shrinker.tables();
    Some(shrinker.smallest)
}

impl Shrinker<'_> {
    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Whether these fail as the first did; then they are the smallest.
    fn try_history(&mut self, schema: &Schema, scripts: Vec<Script>) -> bool {
        for _ in 0..ATTEMPTS {
            if self.is_over() {
                return false;
            }
            let verdict = bout::run(self.stage, self.bout, schema, &scripts, self.plant);
            if verdict.ways().contains(&self.way) {
                self.smallest = History { schema: schema.clone(), scripts, verdict };
                return true;
            }
        }
        false
    }

    fn try_scripts(&mut self, scripts: Vec<Script>) -> bool {
        let scripts: Vec<_> = scripts.into_iter().filter(|script| !script.units.is_empty()).collect();
        if scripts.is_empty() {
            return false;
        }
        let schema = self.smallest.schema.clone();
        self.try_history(&schema, scripts)
    }

    /// Only what touches the tables that failed, or sets something.
    fn narrow(&mut self, tables: &BTreeSet<String>) -> bool {
        if tables.is_empty() {
            return false;
        }
        let concerns = |unit: &Unit| {
            let named = unit.tables();
            named.is_empty() || named.iter().any(|name| tables.contains(*name))
        };
        let mut scripts = self.smallest.scripts.clone();
        scripts.iter_mut().for_each(|script| script.units.retain(concerns));
        self.try_scripts(scripts)
    }

    /// Leaves sessions out: half of them, then one by one.
    fn sessions(&mut self) {
        loop {
            let scripts = self.smallest.scripts.clone();
            let half = scripts.len() / 2;
            if half == 0 || !(self.try_scripts(scripts[..half].to_vec()) || self.try_scripts(scripts[half..].to_vec()))
            {
                break;
            }
        }
        let mut at = 0;
        while at < self.smallest.scripts.len() && !self.is_over() {
            let mut scripts = self.smallest.scripts.clone();
            scripts.remove(at);
            if !self.try_scripts(scripts) {
                at += 1;
            }
        }
    }

    /// Leaves units out in ever smaller pieces, of all sessions at once.
    fn units(&mut self) {
        let mut size = self.smallest.units().div_ceil(2);
        while size >= 1 && !self.is_over() {
            let mut from = 0;
            while from < self.smallest.units() && !self.is_over() {
                let scripts = without(&self.smallest.scripts, from, size);
                if !self.try_scripts(scripts) {
                    from += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    /// Leaves single steps of blocks out.
    fn steps(&mut self) {
        let places: Vec<(usize, usize)> = self
            .smallest
            .scripts
            .iter()
            .enumerate()
            .flat_map(|(session, script)| (0..script.units.len()).map(move |unit| (session, unit)))
            .collect();
        for (session, unit) in places {
            let mut at = 0;
            while at < self.smallest.scripts[session].units[unit].steps.len() && !self.is_over() {
                let mut scripts = self.smallest.scripts.clone();
                let unit = &mut scripts[session].units[unit];
                unit.steps.remove(at);
                if unit.steps.is_empty() && unit.end == End::None || !self.try_scripts(scripts) {
                    at += 1;
                }
            }
        }
    }

    /// Leaves tables out that no unit names, where no other refers to them.
    fn tables(&mut self) {
        let used: BTreeSet<String> = {
            let units = self.smallest.scripts.iter().flat_map(|script| &script.units);
            units.flat_map(|unit| unit.tables().into_iter().map(str::to_owned).collect::<Vec<_>>()).collect()
        };
        let mut schema = self.smallest.schema.clone();
        schema.tables.retain(|table| table.family.iter().any(|name| used.contains(name)));
        if schema.tables.len() < self.smallest.schema.tables.len() && !schema.tables.is_empty() {
            let scripts = self.smallest.scripts.clone();
            self.try_history(&schema, scripts);
        }
    }
}

/// All units but `size` from the one with the number `from`, counted through all sessions.
fn without(scripts: &[Script], from: usize, size: usize) -> Vec<Script> {
    let mut number = 0;
    let mut left = scripts.to_vec();
    for script in &mut left {
        script.units.retain(|_| {
            number += 1;
            number <= from || number > from + size
        });
    }
    left
}
