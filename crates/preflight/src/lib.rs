//! What would make a migration fail, said before it begins: both databases are looked at, and nothing is changed.
//!
//! From: a connection to each server and [`Facts`]. To: a [`Report`] of [`Finding`]s, each with what will happen, how sure that is,
//! and the statement that mends it; and [`grants`], the rights of pgshadow's own role as SQL.
//!
//! One check is one file in `checks/`.
//!
//! Invariants:
//! - Nothing is written, and no lock is taken that an application would wait for: sessions are read-only, their statements and waits are short.
//! - A check that can't look is a finding itself.
//! - Names are the catalog's own: what stands in a statement is always quoted.
//!
//! What it is not: no comparison of rows, no gate (a cutover and a backfill make one of it), nothing that mends.
#![warn(missing_docs)]

mod checks;
mod error;
mod facts;
mod finding;
mod grants;
mod pair;
mod run;
mod server;
mod sides;
mod words;

pub use error::Error;
pub use facts::Facts;
pub use finding::{Counts, Finding, Level, NotRun, Report, Step, Sure};
pub use grants::grants;
pub use run::{before_load, run};
