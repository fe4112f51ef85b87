//! Each gate refuses with a planted cause, and lets a flip through without it; a dry run changes nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, reason = "a test fails by a panic")]
use integration_tests::flip::{cutover, scene, verify};
use integration_tests::raw::RawClient;
use integration_tests::scene::{Scene, servers};
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
const SCHEMA: &str = "CREATE TABLE t (id bigserial PRIMARY KEY, v int NOT NULL); INSERT INTO t (v) SELECT g FROM generate_series(1, 100) g;
CREATE TABLE other (id int PRIMARY KEY);";

fn closed(report: &Value) -> Vec<String> {
    let gates = report["gates"].as_array().unwrap().iter();
    gates.filter(|gate| gate["open"] == false).map(|gate| gate["name"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn refused(scene: &Scene, arguments: &[&str], gates: &[&str]) -> Value {
    for dry in [true, false] {
        let mut all = arguments.to_vec();
        if dry {
            all.push("--dry-run");
        }
        let (code, report) = cutover(scene, &all);
        assert_eq!(
            (code, closed(&report), &report["outcome"]),
            (Some(3), gates.iter().map(|g| (*g).to_owned()).collect(), &"refused".into()),
            "{} {report:#}",
            report["reason"]
        );
        let of_closed = report["gates"].as_array().unwrap().iter().filter(|gate| gate["open"] == false);
        assert!(
            of_closed.into_iter().all(|gate| gate["mend"] != "" && gate["value"] != "" && gate["threshold"] != ""),
            "{report:#}"
        );
    }
    assert_eq!(scene.pgshadow.status()["primary"], "source");
    cutover(scene, &["--dry-run", "--unrehearsed"]).1
}

#[track_caller]
fn open(scene: &Scene) {
    let (code, report) = cutover(scene, &["--unrehearsed", "--dry-run"]);
    assert_eq!((code, &report["outcome"]), (Some(0), &"dry_run".into()), "{report:#}\n{}", scene.pgshadow.log());
    assert!(report["predicted_pause_ms"].as_u64().is_some());
    assert_eq!(scene.pgshadow.status()["primary"], "source");
}

fn login(scene: &Scene) -> RawClient {
    let app = scene.app();
    let (mut client, _) = RawClient::login(app.port, &app.user, &app.password, &app.database).unwrap();
    client.set_limit(LIMIT).unwrap();
    client
}

fn superuser(scene: &Scene, server: usize) -> integration_tests::client::Endpoint {
    servers()[server].superuser().in_database(&scene.source.database)
}

#[test]
fn what_isnt_proven() {
    let scene = scene(SCHEMA);
    scene.drain();
    refused(&scene, &["--unrehearsed"], &["certificate"]);
    verify(&scene);
    open(&scene);
    scene.app().psql("ALTER TABLE other ADD COLUMN v int");
    scene.drain();
    refused(&scene, &["--unrehearsed"], &["certificate"]);
    verify(&scene);
    open(&scene);
}

#[test]
fn what_differs() {
    let scene = scene(SCHEMA);
    superuser(&scene, 1).psql("DELETE FROM t WHERE id = 7");
    assert_eq!(scene.pgshadow.run(&["verify"], LIMIT).status.code(), Some(3));
    refused(&scene, &["--unrehearsed"], &["certificate", "divergence"]);
    scene.pgshadow.run(&["repair"], LIMIT).success();
    verify(&scene);
    open(&scene);
}

#[test]
fn what_is_suspect() {
    let scene = scene(SCHEMA);
    verify(&scene);
    scene.app().psql("CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN INSERT INTO other VALUES (1); COMMIT; END'");
    scene.app().psql("CALL p()");
    scene.drain();
    assert!(!scene.pgshadow.suspect_tables().is_empty());
    let report = cutover(&scene, &["--unrehearsed"]).1;
    assert_eq!(closed(&report), ["certificate", "suspect tables"], "{report:#}");
    scene.app().psql("DROP PROCEDURE p()");
    scene.drain();
    scene.pgshadow.run(&["backfill", "--table", "public.other"], LIMIT).success();
    verify(&scene);
    open(&scene);
}

#[test]
fn what_is_under_way_on_the_primary() {
    let scene = scene(SCHEMA);
    verify(&scene);
    // long before the time that open transactions have
    let mut long = login(&scene);
    long.query("BEGIN").unwrap();
    long.query("SELECT 1").unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let report = refused_by_age(&scene);
    assert!(report.contains("SELECT 1"), "{report}");
    long.query("COMMIT").unwrap();
    open(&scene);
    let mut prepared = login(&scene);
    for sql in ["BEGIN", "INSERT INTO other VALUES (5)", "PREPARE TRANSACTION 'held'"] {
        assert!(prepared.query(sql).unwrap().iter().all(|frame| frame.tag != b'E'), "{sql}");
    }
    let report = refused(&scene, &["--unrehearsed"], &["prepared transactions"]);
    assert!(report["reason"].as_str().unwrap().contains("held"), "{report:#}");
    prepared.query("ROLLBACK PREPARED 'held'").unwrap();
    scene.drain();
    open(&scene);
    scene.pgshadow.run(&["pause"], LIMIT).success();
    refused(&scene, &["--unrehearsed"], &["pause"]);
    scene.pgshadow.run(&["resume"], LIMIT).success();
    open(&scene);
}

fn refused_by_age(scene: &Scene) -> String {
    let report = refused(scene, &["--unrehearsed", "--timeout", "500ms"], &["long transactions"]);
    drop(report);
    let (_, report) = cutover(scene, &["--unrehearsed", "--timeout", "500ms"]);
    report["reason"].as_str().unwrap().to_owned()
}

#[test]
fn who_comes_past_pgshadow() {
    let scene = scene(SCHEMA);
    verify(&scene);
    let (mut past, _) = RawClient::login(scene.source.port, "app", "app", &scene.source.database).unwrap();
    past.set_limit(LIMIT).unwrap();
    past.query("SET application_name = 'an old instance'").unwrap();
    let (_, report) = cutover(&scene, &["--unrehearsed"]);
    assert!(closed(&report).contains(&"clients past pgshadow".to_owned()), "{report:#}");
    assert!(report["reason"].as_str().unwrap().contains("an old instance"), "{report:#}");
    drop(past);
    std::thread::sleep(Duration::from_millis(1500));
    verify(&scene);
    open(&scene);
}

#[test]
fn what_the_shadow_lacks() {
    let scene = scene(SCHEMA);
    verify(&scene);
    superuser(&scene, 1).psql("ALTER SEQUENCE t_id_seq RENAME TO elsewhere");
    let report = refused(&scene, &["--unrehearsed"], &["sequences", "preflight"]);
    assert!(report["reason"].as_str().unwrap().contains("t_id_seq"), "{report:#}");
    superuser(&scene, 1).psql("ALTER SEQUENCE elsewhere RENAME TO t_id_seq");
    open(&scene);
}

#[test]
fn who_may_not_keep_clients_off() {
    let scene = scene(SCHEMA);
    verify(&scene);
    let owner =
        |role: &str| superuser(&scene, 0).psql(&format!("ALTER DATABASE {} OWNER TO {role}", scene.source.database));
    owner("postgres");
    let report = refused(&scene, &["--unrehearsed"], &["fence"]);
    assert!(report["reason"].as_str().unwrap().contains("owner"), "{report:#}");
    owner("app");
    open(&scene);
}

#[test]
fn what_nobody_has_rehearsed() {
    let scene = scene(SCHEMA);
    verify(&scene);
    refused(&scene, &[], &["rollback rehearsed"]);
    let rehearsed = scene.pgshadow.run(&["rehearse", "--json"], LIMIT);
    assert_eq!(rehearsed.status.code(), Some(0), "{rehearsed:#?}\n{}", scene.pgshadow.log());
    let reports: Value = serde_json::from_str(&rehearsed.stdout).unwrap();
    assert_eq!((&reports[0]["to"], &reports[1]["to"]), (&"target".into(), &"source".into()));
    assert_eq!(scene.pgshadow.status()["primary"], "source");
    scene.drain();
    let (code, report) = cutover(&scene, &["--dry-run"]);
    assert_eq!(code, Some(0), "{report:#}");
    // another schema is another matter
    scene.app().psql("ALTER TABLE other ADD COLUMN v int");
    verify(&scene);
    refused(&scene, &[], &["rollback rehearsed"]);
}

/// A target that wasn't loaded is no primary.
#[test]
fn what_was_never_loaded() {
    let scene = Scene::onto_nothing(SCHEMA, |builder| builder.users(&integration_tests::flip::users()));
    scene.drain();
    let (code, report) = cutover(&scene, &["--unrehearsed"]);
    let closed = closed(&report);
    assert_eq!(code, Some(3), "{report:#}");
    for gate in ["certificate", "sequences"] {
        assert!(closed.contains(&gate.to_owned()), "{closed:?}");
    }
    scene.pgshadow.run(&["backfill", "--create-schema"], LIMIT).success();
    verify(&scene);
    open(&scene);
}
