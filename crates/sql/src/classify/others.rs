//! What a change of definitions names besides tables: a name that a temporary object may have.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{Node, ObjectType, RangeVar};

use super::objects::{is_table_like, object_type, relation_named};
use crate::nodes::{relation, relations};
use crate::summary::Summary;
use crate::write::RelationName;

/// The relation that it makes, or the new name that it gives to one.
pub(super) fn made(statement: &Kind) -> Option<RelationName> {
    let range = match statement {
        Kind::CreateStmt(create) => create.relation.as_ref(),
        Kind::CreateTableAsStmt(create) => create.into.as_ref()?.rel.as_ref(),
        Kind::CreateSeqStmt(create) => create.sequence.as_ref(),
        Kind::ViewStmt(view) => view.view.as_ref(),
        Kind::IndexStmt(index) if !index.idxname.is_empty() => {
            let table = index.relation.as_ref().map(relation)?;
            return Some(RelationName { name: index.idxname.clone(), alias: None, only: false, ..table });
        }
        Kind::RenameStmt(rename) => {
            let object = object_type(rename.rename_type);
            let renamed =
                is_table_like(object) || matches!(object, ObjectType::ObjectIndex | ObjectType::ObjectSequence);
            let old = rename.relation.as_ref().filter(|_| renamed).map(relation)?;
            return Some(RelationName { name: rename.newname.clone(), ..old });
        }
        _ => None,
    };
    range.map(relation)
}

/// The relations that a view is to read.
pub(super) fn reads(statement: &Kind, summary: &Summary) -> Vec<RelationName> {
    let Kind::ViewStmt(view) = statement else { return Vec::new() };
    let own = view.view.as_ref().map(relation);
    let of_with = |name: &RelationName| name.schema.is_none() && summary.queries.contains(&name.name);
    summary.relations.iter().filter(|name| own.as_ref() != Some(name) && !of_with(name)).cloned().collect()
}

/// The indexes and sequences that it changes or drops.
pub(super) fn others(statement: &Kind) -> Vec<RelationName> {
    let one = |object: i32, range: &Option<RangeVar>| match object_type(object) {
        ObjectType::ObjectIndex | ObjectType::ObjectSequence => range.iter().map(relation).collect(),
        _ => Vec::new(),
    };
    let named = |object: i32, name: &Node| match object_type(object) {
        ObjectType::ObjectIndex | ObjectType::ObjectSequence => relation_named(name),
        _ => None,
    };
    match statement {
        Kind::AlterSeqStmt(alter) => alter.sequence.iter().map(relation).collect(),
        Kind::AlterTableStmt(alter) => one(alter.objtype, &alter.relation),
        Kind::RenameStmt(rename) => one(rename.rename_type, &rename.relation),
        Kind::AlterObjectSchemaStmt(alter) => one(alter.object_type, &alter.relation),
        Kind::DropStmt(dropped) => dropped.objects.iter().filter_map(|name| named(dropped.remove_type, name)).collect(),
        Kind::CommentStmt(comment) => comment.object.iter().filter_map(|name| named(comment.objtype, name)).collect(),
        Kind::SecLabelStmt(label) => label.object.iter().filter_map(|name| named(label.objtype, name)).collect(),
        Kind::GrantStmt(grant) if object_type(grant.objtype) == ObjectType::ObjectSequence => relations(&grant.objects),
        _ => Vec::new(),
    }
}
