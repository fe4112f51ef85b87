//! A string's statements behind others that change what names mean: the whole string is looked up before any of it runs.
use crate::plan::{Effect, Step};
use pgshadow_sql::{RelationName, Statement, StatementKind};
use pgshadow_telemetry::StatementClass as Class;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the statements in front of one in the same string may have changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Who the session is.
    pub session: bool,
    /// What the catalog holds.
    catalog: bool,
    /// What functions and the like do.
    pub code: bool,
    /// Temporary tables made by them, which have their names from then on.
    temporary: BTreeSet<String>,
}

impl Changed {
    pub fn note(&mut self, statement: &Statement, step: &Step) {
        let defines = step.class == Class::Ddl;
        self.session |= step.changes_session && !defines;
        self.catalog |= defines;
        self.code |= !step.redefines().is_nothing();
        if matches!(step.effect, Effect::Control(_)) || step.changes_session && !defines {
            // the end of a transaction, ROLLBACK TO, DISCARD, a block or a function may have taken them away
            self.temporary.clear();
        }
        if let StatementKind::Ddl(ddl) = &statement.kind {
            // the first is the one that is made
            let made = ddl.tables.first().filter(|name| ddl.temporary && name.schema.is_none());
            if let Some(made) = made.filter(|_| ddl.tag.starts_with("CREATE TABLE")) {
                self.temporary.insert(made.name.clone());
            } else if ddl.moves || ddl.tag.starts_with("DROP") {
                self.temporary.retain(|name| !ddl.tables.iter().any(|gone| gone.name == *name));
            }
        }
    }

    /// Whether all that it names is temporary tables made by them, which are still there.
    pub fn made_all_of(&self, statement: &Statement) -> bool {
        let made = |name: &RelationName| name.schema.is_none() && self.temporary.contains(&name.name);
        let all = |names: &[&RelationName]| !names.is_empty() && names.iter().all(|name| made(name));
        match &statement.kind {
            StatementKind::Ddl(ddl) => all(&ddl.tables.iter().collect::<Vec<_>>()),
            _ => all(&statement.written()),
        }
    }

    /// The step as it is behind them.
    pub fn step(&self, statement: &Statement, mut step: Step) -> Step {
        if self.session && step.writes() {
            let reason = "a SET in front of it in the same string may have changed what it names";
            return uncaptured(step.declared(step.suspects_of_all(reason)));
        }
        if let (true, Effect::Prepare { name, step: inner, text, .. }) = (self.session, &step.effect) {
            let (name, text, inner) = (name.clone(), text.clone(), Arc::new(uncaptured(Step::clone(inner))));
            // planned again before it is used
            step.changes_session = true;
            step.effect = Effect::Prepare { name, step: inner, text, sent: None };
            return step;
        }
        if let (true, Effect::Write(write)) = (self.catalog, &step.effect)
            && write.through_view
        {
            return step.declared(step.suspects_of_all("DDL in front of it may have given the view's name away"));
        }
        let named = statement.written().iter().any(|name| !name.is_temporary())
            || matches!(statement.kind, StatementKind::Execute { .. });
        if (self.session || self.catalog) && named && !step.writes() {
            // what it names, a temporary table perhaps, may be another table by then: the locks will tell
            (step.hidden_writes, step.hidden_anywhere) = (true, true);
        }
        step
    }
}

/// The step of a statement whose text goes out as it came.
fn uncaptured(step: Step) -> Step {
    match &step.effect {
        Effect::Write(write) => Step { effect: Effect::Opaque(write.suspects.clone()), ..step },
        _ => step,
    }
}
