//! Texts that differ only in their constants are classified once.
//!
//! Clients of the simple protocol write constants into the text, so that hardly any text comes twice. What is to be done about a
//! statement doesn't depend on its constants, as long as they are nothing but plain numbers and strings: then the same steps
//! serve every text of the same shape, and the added column goes to the same place, the end of the statement.
use crate::plan::{Effect, OldRow, Plan, Step};
use bytes::Bytes;
use pgshadow_sql::{Rewrite, Rewrites};
use std::sync::Arc;

/// What serves every text of one shape.
#[derive(Debug)]
pub(crate) struct Shaped {
    step: Arc<Step>,
    /// What is inserted at the end of the statement.
    addition: Option<String>,
    epoch: u64,
}

/// The text with its constants taken out; `None` where a piece of it could be read in more than one way by this simple
/// reading: comments, parameters, dollar quotes, prefixed strings, backslashes, several statements.
pub(crate) fn shape(text: &str) -> Option<Vec<u8>> {
    let bytes = text.get(..end(text))?.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let mut word = false;
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        match byte {
            b'\\' | b'$' | b';' | b'&' | b'"' | 0 => return None,
            b'-' if next == Some(b'-') => return None,
            b'/' if next == Some(b'*') => return None,
            // a letter in front makes it another kind of string, and a string in front of it would go on
            b'\'' if word || out.trim_ascii_end().ends_with(b"''") => return None,
            b'\'' => {
                at = string_end(bytes, at + 1)?;
                out.extend_from_slice(b"''");
                continue;
            }
            b'0'..=b'9' if !word => {
                at = number_end(bytes, at)?;
                out.push(b'0');
                continue;
            }
            _ => {}
        }
        word = byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        out.push(byte);
        at += 1;
    }
    Some(out)
}

/// Where the only statement of a text without comments ends.
fn end(text: &str) -> usize {
    text.trim_end_matches([' ', '\t', '\n', '\r', ';']).len()
}

fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match (bytes.get(at)?, bytes.get(at + 1)) {
            (b'\\', _) => return None,
            (b'\'', Some(b'\'')) => at += 2,
            // white space with a line break and another quote would go on with the same string
            (b'\'', Some(b'\n' | b'\r')) => return None,
            (b'\'', _) => return Some(at + 1),
            _ => at += 1,
        }
    }
}

fn number_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    while bytes.get(at).is_some_and(|b| b.is_ascii_digit() || *b == b'.') {
        at += 1;
    }
    // 1e5, 0x1f, 1_000 and 12abc are left to the parser
    let follows = bytes.get(at).is_none_or(|b| !(b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80));
    follows.then_some(at)
}

impl Shaped {
    /// What of this text's plan serves all texts of its shape; `None` if its plan holds something of its own text.
    pub fn of(text: &str, plan: &Plan) -> Option<Self> {
        if !plan.locks.is_empty() {
            return None;
        }
        let ([step], [range]) = (plan.steps.as_slice(), plan.ranges.as_slice()) else { return None };
        let general = match &step.effect {
            Effect::None | Effect::Opaque(_) => true,
            Effect::Write(write) => matches!(write.old, OldRow::Same | OldRow::Returned(_)),
            _ => false,
        };
        if !general || range.end != end(text) {
            return None;
        }
        let addition = match &plan.text {
            None => None,
            Some(rewritten) => {
                let length = rewritten.len().checked_sub(text.len())?;
                let inserted = rewritten.get(range.end..range.end + length)?;
                Some(std::str::from_utf8(inserted).ok()?.to_owned())
            }
        };
        Some(Self { step: Arc::clone(step), addition, epoch: plan.epoch })
    }

    /// The plan for another text of the same shape.
    pub fn plan(&self, text: &str) -> Option<Plan> {
        let end = end(text);
        let mut plan = Plan {
            steps: vec![Arc::clone(&self.step)],
            end,
            epoch: self.epoch,
            ranges: std::iter::once(text.len() - text.trim_start().len()..end).collect(),
            ..Plan::empty()
        };
        if let Some(addition) = &self.addition {
            let rewrite = Rewrite::inserting(text, end, addition)?;
            let (rewritten, rewrites) = Rewrites::combine(text, &[rewrite])?;
            plan.end = end + addition.len();
            plan.text = Some(Bytes::from(rewritten));
            plan.rewrites = rewrites;
        }
        Some(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sql: &str) -> Option<String> {
        shape(sql).map(|s| String::from_utf8(s).unwrap())
    }

    #[test]
    fn constants_make_no_difference() {
        let expected = Some("update t set v=v+0, s='' where id=-0".to_owned());
        assert_eq!(text("update t set v=v+12, s='it''s' where id=-345;"), expected);
        assert_eq!(text("update t set v=v+1.5, s='' where id=-0 ;\n"), expected);
        assert_eq!(text("select a1 from t2"), Some("select a1 from t2".to_owned()));
    }

    #[test]
    fn what_could_be_read_otherwise_has_no_shape() {
        for sql in [
            "select 1 -- 2",
            "select /* 1 */ 2",
            "select $1",
            "select $$a$$",
            "select E'a'",
            "select e'\\''",
            "select 'a\\'",
            "select 1; select 2",
            "select 0x1f",
            "select 1e5",
            "select 12abc",
            "select \"a\"",
            "select U&'a'",
            "select 'a",
            "select 'a'\n'b'",
            "select 1_000",
            "select 'a''' 'b'",
        ] {
            assert_eq!(text(sql), None, "{sql}");
        }
    }

    #[test]
    fn two_strings_side_by_side_have_no_shape() {
        assert_eq!(text("select 'a''b'"), Some("select ''".to_owned()));
        assert_eq!(text("select 'a'  \n 'b'"), None);
    }
}
