//! Encodings of a client. Characters from U+E000 to U+E0FF stand for single bytes, whatever they mean there.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Latin1,
    Win1252,
    EucJp,
    SqlAscii,
}

const EUC_JP: [(char, [u8; 2]); 3] = [('あ', [0xa4, 0xa2]), ('漢', [0xb4, 0xc1]), ('字', [0xbb, 0xfa])];

impl Encoding {
    /// As client_encoding has it.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Utf8 => "UTF8",
            Encoding::Latin1 => "LATIN1",
            Encoding::Win1252 => "WIN1252",
            Encoding::EucJp => "EUC_JP",
            Encoding::SqlAscii => "SQL_ASCII",
        }
    }

    /// Characters that it has, for texts and names.
    pub fn alphabet(self) -> &'static [char] {
        match self {
            Encoding::Utf8 | Encoding::SqlAscii => &['é', 'ü', 'ß', '漢', '字', '😀', 'a'],
            Encoding::Latin1 => &['é', 'ü', 'ß', 'a'],
            Encoding::Win1252 => &['é', '€', 'ß', 'a'],
            Encoding::EucJp => &['あ', '漢', '字', 'a'],
        }
    }

    /// The bytes; `?` for what it hasn't.
    pub fn bytes(self, text: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        for character in text.chars() {
            let code = character as u32;
            match (self, code) {
                (_, 0..=0x7f) => out.push(code as u8),
                (_, 0xe000..=0xe0ff) => out.push((code - 0xe000) as u8),
                (Encoding::Utf8 | Encoding::SqlAscii, _) => {
                    out.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                (Encoding::Win1252, 0x20ac) => out.push(0x80),
                (Encoding::Latin1 | Encoding::Win1252, 0xa0..=0xff) => out.push(code as u8),
                (Encoding::EucJp, _) => match EUC_JP.iter().find(|(known, _)| *known == character) {
                    Some((_, bytes)) => out.extend(bytes),
                    None => out.push(b'?'),
                },
                _ => out.push(b'?'),
            }
        }
        out
    }
}
