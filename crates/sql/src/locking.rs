//! `SELECT ... FOR UPDATE` of the rows that an UPDATE is about to change, so that their old values are known.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{Token, UpdateStmt};
use std::ops::Range;

use crate::error::ParseError;
use crate::nodes::{boxed, kind};
use crate::parse::{raw_statements, with_trees};
use crate::returning::{Copied, quoted};
use crate::statement::{FunctionName, Statement, StatementKind};
use crate::summary::Summary;
use crate::tokens::Tokens;
use crate::write::Write;

/// A statement that locks and reads the rows that an UPDATE with the same condition will find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockAhead {
    /// One SELECT with one column of type `bytea`: the binary form (`record_send`) of a row with the columns asked for. With a
    /// look behind, `tableoid` and `ctid` stand in front of them, and one row more has a single field: see [`LookBehind`].
    pub text: String,
    /// The condition in it, with what is joined, and where that stands in the original text.
    pub copied: Option<Copied>,
    /// Its first character in the original text, from 0.
    copied_character: usize,
    /// Numbers of the parameters that it uses, each once, in ascending order.
    pub parameters: Vec<u16>,
    /// Where the two may find different rows: how it is told afterwards that they didn't.
    pub behind: Option<LookBehind>,
}

/// A look at the places of the rows that were locked, behind the UPDATE and in the same transaction.
///
/// Nobody else can change a locked row. So if none of them is to be seen at its place any more, this transaction has written all of
/// them; and if the UPDATE wrote as many rows as were locked, it wrote those and no others. (Numbers alone don't tell: of what is
/// joined or looked up another commit may make the two find different rows, as many of them.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookBehind {
    /// One SELECT with one column of type `bytea`, the binary form of rows: `tableoid` and `ctid` of each row that is to be seen at a
    /// place that was locked in this table (or at the same place of another of its partitions); and one row with a single
    /// field, an `int4` that is the same as in the lock's answer if the places were the same. There it is NULL if
    /// they weren't kept: there are more of them than asked for, or the transaction is serializable and must not read what the client
    /// didn't ask for.
    pub text: String,
    /// What the two call and read before they write: it runs once more than the client asked for.
    pub functions: Vec<FunctionName>,
    /// Relations read, without the schema.
    pub relations: Vec<String>,
    /// Operators, types and columns named.
    pub other_names: Vec<String>,
}

impl LockAhead {
    /// The position in the client's text of a position that the server reported in this one; both count characters from 1.
    /// One outside what is copied becomes 1.
    pub fn original_position(&self, position: usize) -> usize {
        let characters = |end: usize| self.text.get(..end).map_or(0, |part| part.chars().count());
        self.copied.map_or(1, |copied| {
            let (first, end) = (characters(copied.at), characters(copied.at + copied.len));
            if (first + 1..=end).contains(&position) { self.copied_character + position - first } else { 1 }
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
/// Where the condition is about the table's own columns alone, both find the same rows as long as the table stays the same. Where it holds
/// subqueries or function calls, or the UPDATE joins other tables, they may not: then there is a look behind, for at most `places_max`
/// rows; `always`: in any case. `None` for a cursor's position, for what WITH names, and where it can't be made: what is copied from the text is parsed again.
pub fn lock_ahead(
    text: &str,
    statement: &Statement,
    columns: &[String],
    strength: LockStrength,
    places_max: usize,
    always: bool,
) -> Option<LockAhead> {
    let StatementKind::Update(write) = &statement.kind else { return None };
    let possible = !write.current_of && write.writes_in_with.is_empty();
    let own = text.get(statement.range.clone())?;
    // the lock itself is what xmax shows, and a refusal to wait would be the client's own
    if !possible || write.target.name.is_empty() || names(own, "xmax") || names(own, "nowait") {
        return None;
    }
    let condition = condition(own)?;
    let start = statement.range.start;
    let from = condition.place.map(|place| start + place.start..start + place.end);
    let mut select = Select { write, strength, joins: condition.joins, from, places: false };
    let (plain, copied) = select.compose(text, columns);
    let proof = proven(text, statement, &plain).ok()??;
    let copied_character = copied.map_or(0, |c| text.get(..c.from).map_or(0, |before| before.chars().count()));
    let Proof { parameters, calls, tells } = proof;
    if tells && !always {
        return Some(LockAhead { text: plain, copied, copied_character, parameters, behind: None });
    }
    select.places = true;
    let (inner, copied) = select.compose(text, columns);
    let (front, back) = around(places_max);
    let copied = copied.map(|copied| Copied { at: copied.at + front.len(), ..copied });
    let behind = LookBehind { text: look(write), ..calls };
    let text = [front, inner, back].concat();
    Some(LockAhead { text, copied, copied_character, parameters, behind: Some(behind) })
}

/// Whether a token of the text is this word, quoted or not.
fn names(text: &str, word: &str) -> bool {
    let is_it = |token: &str| token.trim_matches('"').eq_ignore_ascii_case(word);
    Tokens::scan(text).map_or(true, |tokens| tokens.placed().any(|(_, place)| text.get(place).is_none_or(is_it)))
}

/// Where the places of locked rows stand until the look: a setting of the transaction's own.
const PLACES: &str = "_pgshadow.locked";

/// What makes of the statement that locks one that keeps the places too.
fn around(places_max: usize) -> (String, String) {
    let kept = format!(
        "pg_catalog.count(*) OPERATOR(pg_catalog.<=) {places_max} \
         AND pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.<>) 'serializable'"
    );
    let keep =
        format!("pg_catalog.set_config('{PLACES}', COALESCE(pg_catalog.array_agg(c)::pg_catalog.text, '{{}}'), true)");
    let back = format!(
        ") SELECT r FROM \"_pgshadow\" UNION ALL SELECT pg_catalog.record_send(ROW(CASE WHEN {kept} \
         THEN pg_catalog.length({keep}) END)) FROM \"_pgshadow\""
    );
    ("WITH \"_pgshadow\" AS (".to_owned(), back)
}

/// [`LookBehind::text`]
fn look(write: &Write) -> String {
    let (table, relation) = (quoted(write.target.exposed()), target(write));
    let places = format!("pg_catalog.current_setting('{PLACES}', true)");
    let length = format!("pg_catalog.length({places})");
    format!(
        "SELECT pg_catalog.record_send(ROW({table}.tableoid, {table}.ctid)) FROM {relation} \
         WHERE {table}.ctid OPERATOR(pg_catalog.=) ANY \
         (CASE WHEN {length} OPERATOR(pg_catalog.>) 0 THEN {places}::pg_catalog.tid[] END) \
         UNION ALL SELECT pg_catalog.record_send(ROW({length}))"
    )
}

/// The target as a FROM list names it.
fn target(write: &Write) -> String {
    let schema = write.target.schema.as_ref().map_or_else(String::new, |schema| quoted(schema) + ".");
    let only = if write.target.only { "ONLY " } else { "" };
    let alias = write.target.alias.as_ref().map_or_else(String::new, |alias| format!(" AS {}", quoted(alias)));
    format!("{only}{schema}{}{alias}", quoted(&write.target.name))
}

/// What locks the rows.
struct Select<'a> {
    write: &'a Write,
    strength: LockStrength,
    /// What is copied begins with what is joined, else with the condition.
    joins: bool,
    from: Option<Range<usize>>,
    /// Rows come with their places.
    places: bool,
}

impl Select<'_> {
    fn compose(&self, text: &str, columns: &[String]) -> (String, Option<Copied>) {
        let exposed = quoted(self.write.target.exposed());
        let mut fields: Vec<String> = columns.iter().map(|column| column.replace("{t}", &exposed)).collect();
        if self.places {
            fields.splice(..0, ["tableoid", "ctid"].map(|name| format!("{exposed}.{name}")));
        }
        let record = format!("pg_catalog.record_send(ROW({}))", fields.join(", "));
        let list = if self.places { format!("{exposed}.ctid AS c, {record} AS r") } else { record };
        let mut lock = format!("SELECT {list} FROM {}", target(self.write));
        let copied = self.from.clone().map(|from| {
            lock.push_str(if self.joins { ", " } else { " WHERE " });
            let at = lock.len();
            lock.push_str(text.get(from.clone()).unwrap_or_default());
            Copied { at, len: from.len(), from: from.start }
        });
        lock.push_str(match self.strength {
            LockStrength::Update => " FOR UPDATE OF ",
            LockStrength::NoKeyUpdate => " FOR NO KEY UPDATE OF ",
        });
        lock.push_str(&exposed);
        (lock, copied)
    }
}

/// What tells the rows of an UPDATE: the list of what it joins and the condition, which stand side by side.
struct Condition {
    joins: bool,
    /// Without the first of their words; `None` if it has neither.
    place: Option<Range<usize>>,
}

fn condition(own: &str) -> Option<Condition> {
    let tokens = Tokens::scan(own).ok()?;
    let (mut depth, mut from, mut found, mut last, mut before) = (0_i32, None, None, 0, None);
    for (token, place) in tokens.placed() {
        match token {
            Token::Ascii40 | Token::Ascii91 => depth += 1,
            Token::Ascii41 | Token::Ascii93 => depth -= 1,
            Token::Update if before.is_none() => {}
            _ if before.is_none() => return None,
            // IS DISTINCT FROM
            Token::From if depth == 0 && before != Some(Token::Distinct) && from.or(found).is_none() => {
                from = Some(place.end);
            }
            Token::Where if depth == 0 => {
                found.is_none().then_some(())?;
                found = Some(place.end);
            }
            Token::Returning if depth == 0 => break,
            _ => {}
        }
        before = Some(token);
        last = place.end;
    }
    let place = match from.or(found) {
        Some(after) => Some(tokens.extent(after..last)?),
        None => None,
    };
    Some(Condition { joins: from.is_some(), place })
}

/// What is known of a lock whose condition is the UPDATE's own.
struct Proof {
    parameters: Vec<u16>,
    /// What it calls and reads; the text is empty.
    calls: LookBehind,
    /// It tells rows by their own columns alone.
    tells: bool,
}

fn proven(text: &str, statement: &Statement, lock: &str) -> Result<Option<Proof>, ParseError> {
    let tokens = Tokens::scan(lock)?;
    with_trees(text, |original| {
        let selects = raw_statements(lock, &tokens)?;
        let update = original.iter().find(|raw| raw.range == statement.range).and_then(|raw| kind(&raw.node));
        let (Some(Kind::UpdateStmt(update)), [select]) = (update, selects.as_slice()) else { return Ok(None) };
        let Some(Kind::SelectStmt(select)) = kind(&select.node) else { return Ok(None) };
        let joined = select.from_clause.get(1..).unwrap_or_default();
        let same = without_places(&update.where_clause) == without_places(&select.where_clause)
            && without_places(&update.from_clause) == without_places(&joined);
        let possible =
            update.with_clause.is_none() && !matches!(boxed(&update.where_clause), Some(Kind::CurrentOfExpr(_)));
        let calls = calls(update);
        let condition = update.where_clause.as_deref();
        let subquery = condition.is_some_and(|condition| format!("{condition:?}").contains("SubLink("));
        let tells = update.from_clause.is_empty() && !subquery && calls.functions.is_empty();
        Ok((same && possible).then(|| Proof { parameters: parameters(lock, &tokens), calls, tells }))
    })
}

fn calls(update: &UpdateStmt) -> LookBehind {
    let condition = update.where_clause.as_deref();
    let nodes = update.from_clause.iter().chain(condition);
    let mut all = LookBehind { text: String::new(), functions: vec![], relations: vec![], other_names: vec![] };
    for summary in nodes.map(Summary::of) {
        all.functions.extend(summary.functions);
        all.relations.extend(summary.relations.into_iter().map(|relation| relation.name));
        all.other_names.extend(summary.other_names);
    }
    all
}

/// A tree in which positions make no difference.
fn without_places(tree: &impl std::fmt::Debug) -> String {
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

    fn ahead(text: &str) -> Option<LockAhead> {
        let parsed = parse(text).unwrap();
        lock_ahead(text, &parsed.statements[0], &["{t}.*".to_owned()], LockStrength::Update, 7, false)
    }

    fn lock(text: &str) -> Option<String> {
        ahead(text).filter(|lock| lock.behind.is_none()).map(|lock| lock.text)
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
    fn what_could_find_other_rows_is_looked_at_behind() {
        let inner = |text: &str| {
            let ahead = ahead(text)?;
            assert!(ahead.behind?.text.contains("WHERE \"t\".ctid OPERATOR"), "{text}");
            let rest = ahead.text.strip_prefix("WITH \"_pgshadow\" AS (SELECT \"t\".ctid AS c, ")?;
            let rest =
                rest.strip_prefix("pg_catalog.record_send(ROW(\"t\".tableoid, \"t\".ctid, \"t\".*)) AS r FROM \"t\"")?;
            assert!(rest.contains("<=) 7 AND"), "{rest}");
            Some(rest.split_once(" FOR UPDATE OF \"t\") SELECT r")?.0.to_owned())
        };
        for (text, expected) in [
            ("update t set a = u.b is distinct from 1 from u where t.b = u.b", ", u where t.b = u.b"),
            ("update t set a = 1 from u join v using (x), w -- c\n returning *", ", u join v using (x), w"),
            ("update t set a = extract(year from d) where b in (select 1)", " WHERE b in (select 1)"),
            (
                "update t set a = 1 where exists (select 1 from u for update skip locked)",
                " WHERE exists (select 1 from u for update skip locked)",
            ),
            ("update t set a = 1 where b is distinct from lower(c)", " WHERE b is distinct from lower(c)"),
        ] {
            assert_eq!(inner(text).as_deref(), Some(expected), "{text}");
        }
        let text = "update t set a = 1 where b = 2";
        let always = lock_ahead(text, &parse(text).unwrap().statements[0], &[], LockStrength::Update, 7, true).unwrap();
        assert!(always.behind.is_some() && always.text.contains(".ctid AS c"), "{always:?}");
        let calls = ahead("update t set a = f(1) from g(2) as s, u where t.b = any (select h(v.b) from v)").unwrap();
        let calls = calls.behind.unwrap();
        let names: Vec<_> = calls.functions.iter().map(|f| f.name.as_str()).collect();
        assert_eq!((names, calls.relations), (vec!["g", "h"], vec!["u".to_owned(), "v".to_owned()]));
    }

    #[test]
    fn what_cannot_be_looked_at_is_refused() {
        for text in [
            "update t set a = 1 where current of c",
            "with x as (select 1) update t set a = 1 where b = 1",
            "delete from t where a = 1",
            "update t set a = 1 where b = 1 and xmax = 0",
            "update t set a = 1 where b = 1 returning t.XMAX",
            "update t set a = 1 where b = (select b from u for update nowait)",
        ] {
            assert_eq!(ahead(text), None, "{text}");
        }
    }

    #[test]
    fn parameters_and_places() {
        let text = "update t set a = $3 where b = $2 or c = $1 or d = $2";
        let parsed = parse(text).unwrap();
        let lock =
            lock_ahead(text, &parsed.statements[0], &["1".to_owned()], LockStrength::NoKeyUpdate, 1, false).unwrap();
        assert_eq!(lock.parameters, vec![1, 2]);
        let copied = lock.copied.unwrap();
        assert_eq!(lock.text.get(copied.at..copied.at + copied.len), text.get(copied.from..));
        assert_eq!(lock.original_position(lock.text.find("or d").unwrap() + 1), text.find("or d").unwrap() + 1);
        assert_eq!(lock.original_position(3), 1);
        let text = "update t set a = $3 from u where b = $2 and u.c = t.c";
        let lock = ahead(text).unwrap();
        assert_eq!((lock.parameters.as_slice(), lock.behind.is_some()), (&[2][..], true));
        assert_eq!(lock.original_position(lock.text.find("u.c").unwrap() + 1), text.find("u.c").unwrap() + 1);
        assert_eq!(lock.original_position(lock.text.find("UNION").unwrap() + 1), 1);
    }
}
