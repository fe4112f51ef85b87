//! Each gate refuses with a planted cause, and lets a flip through without it; a dry run changes nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, reason = "a test fails by a panic")]
use integration_tests::flip::{cutover, flipped, last_report, scene, stopped, verify};
use integration_tests::postgres::Cluster;
use integration_tests::process::{eventually, signal};
use integration_tests::proxy::Pgshadow;
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

/// What holds a table of the shadow, past pgshadow, until it is dropped.
fn holds_shadow(scene: &Scene, table: &str) -> RawClient {
    let (mut client, _) = RawClient::login(scene.target.port, "app", "app", &scene.target.database).unwrap();
    client.set_limit(LIMIT).unwrap();
    for sql in ["BEGIN", &format!("LOCK TABLE {table}")] {
        assert!(client.query(sql).unwrap().iter().all(|frame| frame.tag != b'E'), "{sql}");
    }
    client
}

/// The closed gates of a dry run; nothing is done by the same without `--dry-run`.
#[track_caller]
fn closes(scene: &Scene, gate: &str) -> String {
    let (code, report) = cutover(scene, &["--unrehearsed", "--dry-run"]);
    assert_eq!((code, closed(&report).contains(&gate.to_owned())), (Some(3), true), "{report:#}");
    let (code, report) = cutover(scene, &["--unrehearsed"]);
    assert_eq!((code, closed(&report).contains(&gate.to_owned())), (Some(3), true), "{report:#}");
    assert_eq!(scene.pgshadow.status()["primary"], "source");
    report["reason"].as_str().unwrap().to_owned()
}

/// What its statements did is in the report as well, and stays there.
fn acknowledge_all(scene: &Scene) {
    let numbers: Vec<String> = scene.pgshadow.findings().iter().map(|finding| finding["id"].to_string()).collect();
    let arguments: Vec<&str> = std::iter::once("acknowledge").chain(numbers.iter().map(String::as_str)).collect();
    scene.pgshadow.run(&arguments, LIMIT).success();
}

#[test]
fn a_shadow_that_is_behind() {
    let scene = scene(SCHEMA);
    verify(&scene);
    let held = holds_shadow(&scene, "t");
    scene.app().psql("INSERT INTO t (v) VALUES (1)");
    std::thread::sleep(Duration::from_millis(2500));
    let report = refused(&scene, &["--unrehearsed"], &["lag"]);
    assert!(report["reason"].as_str().unwrap().contains("1 transactions"), "{report:#}");
    drop(held);
    scene.drain();
    open(&scene);
}

#[test]
fn a_shadow_whose_statements_are_slower() {
    let scene = Scene::with(SCHEMA, "", |builder| {
        builder.users(&integration_tests::flip::users()).set("cutover", "latency_ratio_max", "2.0")
    });
    verify(&scene);
    let write = |from: usize, rows: usize| {
        let all: Vec<String> = (from..from + rows).map(|n| format!("INSERT INTO other VALUES ({n});")).collect();
        scene.app().psql(&all.join("\n"));
        scene.drain();
    };
    superuser(&scene, 1).psql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.04); RETURN NEW; END';
        CREATE TRIGGER slow BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION slow();",
    );
    write(0, 120);
    let why = closes(&scene, "p99 of statements on the shadow");
    assert!(why.contains("of 120 lately"), "{why}");
    superuser(&scene, 1).psql("DROP TRIGGER slow ON other; DROP FUNCTION slow");
    write(1000, 1000);
    // it was slower in each run, which is a finding of its own
    refused(&scene, &["--unrehearsed"], &["divergence"]);
    acknowledge_all(&scene);
    assert!(!scene.pgshadow.run(&["acknowledge", "9999"], LIMIT).status.success());
    verify(&scene);
    open(&scene);
    // what was said of statements holds in the other direction as well
    flipped(&scene, "cutover", "target");
    let carried =
        || scene.pgshadow.findings().iter().any(|one| one["kind"] == "latency" && one["acknowledged"] == true);
    eventually("it is carried over", LIMIT, || carried().then_some(()));
    flipped(&scene, "rollback", "source");
}

#[test]
fn work_that_is_under_way() {
    let scene = scene(SCHEMA);
    scene.app().psql("CREATE TABLE wide (id int PRIMARY KEY, v text)");
    verify(&scene);
    // it waits for a table
    let held = holds_shadow(&scene, "wide");
    let mut verifying = scene.pgshadow.begin(&["verify", "--again"]);
    eventually("a verify runs", LIMIT, || {
        let running = scene.pgshadow.run(&["cutover", "--unrehearsed", "--dry-run", "--json"], LIMIT);
        running.stdout.contains("a verify").then_some(())
    });
    assert!(closes(&scene, "work under way").contains("a verify"));
    drop(held);
    assert!(verifying.wait().unwrap().success());
    open(&scene);
}

/// The server's process stands still, so that it can't end the session over what it can't read either.
#[test]
fn a_session_that_can_t_be_followed() {
    let scene = scene(SCHEMA);
    verify(&scene);
    let mut lost = login(&scene);
    let pid = lost.value("SELECT pg_backend_pid()").unwrap().parse().unwrap();
    signal(pid, "STOP");
    // a length that no message has
    lost.send(&[b'Q', 0, 0, 0, 1]).unwrap();
    eventually("it is lost", LIMIT, || (!scene.pgshadow.suspect_tables().is_empty()).then_some(()));
    let why = closes(&scene, "sessions that can't be followed");
    signal(pid, "CONT");
    assert!(why.contains("sessions that can't be followed: 1"), "{why}");
    assert!(lost.receive_until_ready().is_err(), "the server ends it");
    let ended = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    eventually("it is gone", LIMIT, || (scene.source.psql(&ended) == "0").then_some(()));
    scene.pgshadow.run(&["verify"], LIMIT).success();
    open(&scene);
}

#[test]
fn a_row_that_waits_to_be_mended() {
    let scene = scene(SCHEMA);
    superuser(&scene, 1).psql("DELETE FROM t WHERE id = 7");
    let held = holds_shadow(&scene, "t");
    scene.app().psql("UPDATE t SET v = 100 WHERE id = 7");
    // it is read again on the primary, where its table is being rewritten
    let mut definer = login(&scene);
    for sql in ["BEGIN", "ALTER TABLE t ALTER v TYPE bigint"] {
        assert!(definer.query(sql).unwrap().iter().all(|frame| frame.tag != b'E'), "{sql}");
    }
    drop(held);
    eventually("it waits", LIMIT, || {
        (scene.pgshadow.status()["applier"]["rows_to_heal"].as_u64() > Some(0)).then_some(())
    });
    closes(&scene, "rows to heal");
    definer.query("ROLLBACK").unwrap();
    verify(&scene);
    acknowledge_all(&scene);
    open(&scene);
}

#[test]
fn mirroring_that_has_stopped() {
    let mut scene = Scene::with(SCHEMA, "", |builder| {
        builder.users(&integration_tests::flip::users()).set("mirror_log", "size_max", "\"4MiB\"")
    });
    scene.app().psql("CREATE TABLE wide (id int PRIMARY KEY, v text)");
    verify(&scene);
    let held = holds_shadow(&scene, "wide");
    let mut row = 0;
    eventually("the log is full", LIMIT, || {
        row += 1;
        scene.app().psql(&format!("INSERT INTO wide VALUES ({row}, repeat(md5('{row}'), 20000))"));
        (scene.pgshadow.status()["mirroring"] == false).then_some(())
    });
    let why = closes(&scene, "mirroring");
    assert!(why.contains("mirroring: stopped"), "{why}");
    drop(held);
    scene.pgshadow.stop();
    scene.pgshadow.start();
    scene.drain();
    scene.pgshadow.run(&["backfill", "--table", "public.wide"], LIMIT).success();
    verify(&scene);
    open(&scene);
}

/// What is known of the mirror of the other direction only once it is open.
#[test]
fn a_way_back_with_doubts() {
    let scene = scene(SCHEMA);
    verify(&scene);
    let mut commanding = stopped(&scene, "Hold Holding", &["cutover", "--unrehearsed"]);
    superuser(&scene, 1).psql(
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO other VALUES (NEW.v); RETURN NEW; END';
        CREATE TRIGGER late AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION late();",
    );
    std::thread::sleep(Duration::from_millis(2500));
    scene.pgshadow.go_on_with_flips();
    assert!(!commanding.wait().unwrap().success());
    let report = last_report(&scene);
    assert!(report["reason"].as_str().unwrap().contains("way back"), "{report:#}");
    assert_eq!(scene.pgshadow.status()["primary"], "source");
    superuser(&scene, 1).psql("DROP TRIGGER late ON t; DROP FUNCTION late");
    verify(&scene);
    open(&scene);
    flipped(&scene, "cutover", "target");
}

#[test]
fn sessions_that_are_not_to_be_ended() {
    let scene = Scene::with(SCHEMA, "", |builder| {
        builder.users(&integration_tests::flip::users()).set("cutover", "unmovable", "\"refuse\"")
    });
    verify(&scene);
    let mut bound = login(&scene);
    bound.query("CREATE TEMPORARY TABLE mine (a int)").unwrap();
    let report = refused(&scene, &["--unrehearsed"], &["sessions that can't be taken along"]);
    assert!(report["reason"].as_str().unwrap().contains("temporary"), "{report:#}");
    assert_eq!(bound.value("SELECT count(*) FROM mine").unwrap(), "0");
    bound.query("DROP TABLE mine").unwrap();
    open(&scene);
    // who is in a transaction can't tell, and may be bound
    bound.query("BEGIN").unwrap();
    bound.query("CREATE TEMPORARY TABLE mine (a int) ON COMMIT DROP").unwrap();
    let (code, report) = cutover(&scene, &["--unrehearsed", "--dry-run", "--timeout", "60s"]);
    assert_eq!((code, closed(&report)), (Some(3), vec!["sessions that can't be taken along".to_owned()]), "{report:#}");
    bound.query("COMMIT").unwrap();
    // who comes to be bound while a flag file holds the flip is asked again
    let flag = scene.pgshadow.data_directory().join("flag");
    std::fs::write(&flag, "").unwrap();
    let path = flag.display().to_string();
    let mut waits = scene.pgshadow.begin(&["cutover", "--unrehearsed", "--postpone-cut-over-flag-file", &path]);
    std::thread::sleep(Duration::from_millis(2500));
    bound.query("CREATE TEMPORARY TABLE mine (a int)").unwrap();
    std::fs::remove_file(&flag).unwrap();
    assert_eq!(waits.wait().unwrap().code(), Some(3));
    assert_eq!(bound.value("SELECT count(*) FROM mine").unwrap(), "0");
    bound.query("DROP TABLE mine").unwrap();
    let report = flipped(&scene, "cutover", "target");
    assert_eq!((&report["ended"], &report["moved"]), (&0.into(), &1.into()), "{report:#}");
}

#[test]
fn a_shadow_that_is_away() {
    let mut servers = [Cluster::old(), Cluster::newest()];
    let known = servers[0].superuser().psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'");
    servers[1].superuser().psql(&format!("ALTER ROLE app PASSWORD '{known}'"));
    servers.iter().for_each(|server| drop(server.app().psql(SCHEMA)));
    let users = format!("\"app\" \"{known}\"\n");
    let pgshadow = Pgshadow::between(&servers[0], &servers[1]).users(&users).start();
    pgshadow.run(&["verify"], LIMIT).success();
    servers[1].kill9();
    for arguments in [&["cutover", "--unrehearsed", "--dry-run"][..], &["cutover", "--unrehearsed"]] {
        let refused = pgshadow.run(arguments, LIMIT);
        assert_eq!(refused.status.code(), Some(3), "{refused:#?}");
        assert!(refused.stdout.contains("no connection to"), "{refused:#?}");
    }
    pgshadow.app().psql("INSERT INTO other VALUES (77)");
    servers[1].start();
    pgshadow.wait_drained(LIMIT);
    pgshadow.run(&["verify"], LIMIT).success();
    let dry = pgshadow.run(&["cutover", "--unrehearsed", "--dry-run"], LIMIT);
    assert!(dry.status.success(), "{dry:#?}");
    drop(pgshadow);
}
