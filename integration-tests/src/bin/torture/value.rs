//! Column types and values for them. A value stands in a statement's text between control characters, so that texts are put
//! together as plain strings and each can be sent with its values as literals or as parameters.
use integration_tests::history::Dice;

const OPEN: char = '\u{1}';
const SPLIT: char = '\u{2}';
const NULL: char = '\u{3}';
const CLOSE: char = '\u{4}';

/// A column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ty {
    /// int
    Int,
    /// bigint
    BigInt,
    /// smallint
    SmallInt,
    /// text
    Text,
    /// varchar(300)
    Varchar,
    /// char(6)
    Char,
    /// numeric
    Numeric,
    /// numeric(12,3)
    Scaled,
    /// double precision
    Float,
    /// boolean
    Bool,
    /// bytea
    Bytea,
    /// jsonb
    Jsonb,
    /// timestamptz
    Instant,
    /// date
    Date,
    /// interval
    Interval,
    /// uuid
    Uuid,
    /// int[]
    Ints,
    /// text[]
    Texts,
    /// an enum
    Mood,
    /// mood[]
    Moods,
    /// a domain over numeric with a check
    Percent,
    /// int4range
    Range,
    /// inet
    Inet,
}

impl Ty {
    /// Types for columns that are no key.
    pub const VALUES: [Ty; 23] = [
        Ty::Int,
        Ty::BigInt,
        Ty::SmallInt,
        Ty::Text,
        Ty::Text,
        Ty::Varchar,
        Ty::Char,
        Ty::Numeric,
        Ty::Scaled,
        Ty::Float,
        Ty::Bool,
        Ty::Bytea,
        Ty::Jsonb,
        Ty::Instant,
        Ty::Date,
        Ty::Interval,
        Ty::Uuid,
        Ty::Ints,
        Ty::Texts,
        Ty::Mood,
        Ty::Moods,
        Ty::Percent,
        Ty::Inet,
    ];

    /// Its name in SQL.
    pub fn sql(self) -> &'static str {
        match self {
            Ty::Int => "int",
            Ty::BigInt => "bigint",
            Ty::SmallInt => "smallint",
            Ty::Text => "text",
            Ty::Varchar => "varchar(300)",
            Ty::Char => "char(6)",
            Ty::Numeric => "numeric",
            Ty::Scaled => "numeric(12,3)",
            Ty::Float => "double precision",
            Ty::Bool => "boolean",
            Ty::Bytea => "bytea",
            Ty::Jsonb => "jsonb",
            Ty::Instant => "timestamptz",
            Ty::Date => "date",
            Ty::Interval => "interval",
            Ty::Uuid => "uuid",
            Ty::Ints => "int[]",
            Ty::Texts => "text[]",
            Ty::Mood => "mood",
            Ty::Moods => "mood[]",
            Ty::Percent => "percent",
            Ty::Range => "int4range",
            Ty::Inet => "inet",
        }
    }

    /// One of `space` keys, as the type's text.
    pub fn key(self, number: i32) -> String {
        match self {
            Ty::Int | Ty::SmallInt => number.to_string(),
            Ty::BigInt => (5_000_000_000 + i64::from(number)).to_string(),
            Ty::Numeric | Ty::Scaled => format!("{number}.5"),
            Ty::Uuid => format!("00000000-0000-4000-8000-{number:012}"),
            Ty::Date => format!("2024-02-{:02}", 1 + number % 28),
            Ty::Bytea => format!("\\x00{number:04x}"),
            Ty::Range => format!("[{number},{})", number + 1),
            Ty::Mood => MOODS[number.unsigned_abs() as usize % MOODS.len()].to_owned(),
            _ if number % 5 == 0 => format!("kéy'{number}"),
            _ => format!("k{number}"),
        }
    }

    /// Any value, as the type's text.
    pub fn any(self, dice: &mut Dice) -> String {
        let n = dice.between(-1000, 100_000);
        match self {
            Ty::Int => if dice.percent(5) { i32::MAX - 1_000_000 } else { n }.to_string(),
            Ty::BigInt => (i64::from(n) * 10_000_000_019).to_string(),
            Ty::SmallInt => (n % 30_000).to_string(),
            Ty::Text | Ty::Varchar => text(dice),
            Ty::Char => ["", "a", "ab", "abcdef", "ü"][dice.below(5)].to_owned(),
            Ty::Numeric => match dice.below(6) {
                0 => "NaN".to_owned(),
                1 => format!("{n}.{:05}00", n.abs()),
                2 => "12345678901234567890.123456789".to_owned(),
                3 => format!("{}.10", n % 3),
                4 => "-0.00".to_owned(),
                _ => n.to_string(),
            },
            Ty::Scaled => format!("{n}.{:03}", n.abs() % 1000),
            Ty::Float => {
                ["0.1", "-0", "Infinity", "1e-300", "NaN", "0.30000000000000004", "12345.678"][dice.below(7)].to_owned()
            }
            Ty::Bool => (n % 2 == 0).to_string(),
            Ty::Bytea => format!("\\x{}", ["", "00", "ff005c27", "deadbeef0a0d09"][dice.below(4)]),
            Ty::Jsonb => match dice.below(5) {
                0 => format!("{{\"a\": [{n}, null, 1.10], \"b\": \"ü\\n\"}}"),
                1 => "[]".to_owned(),
                2 => "\"it's\"".to_owned(),
                3 => "null".to_owned(),
                _ => format!("{{\"n\": {n}}}"),
            },
            Ty::Instant => {
                ["2024-02-29 12:00:00.123456+05", "infinity", "0044-03-15 00:00:00+00 BC", "1999-12-31 23:59:59+00"]
                    [dice.below(4)]
                .to_owned()
            }
            Ty::Date => ["2024-02-29", "-infinity", "1582-10-15", "2000-01-01"][dice.below(4)].to_owned(),
            Ty::Interval => ["1 mon 2 days 03:04:05.6", "-1 days", "00:00:00", "100 years"][dice.below(4)].to_owned(),
            Ty::Uuid => format!("{:08x}-0000-4000-8000-{:012x}", n.abs(), n.abs()),
            Ty::Ints => ["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:1]={7,8}"][dice.below(4)].to_owned(),
            Ty::Texts => {
                ["{}", r#"{"a,b",NULL,"NULL",""}"#, r#"{"\"q\"","back\\slash"}"#, "{é}"][dice.below(4)].to_owned()
            }
            Ty::Mood => MOODS[dice.below(3)].to_owned(),
            Ty::Moods => ["{}", "{sad,happy}", "{ok,NULL}"][dice.below(3)].to_owned(),
            Ty::Percent => format!("{}.{:02}", n.abs() % 900, n.abs() % 100),
            Ty::Range => format!("[{0},{1})", n.abs() % 20, n.abs() % 20 + 1 + n.abs() % 4),
            Ty::Inet => ["10.0.0.0/8", "192.168.0.1", "::1"][dice.below(3)].to_owned(),
        }
    }
}

const MOODS: [&str; 3] = ["sad", "ok", "happy"];

/// Text with what is awkward in SQL, COPY, CSV and encodings.
fn text(dice: &mut Dice) -> String {
    match dice.below(16) {
        0 => String::new(),
        1 => "O'Reilly \"quoted\"".to_owned(),
        2 => "back\\slash \\N \\.".to_owned(),
        3 => "tab\there\nand a line\r".to_owned(),
        4 => "ümläut € 日本語 \u{1F600}".to_owned(),
        5 => "%s $1 ; -- /* x */ :name ?".to_owned(),
        6 => "NULL".to_owned(),
        7 => "x".repeat(200),
        8 => " padded ".to_owned(),
        9 => "{a,b}".to_owned(),
        _ => format!("row {}", dice.between(1, 50)),
    }
}

/// A value within a statement's text.
pub fn put(ty: Ty, text: &str) -> String {
    assert!(!text.contains([OPEN, SPLIT, NULL, CLOSE]), "control characters in a value");
    format!("{OPEN}{}{SPLIT}{text}{CLOSE}", ty.sql())
}

/// A whole number within a statement's text.
pub fn int(number: i32) -> String {
    put(Ty::Int, &number.to_string())
}

/// NULL within a statement's text.
pub fn null(ty: Ty) -> String {
    format!("{OPEN}{}{SPLIT}{NULL}{CLOSE}", ty.sql())
}

/// The text with its values as literals.
pub fn literal(sql: &str) -> String {
    rendered(sql, |ty, value| match value {
        None => format!("NULL::{ty}"),
        // Bare, as people write them.
        Some(value) if ty == "int" => value.to_owned(),
        Some(value) => format!("'{}'::{ty}", value.replace('\'', "''")),
    })
}

/// The text with `$1`, `$2`, ... for its values, and the values as text.
pub fn parameters(sql: &str) -> (String, Vec<Option<String>>) {
    let mut values = Vec::new();
    let text = rendered(sql, |ty, value| {
        values.push(value.map(str::to_owned));
        format!("${}::{ty}", values.len())
    });
    (text, values)
}

fn rendered(sql: &str, mut put: impl FnMut(&str, Option<&str>) -> String) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let (value, behind) = after.split_once(CLOSE).expect("a value is closed");
        let (ty, value) = value.split_once(SPLIT).expect("a value has a type");
        text.push_str(before);
        text.push_str(&put(ty, (!value.starts_with(NULL)).then_some(value)));
        rest = behind;
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_literals_or_parameters() {
        let sql = format!("SELECT {}, {}, {}", int(5), put(Ty::Text, "it's"), null(Ty::Bool));
        assert_eq!(literal(&sql), "SELECT 5, 'it''s'::text, NULL::boolean");
        let expected = vec![Some("5".to_owned()), Some("it's".to_owned()), None];
        assert_eq!(parameters(&sql), ("SELECT $1::int, $2::text, $3::boolean".to_owned(), expected));
    }
}
