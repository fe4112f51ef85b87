//! Transactions: how they end, and what is said then.
use crate::messages::{Message, open, q, sync, unnamed};
use crate::stage::Stage;

/// Each statement as a Query, and each unnamed and extended.
fn both(name: &'static str, statements: &[&str]) -> [(&'static str, Vec<Message>); 3] {
    let simple = statements.iter().map(q).collect();
    let extended = statements.iter().flat_map(|sql| unnamed(sql, &[])).collect();
    let mut one_sync: Vec<_> = statements.iter().flat_map(|sql| open(sql, &[])).collect();
    one_sync.push(sync());
    [(name, simple), (name, extended), (name, one_sync)]
}

#[test]
fn transactions_end() {
    let stage = Stage::old();
    for (name, statements) in [
        (
            "commit",
            ["BEGIN", "UPDATE t SET v = 1 WHERE id = 1 RETURNING v", "COMMIT", "SELECT v FROM t WHERE id = 1"]
                .as_slice(),
        ),
        ("end", &["START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "UPDATE t SET v = 1 WHERE id = 1", "END"]),
        ("rollback", &["BEGIN", "INSERT INTO t VALUES (50)", "ABORT", "SELECT count(*) FROM t"]),
        (
            "failed",
            &["BEGIN", "UPDATE t SET v = 1 WHERE id = 1", "SELECT 1/0", "SELECT 1", "UPDATE t SET v = 2", "COMMIT"],
        ),
        (
            "chain",
            &["BEGIN", "UPDATE t SET v = 1 WHERE id = 1", "COMMIT AND CHAIN", "DELETE FROM t WHERE id = 2", "COMMIT"],
        ),
        (
            "rollback and chain",
            &["BEGIN", "DELETE FROM t WHERE id = 1", "ROLLBACK AND CHAIN", "DELETE FROM t WHERE id = 2", "END"],
        ),
        (
            "failed chain",
            &["BEGIN", "DELETE FROM t WHERE id = 1", "SELECT 1/0", "COMMIT AND CHAIN", "SELECT 1", "COMMIT"],
        ),
        (
            "savepoints",
            &[
                "BEGIN",
                "SAVEPOINT a",
                "UPDATE t SET v = 1 WHERE id = 1",
                "SELECT 1/0",
                "ROLLBACK TO a",
                "DELETE FROM t WHERE id = 1",
                "RELEASE a",
                "ROLLBACK TO a",
                "COMMIT",
            ],
        ),
        (
            "warnings",
            &[
                "COMMIT",
                "ROLLBACK",
                "SAVEPOINT a",
                "BEGIN",
                "BEGIN",
                "UPDATE t SET v = 1 WHERE id = 1",
                "COMMIT",
                "COMMIT",
            ],
        ),
        ("read only", &["BEGIN READ ONLY", "UPDATE t SET v = 1 WHERE id = 1", "ROLLBACK"]),
        ("chain outside", &["COMMIT AND CHAIN", "UPDATE t SET v = 1 WHERE id = 1"]),
        (
            "nothing written",
            &["BEGIN", "COMMIT", "BEGIN", "SELECT 1", "COMMIT", "BEGIN", "UPDATE t SET v = 1 WHERE id = 0", "COMMIT"],
        ),
        (
            "prepared",
            &[
                "BEGIN",
                "UPDATE t SET v = 1 WHERE id = 1",
                "PREPARE TRANSACTION 'never to be'",
                "ROLLBACK PREPARED 'never to be'",
            ],
        ),
    ] {
        stage.expect_same(&both(name, statements));
    }
}

#[test]
fn commits_that_fail() {
    let stage = Stage::old();
    let orphan = "INSERT INTO child (parent_id, u) VALUES (99, 50) RETURNING id";
    let double = "UPDATE child SET u = 2 WHERE id = 101";
    for (name, statements) in [
        ("foreign key", ["BEGIN", orphan, "COMMIT", "SELECT count(*) FROM child"].as_slice()),
        ("foreign key, no block", &[orphan, "SELECT count(*) FROM child"]),
        ("unique", &["BEGIN", double, "COMMIT", "SELECT u FROM child ORDER BY u"]),
        ("unique, no block", &[double, "SELECT u FROM child ORDER BY u"]),
        (
            "mended in time",
            &["BEGIN", double, "UPDATE child SET u = 1 WHERE id = 102", "COMMIT", "SELECT u FROM child ORDER BY id"],
        ),
        ("and chain", &["BEGIN", orphan, "COMMIT AND CHAIN", "SELECT 1", "COMMIT"]),
        ("immediate", &["BEGIN", "SET CONSTRAINTS ALL IMMEDIATE", orphan, "COMMIT"]),
        ("set immediate later", &["BEGIN", orphan, "SET CONSTRAINTS ALL IMMEDIATE", "COMMIT"]),
        ("trigger", &["BEGIN", "UPDATE noisy SET v = 13 WHERE id = 1", "COMMIT", "SELECT v FROM noisy ORDER BY id"]),
        ("trigger, no block", &["UPDATE noisy SET v = 13 WHERE id = 1 RETURNING v", "SELECT v FROM noisy ORDER BY id"]),
        (
            "notices at the end",
            &["BEGIN", "UPDATE noisy SET v = 3 WHERE id = 1", "INSERT INTO noisy VALUES (9, 9)", "SELECT 1", "COMMIT"],
        ),
        (
            "notices of a savepoint",
            &[
                "BEGIN",
                "SAVEPOINT a",
                "UPDATE noisy SET v = 3 WHERE id = 1",
                "ROLLBACK TO a",
                "UPDATE noisy SET v = 4 WHERE id = 2",
                "COMMIT",
            ],
        ),
    ] {
        let [simple, extended, _] = both(name, statements);
        stage.expect_same(&[simple, extended]);
    }
    stage.expect_same(&[
        ("one string", vec![q(&format!("BEGIN; {orphan}; COMMIT")), q("SELECT count(*) FROM child")]),
        ("one string, goes on", vec![q(&format!("BEGIN; {orphan}; COMMIT; SELECT 1"))]),
        ("one string, implicit", vec![q(&format!("{orphan}; {double}")), q("SELECT count(*) FROM child")]),
        ("one string, notices", vec![q("BEGIN; UPDATE noisy SET v = 3 WHERE id = 1; SELECT 1; COMMIT; SELECT 2")]),
        (
            "one string, implicit notices",
            vec![q("UPDATE noisy SET v = 3 WHERE id = 1; SELECT 1; UPDATE noisy SET v = 4 WHERE id = 2")],
        ),
        ("one string, trigger", vec![q("BEGIN; UPDATE noisy SET v = 13 WHERE id = 1; COMMIT"), q("SELECT 1")]),
    ]);
}

#[test]
fn notifications_come_behind_a_string() {
    let queries = |name, strings: &[&str]| (name, strings.iter().map(q).collect::<Vec<_>>());
    let written = "BEGIN; UPDATE t SET v = 1 WHERE id = 1; NOTIFY x; COMMIT; DELETE FROM t WHERE id = 2";
    let begun = "BEGIN; NOTIFY x, 'a'; COMMIT; BEGIN; SELECT 1";
    let sessions = [
        queries("behind its last statement", &["LISTEN x", "BEGIN; NOTIFY x, 'a'; COMMIT; SELECT 1", "SELECT 2"]),
        queries("of two", &["LISTEN x", "BEGIN; NOTIFY x, 'a'; COMMIT; BEGIN; NOTIFY x, 'b'; COMMIT", "SELECT 2"]),
        queries("behind the block that it begins", &["LISTEN x", begun, "NOTIFY x, 'b'", "COMMIT; SELECT 3"]),
        queries("behind an error", &["LISTEN x", "BEGIN; NOTIFY x, 'a'; COMMIT; SELECT 1/0; SELECT 1", "SELECT 2"]),
        queries("beside a report", &["LISTEN x", "BEGIN; SET application_name = 'n'; NOTIFY x; COMMIT; SELECT 1"]),
        queries("of a write", &["LISTEN x", written, "SELECT 2"]),
        ("behind a batch", [vec![q("LISTEN x"), q(begun)], unnamed("COMMIT", &[]), vec![q("SELECT 1")]].concat()),
    ];
    Stage::old().expect_same(&sessions);
    Stage::newest().expect_same(&sessions);
}
