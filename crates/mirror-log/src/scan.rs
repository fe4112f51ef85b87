//! Reads a whole segment: which records it holds, and whether its end is a torn write or damage.

use crate::Error;
use crate::codec;
use crate::format::{ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::format::{VERSION, frame_bytes, read_frame};
use crate::relations::{Pool, Relations};
use pgshadow_model::Sequence;
use std::path::Path;
use std::sync::Arc;

/// Every so many bytes a point of the index, which bounds both the index and what a read has to skip.
pub(crate) const INDEX_EVERY_BYTES: u64 = 64 << 10;

/// Where a record begins in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub sequence: Sequence,
    pub offset: u64,
}

/// A segment as found on disk.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub header: SegmentHeader,
    /// The record that comes next.
    pub next: Sequence,
    /// End of the last good record.
    pub end: u64,
    pub points: Vec<Point>,
    pub relations: Arc<Relations>,
    /// What is wrong at `end`, if it isn't simply the end.
    pub torn: Option<Torn>,
}

/// An unfinished write.
#[derive(Debug)]
pub(crate) struct Torn {
    pub what: &'static str,
    /// Whole records that follow the bad one; they were written with it, and never acknowledged.
    pub records_after: u64,
}

pub(crate) fn scan(path: &Path, bytes: &[u8], pool: &mut Pool) -> Result<Scanned, Error> {
    let header = SegmentHeader::decode(bytes).map_err(|error| match error {
        HeaderError::NotASegment => Error::corrupt(path, 0, "this is no segment of a mirror log"),
        HeaderError::Version(found) => Error::Version { path: path.to_owned(), found, supported: VERSION },
        HeaderError::Checksum => Error::corrupt(path, 0, "the segment header's checksum doesn't match"),
    })?;
    let mut relations = Relations::new();
    let mut points: Vec<Point> = Vec::new();
    let mut end = SEGMENT_HEADER_BYTES;
    let mut next = header.base;
    let what = loop {
        let rest = bytes.get(end as usize..).unwrap_or_default();
        let frame = match read_frame(rest, header.salt) {
            Ok(frame) if frame.header.sequence == next => frame,
            Ok(_) => break Some("a record has the number of another"),
            Err(_) if ends_here(rest) => break None,
            Err(what) => break Some(what),
        };
        let defined =
            codec::definitions(frame.payload).map_err(|error| Error::corrupt(path, end, error.to_string()))?;
        relations.extend(defined.into_iter().map(|(id, relation)| (id, pool.share(relation))));
        note_point(&mut points, Point { sequence: next, offset: end });
        end += frame.header.frame_bytes();
        next += 1;
    };
    let records_after = records_after(path, bytes, &header, end, next, what)?;
    let torn = match what {
        Some(what) => Some(Torn { what, records_after }),
        None if records_after > 0 => Some(Torn { what: "a record is missing", records_after }),
        None => None,
    };
    Ok(Scanned { header, next, end, points, relations: Arc::new(relations), torn })
}

/// Adds a point to an index if the last one is far enough away.
pub(crate) fn note_point(points: &mut Vec<Point>, point: Point) {
    if points.last().is_none_or(|last| point.offset - last.offset >= INDEX_EVERY_BYTES) {
        points.push(point);
    }
}

fn ends_here(rest: &[u8]) -> bool {
    match FrameHeader::decode(rest) {
        Some(header) => header.is_zero(),
        None => rest.iter().all(|b| *b == 0),
    }
}

/// Looks for good records after the place where reading stopped. One that was written when the record at that place
/// was known to be on disk proves damage; others are the rest of an unfinished group.
fn records_after(
    path: &Path,
    bytes: &[u8],
    segment: &SegmentHeader,
    end: u64,
    next: Sequence,
    what: Option<&'static str>,
) -> Result<u64, Error> {
    let mut found = 0;
    let mut offset = end as usize;
    let sequence_max = next.saturating_add(bytes.len() as u64 / frame_bytes(0));
    while let Some(rest) = bytes.get(offset..).filter(|rest| rest.len() >= FRAME_HEADER_BYTES) {
        let candidate = FrameHeader::decode(rest).filter(|h| h.sequence >= next && h.sequence <= sequence_max);
        match candidate.and_then(|_| read_frame(rest, segment.salt).ok()) {
            Some(frame) if frame.header.unsynced_from() > next => {
                let what = what.unwrap_or("zeros where a record was");
                let after = frame.header.sequence;
                return Err(Error::corrupt(path, end, format!("{what}; record {after} after it is good")));
            }
            Some(frame) => {
                found += 1;
                offset += frame.header.frame_bytes() as usize;
            }
            None => offset += ALIGNMENT,
        }
    }
    Ok(found)
}
