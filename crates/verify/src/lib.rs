//! Whether both databases hold the same: every row of every table, compared while the application writes.
//!
//! From: two snapshots that hold the same ([`pgshadow_apply::SnapshotPair`]). To: a [`TableOutcome`] for each table, with the rows
//! that differ.
//!
//! A table's rows are turned into texts under fixed settings, and those into hashes of 128 bits, by the servers themselves; the sums
//! over all rows of both sides are compared. Where they differ, they are made again by bucket (a hash of the key), and the rows of
//! the buckets that differ are fetched. So neither the order of keys nor the place of rows matters, nor whether there is a key.
//!
//! Invariants:
//! - A difference that is told is one: both sides are read in snapshots that hold the same.
//! - A table that was truncated, rewritten or redefined while it was read has no result: it is read again in new snapshots.
//! - Nothing is written anywhere. No statement is waited for by anybody for longer than it takes to see that.
//!
//! What it is not: no schema comparison (only columns and their types, without which rows can't be compared), no repair.
#![warn(missing_docs)]

mod error;
mod expression;
mod felt;
mod locate;
mod outcome;
mod pace;
mod parts;
mod pool;
mod progress;
mod round;
mod run;
mod table;
mod totals;

pub use error::Error;
pub use expression::Pages;
pub use outcome::{Difference, DifferentColumn, TableOutcome, is_of_verify};
pub use pace::{Limits, Pace};
pub use pool::{Pool, Turn};
pub use progress::{Progress, Shown};
pub use run::{Done, Job, Outcome, PairOutcome, Pairs, verify};
