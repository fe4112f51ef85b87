//! COPY in both directions, and TRUNCATE.
use super::{T, t_and};
use crate::case::{Around, Case, case};

pub fn cases() -> Vec<Case> {
    [exact(), computed(), other(), truncate()].concat()
}

fn exact() -> Vec<Case> {
    vec![
        case("COPY FROM STDIN, text", T)
            .copy("COPY t FROM STDIN", "100\t1\ta\\tb\\\\\n101\t\\N\tü\n")
            .q("UPDATE t SET v = 5 WHERE id = 100"),
        case("COPY FROM STDIN, csv, some columns", T)
            .copy("COPY t (s, id) FROM STDIN WITH (FORMAT csv, HEADER, NULL 'none')", "s,id\n\"quoted, \"\"text\"\"\",102\nnone,103\n"),
        case("COPY FROM STDIN of no rows", T).copy("COPY t FROM STDIN", ""),
        case("COPY FROM STDIN into partitions", "CREATE TABLE p (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);")
            .copy("COPY p FROM STDIN", "1\t1\n11\t2\n12\t3\n"),
        case("COPY FROM STDIN of a table without a key", "CREATE TABLE k (a int, b text);").copy("COPY k FROM STDIN", "1\tx\n1\tx\n"),
        case("COPY FROM STDIN of referring rows", "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a); INSERT INTO a VALUES (1);")
            .copy("COPY b FROM STDIN", "1\t1\n2\t1\n"),
        case("COPY FROM STDIN that fails", T)
            .copy("COPY t FROM STDIN", "99\t1\tfine\n")
            .fails("COPY t FROM '/nonexistent'", "42501")
            .q("INSERT INTO t VALUES (200)"),
        case("COPY FROM STDIN with FREEZE", T)
            .each(&["BEGIN", "TRUNCATE t"])
            .copy("COPY t FROM STDIN WITH (FREEZE)", "100\t1\ta\n")
            .q("COMMIT")
            .unwrapped(),
        case("COPY FROM STDIN in a session in LATIN1", T)
            .apart()
            .q("SET client_encoding = 'LATIN1'")
            .copy("COPY t FROM STDIN", "100\t1\tplain\n")
            .copy("COPY t FROM STDIN WITH (ENCODING 'UTF8')", "101\t1\t\u{fc}\n"),
        case("COPY FROM STDIN under DateStyle, DELIMITER, NULL and ESCAPE of the session's own", "CREATE TABLE d (id int PRIMARY KEY, at date, s text);")
            .apart()
            .q("SET DateStyle = 'SQL, DMY'")
            .copy("COPY d FROM STDIN WITH (DELIMITER ';', NULL 'nil')", "1;02/01/2024;nil\n2;nil;a\\;b\n")
            .copy("COPY d FROM STDIN WITH (FORMAT csv, QUOTE '^', ESCAPE '!')", "3,03/01/2024,^x!^y^\n"),
        case("COPY FROM STDIN of texts that mean a moment ('now', 'today')", "CREATE TABLE m (id int PRIMARY KEY, at timestamptz, d date, t time);")
            .copy("COPY m FROM STDIN", "1\tnow\ttoday\tallballs\n2\tNOW\ttomorrow\tnow\n3\t2024-01-02 03:04+00\tepoch\t01:02\n")
            .volatile(),
        case("COPY FROM STDIN under TimeZone, IntervalStyle and lc_monetary of the session's own", "CREATE TABLE m (id int PRIMARY KEY, at timestamptz, i interval, p money);")
            .apart()
            .q("SET TimeZone = 'Asia/Kathmandu'")
            .q("SET IntervalStyle = 'sql_standard'")
            .q("SET lc_monetary = 'C'")
            .copy("COPY m FROM STDIN", "1\t2024-01-02 03:04\t-1 2:03:04\t$1.50\n"),
        case("COPY FROM STDIN in csv with FORCE_NULL, FORCE_NOT_NULL, HEADER MATCH", "CREATE TABLE c (id int PRIMARY KEY, a text, b text);")
            .copy("COPY c FROM STDIN WITH (FORMAT csv, HEADER MATCH, NULL '-', FORCE_NULL (a), FORCE_NOT_NULL (b))", "id,a,b\n1,\"-\",-\n2,-,\"-\"\n"),
        case("COPY FROM STDIN that leaves out a column with a constant default", "CREATE TABLE c (id int PRIMARY KEY, a text DEFAULT 'x', b int DEFAULT 7, c date DEFAULT '2024-01-02');")
            .copy("COPY c (id) FROM STDIN", "1\n2\n"),
        case("COPY FROM STDIN in binary", "CREATE TABLE b (id int PRIMARY KEY, v int);").copy_bytes(
            "COPY b FROM STDIN WITH (FORMAT binary)",
            b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x04\0\0\0\x09\xff\xff",
        ),
        case("COPY TO STDOUT", T).each(&["COPY t TO STDOUT", "COPY (SELECT id FROM t ORDER BY 1) TO STDOUT (FORMAT csv)", "UPDATE t SET v = 0 WHERE id = 1"]),
    ]
}

fn computed() -> Vec<Case> {
    let serial = "CREATE TABLE n (id serial PRIMARY KEY, v int, at timestamptz DEFAULT clock_timestamp(), r float8 DEFAULT random());";
    vec![
        case("COPY FROM STDIN that leaves out computed columns (serial, now(), random())", serial)
            .copy("COPY n (v) FROM STDIN", "1\n2\n3\n")
            .q("UPDATE n SET v = v + 10 WHERE v > 1")
            .volatile(),
        case("COPY FROM STDIN that leaves out a computed column beside a key of its own", "CREATE TABLE n (id int PRIMARY KEY, v int, u uuid DEFAULT gen_random_uuid());")
            .copy("COPY n (id, v) FROM STDIN", "1\t1\n2\t2\n")
            .volatile(),
        case("COPY FROM STDIN into a table with rows, leaving out an identity", "CREATE TABLE n (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int); INSERT INTO n (v) VALUES (100), (200);")
            .q("INSERT INTO n (v) VALUES (300)")
            .copy("COPY n (v) FROM STDIN", "1\n2\n"),
        case("COPY FROM STDIN with generated columns", "CREATE TABLE g (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED);").copy("COPY g FROM STDIN", "1\t1\n2\t2\n"),
        case("COPY FROM STDIN into a table with a BEFORE trigger that changes the row", t_and("CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.s := upper(NEW.s); RETURN NEW; END';
             CREATE TRIGGER shout BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION {f}();"))
            .copy("COPY t FROM STDIN", "100\t1\tabc\n"),
        case("COPY FROM STDIN WHERE", T).copy("COPY t FROM STDIN WHERE id > 100", "50\t1\ta\n101\t1\tb\n"),
        case("COPY FROM STDIN with ON_ERROR ignore", T)
            .copy("COPY t FROM STDIN WITH (ON_ERROR ignore)", "100\t1\ta\nnone\t1\tb\n")
            .since(17),
        case("COPY FROM STDIN that leaves out a computed column, in LATIN1, beside a generated one", "CREATE TABLE n (id serial PRIMARY KEY, s text, twice text GENERATED ALWAYS AS (s || s) STORED);")
            .q("SET client_encoding = LATIN1")
            .copy("COPY n (s) FROM STDIN", "plain\n"),
        case("COPY FROM STDIN that leaves out a computed column, into a table without a key", "CREATE TABLE n (v int, at timestamptz DEFAULT clock_timestamp());")
            .copy("COPY n (v) FROM STDIN", "1\n1\n")
            .volatile(),
    ]
}

fn other() -> Vec<Case> {
    vec![
        case("COPY (write) TO STDOUT", T)
            .q("COPY (UPDATE t SET v = 0 WHERE id < 3 RETURNING id) TO STDOUT")
            .declared(&[("t", "COPY TO")]),
        case("COPY FROM a file of the server", T).role("postgres")
            .q("COPY t FROM PROGRAM 'echo 100,1,a' (FORMAT csv)"),
        case("COPY into a view with an INSTEAD OF trigger", t_and("CREATE VIEW {f}_w AS SELECT * FROM t; CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (NEW.id, NEW.v, ''by trigger''); RETURN NEW; END';
             CREATE TRIGGER instead INSTEAD OF INSERT ON {f}_w FOR EACH ROW EXECUTE FUNCTION {f}();"))
            .copy("COPY {f}_w FROM STDIN", "100\t1\tx\n")
            .declared(&[("t", ""), ("f_w", "")]),
    ]
}

fn truncate() -> Vec<Case> {
    let family = "CREATE TABLE a (id serial PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a); INSERT INTO a (v) VALUES (1), (2); INSERT INTO b VALUES (1, 1);";
    vec![
        case("TRUNCATE between writes", T).each(&["INSERT INTO t VALUES (100)", "TRUNCATE t", "INSERT INTO t VALUES (1)"]),
        case("TRUNCATE of several tables, RESTART IDENTITY, CASCADE", family)
            .each(&["TRUNCATE a, b RESTART IDENTITY", "INSERT INTO a (v) VALUES (1)", "TRUNCATE ONLY a CASCADE", "INSERT INTO a VALUES (9, 9)", "INSERT INTO b VALUES (1, 9)"]),
        case("TRUNCATE that is rolled back", T)
            .each(&["BEGIN", "TRUNCATE t", "INSERT INTO t VALUES (2)", "ROLLBACK", "BEGIN", "SAVEPOINT a", "TRUNCATE t", "ROLLBACK TO a", "UPDATE t SET v = 0", "COMMIT"])
            .unwrapped(),
        case("TRUNCATE with a trigger that writes", t_and("CREATE TABLE log (what text); CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (TG_OP); RETURN NULL; END';
             CREATE TRIGGER noted AFTER TRUNCATE ON t EXECUTE FUNCTION {f}();"))
            .q("TRUNCATE t")
            .around(&[Around::Nothing, Around::Block])
            .declared(&[("log", ""), ("t", "")]),
    ]
}
