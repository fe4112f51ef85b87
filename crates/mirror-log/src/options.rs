use std::path::PathBuf;

/// What "on disk" means for [`crate::Log::durable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A group of records is acknowledged after its fdatasync: survives a crash of the machine.
    Fsync,
    /// A group is acknowledged once the operating system has it: survives a crash of the process. It is synced in the
    /// background; [`crate::Log::synced`] waits for that where a record must not be lost.
    Os,
}

/// What a caller does with a write when the log has no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// The application goes on, mirroring stops: the first refusal latches, further intents get
    /// [`crate::AppendError::Stopped`] until [`crate::Log::clear_stopped`].
    StopMirroring,
    /// [`crate::Log::append_wait`] waits until trimming has made room.
    BlockWrites,
}

/// Where and how the log is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its own directory; created with access for the owner only.
    pub directory: PathBuf,
    /// When a record is acknowledged.
    pub durability: Durability,
    /// Limit of the bytes that the segment files take on disk, spare ones included.
    pub size_max: u64,
    /// Bytes of one segment file; lowered to an eighth of `size_max`. A larger record gets a larger segment.
    pub segment_size: u64,
    /// What happens when there is no room.
    pub on_full: OnFull,
    /// Limit of the bytes that are appended but not written yet; at the limit `append` answers
    /// [`crate::AppendError::Busy`]. One record more may lie above it, so that a record larger than the limit passes.
    pub buffer_bytes_max: u64,
}

impl Options {
    /// Defaults: fsync, 1 GiB in segments of 16 MiB, stop mirroring when full, 16 MiB of buffer.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            durability: Durability::Fsync,
            size_max: 1 << 30,
            segment_size: 16 << 20,
            on_full: OnFull::StopMirroring,
            buffer_bytes_max: 16 << 20,
        }
    }
}
