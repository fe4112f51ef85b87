//! Functions, types and the like that a change of definitions names: their schema may be the temporary one.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{Node, ObjectType};

use super::objects::object_type;
use crate::ddl::ObjectKind;
use crate::nodes::{kind, relation, relation_of_parts, strings};
use crate::write::RelationName;

/// What stands in a schema, besides relations and what belongs to one.
fn stands_in_schema(object: ObjectType) -> bool {
    is_type(object)
        || matches!(
            object,
            ObjectType::ObjectAggregate
                | ObjectType::ObjectCollation
                | ObjectType::ObjectConversion
                | ObjectType::ObjectFunction
                | ObjectType::ObjectOperator
                | ObjectType::ObjectProcedure
                | ObjectType::ObjectRoutine
                | ObjectType::ObjectStatisticExt
                | ObjectType::ObjectTsconfiguration
                | ObjectType::ObjectTsdictionary
                | ObjectType::ObjectTsparser
                | ObjectType::ObjectTstemplate
        )
}

fn is_type(object: ObjectType) -> bool {
    matches!(object, ObjectType::ObjectType | ObjectType::ObjectDomain | ObjectType::ObjectDomconstraint)
}

/// Those that it makes, changes or drops.
pub(super) fn objects(statement: &Kind) -> Vec<RelationName> {
    let one = |parts: &[Node]| relation_of_parts(&strings(parts)).into_iter().collect();
    let of_kind = |object: i32, name: &Option<Box<Node>>| {
        let name = name.as_deref().filter(|_| stands_in_schema(object_type(object)));
        name.and_then(name_of).into_iter().collect()
    };
    let all_of_kind = |object: i32, names: &[Node]| {
        let names = names.iter().filter(|_| stands_in_schema(object_type(object)));
        names.filter_map(name_of).collect()
    };
    match statement {
        Kind::CreateFunctionStmt(create) => one(&create.funcname),
        Kind::DefineStmt(define) => one(&define.defnames),
        Kind::CreateConversionStmt(create) => one(&create.conversion_name),
        Kind::CreateStatsStmt(create) => one(&create.defnames),
        Kind::CreateEnumStmt(create) => one(&create.type_name),
        Kind::CreateRangeStmt(create) => one(&create.type_name),
        Kind::CreateDomainStmt(create) => one(&create.domainname),
        Kind::CompositeTypeStmt(create) => create.typevar.iter().map(relation).collect(),
        Kind::AlterEnumStmt(alter) => one(&alter.type_name),
        Kind::AlterDomainStmt(alter) => one(&alter.type_name),
        Kind::AlterTypeStmt(alter) => one(&alter.type_name),
        Kind::AlterTableStmt(alter) if object_type(alter.objtype) == ObjectType::ObjectType => {
            alter.relation.iter().map(relation).collect()
        }
        Kind::AlterFunctionStmt(alter) => alter.func.iter().flat_map(|function| one(&function.objname)).collect(),
        Kind::AlterStatsStmt(alter) => one(&alter.defnames),
        Kind::RenameStmt(rename) if object_type(rename.rename_type) == ObjectType::ObjectAttribute => {
            rename.relation.iter().map(relation).collect()
        }
        Kind::RenameStmt(rename) => of_kind(rename.rename_type, &rename.object),
        Kind::AlterObjectSchemaStmt(alter) => of_kind(alter.object_type, &alter.object),
        Kind::AlterOwnerStmt(alter) => of_kind(alter.object_type, &alter.object),
        Kind::DropStmt(dropped) => all_of_kind(dropped.remove_type, &dropped.objects),
        Kind::CommentStmt(comment) => of_kind(comment.objtype, &comment.object),
        Kind::SecLabelStmt(label) => of_kind(label.objtype, &label.object),
        Kind::GrantStmt(grant) => all_of_kind(grant.objtype, &grant.objects),
        _ => Vec::new(),
    }
}

/// What they are. Names of types are looked for among the temporary ones too; those of functions and the like are not
/// (`search_path` in the manual's "Client Connection Defaults").
pub(super) fn kind_of_objects(statement: &Kind) -> ObjectKind {
    let object = match statement {
        Kind::CreateEnumStmt(_) | Kind::CreateRangeStmt(_) | Kind::CreateDomainStmt(_) | Kind::CompositeTypeStmt(_) => {
            return ObjectKind::Type;
        }
        Kind::AlterEnumStmt(_) | Kind::AlterDomainStmt(_) | Kind::AlterTypeStmt(_) => return ObjectKind::Type,
        Kind::AlterStatsStmt(_) => return ObjectKind::Statistics,
        Kind::AlterTableStmt(alter) => alter.objtype,
        Kind::RenameStmt(rename) if object_type(rename.rename_type) == ObjectType::ObjectAttribute => {
            return ObjectKind::Type;
        }
        Kind::RenameStmt(rename) => rename.rename_type,
        Kind::AlterObjectSchemaStmt(alter) => alter.object_type,
        Kind::AlterOwnerStmt(alter) => alter.object_type,
        Kind::DropStmt(dropped) => dropped.remove_type,
        Kind::CommentStmt(comment) => comment.objtype,
        Kind::SecLabelStmt(label) => label.objtype,
        Kind::GrantStmt(grant) => grant.objtype,
        _ => return ObjectKind::Other,
    };
    match object_type(object) {
        ObjectType::ObjectStatisticExt => ObjectKind::Statistics,
        object if is_type(object) => ObjectKind::Type,
        _ => ObjectKind::Other,
    }
}

fn name_of(node: &Node) -> Option<RelationName> {
    match kind(node)? {
        Kind::ObjectWithArgs(function) => relation_of_parts(&strings(&function.objname)),
        Kind::TypeName(name) => relation_of_parts(&strings(&name.names)),
        // a domain's constraint stands behind the domain
        Kind::List(list) => match list.items.first().and_then(kind) {
            Some(Kind::TypeName(name)) => relation_of_parts(&strings(&name.names)),
            _ => relation_of_parts(&strings(&list.items)),
        },
        _ => None,
    }
}
