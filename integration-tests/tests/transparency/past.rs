//! Definitions that are changed past pgshadow, between two messages of a session.
use crate::messages::{
    Message, bind, close_statement, describe_portal, describe_statement, execute, flush, open, parse, q, sync, unnamed,
};
use crate::stage::{Stage, sampled};
use crate::transcript::{End, Pace, Step};

/// Where a session goes on, and what another one does before that.
fn behind(sql: &str) -> Vec<Step> {
    vec![Step::Behind(sql.into())]
}

fn sent(messages: &[Message]) -> Vec<Step> {
    messages.iter().cloned().map(Step::Send).collect()
}

/// A statement in each way in which it may come; the first parts come before the definition is changed.
fn ways(sql: &str) -> Vec<[Vec<Message>; 2]> {
    let named = || vec![parse("s", sql), sync()];
    let described = || vec![parse("s", sql), describe_statement("s"), sync()];
    let run = || vec![bind("", "s", &[]), execute("", 0), sync()];
    let flushed = || vec![parse("", sql), flush(), bind("", "", &[]), describe_portal(""), execute("", 0), sync()];
    vec![
        [vec![], vec![q(sql)]],
        [vec![], vec![q(&format!("{sql}; SELECT v FROM t WHERE id = 1"))]],
        [vec![], unnamed(sql, &[])],
        [vec![], flushed()],
        [vec![], [described(), run()].concat()],
        [named(), run()],
        [[named(), run()].concat(), run()],
        [described(), [run(), described()].concat()],
        [vec![q("BEGIN"), q("ROLLBACK")], [open(sql, &[]), vec![sync()], open(sql, &[]), vec![sync()]].concat()],
    ]
}

/// Before anything is changed the tables have been looked up.
fn sessions(sql: &str, change: &str, back: &str) -> Vec<Vec<Step>> {
    let look = || vec![q("DELETE FROM t WHERE id = 77"), q("DELETE FROM lab.b WHERE id = 77"), q(sql)];
    let end = || {
        vec![
            q(sql),
            close_statement("s"),
            sync(),
            q("SELECT * FROM t ORDER BY id"),
            q("SELECT * FROM lab.b ORDER BY id"),
        ]
    };
    let session = |[before, after]: [Vec<Message>; 2]| {
        [sent(&look()), sent(&before), behind(change), sent(&after), sent(&end()), behind(back)].concat()
    };
    ways(sql).into_iter().map(session).collect()
}

#[track_caller]
fn expect_same(stage: &Stage, parameters: &[(&str, &str)], sessions: &[Vec<Step>]) {
    let mut found = Vec::new();
    for steps in sampled(sessions) {
        let [direct, proxied] = stage.played(parameters, steps, (Pace::Stepwise, End::Query));
        found.extend(direct.difference(&proxied).map(|difference| format!("=== {steps:#?}\n{difference}")));
    }
    assert!(found.is_empty(), "{} differ\n{}", found.len(), found.join("\n"));
    stage.expect_mirrored();
}

#[test]
fn rules_refuse_nothing_that_the_client_did_not_ask_for() {
    let mut all = Vec::new();
    for (sql, event) in [
        ("UPDATE t SET v = v + 1 WHERE id = 1", "UPDATE"),
        ("UPDATE t SET v = v + 1 WHERE id = 1 RETURNING v", "UPDATE"),
        ("INSERT INTO t VALUES (77, 1) ON CONFLICT DO NOTHING", "INSERT"),
        ("DELETE FROM t WHERE id = 7", "DELETE"),
        ("DELETE FROM t WHERE id = 7 RETURNING *", "DELETE"),
    ] {
        let rule = format!("CREATE RULE past AS ON {event} TO t WHERE current_user = 'nobody' DO INSTEAD NOTHING");
        all.extend(sessions(sql, &rule, "DROP RULE past ON t"));
    }
    expect_same(&Stage::old(), &[], &all);
    expect_same(&Stage::newest(), &[], &all);
}

#[test]
fn columns_that_are_gone_are_missed_by_who_names_them() {
    let (mut all, mut others) = (Vec::new(), Vec::new());
    for (change, back) in [
        ("ALTER TABLE lab.b DROP COLUMN s", "ALTER TABLE lab.b ADD COLUMN s text"),
        ("ALTER TABLE lab.b RENAME s TO other", "ALTER TABLE lab.b RENAME other TO s"),
        ("ALTER TABLE lab.b DROP COLUMN s, ADD COLUMN s int", "ALTER TABLE lab.b DROP COLUMN s, ADD COLUMN s text"),
    ] {
        for sql in [
            "UPDATE lab.b SET v = v + 1 WHERE id = 5",
            "UPDATE lab.b SET v = v + 1 WHERE id = 5 RETURNING v",
            "UPDATE lab.b SET id = id + 100 WHERE v < 30",
            "UPDATE lab.b SET s = 'x' WHERE id = 5 RETURNING id",
            "INSERT INTO lab.b (id, v) VALUES (77, 1) ON CONFLICT (id) DO UPDATE SET v = 5",
            "DELETE FROM lab.b WHERE id = 5",
            "DELETE FROM lab.b WHERE s = 'row 5'",
        ] {
            all.extend(sessions(sql, change, back));
            // its rows are locked ahead by a statement that names the columns, behind what the client was told of its own
            if !sql.contains("SET id") {
                others.extend(sessions(sql, change, back));
            }
        }
    }
    expect_same(&Stage::old(), &[("client_encoding", "LATIN1")], &all);
    let some = |sessions: Vec<Vec<Step>>| sessions.into_iter().step_by(4).collect::<Vec<_>>();
    expect_same(&Stage::newest(), &[("client_encoding", "LATIN1")], &some(all));
    expect_same(&Stage::old(), &[], &some(others));
}
