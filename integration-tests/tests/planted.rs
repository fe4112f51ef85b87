//! Ten differences that are planted on the shadow, each found with the client's statement that shows it; and an ordinary mixed
//! load, all of whose statements are run on the shadow, gives no finding.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::scene::Scene;
use serde_json::Value;

const SCHEMA: &str = "
    CREATE FUNCTION gross(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 1.19';
    CREATE TABLE t (id int PRIMARY KEY, n numeric(10,2), s text COLLATE \"C\", v int, state text DEFAULT 'new', flag boolean);
    INSERT INTO t SELECT g, g, 'row ' || g, g FROM generate_series(1, 10) g;
    INSERT INTO t VALUES (20, 20, 'é', 20);";

/// The finding of a kind that shows this statement, once all is applied.
#[track_caller]
fn shown_by(scene: &Scene, kind: &str, statement: &str) -> Value {
    scene.drain();
    let findings = scene.pgshadow.findings();
    let shows = |finding: &&Value| finding["kind"] == kind && finding["sql"].as_str().map(str::trim) == Some(statement);
    let found = findings.iter().find(shows).unwrap_or_else(|| panic!("no {kind} by {statement}: {findings:#?}"));
    assert!(found["primary"].is_string() && found["shadow"].is_string(), "both results: {found:#}");
    found.clone()
}

/// Runs one statement against a shadow with one difference, by both protocols: the finding that shows it, and its shadow's result.
#[track_caller]
fn planted(on_target: &str, statement: &str, sqlstate: Option<&str>, of_shadow: &str) {
    let scene = Scene::with(SCHEMA, on_target, |builder| builder.set("compare", "statements", "1.0"));
    scene.app().psql(statement);
    let found = shown_by(&scene, "statement", statement);
    assert_eq!(found["sqlstate"].as_str(), sqlstate, "{found:#}");
    assert_eq!(found["table"], "public.t", "{found:#}");
    assert!(found["shadow"].as_str().is_some_and(|shadow| shadow.contains(of_shadow)), "{found:#}");
}

#[test]
fn a_function() {
    planted(
        "CREATE OR REPLACE FUNCTION gross(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 1.07'",
        "INSERT INTO t (id, n) VALUES (11, gross(100))",
        None,
        "n=107.00",
    );
}

#[test]
fn a_constraint() {
    planted(
        "ALTER TABLE t ADD CONSTRAINT small CHECK (v < 1000)",
        "UPDATE t SET v = v + 5000 WHERE id = 1",
        Some("23514"),
        "small",
    );
}

#[test]
fn a_default() {
    planted("ALTER TABLE t ALTER state SET DEFAULT 'fresh'", "INSERT INTO t (id) VALUES (11)", None, "state=fresh");
}

#[test]
fn a_trigger() {
    planted(
        "CREATE FUNCTION louder() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.s := upper(NEW.s); RETURN NEW; END';
         CREATE TRIGGER louder BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION louder();",
        "UPDATE t SET s = 'quiet' WHERE id = 1",
        None,
        "s=QUIET",
    );
}

#[test]
fn a_rule() {
    planted(
        "CREATE RULE kept AS ON DELETE TO t WHERE old.v = 5 DO INSTEAD NOTHING",
        "DELETE FROM t WHERE id = 5",
        None,
        "0 rows",
    );
}

#[test]
fn a_collation() {
    planted(
        "ALTER TABLE t ALTER s TYPE text COLLATE pg_catalog.pg_c_utf8",
        "UPDATE t SET s = upper(s) WHERE id = 20",
        None,
        "s=É",
    );
}

#[test]
fn a_numeric_scale() {
    planted("ALTER TABLE t ALTER n TYPE numeric(10, 1)", "UPDATE t SET n = 1.25 WHERE id = 1", None, "n=1.3");
}

#[test]
fn a_setting() {
    let statement = "UPDATE t SET flag = (s = NULL) WHERE id = 1";
    let plant =
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET transform_null_equals = on', current_database()); END $$";
    planted(plant, statement, None, "flag=false");
}

#[test]
fn a_right() {
    planted("REVOKE UPDATE ON t FROM app", "UPDATE t SET v = 7 WHERE id = 1", Some("42501"), "permission denied");
}

#[test]
fn an_index() {
    let schema = "CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
        INSERT INTO parent SELECT generate_series(1, 100);
        INSERT INTO child SELECT g, 100 FROM generate_series(1, 1000000) g;
        CREATE INDEX of_parent ON child (parent);";
    let share = |builder: integration_tests::proxy::PgshadowBuilder| builder.set("compare", "statements", "1.0");
    let scene = Scene::with(schema, "DROP INDEX of_parent", share);
    // one by one: a shadow that lags isn't asked
    for id in 1..=25 {
        scene.app().psql(&format!("DELETE FROM parent WHERE id = {id}"));
        scene.drain();
    }
    let findings = scene.pgshadow.findings();
    let found = findings.iter().find(|f| f["kind"] == "latency").unwrap_or_else(|| panic!("{findings:#?}"));
    assert_eq!(found["sql"], "DELETE FROM parent WHERE id = 20", "{found:#}");
    assert_eq!(found["table"], "public.parent", "{found:#}");
    assert_eq!(findings.len(), 1, "{findings:#?}");
}

#[test]
fn by_the_extended_protocol() {
    let share = |builder: integration_tests::proxy::PgshadowBuilder| builder.set("compare", "statements", "1.0");
    let scene = Scene::with(SCHEMA, "ALTER TABLE t ADD CONSTRAINT small CHECK (v < 1000)", share);
    let statement = "UPDATE t SET v = v + $2 WHERE id = $1 RETURNING v";
    let answer = scene.app().psql(&format!("{statement} \\bind 1 5000 \\g\n{statement} \\bind 2 1 \\g"));
    assert!(answer.contains("5001"), "{answer}");
    let found = shown_by(&scene, "statement", statement);
    assert_eq!((&found["sqlstate"], &found["count"]), (&"23514".into(), &1.into()), "{found:#}");
    // what is determined by the moment isn't run there
    scene.app().psql("UPDATE t SET s = $1 WHERE id = 3 \\bind 'right now' \\g");
    scene.drain();
    assert_eq!(scene.pgshadow.findings().iter().filter(|f| f["kind"] == "statement").count(), 1);
}

#[test]
fn in_a_transaction_each_statement_meets_the_rows_that_it_met() {
    let share = |builder: integration_tests::proxy::PgshadowBuilder| builder.set("compare", "statements", "1.0");
    let scene = Scene::with(SCHEMA, "ALTER TABLE t ADD CONSTRAINT small CHECK (v < 1000)", share);
    scene.app().psql(
        "BEGIN; INSERT INTO t (id, v) VALUES (11, 1), (12, 2); UPDATE t SET v = v + 1 WHERE id = 11;
         UPDATE t SET v = v * 400 WHERE id = 11; SAVEPOINT a; DELETE FROM t WHERE id = 12; ROLLBACK TO a;
         UPDATE t SET v = v + random()::int * 0 WHERE v = 800; UPDATE t SET v = v + 300 WHERE id = 11; COMMIT;",
    );
    shown_by(&scene, "statement", "UPDATE t SET v = v + 300 WHERE id = 11");
    let all = scene.pgshadow.findings();
    assert_eq!(all.iter().filter(|f| f["kind"] == "statement").count(), 1, "{all:#?}");
}

/// All kinds of statements, with what must not be run again among them, in both protocols.
const ORDINARY_SCHEMA: &str = "
    CREATE FUNCTION stamped() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.at := now(); RETURN NEW; END';
    CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.changes := NEW.changes + 1; RETURN NEW; END';
    CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
    CREATE TABLE plain (id int PRIMARY KEY, n numeric(12,3), f float8, s varchar(20), d timestamptz, j jsonb, a int[], b bytea);
    CREATE TABLE stamped (id int PRIMARY KEY, v int, at timestamptz);
    CREATE TRIGGER stamped BEFORE INSERT OR UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION stamped();
    CREATE TABLE counted (id int PRIMARY KEY, v int, changes int DEFAULT 0, g int GENERATED ALWAYS AS (v * 2) STORED);
    CREATE TRIGGER counted BEFORE UPDATE ON counted FOR EACH ROW EXECUTE FUNCTION counted();
    CREATE TABLE numbered (id serial PRIMARY KEY, v int UNIQUE, made timestamptz DEFAULT now());
    CREATE TABLE parts (id int, at date, v int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
    CREATE TABLE owner (id int PRIMARY KEY, name text);
    CREATE TABLE owned (id int PRIMARY KEY, owner int REFERENCES owner ON DELETE CASCADE, v int);";

const ORDINARY: &str = "
    SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'iso_8601';
    INSERT INTO plain VALUES (:c + 1, 1.5, 1e-7, 'one', '03/04/2024 05:06', '{\"a\": 1}', '{1,2}', '\\x00ff') RETURNING d, d::text, f, b;
    INSERT INTO plain (id, n, s) VALUES (:c + 2, 2, 'two'), (:c + 3, 3.25, upper('three')) RETURNING id, n, s;
    UPDATE plain SET n = n * 1.1, f = f / 3, j = j || '{\"b\": [1]}', a = a || 3, d = d + interval 'P1M' WHERE id = :c + 1 RETURNING *;
    UPDATE plain SET s = concat(s, '-', id), n = twice(n::int) WHERE id = :c + 2 AND s = 'two';
    UPDATE plain SET d = now(), s = left(random()::text, 20) WHERE id = :c + 3;
    UPDATE plain SET d = 'today' WHERE id = :c + 3;
    UPDATE plain SET n = (SELECT count(*) FROM plain) WHERE id = :c + 3;
    INSERT INTO stamped VALUES (:c, 1, NULL);
    UPDATE stamped SET v = v + 1 WHERE id = :c;
    INSERT INTO counted (id, v) VALUES (:c, 1) RETURNING g;
    UPDATE counted SET v = v + 1 WHERE id = :c RETURNING v, changes;
    INSERT INTO numbered (v) VALUES (:c) RETURNING id;
    INSERT INTO numbered (id, v, made) VALUES (:c + 100000, :c + 100000, '2024-01-01');
    INSERT INTO numbered (v) VALUES (:c) ON CONFLICT (v) DO UPDATE SET made = excluded.made;
    INSERT INTO parts VALUES (:c, '01/02/2020', 1); UPDATE parts SET at = '01/02/2021' WHERE id = :c AND at = '01/02/2020';
    INSERT INTO owner VALUES (:c, 'me'); INSERT INTO owned VALUES (:c, :c, 1), (:c + 1, :c, 2);
    BEGIN; UPDATE owned SET v = v + 1 WHERE id = :c; SAVEPOINT a; UPDATE owned SET v = v * 10 WHERE id = :c; ROLLBACK TO a;
    UPDATE owned SET v = v + 5 WHERE id = :c; UPDATE owner SET name = lower('ME') WHERE id = :c; COMMIT;
    BEGIN; UPDATE owned SET v = 0 WHERE id = :c; ROLLBACK;
    DELETE FROM owner WHERE id = :c; DELETE FROM plain WHERE id = :c + 1; DELETE FROM plain WHERE n > 3 AND id BETWEEN :c AND :c + 3;
    UPDATE plain SET s = $2, n = $3 WHERE id = $1 RETURNING n \\bind :b 'bound' 7.125 \\g
    INSERT INTO plain (id, d, a) VALUES ($1, $2, $3) \\bind :e '13/04/2024 05:06' '{4,5}' \\g
    UPDATE plain SET d = $2 WHERE id = $1 \\bind :e 'tomorrow' \\g
    UPDATE plain SET id = id + 5 WHERE id = $1 \\bind :e \\g
";

#[test]
fn an_ordinary_load_gives_no_finding() {
    let share = |builder: integration_tests::proxy::PgshadowBuilder| builder.set("compare", "statements", "1.0");
    let scene = Scene::with(ORDINARY_SCHEMA, "", share);
    std::thread::scope(|scope| {
        for session in 0..4 {
            let app = scene.app();
            scope.spawn(move || {
                for round in 0..10 {
                    let c = session * 10_000 + round * 20;
                    app.psql(&format!("\\set c {c}\n\\set b {}\n\\set e {}\n{ORDINARY}", c + 2, c + 7));
                }
            });
        }
    });
    scene.expect_exact();
    let compared = scene.pgshadow.metric("pgshadow_statements_compared_total").unwrap_or(0.0);
    let shed = scene.pgshadow.metric("pgshadow_statements_shed_total").unwrap_or(0.0);
    assert!(compared >= 200.0, "{compared} statements were compared, {shed} left out");
}

#[test]
fn no_statement_runs_where_none_is_asked_for() {
    let scene =
        Scene::with(SCHEMA, "ALTER TABLE t ALTER state SET DEFAULT 'fresh'", |b| b.set("compare", "statements", "0.0"));
    scene.app().psql("INSERT INTO t (id) VALUES (11)");
    scene.expect_exact();
    assert_eq!(scene.pgshadow.metric("pgshadow_statements_compared_total").unwrap_or(0.0), 0.0);
}
