//! Bytes of a segment: its header and the frames of its records. See the crate's doc for the layout.

use pgshadow_model::Sequence;

pub(crate) const VERSION: u32 = 3;
/// Of the versions before, those that are read as well: 3 has more kinds of records.
const VERSION_MIN: u32 = 2;
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;
pub(crate) const FRAME_HEADER_BYTES: usize = 24;
pub(crate) const ALIGNMENT: usize = 8;
const MAGIC: [u8; 8] = *b"pgshlog\n";
const KIND_MAX: u32 = 8;

/// What a segment's records are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub base: Sequence,
    pub salt: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    NotASegment,
    Version(u32),
    Checksum,
}

impl SegmentHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.resize(SEGMENT_HEADER_BYTES as usize - 4, 0);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let (checked, crc) = bytes
            .get(..SEGMENT_HEADER_BYTES as usize)
            .and_then(|header| header.split_at_checked(SEGMENT_HEADER_BYTES as usize - 4))
            .ok_or(HeaderError::NotASegment)?;
        if checked.get(..8) != Some(&MAGIC) {
            return Err(HeaderError::NotASegment);
        }
        // The version comes before the checksum: a later version may place its checksum elsewhere.
        let version = u32_at(checked, 8).ok_or(HeaderError::NotASegment)?;
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(HeaderError::Version(version));
        }
        if u32_at(crc, 0) != Some(crc32fast::hash(checked)) {
            return Err(HeaderError::Checksum);
        }
        match (u64_at(checked, 16), u64_at(checked, 24)) {
            (Some(base), Some(salt)) => Ok(Self { base, salt }),
            _ => Err(HeaderError::NotASegment),
        }
    }
}

/// A frame's fixed part; not checked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub length: u32,
    pub crc: u32,
    pub sequence: Sequence,
    /// How many records before this one were not known to be on disk when it was written.
    pub unsynced: u32,
    pub kind: u32,
}

impl FrameHeader {
    /// `None` where fewer bytes remain than a header takes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            length: u32_at(bytes, 0)?,
            crc: u32_at(bytes, 4)?,
            sequence: u64_at(bytes, 8)?,
            unsynced: u32_at(bytes, 16)?,
            kind: u32_at(bytes, 20)?,
        })
    }

    /// Untouched space: a frame is never all zero, since its kind isn't.
    pub fn is_zero(&self) -> bool {
        self.length == 0 && self.crc == 0 && self.sequence == 0 && self.unsynced == 0 && self.kind == 0
    }

    /// Bytes of the whole frame, padding included.
    pub fn frame_bytes(&self) -> u64 {
        frame_bytes(self.length as usize)
    }

    /// The first record that was not known to be on disk when this one was written.
    pub fn unsynced_from(&self) -> Sequence {
        self.sequence.saturating_sub(u64::from(self.unsynced))
    }

    fn checksum(&self, salt: u64, parts: &[&[u8]]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&salt.to_le_bytes());
        hasher.update(&self.length.to_le_bytes());
        hasher.update(&self.sequence.to_le_bytes());
        hasher.update(&self.unsynced.to_le_bytes());
        hasher.update(&self.kind.to_le_bytes());
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

/// A frame whose checksum holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub header: FrameHeader,
    pub payload: &'a [u8],
}

/// Bytes that a payload takes with its header and padding.
pub(crate) fn frame_bytes(payload_bytes: usize) -> u64 {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(ALIGNMENT) as u64
}

/// Appends a frame. The caller has made sure that the payload's length fits 32 bits.
pub(crate) fn write_frame(out: &mut Vec<u8>, salt: u64, mut header: FrameHeader, parts: &[&[u8]]) {
    let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
    header.length = payload_bytes as u32;
    header.crc = header.checksum(salt, parts);
    let end = out.len() + frame_bytes(payload_bytes) as usize;
    out.reserve(end - out.len());
    out.extend_from_slice(&header.length.to_le_bytes());
    out.extend_from_slice(&header.crc.to_le_bytes());
    out.extend_from_slice(&header.sequence.to_le_bytes());
    out.extend_from_slice(&header.unsynced.to_le_bytes());
    out.extend_from_slice(&header.kind.to_le_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.resize(end, 0);
}

/// The frame at the start of `bytes`; the error says what is wrong with it.
pub(crate) fn read_frame(bytes: &[u8], salt: u64) -> Result<Frame<'_>, &'static str> {
    let header = FrameHeader::decode(bytes).ok_or("a record's header is cut off")?;
    if header.kind == 0 || header.kind > KIND_MAX {
        return Err("no record begins here");
    }
    let payload = (FRAME_HEADER_BYTES.checked_add(header.length as usize))
        .and_then(|end| bytes.get(FRAME_HEADER_BYTES..end))
        .ok_or("a record is longer than its segment")?;
    if header.checksum(salt, &[payload]) != header.crc {
        return Err("a record's checksum doesn't match");
    }
    Ok(Frame { header, payload })
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

/// Name of the segment file that begins with this record.
pub(crate) fn segment_name(base: Sequence) -> String {
    format!("{base:020}.segment")
}

/// The first record of the segment file with this name.
pub(crate) fn segment_base(name: &str) -> Option<Sequence> {
    let digits = name.strip_suffix(".segment")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: Sequence, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let header = FrameHeader { length: 0, crc: 0, sequence, unsynced: 2, kind: 1 };
        write_frame(&mut out, 7, header, &[payload]);
        out
    }

    #[test]
    fn frame_reads_what_was_written() {
        for length in 0..20 {
            let payload = vec![0xA5; length];
            let bytes = frame(9, &payload);
            assert_eq!(bytes.len() % ALIGNMENT, 0);
            let read = read_frame(&bytes, 7).unwrap();
            assert_eq!((read.payload, read.header.sequence), (payload.as_slice(), 9));
            assert_eq!(read.header.unsynced_from(), 7);
        }
    }

    #[test]
    fn frame_of_another_segment_is_refused() {
        assert!(read_frame(&frame(9, b"abc"), 8).is_err());
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let good = frame(9, b"payload!");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read_frame(&bad, 7).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_segment_header_is_noticed() {
        let header = SegmentHeader { base: 12, salt: 99 };
        let good = header.encode();
        assert_eq!(SegmentHeader::decode(&good), Ok(header));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&good[..63]), Err(HeaderError::NotASegment));
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = SegmentHeader { base: 1, salt: 1 }.encode();
        bytes[8] = 4;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Version(4)));
    }

    #[test]
    fn names_sort_like_numbers() {
        assert_eq!(segment_base(&segment_name(42)), Some(42));
        assert!(segment_name(9) < segment_name(10));
        assert_eq!(segment_base("+0000000000000000001.segment"), None);
        assert_eq!(segment_base("1.segment"), None);
    }
}
