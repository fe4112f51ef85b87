//! Results of as many columns as the server gives, and more.
use crate::messages::{Message, q, unnamed};
use crate::stage::{Session, Stage};

/// A result has no more.
const COLUMNS_MAX: usize = 1664;

fn columns(count: usize) -> String {
    vec!["t.id"; count].join(", ")
}

/// A table of so many columns.
fn create(name: &str, key: &str, columns: usize) -> Message {
    let more: Vec<_> = (2..=columns).map(|number| format!("c{number} int")).collect();
    q(&format!("CREATE TABLE {name} (id int {key}, {})", more.join(", ")))
}

/// Each statement as a Query, unnamed, and by EXECUTE; `more` are the columns that its RETURNING list has already.
fn at_the_limit(name: &'static str, sql: &str, more: usize) -> [Session; 3] {
    [COLUMNS_MAX - 1, COLUMNS_MAX, COLUMNS_MAX + 1].map(|count| {
        let sql = sql.replace("<columns>", &columns(count - more));
        let prepared = [q(&format!("PREPARE q AS {sql}")), q("EXECUTE q")];
        (name, [vec![q(&sql)], unnamed(&sql, &[]), prepared.to_vec()].concat())
    })
}

#[test]
fn as_many_columns_as_a_result_may_have() {
    let mut sessions = Vec::new();
    let mut add = |name, sql, more| sessions.extend(at_the_limit(name, sql, more));
    add("listed", "UPDATE t SET v = v + 1 WHERE id < 4 RETURNING <columns>", 0);
    add("no rows", "DELETE FROM t WHERE id = 0 RETURNING <columns>", 0);
    add("a star", "DELETE FROM t WHERE id = 1 RETURNING *, <columns>", 3);
    add("an insert", "INSERT INTO t VALUES (50), (51) ON CONFLICT DO NOTHING RETURNING t.*, <columns>, *", 6);
    let of_with = "WITH w AS (SELECT 1 AS a, 2 AS b) UPDATE t SET v = 1 FROM w x, (SELECT 3, * FROM w) y
        WHERE id = 1 RETURNING <columns>, *, y.*";
    add("of WITH and subselects", of_with, 11);
    add("joined", "UPDATE t SET v = w.id FROM lab.wide w WHERE t.id = w.id RETURNING *, <columns>", 1603);
    let of_one =
        "DELETE FROM t USING lab.wide a JOIN public.t b USING (id) WHERE t.id = b.id RETURNING a.*, b.v, <columns>";
    add("one of those joined", of_one, 1601);
    Stage::old().expect_same(&sessions);
    Stage::newest().expect_same(&sessions);
}

#[test]
fn rows_that_are_wide_before_and_after() {
    let mut sessions = Vec::new();
    for key in ["", "PRIMARY KEY"] {
        let begin = [create("wide", key, 900), q("INSERT INTO wide (id) VALUES (1), (2)")];
        let sql = "UPDATE wide SET id = id + 1000, c2 = 3 WHERE id < 10";
        let end = [q("DROP TABLE wide")];
        sessions.push(("wide", [&begin[..], &[q(sql)], &unnamed(sql, &[]), &end].concat()));
    }
    Stage::old().expect_same(&sessions);
    Stage::newest().expect_same(&sessions);
}
