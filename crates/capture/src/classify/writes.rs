//! INSERT, UPDATE and DELETE: row images, or declared.
use super::old::OldWay;
use super::{Context, Rewritten, Target, suspects};
use crate::plan::{Effect, OldRow, Seen, Step, Strip, WriteEffect};
use pgshadow_catalog::{FunctionNature, Table};
use pgshadow_model::{Operation, RelationKind};
use pgshadow_sql::{
    Dialect, Image, LookBehind, OnConflict, RelationName, ReturningForm, Statement, Write, parameter_text,
    with_returning,
};
use pgshadow_telemetry::StatementClass as Class;
use std::sync::Arc;

impl Context<'_> {
    /// INSERT, UPDATE or DELETE, by itself or as what `statement` prepares.
    pub(crate) fn write(
        &self,
        statement: &Statement,
        write: &Write,
        operation: Operation,
        rewrites: &mut Rewritten,
    ) -> Step {
        let merge = statement.is_merge();
        let class = match operation {
            _ if merge => Class::Merge,
            Operation::Insert | Operation::Upsert => Class::Insert,
            Operation::Update | Operation::Reread => Class::Update,
            Operation::Delete => Class::Delete,
        };
        // no relation of that name is visible: the server will refuse it, unless the name was misread
        let names: Vec<&RelationName> = std::iter::once(&write.target).chain(&write.writes_in_with).collect();
        let Some(named) = self.table(&write.target) else {
            if names.iter().all(|name| name.is_temporary()) {
                return Step::none(class);
            }
            return Step { hidden_writes: true, hidden_anywhere: true, ..Step::none(class) };
        };
        let opaque = |reason: &str| self.opaque_tables(&names, class, reason);
        let target = match self.target(named) {
            Ok(target) => target,
            Err(reason) if !self.not_mirrored(named) => return opaque(reason),
            Err(_) => return self.beside(named, &names, class),
        };
        let table = &target.table;
        if self.not_mirrored(named) || self.not_mirrored(table) {
            return self.beside(table, &names, class);
        }
        let write = &target.in_own_names(write, named);
        if let Some(reason) = self.refusal(&target, write, operation, merge) {
            return opaque(reason);
        }
        if self.width(write, named) >= COLUMNS_MAX {
            return opaque("its RETURNING list has as many columns as the server gives, and no room for one more");
        }
        if !self.identity.temp_files && !names_its_rows(write, table, operation) {
            return opaque("temp_file_limit may be below what its rows would need to be returned");
        }
        if self.mixes_up(statement, &target, write, operation) {
            return opaque(
                "its rows may have moved to partitions that have their columns at other places, and PostgreSQL 18 mixes up what it returns of those",
            );
        }
        let unseen = unseen(&target, write);
        let seen = match unseen {
            None => Seen::Whole,
            Some(_) if self.shows_key(&target, write, operation) => Seen::Key,
            Some(_) => Seen::Nothing,
        };
        let converted = self.identity.client_encoding != "UTF8";
        let image = if seen == Seen::Nothing {
            Image::None
        } else if converted || target.is_view() {
            let columns = if seen == Seen::Key { self.key_columns(&target) } else { self.image_columns(&target) };
            match columns {
                Some(columns) => Image::Columns(columns),
                None => return opaque("the client's encoding isn't UTF8, and a column's type depends on it"),
            }
        } else {
            Image::Star
        };
        // the rows of a partitioned table and of a view have no xmax to return
        let flag =
            unseen.is_none() && write.on_conflict == OnConflict::Update && named.relation.kind == RelationKind::Table;
        let ways = match unseen {
            Some(_) if seen == Seen::Key => vec![OldWay::of(OldRow::Same)],
            Some(_) => {
                let rows = || self.by_rows(statement, &target, write, operation);
                self.by_key(table, write, operation).or_else(rows).into_iter().collect()
            }
            None => self.old_ways(statement, &target, write, operation, rewrites),
        };
        if ways.is_empty() {
            return opaque(unseen.unwrap_or(unknown_old_row(table)));
        }
        let columns = match &image {
            Image::Star => named.relation.columns.len(),
            Image::None => 0,
            Image::Columns(columns) => columns.len(),
        };
        let fits = |way: &OldWay| {
            let old = way.columns.as_ref().map_or(0, |old| old.len() + 1);
            HEAD_MAX + columns + old + way.parameters.len() <= COLUMNS_MAX
        };
        let extended = ways.into_iter().filter(fits).find_map(|way| {
            let parameters = way.parameters.iter().map(|n| parameter_text(*n, converted)).collect();
            let form = ReturningForm {
                image: image.clone(),
                table_oid: !target.is_view(),
                inserted_flag: flag,
                old: way.columns,
                parameters,
                dialect: Dialect::CURRENT,
            };
            Some((with_returning(self.text, statement, &form)?, way.old, way.parameters.len()))
        });
        let Some((rewrite, old, parameters)) = extended else {
            return opaque("its statement could not be extended");
        };
        if let OldRow::Locked(lock) = &old {
            rewrites.beside.extend(self.lock_in_text(statement, lock));
            let look = |look: &LookBehind| rewrite.followed_by(&format!("; {}", look.text));
            rewrites.looked_behind.extend(lock.behind.as_ref().and_then(look));
        }
        rewrites.columns.push(rewrite);
        let determined = unseen.is_none() && self.is_determined(statement, write, &target, operation, &old);
        let mut found = Vec::new();
        let of_triggers = self.nature_of_triggers(table);
        if table.after_triggers && of_triggers > FunctionNature::Harmless {
            found.extend(suspects(
                table,
                "it has AFTER triggers, which may change its rows after their image was taken",
            ));
        }
        if (operation == Operation::Delete || merge) && table.cascade_triggers {
            found.extend(suspects(table, "its foreign keys' cascade reaches a table with triggers"));
        }
        let moves = operation != Operation::Insert || write.on_conflict == OnConflict::Update;
        let several = (table.own_cascade && moves && self.may_change_key(table, write))
            .then_some("it refers to itself with ON UPDATE CASCADE, and several of its keys were changed at once");
        let operation = match (operation, write.on_conflict) {
            (Operation::Insert, OnConflict::Update) => Operation::Upsert,
            (other, _) => other,
        };
        let effect = WriteEffect {
            table: Arc::clone(table),
            operation,
            flag,
            action: merge,
            through_view: target.is_view(),
            seen,
            assigned: if matches!(old, OldRow::Locked(_)) { write.assigned.clone() } else { Vec::new() },
            old,
            parameters,
            converted,
            strip: if write.returning { Strip::LastColumn } else { Strip::Rows },
            suspects: found,
            determined,
            several,
            aside: Vec::new(),
            instead: None,
        };
        let hidden_writes = of_triggers >= FunctionNature::MayWriteOthers || table.cascade_triggers;
        let hidden_anywhere = of_triggers == FunctionNature::MayWrite || table.cascade_triggers;
        let changes_session = table.trigger_functions.iter().any(|f| self.functions.trigger_sets(self.definitions, f));
        Step {
            effect: Effect::Write(Arc::new(effect)),
            hidden_writes,
            hidden_anywhere,
            changes_session,
            ..Step::none(class)
        }
    }

    /// How many columns its RETURNING list has at most, as far as they can be counted.
    fn width(&self, write: &Write, named: &Table) -> usize {
        let returned = &write.returned;
        let of = |name| self.table(name).map_or(0, |table| table.relation.columns.len());
        returned.columns
            + returned.targets * named.relation.columns.len()
            + returned.relations.iter().map(of).sum::<usize>()
    }

    /// Why the rows of this write can't be captured, if so.
    pub(crate) fn refusal(
        &self,
        target: &Target,
        write: &Write,
        operation: Operation,
        merge: bool,
    ) -> Option<&'static str> {
        let (table, relation, view) = (&*target.table, &target.table.relation, target.is_view());
        Some(match relation.kind {
            RelationKind::Foreign => "it is a foreign table: its rows live elsewhere",
            RelationKind::View | RelationKind::Other => "it was written through a view",
            _ if merge && self.identity.version < MERGE_RETURNS => "MERGE returns no rows before PostgreSQL 17",
            _ if table.foreign => "one of its partitions is a foreign table",
            _ if table.rules => "it has rules",
            _ if table.opaque_column().is_some() => "a column's type can't be carried in binary form",
            _ if table.has_inheritance_children && (view || !write.target.only) && operation != Operation::Insert => {
                "it has inheritance children"
            }
            _ if !write.writes_in_with.is_empty() => "it was written inside WITH",
            _ if self.identity.session_replication_role != "origin" => {
                "it was written with session_replication_role set"
            }
            _ => return None,
        })
    }
}

/// Columns that a result has at most (`MaxTupleAttributeNumber`), and elements that ROW has.
const COLUMNS_MAX: usize = 1664;

/// What stands in front of a row's columns in the one that is added: transaction, token, table, flag, action.
const HEAD_MAX: usize = 5;

/// Rows of one INSERT that need not be spilled to be returned.
const ROWS_MAX: usize = 8;

/// Whether the text tells that it writes hardly more than one row.
fn names_its_rows(write: &Write, table: &Table, operation: Operation) -> bool {
    let relation = &table.relation;
    let column = |position: &u16| relation.columns.get(usize::from(*position));
    let fixed = |position| column(position).is_some_and(|c| write.fixed.iter().any(|(name, _)| *name == c.name));
    match operation {
        Operation::Insert => write.rows_values.is_some_and(|rows| rows <= ROWS_MAX),
        _ => write.current_of || !relation.key.is_empty() && relation.key.iter().all(fixed),
    }
}

/// From here MERGE has RETURNING.
const MERGE_RETURNS: u32 = 170_000;

/// Why the rows that an UPDATE changed can't be found on the shadow.
fn unknown_old_row(table: &Table) -> &'static str {
    if table.relation.key.is_empty() {
        "it has no key, and an UPDATE's old rows can't be told before PostgreSQL 18"
    } else {
        "its key may have changed, and the old key can't be told before PostgreSQL 18"
    }
}

/// Why no column of the written rows may be asked for, if so: it would be refused, or change which rows are written.
fn unseen(target: &Target, write: &Write) -> Option<&'static str> {
    let table = &target.table;
    match target.is_view() {
        true if !target.shows_all() => Some("it was written through a view that doesn't show all of its columns"),
        // of the owner's own, nobody may be able to write it on the shadow
        false if table.row_security && (table.forced || !write.reads_target) => {
            Some("row-level security applies to the role that wrote it")
        }
        true if !target.readable => Some("the role that wrote it may not read all columns of the view"),
        false if !table.selectable => Some("the role that wrote it may not read all its columns"),
        _ => None,
    }
}
