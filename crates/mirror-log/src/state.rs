//! The log's state behind its mutex: what is placed where, what waits, how much room there is. No I/O.

use crate::codec::{APPLIED, Encoded, INTENT, INTENT_SPILLED};
use crate::disk::DiskFile;
use crate::format::{FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader, frame_bytes, write_frame};
use crate::relations::Relations;
use crate::scan::{Point, note_point};
use crate::{AppendError, Durability, OnFull, Options};
use pgshadow_model::Sequence;
use pgshadow_telemetry::Counter;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

/// A segment file, as far as records are placed in it (they may not be written yet).
#[derive(Debug)]
pub(crate) struct Segment {
    pub header: SegmentHeader,
    pub path: PathBuf,
    /// Bytes of the file.
    pub length: u64,
    /// End of the last record.
    pub end: u64,
    /// The record after the last one.
    pub next: Sequence,
    pub points: Vec<Point>,
    pub relations: Arc<Relations>,
    /// Shared with those who read the file: it must not be written over meanwhile.
    pub pin: Arc<()>,
}

/// A zero-filled, synced file that will become a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    pub path: PathBuf,
    pub length: u64,
    pub file: Arc<dyn DiskFile>,
}

/// Bytes to write in one go.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Set where the batch begins a segment.
    pub opens: Option<Opening>,
    pub offset: u64,
    pub bytes: Vec<u8>,
    pub first: Sequence,
    pub last: Sequence,
}

/// A spare to be made the current segment.
#[derive(Debug)]
pub(crate) struct Opening {
    pub spare: Spare,
    pub header: SegmentHeader,
    pub path: PathBuf,
}

#[derive(Debug)]
pub(crate) struct State {
    pub options: Options,
    /// Oldest first; there is always a last one once something was appended, so that numbers go on after a restart.
    pub segments: VecDeque<Segment>,
    /// Whether the last segment takes records (those found at start don't: what follows a torn record stays dead).
    pub open: bool,
    pub spares: Vec<Spare>,
    pub queue: VecDeque<Batch>,
    /// Bytes queued and being written.
    pub buffered_bytes: u64,
    /// Bytes of files that the keeper is making, recycling or removing.
    pub pending: u64,
    /// Bytes of all files, spare and pending ones included.
    pub allocated: u64,
    /// Of those, bytes of large transactions' own files, by their numbers.
    pub spilled: BTreeMap<u64, u64>,
    pub next: Sequence,
    pub written: Sequence,
    pub synced: Sequence,
    pub sync_wanted: Sequence,
    /// The file that the writer writes.
    pub active: Option<(PathBuf, Arc<dyn DiskFile>)>,
    /// Length of a segment that an append waits for.
    pub wanted: u64,
    /// Why the disk gave no space for a segment.
    pub no_space: Option<String>,
    pub full: bool,
    pub trim_below: Sequence,
    pub poisoned: Option<String>,
    pub stopped: Option<String>,
    pub closed: bool,
}

impl State {
    pub fn new(
        options: Options,
        segments: VecDeque<Segment>,
        spilled: BTreeMap<u64, u64>,
        last: Sequence,
        stopped: Option<String>,
    ) -> Self {
        Self {
            allocated: segments.iter().map(|s| s.length).sum::<u64>() + spilled.values().sum::<u64>(),
            spilled,
            options,
            segments,
            open: false,
            spares: Vec::new(),
            queue: VecDeque::new(),
            buffered_bytes: 0,
            pending: 0,
            next: last + 1,
            written: last,
            synced: last,
            sync_wanted: 0,
            active: None,
            wanted: 0,
            no_space: None,
            full: false,
            trim_below: 0,
            poisoned: None,
            stopped,
            closed: false,
        }
    }

    /// Kept from intents. Where the disk gives nothing more, little is left to keep, and it may be a passing fault.
    fn reserved(&self) -> u64 {
        if self.no_space.is_some() { self.options.segment_size / 2 } else { self.options.size_max / 8 }
    }

    fn record_bytes_max(&self) -> u64 {
        (self.options.size_max / 4).min(u64::from(u32::MAX))
    }

    /// Places a record: gives it a number, and queues its bytes.
    pub fn push(&mut self, record: &Encoded) -> Result<Sequence, AppendError> {
        self.check(record.kind)?;
        let encode = |known: &Relations| record.definitions(known).map_err(|e| AppendError::Encode(e.to_string()));
        let here = match self.segments.back().filter(|_| self.open) {
            Some(segment) => Some((encode(&segment.relations)?, segment.length - segment.end)),
            None => None,
        };
        let bytes_with = |definitions: &[u8]| frame_bytes(definitions.len() + record.body.len());
        let definitions = match here.filter(|(definitions, room)| bytes_with(definitions) <= *room) {
            Some((definitions, _)) => {
                self.check_reserve(record.kind, bytes_with(&definitions))?;
                definitions
            }
            None => {
                let definitions = encode(&Relations::new())?;
                let bytes = bytes_with(&definitions);
                self.check_size(bytes)?;
                self.check_reserve(record.kind, bytes)?;
                self.begin_segment(record.kind, SEGMENT_HEADER_BYTES + bytes)?;
                definitions
            }
        };
        self.full &= !is_intent(record.kind);
        Ok(self.place(record, &definitions))
    }

    fn check(&self, kind: u32) -> Result<(), AppendError> {
        if let Some(reason) = &self.poisoned {
            return Err(AppendError::Poisoned(reason.clone()));
        }
        if self.closed || (is_intent(kind) && self.stopped.is_some()) {
            return Err(AppendError::Stopped);
        }
        if self.buffered_bytes >= self.options.buffer_bytes_max {
            return Err(AppendError::Busy);
        }
        Ok(())
    }

    fn check_size(&self, bytes: u64) -> Result<(), AppendError> {
        let bytes_max = self.record_bytes_max();
        if bytes > bytes_max { Err(AppendError::TooLarge { bytes, bytes_max }) } else { Ok(()) }
    }

    /// The rest is kept for what ends transactions that are under way.
    fn check_reserve(&mut self, kind: u32, bytes: u64) -> Result<(), AppendError> {
        if is_intent(kind) && self.room() < bytes + self.reserved() { Err(self.refuse(kind)) } else { Ok(()) }
    }

    /// Bytes that could still be appended.
    pub fn room(&self) -> u64 {
        let current = self.segments.back().filter(|_| self.open).map_or(0, |s| s.length - s.end);
        let spares: u64 = self.spares.iter().map(|s| s.length - SEGMENT_HEADER_BYTES).sum();
        let future = if self.no_space.is_some() { 0 } else { self.options.size_max.saturating_sub(self.allocated) };
        current + spares + self.pending + future
    }

    fn refuse(&mut self, kind: u32) -> AppendError {
        self.full = true;
        // A log with a hole must not look whole: after one refusal nothing new begins.
        if self.options.on_full == OnFull::StopMirroring && kind != APPLIED && self.stopped.is_none() {
            self.stopped = Some(match &self.no_space {
                Some(reason) => format!("the mirror log has no space: {reason}"),
                None => format!("the mirror log is full ({} bytes)", self.options.size_max),
            });
        }
        AppendError::Full
    }

    /// Makes a spare of at least this length the current segment.
    fn begin_segment(&mut self, kind: u32, length: u64) -> Result<(), AppendError> {
        let fitting = self.spares.iter().enumerate().filter(|(_, s)| s.length >= length).min_by_key(|(_, s)| s.length);
        let Some(index) = fitting.map(|(index, _)| index) else {
            // Room for others that come first is added to a large one.
            let extra = if length > self.options.segment_size { self.options.segment_size } else { 0 };
            let wanted = length.max(self.options.segment_size) + extra;
            // Spares and what the keeper has in hand can be given back for a larger one.
            let spares: u64 = self.spares.iter().map(|s| s.length).sum();
            let kept = self.allocated - spares - self.pending;
            let no_space = self.no_space.is_some() && self.pending < length;
            if no_space || kept + wanted > self.options.size_max {
                return Err(self.refuse(kind));
            }
            self.wanted = self.wanted.max(wanted);
            return Err(AppendError::Busy);
        };
        let spare = self.spares.swap_remove(index);
        let header = SegmentHeader { base: self.next, salt: RandomState::new().build_hasher().finish() };
        let path = self.options.directory.join(crate::format::segment_name(self.next));
        if self.wanted <= spare.length {
            self.wanted = 0;
        }
        self.segments.push_back(Segment {
            header,
            path: path.clone(),
            length: spare.length,
            end: SEGMENT_HEADER_BYTES,
            next: header.base,
            points: Vec::new(),
            relations: Arc::default(),
            pin: Arc::default(),
        });
        self.open = true;
        let opens = Some(Opening { spare, header, path });
        let (first, last) = (header.base, header.base - 1);
        self.queue.push_back(Batch { opens, offset: SEGMENT_HEADER_BYTES, bytes: Vec::new(), first, last });
        Ok(())
    }

    fn place(&mut self, record: &Encoded, definitions: &[u8]) -> Sequence {
        let sequence = self.next;
        let Some(segment) = self.segments.back_mut() else { return sequence };
        if self.queue.is_empty() {
            let (first, last) = (sequence, sequence - 1);
            self.queue.push_back(Batch { opens: None, offset: segment.end, bytes: Vec::new(), first, last });
        }
        let Some(batch) = self.queue.back_mut() else { return sequence };
        // With fsync a batch is only written once all before it is on disk; else only what was synced is known.
        let unsynced_from = match self.options.durability {
            Durability::Fsync => batch.first,
            Durability::Os => segment.header.base.max(self.synced + 1),
        };
        let unsynced = (sequence - unsynced_from) as u32;
        let header = FrameHeader { length: 0, crc: 0, sequence, unsynced, kind: record.kind };
        let before = batch.bytes.len();
        write_frame(&mut batch.bytes, segment.header.salt, header, &[definitions, &record.body]);
        batch.last = sequence;
        let bytes = (batch.bytes.len() - before) as u64;
        note_point(&mut segment.points, Point { sequence, offset: segment.end });
        let defined = record.relations.iter().filter(|(id, _)| !segment.relations.contains_key(id));
        let defined: Vec<_> = defined.cloned().collect();
        if !defined.is_empty() {
            Arc::make_mut(&mut segment.relations).extend(defined);
        }
        segment.end += bytes;
        segment.next = sequence + 1;
        self.buffered_bytes += bytes;
        Counter::LogAppends.increment();
        Counter::LogAppendedBytes.add(bytes);
        self.next = sequence + 1;
        sequence
    }

    /// The last record that is acknowledged.
    pub fn durable(&self) -> Sequence {
        match self.options.durability {
            Durability::Fsync => self.synced,
            Durability::Os => self.written,
        }
    }

    pub fn first(&self) -> Sequence {
        self.segments.front().map_or(self.next, |segment| segment.header.base)
    }
}

fn is_intent(kind: u32) -> bool {
    matches!(kind, INTENT | INTENT_SPILLED)
}
