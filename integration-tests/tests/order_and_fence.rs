//! Twelve sessions write to a handful of rows: contended updates, upserts, predicates, subqueries, a cascading foreign key,
//! rollbacks, autocommit mixed with transactions. The shadow gets every row in the primary's order.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::client::{Endpoint, within};
use integration_tests::history::{Dice, Inversions};
use integration_tests::repeats;
use integration_tests::scene::Scene;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

const ROWS: i32 = 8;
const SESSIONS: u64 = 12;
const LIMIT: Duration = Duration::from_secs(120);

const SCHEMA: &str = "
CREATE TABLE t (id int PRIMARY KEY, v bigint NOT NULL, s text NOT NULL);
CREATE TABLE parent (id int PRIMARY KEY, v bigint NOT NULL);
CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent ON DELETE CASCADE, v bigint NOT NULL);
INSERT INTO t SELECT g, g, 'a' FROM generate_series(0, 8) g;
INSERT INTO parent SELECT g, g FROM generate_series(1, 8) g;
INSERT INTO child SELECT g, 1 + g % 8, g FROM generate_series(1, 8) g;
";

fn statement(dice: &mut Dice) -> String {
    let (i, j, n) = (dice.between(1, ROWS), dice.between(1, ROWS), dice.between(1, 1000));
    match dice.between(1, 100) {
        1..=25 => format!("UPDATE t SET v = (v * 3 + {n}) % 1000003 WHERE id = {i}"),
        26..=35 => format!("DELETE FROM t WHERE id = {i}"),
        36..=50 => format!(
            "INSERT INTO t VALUES ({i}, {n}, 'b') ON CONFLICT (id) DO UPDATE SET v = (t.v + excluded.v) % 1000003"
        ),
        51..=58 => format!(
            "UPDATE t SET s = CASE s WHEN 'a' THEN 'b' ELSE 'a' END, v = v + 1 WHERE v % 2 = {} AND s = 'a' AND id > 0",
            n % 2
        ),
        59..=65 => {
            format!("UPDATE t SET v = (SELECT coalesce(sum(v), 0) % 1000003 FROM t WHERE id <> {i}) WHERE id = {i}")
        }
        66..=73 => format!("DELETE FROM parent WHERE id = {i}"),
        74..=83 => format!("INSERT INTO parent VALUES ({i}, {n}) ON CONFLICT (id) DO UPDATE SET v = excluded.v"),
        84..=92 => format!(
            "INSERT INTO child VALUES ({i}, {j}, {n}) ON CONFLICT (id) DO UPDATE SET v = excluded.v, parent = excluded.parent"
        ),
        _ => format!("UPDATE child SET v = (v * 5 + {n}) % 1000003 WHERE id = {i}"),
    }
}

/// Whether it was done; deadlocks and missing parents are part of the load.
async fn done(client: &Client, sql: &str, extended: bool) -> bool {
    let result = if extended { client.execute(sql, &[]).await.map(drop) } else { client.batch_execute(sql).await };
    match result {
        Ok(()) => true,
        Err(error) => {
            let expected = [SqlState::T_R_DEADLOCK_DETECTED, SqlState::FOREIGN_KEY_VIOLATION];
            assert!(error.code().is_some_and(|code| expected.contains(code)), "{sql}: {error:?}");
            false
        }
    }
}

async fn session(place: Endpoint, seed: u64, number: u64, transactions: u32) {
    let mut dice = Dice::new(seed, number);
    let client = place.connect().await;
    let extended = number.is_multiple_of(2);
    for _ in 0..transactions {
        if dice.percent(50) {
            done(&client, &statement(&mut dice), extended).await;
            continue;
        }
        done(&client, "BEGIN", extended).await;
        let mut alive = true;
        for _ in 0..dice.between(1, 3) {
            alive = alive && done(&client, &statement(&mut dice), extended).await;
        }
        done(&client, if alive && !dice.percent(10) { "COMMIT" } else { "ROLLBACK" }, extended).await;
    }
}

fn run(seed: u64) -> Inversions {
    eprintln!("seed {seed}");
    let scene = Scene::with(SCHEMA, "", |builder| builder.with_trace());
    let transactions = if repeats() > 1 { 200 } else { 60 };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let idle = scene.app().connect().await;
        within(LIMIT, "the idle writer", idle.batch_execute("BEGIN; UPDATE t SET v = -1 WHERE id = 0")).await.unwrap();
        let sessions: Vec<_> =
            (0..SESSIONS).map(|number| tokio::spawn(session(scene.app(), seed, number, transactions))).collect();
        for session in sessions {
            within(LIMIT, "a session", session).await.expect("a session's statements");
        }
        // An open transaction holds nothing back.
        scene.drain();
        within(LIMIT, "the idle writer's end", idle.batch_execute("COMMIT")).await.unwrap();
    });
    scene.expect_exact();
    let inversions = Inversions::of(&scene.pgshadow.trace());
    assert!(inversions.rows > 100, "{inversions:?}");
    assert_eq!(inversions.applied, 0, "{inversions:?}");
    inversions
}

#[test]
fn every_row_arrives_in_the_primarys_order() {
    let runs = repeats().max(2);
    let replied: usize = (1..=runs).map(|seed| run(u64::from(seed)).replied).sum();
    assert!(replied > 0, "the load was too tame: the order of replies was right by chance in all {runs} runs");
}
