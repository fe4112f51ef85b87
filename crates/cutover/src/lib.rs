//! The flip as a journalled state machine: what is done next, what is on disk before it, what undoes it.
//!
//! From: events (a command, a step that is done or has failed, a restart). To: effects, which the assembly runs on real servers.
//! [`transition`] is pure; the [`Journal`] keeps what a restart must know.
//!
//! **Invariants.** Nothing is done to a server's rights that isn't in the journal before. Up to the state [`State::Committed`] whatever fails is
//! undone, and traffic goes on where it was; from it on whatever fails is tried again. At no time can the application write to both databases
//! through pgshadow. Every effect can be repeated.
#![warn(missing_docs)]

mod journal;
mod machine;
#[cfg(test)]
mod model_tests;

pub use journal::{Error, Journal, Kept, Rehearsed, Rights, Standing};
pub use machine::{Effect, Event, State, transition};
