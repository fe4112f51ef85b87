//! The relay: a listener, and for each client a session with a connection of its own to the primary.
//!
//! From: the client's socket. To: the primary's socket, and back. With mirroring on, every frame goes through the
//! session's capture ([`pgshadow_capture::Session`]); with mirroring off, frames are only counted.
//!
//! **Invariants.** Startup packet, authentication, ParameterStatus and BackendKeyData are the client's and the server's own
//! bytes: the client holds the real backend pid and cancel key. Each direction is read only while the other side takes what
//! was read before, so a slow peer slows its counterpart and memory stays bounded. Bytes that a client sent ahead of an answer
//! to its SSLRequest are refused (CVE-2021-23214).
//!
//! **It is not** a pool: one client, one server connection, from login to Terminate.
#![warn(missing_docs)]

mod buffer;
mod cancel;
mod config;
mod handshake;
mod listener;
mod relay;
mod session;

pub use config::{Config, OtherDatabases, Upstream};
pub use listener::{Error, Gate, Proxy};
