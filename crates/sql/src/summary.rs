//! What is anywhere in a statement's tree: functions called, tables written, tables named.

use pg_query::protobuf::Node;

use crate::statement::FunctionName;
use crate::visit::{Frame, Visitor, visit};
use crate::write::RelationName;

/// What one walk over a statement's tree finds.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Functions called, each once.
    pub functions: Vec<FunctionName>,
    /// Operators, types and columns named, each once, without a schema.
    pub other_names: Vec<String>,
    /// CURRENT_TIMESTAMP and its like.
    pub value_functions: bool,
    /// FOR UPDATE and its like.
    pub locking: bool,
    /// The target of the first SELECT INTO or CREATE TABLE AS.
    pub into: Option<RelationName>,
    /// Targets of DML below the root, each once.
    pub nested_writes: Vec<RelationName>,
    /// Every relation named, each once.
    pub relations: Vec<RelationName>,
    /// Names that WITH gives to queries.
    pub queries: Vec<String>,
    /// Some relation is spelled as temporary.
    pub temporary: bool,
    parts: Vec<String>,
    relation: PartialRelation,
}

#[derive(Debug, Default)]
struct PartialRelation {
    schema: String,
    name: String,
    alias: Option<String>,
    inherits: bool,
}

impl Summary {
    pub(crate) fn of(node: &Node) -> Self {
        let mut summary = Summary::default();
        visit(node, &mut summary);
        summary
    }

    fn end_function(&mut self) {
        let mut parts = std::mem::take(&mut self.parts);
        if let Some(name) = parts.pop() {
            push_new(&mut self.functions, FunctionName { schema: parts.pop(), name });
        }
    }

    fn end_relation(&mut self, frames: &[Frame]) {
        let partial = std::mem::take(&mut self.relation);
        let relation = RelationName {
            schema: Some(partial.schema).filter(|schema| !schema.is_empty()),
            name: partial.name,
            alias: partial.alias,
            only: !partial.inherits,
        };
        match frames.last() {
            Some(("IntoClause", "rel")) if self.into.is_none() => self.into = Some(relation.clone()),
            // The root node itself adds the frame of its `Node` and of its own message.
            Some(("InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt", "relation")) if frames.len() > 2 => {
                push_new(&mut self.nested_writes, relation.clone());
            }
            _ => {}
        }
        push_new(&mut self.relations, relation);
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

impl Visitor for Summary {
    fn enter(&mut self, message: &'static str, _: &[Frame]) {
        match message {
            "SqlValueFunction" => self.value_functions = true,
            "LockingClause" => self.locking = true,
            "RangeVar" => self.relation = PartialRelation::default(),
            _ => {}
        }
    }

    fn leave(&mut self, message: &'static str, frames: &[Frame]) {
        if message == "RangeVar" {
            self.end_relation(frames);
        }
    }

    fn leave_field(&mut self, frames: &[Frame]) {
        if let [.., ("FuncCall", "funcname")] = frames {
            self.end_function();
        }
    }

    fn string(&mut self, value: &str, frames: &[Frame]) {
        match frames {
            [.., ("FuncCall", "funcname"), ("Node", "node"), ("String", "sval")] => self.parts.push(value.to_owned()),
            [.., ("AExpr" | "SubLink", "name" | "oper_name"), ("Node", "node"), ("String", "sval")]
            | [.., ("SortBy", "use_op"), ("Node", "node"), ("String", "sval")]
            | [.., ("TypeName", "names"), ("Node", "node"), ("String", "sval")]
            | [.., ("ColumnRef" | "AIndirection", "fields" | "indirection"), ("Node", "node"), ("String", "sval")] => {
                push_new(&mut self.other_names, value.to_owned());
            }
            [.., ("CommonTableExpr", "ctename")] => push_new(&mut self.queries, value.to_owned()),
            [.., ("RangeVar", "schemaname")] => self.relation.schema = value.to_owned(),
            [.., ("RangeVar", "relname")] => self.relation.name = value.to_owned(),
            [.., ("RangeVar", "relpersistence")] => self.temporary |= value == "t",
            [.., ("RangeVar", "alias"), ("Alias", "aliasname")] => self.relation.alias = Some(value.to_owned()),
            _ => {}
        }
    }

    fn boolean(&mut self, value: bool, frames: &[Frame]) {
        if let [.., ("RangeVar", "inh")] = frames {
            self.relation.inherits = value;
        }
    }
}
