//! Watches one session's frames and assembles its transactions with their row images: synchronous, no I/O.
//!
//! From: frames of the client and of the server, in the order in which they came ([`Session::client`], [`Session::server`]).
//! To: frames for the other side, and the [`Journal`]: an intent before anything that may commit is sent, its outcome after.
//!
//! A write goes to the server with its RETURNING list extended by one column, which holds the row, the transaction's id and
//! an order token; what comes back for that column is taken out again before the client sees it. Where a token drawn by
//! the statement would be too early (foreign keys, triggers), one statement of our own draws it at the end of the transaction.
//!
//! **Invariants.** What isn't proven exact is forwarded as the client wrote it and declared suspect. A frame that can't
//! be read is forwarded all the same. The client gets an error of ours only where the same would have met its
//! own statement (a deferred constraint checked a moment earlier), or where somebody refuses its DDL ([`Verdict`]). One unit of [`unit`] is one transaction.
//!
//! **It is not** the relay (it owns no socket and waits for nothing: what must be durable first is marked in the
//! outgoing queue), nor the log, nor the catalog (it asks its questions through the session itself).
#![warn(missing_docs)]

mod again;
mod backends;
mod by_name;
mod captured;
mod carried;
mod classify;
mod copying;
mod described;
mod ending;
mod expected;
mod extended;
mod failures;
mod guard;
mod image;
mod in_parts;
mod journal;
mod keeping;
mod locked;
mod looking_back;
mod moments;
mod names;
mod notices;
mod outcome;
mod own;
mod pairing;
mod plan;
mod planning;
mod query;
mod rehearsal;
mod renewal;
mod replies;
mod rows;
mod send;
mod session;
mod shape;
mod unit;

pub use backends::{Backends, Registered};
pub use carried::OWN_STATEMENT;
pub use guard::{ALLOW, Guard, Locks, Question, Verdict};
pub use journal::{Journal, Settled, Spill, SpillRefused, Stopped, Unsettled};
pub use session::{Output, Session, Shared, ToServer};
