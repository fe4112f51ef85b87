//! From a statement's tree to its [`Statement`].

mod commands;
mod constant;
mod definitions;
mod dml;
mod fixed;
mod locks;
mod named;
mod objects;
mod others;
mod reads;
mod returned;
mod tables;

pub(crate) use fixed::fixed_value;

use std::ops::Range;

use pg_query::protobuf::Node;
use pg_query::protobuf::node::Node as Kind;

use crate::nodes::kind;
use crate::statement::{Statement, StatementKind};
use crate::summary::Summary;

/// Describes one statement.
pub(crate) fn statement_of(node: &Node, range: Range<usize>) -> Statement {
    let summary = Summary::of(node);
    let what = kind(node).map_or(StatementKind::Other, |statement| kind_of(statement, &summary, &range));
    let locks = kind(node).map(locks::locks).unwrap_or_default();
    let relations = summary.relations.into_iter().map(|relation| relation.name).collect();
    Statement {
        range,
        kind: what,
        functions: summary.functions,
        relations,
        other_names: summary.other_names,
        value_functions: summary.value_functions,
        locks,
    }
}

fn kind_of(statement: &Kind, summary: &Summary, range: &Range<usize>) -> StatementKind {
    match statement {
        Kind::InsertStmt(insert) => StatementKind::Insert(dml::insert(insert, summary)),
        Kind::UpdateStmt(update) => StatementKind::Update(dml::update(update, summary)),
        Kind::DeleteStmt(delete) => StatementKind::Delete(dml::delete(delete, summary)),
        Kind::MergeStmt(merge) => StatementKind::Merge(dml::merge(merge, summary)),
        Kind::SelectStmt(_) => StatementKind::Select {
            into: summary.into.clone(),
            locking: summary.locking,
            writes_in_with: summary.nested_writes.clone(),
        },
        Kind::ExplainStmt(explain) => StatementKind::Explain {
            analyze: commands::explain_analyzes(explain),
            statement: Box::new(inner(&explain.query, range)),
        },
        Kind::PrepareStmt(prepare) => {
            StatementKind::Prepare { name: prepare.name.clone(), statement: Box::new(inner(&prepare.query, range)) }
        }
        Kind::DeclareCursorStmt(declare) => StatementKind::DeclareCursor {
            name: declare.portalname.clone(),
            hold: declare.options & commands::CURSOR_HOLD != 0,
            locking: summary.locking,
            writes_in_with: summary.nested_writes.clone(),
        },
        Kind::CopyStmt(copy) => StatementKind::Copy(commands::copy(copy, summary)),
        other => commands::command(other)
            .or_else(|| definitions::definition(other, summary).map(StatementKind::Ddl))
            .unwrap_or(StatementKind::Other),
    }
}

/// The statement that another one carries. It has the outer one's range.
fn inner(node: &Option<Box<Node>>, range: &Range<usize>) -> Statement {
    match node {
        Some(node) => statement_of(node, range.clone()),
        None => Statement::bare(range.clone()),
    }
}
