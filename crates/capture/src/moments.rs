//! COPY data that name a moment: `now` is read as the time of the reading, which is another one on the shadow.
use bytes::Bytes;
use pgshadow_model::{Column, Shape};

const WORDS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

/// The longest of them.
const LONGEST: usize = 9;

/// Types whose input reads no moment: whatever the text, it means the same at any time.
const STEADY: [u32; 30] = [
    16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 142, 600, 700, 701, 790, 829, 774, 869, 650, 1042, 1043, 1186, 1560, 1562,
    1700, 2950, 3220, 3802, 5069, 1009,
];

/// Whether the data hold such a word, while a column's type could read it so. Words in other columns count too.
pub(crate) fn names_a_moment(columns: &[Column], data: &[Bytes]) -> bool {
    let moving = |c: &Column| c.column_type.shape != Shape::Plain || !STEADY.contains(&c.column_type.oid);
    columns.iter().any(moving) && has_word(data)
}

fn has_word(data: &[Bytes]) -> bool {
    // a word may begin in one message and end in another
    let mut word: Vec<u8> = Vec::with_capacity(LONGEST + 1);
    for byte in data.iter().flatten() {
        if byte.is_ascii_alphabetic() {
            if word.len() <= LONGEST {
                word.push(byte.to_ascii_lowercase());
            }
        } else if !word.is_empty() {
            if WORDS.contains(&word.as_slice()) {
                return true;
            }
            word.clear();
        }
    }
    WORDS.contains(&word.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgshadow_model::{ColumnType, QualifiedName};

    fn column(oid: u32) -> Column {
        let column_type = ColumnType { oid, name: QualifiedName::new("pg_catalog", "t"), shape: Shape::Plain };
        Column { name: "c".into(), column_type, not_null: false, generated: false, identity_always: false }
    }

    #[test]
    fn words_of_moments() {
        let at = [column(23), column(1184)];
        let data = |parts: &[&'static str]| parts.iter().map(|p| Bytes::from_static(p.as_bytes())).collect::<Vec<_>>();
        for there in [&["1\tnow\n"][..], &["1\tN", "oW"], &["{today,1}"], &["1\t yesterday \n"], &["tomorrow"]] {
            assert!(names_a_moment(&at, &data(there)), "{there:?}");
            assert!(!names_a_moment(&[column(23), column(25)], &data(there)), "{there:?}");
        }
        for not in ["1\t2024-01-01\n", "know", "nowhere", "yesterdays", ""] {
            assert!(!names_a_moment(&at, &data(&[not])), "{not}");
        }
    }
}
