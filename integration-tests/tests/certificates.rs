//! The certificates that a verify gives: what keeps them valid, and what ends them.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::fault::Link;
use integration_tests::postgres::Cluster;
use integration_tests::process::eventually;
use integration_tests::proxy::{Pgshadow, PgshadowBuilder};
use integration_tests::repeats;
use integration_tests::scene::{EVERY_TABLE, Scene, servers};
use integration_tests::verify::{LIMIT, SCHEMA, SCRIPT, tables, under_load, unpaced, verify};
use serde_json::Value;
use std::time::Duration;

/// A certificate stays valid while all is applied exactly, and lapses, by table and with the reason, when something isn't.
#[test]
fn a_certificate_stays_valid_until_something_happens() {
    let mut scene = unpaced(SCHEMA);
    let certificate = |scene: &Scene| {
        let status = scene.pgshadow.status();
        let of = &status["certificate"];
        (
            of["valid"].as_bool().unwrap(),
            of["tables"].as_u64().unwrap(),
            of["reason"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(certificate(&scene), (false, 0, "no table was verified: run `pgshadow verify`".to_owned()));
    verify(&scene, &["public.busy"]);
    assert_eq!(certificate(&scene), (false, 1, "not all tables were verified".to_owned()));
    under_load(&scene, SCRIPT, || {
        verify(&scene, &[]);
        assert_eq!(certificate(&scene), (true, 10, String::new()));
        std::thread::sleep(Duration::from_secs(2));
    });
    scene.drain();
    assert_eq!(certificate(&scene), (true, 10, String::new()), "what was applied since fits");
    let file = scene.pgshadow.data_directory().join("certificate.json");
    let written = scene.pgshadow.run(&["verify", "--certificate", &file.to_string_lossy()], LIMIT);
    assert_eq!(written.status.code(), Some(0), "{written:#?}");
    let record: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!((&record["valid"], record["tables"].as_array().unwrap().len()), (&true.into(), 10), "{record:#}");
    let busy = record["tables"].as_array().unwrap().iter().find(|t| t["table"]["name"] == "busy").unwrap();
    assert_eq!((&busy["rows"], busy["hash"].as_str().unwrap().len()), (&20_000.into(), 32), "{busy:#}");
    scene.pgshadow.restart();
    assert_eq!(certificate(&scene), (true, 10, String::new()), "it is kept");
    for (sql, tables, reason) in [
        ("ALTER TABLE named ADD w int", 9, "public.named: definitions have changed: ALTER TABLE named"),
        ("CREATE TABLE later (a int)", 10, "definitions have changed: CREATE TABLE later"),
        ("DO $$ BEGIN UPDATE named SET v = 1; END $$", 0, "public.Odd \"Name: a procedure or block"),
    ] {
        let (report, equal) = verify(&scene, &[]);
        assert!(equal && certificate(&scene).0, "{report:#}");
        scene.app().psql(sql);
        scene.drain();
        let (valid, left, why) = certificate(&scene);
        assert!(!valid && left == tables && why.starts_with(reason), "{sql}: {left} {why}");
    }
    let (report, equal) = verify(&scene, &[]);
    let differ: Vec<_> = tables(&report).iter().filter(|t| t["different"] != 0).map(|t| &t["table"]["name"]).collect();
    assert!(!equal && differ == ["named"], "{report:#}");
    let suspect = scene.pgshadow.status()["suspect_tables"].clone();
    assert!(!suspect.as_array().unwrap().is_empty(), "of one it isn't known: {suspect:#}");
    let mended = scene.pgshadow.run(&["repair"], LIMIT);
    assert_eq!(mended.status.code(), Some(0), "{mended:#?}");
    scene.drain();
    verify(&scene, &["public.named"]);
    verify(&scene, &[]);
    assert!(certificate(&scene).0, "{:?}", certificate(&scene));
    assert_eq!(scene.pgshadow.status()["suspect_tables"].as_array().unwrap().len(), 0);
}

/// A suspect table that is found to be equal is suspect no more; but one that a transaction may still change unseen is, once that
/// commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_equal_is_suspect_no_more_until_it_is_doubted_again() {
    let scene = Scene::of(
        "CREATE TABLE a (id int PRIMARY KEY, v int); INSERT INTO a VALUES (1, 1); CREATE TABLE b (id int PRIMARY KEY)",
    );
    let suspects = || scene.pgshadow.status()["suspect_tables"].as_array().unwrap().len();
    for _ in 0..repeats() {
        let (_, equal) = verify(&scene, &[]);
        assert!(equal && suspects() == 0);
        scene.app().psql("DO $$ BEGIN PERFORM 1; END $$");
        assert!(suspects() > 0);
        let client = scene.app().connect().await;
        client.batch_execute("BEGIN; DO $$ BEGIN UPDATE a SET v = v; END $$").await.unwrap();
        let (report, equal) = verify(&scene, &[]);
        assert!(equal && suspects() == 0, "{report:#}");
        client.batch_execute("COMMIT").await.unwrap();
        scene.drain();
        assert!(suspects() > 0, "what it did isn't known");
    }
}

#[test]
fn a_row_that_does_not_fit_ends_its_table_s_certificate() {
    let scene = Scene::of(
        "CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY, v int); INSERT INTO a VALUES (1, 1)",
    );
    verify(&scene, &[]);
    scene.target.psql("DELETE FROM a");
    scene.app().psql("UPDATE a SET v = 2; INSERT INTO b VALUES (1, 1)");
    scene.drain();
    let status = scene.pgshadow.status();
    assert_eq!(status["certificate"]["tables"], 1, "{status:#}");
    assert!(status["certificate"]["reason"].as_str().is_some_and(|why| why.starts_with("public.a: ")), "{status:#}");
    verify(&scene, &["public.a"]);
    assert_eq!(scene.pgshadow.status()["certificate"]["valid"], true, "it was healed, and is equal");
}

/// Who is connected past pgshadow may write unseen: no certificate is valid meanwhile, none is given, and what was valid lapses.
#[tokio::test]
async fn a_client_past_pgshadow_ends_all_certificates() {
    let scene = Scene::of("CREATE TABLE a (id int PRIMARY KEY)");
    let certificate = |scene: &Scene| scene.pgshadow.status()["certificate"].clone();
    let through = scene.app().connect().await;
    verify(&scene, &[]);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(certificate(&scene)["valid"], true, "{}", certificate(&scene));
    let past = scene.source.connect().await;
    let lapsed = async {
        while certificate(&scene)["valid"] == true {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), lapsed).await.unwrap();
    let told = certificate(&scene)["reason"].as_str().unwrap().to_owned();
    assert!(told.starts_with("public.a: a client is connected past pgshadow: user app"), "{told}");
    verify(&scene, &[]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(certificate(&scene)["valid"], false, "it is still there");
    drop(past);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    verify(&scene, &[]);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(certificate(&scene)["valid"], true, "{}", certificate(&scene));
    drop(through);
}

/// What is written past pgshadow while it isn't there ends the certificates of those tables, at an orderly end as after a kill; others stay.
#[test]
fn what_was_written_while_pgshadow_was_away_is_proven_no_more() {
    let mut scene = Scene::of(
        "CREATE TABLE a (id int PRIMARY KEY, v int); INSERT INTO a VALUES (1, 1);
         CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY); INSERT INTO c VALUES (1)",
    );
    let certificates = |scene: &Scene| -> Vec<(String, String)> {
        let (_, body) = scene.pgshadow.http("/api/certificate").expect("it answers");
        let record: Value = serde_json::from_str(&body).unwrap();
        let lapsed = record["tables"].as_array().unwrap().iter().filter(|table| !table["lapsed"].is_null());
        let name = |table: &Value| table["table"]["name"].as_str().unwrap().to_owned();
        lapsed.map(|table| (name(table), table["lapsed"].as_str().unwrap().to_owned())).collect()
    };
    for (killed, past, ends) in [
        (false, "", &[][..]),
        (true, "", &[]),
        (false, "UPDATE a SET v = v + 1", &["a"]),
        (true, "UPDATE a SET v = v + 1", &["a"]),
        (true, "TRUNCATE c; INSERT INTO b VALUES (100); DELETE FROM b WHERE id = 100", &["b", "c"]),
    ] {
        let (report, equal) = verify(&scene, &[]);
        assert!(equal, "{report:#}");
        // by then what was read last holds all that the application has written
        std::thread::sleep(Duration::from_millis(2500));
        scene.app().psql("INSERT INTO b SELECT count(*) FROM b");
        std::thread::sleep(Duration::from_millis(2500));
        assert_eq!(certificates(&scene), []);
        if killed {
            scene.pgshadow.kill9();
        } else {
            scene.pgshadow.stop();
        }
        scene.source.psql(past);
        scene.pgshadow.start();
        let lapsed = certificates(&scene);
        let names: Vec<&str> = lapsed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ends, "{lapsed:?}");
        assert!(lapsed.iter().all(|(_, why)| why.contains("while pgshadow was not looking")), "{lapsed:?}");
        assert_eq!(verify(&scene, &[]).1, past.is_empty());
        scene.target.psql(past);
    }
}

/// Who comes past pgshadow just as it ends is not taken for one of its sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_past_pgshadow_as_it_ends_is_not_taken_for_its_own() {
    let mut scene = Scene::of("CREATE TABLE a (id int PRIMARY KEY, v int); INSERT INTO a VALUES (1, 1)");
    assert!(verify(&scene, &[]).1);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(scene.pgshadow.status()["certificate"]["valid"], true);
    let past = scene.source.connect().await;
    past.batch_execute("UPDATE a SET v = 2").await.unwrap();
    scene.pgshadow.stop();
    drop(past);
    scene.pgshadow.start();
    let certificate = scene.pgshadow.status()["certificate"].clone();
    assert_eq!(certificate["valid"], false, "{certificate:#}");
}

/// Once mirroring has stopped nothing is proven any more.
#[tokio::test]
async fn no_certificate_once_mirroring_has_stopped() {
    let schema = "CREATE TABLE a (id int PRIMARY KEY, t text); CREATE TABLE b (id int PRIMARY KEY)";
    let scene = Scene::with(schema, "", |builder| builder.set("mirror_log", "size_max", "\"64MiB\""));
    verify(&scene, &[]);
    assert_eq!(scene.pgshadow.status()["certificate"]["valid"], true);
    let holder = scene.target.connect().await;
    holder.batch_execute("BEGIN; LOCK TABLE a").await.unwrap();
    let write = "SELECT format('INSERT INTO a SELECT g, repeat(md5(g::text), 1000) FROM generate_series(%s, %s) g', n * 10, n * 10 + 9)
        FROM generate_series(1, 400) n \\gexec";
    scene.app().psql(write);
    let status = scene.pgshadow.status();
    assert_eq!((&status["mirroring"], &status["certificate"]["valid"]), (&false.into(), &false.into()), "{status:#}");
    let reason = status["certificate"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("public.a: mirroring has stopped"), "{reason}");
    let refused = scene.pgshadow.run(&["verify"], LIMIT);
    assert!(refused.status.code() == Some(1) && refused.stderr.contains("mirroring has stopped"), "{refused:#?}");
    drop(holder);
}

fn is_valid(scene: &Scene) -> bool {
    scene.pgshadow.status()["certificate"]["valid"] == true
}

/// A scene on servers of its own, which it may break.
fn alone(schema: &str, set_up: impl FnOnce(PgshadowBuilder) -> PgshadowBuilder) -> ([Cluster; 2], Scene) {
    let servers = [Cluster::old(), Cluster::newest()];
    for server in &servers {
        server.app().psql(schema);
    }
    let pgshadow = set_up(Pgshadow::between(&servers[0], &servers[1])).start();
    let scene = Scene { source: servers[0].app(), target: servers[1].app(), pgshadow };
    (servers, scene)
}

/// A crash empties unlogged tables: those of the server that had one are doubted.
#[test]
fn unlogged_tables_are_doubted_once_a_server_has_crashed() {
    let (servers, scene) = alone(
        "CREATE UNLOGGED TABLE u (id int PRIMARY KEY); CREATE TABLE l (id int PRIMARY KEY); INSERT INTO l VALUES (1)",
        |builder| builder,
    );
    for server in servers.iter().rev() {
        for side in [&scene.source, &scene.target] {
            side.psql("TRUNCATE u; INSERT INTO u VALUES (1)");
        }
        assert!(verify(&scene, &[]).1 && is_valid(&scene));
        let checkpointer =
            server.superuser().psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
        let killed = std::process::Command::new("kill").args(["-9", checkpointer.trim()]).status().unwrap();
        assert!(killed.success());
        let doubted = || Some(scene.pgshadow.suspect_tables()).filter(|tables| !tables.is_empty());
        let tables = eventually("a table is suspect", LIMIT, doubted);
        assert_eq!(tables, ["public.u"]);
        assert!(!is_valid(&scene));
        eventually("the server is there again", LIMIT, || server.app().try_psql("SELECT count(*) FROM u").ok());
    }
}

/// The target was made anew while pgshadow was away: nothing of it is proven any more.
#[test]
fn a_target_that_was_made_anew_proves_nothing() {
    let schema = "CREATE TABLE a (id int PRIMARY KEY)";
    let mut scene = Scene::of(&format!("{schema}; INSERT INTO a VALUES (1)"));
    assert!(verify(&scene, &[]).1);
    scene.pgshadow.restart();
    assert!(is_valid(&scene) && scene.pgshadow.suspect_tables().is_empty(), "it is the same one");
    scene.pgshadow.stop();
    let name = scene.target.database.clone();
    servers()[1].superuser().psql(&format!("DROP DATABASE {name}"));
    servers()[1].create_database(&name).psql(schema);
    scene.pgshadow.start();
    let suspects = || Some(scene.pgshadow.suspect_tables()).filter(|tables| tables.iter().any(|t| t == EVERY_TABLE));
    eventually("every table is suspect", LIMIT, suspects);
    assert!(!is_valid(&scene));
    let (report, equal) = verify(&scene, &[]);
    assert!(!equal, "{report:#}");
}

/// Nor one that is back at an older state, though nothing was mirrored since: what a load has brought isn't in the log.
#[test]
fn a_target_that_is_back_where_it_was_before_a_load_proves_nothing() {
    let (source, mut target) = (Cluster::old(), Cluster::newest());
    let schema = "CREATE TABLE a (id int PRIMARY KEY)";
    source.app().psql(&format!("{schema}; INSERT INTO a VALUES (1)"));
    target.app().psql(schema);
    let mut pgshadow = Pgshadow::between(&source, &target).start();
    pgshadow.app().psql("INSERT INTO a VALUES (2)");
    pgshadow.wait_drained(LIMIT);
    for while_it_runs in [true, false] {
        let save = |target: &mut Cluster, name: &str| {
            target.stop();
            target.save(name);
            target.start();
        };
        save(&mut target, &format!("before {while_it_runs}"));
        pgshadow.run(&["backfill"], LIMIT);
        pgshadow.run(&["backfill", "--again"], LIMIT).success();
        pgshadow.run(&["verify"], LIMIT).success();
        assert_eq!(pgshadow.status()["certificate"]["valid"], true);
        // one that is restarted is the same
        save(&mut target, "unused");
        pgshadow.restart();
        pgshadow.wait_drained(LIMIT);
        assert_eq!((&pgshadow.status()["certificate"]["valid"], pgshadow.suspect_tables().len()), (&true.into(), 0));
        if !while_it_runs {
            pgshadow.stop();
        }
        target.stop();
        target.restore(&format!("before {while_it_runs}"));
        target.start();
        if !while_it_runs {
            pgshadow.start();
        }
        eventually("every table is suspect", LIMIT, || {
            Some(()).filter(|()| pgshadow.suspect_tables().iter().any(|t| t == EVERY_TABLE))
        });
        assert_eq!(pgshadow.status()["certificate"]["valid"], false);
        let missing = pgshadow.run(&["verify"], LIMIT);
        assert_eq!(missing.status.code(), Some(3), "{missing:#?}");
    }
}

/// What was excluded isn't proven by what was proven without it.
#[test]
fn a_table_that_was_excluded_is_doubted_when_it_is_excluded_no_more() {
    let mut scene = Scene::of("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)");
    let exclude = |scene: &mut Scene, list: &str| {
        let path = scene.pgshadow.config();
        let text = std::fs::read_to_string(&path).unwrap();
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("exclude") && *line != "[mirror]").collect();
        scene.pgshadow.stop();
        std::fs::write(&path, format!("{}\n[mirror]\nexclude = [{list}]\n", kept.join("\n"))).unwrap();
        scene.pgshadow.start();
    };
    assert!(verify(&scene, &[]).1 && is_valid(&scene));
    exclude(&mut scene, "\"public.a\"");
    assert!(!is_valid(&scene), "{:#}", scene.pgshadow.status()["certificate"]);
    assert!(verify(&scene, &[]).1 && is_valid(&scene), "without a");
    scene.app().psql("INSERT INTO a VALUES (1)");
    std::thread::sleep(Duration::from_millis(2500));
    exclude(&mut scene, "");
    assert!(!is_valid(&scene) && scene.pgshadow.suspect_tables() == ["public.a"]);
    assert!(!verify(&scene, &[]).1, "its row is missing");
    scene.target.psql("INSERT INTO a VALUES (1)");
    assert!(verify(&scene, &[]).1 && is_valid(&scene));
}

/// Definitions that were made past pgshadow while it wasn't there: also those that leave the version of the table as it was.
#[test]
fn definitions_that_were_made_while_pgshadow_was_away_end_certificates() {
    let mut scene = Scene::of(
        "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE t (id int PRIMARY KEY, m mood, v int); INSERT INTO t VALUES (1, 'a', 1)",
    );
    for past in [
        "CREATE TABLE n (id int PRIMARY KEY)",
        "ALTER TYPE mood RENAME VALUE 'a' TO 'c'",
        "ALTER TABLE t RENAME v TO w",
    ] {
        let (report, equal) = verify(&scene, &[]);
        assert!(equal, "{report:#}");
        std::thread::sleep(Duration::from_millis(2500));
        scene.pgshadow.restart();
        assert!(is_valid(&scene), "{past}: nothing was changed yet: {:#}", scene.pgshadow.status()["certificate"]);
        scene.pgshadow.stop();
        for side in [&scene.source, &scene.target] {
            side.psql(past);
        }
        // written by its own process as that ends
        std::thread::sleep(Duration::from_millis(500));
        scene.pgshadow.start();
        let certificate = scene.pgshadow.status()["certificate"].clone();
        assert_eq!(certificate["valid"], false, "{past}: {certificate:#}");
    }
}

/// Who was connected while nobody could look isn't known, and once the primary was started again its counts say nothing.
#[test]
fn a_restart_of_the_primary_after_a_time_without_a_look_ends_certificates() {
    let mut source = Cluster::old();
    let target = Cluster::newest();
    for server in [&source, &target] {
        server.app().psql("CREATE TABLE a (id int PRIMARY KEY, v int); INSERT INTO a VALUES (1, 1)");
    }
    let link = Link::to(source.port());
    let pgshadow = Pgshadow::between(&source, &target).source_port(link.port()).start();
    let scene = Scene { source: source.app(), target: target.app(), pgshadow };
    assert!(verify(&scene, &[]).1 && is_valid(&scene));
    std::thread::sleep(Duration::from_secs(3));
    link.cut();
    scene.source.psql("UPDATE a SET v = 2");
    std::thread::sleep(Duration::from_secs(7));
    source.restart();
    link.mend();
    let lapsed = || Some(scene.pgshadow.status()["certificate"].clone()).filter(|c| c["valid"] == false);
    let certificate = eventually("the certificate lapses", Duration::from_secs(30), lapsed);
    assert!(certificate["reason"].as_str().unwrap().contains("started again"), "{certificate:#}");
}

/// A deleted log doesn't make a target that was made anew one that was never loaded.
#[test]
fn a_deleted_log_and_a_new_target_prove_nothing() {
    let schema = "CREATE TABLE a (id int PRIMARY KEY)";
    let mut scene = Scene::of(&format!("{schema}; INSERT INTO a VALUES (1)"));
    assert!(verify(&scene, &[]).1);
    scene.pgshadow.stop();
    std::fs::remove_dir_all(scene.pgshadow.data_directory().join("log")).unwrap();
    let name = scene.target.database.clone();
    servers()[1].superuser().psql(&format!("DROP DATABASE {name}"));
    servers()[1].create_database(&name).psql(schema);
    scene.pgshadow.start();
    let suspects = || Some(()).filter(|()| scene.pgshadow.suspect_tables().iter().any(|t| t == EVERY_TABLE));
    eventually("every table is suspect", LIMIT, suspects);
    assert!(!is_valid(&scene));
}

/// An application's temporary tables aren't definitions that matter, nor are excluded tables that a crash empties.
#[test]
fn temporary_and_excluded_tables_end_no_certificate() {
    let schema = "CREATE TABLE a (id int PRIMARY KEY); CREATE UNLOGGED TABLE u (id int)";
    let (mut servers, mut scene) = alone(schema, |builder| builder.set("mirror", "exclude", "[\"public.u\"]"));
    assert!(verify(&scene, &[]).1);
    std::thread::sleep(Duration::from_millis(2500));
    scene.app().psql("CREATE TEMP TABLE t (id serial PRIMARY KEY, v int NOT NULL DEFAULT 1); DROP TABLE t");
    scene.pgshadow.kill9();
    scene.pgshadow.start();
    assert!(is_valid(&scene), "{:#}", scene.pgshadow.status()["certificate"]);
    scene.pgshadow.stop();
    servers.iter_mut().for_each(Cluster::restart);
    scene.pgshadow.start();
    scene.drain();
    assert_eq!(scene.pgshadow.suspect_tables(), Vec::<String>::new());
}
