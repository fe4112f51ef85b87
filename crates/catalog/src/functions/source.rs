//! Sources of functions, read word by word.
use std::collections::HashSet;

/// Words whose statements or functions run a text: then words in literals count as well.
const RUNS_TEXTS: &[&str] = &[
    "execute",
    "query_to_xml",
    "query_to_xmlschema",
    "query_to_xml_and_xmlschema",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "ts_stat",
    "ts_rewrite",
    "crosstab",
    "crosstabn",
    "dblink",
    "dblink_exec",
    "dblink_open",
];

fn inside(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Whether it may make, change or drop functions, views and the like, by texts that it runs too.
pub(super) fn defines_code(source: &str) -> bool {
    const FILLING: &[&str] = &["or", "replace", "temp", "temporary", "recursive", "trusted", "constraint"];
    const CODE: &[&str] = &[
        "function",
        "procedure",
        "routine",
        "aggregate",
        "view",
        "rule",
        "operator",
        "cast",
        "domain",
        "extension",
        "event",
        "schema",
    ];
    let words = every_word(source);
    let mut verb = false;
    for word in words.filter(|w| !FILLING.contains(&w.as_str())) {
        if verb && CODE.contains(&word.as_str()) {
            return true;
        }
        verb = matches!(word.as_str(), "create" | "alter" | "drop");
    }
    false
}

/// All words of a text, in lower case.
pub(super) fn all_words(source: &str) -> HashSet<String> {
    every_word(source).collect()
}

fn every_word(source: &str) -> impl Iterator<Item = String> {
    source.split(|c: char| !inside(c)).filter(|w| !w.is_empty()).map(str::to_lowercase)
}

/// The words of a source, in lower case: without those in comments and, unless it runs texts, in literals.
pub(super) fn words(source: &str) -> HashSet<String> {
    sequence(source).into_iter().collect()
}

/// The same in their order.
pub(super) fn sequence(source: &str) -> Vec<String> {
    let Some(tokens) = tokens(source) else { return every_word(source).collect() };
    let words: Vec<String> = tokens.into_iter().filter(|t| t.starts_with(inside)).collect();
    if words.iter().any(|w| RUNS_TEXTS.contains(&w.as_str())) { every_word(source).collect() } else { words }
}

/// The columns of NEW that the source of a trigger function assigns; `None` where it may do so in a way that isn't `NEW.c := ...`
/// at the beginning of a statement, or return something else than NEW, OLD or NULL.
pub(super) fn assigned(source: &str) -> Option<HashSet<String>> {
    const OTHER_WAYS: &[&str] = &["into", "execute", "for", "foreach", "get", "fetch", "call", "alias"];
    const BEFORE_STATEMENT: &[&str] = &[";", "begin", "then", "else", "loop", ">"];
    let tokens = tokens(source)?;
    let mut columns = HashSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let near = |steps: usize| tokens.get(at + steps).map(String::as_str);
        let before = at.checked_sub(1).and_then(|b| tokens.get(b)).map(String::as_str);
        match token.as_str() {
            word if OTHER_WAYS.contains(&word) => return None,
            "return" if !matches!(near(1), Some("new" | "old" | "null")) || near(2) != Some(";") => return None,
            "new" if before == Some("return") => {}
            "new" if near(1) != Some(".") => return None,
            "new" if before.is_none_or(|b| BEFORE_STATEMENT.contains(&b)) => {
                columns.insert(near(2)?.to_owned());
            }
            _ => {}
        }
    }
    Some(columns)
}

/// Words and single signs, in lower case, without comments and literals; `None` where a backslash before a quote may mean two things.
fn tokens(source: &str) -> Option<Vec<String>> {
    if source.contains("\\'") {
        return None;
    }
    let (mut tokens, mut rest) = (Vec::new(), source);
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if first == '\'' {
            // a doubled quote is the end of one literal and the beginning of the next
            rest.get(1..)?.find('\'').map_or(rest.len(), |end| end + 2)
        } else if let Some(tag) = dollar_tag(rest) {
            rest.get(tag.len()..)?.find(tag).map_or(rest.len(), |end| end + 2 * tag.len())
        } else if inside(first) {
            let length = rest.find(|c: char| !inside(c)).unwrap_or(rest.len());
            tokens.push(rest.get(..length)?.to_lowercase());
            length
        } else {
            if !first.is_whitespace() && first != '"' {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = rest.get(length..)?;
    }
    Some(tokens)
}

/// How long the comment is, those inside it included.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|r| !r.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The `$tag$` at which a literal begins.
fn dollar_tag(text: &str) -> Option<&str> {
    let after = text.strip_prefix('$')?;
    let end = after.find('$')?;
    let tag = after.get(..end)?;
    let named = |c: char| c.is_alphanumeric() || c == '_';
    (tag.chars().all(named) && !tag.starts_with(|c: char| c.is_ascii_digit())).then(|| text.get(..end + 2))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_do_nothing() {
        let has = |source: &str, word: &str| words(source).contains(word);
        assert!(!has("if tg_op = 'DELETE' then return old; end if; -- update\n /* insert /* */ insert */", "delete"));
        assert!(!has("raise notice $a$ update $a$; x := 'it''s delete'", "update"));
        assert!(has("x := 'a'; delete from t; y := 'b'", "delete"));
        assert!(has("EXECUTE 'delete from t'", "delete"));
        // read with backslash escapes, the second literal would be another one
        assert!(has(r"x := 'it\'s'; delete from t; y := 'b'", "delete"));
        assert!(has("return $1 + 1; update t set v = $2", "update"));
        assert!(has("x := '", "x") && !has("/* unended", "unended"));
        assert!(has("insert into \"T\" values (1)", "t"));
    }

    #[test]
    fn columns_that_a_trigger_assigns() {
        let columns = |source: &str| {
            assigned(source).map(|c| {
                let mut list: Vec<_> = c.into_iter().collect();
                list.sort();
                list.join(",")
            })
        };
        let some = |list: &str| Some(list.to_owned());
        assert_eq!(
            columns("BEGIN IF NEW.id > 5 THEN NEW.v := NEW.id; END IF; NEW.w = 1; RETURN NEW; END"),
            some("v,w")
        );
        assert_eq!(
            columns("begin if tg_op = 'DELETE' then return old; else new.a := 1; end if; return new; end"),
            some("a")
        );
        assert_eq!(columns("begin raise notice '%', new.id; return null; end"), some(""));
        for other in [
            "begin select 1 into new.id; return new; end",
            "begin new := row(1, 2); return new; end",
            "declare r t; begin r := new; r.id := 5; return r; end",
            "begin return new + 1; end",
            "begin for new.id in 1..3 loop end loop; return new; end",
        ] {
            assert_eq!(columns(other), None, "{other}");
        }
    }
}
