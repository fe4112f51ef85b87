//! The flip, under writers that keep a ledger: preflight, rehearsal, cutover, rollback, the cutover for good, and the migration's end.
use super::Stage;
use super::cluster::Endpoint;
use super::error::DemoError;
use super::screen::Screen;
use crate::failure::Failure;
use pgshadow_admin::{End, FinishRequest, FlipOutcome, FlipReport, FlipRequest};
use pgshadow_model::Place;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Writers, each with a session of its own.
const WRITERS: i32 = 4;
/// How long they write between two flips.
const BETWEEN: Duration = Duration::from_millis(700);
/// How long one flip may take all together.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long open transactions have.
const TIMEOUT_MS: u64 = 10_000;
const TABLE: &str = "CREATE TABLE flip_ledger (id bigserial PRIMARY KEY, writer int NOT NULL, turn int NOT NULL, UNIQUE (writer, turn))";

/// What was seen of the flips.
#[derive(Debug, Clone, Serialize)]
pub struct Flipped {
    /// Cutovers and rollbacks, the rehearsed ones among them.
    pub flips: u64,
    /// How long new transactions were held at most, milliseconds.
    pub pause_max_ms: f64,
    /// Statements of the writers that were acknowledged.
    pub acknowledged: u64,
    /// Statements of theirs that failed.
    pub failed: u64,
    /// Acknowledged rows that each database holds: the old primary and the new one.
    pub rows: [u64; 2],
    /// Whether the old primary refuses clients.
    pub old_refuses: bool,
    /// What the end of the migration has removed.
    pub removed: Vec<String>,
}

impl Flipped {
    /// What isn't as it should be.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.failed > 0 {
            problems.push(format!("{} statements failed while the primary was flipped", self.failed));
        }
        if self.rows != [self.acknowledged; 2] || self.acknowledged == 0 {
            problems.push(format!(
                "{} rows were acknowledged, and the databases hold {:?} of them",
                self.acknowledged, self.rows
            ));
        }
        if !self.old_refuses {
            problems.push("the old primary lets clients in".to_owned());
        }
        problems
    }
}

/// Writers that write until they are told to stop.
struct Writers {
    over: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Result<u64, DemoError>>>,
}

impl Writers {
    fn start(place: &Endpoint) -> Self {
        let (over, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = |number: i32| {
            let (place, over, failed) = (place.clone(), Arc::clone(&over), Arc::clone(&failed));
            tokio::spawn(async move {
                let client = place.connect().await.map_err(DemoError::database("a writer can't log in"))?;
                let sql = "INSERT INTO flip_ledger (writer, turn) VALUES ($1, $2)";
                let insert = client.prepare(sql).await.map_err(DemoError::database("a writer can't prepare"))?;
                let (mut turn, mut acknowledged) = (0_i32, 0);
                while !over.load(Ordering::SeqCst) {
                    turn += 1;
                    match client.execute(&insert, &[&number, &turn]).await {
                        Ok(_) => acknowledged += 1,
                        Err(_) => {
                            failed.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(acknowledged)
            })
        };
        let tasks = (0..WRITERS).map(writer).collect();
        Self { over, failed, tasks }
    }

    /// How many rows were acknowledged, and how many statements failed.
    async fn finish(self) -> Result<(u64, u64), DemoError> {
        self.over.store(true, Ordering::SeqCst);
        let mut all = 0;
        for task in self.tasks {
            all += task.await.map_err(|_| DemoError::Stopped)??;
        }
        Ok((all, self.failed.load(Ordering::SeqCst)))
    }
}

/// Plays it; with `ends` to the migration's end.
///
/// # Errors
/// When a step isn't done.
pub async fn play(screen: &Screen, stage: &Stage, ends: bool) -> Result<Flipped, Failure> {
    let place = stage.proxy.app(&stage.source);
    let client = place.connect().await.map_err(DemoError::database("no session through pgshadow"))?;
    client.batch_execute(TABLE).await.map_err(DemoError::database("no ledger"))?;
    drop(client);
    stage.proxy.drain().await?;
    let verified = stage.proxy.verify().await?;
    if let Some(why) = verified.failed {
        return Err(DemoError::program(format!("verify failed: {why}"), stage.proxy.log()).into());
    }
    let writers = Writers::start(&place);
    tokio::time::sleep(BETWEEN).await;
    let mut reports = Vec::new();
    {
        let _now = screen.now("rehearsing: there and back");
        let asked = stage.proxy.client.rehearse(&request(Place::Target), PATIENCE).await?;
        reports.extend(asked);
    }
    is_done(stage, &reports)?;
    screen.done("rehearsed", &told(&reports))?;
    for (to, name) in [(Place::Target, "cutover"), (Place::Source, "rollback"), (Place::Target, "cutover")] {
        tokio::time::sleep(BETWEEN).await;
        stage.proxy.drain().await?;
        let report = {
            let _now = screen.now(name);
            stage.proxy.client.flip(&request(to), PATIENCE).await?
        };
        is_done(stage, std::slice::from_ref(&report))?;
        screen.done(name, &told(std::slice::from_ref(&report)))?;
        reports.push(report);
    }
    tokio::time::sleep(BETWEEN).await;
    let (acknowledged, failed) = writers.finish().await?;
    stage.proxy.drain().await?;
    let mut rows = [0; 2];
    for (count, cluster) in rows.iter_mut().zip([&stage.source, &stage.target]) {
        let client = cluster.superuser().connect().await.map_err(DemoError::database("no session"))?;
        let row = client.query_one("SELECT count(*) FROM flip_ledger", &[]).await;
        let row = row.map_err(DemoError::database("the ledger can't be read"))?;
        *count = u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
    }
    let old_refuses = stage.source.app().connect().await.is_err();
    let mut removed = Vec::new();
    if ends {
        removed = stage.proxy.client.finish(&FinishRequest { end: End::Finalize }).await?.removed;
        screen.done("finalized", "the target is the primary; what pgshadow made is removed")?;
    }
    let pause = reports.iter().filter_map(|report| report.pause_us).max().unwrap_or_default();
    let flips = reports.len() as u64;
    Ok(Flipped { flips, pause_max_ms: pause as f64 / 1000.0, acknowledged, failed, rows, old_refuses, removed })
}

fn is_done(stage: &Stage, reports: &[FlipReport]) -> Result<(), DemoError> {
    match reports.iter().find(|report| report.outcome != FlipOutcome::Flipped) {
        Some(report) => {
            let why = report.reason.clone().unwrap_or_default();
            Err(DemoError::program(format!("a flip to the {} was not done: {why}", report.to), stage.proxy.log()))
        }
        None => Ok(()),
    }
}

fn request(to: Place) -> FlipRequest {
    FlipRequest { to, dry_run: false, timeout_ms: TIMEOUT_MS, unrehearsed: false, postpone_flag_file: None }
}

/// What the flips were, in one line.
fn told(reports: &[FlipReport]) -> String {
    let one = |report: &FlipReport| {
        let pause = report.pause_us.unwrap_or_default() as f64 / 1000.0;
        format!("to the {} in a pause of {pause:.0} ms, {} sessions taken along", report.to, report.moved)
    };
    reports.iter().map(one).collect::<Vec<_>>().join("; ")
}
