//! `SELECT ... FOR UPDATE` of the rows that an UPDATE is about to change, so that their old values are known.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{Node, Token, UpdateStmt};
use std::ops::Range;

use crate::error::ParseError;
use crate::nodes::{boxed, kind};
use crate::parse::{raw_statements, with_trees};
use crate::returning::{Copied, quoted};
use crate::statement::{Statement, StatementKind};
use crate::summary::Summary;
use crate::tokens::Tokens;
use crate::write::Write;

/// A statement that locks and reads the rows that an UPDATE with the same condition will find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockAhead {
    /// One SELECT with one column of type `bytea`: the binary form (`record_send`) of a row with the columns asked for.
    pub text: String,
    /// The condition in it, and where it stands in the original text.
    pub condition: Option<Copied>,
    /// The condition's first character in the original text, from 0.
    condition_character: usize,
    /// Numbers of the parameters that it uses, each once, in ascending order.
    pub parameters: Vec<u16>,
}

impl LockAhead {
    /// The position in the client's text of a position that the server reported in this one; both count characters from 1.
    /// One outside the condition becomes 1.
    pub fn original_position(&self, position: usize) -> usize {
        let characters = |end: usize| self.text.get(..end).map_or(0, |part| part.chars().count());
        self.condition.map_or(1, |copied| {
            let (first, end) = (characters(copied.at), characters(copied.at + copied.len));
            if (first + 1..=end).contains(&position) { self.condition_character + position - first } else { 1 }
        })
    }
}

/// How rows are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockStrength {
    /// FOR UPDATE: a key will change.
    Update,
    /// FOR NO KEY UPDATE
    NoKeyUpdate,
}

/// The statement to run ahead of an UPDATE of one table, in the same transaction; `columns` are SQL expressions in which `{t}` stands
/// for the table.
///
/// `None` where the two could find different rows although the table stays the same: the condition holds subqueries, function calls
/// or a cursor's position, or the UPDATE joins other tables. The condition is copied from the text and parsed again.
pub fn lock_ahead(text: &str, statement: &Statement, columns: &[String], strength: LockStrength) -> Option<LockAhead> {
    let StatementKind::Update(write) = &statement.kind else { return None };
    let simple = !write.joins && !write.current_of && write.writes_in_with.is_empty();
    // the lock itself is what xmax shows
    if !simple || write.target.name.is_empty() || names_xmax(text.get(statement.range.clone())?) {
        return None;
    }
    let condition = condition(text, &statement.range)?;
    let (lock, copied) = compose(text, write, columns, strength, condition);
    let parameters = proven(text, statement, &lock).ok()??;
    let condition_character = copied.map_or(0, |c| text.get(..c.from).map_or(0, |before| before.chars().count()));
    Some(LockAhead { text: lock, condition: copied, condition_character, parameters })
}

fn names_xmax(text: &str) -> bool {
    let is_xmax = |token: &str| token.trim_matches('"').eq_ignore_ascii_case("xmax");
    Tokens::scan(text).map_or(true, |tokens| tokens.placed().any(|(_, place)| text.get(place).is_none_or(is_xmax)))
}

fn compose(
    text: &str,
    write: &Write,
    columns: &[String],
    strength: LockStrength,
    condition: Option<Range<usize>>,
) -> (String, Option<Copied>) {
    let exposed = quoted(write.target.exposed());
    let columns: Vec<String> = columns.iter().map(|column| column.replace("{t}", &exposed)).collect();
    let schema = write.target.schema.as_ref().map_or_else(String::new, |schema| quoted(schema) + ".");
    let only = if write.target.only { "ONLY " } else { "" };
    let alias = write.target.alias.as_ref().map_or_else(String::new, |alias| format!(" AS {}", quoted(alias)));
    let mut lock = format!(
        "SELECT pg_catalog.record_send(ROW({})) FROM {only}{schema}{}{alias}",
        columns.join(", "),
        quoted(&write.target.name)
    );
    let copied = condition.map(|condition| {
        lock.push_str(" WHERE ");
        let at = lock.len();
        lock.push_str(text.get(condition.clone()).unwrap_or_default());
        Copied { at, len: condition.len(), from: condition.start }
    });
    lock.push_str(match strength {
        LockStrength::Update => " FOR UPDATE OF ",
        LockStrength::NoKeyUpdate => " FOR NO KEY UPDATE OF ",
    });
    lock.push_str(&exposed);
    (lock, copied)
}

/// Where the condition of an UPDATE stands; `Some(None)` if it has none.
#[allow(clippy::option_option)]
fn condition(text: &str, range: &Range<usize>) -> Option<Option<Range<usize>>> {
    let own = text.get(range.clone())?;
    let tokens = Tokens::scan(own).ok()?;
    let (mut depth, mut found, mut last, mut first) = (0_i32, None, None, true);
    for (token, place) in tokens.placed() {
        match token {
            Token::Ascii40 | Token::Ascii91 => depth += 1,
            Token::Ascii41 | Token::Ascii93 => depth -= 1,
            Token::Update if first => {}
            _ if first => return None,
            Token::Where if depth == 0 => {
                found.is_none().then_some(())?;
                found = Some(place.end);
                last = None;
                continue;
            }
            Token::Returning if depth == 0 => break,
            _ => {}
        }
        first = false;
        last = Some(place);
    }
    let Some(after) = found else { return Some(None) };
    let extent = tokens.extent(after..last?.end)?;
    Some(Some(range.start + extent.start..range.start + extent.end))
}

/// The parameters of the lock's condition, if that is the UPDATE's own and tells rows by their own columns alone.
fn proven(text: &str, statement: &Statement, lock: &str) -> Result<Option<Vec<u16>>, ParseError> {
    let tokens = Tokens::scan(lock)?;
    with_trees(text, |original| {
        let selects = raw_statements(lock, &tokens)?;
        let update = original.iter().find(|raw| raw.range == statement.range).and_then(|raw| kind(&raw.node));
        let (Some(Kind::UpdateStmt(update)), [select]) = (update, selects.as_slice()) else { return Ok(None) };
        let Some(Kind::SelectStmt(select)) = kind(&select.node) else { return Ok(None) };
        let same = without_places(&update.where_clause) == without_places(&select.where_clause);
        Ok(if same && is_plain(update) { Some(parameters(lock, &tokens)) } else { None })
    })
}

fn is_plain(update: &UpdateStmt) -> bool {
    let Some(condition) = update.where_clause.as_deref() else { return update.with_clause.is_none() };
    let summary = Summary::of(condition);
    let subquery = format!("{condition:?}").contains("SubLink(");
    update.with_clause.is_none()
        && update.from_clause.is_empty()
        && summary.functions.is_empty()
        && !subquery
        && !matches!(boxed(&update.where_clause), Some(Kind::CurrentOfExpr(_)))
}

/// A tree in which positions make no difference.
fn without_places(tree: &Option<Box<Node>>) -> String {
    let printed = format!("{tree:?}");
    let mut out = String::with_capacity(printed.len());
    let mut rest = printed.as_str();
    let end_of = |name: &str, rest: &str| rest.find(name).map(|at| at + name.len());
    while let Some(end) = ["location: ", "list_start: ", "list_end: "].iter().filter_map(|n| end_of(n, rest)).min() {
        let (before, after) = rest.split_at(end);
        out.push_str(before);
        rest = after.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
    }
    out.push_str(rest);
    out
}

fn parameters(text: &str, tokens: &Tokens) -> Vec<u16> {
    let number = |place: Range<usize>| text.get(place)?.strip_prefix('$')?.parse().ok();
    let mut numbers: Vec<u16> =
        tokens.placed().filter(|(token, _)| *token == Token::Param).filter_map(|(_, place)| number(place)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn lock(text: &str) -> Option<String> {
        let parsed = parse(text).unwrap();
        lock_ahead(text, &parsed.statements[0], &["{t}.*".to_owned()], LockStrength::Update).map(|l| l.text)
    }

    #[test]
    fn the_condition_is_copied() {
        let of = |from: &str, rest: &str| {
            Some(format!("SELECT pg_catalog.record_send(ROW({from}.*)) FROM {rest} FOR UPDATE OF {from}"))
        };
        assert_eq!(lock("update t set a = 1 where b = 2 and c"), of("\"t\"", "\"t\" WHERE b = 2 and c"));
        assert_eq!(lock("update t set a = 1 where b in (1, 2)"), of("\"t\"", "\"t\" WHERE b in (1, 2)"));
        assert_eq!(lock("update t set a = 1"), of("\"t\"", "\"t\""));
        assert_eq!(
            lock(
                "update only s.t as x set (a, b) = (select 1, 2 where true) where x.b = $2 /* c */ -- d\n returning *;"
            ),
            of("\"x\"", "ONLY \"s\".\"t\" AS \"x\" WHERE x.b = $2")
        );
    }

    #[test]
    fn what_could_find_other_rows_is_refused() {
        for text in [
            "update t set a = 1 from u where t.b = u.b",
            "update t set a = 1 where b in (select 1)",
            "update t set a = 1 where exists (select 1)",
            "update t set a = 1 where b = random()",
            "update t set a = 1 where current of c",
            "with x as (select 1) update t set a = 1 where b = 1",
            "delete from t where a = 1",
            "update t set a = 1 where b = 1 and xmax = 0",
            "update t set a = 1 where b = 1 returning t.XMAX",
        ] {
            assert_eq!(lock(text), None, "{text}");
        }
    }

    #[test]
    fn parameters_and_places() {
        let text = "update t set a = $3 where b = $2 or c = $1 or d = $2";
        let parsed = parse(text).unwrap();
        let lock = lock_ahead(text, &parsed.statements[0], &["1".to_owned()], LockStrength::NoKeyUpdate).unwrap();
        assert_eq!(lock.parameters, vec![1, 2]);
        let condition = lock.condition.unwrap();
        assert_eq!(lock.text.get(condition.at..condition.at + condition.len), text.get(condition.from..));
        assert_eq!(lock.original_position(lock.text.find("or d").unwrap() + 1), text.find("or d").unwrap() + 1);
        assert_eq!(lock.original_position(3), 1);
    }
}
