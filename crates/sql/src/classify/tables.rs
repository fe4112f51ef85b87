//! ALTER TABLE: whether it rewrites, and whether it fills rows with values that can differ elsewhere.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{
    AlterTableCmd, AlterTableStmt, AlterTableType, ColumnDef, ConstrType, Constraint, DropBehavior, Node,
};

use crate::nodes::{boxed, constant, kind, strings};

/// What the parts of one ALTER TABLE amount to.
#[derive(Debug, Default)]
pub(super) struct Alteration {
    pub computes_values: Option<&'static str>,
    pub rewrites: bool,
    pub concurrently: bool,
    pub cascade: bool,
}

pub(super) fn alteration(statement: &AlterTableStmt) -> Alteration {
    let mut all = Alteration::default();
    for node in &statement.cmds {
        if let Some(Kind::AlterTableCmd(command)) = kind(node) {
            let one = of_command(command);
            all.computes_values = all.computes_values.or(one.computes_values);
            all.rewrites |= one.rewrites;
            all.concurrently |= one.concurrently;
            all.cascade |= one.cascade;
        }
    }
    all
}

/// Whether a part of ALTER TABLE writes all rows anew, as far as its text tells.
pub(super) fn rewrites(command: &AlterTableCmd) -> bool {
    of_command(command).rewrites
}

fn of_command(command: &AlterTableCmd) -> Alteration {
    use AlterTableType as Alter;
    let mut alteration =
        Alteration { cascade: command.behavior == DropBehavior::DropCascade as i32, ..Alteration::default() };
    match (Alter::try_from(command.subtype).unwrap_or(Alter::Undefined), boxed(&command.def)) {
        (Alter::AtAddColumn, Some(Kind::ColumnDef(column))) => {
            alteration.computes_values = filled_by(column);
            // A domain's constraints or default can make even a bare column rewrite.
            alteration.rewrites = column.raw_default.is_some() || !column.constraints.is_empty() || !is_builtin(column);
            alteration.rewrites |= alteration.computes_values.is_some();
        }
        (Alter::AtAlterColumnType, Some(Kind::ColumnDef(column))) => {
            alteration.rewrites = true;
            if column.raw_default.is_some() {
                alteration.computes_values = Some("ALTER COLUMN TYPE ... USING computes the column's values");
            }
        }
        (Alter::AtAddColumn | Alter::AtAlterColumnType, _) => alteration.rewrites = true,
        (Alter::AtSetAccessMethod | Alter::AtSetExpression | Alter::AtSetLogged | Alter::AtSetUnLogged, _) => {
            alteration.rewrites = true;
        }
        (Alter::AtColumnDefault, _) if command.def.as_deref().is_some_and(is_the_present) => {
            alteration.computes_values = Some(MOMENT);
        }
        (Alter::AtDetachPartition, Some(Kind::PartitionCmd(partition))) => {
            alteration.concurrently = partition.concurrent;
        }
        _ => {}
    }
    alteration
}

/// Why the rows already there get values that depend on the place.
fn filled_by(column: &ColumnDef) -> Option<&'static str> {
    if is_serial(column) {
        return Some("ADD COLUMN with a serial type numbers the rows");
    }
    if column.raw_default.as_deref().is_some_and(|default| !is_plain_constant(default)) {
        return Some("ADD COLUMN with a computed default");
    }
    if !is_builtin(column) && !has_default(column) {
        return Some("ADD COLUMN of a type that may have a default of its own (a domain)");
    }
    column.constraints.iter().find_map(|node| match kind(node)? {
        Kind::Constraint(constraint) => filled_by_constraint(constraint),
        _ => None,
    })
}

/// Of a type whose default draws from a sequence.
pub(super) fn is_serial(column: &ColumnDef) -> bool {
    const SERIAL: [&str; 6] = ["bigserial", "serial", "serial2", "serial4", "serial8", "smallserial"];
    let names = column.type_name.as_ref().map(|name| strings(&name.names)).unwrap_or_default();
    matches!(names.as_slice(), [name] if SERIAL.contains(&name.as_str()))
}

fn has_default(column: &ColumnDef) -> bool {
    let is_default = |node: &Node| match kind(node) {
        Some(Kind::Constraint(constraint)) => constraint.contype == ConstrType::ConstrDefault as i32,
        _ => false,
    };
    column.raw_default.is_some() || column.constraints.iter().any(is_default)
}

/// Why the columns of a new table have other defaults elsewhere: `DEFAULT 'now'` is turned into the moment at which it is read.
pub(super) fn defaults_of(elements: &[Node]) -> Option<&'static str> {
    let is_moment = |node: &Node| match kind(node) {
        Some(Kind::Constraint(constraint)) => constraint.raw_expr.as_deref().is_some_and(is_the_present),
        _ => false,
    };
    let column = |node: &Node| match kind(node) {
        Some(Kind::ColumnDef(column)) => column.constraints.iter().any(is_moment),
        _ => false,
    };
    elements.iter().any(column).then_some(MOMENT)
}

const MOMENT: &str = "a default that names the present is another moment on each side";

fn is_the_present(node: &Node) -> bool {
    match kind(node) {
        Some(Kind::AConst(value)) => constant(value).is_some_and(|text| super::fixed::names_the_present(&text)),
        Some(Kind::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_the_present),
        _ => false,
    }
}

fn filled_by_constraint(constraint: &Constraint) -> Option<&'static str> {
    match ConstrType::try_from(constraint.contype) {
        Ok(ConstrType::ConstrIdentity) => Some("ADD COLUMN with an identity numbers the rows"),
        Ok(ConstrType::ConstrDefault) if !constraint.raw_expr.as_deref().is_none_or(is_plain_constant) => {
            Some("ADD COLUMN with a computed default")
        }
        _ => None,
    }
}

/// A constant, also under casts, but not one that names the present moment.
pub(super) fn is_plain_constant(node: &Node) -> bool {
    match kind(node) {
        Some(Kind::AConst(value)) => constant(value).is_none_or(|text| !super::fixed::names_the_present(&text)),
        Some(Kind::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_plain_constant),
        _ => false,
    }
}

fn is_builtin(column: &ColumnDef) -> bool {
    const COMMON: [&str; 9] = ["bytea", "date", "json", "jsonb", "text", "timestamptz", "timestamp", "uuid", "inet"];
    let names = column.type_name.as_ref().map(|name| strings(&name.names)).unwrap_or_default();
    match names.as_slice() {
        [name] => COMMON.contains(&name.as_str()),
        [schema, _] => schema == "pg_catalog",
        _ => false,
    }
}
