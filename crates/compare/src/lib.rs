//! Outcome against outcome: the primary's row image beside what the shadow did with it, and the verdict.
//!
//! From: the applier, which hands over an image, what the shadow said ([`Seen`]) and the texts of both rows. To: the
//! kind, the cause and the columns of a finding ([`Verdict`]), and its fingerprint.
//!
//! Invariants:
//! 1. Pure: no I/O, no clock, no state. The same evidence gives the same verdict.
//! 2. A cause is named only where the evidence shows it; else it is [`pgshadow_model::Cause::Unknown`].
//!
//! It does not decide whether a row is equal: the shadow computed that itself, on its own types.
#![warn(missing_docs)]

mod cause;
mod fingerprint;
mod statement;
#[cfg(test)]
mod tests;
mod verdict;

pub use cause::{ShadowColumn, of_sqlstate};
pub use fingerprint::fingerprint;
pub use statement::{Answer, Difference, Latencies, P99, Pace, judge_statement, shape};
pub use verdict::{Seen, ShadowError, Texts, Verdict, describe_key, describe_row, judge, judge_error};
