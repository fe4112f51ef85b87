//! What a name stands for: prepared statements and portals that are given away, made anew or lost.
use crate::messages::{
    Message, bind, bind_full, close_portal, close_statement, describe_portal, describe_statement, execute, open, parse,
    q, sync, unnamed,
};
use crate::stage::Stage;
use crate::transcript::{End, Pace};

const UPDATE: &str = "UPDATE t SET v = v + 1 WHERE id = 1";
const RETURNING: &str = "UPDATE t SET v = v + 1 WHERE id = 1 RETURNING id, v";

/// EXECUTE of `q`, described, without a Sync.
fn executed() -> Vec<Message> {
    open("EXECUTE q", &[])
}

#[test]
fn names_of_sql_given_anew_in_one_write() {
    let mut sessions = Vec::new();
    for sql in [UPDATE, RETURNING] {
        let (first, prepare) = (q("PREPARE q AS SELECT 1"), format!("PREPARE q AS {sql}"));
        let anew = [open("DEALLOCATE q", &[]), open(&prepare, &[])].concat();
        let run = [executed(), vec![sync()], executed(), vec![sync(), q("EXECUTE q")]].concat();
        sessions.push(("given anew", [vec![first.clone()], anew.clone(), run.clone()].concat()));
        let discarded = [open("DEALLOCATE ALL", &[]), open(&prepare, &[])].concat();
        sessions.push(("all given away", [vec![first.clone()], discarded, run.clone()].concat()));
        let skipped = [open("SELECT nothing", &[]), open(&prepare, &[]), vec![sync()]].concat();
        let other = open("PREPARE q AS SELECT 2", &[]);
        sessions.push(("skipped, then another", [skipped, other, run.clone()].concat()));
        let refused = [open(&prepare, &[]), vec![sync()], executed(), vec![sync(), q("EXECUTE q")]].concat();
        sessions.push(("refused, since it is there", [vec![first], refused].concat()));
        let given = vec![parse("s", "SELECT 1"), sync()];
        let away = [open("DEALLOCATE s", &[]), vec![parse("s", sql), sync()]].concat();
        let bound = vec![bind("", "s", &[]), describe_portal(""), execute("", 0), sync(), q("EXECUTE s")];
        sessions.push(("the protocol's", [given, away, bound.clone()].concat()));
        let closed = vec![q("PREPARE s AS SELECT 1"), close_statement("s"), sync(), parse("s", sql), sync()];
        sessions.push(("closed by the protocol", [closed, bound].concat()));
    }
    Stage::old().expect_same(&sessions);
}

/// What SQL has prepared stands again where a Parse of its name is refused; Bind comes before that is told.
#[test]
fn a_name_of_sql_behind_a_refused_parse() {
    let stage = Stage::old();
    for sql in [UPDATE, RETURNING] {
        let first = vec![q(&format!("PREPARE s AS {sql}")), sync(), sync(), sync(), sync(), sync()];
        let refused = vec![parse("s", "DELETE FROM t WHERE nothing = 1"), describe_statement("s"), sync()];
        let bound = vec![bind("", "s", &[]), execute("", 0), sync()];
        let difference = stage.difference(&[], &[first, refused, bound].concat(), (Pace::Grouped(6), End::Query));
        assert_eq!(difference, None);
    }
}

#[test]
fn portals_behind_a_failure() {
    let begin = vec![q("BEGIN"), parse("s", RETURNING), parse("n", UPDATE), parse("back", "ROLLBACK TO a")];
    let mut begin = begin;
    begin.extend([parse("save", "SAVEPOINT a"), bind("x", "save", &[])]);
    let back = vec![sync(), bind("b", "back", &[]), execute("b", 0)];
    let mut sessions = Vec::new();
    for name in ["s", "n"] {
        let bound = vec![bind("", name, &[]), execute("x", 0), sync()];
        for (why, failure) in [
            ("refused", vec![bind("", "s", &["1"])]),
            ("unknown", vec![bind("", "nothing", &[])]),
            ("formats", vec![bind_full("", "s", &[], &[], &[0, 0, 0])]),
            ("value", vec![parse("v", "SELECT 1/$1::int"), bind("", "v", &["x"])]),
            ("a query that isn't planned", vec![q("SELECT nothing")]),
            ("a query that isn't read", vec![q("SELEC")]),
            ("a query that fails", vec![q("SELECT 1/0")]),
        ] {
            let tail = vec![describe_portal(""), execute("", 0), sync(), q("ROLLBACK")];
            sessions.push((why, [begin.clone(), bound.clone(), failure, back.clone(), tail].concat()));
        }
    }
    Stage::old().expect_same(&sessions);
}

#[test]
fn an_unnamed_statement_behind_bytes_that_are_no_text() {
    let mut sessions = Vec::new();
    for sql in [UPDATE, RETURNING] {
        for query in
            [q(b"SELECT '\x81'"), q(b"\x81"), q(b"BEGIN; \x81"), q("SELECT 'é', convert_from('\\x81', 'UTF8')")]
        {
            let bound = [bind("", "", &[]), describe_portal(""), execute("", 0), sync()];
            sessions.push(("unnamed", [&[parse("", sql), sync(), query][..], &bound].concat()));
        }
    }
    Stage::old().expect_same(&sessions);
}

#[test]
fn portals_fetched_on_behind_a_savepoint() {
    let mut sessions = Vec::new();
    for sql in ["UPDATE t SET v = v + 1 WHERE id < 6 RETURNING id", "SELECT id FROM t ORDER BY id", UPDATE] {
        let begin = vec![q("BEGIN"), parse("s", sql), bind("p", "s", &[]), execute("p", 2), q("SAVEPOINT a")];
        let failed = vec![q("SELECT 1/0"), q("ROLLBACK TO a")];
        let more = vec![describe_portal("p"), execute("p", 2), sync(), q("ROLLBACK")];
        sessions.push(("fetched on", [begin, failed, more].concat()));
    }
    Stage::old().expect_same(&sessions);
}

#[test]
fn a_result_that_has_changed() {
    let mut sessions = Vec::new();
    for sql in ["UPDATE lab.a SET v = 2 WHERE id = 5 RETURNING *", "UPDATE lab.a SET v = 2 WHERE id = 5 RETURNING v"] {
        for (change, back) in [
            ("ALTER TABLE lab.a ADD COLUMN more int", "ALTER TABLE lab.a DROP COLUMN more"),
            ("ALTER TABLE lab.a ALTER v TYPE bigint", "ALTER TABLE lab.a ALTER v TYPE int"),
            ("ALTER TABLE lab.a DROP CONSTRAINT a_pkey", "ALTER TABLE lab.a ADD PRIMARY KEY (id)"),
        ] {
            let run = || vec![bind("", "s", &[]), describe_portal(""), execute("", 0), sync()];
            let changed = vec![q(change)];
            let described = vec![describe_statement("s"), sync()];
            let begin = vec![parse("s", sql), sync()];
            sessions.push((
                "changed",
                [begin, run(), changed, run(), described, run(), vec![q(back)], run(), run()].concat(),
            ));
        }
    }
    let stage = Stage::old();
    stage.expect_same(&sessions);
    stage.expect_same_with(&[("client_encoding", "LATIN1")], End::Query, &sessions);
}

#[test]
fn a_number_of_parameters_that_does_not_fit() {
    let mut sessions = Vec::new();
    for sql in [
        "UPDATE lab.a SET v = $2 WHERE id = $1 RETURNING *",
        "UPDATE lab.a SET v = $2 WHERE id = $1",
        "INSERT INTO lab.a (id, v) VALUES ($1, $2) RETURNING id",
        "UPDATE lab.a SET v = $2 WHERE id = $1 AND s <> '$3' RETURNING *",
    ] {
        for (change, back) in [
            ("ALTER TABLE lab.a ADD COLUMN more int", "ALTER TABLE lab.a DROP COLUMN more"),
            ("ALTER TABLE lab.a ALTER v TYPE bigint", "ALTER TABLE lab.a ALTER v TYPE int"),
            ("SET search_path = lab, public", "RESET search_path"),
        ] {
            for described in [vec![], vec![describe_statement("s")]] {
                let begin = [vec![parse("s", sql)], described, vec![sync(), q(change)]].concat();
                let tried = |values: &[&str]| vec![bind("", "s", values), execute("", 0), sync()];
                let all = [tried(&["5"]), tried(&["5", "6", "7"]), tried(&[]), tried(&["5", "6"]), tried(&["5"])];
                let block = [vec![q("BEGIN")], tried(&["5"]), tried(&["5"]), vec![q("ROLLBACK")]].concat();
                sessions.push(("outside a block", [begin.clone(), all.concat(), vec![q(back)]].concat()));
                sessions.push(("in a block", [begin, block, vec![q(back)]].concat()));
            }
        }
    }
    let stage = Stage::old();
    stage.expect_same(&sessions);
    stage.expect_same_with(&[("client_encoding", "LATIN1")], End::Query, &sessions);
}

#[test]
fn formats_of_what_is_executed_by_name() {
    let prepare = format!("PREPARE q AS {RETURNING}");
    let mut sessions = Vec::new();
    for formats in [[0, 0, 0].as_slice(), &[1; 9], &[1, 0]] {
        let formats = |statement| vec![bind_full("", statement, &[], &[], formats), execute("", 0), sync()];
        sessions.push(("formats", [vec![q(&prepare), parse("", "EXECUTE q")], formats("")].concat()));
        sessions.push(("bound by its name", [vec![q(&prepare)], formats("q")].concat()));
        sessions.push(("at once", [open(&prepare, &[]), vec![parse("", "EXECUTE q")], formats("")].concat()));
    }
    Stage::old().expect_same(&sessions);
}

#[test]
fn pages_behind_a_failure() {
    let mut sessions = Vec::new();
    for sql in ["UPDATE t SET v = v + 1 WHERE id < 6 RETURNING id", "SELECT id FROM t ORDER BY id", UPDATE] {
        let begin = vec![q("BEGIN"), parse("s", sql), bind("p", "s", &[]), execute("p", 2), q("SAVEPOINT a")];
        for failure in ["SELECT 1/0", "SELECT nothing"] {
            let failed = [open(failure, &[]), vec![execute("p", 1), sync(), execute("p", 1), sync()]].concat();
            let more = vec![q("ROLLBACK TO a"), describe_portal("p"), execute("p", 2), sync(), q("ROLLBACK")];
            sessions.push(("fetched on", [begin.clone(), failed, more].concat()));
        }
        let other = vec![bind("p", "s", &[])];
        let closed = vec![q("BEGIN"), parse("s", sql), bind("p", "s", &[]), execute("p", 2), sync(), close_portal("p")];
        sessions.push((
            "bound again",
            [closed, other, vec![execute("p", 1), execute("p", 9), sync(), q("ROLLBACK")]].concat(),
        ));
        let failing = "UPDATE t SET v = v / (v - 40) WHERE id < 6 RETURNING id";
        let begin =
            vec![q("BEGIN"), parse("s", failing), bind("p", "s", &[]), q("SAVEPOINT a"), execute("p", 2), sync()];
        let more = vec![q("ROLLBACK TO a"), execute("p", 2), sync(), q("ROLLBACK")];
        sessions.push(("failed itself", [begin, more].concat()));
    }
    Stage::old().expect_same(&sessions);
}

#[test]
fn transactions_prepared_after_a_failure() {
    let stage = Stage::old();
    let write = "INSERT INTO child (parent_id, u) VALUES (1, 90)";
    let prepare = "PREPARE TRANSACTION 'of names'";
    let finish = || vec![q("ROLLBACK PREPARED 'of names'"), q("ROLLBACK")];
    let mut sessions = Vec::new();
    for failure in [vec![q("SELECT 1/0")], unnamed("SELECT 1/0", &[]), Vec::new()] {
        for prepared in [vec![q(prepare)], unnamed(prepare, &[])] {
            sessions.push(("prepared", [vec![q("BEGIN"), q(write)], failure.clone(), prepared, finish()].concat()));
        }
    }
    stage.expect_same(&sessions);
}

#[test]
fn views_that_may_be_written_and_not_read() {
    let mut sessions = Vec::new();
    for sql in [
        "INSERT INTO lab.unread VALUES (50, 1)",
        "INSERT INTO lab.unread VALUES (51, 1), (52, 2)",
        "UPDATE lab.unread SET v = 1",
        "DELETE FROM lab.unread",
    ] {
        sessions.push(("unread", [vec![q("SET ROLE columns"), q(sql)], unnamed(sql, &[])].concat()));
    }
    Stage::old().expect_same(&sessions);
    Stage::newest().expect_same(&sessions);
}

#[test]
fn what_runs_in_no_block_behind_a_close() {
    let [old, newest] = [Stage::old(), Stage::newest()];
    for sql in ["CALL lab.commits()", "CREATE INDEX CONCURRENTLY of_names ON lab.a (v)", "VACUUM lab.a"] {
        let run = [parse("c", sql), bind("", "c", &[]), execute("", 0), sync(), q("DROP INDEX IF EXISTS lab.of_names")];
        for before in [&[][..], &[close_statement("c")], &[close_statement("c"), close_portal("c")]] {
            let session = [&[q("SET search_path = public")], before, &run].concat();
            for stage in [&old, &newest] {
                assert_eq!(stage.difference(&[], &session, (Pace::Stepwise, End::Query)), None, "{sql}");
            }
        }
    }
}

#[test]
fn what_a_lookup_leaves_behind() {
    let mut sessions = Vec::new();
    for path in ["pg_temp, public", "public, pg_temp", "public"] {
        let path = format!("SET search_path = {path}");
        let prepared = [q(&path), q("BEGIN"), q(UPDATE), q("PREPARE TRANSACTION 'y'"), q("ROLLBACK PREPARED 'y'")];
        sessions.push(("prepared", prepared.to_vec()));
        let named = [q(&path), q("INSERT INTO pg_temp.t VALUES (1)"), q("SELECT pg_my_temp_schema() = 0")];
        sessions.push(("named", named.to_vec()));
    }
    for sql in [UPDATE, "TRUNCATE noisy", "CREATE INDEX ON lab.a (v)", "SELECT 1"] {
        let modes = unnamed("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", &[]);
        let parsed = [unnamed("BEGIN", &[]), vec![parse("s", sql), sync()], modes.clone(), vec![q("ROLLBACK")]];
        sessions.push(("parsed ahead of the modes", parsed.concat()));
        let parsed = [vec![parse("s", sql)], open("BEGIN", &[]), modes, vec![q("ROLLBACK")]];
        sessions.push(("parsed ahead of it all", parsed.concat()));
    }
    Stage::old().expect_same(&sessions);
}

#[test]
fn columns_granted_one_by_one() {
    let mut sessions = Vec::new();
    for sql in [
        "UPDATE lab.a SET v = 2 WHERE id = 5",
        "UPDATE lab.a SET v = 2 WHERE id = 5 RETURNING v",
        "INSERT INTO lab.a (id, v) VALUES (50, 1) ON CONFLICT (id) DO UPDATE SET v = 9 RETURNING id",
        "INSERT INTO lab.a (id, v) VALUES (51, 1)",
    ] {
        sessions.push(("granted", [vec![q("SET ROLE columns"), q(sql)], unnamed(sql, &[])].concat()));
    }
    let stage = Stage::old();
    stage.expect_same(&sessions);
    stage.expect_same_with(&[("client_encoding", "LATIN1")], End::Query, &sessions);
}
