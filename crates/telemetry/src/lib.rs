//! The metrics of pgshadow: every name, label value and description is listed here, and only here.
//!
//! From: any room, by `Counter::RowsApplied.add(1)`, `Gauge::LagMs.set(12)`, `Histogram::LogFsync.observe(duration)`.
//! To: Prometheus' text format, by [`Handle::render`], and `pgshadow status`, by [`Counter::value`] and [`Gauge::value`].
//!
//! Invariants:
//! - Names, labels and label values are closed lists: no text of a client ever becomes a label.
//! - Counting is one relaxed atomic addition: no lock, no allocation, no lookup, and no need to have called [`install`].
//! - Counters and gauges belong to the process. [`Handle::render`] copies them to the exporter, which escapes and formats.
//! - Histograms are dropped until [`install`] was called, and round trips unless there is a [`Watch`].
//!
//! What it is not: no server (the admin room answers `/metrics`), no log, no tracing.
#![warn(missing_docs)]

mod counter;
mod gauge;
mod histogram;
mod label;
mod recorder;
mod round_trips;

pub use counter::Counter;
pub use gauge::Gauge;
pub use histogram::Histogram;
pub use label::{Direction, Room, StatementClass};
pub use recorder::{Handle, InstallError, install};
pub use round_trips::{RoundTrip, Times, Watch};
