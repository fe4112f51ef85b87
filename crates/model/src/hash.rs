/// 64 bits of FNV-1a over returned rows, field by field: the same values in the same order give the same number, in any process
/// and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsHash(u64);

impl Default for RowsHash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl RowsHash {
    fn eat(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The next field; `None` is NULL.
    pub fn field(&mut self, value: Option<&[u8]>) {
        let length = value.map_or(u64::MAX, |v| v.len() as u64);
        self.eat(&length.to_be_bytes());
        self.eat(value.unwrap_or_default());
    }

    /// The end of a row.
    pub fn end_row(&mut self) {
        self.eat(b"row");
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// The same over one text.
#[must_use]
pub fn hash_text(text: &str) -> u64 {
    let mut hash = RowsHash::default();
    hash.field(Some(text.as_bytes()));
    hash.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_fields_are_told_apart() {
        let of = |rows: &[&[Option<&str>]]| {
            let mut hash = RowsHash::default();
            for row in rows {
                row.iter().for_each(|field| hash.field(field.map(str::as_bytes)));
                hash.end_row();
            }
            hash.get()
        };
        let all = [
            of(&[]),
            of(&[&[Some("ab")]]),
            of(&[&[Some("a"), Some("b")]]),
            of(&[&[Some("a")], &[Some("b")]]),
            of(&[&[None]]),
            of(&[&[Some("")]]),
        ];
        for (n, hash) in all.iter().enumerate() {
            assert!(all.iter().skip(n + 1).all(|other| other != hash));
        }
    }
}
