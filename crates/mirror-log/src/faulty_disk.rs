//! A disk in memory that crashes, tears, flips and fails on demand.

mod changes;

use crate::disk::{Disk, DiskFile};
use changes::{ContentChange, Dice, NameChange, apply_content, apply_name};
use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A lasting fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Syncs fail with EIO; the data is gone from the disk but still seen.
    Sync,
    /// Writes fail with EIO.
    Write,
}

/// A clone is the same disk.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    /// Names as they are after a crash.
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    locked: HashSet<PathBuf>,
    faults: HashSet<Fault>,
    /// Bytes that may still be allocated.
    space: Option<u64>,
    /// Changes until the machine crashes.
    crash_in: Option<u64>,
    crashed: bool,
    /// Raised at each restart; handles of an earlier life are dead.
    life: u64,
    changes: u64,
}

#[derive(Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<ContentChange>,
}

impl FaultyDisk {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine crashes after so many further changes.
    pub fn crash_in(&self, changes: u64) {
        self.inside().crash_in = Some(changes);
    }

    /// The machine crashes now: everything fails until `restart`.
    pub fn crash(&self) {
        self.inside().crashed = true;
    }

    /// Changes made so far.
    pub fn changes(&self) -> u64 {
        self.inside().changes
    }

    /// Whether it has crashed.
    pub fn has_crashed(&self) -> bool {
        self.inside().crashed
    }

    /// Limits what may still be allocated; `None` lifts the limit.
    pub fn space(&self, bytes: Option<u64>) {
        self.inside().space = bytes;
    }

    /// A fault from now on.
    pub fn fault(&self, fault: Fault) {
        self.inside().faults.insert(fault);
    }

    /// The machine starts again. Of what wasn't synced an arbitrary part is there, by pieces of 1, 8, 64 or 512 bytes.
    pub fn restart(&self, seed: u64) {
        let mut dice = Dice(seed);
        let mut guard = self.inside();
        let inside = &mut *guard;
        let piece = 1 << (3 * dice.roll(4));
        // 0: nothing unsynced is kept, 8: all of it.
        let kept_of_8 = dice.roll(9);
        for inode in &mut inside.inodes {
            for change in std::mem::take(&mut inode.pending) {
                match change {
                    ContentChange::Write(offset, bytes) => {
                        let mut at = offset;
                        for part in bytes.chunks(piece) {
                            if dice.roll(8) < kept_of_8 {
                                apply_content(&mut inode.durable, &ContentChange::Write(at, part.to_vec()));
                            }
                            at += part.len();
                        }
                    }
                    change if dice.roll(8) < kept_of_8 => apply_content(&mut inode.durable, &change),
                    ContentChange::Length(_) => {}
                }
            }
            inode.seen = inode.durable.clone();
        }
        for change in std::mem::take(&mut inside.pending_names) {
            if dice.roll(8) < kept_of_8 {
                apply_name(&mut inside.durable_names, &change);
            }
        }
        inside.names = inside.durable_names.clone();
        inside.revive();
    }

    /// The process dies, the machine goes on: nothing is lost.
    pub fn kill_process(&self) {
        self.inside().revive();
    }

    /// A file's content, as it is seen.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let inside = self.inside();
        Some(inside.inodes.get(*inside.names.get(path)?)?.seen.clone())
    }

    /// Replaces a file's content, durably.
    pub fn set_content(&self, path: &Path, bytes: &[u8]) {
        let mut inside = self.inside();
        let inode = Inode { seen: bytes.to_vec(), durable: bytes.to_vec(), pending: Vec::new() };
        inside.inodes.push(inode);
        let index = inside.inodes.len() - 1;
        inside.names.insert(path.to_owned(), index);
        inside.durable_names.insert(path.to_owned(), index);
    }

    /// All files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.inside().names.keys().cloned().collect()
    }
}

impl Inside {
    fn revive(&mut self) {
        self.crashed = false;
        self.crash_in = None;
        self.locked.clear();
        self.life += 1;
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(io::Error::other("the machine has crashed")) } else { Ok(()) }
    }

    /// Counts a change; the one that the crash falls on still happens, unsynced.
    fn change(&mut self) -> io::Result<()> {
        self.alive()?;
        self.changes += 1;
        if let Some(left) = self.crash_in.as_mut() {
            *left = left.saturating_sub(1);
            self.crashed = *left == 0;
        }
        Ok(())
    }

    fn fails(&self, fault: Fault) -> io::Result<()> {
        if self.faults.contains(&fault) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    fn name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.pending_names.push(change);
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(space) = self.space.as_mut() {
            *space = space.checked_sub(bytes).ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
        }
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        self.inside().alive()
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let inside = self.inside();
        inside.alive()?;
        let inside = inside.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inside = self.inside();
        inside.alive()?;
        Ok(Box::new(FaultyFile { disk: self.clone(), inode: inside.find(path)?, life: inside.life }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        {
            let mut inside = self.inside();
            inside.alive()?;
            if inside.find(path).is_err() {
                inside.inodes.push(Inode::default());
                let inode = inside.inodes.len() - 1;
                inside.name(NameChange::Create(path.to_owned(), inode));
                inside.change()?;
            }
        }
        self.open(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let inside = self.inside();
        inside.alive()?;
        Ok(inside.find(path).is_ok())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        inside.alive()?;
        inside.find(from)?;
        inside.name(NameChange::Rename(from.to_owned(), to.to_owned()));
        inside.change()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        inside.alive()?;
        let inode = inside.find(path)?;
        let bytes = inside.inodes.get(inode).map_or(0, |inode| inode.seen.len() as u64);
        inside.space = inside.space.map(|space| space + bytes);
        inside.name(NameChange::Remove(path.to_owned()));
        inside.change()
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        inside.change()?;
        inside.fails(Fault::Sync)?;
        if !inside.crashed {
            inside.pending_names.clear();
            inside.durable_names = inside.names.clone();
        }
        inside.alive()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let mut inside = self.inside();
        inside.alive()?;
        if !inside.locked.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(FaultyLock { disk: self.clone(), path: path.to_owned(), life: inside.life })))
    }
}

struct FaultyLock {
    disk: FaultyDisk,
    path: PathBuf,
    life: u64,
}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        let mut inside = self.disk.inside();
        if inside.life == self.life {
            inside.locked.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    inode: usize,
    life: u64,
}

impl FaultyFile {
    fn with<T>(&self, f: impl FnOnce(&mut Inside) -> io::Result<T>) -> io::Result<T> {
        let mut inside = self.disk.inside();
        if inside.life != self.life {
            return Err(io::Error::other("a handle of an earlier life"));
        }
        inside.alive()?;
        f(&mut inside)
    }

    fn change(&self, change: ContentChange) -> io::Result<()> {
        self.with(|inside| {
            inside.fails(Fault::Write)?;
            let grows = match (&change, inside.inodes.get(self.inode)) {
                (ContentChange::Write(offset, bytes), Some(inode)) => {
                    (offset + bytes.len()).saturating_sub(inode.seen.len())
                }
                _ => 0,
            };
            inside.allocate(grows as u64)?;
            if let Some(inode) = inside.inodes.get_mut(self.inode) {
                apply_content(&mut inode.seen, &change);
                inode.pending.push(change);
            }
            inside.change()?;
            inside.alive()
        })
    }
}

impl DiskFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|inside| Ok(inside.inodes.get(self.inode).map_or(0, |inode| inode.seen.len() as u64)))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.change(ContentChange::Length(length as usize))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|inside| {
            let from = offset as usize;
            let bytes = inside.inodes.get(self.inode).and_then(|inode| inode.seen.get(from..from + buffer.len()));
            buffer.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(ContentChange::Write(offset as usize, bytes.to_vec()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|inside| {
            inside.change()?;
            if let Err(error) = inside.fails(Fault::Sync) {
                // As Linux does: what couldn't be written is clean in the cache, and no later sync writes it.
                if let Some(inode) = inside.inodes.get_mut(self.inode) {
                    inode.pending.clear();
                }
                return Err(error);
            }
            inside.alive()?;
            if let Some(inode) = inside.inodes.get_mut(self.inode) {
                inode.pending.clear();
                inode.durable = inode.seen.clone();
            }
            Ok(())
        })
    }
}
