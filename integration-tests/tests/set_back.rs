//! The primary goes on from an earlier state, while pgshadow runs or while it doesn't: what the shadow holds and the primary has
//! lost is named as suspect. A crash or a restart loses nothing, so nothing is named.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::client::Endpoint;
use integration_tests::equal;
use integration_tests::postgres::Cluster;
use integration_tests::process::eventually;
use integration_tests::proxy::Pgshadow;
use integration_tests::scene::EVERY_TABLE;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

const SCHEMA: &str = "CREATE TABLE kept (id int PRIMARY KEY, v int); CREATE TABLE lost (id int PRIMARY KEY, v int);
    CREATE TABLE still (id int PRIMARY KEY, v int);";

fn servers() -> [Cluster; 2] {
    let servers = [Cluster::old(), Cluster::newest()];
    for server in &servers {
        server.app().psql(SCHEMA);
    }
    servers
}

fn suspects(pgshadow: &Pgshadow) -> Vec<(String, String)> {
    let status = pgshadow.status();
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let tables = status["suspect_tables"].as_array().expect("status --json has suspect_tables").iter();
    tables.map(|suspect| (text(&suspect["table"]), text(&suspect["reason"]))).collect()
}

/// Waits for the one suspect, and that it stays the only one after more work.
#[track_caller]
fn expect_suspect(pgshadow: &Pgshadow, table: &str, reason: &str) {
    let found = eventually("a table is suspect", LIMIT, || Some(suspects(pgshadow)).filter(|found| !found.is_empty()));
    assert!(found.len() == 1 && found[0].0 == table && found[0].1.contains(reason), "{found:?}");
    write(&pgshadow.app(), "INSERT INTO still VALUES (99)");
    pgshadow.wait_drained(LIMIT);
    assert_eq!(suspects(pgshadow), found);
}

/// As an application does, which comes again until it is let in.
#[track_caller]
fn write(place: &Endpoint, sql: &str) {
    eventually(sql, LIMIT, || place.try_psql(sql).ok());
}

#[test]
fn a_restore_is_noticed_while_pgshadow_runs() {
    let [mut source, target] = servers();
    source.stop();
    source.save("base");
    source.start();
    let pgshadow = Pgshadow::between(&source, &target).start();
    pgshadow.app().psql("INSERT INTO kept VALUES (1)");
    pgshadow.wait_drained(LIMIT);
    source.stop();
    source.restore("base");
    source.start();
    expect_suspect(&pgshadow, EVERY_TABLE, "set back to an earlier state");
}

#[test]
fn a_restore_is_noticed_when_pgshadow_comes_back() {
    let [mut source, target] = servers();
    source.stop();
    source.save("base");
    source.start();
    let mut pgshadow = Pgshadow::between(&source, &target).start();
    pgshadow.app().psql("INSERT INTO kept VALUES (1)");
    pgshadow.wait_drained(LIMIT);
    pgshadow.kill9();
    source.kill9();
    source.restore("base");
    source.start();
    pgshadow.start();
    expect_suspect(&pgshadow, EVERY_TABLE, "set back to an earlier state");
    // It is told once, not at each start.
    pgshadow.run(&["status"], LIMIT).success();
    pgshadow.restart();
    assert_eq!(suspects(&pgshadow).len(), 1);
}

#[test]
fn another_cluster_in_the_primarys_place_is_noticed() {
    let [mut source, target] = servers();
    let mut other = Cluster::old();
    other.app().psql(SCHEMA);
    let pgshadow = Pgshadow::between(&source, &target).start();
    pgshadow.app().psql("INSERT INTO kept VALUES (1)");
    pgshadow.wait_drained(LIMIT);
    source.stop();
    other.stop();
    other.take_port_of(&source);
    other.start();
    expect_suspect(&pgshadow, EVERY_TABLE, "another database cluster");
}

#[test]
fn restarts_and_crashes_lose_nothing() {
    let [mut source, target] = servers();
    let mut pgshadow = Pgshadow::between(&source, &target).start();
    for round in 0..18 {
        write(&pgshadow.app(), &format!("INSERT INTO kept VALUES ({round}); UPDATE kept SET v = {round}"));
        match round % 3 {
            0 => source.kill9(),
            1 => source.stop(),
            _ => {
                source.kill9();
                pgshadow.kill9();
            }
        }
        source.start();
        if round % 3 == 2 {
            pgshadow.start();
        }
    }
    write(&pgshadow.app(), "INSERT INTO still VALUES (1)");
    pgshadow.wait_drained(LIMIT);
    equal::assert_equal(&source.app(), &target.app());
    pgshadow.expect_spotless();
}

/// Waits until pgshadow has read the primary's positions after now, and until the standby has all that was written before that.
fn let_standby_follow(source: &Cluster, standby: &Cluster) {
    let (source, standby) = (source.superuser(), standby.superuser());
    let now = source.psql("SELECT clock_timestamp()");
    let asked = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pgshadow' AND query LIKE '%wal_flush_lsn%'
         AND state = 'idle' AND query_start > '{now}'"
    );
    eventually("pgshadow reads positions", LIMIT, || (source.psql(&asked) != "0").then_some(()));
    let written = source.psql("SELECT pg_current_wal_insert_lsn()");
    let has = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
    eventually("the standby follows", LIMIT, || (standby.psql(&has) == "t").then_some(()));
}

fn fail_over(source: &mut Cluster, standby: &mut Cluster) {
    standby.take_port_of(source);
    standby.start();
    // The file by which the promotion is told from a later crash has a time of whole seconds.
    let older = "SELECT date_trunc('second', clock_timestamp()) > backend_start FROM pg_stat_activity
        WHERE backend_type = 'checkpointer'";
    let standby = standby.superuser();
    eventually("the next second", LIMIT, || (standby.psql(older) == "t").then_some(()));
    // Until it is promoted it is a standby, which is no primary.
    standby.psql("SELECT pg_promote()");
}

#[test]
fn a_failover_to_a_standby_that_lagged_names_what_was_written_since() {
    let [mut source, target] = servers();
    let mut standby = source.standby();
    let pgshadow = Pgshadow::between(&source, &target).start();
    pgshadow.app().psql("INSERT INTO kept VALUES (1); INSERT INTO lost VALUES (1)");
    let_standby_follow(&source, &standby);
    standby.stop();
    pgshadow.app().psql("INSERT INTO lost VALUES (2)");
    pgshadow.wait_drained(LIMIT);
    source.kill9();
    fail_over(&mut source, &mut standby);
    expect_suspect(&pgshadow, "public.lost", "timeline 2");
    let differ: Vec<_> = equal::differences(&standby.app(), &target.app()).into_iter().map(|d| d.table).collect();
    assert_eq!(differ, ["public.lost"]);
}

#[test]
fn a_failover_while_pgshadow_is_down_makes_every_table_suspect() {
    let [mut source, target] = servers();
    let mut standby = source.standby();
    let mut pgshadow = Pgshadow::between(&source, &target).start();
    pgshadow.app().psql("INSERT INTO kept VALUES (1)");
    pgshadow.wait_drained(LIMIT);
    standby.stop();
    pgshadow.stop();
    source.kill9();
    fail_over(&mut source, &mut standby);
    pgshadow.start();
    expect_suspect(&pgshadow, EVERY_TABLE, "timeline 2");
}

#[test]
fn a_switchover_to_a_standby_that_has_everything_names_nothing() {
    let [mut source, target] = servers();
    let mut standby = source.standby();
    let pgshadow = Pgshadow::between(&source, &target).start();
    pgshadow.app().psql("INSERT INTO kept VALUES (1); INSERT INTO still VALUES (1)");
    let_standby_follow(&source, &standby);
    source.stop();
    standby.stop();
    fail_over(&mut source, &mut standby);
    // What is written before that counts as written on the old primary.
    let noticed = || pgshadow.log().contains("\"epoch\":2").then_some(());
    eventually("the new primary is noticed", LIMIT, noticed);
    write(&pgshadow.app(), "INSERT INTO still VALUES (2)");
    pgshadow.wait_drained(LIMIT);
    equal::assert_equal(&standby.app(), &target.app());
    pgshadow.expect_spotless();
}
