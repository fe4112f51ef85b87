//! The store of what was found: findings, suspect tables and a few facts that must outlive the process.
//!
//! From: the applier (misfits), capture (what it could not see), verify. To: reports, the console, the gates of a
//! cutover. Everything is kept in one redb file, `findings.redb` in the data directory, and is on disk when a call
//! returns.
//!
//! Invariants:
//! 1. One fault is one finding: the same fingerprint, table and key raises `count`. With an [`Origin`] the same event
//!    is counted once, however often a crash makes the applier report it.
//! 2. The file is bounded: [`Limits`] says how many examples of one kind and how many findings at all are kept. What
//!    is beyond is counted, never silently dropped: an open example carries the count, or [`Store::uncounted`] does.
//! 3. Every newly reported finding is logged as one line of JSON under the target `pgshadow::finding`.
//! 4. A table stays suspect until somebody who reloaded it says so.
//! 5. A certificate lapses in the transaction that makes its table suspect, or keeps a finding of its rows; and what lapses between a
//!    snapshot and its certificate is not forgotten.
//!
//! It is not a judge (see `pgshadow-compare`), and it does not know the databases. Calls block on the disk for a
//! moment: from async code call them where that may be.
#![warn(missing_docs)]

mod certificates;
mod doubts;
mod error;
mod findings;
mod store;
mod suspects;
#[cfg(test)]
mod tests;

pub use certificates::{Certificates, LapseOf, TableCertificate};
pub use error::Error;
pub use findings::Origin;
pub use store::{Limits, Store};
pub use suspects::SuspectTable;
