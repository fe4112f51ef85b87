//! The rows that an INSERT's VALUES list gives.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{InsertStmt, SelectStmt};

use crate::classify::fixed_value;
use crate::nodes::{boxed, kind};
use crate::parse::with_trees;
use crate::statement::Statement;
use crate::write::Fixed;

/// The values of each row, by their places: `None` where one isn't a constant or a parameter.
///
/// `text` is the whole query string and `statement` one of those that [`crate::parse`] found in it: INSERT, or PREPARE of one. `None` if
/// it has no plain VALUES list.
pub fn values(text: &str, statement: &Statement) -> Option<Vec<Vec<Option<Fixed>>>> {
    let found = with_trees(text, |trees| {
        let tree = trees.into_iter().find(|tree| tree.range == statement.range);
        Ok(tree.as_ref().and_then(|tree| insert_of(kind(&tree.node)?)).and_then(rows))
    });
    found.ok().flatten()
}

fn insert_of(node: &Kind) -> Option<&InsertStmt> {
    match node {
        Kind::InsertStmt(insert) => Some(insert),
        Kind::PrepareStmt(prepare) => insert_of(boxed(&prepare.query)?),
        _ => None,
    }
}

fn rows(insert: &InsertStmt) -> Option<Vec<Vec<Option<Fixed>>>> {
    let Some(Kind::SelectStmt(select)) = boxed(&insert.select_stmt) else { return None };
    let SelectStmt { values_lists, .. } = &**select;
    let row = |list: &_| match kind(list)? {
        Kind::List(row) => Some(row.items.iter().map(|value| fixed_value(kind(value)?)).collect()),
        _ => None,
    };
    if values_lists.is_empty() { None } else { values_lists.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Vec<Vec<Option<Fixed>>>> {
        let parsed = crate::parse(text).unwrap();
        values(text, &parsed.statements[0])
    }

    #[test]
    fn rows_of_constants_and_parameters() {
        let number = |n: &str| Some(Fixed::Literal(n.to_owned()));
        let expected = Some(vec![vec![number("1"), None], vec![Some(Fixed::Parameter(2)), number("a")]]);
        assert_eq!(of("INSERT INTO t VALUES (1, now()), ($2, 'a')"), expected);
        assert_eq!(of("PREPARE p AS INSERT INTO t VALUES (1, DEFAULT), ($2, 'a') RETURNING 1"), expected);
        assert_eq!(of("INSERT INTO t SELECT 1"), None);
        assert_eq!(of("INSERT INTO t DEFAULT VALUES"), None);
        assert_eq!(of("UPDATE t SET v = 1"), None);
    }
}
