//! The thread that writes: everything that queued during the last sync, in one write and one sync.

use crate::Durability;
use crate::disk::DiskFile;
use crate::shared::{Shared, Watchdog};
use crate::state::{Batch, Opening};
use pgshadow_model::Sequence;
use pgshadow_telemetry::{Counter, Histogram};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

pub(crate) fn run(shared: &Shared) {
    let _watchdog = Watchdog { shared, thread: "writer" };
    while let Some(batches) = next_batches(shared) {
        for batch in batches {
            if let Err(reason) = write(shared, batch) {
                shared.poison(reason);
                return;
            }
        }
    }
    finish(shared);
}

/// Waits for work; `None` once the log is closed and drained, or poisoned.
fn next_batches(shared: &Shared) -> Option<VecDeque<Batch>> {
    let mut state = shared.state();
    loop {
        if state.poisoned.is_some() {
            return None;
        }
        if !state.queue.is_empty() {
            return Some(std::mem::take(&mut state.queue));
        }
        if state.closed {
            return None;
        }
        state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

fn write(shared: &Shared, batch: Batch) -> Result<(), String> {
    if let Some(opening) = batch.opens {
        sync_active(shared)?;
        open_segment(shared, opening)?;
    }
    let (active, durability) = {
        let state = shared.state();
        (state.active.clone(), state.options.durability)
    };
    let Some((path, file)) = active else { return Err("a batch came before its segment".to_owned()) };
    file.write_at(&batch.bytes, batch.offset).map_err(|e| failed("write", &path, &e))?;
    if durability == Durability::Fsync {
        sync(&*file, &path)?;
        Histogram::LogGroupEntries.observe_entries((batch.last + 1 - batch.first) as usize);
    }
    let mut state = shared.state();
    state.written = batch.last;
    if durability == Durability::Fsync {
        state.synced = batch.last;
    }
    state.buffered_bytes -= batch.bytes.len() as u64;
    if state.sync_wanted > state.synced {
        shared.chores.notify_one();
    }
    shared.publish(&state);
    Ok(())
}

/// Makes a spare the current segment. Its header is on disk before it has its name, and its name before any record
/// in it is acknowledged; the segments before it are on disk by then.
fn open_segment(shared: &Shared, opening: Opening) -> Result<(), String> {
    let Opening { spare, header, path } = opening;
    let file = &spare.file;
    file.write_at(&header.encode(), 0).and_then(|()| file.sync_data()).map_err(|e| failed("begin", &spare.path, &e))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    shared
        .disk
        .rename(&spare.path, &path)
        .and_then(|()| shared.disk.sync_directory(directory))
        .map_err(|e| failed("begin", &path, &e))?;
    shared.state().active = Some((path, spare.file));
    // There is one spare less, and perhaps a segment to trim.
    shared.chores.notify_all();
    Ok(())
}

/// Makes what is written durable, if it isn't. Also called by the keeper.
pub(crate) fn sync_active(shared: &Shared) -> Result<(), String> {
    // What is written is in the active file or in one that was synced when this one was begun.
    let (written, active): (Sequence, _) = {
        let state = shared.state();
        if state.synced >= state.written {
            return Ok(());
        }
        (state.written, state.active.clone())
    };
    let Some((path, file)) = active else { return Ok(()) };
    sync(&*file, &path)?;
    let mut state = shared.state();
    state.synced = state.synced.max(written);
    shared.publish(&state);
    Ok(())
}

/// Never tried again: see the crate's invariants.
fn sync(file: &dyn DiskFile, path: &Path) -> Result<(), String> {
    let begun = Instant::now();
    let result = file.sync_data().map_err(|e| failed("sync", path, &e));
    Counter::LogFsyncs.increment();
    Histogram::LogFsync.observe(begun.elapsed());
    result
}

fn finish(shared: &Shared) {
    if shared.state().poisoned.is_none()
        && let Err(reason) = sync_active(shared)
    {
        shared.poison(reason);
    }
}

pub(crate) fn failed(action: &str, path: &Path, error: &io::Error) -> String {
    format!("can't {action} {}: {error}", path.display())
}

/// The thread's handle, named for `top` and debuggers.
pub(crate) fn spawn(shared: &Arc<Shared>) -> io::Result<std::thread::JoinHandle<()>> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name("mirror-log-write".to_owned()).spawn(move || run(&shared))
}
