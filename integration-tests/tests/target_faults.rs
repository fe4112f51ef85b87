//! The target hangs, dies, comes back, or isn't there: clients don't notice, and nothing is lost.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::client::Endpoint;
use integration_tests::equal;
use integration_tests::fault::Frozen;
use integration_tests::postgres::Cluster;
use integration_tests::process::eventually;
use integration_tests::proxy::Pgshadow;
use integration_tests::repeats;
use integration_tests::workload::{Load, Protocol};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Two servers of its own: these scenarios stop them.
fn stage(load: &Load) -> (Cluster, Cluster, Pgshadow) {
    let (source, target) = (Cluster::old(), Cluster::newest());
    load.install_on(&[source.app(), target.app()]);
    let pgshadow = Pgshadow::between(&source, &target).start();
    (source, target, pgshadow)
}

fn load() -> Load {
    Load::order().clients(4).protocol(Protocol::Prepared)
}

/// A load for some seconds beside what the test does; a client's error fails the test where it is joined.
fn under_load(load: &Load, place: Endpoint) -> JoinHandle<()> {
    let load = load.clone();
    let seconds = if repeats() > 1 { 20 } else { 4 };
    spawn(move || drop(load.run(&place, Duration::from_secs(seconds))))
}

/// Rows that the shadow has got.
fn applied(pgshadow: &Pgshadow) -> u64 {
    pgshadow.status()["applier"]["rows_applied"].as_u64().expect("a number")
}

fn mirrored(pgshadow: &Pgshadow) -> u64 {
    pgshadow.status()["counters"]["transactions_mirrored"].as_u64().expect("a number")
}

/// Waits until so many more transactions were committed through the proxy.
fn committed_more(pgshadow: &Pgshadow, count: u64) {
    let before = mirrored(pgshadow);
    let enough = || (mirrored(pgshadow) >= before + count).then_some(());
    eventually("clients go on committing", LIMIT, enough);
}

fn applied_more(pgshadow: &Pgshadow, count: u64) {
    let before = applied(pgshadow);
    eventually("the shadow applies", LIMIT, || (applied(pgshadow) >= before + count).then_some(()));
}

fn expect_equal(source: &Cluster, target: &Cluster, pgshadow: &Pgshadow) {
    pgshadow.wait_drained(LIMIT);
    equal::assert_equal(&source.app(), &target.app());
    pgshadow.expect_spotless();
}

#[test]
fn a_frozen_target_is_not_noticed_by_clients_and_catches_up() {
    let load = load();
    let (source, target, pgshadow) = stage(&load);
    let clients = under_load(&load, pgshadow.app());
    applied_more(&pgshadow, 50);
    let frozen = Frozen::new(&target);
    committed_more(&pgshadow, 200);
    drop(frozen);
    clients.join().expect("no client error");
    expect_equal(&source, &target, &pgshadow);
}

#[test]
fn a_killed_target_is_not_noticed_by_clients_and_catches_up() {
    let load = load();
    let (source, mut target, pgshadow) = stage(&load);
    let clients = under_load(&load, pgshadow.app());
    for _ in 0..repeats().min(3) {
        applied_more(&pgshadow, 50);
        target.kill9();
        committed_more(&pgshadow, 200);
        target.start();
    }
    clients.join().expect("no client error");
    expect_equal(&source, &target, &pgshadow);
}

#[test]
fn a_target_restarted_by_its_service_manager_catches_up() {
    let load = load();
    let (source, mut target, pgshadow) = stage(&load);
    let clients = under_load(&load, pgshadow.app());
    applied_more(&pgshadow, 50);
    target.restart();
    clients.join().expect("no client error");
    expect_equal(&source, &target, &pgshadow);
}

#[test]
fn a_target_that_is_down_at_start_gets_all_when_it_comes() {
    let (source, mut target) = (Cluster::old(), Cluster::newest());
    let load = load();
    load.install_on(&[source.app(), target.app()]);
    target.stop();
    let pgshadow = Pgshadow::between(&source, &target).start();
    load.run(&pgshadow.app(), Duration::from_secs(1));
    assert_eq!(pgshadow.status()["applier"]["connected"], false);
    target.start();
    expect_equal(&source, &target, &pgshadow);
}

#[test]
fn a_full_log_that_blocks_writes_loses_nothing() {
    let (source, target) = (Cluster::old(), Cluster::newest());
    let load = load();
    load.install_on(&[source.app(), target.app()]);
    for cluster in [&source, &target] {
        cluster.app().psql("CREATE TABLE wide (id int PRIMARY KEY, s text)");
    }
    let builder = Pgshadow::between(&source, &target).set("mirror_log", "size_max", "\"64MiB\"");
    let pgshadow = builder.set("mirror_log", "on_full", "\"block_writes\"").start();
    let frozen = Frozen::new(&target);
    let place = pgshadow.app();
    // twice what the log holds
    let writer = spawn(move || {
        for round in 0..16 {
            place.psql(&format!(
                "INSERT INTO wide SELECT g + {round} * 1000, repeat(md5(g::text), 250) FROM generate_series(1, 1000) g"
            ));
        }
    });
    let log_bytes = || pgshadow.status()["log"]["bytes"].as_u64().expect("a number");
    eventually("the log is full", LIMIT, || (log_bytes() > 40 << 20).then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    assert!(!writer.is_finished(), "a write waits");
    assert_eq!(pgshadow.status()["mirroring"], true);
    drop(frozen);
    writer.join().expect("no client error");
    expect_equal(&source, &target, &pgshadow);
}
