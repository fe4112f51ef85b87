//! `pgshadow backfill` under write load: the shadow holds what the primary does, and nothing is applied twice or left out.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::backfill::{LIMIT, backfill, refused, slow, wait_for};
use integration_tests::postgres::Cluster;
use integration_tests::proxy::Pgshadow;
use integration_tests::repeats;
use integration_tests::scene::Scene;
use integration_tests::workload::Load;
use serde_json::Value;
use std::time::Duration;

/// Kinds of tables, and rows enough that a load takes a moment.
const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE parent (id int PRIMARY KEY, m mood, t text UNIQUE);
INSERT INTO parent SELECT g, 'ok', 'n' || g FROM generate_series(1, 1000) g;
CREATE TABLE child (id bigserial PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE, moods mood[], x jsonb,
  twice int GENERATED ALWAYS AS (p * 2) STORED, CHECK (p > 0));
CREATE INDEX child_by_parent ON child (p);
INSERT INTO child (p, moods, x) SELECT g % 1000 + 1, '{sad,ok}', jsonb_build_object('a', g) FROM generate_series(1, 5000) g;
CREATE TABLE bag (a int, b text);
INSERT INTO bag SELECT g % 50, repeat('x', g % 9) FROM generate_series(1, 2000) g;
CREATE TABLE kinds (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, bytes bytea, f8 float8, f4 float4, n numeric, js json, ts timestamp,
  tz timestamptz, iv interval, d date, t time, u uuid, i inet, r int4range, p point, b bit(3), vb varbit, cash money,
  pos positive, tsv tsvector, f8s float8[], nested int[][], ch char(5));
INSERT INTO kinds (bytes, f8, f4, n, js, ts, tz, iv, d, t, u, i, r, p, b, vb, cash, pos, tsv, f8s, nested, ch)
  SELECT '\\x00ff', '-0', 'NaN', 1.00, '{\"b\":1,  \"a\":2}', '-infinity', 'infinity', '1 mon -3 days', '2026-01-01', '12:00', gen_random_uuid(),
  '10.0.0.0/8', '[1,5)', '(1,2)', '101', '11', 12.34, g, 'a b', '{1.5,NaN}', '{{1,2},{3,4}}', 'ab' FROM generate_series(1, 200) g;
CREATE TABLE odd (c pair, reg regclass, cs pair[], pr pg_lsn);
INSERT INTO odd SELECT ROW(g, 'x')::pair, 'parent', ARRAY[ROW(g, NULL)::pair], '0/17' FROM generate_series(1, 50) g;
CREATE TABLE parts (id int, v int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (500);
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (500) TO (100000);
INSERT INTO parts SELECT g, 0 FROM generate_series(0, 999) g;
CREATE SCHEMA \"Other One\";
CREATE TABLE \"Other One\".\"Odd \"\"Name\" (\"Ke y\" int, \"select\" text, PRIMARY KEY (\"Ke y\", \"select\"));
INSERT INTO \"Other One\".\"Odd \"\"Name\" VALUES (1, 'x, y'), (2, ''), (3, E'a\\tb\\nc\\\\N');
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE wide (id int PRIMARY KEY, v int, pad text, home int REFERENCES parts (id));
INSERT INTO wide SELECT g, 0, repeat('y', 500), g % 1000 FROM generate_series(1, 40000) g;
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := coalesce(NEW.v, 0); RETURN NEW; END';
CREATE TRIGGER stamped BEFORE INSERT OR UPDATE ON wide FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE VIEW happy AS SELECT * FROM parent WHERE m = 'happy';
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM bag;
CREATE MATERIALIZED VIEW above AS SELECT * FROM counted;
CREATE SEQUENCE tickets START 70;
SELECT nextval('tickets');
";
const SCRIPT: &str = "\\set i random(1, 1000)
\\set j random(1, 40000)
\\set k random(0, 49)
UPDATE parent SET t = 'x' || :i || ':' || :j, m = 'happy' WHERE id = :i;
INSERT INTO child (p, moods) VALUES (:i, '{ok}');
UPDATE wide SET v = (v * 31 + :i) % 1000003 WHERE id = :j;
BEGIN;
DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE a = :k AND b = 'w' LIMIT 1 FOR UPDATE SKIP LOCKED);
INSERT INTO bag VALUES (:k, 'w');
UPDATE parts SET v = v + 1 WHERE id = :i - 1;
INSERT INTO kinds (n) VALUES (:j);
END;
";

/// What the application does meanwhile.
fn load() -> Load {
    Load::own("", SCRIPT).clients(4)
}

/// Nothing is suspect, open or awaited, both sides are equal by COPY and by verify, and no row has had to be mended.
fn expect_loaded(scene: &Scene) {
    scene.drain();
    let status = scene.pgshadow.status();
    for what in ["suspect_tables", "awaiting_load"] {
        assert_eq!(status[what].as_array().map(Vec::len), Some(0), "{what}: {status:#}");
    }
    assert_eq!(
        (&status["findings_open"], &status["healed_rows"]),
        (&0.into(), &0.into()),
        "{:#}",
        scene.pgshadow.report()
    );
    integration_tests::equal::assert_equal(&scene.source, &scene.target);
    let verified = scene.pgshadow.run(&["verify"], LIMIT);
    assert_eq!(verified.status.code(), Some(0), "{verified:#?}");
    assert_eq!(scene.pgshadow.status()["certificate"]["valid"], true);
}

fn rows(report: &Value, table: &str) -> u64 {
    let table = report["tables"].as_array().unwrap().iter().find(|t| t["table"] == table);
    table.unwrap_or_else(|| panic!("no such table: {report:#}"))["rows"].as_u64().unwrap()
}

/// With an empty target: schema, rows, keys, and what is written meanwhile.
#[test]
fn a_target_without_tables_is_made_and_loaded_under_load() {
    let scene = Scene::onto_nothing(SCHEMA, |builder| builder);
    scene
        .source
        .psql("SELECT lo_from_bytea(7001, decode(repeat('ab', 3000000), 'hex')); GRANT SELECT ON parent TO PUBLIC");
    let report = load().during(&scene.app(), || {
        std::thread::sleep(Duration::from_millis(500));
        let report = backfill(&scene.pgshadow, &["--create-schema"]);
        std::thread::sleep(Duration::from_millis(1500));
        report
    });
    expect_loaded(&scene);
    assert_eq!(rows(&report, "public.wide"), 40_000, "{report:#}");
    assert_eq!(report["not_made"], serde_json::json!([]), "{report:#}");
    assert_eq!(report["differences"], serde_json::json!([]), "{report:#}");
    let one = |sql: &str| scene.target.psql(sql).trim().to_owned();
    assert_eq!(one("SELECT md5(lo_get(7001)) = md5(decode(repeat('ab', 3000000), 'hex'))"), "t");
    assert_eq!(one("SELECT last_value FROM tickets"), "70");
    assert_eq!(one("SELECT count(*) FROM above"), "1");
    assert_eq!(one("SELECT bool_and(convalidated) AND count(*) > 1 FROM pg_constraint WHERE contype = 'f'"), "t");
    assert_eq!(one("SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'wide'"), "t", "it was analyzed");
    assert_eq!(one("SELECT indisvalid FROM pg_index WHERE indexrelid = 'parts_pkey'::regclass"), "t");
    let again = refused(&scene.pgshadow, &[]);
    assert!(again.contains("loaded already"), "{again}");
}

/// A target with the schema, with foreign keys, triggers and old rows in it; all of it, and then one table again while others go on.
#[test]
fn a_target_with_tables_is_loaded_and_one_table_again() {
    // at full speed, whatever the load feels of it
    let scene = Scene::with(SCHEMA, "", |builder| builder.set("backfill", "latency_rise_max", "\"\""));
    scene.target.psql("UPDATE wide SET v = -1 WHERE id % 7 = 0; DELETE FROM child WHERE id % 3 = 0; INSERT INTO bag VALUES (1, 'extra')");
    load().during(&scene.app(), || backfill(&scene.pgshadow, &[]));
    expect_loaded(&scene);
    for table in ["public.parent", "public.child", "public.bag", "public.parts_low", "Other One.Odd \"Name"] {
        let suspect = "DO $$ BEGIN UPDATE parent SET m = 'sad' WHERE id = 5; UPDATE bag SET b = 'q' WHERE a = 3;
            UPDATE child SET moods = '{sad}' WHERE id = 8; UPDATE parts SET v = -5 WHERE id = 17; END $$";
        scene.app().psql(suspect);
        load().during(&scene.app(), || backfill(&scene.pgshadow, &["--table", table]));
        scene.drain();
        let left: Vec<String> = integration_tests::equal::differences(&scene.source, &scene.target)
            .into_iter()
            .map(|difference| difference.table)
            .collect();
        let spelled = if table.contains(' ') { "\"Other One\".\"Odd \"\"Name\"" } else { table };
        assert!(!left.iter().any(|name| name == spelled), "{table}: {left:?}");
    }
    backfill(&scene.pgshadow, &["--again"]);
    expect_loaded(&scene);
}

/// Tables that aren't begun when a snapshot is too old come out of another one.
#[test]
fn a_snapshot_does_not_become_too_old() {
    let scene = Scene::onto_nothing(SCHEMA, |builder| {
        builder.set("backfill", "snapshot_age_max", "\"1ms\"").set("backfill", "connections", "1")
    });
    scene.app().psql("UPDATE wide SET v = 7 WHERE id < 100; INSERT INTO bag VALUES (1, 'one')");
    backfill(&scene.pgshadow, &["--create-schema"]);
    expect_loaded(&scene);
    let snapshots = scene.pgshadow.log().matches("backfill: a snapshot of the primary").count();
    assert!(snapshots > 2, "{snapshots} snapshots");
}

/// Who is in a transaction when the snapshot is taken, prepared or not, is applied behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_are_open_at_the_snapshot_are_applied_behind_it() {
    let scene = Scene::of(
        "CREATE TABLE a (id int PRIMARY KEY, v int); INSERT INTO a VALUES (1, 1), (2, 2); CREATE TABLE bag (v int)",
    );
    for n in 0..i32::try_from(repeats()).unwrap() {
        let open = scene.app().connect().await;
        open.batch_execute(&format!("BEGIN; UPDATE a SET v = {n} WHERE id = 1; INSERT INTO bag VALUES ({n})"))
            .await
            .unwrap();
        let prepared = scene.app().connect().await;
        prepared
            .batch_execute(
                "BEGIN; UPDATE a SET v = v + 1 WHERE id = 2; INSERT INTO bag VALUES (-1); PREPARE TRANSACTION 'p'",
            )
            .await
            .unwrap();
        let arguments: &[&str] = if n == 0 { &[] } else { &["--again"] };
        backfill(&scene.pgshadow, arguments);
        open.batch_execute("INSERT INTO bag VALUES (99); COMMIT").await.unwrap();
        prepared.batch_execute("COMMIT PREPARED 'p'").await.unwrap();
        scene.drain();
        integration_tests::equal::assert_equal(&scene.source, &scene.target);
    }
    expect_loaded(&scene);
}

/// Definitions change while tables are loaded.
#[test]
fn definitions_while_tables_are_loaded() {
    const DEFINITIONS: [&str; 14] = [
        "TRUNCATE bag",
        "ALTER TABLE parent ADD COLUMN more int DEFAULT 5",
        "ALTER TABLE wide ALTER COLUMN v TYPE bigint",
        "CREATE TABLE late (id int PRIMARY KEY, v text); INSERT INTO late SELECT g, 'x' FROM generate_series(1, 100) g",
        "CREATE INDEX wide_v ON wide (v)",
        "DROP INDEX child_by_parent",
        "ALTER TABLE child DROP CONSTRAINT child_p_fkey",
        "ALTER TABLE bag RENAME TO sack",
        "INSERT INTO sack VALUES (7, 'seven')",
        "DROP TABLE nothing",
        "ALTER TABLE kinds DROP COLUMN cash",
        "ALTER TABLE child ADD FOREIGN KEY (p) REFERENCES parent ON DELETE CASCADE",
        "DELETE FROM parent WHERE id = 17",
        "VACUUM FULL parent",
    ];
    for create in [true, false] {
        let scene =
            if create { Scene::onto_nothing(SCHEMA, slow) } else { Scene::with(SCHEMA, "DELETE FROM bag", slow) };
        let arguments: &[&str] = if create { &["--create-schema"] } else { &[] };
        std::thread::scope(|threads| {
            let loading = threads.spawn(|| backfill(&scene.pgshadow, arguments));
            wait_for(&scene.pgshadow, |state| {
                state["running"]["progress"]["rows"].as_u64().is_some_and(|rows| rows > 2_000)
            });
            for sql in DEFINITIONS {
                scene.app().psql(sql);
                std::thread::sleep(Duration::from_millis(150));
            }
            let report = loading.join().unwrap();
            assert_eq!(report["not_made"], serde_json::json!([]), "{report:#}");
        });
        expect_loaded(&scene);
    }
}

/// A table that is rewritten, or takes another one's name, after the snapshot and before it is looked at.
#[test]
fn tables_that_change_while_the_schema_is_made() {
    for _ in 0..repeats() {
        let scene = Scene::onto_nothing(
            &format!("{SCHEMA} CREATE TABLE one (id int PRIMARY KEY, v int); INSERT INTO one SELECT g, 1 FROM generate_series(1, 500) g;
                CREATE TABLE two (id int PRIMARY KEY, v int); INSERT INTO two SELECT g, 2 FROM generate_series(1, 700) g"),
            |builder| builder,
        );
        std::thread::scope(|threads| {
            let loading = threads.spawn(|| scene.pgshadow.run(&["backfill", "--create-schema"], LIMIT));
            wait_for(&scene.pgshadow, |state| state["running"]["progress"]["stage"] == "schema");
            scene.app().psql(
                "ALTER TABLE bag ALTER COLUMN a TYPE bigint;
                BEGIN; ALTER TABLE one RENAME TO other; ALTER TABLE two RENAME TO one; ALTER TABLE other RENAME TO two; COMMIT",
            );
            let finished = loading.join().unwrap();
            // a table that was suspect when it was renamed is so under its new name
            assert!(matches!(finished.status.code(), Some(0 | 3)), "{finished:#?}");
        });
        scene.drain();
        integration_tests::equal::assert_equal(&scene.source, &scene.target);
        assert_eq!(scene.pgshadow.run(&["verify"], LIMIT).status.code(), Some(0));
        // the name that one of them had for a moment
        let suspects: Vec<String> = scene.suspects().into_iter().map(|(table, _)| table).collect();
        assert_eq!(suspects, ["public.other"]);
    }
}

/// What a load of one table has left is loaded by the next backfill, and a table that is gone is waited for no more.
#[test]
fn what_was_left_is_loaded_by_the_next_one() {
    let mut scene = Scene::with(SCHEMA, "", slow);
    backfill(&scene.pgshadow, &[]);
    let mut loading = scene.pgshadow.begin(&["backfill", "--table", "public.wide", "--table", "public.odd"]);
    wait_for(&scene.pgshadow, |state| state["running"]["progress"]["rows"].as_u64().is_some_and(|rows| rows > 100));
    scene.pgshadow.kill9();
    loading.wait().unwrap();
    scene.pgshadow.start();
    scene.app().psql("DROP TABLE odd; CREATE TABLE odd (a int, b text); INSERT INTO odd VALUES (1, 'new'); UPDATE wide SET v = 9 WHERE id = 9");
    backfill(&scene.pgshadow, &[]);
    expect_loaded(&scene);
    let mut loading = scene.pgshadow.begin(&["backfill", "--table", "public.wide", "--table", "public.nothing"]);
    wait_for(&scene.pgshadow, |state| state["running"]["progress"]["stage"] == "loading");
    scene.pgshadow.kill9();
    loading.wait().unwrap();
    scene.pgshadow.start();
    scene.app().psql("DROP TABLE nothing");
    backfill(&scene.pgshadow, &[]);
    expect_loaded(&scene);
}

/// A lane that waits for a row on the target for as long as `work` takes: no snapshot can be had meanwhile.
async fn while_a_lane_waits(scene: &Scene, work: impl AsyncFnOnce()) {
    let client = scene.target.connect().await;
    client.batch_execute("BEGIN; UPDATE kept SET v = v WHERE id = 1").await.unwrap();
    scene.app().psql("UPDATE kept SET v = v + 1 WHERE id = 1");
    work().await;
    client.batch_execute("ROLLBACK").await.unwrap();
}

const KEPT: &str = "CREATE TABLE kept (id int PRIMARY KEY, v int); INSERT INTO kept VALUES (1, 0)";

/// What is written to a table that awaits its load is passed over, and so is what its cascades do to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cascades_from_a_table_that_is_awaited_are_not_lost() {
    let scene = Scene::of(&format!(
        "{KEPT}; CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE,
         q int REFERENCES parent ON DELETE SET NULL); INSERT INTO parent SELECT generate_series(1, 9); INSERT INTO child SELECT g, g, 10 - g FROM generate_series(1, 9) g"
    ));
    let mut loading = None;
    while_a_lane_waits(&scene, async || {
        loading = Some(scene.pgshadow.begin(&["backfill", "--table", "public.parent"]));
        wait_for(&scene.pgshadow, |state| state["running"]["progress"]["stage"] == "snapshot");
        scene.app().psql("DELETE FROM parent WHERE id = 3");
    })
    .await;
    assert!(loading.unwrap().wait().unwrap().success());
    expect_loaded(&scene);
}

/// A table that an earlier load has left awaited is held from the snapshot on like those that were asked for.
#[test]
fn what_is_written_to_a_table_that_was_left_is_not_lost() {
    let schema = "CREATE TABLE x (id int PRIMARY KEY, v bigint, pad text); INSERT INTO x SELECT g, 0, repeat('x', 400) FROM generate_series(1, 20000) g;
        CREATE TABLE y (id int PRIMARY KEY); INSERT INTO y SELECT generate_series(1, 10)";
    let scene = Scene::with(schema, "", slow);
    let script = "\\set i random(1, 20000)\nUPDATE x SET v = (v * 31 + :i) % 1000003 WHERE id = :i;\n";
    Load::own("", script).clients(4).during(&scene.app(), || {
        backfill(&scene.pgshadow, &[]);
        for _ in 0..3 * repeats() {
            let mut loading = scene.pgshadow.begin(&["backfill", "--table", "public.x"]);
            wait_for(&scene.pgshadow, |state| {
                state["running"]["progress"]["rows"].as_u64().is_some_and(|rows| rows > 100)
            });
            scene.pgshadow.run(&["backfill", "--stop"], LIMIT);
            loading.wait().unwrap();
            backfill(&scene.pgshadow, &["--table", "public.y", "--rate-max", "100MiB"]);
        }
    });
    expect_loaded(&scene);
}

/// A backfill that was killed before anything was noted begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backfill_that_was_killed_at_its_very_start_loads_all() {
    let mut scene = Scene::with(KEPT, "UPDATE kept SET v = 7", |builder| builder);
    let client = scene.target.as_user("postgres", "postgres").connect().await;
    // the applier makes its tables as it first comes
    scene.drain();
    while client.batch_execute("BEGIN; LOCK TABLE pgshadow.awaited IN EXCLUSIVE MODE").await.is_err() {
        client.batch_execute("ROLLBACK").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut loading = scene.pgshadow.begin(&["backfill"]);
    let waits = "the applier, which notes what is to be loaded";
    wait_for(&scene.pgshadow, |state| state["running"]["progress"]["waiting"] == waits);
    scene.pgshadow.kill9();
    loading.wait().unwrap();
    client.batch_execute("ROLLBACK").await.unwrap();
    scene.pgshadow.start();
    let report = backfill(&scene.pgshadow, &[]);
    assert_eq!(rows(&report, "public.kept"), 1);
    expect_loaded(&scene);
}

/// A table that comes while the schema's making is interrupted, and that lanes have made and filled by then, is made anew and loaded.
#[test]
fn a_table_that_comes_while_the_schema_is_made_is_loaded() {
    let mut scene = Scene::onto_nothing(SCHEMA, |builder| builder);
    let mut loading = scene.pgshadow.begin(&["backfill", "--create-schema"]);
    wait_for(&scene.pgshadow, |state| state["running"]["progress"]["stage"] == "schema");
    scene.pgshadow.kill9();
    loading.wait().unwrap();
    scene.pgshadow.start();
    scene.app().psql("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late SELECT generate_series(1, 10)");
    scene.drain();
    backfill(&scene.pgshadow, &["--create-schema"]);
    scene.app().psql("INSERT INTO late VALUES (11)");
    expect_loaded(&scene);
}

/// Columns that exchange their names while their rows are copied.
#[test]
fn columns_that_exchange_their_names_are_not_loaded_into_one_another() {
    let schema = "CREATE TABLE first (id int PRIMARY KEY, pad text); INSERT INTO first SELECT g, repeat('x', 400) FROM generate_series(1, 40000) g;
        CREATE TABLE t (id int PRIMARY KEY, a int, b int); INSERT INTO t SELECT g, 1, 2 FROM generate_series(1, 100) g";
    let scene = Scene::with(schema, "", |builder| slow(builder).set("backfill", "connections", "1"));
    std::thread::scope(|threads| {
        let loading = threads.spawn(|| backfill(&scene.pgshadow, &[]));
        wait_for(&scene.pgshadow, |state| state["running"]["progress"]["each"][0]["state"] == "copying");
        scene.app().psql(
            "BEGIN; ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b; COMMIT",
        );
        loading.join().unwrap();
    });
    expect_loaded(&scene);
}

/// Who has a table for himself for longer than a lock is waited for is no reason to give up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_table_that_is_locked_for_long_is_loaded_afterwards() {
    let scene = Scene::of(KEPT);
    let client = scene.app().connect().await;
    client.batch_execute("BEGIN; LOCK TABLE kept IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut loading = scene.pgshadow.begin(&["backfill"]);
    tokio::time::sleep(Duration::from_secs(12)).await;
    client.batch_execute("COMMIT").await.unwrap();
    assert!(loading.wait().unwrap().success());
    expect_loaded(&scene);
}

/// Whoever waits for a table that is being copied doesn't wait for the end of it.
#[test]
fn a_copy_gives_way() {
    let scene = Scene::with(
        "CREATE TABLE a (id int PRIMARY KEY, t text); INSERT INTO a SELECT g, repeat('x', 1000) FROM generate_series(1, 12000) g",
        "",
        |builder| builder.set("backfill", "rate_max", "\"1MiB\""),
    );
    std::thread::scope(|threads| {
        let loading = threads.spawn(|| backfill(&scene.pgshadow, &[]));
        wait_for(&scene.pgshadow, |state| state["running"]["progress"]["each"][0]["state"] == "copying");
        // what is copied takes more than ten seconds
        scene.app().psql("SET lock_timeout = '6s'; BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE; UPDATE a SET t = 'y' WHERE id = 1; COMMIT");
        let (_, body) = scene.pgshadow.http("/api/backfill").expect("it answers");
        let state: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(state["running"]["progress"]["each"][0]["state"], "copying", "{state:#}");
        loading.join().unwrap();
    });
    expect_loaded(&scene);
}

/// pgshadow, the source or the target is killed at some moment of a backfill, which then goes on.
#[test]
fn a_backfill_goes_on_after_a_kill() {
    for round in 0..u64::from(repeats()) {
        let (mut source, mut target) = (Cluster::old(), Cluster::newest());
        source.app().psql(SCHEMA);
        let create = round % 2 == 0;
        if !create {
            target.app().psql(SCHEMA);
        }
        let pgshadow = slow(Pgshadow::between(&source, &target)).start();
        let mut scene = Scene { source: source.app(), target: target.app(), pgshadow };
        let app = scene.app();
        // the same as the first time: it may be gone before it had begun
        let arguments: &[&str] = if create { &["backfill", "--create-schema"] } else { &["backfill"] };
        load().during_faults(&app, || {
            let mut loading = scene.pgshadow.begin(arguments);
            for kill in 0..3 {
                std::thread::sleep(Duration::from_millis(300 + (round * 1350 + kill * 700) % 2500));
                match (round + kill) % 3 {
                    0 => {
                        scene.pgshadow.kill9();
                        loading.wait().unwrap();
                        scene.pgshadow.start();
                        loading = scene.pgshadow.begin(arguments);
                    }
                    1 => {
                        source.kill9();
                        std::thread::sleep(Duration::from_millis(300));
                        source.start();
                    }
                    _ => {
                        target.kill9();
                        std::thread::sleep(Duration::from_millis(300));
                        target.start();
                    }
                }
            }
            loading.wait().unwrap();
        });
        let last = scene.pgshadow.run(arguments, LIMIT);
        assert!(last.status.success() || last.stderr.contains("loaded already"), "round {round}: {last:#?}");
        scene.drain();
        // what a lost session left open is told; all else is equal
        let suspects = scene.suspects();
        for difference in integration_tests::equal::differences(&scene.source, &scene.target) {
            let told = suspects.iter().any(|(table, _)| *table == difference.table || table == "every table");
            assert!(told, "round {round}: {difference}\nsuspect: {suspects:?}\n{}", scene.pgshadow.log());
        }
        for table in suspects.iter().map(|(table, _)| table).filter(|table| *table != "every table") {
            backfill(&scene.pgshadow, &["--table", table]);
        }
        scene.drain();
        let verified = scene.pgshadow.run(&["verify"], LIMIT);
        assert_eq!(verified.status.code(), Some(0), "round {round}: {verified:#?}");
        assert_eq!(scene.suspects(), Vec::new(), "round {round}");
    }
}

/// What can't be is refused, with what to do.
#[test]
fn what_can_not_be_loaded_is_refused() {
    let scene = Scene::onto_nothing("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int)", |builder| {
        builder.set("mirror", "exclude", "[\"public.b\"]")
    });
    for (arguments, parts) in [
        (vec![], vec!["public.a: the shadow has none", "--create-schema"]),
        (vec!["--table", "public.b"], vec!["isn't mirrored"]),
        (vec!["--table", "public.nowhere"], vec!["no table public.nowhere"]),
        (vec!["--stop"], vec!["no backfill runs"]),
    ] {
        let told = refused(&scene.pgshadow, &arguments);
        assert!(parts.iter().all(|part| told.contains(part)), "{arguments:?}: {told}");
    }
    scene.target.psql("CREATE TABLE a (id bigint)");
    let told = refused(&scene.pgshadow, &[]);
    assert!(told.contains("column public.a.id: primary integer, shadow bigint"), "{told}");
    let told = refused(&scene.pgshadow, &["--create-schema"]);
    assert!(told.contains("the target has tables already (public.a"), "{told}");
    assert_eq!(scene.suspects(), Vec::new(), "nothing was begun");

    let scene =
        Scene::onto_nothing("CREATE TABLE a (id int)", |builder| builder.set("backfill", "bindir", "\"/nowhere\""));
    let told = refused(&scene.pgshadow, &["--create-schema"]);
    assert!(told.contains("pg_dump and pg_restore of version") && told.contains("bindir"), "{told}");
}

/// Where triggers or foreign keys would act on what is loaded, nothing is begun.
#[test]
fn rows_are_not_loaded_into_triggers() {
    let (source, target) = (Cluster::old(), Cluster::newest());
    let schema = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1, 1)";
    [source.app(), target.app()].iter().for_each(|place| drop(place.psql(schema)));
    target.superuser().psql("REVOKE SET ON PARAMETER session_replication_role FROM pgshadow");
    let pgshadow = Pgshadow::between(&source, &target).start();
    let told = refused(&pgshadow, &[]);
    assert!(told.contains("has triggers or foreign keys") && told.contains("GRANT SET ON PARAMETER"), "{told}");
    assert_eq!(pgshadow.status()["awaiting_load"], serde_json::json!([]));
    target.superuser().psql("GRANT SET ON PARAMETER session_replication_role TO pgshadow");
    backfill(&pgshadow, &[]);
}

/// What the schema's owner can't carry over is named, and the rest is loaded.
#[test]
fn what_can_not_be_carried_over_is_named() {
    let scene =
        Scene::onto_nothing("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'x')", |builder| {
            builder
        });
    let [source, _] = integration_tests::scene::servers();
    let role = format!("owner_{}", scene.source.database);
    let owner = source.superuser().in_database(&scene.source.database);
    owner.psql(&format!(
        "CREATE ROLE {role}; GRANT {role} TO pgshadow; CREATE TABLE foreign_owned (id int); ALTER TABLE foreign_owned OWNER TO {role};
        INSERT INTO foreign_owned VALUES (1); GRANT SELECT ON a TO {role}"
    ));
    let finished = scene.pgshadow.run(&["backfill", "--create-schema", "--json"], LIMIT);
    assert_eq!(finished.status.code(), Some(3), "{finished:#?}");
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let told: Vec<&str> = report["not_made"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(told.iter().any(|text| text.contains(&role)), "{report:#}");
    let differ: Vec<&str> =
        report["differences"].as_array().unwrap().iter().filter_map(|d| d["kind"].as_str()).collect();
    assert!(differ.contains(&"owner") && differ.contains(&"rights"), "{report:#}");
    integration_tests::equal::assert_equal(&scene.source, &scene.target);
}
