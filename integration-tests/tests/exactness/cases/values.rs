//! Values of all types, settings that change how they are written, names that mislead.
use super::{T, t_and};
use crate::case::{Case, Protocol, case};

pub fn cases() -> Vec<Case> {
    [types(), settings(), names(), sizes()].concat()
}

fn types() -> Vec<Case> {
    vec![
        case("Numbers: NaN, infinity, signed zero, scales", "CREATE TABLE n (id int PRIMARY KEY, n numeric, m numeric(20, 5), f float8, r float4, i8 bigint, mo money);")
            .p("INSERT INTO n VALUES ($1, 12345678901234567890.123456789, 1.5, 0.1, 1.1, 9223372036854775807, 12.34)", &["1"])
            .q("INSERT INTO n VALUES (2, 'NaN', 0, 'Infinity', '-Infinity', -1, 0), (3, '-0.00', -0.00001, '-0', 'NaN', 0, -5)")
            .q("UPDATE n SET n = n / 3, m = m * 3, f = f / 3 WHERE id <> 2"),
        case("Texts, bytes, json, arrays, uuid, bits", "CREATE TABLE n (id int PRIMARY KEY, s text, c char(5), b bytea, j jsonb, js json, a int[], ta text[], u uuid, bi bit varying(9), ts tsvector);")
            .p("INSERT INTO n VALUES (1, $1, 'ab', '\\x00ff', '{\"a\": [1, null, \"ü\"], \"b\": 1.10}', '{\"a\" : 1 }', '{1,NULL,3}', '{\"a,b\",NULL,\"NULL\",\"\"}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', B'101', 'a:1 b:2')", &["tab\tquote'back\\slash\nline €😀"])
            .q("UPDATE n SET s = s || E'\\u00e4', b = b || '\\x5c', j = jsonb_set(j, '{a,0}', '2'), a[5] = 7, ta = ta || 'z'::text")
            .q("INSERT INTO n (id, a, j, js) VALUES (2, '{}', 'null', 'null'), (3, '[2:3]={1,2}', '[]', '1')"),
        case("Times, intervals, ranges, networks, geometry", "CREATE TABLE n (id int PRIMARY KEY, tz timestamptz, t timestamp, d date, i interval, ti timetz, r int4range, mr nummultirange, ip inet, mac macaddr, pt point, po polygon, l pg_lsn);")
            .p("INSERT INTO n VALUES ($1, '2024-02-29 12:00:00.123456+05', 'infinity', '0044-03-15 BC', '1 mon 2 days 03:04:05.6', '12:00+05', '[1,5)', '{[1,2),[5,)}', '10.0.0.0/8', '08:00:2b:01:02:03', '(1,2)', '((0,0),(1,1),(2,0))', '0/ABCD')", &["1"])
            .q("INSERT INTO n (id, tz, d, r) VALUES (2, '-infinity', 'infinity', 'empty')")
            .q("UPDATE n SET i = i * 2, tz = tz + i, pt = pt + '(1,1)'"),
        case("Enums, domains, arrays of both", "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN percent AS numeric(5, 2) CHECK (VALUE >= 0); CREATE TABLE n (id int PRIMARY KEY, m mood, ms mood[], p percent, ps percent[]);")
            .p("INSERT INTO n VALUES ($1, 'ok', '{sad,ok}', 99.99, '{1,2.5}')", &["1"])
            .q("UPDATE n SET m = 'sad', ms = array_append(ms, 'ok'), p = p / 3"),
        case("Ranges of the user's own, arrays of them, rarer types", "CREATE TYPE floats AS RANGE (subtype = float8); CREATE TABLE n (id int PRIMARY KEY, r floats, rs floats[], j jsonpath, q tsquery, m macaddr8, c cidr, p path, b box, l line, ci circle, s pg_snapshot, x xid8, ch \"char\", na name, v bit(3));")
            .p("INSERT INTO n VALUES ($1, '[1.5,2)', '{\"[1,2]\",empty}', '$.a[*] ? (@ > 1)', 'a & !b', '08:00:2b:01:02:03:04:05', '10/8', '[(0,0),(1,1)]', '((0,0),(1,1))', '{1,2,3}', '<(1,2),3>', '10:20:10,14', '5', 'x', 'a name', B'101')", &["1"])
            .q("UPDATE n SET r = floats(0.5, 'Infinity'), rs = array_append(rs, '[3,4]')"),
        case("Composite types", "CREATE TYPE pair AS (a int, b text); CREATE TABLE n (id int PRIMARY KEY, c pair, cs pair[]);")
            .p("INSERT INTO n VALUES ($1, '(1,x)', '{\"(2,y)\"}')", &["1"])
            .q("UPDATE n SET c.a = 5")
            .declared(&[("n", "binary")]),
        case("Object references (regclass, regproc)", "CREATE TABLE n (id int PRIMARY KEY, c regclass); ").p("INSERT INTO n VALUES ($1, 'n')", &["1"]).declared(&[("n", "binary")]),
        case("A type without binary form (aclitem)", "CREATE TABLE n (id int PRIMARY KEY, a aclitem, v int);").p("INSERT INTO n VALUES ($1, 'app=r/app', 1)", &["1"]).q("UPDATE n SET v = 2").declared(&[("n", "binary")]),
    ]
}

fn settings() -> Vec<Case> {
    let n = "CREATE TABLE n (id int PRIMARY KEY, f float8, d date, tz timestamptz, i interval, b bytea, s text); INSERT INTO n VALUES (1, 0.1, '2024-01-02', '2024-01-02 03:04:05+00', '1 day', '\\x00', 'x');";
    let with = |kind, set: &'static str| {
        case(kind, n)
            .q(set)
            .p("UPDATE n SET f = f + $1, d = d + 1, tz = tz + i, b = b || '\\x01' WHERE id = 1", &["0.2"])
            .q("INSERT INTO n VALUES (2, 0.1::float8 + 0.2, '2024-12-11', '2024-12-11 10:11:12+02', '1 mon 2 days', '\\x5c', 'y')")
            .q("UPDATE n SET s = 'z' RETURNING *")
            .apart()
    };
    vec![
        with("extra_float_digits = 0", "SET extra_float_digits = 0"),
        with("DateStyle = SQL, DMY", "SET DateStyle = 'SQL, DMY'"),
        with("IntervalStyle = iso_8601", "SET IntervalStyle = 'iso_8601'"),
        with("bytea_output = escape", "SET bytea_output = 'escape'"),
        with("TimeZone", "SET TimeZone = 'Asia/Kathmandu'"),
        with("client_encoding = LATIN1", "SET client_encoding = 'LATIN1'"),
        case(
            "client_encoding = LATIN1, a row that it has no letter for",
            t_and("UPDATE t SET s = chr(8364) WHERE id = 1;"),
        )
        .apart()
        .q("SET client_encoding = 'LATIN1'")
        .p("UPDATE t SET v = $1 WHERE id = 1", &["5"])
        .q("UPDATE t SET s = chr(8364) || 'x' WHERE id = 2")
        .q("DELETE FROM t WHERE id = 1"),
        case(
            "client_encoding = LATIN1 in the same string as a row that it has no letter for",
            t_and("UPDATE t SET s = chr(8364) WHERE id = 1;"),
        )
        .q("SET client_encoding = 'LATIN1'; UPDATE t SET v = 5 WHERE id = 1")
        .unwrapped()
        .only(Protocol::Simple)
        .declared(&[("t", "")]),
        case("standard_conforming_strings = off", T)
            .alone()
            .apart()
            .q("SET escape_string_warning = off")
            .q("SET standard_conforming_strings = off")
            .q("UPDATE t SET s = 'a\\nb' WHERE id = 1")
            .q("UPDATE t SET s = 'it\\'s; \\\\' WHERE id = 2 AND s <> '\\'' RETURNING s")
            .q("INSERT INTO t VALUES (100, 1, E'\\'')"),
        case("quote_all_identifiers, transform_null_equals", T)
            .apart()
            .q("SET quote_all_identifiers = on")
            .q("SET transform_null_equals = on")
            .q("UPDATE t SET v = 1 WHERE s = NULL OR id = 1"),
    ]
}

fn names() -> Vec<Case> {
    vec![
        case("Names that need quotes", "CREATE TABLE \"Tab\"\"le\" (\"Key\" int PRIMARY KEY, \"select\" text, \"a.b\" int, \"über $1\" int);")
            .p("INSERT INTO \"Tab\"\"le\" VALUES ($1, 'a', 1, 2)", &["1"])
            .q("UPDATE \"Tab\"\"le\" AS \"T\" SET \"select\" = 'b', \"a.b\" = \"T\".\"a.b\" + 1 RETURNING \"T\".\"Key\""),
        case("Operators of the user's own before pg_catalog", t_and("CREATE FUNCTION {f}(pg_lsn, pg_lsn) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT 0::numeric'; CREATE OPERATOR {s}.- (LEFTARG = pg_lsn, RIGHTARG = pg_lsn, FUNCTION = {f});"))
            .apart()
            .q("SET search_path = {s}, pg_catalog")
            .p("UPDATE t SET v = $1 WHERE id = 1", &["5"])
            .q("INSERT INTO t VALUES (100)"),
        case("A schema called pg_shadow_like, a table called like a function", "CREATE TABLE record_send (id int PRIMARY KEY, record_send text); CREATE TABLE \"row\" (id int PRIMARY KEY, \"row\" int, xmax_ int);")
            .p("INSERT INTO record_send VALUES ($1, 'x')", &["1"])
            .q("UPDATE record_send SET record_send = 'y' RETURNING record_send.record_send")
            .q("INSERT INTO \"row\" VALUES (1, 2, 3)")
            .q("UPDATE \"row\" SET \"row\" = 5"),
        case("Functions and operators of the user's own before pg_catalog", t_and("CREATE FUNCTION pg_current_wal_insert_lsn() RETURNS pg_lsn LANGUAGE sql IMMUTABLE AS $$SELECT '0/1'::pg_lsn$$;
             CREATE FUNCTION pg_current_xact_id() RETURNS xid8 LANGUAGE sql IMMUTABLE AS $$SELECT '3'::xid8$$; CREATE FUNCTION record_send(anyelement) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$SELECT '\\x00'::bytea$$;"))
            .apart()
            .q("SET search_path = {s}, pg_catalog")
            .p("UPDATE t SET v = $1 WHERE id = 1", &["5"])
            .q("INSERT INTO t VALUES (100)")
            .q("DELETE FROM t WHERE id = 9"),
        case("A table and columns that are called old, new, t, tableoid-like", "CREATE TABLE old (id int PRIMARY KEY, new int, old int, xmax_ int); CREATE TABLE new (id int PRIMARY KEY, t text); INSERT INTO old VALUES (1, 1, 1, 1);")
            .p("UPDATE old SET new = $1, old = 6 WHERE id = 1 RETURNING old.old, old.new", &["5"])
            .q("INSERT INTO new AS t VALUES (1, 'x')")
            .q("UPDATE new AS old SET t = 'y' WHERE old.id = 1 RETURNING t"),
        case("A statement with comments and a trailing one", T)
            .q("UPDATE t /* RETURNING 1 */ SET v = 1 WHERE id = 1 -- the end")
            .q("INSERT INTO t VALUES (100, 1, 'RETURNING -- x') /* a /* nested */ one */")
            .p("DELETE FROM t WHERE s = 'row 2;' OR id = $1 -- ; SELECT 1", &["9"]),
        case("A composite column that is called like its table", "CREATE TABLE r (id int PRIMARY KEY, r text);").p("INSERT INTO r VALUES ($1, 'a')", &["1"]).q("UPDATE r SET r = 'b' RETURNING r, r.r, r.*"),
    ]
}

fn sizes() -> Vec<Case> {
    vec![
        case("A row of a megabyte whose big column isn't touched", "CREATE TABLE big (id int PRIMARY KEY, v int, b text); ALTER TABLE big ALTER COLUMN b SET STORAGE EXTERNAL; INSERT INTO big VALUES (1, 1, repeat('0123456789', 100000));")
            .p("UPDATE big SET v = $1 WHERE id = 1", &["2"])
            .q("INSERT INTO big SELECT 2, 2, b FROM big")
            .q("UPDATE big SET b = b || 'x' WHERE id = 2"),
        case("A table of 900 columns and RETURNING *", "DO $$ BEGIN EXECUTE (SELECT 'CREATE TABLE wide (id int PRIMARY KEY, ' || string_agg(format('c%s int', g), ', ') || ')' FROM generate_series(1, 899) g); END $$; INSERT INTO wide (id, c5) VALUES (1, 5);")
            .p("UPDATE wide SET c1 = $1 RETURNING *", &["5"])
            .q("INSERT INTO wide (id, c899) VALUES (2, 9) RETURNING *"),
        case("A table of 1,600 columns", "DO $$ BEGIN EXECUTE (SELECT 'CREATE TABLE wide (id int PRIMARY KEY, ' || string_agg(format('c%s int', g), ', ') || ')' FROM generate_series(1, 1599) g); END $$; INSERT INTO wide (id, c5) VALUES (1, 5);")
            .p("UPDATE wide SET c1 = $1", &["5"])
            .q("UPDATE wide SET c2 = 6 RETURNING *"),
        case("A column that was dropped, and one that was added", t_and("ALTER TABLE t DROP COLUMN v; ALTER TABLE t ADD COLUMN w int DEFAULT 3;"))
            .p("UPDATE t SET w = $1 WHERE id < 3", &["5"])
            .q("INSERT INTO t VALUES (100, 'x', 9)")
            .q("DELETE FROM t WHERE w = 3 AND id = 9"),
        case("temp_file_limit below what RETURNING would need", "CREATE TABLE n (id int PRIMARY KEY, pad text); INSERT INTO n SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g;")
            .admin("GRANT USAGE ON SCHEMA {s} TO narrow; GRANT ALL ON n TO narrow;")
            .role("narrow")
            .q("UPDATE n SET pad = pad || 'y'")
            .declared(&[("n", "temp_file_limit")]),
        case("temp_file_limit, rows named one by one", "CREATE TABLE n (id int PRIMARY KEY, pad text); INSERT INTO n SELECT g, 'x' FROM generate_series(1, 9) g;")
            .admin("GRANT USAGE ON SCHEMA {s} TO narrow; GRANT ALL ON n TO narrow;")
            .role("narrow")
            .p("UPDATE n SET pad = $1 WHERE id = $2", &["y", "1"])
            .q("INSERT INTO n VALUES (100, 'z'), (101, 'z')")
            .q("DELETE FROM n WHERE id = 3"),
    ]
}
