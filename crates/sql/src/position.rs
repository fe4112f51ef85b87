use crate::returning::Rewrite;

/// Insertions into one text: makes the text that is sent, and maps positions in it back.
///
/// The server reports error positions in characters from 1; insertions are kept in characters for that reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrites {
    insertions: Vec<Insertion>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Insertion {
    /// Characters of the original text before it.
    before: usize,
    /// Its own length in characters.
    length: usize,
    /// The same two in bytes.
    bytes: (usize, usize),
    /// What of it is copied from the original text: where it begins in the insertion, its length, where it is copied from.
    copied: Option<(usize, usize, usize)>,
}

impl Rewrites {
    /// Rewrites of different statements of the same text, in any order: the text with all of them and the way back.
    /// `None` if two of them meet in one place or one doesn't belong to the text.
    pub fn combine(text: &str, rewrites: &[Rewrite]) -> Option<(String, Self)> {
        let mut sorted: Vec<&Rewrite> = rewrites.iter().collect();
        sorted.sort_by_key(|rewrite| rewrite.inserted_at);
        let mut combined = String::with_capacity(text.len() + sorted.iter().map(|one| one.inserted_len).sum::<usize>());
        let (mut copied, mut characters) = (0usize, 0usize);
        let mut insertions: Vec<Insertion> = Vec::with_capacity(sorted.len());
        for rewrite in sorted {
            if rewrite.inserted_at == copied && !insertions.is_empty() {
                return None;
            }
            let between = text.get(copied..rewrite.inserted_at)?;
            let inserted = rewrite.inserted()?;
            characters += between.chars().count();
            copied = rewrite.inserted_at;
            combined.push_str(between);
            combined.push_str(inserted);
            let copied = match &rewrite.copied {
                Some(copied) => {
                    let count = |of: Option<&str>| of.map(|part| part.chars().count());
                    let (at, end) = (copied.at, copied.at + copied.len);
                    let from = count(text.get(..copied.from))?;
                    Some((count(inserted.get(..at))?, count(inserted.get(at..end))?, from))
                }
                None => None,
            };
            let bytes = (rewrite.inserted_at, inserted.len());
            insertions.push(Insertion { before: characters, length: inserted.chars().count(), bytes, copied });
        }
        combined.push_str(text.get(copied..)?);
        Some((combined, Self { insertions }))
    }

    /// The same insertions into the bytes that [`crate::masked`] or [`crate::without_escapes`] stood for, as many as theirs;
    /// `rewritten` is the text that stood for them, with the insertions.
    pub fn splice(&self, original: &[u8], rewritten: &[u8]) -> Option<Vec<u8>> {
        let (mut spliced, mut from, mut shift) = (Vec::with_capacity(rewritten.len()), 0, 0);
        for insertion in &self.insertions {
            let (before, length) = insertion.bytes;
            spliced.extend_from_slice(original.get(from..before)?);
            spliced.extend_from_slice(rewritten.get(before + shift..before + shift + length)?);
            from = before;
            shift += length;
        }
        spliced.extend_from_slice(original.get(from..)?);
        Some(spliced)
    }

    /// The position in the client's text of a position that the server reported in the rewritten one.
    ///
    /// Both count characters from 1. A position inside an insertion becomes the place where it was inserted: the
    /// character right after the statement's last token. 0, the protocol's absence of a position, stays 0.
    pub fn original_position(&self, position: usize) -> usize {
        match self.inside(position) {
            Ok((insertion, inside)) => match insertion.copied {
                Some((at, length, from)) if (at..at + length).contains(&inside) => from + inside - at + 1,
                _ => insertion.before + 1,
            },
            Err(original) => original,
        }
    }

    /// Whether what stands at a position that the server reported is no part of the client's text, nor a copy of one.
    pub fn is_inserted(&self, position: usize) -> bool {
        self.inside(position).is_ok_and(|(insertion, inside)| {
            !insertion.copied.is_some_and(|(at, length, _)| (at..at + length).contains(&inside))
        })
    }

    /// The insertion that it lies in, and how far behind its beginning; else the position in the client's text.
    fn inside(&self, position: usize) -> Result<(&Insertion, usize), usize> {
        let mut shift = 0;
        for insertion in &self.insertions {
            let start = insertion.before + shift + 1;
            if position < start {
                break;
            }
            if position < start + insertion.length {
                return Ok((insertion, position - start));
            }
            shift += insertion.length;
        }
        Err(position - shift)
    }
}
