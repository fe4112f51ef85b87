//! Conditions that the server can compare with the bounds of partitions as it plans: nothing in them has its value later.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{AExpr, Node};

use super::fixed::fixed_value;
use crate::nodes::{boxed, kind};
use crate::write::Fixed;

/// Operators within operands, at most.
const DEPTH_MAX: usize = 8;

/// Whether all that columns are compared with are constants and other columns.
pub(super) fn is_constant(condition: &Kind) -> bool {
    let mut pending = vec![condition];
    while let Some(part) = pending.pop() {
        let fits = match part {
            Kind::BoolExpr(expression) => {
                pending.extend(expression.args.iter().filter_map(kind));
                true
            }
            Kind::AExpr(comparison) => operands(comparison).all(|operand| is_operand(operand, DEPTH_MAX)),
            Kind::NullTest(test) => test.arg.as_ref().and_then(|arg| arg.node.as_ref()).is_some_and(is_column),
            Kind::BooleanTest(test) => test.arg.as_ref().and_then(|arg| arg.node.as_ref()).is_some_and(is_column),
            Kind::CurrentOfExpr(_) => true,
            other => is_column(other) || is_literal(other),
        };
        if !fits {
            return false;
        }
    }
    true
}

fn operands(expression: &AExpr) -> impl Iterator<Item = &Kind> {
    boxed(&expression.lexpr).into_iter().chain(boxed(&expression.rexpr))
}

/// An operator over constants alone may be one whose value depends on the session's settings; with a column it is no bound.
fn is_operand(operand: &Kind, depth: usize) -> bool {
    let literals = |items: &[Node]| items.iter().all(|item| kind(item).is_some_and(is_literal));
    match operand {
        Kind::AExpr(inner) => {
            depth > 0
                && names_a_column(inner, depth)
                && operands(inner).all(|operand| is_operand(operand, depth - 1) || is_literal(operand))
        }
        Kind::List(list) => literals(&list.items),
        Kind::AArrayExpr(array) => literals(&array.elements),
        other => is_column(other) || is_literal(other),
    }
}

fn names_a_column(expression: &AExpr, depth: usize) -> bool {
    depth > 0
        && operands(expression).any(|operand| match operand {
            Kind::AExpr(inner) => names_a_column(inner, depth - 1),
            other => is_column(other),
        })
}

fn is_column(operand: &Kind) -> bool {
    matches!(operand, Kind::ColumnRef(_))
}

fn is_literal(operand: &Kind) -> bool {
    matches!(fixed_value(operand), Some(Fixed::Literal(_)))
}
