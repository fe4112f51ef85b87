//! Rows that move between partitions whose columns stand at other places. From 18 on PostgreSQL mixes up the columns of what it
//! returns of them, or refuses to, where it leaves partitions out as a statement begins: what pgshadow asks for must never be
//! what fails.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]
use integration_tests::client::{Endpoint, within};
use integration_tests::scene::Scene;
use std::time::Duration;
use tokio::runtime::Runtime;

const LIMIT: Duration = Duration::from_secs(30);
/// `mixed_b` has its columns in another order; the other partitions, and those of `plain`, have not.
const SCHEMA: &str = "
CREATE TABLE mixed (id int, p text, n int NOT NULL, s text, PRIMARY KEY (id, p)) PARTITION BY LIST (p);
CREATE TABLE mixed_a PARTITION OF mixed FOR VALUES IN ('a');
CREATE TABLE mixed_b (s text, n int NOT NULL, id int NOT NULL, p text NOT NULL);
ALTER TABLE mixed ATTACH PARTITION mixed_b FOR VALUES IN ('b');
CREATE TABLE mixed_c PARTITION OF mixed FOR VALUES IN ('c');
CREATE TABLE plain (id int, gone int, p text, n int NOT NULL, s text, PRIMARY KEY (id, p)) PARTITION BY LIST (p);
ALTER TABLE plain DROP COLUMN gone;
CREATE TABLE plain_a PARTITION OF plain FOR VALUES IN ('a'); CREATE TABLE plain_b PARTITION OF plain FOR VALUES IN ('b');
CREATE TABLE plain_c PARTITION OF plain FOR VALUES IN ('c');
INSERT INTO mixed SELECT g, 'c', g, 'row ' || g FROM generate_series(1, 9) g; INSERT INTO plain SELECT * FROM mixed;";
/// From, to.
const MOVES: [(&str, &str); 8] =
    [("c", "b"), ("b", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("a", "c"), ("c", "b"), ("b", "b")];

/// Where there is no row to be found, one is made in another partition.
fn merge(place: &Endpoint, table: &str) {
    let sql = format!(
        "MERGE INTO {table} AS t USING (VALUES ($1::int, $2)) AS s (k, q) ON t.id = s.k AND t.p = s.q
        WHEN MATCHED THEN UPDATE SET n = 0 WHEN NOT MATCHED THEN INSERT (id, p, n) VALUES (s.k, $3, 1)"
    );
    Runtime::new().unwrap().block_on(async {
        let client = place.connect().await;
        within(LIMIT, "SET", client.batch_execute("SET plan_cache_mode = force_generic_plan")).await.unwrap();
        let statement = within(LIMIT, &sql, client.prepare(&sql)).await.unwrap();
        for (id, (from, to)) in (100_i32..).zip(MOVES) {
            let written = within(LIMIT, &sql, client.execute(&statement, &[&id, &from, &to])).await;
            assert!(matches!(written, Ok(1)), "by {from} to {to}: {written:?}");
        }
    });
}

/// Each move by a statement that the server has planned for all parameters.
fn play(place: &Endpoint, table: &str) {
    let sql = format!("UPDATE {table} SET p = $2, n = n + 1 WHERE id = $3 AND p = $1");
    Runtime::new().unwrap().block_on(async {
        let client = place.connect().await;
        within(LIMIT, "SET", client.batch_execute("SET plan_cache_mode = force_generic_plan")).await.unwrap();
        let statement = within(LIMIT, &sql, client.prepare(&sql)).await.unwrap();
        for id in 1..4 {
            for (from, to) in MOVES {
                let written = within(LIMIT, &sql, client.execute(&statement, &[&from, &to, &id])).await;
                assert!(matches!(written, Ok(1)), "from {from} to {to}: {written:?}");
            }
        }
    });
}

#[test]
fn a_source_that_mixes_them_up_is_not_asked() {
    let scene = Scene::newest(SCHEMA);
    play(&scene.source, "mixed");
    scene.source.psql("TRUNCATE mixed; INSERT INTO mixed SELECT * FROM plain");
    play(&scene.app(), "mixed");
    merge(&scene.app(), "mixed");
    play(&scene.app(), "plain");
    merge(&scene.app(), "plain");
    let reason = "columns at other places";
    let suspect = ["public.mixed", "public.mixed_a", "public.mixed_b", "public.mixed_c"].map(|name| (name, reason));
    scene.expect_suspects(&suspect);
}

#[test]
fn what_it_does_not_mix_up_is_exact() {
    let scene = Scene::newest(SCHEMA);
    scene.app().psql(
        "UPDATE mixed SET p = 'b', n = 5 WHERE id = 1 AND p = 'c'; UPDATE mixed SET p = 'a' WHERE p = 'b' RETURNING *;
        SET plan_cache_mode = force_generic_plan;
        PREPARE goes_to(text) AS UPDATE mixed SET p = $1 WHERE id IN (4, 5) AND n % 9 <> 8 RETURNING p; EXECUTE goes_to('b'); EXECUTE goes_to('a');
        PREPARE stays(int, int) AS UPDATE mixed SET n = $2 WHERE id = $1 RETURNING n; EXECUTE stays(1, 7); EXECUTE stays(2, 8);
        PREPARE goes(text) AS DELETE FROM mixed WHERE p = $1; EXECUTE goes('a');
        INSERT INTO mixed VALUES (20, 'b', 1, 'x') ON CONFLICT (id, p) DO UPDATE SET n = 9;
        INSERT INTO mixed VALUES (20, 'b', 1, 'x') ON CONFLICT (id, p) DO UPDATE SET n = 9;",
    );
    scene.expect_exact();
}

#[test]
fn a_shadow_that_mixes_them_up_has_every_row() {
    let scene = Scene::with(SCHEMA, "", |builder| builder.set("compare", "statements", "1.0"));
    play(&scene.app(), "mixed");
    play(&scene.app(), "plain");
    scene.expect_exact();
}
