use bytes::{Bytes, BytesMut};

/// Longest frame that PostgreSQL itself accepts: 1 GiB - 1 (`PQ_LARGE_MESSAGE_LIMIT`), plus the type byte.
const LENGTH_MAX: usize = 0x3FFF_FFFF;

/// A length word that no PostgreSQL peer would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message of type {tag:?} has the impossible length {length}", tag = char::from(*tag))]
pub struct FrameError {
    /// Type byte.
    pub tag: u8,
    /// Length word as read.
    pub length: i32,
}

/// Type and size of the frame at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Type byte.
    pub tag: u8,
    /// Bytes of the whole frame: type byte, length word and body.
    pub size: usize,
}

impl Header {
    /// Bytes of a header.
    pub const SIZE: usize = 5;

    /// Reads the header at the front of `buffer`; `None` while it isn't whole.
    ///
    /// # Errors
    /// [`FrameError`] if the length word is below 4 or above 1 GiB: the stream can't be cut any more.
    pub fn read(buffer: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(&[tag, a, b, c, d]) = buffer.first_chunk::<{ Self::SIZE }>() else { return Ok(None) };
        let length = i32::from_be_bytes([a, b, c, d]);
        match usize::try_from(length) {
            Ok(n) if (4..=LENGTH_MAX).contains(&n) => Ok(Some(Self { tag, size: n + 1 })),
            _ => Err(FrameError { tag, length }),
        }
    }
}

/// One whole frame, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Type byte.
    pub tag: u8,
    /// All bytes, type byte and length word included.
    pub bytes: Bytes,
}

impl Frame {
    /// Cuts the frame at the front of `buffer` if it is there whole.
    ///
    /// # Errors
    /// See [`Header::read`].
    pub fn cut(buffer: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        match Header::read(buffer)? {
            Some(header) if buffer.len() >= header.size => {
                Ok(Some(Self { tag: header.tag, bytes: buffer.split_to(header.size).freeze() }))
            }
            _ => Ok(None),
        }
    }

    /// The body: what comes after the length word.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.bytes.get(Header::SIZE..).unwrap_or_default()
    }

    /// The body as a slice that shares the frame's memory.
    #[must_use]
    pub fn body_bytes(&self) -> Bytes {
        if self.bytes.len() < Header::SIZE { Bytes::new() } else { self.bytes.slice(Header::SIZE..) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_frames_and_leaves_the_rest() {
        let mut buffer = BytesMut::from(&b"Z\0\0\0\x05IS\0\0\0"[..]);
        let frame = Frame::cut(&mut buffer).unwrap().unwrap();
        assert_eq!((frame.tag, frame.body()), (b'Z', &b"I"[..]));
        assert_eq!(Frame::cut(&mut buffer), Ok(None));
        assert_eq!(&buffer[..], b"S\0\0\0");
    }

    #[test]
    fn refuses_impossible_lengths() {
        for length in [-1, 0, 3, i32::MIN, i32::MAX] {
            let mut bytes = vec![b'Q'];
            bytes.extend(length.to_be_bytes());
            assert_eq!(Header::read(&bytes), Err(FrameError { tag: b'Q', length }));
        }
    }
}
