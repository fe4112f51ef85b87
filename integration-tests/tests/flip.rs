//! Cutover and rollback between two majors, under load: nothing fails, nothing is lost, and both databases stay equal.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, reason = "a test fails by a panic")]
use integration_tests::client::Endpoint;
use integration_tests::flip::{flipped, scene, stopped, verify};
use integration_tests::postgres::Cluster;
use integration_tests::process::eventually;
use integration_tests::proxy::Pgshadow;
use integration_tests::raw::RawClient;
use integration_tests::repeats;
use integration_tests::scene::{Scene, servers};
use integration_tests::workload::{Load, Protocol};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
const SCHEMA: &str = "CREATE TABLE account (id int PRIMARY KEY, v bigint NOT NULL);
INSERT INTO account SELECT g, 0 FROM generate_series(1, 100) g;
CREATE TABLE entry (id bigserial PRIMARY KEY, account int NOT NULL REFERENCES account, x int NOT NULL);
CREATE TABLE identity (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);";

/// Which server answers the application.
fn at(scene: &Scene) -> String {
    scene.app().psql("SHOW server_version_num")
}

fn refused(place: &Endpoint) {
    for sql in ["SELECT 1", "BEGIN READ WRITE; CREATE TABLE nowhere (v int); COMMIT"] {
        let said = place.try_psql(sql).expect_err("it must be refused");
        assert!(said.contains("permission denied for database"), "{said}");
    }
}

/// There and back: the application goes on with its session, the old primary lets nobody in, and is as before in the end.
#[test]
fn there_and_back() {
    let scene = scene(SCHEMA);
    let app = scene.app();
    let [old, new] = [&scene.source, &scene.target].map(|place| place.psql("SHOW server_version_num"));
    let (mut session, _) = RawClient::login(app.port, &app.user, &app.password, &app.database).unwrap();
    session.set_limit(LIMIT).unwrap();
    session.query("SET app.tenant = 'seven'").unwrap();
    session.query("PREPARE add (int) AS INSERT INTO entry (account, x) VALUES ($1, 1)").unwrap();
    session.query("EXECUTE add(1)").unwrap();
    let rights = "SELECT datacl::text, (SELECT array_agg(s.setconfig ORDER BY s.setrole) FROM pg_db_role_setting s WHERE s.setdatabase = d.oid) FROM pg_database d WHERE datname = current_database()";
    scene.source.psql(&format!("GRANT CONNECT ON DATABASE {} TO app", scene.source.database));
    let before = scene.source.psql(rights);
    verify(&scene);
    for round in 0..2 * repeats() {
        flipped(&scene, "cutover", "target");
        assert_eq!(session.value("SHOW server_version_num").unwrap(), new);
        assert_eq!((at(&scene), session.value("SHOW app.tenant").unwrap()), (new.clone(), "seven".to_owned()));
        session.query("EXECUTE add(2)").unwrap();
        session.query("INSERT INTO identity (v) VALUES ('there')").unwrap();
        refused(&scene.source);
        scene.drain();
        assert_eq!(scene.pgshadow.status()["certificate"]["valid"], true, "{:#}", scene.pgshadow.status());
        flipped(&scene, "rollback", "source");
        assert_eq!(session.value("SHOW server_version_num").unwrap(), old);
        session.query("EXECUTE add(3)").unwrap();
        session.query("INSERT INTO identity (v) VALUES ('back')").unwrap();
        assert_eq!(scene.source.psql(rights), before, "round {round}");
        refused(&scene.target);
        scene.drain();
    }
    assert_eq!(scene.app().psql("SELECT count(*) FROM entry"), (1 + 4 * repeats()).to_string());
    verify(&scene);
}

const SCRIPT: &str = "\\set id random(1, 100)\n\\set x random(1, 1000)
BEGIN;
UPDATE account SET v = v + :x WHERE id = :id;
INSERT INTO entry (account, x) VALUES (:id, :x);
COMMIT;
INSERT INTO identity (v) VALUES (:x);
SELECT v FROM account WHERE id = :id;\n";

/// Sums of what was acknowledged are what is there: no row is lost, none is twice.
fn expect_ledger(scene: &Scene) {
    scene.drain();
    let sums = "SELECT (SELECT sum(v) FROM account) = (SELECT sum(x) FROM entry)";
    for place in [&scene.source, &scene.target] {
        let superuser = servers().iter().find(|server| server.superuser().port == place.port).unwrap().superuser();
        let place = Endpoint { database: place.database.clone(), ..superuser };
        assert_eq!(place.psql(sums), "t");
    }
}

/// Under load in each protocol, to and fro: no client is told of anything, each pause is short, and both databases are equal after each.
#[test]
fn nothing_fails_under_load() {
    for protocol in Protocol::ALL {
        let scene = scene(SCHEMA);
        verify(&scene);
        // the shadow keeps up with it on two cores that all of this shares
        let load = Load::own("", SCRIPT).clients(16).threads(16).rate(150).protocol(protocol);
        let mut pauses = Vec::new();
        load.during(&scene.app(), || {
            for round in 0..2 * repeats() {
                let (command, to) = if round % 2 == 0 { ("cutover", "target") } else { ("rollback", "source") };
                let report = flipped(&scene, command, to);
                assert_eq!(report["ended"], 0, "{report:#}");
                pauses.push(report["pause_us"].as_u64().unwrap());
                eprintln!("{command} {} {} {}", report["pause_us"], report["held"], report["added_us"]);
                std::thread::sleep(Duration::from_millis(300));
                scene.drain();
                assert_eq!(scene.pgshadow.status()["certificate"]["valid"], true, "{:#}", scene.pgshadow.status());
            }
        });
        eprintln!("{}", scene.pgshadow.log());
        eprintln!("{protocol}: pauses of {pauses:?} us");
        expect_ledger(&scene);
        verify(&scene);
    }
}

fn login(scene: &Scene) -> RawClient {
    let app = scene.app();
    let (mut client, _) = RawClient::login(app.port, &app.user, &app.password, &app.database).unwrap();
    client.set_limit(LIMIT).unwrap();
    client
}

/// No number is drawn twice, whatever kind of sequence it is from.
#[test]
fn sequences_are_ahead() {
    let scene = scene(
        "CREATE TABLE a (id bigserial PRIMARY KEY, v int); CREATE TABLE b (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int);
         CREATE SEQUENCE cached CACHE 50; CREATE TABLE c (id bigint PRIMARY KEY DEFAULT nextval('cached'), v int);
         CREATE SEQUENCE \"Down\" INCREMENT -3 MAXVALUE 100000 START 100000; CREATE TABLE d (id bigint PRIMARY KEY DEFAULT nextval('\"Down\"'), v int);
         CREATE SEQUENCE imported; CREATE SEQUENCE never; CREATE SEQUENCE round MAXVALUE 5 CYCLE;",
    );
    let insert = |rows: u32| {
        for table in ["a", "b", "c", "d"] {
            scene.app().psql(&format!("INSERT INTO {table} (v) SELECT g FROM generate_series(1, {rows}) g"));
        }
    };
    insert(1000);
    assert_eq!(scene.app().psql("SELECT nextval('round')"), "1");
    assert_eq!(scene.app().psql("SELECT setval('imported', 7000, false)"), "7000");
    // drawn, and never written
    scene.app().psql("SELECT count(nextval('a_id_seq')) FROM generate_series(1, 500)");
    verify(&scene);
    for (command, to) in [("cutover", "target"), ("rollback", "source")] {
        flipped(&scene, command, to);
        insert(10_000);
        scene.drain();
    }
    assert_eq!(scene.app().psql("SELECT count(*), count(*) FILTER (WHERE id <= 1500) FROM a"), "21000|1000");
    assert_eq!(scene.app().psql("SELECT nextval('round'), nextval('never'), nextval('imported')"), "2|1|7000");
    verify(&scene);
}

/// An open transaction holds the drain: it is named, nothing happens to it, and nothing was changed.
#[test]
fn a_transaction_that_stays_open_is_named_and_nothing_is_changed() {
    let scene = scene(SCHEMA);
    verify(&scene);
    let rights = "SELECT datacl::text FROM pg_database WHERE datname = current_database()";
    let before = scene.source.psql(rights);
    let mut open = login(&scene);
    let mut waiting = login(&scene);
    open.query("BEGIN").unwrap();
    open.query("UPDATE account SET v = 7 WHERE id = 7").unwrap();
    let mut begun = scene.pgshadow.begin(&["cutover", "--unrehearsed", "--timeout", "3s"]);
    integration_tests::process::eventually("the pause", LIMIT, || {
        (scene.pgshadow.status()["paused"] == true).then_some(())
    });
    waiting.send_frame(b'Q', b"UPDATE account SET v = 8 WHERE id = 8\0").unwrap();
    assert_eq!(begun.wait().unwrap().code(), Some(1));
    assert_eq!(
        waiting.receive_until_ready().unwrap().iter().map(|frame| char::from(frame.tag)).collect::<String>(),
        "CZ"
    );
    let report = integration_tests::flip::last_report(&scene);
    assert_eq!(report["outcome"], "undone");
    let named = report["waited_for"].as_array().unwrap();
    assert_eq!(
        (named.len(), &named[0]["user"], &named[0]["state"]),
        (1, &"app".into(), &"idle in transaction".into()),
        "{report:#}"
    );
    assert!(named[0]["query"].as_str().unwrap().contains("UPDATE account"), "{report:#}");
    open.query("UPDATE account SET v = 9 WHERE id = 9").unwrap();
    open.query("COMMIT").unwrap();
    assert_eq!((scene.pgshadow.status()["primary"].as_str(), scene.source.psql(rights)), (Some("source"), before));
    assert_eq!(scene.source.psql("SELECT sum(v) FROM account"), "24");
    scene.expect_exact();
    flipped(&scene, "cutover", "target");
}

/// An applier that stands still isn't one that has nothing to do.
#[test]
fn a_shadow_that_stands_still_is_waited_for() {
    let scene = scene(SCHEMA);
    verify(&scene);
    let (mut locks, _) = RawClient::login(scene.target.port, "app", "app", &scene.target.database).unwrap();
    locks.set_limit(LIMIT).unwrap();
    locks.query("BEGIN").unwrap();
    locks.query("LOCK TABLE identity").unwrap();
    scene.app().psql("INSERT INTO identity (v) VALUES ('late')");
    let (code, report) = integration_tests::flip::flip(&scene, &["cutover", "--unrehearsed", "--timeout", "1500ms"]);
    assert_eq!(code.filter(|code| *code == 1 || *code == 3), code, "{report:#}");
    assert!(report["reason"].as_str().unwrap().contains("1 transactions"), "{report:#}");
    assert_eq!(scene.pgshadow.status()["primary"], "source");
    locks.query("ROLLBACK").unwrap();
    scene.drain();
    flipped(&scene, "cutover", "target");
    assert_eq!(scene.app().psql("SELECT v FROM identity"), "late");
}

/// The old primary dies right after the flip, and comes back later: nothing of what was written meanwhile is lost to it, and the way back is open.
#[test]
fn the_way_back_outlives_the_old_primary() {
    let [mut source, target] = [Cluster::old(), Cluster::newest()];
    let known = source.superuser().psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'");
    target.superuser().psql(&format!("ALTER ROLE app PASSWORD '{known}'"));
    for server in [&source, &target] {
        server.app().psql("CREATE TABLE t (id bigserial PRIMARY KEY, v int)");
    }
    let pgshadow = Pgshadow::between(&source, &target).users(&format!("\"app\" \"{known}\"\n")).start();
    pgshadow.run(&["verify"], LIMIT).success();
    pgshadow.run(&["cutover", "--unrehearsed"], LIMIT).success();
    source.kill9();
    pgshadow.app().psql("INSERT INTO t (v) SELECT g FROM generate_series(1, 500) g");
    let refused = pgshadow.run(&["rollback"], LIMIT);
    assert_ne!(refused.status.code(), Some(0), "{refused:#?}");
    assert_eq!(pgshadow.app().psql("SELECT count(*) FROM t"), "500");
    source.start();
    pgshadow.wait_drained(LIMIT);
    pgshadow.run(&["verify"], LIMIT).success();
    pgshadow.run(&["rollback"], LIMIT).success();
    assert_eq!(source.app().psql("SELECT count(*) FROM t"), "500");
}

/// Programs around a flip: the first may veto, both are told; and a flag file puts it off.
#[test]
fn hooks_and_a_flag_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let program = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(path(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    // it says more than a pipe holds, and reads nothing
    let says = "head -c 300000 /dev/zero | tr '\\0' x >&2";
    let vetoes = format!("{says}; test ! -e {} || {{ echo 'not on a Friday'; exit 3; }}", path("veto").display());
    program("before", &vetoes);
    program(
        "after",
        &format!(
            "echo $PGSHADOW_FROM $PGSHADOW_TO $PGSHADOW_OUTCOME >> {}; cat >> {}",
            path("told").display(),
            path("report").display()
        ),
    );
    let scene = Scene::with(SCHEMA, "", |builder| {
        let of = |name: &str| format!("{:?}", path(name).to_string_lossy());
        builder.users(&integration_tests::flip::users()).set("cutover", "before", &of("before")).set(
            "cutover",
            "after",
            &of("after"),
        )
    });
    verify(&scene);
    std::fs::write(path("veto"), "").unwrap();
    let (code, report) = integration_tests::flip::cutover(&scene, &["--unrehearsed"]);
    assert_eq!((code, report["outcome"].as_str()), (Some(3), Some("refused")), "{report:#}");
    assert!(report["reason"].as_str().unwrap().contains("not on a Friday"), "{report:#}");
    std::fs::remove_file(path("veto")).unwrap();
    std::fs::write(path("flag"), "").unwrap();
    let flag = path("flag").display().to_string();
    let mut begun = scene.pgshadow.begin(&["cutover", "--unrehearsed", "--postpone-cut-over-flag-file", &flag]);
    std::thread::sleep(Duration::from_millis(1500));
    let status = scene.pgshadow.status();
    assert_eq!(
        (&status["flipping"], &status["paused"], &status["primary"]),
        (&true.into(), &false.into(), &"source".into())
    );
    scene.app().psql("INSERT INTO identity (v) VALUES ('meanwhile')");
    std::fs::remove_file(path("flag")).unwrap();
    assert_eq!(begun.wait().unwrap().code(), Some(0));
    assert_eq!(scene.pgshadow.status()["primary"], "target");
    assert_eq!(scene.app().psql("SELECT v FROM identity"), "meanwhile");
    let told = std::fs::read_to_string(path("told")).unwrap();
    assert_eq!(told, "source target refused\nsource target flipped\n");
    assert!(std::fs::read_to_string(path("report")).unwrap().contains("\"pause_us\""));
}

/// A client that came past pgshadow after the gates were asked may have written what nobody saw.
#[test]
fn who_comes_past_it_at_the_last_moment_keeps_it_from_being_done() {
    let scene = scene(SCHEMA);
    verify(&scene);
    let rights = "SELECT datacl::text FROM pg_database WHERE datname = current_database()";
    scene.source.psql(&format!("GRANT CONNECT ON DATABASE {} TO app", scene.source.database));
    let before = scene.source.psql(rights);
    let mut begun = stopped(&scene, "Fence Fencing", &["cutover", "--unrehearsed"]);
    let (mut past, _) = RawClient::login(scene.source.port, "app", "app", &scene.source.database).unwrap();
    past.set_limit(LIMIT).unwrap();
    past.query("INSERT INTO identity (v) VALUES ('unseen')").unwrap();
    scene.pgshadow.go_on_with_flips();
    assert_eq!(begun.wait().unwrap().code(), Some(1));
    let report = integration_tests::flip::last_report(&scene);
    assert!(report["reason"].as_str().unwrap().contains("past pgshadow"), "{report:#}");
    drop(past);
    assert_eq!((scene.pgshadow.status()["primary"].as_str(), scene.source.psql(rights)), (Some("source"), before));
    assert_eq!(scene.pgshadow.status()["certificate"]["valid"], false);
    assert_eq!(scene.app().psql("SELECT count(*) FROM identity"), "1");
}

/// A role that was dropped while the old primary was a shadow doesn't keep the way back from being gone.
#[test]
fn a_role_that_is_gone_gets_no_right_back() {
    let scene = scene(SCHEMA);
    let places = servers().each_ref().map(|server| server.superuser());
    for place in &places {
        place.psql("CREATE ROLE \"gone \"\"by then\"");
        place.psql(&format!("GRANT CONNECT ON DATABASE {} TO \"gone \"\"by then\"", scene.source.database));
    }
    verify(&scene);
    flipped(&scene, "cutover", "target");
    places[0].psql("DROP ROLE \"gone \"\"by then\"");
    flipped(&scene, "rollback", "source");
    assert_eq!(scene.source.psql("SELECT 1"), "1");
}

/// A rehearsal that nobody waits for any more is brought back all the same; one whose process was killed there says so.
#[test]
fn a_rehearsal_comes_back() {
    let mut scene = scene(SCHEMA);
    verify(&scene);
    for killed in [false, true] {
        let mut begun = stopped(&scene, "Leave Committed", &["rehearse"]);
        integration_tests::process::signal(begun.id(), "KILL");
        begun.wait().unwrap();
        if killed {
            scene.pgshadow.kill9();
            scene.pgshadow.go_on_with_flips();
            scene.pgshadow.start();
            integration_tests::process::eventually("it is over", LIMIT, || scene.pgshadow.flip_is_over().then_some(()));
            let status = scene.pgshadow.status();
            assert!(status["next_step"].as_str().unwrap().contains("pgshadow rollback"), "{status:#}");
            scene.drain();
            verify(&scene);
            flipped(&scene, "rollback", "source");
            assert!(!scene.pgshadow.status()["next_step"].as_str().unwrap().contains("pgshadow rollback"));
        } else {
            scene.pgshadow.go_on_with_flips();
            let is_back =
                || (scene.pgshadow.flip_is_over() && scene.pgshadow.status()["primary"] == "source").then_some(());
            integration_tests::process::eventually("it comes back", LIMIT, is_back);
            scene.drain();
            let (code, report) = integration_tests::flip::cutover(&scene, &["--dry-run"]);
            assert_eq!(code, Some(0), "{report:#}");
        }
    }
}

/// With mirroring switched off the application is still sent to where the primary is.
#[test]
fn who_mirrors_no_more_knows_where_the_primary_is() {
    let mut scene = scene(SCHEMA);
    verify(&scene);
    flipped(&scene, "cutover", "target");
    let there = at(&scene);
    scene.pgshadow.stop();
    let text = std::fs::read_to_string(scene.pgshadow.config()).unwrap();
    std::fs::write(scene.pgshadow.config(), format!("{text}\n[mirror]\nenabled = false\n")).unwrap();
    scene.pgshadow.start();
    assert_eq!((at(&scene), scene.pgshadow.status()["primary"].as_str()), (there, Some("target")));
    scene.app().psql("INSERT INTO identity (v) VALUES ('there')");
}

/// The end of a migration, there or here: nothing that pgshadow made is left but what it names, and the application goes on, also with the next process.
#[test]
fn a_migration_is_ended() {
    for finalized in [true, false] {
        let scene = scene(SCHEMA);
        verify(&scene);
        let mut session = login(&scene);
        let finish = |command: &str| scene.pgshadow.run(&[command, "--json"], LIMIT);
        flipped(&scene, "cutover", "target");
        if !finalized {
            let refused = finish("abort");
            assert!(refused.stderr.contains("pgshadow rollback"), "{refused:#?}");
            flipped(&scene, "rollback", "source");
            let refused = finish("finalize");
            assert!(refused.stderr.contains("pgshadow cutover"), "{refused:#?}");
        }
        session.query("INSERT INTO identity (v) VALUES ('before')").unwrap();
        scene.drain();
        let (command, place) = if finalized { ("finalize", 1) } else { ("abort", 0) };
        let report: serde_json::Value = serde_json::from_str(&finish(command).success()).unwrap();
        for server in servers() {
            let place = server.superuser().in_database(&scene.source.database);
            assert_eq!(place.psql("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgshadow'"), "0", "{report:#}");
        }
        let left = report["left"].to_string();
        assert!(left.contains("GRANT CONNECT") && left.contains("cutover.json"), "{report:#}");
        let of = servers()[place].superuser().psql("SHOW server_version_num");
        for round in 0..2 {
            let status = scene.pgshadow.status();
            assert_eq!(
                (&status["mirroring"], status["primary"].as_str()),
                (&false.into(), Some(if finalized { "target" } else { "source" }))
            );
            assert_eq!(scene.app().psql("SHOW server_version_num"), of);
            scene.app().psql("INSERT INTO identity (v) VALUES ('after')");
            if round == 0 {
                session.query("INSERT INTO identity (v) VALUES ('after')").unwrap();
                // once more finds nothing to remove, and the other end is none any more
                let again: serde_json::Value = serde_json::from_str(&finish(command).success()).unwrap();
                assert_eq!(again["removed"], serde_json::json!([]));
                let other = if finalized { "abort" } else { "finalize" };
                assert!(!finish(other).status.success());
                // the next process knows it
                let mut pgshadow = scene.pgshadow;
                pgshadow.restart();
                let other = Scene { source: scene.source.clone(), target: scene.target.clone(), pgshadow };
                assert_eq!(other.app().psql("SHOW server_version_num"), of);
                assert_eq!(other.pgshadow.status()["mirroring"], false);
                break;
            }
        }
    }
}

#[test]
fn an_end_that_was_cut_off_is_gone_on_with() {
    let mut scene = scene(SCHEMA);
    verify(&scene);
    flipped(&scene, "cutover", "target");
    scene.app().psql("INSERT INTO identity (v) VALUES ('there')");
    scene.drain();
    let mut ending = stopped(&scene, "Finish", &["finalize"]);
    scene.pgshadow.kill9();
    assert!(!ending.wait().unwrap().success());
    scene.pgshadow.go_on_with_flips();
    scene.pgshadow.start();
    let made = |server: usize| {
        let place = servers()[server].superuser().in_database(&scene.source.database);
        place.psql("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgshadow'")
    };
    assert_eq!([made(0), made(1)], ["1", "1"]);
    assert_eq!(
        (&scene.pgshadow.status()["mirroring"], &scene.pgshadow.status()["primary"]),
        (&false.into(), &"target".into())
    );
    scene.app().psql("INSERT INTO identity (v) VALUES ('after')");
    scene.pgshadow.run(&["finalize"], LIMIT).success();
    assert_eq!([made(0), made(1)], ["0", "0"]);
    let left: Vec<String> = std::fs::read_dir(scene.pgshadow.data_directory())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(left.iter().all(|name| name.starts_with("cutover") || name == "flips" || name == "lock"), "{left:?}");
}

/// Tables are looked up on the new primary ahead of the pause. What is defined behind that look keeps the flip from being done, and is known to the
/// next one.
#[test]
fn what_is_defined_amid_a_flip_keeps_it_from_being_done() {
    let scene = scene(SCHEMA);
    let mut session = login(&scene);
    let write = |session: &mut RawClient, table: &str| {
        for sql in
            ["INSERT INTO # VALUES (1, '1'), (2, '2')", "UPDATE # SET v = id || 'x'", "DELETE FROM # WHERE id = 1"]
        {
            let frames = session.query(&sql.replace('#', table)).unwrap();
            assert!(frames.iter().all(|frame| frame.tag != b'E'), "{sql} {table}: {frames:?}");
        }
    };
    scene.app().psql("CREATE TABLE known (id int PRIMARY KEY, v text)");
    for (command, to, fresh) in [("cutover", "target", "fresh_here"), ("rollback", "source", "fresh_there")] {
        write(&mut session, "known");
        session.query("TRUNCATE known").unwrap();
        // one that isn't there yet is looked up, too
        assert!(session.query(&format!("SELECT FROM {fresh}")).unwrap().iter().any(|frame| frame.tag == b'E'));
        verify(&scene);
        let mut commanding = stopped(&scene, "Hold Holding", &[command, "--unrehearsed"]);
        session.query(&format!("CREATE TABLE {fresh} (id int PRIMARY KEY, v text)")).unwrap();
        scene.pgshadow.go_on_with_flips();
        assert!(!commanding.wait().unwrap().success(), "{}", scene.pgshadow.log());
        assert_ne!(scene.pgshadow.status()["primary"], to);
        verify(&scene);
        let report = flipped(&scene, command, to);
        let looked_up = report["timeline"].as_array().unwrap().iter().find_map(|moment| {
            moment["what"].as_str()?.strip_suffix(" names were looked up there")?.parse::<usize>().ok()
        });
        assert!(looked_up.is_some_and(|names| names >= 1), "{report:#}");
        write(&mut session, fresh);
        write(&mut session, "known");
        session.query("TRUNCATE known").unwrap();
        assert_eq!(scene.pgshadow.suspect_tables(), Vec::<String>::new());
        verify(&scene);
    }
}

/// A transaction that was prepared through pgshadow and is committed past it amid a flip: its rows are there behind the flip as well.
#[test]
fn what_is_committed_past_it_amid_a_flip_is_there_behind_it() {
    let scene = scene(SCHEMA);
    for (round, (command, to)) in [("cutover", "target"), ("rollback", "source")].into_iter().enumerate() {
        verify(&scene);
        let mut commanding = stopped(&scene, "Hold Holding", &[command, "--unrehearsed"]);
        scene.app().psql(&format!(
            "BEGIN; INSERT INTO identity (v) VALUES ('prepared {round}'); PREPARE TRANSACTION 'p{round}'"
        ));
        let place = servers()[round].superuser().in_database(&scene.source.database);
        place.psql(&format!("COMMIT PREPARED 'p{round}'"));
        scene.pgshadow.go_on_with_flips();
        assert!(commanding.wait().unwrap().success(), "{}", scene.pgshadow.log());
        assert_eq!(scene.pgshadow.status()["primary"], to);
        assert_eq!(scene.app().psql("SELECT v FROM identity ORDER BY id DESC LIMIT 1"), format!("prepared {round}"));
    }
    verify(&scene);
}

/// What keeps a rehearsal from coming back at once doesn't keep it there.
#[test]
fn the_way_back_of_a_rehearsal_is_tried_again() {
    let scene = scene(SCHEMA);
    verify(&scene);
    let mut rehearsal = stopped(&scene, "Leave Committed", &["rehearse", "--timeout", "1s"]);
    let mut open = login(&scene);
    open.query("BEGIN").unwrap();
    open.query("INSERT INTO identity (v) VALUES ('open')").unwrap();
    scene.pgshadow.go_on_with_flips();
    let flips = || {
        let (_, reports) = scene.pgshadow.http("/api/flip").unwrap();
        serde_json::from_str::<Vec<serde_json::Value>>(&reports).unwrap()
    };
    // there, and twice not back
    eventually("it is tried again", LIMIT, || (flips().len() >= 3).then_some(()));
    assert_eq!(scene.pgshadow.status()["primary"], "target");
    open.query("COMMIT").unwrap();
    assert!(rehearsal.wait().unwrap().success(), "{}", scene.pgshadow.log());
    assert_eq!(scene.pgshadow.status()["primary"], "source");
    let outcomes: Vec<String> = flips().iter().map(|flip| flip["outcome"].as_str().unwrap().to_owned()).collect();
    assert!(outcomes.iter().filter(|outcome| *outcome == "flipped").count() == 2, "{outcomes:?}");
    verify(&scene);
    let (code, report) = integration_tests::flip::cutover(&scene, &["--dry-run"]);
    assert_eq!(code, Some(0), "it counts as one: {report:#}");
}

/// Where it can't be told what is on disk of the journal the process ends, before anything was let go on; the next one goes by what it finds.
#[test]
fn a_journal_that_can_not_be_told_ends_the_process() {
    let mut scene = scene(SCHEMA);
    verify(&scene);
    let journal = scene.pgshadow.data_directory().join("cutover.json");
    let mut session = login(&scene);
    let mut commanding = stopped(&scene, "Keep Committed", &["cutover", "--unrehearsed"]);
    session.send_frame(b'Q', b"INSERT INTO identity (v) VALUES ('held')\0").unwrap();
    let kept = std::fs::read(&journal).unwrap();
    std::fs::remove_file(&journal).unwrap();
    std::fs::create_dir(&journal).unwrap();
    scene.pgshadow.go_on_with_flips();
    eventually("it has ended", LIMIT, || scene.pgshadow.http("/livez").is_err().then_some(()));
    assert!(session.receive().is_err(), "what was held was not sent to any server");
    commanding.wait().unwrap();
    scene.pgshadow.kill9();
    std::fs::remove_dir(&journal).unwrap();
    std::fs::write(&journal, kept).unwrap();
    scene.pgshadow.start();
    eventually("it is undone", LIMIT, || scene.pgshadow.flip_is_over().then_some(()));
    assert_eq!(scene.pgshadow.status()["primary"], "source");
    assert_eq!(scene.app().psql("SELECT count(*) FROM identity"), "0");
    scene.app().psql("INSERT INTO identity (v) VALUES ('after')");
    verify(&scene);
    flipped(&scene, "cutover", "target");
    verify(&scene);
}

/// What a flip has left that was cut off is put in order before a migration is ended.
#[test]
fn a_flip_that_was_cut_off_comes_before_the_end() {
    let mut scene = scene(SCHEMA);
    verify(&scene);
    let mut commanding = stopped(&scene, "Keep Committed", &["cutover", "--unrehearsed"]);
    scene.pgshadow.kill9();
    commanding.wait().unwrap();
    scene.pgshadow.stop_flip_at("Recover Unfence");
    scene.pgshadow.start();
    eventually("its undoing stops", LIMIT, || scene.pgshadow.flip_has_stopped().then_some(()));
    for command in ["abort", "cutover"] {
        let refused = scene.pgshadow.run(&[command], LIMIT);
        assert!(!refused.status.success(), "{command}: {refused:#?}");
    }
    assert_eq!(scene.pgshadow.status()["mirroring"], true);
    scene.pgshadow.go_on_with_flips();
    eventually("it is undone", LIMIT, || scene.pgshadow.flip_is_over().then_some(()));
    scene.pgshadow.run(&["abort"], LIMIT).success();
    assert_eq!(scene.pgshadow.status()["mirroring"], false);
    scene.app().psql("INSERT INTO identity (v) VALUES ('after')");
    assert_eq!(scene.source.psql("SELECT v FROM identity"), "after");
}

/// Of each direction but the present one and the one before it nothing is kept.
#[test]
fn earlier_directions_leave_no_directories() {
    let scene = scene(SCHEMA);
    verify(&scene);
    let eras = || {
        let all = std::fs::read_dir(scene.pgshadow.data_directory().join("eras")).unwrap().flatten();
        let mut names: Vec<String> = all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names.join(" ")
    };
    for (round, kept) in ["1", "1 2", "2 3", "3 4"].into_iter().enumerate() {
        let (command, to) = if round % 2 == 0 { ("cutover", "target") } else { ("rollback", "source") };
        flipped(&scene, command, to);
        scene.app().psql("INSERT INTO identity (v) VALUES ('x')");
        scene.drain();
        assert_eq!(eras(), kept);
    }
    verify(&scene);
}
