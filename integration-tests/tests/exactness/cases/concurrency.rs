//! One session waits for another: what it then writes is not what it saw when it began.
use super::{T, t_and};
use crate::case::{Case, case};

const QUEUE: &str =
    "CREATE TABLE q (id int PRIMARY KEY, state int, v int); INSERT INTO q SELECT g, 0, 0 FROM generate_series(1, 6) g;";

pub fn cases() -> Vec<Case> {
    [waiting(), waiting_for_relatives(), keys_that_change(), queues()].concat()
}

fn waiting() -> Vec<Case> {
    vec![
        case("UPDATE that waits for another session's UPDATE", T)
            .each(&["BEGIN", "UPDATE t SET v = v + 1 WHERE id = 1"])
            .start_with(1, "UPDATE t SET v = v * 10, s = $1 WHERE id = 1", &["second"])
            .q("COMMIT")
            .finish(1),
        case("UPDATE that waits for a transaction that is rolled back", T)
            .each(&["BEGIN", "UPDATE t SET v = v + 1 WHERE id = 1"])
            .start(1, "UPDATE t SET v = v * 10 WHERE id = 1")
            .q("ROLLBACK")
            .finish(1),
        case("UPDATE whose row no longer fits after the wait", T)
            .each(&["BEGIN", "UPDATE t SET v = 0 WHERE id IN (5, 6)"])
            .start(1, "UPDATE t SET s = 'still big' WHERE v > 40")
            .q("COMMIT")
            .finish(1),
        case("UPDATE that computes from other rows after the wait", T)
            .each(&["BEGIN", "UPDATE t SET v = 1000 WHERE id = 1", "UPDATE t SET v = 2000 WHERE id = 2"])
            .start(1, "UPDATE t SET v = (SELECT sum(v) FROM t) WHERE id = 1")
            .q("COMMIT")
            .finish(1),
        case("DELETE that waits for an UPDATE", T)
            .each(&["BEGIN", "UPDATE t SET v = 5 WHERE id = 1"])
            .start(1, "DELETE FROM t WHERE id = 1 RETURNING *")
            .q("COMMIT")
            .finish(1),
        case("UPDATE that waits for a DELETE", T)
            .each(&["BEGIN", "DELETE FROM t WHERE id = 1"])
            .start(1, "UPDATE t SET v = 5 WHERE id IN (1, 2)")
            .q("COMMIT")
            .finish(1),
        case("ON CONFLICT that waits for an INSERT", T)
            .each(&["BEGIN", "INSERT INTO t VALUES (100, 1, 'first')"])
            .start_with(
                1,
                "INSERT INTO t VALUES ($1, 5, 'x') ON CONFLICT (id) DO UPDATE SET v = t.v + excluded.v",
                &["100"],
            )
            .q("COMMIT")
            .finish(1),
        case("INSERT that waits for a DELETE of its key", T)
            .each(&["BEGIN", "DELETE FROM t WHERE id = 1"])
            .start(1, "INSERT INTO t VALUES (1, 111, 'again')")
            .q("COMMIT")
            .finish(1),
    ]
}

fn waiting_for_relatives() -> Vec<Case> {
    vec![
        case("A deferrable key that waits for a DELETE of it", "CREATE TABLE u (id int PRIMARY KEY, n int UNIQUE DEFERRABLE INITIALLY IMMEDIATE, v int); INSERT INTO u VALUES (1, 10, 0);")
            .each(&["BEGIN", "DELETE FROM u WHERE n = 10"])
            .start(1, "INSERT INTO u VALUES (2, 10, 0)")
            .q("INSERT INTO u VALUES (7, 70, 0)")
            .q("COMMIT")
            .finish(1),
        case("A child that waits for its parent", "CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE); INSERT INTO a VALUES (1, 1), (2, 2); INSERT INTO b VALUES (1, 1);")
            .each(&["BEGIN", "UPDATE b SET a = 2 WHERE id = 1"])
            .start(1, "DELETE FROM a WHERE id = 1")
            .q("COMMIT")
            .finish(1)
            .alone(),
        case("A row that moves to another partition under a waiting UPDATE", "CREATE TABLE s (id int, p int, v int) PARTITION BY LIST (p); CREATE TABLE s0 PARTITION OF s FOR VALUES IN (0); CREATE TABLE s1 PARTITION OF s FOR VALUES IN (1);
             CREATE TABLE other (id int PRIMARY KEY); INSERT INTO s VALUES (1, 0, 0), (2, 1, 0);")
            .each(&["BEGIN", "UPDATE s SET p = 1 WHERE id = 2"])
            .start(1, "UPDATE s SET p = 0, v = 7 WHERE id = 2")
            .q("COMMIT")
            .finish(1),
        case("TRUNCATE that waits for an INSERT", T)
            .each(&["BEGIN", "INSERT INTO t VALUES (100)"])
            .start(1, "TRUNCATE t")
            .q("COMMIT")
            .finish(1)
            .by(1, "INSERT INTO t VALUES (200)"),
        case("ALTER TABLE that waits for an UPDATE", T)
            .each(&["BEGIN", "UPDATE t SET v = 1 WHERE id = 1"])
            .start(1, "ALTER TABLE t ADD COLUMN extra int DEFAULT 5")
            .q("COMMIT")
            .finish(1)
            .by(0, "UPDATE t SET extra = 6 WHERE id = 1"),
        case("A long transaction whose entry comes late", T)
            .each(&["BEGIN", "UPDATE t SET v = 1 WHERE id = 1"])
            .by(1, "UPDATE t SET v = 2 WHERE id = 2")
            .by(1, "DELETE FROM t WHERE id = 3")
            .by(1, "INSERT INTO t VALUES (300)")
            .q("UPDATE t SET v = 4 WHERE id IN (2, 4)")
            .q("COMMIT")
            .by(1, "UPDATE t SET v = v + 5"),
        case("A transaction that is cancelled while it waits", T)
            .each(&["BEGIN", "UPDATE t SET v = 1 WHERE id = 1"])
            .by(1, "SET lock_timeout = 50")
            .fails_by(1, "UPDATE t SET v = 2 WHERE id IN (1, 2)", "55P03")
            .q("COMMIT")
            .by(1, "UPDATE t SET v = v + 5 WHERE id = 1"),
    ]
}

/// Where the old key can't be told from the statement's own answer.
fn keys_that_change() -> Vec<Case> {
    const KEY: &[(&str, &str)] = &[("t", "key")];
    vec![
        case("UPDATE of a key that another session changes meanwhile", T)
            .each(&["BEGIN", "UPDATE t SET v = 0 WHERE id = 1"])
            .start_with(1, "UPDATE t SET id = $1 WHERE id = 1", &["111"])
            .q("COMMIT")
            .finish(1),
        case("UPDATE of a key whose row no longer fits after the wait", T)
            .each(&["BEGIN", "UPDATE t SET v = 0 WHERE id IN (5, 6)"])
            .start(1, "UPDATE t SET id = id + 100 WHERE v > 40")
            .q("COMMIT")
            .finish(1)
            .declared_before(18, KEY),
        case("UPDATE of a key that waits for an UPDATE of the same key", T)
            .each(&["BEGIN", "UPDATE t SET id = 500 WHERE id = 5"])
            .start(1, "UPDATE t SET id = id + 1 WHERE v = 50")
            .q("COMMIT")
            .finish(1)
            .declared_before(18, KEY),
        case(
            "UPDATE without a key that waits for another",
            "CREATE TABLE k (a int, v int); INSERT INTO k VALUES (1, 0), (2, 0);",
        )
        .each(&["BEGIN", "UPDATE k SET v = v + 1"])
        .start(1, "UPDATE k SET v = v + 10 WHERE a = 1")
        .q("COMMIT")
        .finish(1)
        .declared_before(18, &[("k", "key")]),
        case("UPDATE of a unique value that another session has just freed", t_and("CREATE UNIQUE INDEX ON t (v);"))
            .each(&["BEGIN", "UPDATE t SET v = 1000 WHERE id = 1"])
            .start(1, "UPDATE t SET v = 10 WHERE id = 2")
            .q("COMMIT")
            .finish(1),
    ]
}

fn queues() -> Vec<Case> {
    vec![
        case("A queue with SKIP LOCKED", QUEUE)
            .each(&["BEGIN", "UPDATE q SET state = 1 WHERE id = (SELECT id FROM q WHERE state = 0 ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id"])
            .by(1, "UPDATE q SET state = 1, v = 1 WHERE id = (SELECT id FROM q WHERE state = 0 ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id")
            .by(2, "DELETE FROM q WHERE id IN (SELECT id FROM q WHERE state = 0 ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 2) RETURNING id")
            .q("COMMIT"),
        case("A queue whose consumer gives up", QUEUE)
            .each(&["BEGIN", "DELETE FROM q WHERE id = (SELECT min(id) FROM q)"])
            .by(1, "WITH next AS (SELECT id FROM q ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) UPDATE q SET v = 9 FROM next WHERE next.id = q.id RETURNING q.id")
            .q("ROLLBACK")
            .by(1, "DELETE FROM q WHERE id = (SELECT id FROM q ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1)"),
        case("NOWAIT that fails", QUEUE)
            .each(&["BEGIN", "UPDATE q SET v = 1 WHERE id = 1"])
            .by(1, "SELECT id FROM q WHERE id = 2 FOR UPDATE NOWAIT")
            .by(1, "UPDATE q SET v = 2 WHERE id = 2")
            .q("COMMIT"),
        case("Serializable transactions, one of which fails", "CREATE TABLE d (id int PRIMARY KEY, on_call bool); INSERT INTO d VALUES (1, true), (2, true);")
            .each(&["BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT count(*) FROM d WHERE on_call", "UPDATE d SET on_call = false WHERE id = 1"])
            .by(1, "BEGIN ISOLATION LEVEL SERIALIZABLE")
            .by(1, "SELECT count(*) FROM d WHERE on_call")
            .q("COMMIT")
            .fails_by(1, "UPDATE d SET on_call = false WHERE id = 2", "40001")
            .by(1, "ROLLBACK"),
        case(
            "Serializable transactions, one of which fails at COMMIT",
            "CREATE TABLE d (id int PRIMARY KEY, on_call bool); INSERT INTO d VALUES (1, true), (2, true);",
        )
        .each(&["BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT count(*) FROM d WHERE on_call", "UPDATE d SET on_call = false WHERE id = 1"])
        .by(1, "BEGIN ISOLATION LEVEL SERIALIZABLE")
        .by(1, "SELECT count(*) FROM d WHERE on_call")
        .by(1, "UPDATE d SET on_call = false WHERE id = 2")
        .q("COMMIT")
        .fails_by(1, "COMMIT", "40001")
        .by(1, "INSERT INTO d VALUES (3, false)"),
    ]
}
