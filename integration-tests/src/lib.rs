//! What the scenarios are told with: throw-away PostgreSQL servers, the proxy, clients, loads, faults, and a comparison
//! of two databases that shares no code with pgshadow.
//!
//! ```no_run
//! use integration_tests::{equal, postgres::Cluster, proxy::Pgshadow, workload::Load};
//! use std::time::Duration;
//!
//! let (source, target) = (Cluster::old(), Cluster::newest());
//! let load = Load::order();
//! load.install_on(&[source.app(), target.app()]);
//! let pgshadow = Pgshadow::between(&source, &target).start();
//! load.run(&pgshadow.app(), Duration::from_secs(5));
//! pgshadow.wait_drained(Duration::from_secs(30));
//! equal::assert_equal(&source.app(), &target.app());
//! pgshadow.expect_clean_log(&[]);
//! ```
//!
//! Rules: everything has a time limit and says what it waited for; every process and directory is ended and removed by
//! the value that made it, also when the test's process is killed ([`process::Reaper`]); processes are ended by their
//! id, only own ones; nothing is skipped where a server is missing: that is a failure.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helper fails by a panic"
)]

pub mod backfill;
pub mod client;
pub mod drivers;
pub mod equal;
pub mod fault;
pub mod flip;
pub mod history;
pub mod installation;
pub mod pooler;
pub mod port;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod scene;
pub mod verify;
pub mod workload;

/// How often a scenario with chance in it runs: once in `make test`, many times in `make conform` (`PGSHADOW_REPEATS`).
pub fn repeats() -> u32 {
    installation::setting("PGSHADOW_REPEATS").and_then(|text| text.parse().ok()).unwrap_or(1)
}
