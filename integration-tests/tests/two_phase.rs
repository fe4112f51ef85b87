//! PREPARE TRANSACTION, and COMMIT PREPARED from whatever session, through pgshadow or past it.
use integration_tests::equal;
use integration_tests::scene::Scene;

const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY, v int);
    INSERT INTO t SELECT g, g FROM generate_series(1, 20) g;
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int PRIMARY KEY, parent_id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE log (what text); CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (TG_OP); RETURN NULL; END';
    CREATE TABLE watched (id int PRIMARY KEY); CREATE TRIGGER noted AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION noted();";

#[test]
fn another_session_commits() {
    let scene = Scene::of(SCHEMA);
    let app = scene.app();
    app.psql("BEGIN; UPDATE t SET v = 100 WHERE id = 1; INSERT INTO child VALUES (1, 7); INSERT INTO parent VALUES (7); PREPARE TRANSACTION 'a'");
    app.psql("BEGIN; UPDATE t SET v = 100 WHERE id = 2; PREPARE TRANSACTION 'b'");
    app.psql("BEGIN; UPDATE t SET id = 300 WHERE id = 3; PREPARE TRANSACTION 'past'");
    app.psql("BEGIN; SELECT 1; PREPARE TRANSACTION 'nothing'");
    app.psql("UPDATE t SET v = 100 WHERE id = 4");
    // what is prepared holds nothing back, and isn't waited for
    scene.drain();
    assert_eq!(scene.target.psql("SELECT v FROM t WHERE id IN (1, 4) ORDER BY id"), "1\n100");
    app.psql(
        "COMMIT PREPARED 'a'; UPDATE t SET v = v + 1 WHERE id = 1; ROLLBACK PREPARED 'b'; ROLLBACK PREPARED 'nothing'",
    );
    scene.source.psql("COMMIT PREPARED 'past'");
    app.psql("UPDATE t SET v = 7 WHERE id = 300");
    scene.expect_exact();
    // the same names again, and one that fails
    app.psql("BEGIN; DELETE FROM t WHERE id = 5; PREPARE TRANSACTION 'a'");
    assert!(app.try_psql("BEGIN; DELETE FROM t WHERE id = 6; PREPARE TRANSACTION 'a'").is_err());
    assert!(app.try_psql("BEGIN; INSERT INTO child VALUES (2, 8); PREPARE TRANSACTION 'c'").is_err());
    app.psql("COMMIT PREPARED 'a'");
    scene.expect_exact();
}

#[tokio::test]
async fn in_the_extended_protocol() {
    let scene = Scene::of(SCHEMA);
    let (one, other) = (scene.app().connect().await, scene.app().connect().await);
    for n in 1..5_i32 {
        one.execute("BEGIN", &[]).await.unwrap();
        one.execute("UPDATE t SET v = v * 2 WHERE id = $1", &[&n]).await.unwrap();
        one.execute("INSERT INTO parent VALUES ($1)", &[&n]).await.unwrap();
        one.execute(&format!("PREPARE TRANSACTION 'g{n}'"), &[]).await.unwrap();
        other.execute("UPDATE t SET v = 0 WHERE id = $1", &[&(n + 10)]).await.unwrap();
        let end = if n % 2 == 0 { "COMMIT" } else { "ROLLBACK" };
        other.execute(&format!("{end} PREPARED 'g{n}'"), &[]).await.unwrap();
    }
    scene.expect_exact();
}

#[test]
fn over_a_crash_of_pgshadow() {
    let mut scene = Scene::of(SCHEMA);
    scene.app().psql("BEGIN; UPDATE t SET v = 100 WHERE id = 1; PREPARE TRANSACTION 'kept'");
    scene.app().psql("BEGIN; UPDATE t SET v = 100 WHERE id = 2; PREPARE TRANSACTION 'gone'");
    scene.pgshadow.kill9();
    scene.source.psql("COMMIT PREPARED 'gone'");
    scene.pgshadow.start();
    scene.drain();
    assert_eq!(scene.target.psql("SELECT v FROM t WHERE id IN (1, 2) ORDER BY id"), "1\n100");
    scene.app().psql("UPDATE t SET v = 5 WHERE id = 4; COMMIT PREPARED 'kept'");
    scene.expect_exact();
}

#[test]
fn hidden_writes_are_declared_by_the_commit() {
    let scene = Scene::of(SCHEMA);
    scene.app().psql("BEGIN; INSERT INTO watched VALUES (1); PREPARE TRANSACTION 'w'");
    scene.drain();
    assert!(scene.suspects().is_empty());
    scene.app().psql("COMMIT PREPARED 'w'");
    scene.drain();
    let suspects = scene.suspects();
    assert!(suspects.iter().any(|(table, _)| table == "public.log"), "{suspects:?}");
    assert!(suspects.iter().all(|(table, _)| table != "every table"), "{suspects:?}");
    assert!(equal::differences(&scene.source, &scene.target).iter().all(|d| d.table == "public.log"));
}
