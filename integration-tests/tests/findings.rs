//! What differs between the databases is found by applying, told with evidence, and mended where that is possible.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::client::LIMIT;
use integration_tests::equal;
use integration_tests::scene::Scene;
use serde_json::Value;

const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY, n numeric, s text, v int);
    INSERT INTO t SELECT g, g, 'row ' || g, g FROM generate_series(1, 10) g;";

fn scene(on_target: &str) -> Scene {
    // what images alone find; `planted.rs` has what the clients' own statements show
    Scene::with(SCHEMA, on_target, |builder| builder.set("compare", "statements", "0"))
}

/// The one finding, of this kind, of the table `public.t`.
#[track_caller]
fn only_finding(scene: &Scene, kind: &str) -> Value {
    scene.drain();
    let mut findings = scene.pgshadow.findings();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let finding = findings.remove(0);
    assert_eq!(finding["kind"], kind, "{finding:#}");
    assert_eq!(finding["table"], "public.t", "{finding:#}");
    finding
}

#[track_caller]
fn has(finding: &Value, field: &str, text: &str) {
    assert!(finding[field].as_str().is_some_and(|value| value.contains(text)), "{field} without {text}: {finding:#}");
}

#[track_caller]
fn expect_healed(scene: &Scene, finding: &Value) {
    assert_eq!(finding["healed"], true, "{finding:#}");
    equal::assert_equal(&scene.source, &scene.target);
    assert!(scene.pgshadow.status()["healed_rows"].as_u64() >= Some(1));
    assert!(scene.suspects().is_empty());
}

#[test]
fn a_row_deleted_behind_pgshadows_back_is_missed_and_mended() {
    let scene = scene("DELETE FROM t WHERE id = 3");
    scene
        .app()
        .psql("UPDATE t SET v = 100 WHERE id = 3; UPDATE t SET v = 101 WHERE id = 3; UPDATE t SET v = 1 WHERE id = 4;");
    let finding = only_finding(&scene, "missing_row");
    has(&finding, "key", "id=3");
    expect_healed(&scene, &finding);
}

/// A row is to be read again while its table is being rewritten: a snapshot from before that would see no row any more.
#[tokio::test]
async fn a_row_of_a_table_that_is_just_rewritten_is_mended() {
    let scene = scene("DELETE FROM t WHERE id = 3");
    let holder = scene.target.connect().await;
    holder.batch_execute("BEGIN; LOCK TABLE t").await.unwrap();
    scene.app().psql("UPDATE t SET v = 100 WHERE id = 3");
    let definer = scene.app().connect().await;
    definer.batch_execute("BEGIN").await.unwrap();
    definer.batch_execute("ALTER TABLE t ALTER v TYPE bigint").await.unwrap();
    holder.batch_execute("COMMIT").await.unwrap();
    // either it waits for the lock, with a snapshot or not, or it says that it can't have it
    let waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 't'::regclass";
    let refused = || {
        let status = scene.pgshadow.status();
        status["applier"]["last_error"].as_str().is_some_and(|error| error.starts_with("healing: "))
    };
    let reads = (0..1000).any(|_| scene.source.psql(waits) == "t" || refused());
    assert!(reads, "nothing was read again");
    assert_eq!(
        scene.source.psql(waits),
        "f",
        "a lock that is waited for while others are held may be a deadlock for the application"
    );
    definer.batch_execute("COMMIT").await.unwrap();
    let finding = only_finding(&scene, "missing_row");
    expect_healed(&scene, &finding);
}

#[test]
fn a_row_deleted_on_both_sides_is_missed_once() {
    let scene = scene("DELETE FROM t WHERE id = 3");
    scene.app().psql("DELETE FROM t WHERE id = 3;");
    has(&only_finding(&scene, "missing_row"), "key", "id=3");
    equal::assert_equal(&scene.source, &scene.target);
}

#[test]
fn an_extra_row_is_found_when_its_key_is_inserted() {
    let scene = scene("INSERT INTO t VALUES (50, 1, 'extra', 1)");
    scene.app().psql("INSERT INTO t VALUES (50, 2, 'real', 2); INSERT INTO t VALUES (51, 2, 'real', 2);");
    let finding = only_finding(&scene, "extra_row");
    has(&finding, "key", "id=50");
    expect_healed(&scene, &finding);
}

#[test]
fn a_lower_scale_shows_both_values() {
    let scene = scene("ALTER TABLE t ALTER n TYPE numeric(10, 1)");
    scene.app().psql("UPDATE t SET n = 1.25 WHERE id = 1");
    let finding = only_finding(&scene, "value");
    has(&finding, "key", "id=1");
    assert_eq!(finding["column"], "n");
    has(&finding, "primary", "1.25");
    has(&finding, "shadow", "1.3");
    assert_eq!(finding["cause"], "type");
}

#[test]
fn a_shorter_type_refuses_the_row() {
    let scene = scene("ALTER TABLE t ALTER s TYPE varchar(8)");
    scene.app().psql("UPDATE t SET s = 'much longer than eight' WHERE id = 1; UPDATE t SET s = 'short' WHERE id = 2;");
    let finding = only_finding(&scene, "error_shadow_only");
    assert_eq!(finding["sqlstate"], "22001");
    has(&finding, "message", "too long");
    assert_eq!(scene.target.psql("SELECT s FROM t WHERE id = 2"), "short");
}

const LOUDER: &str = "
    CREATE FUNCTION louder() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.s := upper(NEW.s); RETURN NEW; END';
    CREATE TRIGGER louder BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION louder();";

#[test]
fn an_ordinary_trigger_of_the_target_does_not_fire_again() {
    let scene = scene(LOUDER);
    scene.app().psql("UPDATE t SET s = 'quiet' WHERE id = 1");
    scene.expect_exact();
}

#[test]
fn a_trigger_of_the_target_that_always_fires_is_declared() {
    let scene = scene(&format!("{LOUDER} ALTER TABLE t ENABLE ALWAYS TRIGGER louder;"));
    scene.app().psql("UPDATE t SET s = 'quiet' WHERE id = 1");
    scene.expect_suspects(&[("public.t", "ENABLE ALWAYS")]);
}

#[test]
fn a_check_that_only_the_target_has() {
    let scene = scene("ALTER TABLE t ADD CONSTRAINT small CHECK (v < 1000)");
    scene.app().psql("UPDATE t SET v = 5000 WHERE id = 1; UPDATE t SET v = 500 WHERE id = 2;");
    let finding = only_finding(&scene, "error_shadow_only");
    assert_eq!((&finding["sqlstate"], &finding["cause"]), (&"23514".into(), &"constraint".into()), "{finding:#}");
    has(&finding, "message", "small");
    assert_eq!(scene.target.psql("SELECT v FROM t WHERE id = 2"), "500");
}

#[test]
fn a_table_that_the_target_does_not_have() {
    let scene = Scene::with(SCHEMA, "DROP TABLE t; CREATE TABLE u (id int PRIMARY KEY)", |builder| builder);
    scene.source.psql("CREATE TABLE u (id int PRIMARY KEY)");
    scene.app().psql("UPDATE t SET v = 1 WHERE id = 1; INSERT INTO u VALUES (1);");
    scene.drain();
    let told = !scene.pgshadow.findings().is_empty() || !scene.suspects().is_empty();
    assert!(told, "a missing table must not be passed over");
    assert_eq!(scene.target.psql("SELECT id FROM u"), "1", "other tables go on");
}

#[test]
fn the_report_is_json_with_all_fields_and_an_exit_code() {
    let scene = scene("DELETE FROM t WHERE id = 3");
    assert_eq!(scene.pgshadow.run(&["report"], LIMIT).status.code(), Some(0), "no differences yet");
    scene.app().psql("UPDATE t SET v = 100 WHERE id = 3");
    let finding = only_finding(&scene, "missing_row");
    let fields = "id kind cause severity table key column primary shadow sqlstate message sql fingerprint xid lsn user application
        healed count first_seen last_seen acknowledged";
    for field in fields.split_whitespace() {
        assert!(finding.get(field).is_some(), "no {field}: {finding:#}");
    }
    for time in ["first_seen", "last_seen"] {
        let text = finding[time].as_str().expect("a time");
        assert!(text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z'), "{time}: {text}");
    }
    assert_eq!(finding["count"], 1);
    let finished = scene.pgshadow.run(&["report"], LIMIT);
    assert_eq!(finished.status.code(), Some(0), "it is healed: {finished:#?}");
    assert!(finished.stdout.contains("missing_row") && finished.stdout.contains("id=3"), "{}", finished.stdout);
}

#[test]
fn the_report_ends_with_3_while_a_finding_is_open() {
    let scene = scene("ALTER TABLE t ADD CONSTRAINT small CHECK (v < 1000)");
    scene.app().psql("UPDATE t SET v = 5000 WHERE id = 1");
    assert_eq!(only_finding(&scene, "error_shadow_only")["healed"], false);
    let finished = scene.pgshadow.run(&["report"], LIMIT);
    assert_eq!(finished.status.code(), Some(3), "{finished:#?}");
}

#[test]
fn findings_survive_a_restart() {
    let mut scene = scene("DELETE FROM t WHERE id = 3");
    scene.app().psql("UPDATE t SET v = 100 WHERE id = 3");
    let before = only_finding(&scene, "missing_row");
    scene.pgshadow.restart();
    assert_eq!(only_finding(&scene, "missing_row"), before);
}
