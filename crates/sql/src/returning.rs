//! Adding one column to a RETURNING list.

use pg_query::protobuf::Node;
use pg_query::protobuf::node::Node as Kind;

use crate::error::ParseError;
use crate::exposed::is_ambiguous;
use crate::nodes::{boxed, kind, strings};
use crate::parse::{RawStatement, raw_statements, with_trees};
use crate::statement::{Statement, StatementKind};
use crate::tokens::Tokens;
use crate::write::{RelationName, Write};

/// What the added column holds.
///
/// The column is of type `bytea`, the binary form (`record_send`) of a row with these fields, in this order:
///
/// | field | type | when |
/// |---|---|---|
/// | transaction id | `int8`, the bits of an `xid8` | always |
/// | order token | `pg_lsn` | always |
/// | `tableoid` | `oid` | if `table_oid` is set, unless the image is [`Image::None`] |
/// | `xmax` | `xid` | if `inserted_flag` is set, unless the image is [`Image::None`] |
/// | what MERGE did | `text` | for MERGE |
/// | `tableoid` of the old row, NULL for an inserted one | `oid` | if `old` is set |
/// | the old row's columns | the columns' | one field for each expression of `old` |
/// | parameters | `text` | one field for each of `parameters` |
/// | the image | the columns' | one field for each column of the image |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturningForm {
    /// Which columns of the row are in it.
    pub image: Image,
    /// Adds `tableoid`, which a view's rows don't have.
    pub table_oid: bool,
    /// Adds `xmax`, which is 0 in a row that ON CONFLICT DO UPDATE inserted. Without effect for [`Image::None`].
    /// Not for a partitioned target: the server refuses INSERT ... RETURNING `xmax` there, so the client's write would fail.
    pub inserted_flag: bool,
    /// These SQL expressions over the old row, in which `{t}` stands for it; see [`column()`]. From PostgreSQL 18.
    pub old: Option<Vec<String>>,
    /// Parameters of the statement whose values come back as text.
    pub parameters: Vec<String>,
    /// Which functions the server has.
    pub dialect: Dialect,
}

/// Which columns of the written row are returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// All, as `t.*` gives them.
    Star,
    /// None, nor any system column: only the transaction id and the order token. A RETURNING list that names no column
    /// needs no right to read and leaves row-level security's choice of rows as it was.
    None,
    /// These SQL expressions, in which `{t}` stands for the table as RETURNING may name it; see [`column()`].
    Columns(Vec<String>),
}

/// The expression for a parameter's value as text, for [`ReturningForm::parameters`]; `converted`: as UTF8 bytes, whatever
/// the client's encoding is. It fails for no value that the statement itself takes, at planning or later.
pub fn parameter_text(number: u16, converted: bool) -> String {
    let text = format!("(${number})::pg_catalog.text");
    if converted { format!("pg_catalog.convert_to({text}, 'UTF8')") } else { text }
}

/// `{t}."name"`, for [`Image::Columns`]; `None` if the name itself contains `{t}`.
pub fn column(name: &str) -> Option<String> {
    (!name.contains(PLACEHOLDER)).then(|| format!("{PLACEHOLDER}.{}", quoted(name)))
}

/// The server's functions, by complete call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// The call that gives the transaction's id.
    pub xid_function: &'static str,
    /// The call that gives the WAL insert position.
    pub lsn_function: &'static str,
}

impl Dialect {
    /// PostgreSQL 10 and later: from 13 on `txid_current` is another name of `pg_current_xact_id`.
    pub const CURRENT: Dialect =
        Dialect { xid_function: "pg_catalog.txid_current()", lsn_function: "pg_catalog.pg_current_wal_insert_lsn()" };
}

/// One text with one insertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The whole text, rewritten.
    pub text: String,
    /// Where the insertion begins, in bytes of the original text (and of the rewritten one).
    pub inserted_at: usize,
    /// Its length in bytes.
    pub inserted_len: usize,
    /// A part of it that is a copy of a part of the original text.
    pub copied: Option<Copied>,
}

/// A part of an insertion that is a copy of a part of the original text: positions in the one are positions in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Where it begins, in bytes of the insertion.
    pub at: usize,
    /// Its length in bytes.
    pub len: usize,
    /// Where it is copied from, in bytes of the original text.
    pub from: usize,
}

impl Rewrite {
    /// A text with one insertion; `None` if it has no such place.
    pub fn inserting(text: &str, at: usize, addition: &str) -> Option<Self> {
        let (before, after) = text.split_at_checked(at)?;
        let text = [before, addition, after].concat();
        Some(Self { text, inserted_at: at, inserted_len: addition.len(), copied: None })
    }

    /// The same with more behind what it inserts.
    pub fn followed_by(&self, addition: &str) -> Option<Self> {
        let (before, after) = self.text.split_at_checked(self.inserted_at.checked_add(self.inserted_len)?)?;
        let text = [before, addition, after].concat();
        let inserted_len = self.inserted_len + addition.len();
        Some(Self { text, inserted_at: self.inserted_at, inserted_len, copied: self.copied })
    }

    /// What was inserted.
    pub fn inserted(&self) -> Option<&str> {
        self.text.get(self.inserted_at..self.inserted_at.checked_add(self.inserted_len)?)
    }
}

/// Where the added expression stands in the rewritten text, and how many fields its row has.
struct Addition {
    at: usize,
    fields: usize,
}

const PLACEHOLDER: &str = "{t}";

/// Adds one column at the end of the statement's RETURNING list, or gives it one.
///
/// `text` is the whole query string and `statement` one of those that [`crate::parse`] found in it: INSERT, UPDATE,
/// DELETE or MERGE, or PREPARE of one. The rewritten text is parsed again; unless it differs by exactly the one more element
/// the answer is `None`, and so it is where the table can't be named without ambiguity.
pub fn with_returning(text: &str, statement: &Statement, form: &ReturningForm) -> Option<Rewrite> {
    let write = write_of(statement)?;
    if form.old.is_some() && (write.returning_options || has_old(text, statement)) {
        return None;
    }
    let fields = fields(&write.target, form, statement.is_merge());
    let expression = format!("pg_catalog.record_send(ROW({}))", fields.join(", "));
    let addition = if write.returning { format!(", {expression}") } else { format!(" RETURNING {expression}") };
    let at = statement.range.end;
    let rewrite = Rewrite::inserting(text, at, &addition)?;
    let expected = Addition { at: at + addition.len() - expression.len(), fields: fields.len() };
    proven(text, statement, &rewrite, &expected).ok()?.then_some(rewrite)
}

fn write_of(statement: &Statement) -> Option<&Write> {
    match &statement.kind {
        StatementKind::Insert(write)
        | StatementKind::Update(write)
        | StatementKind::Delete(write)
        | StatementKind::Merge(write) => Some(write),
        StatementKind::Prepare { statement, .. } => write_of(statement),
        _ => None,
    }
}

/// Whether `old` could mean something of the client's own: only what certainly isn't a relation's name is taken.
fn has_old(text: &str, statement: &Statement) -> bool {
    let named = |token: &str| token.eq_ignore_ascii_case("old") || token.eq_ignore_ascii_case("\"old\"");
    text.get(statement.range.clone()).is_none_or(|own| {
        Tokens::scan(own).map_or(true, |tokens| tokens.placed().any(|(_, place)| own.get(place).is_none_or(named)))
    })
}

fn fields(target: &RelationName, form: &ReturningForm, merge: bool) -> Vec<String> {
    let table = quoted(target.exposed());
    let mut fields = vec![form.dialect.xid_function.to_owned(), form.dialect.lsn_function.to_owned()];
    if form.image != Image::None {
        if form.table_oid {
            fields.push(format!("{table}.tableoid"));
        }
        if form.inserted_flag {
            fields.push(format!("{table}.xmax"));
        }
    }
    if merge {
        fields.push("merge_action()".to_owned());
    }
    if let Some(old) = &form.old {
        fields.push("old.tableoid".to_owned());
        fields.extend(old.iter().map(|column| column.replace(PLACEHOLDER, "old")));
    }
    fields.extend(form.parameters.iter().cloned());
    match &form.image {
        Image::Star => fields.push(format!("{table}.*")),
        Image::None => {}
        Image::Columns(columns) => fields.extend(columns.iter().map(|column| column.replace(PLACEHOLDER, &table))),
    }
    fields
}

pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether the rewritten text is the original one plus one element of the RETURNING list, as expected.
fn proven(text: &str, statement: &Statement, rewrite: &Rewrite, expected: &Addition) -> Result<bool, ParseError> {
    let rewritten_tokens = Tokens::scan(&rewrite.text)?;
    with_trees(text, |original| {
        let rewritten = raw_statements(&rewrite.text, &rewritten_tokens)?;
        Ok(same_but_one(original, rewritten, statement, rewrite, expected).unwrap_or(false))
    })
}

fn same_but_one(
    original: Vec<RawStatement>,
    rewritten: Vec<RawStatement>,
    statement: &Statement,
    rewrite: &Rewrite,
    expected: &Addition,
) -> Option<bool> {
    if original.len() != rewritten.len() {
        return Some(false);
    }
    let mut seen = false;
    for (old, mut new) in original.into_iter().zip(rewritten) {
        let changed = old.range == statement.range;
        // The statements behind it moved; their text is the same, and so is then their tree.
        let moved = old.range.start >= rewrite.inserted_at;
        let shift = |place: usize, by: bool| if by { place + rewrite.inserted_len } else { place };
        if new.range != (shift(old.range.start, moved)..shift(old.range.end, moved || changed)) {
            return Some(false);
        }
        if changed {
            if is_ambiguous(&old.node) || !take_addition(&mut new.node, expected)? {
                return Some(false);
            }
            seen = true;
        }
        if !moved && old.node != new.node {
            return Some(false);
        }
    }
    Some(seen)
}

/// Takes the last element of the RETURNING list out; whether it is the addition.
fn take_addition(node: &mut Node, expected: &Addition) -> Option<bool> {
    let clause = match node.node.as_mut()? {
        Kind::InsertStmt(insert) => &mut insert.returning_clause,
        Kind::UpdateStmt(update) => &mut update.returning_clause,
        Kind::DeleteStmt(delete) => &mut delete.returning_clause,
        Kind::MergeStmt(merge) => &mut merge.returning_clause,
        Kind::PrepareStmt(prepare) => return take_addition(prepare.query.as_deref_mut()?, expected),
        _ => return None,
    };
    let list = clause.as_mut()?;
    let added = list.exprs.pop()?;
    if list.exprs.is_empty() && list.options.is_empty() {
        *clause = None;
    }
    Some(is_addition(&added, expected))
}

fn is_addition(element: &Node, expected: &Addition) -> bool {
    let Some(Kind::ResTarget(target)) = &element.node else {
        return false;
    };
    let Some(Kind::FuncCall(call)) = boxed(&target.val) else {
        return false;
    };
    target.name.is_empty()
        && target.indirection.is_empty()
        && usize::try_from(call.location) == Ok(expected.at)
        && strings(&call.funcname) == ["pg_catalog", "record_send"]
        && matches!(call.args.as_slice(), [row] if row_length(row) == Some(expected.fields))
}

fn row_length(node: &Node) -> Option<usize> {
    match kind(node)? {
        Kind::RowExpr(row) => Some(row.args.len()),
        _ => None,
    }
}
