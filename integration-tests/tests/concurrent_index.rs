//! Indexes that the application builds concurrently are built on the target too, beside everything else: on the source and on
//! the target they hold back only other definitions of their table.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::client::{Endpoint, within};
use integration_tests::process::eventually;
use integration_tests::scene::Scene;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_postgres::Client;

const LIMIT: Duration = Duration::from_secs(60);
const SCHEMA: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, g FROM generate_series(1, 100) g;
    CREATE TABLE other (id int PRIMARY KEY, v int);";
const INDEXES: &str =
    "SELECT string_agg(pg_get_indexdef(indexrelid) || ' ' || indisvalid || ' ' || pg_get_userbyid(relowner), '; '
    ORDER BY relname) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = 't'::regclass";

async fn run(client: &Client, sql: &str) {
    within(LIMIT, sql, client.batch_execute(sql)).await.unwrap();
}

fn until(place: &Endpoint, what: &str, query: &str) {
    eventually(what, LIMIT, || (place.psql(query) == "t").then_some(()));
}

fn until_building(place: &Endpoint) {
    let query = "SELECT count(*) > 0 FROM pg_index WHERE indrelid = 't'::regclass AND NOT indisvalid";
    until(place, "the index is begun", query);
}

/// A transaction that whoever builds an index of the table must wait for.
fn hold(runtime: &Runtime, place: &Endpoint) -> Client {
    runtime.block_on(async {
        let holder = place.connect().await;
        run(&holder, "BEGIN; LOCK TABLE t IN ROW EXCLUSIVE MODE; SELECT pg_catalog.pg_backend_pid()").await;
        holder
    })
}

fn others_arrive(scene: &Scene) {
    for n in 1..=2 {
        scene.app().psql(&format!("INSERT INTO other VALUES ({n}, 1); UPDATE t SET v = v + 500 WHERE id = {n}"));
        let arrived = format!(
            "SELECT EXISTS (SELECT FROM other WHERE id = {n}) AND EXISTS (SELECT FROM t WHERE id = {n} AND v = {n} + 500)"
        );
        until(&scene.target, "rows arrive", &arrived);
    }
}

fn expect_same_indexes(scene: &Scene) {
    scene.expect_exact();
    let there = scene.target.psql(INDEXES);
    assert_eq!(scene.source.psql(INDEXES), there);
    assert!(!there.contains("false"), "{there}");
}

#[test]
fn it_is_built_beside_the_rows_and_before_later_definitions() {
    let scene = Scene::of(SCHEMA);
    let runtime = Runtime::new().unwrap();
    let holder = hold(&runtime, &scene.target);
    scene.app().psql("SET search_path = public; CREATE INDEX CONCURRENTLY t_v ON t (v)");
    until_building(&scene.target);
    others_arrive(&scene);
    scene.app().psql("ALTER TABLE t DROP COLUMN v; ALTER TABLE t ADD COLUMN w int; INSERT INTO other VALUES (9, 9)");
    until(&scene.target, "other tables go on", "SELECT EXISTS (SELECT FROM other WHERE id = 9)");
    let waits = "SELECT count(*) > 0 FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'v'";
    assert_eq!(scene.target.psql(waits), "t", "the column is dropped only after the index");
    runtime.block_on(run(&holder, "COMMIT"));
    expect_same_indexes(&scene);
}

#[test]
fn indexes_of_every_form_come_and_go() {
    let scene = Scene::of(SCHEMA);
    let runtime = Runtime::new().unwrap();
    for sql in [
        "CREATE UNIQUE INDEX CONCURRENTLY u ON public.t (v)",
        "CREATE INDEX CONCURRENTLY ON t (id, v)",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS u ON t (v)",
        "CREATE INDEX CONCURRENTLY partial ON t (v) WHERE id > 50",
        "DROP INDEX CONCURRENTLY partial",
        "DROP INDEX CONCURRENTLY IF EXISTS absent",
    ] {
        scene.app().psql(sql);
    }
    runtime.block_on(async {
        let client = scene.app().connect().await;
        for sql in ["CREATE INDEX CONCURRENTLY extended ON t ((v + 1))", "DROP INDEX CONCURRENTLY u"] {
            within(LIMIT, sql, client.execute(sql, &[])).await.unwrap();
        }
        assert!(client.execute("CREATE INDEX CONCURRENTLY extended ON t (v)", &[]).await.is_err());
        assert!(client.batch_execute("BEGIN; CREATE INDEX CONCURRENTLY inside ON t (v)").await.is_err());
    });
    scene.app().psql("INSERT INTO t VALUES (1000, 1)");
    expect_same_indexes(&scene);
}

#[test]
fn a_build_that_is_interrupted_on_the_target_is_begun_again() {
    for interruption in ["pg_cancel_backend", "pg_terminate_backend"] {
        let scene = Scene::of(SCHEMA);
        let runtime = Runtime::new().unwrap();
        let holder = hold(&runtime, &scene.target);
        scene.app().psql("CREATE INDEX CONCURRENTLY ON t (v)");
        until_building(&scene.target);
        let [_, target] = integration_tests::scene::servers();
        let interrupt = format!(
            "SELECT count({interruption}(pid)) FROM pg_stat_activity
             WHERE datname = '{}' AND query LIKE 'CREATE INDEX%'",
            scene.target.database
        );
        assert_eq!(target.superuser().psql(&interrupt), "1");
        others_arrive(&scene);
        runtime.block_on(run(&holder, "COMMIT"));
        scene.drain();
        let there = scene.target.psql(INDEXES);
        assert_eq!(scene.source.psql(INDEXES), there);
    }
}

#[test]
fn pgshadow_dies_while_it_builds() {
    let mut scene = Scene::of(SCHEMA);
    let runtime = Runtime::new().unwrap();
    let holder = hold(&runtime, &scene.target);
    scene.app().psql("CREATE INDEX CONCURRENTLY ON t (v)");
    until_building(&scene.target);
    scene.pgshadow.kill9();
    scene.pgshadow.start();
    others_arrive(&scene);
    runtime.block_on(run(&holder, "COMMIT"));
    expect_same_indexes(&scene);
}

#[test]
fn what_the_target_refuses_is_reported_and_leaves_nothing_behind() {
    let scene = Scene::with(SCHEMA, "INSERT INTO t VALUES (1000, 50)", |builder| builder);
    scene.app().psql("CREATE UNIQUE INDEX CONCURRENTLY t_v ON t (v)");
    others_arrive(&scene);
    scene.drain();
    let findings = scene.pgshadow.findings();
    let told = |finding: &serde_json::Value| {
        finding["kind"] == "schema"
            && finding["sqlstate"] == "23505"
            && finding["sql"].as_str().is_some_and(|s| s.contains("t_v"))
    };
    assert!(findings.len() == 1 && told(&findings[0]), "{findings:#?}");
    assert!(scene.suspects().is_empty(), "{:?}", scene.suspects());
    assert!(!scene.target.psql(INDEXES).contains("false"), "no invalid index is left");
}

#[test]
fn one_that_takes_long_on_the_source_holds_nothing_back() {
    let scene = Scene::of(SCHEMA);
    let runtime = Runtime::new().unwrap();
    let holder = hold(&runtime, &scene.source);
    let app = scene.app();
    let building = std::thread::spawn(move || app.psql("CREATE INDEX CONCURRENTLY t_v ON t (v)"));
    until_building(&scene.source);
    others_arrive(&scene);
    scene.drain();
    assert!(!building.is_finished());
    runtime.block_on(run(&holder, "COMMIT"));
    building.join().unwrap();
    expect_same_indexes(&scene);
}

/// pgshadow dies while the source is at it, and is there again before the source has done it.
fn dies_meanwhile(schema: &str, sql: &'static str, then: impl FnOnce(&Scene, &Runtime, Client)) -> Scene {
    let mut scene = Scene::of(schema);
    let runtime = Runtime::new().unwrap();
    let holder = hold(&runtime, &scene.source);
    let app = scene.app();
    let at_it = std::thread::spawn(move || app.try_psql(sql));
    let waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'INDEX CONC'
        AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()";
    until(&scene.source, "it waits for the holder", waits);
    scene.pgshadow.kill9();
    let _ = at_it.join().unwrap();
    scene.pgshadow.start();
    then(&scene, &runtime, holder);
    scene
}

#[test]
fn pgshadow_dies_while_the_source_builds() {
    for sql in [
        "SET search_path = '$user', odd, public; CREATE INDEX CONCURRENTLY t_v ON t (v)",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS \"t V\" ON public.t (v)",
        "DROP INDEX CONCURRENTLY public.old",
    ] {
        let schema = format!("{SCHEMA} CREATE INDEX old ON t (v); CREATE SCHEMA odd;");
        let scene = dies_meanwhile(&schema, sql, |scene, runtime, holder| {
            others_arrive(scene);
            runtime.block_on(run(&holder, "COMMIT"));
        });
        // what still runs on the source isn't waited for by others
        let there = format!(
            "SELECT count(*) = {} FROM pg_index WHERE indrelid = 't'::regclass AND indisvalid",
            if sql.starts_with("DROP") { 1 } else { 3 }
        );
        until(&scene.target, sql, &there);
        expect_same_indexes(&scene);
    }
}

#[test]
fn pgshadow_dies_while_the_source_builds_and_the_source_gives_up() {
    let sql = "CREATE INDEX CONCURRENTLY t_v ON t (v)";
    let scene = dies_meanwhile(SCHEMA, sql, |scene, runtime, holder| {
        let [source, _] = integration_tests::scene::servers();
        let end = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = '{}' AND query LIKE 'CREATE INDEX%'",
            scene.source.database
        );
        assert_eq!(source.superuser().psql(&end), "1");
        runtime.block_on(run(&holder, "COMMIT"));
    });
    let looked_up = || scene.pgshadow.metric("pgshadow_transactions_in_doubt_total").filter(|count| *count > 0.0);
    eventually("it is looked up", LIMIT, looked_up);
    scene.expect_exact();
    let valid = "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisvalid";
    assert_eq!([scene.source.psql(valid), scene.target.psql(valid)], ["1", "1"]);
}

#[test]
fn one_without_a_name_is_reported_where_pgshadow_dies() {
    let sql = "CREATE INDEX CONCURRENTLY ON t (v)";
    let scene = dies_meanwhile(SCHEMA, sql, |_, runtime, holder| runtime.block_on(run(&holder, "COMMIT")));
    let findings = eventually("it is reported", LIMIT, || Some(scene.pgshadow.findings()).filter(|f| !f.is_empty()));
    let told = |finding: &serde_json::Value| {
        finding["message"].as_str().is_some_and(|m| m.contains("whether the source has done it isn't known"))
            && finding["sql"] == sql
    };
    assert!(findings.len() == 1 && told(&findings[0]), "{findings:#?}");
    assert!(scene.suspects().is_empty(), "{:?}", scene.suspects());
}
