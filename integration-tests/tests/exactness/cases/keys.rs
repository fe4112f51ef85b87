//! Keys that change, and tables without one.
use super::{T, t_and};
use crate::case::{Around, Case, Protocol, case};

/// Rows that can't be told apart by a key.
const K: &str =
    "CREATE TABLE k (a int, b text); INSERT INTO k VALUES (1, 'x'), (1, 'x'), (2, 'y'), (3, NULL), (4, 'z');";
const NUMERIC: &str = "CREATE TABLE k (n numeric, f float8, j json); INSERT INTO k VALUES (1.0, 0, '{\"a\": 1}'), (1.00, '-0', '{\"a\":1}'), (2, 1, 'null');";

pub fn cases() -> Vec<Case> {
    [assigned(), keyless(), unique(), computed()].concat()
}

fn assigned() -> Vec<Case> {
    vec![
        case("UPDATE of a key, the old one given by constants", T)
            .p("UPDATE t SET id = $2 WHERE id = $1", &["1", "101"])
            .p("UPDATE t SET id = $2 WHERE id = $1", &["2", "102"])
            .q("UPDATE t SET id = 103, v = 5 WHERE id = 3 RETURNING *")
            .q("UPDATE t SET id = 104 WHERE id = 4711"),
        case("UPDATE of a key, computed from the old one", T)
            .q("UPDATE t SET id = id + 1000 WHERE id = 5")
            .p("UPDATE t SET id = id + 1000 WHERE v > $1 RETURNING id", &["60"]),
        case("UPDATE of the keys of many rows", T)
            .q("UPDATE t SET id = id * 100, s = 'moved'")
            .p("UPDATE t SET id = id - $1", &["1"]),
        case("UPDATE that assigns the key its own value", T)
            .p("UPDATE t SET id = $1, v = $2 WHERE id = $1", &["1", "11"])
            .q("UPDATE t SET id = id, s = 'same'"),
        case("UPDATE of a part of a key of two columns", "CREATE TABLE m (a int, b int, v int, PRIMARY KEY (a, b)); INSERT INTO m SELECT g, g, g FROM generate_series(1, 9) g;")
            .p("UPDATE m SET b = $1 WHERE a = 1 AND b = 1", &["50"])
            .q("UPDATE m SET b = b + 100 WHERE a = 2"),
        case("UPDATE of a key by a join", t_and("CREATE TABLE o (id int, w int); INSERT INTO o VALUES (1, 501), (2, 502);"))
            .q("UPDATE t SET id = o.w FROM o WHERE o.id = t.id"),
        case("UPDATE of a key behind SELECT ... FOR UPDATE of the client's own", T)
            .each(&["BEGIN", "SELECT id FROM t WHERE v = 30 FOR UPDATE", "UPDATE t SET id = id + 300 WHERE v = 30", "COMMIT"])
            .unwrapped(),
        case("UPDATE of a key given by IN, ranges and rows", T)
            .q("UPDATE t SET id = id + 100 WHERE id IN (1, 2)")
            .p("UPDATE t SET id = id + 100 WHERE id = ANY ($1)", &["{3,4}"])
            .p("UPDATE t SET id = $1 WHERE (id, v) = ($2, 50)", &["500", "5"]),
        case("UPDATE of a key to one that is taken", T).fails("UPDATE t SET id = 2 WHERE id = 1", "23505").q("UPDATE t SET v = 0 WHERE id = 1"),
        case("UPDATE of a key and back, and of a row that then gets the old key", T)
            .each(&["BEGIN", "UPDATE t SET id = 100 WHERE id = 1", "UPDATE t SET id = 1 WHERE id = 2", "UPDATE t SET id = 2 WHERE id = 100", "UPDATE t SET v = v + 1 WHERE id < 3", "COMMIT"])
            .unwrapped(),
        case("UPDATE of a key behind savepoints", T)
            .each(&["BEGIN", "SAVEPOINT a", "UPDATE t SET id = 100 WHERE id = 1", "ROLLBACK TO a", "UPDATE t SET id = 101 WHERE id = 1", "RELEASE a", "COMMIT"])
            .unwrapped(),
        case("UPDATE of a text key: case, blanks, quotes", "CREATE TABLE x (k text PRIMARY KEY, v int); INSERT INTO x VALUES ('a', 1), ('it''s', 2), (' b ', 3);")
            .p("UPDATE x SET k = $1 WHERE k = $2", &["A", "a"])
            .p("UPDATE x SET k = $1 WHERE k = $2", &["it is", "it's"])
            .q("UPDATE x SET k = 'b' WHERE k = ' b '"),
        case("UPDATE of a key whose constant is of another type", "CREATE TABLE x (k numeric PRIMARY KEY, d date UNIQUE NOT NULL); INSERT INTO x VALUES (1.0, '2024-01-01'), (2, '2024-01-02');")
            .q("UPDATE x SET k = 10 WHERE k = 1")
            .q("UPDATE x SET k = 20 WHERE d = '2024-01-02'::text::date"),
        case("UPDATE of a key that other rows refer to (ON UPDATE CASCADE)",
            "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p ON UPDATE CASCADE);
             INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1, 1), (2, 1), (3, 2);")
            .p("UPDATE p SET id = $1 WHERE id = 1", &["10"]),
        case("A key that goes round among rows (deferrable)", "CREATE TABLE u (id int PRIMARY KEY DEFERRABLE, v int); INSERT INTO u SELECT g, g FROM generate_series(1, 5) g;")
            .q("UPDATE u SET id = id % 5 + 1"),
    ]
}

fn keyless() -> Vec<Case> {
    vec![
        case("INSERT into a table without a key", K)
            .p("INSERT INTO k VALUES ($1, 'x'), ($1, 'x')", &["1"])
            .q("INSERT INTO k SELECT * FROM k"),
        case("DELETE from a table without a key, all equal rows", K).p("DELETE FROM k WHERE a = $1", &["1"]),
        case("DELETE from a table without a key, one of equal rows", K)
            .q("DELETE FROM k WHERE ctid = (SELECT min(ctid) FROM k WHERE a = 1)"),
        case("DELETE of rows that are equal but not the same (1.0 and 1.00, 0 and -0)", NUMERIC)
            .q("DELETE FROM k WHERE n::text = '1.00'"),
        case("UPDATE of a table without a key", K)
            .p("UPDATE k SET b = $1 WHERE a = $2", &["changed", "2"])
            .q("UPDATE k SET a = a + 10"),
        case("UPDATE of one of several equal rows without a key", K)
            .q("UPDATE k SET a = 50 WHERE ctid = (SELECT min(ctid) FROM k WHERE a = 1)"),
        case("UPDATE of a table without a key, with RETURNING and a join", t_and(K))
            .q("UPDATE k SET b = t.s FROM t WHERE t.id = k.a AND k.a > 1 RETURNING k.*, t.v"),
        case("UPDATE of numbers, signed zeros and json without a key", NUMERIC).q("UPDATE k SET f = f + 1 WHERE n = 1"),
        case(
            "INSERT and UPDATE of a table whose only key may be NULL",
            "CREATE TABLE k (a int UNIQUE, v int); INSERT INTO k VALUES (1, 1), (NULL, 2), (NULL, 2);",
        )
        .p("INSERT INTO k VALUES ($1, 3), (NULL, 2)", &["5"])
        .q("UPDATE k SET v = 9 WHERE a = 1")
        .q("UPDATE k SET v = 10 WHERE a IS NULL"),
        case("A table without columns", "CREATE TABLE nothing ();")
            .each(&["INSERT INTO nothing DEFAULT VALUES", "INSERT INTO nothing DEFAULT VALUES"]),
        case("DELETE of rows without a key that are NULL, long or empty", "CREATE TABLE k (a int, b text); INSERT INTO k VALUES (NULL, NULL), (NULL, NULL), (1, repeat('long', 5000)), (1, repeat('long', 5000)), (2, '');")
            .q("DELETE FROM k WHERE a IS NULL AND ctid = (SELECT min(ctid) FROM k)")
            .p("DELETE FROM k WHERE length(b) > $1 AND ctid = (SELECT max(ctid) FROM k WHERE a = 1)", &["100"])
            .q("DELETE FROM k WHERE b = ''"),
        case("ON CONFLICT DO NOTHING on a table without a key", K)
            .q("INSERT INTO k VALUES (9, 'q') ON CONFLICT DO NOTHING"),
        case("DELETE and INSERT of equal rows in a block", K)
            .each(&[
                "BEGIN",
                "DELETE FROM k WHERE a = 1",
                "INSERT INTO k VALUES (1, 'x')",
                "UPDATE k SET b = 'x' WHERE a = 2",
                "COMMIT",
            ])
            .unwrapped(),
    ]
}

fn unique() -> Vec<Case> {
    let u = "CREATE TABLE u (id int PRIMARY KEY, n int UNIQUE, v int); INSERT INTO u VALUES (1, 1, 0), (2, 2, 0), (3, 3, 0);";
    let deferrable = "CREATE TABLE u (id int PRIMARY KEY, n int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO u VALUES (1, 1), (2, 2), (3, 3);";
    vec![
        case("Unique values that are freed and taken again", u)
            .each(&["UPDATE u SET n = 10 WHERE id = 1", "UPDATE u SET n = 1 WHERE id = 2", "UPDATE u SET n = 2 WHERE id = 1"])
            .q("DELETE FROM u WHERE id = 3")
            .p("INSERT INTO u VALUES ($1, 3, 1)", &["4"])
            .q("UPDATE u SET n = n + 100"),
        case("Unique values that go round (deferrable)", deferrable)
            .each(&["UPDATE u SET n = n % 3 + 1", "UPDATE u SET n = 4 - n"]),
        case("Deferred unique values that clash for a while", deferrable)
            .each(&["BEGIN", "UPDATE u SET n = 2 WHERE id = 1", "UPDATE u SET n = 1 WHERE id = 2", "COMMIT"])
            .unwrapped(),
        case("Deferred unique values that still clash at COMMIT", deferrable)
            .each(&["BEGIN", "UPDATE u SET n = 2 WHERE id = 1"])
            .fails("COMMIT", "23505")
            .q("UPDATE u SET n = 7 WHERE id = 1"),
        case("Exclusion constraint", "CREATE TABLE x (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&)); INSERT INTO x VALUES (1, '[1,5)'), (2, '[5,9)');")
            .p("INSERT INTO x VALUES ($1, '[10,20)')", &["3"])
            .q("UPDATE x SET r = '[20,30)' WHERE id = 1")
            .q("INSERT INTO x VALUES (4, '[1,5)'), (5, '[25,26)') ON CONFLICT DO NOTHING")
            .q("DELETE FROM x WHERE r && '[6,7)'"),
        case("Unique index on an expression, and a partial one", "CREATE TABLE e (id int PRIMARY KEY, mail text, gone bool DEFAULT false);
             CREATE UNIQUE INDEX ON e (lower(mail)); CREATE UNIQUE INDEX ON e (mail) WHERE NOT gone; INSERT INTO e VALUES (1, 'A'), (2, 'B');")
            .each(&["UPDATE e SET mail = 'C' WHERE id = 1", "UPDATE e SET mail = 'a' WHERE id = 2"])
            .p("INSERT INTO e VALUES (3, $1) ON CONFLICT (lower(mail)) DO UPDATE SET gone = true", &["A"])
            .q("DELETE FROM e WHERE gone"),
    ]
}

fn computed() -> Vec<Case> {
    vec![
        case("Generated columns (stored)", "CREATE TABLE g (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED, s text DEFAULT 'x');")
            .p("INSERT INTO g (id, v) VALUES ($1, 1), (2, 2)", &["1"])
            .q("UPDATE g SET v = 5 WHERE twice = 2 RETURNING *")
            .q("INSERT INTO g VALUES (1, 9) ON CONFLICT (id) DO UPDATE SET v = excluded.v + 1")
            .q("DELETE FROM g WHERE twice = 4"),
        case("Generated columns (virtual)", "CREATE TABLE g (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) VIRTUAL);")
            .q("INSERT INTO g (id, v) VALUES (1, 1), (2, 2) RETURNING *")
            .q("UPDATE g SET v = 5 WHERE twice = 2")
            .since(18),
        case("A generated column in the key", "CREATE TABLE u (mail text NOT NULL, low text GENERATED ALWAYS AS (lower(mail)) STORED PRIMARY KEY); INSERT INTO u VALUES ('A'), ('B');")
            .q("INSERT INTO u VALUES ('D')")
            .p("UPDATE u SET mail = $1 WHERE mail = 'A'", &["C"])
            .declared_before(18, &[("u", "key")]),
        case("Identity columns, ALWAYS and BY DEFAULT", "CREATE TABLE a (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int); CREATE TABLE b (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v int);")
            .p("INSERT INTO a (v) VALUES ($1), (2) RETURNING id", &["1"])
            .q("INSERT INTO a (id, v) OVERRIDING SYSTEM VALUE VALUES (100, 3)")
            .q("INSERT INTO a (id, v) OVERRIDING USER VALUE VALUES (100, 4)")
            .q("UPDATE a SET v = v + 1")
            .q("INSERT INTO b (v) VALUES (1)")
            .q("INSERT INTO b VALUES (50, 2), (DEFAULT, 3)")
            .q("INSERT INTO b VALUES (50, 9) ON CONFLICT (id) DO UPDATE SET v = excluded.v")
            .q("DELETE FROM a WHERE id = 1"),
        case("UPDATE of an identity key", "CREATE TABLE a (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int); INSERT INTO a (v) VALUES (1), (2);")
            .q("UPDATE a SET id = DEFAULT WHERE id = 1"),
        case("Sequences: nextval, currval, setval", "CREATE SEQUENCE q; CREATE TABLE n (id int PRIMARY KEY, v int);")
            .q("INSERT INTO n VALUES (nextval('q'), 1), (nextval('q'), 2)")
            .p("SELECT setval('q', $1)", &["100"])
            .q("INSERT INTO n VALUES (nextval('q'), currval('q'))"),
        case("A key changed by a BEFORE trigger", "CREATE TABLE u (slug text PRIMARY KEY, title text);
             CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.slug := lower(NEW.title); RETURN NEW; END';
             CREATE TRIGGER slugify BEFORE INSERT OR UPDATE ON u FOR EACH ROW EXECUTE FUNCTION {f}(); INSERT INTO u (title) VALUES ('A'), ('B');")
            .q("INSERT INTO u (title) VALUES ('D')")
            .p("UPDATE u SET title = $1 WHERE slug = 'a'", &["C"])
            .declared_before(18, &[("u", "key")]),
        case("A text with a SQL-level PREPARE of an UPDATE of the key", T)
            .q("PREPARE {s}_up (int, int) AS UPDATE t SET id = $2 WHERE id = $1")
            .q("EXECUTE {s}_up(1, 201)")
            .q("EXECUTE {s}_up(2, 202)")
            .around(&[Around::Nothing, Around::Block])
            .only(Protocol::Simple),
    ]
}
