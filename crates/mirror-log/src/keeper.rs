//! The thread that does what may take long: it prepares segments, trims, syncs in the background, and looks whether
//! the files are still there.

use crate::disk::Disk;
use crate::shared::{Shared, Watchdog};
use crate::state::{Segment, Spare, State};
use crate::writer::{failed, sync_active};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_secs(1);
/// Zeroing on a full disk is not tried more often.
const SPACE_RETRY: Duration = Duration::from_secs(5);
/// More recycled segments than that are given back to the disk.
const SPARES_MAX: usize = 4;
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

enum Chore {
    Sync,
    /// A spare of this length, and spares to be given back for it.
    Prepare(u64, Vec<Spare>),
    Recycle(Segment),
    Remove(Segment),
    /// Nothing came for a while: look after the files.
    Look,
}

struct Keeper<'a> {
    shared: &'a Shared,
    directory: PathBuf,
    spares_made: u64,
    space_retry: Option<Instant>,
    trim_retry: Option<Instant>,
    next_look: Instant,
}

pub(crate) fn spawn(shared: &Arc<Shared>) -> io::Result<std::thread::JoinHandle<()>> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name("mirror-log-keep".to_owned()).spawn(move || run(&shared))
}

fn run(shared: &Shared) {
    let _watchdog = Watchdog { shared, thread: "keeper" };
    let directory = shared.state().options.directory.clone();
    // The spare made at start has number 0.
    let next_look = Instant::now() + TICK;
    let mut keeper = Keeper { shared, directory, spares_made: 0, space_retry: None, trim_retry: None, next_look };
    while let Some(chore) = keeper.next_chore() {
        match chore {
            Chore::Sync => keeper.sync(),
            Chore::Prepare(length, dropped) => keeper.prepare(length, dropped),
            Chore::Recycle(segment) => keeper.recycle(segment),
            Chore::Remove(segment) => keeper.remove(segment),
            Chore::Look => keeper.look(),
        }
    }
}

impl Keeper<'_> {
    fn next_chore(&mut self) -> Option<Chore> {
        let mut state = self.shared.state();
        loop {
            if state.closed || state.poisoned.is_some() {
                return None;
            }
            if state.sync_wanted > state.synced && state.written > state.synced {
                return Some(Chore::Sync);
            }
            if let Some(chore) = self.trimming(&mut state).or_else(|| self.preparing(&mut state)) {
                return Some(chore);
            }
            let left = self.next_look.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.next_look = Instant::now() + TICK;
                return Some(Chore::Look);
            }
            state = self.shared.chores.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The oldest segment, if nothing in it is needed any more. The last one stays: numbers go on from it.
    fn trimming(&self, state: &mut State) -> Option<Chore> {
        if state.segments.len() < 2 || self.trim_retry.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        // It is not enough that the next one was begun in memory: its name must be on disk, else a crash would leave
        // nothing to go on from. With its first record written, it is.
        let (below, written) = (state.trim_below, state.written);
        let segment = state.segments.pop_front_if(|s| s.next <= below && s.next <= written)?;
        state.pending += segment.length;
        // Under the mutex nobody new can pin it.
        let unpinned = Arc::strong_count(&segment.pin) == 1;
        let fits = segment.length == state.options.segment_size && state.spares.len() < SPARES_MAX;
        Some(if unpinned && fits { Chore::Recycle(segment) } else { Chore::Remove(segment) })
    }

    /// A spare, if there is none of the length that is needed, and there may be one.
    fn preparing(&self, state: &mut State) -> Option<Chore> {
        let length = state.wanted.max(state.options.segment_size);
        if state.spares.iter().any(|s| s.length >= length) {
            return None;
        }
        if state.no_space.is_some() && self.space_retry.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let mut dropped = Vec::new();
        if state.wanted > 0 {
            while state.allocated + length > state.options.size_max
                && let Some(spare) = state.spares.pop()
            {
                state.allocated -= spare.length;
                dropped.push(spare);
            }
        }
        if state.allocated + length > state.options.size_max {
            return None;
        }
        state.allocated += length;
        state.pending += length;
        Some(Chore::Prepare(length, dropped))
    }

    fn sync(&self) {
        if let Err(reason) = sync_active(self.shared) {
            self.shared.poison(reason);
        }
    }

    fn spare_path(&mut self) -> PathBuf {
        self.spares_made += 1;
        self.directory.join(spare_name(self.spares_made))
    }

    fn prepare(&mut self, length: u64, dropped: Vec<Spare>) {
        for spare in dropped {
            if let Err(error) = self.shared.disk.remove(&spare.path) {
                tracing::warn!(path = %spare.path.display(), %error, "can't remove a spare segment of the mirror log");
            }
        }
        let path = self.spare_path();
        let spare = make_spare(&*self.shared.disk, &self.directory, path, length);
        let mut state = self.shared.state();
        state.pending -= length;
        match spare {
            Ok(spare) => {
                state.spares.push(spare);
                // Where only the log's size was reached, a spare alone makes no room.
                if state.no_space.take().is_some() {
                    state.full = false;
                }
            }
            Err(error) => {
                let reason = format!("can't make a segment of {length} bytes in {}: {error}", self.directory.display());
                tracing::warn!(reason, "the mirror log gets no space");
                state.allocated -= length;
                state.no_space = Some(reason);
                self.space_retry = Some(Instant::now() + SPACE_RETRY);
            }
        }
        self.shared.publish(&state);
    }

    fn recycle(&mut self, segment: Segment) {
        let path = self.spare_path();
        let disk = &self.shared.disk;
        // The name goes first, durably: a file that is being zeroed must not be found as a segment.
        let renamed = disk.rename(&segment.path, &path).and_then(|()| disk.sync_directory(&self.directory));
        if let Err(error) = renamed {
            return self.keep(segment, &error);
        }
        let spare = make_spare(&**disk, &self.directory, path, segment.length);
        let mut state = self.shared.state();
        state.pending -= segment.length;
        match spare {
            Ok(spare) => state.spares.push(spare),
            Err(error) => {
                tracing::warn!(%error, "a trimmed segment of the mirror log can't be used again");
                state.allocated -= segment.length;
            }
        }
        self.trimmed(&mut state);
    }

    fn remove(&mut self, segment: Segment) {
        let disk = &self.shared.disk;
        // Synced each time: no later segment may vanish before an earlier one, that would look like a gap.
        let removed = disk.remove(&segment.path).and_then(|()| disk.sync_directory(&self.directory));
        if let Err(error) = removed {
            return self.keep(segment, &error);
        }
        let mut state = self.shared.state();
        state.pending -= segment.length;
        state.allocated -= segment.length;
        self.trimmed(&mut state);
    }

    fn trimmed(&mut self, state: &mut State) {
        self.trim_retry = None;
        self.space_retry = None;
        state.full = false;
        self.shared.publish(state);
    }

    /// It can't be trimmed now: later segments must not go before it.
    fn keep(&mut self, segment: Segment, error: &io::Error) {
        tracing::warn!(path = %segment.path.display(), %error, "can't trim the mirror log");
        self.trim_retry = Some(Instant::now() + SPACE_RETRY);
        let mut state = self.shared.state();
        state.pending -= segment.length;
        state.segments.push_front(segment);
    }

    fn look(&self) {
        self.sync();
        let Some((path, _)) = self.shared.state().active.clone() else { return };
        match self.shared.disk.exists(&path) {
            Ok(true) => {}
            Ok(false) => self.shared.poison(format!("{} was removed or renamed", path.display())),
            Err(error) => self.shared.poison(failed("find", &path, &error)),
        }
    }
}

pub(crate) fn spare_name(number: u64) -> String {
    format!("{number}.spare")
}

/// A zero-filled file whose blocks are allocated and written, so that writing records into it changes no metadata
/// (fdatasync is two to three times cheaper so). A file that exists is zeroed. On failure it is removed.
pub(crate) fn make_spare(disk: &dyn Disk, directory: &Path, path: PathBuf, length: u64) -> io::Result<Spare> {
    let make = || {
        let file = disk.create(&path)?;
        if file.length()? > length {
            file.set_length(length)?;
        }
        let mut offset = 0;
        while offset < length {
            let chunk = (ZEROS.len() as u64).min(length - offset);
            file.write_at(ZEROS.get(..chunk as usize).unwrap_or(&ZEROS), offset)?;
            offset += chunk;
        }
        file.sync_data()?;
        disk.sync_directory(directory)?;
        Ok(file)
    };
    match make() {
        Ok(file) => Ok(Spare { path, length, file: Arc::from(file) }),
        Err(error) => {
            let _gone = disk.remove(&path);
            Err(error)
        }
    }
}
