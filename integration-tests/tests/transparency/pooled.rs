//! With a PgBouncer in front of both: what a client sees is the same as without pgshadow.
use crate::extended::WRITES;
use crate::messages::{
    bind, close_statement, copy_data, copy_done, describe_statement, execute, open, parse, q, sync, unnamed,
};
use crate::stage::{Session, Stage};
use crate::transcript::{End, Pace};
use integration_tests::pooler::Mode;

fn sessions() -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for sql in WRITES {
        sessions.push(("simple", vec![q(sql), q("SELECT count(*) FROM t")]));
        sessions.push(("unnamed", unnamed(sql, &[])));
        sessions.push(("in a block", [vec![q("BEGIN"), q(sql)], open(sql, &[]), vec![sync(), q("ROLLBACK")]].concat()));
    }
    let update = "UPDATE t SET v = v + 1 WHERE id = $1 RETURNING v";
    sessions.extend([
        ("several", vec![q("BEGIN; UPDATE noisy SET v = 5 WHERE id = 1; INSERT INTO t VALUES (60); COMMIT; SELECT 1")]),
        (
            "failing",
            vec![q("INSERT INTO t VALUES (1)"), q("BEGIN"), q("INSERT INTO t VALUES (1)"), q("SELECT 1"), q("COMMIT")],
        ),
        (
            "late",
            vec![
                q("BEGIN"),
                q("UPDATE noisy SET v = 13 WHERE id = 1"),
                q("COMMIT"),
                q("UPDATE t SET v = 0 RETURNING id"),
            ],
        ),
        (
            "prepared in a block",
            [
                vec![q("BEGIN"), parse("s", update), describe_statement("s"), sync()],
                vec![bind("", "s", &["1"]), execute("", 0), bind("", "s", &["2"]), execute("", 0), sync()],
                vec![close_statement("s"), sync(), q("COMMIT")],
            ]
            .concat(),
        ),
        (
            "settings",
            vec![
                q("SET DateStyle = 'German'"),
                q("SELECT date '2026-12-31'"),
                q("SET client_encoding = 'LATIN1'"),
                q("UPDATE t SET s = chr(228) WHERE id = 1 RETURNING s"),
                q("SET application_name = 'x'"),
                q("SHOW application_name"),
            ],
        ),
    ]);
    sessions
}

#[track_caller]
fn expect_same(mode: Mode) {
    let stage = Stage::old().pooled(mode);
    stage.expect_same_with(&[], End::Awaited, &sessions());
    // PgBouncer itself loses what comes behind a COPY in the same packet, now and then.
    let copy = [
        q("COPY t FROM STDIN"),
        copy_data(b"70\t1\tx\n71\t2\ty\n"),
        copy_done(),
        q("COPY (SELECT * FROM t ORDER BY id) TO STDOUT"),
    ];
    assert_eq!(stage.difference(&[], &copy, (Pace::Stepwise, End::Awaited)), None);
    stage.expect_mirrored();
}

#[test]
fn through_a_pool_of_sessions() {
    expect_same(Mode::Session);
}

#[test]
fn through_a_pool_of_transactions() {
    expect_same(Mode::Transaction);
}
