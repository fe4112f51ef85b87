//! What is committed, what isn't, and by whom.
use super::{T, t_and};
use crate::case::{Around, Case, EVERY_TABLE, Protocol, case};

pub fn cases() -> Vec<Case> {
    [blocks(), failures_and_levels(), strings(), pipelines(), prepared_by_sql(), two_phase(), two_phase_beside_others()]
        .concat()
}

fn blocks() -> Vec<Case> {
    vec![
        case("ROLLBACK, ABORT, AND CHAIN", T)
            .each(&["BEGIN", "INSERT INTO t VALUES (100)", "ROLLBACK"])
            .each(&[
                "BEGIN",
                "UPDATE t SET v = -1 WHERE id = 1",
                "COMMIT AND CHAIN",
                "UPDATE t SET v = -2 WHERE id = 2",
            ])
            .each(&["ROLLBACK AND CHAIN", "UPDATE t SET v = -3 WHERE id = 3", "END"])
            .unwrapped(),
        case("Savepoints, kept and rolled back, one name twice", T)
            .each(&["BEGIN", "INSERT INTO t VALUES (100, 1)", "SAVEPOINT a", "INSERT INTO t VALUES (101, 1)"])
            .each(&[
                "SAVEPOINT a",
                "DELETE FROM t WHERE id = 1",
                "ROLLBACK TO a",
                "INSERT INTO t VALUES (102, 3)",
                "RELEASE a",
            ])
            .each(&["ROLLBACK TO a", "UPDATE t SET v = 9 WHERE id = 2", "RELEASE a", "COMMIT"])
            .unwrapped(),
        case("A failed statement after a savepoint", T)
            .each(&["BEGIN", "INSERT INTO t VALUES (100)", "SAVEPOINT a"])
            .fails("INSERT INTO t VALUES (101), (1)", "23505")
            .fails("INSERT INTO t VALUES (103)", "25P02")
            .each(&["ROLLBACK TO a", "INSERT INTO t VALUES (102)", "COMMIT"])
            .unwrapped(),
        case("COMMIT of a failed transaction", T)
            .each(&["BEGIN", "INSERT INTO t VALUES (100)"])
            .fails("INSERT INTO t VALUES (1)", "23505")
            .q("COMMIT")
            .q("INSERT INTO t VALUES (101)")
            .unwrapped(),
    ]
}

fn failures_and_levels() -> Vec<Case> {
    vec![
        case("A write that fails by itself", T)
            .fails("INSERT INTO t VALUES (100), (1)", "23505")
            .fails("UPDATE t SET v = 1 / (id - 5)", "22012")
            .q("INSERT INTO t VALUES (101)"),
        case(
            "A check that fails only at COMMIT",
            t_and("CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t DEFERRABLE INITIALLY DEFERRED);"),
        )
        .fails("INSERT INTO c VALUES (1, 99)", "23503")
        .q("INSERT INTO c VALUES (1, 9)"),
        case(
            "A check that fails at COMMIT AND CHAIN",
            t_and("CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t DEFERRABLE INITIALLY DEFERRED);"),
        )
        .each(&["BEGIN", "INSERT INTO c VALUES (1, 99)"])
        .fails("COMMIT AND CHAIN", "23503")
        .q("INSERT INTO c VALUES (1, 9)"),
        case("REPEATABLE READ and SERIALIZABLE", T)
            .each(&[
                "BEGIN ISOLATION LEVEL REPEATABLE READ",
                "UPDATE t SET v = (SELECT sum(v) FROM t) WHERE id = 1",
                "COMMIT",
            ])
            .each(&[
                "START TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                "DELETE FROM t WHERE v = (SELECT max(v) FROM t)",
                "COMMIT",
            ])
            .unwrapped(),
        case("READ ONLY transactions", T)
            .each(&["BEGIN READ ONLY", "SELECT count(*) FROM t"])
            .fails("UPDATE t SET v = 1", "25006")
            .q("ROLLBACK")
            .q("UPDATE t SET v = 2 WHERE id = 2"),
        case("Explicit locks", T)
            .each(&[
                "BEGIN",
                "LOCK TABLE t IN EXCLUSIVE MODE",
                "SELECT pg_advisory_xact_lock(1)",
                "UPDATE t SET v = 1 WHERE id = 1",
                "COMMIT",
            ])
            .unwrapped(),
    ]
}

fn strings() -> Vec<Case> {
    vec![
        case("Several statements in one string, a block among them", T)
            .q("INSERT INTO t VALUES (100); UPDATE t SET v = 1 WHERE id = 100; SELECT count(*) FROM t")
            .q("BEGIN; INSERT INTO t VALUES (101); DELETE FROM t WHERE id = 1; COMMIT")
            .q("BEGIN; INSERT INTO t VALUES (102); ROLLBACK; INSERT INTO t VALUES (103)")
            .q("BEGIN; UPDATE t SET v = 4 WHERE id = 4")
            .q("COMMIT; BEGIN; UPDATE t SET v = 5 WHERE id = 5; COMMIT")
            .unwrapped()
            .only(Protocol::Simple),
        case("Several statements in one string, the last of which fails", T)
            .fails("INSERT INTO t VALUES (104); INSERT INTO t VALUES (105); SELECT 1/0", "22012")
            .fails("BEGIN; INSERT INTO t VALUES (106); COMMIT; INSERT INTO t VALUES (107); SELECT 1/0", "22012")
            .q("UPDATE t SET v = 0 WHERE id = 2")
            .only(Protocol::Simple),
        case("BEGIN behind a write in the same string", T)
            .q("UPDATE t SET v = 1 WHERE id = 1; BEGIN; UPDATE t SET v = 2 WHERE id = 2; COMMIT")
            .unwrapped()
            .only(Protocol::Simple)
            .alone()
            .declared(&[("t", "both inside and outside")]),
        case("COMMIT in a string without a block", T)
            .q("UPDATE t SET v = 1 WHERE id = 1; COMMIT; UPDATE t SET v = 2 WHERE id = 2")
            .unwrapped()
            .only(Protocol::Simple)
            .alone()
            .declared(&[("t", "both inside and outside")]),
    ]
}

fn pipelines() -> Vec<Case> {
    vec![
        case("BEGIN, writes and COMMIT in one pipeline, and writes behind it", T)
            .each(&[
                "BEGIN",
                "UPDATE t SET v = 1 WHERE id = 1",
                "INSERT INTO t VALUES (100)",
                "COMMIT",
                "UPDATE t SET v = 2 WHERE id = 2",
            ])
            .each(&[
                "BEGIN",
                "DELETE FROM t WHERE id = 9",
                "ROLLBACK",
                "BEGIN",
                "SAVEPOINT a",
                "DELETE FROM t WHERE id = 8",
                "ROLLBACK TO a",
                "UPDATE t SET v = 3 WHERE id = 3",
                "COMMIT",
            ])
            .only(Protocol::Extended)
            .around(&[Around::Nothing, Around::Together]),
        case("A pipeline in which a statement fails", T)
            .each(&[
                "UPDATE t SET v = 1 WHERE id = 1",
                "INSERT INTO t VALUES (100), (1)",
                "UPDATE t SET v = 2 WHERE id = 2",
            ])
            .fails_together("23505"),
        case("A pipeline in which a statement fails behind a COMMIT", T)
            .each(&[
                "BEGIN",
                "UPDATE t SET v = 1 WHERE id = 1",
                "COMMIT",
                "UPDATE t SET v = 2 WHERE id = 2",
                "INSERT INTO t VALUES (100), (1)",
                "UPDATE t SET v = 3 WHERE id = 3",
            ])
            .only(Protocol::Extended)
            .fails_together("23505"),
        case(
            "A pipeline whose deferred check fails at Sync",
            t_and("CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t DEFERRABLE INITIALLY DEFERRED);"),
        )
        .each(&["INSERT INTO c VALUES (1, 99)", "UPDATE t SET v = 2 WHERE id = 2"])
        .fails_together("23503"),
    ]
}

fn prepared_by_sql() -> Vec<Case> {
    vec![
        case("SQL-level PREPARE and EXECUTE", T)
            .q("PREPARE {s}_up (int, int) AS UPDATE t SET v = $2 WHERE id = $1")
            .each(&["EXECUTE {s}_up(1, 100)", "EXECUTE {s}_up(2, 200)"])
            .q("PREPARE {s}_in AS INSERT INTO t VALUES ($1, $2, $3) RETURNING id")
            .q("EXECUTE {s}_in(100, 1, 'x')")
            .q("DEALLOCATE {s}_up")
            .apart()
            .only(Protocol::Simple),
        case("DISCARD ALL and prepared statements made again", T)
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .q("PREPARE {s}_p AS DELETE FROM t WHERE id = 9")
            .q("EXECUTE {s}_p")
            .q("DISCARD PLANS")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
            .q("DEALLOCATE {s}_p")
            .unwrapped(),
        case("Writes at synchronous_commit = off", T)
            .apart()
            .q("SET synchronous_commit = off")
            .p("UPDATE t SET v = $1 WHERE id = 1", &["5"])
            .q("INSERT INTO t VALUES (100)"),
    ]
}

fn two_phase() -> Vec<Case> {
    vec![
        case("PREPARE TRANSACTION and COMMIT PREPARED", T)
            .each(&[
                "BEGIN",
                "UPDATE t SET v = 1 WHERE id = 1",
                "INSERT INTO t VALUES (100)",
                "PREPARE TRANSACTION '{g}'",
            ])
            .q("UPDATE t SET v = 2 WHERE id = 2")
            .q("COMMIT PREPARED '{g}'")
            .q("UPDATE t SET v = 3 WHERE id = 1")
            .unwrapped(),
        case("PREPARE TRANSACTION and ROLLBACK PREPARED", T)
            .each(&["BEGIN", "UPDATE t SET v = 1 WHERE id = 1", "PREPARE TRANSACTION '{g}'", "ROLLBACK PREPARED '{g}'"])
            .q("UPDATE t SET v = v + 2 WHERE id = 1")
            .unwrapped(),
        case("COMMIT PREPARED from another session", T)
            .each(&[
                "BEGIN",
                "UPDATE t SET v = 1 WHERE id = 1",
                "DELETE FROM t WHERE id = 9",
                "PREPARE TRANSACTION '{g}'",
            ])
            .start(1, "UPDATE t SET v = v * 7 WHERE id = 1")
            .by(2, "COMMIT PREPARED '{g}'")
            .finish(1)
            .by(2, "INSERT INTO t VALUES (9)"),
        case("ROLLBACK PREPARED from another session", T)
            .each(&["BEGIN", "UPDATE t SET v = 1 WHERE id = 1", "PREPARE TRANSACTION '{g}'"])
            .start(1, "UPDATE t SET v = v * 7 WHERE id = 1")
            .by(2, "ROLLBACK PREPARED '{g}'")
            .finish(1),
    ]
}

fn two_phase_beside_others() -> Vec<Case> {
    vec![
        case(
            "PREPARE TRANSACTION behind a write that is declared",
            "CREATE TABLE k (a int, b text); INSERT INTO k VALUES (1, 'x');",
        )
        .each(&[
            "BEGIN",
            "WITH up AS (UPDATE k SET a = 2 RETURNING *) SELECT count(*) FROM up",
            "PREPARE TRANSACTION '{g}'",
            "COMMIT PREPARED '{g}'",
        ])
        .unwrapped()
        .alone()
        .declared(&[("k", "")]),
        case("COMMIT PREPARED past pgshadow", T)
            .each(&[
                "BEGIN",
                "UPDATE t SET v = 1 WHERE id = 1",
                "INSERT INTO t VALUES (100)",
                "PREPARE TRANSACTION '{g}'",
            ])
            .behind("COMMIT PREPARED '{g}'")
            .q("UPDATE t SET v = v + 5 WHERE id = 1")
            .declared(&[("t", "")]),
        case("PREPARE TRANSACTION of a failed transaction", T)
            .each(&["BEGIN", "UPDATE t SET v = 1 WHERE id = 1"])
            .fails("SELECT 1/0", "22012")
            .q("PREPARE TRANSACTION '{g}'")
            .q("UPDATE t SET v = 2 WHERE id = 2")
            .unwrapped(),
        case("DDL in a prepared transaction", T)
            .each(&[
                "BEGIN",
                "ALTER TABLE t ADD COLUMN extra int",
                "UPDATE t SET extra = 1 WHERE id = 1",
                "PREPARE TRANSACTION '{g}'",
                "COMMIT PREPARED '{g}'",
            ])
            .unwrapped()
            .alone()
            .unsettled()
            .declared(&[("t", ""), (EVERY_TABLE, "")]),
    ]
}
