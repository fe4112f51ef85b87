//! Functions that run without being called by name, and definitions that change: what may write is declared, what can't stays exact.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use integration_tests::scene::Scene;

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, s text); CREATE TABLE log (id int);
    INSERT INTO t SELECT g, g * 10, 'row' FROM generate_series(1, 9) g;
    CREATE FUNCTION writes(a int, b int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (a); RETURN a = b; END';";

/// What these statements write unseen is declared: `log` is suspect, nothing else differs.
#[track_caller]
fn found(schema: &str, statements: &[&str]) {
    for statement in statements {
        let scene = Scene::of(&format!("{TABLES} {schema}"));
        scene.app().psql(statement);
        scene.drain();
        assert_ne!(scene.source.psql("SELECT count(*) FROM log"), "0", "{statement} runs the function");
        let suspects = scene.suspects();
        assert!(suspects.iter().any(|(table, _)| table == "public.log"), "{statement}: {suspects:?}");
        let differences = integration_tests::equal::differences(&scene.source, &scene.target);
        let unnamed = differences.iter().find(|d| !suspects.iter().any(|(table, _)| *table == d.table));
        assert!(unnamed.is_none(), "{statement}: {unnamed:?}");
        assert_eq!(scene.pgshadow.status()["findings_open"], 0, "{statement}");
    }
}

#[test]
fn an_operator() {
    found(
        "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = writes);
        CREATE VIEW v AS SELECT * FROM t WHERE id OPERATOR(public.===) 1;
        CREATE FUNCTION uses() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t WHERE id === 1';",
        &[
            "UPDATE t SET s = 'hit' WHERE id OPERATOR(public.===) 1",
            "BEGIN; UPDATE t SET s = 'hit' WHERE id === 1; COMMIT",
            "SELECT * FROM t WHERE id === ANY (ARRAY[1, 2])",
            "SELECT * FROM v",
            "SELECT uses()",
        ],
    );
}

#[test]
fn casts_domains_aggregates_and_columns() {
    found(
        "CREATE FUNCTION logs(a int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (a); RETURN true; END';
        CREATE TYPE boxed AS (n int); CREATE FUNCTION box(a int) RETURNS boxed LANGUAGE plpgsql AS
            'BEGIN INSERT INTO log VALUES (a); RETURN ROW(a); END';
        CREATE CAST (int AS boxed) WITH FUNCTION box(int);
        CREATE DOMAIN noted AS int CHECK (logs(VALUE)); CREATE TABLE d (id int PRIMARY KEY, n noted);
        CREATE FUNCTION next_state(state int, a int) RETURNS int LANGUAGE plpgsql AS
            'BEGIN INSERT INTO log VALUES (a); RETURN state + a; END';
        CREATE AGGREGATE summed(int) (SFUNC = next_state, STYPE = int, INITCOND = '0');
        CREATE FUNCTION total(t) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES ($1.id); RETURN $1.v; END';",
        &[
            "SELECT (1::boxed).n",
            "UPDATE t SET v = (v::boxed).n WHERE id = 1",
            "SELECT 5::noted",
            "INSERT INTO d VALUES (1, 5)",
            "SELECT summed(id) FROM t",
            "SELECT t.total FROM t WHERE id = 1",
        ],
    );
}

#[test]
fn definitions_of_the_open_transaction() {
    found(
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'; CREATE VIEW w AS SELECT 1 AS one;
        CREATE FUNCTION define() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''CREATE OR REPLACE FUNCTION f()
            RETURNS int LANGUAGE sql AS ''''INSERT INTO log VALUES (1) RETURNING id''''''; END';",
        &[
            "BEGIN; CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING id'; SELECT f(); COMMIT",
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING id'\\; SELECT f();",
            "BEGIN; CREATE OR REPLACE VIEW w AS SELECT (1 + writes(1, 2)::int) AS one; SELECT * FROM w; COMMIT",
            "CREATE TEMP VIEW mine AS SELECT writes(1, 2); SELECT * FROM mine",
            "SELECT define(); SELECT f()",
        ],
    );
}

#[test]
fn harmless_functions_stay_so_after_other_ddl() {
    let scene = Scene::of(&format!(
        "{TABLES} CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN -- update of the row
            IF TG_OP = ''DELETE'' THEN RETURN OLD; END IF;
            IF NEW.id > 5 THEN NEW.v := NEW.id; END IF; RETURN NEW; END';
        CREATE TRIGGER touch BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION touch();"
    ));
    let app = scene.app();
    for n in 10..20 {
        app.psql(&format!(
            "CREATE TABLE more{n} (id int PRIMARY KEY); INSERT INTO t (id, s) VALUES ({n}, lower('A'));
            ALTER TABLE more{n} ADD COLUMN v int; UPDATE t SET s = 'x' WHERE id = {n}; DELETE FROM t WHERE id = {n} - 8;
            CREATE INDEX ON more{n} (v); DROP TABLE more{n}; UPDATE t SET v = 1 WHERE id = {n};"
        ));
    }
    scene.expect_exact();
}

#[test]
fn what_stands_behind_a_set_goes_out_as_it_came() {
    let scene = Scene::of(&format!("{TABLES} UPDATE t SET s = chr(8364) WHERE id = 1;"));
    scene
        .app()
        .psql("SET client_encoding = 'LATIN1'\\; UPDATE t SET v = 5 WHERE id = 1\\; DELETE FROM t WHERE id = 1;");
    scene.expect_suspects(&[("public.t", "")]);
    let scene = Scene::of(TABLES);
    scene.app().psql(
        "SET extra_float_digits = 1\\; SET search_path = public\\; PREPARE p AS UPDATE t SET v = 5 WHERE id = 1;
        EXECUTE p; EXECUTE p;",
    );
    scene.expect_suspects(&[("public.t", "")]);
}

#[test]
fn what_others_are_is_known_right_behind_a_definition() {
    let scene = Scene::of(&format!(
        "{TABLES} CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := 1; RETURN NEW; END';
        CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();
        CREATE FUNCTION half(a int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN a / 2; END';"
    ));
    for round in 10..60 {
        scene.app().psql(&format!(
            "CREATE OR REPLACE VIEW seen AS SELECT v FROM t;
            BEGIN; INSERT INTO t VALUES ({round}, half({round})); UPDATE t SET s = 'new' WHERE id = {round}; COMMIT;
            CREATE TYPE mood{round} AS ENUM ('well');
            INSERT INTO t VALUES (-{round}, half({round}));
            CREATE FUNCTION next{round}() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
            UPDATE t SET s = 'newer' WHERE id = -{round}; DROP FUNCTION next{round}(); DROP TYPE mood{round};
            DELETE FROM t WHERE id = half({round});"
        ));
    }
    scene.expect_exact();
}

#[test]
fn what_was_just_defined_may_write() {
    found(
        "CREATE FUNCTION logs(a int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (a); RETURN true; END';
        CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'; CREATE VIEW w AS SELECT 1 AS one;
        CREATE FUNCTION calls() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN f(); END'; CREATE VIEW above AS SELECT one FROM w;",
        &[
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING id'; SELECT calls();",
            "CREATE FUNCTION lower(int) RETURNS int LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING id'; SELECT lower(1);",
            "CREATE OR REPLACE VIEW w AS SELECT logs(1)::int AS one; SELECT * FROM above;",
            "CREATE VIEW fresh AS SELECT writes(1, 2); SELECT * FROM fresh;",
            "CREATE VIEW fresh AS SELECT writes(1, 2); ALTER VIEW fresh RENAME TO other; SELECT * FROM other;",
            "CREATE DOMAIN noted AS int CHECK (logs(VALUE)); UPDATE t SET v = 5::noted WHERE id = 1;",
            "BEGIN; CREATE VIEW fresh AS SELECT writes(1, 2); COMMIT; INSERT INTO t SELECT 10, 1 FROM fresh;",
        ],
    );
}

/// What lanes remember of a table is old then: the row is written once more, without the trigger.
#[test]
fn a_trigger_that_the_target_gets_while_rows_are_applied() {
    let scene = Scene::with(
        "CREATE TABLE t (id int PRIMARY KEY, v int, s text); CREATE TABLE keyless (v int);
        CREATE FUNCTION changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := -1; RETURN NEW; END';
        CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''never''; END';",
        "",
        // the client's own statement does something else there, which is a finding
        |builder| builder.set("compare", "statements", "0.0"),
    );
    let rows = "INSERT INTO t SELECT g, g, 'row' FROM generate_series(1, 5) g; UPDATE t SET v = v + 1;
        INSERT INTO keyless VALUES (1), (2); DELETE FROM t WHERE id = 1; UPDATE t SET id = id + 100;";
    scene.app().psql(rows);
    scene.drain();
    for (table, function) in [("t", "changes"), ("keyless", "changes"), ("t", "refuses")] {
        scene.target.psql(&format!(
            "CREATE TRIGGER own_{function} BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()"
        ));
        scene
            .app()
            .psql("DELETE FROM t WHERE id = 102; UPDATE t SET s = 'later', v = v + 1; INSERT INTO keyless VALUES (3)");
        scene.app().psql("INSERT INTO t VALUES (102, 7, 'new')");
    }
    scene.expect_exact();
}
