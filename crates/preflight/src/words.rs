//! Names and amounts, for people and for SQL.
use pgshadow_model::{QualifiedName, quote};

/// A path of names as people read it: parts are quoted only where they would be misread.
pub(crate) fn shown<T: AsRef<str>>(path: &[T]) -> String {
    path.iter().map(|part| name(part.as_ref())).collect::<Vec<_>>().join(".")
}

/// A table's name as people read it.
pub(crate) fn shown_table(table: &QualifiedName) -> String {
    shown(&[&table.schema, &table.name])
}

/// One name as people read it.
pub(crate) fn name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if starts && name.chars().all(plain) { name.to_owned() } else { quote(name) }
}

/// A definition as people read it: the server quotes every name in it.
pub(crate) fn plain(definition: &str) -> String {
    let mut text = String::new();
    let mut rest = definition;
    while let Some((before, after)) = rest.split_once('"') {
        let Some((inner, behind)) = after.split_once('"') else { break };
        text.push_str(before);
        text.push_str(&name(inner));
        rest = behind;
    }
    text + rest
}

/// A text as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    let quoted = format!("'{}'", text.replace('\'', "''"));
    if text.contains('\\') { format!("E{}", quoted.replace('\\', "\\\\")) } else { quoted }
}

/// A text as one word of a shell.
pub(crate) fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The first few of a list, and how many more there are.
pub(crate) fn some<T: AsRef<str>>(list: &[T], at_most: usize) -> String {
    let mut text = list.iter().take(at_most).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    let more = list.len().saturating_sub(at_most);
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Bytes as people read them.
pub(crate) fn bytes(bytes: i64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Seconds as people read them.
pub(crate) fn seconds(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_would_be_misread() {
        assert_eq!(shown(&["public", "orders"]), "public.orders");
        assert_eq!(shown(&["Odd", "a.b", "c\"d"]), "\"Odd\".\"a.b\".\"c\"\"d\"");
        assert_eq!(name("1st"), "\"1st\"");
        assert_eq!(name(""), "\"\"");
    }

    #[test]
    fn definitions_lose_quotes_that_say_nothing() {
        assert_eq!(plain("\"public\".\"Mood\"[] COLLATE \"C\""), "public.\"Mood\"[] COLLATE \"C\"");
        assert_eq!(plain("\"text\""), "text");
        assert_eq!(plain("a \" b"), "a \" b");
    }

    #[test]
    fn literals_and_shell_words_hold_any_text() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
        assert_eq!(shell("it's"), "'it'\\''s'");
    }

    #[test]
    fn amounts_are_for_people() {
        assert_eq!((bytes(17), bytes(1536), bytes(3 << 30)), ("17 B".into(), "1.5 KiB".into(), "3.0 GiB".into()));
        assert_eq!((seconds(61), seconds(600), seconds(90_000)), ("61 s".into(), "10 min".into(), "25 h".into()));
        assert_eq!(some(&["a", "b", "c"], 2), "a, b and 1 more");
    }
}
