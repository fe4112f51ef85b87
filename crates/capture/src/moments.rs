//! COPY data that name a moment: `now` is read as the time of the reading, which is another one on the shadow.
use pgshadow_model::{Column, Shape};

const WORDS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

/// The longest of them.
const LONGEST: usize = 9;

/// Types whose input reads no moment: whatever the text, it means the same at any time.
const STEADY: [u32; 30] = [
    16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 142, 600, 700, 701, 790, 829, 774, 869, 650, 1042, 1043, 1186, 1560, 1562,
    1700, 2950, 3220, 3802, 5069, 1009,
];

/// Looks for such words in the data of one COPY, as they come.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    /// Whether a column's type could read one so; once it was asked.
    matter: Option<bool>,
    /// The word at the end of the data so far: it may go on in the next message.
    word: Vec<u8>,
    found: bool,
}

impl Moments {
    /// Words in columns that read none count too.
    pub fn look(&mut self, columns: &[Column], data: &[u8]) {
        let moving = |c: &Column| c.column_type.shape != Shape::Plain || !STEADY.contains(&c.column_type.oid);
        if !*self.matter.get_or_insert_with(|| columns.iter().any(moving)) {
            return;
        }
        for byte in data {
            if byte.is_ascii_alphabetic() {
                if self.word.len() <= LONGEST {
                    self.word.push(byte.to_ascii_lowercase());
                }
            } else if !self.word.is_empty() {
                self.found |= self.is_word();
                self.word.clear();
            }
        }
    }

    fn is_word(&self) -> bool {
        WORDS.contains(&self.word.as_slice())
    }

    /// Whether there was one in all of the data.
    pub fn found(&self) -> bool {
        self.found || self.is_word()
    }
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
        let found = |columns: &[Column], parts: &[&str]| {
            let mut moments = Moments::default();
            parts.iter().for_each(|part| moments.look(columns, part.as_bytes()));
            moments.found()
        };
        for there in [
            &["1\tnow\n"][..],
            &["1\tN", "oW"],
            &["1\tnow\n", "2\tx\n"],
            &["{today,1}"],
            &["1\t yesterday \n"],
            &["tomorrow"],
        ] {
            assert!(found(&at, there), "{there:?}");
            assert!(!found(&[column(23), column(25)], there), "{there:?}");
        }
        for not in ["1\t2024-01-01\n", "know", "nowhere", "yesterdays", ""] {
            assert!(!found(&at, &[not]), "{not}");
        }
    }
}
