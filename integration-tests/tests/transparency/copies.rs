//! COPY.
use crate::messages::{
    Message, bind, close_statement, copy_data, copy_done, copy_fail, execute, flush, open, parse, q, sync, unnamed,
};
use crate::stage::Stage;
use crate::transcript::{End, Pace};

const IN: &str = "COPY t FROM STDIN";

fn extended(sql: &str, then: &[Message]) -> Vec<Message> {
    [&[parse("", sql), bind("", "", &[]), execute("", 0), flush()], then, &[sync(), q("SELECT * FROM t ORDER BY id")]]
        .concat()
}

fn simple(sql: &str, then: &[Message]) -> Vec<Message> {
    [&[q(sql)], then, &[q("SELECT * FROM t ORDER BY id")]].concat()
}

#[test]
fn copies() {
    let rows = copy_data(b"60\t1\ta\n61\t\\N\tb\n");
    let mut sessions = Vec::new();
    for (name, then) in [
        ("rows", vec![rows.clone(), copy_data(b"62\t2\t\\\\\n"), copy_done()]),
        ("split", vec![copy_data(b"60\t1"), copy_data(b"\ta\n6"), copy_data(b"1\t1\tb"), copy_done()]),
        ("none", vec![copy_done()]),
        ("fail", vec![rows.clone(), copy_fail("no more")]),
        ("bad row", vec![rows.clone(), copy_data(b"x\t1\n"), copy_data(b"63\t1\ta\n"), copy_done()]),
        ("double key", vec![rows.clone(), copy_data(b"1\t1\ta\n"), copy_done()]),
        ("end mark", vec![rows.clone(), copy_data(b"\\.\n"), copy_done()]),
    ] {
        sessions.push((name, simple(IN, &then)));
        sessions.push((name, extended(IN, &then)));
        if !["fail", "bad row", "double key"].contains(&name) {
            sessions.push((name, [vec![q("BEGIN")], simple(IN, &then), vec![q("COMMIT")]].concat()));
        }
    }
    for sql in [
        "COPY t TO STDOUT",
        "COPY (SELECT id, s FROM t ORDER BY id) TO STDOUT (FORMAT csv, HEADER)",
        "COPY t (id) TO STDOUT (FORMAT binary)",
        "COPY nothing TO STDOUT",
        "COPY (UPDATE t SET v = 1 WHERE id < 3 RETURNING id, v) TO STDOUT",
        "COPY (SELECT 1/(id - 3) FROM t ORDER BY id) TO STDOUT",
    ] {
        sessions.push(("out", vec![q(sql)]));
        sessions.push(("out", unnamed(sql, &[])));
    }
    sessions.extend([
        ("notices", vec![q("COPY noisy FROM STDIN"), copy_data(b"20\t1\n21\t2\n"), copy_done()]),
        ("unknown", vec![q("COPY nothing FROM STDIN"), rows.clone(), copy_done(), q("SELECT 1")]),
        (
            "in a string",
            vec![q("UPDATE t SET v = 1 WHERE id = 1; COPY t FROM STDIN; SELECT 1"), rows.clone(), copy_done()],
        ),
        (
            "twice in a string",
            vec![q("COPY t FROM STDIN; COPY t FROM STDIN"), rows.clone(), copy_done(), rows.clone(), copy_done()],
        ),
        ("data outside", vec![rows, copy_done(), q("SELECT 1"), copy_fail("x"), q("UPDATE t SET v = 1 WHERE id = 1")]),
    ]);
    Stage::old().expect_same(&sessions);
}

#[test]
fn what_is_sent_behind_a_copy() {
    let up = "UPDATE t SET v = v + 1 WHERE id = 1 RETURNING v";
    let rows = || copy_data(b"60\t1\ta\n");
    let bad = || copy_data(b"60\tx\ta\n");
    let mut sessions = Vec::new();
    for string in
        ["BEGIN; SELECT 1; UPDATE t SET v = 0; ROLLBACK AND CHAIN; SELECT 2; COMMIT", "SET work_mem = '8MB'", up]
    {
        for data in [vec![rows()], vec![bad()], vec![]] {
            let behind = [vec![q(IN)], data.clone(), vec![copy_done(), q(string), sync(), q(up)]].concat();
            sessions.push(("behind its end", behind));
        }
        sessions
            .push(("behind one that can't begin", vec![q("COPY t (nothing) FROM STDIN"), q(string), sync(), q(up)]));
    }
    for refused in ["COPY t FROM STDIN (FORMAT nothing)", "COPY t (nothing) FROM STDIN"] {
        for begin in [vec![], vec![q("BEGIN")]] {
            let synced = vec![sync(), close_statement("s"), sync(), q("SELECT 1"), q("ROLLBACK")];
            sessions.push(("a Sync behind one that can't begin", [begin, open(refused, &[]), synced].concat()));
        }
    }
    sessions.push(("amid it", [open(IN, &[]), vec![parse("s", up), sync()]].concat()));
    sessions.push(("query amid it", vec![q(IN), q(up)]));
    sessions.push(("a setting ahead", vec![q("SET work_mem = '8MB'; COPY t FROM STDIN"), rows(), copy_done(), q(up)]));
    Stage::old().expect_same(&sessions);
}

/// The server ignores a Sync until the COPY has failed. (Who waits for each answer waits for ever.)
#[test]
fn syncs_amid_the_data() {
    let up = "UPDATE t SET v = v + 1 WHERE id = 1 RETURNING v";
    let rows = || copy_data(b"60\t1\ta\n");
    let bad = || copy_data(b"60\tx\ta\n");
    let mut sessions = Vec::new();
    for data in [vec![rows()], vec![bad()], vec![rows(), bad()], vec![copy_data(b"60\t1")]] {
        for syncs in [1, 2] {
            for end in [vec![copy_done()], vec![copy_fail("no more")], vec![bad(), copy_done()]] {
                let amid = [data.clone(), vec![sync(); syncs], end.clone()].concat();
                sessions
                    .push(("syncs amid", [open(IN, &[]), amid.clone(), vec![sync(), q(up)], open(up, &[])].concat()));
                let block = [vec![q("BEGIN")], open(IN, &[]), amid.clone(), vec![sync(), q(up), q("COMMIT")]].concat();
                sessions.push(("syncs amid, in a block", block));
                sessions.push(("syncs amid a query's", [vec![q(IN)], amid, vec![q(up), q(up)]].concat()));
            }
        }
    }
    let stage = Stage::old();
    for (name, messages) in &sessions {
        let difference = stage.difference(&[], messages, (Pace::Pipelined, End::Query));
        assert_eq!(difference, None, "{name}: {messages:#?}\n{}", difference.clone().unwrap_or_default());
    }
    stage.expect_mirrored();
    // without an end, what comes behind can't be made sense of before the failure is seen: every table may be suspect
    let endless = [open(IN, &[]), vec![bad(), sync(), sync()], open(up, &[]), vec![sync()]].concat();
    let difference = Stage::old().difference(&[], &endless, (Pace::Pipelined, End::Query));
    assert_eq!(difference, None, "{}", difference.clone().unwrap_or_default());
}
