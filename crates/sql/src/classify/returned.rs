//! How many columns a RETURNING list has.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{Node, RangeVar, ReturningClause, SelectStmt, WithClause};

use crate::nodes::{boxed, kind, relation, string};
use crate::write::{RelationName, Returned};

/// What a statement's stars may stand for.
pub(super) struct Scope<'a> {
    /// The table written, if it is one that writes.
    pub target: Option<&'a RelationName>,
    /// What else is in its FROM or USING.
    pub from: &'a [Node],
    /// Its WITH.
    pub with: Option<&'a WithClause>,
    /// Queries within queries that are still looked into: one in WITH may name itself.
    pub depth: usize,
}

/// [`Scope::depth`] of a whole statement.
pub(super) const DEPTH_MAX: usize = 4;

impl Scope<'_> {
    pub fn returned(&self, clause: &Option<ReturningClause>) -> Returned {
        let mut returned = Returned::default();
        if let Some(clause) = clause {
            self.list(&clause.exprs, clause.options.iter().filter_map(option_name), &mut returned);
        }
        returned
    }

    /// The elements of a list; `rows` are names that its options give to the row that is written.
    fn list<'n>(&self, elements: &[Node], rows: impl Iterator<Item = &'n str>, returned: &mut Returned) {
        let rows: Vec<&str> = rows.collect();
        for element in elements {
            let value = match kind(element) {
                Some(Kind::ResTarget(target)) => boxed(&target.val),
                _ => None,
            };
            match value {
                Some(Kind::ColumnRef(column)) if ends_in_star(&column.fields) => {
                    self.star(&column.fields, &rows, returned);
                }
                Some(Kind::AIndirection(of)) if ends_in_star(&of.indirection) => returned.uncounted = true,
                _ => returned.columns += 1,
            }
        }
    }

    fn star(&self, fields: &[Node], rows: &[&str], returned: &mut Returned) {
        let names: Vec<&str> = fields.iter().filter_map(string).collect();
        let (schema, name) = match names.as_slice() {
            [] => {
                returned.targets += usize::from(self.target.is_some());
                return self.from.iter().for_each(|item| self.item(item, returned));
            }
            [name] => (None, *name),
            [.., schema, name] => (Some(*schema), *name),
        };
        let is_target = |target: &RelationName| match schema {
            Some(_) => target.alias.is_none() && target.name == name && target.schema.as_deref() == schema,
            None => target.exposed() == name || rows.contains(&name) || matches!(name, "old" | "new"),
        };
        let named = self.from.iter().find_map(|item| named(item, schema, name));
        match named {
            Some(item) => self.item(item, returned),
            None if self.target.is_some_and(is_target) => returned.targets += 1,
            None => returned.uncounted = true,
        }
    }

    /// All columns of an item of a FROM list.
    fn item(&self, item: &Node, returned: &mut Returned) {
        match kind(item) {
            Some(Kind::RangeVar(range)) => match self.of_with(range) {
                Some(query) => self.query(query, returned),
                None => returned.relations.push(relation(range)),
            },
            Some(Kind::RangeSubselect(subselect)) => self.query(boxed(&subselect.subquery), returned),
            // what USING merges is counted twice
            Some(Kind::JoinExpr(join)) => {
                [&join.larg, &join.rarg].into_iter().flatten().for_each(|side| self.item(side, returned));
            }
            Some(Kind::RangeTableSample(sample)) => {
                sample.relation.iter().for_each(|inner| self.item(inner, returned));
            }
            _ => returned.uncounted = true,
        }
    }

    /// The query that a name in WITH stands for.
    fn of_with(&self, range: &RangeVar) -> Option<Option<&Kind>> {
        let queries = self.with.filter(|_| range.schemaname.is_empty()).into_iter().flat_map(|with| &with.ctes);
        queries.filter_map(kind).find_map(|query| match query {
            Kind::CommonTableExpr(query) if query.ctename == range.relname => Some(boxed(&query.ctequery)),
            _ => None,
        })
    }

    fn query(&self, query: Option<&Kind>, returned: &mut Returned) {
        let Some(Kind::SelectStmt(select)) = query else {
            returned.uncounted = true;
            return;
        };
        let mut select: &SelectStmt = select;
        // the columns of a UNION are those of its first part
        while let Some(first) = &select.larg {
            select = first;
        }
        match select.values_lists.first().and_then(kind) {
            Some(Kind::List(row)) => returned.columns += row.items.len(),
            _ if select.with_clause.is_some() || self.depth == 0 => returned.uncounted = true,
            _ => {
                let inner = Scope { target: None, from: &select.from_clause, with: self.with, depth: self.depth - 1 };
                inner.list(&select.target_list, std::iter::empty(), returned);
            }
        }
    }
}

/// The item of a FROM list that goes by this name.
fn named<'n>(item: &'n Node, schema: Option<&str>, name: &str) -> Option<&'n Node> {
    let aliased = |alias: &Option<pg_query::protobuf::Alias>| {
        schema.is_none() && alias.as_ref().is_some_and(|alias| alias.aliasname == name)
    };
    let found = match kind(item)? {
        Kind::RangeVar(range) => match &range.alias {
            Some(_) => aliased(&range.alias),
            None => range.relname == name && schema.is_none_or(|schema| range.schemaname == schema),
        },
        Kind::RangeSubselect(subselect) => aliased(&subselect.alias),
        Kind::RangeFunction(function) => aliased(&function.alias),
        Kind::JoinExpr(join) if !aliased(&join.alias) => {
            let mut sides = [&join.larg, &join.rarg].into_iter().flatten();
            return sides.find_map(|side| named(side, schema, name));
        }
        Kind::JoinExpr(_) => true,
        Kind::RangeTableSample(sample) => return named(sample.relation.as_deref()?, schema, name),
        _ => false,
    };
    found.then_some(item)
}

fn ends_in_star(fields: &[Node]) -> bool {
    matches!(fields.last().and_then(kind), Some(Kind::AStar(_)))
}

/// The name that RETURNING WITH gives to the old or the new row.
fn option_name(option: &Node) -> Option<&str> {
    match kind(option)? {
        Kind::ReturningOption(option) => Some(&option.value),
        _ => None,
    }
}
