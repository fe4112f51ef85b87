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
    /// Temporary tables, and the like, made by them, which have their names from then on.
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
            let own = |name: &&RelationName| name.schema.is_none() || name.is_temporary();
            // an index is made for its table, and a view of what it reads
            let is_temporary = match ddl.tag.as_str() {
                "CREATE INDEX" => ddl.tables.iter().any(|table| self.has(table)),
                "CREATE VIEW" => ddl.temporary || ddl.others.iter().any(|read| self.has(read)),
                tag if tag.starts_with("ALTER") => {
                    ddl.tables.iter().take(1).chain(&ddl.others).any(|old| self.has(old))
                }
                _ => ddl.temporary,
            };
            if ddl.moves || ddl.tag.starts_with("DROP") || ddl.tag.starts_with("ALTER") && ddl.made.is_some() {
                self.temporary.retain(|name| !ddl.tables.iter().chain(&ddl.others).any(|gone| gone.name == *name));
            }
            if let Some(made) = ddl.made.as_ref().filter(own).filter(|_| is_temporary) {
                self.temporary.insert(made.name.clone());
            }
        }
    }

    fn has(&self, name: &RelationName) -> bool {
        (name.schema.is_none() || name.is_temporary()) && self.temporary.contains(&name.name)
    }

    /// Whether all that it names are temporary tables and the like made by them, which are still there.
    pub fn made_all_of(&self, statement: &Statement) -> bool {
        let all = |names: &[&RelationName]| !names.is_empty() && names.iter().all(|name| self.has(name));
        match &statement.kind {
            StatementKind::Ddl(ddl) if ddl.tag == "CREATE VIEW" => ddl.others.iter().any(|read| self.has(read)),
            // the new name is nobody's yet
            StatementKind::Ddl(ddl) if ddl.moves => ddl.tables.first().is_some_and(|old| self.has(old)),
            StatementKind::Ddl(ddl) => all(&ddl.tables.iter().chain(&ddl.others).collect::<Vec<_>>()),
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
