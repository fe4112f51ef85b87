use pgshadow_model::Sequence;
use std::io;
use std::path::{Path, PathBuf};

const REMEDY: &str = "records from here on can't be trusted. Restore the file from a copy; or move the directory away, \
     start with an empty log and resynchronise every table (whatever was not applied yet is lost from the mirror)";

/// Why the log can't be opened or read back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused something.
    #[error("can't {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The disk's answer.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "another pgshadow uses the mirror log in {}: two would mix their records. Stop it, or give this one \
         a directory of its own",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A record in the middle, or a segment's header, is damaged.
    #[error("{} is damaged at byte {offset} ({what}): {REMEDY}", path.display())]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// Sequence numbers jump between two segments.
    #[error(
        "{} begins with record {found}, but record {expected} should follow: a segment is missing; {REMEDY}",
        path.display()
    )]
    Gap {
        /// The segment that begins too late.
        path: PathBuf,
        /// The record that should follow.
        expected: Sequence,
        /// The record it begins with.
        found: Sequence,
    },
    /// Written by another version of pgshadow.
    #[error(
        "{} has format {found}, this pgshadow reads format {supported}: start the version that wrote it, let it \
         drain the log, then upgrade",
        path.display()
    )]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format this program reads.
        supported: u32,
    },
    /// The options contradict themselves.
    #[error("mirror log options: {0}")]
    Options(String),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, what: what.into() }
    }
}

/// Why a record was not taken. The record got no number, and the log is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room until records are trimmed, or the disk has space again.
    #[error("the mirror log is full")]
    Full,
    /// No room this moment: the buffer is at its limit, or the next segment is still being prepared. Wait with
    /// [`crate::Log::append_wait`].
    #[error("the mirror log is busy")]
    Busy,
    /// The record can never fit: above a quarter of the log's size.
    #[error("a record of {bytes} bytes is too large for the mirror log (limit {bytes_max})")]
    TooLarge {
        /// What it needs.
        bytes: u64,
        /// What there can be.
        bytes_max: u64,
    },
    /// A write or sync failed; nothing is durable any more until the log is opened again.
    #[error("the mirror log is poisoned: {0}")]
    Poisoned(String),
    /// The log is closed, or mirroring is stopped and the record is an intent.
    #[error("the mirror log is stopped")]
    Stopped,
    /// The record can't be encoded.
    #[error("a record can't be encoded: {0}")]
    Encode(String),
}

/// Why a record can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was trimmed.
    #[error("record {0} was trimmed")]
    Trimmed(Sequence),
    /// It isn't written yet (wait for [`crate::Log::durable`]), or was never appended.
    #[error("record {0} is not written")]
    NotWritten(Sequence),
    /// It is damaged, or the disk refuses.
    #[error(transparent)]
    Log(#[from] Error),
}

/// Why changes were not written out.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    /// Large transactions have the room that they may have.
    #[error(
        "large transactions that are under way or not yet applied take {bytes_max} bytes of the mirror log (half of its size)"
    )]
    Full {
        /// What there can be.
        bytes_max: u64,
    },
    /// The log is closed: there will be no room any more.
    #[error("the mirror log is closed")]
    Closed,
    /// The changes can't be encoded.
    #[error("changes can't be encoded: {0}")]
    Encode(String),
    /// The disk refuses.
    #[error(transparent)]
    Log(#[from] Error),
}
