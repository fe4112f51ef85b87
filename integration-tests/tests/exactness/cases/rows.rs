//! INSERT, UPDATE, DELETE and MERGE of plain tables.
use super::{T, t_and};
use crate::case::{Case, Protocol, case};

const O: &str = "CREATE TABLE o (id int PRIMARY KEY, w int); INSERT INTO o SELECT g, g FROM generate_series(1, 9) g;";

pub fn cases() -> Vec<Case> {
    [plain(), upserts(), from_other_tables(), merges()].concat()
}

fn plain() -> Vec<Case> {
    vec![
        case("INSERT of one row", T)
            .p("INSERT INTO t VALUES ($1, $2, $3)", &["100", "1", "it's"])
            .p("INSERT INTO t VALUES ($1, $2, $3)", &["101", "2", ""])
            .q("INSERT INTO t (s, id) VALUES ('b', 102)"),
        case("INSERT of several rows", T)
            .p("INSERT INTO t (id, v) VALUES ($1, $2), ($3, $2), ($4, DEFAULT)", &["100", "1", "101", "102"])
            .q("INSERT INTO t TABLE t LIMIT 0"),
        case("INSERT ... DEFAULT VALUES", "CREATE TABLE d (id serial PRIMARY KEY, v int DEFAULT 7);")
            .q("INSERT INTO d DEFAULT VALUES")
            .q("INSERT INTO d DEFAULT VALUES RETURNING *"),
        case("INSERT with RETURNING", T)
            .p("INSERT INTO t VALUES ($1, 1, 'a'), ($2, 2, 'b') RETURNING id, v + 1 AS w, t", &["100", "101"])
            .q("INSERT INTO t AS x VALUES (102) RETURNING x.*, *, 'a literal'"),
        case("UPDATE of one row by its key", T)
            .p("UPDATE t SET v = $2 WHERE id = $1", &["1", "77"])
            .p("UPDATE t SET v = $2 WHERE id = $1", &["2", "78"])
            .q("UPDATE ONLY t AS x SET s = x.s || '!', v = DEFAULT WHERE x.id = 3"),
        case("UPDATE of several rows", T)
            .p("UPDATE t SET v = v + $1 WHERE id BETWEEN $2 AND $3", &["1", "2", "5"])
            .q("UPDATE t SET s = upper(s)")
            .q("UPDATE t SET v = 0 WHERE false"),
        case("UPDATE of several columns at once", T)
            .p("UPDATE t SET (v, s) = ($1, $2) WHERE id = 1", &["5", "x"])
            .q("UPDATE t SET (v, s) = ROW(6, DEFAULT) WHERE id = 2")
            .q("UPDATE t SET (v, s) = (SELECT count(*), max(s) FROM t) WHERE id = 3"),
        case("UPDATE with RETURNING", T)
            .p("UPDATE t SET v = $1 WHERE id < 4 RETURNING v, id AS key, *", &["5"])
            .q("UPDATE t AS x SET v = x.v + 1 WHERE id = 4 RETURNING (SELECT count(*) FROM t), ctid IS NULL"),
        case("DELETE by key", T)
            .p("DELETE FROM t WHERE id = $1", &["1"])
            .p("DELETE FROM t WHERE id = $1 RETURNING s", &["2"])
            .q("DELETE FROM t WHERE id = 4711"),
        case("DELETE of several rows", T)
            .p("DELETE FROM t WHERE v > $1 RETURNING *", &["50"])
            .q("DELETE FROM ONLY t AS x WHERE x.s LIKE '%1'")
            .q("DELETE FROM t"),
        case("UPDATE and DELETE WHERE CURRENT OF", T)
            .each(&["BEGIN", "DECLARE c CURSOR FOR SELECT * FROM t WHERE id IN (2, 3) ORDER BY id FOR UPDATE"])
            .q("FETCH c")
            .q("UPDATE t SET v = 1000 WHERE CURRENT OF c")
            .q("FETCH c")
            .q("DELETE FROM t WHERE CURRENT OF c")
            .q("COMMIT")
            .unwrapped(),
        case(
            "Rows of a key of several columns, in another order",
            "CREATE TABLE m (v int, b text, a int, PRIMARY KEY (a, b));",
        )
        .p("INSERT INTO m VALUES (1, 'x', $1), (2, 'y', $1), (3, 'x', 2)", &["1"])
        .p("UPDATE m SET v = v * 10 WHERE a = $1 AND b = $2", &["1", "x"])
        .q("DELETE FROM m WHERE b = 'y'"),
        case("The same row again in one transaction", T)
            .p("INSERT INTO t VALUES ($1)", &["100"])
            .q("UPDATE t SET v = 1 WHERE id = 100")
            .q("DELETE FROM t WHERE id = 100")
            .q("INSERT INTO t VALUES (100, 2)")
            .q("UPDATE t SET v = v + 1 WHERE id IN (100, 1)"),
        case("A write whose rows are read in portions (row limit of Execute)", T)
            .portions("UPDATE t SET v = v + 1 RETURNING id", 2)
            .portions("DELETE FROM t WHERE id > 2 RETURNING *", 1)
            .only(Protocol::Extended),
        case("A row limit of Execute for a write that returns no rows", T)
            .portions_fail("DELETE FROM t WHERE id > 2", 1, "55000")
            .only(Protocol::Extended),
    ]
}

fn upserts() -> Vec<Case> {
    let schema = t_and("CREATE UNIQUE INDEX t_s ON t (s);");
    vec![
        case("INSERT ... ON CONFLICT DO NOTHING", schema.clone())
            .p("INSERT INTO t VALUES ($1, 0, 'x') ON CONFLICT DO NOTHING", &["1"])
            .q("INSERT INTO t VALUES (1, 0, 'x'), (50, 0, 'new') ON CONFLICT (id) DO NOTHING RETURNING id")
            .q("INSERT INTO t VALUES (51, 0, 'row 3'), (52, 0, 'row 100') ON CONFLICT (s) DO NOTHING"),
        case("INSERT ... ON CONFLICT DO UPDATE", schema.clone())
            .p("INSERT INTO t VALUES ($1, $2, 'x') ON CONFLICT (id) DO UPDATE SET v = t.v + excluded.v", &["2", "5"])
            .p("INSERT INTO t VALUES ($1, $2, 'x') ON CONFLICT (id) DO UPDATE SET v = t.v + excluded.v", &["77", "5"])
            .q("INSERT INTO t VALUES (3, 1, 'a'), (4, 2, 'b'), (60, 3, 'c') ON CONFLICT (id) DO UPDATE SET v = excluded.v RETURNING *"),
        case("INSERT ... ON CONFLICT DO UPDATE ... WHERE", schema.clone()).q(
            "INSERT INTO t VALUES (3, 5, 'x'), (4, 5, 'y') ON CONFLICT ON CONSTRAINT t_pkey DO UPDATE SET s = excluded.s WHERE t.id = 4",
        ),
        case("INSERT ... ON CONFLICT on another key than the primary", schema.clone()).p(
            "INSERT INTO t VALUES ($1, 9, 'row 5'), (62, 9, 'fresh') ON CONFLICT (s) DO UPDATE SET v = excluded.v",
            &["61"],
        ),
        case("INSERT ... ON CONFLICT DO UPDATE that assigns the key", schema)
            .p("INSERT INTO t VALUES (1, 0, 'row 1') ON CONFLICT (id) DO UPDATE SET id = $1", &["90"])
            .declared(&[("t", "key")]),
    ]
}

fn from_other_tables() -> Vec<Case> {
    let schema = t_and(O);
    vec![
        case("INSERT ... SELECT", schema.clone())
            .p("INSERT INTO t SELECT id + 1000, w, 'from o' FROM o WHERE w > $1", &["3"])
            .q("WITH big AS (SELECT id FROM o) INSERT INTO t SELECT id + 2000, 0, '' FROM big ORDER BY id DESC"),
        case("UPDATE ... FROM", schema.clone())
            .p("UPDATE t SET v = o.w * 100 FROM o WHERE o.id = t.id AND o.w > $1", &["5"])
            .q("UPDATE t AS x SET s = 'joined' FROM o JOIN t y USING (id) WHERE o.id = x.id AND y.v < 40 RETURNING *"),
        case("UPDATE with subqueries", schema.clone())
            .q("UPDATE t SET v = (SELECT sum(w) FROM o) WHERE id = (SELECT max(id) FROM o)")
            .p("UPDATE t SET v = v - 1 WHERE EXISTS (SELECT FROM o WHERE o.id = t.id AND w = $1)", &["4"])
            .q("UPDATE t SET v = (SELECT sum(v) FROM t) WHERE id IN (1, 2)"),
        case("UPDATE of rows that several others match", schema.clone())
            .q("UPDATE t SET v = o.w FROM (VALUES (1, 11), (1, 12), (2, 21)) o (id, w) WHERE o.id = t.id")
            .q("UPDATE t SET s = t2.s FROM t AS t2 WHERE t2.id = t.id + 1"),
        case("INSERT ... SELECT of its own table, ORDER BY, LIMIT, UNION", schema.clone())
            .q("INSERT INTO t SELECT id + 100, v, s FROM t ORDER BY id DESC LIMIT 3")
            .q("INSERT INTO t (id, v) SELECT 300, 1 UNION ALL SELECT 301, count(*) FROM t")
            .q("INSERT INTO t (id) SELECT g FROM generate_series(400, 405) g WHERE NOT EXISTS (SELECT FROM t WHERE t.id = g)"),
        case("UPDATE with WITH that only reads", schema.clone())
            .p("WITH big AS (SELECT id FROM o WHERE w > $1) UPDATE t SET s = 'big' FROM big WHERE big.id = t.id", &["3"]),
        case("DELETE ... USING", schema.clone())
            .p("DELETE FROM t USING o WHERE o.id = t.id AND o.w = $1", &["7"])
            .q("DELETE FROM t AS x USING t AS y WHERE x.id = y.id + 5 RETURNING x.id, y.id"),
        case("DELETE with subqueries and WITH", schema.clone())
            .q("DELETE FROM t WHERE id IN (SELECT id FROM o WHERE w % 2 = 0)")
            .q("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 2 FROM n WHERE i < 7) DELETE FROM t USING n WHERE id = i"),
        case("Volatile expressions (now(), random(), gen_random_uuid())", "CREATE TABLE r (id serial PRIMARY KEY, at timestamptz DEFAULT now(), f float8 DEFAULT random(), u uuid);")
            .p("INSERT INTO r (u) SELECT gen_random_uuid() FROM generate_series(1, $1)", &["5"])
            .q("UPDATE r SET f = random(), at = clock_timestamp() WHERE id % 2 = 0")
            .q("DELETE FROM r WHERE id = 2 AND f < 2")
            .volatile(),
        case("Several thousand rows in one statement", "CREATE TABLE n (id int PRIMARY KEY, v int, pad text);")
            .p("INSERT INTO n SELECT g, g % 7, repeat('x', 100) FROM generate_series(1, $1) g", &["3000"])
            .q("UPDATE n SET v = v + 1 WHERE id % 2 = 0")
            .q("DELETE FROM n WHERE v = 3"),
    ]
}

fn merges() -> Vec<Case> {
    let schema = t_and("CREATE TABLE o (id int PRIMARY KEY, w int); INSERT INTO o VALUES (1, 1), (2, 2), (50, 50);");
    const OLD: &[(&str, &str)] = &[("t", "MERGE")];
    vec![
        case("MERGE that inserts, updates and deletes", schema.clone())
            .p(
                "MERGE INTO t USING o ON t.id = o.id WHEN MATCHED AND t.id = $1 THEN DELETE
                 WHEN MATCHED THEN UPDATE SET v = o.w WHEN NOT MATCHED THEN INSERT (id, v) VALUES (o.id, o.w)",
                &["1"],
            )
            .declared_before(17, OLD),
        case("MERGE that does nothing", schema.clone())
            .q("MERGE INTO t USING o ON t.id = o.id WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN DO NOTHING")
            .declared_before(17, OLD),
        case("MERGE with RETURNING and WHEN NOT MATCHED BY SOURCE", schema.clone())
            .q("MERGE INTO t USING o ON t.id = o.id WHEN MATCHED THEN UPDATE SET s = 'both'
                WHEN NOT MATCHED BY SOURCE AND t.id > 7 THEN DELETE
                WHEN NOT MATCHED THEN INSERT VALUES (o.id, o.w, 'new') RETURNING merge_action(), t.*, o.w")
            .since(17),
        case("MERGE that changes keys", schema)
            .q("MERGE INTO t USING o ON t.id = o.id WHEN MATCHED THEN UPDATE SET id = t.id + 1000")
            .declared_before(18, OLD),
        case("RETURNING with old and new values", T)
            .p("UPDATE t SET v = v + $1 WHERE id < 3 RETURNING old.v, new.v, id", &["1"])
            .q("INSERT INTO t VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET v = 6 RETURNING WITH (OLD AS o, NEW AS n) o.v, n.v")
            .q("DELETE FROM t WHERE id = 9 RETURNING old.*, new.id")
            .since(18),
    ]
}
