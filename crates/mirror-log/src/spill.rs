//! Files beside the segments, one for each transaction that is too large to be held in memory until it commits. Its records say
//! where in such a file its changes are.

use crate::codec::{decode_changes, encode_changes};
use crate::disk::{Disk, DiskFile};
use crate::shared::Shared;
use crate::state::State;
use crate::{Durability, Error, Log, SpillError};
use bytes::Bytes;
use pgshadow_model::{Change, Spilled, SpilledPart};
use pgshadow_telemetry::Counter;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SUFFIX: &str = ".spilled";
/// Each part begins with its CRC-32, over the file's number, the offset and the rest.
const CRC_BYTES: usize = 4;

/// The file of a transaction that is under way. Dropped, it goes, unless its parts were kept.
#[derive(Debug)]
pub struct SpillFile {
    shared: Arc<Shared>,
    number: u64,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    end: u64,
    /// Its name is on disk.
    named: bool,
    kept: bool,
}

impl SpillFile {
    pub(crate) fn create(shared: &Arc<Shared>) -> Result<Self, SpillError> {
        // At random: records of files that are gone may stand in the log for long.
        let number = RandomState::new().build_hasher().finish();
        let path = path_of(&shared.state().options.directory, number);
        let file = shared.disk.create(&path).map_err(|e| Error::io("create", &path, e))?;
        Ok(Self { shared: Arc::clone(shared), number, path, file, end: 0, named: false, kept: false })
    }

    /// Its number, for [`Spilled::file`].
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Writes changes behind those that are there. Blocks for the disk, but doesn't wait until it has them.
    ///
    /// # Errors
    /// There is no room; or the disk fails. The parts before are as they were.
    pub fn write(&mut self, changes: &[Change]) -> Result<SpilledPart, SpillError> {
        let content = encode_changes(changes).map_err(|e| SpillError::Encode(e.to_string()))?;
        let mut bytes = checksum(self.number, self.end, &content).to_le_bytes().to_vec();
        bytes.extend_from_slice(&content);
        let (length, count) = (u32::try_from(bytes.len()), u32::try_from(changes.len()));
        let (Ok(length), Ok(count)) = (length, count) else {
            return Err(SpillError::Encode("a part is larger than 4 GiB".to_owned()));
        };
        self.shared.state().reserve_spilled(self.number, u64::from(length))?;
        let part = SpilledPart { offset: self.end, length, changes: count };
        if let Err(error) = self.file.write_at(&bytes, part.offset) {
            self.hold(self.end);
            return Err(Error::io("write", &self.path, error).into());
        }
        Counter::LogSpilledBytes.add(u64::from(length));
        self.end += u64::from(length);
        Ok(part)
    }

    /// The file ends here, on the disk and in the log's count. What the disk doesn't give back still counts.
    fn hold(&self, end: u64) -> bool {
        let cut = self.file.set_length(end);
        if let Err(error) = &cut {
            tracing::warn!(path = %self.path.display(), %error, "the file of a large transaction can't be cut");
            return false;
        }
        self.shared.state().hold_spilled(self.number, end);
        true
    }

    /// Reads a part back.
    ///
    /// # Errors
    /// The disk fails.
    pub fn read(&self, part: SpilledPart) -> Result<Vec<Change>, Error> {
        read(&*self.file, &self.path, self.number, part)
    }

    /// Lets go of what is behind this offset. What is written next goes there.
    pub fn cut(&mut self, offset: u64) {
        if offset < self.end && self.hold(offset) {
            self.end = offset;
        }
    }

    /// What was written is as durable as [`Durability`] says, and stays until [`Log::remove_spilled`]. Blocks.
    ///
    /// # Errors
    /// The disk fails: then it isn't.
    pub fn keep(&mut self) -> Result<(), Error> {
        if self.shared.state().options.durability == Durability::Fsync {
            self.file.sync_data().map_err(|e| Error::io("sync", &self.path, e))?;
            let directory = self.path.parent().unwrap_or(Path::new("."));
            if !std::mem::replace(&mut self.named, true) {
                self.shared.disk.sync_directory(directory).map_err(|e| Error::io("sync", directory, e))?;
            }
        }
        self.kept = true;
        Ok(())
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        if !self.kept && remove(&*self.shared.disk, &self.path) {
            self.shared.state().release_spilled(self.number);
        }
    }
}

impl Log {
    /// A file for the changes of a transaction that is under way. Blocks for the disk.
    ///
    /// # Errors
    /// The disk fails, or has no space.
    pub fn spill(&self) -> Result<SpillFile, SpillError> {
        SpillFile::create(self.shared())
    }

    /// Reads a part again. Blocks for the disk.
    ///
    /// # Errors
    /// It isn't there, or damaged.
    pub fn read_spilled(&self, spilled: &Spilled, part: usize) -> Result<Vec<Change>, Error> {
        let path = path_of(&self.shared().state().options.directory, spilled.file);
        let place = *spilled.parts.get(part).ok_or_else(|| Error::corrupt(&path, 0, "there is no such part"))?;
        let file = self.shared().disk.open(&path).map_err(|e| Error::io("open", &path, e))?;
        read(&*file, &path, spilled.file, place)
    }

    /// Numbers of the files that are there, of transactions that are under way as well.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn spilled_files(&self) -> Result<Vec<u64>, Error> {
        let directory = self.shared().state().options.directory.clone();
        let names = self.shared().disk.list(&directory).map_err(|e| Error::io("list", &directory, e))?;
        Ok(names.iter().filter_map(|name| number_of(name)).collect())
    }

    /// Gives a file back, once none of its parts is needed any more.
    pub fn remove_spilled(&self, number: u64) {
        let shared = self.shared();
        let path = path_of(&shared.state().options.directory, number);
        if remove(&*shared.disk, &path) {
            shared.state().release_spilled(number);
            shared.progress.send_modify(|progress| progress.room += 1);
        }
    }
}

impl State {
    /// Spilled transactions take half of the log's room at most: the rest is for what ends them.
    fn reserve_spilled(&mut self, number: u64, bytes: u64) -> Result<(), SpillError> {
        if self.closed {
            return Err(SpillError::Closed);
        }
        let bytes_max = self.options.size_max / 2;
        let spares: u64 = self.spares.iter().map(|s| s.length).sum();
        let all = self.allocated - spares - self.pending + bytes + self.options.size_max / 8;
        if self.spilled.values().sum::<u64>() + bytes > bytes_max || all > self.options.size_max {
            return Err(SpillError::Full { bytes_max });
        }
        *self.spilled.entry(number).or_default() += bytes;
        self.allocated += bytes;
        Ok(())
    }

    fn hold_spilled(&mut self, number: u64, bytes: u64) {
        let before = self.spilled.insert(number, bytes).unwrap_or(0);
        self.allocated = self.allocated - before + bytes;
    }

    fn release_spilled(&mut self, number: u64) {
        self.allocated -= self.spilled.remove(&number).unwrap_or(0);
    }
}

/// The files that an earlier run left, with their bytes.
pub(crate) fn found(disk: &dyn Disk, directory: &Path, names: &[String]) -> BTreeMap<u64, u64> {
    let length = |number| disk.open(&path_of(directory, number)).and_then(|file| file.length()).unwrap_or(0);
    names.iter().filter_map(|name| number_of(name)).map(|number| (number, length(number))).collect()
}

fn read(file: &dyn DiskFile, path: &Path, number: u64, part: SpilledPart) -> Result<Vec<Change>, Error> {
    let mut bytes = vec![0; part.length as usize];
    file.read_at(&mut bytes, part.offset).map_err(|e| Error::io("read", path, e))?;
    let mut content = Bytes::from(bytes);
    let wrong = |what: &str| Error::corrupt(path, part.offset, what);
    if content.len() < CRC_BYTES {
        return Err(wrong("a part is too short"));
    }
    let crc = content.split_to(CRC_BYTES);
    if crc[..] != checksum(number, part.offset, &content).to_le_bytes() {
        return Err(wrong("a part's checksum doesn't match"));
    }
    decode_changes(&content).map_err(|error| wrong(&error.to_string()))
}

fn checksum(number: u64, offset: u64, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

fn remove(disk: &dyn Disk, path: &Path) -> bool {
    let removed = disk.remove(path);
    // one that was applied may be named by the log for a while still
    let gone = removed.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    if let (Err(error), false) = (&removed, gone) {
        tracing::warn!(path = %path.display(), %error, "the file of a large transaction can't be removed");
    }
    removed.is_ok() || gone
}

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}{SUFFIX}"))
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}
