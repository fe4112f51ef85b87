/// The first word of a query string, as far as it tells something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each is the SQL word
pub enum Keyword {
    Abort,
    Alter,
    Analyze,
    Begin,
    Call,
    Close,
    Commit,
    Copy,
    Create,
    Deallocate,
    Declare,
    Delete,
    Discard,
    Do,
    Drop,
    End,
    Execute,
    Explain,
    Fetch,
    Grant,
    Insert,
    Listen,
    Lock,
    Merge,
    Move,
    Notify,
    Prepare,
    Refresh,
    Release,
    Reset,
    Revoke,
    Rollback,
    Savepoint,
    Select,
    Set,
    Show,
    Start,
    Table,
    Truncate,
    Unlisten,
    Update,
    Vacuum,
    Values,
    With,
    /// Nothing but whitespace, comments and `;`.
    Empty,
    /// Any other word, an opening parenthesis, an unterminated comment.
    Other,
}

const WORDS: [(&str, Keyword); 44] = [
    ("ABORT", Keyword::Abort),
    ("ALTER", Keyword::Alter),
    ("ANALYZE", Keyword::Analyze),
    ("BEGIN", Keyword::Begin),
    ("CALL", Keyword::Call),
    ("CLOSE", Keyword::Close),
    ("COMMIT", Keyword::Commit),
    ("COPY", Keyword::Copy),
    ("CREATE", Keyword::Create),
    ("DEALLOCATE", Keyword::Deallocate),
    ("DECLARE", Keyword::Declare),
    ("DELETE", Keyword::Delete),
    ("DISCARD", Keyword::Discard),
    ("DO", Keyword::Do),
    ("DROP", Keyword::Drop),
    ("END", Keyword::End),
    ("EXECUTE", Keyword::Execute),
    ("EXPLAIN", Keyword::Explain),
    ("FETCH", Keyword::Fetch),
    ("GRANT", Keyword::Grant),
    ("INSERT", Keyword::Insert),
    ("LISTEN", Keyword::Listen),
    ("LOCK", Keyword::Lock),
    ("MERGE", Keyword::Merge),
    ("MOVE", Keyword::Move),
    ("NOTIFY", Keyword::Notify),
    ("PREPARE", Keyword::Prepare),
    ("REFRESH", Keyword::Refresh),
    ("RELEASE", Keyword::Release),
    ("RESET", Keyword::Reset),
    ("REVOKE", Keyword::Revoke),
    ("ROLLBACK", Keyword::Rollback),
    ("SAVEPOINT", Keyword::Savepoint),
    ("SELECT", Keyword::Select),
    ("SET", Keyword::Set),
    ("SHOW", Keyword::Show),
    ("START", Keyword::Start),
    ("TABLE", Keyword::Table),
    ("TRUNCATE", Keyword::Truncate),
    ("UNLISTEN", Keyword::Unlisten),
    ("UPDATE", Keyword::Update),
    ("VACUUM", Keyword::Vacuum),
    ("VALUES", Keyword::Values),
    ("WITH", Keyword::With),
];

/// The first word of the text: skips whitespace, `;` and comments (nested ones too).
///
/// It looks at one word only, so a text of several statements may go on with anything.
pub fn first_keyword(text: &[u8]) -> Keyword {
    let Some(rest) = skip_blank(text) else {
        return Keyword::Other;
    };
    let end = rest.iter().position(|byte| !is_word_byte(*byte)).unwrap_or(rest.len());
    match rest.split_at_checked(end) {
        None | Some(([], [])) => Keyword::Empty,
        Some((word, _)) => WORDS
            .iter()
            .find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(word))
            .map_or(Keyword::Other, |(_, keyword)| *keyword),
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// The scanner's `space`: not exactly what [`u8::is_ascii_whitespace`] takes, which lacks the vertical tab.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// What follows blanks, `;` and comments; `None` if a comment doesn't end.
fn skip_blank(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        match text {
            [first, rest @ ..] if is_space(*first) || *first == b';' => text = rest,
            [b'-', b'-', rest @ ..] => {
                let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
                text = rest.get(end..).unwrap_or_default();
            }
            [b'/', b'*', rest @ ..] => text = skip_block_comment(rest)?,
            _ => return Some(text),
        }
    }
}

/// What follows the comment whose opening is already consumed.
fn skip_block_comment(mut text: &[u8]) -> Option<&[u8]> {
    let mut depth = 1usize;
    loop {
        match text {
            [b'/', b'*', rest @ ..] => {
                depth += 1;
                text = rest;
            }
            [b'*', b'/', rest @ ..] => {
                depth -= 1;
                text = rest;
                if depth == 0 {
                    return Some(text);
                }
            }
            [_, rest @ ..] => text = rest,
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Keyword, first_keyword};

    #[test]
    fn finds_the_first_word() {
        for (text, keyword) in [
            ("begin", Keyword::Begin),
            ("BEGIN;", Keyword::Begin),
            (" \t\r\n\x0b\x0c;; Start transaction", Keyword::Start),
            ("-- insert\nselect 1", Keyword::Select),
            ("-- insert\rselect 1", Keyword::Select),
            ("/* a /* b */ update */ delete from t", Keyword::Delete),
            ("/**/insert", Keyword::Insert),
            ("/*/ insert */ update", Keyword::Update),
            ("(select 1)", Keyword::Other),
            ("\"select\"", Keyword::Other),
            ("select$1", Keyword::Other),
            ("selecté", Keyword::Other),
            ("/* unfinished", Keyword::Other),
            ("", Keyword::Empty),
            (" ; -- only", Keyword::Empty),
            ("reindex", Keyword::Other),
            ("select*from t", Keyword::Select),
            ("with x as (select 1) select 1", Keyword::With),
        ] {
            assert_eq!(first_keyword(text.as_bytes()), keyword, "{text:?}");
        }
    }
}
