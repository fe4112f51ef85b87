//! PostgreSQL's frontend/backend protocol 3.0 and 3.2 (manual, chapter "Frontend/Backend Protocol"): bytes in, bytes out.
//!
//! Frames are cut here by type byte and length, and forwarded by others as the bytes they were. What has to be looked
//! into is read by the bounded readers of [`message`]; nothing here panics on bytes from the network. `pgwire`
//! builds the few messages that pgshadow sends of its own accord, and checks a client's SCRAM proof.
//!
//! **Invariants.** A reader never looks past its frame. A frame is never re-encoded to be forwarded: an edit
//! ([`edit`]) copies every byte that it does not have to change.
//!
//! **It is not** a server or a client: it knows no socket, no session state and no SQL.
#![warn(missing_docs)]

pub mod authentication;
pub mod backend;
pub mod edit;
pub mod error;
mod frame;
pub mod frontend;
mod reader;
pub mod scram;
pub mod startup;

pub use frame::{Frame, FrameError, Header};
pub use reader::Reader;
