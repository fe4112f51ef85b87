//! Token positions: where statements begin and end, and how deep their trees can be.

use std::ops::Range;

use pg_query::protobuf::{ScanToken, Token};

use crate::error::ParseError;
use crate::keyword::is_space;

/// The tokens of a text without its comments.
#[derive(Debug)]
pub(crate) struct Tokens {
    tokens: Vec<ScanToken>,
}

impl Tokens {
    pub(crate) fn scan(text: &str) -> Result<Self, ParseError> {
        // For no tokens at all the parser crate makes a slice of a null pointer.
        if text.bytes().all(is_space) {
            return Ok(Self { tokens: Vec::new() });
        }
        let mut tokens = pg_query::scan_tokens(text)?;
        tokens.retain(|token| token.token != Token::SqlComment as i32 && token.token != Token::CComment as i32);
        Ok(Self { tokens })
    }

    /// From the first token's start to the last one's end among the tokens inside `bounds`.
    pub(crate) fn extent(&self, bounds: Range<usize>) -> Option<Range<usize>> {
        let start_of = |token: &ScanToken| usize::try_from(token.start).unwrap_or(usize::MAX);
        let end_of = |token: &ScanToken| usize::try_from(token.end).unwrap_or(usize::MAX);
        let first = self.tokens.partition_point(|token| start_of(token) < bounds.start);
        let after = self.tokens.partition_point(|token| end_of(token) <= bounds.end);
        let inside = self.tokens.get(first..after)?;
        Some(start_of(inside.first()?)..end_of(inside.last()?))
    }

    /// Every token with its bytes' place.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (Token, Range<usize>)> {
        let place = |at: i32| usize::try_from(at).unwrap_or(usize::MAX);
        self.tokens.iter().map(move |token| {
            (Token::try_from(token.token).unwrap_or(Token::Nul), place(token.start)..place(token.end))
        })
    }

    /// An upper bound of the nesting of what the parser can make of these tokens, in tokens.
    ///
    /// A token opens at most one level, and both what stands before and what stands after a bracket can lie above what
    /// is in it. A comma at the same bracket level separates siblings; only set operations nest across commas, so they
    /// are counted for the whole text.
    pub(crate) fn depth_bound(&self) -> usize {
        let mut outer: Vec<Level> = Vec::new();
        let mut level = Level::default();
        let mut set_operations = 0usize;
        for token in &self.tokens {
            match Token::try_from(token.token) {
                Ok(Token::Ascii40 | Token::Ascii91) => outer.push(std::mem::take(&mut level)),
                Ok(Token::Ascii41 | Token::Ascii93) => {
                    let inner = std::mem::replace(&mut level, outer.pop().unwrap_or_default());
                    level.below = level.below.max(inner.finish() + 1);
                }
                Ok(Token::Ascii44 | Token::Ascii59) => level.next(),
                Ok(Token::Union | Token::Intersect | Token::Except) => set_operations += 1,
                _ => level.own += 1,
            }
        }
        // Brackets that never close are a syntax error; they still count.
        while let Some(mut above) = outer.pop() {
            above.below = above.below.max(level.finish() + 1);
            level = above;
        }
        level.finish() + set_operations
    }
}

/// One bracket level: the deepest finished part between commas, and the part being read.
#[derive(Debug, Default)]
struct Level {
    deepest: usize,
    own: usize,
    below: usize,
}

impl Level {
    fn next(&mut self) {
        *self = Level { deepest: self.finish(), own: 0, below: 0 };
    }

    fn finish(&self) -> usize {
        self.deepest.max(self.own + self.below)
    }
}

#[cfg(test)]
mod tests {
    use super::Tokens;

    #[test]
    fn bounds_the_depth() {
        for (text, bound) in [
            ("select 1", 2),
            ("select a, b, c, d", 2),
            ("select (a), (b)", 3),
            ("select (a + b) + c + d", 9),
            ("values (1, 2), (3, 4)", 3),
            ("select a, b union select a, b union select a, b", 5),
            ("select ((((", 5),
            ("select ))))", 5),
            ("", 0),
        ] {
            assert_eq!(Tokens::scan(text).unwrap().depth_bound(), bound, "{text}");
        }
    }
}
