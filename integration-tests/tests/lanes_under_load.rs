//! Twelve sessions write to a few rows of tables of every kind, where lanes could get into each other's way: unique values that
//! move from row to row, tables without a key, foreign keys with cascades, a tree, deferred constraints, partitions, keys with
//! blanks, and now and then a TRUNCATE. With many lanes and with one, the target is equal, and nothing was
//! noticed or mended on the way.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::client::{Endpoint, within};
use integration_tests::history::{Dice, Inversions};
use integration_tests::proxy::PgshadowBuilder;
use integration_tests::repeats;
use integration_tests::scene::Scene;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

const SESSIONS: u64 = 12;
const LIMIT: Duration = Duration::from_secs(180);

const SCHEMA: &str = "
CREATE TABLE keyed (id int PRIMARY KEY, v bigint NOT NULL);
CREATE TABLE taken (id int PRIMARY KEY, u int UNIQUE, w text, UNIQUE (w));
CREATE TABLE bag (a int, b text);
CREATE TABLE padded (k char(4), n text, PRIMARY KEY (k, n), v int);
CREATE TABLE parent (id int PRIMARY KEY, v bigint NOT NULL);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE, v bigint NOT NULL);
CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree ON DELETE SET NULL);
CREATE TABLE later (id int PRIMARY KEY, place int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (5);
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (5) TO (100);
INSERT INTO keyed SELECT g, g FROM generate_series(1, 12) g;
INSERT INTO taken SELECT g, g, 'w' || g FROM generate_series(1, 6) g;
INSERT INTO later SELECT g, g FROM generate_series(1, 8) g;
INSERT INTO parent SELECT g, g FROM generate_series(1, 6) g;
INSERT INTO parts SELECT g, g FROM generate_series(1, 9) g;
";

fn statement(dice: &mut Dice) -> String {
    let (i, j, n) = (dice.between(1, 12), dice.between(1, 9), dice.between(1, 1000));
    match dice.between(1, 118) {
        1..=30 => format!("UPDATE keyed SET v = (v * 3 + {n}) % 1000003 WHERE id = {i}"),
        31..=36 => format!("INSERT INTO keyed VALUES ({i}, {n}) ON CONFLICT (id) DO UPDATE SET v = keyed.v + 1"),
        37..=40 => format!("DELETE FROM keyed WHERE id = {i}"),
        41..=46 => format!("INSERT INTO taken VALUES ({i}, {j}, 'w{n}') ON CONFLICT DO NOTHING"),
        47..=52 => format!("DELETE FROM taken WHERE u = {j}"),
        53..=58 => format!("UPDATE taken SET w = 'w{}' WHERE id = {i}", n % 9),
        59..=70 => format!("INSERT INTO bag VALUES ({}, 'b{}')", n % 4, n % 3),
        71..=74 => format!("DELETE FROM bag WHERE a = {} AND b = 'b{}'", n % 4, n % 3),
        75..=80 => format!(
            "INSERT INTO padded VALUES ('{}', 'n{j}', {n}) ON CONFLICT (k, n) DO UPDATE SET v = excluded.v",
            n % 3
        ),
        81..=83 => format!("DELETE FROM padded WHERE k = '{}' AND n = 'n{j}'", n % 3),
        84..=87 => format!("INSERT INTO parent VALUES ({j}, {n}) ON CONFLICT (id) DO UPDATE SET v = excluded.v"),
        88..=90 => format!("DELETE FROM parent WHERE id = {j}"),
        91..=95 => {
            format!("INSERT INTO child VALUES ({i}, {j}, {n}) ON CONFLICT (id) DO UPDATE SET parent = excluded.parent")
        }
        96..=98 => format!("INSERT INTO tree VALUES ({i}, {j}) ON CONFLICT (id) DO NOTHING"),
        99..=100 => format!("DELETE FROM tree WHERE id = {j}"),
        101..=105 => format!("UPDATE later SET place = place % 8 + 1 WHERE id IN ({}, {})", n % 8 + 1, n % 7 + 1),
        106..=110 => format!("INSERT INTO parts VALUES ({j}, {n}) ON CONFLICT (id) DO UPDATE SET v = excluded.v"),
        111..=114 => format!("DELETE FROM parts WHERE id = {j}"),
        115..=116 => "TRUNCATE bag".to_owned(),
        117 => "DELETE FROM padded".to_owned(),
        _ => format!("UPDATE keyed SET v = v + 1 WHERE id > {i}"),
    }
}

async fn done(client: &Client, sql: &str, extended: bool) -> bool {
    let result = if extended { client.execute(sql, &[]).await.map(drop) } else { client.batch_execute(sql).await };
    let Err(error) = result else { return true };
    let expected = [SqlState::T_R_DEADLOCK_DETECTED, SqlState::FOREIGN_KEY_VIOLATION, SqlState::UNIQUE_VIOLATION];
    assert!(error.code().is_some_and(|code| expected.contains(code)), "{sql}: {error:?}");
    false
}

async fn session(place: Endpoint, seed: u64, number: u64, transactions: u32) {
    let mut dice = Dice::new(seed, number);
    let client = place.connect().await;
    let extended = number.is_multiple_of(2);
    for _ in 0..transactions {
        if dice.percent(60) {
            done(&client, &statement(&mut dice), extended).await;
            continue;
        }
        done(&client, "BEGIN", extended).await;
        let mut alive = true;
        for _ in 0..dice.between(1, 3) {
            alive = alive && done(&client, &statement(&mut dice), extended).await;
        }
        let end = if alive && !dice.percent(10) { "COMMIT" } else { "ROLLBACK" };
        done(&client, end, extended).await;
    }
}

/// `held`: so many transactions are held at most while others wait in the log; 0 for as many as by default.
fn run(seed: u64, lanes: u32, held: u32) {
    eprintln!("seed {seed}, {lanes} lanes, {held} held");
    let (lanes, entries) = (lanes.to_string(), held.to_string());
    let set_up = |builder: PgshadowBuilder| {
        builder.with_trace().set("apply", "lanes", &lanes).set("test", "held_entries", &entries)
    };
    let mut scene = Scene::with(SCHEMA, "", set_up);
    let transactions = if repeats() > 1 { 300 } else { 80 };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let sessions: Vec<_> =
            (0..SESSIONS).map(|number| tokio::spawn(session(scene.app(), seed, number, transactions))).collect();
        if held > 0 {
            // its rows can't be written for a while
            let locked = scene.target.connect().await;
            locked.batch_execute("BEGIN; LOCK TABLE keyed IN EXCLUSIVE MODE").await.expect("a lock");
            tokio::time::sleep(Duration::from_millis(500)).await;
            locked.batch_execute("ROLLBACK").await.expect("the lock's end");
        }
        for session in sessions {
            within(LIMIT, "a session", session).await.expect("a session's statements");
        }
        // The outcome of a statement that failed is written after its answer. That of this one is on disk before its answer,
        // and so is what was written ahead of it.
        let last = scene.app().connect().await;
        last.batch_execute("INSERT INTO bag VALUES (0, 'last')").await.expect("the last write");
    });
    let read_again = |scene: &Scene| scene.pgshadow.metric("pgshadow_log_read_again_total").unwrap_or_default();
    if held > 0 {
        assert!(read_again(&scene) > 10.0, "{} transactions waited in the log", read_again(&scene));
    }
    if held > 0 && seed.is_multiple_of(2) {
        scene.pgshadow.kill9();
        scene.pgshadow.start();
    }
    scene.expect_exact();
    let inversions = Inversions::of(&scene.pgshadow.trace());
    assert!(inversions.rows > 100, "{inversions:?}");
    assert_eq!(inversions.applied, 0, "{inversions:?}");
}

#[test]
fn many_lanes_do_what_one_does() {
    for seed in 1..=u64::from(repeats().max(2)) {
        run(seed, if seed.is_multiple_of(3) { 1 } else { 8 }, 0);
    }
}

#[test]
fn what_waits_in_the_log_keeps_its_place() {
    for seed in 1..=u64::from(repeats().max(4)) {
        run(seed, 4, [1, 4, 30][usize::try_from(seed % 3).expect("small")]);
    }
}
