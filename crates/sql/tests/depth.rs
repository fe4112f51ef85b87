//! No text, however deep or long, brings the process down.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use pgshadow_sql::{Dialect, Image, ParseError, ReturningForm, fingerprint, parse, with_returning};

const FORM: ReturningForm = ReturningForm {
    image: Image::Star,
    table_oid: true,
    inserted_flag: false,
    old: None,
    parameters: Vec::new(),
    dialect: Dialect::CURRENT,
};

/// `before` n times, a core, `after` n times.
const SHAPES: [(&str, &str, &str); 16] = [
    ("(", "1", ")"),
    ("((", "1", "))"),
    ("not ", "true", ""),
    ("- ", "1", ""),
    ("", "a", " + a"),
    ("", "'a'", "||'a'"),
    ("", "a", " isnull"),
    ("", "a", "::int"),
    ("", "a", " collate \"C\""),
    ("f(", "1", ")"),
    ("(select ", "1", ")"),
    ("array[", "1", "]"),
    ("case when a then ", "1", " end"),
    ("exists(select * from (select 1 where ", "true", ") x)"),
    ("", "a", " or (a and b)"),
    ("(", "1", ") isnull"),
];

#[test]
fn any_depth_is_survived() {
    for (before, core, after) in SHAPES {
        for count in [40, 90, 400, 2_000, 10_000, 100_000] {
            let text = format!("update t set x = {}{core}{}", before.repeat(count), after.repeat(count));
            match parse(&text) {
                Ok(parsed) => {
                    assert!(count <= 10_000 || after == " or (a and b)", "{before}{count}{after}");
                    let rewrite = with_returning(&text, &parsed.statements[0], &FORM);
                    assert!(rewrite.is_some(), "{before}{count}{after}");
                    fingerprint(&text);
                }
                Err(ParseError::TooDeep(_) | ParseError::Syntax(_)) => assert!(count > 400, "{before}{count}{after}"),
                Err(error) => panic!("{before}{count}{after}: {error}"),
            }
        }
    }
}

#[test]
fn set_operations_and_joins() {
    for count in [90, 2_000, 50_000] {
        for text in [
            format!("insert into t select 1, 2 {}", "union all select 1, 2 ".repeat(count)),
            format!("insert into t select 1 from a {}", "join b on true ".repeat(count)),
            format!("insert into t select 1 from a {}", ", b".repeat(count)),
            format!("insert into t values (1, 2) {}", ", (1, 2)".repeat(count)),
        ] {
            match parse(&text) {
                Ok(parsed) => assert!(with_returning(&text, &parsed.statements[0], &FORM).is_some()),
                Err(error) => assert!(matches!(error, ParseError::TooDeep(_)) && count > 2_000, "{count}: {error}"),
            }
        }
    }
}

#[test]
fn unclosed_brackets() {
    for text in ["(".repeat(100_000), "select ".to_owned() + &"[".repeat(100_000), ")".repeat(100_000)] {
        assert!(parse(&text).is_err());
        assert_eq!(fingerprint(&text), None);
    }
}

#[test]
fn small_stacks_do_for_shallow_texts() {
    // A worker thread that has used half of its 2 MiB.
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(|| {
            for (before, core, after) in SHAPES {
                for count in 1..120 {
                    let text = format!("update t set x = {}{core}{}", before.repeat(count), after.repeat(count));
                    let parsed = parse(&text).unwrap();
                    assert!(with_returning(&text, &parsed.statements[0], &FORM).is_some());
                }
            }
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn long_lists_and_many_statements() {
    let ids: Vec<String> = (0..20_000).map(|id| id.to_string()).collect();
    let parsed = parse(&format!("delete from t where id in ({})", ids.join(","))).unwrap();
    assert_eq!(parsed.statements.len(), 1);
    assert_eq!(parse(&"delete from t;".repeat(5_000)).unwrap().statements.len(), 5_000);
}
