//! The command line: what may be typed.
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// A PostgreSQL proxy that mirrors every committed write of one database to another.
#[derive(Debug, Parser)]
#[command(name = "pgshadow", version, about, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub struct Arguments {
    /// The configuration.
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true, default_value = "./pgshadow.toml")]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Ends with 0: done, 1: failed, 2: wrong use, 3: differences found, 4: the wait timed out.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy.
    Run,
    /// Check the configuration and print what it means.
    CheckConfig,
    /// Show roles, phase, lag, suspect tables, open findings and the next step.
    Status(StatusArguments),
    /// Wait for something.
    Wait {
        /// What for.
        #[command(subcommand)]
        what: Wait,
    },
    /// Show the findings; ends with 3 when some are open.
    Report(ReportArguments),
}

/// `status`
#[derive(Debug, clap::Args)]
pub struct StatusArguments {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Print it again every second, until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
}

/// `wait`
#[derive(Debug, Subcommand)]
pub enum Wait {
    /// Until the shadow has applied all that was committed when this was called.
    Drained {
        /// How long at most, such as 60s or 5min.
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
}

/// `report`
#[derive(Debug, clap::Args)]
pub struct ReportArguments {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Only what was seen since this time (2026-11-22T10:00:00Z) or in this last while (10min).
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<SystemTime>,
}

fn parse_since(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text).map_err(|_| "neither a time such as 2026-11-22T10:00:00Z nor 10min")?;
    SystemTime::now().checked_sub(ago).ok_or_else(|| "too long ago".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_file_may_stand_before_or_after_the_words() {
        for line in ["pgshadow -c a.toml run", "pgshadow run -c a.toml", "pgshadow wait -c a.toml drained"] {
            assert_eq!(parse(line).unwrap().config, PathBuf::from("a.toml"), "{line}");
        }
        assert_eq!(parse("pgshadow run").unwrap().config, PathBuf::from("./pgshadow.toml"));
    }

    #[test]
    fn times_are_for_people() {
        let Command::Wait { what: Wait::Drained { timeout } } = parse("pgshadow wait drained").unwrap().command else {
            panic!("another command");
        };
        assert_eq!(timeout, Duration::from_secs(60));
        assert!(parse("pgshadow wait drained --timeout 2min").is_ok());
        assert!(parse("pgshadow wait drained --timeout soon").is_err());
        assert!(parse("pgshadow report --since 10min --json").is_ok());
        assert!(parse("pgshadow report --since 2026-11-22T10:00:00Z").is_ok());
        assert!(parse("pgshadow report --since yesterday").is_err());
    }

    #[test]
    fn wrong_use_is_code_2() {
        assert_eq!(parse("pgshadow dance").unwrap_err().exit_code(), 2);
        assert_eq!(parse("pgshadow").unwrap_err().exit_code(), 2);
    }
}
