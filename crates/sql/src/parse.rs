use std::ops::Range;

use pg_query::protobuf::{Node, RawStmt, ScanToken, Token};

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

/// A text whose bytes above ASCII aren't UTF-8, for [`parse`]: each of them stands as one ASCII letter, so that places
/// stay. `None` if one of them is outside of constants and comments, where the letter would make another name.
pub fn masked(text: &[u8]) -> Option<String> {
    let copy: String = text.iter().map(|b| if b.is_ascii() { char::from(*b) } else { 'x' }).collect();
    let place = |at: i32| usize::try_from(at).unwrap_or(usize::MAX);
    let holds_text = |token: &ScanToken| {
        matches!(Token::try_from(token.token), Ok(Token::Sconst | Token::Usconst | Token::SqlComment | Token::CComment))
    };
    let plain = |token: &ScanToken| text.get(place(token.start)..place(token.end)).is_some_and(<[u8]>::is_ascii);
    let tokens = pg_query::scan_tokens(&copy).ok()?;
    tokens.iter().all(|token| holds_text(token) || plain(token)).then_some(copy)
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
    Some(Statement { kind, ..Statement::bare(start..start + body.len()) })
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn masks_constants_and_comments_only() {
        assert_eq!(
            masked(b"insert into t values ('caf\xe9') -- \xe9").as_deref(),
            Some("insert into t values ('cafx') -- x")
        );
        assert_eq!(masked(b"select 1 /* \xe9 */").as_deref(), Some("select 1 /* x */"));
        assert_eq!(masked(b"select E'\\'\xe9', $a$\xe9$a$").as_deref(), Some("select E'\\'x', $a$x$a$"));
        assert_eq!(masked(b"select 1 as \xe9"), None);
        assert_eq!(masked(b"select 1 as \"\xe9\""), None);
    }
}
