//! The names by which a statement's relations go in its RETURNING list.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{Alias, Node, RangeVar};

use crate::nodes::kind;
use crate::summary::Summary;

/// Whether another relation goes by the target's name, so that a reference could mean either.
///
/// The server allows this where neither has an alias and the schemas differ.
pub(crate) fn is_ambiguous(statement: &Node) -> bool {
    match kind(statement) {
        Some(Kind::UpdateStmt(update)) => clashes(&update.relation, &update.from_clause),
        Some(Kind::DeleteStmt(delete)) => clashes(&delete.relation, &delete.using_clause),
        Some(Kind::MergeStmt(merge)) => merge.relation.as_ref().is_none_or(|target| {
            merge.source_relation.as_deref().is_none_or(|source| exposes(source, name_of(target)))
        }),
        Some(Kind::PrepareStmt(prepare)) => prepare.query.as_deref().is_none_or(is_ambiguous),
        // RETURNING of an INSERT sees the target only.
        Some(Kind::InsertStmt(_)) => false,
        _ => true,
    }
}

fn clashes(target: &Option<RangeVar>, others: &[Node]) -> bool {
    target.as_ref().is_none_or(|target| {
        let name = name_of(target);
        others.iter().any(|other| exposes(other, name))
    })
}

fn name_of(range: &RangeVar) -> &str {
    range.alias.as_ref().map_or(&range.relname, |alias| &alias.aliasname)
}

/// Whether an item of a FROM list exposes the name; what isn't understood does.
fn exposes(item: &Node, name: &str) -> bool {
    let aliased = |alias: &Option<Alias>| alias.as_ref().is_some_and(|alias| alias.aliasname == name);
    match kind(item) {
        Some(Kind::RangeVar(range)) => name_of(range) == name,
        Some(Kind::RangeSubselect(subselect)) => aliased(&subselect.alias),
        Some(Kind::RangeTableFunc(table)) => aliased(&table.alias),
        Some(Kind::JsonTable(table)) => aliased(&table.alias),
        // Without an alias the function's name serves.
        Some(Kind::RangeFunction(function)) => {
            aliased(&function.alias)
                || (function.alias.is_none() && Summary::of(item).functions.iter().any(|call| call.name == name))
        }
        Some(Kind::RangeTableSample(sample)) => sample.relation.as_deref().is_none_or(|inner| exposes(inner, name)),
        Some(Kind::JoinExpr(join)) => {
            aliased(&join.alias)
                || aliased(&join.join_using_alias)
                || [&join.larg, &join.rarg].iter().any(|side| side.as_deref().is_none_or(|side| exposes(side, name)))
        }
        _ => true,
    }
}
