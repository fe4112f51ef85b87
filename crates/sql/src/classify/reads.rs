//! Whether a write reads columns of its target by itself: only then does the server ask for the right to read, and apply the policies
//! of row-level security for SELECT.
//!
//! Only what is certain counts: what is returned beside would change which rows are written.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{Node, ReturningClause};

use super::fixed::column_of_target;
use crate::nodes::{boxed, kind};
use crate::write::RelationName;

/// Whether an element of a RETURNING list is a column of the target.
pub(super) fn returns(clause: &Option<ReturningClause>, target: &RelationName, joins: bool) -> bool {
    let elements = clause.iter().flat_map(|clause| &clause.exprs);
    elements.filter_map(kind).any(|element| match element {
        Kind::ResTarget(element) => boxed(&element.val).is_some_and(|value| names_column(value, target, joins)),
        _ => false,
    })
}

/// Whether what is assigned is computed from a column of the target.
pub(super) fn assigns(targets: &[Node], target: &RelationName, joins: bool) -> bool {
    targets.iter().filter_map(kind).any(|assigned| match assigned {
        Kind::ResTarget(assigned) => boxed(&assigned.val).is_some_and(|value| names_column(value, target, joins)),
        _ => false,
    })
}

/// Whether an expression names a column of the target, outside of subqueries.
pub(super) fn names_column(expression: &Kind, target: &RelationName, joins: bool) -> bool {
    let mut pending = vec![expression];
    while let Some(part) = pending.pop() {
        match part {
            Kind::ColumnRef(column) if column_of_target(column, target, joins).is_some() => return true,
            Kind::BoolExpr(expression) => pending.extend(expression.args.iter().filter_map(kind)),
            Kind::AExpr(expression) => {
                pending.extend(boxed(&expression.lexpr).into_iter().chain(boxed(&expression.rexpr)));
            }
            Kind::NullTest(test) => pending.extend(test.arg.as_ref().and_then(|arg| arg.node.as_ref())),
            Kind::BooleanTest(test) => pending.extend(test.arg.as_ref().and_then(|arg| arg.node.as_ref())),
            Kind::TypeCast(cast) => pending.extend(boxed(&cast.arg)),
            Kind::FuncCall(call) => pending.extend(call.args.iter().filter_map(kind)),
            Kind::CoalesceExpr(list) => pending.extend(list.args.iter().filter_map(kind)),
            Kind::List(list) => pending.extend(list.items.iter().filter_map(kind)),
            Kind::SubLink(link) => pending.extend(boxed(&link.testexpr)),
            _ => {}
        }
    }
    false
}
