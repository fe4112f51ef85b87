//! COPY.
use crate::messages::{Message, bind, copy_data, copy_done, copy_fail, execute, flush, parse, q, sync, unnamed};
use crate::stage::Stage;

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
