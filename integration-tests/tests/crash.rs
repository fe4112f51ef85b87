//! pgshadow is killed at random moments of a load, and so is the source: what was committed is on the target or its
//! table is named as suspect; what was rolled back is not there.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::client::{Endpoint, within};
use integration_tests::history::Dice;
use integration_tests::postgres::Cluster;
use integration_tests::process::eventually;
use integration_tests::proxy::Pgshadow;
use integration_tests::raw::RawClient;
use integration_tests::workload::Load;
use integration_tests::{equal, repeats};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio_postgres::Client;

const LIMIT: Duration = Duration::from_secs(90);
const SESSIONS: u64 = 8;

/// What clients share.
#[derive(Debug, Default)]
struct Run {
    over: AtomicBool,
    /// Transactions whose COMMIT was answered.
    committed: AtomicU64,
}

/// The `order` load, in autocommit and in transactions; some are rolled back, and what those wrote has x = -1. Clients
/// whose connection is lost come again.
async fn session(place: Endpoint, seed: u64, number: u64, run: Arc<Run>) {
    let mut dice = Dice::new(seed, number);
    while !run.over.load(Ordering::SeqCst) {
        let Ok(client) = place.try_connect().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        while !run.over.load(Ordering::SeqCst) {
            if work(&client, &mut dice).await.is_err() {
                break;
            }
            run.committed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn work(client: &Client, dice: &mut Dice) -> Result<(), tokio_postgres::Error> {
    let (row, x) = (dice.between(1, 50), dice.between(1, 1_000_000));
    let rolled_back = dice.percent(10);
    let update = format!("UPDATE hot SET v = (v * 31 + {x}) % 1000003 WHERE id = {row}");
    let insert = format!("INSERT INTO entry (hot, x) VALUES ({row}, {})", if rolled_back { -1 } else { x });
    if !rolled_back && dice.percent(50) {
        client.execute(&update, &[]).await?;
        return client.execute(&insert, &[]).await.map(drop);
    }
    client.batch_execute("BEGIN").await?;
    client.execute(&update, &[]).await?;
    client.batch_execute(&insert).await?;
    client.batch_execute(if rolled_back { "ROLLBACK" } else { "COMMIT" }).await
}

/// Runs the load while `harm` is done; `harm` is told how to wait for so many more commits.
fn under_load(place: &Endpoint, seed: u64, harm: impl FnOnce(&mut dyn FnMut(u64))) {
    let run = Arc::new(Run::default());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sessions: Vec<_> =
        (0..SESSIONS).map(|number| runtime.spawn(session(place.clone(), seed, number, Arc::clone(&run)))).collect();
    let count = Arc::clone(&run);
    let mut wait = |more: u64| {
        let enough = count.committed.load(Ordering::SeqCst) + more;
        eventually("clients commit", LIMIT, || (count.committed.load(Ordering::SeqCst) >= enough).then_some(()));
    };
    harm(&mut wait);
    wait(20);
    run.over.store(true, Ordering::SeqCst);
    runtime.block_on(async {
        for session in sessions {
            within(LIMIT, "a client's end", session).await.expect("a client");
        }
    });
}

/// Equal, or named as suspect with a reason; nothing that was rolled back is on the target.
fn expect_equal_or_named(source: &Cluster, target: &Cluster, pgshadow: &Pgshadow) {
    pgshadow.wait_drained(LIMIT);
    let status = pgshadow.status();
    let suspects = status["suspect_tables"].as_array().expect("a list");
    assert!(suspects.iter().all(|suspect| suspect["reason"].as_str().is_some_and(|reason| !reason.is_empty())));
    let named =
        |table: &str| suspects.iter().any(|suspect| suspect["table"] == table || suspect["table"] == "every table");
    let unnamed: Vec<_> = equal::differences(&source.app(), &target.app())
        .into_iter()
        .filter(|difference| !named(&difference.table))
        .map(|difference| difference.to_string())
        .collect();
    assert!(unnamed.is_empty(), "differ without being suspect:\n{}\n{status:#}", unnamed.join("\n"));
    assert_eq!(target.app().psql("SELECT count(*) FROM entry WHERE x = -1"), "0", "what was rolled back is there");
    eprintln!("suspect after the crashes: {suspects:?}");
}

fn killed(durability: &str, seed: u64) {
    eprintln!("seed {seed}");
    let (source, target) = (Cluster::old(), Cluster::newest());
    Load::order().install_on(&[source.app(), target.app()]);
    let mut pgshadow = Pgshadow::between(&source, &target).durability(durability).start();
    let mut dice = Dice::new(seed, 1000);
    let place = pgshadow.app();
    under_load(&place, seed, |wait| {
        for _ in 0..if repeats() > 1 { 6 } else { 2 } {
            wait(100 + dice.between(0, 100) as u64);
            std::thread::sleep(Duration::from_micros(dice.between(0, 20_000) as u64));
            pgshadow.kill9();
            pgshadow.start();
        }
    });
    expect_equal_or_named(&source, &target, &pgshadow);
}

#[test]
fn pgshadow_is_killed_at_random_moments() {
    for round in 1..=repeats().min(3) {
        killed("fsync", u64::from(round));
    }
}

#[test]
fn pgshadow_is_killed_while_its_log_is_in_the_systems_memory() {
    for round in 1..=repeats().min(3) {
        killed("os", u64::from(100 + round));
    }
}

#[test]
fn the_source_crashes_under_load() {
    let seed = 7;
    eprintln!("seed {seed}");
    let (mut source, target) = (Cluster::old(), Cluster::newest());
    Load::order().install_on(&[source.app(), target.app()]);
    let pgshadow = Pgshadow::between(&source, &target).start();
    let place = pgshadow.app();
    under_load(&place, seed, |wait| {
        wait(200);
        source.kill9();
        source.start();
        wait(200);
    });
    expect_equal_or_named(&source, &target, &pgshadow);
}

#[test]
fn a_stopped_pgshadow_goes_on_where_it_was() {
    let (source, target) = (Cluster::old(), Cluster::newest());
    let load = Load::order().clients(4);
    load.install_on(&[source.app(), target.app()]);
    let mut pgshadow = Pgshadow::between(&source, &target).start();
    for _ in 0..2 {
        load.run(&pgshadow.app(), Duration::from_secs(1));
        pgshadow.restart();
    }
    pgshadow.wait_drained(LIMIT);
    equal::assert_equal(&source.app(), &target.app());
    pgshadow.expect_spotless();
}

/// The server ends a session behind its commit, before it is answered: what it has defined is known to the other sessions all the same.
#[test]
fn what_a_lost_session_has_defined_is_known() {
    let (source, target) = (Cluster::old(), Cluster::newest());
    for server in [&source, &target] {
        server.app().psql("CREATE TABLE t (id int PRIMARY KEY)");
    }
    let pgshadow = Pgshadow::between(&source, &target).start();
    let app = pgshadow.app();
    let login = || RawClient::login(app.port, &app.user, &app.password, &app.database).unwrap().0;
    let (mut other, mut lost) = (login(), login());
    let mut run = |sql: &str| {
        let frames = other.query(sql).unwrap();
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{sql}: {frames:?}");
    };
    run("INSERT INTO t VALUES (1)");
    let superuser = source.superuser();
    for (round, change) in ["ADD COLUMN v text DEFAULT 'x'", "ADD COLUMN w int"].into_iter().enumerate() {
        lost.query("BEGIN").unwrap();
        lost.query(&format!("ALTER TABLE t {change}")).unwrap();
        // a commit waits behind its end for a standby that isn't there
        superuser.psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
        superuser.psql("SELECT pg_reload_conf()");
        eventually("it is set", LIMIT, || (superuser.psql("SHOW synchronous_standby_names") == "nobody").then_some(()));
        lost.send_frame(b'Q', b"COMMIT\0").unwrap();
        let waits = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let pid = eventually("it waits", LIMIT, || Some(superuser.psql(waits)).filter(|pid| !pid.is_empty()));
        superuser.psql(&format!("SELECT pg_terminate_backend({pid})"));
        superuser.psql("ALTER SYSTEM RESET synchronous_standby_names");
        superuser.psql("SELECT pg_reload_conf()");
        while lost.receive().is_ok() {}
        lost = login();
        pgshadow.wait_drained(LIMIT);
        let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 't'";
        assert_eq!(target.app().psql(columns), (round + 2).to_string());
        // the first one by the columns that it doesn't name
        run(if round == 0 { "UPDATE t SET v = 'y'" } else { "UPDATE t SET w = 7" });
        run(if round == 0 { "INSERT INTO t VALUES (2, 'z')" } else { "INSERT INTO t (id, w) VALUES (3, 8)" });
    }
    pgshadow.wait_drained(LIMIT);
    assert_eq!(pgshadow.suspect_tables(), Vec::<String>::new());
    let [source, target] = [&source, &target].map(|server| server.superuser().in_database("app"));
    equal::assert_equal(&source, &target);
}
