//! The relay: a listener, and for each client a session with a connection of its own to the primary.
//!
//! From: the client's socket. To: the primary's socket, and back. With mirroring on, every frame goes through the
//! session's capture ([`pgshadow_capture::Session`]); with mirroring off, frames are only counted.
//!
//! **Invariants.** Startup packet, ParameterStatus and BackendKeyData are the client's and the server's own bytes, and so is authentication
//! but in mode `scram` ([`Secrets`]): the client holds the real backend pid and cancel key. Each direction is read only while the other side takes what
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
mod login;
mod pause;
mod relay;
mod route;
mod session;
mod sessions;

pub use config::{Authentication, Config, OtherDatabases, Upstream};
pub use listener::{Error, Gate, Proxy};
pub use login::{Secret, Secrets};
pub use pause::{Expired, Lease, Pause};
pub use route::{Route, Routes};
pub use sessions::{Client, Sessions, WAITS_MAX};
