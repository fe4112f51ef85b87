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
    /// Look at both databases for what would make the migration fail, and say what mends it; ends with 3 when something does.
    Preflight(PreflightArguments),
    /// Show roles, phase, lag, suspect tables, open findings and the next step.
    Status(StatusArguments),
    /// Wait for something.
    Wait {
        /// What for.
        #[command(subcommand)]
        what: Wait,
    },
    /// Load the target from the source, while it is written; goes on where it stopped.
    Backfill(BackfillArguments),
    /// Compare both databases row by row, while they are written; ends with 3 when they differ.
    Verify(VerifyArguments),
    /// Mend what the last verify found: its rows are read again on the primary and written to the shadow; then verify again.
    Repair(RepairArguments),
    /// Say of findings that they are to stay as they are: they are open no more.
    Acknowledge(AcknowledgeArguments),
    /// Hold new transactions, and wait until none is open; ends with 4 if some didn't end, and all goes on then.
    Pause(PauseArguments),
    /// Let new transactions begin.
    Resume,
    /// Make the target the primary; ends with 3 if a gate is closed, with 1 if it had to be undone.
    Cutover(FlipArguments),
    /// Make the source the primary again.
    Rollback(FlipArguments),
    /// A cutover, and a rollback at once: only then is the way back known.
    Rehearse(FlipArguments),
    /// End the migration after the cutover: the target stays the primary, and there is no way back any more.
    Finalize(EndArguments),
    /// End the migration without a cutover: the source stays the primary.
    Abort(EndArguments),
    /// Show the findings; ends with 3 when some are open.
    Report(ReportArguments),
    /// Show the whole thing with two throw-away databases, under load; needs no configuration.
    Demo(DemoArguments),
}

/// `preflight`
#[derive(Debug, clap::Args)]
pub struct PreflightArguments {
    /// Print the SQL that gives pgshadow's role its rights, for psql as a superuser, and look at nothing.
    #[arg(long, conflicts_with = "json")]
    pub grants: bool,
    /// Transactions that are older are told of, such as 5min.
    #[arg(long, value_name = "TIME", default_value = "1min", value_parser = humantime::parse_duration)]
    pub older_than: Duration,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
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

/// `backfill`
#[derive(Debug, clap::Args)]
pub struct BackfillArguments {
    /// Only this table (schema.name), again from its start; may be given several times.
    #[arg(long, value_name = "TABLE")]
    pub table: Vec<String>,
    /// Make the target's schema from the source's first, by pg_dump.
    #[arg(long, conflicts_with = "table")]
    pub create_schema: bool,
    /// Load all tables again, though they are loaded already.
    #[arg(long, conflicts_with = "table")]
    pub again: bool,
    /// Read no more than so much of the source a second, such as 50MiB, in place of [backfill] rate_max.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub rate_max: Option<u64>,
    /// Load without asking preflight first whether something is in the way.
    #[arg(long)]
    pub skip_preflight: bool,
    /// End the backfill that runs; the next one goes on where it was.
    #[arg(long, conflicts_with_all = ["table", "create_schema", "again", "rate_max", "skip_preflight"])]
    pub stop: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `verify`
#[derive(Debug, clap::Args)]
pub struct VerifyArguments {
    /// Only this table (schema.name); may be given several times.
    #[arg(long, value_name = "TABLE")]
    pub table: Vec<String>,
    /// Write the certificate, which names each table with its rows and hash, to this file as JSON.
    #[arg(long, value_name = "FILE", conflicts_with = "stop")]
    pub certificate: Option<PathBuf>,
    /// Compare everything anew, also what a verify that was interrupted by a restart has found to be equal.
    #[arg(long)]
    pub again: bool,
    /// End the verify that runs.
    #[arg(long, conflicts_with_all = ["table", "again"])]
    pub stop: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `acknowledge`
#[derive(Debug, clap::Args)]
pub struct AcknowledgeArguments {
    /// Numbers of findings, as `pgshadow report` shows them.
    #[arg(required = true, value_name = "NUMBER")]
    pub finding: Vec<u64>,
}

/// `repair`
#[derive(Debug, clap::Args)]
pub struct RepairArguments {
    /// Only this table (schema.name); may be given several times.
    #[arg(long, value_name = "TABLE")]
    pub table: Vec<String>,
    /// Show each row, and do nothing; ends with 3 if there are some.
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `pause`
#[derive(Debug, clap::Args)]
pub struct PauseArguments {
    /// How long open transactions have to end.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// When the pause ends by itself.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub lease: Duration,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `cutover`, `rollback`, `rehearse`
#[derive(Debug, clap::Args)]
pub struct FlipArguments {
    /// Ask all gates and prove the way back, but hold and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// How long open transactions, and what the shadow hasn't got yet, have to end; then all goes on where it was.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Though the way back was not rehearsed.
    #[arg(long)]
    pub unrehearsed: bool,
    /// Prepare everything, then wait for as long as this file is there (on the machine of the proxy).
    #[arg(long, value_name = "FILE")]
    pub postpone_cut_over_flag_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `finalize`, `abort`
#[derive(Debug, clap::Args)]
pub struct EndArguments {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
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

/// `demo`
#[derive(Debug, clap::Args)]
pub struct DemoArguments {
    /// How long the load goes on.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=86_400))]
    pub seconds: u64,
    /// Concurrent clients.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(8..=128))]
    pub clients: u32,
    /// Leave both servers and pgshadow running, and say how to look at them and how to end them.
    #[arg(long)]
    pub keep: bool,
    /// Print the summary as JSON, and nothing else.
    #[arg(long)]
    pub json: bool,
}

fn parse_size(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize = text.parse().map_err(|_| "no size such as 50MiB".to_owned())?;
    if size.as_u64() == 0 { Err("nothing would be read".to_owned()) } else { Ok(size.as_u64()) }
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
    fn a_demo_has_eight_clients_at_least() {
        let Command::Demo(demo) = parse("pgshadow demo").unwrap().command else { panic!("another command") };
        assert_eq!((demo.seconds, demo.clients, demo.keep, demo.json), (15, 8, false, false));
        assert!(parse("pgshadow demo --seconds 5 --clients 20 --keep --json").is_ok());
        assert!(parse("pgshadow demo --clients 7").is_err());
    }

    #[test]
    fn wrong_use_is_code_2() {
        assert_eq!(parse("pgshadow dance").unwrap_err().exit_code(), 2);
        assert_eq!(parse("pgshadow").unwrap_err().exit_code(), 2);
    }
}
