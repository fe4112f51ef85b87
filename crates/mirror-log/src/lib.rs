//! The mirror log: every transaction that may commit on the primary is on disk before it can, in one order.
//!
//! From: the sessions, which append an [`Record::Intent`] before they forward what may commit, and its
//! [`Record::Outcome`] after. To: the applier, which reads payloads again when they don't fit its memory, and whoever
//! settles what a crash left open ([`Recovery::read_all`]).
//!
//! # Invariants
//! - Numbers begin with 1, have no gaps, and go on after a restart. Order of numbers is order on disk.
//! - What [`Log::durable`] has acknowledged is found again, whole and in order; nothing is found that wasn't appended.
//!   (With [`Durability::Os`]: if the machine didn't crash. [`Log::synced`] is for what must survive that too.)
//! - Damage is never read as a record, and never skipped: the log stops there and says where. The one exception is an
//!   unfinished write at the very end, which is dropped and reported ([`TornTail`]): it was never acknowledged. (Damage
//!   to the last group of records can't be told from that.)
//! - A failed write or sync poisons the log for good. A sync is never tried again: the second one would succeed
//!   without having written anything.
//! - Memory, disk and time under the mutex are bounded; the mutex is never held during I/O.
//!
//! # At the limits
//! [`Log::append`] never waits. It refuses instead, and a refused record leaves no trace, so that nothing is lost
//! that the caller believes to be there, and nobody waits for somebody who waits for him:
//! - [`AppendError::Busy`]: the buffer is full, or the next segment is still being prepared. Both pass without
//!   anybody's help but the log's own threads, which wait for nobody. [`Log::append_wait`] waits for that.
//! - [`AppendError::Full`]: `size_max` is reached, or the disk has no space. An eighth of `size_max` (without
//!   disk space: half a segment) is kept from intents, for what ends those under way. With [`OnFull::StopMirroring`] the log takes no intents from then on, and
//!   the caller calls [`Log::mark_stopped`] before it forwards the write. With [`OnFull::BlockWrites`] `append_wait`
//!   waits for [`Log::trim`]; so whoever trims must not wait for an append.
//!
//! A record without disk space reserved for it is never accepted: segments are allocated before they are used. So a
//! full disk refuses records, and doesn't poison.
//!
//! # Format (version 3; integers are little-endian)
//! `NNNNNNNNNNNNNNNNNNNN.segment` is named after its first record's number:
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | `pgshlog\n` |
//! | 8..12 | version |
//! | 16..24 | number of the first record |
//! | 24..32 | salt, new for each segment |
//! | 60..64 | CRC-32 of bytes 0..60; the others are zero |
//! | 64.. | records, one after another, each aligned to 8 bytes; then zeros |
//!
//! A record:
//!
//! | bytes | content |
//! |---|---|
//! | 0..4 | length of the payload |
//! | 4..8 | CRC-32 of salt, length, number, unsynced, kind, payload |
//! | 8..16 | number |
//! | 16..20 | unsynced: how many records just before it weren't known to be on disk when it was written |
//! | 20..24 | kind: 1 to 6 in the order of [`Record`]; 7 and 8 are 1 and 2 with changes in a file of their own |
//! | 24.. | payload: definitions of relations, then the record's body (postcard); zeros up to the alignment |
//!
//! "unsynced" tells a torn write from damage. A disk may write the blocks of one unfinished group in any order, so a
//! good record after a bad one proves nothing by itself; but if it was written when the bad one was known to be on
//! disk, then the bad one was damaged later.
//!
//! A row doesn't repeat its table: relations have numbers, and the first record of a segment that uses one defines it,
//! so every segment can be read alone. Segments are zeroed ahead of their use (`N.spare`) and used again after
//! trimming; number and salt in the checksum keep a stale record from being read as a new one. After a restart a new
//! segment is begun. `lock` keeps other processes out; `stopped` is the stop mark; `identity` tells
//! this log from another one in its place.
//!
//! A transaction that is too large to be held in memory until it commits has a file of its own ([`Log::spill`],
//! `NNNNNNNNNNNNNNNN.spilled`, named by a random number): parts of changes, each with a CRC-32 ahead of it. Its intent and outcome
//! say where each part is. The file counts as the log's, and is removed when the transaction is applied or rolled back.
//!
//! Version 2 had neither those files nor the kinds 7 and 8; it is read as well.
//!
//! # What it is not
//! It knows no transaction: it doesn't match outcomes with intents, sort by token, or decide what may be trimmed. It
//! keeps no state of the applier: suspects, epoch and applied position are records like others, and go when they are
//! trimmed.
#![warn(missing_docs)]

mod codec;
mod disk;
mod error;
#[cfg(any(test, feature = "faulty-disk"))]
mod faulty_disk;
mod format;
mod identity;
mod keeper;
mod log;
mod options;
mod reading;
mod record;
mod recovery;
mod relations;
mod scan;
mod shared;
mod spill;
mod state;
mod stop_mark;
#[cfg(test)]
mod tests;
mod writer;

pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{AppendError, Error, ReadError, SpillError};
#[cfg(any(test, feature = "faulty-disk"))]
pub use faulty_disk::{Fault, FaultyDisk};
pub use log::{Log, Status};
pub use options::{Durability, OnFull, Options};
pub use record::Record;
pub use recovery::{RecoveredRecords, Recovery, TornTail};
pub use spill::SpillFile;
