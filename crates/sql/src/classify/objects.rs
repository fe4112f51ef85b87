//! Kinds of objects: their words in command tags, and what of them is about tables.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{Node, ObjectType};

use crate::nodes::{kind, relation_of_parts, strings};
use crate::write::RelationName;

pub(super) fn object_type(value: i32) -> ObjectType {
    ObjectType::try_from(value).unwrap_or(ObjectType::Undefined)
}

/// The words of the kind, as in a command tag.
pub(super) fn words(object: ObjectType) -> &'static str {
    match object {
        ObjectType::ObjectAccessMethod => "ACCESS METHOD",
        ObjectType::ObjectAggregate => "AGGREGATE",
        ObjectType::ObjectCast => "CAST",
        ObjectType::ObjectCollation => "COLLATION",
        ObjectType::ObjectConversion => "CONVERSION",
        ObjectType::ObjectDatabase => "DATABASE",
        ObjectType::ObjectDomain | ObjectType::ObjectDomconstraint => "DOMAIN",
        ObjectType::ObjectEventTrigger => "EVENT TRIGGER",
        ObjectType::ObjectExtension => "EXTENSION",
        ObjectType::ObjectFdw => "FOREIGN DATA WRAPPER",
        ObjectType::ObjectForeignServer => "SERVER",
        ObjectType::ObjectForeignTable => "FOREIGN TABLE",
        ObjectType::ObjectFunction => "FUNCTION",
        ObjectType::ObjectIndex => "INDEX",
        ObjectType::ObjectLanguage => "LANGUAGE",
        ObjectType::ObjectLargeobject => "LARGE OBJECT",
        ObjectType::ObjectMatview => "MATERIALIZED VIEW",
        ObjectType::ObjectOpclass => "OPERATOR CLASS",
        ObjectType::ObjectOperator => "OPERATOR",
        ObjectType::ObjectOpfamily => "OPERATOR FAMILY",
        ObjectType::ObjectPolicy => "POLICY",
        ObjectType::ObjectProcedure => "PROCEDURE",
        ObjectType::ObjectPublication => "PUBLICATION",
        ObjectType::ObjectRole => "ROLE",
        ObjectType::ObjectRoutine => "ROUTINE",
        ObjectType::ObjectRule => "RULE",
        ObjectType::ObjectSchema => "SCHEMA",
        ObjectType::ObjectSequence => "SEQUENCE",
        ObjectType::ObjectStatisticExt => "STATISTICS",
        ObjectType::ObjectSubscription => "SUBSCRIPTION",
        ObjectType::ObjectTable | ObjectType::ObjectColumn | ObjectType::ObjectTabconstraint => "TABLE",
        ObjectType::ObjectTablespace => "TABLESPACE",
        ObjectType::ObjectTransform => "TRANSFORM",
        ObjectType::ObjectTrigger => "TRIGGER",
        ObjectType::ObjectTsconfiguration => "TEXT SEARCH CONFIGURATION",
        ObjectType::ObjectTsdictionary => "TEXT SEARCH DICTIONARY",
        ObjectType::ObjectTsparser => "TEXT SEARCH PARSER",
        ObjectType::ObjectTstemplate => "TEXT SEARCH TEMPLATE",
        ObjectType::ObjectType | ObjectType::ObjectAttribute => "TYPE",
        ObjectType::ObjectUserMapping => "USER MAPPING",
        ObjectType::ObjectView => "VIEW",
        _ => "OBJECT",
    }
}

/// Shared by all databases of a cluster.
pub(super) fn is_cluster_wide(object: ObjectType) -> bool {
    matches!(
        object,
        ObjectType::ObjectDatabase
            | ObjectType::ObjectParameterAcl
            | ObjectType::ObjectRole
            | ObjectType::ObjectTablespace
    )
}

/// A relation that holds or shows rows.
pub(super) fn is_table_like(object: ObjectType) -> bool {
    matches!(
        object,
        ObjectType::ObjectTable | ObjectType::ObjectForeignTable | ObjectType::ObjectView | ObjectType::ObjectMatview
    )
}

/// A relation's name, of one part or several.
pub(super) fn relation_named(name: &Node) -> Option<RelationName> {
    match kind(name)? {
        Kind::List(list) => relation_of_parts(&strings(&list.items)),
        _ => None,
    }
}

/// The table that a name of this kind of object is or belongs to.
pub(super) fn table_of_name(object: ObjectType, name: &Node) -> Option<RelationName> {
    let parts = match kind(name)? {
        Kind::List(list) => strings(&list.items),
        _ => return None,
    };
    let belongs = matches!(
        object,
        ObjectType::ObjectColumn
            | ObjectType::ObjectPolicy
            | ObjectType::ObjectRule
            | ObjectType::ObjectTabconstraint
            | ObjectType::ObjectTrigger
    );
    if is_table_like(object) {
        relation_of_parts(&parts)
    } else if belongs {
        relation_of_parts(parts.split_last()?.1)
    } else {
        None
    }
}
