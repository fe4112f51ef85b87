//! The simple protocol.
use crate::messages::{bind, execute, function_call, message, parse, q, sync};
use crate::stage::{Session, Stage};
use crate::transcript::{End, Pace};

fn queries(name: &'static str, strings: &[&str]) -> Session {
    (name, strings.iter().map(q).collect())
}

#[test]
fn writes_as_queries() {
    Stage::old().expect_same(&[
        queries(
            "writes",
            &[
                "INSERT INTO t VALUES (50, 1, 'a')",
                "INSERT INTO t VALUES (51, 1, 'a'), (52, 2, 'b'), (53, NULL, NULL) RETURNING *",
                "INSERT INTO t VALUES (51, 1, 'a') ON CONFLICT (id) DO UPDATE SET v = t.v + 1 RETURNING v, s AS other",
                "INSERT INTO t VALUES (51, 1, 'a') ON CONFLICT DO NOTHING RETURNING id",
                "UPDATE t SET v = v + 1 WHERE id = 1",
                "UPDATE t SET v = v + 1 WHERE id < 4 RETURNING t, id, v + 1",
                "UPDATE t SET v = 0 WHERE id = -1",
                "UPDATE t SET v = 0 WHERE id = -1 RETURNING s",
                "UPDATE t AS x SET s = p.name FROM parent p WHERE p.id = x.id RETURNING x.*, p.*, x.tableoid::regclass",
                "DELETE FROM t WHERE id = 2",
                "DELETE FROM t WHERE id > 2 AND id < 5 RETURNING id -- comment",
                "DELETE FROM t WHERE id = 5 /* at the end */ ;",
                "INSERT INTO child (parent_id, u) VALUES (1, 70), (2, 71) RETURNING id, note",
                "INSERT INTO child DEFAULT VALUES",
                "SELECT * FROM t ORDER BY id",
                "SELECT * FROM child ORDER BY id",
            ],
        ),
        queries(
            "notices",
            &[
                "INSERT INTO noisy VALUES (10, 10)",
                "INSERT INTO noisy VALUES (11, 10), (12, 12) RETURNING id",
                "UPDATE noisy SET v = v + 1 WHERE id IN (1, 2)",
                "UPDATE noisy SET v = 13 WHERE id = 1",
                "DELETE FROM noisy WHERE id = 2",
                "DROP TABLE IF EXISTS nothing_of_that_name",
                "DO $$BEGIN RAISE WARNING 'of a block'; END$$",
                "SET client_min_messages = error",
                "UPDATE noisy SET v = v + 1 WHERE id = 1",
                "COMMIT",
            ],
        ),
        queries("empty", &["", ";", " ; ; ", "-- nothing", "SELECT 1;; SELECT 2", "UPDATE t SET v = 1 WHERE id = 1;;"]),
        queries(
            "settings",
            &[
                "SET application_name = 'x'",
                "SHOW application_name",
                "SET DateStyle = 'German'",
                "SET TimeZone = 'Asia/Tokyo'; SET TimeZone = 'UTC'",
                "SET nonsense = 1",
                "SET standard_conforming_strings = off",
                r"INSERT INTO t VALUES (90, 1, 'a\'b') RETURNING s",
                r"INSERT INTO t VALUES (91, 1, E'\té' 'ééééééééé')",
                r"INSERT INTO t VALUES (92, 1, 'a\\b ééééééééééééééééééééééééééééééééééé')",
                r"UPDATE t SET v = 5 WHERE s <> 'é\'é' AND id > 90 RETURNING id, s, 'ééééééé'",
                "SELECT * FROM t WHERE id > 89",
                "RESET ALL",
            ],
        ),
        queries(
            "explain",
            &[
                "EXPLAIN (COSTS OFF) UPDATE t SET v = 1 WHERE id = 1",
                "EXPLAIN (COSTS OFF, VERBOSE) INSERT INTO t VALUES (60) RETURNING id",
                "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) DELETE FROM t WHERE id = 1 RETURNING *",
                "SELECT count(*) FROM t",
            ],
        ),
    ]);
}

#[test]
fn errors_have_their_positions() {
    Stage::old().expect_same(&[
        queries(
            "errors",
            &[
                "SELEC 1",
                "UPDATE t SET nothing = 1 WHERE id = 1",
                "UPDATE t SET v = 1 WHERE nothing = 1 RETURNING id",
                "UPDATE t SET v = 1 WHERE id = 1 RETURNING id, nothing",
                "INSERT INTO t VALUES (1, 1, 'a')",
                "INSERT INTO t VALUES (1, 1, 'a') RETURNING 1/0",
                "INSERT INTO t VALUES (70, 'a', 'a')",
                "INSERT INTO nothing VALUES (1)",
                "UPDATE t SET v = 1/0 WHERE id = 1",
                "UPDATE t SET v = 1/(v - 20) WHERE id < 5",
                "DELETE FROM t WHERE id = 1 RETURNING (SELECT 1/0)",
                "DELETE FROM t WHERE s = 1",
                "/* äöü */ UPDATE t SET v = nothing, s = 'ü' WHERE id = 1",
                "UPDATE noisy SET v = 5000 WHERE id = 1",
                "DELETE FROM t WHERE id = 1 RETURNING",
                "INSERT INTO t (id, id) VALUES (1, 1)",
                "UPDATE t SET v = 1, v = 2",
                "WITH w AS (UPDATE t SET v = 1 WHERE id = 1 RETURNING nothing) SELECT * FROM w",
                "SELECT 'not ended",
            ],
        ),
        queries(
            "errors in later statements",
            &[
                "UPDATE t SET v = 1 WHERE id = 1; UPDATE t SET nothing = 1",
                "UPDATE t SET v = 1 WHERE id = 1 RETURNING id; UPDATE t SET v = 1 WHERE id = 2 RETURNING nothing",
                "SELECT 1; INSERT INTO t VALUES (80); INSERT INTO t VALUES (1); INSERT INTO t VALUES (81)",
                "UPDATE t SET v = 1 WHERE id = 1; SELEC 2",
                "UPDATE t SET v = 1 WHERE id = 1; SELECT 'ü', 1/0; UPDATE t SET v = 2 WHERE id = 1",
                "INSERT INTO t VALUES (82); SELECT nothing",
                "SELECT id, v FROM t ORDER BY id",
            ],
        ),
    ]);
}

#[test]
fn several_statements_in_one_string() {
    Stage::old().expect_same(&[
        queries(
            "implicit transaction",
            &[
                "INSERT INTO t VALUES (50); UPDATE t SET v = 1 WHERE id = 50 RETURNING id, v; SELECT count(*) FROM t",
                "DELETE FROM t WHERE id = 50; DELETE FROM t WHERE id = 1 RETURNING *; DELETE FROM t WHERE id = 1",
                "INSERT INTO noisy VALUES (30, 1); INSERT INTO noisy VALUES (31, 1)",
                "INSERT INTO child (parent_id, u) VALUES (99, 99); SELECT 1",
                "SELECT 1; SELECT 2 AS b; SELECT 3",
            ],
        ),
        queries(
            "with transaction control",
            &[
                "BEGIN; UPDATE t SET v = 1 WHERE id = 1; COMMIT",
                "BEGIN; UPDATE t SET v = 2 WHERE id = 1 RETURNING v; ROLLBACK; INSERT INTO t VALUES (60)",
                "UPDATE t SET v = 3 WHERE id = 1; COMMIT; UPDATE t SET v = 4 WHERE id = 1; SELECT 1/0",
                "SELECT v FROM t WHERE id = 1",
                "UPDATE t SET v = 5 WHERE id = 1; BEGIN; UPDATE t SET v = 6 WHERE id = 2; COMMIT; SELECT 1",
                "BEGIN; UPDATE t SET v = 7 WHERE id = 1",
                "UPDATE t SET v = 8 WHERE id = 2; COMMIT; BEGIN; UPDATE t SET v = 9 WHERE id = 3; COMMIT",
                "BEGIN; BEGIN; UPDATE t SET v = 1 WHERE id = 1; COMMIT; COMMIT",
                "BEGIN; INSERT INTO t VALUES (1); COMMIT",
                "ROLLBACK",
                "BEGIN; SAVEPOINT a; INSERT INTO t VALUES (61); ROLLBACK TO a; INSERT INTO t VALUES (62); COMMIT",
                "SELECT * FROM t ORDER BY id",
                "UPDATE t SET v = 31 WHERE id = 3; ROLLBACK; UPDATE t SET v = 32 WHERE id = 3 RETURNING v",
                "UPDATE t SET v = 33 WHERE id = 3; COMMIT AND CHAIN; UPDATE t SET v = 34 WHERE id = 3",
                "BEGIN; UPDATE t SET v = 35 WHERE id = 3; COMMIT; LOCK TABLE t; UPDATE t SET v = 36 WHERE id = 4",
                "BEGIN; UPDATE t SET v = 37 WHERE id = 3; COMMIT; SET LOCAL work_mem = '8MB'; SELECT 1",
                "UPDATE child SET u = 1 WHERE id = 102; COMMIT; UPDATE t SET v = 38 WHERE id = 3",
                "SELECT 1; COMMIT; ROLLBACK; COMMIT; VACUUM t",
                "SELECT * FROM t ORDER BY id",
            ],
        ),
        queries(
            "after each other",
            &["UPDATE t SET v = 1 WHERE id = 1", "BEGIN; UPDATE t SET v = 2 WHERE id = 1; ROLLBACK"],
        ),
        queries(
            "rolled back",
            &["BEGIN; UPDATE t SET v = 2 WHERE id = 1; ROLLBACK", "UPDATE t SET v = 3 WHERE id = 1"],
        ),
    ]);
}

#[test]
fn prepare_and_cursors() {
    Stage::old().expect_same(&[
        queries(
            "prepare",
            &[
                "PREPARE up (int, int) AS UPDATE t SET v = $2 WHERE id = $1",
                "EXECUTE up(1, 100)",
                "EXECUTE up(1)",
                "PREPARE ins AS INSERT INTO t VALUES ($1, $2, $3) RETURNING id, s",
                "EXECUTE ins(100, 1, 'x')",
                "EXECUTE ins(100, 1, 'x')",
                "EXECUTE ins('a', 1, 'x')",
                "BEGIN; EXECUTE up(3, 300); EXECUTE ins(101, 1, 'y'); COMMIT",
                "EXPLAIN (COSTS OFF) EXECUTE up(1, 2)",
                "SELECT name, statement, parameter_types, result_types FROM pg_prepared_statements ORDER BY 1",
                "DEALLOCATE up",
                "EXECUTE up(1, 1)",
                "DEALLOCATE ALL",
                "PREPARE bad AS UPDATE t SET nothing = $1",
                "SELECT id, v FROM t ORDER BY id",
            ],
        ),
        queries(
            "cursors",
            &[
                "DECLARE c CURSOR FOR SELECT * FROM t",
                "BEGIN",
                "DECLARE c CURSOR FOR SELECT id, v FROM t ORDER BY id FOR UPDATE",
                "FETCH 2 FROM c",
                "UPDATE t SET v = -1 WHERE CURRENT OF c",
                "FETCH NEXT FROM c",
                "DELETE FROM t WHERE CURRENT OF c RETURNING id, v",
                "MOVE 2 IN c",
                "FETCH ALL FROM c",
                "UPDATE t SET v = -2 WHERE CURRENT OF c",
                "COMMIT",
                "BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT id FROM t ORDER BY id; COMMIT",
                "FETCH 2 FROM h",
                "UPDATE t SET v = 1 WHERE id = 1",
                "CLOSE h",
                "CLOSE h",
            ],
        ),
        queries(
            "notify",
            &[
                "LISTEN a",
                "NOTIFY a, 'one'",
                "BEGIN; NOTIFY a, 'two'; UPDATE t SET v = 1 WHERE id = 1; COMMIT",
                "BEGIN; NOTIFY a, 'never'; UPDATE t SET v = 1 WHERE id = 1; ROLLBACK",
                "UPDATE t SET v = 1 WHERE id = 1; NOTIFY a, 'three'",
                "UNLISTEN *",
                "NOTIFY a, 'unheard'",
            ],
        ),
    ]);
}

#[test]
fn what_a_function_may_not_run() {
    let refused = [queries(
        "refused in functions",
        &[
            "CREATE OR REPLACE FUNCTION cleans() RETURNS int LANGUAGE plpgsql AS $$BEGIN UPDATE t SET v = 1 WHERE id = 1; VACUUM t; END$$",
            "SELECT cleans()",
            "CREATE OR REPLACE FUNCTION calls() RETURNS int LANGUAGE sql AS $$UPDATE t SET v = 2 WHERE id = 1; SELECT cleans()$$",
            "SELECT calls()",
            "INSERT INTO t VALUES (70, calls(), 'a') RETURNING id",
            "SELECT calls() /* a comment */;",
            "BEGIN",
            "SELECT calls()",
            "ROLLBACK",
            "CREATE OR REPLACE FUNCTION makes(name text) RETURNS int LANGUAGE plpgsql AS $$BEGIN EXECUTE format('CREATE DATABASE %I', name); END$$",
            "SELECT makes('a')",
            "CREATE OR REPLACE FUNCTION caught() RETURNS int LANGUAGE plpgsql AS $$BEGIN
                UPDATE t SET v = v + 1 WHERE id = 3;
                PERFORM cleans();
            EXCEPTION WHEN OTHERS THEN
                RAISE NOTICE '%', SQLERRM;
                RETURN 3;
            END$$",
            "SELECT caught()",
            "PREPARE cleaning AS SELECT cleans()",
            "EXECUTE cleaning",
            "SELECT name, statement FROM pg_prepared_statements",
            "DEALLOCATE cleaning",
            "CREATE OR REPLACE FUNCTION cleans_behind() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM cleans(); RETURN NULL; END$$",
            "CREATE TRIGGER cleans AFTER UPDATE ON parent FOR EACH ROW EXECUTE PROCEDURE cleans_behind()",
            "UPDATE parent SET name = 'x' WHERE id = 1",
            "DROP TRIGGER cleans ON parent",
            "SELECT * FROM t ORDER BY id",
        ],
    )];
    Stage::old().expect_same(&refused);
    Stage::newest().expect_same(&refused);
}

#[test]
fn function_calls_and_a_long_statement() {
    // OIDs of functions: lower(text) 870, int4pl 177, setval(regclass, bigint) 1576.
    let long = "x".repeat(1 << 20);
    Stage::old().expect_same(&[
        ("function", vec![function_call(870, &["ABC"]), function_call(177, &["1", "2"]), function_call(1, &["a"])]),
        (
            "function in a transaction",
            vec![
                q("BEGIN"),
                q("UPDATE t SET v = 1 WHERE id = 1"),
                function_call(870, &["ABC"]),
                function_call(177, &["1"]),
                function_call(870, &["ABC"]),
                q("COMMIT"),
            ],
        ),
        (
            "long",
            vec![
                q(&format!("UPDATE t SET s = '{long}' WHERE id = 1")),
                q(&format!("INSERT INTO t VALUES (60, 1, '{long}') RETURNING length(s), s")),
                q(&format!("UPDATE t SET s = '{long}' WHERE nothing = 1")),
            ],
        ),
    ]);
}

#[test]
fn strings_in_pieces_report_once() {
    let reports = [
        queries(
            "reports",
            &[
                "BEGIN; SET DateStyle = 'SQL, DMY'; UPDATE t SET v = 1 WHERE id = 2; COMMIT",
                "BEGIN; SET NAMES 'WIN1252'; DISCARD TEMP; ROLLBACK",
                "BEGIN; SET TimeZone = 'Asia/Tokyo'; SAVEPOINT a; SET application_name = 'x'; SET TimeZone = 'UTC'; COMMIT",
                "BEGIN; SET IntervalStyle = 'iso_8601'; SET application_name = 'y'; COMMIT; SET application_name = 'z'",
                "BEGIN; SET application_name = 'a'; COMMIT; BEGIN; SET TimeZone = 'Asia/Tokyo'; SET application_name = 'b'; COMMIT",
                "BEGIN; SET application_name = 'c'; SELECT 1/0; COMMIT",
                "ROLLBACK; SET application_name = 'd'",
                "SHOW application_name",
            ],
        ),
        queries(
            "modes",
            &[
                "BEGIN",
                "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; UPDATE t SET v = 1 WHERE id = 1",
                "COMMIT",
                "BEGIN",
                "BEGIN ISOLATION LEVEL REPEATABLE READ; DELETE FROM t WHERE id = 5; CALL nothing(); COMMIT",
                "ROLLBACK",
                "PREPARE up AS UPDATE t SET v = 2 WHERE id = 1",
                "CREATE INDEX ON t (v)",
                "BEGIN",
                "SET TRANSACTION READ WRITE, ISOLATION LEVEL SERIALIZABLE",
                "EXECUTE up",
                "COMMIT",
                "BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; UPDATE t SET nothing = 1; COMMIT",
                "ROLLBACK",
                "BEGIN",
                "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; UPDATE t SET v = v + 1 WHERE id = 1; COMMIT; UPDATE t SET nothing = 3",
                "SELECT v FROM t ORDER BY id",
            ],
        ),
    ];
    Stage::old().expect_same(&reports);
    Stage::newest().expect_same(&reports);
}

#[test]
fn settings_that_change_what_we_add() {
    let stage = Stage::old();
    let debug = [
        queries(
            "debug",
            &[
                "CREATE TEMP TABLE made_as AS SELECT id, v FROM t WHERE id < 2",
                "UPDATE noisy SET v = v + 1 WHERE id = 1",
                "BEGIN; INSERT INTO noisy VALUES (10, 10); COMMIT",
                "INSERT INTO child (parent_id, u) VALUES (1, 70) RETURNING id",
            ],
        ),
        ("debug, bound", vec![parse("", "INSERT INTO noisy VALUES (9, 9)"), bind("", "", &[]), execute("", 0), sync()]),
    ];
    stage.expect_same_with(&[("client_min_messages", "debug1")], End::Query, &debug);
    let prepared = "PREPARE TRANSACTION 'in another schema'";
    let temporary = [queries(
        "temporary",
        &["BEGIN", "DELETE FROM t WHERE id = 1", prepared, "ROLLBACK PREPARED 'in another schema'"],
    )];
    stage.expect_same_with(&[("search_path", "pg_temp, public")], End::Query, &temporary);
    let quotes = [queries("quotes", &["BEGIN; UPDATE t SET s = E'a\\'b' WHERE id = 1; COMMIT"])];
    stage.expect_same_with(&[("backslash_quote", "off")], End::Query, &quotes);
    let latin = |sql: &str| message(b'Q', &sql.chars().map(|c| c as u8).chain([0]).collect::<Vec<_>>());
    let named = vec![
        latin("ALTER TABLE lab.a ADD COLUMN \"größer\" int DEFAULT 9"),
        q("UPDATE lab.a SET v = 1 WHERE id = 1 RETURNING id"),
        latin("UPDATE lab.a SET \"größer\" = 1, s = 'ß' WHERE id = 2 RETURNING s"),
        latin("ALTER TABLE lab.a DROP COLUMN \"größer\""),
        q("DELETE FROM lab.a WHERE id = 5 RETURNING id"),
    ];
    // what isn't ASCII is not repeated: every table is suspect
    let apart = Stage::old();
    for pace in [Pace::Stepwise, Pace::Pipelined] {
        let difference = apart.difference(&[("client_encoding", "LATIN1")], &named, (pace, End::Query));
        assert_eq!(difference, None, "{}", difference.clone().unwrap_or_default());
    }
    stage.expect_same(&[queries(
        "rights to columns",
        &[
            "SET ROLE columns",
            "INSERT INTO lab.a VALUES (70, 13) RETURNING v, id",
            "UPDATE lab.a SET v = 3 WHERE id < 3",
            "DELETE FROM lab.a",
            "RESET ROLE",
            "SET ROLE columns; UPDATE lab.owned SET who = 'all'; RESET ROLE",
            "SELECT * FROM lab.owned ORDER BY id",
        ],
    )]);
    // bytes that aren't of the encoding, behind all statements
    let bytes = |sql: &[u8]| message(b'Q', &[sql, b"\0"].concat());
    let refused = vec![
        bytes(b"DELETE FROM t WHERE id = 1;\nDISCARD TEMP;\nDELETE FROM t WHERE id = 3 -- \xe6\xbc"),
        bytes(b"INSERT INTO noisy VALUES (60, 1) -- \xe6\xbc"),
        bytes(b"BEGIN; DELETE FROM t WHERE id = 4; COMMIT -- \xe6\xbc"),
    ];
    stage.expect_same_with(&[("client_encoding", "SQL_ASCII")], End::Query, &[("refused", refused)]);
}

#[test]
fn a_key_update_in_a_transaction_that_only_reads() {
    let stage = Stage::old();
    let messages = [
        q("SET default_transaction_read_only = on"),
        q("UPDATE t SET id = id + 100 WHERE v = 10"),
        q("UPDATE t SET id = id + 100 WHERE v = 10 AND nothing = 1"),
    ];
    assert_eq!(stage.difference(&[], &messages, (Pace::Stepwise, End::Query)), None);
}
