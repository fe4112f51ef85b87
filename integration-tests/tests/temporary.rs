//! Definitions of what only a session has, whose names others have too: on the shadow nothing of them may be done.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::scene::Scene;
use std::collections::BTreeSet;

const OBJECTS: &str = "SELECT concat_ws(' ', 'class', relname, relkind, reloptions, obj_description(oid, 'pg_class'), relacl) FROM pg_class WHERE relnamespace = 'public'::regnamespace
  UNION ALL SELECT concat_ws(' ', 'proc', proname) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
  UNION ALL SELECT concat_ws(' ', 'type', typname) FROM pg_type WHERE typnamespace = 'public'::regnamespace
  UNION ALL SELECT concat_ws(' ', 'trigger', tgname, tgrelid::regclass) FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT concat_ws(' ', 'statistics', stxname) FROM pg_statistic_ext WHERE stxrelid = 't3'::regclass
  UNION ALL SELECT concat_ws(' ', 'sequence', sequencename, increment_by) FROM pg_sequences ORDER BY 1";

/// Objects in temporary schemas: the shadow has none, though its own sessions would keep them.
const TEMPORARY: &str = "WITH n AS (SELECT oid FROM pg_namespace WHERE nspname LIKE 'pg!_temp!_%' ESCAPE '!')
  SELECT (SELECT count(*) FROM pg_class WHERE relnamespace IN (SELECT oid FROM n)) + (SELECT count(*) FROM pg_proc WHERE pronamespace IN (SELECT oid FROM n))
  + (SELECT count(*) FROM pg_type WHERE typnamespace IN (SELECT oid FROM n))";

#[tokio::test]
async fn what_only_the_session_has_leaves_the_shadow_s_definitions_alone() {
    let mut bad = Vec::new();
    for strings in [
        &["CREATE TEMP SEQUENCE s", "SELECT nextval('s')", "ALTER SEQUENCE s INCREMENT BY 5", "DROP SEQUENCE s"][..],
        &["CREATE TEMP SEQUENCE s", "ALTER SEQUENCE s RENAME TO s3", "DROP SEQUENCE s3"],
        &[
            "CREATE TEMP SEQUENCE s",
            "GRANT ALL ON SEQUENCE s TO PUBLIC",
            "COMMENT ON SEQUENCE s IS 'x'",
            "ALTER TABLE s RENAME TO s9",
        ],
        &[
            "CREATE TEMP SEQUENCE s",
            "ALTER SEQUENCE s OWNER TO app",
            "ALTER SEQUENCE s OWNED BY NONE",
            "DROP SEQUENCE s, public.s",
        ],
        &["CREATE TEMP TABLE x (a int)", "CREATE INDEX i ON x (a)", "ALTER INDEX i RENAME TO i2", "DROP INDEX i2"],
        &[
            "CREATE TEMP TABLE x (a int)",
            "CREATE INDEX i ON x (a)",
            "ALTER INDEX i SET (fillfactor = 60)",
            "COMMENT ON INDEX i IS 'x'",
            "REINDEX INDEX i",
            "DROP INDEX i",
        ],
        &["CREATE TEMP TABLE x (a int)", "CREATE INDEX i ON x (a)", "DROP INDEX i, public.i"],
        &["CREATE TEMP TABLE x (a int)", "CREATE TABLE y (a int)", "DROP TABLE x, y"],
        &[
            "CREATE TEMP TABLE x (a serial)",
            "ALTER SEQUENCE x_a_seq INCREMENT BY 2",
            "DROP TABLE IF EXISTS x, nothing, t2",
        ],
        &["CREATE TEMP TABLE x (a int)", "CREATE VIEW w AS WITH x AS (SELECT 1 AS a) SELECT * FROM x"],
        &["CREATE TEMP VIEW w AS SELECT 1", "ALTER VIEW w RENAME TO w3", "DROP VIEW w3"],
        &["CREATE TEMP TABLE x (a int)", "CREATE VIEW v AS SELECT * FROM x", "COMMENT ON VIEW v IS 'x'", "DROP VIEW v"],
        &["CREATE TEMP TABLE x (a int)", "CREATE VIEW v AS SELECT * FROM x", "DROP TABLE x CASCADE"],
        &[
            "CREATE TEMP TABLE x (a int)",
            "CREATE TRIGGER g BEFORE INSERT ON x FOR EACH ROW EXECUTE FUNCTION f()",
            "COMMENT ON TRIGGER g ON x IS 'x'",
            "ALTER TRIGGER g ON x RENAME TO g2",
            "DROP TRIGGER g2 ON x",
        ],
        &["CREATE TEMP TABLE x (a int, b int)", "DROP TABLE x"],
        &[
            "CREATE FUNCTION pg_temp.h() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SELECT pg_temp.h()",
            "ALTER FUNCTION pg_temp.h() STABLE",
            "COMMENT ON FUNCTION pg_temp.h() IS 'x'",
            "DROP FUNCTION pg_temp.h()",
        ],
        &["CREATE TYPE pg_temp.e AS ENUM ('a')", "ALTER TYPE pg_temp.e ADD VALUE 'b'", "DROP TYPE pg_temp.e"],
        &[
            "CREATE TYPE pg_temp.e AS (a int)",
            "ALTER TYPE pg_temp.e ADD ATTRIBUTE b int",
            "ALTER TYPE pg_temp.e RENAME TO e2",
            "DROP TYPE pg_temp.e2",
        ],
        // their names are looked for among the temporary ones first
        &[
            "CREATE TYPE pg_temp.e AS ENUM ('a')",
            "ALTER TYPE e ADD VALUE 'b'",
            "COMMENT ON TYPE e IS 'x'",
            "DROP TYPE e",
        ],
        &[
            "CREATE TYPE pg_temp.e AS (a int)",
            "ALTER TYPE e ADD ATTRIBUTE b int",
            "ALTER TYPE e RENAME TO e2",
            "DROP TYPE e2",
        ],
        &[
            "CREATE DOMAIN pg_temp.e AS int",
            "ALTER DOMAIN e SET NOT NULL",
            "ALTER DOMAIN e RENAME TO d",
            "DROP DOMAIN d",
        ],
        // and stay until the session ends
        &[
            "CREATE FUNCTION pg_temp.h() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
            "CREATE TYPE pg_temp.e AS ENUM ('a')",
            "CREATE DOMAIN pg_temp.d AS int",
            "CREATE AGGREGATE pg_temp.su(int) (SFUNC = int4pl, STYPE = int)",
        ],
        &["CREATE DOMAIN pg_temp.d AS int", "ALTER DOMAIN pg_temp.d SET NOT NULL", "DROP DOMAIN pg_temp.d"],
        &[
            "CREATE TEMP TABLE x (a int, b int)",
            "CREATE STATISTICS st ON a, b FROM x",
            "COMMENT ON STATISTICS st IS 'x'",
            "ALTER STATISTICS st RENAME TO st2",
            "DROP STATISTICS st2",
        ],
        &[
            "CREATE TEMP TABLE x (a int, b int)",
            "CREATE STATISTICS public.st ON a, b FROM x",
            "COMMENT ON STATISTICS public.st IS 'x'",
            "DROP STATISTICS public.st",
            "CREATE STATISTICS st ON a, v FROM t3",
            "COMMENT ON STATISTICS st IS 'x'",
            "DROP STATISTICS st",
        ],
        &["CREATE TEMP TABLE x (a int, b int)", "CREATE STATISTICS st ON a, b FROM x", "DROP TABLE x"],
        &["CREATE AGGREGATE pg_temp.su(int) (SFUNC = int4pl, STYPE = int)", "DROP AGGREGATE pg_temp.su(int)"],
        &[
            "CREATE TEMP TABLE first (a int)",
            "SET search_path = pg_temp, public",
            "CREATE TABLE x (a int)",
            "INSERT INTO x VALUES (1)",
            "CREATE SEQUENCE s",
            "DROP SEQUENCE s",
            "CREATE TYPE e AS ENUM ('a')",
            "DROP TYPE e",
            "CREATE FUNCTION pg_temp.h() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP FUNCTION pg_temp.h()",
            "DROP TABLE x",
            "CREATE VIEW v AS SELECT 1",
            "DROP VIEW v",
        ],
        &[
            "CREATE TEMP TABLE x (a int)",
            "ALTER TABLE x ADD CONSTRAINT c CHECK (a > 0)",
            "COMMENT ON CONSTRAINT c ON x IS 'x'",
            "ALTER TABLE x RENAME CONSTRAINT c TO c2",
            "COMMENT ON COLUMN x.a IS 'y'",
            "GRANT SELECT ON x TO PUBLIC",
            "CREATE RULE r AS ON INSERT TO x DO INSTEAD NOTHING",
            "DROP RULE r ON x",
            "ALTER TABLE x ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY p ON x USING (true)",
            "DROP POLICY p ON x",
        ],
        &[
            "CREATE TEMP TABLE x (a int); CREATE SEQUENCE pg_temp.s; DROP SEQUENCE s; CREATE INDEX i ON x (a); DROP INDEX i; CREATE VIEW v AS SELECT * FROM x; DROP VIEW v",
        ],
        &[
            "CREATE TEMP TABLE y (a int)",
            "CREATE TABLE y (b int)",
            "CREATE TEMP SEQUENCE n",
            "CREATE SEQUENCE n",
            "CREATE TEMP VIEW w AS SELECT 1",
            "CREATE VIEW w AS SELECT 2",
            "CREATE OR REPLACE VIEW w AS SELECT 3",
        ],
        &[
            "CREATE TEMP TABLE x (a int)",
            "CREATE TABLE y (a int)",
            "CREATE TEMP TABLE z (a int)",
            "DROP TABLE IF EXISTS x, z, y, nothing CASCADE",
        ],
        &[
            "CREATE TEMP SEQUENCE s; ALTER SEQUENCE s RENAME TO s2; ALTER SEQUENCE s2 INCREMENT BY 3; DROP SEQUENCE s2; CREATE TEMP TABLE x (a int); CREATE INDEX i ON x (a); ALTER INDEX i RENAME TO i2; DROP INDEX i2",
        ],
        &[
            "CREATE TEMP TABLE c (v int, id int); ALTER TABLE c ALTER id SET NOT NULL",
            "ALTER TABLE c INHERIT t",
            "ALTER TABLE c NO INHERIT t",
        ],
        // in one string, looked up before any of it runs
        &["CREATE TEMP TABLE y (a int); CREATE TABLE y (b int); CREATE TEMP SEQUENCE n; CREATE SEQUENCE n"],
        &["CREATE TEMP TABLE x (v int, id int NOT NULL); ALTER TABLE x INHERIT t; ALTER TABLE x NO INHERIT t"],
        &["CREATE TEMP SEQUENCE s; ALTER SEQUENCE s RENAME TO s2; DROP SEQUENCE s"],
        &["CREATE TEMP TABLE x AS SELECT 1 AS a", "DISCARD TEMP", "CREATE TABLE x (a int)", "DROP TABLE x"],
    ] {
        let scene = Scene::of(
            "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE t2 (); CREATE TABLE t3 (a int, v int); CREATE SEQUENCE s; CREATE INDEX i ON t (v); CREATE VIEW v AS SELECT 1; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TYPE e AS ENUM ('x'); GRANT ALL ON SCHEMA public TO PUBLIC",
        );
        let client = scene.app().connect().await;
        for sql in strings {
            client.batch_execute(sql).await.unwrap();
        }
        client.batch_execute("INSERT INTO t VALUES (1, 1)").await.unwrap();
        scene.drain();
        let temporary = scene.target.psql(TEMPORARY);
        let [here, there] = [&scene.source, &scene.target].map(|place| objects(&place.psql(OBJECTS)));
        let differ: Vec<_> = here.symmetric_difference(&there).collect();
        if !differ.is_empty()
            || temporary != "0"
            || !scene.pgshadow.findings().is_empty()
            || !scene.suspects().is_empty()
        {
            let (findings, suspects) = (scene.pgshadow.findings(), scene.suspects());
            bad.push(format!("{strings:?}: differ {differ:?}, temporary there {temporary}, findings {findings:#?}, suspects {suspects:?}"));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

fn objects(listed: &str) -> BTreeSet<String> {
    listed.lines().map(str::to_owned).collect()
}

/// A string's DROP of what is temporary, made in it, and of what isn't: the permanent one of that name stays on the shadow.
#[test]
fn a_string_drops_some_of_either_kind() {
    let scene =
        Scene::of("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1); CREATE TABLE b (id int PRIMARY KEY)");
    scene.app().psql(r"CREATE TEMP TABLE a (v int) \; DROP TABLE a, b");
    scene.app().psql("INSERT INTO a VALUES (2)");
    scene.drain();
    assert_eq!(scene.target.psql("SELECT string_agg(id::text, ',' ORDER BY id) FROM public.a"), "1,2");
    assert_eq!(scene.pgshadow.findings(), [] as [serde_json::Value; 0]);
    let suspects: Vec<_> = scene.suspects().into_iter().map(|(table, _)| table).collect();
    assert_eq!(suspects, ["public.b"]);
}

/// A string's DROP of a temporary type that it has made: the permanent one of that name stays on the shadow.
#[test]
fn a_string_makes_and_drops_a_type() {
    let scene = Scene::of("CREATE TABLE t (id int PRIMARY KEY); CREATE TYPE e AS ENUM ('x')");
    scene.app().psql(r"CREATE TYPE pg_temp.e AS ENUM ('a') \; DROP TYPE e");
    scene.drain();
    let kept = "SELECT enumlabel FROM pg_enum WHERE enumtypid = 'public.e'::regtype";
    assert_eq!(scene.target.psql(kept), "x");
    let told = scene.pgshadow.findings().iter().map(|f| f["message"].to_string()).collect::<Vec<_>>();
    assert!(matches!(told.as_slice(), [one] if one.contains("temporary type")), "{told:?}");
}

/// The same of statistics, which stand in a schema that isn't temporary.
#[test]
fn a_string_makes_and_drops_statistics() {
    let scene = Scene::of("CREATE TABLE t (a int, b int); CREATE STATISTICS st ON a, b FROM t");
    scene.app().psql(
        r"CREATE TEMP TABLE x (a int, b int); CREATE SCHEMA s; SET search_path = s, public;
        CREATE STATISTICS st ON a, b FROM x \; DROP STATISTICS st",
    );
    scene.drain();
    assert_eq!(scene.target.psql("SELECT count(*) FROM pg_statistic_ext"), "1");
    let told = scene.pgshadow.findings().iter().map(|f| f["message"].to_string()).collect::<Vec<_>>();
    assert!(matches!(told.as_slice(), [one] if one.contains("statistics of a temporary table")), "{told:?}");
    assert!(scene.suspects().is_empty(), "{:?}", scene.suspects());
}

/// A name that finds a temporary type or another one, by the path: it is told, not guessed.
#[test]
fn a_temporary_type_behind_others_of_its_name() {
    let scene = Scene::of("CREATE TABLE t (id int PRIMARY KEY); CREATE TYPE e AS ENUM ('x')");
    scene
        .app()
        .psql(r"SET search_path = public, pg_temp; CREATE TYPE pg_temp.e AS ENUM ('a'); ALTER TYPE e ADD VALUE 'y';");
    scene.drain();
    let told = scene.pgshadow.findings().iter().map(|f| f["sql"].to_string()).collect::<Vec<_>>();
    assert!(matches!(told.as_slice(), [one] if one.contains("ALTER TYPE e")), "{told:?}");
}
