//! A string's statements behind others that change what names mean: the whole string is looked up before any of it runs.
use crate::plan::{Effect, Step};
use pgshadow_model::Suspect;
use pgshadow_sql::{Ddl, ObjectKind, RelationName, Statement, StatementKind};
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
    /// Temporary types and domains made by them, the same way, and statistics of temporary tables.
    objects: BTreeSet<(ObjectKind, String)>,
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
            self.objects.clear();
        }
        if let StatementKind::Ddl(ddl) = &statement.kind {
            let own = |name: &&RelationName| name.schema.is_none() || name.is_temporary();
            let is_temporary = ddl.temporary || self.is_of_made(ddl);
            if ddl.moves || ddl.tag.starts_with("DROP") || ddl.tag.starts_with("ALTER") && ddl.made.is_some() {
                self.temporary.retain(|name| !ddl.tables.iter().chain(&ddl.others).any(|gone| gone.name == *name));
            }
            let made = if ddl.tag == "CREATE STATISTICS" { ObjectKind::Statistics } else { ddl.kind };
            if made != ObjectKind::Other && ddl.tag.starts_with("CREATE") && matches!(step.effect, Effect::None) {
                self.objects.extend(ddl.objects.iter().map(|object| (made, object.name.clone())));
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
        match &statement.kind {
            StatementKind::Ddl(ddl) => self.is_of_made(ddl),
            _ => {
                let written = statement.written();
                !written.is_empty() && written.iter().all(|name| self.has(name))
            }
        }
    }

    /// Whether what it makes, changes or drops is theirs, or is made of theirs.
    fn is_of_made(&self, ddl: &Ddl) -> bool {
        let mut names = ddl.tables.iter().chain(&ddl.others);
        if ddl.reads.iter().any(|read| self.has(read)) {
            return true;
        }
        if ddl.made.is_some() && ddl.made.as_ref() == ddl.tables.first() {
            // a permanent one beside the one that is there
            return false;
        }
        if ddl.tag.starts_with("ALTER") {
            return names.next().is_some_and(|name| self.has(name));
        }
        names.clone().next().is_some() && names.all(|name| self.has(name))
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
        if let (StatementKind::Ddl(ddl), Effect::Ddl { sql, .. }) = (&statement.kind, &step.effect)
            && ddl
                .objects
                .iter()
                .any(|name| name.schema.is_none() && self.objects.contains(&(ddl.kind, name.name.clone())))
        {
            let reason = match ddl.kind {
                ObjectKind::Statistics => {
                    "it names statistics of a temporary table that were made in front of it in the same string"
                }
                _ => "it names a temporary type that was made in front of it in the same string",
            };
            return Step { effect: Effect::NotRepeated { sql: sql.clone(), reason }, ..step };
        }
        if let (StatementKind::Ddl(ddl), Effect::Ddl { tables, .. }) = (&statement.kind, &step.effect)
            && ddl.tag.starts_with("DROP")
            && ddl.tables.iter().any(|name| self.has(name))
        {
            // on the shadow that name is another table's
            let theirs = ddl.tables.iter().zip(tables).filter(|(name, _)| !self.has(name));
            let reason = "DROP: it names a temporary table that was made in front of it in the same string";
            let suspects =
                theirs.map(|(_, table)| Suspect { table: table.clone(), reason: reason.to_owned() }).collect();
            return Step { effect: Effect::Opaque(suspects), ..step };
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
