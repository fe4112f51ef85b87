use thiserror::Error;

/// Why a text has no [`crate::Parsed`].
///
/// In each case the client's own text is to be forwarded untouched; what it may write is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// The text contains a NUL byte, which no PostgreSQL text can.
    #[error("the query text contains a NUL byte")]
    Nul,
    /// The parser rejects the text; the server will most likely do so as well.
    #[error("{0}")]
    Syntax(String),
    /// The statement is nested deeper than can be walked in a bounded stack.
    #[error("the statement is nested too deeply: {0}")]
    TooDeep(String),
    /// The parse tree is not what was expected of the parser.
    #[error("the parse tree can't be read: {0}")]
    Internal(String),
}

impl From<pg_query::Error> for ParseError {
    fn from(error: pg_query::Error) -> Self {
        match error {
            pg_query::Error::Conversion(_) => ParseError::Nul,
            pg_query::Error::Parse(message) | pg_query::Error::Scan(message) => {
                if is_depth_message(&message) {
                    ParseError::TooDeep(message)
                } else {
                    ParseError::Syntax(message)
                }
            }
            other => ParseError::Internal(other.to_string()),
        }
    }
}

fn is_depth_message(message: &str) -> bool {
    message.contains("stack depth") || message.contains("nested too deeply") || message.contains("memory exhausted")
}
