//! One command, one file. Those that ask the running proxy find it by the admin address of the same configuration.
mod acknowledge;
mod backfill;
mod check_config;
mod flip;
mod pause;
mod preflight;
mod repair;
mod report;
mod screen;
mod status;
#[cfg(test)]
mod tests;
mod verify;
mod wait;

pub use acknowledge::acknowledge;
pub use backfill::backfill;
pub use check_config::check_config;
pub use flip::{finish, flip, rehearse};
pub use pause::{pause, resume};
pub use preflight::preflight;
pub use repair::repair;
pub use report::report;
pub use status::status;
pub use verify::verify;
pub use wait::wait_drained;
