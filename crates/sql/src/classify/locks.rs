//! What definitions lock, and for how long: ALTER TABLE's own chapter of the manual, 13.3.1, and those of the other commands.
//!
//! Only what keeps others from reading or writing rows. Where a text can mean more than one thing (a constraint that turns out to hold
//! already, a type that needs no rewriting), the longer one is meant.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{
    AlterTableCmd, AlterTableStmt, AlterTableType, ColumnDef, ConstrType, Constraint, CreateStmt, DropStmt, Node,
    ObjectType, RangeVar, ReindexObjectType, ReindexStmt, RenameStmt, VacuumStmt,
};

use super::commands::is_on;
use super::objects::{is_table_like, object_type, relation_named, table_of_name};
use super::tables::{is_plain_constant, is_serial, rewrites};
use crate::nodes::{boxed, kind, relation, strings};
use crate::table_lock::{LockMode, LongWork, TableLock};
use crate::write::RelationName;

const REWRITES: LongWork = LongWork {
    what: "writes anew all rows of",
    instead: "add another column, fill it in parts, and change over to it",
};
const READS: LongWork = LongWork {
    what: "reads all rows of",
    instead: "add a CHECK constraint NOT VALID and VALIDATE CONSTRAINT it: from 12 on SET NOT NULL is satisfied by that",
};
const CHECKS: LongWork = LongWork {
    what: "checks all rows of",
    instead: "add the constraint NOT VALID, and VALIDATE CONSTRAINT it in another transaction",
};
const INDEXES: LongWork = LongWork {
    what: "makes an index over all rows of",
    instead: "CREATE UNIQUE INDEX CONCURRENTLY, then ADD CONSTRAINT ... USING INDEX",
};
const INDEX: LongWork = LongWork { what: "makes an index over all rows of", instead: "CREATE INDEX CONCURRENTLY" };
const REINDEX: LongWork = LongWork { what: "makes anew the indexes of", instead: "REINDEX (CONCURRENTLY), from 12 on" };
const PACKS: LongWork =
    LongWork { what: "writes anew all rows of", instead: "a tool that packs tables while they are used" };
const REFRESHES: LongWork = LongWork {
    what: "computes all rows of",
    instead: "REFRESH MATERIALIZED VIEW CONCURRENTLY, which needs a unique index",
};
const ATTACHES: LongWork = LongWork {
    what: "checks all rows of",
    instead: "add a CHECK constraint like the partition's bounds NOT VALID, and VALIDATE CONSTRAINT it, before",
};

/// What a statement locks that is there already.
pub(super) fn locks(statement: &Kind) -> Vec<TableLock> {
    let one =
        |range: &Option<RangeVar>, mode, work| range.iter().map(|range| lock(relation(range), mode, work)).collect();
    match statement {
        Kind::AlterTableStmt(alter) => altered(alter),
        Kind::IndexStmt(index) if !index.concurrent => one(&index.relation, LockMode::Share, Some(INDEX)),
        Kind::DropStmt(dropped) if !dropped.concurrent => dropped_objects(dropped),
        Kind::RenameStmt(rename) => renamed(rename),
        Kind::AlterObjectSchemaStmt(alter) if is_table_like(object_type(alter.object_type)) => {
            one(&alter.relation, LockMode::AccessExclusive, None).into_iter().map(itself).collect()
        }
        Kind::CreateStmt(create) => created(create),
        Kind::CreateTrigStmt(trigger) => one(&trigger.relation, LockMode::ShareRowExclusive, None),
        Kind::RuleStmt(rule) => one(&rule.relation, LockMode::AccessExclusive, None),
        Kind::CreatePolicyStmt(policy) => one(&policy.table, LockMode::AccessExclusive, None),
        Kind::AlterPolicyStmt(policy) => one(&policy.table, LockMode::AccessExclusive, None),
        Kind::RefreshMatViewStmt(refresh) if !refresh.concurrent => {
            one(&refresh.relation, LockMode::AccessExclusive, (!refresh.skip_data).then_some(REFRESHES))
        }
        Kind::ViewStmt(view) if view.replace => one(&view.view, LockMode::AccessExclusive, None),
        Kind::ClusterStmt(cluster) => one(&cluster.relation, LockMode::AccessExclusive, Some(PACKS)),
        Kind::VacuumStmt(vacuum) if vacuum.is_vacuumcmd => vacuumed(vacuum),
        Kind::ReindexStmt(reindex) => reindexed(reindex),
        _ => Vec::new(),
    }
}

fn lock(relation: RelationName, mode: LockMode, work: Option<LongWork>) -> TableLock {
    TableLock { children: !relation.only, relation, of_index: false, mode, work }
}

/// What others below it don't notice.
fn itself(lock: TableLock) -> TableLock {
    TableLock { children: false, ..lock }
}

fn altered(alter: &AlterTableStmt) -> Vec<TableLock> {
    let Some(range) = alter.relation.as_ref().filter(|_| is_table_like(object_type(alter.objtype))) else {
        return Vec::new();
    };
    let (mut own, mut others): (Option<TableLock>, _) = (None, Vec::new());
    for command in alter.cmds.iter().filter_map(kind) {
        let Kind::AlterTableCmd(command) = command else { continue };
        if let Some((mode, work)) = of_command(command) {
            let one = lock(relation(range), mode, work);
            let detaches = command.subtype == AlterTableType::AtDetachPartition as i32;
            let one = if detaches { itself(one) } else { one };
            own = Some(match own {
                None => one,
                Some(known) => TableLock {
                    mode: known.mode.max(mode),
                    work: known.work.or(work),
                    children: known.children || one.children,
                    ..known
                },
            });
        }
        others.extend(referenced(command));
    }
    own.into_iter().chain(others).collect()
}

/// What one part of ALTER TABLE takes on the table itself; `None`: a lock that keeps nobody from its rows.
fn of_command(command: &AlterTableCmd) -> Option<(LockMode, Option<LongWork>)> {
    use AlterTableType as Alter;
    let strongest = LockMode::AccessExclusive;
    let subtype = Alter::try_from(command.subtype).unwrap_or(Alter::Undefined);
    Some(match (subtype, boxed(&command.def)) {
        (
            Alter::AtSetStatistics
            | Alter::AtValidateConstraint
            | Alter::AtSetOptions
            | Alter::AtResetOptions
            | Alter::AtSetRelOptions
            | Alter::AtResetRelOptions
            | Alter::AtReplaceRelOptions
            | Alter::AtClusterOn
            | Alter::AtDropCluster
            | Alter::AtAttachPartition
            | Alter::AtDetachPartitionFinalize,
            _,
        ) => return None,
        (Alter::AtDetachPartition, Some(Kind::PartitionCmd(part))) if part.concurrent => return None,
        (
            Alter::AtEnableTrig
            | Alter::AtEnableAlwaysTrig
            | Alter::AtEnableReplicaTrig
            | Alter::AtEnableTrigAll
            | Alter::AtEnableTrigUser
            | Alter::AtDisableTrig
            | Alter::AtDisableTrigAll
            | Alter::AtDisableTrigUser,
            _,
        ) => (LockMode::ShareRowExclusive, None),
        (Alter::AtAddConstraint, Some(Kind::Constraint(constraint))) => of_constraint(constraint),
        (Alter::AtSetNotNull, _) => (strongest, Some(READS)),
        (Alter::AtAddColumn, Some(Kind::ColumnDef(column))) => (strongest, of_column(column)),
        (Alter::AtSetTableSpace, _) => (strongest, Some(REWRITES)),
        _ => (strongest, rewrites(command).then_some(REWRITES)),
    })
}

fn contype(constraint: &Constraint) -> ConstrType {
    ConstrType::try_from(constraint.contype).unwrap_or(ConstrType::Undefined)
}

fn of_constraint(constraint: &Constraint) -> (LockMode, Option<LongWork>) {
    let strongest = LockMode::AccessExclusive;
    match contype(constraint) {
        ConstrType::ConstrForeign => (LockMode::ShareRowExclusive, (!constraint.skip_validation).then_some(CHECKS)),
        ConstrType::ConstrPrimary | ConstrType::ConstrUnique | ConstrType::ConstrExclusion => {
            (strongest, constraint.indexname.is_empty().then_some(INDEXES))
        }
        _ => (strongest, (!constraint.skip_validation).then_some(CHECKS)),
    }
}

/// What ADD COLUMN does with the rows that are there.
fn of_column(column: &ColumnDef) -> Option<LongWork> {
    let of_one = |node: &Node| match kind(node) {
        Some(Kind::Constraint(constraint)) => match contype(constraint) {
            ConstrType::ConstrGenerated | ConstrType::ConstrIdentity => Some(REWRITES),
            // a constant is kept beside the table from 11 on, and so is what has one value in a statement
            ConstrType::ConstrDefault if !constraint.raw_expr.as_deref().is_none_or(is_stable) => Some(REWRITES),
            ConstrType::ConstrPrimary | ConstrType::ConstrUnique => Some(INDEXES),
            ConstrType::ConstrCheck => Some(CHECKS),
            _ => None,
        },
        _ => None,
    };
    if is_serial(column) { Some(REWRITES) } else { column.constraints.iter().find_map(of_one) }
}

/// A default that isn't computed for each row.
fn is_stable(default: &Node) -> bool {
    match kind(default) {
        Some(Kind::SqlvalueFunction(_)) => true,
        Some(Kind::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_stable),
        Some(Kind::FuncCall(call)) => {
            let name = strings(&call.funcname).pop();
            name.is_some_and(|name| matches!(name.as_str(), "now" | "statement_timestamp" | "transaction_timestamp"))
        }
        _ => is_plain_constant(default),
    }
}

/// Tables that a part of ALTER TABLE ties to it.
fn referenced(command: &AlterTableCmd) -> Vec<TableLock> {
    match boxed(&command.def) {
        Some(Kind::Constraint(constraint)) => of_foreign_key(constraint).into_iter().collect(),
        Some(Kind::ColumnDef(column)) => of_columns_keys(column).collect(),
        Some(Kind::PartitionCmd(part)) if !part.concurrent => {
            let attaches = command.subtype == AlterTableType::AtAttachPartition as i32;
            let locked = |range| lock(relation(range), LockMode::AccessExclusive, attaches.then_some(ATTACHES));
            part.name.iter().map(locked).collect()
        }
        _ => Vec::new(),
    }
}

fn of_columns_keys(column: &ColumnDef) -> impl Iterator<Item = TableLock> {
    column.constraints.iter().filter_map(|node| match kind(node)? {
        Kind::Constraint(constraint) => of_foreign_key(constraint),
        _ => None,
    })
}

fn of_foreign_key(constraint: &Constraint) -> Option<TableLock> {
    let range = constraint.pktable.as_ref().filter(|_| contype(constraint) == ConstrType::ConstrForeign)?;
    Some(lock(relation(range), LockMode::ShareRowExclusive, None))
}

fn created(create: &CreateStmt) -> Vec<TableLock> {
    let of_element = |node: &Node| match kind(node) {
        Some(Kind::Constraint(constraint)) => of_foreign_key(constraint).into_iter().collect(),
        Some(Kind::ColumnDef(column)) => of_columns_keys(column).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let elements = create.table_elts.iter().chain(&create.constraints).flat_map(of_element);
    // one that inherits takes less
    let parent =
        create.inh_relations.iter().filter(|_| create.partbound.is_some()).filter_map(|node| match kind(node)? {
            Kind::RangeVar(range) => Some(itself(lock(relation(range), LockMode::AccessExclusive, None))),
            _ => None,
        });
    elements.chain(parent).collect()
}

fn dropped_objects(dropped: &DropStmt) -> Vec<TableLock> {
    let object = object_type(dropped.remove_type);
    let strongest = |name| lock(name, LockMode::AccessExclusive, None);
    if object == ObjectType::ObjectIndex {
        let indexes = dropped.objects.iter().filter_map(relation_named);
        return indexes.map(|index| TableLock { of_index: true, ..strongest(index) }).collect();
    }
    let of_table = matches!(object, ObjectType::ObjectTrigger | ObjectType::ObjectRule | ObjectType::ObjectPolicy);
    if !of_table && !is_table_like(object) {
        return Vec::new();
    }
    dropped.objects.iter().filter_map(|name| table_of_name(object, name)).map(strongest).collect()
}

fn renamed(rename: &RenameStmt) -> Vec<TableLock> {
    let object = object_type(rename.rename_type);
    let of_table = matches!(
        object,
        ObjectType::ObjectColumn
            | ObjectType::ObjectTabconstraint
            | ObjectType::ObjectTrigger
            | ObjectType::ObjectRule
            | ObjectType::ObjectPolicy
    );
    let range = rename.relation.iter().filter(|_| of_table || is_table_like(object));
    let of_columns = object == ObjectType::ObjectColumn;
    let locked = |range| lock(relation(range), LockMode::AccessExclusive, None);
    range.map(|range| if of_columns { locked(range) } else { itself(locked(range)) }).collect()
}

fn vacuumed(vacuum: &VacuumStmt) -> Vec<TableLock> {
    if !is_on(&vacuum.options, "full") {
        return Vec::new();
    }
    let named = vacuum.rels.iter().filter_map(|node| match kind(node)? {
        Kind::VacuumRelation(named) => named.relation.as_ref(),
        _ => None,
    });
    named.map(|range| lock(relation(range), LockMode::AccessExclusive, Some(PACKS))).collect()
}

fn reindexed(reindex: &ReindexStmt) -> Vec<TableLock> {
    let of_index = match ReindexObjectType::try_from(reindex.kind) {
        _ if is_on(&reindex.params, "concurrently") => return Vec::new(),
        Ok(ReindexObjectType::ReindexObjectIndex) => true,
        Ok(ReindexObjectType::ReindexObjectTable) => false,
        _ => return Vec::new(),
    };
    // SHARE on the table, but ACCESS EXCLUSIVE on each index, which whoever plans a query opens
    let locked = |range| TableLock { of_index, ..lock(relation(range), LockMode::AccessExclusive, Some(REINDEX)) };
    reindex.relation.iter().map(locked).collect()
}
