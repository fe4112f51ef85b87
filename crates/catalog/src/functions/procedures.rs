//! What procedures and blocks may do besides writing: end transactions, change definitions.
use super::Functions;
use super::source::all_words;

/// What a procedure or block can end a transaction with, or what can hide it.
const COMMITTING_WORDS: &[&str] = &["commit", "rollback", "call", "execute"];

/// Whether the text of a DO block may commit before it ends.
#[must_use]
pub fn block_may_commit(text: &str) -> bool {
    let words = all_words(text);
    COMMITTING_WORDS.iter().any(|w| words.contains(*w))
}

/// What changes definitions, or can hide it.
const DEFINING_WORDS: &[&str] = &["create", "alter", "drop", "call", "execute"];

/// Whether a DO block may change definitions.
#[must_use]
pub fn block_may_define(text: &str) -> bool {
    let words = all_words(text);
    DEFINING_WORDS.iter().any(|w| words.contains(*w))
}

impl Functions {
    /// Whether a procedure of that name may commit before it ends.
    #[must_use]
    pub fn may_commit(&self, definitions: Option<u64>, name: &str) -> bool {
        let words = self.others.get(name).filter(|_| self.is_known(definitions)).and_then(|f| f.words.as_ref());
        words.is_none_or(|words| COMMITTING_WORDS.iter().any(|w| words.contains(*w)))
    }

    /// Whether a procedure of that name may change definitions.
    #[must_use]
    pub fn may_define(&self, definitions: Option<u64>, name: &str) -> bool {
        let words = self.others.get(name).filter(|_| self.is_known(definitions)).and_then(|f| f.words.as_ref());
        words.is_none_or(|words| DEFINING_WORDS.iter().any(|w| words.contains(*w)))
    }
}
