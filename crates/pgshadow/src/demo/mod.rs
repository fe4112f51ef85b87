//! `pgshadow demo`: two throw-away servers, pgshadow between them, a real load, one planted difference, and the proof
//! that it was found and healed and that nothing else differs.
//!
//! From: PostgreSQL's programs on this machine. To: what people read, and the exit code.
//!
//! Invariants:
//! - It touches only what it started itself: processes by their ids, one temporary directory, ports on loopback.
//! - All of that is gone at the end, however the demo ends, unless it was asked to keep it.
//! - pgshadow runs as its users run it: a process of its own, a configuration file, the admin address. What the demo
//!   says about equality comes from the two databases alone.
mod account;
mod cluster;
mod equality;
mod error;
mod flip;
mod installation;
mod load;
mod plant;
mod process;
mod proxy;
mod schema;
mod scratch;
mod screen;
mod summary;

pub use error::DemoError;

use crate::arguments::DemoArguments;
use crate::failure::{Ending, Failure};
use cluster::{Cluster, Passwords};
use installation::Pair;
use load::{Load, Tally};
use pgshadow_admin::{Lag, VERSION, VerifyReport};
use process::Reaper;
use proxy::Proxy;
use scratch::Scratch;
use screen::Screen;
use std::time::{Duration, Instant};
use summary::{Backfilled, Summary, Verified};
use tokio_util::sync::CancellationToken;

/// How often the lag is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The load goes on for so long before the target is loaded.
const LOADS_AFTER: Duration = Duration::from_millis(500);
/// How long a finding may take to be healed once all is applied.
const HEALED_WITHIN: Duration = Duration::from_secs(10);

/// Everything that was started. Fields are dropped in this order.
struct Stage {
    proxy: Proxy,
    target: Cluster,
    source: Cluster,
    /// There are tools that carry the schema over.
    makes_schema: bool,
}

/// What the load showed.
struct Measured {
    seconds: f64,
    statements: u64,
    committed: u64,
    rolled_back: u64,
    refused: u64,
    lag_peak: Lag,
    lag_at_end: Lag,
    backfilled: Backfilled,
    verified: VerifyReport,
}

/// Runs the demo.
///
/// # Errors
/// When it can't run, or its result isn't what it should be.
pub async fn run(arguments: &DemoArguments, shutdown: CancellationToken) -> Result<Ending, Failure> {
    let begun = Instant::now();
    let scratch = Scratch::new()?;
    let mut reaper = Some(Reaper::of(&scratch)?);
    let played = shutdown.run_until_cancelled(play(arguments, &scratch, &mut reaper, begun)).await;
    drop(scratch);
    drop(reaper);
    let summary = played.unwrap_or(Err(DemoError::Stopped.into()))?;
    if summary.passed { Ok(Ending::Done) } else { Err(DemoError::Wrong(summary.problems.len()).into()) }
}

async fn play(
    arguments: &DemoArguments,
    scratch: &Scratch,
    reaper: &mut Option<Reaper>,
    begun: Instant,
) -> Result<Summary, Failure> {
    let screen = Screen::new(arguments.json);
    let pair = Pair::find(scratch.account())?;
    screen.say("pgshadow demo: two throw-away databases, every write of one mirrored to the other\n")?;
    let mut stage = set_up(scratch, &screen, &pair).await?;
    if arguments.keep {
        // Not before it can be said how to end it.
        screen.insist("kept", &how_to_look_and_end(&stage, scratch))?;
        scratch.kept().set();
        *reaper = None;
    }
    let measured = load(arguments, &screen, &mut stage).await?;
    let mut summary = {
        let _now = screen.now("waiting until the target has everything");
        look(arguments, &stage, measured, begun).await?
    };
    screen.done("drained", &format!("the target caught up in {} ms", screen::grouped(summary.drain_ms)))?;
    let flipped = flip::play(&screen, &stage, !arguments.keep).await?;
    summary.total_seconds = begun.elapsed().as_secs_f64();
    summary.flip(flipped);
    screen::results(&summary, arguments.json)?;
    Ok(summary)
}

async fn set_up(scratch: &Scratch, screen: &Screen, pair: &Pair) -> Result<Stage, Failure> {
    let (source, target) = {
        let _now = screen.now(&format!("starting PostgreSQL {} and {}", pair.source.version, pair.target.version));
        let passwords = Passwords::new()?;
        tokio::try_join!(
            Cluster::start(&pair.source, "source", &passwords, scratch),
            Cluster::start(&pair.target, "target", &passwords, scratch),
        )?
    };
    for cluster in [&source, &target] {
        screen.done(cluster.name, &format!("{} on 127.0.0.1:{}", cluster.version(), cluster.app().port))?;
    }
    if !pair.different() {
        let major = pair.source.major;
        screen
            .done("", &format!("only version {major} was found, so this demo crosses no versions; a directory with"))?;
        screen.done("", "the programs of another can be named: PGSHADOW_PG_OLD_BINDIR, PGSHADOW_PG_NEW_BINDIR")?;
    }
    let tools = pair.target.tools();
    let bare_target = target.app();
    let seeded = schema::seed(&source.app(), tools.is_none().then_some(&bare_target)).await?;
    let (tables, rows) = (seeded.tables, screen::grouped(seeded.rows));
    screen.done("schema", &format!("{tables} tables with {rows} rows on the source, nothing on the target"))?;
    let proxy = {
        let _now = screen.now("starting pgshadow");
        Proxy::start(&source, &target, tools, scratch).await?
    };
    let (port, admin) = (proxy.app(&source).port, proxy.admin_port);
    screen.done("pgshadow", &format!("ready on 127.0.0.1:{port}, admin on 127.0.0.1:{admin}"))?;
    Ok(Stage { proxy, target, source, makes_schema: tools.is_some() })
}

async fn load(arguments: &DemoArguments, screen: &Screen, stage: &mut Stage) -> Result<Measured, Failure> {
    let length = Duration::from_secs(arguments.seconds);
    let place = stage.proxy.app(&stage.source);
    let mut load = Load::start(&place, arguments.clients).await?;
    let begun = Instant::now();
    let mut progress = screen.load(length);
    progress.done("load", &format!("{} clients for {} s, through pgshadow", arguments.clients, arguments.seconds))?;
    tokio::time::sleep(LOADS_AFTER).await;
    let loaded = stage.proxy.backfill(stage.makes_schema).await?;
    let backfilled = Backfilled::of(&loaded, begun.elapsed().saturating_sub(LOADS_AFTER));
    let how = if stage.makes_schema { "schema and rows" } else { "rows" };
    let (tables, rows) = (backfilled.tables, screen::grouped(backfilled.rows));
    progress.done(
        "backfilled",
        &format!("under load: {how} of {tables} tables, {rows} rows, in {:.1} s", backfilled.seconds),
    )?;
    let (mut lag, mut lag_peak, mut planted, mut verify) = (Lag::default(), Lag::default(), false, None);
    let mut look = tokio::time::interval(LOOK_EVERY);
    while begun.elapsed() < length {
        tokio::select! {
            failure = load.failure() => {
                stage.proxy.check_alive()?;
                return Err(failure.into());
            }
            _ = look.tick() => {}
        }
        stage.proxy.check_alive()?;
        lag = stage.proxy.status().await?.lag;
        lag_peak = peak(lag_peak, lag);
        if !planted && begun.elapsed() * 2 >= length {
            plant::plant(&stage.target.superuser(), &place).await?;
            planted = true;
            let key = plant::key();
            progress.done("planted", &format!("customers {key}: deleted on the target, updated through pgshadow"))?;
        }
        if verify.is_none() && begun.elapsed() * 4 >= length * 3 {
            verify = Some(tokio::spawn(stage.proxy.verify()));
        }
        progress.update(Tally::read(&load.tally.statements), lag)?;
    }
    let tally = load.finish().await?;
    let seconds = begun.elapsed().as_secs_f64();
    let lag_at_end = stage.proxy.status().await?.lag;
    let verified = match verify {
        Some(task) => task.await.map_err(|_| DemoError::Stopped)??,
        None => stage.proxy.verify().await?,
    };
    let (tables, rows) = (verified.tables.len(), verified.tables.iter().map(|table| table.rows).sum());
    let held = verified.held_ms.iter().copied().fold(0.0, f64::max);
    progress.done(
        "verified",
        &format!("under load: {tables} tables, {} rows; the applier was held for {held:.0} ms", screen::grouped(rows)),
    )?;
    Ok(Measured {
        backfilled,
        verified,
        seconds,
        statements: Tally::read(&tally.statements),
        committed: Tally::read(&tally.committed),
        rolled_back: Tally::read(&tally.rolled_back),
        refused: Tally::read(&tally.refused),
        lag_peak: peak(peak(lag_peak, lag), lag_at_end),
        lag_at_end,
    })
}

fn peak(a: Lag, b: Lag) -> Lag {
    Lag { entries: a.entries.max(b.entries), bytes: a.bytes.max(b.bytes), ms: a.ms.max(b.ms) }
}

/// Waits until all is applied, asks pgshadow what it found, and asks the databases whether they are equal.
async fn look(
    arguments: &DemoArguments,
    stage: &Stage,
    measured: Measured,
    begun: Instant,
) -> Result<Summary, Failure> {
    let drained = stage.proxy.drain().await?;
    let report = stage.proxy.settled_report(HEALED_WITHIN).await?;
    let status = stage.proxy.status().await?;
    let tables = equality::compare(&stage.source.superuser(), &stage.target.superuser()).await?;
    let mut summary = Summary {
        version: VERSION,
        source_version: stage.source.version(),
        target_version: stage.target.version(),
        built: summary::BUILT,
        clients: arguments.clients,
        load_seconds: measured.seconds,
        total_seconds: begun.elapsed().as_secs_f64(),
        statements: measured.statements,
        transactions: measured.committed,
        transactions_rolled_back: measured.rolled_back,
        transactions_refused: measured.refused,
        transactions_mirrored: status.counters.transactions_mirrored,
        rows_captured: status.counters.rows_captured,
        rows_applied: status.applier.rows_applied,
        rows_compared_on_apply: status.counters.rows_compared,
        lag_peak: measured.lag_peak,
        lag_at_load_end: measured.lag_at_end,
        lag_end: status.lag,
        drain_ms: u64::try_from(drained.as_millis()).unwrap_or(u64::MAX),
        findings: report.findings,
        healed_rows: status.healed_rows,
        backfilled: measured.backfilled,
        verified: Verified::of(&measured.verified),
        suspect_tables: status.suspect_tables,
        rows_compared: tables.iter().map(|table| table.rows).sum(),
        tables,
        flipped: None,
        passed: false,
        problems: Vec::new(),
    };
    summary.judge();
    Ok(summary)
}

/// With `--keep`: where everything is, and how it ends.
fn how_to_look_and_end(stage: &Stage, scratch: &Scratch) -> String {
    let pids = [stage.proxy.pid(), stage.source.pid(), stage.target.pid()].map(|pid| pid.to_string()).join(" ");
    let indent = " ".repeat(16);
    [
        format!("source    psql {}", stage.source.app().url()),
        format!("target    psql {}", stage.target.app().url()),
        format!("pgshadow  psql {}", stage.proxy.app(&stage.source).url()),
        format!("status    pgshadow status -c {}", stage.proxy.config.display()),
        format!("end it    kill -INT {pids} && sleep 2 && rm -rf {}", scratch.path().display()),
    ]
    .join(&format!("\n{indent}"))
}
