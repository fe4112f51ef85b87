//! Twelve sessions write to few rows of tables of all kinds: unique secondary keys, ON CONFLICT on each of them, an exclusion
//! constraint, rows that move between partitions, an unlogged table, a deferred unique key, a queue with SKIP LOCKED, TRUNCATE
//! against inserts; in autocommit and in transactions at three isolation levels, with savepoints, in both protocols,
//! with answers that are read late, prepared transactions ended by another session. An idle writer holds an old token all
//! the time. Afterwards every row has arrived in the primary's order.
use crate::case::Protocol;
use crate::contents;
use crate::session::Session;
use crate::stage::Pair;
use integration_tests::client::Endpoint;
use integration_tests::history::{Dice, Inversions};
use integration_tests::proxy::Pgshadow;
use integration_tests::repeats;
use integration_tests::scene::DRAIN;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SCHEMA: &str = "CREATE SCHEMA load; SET search_path = load;
    CREATE TABLE s1 (id int PRIMARY KEY, u int UNIQUE, w int UNIQUE, v int);
    CREATE TABLE s2 (id int PRIMARY KEY, r int4range, v int, EXCLUDE USING gist (r WITH &&));
    CREATE TABLE s3 (id int, p int, v int) PARTITION BY LIST (p);
    CREATE TABLE s3a PARTITION OF s3 FOR VALUES IN (0); CREATE TABLE s3b PARTITION OF s3 FOR VALUES IN (1);
    CREATE TABLE s4 (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED, v int);
    CREATE UNLOGGED TABLE s5 (id int PRIMARY KEY, u int UNIQUE, v int);
    CREATE TABLE queue (id int PRIMARY KEY, state int, v int);
    CREATE TABLE emptied (id int PRIMARY KEY, v int);
    CREATE TABLE hot (id int PRIMARY KEY, v bigint NOT NULL); INSERT INTO hot SELECT g, g FROM generate_series(1, 4) g;
    CREATE TABLE idle (id int PRIMARY KEY, v int);
    INSERT INTO s1 SELECT g, g, NULL, 0 FROM generate_series(1, 4) g; INSERT INTO s3 SELECT g, g % 2, 0 FROM generate_series(1, 6) g;
    INSERT INTO queue SELECT g, 0, 0 FROM generate_series(1, 30) g; INSERT INTO idle VALUES (1, 1);";

const SESSIONS: u64 = 12;
/// What concurrent writers of the same rows are told by the database itself.
const EXPECTED: [&str; 6] = ["40P01", "40001", "23505", "23P01", "55P03", "25P02"];

/// What the load has in it.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Rows without a key that move between partitions.
    pub moves: bool,
    /// PREPARE TRANSACTION, ended by another session.
    pub two_phase: bool,
    /// SERIALIZABLE in the extended protocol too, where COMMIT itself may fail.
    pub commits_fail: bool,
    /// Suspect tables are allowed for these reasons only.
    pub reasons: &'static [&'static str],
}

/// A statement and its parameters.
type Text = (String, Vec<String>);

fn plain(sql: String) -> Text {
    (sql, Vec::new())
}

fn with(sql: &str, parameters: &[i32]) -> Text {
    (sql.to_owned(), parameters.iter().map(ToString::to_string).collect())
}

impl Load {
    fn statement(&self, dice: &mut Dice, deferred: bool) -> Text {
        if dice.percent(30) {
            let sql = "UPDATE hot SET v = (v * 31 + $1) % 1000003 WHERE id = $2";
            return with(sql, &[dice.between(1, 999), dice.between(1, 4)]);
        }
        let kinds = 8 + if deferred { 3 } else { 0 };
        match dice.between(1, kinds) {
            1..=3 => of_unique_keys(dice),
            4 => of_ranges(dice),
            5 if self.moves => of_partitions(dice),
            5 | 6 => of_an_unlogged_table(dice),
            7 => {
                let sql =
                    "UPDATE queue SET state = 1 - state, v = v + 1 WHERE id = (SELECT id FROM queue WHERE state = $1
                    ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1)";
                with(sql, &[dice.between(0, 1)])
            }
            8 if dice.percent(5) => plain("TRUNCATE emptied".to_owned()),
            8 => {
                let sql = "INSERT INTO emptied VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET v = (emptied.v * 3 + excluded.v) % 9973";
                with(sql, &[dice.between(1, 8), dice.between(1, 999)])
            }
            _ => of_a_deferred_key(dice),
        }
    }
}

fn of_unique_keys(dice: &mut Dice) -> Text {
    let (i, u, n) = (dice.between(1, 8), dice.between(1, 6), dice.between(1, 999));
    let w = if dice.percent(50) { "NULL".to_owned() } else { dice.between(1, 5).to_string() };
    match dice.between(1, 100) {
        1..=20 => plain(format!("INSERT INTO s1 VALUES ({i}, {u}, {w}, {n})")),
        21..=35 => plain(format!(
            "INSERT INTO s1 VALUES ({i}, {u}, {w}, {n}), ({}, {}, NULL, {n}) ON CONFLICT DO NOTHING",
            i + 1,
            u + 1
        )),
        36..=50 => plain(format!(
            "INSERT INTO s1 VALUES ({i}, {u}, {w}, {n}) ON CONFLICT (u) DO UPDATE SET v = (s1.v + excluded.v) % 9973, w = excluded.w"
        )),
        51..=70 => with("DELETE FROM s1 WHERE u = $1", &[u]),
        71..=85 => with("UPDATE s1 SET u = $1, v = $2 WHERE id = $3", &[u, n, i]),
        86..=93 => plain(format!(
            "UPDATE s1 SET v = (v * 7 + (SELECT coalesce(sum(v), 0) FROM s1)) % 9973 WHERE v % 2 = {}",
            n % 2
        )),
        _ => plain(format!("DELETE FROM s1 WHERE v % 3 = {}", n % 3)),
    }
}

fn of_ranges(dice: &mut Dice) -> Text {
    let (i, n) = (dice.between(1, 8), dice.between(1, 999));
    let range = format!("int4range({}, {})", n % 20, n % 20 + 4);
    plain(match dice.between(1, 10) {
        1..=5 => format!("INSERT INTO s2 VALUES ({i}, {range}, {n})"),
        6 => format!("INSERT INTO s2 VALUES ({i}, {range}, {n}) ON CONFLICT DO NOTHING"),
        7 | 8 => format!("DELETE FROM s2 WHERE r && {range}"),
        _ => format!("UPDATE s2 SET r = {range} WHERE id = {i}"),
    })
}

fn of_partitions(dice: &mut Dice) -> Text {
    let n = dice.between(1, 999);
    if dice.percent(60) {
        with("UPDATE s3 SET p = 1 - p, v = $1 WHERE id = $2", &[n, dice.between(1, 6)])
    } else {
        with("UPDATE s3 SET v = (v * 3 + $1) % 9973 WHERE p = $2", &[n, n % 2])
    }
}

fn of_an_unlogged_table(dice: &mut Dice) -> Text {
    let (i, u, n) = (dice.between(1, 8), dice.between(1, 6), dice.between(1, 999));
    match dice.between(1, 10) {
        1..=4 => with(
            "INSERT INTO s5 VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET u = excluded.u, v = excluded.v",
            &[i, u, n],
        ),
        5..=7 => with("DELETE FROM s5 WHERE u = $1", &[u]),
        _ => with("UPDATE s5 SET v = v + 1 WHERE id = $1", &[i]),
    }
}

fn of_a_deferred_key(dice: &mut Dice) -> Text {
    let (i, u, n) = (dice.between(1, 8), dice.between(1, 6), dice.between(1, 999));
    match dice.between(1, 10) {
        1..=4 => with("INSERT INTO s4 VALUES ($1, $2, $3)", &[i, u, n]),
        5 | 6 => with("DELETE FROM s4 WHERE u = $1", &[u]),
        7 | 8 => plain("UPDATE s4 SET u = u + 1 WHERE u < 4".to_owned()),
        _ => with("UPDATE s4 SET u = $1 WHERE id = $2", &[u, i]),
    }
}

/// Prepared transactions that wait for their end.
type Prepared = Mutex<VecDeque<String>>;

struct Writer<'a> {
    load: Load,
    dice: Dice,
    session: Session,
    number: u64,
    prepared: &'a Prepared,
}

impl Writer<'_> {
    /// Whether it was done.
    fn done(&mut self, (sql, parameters): &Text) -> bool {
        let parameters: Vec<_> = parameters.iter().map(String::as_str).collect();
        self.session.send(sql, &parameters, 0);
        if self.dice.percent(20) {
            // The answer is there long before it is read.
            std::thread::sleep(Duration::from_micros(self.dice.between(1, 4000) as u64));
        }
        self.session.told.clear();
        let state = self.session.read(None).unwrap_or_else(|error| panic!("{sql}: {error}"));
        if let Some(state) = &state {
            assert!(EXPECTED.contains(&state.as_str()), "{sql}: {state}");
        }
        state.is_none()
    }

    fn control(&mut self, sql: &str) -> bool {
        self.done(&plain(sql.to_owned()))
    }

    fn run(&mut self, transactions: u32) {
        for number in 0..transactions {
            if self.dice.percent(40) {
                let text = self.load.statement(&mut self.dice, false);
                self.done(&text);
            } else {
                self.transaction(number);
            }
        }
    }

    fn transaction(&mut self, number: u32) {
        let deferred = self.dice.percent(40);
        let level =
            ["READ COMMITTED", "READ COMMITTED", "READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];
        let levels = if self.load.commits_fail || self.number.is_multiple_of(2) { 5 } else { 4 };
        let level = level[self.dice.between(0, levels) as usize];
        self.control(&format!("BEGIN ISOLATION LEVEL {level}"));
        let mut alive = true;
        for _ in 0..self.dice.between(1, 4) {
            alive = alive && self.in_transaction(deferred);
        }
        if !alive || self.dice.percent(10) {
            self.control("ROLLBACK");
        } else if self.load.two_phase && self.dice.percent(10) {
            let name = format!("load_{}_{number}", self.number);
            if self.control(&format!("PREPARE TRANSACTION '{name}'")) {
                self.prepared.lock().unwrap().push_back(name);
            }
        } else {
            self.control("COMMIT");
        }
    }

    /// Whether the transaction can go on.
    fn in_transaction(&mut self, deferred: bool) -> bool {
        let savepoint = self.dice.percent(30);
        if savepoint {
            self.control("SAVEPOINT s");
        }
        let text = self.load.statement(&mut self.dice, deferred);
        let done = self.done(&text);
        let back = !done || self.dice.percent(50);
        if savepoint && !self.control(if back { "ROLLBACK TO s" } else { "RELEASE s" }) {
            return false;
        }
        if self.dice.percent(20) {
            let id = self.dice.between(1, 8);
            return (done || savepoint) && self.done(&with("SELECT 1 FROM s1 WHERE id = $1 FOR UPDATE", &[id]));
        }
        done || savepoint
    }
}

fn end_prepared(place: &Endpoint, prepared: &Prepared, over: &AtomicBool) {
    let mut session = Session::open(place, "load", "ends", Protocol::Simple);
    loop {
        let all_sent = over.load(Ordering::SeqCst);
        let next = prepared.lock().unwrap().pop_front();
        match next {
            Some(name) => {
                let word = if name.ends_with('7') { "ROLLBACK" } else { "COMMIT" };
                session.send(&format!("{word} PREPARED '{name}'"), &[], 0);
                assert_eq!(session.read(None), Ok(None), "{name}");
            }
            None if all_sent => return,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Runs it once through a pgshadow of its own.
pub fn run(pair: &Pair, load: Load, seed: u64) -> Inversions {
    eprintln!("seed {seed}, source {}", pair.major());
    let name = format!("load{seed}");
    let places = [pair.source.create_database(&name), pair.target.create_database(&name)];
    places.iter().for_each(|place| drop(place.psql(SCHEMA)));
    let [source, target] = &places;
    let pgshadow = Pgshadow::between(&pair.source, &pair.target).database(&name).with_trace().start();
    let place = pgshadow.app();
    let mut idle = Session::open(&place, "load", "idle", Protocol::Simple);
    idle.send("BEGIN; UPDATE idle SET v = 2", &[], 0);
    assert_eq!(idle.read(None), Ok(None));
    let (prepared, over) = (Prepared::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (place, prepared, over) = (&place, &prepared, &over);
        let ends = scope.spawn(move || end_prepared(place, prepared, over));
        let writers: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let protocol = if number % 2 == 0 { Protocol::Simple } else { Protocol::Extended };
                scope.spawn(move || {
                    let session = Session::open(place, "load", "writes", protocol);
                    let dice = Dice::new(seed, number);
                    let transactions = if repeats() > 1 { 200 } else { 60 };
                    Writer { load, dice, session, number, prepared }.run(transactions);
                })
            })
            .collect();
        // Joined first: the other thread's end must come whatever became of them.
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        over.store(true, Ordering::SeqCst);
        ends.join().expect("prepared transactions are ended");
        assert!(written.iter().all(Result::is_ok), "a session failed");
    });
    // An open transaction holds nothing back.
    pgshadow.wait_drained(DRAIN);
    idle.send("COMMIT", &[], 0);
    assert_eq!(idle.read(None), Ok(None));
    pgshadow.wait_drained(DRAIN);
    expect_exact(&pgshadow, [source, target], load);
    Inversions::of(&pgshadow.trace())
}

fn expect_exact(pgshadow: &Pgshadow, places: [&Endpoint; 2], load: Load) {
    let status = pgshadow.status();
    let mut suspects = Vec::new();
    for suspect in status["suspect_tables"].as_array().expect("status --json has suspect_tables") {
        let reason = suspect["reason"].as_str().unwrap_or_default();
        assert!(load.reasons.iter().any(|allowed| reason.contains(allowed)), "{suspect}");
        suspects.push(suspect["table"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(pgshadow.findings(), Vec::<serde_json::Value>::new());
    assert_eq!(status["healed_rows"], 0);
    let [source, target] = places.map(|place| contents::read(place, "load"));
    let but = |table: &str| suspects.contains(&format!("load.{table}"));
    let found = contents::differences(source.rows.get("load"), target.rows.get("load"), &but);
    assert!(found.is_empty(), "{found:#?}");
}
