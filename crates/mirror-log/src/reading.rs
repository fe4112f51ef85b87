//! Reads single records by number.

use crate::disk::DiskFile;
use crate::format::{FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, read_frame};
use crate::relations::Relations;
use crate::scan::INDEX_EVERY_BYTES;
use crate::state::State;
use crate::{Error, ReadError, Record, codec};
use bytes::Bytes;
use pgshadow_model::Sequence;
use std::path::PathBuf;
use std::sync::Arc;

/// The stretch of a segment that holds a record.
#[derive(Debug)]
pub(crate) struct Place {
    pub path: PathBuf,
    pub pin: Arc<()>,
    salt: u64,
    relations: Arc<Relations>,
    /// A record at or before the one looked for.
    sequence: Sequence,
    offset: u64,
    end: u64,
}

impl Place {
    pub fn find(state: &State, sequence: Sequence) -> Result<Self, ReadError> {
        if sequence > state.written {
            return Err(ReadError::NotWritten(sequence));
        }
        let index = state.segments.partition_point(|s| s.next <= sequence);
        let segment = state.segments.get(index).filter(|s| s.header.base <= sequence);
        let segment = segment.ok_or(ReadError::Trimmed(sequence))?;
        let after = segment.points.partition_point(|p| p.sequence <= sequence);
        let point = after.checked_sub(1).and_then(|index| segment.points.get(index));
        Ok(Self {
            path: segment.path.clone(),
            pin: Arc::clone(&segment.pin),
            salt: segment.header.salt,
            relations: Arc::clone(&segment.relations),
            sequence: point.map_or(segment.header.base, |p| p.sequence),
            offset: point.map_or(SEGMENT_HEADER_BYTES, |p| p.offset),
            end: segment.end,
        })
    }

    fn wrong(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::corrupt(&self.path, offset, what)
    }
}

/// Goes from record to record until the one looked for; only that one is checked and decoded.
pub(crate) fn read_record(file: &dyn DiskFile, place: &Place, sequence: Sequence) -> Result<Record, Error> {
    let mut window = Window { file, place, start: place.offset, bytes: Vec::new() };
    let (mut offset, mut next) = (place.offset, place.sequence);
    loop {
        let header = window.get(offset, FRAME_HEADER_BYTES as u64)?;
        let header = FrameHeader::decode(header).filter(|h| h.sequence == next);
        let header = header.ok_or_else(|| place.wrong(offset, format!("record {next} should be here")))?;
        if next < sequence {
            offset += header.frame_bytes();
            next += 1;
            continue;
        }
        let frame = window.get(offset, header.frame_bytes())?;
        let frame = read_frame(frame, place.salt).map_err(|what| place.wrong(offset, what))?;
        let payload = Bytes::copy_from_slice(frame.payload);
        return codec::decode(frame.header.kind, &payload, &place.relations)
            .map_err(|error| place.wrong(offset, error.to_string()));
    }
}

/// A piece of the file in memory.
struct Window<'a> {
    file: &'a dyn DiskFile,
    place: &'a Place,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn get(&mut self, offset: u64, length: u64) -> Result<&[u8], Error> {
        let inside = offset >= self.start && offset + length <= self.start + self.bytes.len() as u64;
        if !inside {
            let bytes = length.max(INDEX_EVERY_BYTES).min(self.place.end.saturating_sub(offset));
            if bytes < length {
                return Err(self.place.wrong(offset, "a record is longer than its segment"));
            }
            self.bytes.resize(bytes as usize, 0);
            self.start = offset;
            let read = self.file.read_at(&mut self.bytes, offset);
            read.map_err(|e| Error::io("read", &self.place.path, e))?;
        }
        let from = (offset - self.start) as usize;
        let piece = self.bytes.get(from..from + length as usize);
        piece.ok_or_else(|| self.place.wrong(offset, "a record is longer than its segment"))
    }
}
