//! INSERT, UPDATE, DELETE, MERGE.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{
    CmdType, DeleteStmt, InsertStmt, MergeStmt, Node, OnConflictAction, OnConflictClause, OverridingKind, RangeVar,
    ReturningClause, SelectStmt, SetOperation, UpdateStmt, WithClause,
};

use super::returned::{DEPTH_MAX, Scope};
use super::{constant, fixed, reads};
use crate::nodes::{boxed, kind, relation};
use crate::summary::Summary;
use crate::write::{OnConflict, RelationName, Returned, Write};

pub(super) fn insert(statement: &InsertStmt, summary: &Summary) -> Write {
    let mut write = common(&statement.relation, &statement.returning_clause, summary);
    let rows = match boxed(&statement.select_stmt) {
        None => Some(1),
        Some(Kind::SelectStmt(select)) => values_rows(select),
        Some(_) => None,
    };
    write.rows_values = rows;
    write.returned = returned(&statement.returning_clause, &write.target, &[], statement.with_clause.as_ref());
    write.reads_target = reads::returns(&statement.returning_clause, &write.target, false);
    write.insert_columns = target_names(&statement.cols);
    write.overriding = !matches!(
        OverridingKind::try_from(statement.r#override),
        Ok(OverridingKind::Undefined | OverridingKind::OverridingNotSet)
    );
    if let Some(clause) = &statement.on_conflict_clause {
        write.on_conflict = on_conflict(clause);
        write.conflict_columns = conflict_columns(clause).unwrap_or_default();
        write.assigned = target_names(&clause.target_list);
    }
    if let (Some(1), Some(Kind::SelectStmt(select))) = (rows, boxed(&statement.select_stmt)) {
        if statement.cols.is_empty() {
            write.fixed_in_order = fixed::in_order(select);
        } else {
            write.fixed = fixed::of_values(&statement.cols, select);
        }
    }
    write
}

pub(super) fn update(statement: &UpdateStmt, summary: &Summary) -> Write {
    let mut write = common(&statement.relation, &statement.returning_clause, summary);
    write.assigned = target_names(&statement.target_list);
    write.joins = !statement.from_clause.is_empty();
    let (returning, with) = (&statement.returning_clause, statement.with_clause.as_ref());
    write.returned = returned(returning, &write.target, &statement.from_clause, with);
    write.reads_target = reads::returns(&statement.returning_clause, &write.target, write.joins)
        || reads::assigns(&statement.target_list, &write.target, write.joins);
    restrict(&mut write, boxed(&statement.where_clause));
    write
}

pub(super) fn delete(statement: &DeleteStmt, summary: &Summary) -> Write {
    let mut write = common(&statement.relation, &statement.returning_clause, summary);
    write.joins = !statement.using_clause.is_empty();
    let (returning, with) = (&statement.returning_clause, statement.with_clause.as_ref());
    write.returned = returned(returning, &write.target, &statement.using_clause, with);
    write.reads_target = reads::returns(&statement.returning_clause, &write.target, write.joins);
    restrict(&mut write, boxed(&statement.where_clause));
    write
}

pub(super) fn merge(statement: &MergeStmt, summary: &Summary) -> Write {
    let mut write = common(&statement.relation, &statement.returning_clause, summary);
    write.joins = true;
    let (returning, with) = (&statement.returning_clause, statement.with_clause.as_ref());
    let source = statement.source_relation.as_deref().map(std::slice::from_ref).unwrap_or_default();
    write.returned = returned(returning, &write.target, source, with);
    for clause in statement.merge_when_clauses.iter().filter_map(kind) {
        if let Kind::MergeWhenClause(clause) = clause
            && clause.command_type == CmdType::CmdUpdate as i32
        {
            write.assigned.extend(target_names(&clause.target_list));
        }
    }
    write.assigned.sort();
    write.assigned.dedup();
    write
}

fn target(range: &Option<RangeVar>) -> RelationName {
    range.as_ref().map(relation).unwrap_or(RelationName { schema: None, name: String::new(), alias: None, only: false })
}

fn common(range: &Option<RangeVar>, returning: &Option<ReturningClause>, summary: &Summary) -> Write {
    Write {
        target: target(range),
        returning: returning.is_some(),
        returning_options: returning.as_ref().is_some_and(|clause| !clause.options.is_empty()),
        returned: Returned::default(),
        on_conflict: OnConflict::None,
        conflict_columns: Vec::new(),
        assigned: Vec::new(),
        insert_columns: Vec::new(),
        writes_in_with: summary.nested_writes.clone(),
        fixed: Vec::new(),
        fixed_in_order: Vec::new(),
        current_of: false,
        constant_condition: false,
        reads_target: false,
        overriding: false,
        rows_values: None,
        joins: false,
    }
}

fn returned(
    clause: &Option<ReturningClause>,
    target: &RelationName,
    from: &[Node],
    with: Option<&WithClause>,
) -> Returned {
    Scope { target: Some(target), from, with, depth: DEPTH_MAX }.returned(clause)
}

fn restrict(write: &mut Write, condition: Option<&Kind>) {
    write.current_of = matches!(condition, Some(Kind::CurrentOfExpr(_)));
    write.constant_condition = !write.joins && condition.is_none_or(constant::is_constant);
    if let Some(condition) = condition {
        write.fixed = fixed::of_condition(condition, &write.target, write.joins);
        write.reads_target |= reads::names_column(condition, &write.target, write.joins);
    }
}

/// The number of rows of a plain VALUES list.
fn values_rows(select: &SelectStmt) -> Option<usize> {
    let plain = matches!(SetOperation::try_from(select.op), Ok(SetOperation::Undefined | SetOperation::SetopNone));
    (plain && !select.values_lists.is_empty()).then_some(select.values_lists.len())
}

fn on_conflict(clause: &OnConflictClause) -> OnConflict {
    match OnConflictAction::try_from(clause.action) {
        Ok(OnConflictAction::OnconflictNothing) => OnConflict::Nothing,
        Ok(OnConflictAction::OnconflictUpdate) => OnConflict::Update,
        _ => OnConflict::None,
    }
}

fn conflict_columns(clause: &OnConflictClause) -> Option<Vec<String>> {
    let infer = clause.infer.as_ref().filter(|infer| infer.where_clause.is_none())?;
    let name = |node: &Node| match kind(node)? {
        Kind::IndexElem(element) if !element.name.is_empty() => Some(element.name.clone()),
        _ => None,
    };
    infer.index_elems.iter().map(name).collect()
}

/// The columns of a SET clause or an INSERT column list, each once.
fn target_names(nodes: &[Node]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(nodes.len());
    for node in nodes {
        if let Some(Kind::ResTarget(target)) = kind(node)
            && !names.contains(&target.name)
        {
            names.push(target.name.clone());
        }
    }
    names
}
