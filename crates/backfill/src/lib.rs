//! The shadow is loaded from the primary, while the application writes.
//!
//! From: a snapshot of the primary ([`pgshadow_apply::LoadSnapshot`]), of which the applier knows, by transaction id, what it contains. To:
//! the shadow's tables, by COPY; indexes and keys behind the rows; what comes after the snapshot is applied then.
//!
//! A round is one snapshot. All tables that are left are held from it on; each unit (a table, or tables that are tied by inheritance or
//! cascades) is emptied, copied in ranges, indexed, and let go by itself. What was redefined meanwhile, or lost with a connection, is
//! loaded in another round. Foreign keys, triggers, views and sequences come last.
//!
//! Invariants:
//! - What is noted on the shadow is true there: a range is noted in the transaction that writes it, a table counts as loaded in the
//!   transaction that ends its wait.
//! - Nothing of a table is applied that its snapshot contains, and all that it doesn't.
//! - No statement on the primary is waited for by anybody for longer than it takes to see that, `pg_dump`'s look at the schema excepted.
//!
//! What it is not: no proof (`verify`), and no migration of names or types.
#![warn(missing_docs)]

mod archive;
mod copy;
mod error;
mod finish;
mod handover;
mod progress;
mod round;
mod run;
mod schema;
mod shadow;
mod source;
mod tools;

pub use error::Error;
pub use handover::Handover;
pub use progress::{Progress, Shown, Stage, TableLoad};
pub use run::{Job, Loaded, Outcome, backfill};
pub use schema::Difference;
