//! Runs one bout: a schema on both sides, pgshadow, sessions, faults, and the verdict.
use crate::check::{self, Verdict};
use crate::player::{self, Gid, Seen, Shared};
use crate::round::{Bout, Fault, Kind};
use crate::schema::Schema;
use crate::script::Script;
use crate::settings::Plant;
use crate::stage::{Stage, log_of};
use integration_tests::client::Endpoint;
use integration_tests::postgres::Cluster;
use integration_tests::proxy::Pgshadow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// All units of a bout must be done by then.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs it; a panic of what it uses is a failure like others.
pub fn run(stage: &mut Stage, bout: &Bout, schema: &Schema, scripts: &[Script], plant: Plant) -> Verdict {
    let databases = stage.databases(bout);
    let outcome = catch_unwind(AssertUnwindSafe(|| on_stage(stage, bout, schema, scripts, plant, &databases)));
    let verdict = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Verdict::broken(&text.unwrap_or_default())
    });
    stage.drop_databases(bout, &databases[0].database);
    verdict
}

fn on_stage(
    stage: &mut Stage,
    bout: &Bout,
    schema: &Schema,
    scripts: &[Script],
    plant: Plant,
    databases: &[Endpoint; 2],
) -> Verdict {
    let [source, target] = databases;
    let ddl = schema.ddl();
    source.psql(&ddl);
    target.psql(&ddl);
    plant.before(schema, target);
    let servers = stage.pair(bout);
    let builder = Pgshadow::between(&servers[0], &servers[1]).database(&source.database).durability(bout.durability);
    let builder = builder.set("compare", "statements", &format!("{:?}", bout.statements));
    let mut pgshadow = builder.with_trace().set("test", "held_entries", &bout.held.to_string()).start();
    let place = if bout.direct { source.clone() } else { pgshadow.app() };
    let seen = load(bout, scripts, servers, &mut pgshadow, place);
    let mut verdict = check::verdict(bout, schema, scripts, seen, &pgshadow, databases, plant);
    if !verdict.failures.is_empty() {
        verdict.servers = servers.each_ref().map(|server| log_of(server, &source.database));
    }
    verdict
}

fn load(
    bout: &Bout,
    scripts: &[Script],
    servers: &mut [Cluster; 2],
    pgshadow: &mut Pgshadow,
    place: Endpoint,
) -> Vec<Seen> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (prepared, gids) = sync_channel(1000);
    let shared = Arc::new(Shared {
        place: place.clone(),
        faulty: bout.kind == Kind::Faulty,
        stop: AtomicBool::new(false),
        done: AtomicU64::new(0),
        prepared,
        runtime: runtime.handle().clone(),
    });
    let faulty = shared.faulty;
    let finisher = std::thread::spawn(move || finish(&place, &gids, faulty));
    let players: Vec<_> = scripts
        .iter()
        .cloned()
        .map(|script| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || player::play(&script, &shared))
        })
        .collect();
    let units: u64 = scripts.iter().map(|script| script.units.len() as u64).sum();
    let started = Instant::now();
    for (number, fault) in bout.faults.iter().enumerate() {
        let due = units * (number as u64 + 1) / (bout.faults.len() as u64 + 1);
        while shared.done.load(Ordering::Relaxed) < due && players.iter().any(|player| !player.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        strike(*fault, servers, pgshadow);
    }
    while started.elapsed() < LIMIT && players.iter().any(|player| !player.is_finished()) {
        std::thread::sleep(Duration::from_millis(10));
    }
    shared.stop.store(true, Ordering::Relaxed);
    let mut seen: Vec<Seen> = players.into_iter().map(|player| player.join().unwrap_or_else(panicked)).collect();
    if started.elapsed() >= LIMIT {
        let done = shared.done.load(Ordering::Relaxed);
        seen.push(complaint(format!("only {done} of {units} units were done within {LIMIT:?}")));
    }
    drop(shared);
    seen.push(finisher.join().unwrap_or_else(panicked));
    seen
}

fn complaint(text: String) -> Seen {
    Seen { complaints: vec![text], ..Seen::default() }
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Seen {
    complaint(format!("a session panicked: {:?}", panic.downcast_ref::<String>()))
}

/// Ends what other sessions have prepared.
fn finish(place: &Endpoint, gids: &Receiver<Gid>, faulty: bool) -> Seen {
    let mut seen = Seen::default();
    for Gid { gid, commit } in gids {
        std::thread::sleep(Duration::from_millis(3));
        let sql = format!("{} PREPARED '{gid}'", if commit { "COMMIT" } else { "ROLLBACK" });
        match place.try_psql(&sql) {
            Ok(_) => {}
            Err(_) if faulty => end_for_certain(place, &sql),
            Err(error) => seen.complaints.push(format!("{sql}: {error}")),
        }
    }
    seen
}

/// Over faults, as a transaction manager does: what stays prepared would hold its locks for ever. One whose PREPARE had no answer
/// may not be there, or not yet.
fn end_for_certain(place: &Endpoint, sql: &str) {
    let mut gone = 0;
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(50));
        match place.try_psql(sql) {
            Ok(_) => return,
            Err(error) => gone += u32::from(error.contains("does not exist")),
        }
        if gone == 10 {
            return;
        }
    }
}

fn strike(fault: Fault, servers: &mut [Cluster; 2], pgshadow: &mut Pgshadow) {
    let [source, target] = servers;
    match fault {
        Fault::KillPgshadow => {
            pgshadow.kill9();
            pgshadow.start();
        }
        Fault::StopShadow => {
            target.stop();
            std::thread::sleep(Duration::from_millis(700));
            target.start();
        }
        Fault::FreezeShadow => {
            target.freeze();
            std::thread::sleep(Duration::from_millis(700));
            target.thaw();
        }
        Fault::RestartPrimary => source.restart(),
    }
}
