//! The handle.

use crate::codec::{self, Encoded};
use crate::disk::{Disk, DiskFile};
use crate::format::SEGMENT_HEADER_BYTES;
use crate::identity::identity;
use crate::keeper::{self, make_spare, spare_name};
use crate::reading::{Place, read_record};
use crate::recovery::{Recovery, recover};
use crate::relations::Interner;
use crate::shared::{Progress, Shared};
use crate::state::State;
use crate::stop_mark::StopMark;
use crate::{AppendError, Error, OnFull, Options, ReadError, Record, spill, writer};
use pgshadow_model::Sequence;
use pgshadow_telemetry::{Gauge, Histogram};
use std::any::Any;
use std::borrow::Borrow;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Below that the parts of the log have no room.
const SIZE_MAX_MIN: u64 = 64 << 10;
const SEGMENT_SIZE_MIN: u64 = 4 << 10;

/// The open log. Share it in an `Arc`; the last one to go closes it.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    interner: Mutex<Interner>,
    mark: StopMark,
    identity: String,
    threads: Mutex<Vec<JoinHandle<()>>>,
    last_read: Mutex<Option<Opened>>,
    // Last, so that it is released when everything else is done.
    _lock: Box<dyn Any + Send + Sync>,
}

/// A segment's file, and the pin that tells it apart.
type Opened = (Arc<()>, Arc<dyn DiskFile>);

/// Where the log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Bytes of its files, spare segments included.
    pub bytes: u64,
    /// Limit of `bytes`.
    pub bytes_max: u64,
    /// Bytes of the records that are retained.
    pub record_bytes: u64,
    /// Bytes appended and not written yet.
    pub buffered_bytes: u64,
    /// Limit of `buffered_bytes` (one record may lie above it).
    pub buffered_bytes_max: u64,
    /// Why nothing is durable any more.
    pub poisoned: Option<String>,
    /// Whether the last append found no room.
    pub full: bool,
    /// Why the disk gives no space for a further segment.
    pub no_space: Option<String>,
    /// Why mirroring is stopped.
    pub stopped: Option<String>,
    /// Segments that hold records.
    pub segments: usize,
    /// The first record that is retained; one above the last where there is none.
    pub first_sequence: Sequence,
    /// The last record appended.
    pub last_sequence: Sequence,
    /// The last record that [`Log::durable`] acknowledges.
    pub durable_sequence: Sequence,
    /// The last record known to be on disk.
    pub synced_sequence: Sequence,
}

impl Log {
    /// Opens the log, or makes a new one. Blocks: it reads every segment.
    pub fn open(options: Options, disk: Arc<dyn Disk>) -> Result<(Self, Recovery), Error> {
        let options = checked(options)?;
        let directory = options.directory.as_path();
        disk.create_directory(directory).map_err(|e| Error::io("create", directory, e))?;
        let lock_path = directory.join("lock");
        let lock = disk.lock(&lock_path).map_err(|e| Error::io("lock", &lock_path, e))?;
        let lock = lock.ok_or_else(|| Error::Locked { path: directory.to_owned() })?;
        let names = disk.list(directory).map_err(|e| Error::io("list", directory, e))?;
        let recovered = recover(&*disk, directory, &names)?;
        let spilled = spill::found(&*disk, directory, &names);
        let (mark, stopped) = StopMark::open(&*disk, &directory.join("stopped"))?;
        let identity = identity(&*disk, &directory.join("identity"))?;
        disk.sync_directory(directory).map_err(|e| Error::io("sync", directory, e))?;

        let recovery = Recovery {
            first: recovered.segments.front().map_or(recovered.last + 1, |s| s.header.base),
            last: recovered.last,
            torn_tail: recovered.torn_tail,
            stopped: stopped.clone(),
            disk: Arc::clone(&disk),
            segments: recovered.found,
        };
        let mut state = State::new(options, recovered.segments, spilled, recovered.last, stopped);
        first_spare(&*disk, &names, &mut state);
        let shared = Arc::new(Shared::new(disk, state));
        let log = Self {
            shared,
            interner: Mutex::default(),
            mark,
            identity,
            threads: Mutex::default(),
            last_read: Mutex::default(),
            _lock: lock,
        };
        for spawn in [writer::spawn, keeper::spawn] {
            let directory = &log.shared.state().options.directory.clone();
            let thread = spawn(&log.shared).map_err(|e| Error::io("start a thread for", directory, e))?;
            log.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok((log, recovery))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Gives the record a number and queues it; does no I/O and never waits. See the crate's doc for what to do with
    /// each refusal.
    pub fn append(&self, record: impl Borrow<Record>) -> Result<Sequence, AppendError> {
        self.push(&self.encode(record.borrow())?)
    }

    /// As `append`, but waits where it would be [`AppendError::Busy`], and with [`OnFull::BlockWrites`] also where it
    /// would be [`AppendError::Full`].
    pub async fn append_wait(&self, record: impl Borrow<Record>) -> Result<Sequence, AppendError> {
        let encoded = self.encode(record.borrow())?;
        let mut progress = self.shared.progress.subscribe();
        loop {
            progress.mark_unchanged();
            match self.push(&encoded) {
                Err(AppendError::Busy) => {}
                Err(AppendError::Full) if self.blocks_writes() => {}
                result => return result,
            }
            progress.changed().await.map_err(|_| AppendError::Stopped)?;
        }
    }

    /// While the guard is held nothing is written.
    #[cfg(test)]
    pub(crate) fn state_for_tests(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Whether a full log is waited for ([`OnFull::BlockWrites`]).
    #[must_use]
    pub fn blocks_writes(&self) -> bool {
        self.shared.state().options.on_full == OnFull::BlockWrites
    }

    fn encode(&self, record: &Record) -> Result<Encoded, AppendError> {
        // Only the numbering of relations needs the lock, but it is short, and encoding is outside the log's own.
        let mut interner = self.interner.lock().unwrap_or_else(PoisonError::into_inner);
        codec::encode(record, &mut interner).map_err(|e| AppendError::Encode(e.to_string()))
    }

    fn push(&self, encoded: &Encoded) -> Result<Sequence, AppendError> {
        let result = self.shared.state().push(encoded);
        self.shared.work.notify_one();
        if result.is_err() {
            self.shared.chores.notify_one();
        }
        result
    }

    /// Returns once the record is acknowledged as [`crate::Durability`] says. Records are acknowledged in order, so one
    /// call for the last of several is enough. Dropping the future loses nothing.
    pub async fn durable(&self, sequence: Sequence) -> Result<(), AppendError> {
        let _waiting = Waiting::begin();
        self.wait(|progress| progress.durable >= sequence).await
    }

    /// Returns once the record is on disk, whatever [`crate::Durability`] says.
    pub async fn synced(&self, sequence: Sequence) -> Result<(), AppendError> {
        {
            let mut state = self.shared.state();
            state.sync_wanted = state.sync_wanted.max(sequence);
        }
        self.shared.chores.notify_one();
        self.wait(|progress| progress.synced >= sequence).await
    }

    async fn wait(&self, reached: impl Fn(&Progress) -> bool) -> Result<(), AppendError> {
        let mut progress = self.shared.progress.subscribe();
        loop {
            {
                let now = progress.borrow_and_update();
                if reached(&now) {
                    return Ok(());
                }
                if let Some(reason) = &now.poisoned {
                    return Err(AppendError::Poisoned(reason.clone()));
                }
                if now.closed {
                    return Err(AppendError::Stopped);
                }
            }
            progress.changed().await.map_err(|_| AppendError::Stopped)?;
        }
    }

    /// Reads one record that is retained and written. Blocks for the disk; reading in order is cheap.
    pub fn read(&self, sequence: Sequence) -> Result<Record, ReadError> {
        let place = Place::find(&self.shared.state(), sequence)?;
        let file = self.file_of(&place)?;
        Ok(read_record(&*file, &place, sequence)?)
    }

    fn file_of(&self, place: &Place) -> Result<Arc<dyn DiskFile>, Error> {
        let mut last = self.last_read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((pin, file)) = last.as_ref()
            && Arc::ptr_eq(pin, &place.pin)
        {
            return Ok(Arc::clone(file));
        }
        let file = self.shared.disk.open(&place.path).map_err(|e| Error::io("open", &place.path, e))?;
        let file: Arc<dyn DiskFile> = Arc::from(file);
        *last = Some((Arc::clone(&place.pin), Arc::clone(&file)));
        Ok(file)
    }

    /// Lets go of records below; whole segments are given back, in the background. What the records say must be kept
    /// elsewhere, or appended again, by then.
    pub fn trim(&self, below: Sequence) {
        // The file that was read last would be pinned, and couldn't be used again.
        *self.last_read.lock().unwrap_or_else(PoisonError::into_inner) = None;
        {
            let mut state = self.shared.state();
            state.trim_below = state.trim_below.max(below);
        }
        self.shared.chores.notify_one();
    }

    /// Tells this log from every other one: numbers of different logs are never compared.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The last record appended; 0 before the first.
    pub fn position(&self) -> Sequence {
        self.shared.state().next - 1
    }

    /// Where the log stands.
    pub fn status(&self) -> Status {
        let state = self.shared.state();
        Status {
            bytes: state.allocated,
            bytes_max: state.options.size_max,
            record_bytes: state.segments.iter().map(|s| s.end - SEGMENT_HEADER_BYTES).sum(),
            buffered_bytes: state.buffered_bytes,
            buffered_bytes_max: state.options.buffer_bytes_max,
            poisoned: state.poisoned.clone(),
            full: state.full,
            no_space: state.no_space.clone(),
            stopped: state.stopped.clone(),
            segments: state.segments.len(),
            first_sequence: state.first(),
            last_sequence: state.next - 1,
            durable_sequence: state.durable(),
            synced_sequence: state.synced,
        }
    }

    /// Says durably that mirroring is stopped, and refuses intents from now on. Works with a full disk and a poisoned
    /// log. Blocks for one small write and sync. A write that the log refused must not reach the primary before this
    /// has returned, else a crash would hide that it is missing.
    pub fn mark_stopped(&self, reason: &str) -> Result<(), Error> {
        let reason = self.shared.state().stopped.get_or_insert_with(|| reason.to_owned()).clone();
        tracing::error!(reason, "mirroring is stopped");
        self.mark.set(&reason)
    }

    /// Takes the mark back. What is in doubt (every table) must be durable elsewhere by then, for example as
    /// [`Record::Suspects`], which is accepted while mirroring is stopped.
    pub fn clear_stopped(&self) -> Result<(), Error> {
        self.mark.clear()?;
        self.shared.state().stopped = None;
        Ok(())
    }

    /// Writes and syncs what is queued, and stops the threads. Blocks. Appends are refused from here on; waiters get
    /// their answer. Dropping the log does the same.
    pub fn close(&self) {
        self.shared.state().closed = true;
        self.shared.work.notify_all();
        self.shared.chores.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the mirror log panicked");
            }
        }
        self.shared.progress.send_modify(|p| p.closed = true);
    }
}

/// Counts a commit that waits, also if it stops waiting.
struct Waiting(Instant);

impl Waiting {
    fn begin() -> Self {
        Gauge::LogQueueEntries.raise(1);
        Self(Instant::now())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        Gauge::LogQueueEntries.lower(1);
        Histogram::LogAppendWait.observe(self.0.elapsed());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

fn checked(mut options: Options) -> Result<Options, Error> {
    if options.size_max < SIZE_MAX_MIN {
        let least = SIZE_MAX_MIN;
        return Err(Error::Options(format!("size_max is {} bytes, the least is {least}", options.size_max)));
    }
    if options.buffer_bytes_max == 0 {
        return Err(Error::Options("buffer_bytes_max is 0".to_owned()));
    }
    options.segment_size = options.segment_size.clamp(SEGMENT_SIZE_MIN, options.size_max / 8);
    Ok(options)
}

/// Prepares the first spare, so that an append finds one at once. Without space the log opens all the same, full.
fn first_spare(disk: &dyn Disk, names: &[String], state: &mut State) {
    let directory = state.options.directory.clone();
    // Those of the last run: one is used again, so that a full disk doesn't matter.
    let left: Vec<_> = names.iter().filter(|n| n.ends_with(".spare")).map(|n| directory.join(n)).collect();
    let first = directory.join(spare_name(0));
    let reused = left.iter().find(|path| disk.rename(path, &first).is_ok());
    for path in left.iter().filter(|path| Some(*path) != reused && **path != first) {
        if let Err(error) = disk.remove(path) {
            tracing::warn!(path = %path.display(), %error, "can't remove a spare segment of the mirror log");
        }
    }
    let length = state.options.segment_size;
    if state.allocated + length > state.options.size_max {
        return;
    }
    match make_spare(disk, &directory, first, length) {
        Ok(spare) => {
            state.spares.push(spare);
            state.allocated += length;
        }
        Err(error) => {
            tracing::warn!(%error, "the mirror log gets no space");
            state.no_space = Some(format!("can't make a segment in {}: {error}", directory.display()));
        }
    }
}
