//! Each kind of statement, through pgshadow from the older to the newest server: afterwards both databases are equal,
//! and nothing was noticed, mended or declared suspect.
use integration_tests::scene::{Scene, servers};

#[track_caller]
fn exact(schema: &str, script: &str) {
    let scene = Scene::of(schema);
    scene.app().psql(script);
    scene.expect_exact();
}

const KEYED: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, s text);
    INSERT INTO t SELECT g, g * 10, 'row ' || g FROM generate_series(1, 20) g;";

#[test]
fn rows_are_inserted_updated_and_deleted() {
    exact(
        KEYED,
        "INSERT INTO t VALUES (100, 1, 'a');
        INSERT INTO t (s, id) VALUES ('b', 101), ('c', 102), (NULL, 103);
        UPDATE t SET v = v + 1 WHERE id = 100;
        UPDATE t SET v = 7, s = s || '!' WHERE id BETWEEN 1 AND 5;
        UPDATE t SET s = DEFAULT;
        DELETE FROM t WHERE id = 101;
        DELETE FROM t WHERE v > 150;
        UPDATE t SET v = 0 WHERE false;",
    );
}

#[test]
fn returning_lists_are_the_clients_own() {
    let scene = Scene::of(KEYED);
    let rows = scene.app().psql(
        "INSERT INTO t VALUES (100, 1, 'a') RETURNING id, v + 1;
        UPDATE t AS x SET v = v * 2 WHERE id IN (1, 2) RETURNING *;
        UPDATE t SET v = v WHERE id = 3 RETURNING t, t.*, 'const';
        DELETE FROM t WHERE id = 4 RETURNING s AS v, ctid IS NULL;
        DELETE FROM t WHERE id = 5 RETURNING (SELECT count(*) FROM t);",
    );
    let expected = "100|2\n1|20|row 1\n2|40|row 2\n(3,30,\"row 3\")|3|30|row 3|const\nrow 4|f\n20";
    assert_eq!(rows, expected);
    scene.expect_exact();
}

#[test]
fn upserts_do_nothing_or_update() {
    exact(
        KEYED,
        "INSERT INTO t VALUES (1, 0, 'x') ON CONFLICT DO NOTHING;
        INSERT INTO t VALUES (1, 0, 'x'), (50, 0, 'new') ON CONFLICT (id) DO NOTHING;
        INSERT INTO t VALUES (2, 5, 'x'), (51, 5, 'new') ON CONFLICT (id) DO UPDATE SET v = t.v + excluded.v;
        INSERT INTO t VALUES (3, 5, 'x'), (4, 5, 'y') ON CONFLICT (id) DO UPDATE SET s = excluded.s WHERE t.id = 4;
        INSERT INTO t AS u VALUES (5, 5, 'x') ON CONFLICT (id) DO UPDATE SET v = u.v - 1 RETURNING u.v;",
    );
}

#[test]
fn rows_come_from_other_tables_and_subqueries() {
    exact(
        &format!(
            "{KEYED} CREATE TABLE o (id int PRIMARY KEY, w int); INSERT INTO o SELECT g, g FROM generate_series(1, 9) g;"
        ),
        "INSERT INTO t SELECT id + 1000, w, 'from o' FROM o WHERE w % 2 = 0;
        UPDATE t SET v = o.w * 100 FROM o WHERE o.id = t.id AND o.w > 5;
        UPDATE t SET v = (SELECT sum(w) FROM o) WHERE id = (SELECT max(id) FROM o);
        UPDATE t SET (v, s) = (SELECT w, 'row' FROM o WHERE o.id = t.id) WHERE id < 3;
        DELETE FROM t USING o WHERE o.id = t.id AND o.w = 7;
        DELETE FROM t WHERE EXISTS (SELECT FROM o WHERE o.id = t.id AND w = 8);
        WITH big AS (SELECT id FROM o WHERE w > 3) UPDATE t SET s = 'big' FROM big WHERE big.id = t.id;
        WITH big AS (SELECT id FROM o WHERE w = 4) DELETE FROM t USING big WHERE big.id = t.id;
        WITH big AS (SELECT id FROM o) INSERT INTO t SELECT id + 2000, 0, '' FROM big;",
    );
}

#[test]
fn what_is_rolled_back_is_not_mirrored() {
    exact(
        KEYED,
        "BEGIN; INSERT INTO t VALUES (100); ROLLBACK;
        BEGIN; INSERT INTO t VALUES (101); UPDATE t SET v = 0; ABORT;
        BEGIN; UPDATE t SET v = -1 WHERE id = 1; COMMIT AND CHAIN; UPDATE t SET v = -2 WHERE id = 2; ROLLBACK AND CHAIN;
        UPDATE t SET v = -3 WHERE id = 3; COMMIT;",
    );
}

#[test]
fn savepoints_are_kept_and_rolled_back() {
    exact(
        KEYED,
        r#"BEGIN; INSERT INTO t VALUES (100, 1);
        SAVEPOINT a; INSERT INTO t VALUES (101, 1); UPDATE t SET v = 2 WHERE id = 100;
        SAVEPOINT b; DELETE FROM t WHERE id = 1;
        ROLLBACK TO a; INSERT INTO t VALUES (102, 3);
        SAVEPOINT "A"; UPDATE t SET v = 9 WHERE id = 2; SAVEPOINT "A"; UPDATE t SET v = 8 WHERE id = 3;
        ROLLBACK TO SAVEPOINT "A"; RELEASE "A"; UPDATE t SET v = 7 WHERE id = 4; ROLLBACK TO "A"; RELEASE a;
        INSERT INTO t VALUES (103, 4); COMMIT;"#,
    );
}

#[test]
fn a_failed_statement_after_a_savepoint_leaves_the_rest() {
    let scene = Scene::of(KEYED);
    scene.app().psql(
        "\\set ON_ERROR_STOP off
        BEGIN; INSERT INTO t VALUES (100); SAVEPOINT a; INSERT INTO t VALUES (1); ROLLBACK TO a;
        INSERT INTO t VALUES (101); COMMIT;
        BEGIN; INSERT INTO t VALUES (102); INSERT INTO t VALUES (1); INSERT INTO t VALUES (103); COMMIT;",
    );
    assert_eq!(scene.source.psql("SELECT count(*), max(id) FROM t"), "22|101");
    scene.expect_exact();
}

#[test]
fn several_statements_in_one_string() {
    let scene = Scene::of(KEYED);
    scene.app().psql(
        "\\set ON_ERROR_STOP off
        INSERT INTO t VALUES (100) \\; UPDATE t SET v = 1 WHERE id = 100 \\; SELECT count(*) FROM t;
        BEGIN \\; INSERT INTO t VALUES (101) \\; DELETE FROM t WHERE id = 1 \\; COMMIT;
        BEGIN \\; INSERT INTO t VALUES (102) \\; ROLLBACK \\; INSERT INTO t VALUES (103);
        INSERT INTO t VALUES (104) \\; INSERT INTO t VALUES (1/0) \\; INSERT INTO t VALUES (105);
        BEGIN \\; INSERT INTO t VALUES (106) \\; COMMIT \\; INSERT INTO t VALUES (107) \\; SELECT 1/0;
        BEGIN \\; INSERT INTO t VALUES (108) \\; SELECT 1/0 \\; COMMIT; ROLLBACK;
        BEGIN \\; UPDATE t SET v = 4 WHERE id = 4; COMMIT \\; BEGIN \\; UPDATE t SET v = 5 WHERE id = 5 \\; COMMIT;",
    );
    let found = scene.source.psql("SELECT id FROM t WHERE id >= 100 ORDER BY 1");
    assert_eq!(found, "100\n101\n103\n106");
    scene.expect_exact();
}

#[test]
fn defaults_have_the_primarys_values() {
    exact(
        "CREATE TABLE a (id serial PRIMARY KEY, at timestamptz DEFAULT now(), r float8 DEFAULT random(), v int);
        CREATE TABLE b (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, u uuid DEFAULT gen_random_uuid(), v int);
        CREATE TABLE c (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, at timestamp DEFAULT clock_timestamp());
        CREATE TABLE d (u uuid PRIMARY KEY DEFAULT gen_random_uuid(), who text DEFAULT current_user);",
        "INSERT INTO a (v) SELECT g FROM generate_series(1, 10) g;
        INSERT INTO a DEFAULT VALUES;
        UPDATE a SET r = random(), at = clock_timestamp() WHERE v < 5;
        INSERT INTO b (v) VALUES (1), (2) RETURNING id;
        INSERT INTO b (id, v) OVERRIDING SYSTEM VALUE VALUES (100, 3);
        INSERT INTO c DEFAULT VALUES; INSERT INTO c (id) VALUES (50);
        INSERT INTO d DEFAULT VALUES; INSERT INTO d DEFAULT VALUES;",
    );
}

#[test]
fn types_keep_their_values() {
    exact(
        r#"CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
        CREATE DOMAIN percent AS numeric(5, 2) CHECK (VALUE >= 0);
        CREATE TABLE t (id int PRIMARY KEY, j jsonb, js json, a int[], ta text[], n numeric, n2 numeric(20, 5), m mood,
            ma mood[], p percent, by bytea, i interval, tz timestamptz, d date, f4 float4, f8 float8, b bool,
            ip inet, r int4range, mr nummultirange, ts tsvector, bits bit varying(9), ch char(5), o oid, pt point,
            "weird "" name" text, mac macaddr, price money, uuid uuid);"#,
        r#"INSERT INTO t VALUES (1, '{"a": [1, null, "ü"], "b": 1.10}', '{"a" : 1 }', '{1,NULL,3}', '{"a,b",NULL,"NULL",""}',
            12345678901234567890.123456789, 1.5, 'ok', '{sad,happy}', 99.99, '\x00ff', '1 mon 2 days 03:04:05.6',
            '2024-02-29 12:00:00.123456+05', '0044-03-15 BC', 1.1, 0.1, true, '10.0.0.0/8', '[1,5)', '{[1,2),[5,)}',
            'a:1 b:2', B'101', 'ab', 42, '(1,2)', 'w', '08:00:2b:01:02:03', 12.34, NULL);
        INSERT INTO t (id, n, f8, f4, tz, a, m) VALUES (2, 'NaN', 'Infinity', '-Infinity', 'infinity', '{}', NULL),
            (3, '-0.00', '-0', 'NaN', '-infinity', '{{1,2},{3,4}}', 'sad');
        UPDATE t SET j = jsonb_set(j, '{a,0}', '2'), a[2] = 7, ta = ta || 'z'::text, m = 'happy', ma = array_append(ma, 'ok') WHERE id = 1;
        UPDATE t SET "weird "" name" = E'tab\t\\ nl\n', by = by || '\x5c', i = i * 2 WHERE id = 1;
        UPDATE t SET n = n / 3, n2 = 2, f8 = f8 / 3, pt = '(3,4)' WHERE id IN (1, 3);
        INSERT INTO t (id, by, ch, j) SELECT 10, decode(repeat('00deadbeef', 20000), 'hex'), '', to_jsonb(repeat('x', 100000));
        SET DateStyle = 'German'; SET extra_float_digits = 0; SET bytea_output = 'escape'; SET IntervalStyle = 'iso_8601';
        SET TimeZone = 'Asia/Tokyo';
        INSERT INTO t (id, d, f8, f4, by, i, tz) VALUES (11, '31.12.2024', 0.1::float8 + 0.2, 1.17549e-38, '\x01', '1 day', now());"#,
    );
}

#[test]
fn generated_columns_are_computed_on_both_sides() {
    exact(
        "CREATE TABLE t (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED, s text DEFAULT 'x');",
        "INSERT INTO t (id, v) VALUES (1, 1), (2, 2); UPDATE t SET v = 5 WHERE id = 1; UPDATE t SET s = 'y' RETURNING *;
        INSERT INTO t VALUES (1, 9) ON CONFLICT (id) DO UPDATE SET v = excluded.v; DELETE FROM t WHERE twice = 4;",
    );
}

#[test]
fn partitions_are_written_through_parent_and_directly() {
    exact(
        "CREATE TABLE p (id int, k text, v int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
        CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a');
        CREATE TABLE p_b (v int, k text NOT NULL, id int NOT NULL, PRIMARY KEY (id, k));
        ALTER TABLE p ATTACH PARTITION p_b FOR VALUES IN ('b');
        CREATE TABLE p_rest PARTITION OF p DEFAULT PARTITION BY RANGE (id);
        CREATE TABLE p_rest_1 PARTITION OF p_rest FOR VALUES FROM (0) TO (100);",
        "INSERT INTO p VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'b', 4);
        UPDATE p SET v = v + 1; INSERT INTO p_a VALUES (5, 'a', 5); UPDATE p_b SET v = 0 WHERE id = 2;
        INSERT INTO p VALUES (1, 'a', 9), (2, 'b', 9) ON CONFLICT (id, k) DO UPDATE SET v = excluded.v;
        DELETE FROM p WHERE id = 3; DELETE FROM p_b WHERE id = 4;",
    );
}

#[test]
fn rows_without_a_key_are_only_inserted() {
    exact(
        "CREATE TABLE log (at timestamptz DEFAULT now(), line text);",
        "INSERT INTO log (line) VALUES ('a'), ('a'), ('b'); INSERT INTO log SELECT '2020-01-01', 'same' FROM generate_series(1, 3);",
    );
}

#[test]
fn names_that_need_quotes_and_other_schemas() {
    exact(
        r#"CREATE SCHEMA "Odd Schema"; CREATE TABLE "Odd Schema"."Tab""le" ("Key" int PRIMARY KEY, "select" text, "a.b" int);
        CREATE SCHEMA other; CREATE TABLE other.t (id int PRIMARY KEY, v int); CREATE TABLE t (id int PRIMARY KEY, v int);"#,
        r#"INSERT INTO "Odd Schema"."Tab""le" VALUES (1, 'a', 1); UPDATE "Odd Schema"."Tab""le" AS "T" SET "select" = 'b', "a.b" = "T"."a.b" + 1;
        INSERT INTO t VALUES (1, 1); SET search_path = other, public; INSERT INTO t VALUES (2, 2);
        UPDATE t SET v = 20; SET search_path = "Odd Schema"; UPDATE "Tab""le" SET "select" = 'c';
        RESET search_path; UPDATE t SET v = 10;
        BEGIN; SET LOCAL search_path = other; INSERT INTO t VALUES (3, 3); COMMIT; INSERT INTO t VALUES (4, 4);"#,
    );
}

#[test]
fn temporary_tables_hide_real_ones() {
    exact(
        KEYED,
        "UPDATE t SET v = 1 WHERE id = 1; CREATE TEMP TABLE t (id int, v int); INSERT INTO t VALUES (1, 1);
        UPDATE t SET v = 99; DELETE FROM t; INSERT INTO public.t VALUES (100); DROP TABLE t; UPDATE t SET v = 2 WHERE id = 2;
        CREATE TEMP TABLE t AS SELECT 1 AS id; TRUNCATE t; DISCARD TEMP; UPDATE t SET v = 3 WHERE id = 3;
        BEGIN; CREATE TEMP TABLE t (id int) ON COMMIT DROP; INSERT INTO t VALUES (5); COMMIT; DELETE FROM t WHERE id = 5;",
    );
}

#[test]
fn sql_prepare_and_execute() {
    exact(
        KEYED,
        "PREPARE up (int, int) AS UPDATE t SET v = $2 WHERE id = $1; EXECUTE up(1, 100); EXECUTE up(2, 200);
        PREPARE ins AS INSERT INTO t VALUES ($1, $2, $3) RETURNING id; EXECUTE ins(100, 1, 'x');
        BEGIN; EXECUTE up(3, 300); ROLLBACK; BEGIN; EXECUTE up(4, 400); COMMIT; DEALLOCATE up;
        PREPARE up AS DELETE FROM t WHERE id = $1; EXECUTE up(5); DEALLOCATE ALL;",
    );
}

#[test]
fn what_pgbench_makes_of_an_empty_database() {
    let scene = Scene::of("");
    let app = scene.app();
    let pgbench = servers()[1].installation().bindir.join("pgbench");
    let mut command = std::process::Command::new(pgbench);
    command.args([
        "-i",
        "-s",
        "1",
        "-q",
        "-h",
        "127.0.0.1",
        "-U",
        &app.user,
        "-p",
        &app.port.to_string(),
        &app.database,
    ]);
    let finished = command.env("PGPASSWORD", &app.password).output().expect("pgbench runs");
    assert!(finished.status.success(), "{finished:?}");
    assert_eq!(scene.source.psql("SELECT count(*) FROM pgbench_accounts"), "100000");
    scene.expect_exact();
}
