//! The log's identity: random, made with the log, kept in a file of its own. By it a position that was written elsewhere tells
//! whether its numbers are this log's.

use crate::Error;
use crate::disk::Disk;
use crate::format::{u32_at, u64_at};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

const RANDOM_BYTES: usize = 16;
const FILE_BYTES: usize = RANDOM_BYTES + 4;

/// Reads the file. Where there is none, or one that can't be read, the log is a new one as far as anybody can tell.
pub(crate) fn identity(disk: &dyn Disk, path: &Path) -> Result<String, Error> {
    let file = disk.create(path).map_err(|e| Error::io("open", path, e))?;
    let length = file.length().map_err(|e| Error::io("read", path, e))?;
    let mut bytes = vec![0; FILE_BYTES.min(length as usize)];
    file.read_at(&mut bytes, 0).map_err(|e| Error::io("read", path, e))?;
    if let Some(known) = decode(&bytes) {
        return Ok(known);
    }
    let mut bytes = Vec::with_capacity(FILE_BYTES);
    for _ in 0..RANDOM_BYTES / 8 {
        bytes.extend_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    file.write_at(&bytes, 0).and_then(|()| file.sync_data()).map_err(|e| Error::io("write", path, e))?;
    decode(&bytes).ok_or_else(|| Error::corrupt(path, 0, "the identity that was just made makes no sense"))
}

fn decode(bytes: &[u8]) -> Option<String> {
    let random = bytes.get(..RANDOM_BYTES)?;
    if u32_at(bytes, RANDOM_BYTES)? != crc32fast::hash(random) {
        return None;
    }
    Some(format!("{:016x}{:016x}", u64_at(random, 0)?, u64_at(random, 8)?))
}
