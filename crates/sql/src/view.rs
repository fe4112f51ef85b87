//! A view's definition, read back.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{Node, SelectStmt};

use crate::nodes::{boxed, kind, relation, strings};
use crate::parse::with_trees;
use crate::write::RelationName;

/// Where the rows of a simple view come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewSource {
    /// The one relation in its FROM.
    pub base: RelationName,
    /// For each column of the view, in order: the base's column that it shows as it is, if it is one.
    pub columns: Vec<Option<String>>,
}

/// Reads what `pg_get_viewdef` prints; `None` unless it is one SELECT from one relation. Whether the view can be written is for
/// the server to say.
pub fn view_source(definition: &str) -> Option<ViewSource> {
    let source = with_trees(definition, |trees| {
        Ok(match trees.as_slice() {
            [raw] => match kind(&raw.node) {
                Some(Kind::SelectStmt(select)) => source(select),
                _ => None,
            },
            _ => None,
        })
    });
    source.ok().flatten()
}

fn source(select: &SelectStmt) -> Option<ViewSource> {
    let [from] = select.from_clause.as_slice() else { return None };
    let Some(Kind::RangeVar(range)) = kind(from) else { return None };
    Some(ViewSource { base: relation(range), columns: select.target_list.iter().map(shown).collect() })
}

fn shown(element: &Node) -> Option<String> {
    let Some(Kind::ResTarget(target)) = kind(element) else { return None };
    let Some(Kind::ColumnRef(column)) = boxed(&target.val) else { return None };
    let names = strings(&column.fields);
    (names.len() == column.fields.len()).then(|| names.last().cloned())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_views() {
        let view = view_source(" SELECT t.id,\n    x.v AS \"W\",\n    t.v + 1 AS n\n   FROM s.t x\n  WHERE t.id > 1;")
            .unwrap();
        assert_eq!((view.base.schema.as_deref(), view.base.name.as_str()), (Some("s"), "t"));
        assert_eq!(view.columns, vec![Some("id".to_owned()), Some("v".to_owned()), None]);
        assert_eq!(view_source("SELECT 1"), None);
        assert_eq!(view_source("SELECT a.x FROM a, b"), None);
        assert_eq!(view_source("SELECT a.x FROM (SELECT 1 AS x) a"), None);
    }
}
