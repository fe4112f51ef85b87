//! Files of transactions that are too large to be held: who needs which.
use pgshadow_capture::{Spill, SpillRefused};
use pgshadow_mirror_log::{Log, SpillError, SpillFile};
use pgshadow_model::{Change, Changes, Sequence, SpilledPart};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::block_in_place;

/// Sessions that may wait for room at once (`on_full = "block_writes"`): each takes a thread.
const WAITING_MAX: usize = 256;
const ROOM_POLL: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct SpilledFiles {
    needed: Mutex<Needed>,
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Needed {
    /// Files by intent; an intent that takes the place of another one may share its file for a while.
    files: BTreeMap<Sequence, u64>,
    /// Of those, what is committed: the applier gives them back.
    committed: BTreeSet<Sequence>,
}

impl SpilledFiles {
    fn lock(&self) -> MutexGuard<'_, Needed> {
        self.needed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This transaction is committed.
    pub fn committed<'a>(&self, sequence: Sequence, changes: impl IntoIterator<Item = &'a Changes>) {
        self.add(sequence, changes);
        let mut needed = self.lock();
        if needed.files.contains_key(&sequence) {
            needed.committed.insert(sequence);
        }
    }

    /// This intent or its outcome refers to a file.
    pub fn add<'a>(&self, sequence: Sequence, changes: impl IntoIterator<Item = &'a Changes>) {
        for spilled in changes.into_iter().filter_map(|changes| changes.spilled.as_ref()) {
            self.lock().files.insert(sequence, spilled.file);
        }
    }

    /// It needs none any more.
    pub fn over(&self, sequence: Sequence, log: &Log) {
        let mut needed = self.lock();
        needed.committed.remove(&sequence);
        let Some(file) = needed.files.remove(&sequence) else { return };
        if !needed.files.values().any(|other| *other == file) {
            drop(needed);
            block_in_place(|| log.remove_spilled(file));
        }
    }

    /// Nor do those below.
    pub fn applied(&self, below: Sequence, log: &Log) {
        let gone: Vec<Sequence> = self.lock().files.range(..below).map(|(sequence, _)| *sequence).collect();
        gone.into_iter().for_each(|sequence| self.over(sequence, log));
    }

    /// Files that no intent refers to are what a crash has left.
    pub fn sweep(&self, log: &Log) -> Result<(), pgshadow_mirror_log::Error> {
        let known: BTreeSet<u64> = self.lock().files.values().copied().collect();
        log.spilled_files()?.into_iter().filter(|file| !known.contains(file)).for_each(|file| log.remove_spilled(file));
        Ok(())
    }
}

/// A file for a session's transaction.
pub(super) fn begin(files: &Arc<SpilledFiles>, log: &Log) -> Result<Box<dyn Spill>, SpillRefused> {
    let file = block_in_place(|| log.spill()).map_err(refused)?;
    Ok(Box::new(Spilling { file, files: Arc::clone(files), blocks_writes: log.blocks_writes() }))
}

#[derive(Debug)]
struct Spilling {
    file: SpillFile,
    files: Arc<SpilledFiles>,
    blocks_writes: bool,
}

impl Spilling {
    /// Waits for room as long as the applier may give some back; what open transactions take comes back only with their end, for
    /// which they may wait for this one.
    fn may_wait(&self) -> bool {
        self.blocks_writes && !self.files.lock().committed.is_empty()
    }

    fn write_when_there_is_room(&mut self, changes: &[Change]) -> Result<SpilledPart, SpillError> {
        loop {
            match self.file.write(changes) {
                Err(SpillError::Full { .. }) if self.may_wait() => std::thread::sleep(ROOM_POLL),
                result => return result,
            }
        }
    }
}

impl Spill for Spilling {
    fn number(&self) -> u64 {
        self.file.number()
    }

    fn write(&mut self, changes: &[Change]) -> Result<SpilledPart, SpillRefused> {
        let first = block_in_place(|| self.file.write(changes));
        if !matches!(first, Err(SpillError::Full { .. })) {
            return first.map_err(refused);
        }
        let files = Arc::clone(&self.files);
        let number = files.waiting.fetch_add(1, Ordering::AcqRel);
        let written =
            if number < WAITING_MAX { block_in_place(|| self.write_when_there_is_room(changes)) } else { first };
        files.waiting.fetch_sub(1, Ordering::AcqRel);
        written.map_err(refused)
    }

    fn read(&self, part: SpilledPart) -> Result<Vec<Change>, SpillRefused> {
        block_in_place(|| self.file.read(part)).map_err(refused)
    }

    fn cut(&mut self, offset: u64) {
        self.file.cut(offset);
    }

    fn keep(&mut self) -> Result<(), SpillRefused> {
        block_in_place(|| self.file.keep()).map_err(refused)
    }
}

fn refused(error: impl std::fmt::Display) -> SpillRefused {
    SpillRefused(error.to_string())
}
