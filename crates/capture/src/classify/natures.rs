//! What the functions may do that a statement calls, by itself or through views, defaults and triggers.
use super::{Context, suspects};
use crate::plan::{Effect, Step, WriteEffect};
use pgshadow_catalog::{FunctionNature, Table};
use pgshadow_sql::{Statement, StatementKind};
use std::sync::Arc;

/// Whether one of the functions that a statement names, or that it runs by views, defaults, constraints and triggers, is such.
fn runs_any(statement: &Statement, step: &Step, is_such: impl Fn(&String) -> bool) -> bool {
    let runs_none =
        |tag: &str| matches!(tag, "CREATE VIEW" | "CREATE FUNCTION" | "CREATE PROCEDURE") || tag.starts_with("DROP ");
    if matches!(&statement.kind, StatementKind::Ddl(ddl) if runs_none(&ddl.tag)) {
        return false;
    }
    let of_table = step.effect.write().map(|w| w.table.functions.iter().chain(&w.table.trigger_functions));
    of_table.into_iter().flatten().any(&is_such)
        || statement.functions.iter().any(|f| is_such(&f.name))
        || statement.relations.iter().any(&is_such)
}

impl Context<'_> {
    /// What the functions may do that a statement calls by itself or through views.
    pub(crate) fn nature_of_calls(&self, statement: &Statement) -> FunctionNature {
        // others (ANALYZE, CLUSTER, LOCK) name relations without running a view's query
        let reads = matches!(
            statement.kind,
            StatementKind::Select { .. }
                | StatementKind::Insert(_)
                | StatementKind::Update(_)
                | StatementKind::Delete(_)
                | StatementKind::Merge { .. }
                | StatementKind::DeclareCursor { .. }
                | StatementKind::Copy(_)
                | StatementKind::Explain { .. }
                | StatementKind::Prepare { .. }
        );
        if reads { self.nature_of_named(statement) } else { self.nature_of(statement, &[]) }
    }

    /// What the functions may do that a statement names, and the views.
    pub(crate) fn nature_of_named(&self, statement: &Statement) -> FunctionNature {
        self.nature_of(statement, &statement.relations).max(self.functions.nature_anywhere())
    }

    fn nature_of(&self, statement: &Statement, relations: &[String]) -> FunctionNature {
        let called = statement.functions.iter();
        let called = called.map(|f| self.functions.nature(self.definitions, f.schema.as_deref(), &f.name));
        let read = relations.iter().map(|r| self.functions.nature_of_read(self.definitions, r));
        let others = statement.other_names.iter();
        let others = others.map(|name| self.functions.nature_of_other(self.definitions, name));
        called.chain(read).chain(others).max().unwrap_or(FunctionNature::Harmless)
    }

    /// What the functions may do that a table's defaults and constraints call.
    pub(crate) fn nature_of_table(&self, table: &Table) -> FunctionNature {
        let of = |name: &String| self.functions.nature(self.definitions, Some(""), name);
        let types = table.relation.columns.iter().map(|c| &c.column_type.name.name);
        let types = types.map(|name| self.functions.nature_of_other(self.definitions, name));
        table.functions.iter().map(of).chain(types).max().unwrap_or(FunctionNature::Harmless)
    }

    /// What the functions of a table's triggers may do besides changing its row.
    pub(crate) fn nature_of_triggers(&self, table: &Table) -> FunctionNature {
        let of = |name: &String| self.functions.nature_of_trigger(self.definitions, name);
        table.trigger_functions.iter().map(of).max().unwrap_or(FunctionNature::Harmless)
    }

    /// The step, with what the functions that its statement calls may do.
    pub(crate) fn with_functions(&self, statement: &Statement, mut step: Step) -> Step {
        let of_table = match &step.effect {
            Effect::Write(write) => self.nature_of_table(&write.table),
            Effect::LookBack(look) => self.nature_of_table(&look.write.table),
            Effect::Copy { table, .. } => self.nature_of_table(table),
            _ => FunctionNature::Harmless,
        };
        step.may_define |= runs_any(statement, &step, |name| self.functions.defines(name));
        let runs = !matches!(
            statement.kind,
            StatementKind::Explain { analyze: false, .. } | StatementKind::DeclareCursor { .. }
        );
        // what is added behind it would make a block of it, of which the refusal would speak
        step.alone |= runs && runs_any(statement, &step, |name| self.functions.is_refused_in_block(name));
        let nature = self.nature_of_calls(statement).max(of_table);
        if nature > FunctionNature::Harmless {
            step.changes_session |= nature != FunctionNature::MayWriteOthers;
            step.hidden_writes |= nature >= FunctionNature::MayWriteOthers;
            step.hidden_anywhere |= nature == FunctionNature::MayWrite;
            if let (FunctionNature::MayWrite, Effect::Write(write)) = (nature, &step.effect) {
                let mut write = WriteEffect::clone(write);
                let reason = "its statement calls a volatile function, which may write the same table";
                let table = Arc::clone(&write.table);
                write.suspects.extend(suspects(&table, reason));
                step.effect = Effect::Write(Arc::new(write));
            }
        }
        step
    }
}
