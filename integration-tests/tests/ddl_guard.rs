//! Definitions that clients change through pgshadow are judged before they take their lock: logged or refused, and run with a
//! `lock_timeout` that nobody sees afterwards.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
use bytes::{BufMut, BytesMut};
use integration_tests::proxy::PgshadowBuilder;
use integration_tests::raw::{Frame, RawClient};
use integration_tests::scene::{Scene, servers};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, s text); INSERT INTO t SELECT g, g, repeat('x', 900) FROM generate_series(1, 4000) g;
CREATE TABLE small (id int PRIMARY KEY, v int REFERENCES t); CREATE INDEX by_v ON small (v);
CREATE TABLE wide_parts (id int, v int, s text) PARTITION BY RANGE (id); CREATE TABLE wide_low PARTITION OF wide_parts FOR VALUES FROM (0) TO (9999);
INSERT INTO wide_parts SELECT * FROM t;
CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10);";

fn scene(set_up: impl FnOnce(PgshadowBuilder) -> PgshadowBuilder) -> Scene {
    let scene = Scene::with(SCHEMA, "", |builder| set_up(builder.set("ddl", "table_size_max", "\"1MiB\"")));
    servers()[0].superuser().in_database(&scene.source.database).psql("ANALYZE");
    scene
}

fn login(scene: &Scene) -> RawClient {
    let app = scene.app();
    let (mut client, _) = RawClient::login(app.port, &app.user, &app.password, &app.database).unwrap();
    client.set_limit(LIMIT).unwrap();
    client
}

/// Reads the table in a transaction that stays open, past the age that is too old.
fn reads(scene: &Scene, table: &str) -> RawClient {
    let mut client = login(scene);
    client.query("BEGIN").unwrap();
    client.query(&format!("SELECT count(*) FROM {table}")).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    client
}

fn refuses(builder: PgshadowBuilder) -> PgshadowBuilder {
    builder.set("ddl", "guard", "\"refuse\"").set("ddl", "oldest_transaction_max", "\"500ms\"")
}

/// Parse, Bind, Execute of each text with unnamed statement and portal, then Sync; the answers.
fn batch(client: &mut RawClient, texts: &[&str]) -> Vec<Frame> {
    for text in texts {
        let mut parse = BytesMut::new();
        parse.put_u8(0);
        parse.put_slice(text.as_bytes());
        parse.put_slice(&[0, 0, 0]);
        client.send_frame(b'P', &parse).unwrap();
        client.send_frame(b'B', &[0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        client.send_frame(b'E', &[0, 0, 0, 0, 0]).unwrap();
    }
    client.send_frame(b'S', b"").unwrap();
    client.receive_until_ready().unwrap()
}

/// SQLSTATEs of the errors among frames, and the status of the ReadyForQuery at their end.
fn told(frames: &[Frame]) -> (Vec<String>, char) {
    let errors = frames.iter().filter(|frame| frame.tag == b'E').filter_map(|frame| frame.field(b'C')).collect();
    assert_eq!(frames.last().unwrap().tag, b'Z');
    (errors, char::from(frames.last().unwrap().body[0]))
}

fn error(frames: &[Frame]) -> (String, String) {
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap_or_else(|| panic!("no error: {frames:?}"));
    (error.field(b'M').unwrap(), error.field(b'H').unwrap_or_default())
}

#[test]
fn by_default_it_is_run_and_the_log_says_what_is_against_it() {
    let scene = scene(|builder| builder.set("ddl", "oldest_transaction_max", "\"500ms\""));
    let mut reader = reads(&scene, "t");
    std::thread::scope(|threads| {
        let altered = threads.spawn(|| scene.app().psql("ALTER TABLE t ADD COLUMN a int"));
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!altered.is_finished(), "it waits as it would without pgshadow");
        reader.query("COMMIT").unwrap();
        altered.join().unwrap();
    });
    scene.app().psql("CREATE INDEX ON t (s)");
    let log = scene.pgshadow.log();
    assert!(
        log.contains("ALTER TABLE would wait for its ACCESS EXCLUSIVE lock on public.t behind a transaction"),
        "{log}"
    );
    assert!(log.contains("CREATE INDEX makes an index over all rows of public.t"), "{log}");
    assert_eq!(scene.app().psql("SHOW lock_timeout"), "0");
    scene.expect_exact();
}

#[test]
fn what_would_wait_is_refused_and_nobody_waits() {
    let scene = scene(refuses);
    let mut reader = reads(&scene, "t");
    let mut client = login(&scene);
    for (text, alone) in [
        ("ALTER TABLE t ADD COLUMN a int", true),
        ("INSERT INTO small VALUES (1, 1); ALTER TABLE public.t ADD COLUMN a int", false),
        ("INSERT INTO small VALUES (2, 1); BEGIN; ALTER TABLE t ADD COLUMN a int; COMMIT", false),
        ("DROP TABLE small, t", true),
        ("ALTER TABLE small ADD COLUMN a int; ALTER TABLE t ADD COLUMN a int", false),
    ] {
        let (message, hint) = error(&client.query(text).unwrap());
        assert!(
            message.starts_with("pgshadow has not run it: ") && message.contains("on public.t behind"),
            "{message}"
        );
        assert!(message.contains("idle in transaction") && hint.contains("/* pgshadow: allow */"), "{message} {hint}");
        assert_eq!(told(&client.query(text).unwrap()), (vec!["55P03".into()], 'I'), "{text}");
        if alone {
            assert_eq!(told(&batch(&mut client, &[text])), (vec!["55P03".into()], 'I'), "{text}");
        }
    }
    // nothing of any of them was run, and nobody waits
    assert_eq!(client.value("SELECT count(*) FROM small").unwrap(), "0");
    assert_eq!(client.value("SELECT count(*) FROM t").unwrap(), "4000");
    // in a block it fails the transaction, as an error of the server's does
    for extended in [false, true] {
        client.query("BEGIN").unwrap();
        client.query("INSERT INTO small VALUES (3, 1)").unwrap();
        let text = "ALTER TABLE t ADD COLUMN a int";
        let frames = if extended { batch(&mut client, &[text]) } else { client.query(text).unwrap() };
        assert_eq!(told(&frames), (vec!["55P03".into()], 'E'));
        assert_eq!(told(&client.query("SELECT 1").unwrap()), (vec!["25P02".into()], 'E'));
        assert_eq!(told(&client.query("COMMIT").unwrap()), (vec![], 'I'));
    }
    // behind an error of its batch it isn't reached, and in a failed transaction the server says what it says
    let frames = batch(&mut client, &["SELECT 1 / 0", "ALTER TABLE t ADD COLUMN a int"]);
    assert_eq!(told(&frames), (vec!["22012".into()], 'I'));
    let frames = batch(&mut client, &["INSERT INTO small VALUES (4, 1)", "ALTER TABLE t ADD COLUMN a int"]);
    assert_eq!(told(&frames), (vec!["55P03".into()], 'I'));
    client.query("BEGIN; SELECT 1 / 0").unwrap();
    assert_eq!(told(&client.query("ALTER TABLE t ADD COLUMN a int").unwrap()), (vec!["25P02".into()], 'E'));
    client.query("ROLLBACK").unwrap();
    assert_eq!(client.value("SELECT count(*) FROM small").unwrap(), "0");
    // what doesn't wait for the reader is run; so is what a temporary table of the same name is meant by
    client.query("CREATE INDEX ON small (id)").unwrap();
    client.query("CREATE TEMPORARY TABLE t (a int)").unwrap();
    assert_eq!(told(&client.query("ALTER TABLE t ADD COLUMN b int").unwrap()), (vec![], 'I'));
    client.query("DROP TABLE pg_temp.t").unwrap();
    reader.query("COMMIT").unwrap();
    assert_eq!(told(&client.query("ALTER TABLE t ADD COLUMN a int").unwrap()), (vec![], 'I'));
    assert_eq!(told(&batch(&mut client, &["ALTER TABLE t ADD COLUMN b int"])), (vec![], 'I'));
    let mut reader = reads(&scene, "low");
    assert_eq!(told(&client.query("ALTER TABLE parts ADD COLUMN a int").unwrap()), (vec!["55P03".into()], 'I'));
    // who reads another partition isn't in the way of a new one
    let made = "CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (20)";
    assert_eq!(told(&client.query(made).unwrap()), (vec![], 'I'));
    reader.query("COMMIT").unwrap();
    // who waits for the session itself isn't either
    client.query("BEGIN").unwrap();
    client.query("ALTER TABLE t ADD COLUMN c int").unwrap();
    let mut waits = login(&scene);
    std::thread::scope(|threads| {
        threads.spawn(|| waits.query("SELECT count(*) FROM t").unwrap());
        std::thread::sleep(Duration::from_millis(1000));
        assert_eq!(told(&client.query("ALTER TABLE t ADD COLUMN d int").unwrap()), (vec![], 'T'));
        client.query("COMMIT").unwrap();
    });
    // behind what is sent ahead of our questions it is judged as well
    let mut reader = reads(&scene, "t");
    let mut fresh = login(&scene);
    fresh.query("BEGIN").unwrap();
    let behind = "SET TRANSACTION READ WRITE; ALTER TABLE t ADD COLUMN e int";
    assert_eq!(told(&fresh.query(behind).unwrap()), (vec!["55P03".into()], 'E'));
    fresh.query("ROLLBACK").unwrap();
    reader.query("COMMIT").unwrap();
    scene.expect_exact();
}

#[test]
fn work_on_a_large_table_is_refused() {
    let scene = scene(refuses);
    let mut client = login(&scene);
    let app = scene.app();
    for (text, expected) in [
        ("CREATE INDEX ON t (v)", Some("CREATE INDEX CONCURRENTLY")),
        ("ALTER TABLE t ALTER v TYPE bigint", Some("add another column")),
        ("ALTER TABLE t ALTER v SET NOT NULL", Some("NOT VALID")),
        ("ALTER TABLE t ADD CHECK (v > 0)", Some("NOT VALID")),
        ("CLUSTER t USING t_pkey", Some("packs")),
        ("VACUUM FULL t", Some("packs")),
        ("REINDEX INDEX t_pkey", Some("CONCURRENTLY")),
        ("ALTER TABLE t ADD CONSTRAINT positive CHECK (v > 0) NOT VALID", None),
        ("ALTER TABLE t VALIDATE CONSTRAINT positive", None),
        ("ALTER TABLE t ADD COLUMN a int DEFAULT 7", None),
        ("CREATE INDEX CONCURRENTLY late ON t (v)", None),
        ("CREATE INDEX /* pgshadow: allow */ ON t (s)", None),
        ("ALTER TABLE small ALTER v TYPE bigint", None),
        ("VACUUM FULL small", None),
        ("DROP INDEX by_v", None),
        ("DROP TABLE nowhere", Some("42P01")),
        // once more, and of the partitioned table alone
        ("REINDEX INDEX t_pkey", Some("CONCURRENTLY")),
        ("CREATE INDEX ON ONLY wide_parts (v)", None),
        ("CREATE INDEX ON wide_parts (v)", Some("CREATE INDEX CONCURRENTLY")),
        ("REINDEX /* pgshadow: allow */ TABLE wide_parts", None),
    ] {
        let frames = client.query(text).unwrap();
        match expected {
            None => assert_eq!(told(&frames), (vec![], 'I'), "{text}: {frames:?}"),
            Some("42P01") => assert_eq!(told(&frames), (vec!["42P01".into()], 'I')),
            Some(instead) => {
                assert_eq!(told(&frames), (vec!["55000".into()], 'I'), "{text}");
                assert!(error(&frames).1.contains(instead), "{text}: {:?}", error(&frames));
            }
        }
    }
    // the same in the extended protocol, and one that was filled a moment ago
    assert_eq!(told(&batch(&mut client, &["CREATE INDEX ON t (v)"])), (vec!["55000".into()], 'I'));
    app.psql("CREATE TABLE fresh AS SELECT * FROM t");
    assert_eq!(told(&client.query("CREATE INDEX ON fresh (v)").unwrap()), (vec!["55000".into()], 'I'));
    scene.drain();
}

#[test]
fn it_runs_with_a_lock_timeout_that_nobody_sees() {
    let scene = scene(|builder| builder.set("ddl", "lock_timeout", "\"300ms\""));
    let mut reader = reads(&scene, "t");
    let mut client = login(&scene);
    let waits = ["ALTER TABLE t ADD COLUMN a int", "INSERT INTO parts VALUES (1); ALTER TABLE t ADD COLUMN a int"];
    // where a write is extended by what is read back of it, the text is left alone
    assert_eq!(told(&client.query(waits[0]).unwrap()), (vec!["55P03".into()], 'I'));
    assert_eq!(told(&batch(&mut client, &[waits[0]])), (vec!["55P03".into()], 'I'));
    for extended in [false, true] {
        client.query("BEGIN").unwrap();
        let frames = if extended { batch(&mut client, &[waits[0]]) } else { client.query(waits[0]).unwrap() };
        assert_eq!(told(&frames), (vec!["55P03".into()], 'E'));
        client.query("ROLLBACK").unwrap();
        assert_eq!(client.value("SHOW lock_timeout").unwrap(), "0");
    }
    assert_eq!(
        told(&client.query("BEGIN; ALTER TABLE t ADD COLUMN a int; COMMIT").unwrap()),
        (vec!["55P03".into()], 'E')
    );
    client.query("ROLLBACK").unwrap();
    // its own stays what it was, in the block and behind it
    client.query("SET lock_timeout = '1min'").unwrap();
    for extended in [false, true] {
        client.query("BEGIN").unwrap();
        client.query("SET LOCAL lock_timeout = '2min'").unwrap();
        let text = format!("ALTER TABLE small ADD COLUMN a{} int", u8::from(extended));
        let frames = if extended { batch(&mut client, &[&text]) } else { client.query(&text).unwrap() };
        assert_eq!(told(&frames), (vec![], 'T'));
        assert_eq!(client.value("SHOW lock_timeout").unwrap(), "2min");
        client.query("COMMIT").unwrap();
        assert_eq!(client.value("SHOW lock_timeout").unwrap(), "1min");
    }
    client.query("ALTER TABLE small ADD COLUMN b int").unwrap();
    assert_eq!(told(&batch(&mut client, &["ALTER TABLE small ADD COLUMN c int"])), (vec![], 'I'));
    client.query("BEGIN; ALTER TABLE small ADD COLUMN d int; COMMIT").unwrap();
    assert_eq!(client.value("SHOW lock_timeout").unwrap(), "1min");
    // a shorter one of its own is left
    for (own, runs_with) in [("100ms", "100ms"), ("0", "300ms"), ("1h", "300ms")] {
        client.query(&format!("SET lock_timeout = '{own}'")).unwrap();
        let frames = client.query("ALTER TABLE small ALTER a0 SET DEFAULT 1; SHOW lock_timeout").unwrap();
        let shown = frames.iter().find(|frame| frame.tag == b'D').unwrap().columns();
        assert_eq!(shown, [Some(runs_with.to_owned())]);
        assert_eq!(frames.iter().filter(|frame| frame.tag == b'C').count(), 2);
    }
    // a text that sets one says what it wants
    let own = "SET lock_timeout = '50ms'; ALTER TABLE small ALTER a0 SET DEFAULT 2";
    client.query(own).unwrap();
    assert_eq!(client.value("SHOW lock_timeout").unwrap(), "50ms");
    client.query("RESET lock_timeout").unwrap();
    // errors stand where they do in the client's own text
    let wrong = "ALTER TABLE small ADD COLUMN e nothing_such";
    let position = |frames: &[Frame]| frames.iter().find(|frame| frame.tag == b'E').unwrap().field(b'P').unwrap();
    assert_eq!(position(&client.query(wrong).unwrap()), "32");
    client.query("BEGIN").unwrap();
    assert_eq!(position(&client.query(wrong).unwrap()), "32");
    client.query("ROLLBACK").unwrap();
    // a savepoint of the text's own doesn't keep ours
    client.query("SET lock_timeout = '1min'").unwrap();
    client.query("BEGIN").unwrap();
    let frames = client.query("SAVEPOINT s; ALTER TABLE small ADD COLUMN a0 int").unwrap();
    assert_eq!(told(&frames), (vec!["42701".into()], 'E'));
    client.query("ROLLBACK TO s").unwrap();
    assert_eq!(client.value("SHOW lock_timeout").unwrap(), "1min");
    client.query("ROLLBACK").unwrap();
    // what comes in the same batch has its own again
    client.query("SET lock_timeout = '1min'").unwrap();
    let frames = batch(&mut client, &["ALTER TABLE small ALTER a0 DROP DEFAULT", "SHOW lock_timeout"]);
    assert_eq!(frames.iter().find(|frame| frame.tag == b'D').unwrap().columns(), [Some("1min".to_owned())]);
    assert_eq!(told(&batch(&mut client, &["ALTER TABLE small ALTER a0 DROP DEFAULT", "BEGIN"])), (vec![], 'T'));
    assert_eq!(client.value("SHOW lock_timeout").unwrap(), "1min");
    client.query("ROLLBACK").unwrap();
    assert_eq!(told(&batch(&mut client, &["REINDEX TABLE wide_parts"])), (vec![], 'I'));
    assert_eq!(told(&client.query("REINDEX TABLE wide_parts").unwrap()), (vec![], 'I'));
    client.query("RESET lock_timeout").unwrap();
    // no word of ours comes as a notice
    let frames = batch(&mut client, &["ALTER TABLE small ADD COLUMN f int", "ALTER TABLE small ADD COLUMN g int"]);
    assert!(frames.iter().all(|frame| frame.tag != b'N'), "{frames:?}");
    reader.query("COMMIT").unwrap();
    assert_eq!(told(&client.query(waits[1]).unwrap()), (vec![], 'I'));
    scene.expect_exact();
}

#[test]
fn without_it_nobody_is_asked() {
    let scene = scene(|builder| builder.set("ddl", "guard", "\"off\""));
    scene.app().psql("CREATE INDEX ON t (v)");
    scene.expect_exact();
    assert!(!scene.pgshadow.log().contains("a definition is judged"));
}
