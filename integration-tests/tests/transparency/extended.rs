//! The extended protocol.
use crate::messages::{
    Message, bind, bind_as, bind_full, close_portal, close_statement, describe_portal, describe_statement, execute,
    flush, open, parse, parse_typed, q, sync, unnamed,
};
use crate::stage::Stage;

pub const WRITES: [&str; 8] = [
    "INSERT INTO t VALUES (50, 1, 'a')",
    "INSERT INTO t VALUES (51, 1, 'a'), (52, 2, 'b'), (53, NULL, NULL) RETURNING *",
    "UPDATE t SET v = v + 1 WHERE id = 1",
    "UPDATE t SET v = v + 1 WHERE id < 4 RETURNING v, id AS other, s",
    "DELETE FROM t WHERE id = 4",
    "DELETE FROM t WHERE id > 7 RETURNING s, id, v",
    "INSERT INTO child (parent_id, u) VALUES (1, 90) RETURNING id",
    "UPDATE noisy SET v = 3 WHERE id < 3 RETURNING v, id",
];

#[test]
fn writes_in_every_order_of_messages() {
    let mut sessions = Vec::new();
    for sql in WRITES {
        sessions.push(("plain", unnamed(sql, &[])));
        let mut described = vec![parse("s", sql), describe_statement("s"), sync()];
        described.extend([
            bind("p", "s", &[]),
            describe_portal("p"),
            execute("p", 0),
            sync(),
            close_statement("s"),
            sync(),
        ]);
        sessions.push(("named", described));
        sessions.push(("undescribed", [open(sql, &[]), vec![sync(), q("SELECT 1")]].concat()));
        let flushed = vec![parse("", sql), flush(), bind("", "", &[]), flush(), execute("", 0), flush(), sync()];
        sessions.push(("flushed", flushed));
        let twice =
            vec![parse("s", sql), bind("", "s", &[]), execute("", 0), bind("", "s", &[]), execute("", 0), sync()];
        sessions.push(("twice", twice));
        sessions.push(("never run", vec![parse("s", sql), bind("", "s", &[]), close_portal(""), sync()]));
    }
    sessions.push(("pipeline", [WRITES.iter().flat_map(|sql| open(sql, &[])).collect(), vec![sync()]].concat()));
    sessions.push(("many", WRITES.iter().flat_map(|sql| unnamed(sql, &[])).collect()));
    Stage::old().expect_same(&sessions);
}

#[test]
fn parameters_and_formats() {
    let up = "UPDATE t SET v = $2, s = $3 WHERE id = $1 RETURNING id, v, s";
    let run = |results: &[i16]| {
        vec![bind_as("", "s", &["1", "7", "x"], results), describe_portal(""), execute("", 0), sync()]
    };
    let prepare = |sql: &str| vec![parse("s", sql), describe_statement("s"), sync()];
    let mut sessions: Vec<(&str, Vec<Message>)> = Vec::new();
    for results in [[].as_slice(), &[0], &[1], &[0, 1, 0], &[1, 1, 0], &[2]] {
        sessions.push(("formats", [prepare(up), run(results)].concat()));
    }
    for results in [[].as_slice(), &[0], &[1], &[2]] {
        let silent =
            vec![parse("", "UPDATE t SET v = 1 WHERE id = 1"), bind_as("", "", &[], results), describe_portal("")];
        sessions.push(("formats of no result", [silent, vec![execute("", 0), sync()]].concat()));
    }
    let one: &[u8] = &1_i32.to_be_bytes();
    let two: &[u8] = &2_i32.to_be_bytes();
    let three = "INSERT INTO t VALUES ($1, $2, $3) RETURNING *";
    let binary = |formats: &[i16], values: &[Option<&[u8]>]| {
        vec![parse("", up), bind_full("", "", formats, values, &[1]), execute("", 0), sync()]
    };
    sessions.extend([
        ("binary parameters", binary(&[1, 1, 0], &[Some(one), Some(two), Some(b"x")])),
        ("binary, all", binary(&[1], &[Some(one), None, None])),
        ("wrong length", binary(&[1], &[Some(b"abc"), None, None])),
        ("too few", binary(&[], &[Some(b"1")])),
        ("wrong formats", binary(&[1, 1], &[Some(one), Some(two), Some(b"x")])),
        ("no number", binary(&[], &[Some(b"a"), None, None])),
        ("typed", vec![parse_typed("", three, &[23, 20, 25]), describe_statement(""), sync()]),
        ("half typed", vec![parse_typed("", three, &[0, 21]), describe_statement(""), sync()]),
        ("too many types", vec![parse_typed("", "DELETE FROM t", &[23, 23]), describe_statement(""), sync()]),
        ("unknown type", vec![parse("", "SELECT $1"), describe_statement(""), sync()]),
        ("undetermined", vec![parse("", "UPDATE t SET v = 1 WHERE $1 IS NULL"), describe_statement(""), sync()]),
        ("conflicting", vec![parse("", "UPDATE t SET v = $1, s = $1"), sync()]),
    ]);
    Stage::old().expect_same(&sessions);
}

#[test]
fn portals_give_as_many_rows_as_asked_for() {
    let mut sessions = Vec::new();
    for sql in [
        "UPDATE t SET v = v + 1 WHERE id < 4 RETURNING id, v",
        "INSERT INTO t VALUES (51), (52), (53) RETURNING id",
        "DELETE FROM t WHERE id > 6 RETURNING *",
        "UPDATE t SET v = 0 WHERE id < 4",
        "UPDATE noisy SET v = v + 1 WHERE id < 4 RETURNING id",
        "SELECT id FROM t WHERE id < 4 ORDER BY id",
        "WITH w AS (UPDATE t SET v = 0 WHERE id < 4 RETURNING id) SELECT id FROM w",
    ] {
        let reads = sql.starts_with("SELECT");
        let further = [[1, 1, 1, 1].as_slice(), &[2, 2, 2], &[3, 1, 0], &[1, 0, 0], &[2, 5], &[-1, 1]];
        // what is written without RETURNING gives no rows, and can't be run twice
        let further = if reads || sql.contains("RETURNING") { further.as_slice() } else { &[] };
        for limits in [[1].as_slice(), &[2], &[3], &[4]].iter().chain(further) {
            let mut messages = vec![parse("s", sql), bind("p", "s", &[]), describe_portal("p")];
            messages.extend(limits.iter().map(|rows| execute("p", *rows)));
            messages.push(sync());
            sessions.push(("portal", messages.clone()));
            if further.is_empty() {
                continue;
            }
            let synced = limits.iter().flat_map(|rows| [execute("p", *rows), sync()]).collect::<Vec<_>>();
            let begun = vec![q("BEGIN"), parse("s", sql), bind("p", "s", &[]), describe_portal("p")];
            sessions.push(("portal, a sync after each", [begun, synced, vec![q("COMMIT")]].concat()));
            let unnamed = vec![parse("", sql), bind("", "", &[]), execute("", 1), sync(), execute("", 1), sync()];
            sessions.push(("portal after its transaction", unnamed));
            messages.insert(0, q("BEGIN"));
            let more = [execute("p", 1), sync(), close_portal("p"), execute("p", 1), sync(), q("ROLLBACK")];
            messages.extend(more);
            sessions.push(("portal in a transaction", messages));
        }
    }
    Stage::old().expect_same(&sessions);
}

#[test]
fn errors_skip_to_sync() {
    let ok = "UPDATE t SET v = v + 1 WHERE id = 1 RETURNING v";
    let after = || vec![sync(), q("SELECT id, v FROM t ORDER BY id")];
    let mut sessions = Vec::new();
    for bad in [
        "SELEC 1",
        "UPDATE t SET nothing = 1",
        "UPDATE t SET v = 1 WHERE id = 1 RETURNING nothing",
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET v = 1/(v - 20) WHERE id < 5 RETURNING id",
        "UPDATE noisy SET v = 5000 WHERE id = 1",
        "SELECT 1; SELECT 2",
        "UPDATE t SET v = 1; UPDATE t SET v = 2",
        "",
    ] {
        sessions.push(("alone", [open(bad, &[]), after()].concat()));
        // the tables must be looked up while the server skips
        let forget = || vec![q("SET search_path = public")];
        sessions.push(("in front", [forget(), open(bad, &[]), open(ok, &[]), after()].concat()));
        for skipped in [["BEGIN", ok].as_slice(), &["BEGIN", ok, "COMMIT"], &[ok, "BEGIN"], &["COMMIT", ok]] {
            let skipped = skipped.iter().flat_map(|sql| open(sql, &[])).collect();
            sessions.push(("control in what is skipped", [open(bad, &[]), skipped, after(), vec![q(ok)]].concat()));
        }
        sessions.push(("query in what is skipped", [open(bad, &[]), vec![q(ok)], open(ok, &[]), after()].concat()));
        let replaced = vec![close_statement("s"), parse("s", ok), sync(), bind("", "s", &[]), execute("", 0)];
        let kept = vec![parse("s", "SELECT id FROM t WHERE id = 1"), sync()];
        sessions.push(("names in what is skipped", [kept, open(bad, &[]), replaced, after()].concat()));
        sessions.push(("in the middle", [open(ok, &[]), open(bad, &[]), open(ok, &[]), after()].concat()));
        let block =
            [open("BEGIN", &[]), open(ok, &[]), open(bad, &[]), open("COMMIT", &[]), after(), open("COMMIT", &[])];
        sessions.push(("in a block", block.concat()));
    }
    sessions.extend([
        (
            "unknown statement",
            vec![bind("", "nothing", &[]), execute("", 0), sync(), describe_statement("nothing"), sync()],
        ),
        ("unknown portal", vec![execute("nothing", 0), sync(), describe_portal("nothing"), sync()]),
        (
            "same name, other statement",
            vec![
                parse("s", "SELECT 1"),
                parse("s", "DELETE FROM t"),
                sync(),
                bind("", "s", &[]),
                execute("", 0),
                sync(),
            ],
        ),
        ("same name", [vec![parse("s", ok), parse("s", ok)], open(ok, &[]), after()].concat()),
        (
            "same portal",
            [vec![parse("s", ok), bind("p", "s", &[]), bind("p", "s", &[]), execute("p", 0)], after()].concat(),
        ),
        ("closed", [vec![parse("s", ok), close_statement("s"), bind("", "s", &[]), execute("", 0)], after()].concat()),
        ("close unknown", vec![close_statement("nothing"), close_portal("nothing"), sync()]),
        (
            "portal ends with sync",
            [vec![parse("s", ok), bind("p", "s", &[]), sync(), execute("p", 0)], after()].concat(),
        ),
        ("close, sync, query", [vec![parse("s", ok), sync(), close_statement("s"), sync(), q(ok)], after()].concat()),
        ("query unsynced", [open(ok, &[]), vec![q(ok)], open(ok, &[]), after()].concat()),
        ("syncs", vec![sync(); 50]),
        // what is skipped has no end of its own to wait for
        ("portal, then a text that can't be read", vec![describe_portal(""), q("SELECT 'not ended"), sync()]),
        ("statement, then EXECUTE", vec![bind("p", "", &[]), q("EXECUTE nothing"), sync(), q(ok)]),
        ("portal, then a string in pieces", vec![describe_portal(""), q("BEGIN; SELECT 1; COMMIT"), sync(), q(ok)]),
        ("bind before an error", [vec![parse("s", ok), bind("a", "s", &[]), parse("", "SELEC")], after()].concat()),
    ]);
    Stage::old().expect_same(&sessions);
}

#[test]
fn statements_live_on() {
    let up = "UPDATE t SET v = v + $2 WHERE id = $1";
    let run = |id: &str| vec![bind("", "s", &[id, "1"]), execute("", 0)];
    let begin = vec![parse("s", up), describe_statement("s"), sync()];
    let prepared = |sql: &str| unnamed(sql, &[]);
    Stage::old().expect_same(&[
        (
            "again and again",
            [begin.clone(), run("1"), vec![sync()], run("2"), run("3"), vec![sync()], run("77"), vec![sync()]].concat(),
        ),
        (
            "in a block",
            [begin.clone(), open("BEGIN", &[]), run("1"), run("2"), open("COMMIT", &[]), vec![sync()]].concat(),
        ),
        (
            "rolled back",
            [begin.clone(), open("BEGIN", &[]), run("1"), open("ROLLBACK", &[]), vec![sync()], run("1"), vec![sync()]]
                .concat(),
        ),
        ("deallocated", [begin.clone(), vec![q("DEALLOCATE s")], run("1"), vec![sync()]].concat()),
        ("discarded", [begin, vec![q("DISCARD ALL")], run("1"), vec![sync()]].concat()),
        (
            "cursor",
            [
                prepared("BEGIN"),
                prepared("DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id FOR UPDATE"),
                prepared("FETCH 2 FROM c"),
                prepared("UPDATE t SET v = -1 WHERE CURRENT OF c RETURNING id"),
                prepared("COMMIT"),
            ]
            .concat(),
        ),
        ("explain", prepared("EXPLAIN (COSTS OFF) DELETE FROM t WHERE id = 1 RETURNING v")),
        (
            "changed result",
            vec![
                parse("s", "DELETE FROM t WHERE id = 1 RETURNING *"),
                sync(),
                q("SET search_path = pg_temp"),
                bind("", "s", &[]),
                execute("", 0),
                sync(),
            ],
        ),
    ]);
}

#[test]
fn what_does_not_fit_is_refused_in_the_same_words() {
    let mut sessions = Vec::new();
    for sql in ["UPDATE t SET v = -1 WHERE id = 7 RETURNING id, v", "UPDATE t SET v = -1 WHERE id = 7"] {
        for formats in [[0, 0].as_slice(), &[0, 0, 0], &[1; 12]] {
            let bound = vec![parse("s", sql), bind_full("", "s", &[], &[], formats), execute("", 0), sync()];
            sessions.push(("formats", bound));
        }
        for limit in [0, 1] {
            let twice = [execute("p", limit), execute("p", limit)];
            let bound = vec![parse("s", sql), bind("p", "s", &[])];
            sessions.push(("twice", [&bound, twice.as_slice(), &[sync()]].concat()));
            let apart = [execute("p", limit), sync(), execute("p", limit), sync(), q("COMMIT")];
            sessions.push(("twice in a block", [&[q("BEGIN")], bound.as_slice(), &apart].concat()));
            let caught = [vec![q("BEGIN")], bound, vec![execute("p", limit), q("SAVEPOINT a")]].concat();
            let again = [&twice, [sync(), q("ROLLBACK TO a")].as_slice(), &[execute("p", limit), sync()]].concat();
            sessions.push(("twice, rolled back to", [caught, again, vec![q("COMMIT")]].concat()));
            let skipped = vec![q("BEGIN"), parse("s", sql), bind("p", "s", &[]), q("SAVEPOINT a")];
            let failing = vec![parse("", "SELEC"), execute("p", limit), sync(), q("ROLLBACK TO a")];
            sessions.push(("skipped", [skipped, failing, vec![execute("p", limit), sync(), q("COMMIT")]].concat()));
        }
    }
    let pages = vec![q("BEGIN"), q("SELECT nothing"), parse("", WRITES[3]), bind("p", "", &[]), execute("p", 2)];
    sessions.push(("pages that never come", [pages, vec![sync(), execute("p", 0), sync(), q("ROLLBACK")]].concat()));
    let pages = vec![q("BEGIN"), parse("s", WRITES[3]), bind("", "s", &[]), execute("", 1), sync(), q("SELECT 1")];
    sessions.push(("a query takes the portal", [pages, vec![execute("", 1), sync(), q("ROLLBACK")]].concat()));
    sessions
        .push(("a query takes the statement", vec![parse("", WRITES[3]), q("SELECT 1"), bind("", "", &[]), sync()]));
    let kept = vec![parse("", WRITES[3]), sync(), parse("s", "SELEC"), q("SELECT 1"), sync(), bind("", "", &[])];
    sessions.push(("a query that is skipped takes nothing", [kept, vec![execute("", 0), sync()]].concat()));
    let begun = vec![q("BEGIN"), parse("u", "UPDATE child SET u = 2 WHERE id = 101"), parse("c", "COMMIT")];
    let ended =
        vec![parse("", WRITES[3]), bind("", "u", &[]), execute("", 0), bind("", "c", &[]), execute("", 0), sync()];
    sessions.push((
        "a commit that fails takes nothing",
        [begun, ended, vec![bind("", "", &[]), execute("", 0), sync()]].concat(),
    ));
    let closed = vec![parse("s", WRITES[3]), bind("", "s", &["x"]), close_portal(""), sync(), bind("", "s", &[])];
    for sql in ["DELETE FROM t WHERE id = $1", "DELETE FROM t WHERE id = $1 RETURNING id", "DELETE FROM t"] {
        let bound = bind("p", "s", if sql.contains('$') { &["4"] } else { &[] });
        let described = [describe_statement("s"), describe_portal("p"), sync()];
        let begun = vec![q("BEGIN"), parse("s", sql), bound.clone()];
        let failed = [&begun, [execute("nothing", 0), sync()].as_slice(), &described].concat();
        sessions.push(("described in a failed block", failed));
        let ended = [&begun, open("ROLLBACK", &[]).as_slice(), &described].concat();
        sessions.push(("described behind its end", ended));
        let begun = vec![q("BEGIN; SAVEPOINT a"), parse("s", sql), bound, sync(), q("ROLLBACK TO a")];
        sessions.push(("described behind a savepoint", [&begun, described.as_slice()].concat()));
        sessions.push(("executed behind a savepoint", [begun, vec![execute("p", 0), sync()]].concat()));
        let typed =
            vec![parse_typed("s", sql, &[23]), describe_statement("s"), sync(), describe_statement("s"), sync()];
        sessions.push(("described twice", typed));
    }
    let prepare = "PREPARE q (int) AS INSERT INTO t VALUES ($1, 0)";
    for returning in ["", " RETURNING id"] {
        let prepare = format!("{prepare}{returning}");
        let executed = [parse("", "EXECUTE q (50)"), bind("", "", &[]), describe_portal(""), execute("", 0), sync()];
        let deallocated = [q("DEALLOCATE q"), q("SELECT 1")];
        sessions.push(("prepared by a query", [&[q(&prepare)], executed.as_slice(), &deallocated].concat()));
        sessions.push(("prepared ahead", [open(&prepare, &[]).as_slice(), &executed, &deallocated].concat()));
    }
    sessions.push(("bound again", [closed, vec![describe_portal(""), execute("", 0), sync()]].concat()));
    Stage::old().expect_same(&sessions);
}

#[test]
fn unnamed_statements_described_in_a_failed_block() {
    let mut sessions = Vec::new();
    for sql in [
        "UPDATE t SET v = $2 WHERE id = $1",
        "INSERT INTO t VALUES ($1, $2, $3)",
        "DELETE FROM t WHERE id = $1 RETURNING id",
        "SELECT v FROM t WHERE id = $1",
    ] {
        for parsed in [parse("", sql), parse_typed("", sql, &[20])] {
            let begin = || vec![parse("b", "BEGIN"), bind("", "b", &[]), execute("", 0)];
            let failed = || vec![execute("nothing", 0), sync(), describe_statement(""), sync(), q("ROLLBACK")];
            let one = || vec![parsed.clone()];
            sessions.push(("in the block", [begin(), vec![sync()], one(), vec![sync()], failed()].concat()));
            sessions.push(("at once", [begin(), one(), vec![sync()], failed()].concat()));
            sessions.push(("ahead of it", [one(), begin(), vec![sync()], failed()].concat()));
            let again = [one(), vec![sync()], begin(), one(), vec![describe_statement(""), sync()], failed()];
            sessions.push(("once more", again.concat()));
            let refused = [begin(), vec![execute("nothing", 0), sync()], one(), vec![sync()], failed()];
            sessions.push(("refused", refused.concat()));
        }
    }
    Stage::old().expect_same(&sessions);
}

#[test]
fn statements_survive_what_happens_to_their_tables() {
    let lost = "ALTER TABLE lab.a SET SCHEMA public";
    let found = "ALTER TABLE public.a SET SCHEMA lab";
    let ruled = "CREATE RULE r AS ON UPDATE TO lab.a DO INSTEAD NOTHING";
    let unruled = "DROP RULE r ON lab.a";
    let run = |parameters: &[&str]| vec![bind("", "s", parameters), execute("", 0), sync()];
    let mut sessions = Vec::new();
    for sql in ["UPDATE lab.a SET v = 2 WHERE id = 5", "UPDATE lab.a SET v = v + 1 WHERE id = 1 RETURNING *"] {
        for (gone, back) in [(lost, found), (ruled, unruled)] {
            let begin = vec![parse("s", sql), sync()];
            let tried = [run(&[]), run(&["x"]), vec![describe_statement("s"), sync()]].concat();
            let parts = [begin, run(&[]), vec![q(gone)], tried, vec![q(back)], run(&[]), run(&[])];
            sessions.push(("gone and back", parts.concat()));
        }
        let failed = vec![q("BEGIN"), parse("s", sql), bind("", "nothing", &[]), sync()];
        sessions.push(("in a failed block", [failed, run(&[]), vec![q("ROLLBACK")], run(&[])].concat()));
        let keyed = vec![parse("s", sql), sync(), q("BEGIN"), q("ALTER TABLE lab.a DROP CONSTRAINT a_pkey")];
        let failed = vec![bind("", "nothing", &[]), sync()];
        let taken = [parse("k", ruled), parse("", sql), sync(), parse("", "SELEC"), sync()];
        let gone = [bind("", "k", &[]), execute("", 0), sync(), bind("", "", &[]), execute("", 0), sync()];
        let back = [q(unruled)];
        sessions.push(("unnamed, taken by a refused one", [taken.as_slice(), &gone, &back].concat()));
        sessions.push(("planned anew", [keyed, run(&[]), failed, run(&[]), vec![q("ROLLBACK")], run(&[])].concat()));
    }
    let ruled = "CREATE RULE r AS ON UPDATE TO t DO INSTEAD NOTHING";
    let taken = [parse("k", ruled), parse("", WRITES[2]), sync(), parse("", "SELEC"), sync()];
    let gone = [bind("", "k", &[]), execute("", 0), sync(), bind("", "", &[]), execute("", 0), sync()];
    sessions.push(("taken by a refused one", [taken.as_slice(), &gone, &[q("DROP RULE r ON t")]].concat()));
    Stage::old().expect_same(&sessions);
}
