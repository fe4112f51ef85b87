//! Lanes apply side by side: what waits, on the source or on the target, holds back only what it may touch.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::client::{Endpoint, within};
use integration_tests::process::eventually;
use integration_tests::scene::Scene;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_postgres::Client;

const LIMIT: Duration = Duration::from_secs(60);

const TABLES: &str =
    "CREATE TABLE a (id int PRIMARY KEY, v int); INSERT INTO a SELECT g, 0 FROM generate_series(1, 20) g;
    CREATE TABLE b (id int PRIMARY KEY, v int); INSERT INTO b SELECT g, 0 FROM generate_series(1, 20) g;
    CREATE TABLE log (at int, what text);";

async fn run(client: &Client, sql: &str) {
    within(LIMIT, sql, client.batch_execute(sql)).await.unwrap();
}

/// Waits until a query on one of the servers says so.
fn until(place: &Endpoint, what: &str, query: &str) {
    eventually(what, LIMIT, || (place.psql(query) == "t").then_some(()));
}

/// Waits until a client of the scene's database waits for a lock.
fn until_blocked(place: &Endpoint) {
    let query = "SELECT count(*) > 0 FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until(place, "a client waits for a lock", query);
}

/// Waits until somebody waits for the table. (What other roles wait for is shown in this view only.)
fn until_table_blocked(place: &Endpoint, table: &str) {
    let query = format!("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass");
    until(place, "somebody waits for the table", &query);
}

/// Other rows and tables are written meanwhile, in both protocols, several times: they arrive.
fn others_arrive(scene: &Scene, runtime: &Runtime) {
    for round in 1..=3 {
        runtime.block_on(async {
            let other = scene.app().connect().await;
            run(&other, &format!("UPDATE a SET v = {round} WHERE id > 10; INSERT INTO log VALUES ({round}, 'x')"))
                .await;
            within(LIMIT, "an update", other.execute(&format!("UPDATE b SET v = {round} WHERE id > 1"), &[]))
                .await
                .unwrap();
            run(
                &other,
                &format!("BEGIN; UPDATE a SET v = v * 10 WHERE id = 12; INSERT INTO b VALUES ({round} + 100); COMMIT"),
            )
            .await;
        });
        let arrived = format!(
            "SELECT (SELECT v FROM a WHERE id = 12) = {round} * 10 AND (SELECT v FROM b WHERE id = 2) = {round}
             AND EXISTS (SELECT FROM b WHERE id = {round} + 100) AND EXISTS (SELECT FROM log WHERE at = {round})"
        );
        until(&scene.target, "other rows are on the target", &arrived);
    }
}

#[test]
fn an_open_transaction_holds_nothing_back() {
    let scene = Scene::of(TABLES);
    let runtime = Runtime::new().unwrap();
    let idle = runtime.block_on(async {
        let idle = scene.app().connect().await;
        run(&idle, "BEGIN; UPDATE a SET v = -1 WHERE id = 1; INSERT INTO log VALUES (0, 'idle')").await;
        idle
    });
    others_arrive(&scene, &runtime);
    scene.drain();
    runtime.block_on(run(&idle, "COMMIT"));
    scene.expect_exact();
}

#[test]
fn a_write_that_waits_for_a_row_holds_back_only_what_may_conflict() {
    let scene = Scene::of(TABLES);
    let runtime = Runtime::new().unwrap();
    let (holder, blocked) = runtime.block_on(async {
        let holder = scene.app().connect().await;
        run(&holder, "BEGIN; UPDATE a SET v = 7 WHERE id = 1").await;
        let waiter = scene.app().connect().await;
        let blocked = tokio::spawn(async move { waiter.execute("UPDATE a SET v = v + 1 WHERE id <= 3", &[]).await });
        (holder, blocked)
    });
    until_blocked(&scene.source);
    others_arrive(&scene, &runtime);
    assert!(!blocked.is_finished(), "it waits for the row still");
    runtime.block_on(async {
        run(&holder, "COMMIT").await;
        assert_eq!(within(LIMIT, "the update", blocked).await.unwrap().unwrap(), 3);
    });
    scene.expect_exact();
    assert_eq!(scene.target.psql("SELECT v FROM a WHERE id = 1"), "8");
}

/// It has no transaction id yet, so no snapshot shows it.
#[test]
fn a_write_that_waits_for_a_table_holds_back_only_what_may_conflict() {
    for blocked in ["INSERT INTO c VALUES (1)", "TRUNCATE c", "ALTER TABLE c ADD COLUMN d int"] {
        let scene = Scene::of(&format!("{TABLES} CREATE TABLE c (id int PRIMARY KEY);"));
        let runtime = Runtime::new().unwrap();
        let (holder, blocked) = runtime.block_on(async {
            let holder = scene.app().connect().await;
            run(&holder, "BEGIN; LOCK TABLE c IN SHARE MODE").await;
            let waiter = scene.app().connect().await;
            (holder, tokio::spawn(async move { waiter.batch_execute(blocked).await }))
        });
        until_blocked(&scene.source);
        others_arrive(&scene, &runtime);
        assert!(!blocked.is_finished(), "it waits for the table still");
        runtime.block_on(async {
            run(&holder, "COMMIT").await;
            within(LIMIT, "the blocked statement", blocked).await.unwrap().unwrap();
        });
        scene.expect_exact();
    }
}

#[test]
fn a_statement_that_waits_on_the_target_holds_only_its_tables() {
    for (statement, mode) in [
        ("ALTER TABLE c ADD COLUMN d int", "ACCESS SHARE"),
        ("TRUNCATE c", "ACCESS SHARE"),
        ("CREATE INDEX ON c (v)", "ROW EXCLUSIVE"),
        ("UPDATE c SET v = 2 WHERE id = 1", "SHARE"),
        ("DROP TABLE c", "ACCESS SHARE"),
    ] {
        let scene =
            Scene::of(&format!("{TABLES} CREATE TABLE c (id int PRIMARY KEY, v int); INSERT INTO c VALUES (1, 1);"));
        let runtime = Runtime::new().unwrap();
        let holder = runtime.block_on(async {
            let holder = scene.target.connect().await;
            run(&holder, &format!("BEGIN; LOCK TABLE c IN {mode} MODE")).await;
            holder
        });
        scene.app().psql(statement);
        until_table_blocked(&scene.target, "c");
        others_arrive(&scene, &runtime);
        let waiting = scene.pgshadow.status()["lag"]["entries"].as_u64();
        assert_eq!(waiting, Some(1), "{statement} waits still");
        if !statement.starts_with("DROP") {
            scene.app().psql("INSERT INTO c (id, v) VALUES (5, 5)");
        }
        runtime.block_on(run(&holder, "COMMIT"));
        scene.expect_exact();
    }
}
