use std::ops::Range;

use pg_query::protobuf::{Node, RawStmt};

use crate::classify::statement_of;
use crate::error::ParseError;
use crate::keyword::{Keyword, first_keyword, is_space};
use crate::stack::with_room;
use crate::statement::{Parsed, Statement, StatementKind};
use crate::tokens::Tokens;

/// Parses one query string (of a simple Query message or a Parse message).
///
/// The lexical rules are those of `standard_conforming_strings = on`. Where a session has it off, a text with a
/// backslash can mean something else to the server than it does here: see [`depends_on_string_setting`].
pub fn parse(text: &str) -> Result<Parsed, ParseError> {
    if text.contains('\0') {
        return Err(ParseError::Nul);
    }
    if first_keyword(text.as_bytes()) == Keyword::Empty {
        return Ok(Parsed { statements: Vec::new() });
    }
    if let Some(statement) = transaction_words(text) {
        return Ok(Parsed { statements: vec![statement] });
    }
    with_trees(text, |raw| {
        let statements = raw.into_iter().map(|raw| statement_of(&raw.node, raw.range)).collect();
        Ok(Parsed { statements })
    })
}

/// Whether the text could be read otherwise with `standard_conforming_strings = off`.
pub fn depends_on_string_setting(text: &str) -> bool {
    text.contains('\\')
}

/// One statement's tree and its place.
pub(crate) struct RawStatement {
    pub range: Range<usize>,
    pub node: Node,
}

/// Parses the text and works on its trees, in a place with room for their depth.
pub(crate) fn with_trees<T: Send>(
    text: &str,
    work: impl FnOnce(Vec<RawStatement>) -> Result<T, ParseError> + Send,
) -> Result<T, ParseError> {
    let tokens = Tokens::scan(text)?;
    with_room(tokens.depth_bound(), || work(raw_statements(text, &tokens)?))
}

/// The trees of a text, on the caller's stack.
pub(crate) fn raw_statements(text: &str, tokens: &Tokens) -> Result<Vec<RawStatement>, ParseError> {
    let parsed = pg_query::parse(text, pg_query::ParserOptions::DEFAULT)?;
    parsed.protobuf.stmts.into_iter().map(|raw| raw_statement(raw, text, tokens)).collect()
}

fn raw_statement(raw: RawStmt, text: &str, tokens: &Tokens) -> Result<RawStatement, ParseError> {
    let misplaced = || ParseError::Internal("a statement without a place in the text".into());
    let start = usize::try_from(raw.stmt_location).map_err(|_| misplaced())?;
    let length = usize::try_from(raw.stmt_len).map_err(|_| misplaced())?;
    let end = if length == 0 { text.len() } else { start + length };
    let range = tokens.extent(start..end).ok_or_else(misplaced)?;
    if text.get(range.clone()).is_none() {
        return Err(misplaced());
    }
    let node = *raw.stmt.ok_or_else(misplaced)?;
    Ok(RawStatement { range, node })
}

/// BEGIN, COMMIT, END, ROLLBACK, ABORT, START TRANSACTION spelled without anything else: no parser is needed.
fn transaction_words(text: &str) -> Option<Statement> {
    const LONGEST: usize = 40;
    if text.len() > LONGEST {
        return None;
    }
    let blank = |character: char| u8::try_from(character).is_ok_and(is_space);
    let body = text.trim_end_matches(blank);
    let body = body.strip_suffix(';').unwrap_or(body).trim_matches(blank);
    let start = text.find(|character| !blank(character))?;
    let mut words = body.split(blank).filter(|word| !word.is_empty());
    let first = words.next()?.to_ascii_uppercase();
    let second = words.next().map(str::to_ascii_uppercase);
    if words.next().is_some() {
        return None;
    }
    let kind = match (first.as_str(), second.as_deref()) {
        ("START", Some("TRANSACTION")) | ("BEGIN", None | Some("WORK" | "TRANSACTION")) => StatementKind::Begin,
        ("COMMIT" | "END", None | Some("WORK" | "TRANSACTION")) => StatementKind::Commit { chain: false },
        ("ROLLBACK" | "ABORT", None | Some("WORK" | "TRANSACTION")) => StatementKind::Rollback { chain: false },
        _ => return None,
    };
    Some(Statement { range: start..start + body.len(), kind, functions: Vec::new(), value_functions: false })
}
