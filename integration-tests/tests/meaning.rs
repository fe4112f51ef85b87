//! Names that come to mean another relation, and functions that come to do something else, under what is prepared.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::equal;
use integration_tests::scene::Scene;
use tokio_postgres::Client;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, s text);
    INSERT INTO t SELECT g, g * 10, 'row' FROM generate_series(1, 9) g; CREATE TABLE log (id int PRIMARY KEY);";

const UPDATE: &str = "UPDATE t SET v = $1 WHERE id = $2";
const TEMPORARY: &str = "CREATE TEMP TABLE t (id int, v int); INSERT INTO pg_temp.t VALUES (1, 0), (2, 0), (3, 0)";

#[tokio::test]
async fn a_temporary_table_in_the_string_that_makes_it() {
    let scene = Scene::of(TABLE);
    let client = scene.app().connect().await;
    for sql in [
        "CREATE TEMP TABLE made (id int); INSERT INTO made VALUES (1); CREATE INDEX ON made (id); DROP TABLE made",
        "CREATE TEMP TABLE t (LIKE log); INSERT INTO t VALUES (1); TRUNCATE t; DROP TABLE t; UPDATE t SET v = 1 WHERE id = 1",
        "BEGIN; CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 AS id; DELETE FROM t; INSERT INTO log VALUES (1); COMMIT",
        "CREATE TEMP TABLE made (id int, v int); CREATE INDEX made_id ON made (id); CREATE INDEX made_v ON made (v)",
        "DROP INDEX made_id",
        "DROP INDEX CONCURRENTLY made_v",
        "CREATE INDEX t_v ON t (v)",
        "DROP INDEX t_v",
        "DELETE FROM t WHERE id = 2",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    scene.expect_exact();
}

/// What a string writes where its temporary table is gone again, or not in front, is the real table's, or that is suspect.
#[tokio::test]
async fn a_temporary_table_that_is_gone_within_the_string() {
    const MADE: &str = "CREATE TEMP TABLE t (id int, v int, s text)";
    for strings in [
        &["BEGIN", "SAVEPOINT s; MADE; ROLLBACK TO s; INSERT INTO t VALUES (100, 1, 'x')", "COMMIT"][..],
        &["SET search_path = public, pg_temp; MADE; INSERT INTO t VALUES (100, 1, 'x')"],
        &["MADE; DISCARD TEMP; INSERT INTO t VALUES (100, 1, 'x')"],
        &["BEGIN; MADE; ROLLBACK; INSERT INTO t VALUES (100, 1, E'\\'')"],
        &["BEGIN; MADE ON COMMIT DROP; COMMIT; INSERT INTO t VALUES (100, 1, E'\\'')"],
        &["MADE; DO $$BEGIN DROP TABLE pg_temp.t; END$$; INSERT INTO t VALUES (100, 1, 'x')"],
        &["MADE; DROP TABLE pg_temp.t; INSERT INTO t VALUES (100, 1, 'x')"],
        &["MADE; ALTER TABLE t RENAME TO other; INSERT INTO t VALUES (100, 1, 'x')"],
    ] {
        let scene = Scene::of(TABLE);
        let client = scene.app().connect().await;
        for sql in strings {
            client.batch_execute(&sql.replace("MADE", MADE)).await.unwrap();
        }
        assert_eq!(scene.source.psql("SELECT v FROM public.t WHERE id = 100"), "1", "{strings:?}");
        scene.drain();
        let found = equal::differences(&scene.source, &scene.target);
        let suspects = scene.suspects();
        assert!(found.is_empty() || !suspects.is_empty(), "{strings:?}: {found:?}");
    }
}

/// The server may come to write the temporary table that is in front: the real one's rows on the shadow tell nothing of that then.
#[tokio::test]
async fn a_prepared_statement_that_comes_to_write_a_temporary_table() {
    let scene = Scene::of(TABLE);
    let client = scene.app().connect().await;
    client.batch_execute("CREATE TEMP TABLE first (id int)").await.unwrap();
    let update = client.prepare(UPDATE).await.unwrap();
    assert_eq!(client.execute(&update, &[&1, &1]).await.unwrap(), 1);
    client
        .batch_execute("CREATE TEMP TABLE t (id int, v int); INSERT INTO pg_temp.t VALUES (2, 0), (2, 1)")
        .await
        .unwrap();
    assert_eq!(client.execute(&update, &[&2, &3]).await.unwrap(), 1, "the real table");
    client.batch_execute("ANALYZE public.t").await.unwrap();
    client.batch_execute("BEGIN; INSERT INTO log VALUES (1)").await.unwrap();
    assert_eq!(client.execute(&update, &[&3, &2]).await.unwrap(), 2, "the temporary table");
    assert_eq!(client.execute(&update, &[&4, &4]).await.unwrap(), 0, "the temporary table");
    client.batch_execute("COMMIT").await.unwrap();
    scene.expect_exact();
}

/// Writes the real table, the temporary one and, behind `ending`, the real one again, by one prepared statement.
async fn hidden_for_a_while(client: &Client, beginning: &[&str], ending: &[&str]) {
    let update = client.prepare(UPDATE).await.unwrap();
    client.execute(&update, &[&1, &1]).await.unwrap();
    for sql in beginning {
        client.batch_execute(sql).await.unwrap();
    }
    client.execute(&update, &[&2, &2]).await.unwrap();
    for sql in ending {
        client.batch_execute(sql).await.unwrap();
    }
    client.execute(&update, &[&3, &3]).await.unwrap();
    client.execute(UPDATE, &[&4, &4]).await.unwrap();
}

async fn exact(schema: &str, beginning: &[&str], ending: &[&str]) {
    let scene = Scene::of(&format!("{TABLE} {schema}"));
    hidden_for_a_while(&scene.app().connect().await, beginning, ending).await;
    assert_eq!(scene.source.psql("SELECT v FROM t WHERE id = 3"), "3", "the statement meant the table again");
    scene.expect_exact();
}

/// Tables of a tree come in the order of the plan by which they are looked up.
#[tokio::test]
async fn a_tree_whose_tables_come_in_another_order_is_the_same() {
    let scene = Scene::of(
        "CREATE TABLE p (id int, part text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
         CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a');
         CREATE TABLE p_rest PARTITION OF p DEFAULT PARTITION BY HASH (id);
         CREATE TABLE p_rest_0 PARTITION OF p_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE p_rest_1 PARTITION OF p_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);",
    );
    let client = scene.app().connect().await;
    let truncate = client.prepare("TRUNCATE p").await.unwrap();
    for setting in ["enable_seqscan", "enable_nestloop", "enable_hashjoin"] {
        client.execute(&truncate, &[]).await.unwrap();
        client.batch_execute(&format!("RESET ALL; SET {setting} = off")).await.unwrap();
        client.execute(&truncate, &[]).await.unwrap();
        client.execute("INSERT INTO p VALUES (1, 'a'), (1, 'b'), (2, 'c')", &[]).await.unwrap();
    }
    scene.expect_exact();
}

#[tokio::test]
async fn a_temporary_table_is_discarded_or_dropped() {
    for ending in ["DISCARD TEMP", "DROP TABLE t", "ALTER TABLE t RENAME TO u"] {
        exact("", &[TEMPORARY], &[ending]).await;
    }
}

#[tokio::test]
async fn a_temporary_table_goes_with_its_transaction() {
    let on_commit = "CREATE TEMP TABLE t (id int, v int) ON COMMIT DROP";
    exact("", &["BEGIN", on_commit], &["COMMIT"]).await;
    exact("", &["BEGIN", TEMPORARY], &["ROLLBACK"]).await;
    exact("", &["BEGIN", "SAVEPOINT a", TEMPORARY], &["ROLLBACK TO a", "COMMIT"]).await;
}

#[tokio::test]
async fn a_temporary_table_is_made_and_dropped_by_functions() {
    let functions =
        "CREATE FUNCTION make() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE t (id int, v int); END';
        CREATE FUNCTION drop_it() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''DROP TABLE pg_temp.t''; END';";
    exact(functions, &["SELECT make()"], &["SELECT drop_it()"]).await;
}

#[tokio::test]
async fn a_temporary_table_that_goes_in_the_same_string_as_a_write() {
    for script in [
        "DISCARD TEMP; UPDATE t SET v = 7 WHERE id = 5",
        "DROP TABLE t; UPDATE t SET v = 7 WHERE id = 5",
        "SET search_path = public, pg_temp; UPDATE t SET v = 7 WHERE id = 5",
        "DROP TABLE t; EXECUTE p",
        "SET search_path = public, pg_temp; EXECUTE p",
    ] {
        let scene = Scene::of(TABLE);
        let client = scene.app().connect().await;
        client.batch_execute(TEMPORARY).await.unwrap();
        client.batch_execute("PREPARE p AS UPDATE t SET v = 7 WHERE id = 5").await.unwrap();
        client.batch_execute(script).await.unwrap();
        assert_eq!(scene.source.psql("SELECT v FROM t WHERE id = 5"), "7", "{script}");
        scene.expect_suspects(&[("public.t", "")]);
    }
}

#[tokio::test]
async fn what_a_savepoint_took_back_in_the_same_string() {
    let scene = Scene::of(TABLE);
    let client = scene.app().connect().await;
    client.batch_execute("BEGIN; SAVEPOINT a").await.unwrap();
    client.batch_execute(TEMPORARY).await.unwrap();
    client.batch_execute("UPDATE t SET v = 1 WHERE id = 1").await.unwrap();
    client
        .batch_execute("ROLLBACK TO a; UPDATE t SET v = 7 WHERE id = 5; UPDATE t SET v = 8 WHERE id = 6")
        .await
        .unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    scene.expect_exact();
}

#[tokio::test]
async fn a_read_calls_a_function_that_comes_to_write() {
    let function = "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';";
    let scene = Scene::of(&format!("{TABLE} {function}"));
    let client = scene.app().connect().await;
    let call = client.prepare("SELECT f()").await.unwrap();
    client.query(&call, &[]).await.unwrap();
    let redefined = "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE plpgsql AS
        'BEGIN INSERT INTO log VALUES (1); RETURN 1; END'";
    scene.app().psql(redefined);
    client.query(&call, &[]).await.unwrap();
    scene.expect_suspects(&[("public.log", "")]);
}

#[tokio::test]
async fn a_trigger_drops_a_temporary_table() {
    let trigger =
        "CREATE FUNCTION helper() RETURNS void LANGUAGE plpgsql AS 'BEGIN DROP TABLE IF EXISTS pg_temp.t; END';
        CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM helper(); RETURN NEW; END';
        CREATE TRIGGER drop_it BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION drop_it();";
    let scene = Scene::of(&format!("{TABLE} {trigger}"));
    hidden_for_a_while(&scene.app().connect().await, &[TEMPORARY], &["INSERT INTO log VALUES (1)"]).await;
    assert_eq!(scene.source.psql("SELECT v FROM t WHERE id = 3"), "3", "the statement meant the table again");
    scene.expect_suspects(&[("public.log", "")]);
}
