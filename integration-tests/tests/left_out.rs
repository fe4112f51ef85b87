//! What a backfill must not leave out without a word.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::backfill::{LIMIT, backfill, refused, slow, wait_for};
use integration_tests::client::Endpoint;
use integration_tests::process::eventually;
use integration_tests::scene::{EVERY_TABLE, Scene, servers};

/// Enough to stay at it for some seconds.
const PAD: &str = "CREATE TABLE pad (id int PRIMARY KEY, v text); INSERT INTO pad SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 30000) g;";

/// The target's database as its superuser.
fn owner_of_target(scene: &Scene) -> Endpoint {
    servers()[1].superuser().in_database(&scene.target.database)
}

fn count(place: &Endpoint, table: &str) -> String {
    place.psql(&format!("SELECT count(*) FROM {table}")).trim().to_owned()
}

/// A range whose COMMIT is still at work when its table is loaded once more isn't taken for one of the new load.
#[test]
fn a_range_that_is_still_committing_is_not_taken_for_loaded() {
    let scene = Scene::of("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)");
    backfill(&scene.pgshadow, &[]);
    let target = owner_of_target(&scene);
    target.psql(
        "CREATE SEQUENCE public.turns; GRANT ALL ON SEQUENCE public.turns TO PUBLIC;
         CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF nextval('public.turns') = 1 THEN PERFORM pg_sleep(3); END IF; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON pgshadow.loading DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.slow();
         ALTER TABLE pgshadow.loading ENABLE ALWAYS TRIGGER slow",
    );
    let mut first = scene.pgshadow.begin(&["backfill", "--table", "public.t"]);
    let committing = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query = 'COMMIT'";
    eventually("a range commits", LIMIT, || Some(()).filter(|()| target.psql(committing).trim() != "0"));
    scene.pgshadow.run(&["backfill", "--stop"], LIMIT);
    first.wait().unwrap();
    backfill(&scene.pgshadow, &["--table", "public.t"]);
    scene.drain();
    assert_eq!(count(&scene.target, "t"), "1000");
    assert_eq!(scene.suspects(), Vec::new());
}

/// While keys are still to be made, nothing else is loaded, nor all anew without them.
#[test]
fn a_schema_that_is_half_made_is_made_to_its_end() {
    let scene = Scene::onto_nothing(PAD, slow);
    let mut loading = scene.pgshadow.begin(&["backfill", "--create-schema"]);
    wait_for(&scene.pgshadow, |state| state["running"]["progress"]["rows"].as_u64().is_some_and(|rows| rows > 100));
    scene.pgshadow.run(&["backfill", "--stop"], LIMIT);
    loading.wait().unwrap();
    for arguments in [&["--table", "public.pad"][..], &["--again"]] {
        let told = refused(&scene.pgshadow, arguments);
        assert!(told.contains("has begun and isn't over"), "{arguments:?}: {told}");
    }
    let report = backfill(&scene.pgshadow, &[]);
    assert_eq!(report["differences"], serde_json::json!([]), "{report:#}");
}

/// One that failed while it made the tables may be given up: what somebody has made by hand is loaded, once it is whole.
#[test]
fn a_schema_that_was_made_by_hand_after_all_is_loaded() {
    let scene = Scene::onto_nothing(
        "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE INDEX by_v ON t (v); INSERT INTO t SELECT g, g FROM generate_series(1, 100) g",
        |builder| builder,
    );
    scene.target.psql("CREATE VIEW t AS SELECT 1 AS id, 2 AS v");
    let told = refused(&scene.pgshadow, &["--create-schema"]);
    assert!(told.contains("table public.t"), "{told}");
    scene.target.psql("DROP VIEW t; CREATE TABLE t (id int PRIMARY KEY, v int)");
    let told = refused(&scene.pgshadow, &["--again"]);
    assert!(told.contains("isn't all of the source's") && told.contains("by_v"), "{told}");
    scene.target.psql("CREATE INDEX by_v ON t (v)");
    let report = backfill(&scene.pgshadow, &["--again"]);
    assert_eq!(report["differences"], serde_json::json!([]), "{report:#}");
    scene.expect_exact();
}

/// Foreign keys come last: what a TRUNCATE reaches by them isn't known on the shadow before.
#[test]
fn truncate_cascade_before_keys_are_made_is_doubted() {
    let schema = "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (p int REFERENCES parent);
        INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1), (1), (2);";
    let mut scene = Scene::onto_nothing(&format!("{schema}{PAD}"), slow);
    let mut loading = scene.pgshadow.begin(&["backfill", "--create-schema"]);
    let only_pad =
        || Some(()).filter(|()| scene.pgshadow.status()["awaiting_load"] == serde_json::json!(["public.pad"]));
    eventually("all but one are loaded", LIMIT, only_pad);
    scene.pgshadow.kill9();
    loading.wait().unwrap();
    scene.pgshadow.start();
    scene.app().psql("TRUNCATE parent CASCADE; INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (2)");
    eventually("all are suspect", LIMIT, || {
        Some(()).filter(|()| scene.pgshadow.suspect_tables().iter().any(|t| t == EVERY_TABLE))
    });
    scene.pgshadow.run(&["backfill"], LIMIT);
    scene.drain();
    // but what was loaded since: the last one, and large objects
    assert_eq!(scene.pgshadow.suspect_tables(), ["every table but 2"], "nobody has looked at the child");
    assert_eq!(scene.pgshadow.run(&["verify"], LIMIT).status.code(), Some(3), "its old rows are there");
}

/// Triggers that act in replica mode as well would act on what is loaded.
#[test]
fn triggers_that_always_act_are_refused() {
    let scene = Scene::of("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE audit (id int); INSERT INTO t VALUES (1)");
    scene.target.psql(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit VALUES (NEW.id); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()",
    );
    for mode in ["ALWAYS", "REPLICA"] {
        scene.target.psql(&format!("ALTER TABLE t ENABLE {mode} TRIGGER note"));
        let told = refused(&scene.pgshadow, &["--table", "public.t"]);
        assert!(told.contains("t (by note) has triggers") && told.contains("ENABLE ALWAYS"), "{told}");
    }
    scene.target.psql("ALTER TABLE t ENABLE TRIGGER note");
    backfill(&scene.pgshadow, &["--table", "public.t"]);
    assert_eq!(count(&scene.target, "audit"), "0");
}

/// A table that gets another name, or another schema's, while it awaits its load is loaded all the same.
#[test]
fn what_is_renamed_while_it_awaits_its_load_is_loaded() {
    let new = "CREATE TABLE s.pad (id int PRIMARY KEY, w int); INSERT INTO s.pad VALUES (1, 1)";
    for renamed in [
        "ALTER SCHEMA s RENAME TO s2",
        "ALTER TABLE s.pad RENAME TO other",
        "ALTER TABLE s.pad SET SCHEMA public",
        // and another one takes its name
        &format!("ALTER SCHEMA s RENAME TO s2; CREATE SCHEMA s; {new}"),
        &format!("ALTER TABLE s.pad RENAME TO other; {new}"),
    ] {
        let pad = PAD.replace("pad", "s.pad");
        let scene = Scene::with(&format!("CREATE SCHEMA s; {pad}"), "DELETE FROM s.pad", slow);
        let mut loading = scene.pgshadow.begin(&["backfill"]);
        wait_for(&scene.pgshadow, |state| state["running"]["progress"]["rows"].as_u64().is_some_and(|rows| rows > 100));
        scene.pgshadow.run(&["backfill", "--stop"], LIMIT);
        loading.wait().unwrap();
        scene.app().psql("UPDATE s.pad SET v = 'x' WHERE id < 10");
        scene.app().psql(renamed);
        scene.drain();
        backfill(&scene.pgshadow, &[]);
        scene.drain();
        integration_tests::equal::assert_equal(&scene.source, &scene.target);
        assert_eq!(scene.suspects(), Vec::new(), "{renamed}");
    }
}

/// What an extension's tables hold is its own business, which is said.
#[test]
fn tables_of_extensions_are_named() {
    let scene = Scene::of(
        "CREATE TABLE cfg (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
    );
    for server in servers() {
        server.superuser().in_database(&scene.source.database).psql("ALTER EXTENSION plpgsql ADD TABLE cfg");
    }
    scene.source.psql("INSERT INTO cfg VALUES (1)");
    let report = backfill(&scene.pgshadow, &[]);
    let told = &report["differences"][0];
    assert!(
        told["name"] == "public.cfg" && told["primary"].to_string().contains("of the extension plpgsql"),
        "{report:#}"
    );
}

/// What comes last comes behind what it is about.
#[test]
fn statistics_and_comments_are_there() {
    let scene = Scene::onto_nothing(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int); INSERT INTO t SELECT g, g % 10, g % 10 FROM generate_series(1, 2000) g;
         CREATE STATISTICS of_both ON a, b FROM t; CREATE TABLE parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
         CREATE TABLE part PARTITION OF parts DEFAULT; INSERT INTO parts SELECT g, g % 7 FROM generate_series(1, 2000) g;
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing(); COMMENT ON TRIGGER tr ON t IS 'a trigger'",
        |builder| builder,
    );
    let report = backfill(&scene.pgshadow, &["--create-schema"]);
    assert_eq!(report["not_made"], serde_json::json!([]), "{report:#}");
    let one = |sql: &str| owner_of_target(&scene).psql(sql).trim().to_owned();
    assert_eq!(one("SELECT count(*) FROM pg_statistic_ext_data"), "1");
    assert_eq!(one("SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'parts'"), "t");
    assert_eq!(one("SELECT obj_description(oid, 'pg_trigger') FROM pg_trigger WHERE tgname = 'tr'"), "a trigger");
}

/// A target that an earlier version has loaded is brought on.
#[test]
fn a_target_of_an_earlier_version_is_brought_on() {
    let mut scene = Scene::of("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    backfill(&scene.pgshadow, &[]);
    scene.pgshadow.stop();
    owner_of_target(&scene).psql("ALTER TABLE pgshadow.awaited DROP COLUMN oid");
    scene.pgshadow.start();
    backfill(&scene.pgshadow, &["--again"]);
    scene.drain();
    assert_eq!(scene.suspects(), Vec::new());
}
