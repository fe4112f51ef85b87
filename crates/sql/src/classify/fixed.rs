//! Columns whose value the text fixes.
//!
//! Only what is certain counts: a key that is wrongly believed to be fixed makes a written row go unnoticed.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{AExpr, AExprKind, BoolExprType, ColumnRef, Node, SelectStmt, TypeCast, TypeName, a_const};

use crate::nodes::{boxed, constant, kind, strings};
use crate::write::{Fixed, RelationName};

/// Types for which a cast of a string adds nothing: whatever column type it is compared with reads the same value.
/// (Not so float4, which loses digits, or timestamp, which drops the zone.)
const PLAIN_TYPES: [&str; 9] = ["bool", "bytea", "int2", "int4", "int8", "numeric", "text", "uuid", "varchar"];
/// Types that hold any integer constant that they accept unchanged.
const INTEGER_TYPES: [&str; 4] = ["int2", "int4", "int8", "numeric"];
/// Strings that date and time types read as a moment that differs with each run.
const MOVING_MOMENTS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// Conjuncts `column = value` about the target.
pub(super) fn of_condition(condition: &Kind, target: &RelationName, joins: bool) -> Vec<(String, Fixed)> {
    let mut found = Vec::new();
    let mut pending = vec![condition];
    while let Some(part) = pending.pop() {
        match part {
            Kind::BoolExpr(expression) if expression.boolop == BoolExprType::AndExpr as i32 => {
                pending.extend(expression.args.iter().rev().filter_map(kind));
            }
            Kind::AExpr(comparison) if is_equality(comparison) => {
                found.extend(of_comparison(comparison, target, joins));
            }
            _ => {}
        }
    }
    found
}

fn is_equality(comparison: &AExpr) -> bool {
    let name = strings(&comparison.name);
    comparison.kind == AExprKind::AexprOp as i32
        && match name.as_slice() {
            [operator] => operator == "=",
            [schema, operator] => schema == "pg_catalog" && operator == "=",
            _ => false,
        }
}

fn of_comparison(comparison: &AExpr, target: &RelationName, joins: bool) -> Option<(String, Fixed)> {
    let (left, right) = (boxed(&comparison.lexpr)?, boxed(&comparison.rexpr)?);
    let (column, value) = match (left, right) {
        (Kind::ColumnRef(column), value) | (value, Kind::ColumnRef(column)) => (column, value),
        _ => return None,
    };
    Some((column_of_target(column, target, joins)?, fixed_value(value)?))
}

/// The column's name, if it can only be the target's: an unqualified one may belong to a joined table.
pub(super) fn column_of_target(column: &ColumnRef, target: &RelationName, joins: bool) -> Option<String> {
    let fields = strings(&column.fields);
    if fields.len() != column.fields.len() {
        return None;
    }
    match fields.as_slice() {
        [name] if !joins => Some(name.clone()),
        [table, name] if table == target.exposed() => Some(name.clone()),
        [schema, table, name]
            if target.alias.is_none() && *table == target.name && target.schema.as_ref() == Some(schema) =>
        {
            Some(name.clone())
        }
        _ => None,
    }
}

/// The listed columns of a single VALUES row.
pub(super) fn of_values(columns: &[Node], select: &SelectStmt) -> Vec<(String, Fixed)> {
    let Some(Kind::List(row)) = select.values_lists.first().and_then(kind) else {
        return Vec::new();
    };
    let pairs = columns.iter().zip(&row.items);
    pairs
        .filter_map(|(column, value)| match kind(column)? {
            Kind::ResTarget(column) if column.indirection.is_empty() => {
                Some((column.name.clone(), fixed_value(kind(value)?)?))
            }
            _ => None,
        })
        .collect()
}

/// The values of a single VALUES row.
pub(super) fn in_order(select: &SelectStmt) -> Vec<Option<Fixed>> {
    match select.values_lists.first().and_then(kind) {
        Some(Kind::List(row)) => row.items.iter().map(|value| fixed_value(kind(value)?)).collect(),
        _ => Vec::new(),
    }
}

pub(crate) fn fixed_value(value: &Kind) -> Option<Fixed> {
    match value {
        Kind::ParamRef(parameter) => parameter_number(parameter.number),
        Kind::AConst(literal) => steady(constant(literal)?),
        Kind::TypeCast(cast) => cast_value(cast),
        _ => None,
    }
}

fn parameter_number(number: i32) -> Option<Fixed> {
    u16::try_from(number).ok().filter(|number| *number > 0).map(Fixed::Parameter)
}

/// A constant that means the same at any time, as far as date and time types go.
fn steady(text: String) -> Option<Fixed> {
    (!names_the_present(&text)).then_some(Fixed::Literal(text))
}

/// The string is one that date and time types read as the present.
pub(super) fn names_the_present(text: &str) -> bool {
    let mut words = text.split(|character: char| !character.is_ascii_alphabetic());
    words.any(|word| MOVING_MOMENTS.iter().any(|moment| word.eq_ignore_ascii_case(moment)))
}

/// One cast directly around a constant or parameter, where it can't change the value.
fn cast_value(cast: &TypeCast) -> Option<Fixed> {
    let name = plain_type(cast.type_name.as_ref()?)?;
    match boxed(&cast.arg)? {
        Kind::ParamRef(parameter) if name == "date" || PLAIN_TYPES.contains(&name.as_str()) => {
            parameter_number(parameter.number)
        }
        Kind::AConst(literal) => match literal.val.as_ref()? {
            a_const::Val::Sval(string) if PLAIN_TYPES.contains(&name.as_str()) => steady(string.sval.clone()),
            a_const::Val::Sval(string) if name == "date" && is_iso_date(&string.sval) => steady(string.sval.clone()),
            a_const::Val::Ival(_) if INTEGER_TYPES.contains(&name.as_str()) => constant(literal).and_then(steady),
            a_const::Val::Fval(float) if INTEGER_TYPES.contains(&name.as_str()) => {
                float.fval.bytes().all(|byte| byte.is_ascii_digit()).then(|| Fixed::Literal(float.fval.clone()))
            }
            _ => None,
        },
        _ => None,
    }
}

/// A type of `pg_catalog` by its name, without modifier, array or SETOF.
fn plain_type(name: &TypeName) -> Option<String> {
    let parts = strings(&name.names);
    let bare = name.typmods.is_empty() && name.array_bounds.is_empty() && !name.setof && !name.pct_type;
    match parts.as_slice() {
        [last] if bare => Some(last.clone()),
        [schema, last] if bare && schema == "pg_catalog" => Some(last.clone()),
        _ => None,
    }
}

fn is_iso_date(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}
