//! Small readings of parse-tree nodes.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{AConst, Node, RangeVar, a_const};

use crate::write::RelationName;

pub(crate) fn kind(node: &Node) -> Option<&Kind> {
    node.node.as_ref()
}

pub(crate) fn boxed(node: &Option<Box<Node>>) -> Option<&Kind> {
    node.as_ref()?.node.as_ref()
}

pub(crate) fn relation(range: &RangeVar) -> RelationName {
    RelationName {
        schema: not_empty(&range.schemaname),
        name: range.relname.clone(),
        alias: range.alias.as_ref().map(|alias| alias.aliasname.clone()),
        only: !range.inh,
    }
}

pub(crate) fn relations(nodes: &[Node]) -> Vec<RelationName> {
    nodes
        .iter()
        .filter_map(|node| match kind(node)? {
            Kind::RangeVar(range) => Some(relation(range)),
            _ => None,
        })
        .collect()
}

/// A name of one, two or three parts that isn't a RangeVar in the tree.
pub(crate) fn relation_of_parts(parts: &[String]) -> Option<RelationName> {
    let (name, qualifiers) = parts.split_last()?;
    Some(RelationName { schema: qualifiers.last().cloned(), name: name.clone(), alias: None, only: false })
}

pub(crate) fn not_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub(crate) fn string(node: &Node) -> Option<&str> {
    match kind(node)? {
        Kind::String(string) => Some(&string.sval),
        _ => None,
    }
}

pub(crate) fn strings(nodes: &[Node]) -> Vec<String> {
    nodes.iter().filter_map(string).map(str::to_owned).collect()
}

/// A constant as text; `None` for NULL.
pub(crate) fn constant(constant: &AConst) -> Option<String> {
    Some(match constant.val.as_ref()? {
        a_const::Val::Ival(integer) => integer.ival.to_string(),
        a_const::Val::Fval(float) => float.fval.clone(),
        a_const::Val::Boolval(boolean) => boolean.boolval.to_string(),
        a_const::Val::Sval(string) => string.sval.clone(),
        a_const::Val::Bsval(bits) => bits.bsval.clone(),
    })
}

/// The value of a setting or option as text.
pub(crate) fn option_text(node: &Node) -> Option<String> {
    Some(match kind(node)? {
        Kind::String(string) => string.sval.clone(),
        Kind::Integer(integer) => integer.ival.to_string(),
        Kind::Float(float) => float.fval.clone(),
        Kind::Boolean(boolean) => boolean.boolval.to_string(),
        Kind::AConst(value) => constant(value)?,
        Kind::TypeCast(cast) => option_text(cast.arg.as_deref()?)?,
        Kind::TypeName(name) => strings(&name.names).join("."),
        Kind::AStar(_) => "*".to_owned(),
        Kind::List(list) => list.items.iter().filter_map(option_text).collect::<Vec<_>>().join(","),
        _ => return None,
    })
}
