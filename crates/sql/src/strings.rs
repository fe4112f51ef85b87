//! String constants where `standard_conforming_strings` is off.

/// A text of a session with `standard_conforming_strings = off`, for [`crate::parse`]: what a backslash escapes in a plain string
/// constant stands as letters, so that places stay and the constant ends where the server ends it. `None` where that isn't
/// certain.
pub fn without_escapes(text: &str) -> Option<String> {
    let mut out = text.as_bytes().to_vec();
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        let rest = text.get(at..)?;
        at += match byte {
            b'\'' => match prefix(text.get(..at)?) {
                // refused by the server with this setting
                Prefix::Unicode => return None,
                Prefix::Escaping => string(rest, true, &mut |_| {})?,
                Prefix::Bits => string(rest, false, &mut |_| {})?,
                Prefix::Plain => string(rest, true, &mut |place| {
                    out.iter_mut().skip(at + place).take(2).filter(|b| b.is_ascii()).for_each(|b| *b = b'x');
                })?,
            },
            b'"' => rest.get(1..)?.find('"')? + 2,
            b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => comment(rest)?,
            b'$' => dollar_quoted(text.get(..at)?, rest)?,
            _ => rest.chars().next()?.len_utf8(),
        };
    }
    String::from_utf8(out).ok()
}

enum Prefix {
    Plain,
    Escaping,
    Bits,
    Unicode,
}

/// What stands right in front of a quote.
fn prefix(before: &str) -> Prefix {
    let mut back = before.chars().rev();
    let (last, previous) = (back.next(), back.next());
    let starts_word = previous.is_none_or(|c| !is_of_a_word(c));
    match last {
        Some('e' | 'E') if starts_word => Prefix::Escaping,
        Some('b' | 'B' | 'x' | 'X') if starts_word => Prefix::Bits,
        Some('&') if matches!(previous, Some('u' | 'U')) => Prefix::Unicode,
        _ => Prefix::Plain,
    }
}

fn is_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// Length of the constant at the text's beginning; the places of its backslashes are given to `escape`.
fn string(text: &str, escapes: bool, escape: &mut dyn FnMut(usize)) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    loop {
        at += match (bytes.get(at)?, bytes.get(at + 1)) {
            (b'\\', Some(_)) if escapes => {
                escape(at);
                2
            }
            (b'\'', Some(b'\'')) => 2,
            (b'\'', _) => return Some(at + 1),
            _ => 1,
        };
    }
}

fn comment(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match (bytes.get(at)?, bytes.get(at + 1)?) {
            (b'/', b'*') => {
                depth += 1;
                at += 2;
            }
            (b'*', b'/') => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
}

/// Length of `$tag$...$tag$`, or of the dollar alone.
fn dollar_quoted(before: &str, text: &str) -> Option<usize> {
    let inside = text.get(1..)?;
    let is_tag =
        |tag: &str| tag.chars().all(|c| is_of_a_word(c) && c != '$') && !tag.starts_with(|c: char| c.is_ascii_digit());
    let Some(tag) = inside.find('$').and_then(|end| inside.get(..end)).filter(|tag| is_tag(tag)) else {
        return Some(1);
    };
    if before.ends_with(is_of_a_word) {
        return Some(1);
    }
    let mark = format!("${tag}$");
    Some(mark.len() + text.get(mark.len()..)?.find(&mark)? + mark.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_as_letters() {
        for (text, read) in [
            (r"SELECT 'a\'b', 1", "SELECT 'axxb', 1"),
            (r"SELECT 'a\\', 'b'", "SELECT 'axx', 'b'"),
            (r"SELECT E'a\'b', X'1\'", r"SELECT E'a\'b', X'1\'"),
            (r"SELECT N'a\'b'", "SELECT N'axxb'"),
            (r#"SELECT "a\", '\n' -- it's \"#, r#"SELECT "a\", 'xx' -- it's \"#),
            (
                r"SELECT $$it's \'$$, $a$\'$$$a$, $1 /* ' /* \' */ */, 'x''\t'",
                r"SELECT $$it's \'$$, $a$\'$$$a$, $1 /* ' /* \' */ */, 'x''xx'",
            ),
            ("SELECT 'é\\é'", "SELECT 'éxé'"),
        ] {
            assert_eq!(without_escapes(text).as_deref(), Some(read));
            assert_eq!(text.len(), read.len());
        }
        for text in [r"SELECT U&'\0041'", r"SELECT 'a\'", "SELECT /* '"] {
            assert_eq!(without_escapes(text), None, "{text}");
        }
    }
}
