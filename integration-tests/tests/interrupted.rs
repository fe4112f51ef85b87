//! What cuts a transaction short: a COMMIT that fails by itself, a cancel or a timeout that hits pgshadow's own lookup.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]
use integration_tests::client::within;
use integration_tests::scene::Scene;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

const LIMIT: Duration = Duration::from_secs(30);

const TABLES: &str = "CREATE TABLE d (id int PRIMARY KEY, on_call bool); INSERT INTO d VALUES (1, true), (2, true);
    CREATE TABLE checked (id int PRIMARY KEY, up int REFERENCES d DEFERRABLE INITIALLY DEFERRED);
    CREATE VIEW v AS SELECT * FROM d;";

#[tokio::test]
async fn a_commit_that_the_server_refuses() {
    for more in ["SELECT 1", "WITH x AS (UPDATE d SET on_call = on_call WHERE id = 3 RETURNING 1) SELECT * FROM x"] {
        let scene = Scene::of(TABLES);
        let (first, second) = (scene.app().connect().await, scene.app().connect().await);
        for (client, id) in [(&first, 1), (&second, 2)] {
            client.execute("BEGIN ISOLATION LEVEL SERIALIZABLE", &[]).await.unwrap();
            client.query("SELECT count(*) FROM d WHERE on_call", &[]).await.unwrap();
            client.execute("UPDATE d SET on_call = false WHERE id = $1", &[&id]).await.unwrap();
        }
        second.query(more, &[]).await.unwrap();
        first.execute("COMMIT", &[]).await.unwrap();
        let refused = second.execute("COMMIT", &[]).await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
        second.execute("UPDATE d SET on_call = NOT on_call WHERE id = 2", &[]).await.unwrap();
        scene.expect_exact();
    }
}

/// Locks the view past pgshadow, has a statement wait in its lookup, and gives the view free when `interrupt` has been done.
async fn while_looked_up(scene: &Scene, set: &str, in_block: bool, cancel: bool) {
    let (client, holder) = (scene.app().connect().await, scene.source.connect().await);
    client.batch_execute(set).await.unwrap();
    if in_block {
        client.batch_execute("BEGIN").await.unwrap();
    }
    holder.batch_execute("BEGIN; LOCK TABLE v IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let token = client.cancel_token();
    let statement = client.batch_execute("UPDATE v SET on_call = true WHERE id = 1");
    let interrupt = async {
        if cancel {
            let waits =
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
            while holder.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            token.cancel_query(tokio_postgres::NoTls).await.unwrap();
        }
    };
    let (outcome, ()) = within(LIMIT, "the statement's end", async { tokio::join!(statement, interrupt) }).await;
    assert_eq!(outcome.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    holder.batch_execute("COMMIT").await.unwrap();
    client.batch_execute("ROLLBACK; SET statement_timeout = 0").await.unwrap();
    client.batch_execute("UPDATE v SET on_call = false WHERE id = 2").await.unwrap();
    client.execute("UPDATE d SET on_call = false WHERE id = 1", &[]).await.unwrap();
    scene.expect_exact();
}

#[tokio::test]
async fn a_cancel_that_hits_the_lookup() {
    for in_block in [false, true] {
        while_looked_up(&Scene::of(TABLES), "SELECT 1", in_block, true).await;
    }
}

#[tokio::test]
async fn a_timeout_that_hits_the_lookup() {
    for in_block in [false, true] {
        while_looked_up(&Scene::of(TABLES), "SET statement_timeout = '50ms'", in_block, false).await;
    }
}

/// What is locked, or about to go, under a name that the statement itself doesn't reach.
#[tokio::test]
async fn a_lookup_opens_no_table() {
    let scene =
        Scene::of("CREATE TABLE locked (id int PRIMARY KEY, v int DEFAULT 7, at timestamptz DEFAULT now(), s serial);");
    let (client, holder) = (scene.app().connect().await, scene.source.connect().await);
    holder.batch_execute("BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE").await.unwrap();
    for sql in [
        "SET lock_timeout = 300",
        "BEGIN",
        "CREATE TEMP TABLE locked (id int)",
        "INSERT INTO locked VALUES (1)",
        "COMMIT",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    holder.batch_execute("COMMIT").await.unwrap();
    client.batch_execute("INSERT INTO public.locked (id) VALUES (1)").await.unwrap();
    scene.expect_exact();
}

/// Runs it, however often a timeout hits it.
async fn at_last(client: &Client, sql: &str) {
    while let Err(error) = client.batch_execute(sql).await {
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{sql}: {error}");
    }
}

/// A statement is given to the server anew, with another text in another encoding, and a timeout comes: in front of it, amid
/// it or behind it, whatever the machine's pace.
#[tokio::test]
async fn a_timeout_that_hits_a_statement_that_is_prepared_anew() {
    let scene = Scene::of("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)");
    let client = scene.app().connect().await;
    let many: Vec<_> = (1..10_000).map(|id| id.to_string()).collect();
    let statement = client.prepare(&format!("UPDATE t SET v = v + 1 WHERE id IN ({})", many.join(", "))).await.unwrap();
    for number in 2..=80 {
        let (timeout, in_block) = (number / 2, number % 2 == 0);
        client.batch_execute("SET client_encoding = 'LATIN1'").await.unwrap();
        if in_block {
            client.batch_execute("BEGIN").await.unwrap();
        }
        client.batch_execute(&format!("SET statement_timeout = {timeout}")).await.unwrap();
        if let Err(error) = client.execute(&statement, &[]).await {
            assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{timeout} ms: {error}");
            if in_block {
                let refused = client.execute(&statement, &[]).await.unwrap_err();
                assert_eq!(refused.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION), "{timeout} ms: {refused}");
            }
        }
        if in_block {
            at_last(&client, "ROLLBACK").await;
        }
        at_last(&client, "SET statement_timeout = 0").await;
        client.batch_execute("SET client_encoding = 'UTF8'").await.unwrap();
        assert_eq!(client.execute(&statement, &[]).await.unwrap(), 1, "{timeout} ms");
    }
    scene.drain();
    // Of those that hit the lookup itself, three times over.
    let allowed = ["a statement's tables could not be looked up", "it was written by a trigger, a function or a block"];
    let suspects = scene.suspects();
    let others: Vec<_> =
        suspects.iter().filter(|(_, r)| !allowed.iter().any(|allowed| r.starts_with(allowed))).collect();
    assert!(others.is_empty(), "{others:?}");
    let [source, target] = [&scene.source, &scene.target].map(|place| place.psql("SELECT * FROM t"));
    assert!(source == target || !suspects.is_empty(), "{source} {target}");
}
