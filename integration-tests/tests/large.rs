//! Transactions that are larger than pgshadow holds in memory (a megabyte): written out, read again part by part, exact all the same.
use integration_tests::equal;
use integration_tests::process::eventually;
use integration_tests::raw::RawClient;
use integration_tests::scene::Scene;
use std::path::PathBuf;
use std::time::Duration;

const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, pad text);
    CREATE TABLE u (id int PRIMARY KEY, v text);
    CREATE TABLE parts (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (5000);
    CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (5000) TO (1000000);
    CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree, pad text);
    CREATE TABLE at (id int PRIMARY KEY, at timestamptz)";

const ROWS: &str = "SELECT g, g % 7, repeat('x', 100 + g % 50) FROM generate_series(1, 20000) g";

/// Files of large transactions that are there.
fn files(scene: &Scene) -> Vec<PathBuf> {
    fn walk(directory: &std::path::Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "spilled") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&scene.pgshadow.data_directory(), &mut found);
    found
}

/// All is equal, and much went through files.
#[track_caller]
fn expect_exact(scene: &Scene) {
    scene.expect_exact();
    let spilled = scene.pgshadow.metric("pgshadow_log_spilled_bytes_total").unwrap_or_default();
    assert!(spilled > 1e6, "nothing was written out: {spilled}");
    expect_no_file(scene);
}

/// No file is left.
#[track_caller]
fn expect_no_file(scene: &Scene) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !files(scene).is_empty() {
        assert!(std::time::Instant::now() < end, "left: {:?}", files(scene));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn one_statement_of_many_rows() {
    let scene = Scene::of(SCHEMA);
    let app = scene.app();
    app.psql(&format!("INSERT INTO t {ROWS}"));
    app.psql("UPDATE t SET v = v + 1, pad = pad || 'y' WHERE id % 3 > 0");
    app.psql("INSERT INTO parts SELECT g, repeat('z', 200) FROM generate_series(1, 15000) g");
    app.psql("DELETE FROM t WHERE id > 15000");
    expect_exact(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_statement_in_the_extended_protocol() {
    let scene = Scene::of(SCHEMA);
    let app = scene.app().connect().await;
    let written = app
        .execute("INSERT INTO t SELECT g, g % 7, repeat('x', $1) FROM generate_series(1, 20000) g", &[&150_i32])
        .await
        .unwrap();
    assert_eq!(written, 20000);
    let rows = app.query("UPDATE t SET v = v + 1 WHERE id > $1 RETURNING id, v", &[&500_i32]).await.unwrap();
    assert_eq!(rows.len(), 19500);
    tokio::task::block_in_place(|| expect_exact(&scene));
}

#[test]
fn a_block_with_savepoints_and_definitions() {
    let scene = Scene::of(SCHEMA);
    let app = scene.app();
    app.psql(&format!(
        "BEGIN; INSERT INTO u VALUES (1, 'first'); SAVEPOINT a; INSERT INTO t {ROWS}; INSERT INTO u VALUES (2, 'second');
         SAVEPOINT b; UPDATE t SET v = -v, pad = repeat('q', 150); ROLLBACK TO b; UPDATE t SET v = v + 100 WHERE id < 50;
         INSERT INTO u SELECT g, repeat('w', 300) FROM generate_series(10, 9000) g; SAVEPOINT c; DELETE FROM t WHERE id > 19000;
         ROLLBACK TO c; DELETE FROM t WHERE id > 19990; COMMIT"
    ));
    expect_exact(&scene);
    app.psql(&format!(
        "BEGIN; TRUNCATE u; ALTER TABLE t ADD w int; INSERT INTO t {ROWS} ON CONFLICT (id) DO UPDATE SET pad = excluded.pad, w = 5;
         INSERT INTO u VALUES (7, 'behind'); COMMIT"
    ));
    app.psql(&format!("BEGIN; DELETE FROM u; INSERT INTO u SELECT id, pad FROM ({ROWS}) AS s (id, v, pad); ROLLBACK"));
    // taken back to within what was written out
    app.psql(&format!(
        "BEGIN; INSERT INTO u VALUES (8, 'kept'); SAVEPOINT a; INSERT INTO u SELECT g, repeat('w', 300) FROM generate_series(10, 19000) g;
         ROLLBACK TO a; INSERT INTO u VALUES (9, 'kept'); COMMIT; BEGIN; DELETE FROM t; {}; ROLLBACK",
        "SELECT 1"
    ));
    expect_exact(&scene);
}

#[test]
fn copies() {
    let scene = Scene::of(SCHEMA);
    let app = scene.app();
    let many = "\\copy t (id, v, pad) FROM PROGRAM 'seq 1 30000 | sed \"s/.*/&\\t1\\t& some text that makes the row longer and longer/\"'";
    app.psql(many);
    expect_exact(&scene);
    app.psql(&format!(
        "BEGIN;\nUPDATE t SET v = 2 WHERE id < 100;\nDELETE FROM t WHERE id > 50;\nSAVEPOINT a;\nDELETE FROM t;\n{many}\nROLLBACK TO a;\nUPDATE t SET v = 3 WHERE id < 10;\nDELETE FROM t;\n{many}\nUPDATE t SET v = 4 WHERE id > 29000;\nCOMMIT;"
    ));
    expect_exact(&scene);
    // fails at its last row, alone and behind a savepoint
    let wrong = "\\copy t (id, v, pad) FROM PROGRAM '(seq 40000 60000; echo 41000) | sed \"s/.*/&\\t1\\t& some text that makes the row longer/\"'";
    assert!(app.try_psql(wrong).is_err());
    app.psql(&format!("\\set ON_ERROR_STOP off\nBEGIN;\nUPDATE t SET v = 9 WHERE id = 5;\nSAVEPOINT a;\n{wrong}\nROLLBACK TO a;\nUPDATE t SET v = 8 WHERE id = 6;\nCOMMIT;"));
    assert_eq!(scene.source.psql("SELECT count(*), max(v) FROM t"), "30000|9");
    expect_exact(&scene);
    // a moment that stands far behind
    app.psql("\\copy at FROM PROGRAM '(seq 1 60000; echo now) | sed \"s/^[0-9].*/&\\t2024-01-01 00:00:00+00/; s/now/70000\\tnow/\"'");
    scene.expect_suspects(&[("public.at", "name a moment")]);
}

#[test]
fn a_prepared_transaction() {
    let scene = Scene::of(SCHEMA);
    let app = scene.app();
    app.psql(&format!("BEGIN; INSERT INTO t {ROWS}; PREPARE TRANSACTION 'large'"));
    app.psql(&format!(
        "BEGIN; INSERT INTO u SELECT id, pad FROM ({ROWS}) AS s (id, v, pad); PREPARE TRANSACTION 'gone'"
    ));
    app.psql("INSERT INTO parts VALUES (1, 'beside')");
    app.psql("COMMIT PREPARED 'large'; ROLLBACK PREPARED 'gone'");
    expect_exact(&scene);
}

#[test]
fn rows_that_refer_to_each_other() {
    let scene = Scene::of(SCHEMA);
    scene.app().psql("INSERT INTO tree SELECT g, CASE WHEN g < 15000 THEN g + 1 END, repeat('x', 100) FROM generate_series(1, 15000) g");
    expect_exact(&scene);
}

#[test]
fn over_crashes() {
    let mut scene = Scene::of(SCHEMA);
    // committed, and not on the shadow yet
    scene.target.psql("BEGIN; SELECT 1");
    let app = scene.app();
    for _ in 0..3 {
        app.psql(&format!(
            "BEGIN; DELETE FROM t; INSERT INTO t {ROWS}; UPDATE t SET v = v + 1, pad = pad || v; COMMIT"
        ));
        // the outcome of a block can be asked for, whenever pgshadow went
        app.psql(
            "BEGIN; DELETE FROM u; INSERT INTO u SELECT g, repeat('w', 300) FROM generate_series(10, 9000) g; COMMIT",
        );
        scene.pgshadow.kill9();
        scene.pgshadow.start();
    }
    scene.expect_exact();
    expect_no_file(&scene);
    // open when pgshadow goes: nothing of it stays
    let open = std::thread::spawn({
        let app = scene.app();
        move || {
            app.try_psql(&format!(
                "BEGIN; INSERT INTO u SELECT id + 50000, pad FROM ({ROWS}) AS s (id, v, pad); SELECT pg_sleep(60)"
            ))
        }
    });
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while files(&scene).is_empty() {
        assert!(std::time::Instant::now() < end, "nothing was written out");
        std::thread::sleep(Duration::from_millis(20));
    }
    scene.pgshadow.kill9();
    assert!(open.join().unwrap().is_err());
    scene.pgshadow.start();
    assert_eq!(files(&scene), Vec::<PathBuf>::new());
    scene.expect_exact();
    expect_no_file(&scene);
}

#[test]
fn a_row_that_the_shadow_refuses_does_not_take_the_others_along() {
    let scene = Scene::with(SCHEMA, "INSERT INTO t VALUES (777, 0, 'in the way'), (15000, 0, 'in the way')", |b| b);
    scene.app().psql(&format!("INSERT INTO t {ROWS}"));
    scene.drain();
    equal::assert_equal(&scene.source, &scene.target);
    let findings = scene.pgshadow.findings();
    let healed = findings.iter().filter(|finding| finding["healed"] == true);
    let keys: Vec<_> = healed.map(|finding| finding["key"].as_str().unwrap()).collect();
    assert_eq!((keys.as_slice(), findings.len()), (&["id=777", "id=15000"][..], 2), "{findings:#?}");
}

#[test]
fn without_room_its_tables_are_suspect_and_the_application_goes_on() {
    let scene = Scene::with(SCHEMA, "", |builder| builder.set("mirror_log", "size_max", "\"4MiB\""));
    let app = scene.app();
    app.psql(&format!("BEGIN; INSERT INTO u VALUES (1, 'a'); INSERT INTO t {ROWS}; COMMIT"));
    app.psql("INSERT INTO parts VALUES (1, 'behind')");
    assert_eq!(scene.source.psql("SELECT count(*) FROM t"), "20000");
    scene.expect_suspects(&[("public.t", "could not be written out"), ("public.u", "could not be written out")]);
    assert_eq!(files(&scene), Vec::<PathBuf>::new());
    assert_eq!(scene.target.psql("SELECT count(*) FROM parts"), "1");
}

/// A part of a file is damaged while its transaction waits for the shadow.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_again_makes_its_tables_suspect() {
    let many = "\\copy t (id, v, pad) FROM PROGRAM 'seq 1 60000 | sed \"s/.*/&\\t1\\t& some text that makes the row longer and longer/\"'";
    for write in [format!("INSERT INTO t {ROWS}"), many.to_owned()] {
        let scene = Scene::of(SCHEMA);
        let holder = scene.target.connect().await;
        holder.batch_execute("BEGIN; LOCK TABLE t").await.unwrap();
        let app = scene.app();
        app.psql(&format!("BEGIN;\n{write}\n;COMMIT;"));
        let [file] = files(&scene).try_into().expect("one file");
        let mut content = std::fs::read(&file).unwrap();
        let at = content.len() - 1000;
        content[at] ^= 1;
        std::fs::write(&file, content).unwrap();
        app.psql("INSERT INTO u VALUES (1, 'beside'); INSERT INTO t VALUES (100001, 1, 'behind')");
        holder.batch_execute("ROLLBACK").await.unwrap();
        scene.drain();
        let suspects: Vec<_> = scene.suspects().into_iter().map(|(table, _)| table).collect();
        assert!(!suspects.is_empty() && suspects.iter().all(|table| table == "public.t"), "{suspects:?}");
        assert_eq!(scene.target.psql("SELECT count(*) FROM u"), "1");
        expect_no_file(&scene);
    }
}

#[test]
fn more_keys_changed_at_once_than_are_held() {
    let scene = Scene::of(SCHEMA);
    let app = scene.app();
    app.psql("INSERT INTO u SELECT g, repeat(md5(g::text), 3000) FROM generate_series(1, 400) g");
    scene.expect_exact();
    // 96 kB each, old and new
    app.psql("UPDATE u SET id = id + 1000 WHERE id <= 200");
    scene.expect_exact();
    app.psql("UPDATE u SET id = id + 1000 WHERE id > 0");
    scene.expect_suspects(&[("public.u", "than")]);
}

/// Its COMMIT comes when mirroring has stopped: nothing refers to what was written out before.
#[test]
fn a_transaction_that_is_refused_leaves_no_file() {
    let scene = Scene::with(SCHEMA, "", |builder| builder.set("mirror_log", "size_max", "\"64MiB\""));
    let login = |port: u16, database: &str| RawClient::login(port, "postgres", "", database).expect("a login").0;
    let mut large = login(scene.pgshadow.port(), &scene.source.database);
    let mut holder = login(scene.target.port, &scene.target.database);
    let sent = [large.query("BEGIN"), large.query(&format!("INSERT INTO t {ROWS}"))];
    assert!(sent.iter().flatten().flatten().all(|frame| frame.tag != b'E'));
    assert_eq!(files(&scene).len(), 1);
    // nothing of u is applied, and the log fills
    holder.query("BEGIN; LOCK TABLE u IN EXCLUSIVE MODE").expect("a lock");
    for row in 1..=120 {
        scene.app().psql(&format!("INSERT INTO u VALUES ({row}, repeat(md5('{row}'), 20000))"));
    }
    let stopped = || (scene.pgshadow.status()["mirroring"] == false).then_some(());
    eventually("the log is full", Duration::from_secs(30), stopped);
    large.query("COMMIT").expect("an answer");
    expect_no_file(&scene);
}
