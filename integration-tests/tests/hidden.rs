//! What is written where no statement shows it, and what is classified before it means something else: exact, or declared.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
use integration_tests::client::within;
use integration_tests::scene::{EVERY_TABLE, Scene};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

const SHOP: &str = "
CREATE TABLE orders (id int PRIMARY KEY, total int NOT NULL DEFAULT 0);
CREATE TABLE items (id int PRIMARY KEY, order_id int, price int);
CREATE TABLE other (id int PRIMARY KEY, v int);
INSERT INTO orders VALUES (1, 0), (2, 0); INSERT INTO other VALUES (1, 1), (2, 2);";

/// Runs a script; these tables and no others are suspect, the rest is equal.
#[track_caller]
fn declared(schema: &str, script: &str, expected: &[(&str, &str)]) {
    let scene = Scene::of(&format!("{SHOP} {schema}"));
    scene.app().psql(script);
    scene.expect_suspects(expected);
}

#[track_caller]
fn exact(schema: &str, script: &str) {
    let scene = Scene::of(&format!("{SHOP} {schema}"));
    scene.app().psql(script);
    scene.expect_exact();
}

const TOTALS: &str = "
CREATE FUNCTION add_up() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN UPDATE orders SET total = total + NEW.price WHERE id = NEW.order_id; RETURN NULL; END';
CREATE TRIGGER add_up AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION add_up();";

#[test]
fn a_trigger_writes_a_table_that_the_transaction_also_writes_itself() {
    let script = "BEGIN; INSERT INTO orders VALUES (3, 0); INSERT INTO items VALUES (1, 3, 10); COMMIT;";
    declared(TOTALS, script, &[("public.items", ""), ("public.orders", "beside the rows")]);
}

#[test]
fn a_function_writes_a_table_that_the_transaction_also_writes_itself() {
    let schema = "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS
        'BEGIN UPDATE orders SET total = 7 WHERE id = 2; RETURN 1; END';";
    let script = "BEGIN; UPDATE orders SET total = 5 WHERE id = 1; SELECT f(); COMMIT;";
    declared(schema, script, &[("public.orders", "beside the rows")]);
}

#[test]
fn functions_and_triggers_that_only_read_leave_everything_exact() {
    exact(
        "CREATE FUNCTION total_of(o int) RETURNS int LANGUAGE plpgsql AS
            'DECLARE t int; BEGIN SELECT total INTO t FROM orders WHERE id = o; RETURN t; END';
        CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NEW.v + 1; RETURN NEW; END';
        CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON other FOR EACH ROW EXECUTE FUNCTION stamp();
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''done''; RETURN NULL; END';
        CREATE TRIGGER note AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION note();",
        "BEGIN; UPDATE other SET v = 10 WHERE id = 1; INSERT INTO items VALUES (1, 1, total_of(1)); SELECT total_of(2); COMMIT;
        INSERT INTO other VALUES (3, total_of(1)); UPDATE other SET v = total_of(2) WHERE id = 2;",
    );
}

#[test]
fn a_before_trigger_writes_other_rows_of_its_own_table() {
    let schema = "CREATE FUNCTION upsert() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN UPDATE other SET v = NEW.v WHERE id = NEW.id; IF FOUND THEN RETURN NULL; END IF; RETURN NEW; END';
        CREATE TRIGGER upsert BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION upsert();";
    declared(schema, "INSERT INTO other VALUES (1, 100);", &[("public.other", "beside the rows")]);
}

#[test]
fn a_default_calls_a_function_that_writes() {
    let schema = "CREATE FUNCTION next_no() RETURNS int LANGUAGE sql AS
        'UPDATE orders SET total = total + 1 WHERE id = 1 RETURNING total';
        CREATE TABLE invoice (no int PRIMARY KEY DEFAULT next_no(), v int);";
    let expected = [("public.orders", ""), ("public.invoice", "")];
    declared(schema, "INSERT INTO invoice (v) VALUES (1);", &expected);
}

#[test]
fn a_view_calls_a_function_that_writes() {
    let schema = "CREATE FUNCTION next_no() RETURNS int LANGUAGE sql AS
        'UPDATE orders SET total = total + 1 WHERE id = 1 RETURNING total'; CREATE VIEW v AS SELECT next_no() AS no;";
    declared(schema, "SELECT * FROM v;", &[("public.orders", "")]);
}

#[test]
fn a_temporary_target_does_not_hide_what_with_writes() {
    let script = "CREATE TEMP TABLE gone (id int, v int);
        WITH d AS (DELETE FROM other WHERE id = 1 RETURNING *) INSERT INTO gone SELECT * FROM d;";
    declared("", script, &[("public.other", "WITH")]);
}

#[test]
fn a_table_made_of_what_is_deleted() {
    let script = "CREATE TEMP TABLE gone AS WITH d AS (DELETE FROM other WHERE id = 1 RETURNING *) SELECT * FROM d;";
    declared("", script, &[("public.other", "")]);
}

#[test]
fn an_excluded_table_whose_cascade_reaches_another() {
    let schema = "CREATE TABLE session (id int PRIMARY KEY);
        CREATE TABLE basket (id int PRIMARY KEY, session_id int REFERENCES session ON DELETE CASCADE);
        CREATE TABLE other (id int PRIMARY KEY); INSERT INTO session VALUES (1); INSERT INTO basket VALUES (1, 1);";
    for emptied in ["DELETE FROM session WHERE id = 1", "TRUNCATE session CASCADE", "TRUNCATE other, session CASCADE"] {
        let scene = Scene::with(schema, "", |builder| builder.set("mirror", "exclude", "[\"public.session\"]"));
        scene.app().psql(emptied);
        scene.drain();
        let mut suspects: Vec<String> = scene.suspects().into_iter().map(|(table, _)| table).collect();
        suspects.dedup();
        let expected: &[&str] =
            if emptied.contains("other") { &["public.basket", "public.other"] } else { &["public.basket"] };
        assert_eq!(suspects, expected, "{emptied}");
    }
}

#[test]
fn explained_and_executed_writes() {
    let script = "PREPARE p(int) AS UPDATE other SET v = $1 WHERE id = 1; EXPLAIN ANALYZE EXECUTE p(9);";
    declared("", script, &[("public.other", "")]);
}

#[test]
fn a_generated_key() {
    let schema = "CREATE TABLE u (email text NOT NULL, low text GENERATED ALWAYS AS (lower(email)) STORED PRIMARY KEY);
        INSERT INTO u VALUES ('A'), ('B');";
    let scene = Scene::of(schema);
    scene.app().psql("UPDATE u SET email = 'C' WHERE email = 'A'; UPDATE u SET email = 'x' || email WHERE low = 'b'");
    scene.expect_exact();
}

#[test]
fn a_trigger_changes_the_key() {
    let schema = "CREATE TABLE u (slug text PRIMARY KEY, title text);
        CREATE FUNCTION slugify() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.slug := lower(NEW.title); RETURN NEW; END';
        CREATE TRIGGER slugify BEFORE INSERT OR UPDATE ON u FOR EACH ROW EXECUTE FUNCTION slugify();
        INSERT INTO u (title) VALUES ('A'), ('B');";
    let scene = Scene::of(schema);
    scene.app().psql("UPDATE u SET title = 'C' WHERE slug = 'a'; UPDATE u SET title = 'D' WHERE title = 'B'");
    scene.expect_exact();
}

#[test]
fn a_suspect_table_stays_suspect_under_its_new_name() {
    for [begin, commit] in [["", ""], ["BEGIN;", "COMMIT"]] {
        let script = format!(
            "{begin} CREATE TABLE fresh AS SELECT *, now() AS at FROM other;
            ALTER TABLE other RENAME TO old; ALTER TABLE fresh RENAME TO other; {commit}"
        );
        let scene = Scene::of(SHOP);
        scene.app().psql(&script);
        scene.drain();
        let suspects = scene.suspects();
        assert!(suspects.iter().any(|(table, _)| table == "public.other"), "{script}: {suspects:?}");
    }
}

#[test]
fn a_truncate_of_a_name_made_in_the_same_string() {
    let scene = Scene::of(SHOP);
    scene.app().psql(r"ALTER TABLE other RENAME TO another \; TRUNCATE another;");
    scene.drain();
    let suspects = scene.suspects();
    assert!(suspects.iter().any(|(table, _)| table == "public.another"), "{suspects:?}");
}

#[test]
fn prepared_definitions() {
    let scene = Scene::of(SHOP);
    scene.app().psql(
        "BEGIN; ALTER TABLE other ADD extra int; PREPARE TRANSACTION 'g'; COMMIT PREPARED 'g'; UPDATE other SET extra = 1;",
    );
    scene.expect_exact();
}

#[test]
fn what_a_failing_block_has_committed() {
    let script = "\\set ON_ERROR_STOP off
        DO $$ BEGIN UPDATE other SET v = 77 WHERE id = 1; COMMIT; RAISE EXCEPTION 'too late'; END $$;";
    declared("", script, &[(EVERY_TABLE, "")]);
    let harmless = "\\set ON_ERROR_STOP off
        DO $$ BEGIN UPDATE other SET v = 77 WHERE id = 1; RAISE EXCEPTION 'too early'; END $$;";
    exact("", harmless);
}

#[test]
fn what_a_failing_string_has_committed() {
    let script = "\\set ON_ERROR_STOP off
        UPDATE other SET v = 77 WHERE id = 1 \\; COMMIT \\; SELECT 1/0;";
    declared("", script, &[("public.other", "")]);
}

#[test]
fn sql_prepared_statements_follow_the_search_path() {
    let schema = "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t (id int PRIMARY KEY); CREATE TABLE b.t (id int PRIMARY KEY);";
    exact(
        schema,
        "SET search_path = a; PREPARE p(int) AS INSERT INTO t VALUES ($1); EXECUTE p(1);
        SET search_path = b; EXECUTE p(2); SET search_path = a; EXECUTE p(3);",
    );
}

#[test]
fn a_trigger_made_after_a_statement_was_prepared() {
    let schema = "CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO items VALUES (NEW.id, NEW.id, NEW.v); RETURN NULL; END';";
    let script = "PREPARE p(int) AS INSERT INTO other VALUES ($1, $1); EXECUTE p(10);
        CREATE TRIGGER log_it AFTER INSERT ON other FOR EACH ROW EXECUTE FUNCTION log_it(); EXECUTE p(11);";
    declared(schema, script, &[("public.other", ""), ("public.items", "")]);
}

#[tokio::test]
async fn statements_of_the_protocol_follow_search_path_and_role() {
    let schema = "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t (id int PRIMARY KEY, v int);
        CREATE TABLE b.t (id int PRIMARY KEY, v int); INSERT INTO a.t VALUES (1, 0); INSERT INTO b.t VALUES (1, 0);";
    let scene = Scene::of(&format!("{SHOP} {schema}"));
    let client = scene.app().connect().await;
    let work = async {
        client.batch_execute("SET search_path = a").await?;
        let update = client.prepare("UPDATE t SET v = v + $1 WHERE id = 1 RETURNING v").await?;
        for (path, expected) in [("a", 1), ("b", 1), ("a", 2), ("b", 2)] {
            client.batch_execute(&format!("SET search_path = {path}")).await?;
            let row = client.query_one(&update, &[&1_i32]).await?;
            assert_eq!((row.len(), row.get::<_, i32>(0)), (1, expected), "{path}");
        }
        Ok::<_, tokio_postgres::Error>(())
    };
    within(LIMIT, "prepared statements", work).await.unwrap();
    scene.expect_exact();
}

#[tokio::test]
async fn a_transaction_saved_by_rollback_to_in_a_pipeline() {
    let scene = Scene::of(SHOP);
    let client = scene.app().connect().await;
    let work = async {
        for round in 0..5_i32 {
            client.batch_execute(&format!("BEGIN; INSERT INTO items VALUES ({round}, 1, 1); SAVEPOINT s")).await?;
            assert!(client.batch_execute("INSERT INTO orders VALUES (1, 1)").await.is_err());
            let (back, more, end) = tokio::join!(
                client.batch_execute("ROLLBACK TO s"),
                client.batch_execute("UPDATE other SET v = v + 1 WHERE id = 1"),
                client.batch_execute("COMMIT"),
            );
            back?;
            more?;
            end?;
            client.batch_execute("BEGIN; SAVEPOINT s; UPDATE other SET v = -1 WHERE id = 2").await?;
            let (back, end) = tokio::join!(client.batch_execute("ROLLBACK TO s"), client.batch_execute("COMMIT"));
            back?;
            end?;
        }
        Ok::<_, tokio_postgres::Error>(())
    };
    within(LIMIT, "a pipeline", work).await.unwrap();
    assert_eq!(scene.source.psql("SELECT count(*) FROM items"), "5");
    scene.expect_exact();
}

#[test]
fn texts_in_other_encodings_reach_the_primary_as_they_are() {
    let scene = Scene::of("CREATE TABLE t (id int PRIMARY KEY, s text);");
    let script = b"SET client_encoding = latin1; INSERT INTO t VALUES (1, 'caf\xe9'), (2, '\xc3\xa9');
        UPDATE t SET s = s || '\xfc' WHERE s = 'caf\xe9' RETURNING s; INSERT INTO t VALUES (3, 'plain');
        PREPARE p(int) AS INSERT INTO t VALUES ($1, '\xe4'); EXECUTE p(4);
        SELECT 1 /* \xe9 */; ALTER TABLE t ADD c text DEFAULT '\xe4'";
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), script).unwrap();
    scene.app().psql(&format!("\\i {}", path.path().display()));
    assert_eq!(scene.source.psql("SELECT s FROM t ORDER BY id"), "caféü\nÃ©\nplain\nä");
    assert_eq!(scene.source.psql("SELECT DISTINCT c FROM t"), "ä");
    scene.drain();
    let suspects = scene.suspects();
    assert!(suspects.iter().all(|(table, _)| table == "public.t"), "{suspects:?}");
    assert!(suspects.iter().any(|(table, why)| table == "public.t" && why.contains("UTF-8")), "{suspects:?}");
    assert_eq!(scene.target.psql("SELECT s FROM t ORDER BY id"), "caféü\nÃ©\nplain\nä", "rows are exact");
}

#[test]
fn nothing_is_added_to_what_cannot_run_in_a_block() {
    // right after DDL, when what functions do isn't known again yet
    exact(
        "CREATE TABLE part (id int PRIMARY KEY, v int) PARTITION BY LIST (id); CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1);
        CREATE INDEX part_id ON part (id);",
        "CREATE TABLE made (id int PRIMARY KEY); CLUSTER part USING part_id; VACUUM part; ANALYZE part; REINDEX TABLE part;",
    );
}

#[test]
fn what_the_server_cannot_parse_has_written_nothing() {
    let script = "\\set ON_ERROR_STOP off
        SELEC 1; UPDATE other SET v = 5 WHERE id = 1; COMMIT \\; SELEC 2; CALL 3 nothing; BEGIN; SELEC 4; ROLLBACK;
        SELEC 5 \\bind \\g
        UPDATE other SET v = 6 WHERE id = 1;";
    exact("", script);
}

#[test]
fn what_a_failed_transaction_refuses_has_written_nothing() {
    // its tables can't be looked up any more
    let script = "\\set ON_ERROR_STOP off
        BEGIN; INSERT INTO other VALUES (3, 3); SAVEPOINT s; INSERT INTO other VALUES (1, 1); INSERT INTO items VALUES (1, 1, 1);
        DO 'BEGIN UPDATE orders SET total = 1; END'; ROLLBACK TO s; INSERT INTO other VALUES (4, 4); COMMIT;
        BEGIN; INSERT INTO other VALUES (5, 5); SAVEPOINT s; INSERT INTO other VALUES (1, 1);
        INSERT INTO orders VALUES ($1, 1) \\bind 3 \\g
        ROLLBACK TO s; DELETE FROM other WHERE id = 2; COMMIT;";
    exact("", script);
}

/// What a savepoint or ROLLBACK PREPARED takes back hasn't been: a suspect table keeps its name, nothing is reported.
#[test]
fn what_is_taken_back_is_neither_reported_nor_renamed() {
    for script in [
        "BEGIN; SAVEPOINT a; CREATE ROLE never; ALTER TABLE other RENAME TO old; ROLLBACK TO a; UPDATE other SET v = 7 WHERE id = 1; COMMIT",
        "BEGIN; ALTER TABLE other RENAME TO old; PREPARE TRANSACTION 'renames'; ROLLBACK PREPARED 'renames'",
    ] {
        let scene = Scene::of(SHOP);
        let app = scene.app().as_user("postgres", "postgres");
        app.psql("CREATE TABLE past AS SELECT now(); CREATE RULE r AS ON INSERT TO other DO ALSO UPDATE other SET v = 1; INSERT INTO other VALUES (77, 7)");
        app.psql(script);
        scene.drain();
        let suspects = scene.suspects();
        assert!(suspects.iter().any(|(table, _)| table == "public.other"), "{script}: {suspects:?}");
        assert_eq!(scene.pgshadow.findings(), [] as [serde_json::Value; 0], "{script}");
    }
}
