//! Statements whose effect is determined by the rows that they name: the shadow can run them too, and must do the same.
use super::{Context, Target};
use crate::plan::OldRow;
use pgshadow_catalog::{Default, FunctionNature, Table};
use pgshadow_model::{Operation, RelationKind};
use pgshadow_sql::{OnConflict, Statement, Write};

/// Rows of one INSERT, at most.
const ROWS_MAX: usize = 8;
/// Bytes of a text, at most.
const TEXT_MAX: usize = 16 << 10;

/// Words with which a text reaches other rows, or a moment.
const REACHING: &[&str] = &["select", "with", "table", "now", "today", "tomorrow", "yesterday"];
/// Names that mean something else on each server.
const OWN_TO_A_SERVER: &[&str] = &[
    "xmin",
    "xmax",
    "cmin",
    "cmax",
    "ctid",
    "tableoid",
    "oid",
    "regclass",
    "regproc",
    "regprocedure",
    "regoper",
    "regoperator",
    "regtype",
    "regrole",
    "regnamespace",
    "regconfig",
    "regdictionary",
    "pg_lsn",
    "money",
];

impl Context<'_> {
    /// Whether the statement does the same wherever the rows that it names are the same.
    pub(crate) fn is_determined(
        &self,
        statement: &Statement,
        write: &Write,
        target: &Target,
        operation: Operation,
        old: &OldRow,
    ) -> bool {
        let table = &*target.table;
        let Some(text) = self.text.get(statement.range.clone()) else { return false };
        !self.masked
            && text.len() <= TEXT_MAX
            && self.identity.client_encoding == "UTF8"
            && self.identity.standard_conforming_strings == "on"
            && !target.is_view()
            && !statement.is_merge()
            && !statement.value_functions
            && !write.joins
            && !write.current_of
            // what it gives for an identity may be passed over
            && !write.overriding
            && write.on_conflict == OnConflict::None
            && write.writes_in_with.is_empty()
            && !write.returning_options
            // a newer shadow may mix up what it returns of rows that move
            && !(write.returning && table.routing.as_ref().is_some_and(|routing| routing.mixed))
            && !matches!(old, OldRow::Locked(_))
            && statement.relations.len() == 1
            && self.has_determined_parts(statement, table)
            && is_plain(table)
            && names_its_rows(write, table, operation, text)
            && !words(text).any(|word| REACHING.contains(&word.as_str()))
    }

    /// Whether all functions that run are determined by their arguments.
    fn has_determined_parts(&self, statement: &Statement, table: &Table) -> bool {
        let of = |name: &str| self.functions.is_determined(self.definitions, name);
        let types = table.relation.columns.iter().map(|c| c.column_type.name.name.clone());
        let behind: Vec<String> = statement.other_names.iter().cloned().chain(types).collect();
        statement.functions.iter().all(|f| of(&f.name))
            && table.functions.iter().chain(&table.trigger_functions).all(|name| of(name))
            && self.nature_of_triggers(table) == FunctionNature::Harmless
            && !statement.other_names.iter().any(|name| OWN_TO_A_SERVER.contains(&name.as_str()))
            && self.functions.is_determined_behind(self.definitions, &behind)
    }
}

/// A table whose rows are written by the statement and nothing else.
fn is_plain(table: &Table) -> bool {
    matches!(table.relation.kind, RelationKind::Table | RelationKind::Partitioned)
        && !table.relation.key.is_empty()
        && !table.has_inheritance_children
        && !table.after_triggers
        && !table.cascade_triggers
        && !table.own_cascade
        && !table.rules
        && !table.row_security
        && table.selectable
}

/// Whether the text fixes the keys of the rows that it changes, and every value of those that it makes.
fn names_its_rows(write: &Write, table: &Table, operation: Operation, text: &str) -> bool {
    let columns = &table.relation.columns;
    let all_constant = || table.defaults.iter().all(|d| *d != Default::Computed);
    if words(text).any(|word| word == "default") && !all_constant() {
        return false;
    }
    if operation == Operation::Insert {
        let left_out = |name: &String| !write.insert_columns.contains(name);
        let known = write.rows_values.is_some_and(|rows| rows <= ROWS_MAX);
        return known
            && if write.insert_columns.is_empty() {
                write.fixed_in_order.len() >= columns.len() || all_constant()
            } else {
                columns.iter().zip(&table.defaults).all(|(c, d)| *d != Default::Computed || !left_out(&c.name))
            };
    }
    let fixed = |position: &u16| {
        let column = columns.get(usize::from(*position));
        column.is_some_and(|c| write.fixed.iter().any(|(name, _)| *name == c.name))
    };
    matches!(operation, Operation::Update | Operation::Delete) && table.relation.key.iter().all(fixed)
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty()).map(str::to_lowercase)
}
