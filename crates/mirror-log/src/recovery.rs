//! What is found when the log is opened.

use crate::codec;
use crate::disk::Disk;
use crate::format::{self, read_frame, segment_base};
use crate::relations::{Pool, Relations};
use crate::scan::{Scanned, Torn, scan};
use crate::state::Segment;
use crate::{Error, Record};
use bytes::Bytes;
use pgshadow_model::Sequence;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An unfinished write at the end of the log, dropped: its records were never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The last segment.
    pub path: PathBuf,
    /// Where it was cut.
    pub offset: u64,
    /// Bytes dropped, up to the last one that isn't zero.
    pub bytes: u64,
    /// What was wrong with the first dropped record.
    pub what: String,
    /// Whole records among the dropped bytes.
    pub records: u64,
}

/// What the log held when it was opened.
#[derive(Debug)]
pub struct Recovery {
    /// The first record that is retained; one above `last` where there is none.
    pub first: Sequence,
    /// The last record; numbers go on from here. 0 in a new log.
    pub last: Sequence,
    /// What was dropped at the end.
    pub torn_tail: Option<TornTail>,
    /// Why mirroring was stopped, if it was: then records are missing, and every table is in doubt.
    pub stopped: Option<String>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segments: Vec<Found>,
}

/// A segment to be read.
#[derive(Debug)]
pub(crate) struct Found {
    path: PathBuf,
    salt: u64,
    base: Sequence,
    next: Sequence,
    relations: Arc<Relations>,
    /// Keeps the file from being written over; it may be removed.
    _pin: Arc<()>,
}

impl Recovery {
    /// All retained records, in order. Read them before trimming: a segment that is trimmed meanwhile ends the
    /// iteration with an error.
    #[must_use]
    pub fn read_all(&self) -> RecoveredRecords<'_> {
        RecoveredRecords { recovery: self, segment: 0, next: self.first, offset: 0, bytes: Vec::new() }
    }
}

/// Iterator over the records of a [`Recovery`]; ends after an error. One segment is in memory at a time.
#[derive(Debug)]
pub struct RecoveredRecords<'a> {
    recovery: &'a Recovery,
    segment: usize,
    next: Sequence,
    offset: usize,
    bytes: Vec<u8>,
}

impl Iterator for RecoveredRecords<'_> {
    type Item = Result<(Sequence, Record), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = self.recovery.segments.get(self.segment)?;
            if self.next < found.next {
                let record = self.read(found);
                if record.is_err() {
                    self.segment = usize::MAX;
                }
                return Some(record);
            }
            self.bytes = Vec::new();
            self.segment += 1;
        }
    }
}

impl RecoveredRecords<'_> {
    fn read(&mut self, found: &Found) -> Result<(Sequence, Record), Error> {
        if self.bytes.is_empty() {
            self.bytes = read_file(&*self.recovery.disk, &found.path)?;
            self.offset = format::SEGMENT_HEADER_BYTES as usize;
            self.next = found.base;
        }
        let wrong = |what: String| Error::corrupt(&found.path, self.offset as u64, what);
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let frame = read_frame(rest, found.salt).map_err(|what| wrong(what.to_owned()))?;
        if frame.header.sequence != self.next {
            return Err(wrong("a record has the number of another".to_owned()));
        }
        let payload = Bytes::copy_from_slice(frame.payload);
        let record = codec::decode(frame.header.kind, &payload, &found.relations).map_err(|e| wrong(e.to_string()))?;
        self.offset += frame.header.frame_bytes() as usize;
        self.next += 1;
        Ok((frame.header.sequence, record))
    }
}

/// The segments found, checked, and the end of the last one repaired.
pub(crate) struct Segments {
    pub segments: VecDeque<Segment>,
    pub found: Vec<Found>,
    pub last: Sequence,
    pub torn_tail: Option<TornTail>,
}

pub(crate) fn recover(disk: &dyn Disk, directory: &Path, names: &[String]) -> Result<Segments, Error> {
    let mut bases: Vec<(Sequence, PathBuf)> =
        names.iter().filter_map(|name| Some((segment_base(name)?, directory.join(name)))).collect();
    bases.sort();
    let mut out = Segments { segments: VecDeque::new(), found: Vec::new(), last: 0, torn_tail: None };
    let mut pool = Pool::default();
    let count = bases.len();
    for (index, (base, path)) in bases.into_iter().enumerate() {
        let bytes = read_file(disk, &path)?;
        let scanned = scan(&path, &bytes, &mut pool)?;
        if scanned.header.base != base {
            return Err(Error::corrupt(
                &path,
                0,
                format!("its header says that it begins with {}", scanned.header.base),
            ));
        }
        if index > 0 && base != out.last + 1 {
            let error = Error::Gap { path, expected: out.last + 1, found: base };
            return Err(out.torn_tail.take().map_or(error, |torn| Error::corrupt(&torn.path, torn.offset, torn.what)));
        }
        if index + 1 == count {
            repair(disk, &path, &bytes, &scanned)?;
        }
        out.torn_tail = scanned.torn.as_ref().map(|torn| torn_tail(&path, &bytes, scanned.end, torn));
        out.last = scanned.next - 1;
        // An empty one is left to be replaced: the next segment has its name.
        if scanned.next > base {
            let last = index + 1 == count;
            out.add(path, if last { scanned.end } else { bytes.len() as u64 }, scanned);
        }
    }
    Ok(out)
}

impl Segments {
    fn add(&mut self, path: PathBuf, length: u64, scanned: Scanned) {
        let pin = Arc::new(());
        self.found.push(Found {
            path: path.clone(),
            salt: scanned.header.salt,
            base: scanned.header.base,
            next: scanned.next,
            relations: Arc::clone(&scanned.relations),
            _pin: Arc::clone(&pin),
        });
        self.segments.push_back(Segment {
            header: scanned.header,
            path,
            length,
            end: scanned.end,
            next: scanned.next,
            points: scanned.points,
            relations: scanned.relations,
            pin,
        });
    }
}

/// Cuts the last segment after its last good record, and makes sure that what was read is on disk: it may only have
/// been in the cache, and after a failed sync the cache doesn't know that the disk never got it.
fn repair(disk: &dyn Disk, path: &Path, bytes: &[u8], scanned: &Scanned) -> Result<(), Error> {
    if scanned.next == scanned.header.base {
        return Ok(());
    }
    let file = disk.open(path).map_err(|e| Error::io("open", path, e))?;
    let good = bytes.get(..scanned.end as usize).unwrap_or(bytes);
    file.write_at(good, 0)
        .and_then(|()| file.set_length(good.len() as u64))
        .and_then(|()| file.sync_data())
        .map_err(|e| Error::io("repair", path, e))
}

fn torn_tail(path: &Path, bytes: &[u8], end: u64, torn: &Torn) -> TornTail {
    let dropped = bytes.get(end as usize..).unwrap_or_default();
    let zeros = dropped.iter().rev().take_while(|b| **b == 0).count();
    TornTail {
        path: path.to_owned(),
        offset: end,
        bytes: (dropped.len() - zeros) as u64,
        what: torn.what.to_owned(),
        records: torn.records_after,
    }
}

pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, Error> {
    let read = || {
        let file = disk.open(path)?;
        let mut bytes = vec![0; file.length()? as usize];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    read().map_err(|e| Error::io("read", path, e))
}
