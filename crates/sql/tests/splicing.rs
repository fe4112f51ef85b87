//! Random whitespace and comments between the tokens of known statements change nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use pgshadow_sql::{Dialect, Image, ReturningForm, Rewrites, first_keyword, parse, with_returning};
use proptest::prelude::*;

const FORM: ReturningForm = ReturningForm {
    image: Image::Star,
    table_oid: true,
    inserted_flag: true,
    old: None,
    parameters: Vec::new(),
    dialect: Dialect::CURRENT,
};

/// Token by token, so that anything may stand between two of them.
const STATEMENTS: [&[&str]; 8] = [
    &[
        "insert",
        "into",
        "s",
        ".",
        "\"T\"\"x\"",
        "as",
        "é",
        "(",
        "a",
        ",",
        "b",
        ")",
        "values",
        "(",
        "1",
        ",",
        "'; -- é'",
        ")",
    ],
    &["insert", "into", "t", "select", "*", "from", "u", "order", "by", "1", "limit", "2", "for", "update"],
    &["insert", "into", "t", "default", "values", "on", "conflict", "do", "nothing", "returning", "*"],
    &["update", "t", "set", "a", "=", "$$ /* returning ; $$", ",", "b", "=", "b", "+", "1", "where", "id", "=", "$1"],
    &[
        "update", "only", "t", "as", "x", "set", "(", "a", ",", "b", ")", "=", "(", "select", "1", ",", "'中'", ")",
        "from", "u",
    ],
    &[
        "delete",
        "from",
        "t",
        "using",
        "u",
        "where",
        "t",
        ".",
        "id",
        "=",
        "u",
        ".",
        "id",
        "returning",
        "t",
        ".",
        "*",
        ",",
        "1",
    ],
    &["with", "x", "as", "(", "select", "E'\\'/*'", ")", "delete", "from", "t", "where", "current", "of", "c"],
    &["select", "f", "(", "1", ")", "from", "\"from;\"", "where", "a", "=", "'returning'"],
];

fn gap() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(" ".to_owned()),
        "[ \t\r\n\x0b\x0c]{1,4}",
        "[a-zé;'\"$/(]{0,6}".prop_map(|text| format!(" --{text}\n")),
        "[a-zé;'\"$(-]{0,6}".prop_map(|text| format!(" /*{text}*/")),
        "[a-z;' ]{0,4}".prop_map(|text| format!(" /*{text}/* ; -- {text} */{text}*/ ")),
    ]
}

/// A statement with gaps, and the byte range of its tokens.
fn spliced() -> impl Strategy<Value = (usize, String, std::ops::Range<usize>)> {
    (0..STATEMENTS.len()).prop_flat_map(|index| {
        let tokens = STATEMENTS[index];
        proptest::collection::vec(gap(), tokens.len() + 1).prop_map(move |gaps| {
            let mut text = gaps[0].clone();
            let start = text.len();
            let mut end = start;
            for (token, gap) in tokens.iter().zip(&gaps[1..]) {
                text.push_str(token);
                end = text.len();
                text.push_str(gap);
            }
            (index, text, start..end)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn gaps_change_nothing(parts in proptest::collection::vec(spliced(), 1..4)) {
        let mut text = String::new();
        let mut ranges = Vec::new();
        for (_, part, range) in &parts {
            ranges.push(text.len() + range.start..text.len() + range.end);
            text.push_str(part);
            text.push(';');
        }
        let parsed = parse(&text).unwrap();
        let found: Vec<_> = parsed.statements.iter().map(|statement| statement.range.clone()).collect();
        prop_assert_eq!(found, ranges);
        let mut rewrites = Vec::new();
        for ((index, _, _), statement) in parts.iter().zip(&parsed.statements) {
            let plain = parse(&STATEMENTS[*index].join(" ")).unwrap();
            prop_assert_eq!(&plain.statements[0].kind, &statement.kind);
            prop_assert_eq!(&plain.statements[0].functions, &statement.functions);
            let done = with_returning(&text, statement, &FORM);
            prop_assert_eq!(done.is_some(), *index != 7);
            rewrites.extend(done);
        }
        prop_assert_eq!(first_keyword(text.as_bytes()), first_keyword(STATEMENTS[parts[0].0][0].as_bytes()));
        let (combined, map) = Rewrites::combine(&text, &rewrites).unwrap();
        let again = parse(&combined).unwrap();
        prop_assert_eq!(again.statements.len(), parsed.statements.len());
        for (old, new) in parsed.statements.iter().zip(&again.statements) {
            let characters = |text: &str, end: usize| text[..end].chars().count() + 1;
            prop_assert_eq!(map.original_position(characters(&combined, new.range.start)), characters(&text, old.range.start));
        }
    }

    #[test]
    fn arbitrary_text_is_survived(text in "\\PC{0,60}") {
        if let Ok(parsed) = parse(&text) {
            for statement in &parsed.statements {
                prop_assert!(text.get(statement.range.clone()).is_some());
                with_returning(&text, statement, &FORM);
            }
        }
        first_keyword(text.as_bytes());
    }
}
