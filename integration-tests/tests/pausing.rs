//! `pause` and `resume`: what is open goes on to its end, what would begin waits, nothing fails.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
use integration_tests::process::{eventually, signal};
use integration_tests::raw::RawClient;
use integration_tests::repeats;
use integration_tests::scene::Scene;
use integration_tests::workload::{Load, Protocol};
use serde_json::Value;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
/// Long enough for what isn't held to be answered.
const WHILE: Duration = Duration::from_millis(300);
const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, 0 FROM generate_series(1, 64) g;";

fn pause(scene: &Scene, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut all = vec!["pause", "--json"];
    all.extend(arguments);
    let finished = scene.pgshadow.run(&all, LIMIT);
    (finished.status.code(), serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:#?}")))
}

#[track_caller]
fn paused(scene: &Scene) {
    let (code, report) = pause(scene, &[]);
    assert_eq!((code, &report["paused"]), (Some(0), &true.into()), "{report:#}");
    assert_eq!(scene.pgshadow.status()["paused"], true);
}

#[track_caller]
fn resume(scene: &Scene) {
    scene.pgshadow.run(&["resume"], LIMIT).success();
    assert_eq!(scene.pgshadow.status()["paused"], false);
}

fn login(scene: &Scene) -> RawClient {
    let app = scene.app();
    let (mut client, _) = RawClient::login(app.port, &app.user, &app.password, &app.database).unwrap();
    client.set_limit(LIMIT).unwrap();
    client
}

fn tags(frames: &[integration_tests::raw::Frame]) -> String {
    frames.iter().map(|frame| char::from(frame.tag)).collect()
}

/// A session in a transaction holds the pause up: it is named, nothing happens to it, and all goes on.
#[test]
fn a_transaction_that_stays_open_is_named_and_all_goes_on() {
    let scene = Scene::of(TABLE);
    let mut open = login(&scene);
    open.query("BEGIN").unwrap();
    open.query("UPDATE t SET v = 1 WHERE id = 1").unwrap();
    let (code, report) = pause(&scene, &["--timeout", "300ms"]);
    assert_eq!((code, &report["paused"]), (Some(4), &false.into()), "{report:#}");
    let named = report["waited_for"].as_array().unwrap();
    assert_eq!(named.len(), 1, "{report:#}");
    assert_eq!((&named[0]["user"], &named[0]["state"]), (&"app".into(), &"idle in transaction".into()));
    assert!(named[0]["query"].as_str().unwrap().contains("UPDATE t SET v = 1"), "{report:#}");
    assert!(named[0]["transaction_ms"].as_u64().is_some_and(|ms| ms >= 300), "{report:#}");
    assert_eq!(scene.pgshadow.status()["paused"], false);
    assert_eq!(scene.app().psql("SELECT count(*) FROM t"), "64");
    open.query("COMMIT").unwrap();
    scene.expect_exact();
    let resumed = scene.pgshadow.run(&["resume"], LIMIT);
    assert!(resumed.status.code() == Some(1) && resumed.stderr.contains("nothing is paused"), "{resumed:#?}");
}

/// It goes on to its end while others wait; then the pause is there.
#[test]
fn what_is_open_goes_on_and_what_would_begin_waits() {
    let scene = Scene::of(TABLE);
    let (mut open, mut copying) = (login(&scene), login(&scene));
    let (mut simple, mut extended, mut many) = (login(&scene), login(&scene), login(&scene));
    open.query("BEGIN").unwrap();
    copying.send_frame(b'Q', b"COPY t FROM STDIN\0").unwrap();
    assert_eq!(copying.receive().unwrap().tag, b'G');
    let mut begun = scene.pgshadow.begin(&["pause", "--timeout", "30s"]);
    eventually("the pause", LIMIT, || (scene.pgshadow.status()["paused"] == true).then_some(()));
    // a Query, a batch, and several of them sent at once
    simple.send_frame(b'Q', b"UPDATE t SET v = 10 WHERE id = 10\0").unwrap();
    extended.send_frame(b'P', b"\0UPDATE t SET v = 11 WHERE id = 11\0\0\0").unwrap();
    extended.send(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04").unwrap();
    for id in 12..15 {
        many.send_frame(b'Q', format!("UPDATE t SET v = {id} WHERE id = {id}\0").as_bytes()).unwrap();
    }
    let late = std::thread::spawn({
        let app = scene.app();
        move || app.psql("UPDATE t SET v = 20 WHERE id = 20 RETURNING v")
    });
    std::thread::sleep(WHILE);
    assert_eq!(scene.source.psql("SELECT count(*) FROM t WHERE v > 0"), "0", "what would begin is held");
    // both that are open are served to their end
    assert_eq!(tags(&open.query("UPDATE t SET v = 1 WHERE id = 1").unwrap()), "CZ");
    copying.send_frame(b'd', b"100\t1\n").unwrap();
    copying.send(b"c\0\0\0\x04").unwrap();
    assert_eq!(tags(&copying.receive_until_ready().unwrap()), "CZ");
    assert_eq!(begun.try_wait().unwrap(), None, "one is still open");
    assert_eq!(tags(&open.query("COMMIT").unwrap()), "CZ");
    assert!(begun.wait().unwrap().success());
    open.send_frame(b'Q', b"SELECT 1\0").unwrap();
    std::thread::sleep(WHILE);
    assert!(!late.is_finished(), "a login waits");
    assert_eq!(scene.source.psql("SELECT count(*) FROM t WHERE v > 0"), "2");
    resume(&scene);
    assert_eq!(tags(&simple.receive_until_ready().unwrap()), "CZ");
    assert_eq!(tags(&extended.receive_until_ready().unwrap()), "12CZ");
    for _ in 12..15 {
        assert_eq!(tags(&many.receive_until_ready().unwrap()), "CZ");
    }
    assert_eq!(tags(&open.receive_until_ready().unwrap()), "TDCZ");
    assert_eq!(late.join().unwrap(), "20");
    assert_eq!(scene.source.psql("SELECT count(*) FROM t WHERE v > 0"), "8");
    scene.expect_exact();
}

/// What is sent behind a Query whose answer is to come waits; what is sent behind a BEGIN doesn't.
#[test]
fn a_client_that_sends_ahead_is_held_between_its_transactions() {
    let scene = Scene::of(TABLE);
    let send = |client: &mut RawClient, texts: &[&str]| {
        texts.iter().for_each(|text| client.send_frame(b'Q', format!("{text}\0").as_bytes()).unwrap());
    };
    for _ in 0..repeats() {
        scene.app().psql("UPDATE t SET v = 0");
        let (mut ahead, mut block) = (login(&scene), login(&scene));
        send(&mut ahead, &["UPDATE t SET v = 1 WHERE id = 1 AND pg_sleep(1) IS NOT NULL"]);
        send(&mut block, &["BEGIN", "SELECT pg_sleep(1)"]);
        std::thread::sleep(WHILE);
        let mut begun = scene.pgshadow.begin(&["pause", "--timeout", "30s"]);
        eventually("the pause", LIMIT, || (scene.pgshadow.status()["paused"] == true).then_some(()));
        send(&mut ahead, &["UPDATE t SET v = 1 WHERE id = 2"]);
        send(&mut block, &["UPDATE t SET v = 1 WHERE id = 3", "COMMIT", "UPDATE t SET v = 1 WHERE id = 4"]);
        assert!(begun.wait().unwrap().success());
        std::thread::sleep(WHILE);
        assert_eq!(scene.source.psql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t WHERE v > 0"), "1 3");
        resume(&scene);
        for (client, answers) in [(&mut ahead, 2), (&mut block, 5)] {
            (0..answers).for_each(|_| assert!(tags(&client.receive_until_ready().unwrap()).ends_with("CZ")));
        }
        assert_eq!(scene.source.psql("SELECT count(*) FROM t WHERE v > 0"), "4");
    }
    scene.expect_exact();
}

/// A lease that nobody renews, and a command that is killed while it waits, hold nobody.
#[test]
fn a_pause_ends_by_itself() {
    let scene = Scene::of(TABLE);
    let begun = Instant::now();
    let (code, _) = pause(&scene, &["--lease", "1s"]);
    assert_eq!(code, Some(0));
    assert_eq!(scene.app().psql("SELECT 1"), "1");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(scene.pgshadow.status()["paused"], false);
    // prolonged by the same command
    pause(&scene, &["--lease", "1s"]);
    pause(&scene, &["--lease", "60s"]);
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(scene.pgshadow.status()["paused"], true);
    resume(&scene);
    let mut open = login(&scene);
    open.query("BEGIN").unwrap();
    let mut begun = scene.pgshadow.begin(&["pause", "--timeout", "60s"]);
    eventually("the pause", LIMIT, || (scene.pgshadow.status()["paused"] == true).then_some(()));
    signal(begun.id(), "KILL");
    begun.wait().unwrap();
    eventually("its end", LIMIT, || (scene.pgshadow.status()["paused"] == false).then_some(()));
    assert_eq!(scene.app().psql("SELECT 1"), "1");
    // a shutdown isn't held up
    paused_with(&scene, &mut open);
}

fn paused_with(scene: &Scene, open: &mut RawClient) {
    open.query("COMMIT").unwrap();
    paused(scene);
    open.send_frame(b'Q', b"SELECT 1\0").unwrap();
    let begun = Instant::now();
    signal(scene.pgshadow.pid(), "TERM");
    let said = open.receive().unwrap();
    assert_eq!(said.field(b'C').as_deref(), Some("57P01"));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Under load in each protocol: while it is paused nothing is written, and no client is told of anything.
#[test]
fn nothing_is_written_while_it_is_paused_and_nothing_fails() {
    for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Prepared] {
        let scene = Scene::of(TABLE);
        let script = "\\set id random(1, 64)\nBEGIN;\nUPDATE t SET v = v + 1 WHERE id = :id;\nSELECT v FROM t WHERE id = :id;\nCOMMIT;\nUPDATE t SET v = v + 1 WHERE id = :id;\n";
        // a thread that waits for one of its connections doesn't go on with another
        Load::own("", script).clients(8).threads(8).protocol(protocol).during(&scene.app(), || {
            for _ in 0..5 * repeats() {
                std::thread::sleep(Duration::from_millis(100));
                paused(&scene);
                let written = || {
                    let busy =
                        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database()
                                AND pid <> pg_backend_pid() AND xact_start IS NOT NULL";
                    scene.source.psql(&format!("SELECT sum(v), ({busy}) FROM t"))
                };
                let before = written();
                assert!(before.ends_with("|0"), "{before}");
                std::thread::sleep(WHILE);
                assert_eq!(written(), before);
                resume(&scene);
            }
        });
        scene.expect_exact();
    }
}
