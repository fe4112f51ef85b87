//! The program: reads the command line and the configuration, starts the logs, runs one command, says how it ended.
mod arguments;
mod assembly;
mod commands;
mod config;
mod demo;
mod facts;
mod failure;
mod logging;
mod output;
mod shutdown;

use arguments::{Arguments, Command, Wait};
use clap::Parser;
use config::Config;
use failure::{Ending, Failure};
use pgshadow_admin::{Client, End};
use pgshadow_model::Place;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start(if matches!(arguments.command, Command::Run) { "info" } else { "warn" });
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(execute(arguments)));
    match result {
        Ok(ending) => ending.into(),
        Err(failure) => {
            eprintln!("pgshadow: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(arguments: Arguments) -> Result<Ending, Failure> {
    let client = || Config::load_admin(&arguments.config).map(|admin| Client::new(&admin.address));
    match arguments.command {
        Command::Run => {
            let config = Config::load(&arguments.config)?;
            let shutdown = shutdown::on_signal()?;
            assembly::run(config, shutdown).await?;
            Ok(Ending::Done)
        }
        Command::CheckConfig => commands::check_config(&Config::load(&arguments.config)?),
        Command::Preflight(options) => commands::preflight(&Config::load(&arguments.config)?, &options).await,
        Command::Status(options) => commands::status(&client()?, &options).await,
        Command::Wait { what: Wait::Drained { timeout } } => commands::wait_drained(&client()?, timeout).await,
        Command::Backfill(options) => commands::backfill(&client()?, &options).await,
        Command::Verify(options) => commands::verify(&client()?, &options).await,
        Command::Repair(options) => commands::repair(&client()?, &options).await,
        Command::Acknowledge(options) => commands::acknowledge(&client()?, &options).await,
        Command::Pause(options) => commands::pause(&client()?, &options).await,
        Command::Resume => commands::resume(&client()?).await,
        Command::Cutover(options) => commands::flip(&client()?, Place::Target, &options).await,
        Command::Rollback(options) => commands::flip(&client()?, Place::Source, &options).await,
        Command::Rehearse(options) => commands::rehearse(&client()?, &options).await,
        Command::Finalize(options) => commands::finish(&client()?, End::Finalize, options.json).await,
        Command::Abort(options) => commands::finish(&client()?, End::Abort, options.json).await,
        Command::Report(options) => commands::report(&client()?, &options).await,
        Command::Demo(options) => demo::run(&options, shutdown::on_signal()?).await,
    }
}
