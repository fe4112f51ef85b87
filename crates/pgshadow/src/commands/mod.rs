//! One command, one file. Those that ask the running proxy find it by the admin address of the same configuration.
mod check_config;
mod report;
mod status;
#[cfg(test)]
mod tests;
mod wait;

pub use check_config::check_config;
pub use report::report;
pub use status::status;
pub use wait::wait_drained;
