//! What cuts a transaction short: a COMMIT that fails by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]
use integration_tests::scene::Scene;
use tokio_postgres::error::SqlState;

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
