//! What can't be captured exactly is declared: its tables are suspect with a reason, all others stay equal.
#![allow(clippy::expect_used, reason = "a test fails by a panic")]
use integration_tests::raw::RawClient;
use integration_tests::scene::{EVERY_TABLE, Scene};

const KEYED: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int, s text); CREATE TABLE other (id int PRIMARY KEY, v int);
    INSERT INTO t SELECT g, g * 10, 'row ' || g FROM generate_series(1, 20) g; INSERT INTO other VALUES (1, 1);";

#[track_caller]
fn declared(schema: &str, script: &str, expected: &[(&str, &str)]) {
    let scene = Scene::of(&format!("{KEYED} {schema}"));
    scene.app().psql(&format!("{script}; UPDATE other SET v = v + 1;"));
    scene.expect_suspects(expected);
}

#[test]
fn an_assigned_key() {
    let script = "UPDATE t SET id = t.id + 1000 FROM other WHERE t.v = other.v * 10 AND now() > '2000-01-01'";
    declared("", script, &[("public.t", "key may have changed")]);
}

#[test]
fn a_string_whose_own_transaction_becomes_a_block() {
    for rest in [r"BEGIN \; UPDATE t SET v = 2 WHERE id = 2 \; COMMIT", r"COMMIT \; SELECT 1", "ROLLBACK"] {
        let script = format!(r"UPDATE t SET v = 1 WHERE id = 1 \; {rest}");
        declared("", &script, &[("public.t", "both inside and outside")]);
    }
}

#[test]
fn an_update_of_rows_without_a_key() {
    let script =
        "INSERT INTO k VALUES (1), (1); UPDATE k SET v = 2 WHERE v IN (SELECT id FROM other) AND now() > '2000-01-01'";
    declared("CREATE TABLE k (v int);", script, &[("public.k", "no key")]);
}

#[test]
fn a_write_inside_with() {
    let script = "WITH gone AS (DELETE FROM t WHERE id < 3 RETURNING *) INSERT INTO k SELECT id FROM gone";
    declared("CREATE TABLE k (id int PRIMARY KEY);", script, &[("public.t", "WITH"), ("public.k", "WITH")]);
}

#[test]
fn a_write_through_a_view() {
    let expected = [("public.w", "view"), ("public.t", "")];
    declared("CREATE VIEW w AS SELECT v FROM t;", "UPDATE w SET v = 1 WHERE v = 10", &expected);
}

#[test]
fn rules() {
    let schema = "CREATE TABLE r (id int PRIMARY KEY); CREATE RULE twice AS ON INSERT TO r DO ALSO INSERT INTO t VALUES (NEW.id + 500);";
    let scene = Scene::of(&format!("{KEYED} {schema}"));
    scene.app().psql("INSERT INTO r VALUES (1)");
    scene.drain();
    let tables: Vec<_> = scene.suspects().into_iter().map(|(table, _)| table).collect();
    assert!(tables.contains(&"public.r".to_owned()) && tables.contains(&"public.t".to_owned()), "{tables:?}");
}

#[test]
fn what_a_block_or_procedure_writes_in_a_transaction() {
    let schema = "CREATE TABLE k (id int PRIMARY KEY); INSERT INTO k VALUES (1);
        CREATE PROCEDURE p() LANGUAGE sql AS 'DELETE FROM k';";
    let script = "BEGIN; DO $$ BEGIN UPDATE t SET v = 0; END $$; CALL p(); COMMIT";
    declared(schema, script, &[("public.t", "a block"), ("public.k", "a block")]);
}

#[test]
fn a_block_on_its_own_may_have_written_anything() {
    declared("", "DO $$ BEGIN UPDATE t SET v = 0; COMMIT; END $$", &[(EVERY_TABLE, "block outside a transaction")]);
}

#[test]
fn what_a_function_writes() {
    let schema = "CREATE TABLE k (id int PRIMARY KEY);
        CREATE FUNCTION f(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO k VALUES (i); RETURN i; END';";
    declared(schema, "SELECT f(1); SELECT f(g) FROM generate_series(2, 4) g", &[("public.k", "")]);
}

#[test]
fn what_a_trigger_writes() {
    let schema = "CREATE TABLE audit (id serial PRIMARY KEY, what text);
        CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO audit (what) VALUES (TG_OP); RETURN NULL; END';
        CREATE TRIGGER noted AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION noted();";
    let script = "UPDATE t SET v = 1 WHERE id = 1";
    declared(schema, script, &[("public.audit", ""), ("public.t", "")]);
}

#[test]
fn a_before_trigger_changes_the_row() {
    // Its image is what was stored: exact, whatever the trigger did.
    let scene = Scene::of(&format!(
        "{KEYED} CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.s := upper(NEW.s); RETURN NEW; END';
        CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION shout();"
    ));
    scene.app().psql("UPDATE t SET v = 1 WHERE id = 1; INSERT INTO t VALUES (100, 1, 'abc');");
    scene.drain();
    let differences = integration_tests::equal::differences(&scene.source, &scene.target);
    assert!(differences.is_empty(), "{differences:?}");
    assert_eq!(scene.pgshadow.status()["findings_open"], 0);
}

#[test]
fn composite_values() {
    let schema = "CREATE TYPE pair AS (a int, b text); CREATE TABLE k (id int PRIMARY KEY, c pair, cs pair[]);";
    let script = "INSERT INTO k VALUES (1, '(1,x)', '{\"(2,y)\"}')";
    declared(schema, script, &[("public.k", "can't be carried in binary form")]);
}

#[test]
fn a_merge() {
    let script =
        "MERGE INTO t USING other o ON t.id = o.id WHEN MATCHED THEN UPDATE SET v = 5 WHEN NOT MATCHED THEN DO NOTHING";
    declared("", script, &[("public.t", "MERGE")]);
}

#[test]
fn an_explained_write() {
    declared("", "EXPLAIN (ANALYZE, COSTS OFF) DELETE FROM t WHERE id = 1", &[("public.t", "EXPLAIN ANALYZE")]);
}

#[test]
fn ddl_that_computes_values() {
    let script =
        "CREATE TABLE copied AS SELECT * FROM t WHERE id < 5; ALTER TABLE t ADD COLUMN r float8 DEFAULT random();
        CREATE TABLE plain (id int PRIMARY KEY); INSERT INTO plain VALUES (1)";
    declared("", script, &[("public.copied", ""), ("public.t", "")]);
}

#[test]
fn a_copy_that_stores_something_else() {
    let scene = Scene::of(&format!("{KEYED} CREATE TABLE k (id serial PRIMARY KEY, v int);"));
    scene
        .app()
        .psql("BEGIN ISOLATION LEVEL SERIALIZABLE;\nCOPY t FROM STDIN WHERE id > 100;\n50\t1\ta\n101\t1\tb\n\\.\nCOPY k (v) FROM STDIN;\n1\n2\n\\.\nCOMMIT;\n");
    scene.expect_suspects(&[("public.t", "WHERE"), ("public.k", "default is computed")]);
}

#[test]
fn inheritance_children_and_row_level_security() {
    let schema = "CREATE TABLE parent (id int PRIMARY KEY, v int); CREATE TABLE child () INHERITS (parent);
        CREATE TABLE secret (id int PRIMARY KEY, who text, v int); INSERT INTO secret VALUES (1, 'app', 1), (2, 'b', 1);
        ALTER TABLE secret ENABLE ROW LEVEL SECURITY; ALTER TABLE secret FORCE ROW LEVEL SECURITY;
        CREATE POLICY own ON secret USING (who = current_user);";
    let script = "INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (2, 2); UPDATE parent SET v = 5; UPDATE secret SET v = 2";
    let expected =
        [("public.parent", "inheritance"), ("public.child", "inheritance"), ("public.secret", "row-level security")];
    declared(schema, script, &expected);
}

#[test]
fn a_prepared_transaction() {
    let script = "BEGIN; UPDATE t SET v = 1 WHERE id = 1; PREPARE TRANSACTION 'gid'; COMMIT PREPARED 'gid'";
    let scene = Scene::of(KEYED);
    scene.app().psql(script);
    scene.drain();
    let suspect = scene.suspects().iter().any(|(table, _)| table == "public.t");
    let equal = integration_tests::equal::differences(&scene.source, &scene.target).is_empty();
    assert!(suspect || equal, "a prepared transaction's rows are there, or their table is suspect");
}

#[test]
fn an_excluded_table_is_neither_mirrored_nor_suspect() {
    let scene = Scene::with(KEYED, "", |builder| builder.set("mirror", "exclude", "[\"public.t\"]"));
    scene.app().psql("UPDATE t SET v = -1; UPDATE other SET v = 9;");
    scene.drain();
    assert_eq!(scene.suspects(), []);
    let differences = integration_tests::equal::differences(&scene.source, &scene.target);
    let tables: Vec<_> = differences.iter().map(|difference| difference.table.as_str()).collect();
    assert_eq!(tables, ["public.t"]);
}

#[test]
fn copied_moments() {
    let scene = Scene::of(&format!("{KEYED} CREATE TABLE m (id int PRIMARY KEY, at timestamptz, d date);"));
    scene.app().psql("COPY m FROM STDIN;\n1\t2024-01-01\t2024-01-02\n\\.\n");
    scene.expect_exact();
    scene.app().psql("COPY m FROM STDIN;\n2\tnow\ttoday\n\\.\n");
    scene.expect_suspects(&[("public.m", "a moment")]);
}

#[test]
fn a_partitioned_table_is_suspect_with_its_partitions() {
    let schema = "CREATE TABLE parts (id int, at date, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10);";
    let scene = Scene::of(&format!("{KEYED} {schema}"));
    scene.app().psql("COPY parts FROM STDIN;\n1\ttoday\n\\.\n");
    scene.expect_suspects(&[("public.parts", "a moment"), ("public.low", "a moment")]);
}

#[test]
fn defaults_that_name_the_present() {
    declared("", "CREATE TABLE m (id int, at timestamptz DEFAULT 'now')", &[("public.m", "names the present")]);
    declared(
        "",
        "ALTER TABLE t ADD at date; ALTER TABLE t ALTER at SET DEFAULT 'today'",
        &[("public.t", "names the present")],
    );
}

#[test]
fn a_column_of_a_domain_with_a_default() {
    let schema = "CREATE DOMAIN chance AS float8 DEFAULT random();";
    declared(schema, "ALTER TABLE t ADD COLUMN r chance", &[("public.t", "default of its own")]);
}

/// A session of the superuser's, message by message.
fn raw(scene: &Scene) -> RawClient {
    let login = RawClient::login(scene.pgshadow.port(), "postgres", "", &scene.source.database);
    login.expect("a login").0
}

#[test]
fn rows_that_are_never_fetched() {
    const SQL: &[u8] = b"\0UPDATE t SET v = v + 1 WHERE id < 4 RETURNING id\0\0\0";
    let run = |rows: u8, behind: &[(u8, &[u8])]| {
        let scene = Scene::of(KEYED);
        let mut client = raw(&scene);
        let bind = (b'B', b"\0\0\0\0\0\0\0\0".as_slice());
        let execute = [0, 0, 0, 0, rows];
        let parts = [&[(b'P', SQL), bind, (b'E', execute.as_slice())], behind, &[(b'S', b"".as_slice())]].concat();
        parts.iter().for_each(|(tag, body)| client.send_frame(*tag, body).expect("sent"));
        client.receive_until_ready().expect("an answer");
        scene
    };
    let all = (b'E', b"\0\0\0\0\0".as_slice());
    let again = (b'B', b"\0\0\0\0\0\0\0\0".as_slice());
    run(2, &[]).expect_exact();
    run(2, &[all]).expect_exact();
    run(2, &[(b'C', b"P\0")]).expect_exact();
    run(4, &[again, all]).expect_exact();
    run(2, &[again, all]).expect_suspects(&[("public.t", "fetched in parts")]);
}

#[test]
fn a_copy_amid_whose_data_syncs_were_sent() {
    const SQL: &[u8] = b"\0COPY m (id) FROM STDIN\0\0\0";
    const MESSAGES: [(u8, &[u8]); 3] = [(b'P', SQL), (b'B', &[0; 8]), (b'E', &[0; 5])];
    let data = |line: &'static [u8]| (b'd', line);
    let (done, sync) = ((b'c', b"".as_slice()), (b'S', b"".as_slice()));
    for (between, expected) in [(None, None), (Some(sync), Some(("public.m", "")))] {
        let scene = Scene::of("CREATE TABLE m (id int PRIMARY KEY, r float8 DEFAULT random())");
        let mut client = raw(&scene);
        let copied = [data(b"1\n")].into_iter().chain(between).chain([data(b"2\n"), done, sync]);
        MESSAGES.into_iter().chain(copied).for_each(|(tag, body)| client.send_frame(tag, body).expect("sent"));
        let answers = client.receive_until_ready().expect("an answer");
        assert!(answers.iter().all(|frame| frame.tag != b'E'));
        match expected {
            None => scene.expect_exact(),
            Some(suspect) => scene.expect_suspects(&[suspect]),
        }
    }
}

#[test]
fn a_copy_into_more_partitions_than_are_looked_at() {
    for (partitions, exact) in [(199, true), (200, false)] {
        let parts = (1..=partitions).map(|n| format!("CREATE TABLE part{n} PARTITION OF parts FOR VALUES IN ({n});"));
        let schema = "CREATE TABLE parts (id int PRIMARY KEY, r float8 DEFAULT random()) PARTITION BY LIST (id);";
        let scene = Scene::of(&format!("{schema} {}", parts.collect::<String>()));
        scene.app().psql("COPY parts (id) FROM STDIN;\n1\n2\n\\.\n");
        if exact {
            scene.expect_exact();
            continue;
        }
        let tables = (1..=partitions).map(|n| format!("public.part{n}")).chain(["public.parts".to_owned()]);
        let tables: Vec<String> = tables.collect();
        let expected: Vec<(&str, &str)> = tables.iter().map(|table| (table.as_str(), "computed")).collect();
        scene.expect_suspects(&expected);
    }
}

/// Sends statements in one batch, and waits for its end.
fn batch(client: &mut RawClient, statements: &[&str]) {
    for sql in statements {
        let text = [b"\0", sql.as_bytes(), b"\0\0\0"].concat();
        let messages = [(b'P', text.as_slice()), (b'B', &[0; 8]), (b'E', &[0; 5])];
        messages.iter().for_each(|(tag, body)| client.send_frame(*tag, body).expect("sent"));
    }
    client.send_frame(b'S', b"").expect("sent");
    client.receive_until_ready().expect("an answer");
}

/// COMMIT and ROLLBACK without BEGIN end what a batch has done so far, by the server's version; the rest may fail all the same.
#[test]
fn a_batch_that_ends_its_transaction_without_a_block() {
    let schema = format!("{KEYED} CREATE FUNCTION hidden() RETURNS void LANGUAGE sql AS 'UPDATE other SET v = -3';");
    for (end, behind) in
        [("COMMIT", "SELECT 1 / 0"), ("COMMIT", "SELECT 1"), ("ROLLBACK", "SELECT 1"), ("ROLLBACK", "SELECT 1 / 0")]
    {
        for scene in [Scene::of(&schema), Scene::newest(&schema)] {
            let mut client = raw(&scene);
            let (first, second) = ("UPDATE t SET v = -1 WHERE id = 1", "UPDATE t SET v = -2 WHERE id = 2");
            batch(&mut client, &[first, "TRUNCATE other", end, second, behind]);
            scene.app().psql("UPDATE t SET v = 5 WHERE id = 3");
            scene.drain();
            let suspects: Vec<_> = scene.suspects().into_iter().map(|(table, _)| table).collect();
            for difference in integration_tests::equal::differences(&scene.source, &scene.target) {
                assert!(suspects.contains(&difference.table), "{end}, {behind}: {difference}");
            }
            assert!(suspects.contains(&"public.other".to_owned()), "{end}, {behind}: {suspects:?}");
            batch(&mut client, &["SELECT hidden()", end, behind]);
            scene.drain();
            let suspects: Vec<_> = scene.suspects().into_iter().map(|(table, _)| table).collect();
            assert!(suspects.contains(&EVERY_TABLE.to_owned()), "{end}, {behind}: {suspects:?}");
        }
    }
}
