//! The stop mark: a small file, made when the log is opened, that says whether mirroring was stopped.
//!
//! It is overwritten in place, so it can be set with a full disk. One sector holds it: a write of it happens or
//! doesn't. Zeros mean "not stopped"; anything that can't be read means "stopped".

use crate::Error;
use crate::disk::{Disk, DiskFile};
use crate::format::u32_at;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const FILE_BYTES: usize = 512;
const PREFIX_BYTES: usize = 8;
const REASON_BYTES_MAX: usize = FILE_BYTES - PREFIX_BYTES;

#[derive(Debug)]
pub(crate) struct StopMark {
    path: PathBuf,
    file: Mutex<Box<dyn DiskFile>>,
}

impl StopMark {
    /// Opens or makes the file; returns what it says.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<(Self, Option<String>), Error> {
        let file = disk.create(path).map_err(|e| Error::io("open", path, e))?;
        let mark = Self { path: path.to_owned(), file: Mutex::new(file) };
        let reason = mark.read()?;
        if reason.is_none() {
            // Writes even where the zeros are there already: afterwards the space is allocated and synced.
            mark.write(&[])?;
        }
        Ok((mark, reason))
    }

    pub fn set(&self, reason: &str) -> Result<(), Error> {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = reason.as_bytes().get(..end).unwrap_or_default();
        let mut bytes = Vec::with_capacity(FILE_BYTES);
        // One more than the length, so that a mark without a reason isn't all zero.
        bytes.extend_from_slice(&(reason.len() as u32 + 1).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(reason).to_le_bytes());
        bytes.extend_from_slice(reason);
        self.write(&bytes)
    }

    pub fn clear(&self) -> Result<(), Error> {
        self.write(&[])
    }

    fn read(&self) -> Result<Option<String>, Error> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let length = file.length().map_err(|e| Error::io("read", &self.path, e))?;
        let mut bytes = vec![0; FILE_BYTES.min(length as usize)];
        file.read_at(&mut bytes, 0).map_err(|e| Error::io("read", &self.path, e))?;
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        Ok(Some(reason(&bytes).unwrap_or_else(|| "stopped (the reason can't be read any more)".to_owned())))
    }

    fn write(&self, content: &[u8]) -> Result<(), Error> {
        let mut bytes = content.to_vec();
        bytes.resize(FILE_BYTES, 0);
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_at(&bytes, 0).and_then(|()| file.sync_data()).map_err(|e| Error::io("write", &self.path, e))
    }
}

fn reason(bytes: &[u8]) -> Option<String> {
    let length = (u32_at(bytes, 0)? as usize).checked_sub(1)?;
    let text = bytes.get(PREFIX_BYTES..PREFIX_BYTES.checked_add(length)?)?;
    (u32_at(bytes, 4)? == crc32fast::hash(text)).then(|| String::from_utf8_lossy(text).into_owned())
}
