//! The crash matrix: each step of a cutover and of a rollback, with pgshadow, the old primary, the new one or the commanding client killed in it. Before the
//! journal is written all is undone, after it the next process finishes; nothing that was acknowledged is lost, and there is one primary at any time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, reason = "a test fails by a panic")]
use integration_tests::client::Endpoint;
use integration_tests::flip::{COMMITTED, STEPS};
use integration_tests::postgres::Cluster;
use integration_tests::process::{eventually, signal};
use integration_tests::proxy::Pgshadow;
use integration_tests::repeats;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// Those that are gone through each time.
const OFTEN: [&str; 6] =
    ["Canary", "Sequences", "Fence Fencing", "Keep Committed", "Swap Committed", "Unfence Undoing"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    Pgshadow,
    OldPrimary,
    NewPrimary,
    Client,
}

struct Stage {
    servers: [Cluster; 2],
    pgshadow: Pgshadow,
}

/// What writers were told was committed.
#[derive(Default)]
struct Ledger {
    over: AtomicBool,
    committed: AtomicU64,
    unknown: AtomicU64,
}

fn stage() -> Stage {
    let servers = [Cluster::old(), Cluster::newest()];
    let known = servers[0].superuser().psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'");
    servers[1].superuser().psql(&format!("ALTER ROLE app PASSWORD '{known}'"));
    for server in &servers {
        server.app().psql("CREATE TABLE t (id bigserial PRIMARY KEY, v text UNIQUE)");
    }
    let pgshadow = Pgshadow::between(&servers[0], &servers[1]).users(&format!("\"app\" \"{known}\"\n")).start();
    Stage { servers, pgshadow }
}

/// Writes one row after the other, each with a value of its own; after an error it connects again.
fn write(place: &Endpoint, number: u64, ledger: &Ledger) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut acknowledged = Vec::new();
    runtime.block_on(async {
        let mut value = 0_u64;
        while !ledger.over.load(Ordering::SeqCst) {
            let connected = tokio_postgres::connect(&place.url(), tokio_postgres::NoTls).await;
            let Ok((client, connection)) = connected else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let work = tokio::spawn(connection);
            while !ledger.over.load(Ordering::SeqCst) {
                value += 1;
                let word = format!("{number}-{value}");
                match client.execute("INSERT INTO t (v) VALUES ($1)", &[&word]).await {
                    Ok(_) => {
                        ledger.committed.fetch_add(1, Ordering::SeqCst);
                        acknowledged.push(word);
                    }
                    Err(_) => {
                        ledger.unknown.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            work.abort();
        }
    });
    acknowledged
}

fn primary(stage: &Stage) -> usize {
    usize::from(stage.pgshadow.status()["primary"] == "target")
}

fn verify(stage: &Stage) {
    stage.pgshadow.wait_drained(LIMIT);
    stage.pgshadow.run(&["verify"], LIMIT).success();
}

/// One cell: the flip stops in front of a step, one is killed, and what comes of it is looked at.
fn cell(stage: &mut Stage, step: &str, killed: Killed) {
    let was = primary(stage);
    let command = if was == 0 { "cutover" } else { "rollback" };
    let committed = COMMITTED.contains(&step);
    eprintln!("{command}, {step}: {killed:?}");
    let ledger = Ledger::default();
    let place = stage.pgshadow.app();
    let written: Vec<Vec<String>> = std::thread::scope(|threads| {
        let writers: Vec<_> = (0..3)
            .map(|n| {
                threads.spawn({
                    let (place, ledger) = (&place, &ledger);
                    move || write(place, n, ledger)
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        let undone = step.ends_with("Undoing");
        stage.pgshadow.stop_flip_at(if undone { "Keep Committed" } else { step });
        let mut commanding = stage.pgshadow.begin(&[command, "--unrehearsed"]);
        eventually("the flip stops", LIMIT, || stage.pgshadow.flip_has_stopped().then_some(()));
        if undone {
            // a flip that is given up at the last moment is undone
            signal(commanding.id(), "KILL");
            std::thread::sleep(Duration::from_millis(300));
            stage.pgshadow.stop_flip_at(step);
            eventually("its undoing stops", LIMIT, || stage.pgshadow.flip_has_stopped().then_some(()));
        }
        match killed {
            Killed::Pgshadow => {
                stage.pgshadow.kill9();
                stage.pgshadow.go_on_with_flips();
                stage.pgshadow.start();
            }
            Killed::OldPrimary | Killed::NewPrimary => {
                let server = &mut stage.servers[if killed == Killed::OldPrimary { was } else { 1 - was }];
                server.kill9();
                stage.pgshadow.go_on_with_flips();
                std::thread::sleep(Duration::from_millis(300));
                server.start();
            }
            Killed::Client => {
                signal(commanding.id(), "KILL");
                std::thread::sleep(Duration::from_millis(300));
                stage.pgshadow.go_on_with_flips();
            }
        }
        let _ = commanding.wait();
        eventually("it is over", LIMIT, || stage.pgshadow.flip_is_over().then_some(()));
        // it is written again
        let enough = ledger.committed.load(Ordering::SeqCst) + 30;
        eventually("clients commit", LIMIT, || (ledger.committed.load(Ordering::SeqCst) >= enough).then_some(()));
        ledger.over.store(true, Ordering::SeqCst);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let now = primary(stage);
    match (killed, committed) {
        (_, true) => assert_ne!(now, was, "behind the point of no return"),
        (Killed::Pgshadow | Killed::Client, false) => assert_eq!(now, was, "before it"),
        // a server that dies may or may not keep the flip from being done
        _ => {}
    }
    // one lets clients in and the other one doesn't, unless nothing was ever flipped
    let [here, there] = [now, 1 - now].map(|place| stage.servers[place].app());
    assert_eq!(here.psql("SELECT count(*) > 0 FROM t"), "t");
    let let_in = there.try_psql("SELECT 1").is_ok();
    let ever = std::fs::read_to_string(stage.pgshadow.data_directory().join("cutover.json"))
        .is_ok_and(|text| !text.contains("\"era\": 0"));
    assert_eq!(let_in, !ever, "{step} {killed:?}: the shadow");
    stage.pgshadow.wait_drained(LIMIT);
    let all = written.iter().map(Vec::len).sum::<usize>();
    let list = written.iter().flatten().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(",");
    if !stage.pgshadow.suspect_tables().is_empty() {
        // an autocommit write was under way when pgshadow or its primary was killed: its outcome can't be told, so its table is loaded again
        assert_ne!(killed, Killed::Client, "{step}: {:?}", stage.pgshadow.suspect_tables());
        stage.pgshadow.run(&["backfill", "--table", "public.t"], LIMIT).success();
        stage.pgshadow.wait_drained(LIMIT);
    }
    for server in &stage.servers {
        let place = server.superuser();
        let there =
            Endpoint { database: "app".into(), ..place }.psql(&format!("SELECT count(*) FROM t WHERE v IN ({list})"));
        assert_eq!(there, all.to_string(), "{step} {killed:?}: an acknowledged row is missing");
    }
    stage.pgshadow.app().psql("DELETE FROM t");
    // a server that was killed ends certificates
    verify(stage);
}

fn matrix(killed: Killed) {
    let mut stage = stage();
    verify(&stage);
    // all of it takes minutes: some of it each time
    let whole = repeats() > 1;
    for _direction in 0..if whole { 2 } else { 1 } {
        for step in STEPS.into_iter().filter(|step| whole || OFTEN.contains(step)) {
            if killed == Killed::Client && step.ends_with("Undoing") {
                continue;
            }
            cell(&mut stage, step, killed);
        }
    }
}

#[test]
fn pgshadow_is_killed_in_each_step() {
    matrix(Killed::Pgshadow);
}

#[test]
fn the_old_primary_is_killed_in_each_step() {
    matrix(Killed::OldPrimary);
}

#[test]
fn the_new_primary_is_killed_in_each_step() {
    matrix(Killed::NewPrimary);
}

#[test]
fn the_commanding_client_is_killed_in_each_step() {
    matrix(Killed::Client);
}
