//! COPY that stores other rows than its stream holds: its rows are read back in the same transaction, or declared.
use integration_tests::scene::Scene;

const SCHEMA: &str =
    "CREATE TABLE n (id serial PRIMARY KEY, v int, at timestamptz DEFAULT clock_timestamp(), pad text DEFAULT 'p');
    CREATE TABLE parts (id serial, v int, r float8 DEFAULT random(), PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (50);
    CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (50) TO (1000000);
    CREATE TABLE o (id int PRIMARY KEY, n int REFERENCES n)";

/// 1,111 pages that are full, which is more than is read through for a few rows.
const MANY: &str = "INSERT INTO n (v, pad) SELECT g, repeat('x', 400) FROM generate_series(1, 19998) g";

#[test]
fn among_other_writes_of_its_transaction() {
    let scene = Scene::of(SCHEMA);
    scene.app().psql(
        "BEGIN;\nINSERT INTO n (v) VALUES (1), (2);\nCOPY n (v) FROM STDIN;\n3\n4\n\\.\nUPDATE n SET v = v + 10 WHERE v = 3;
SAVEPOINT a;\nCOPY n (v) FROM STDIN;\n5\n6\n7\n\\.\nSAVEPOINT b;\nCOPY n (v) FROM STDIN;\n8\n\\.\nROLLBACK TO b;\nCOPY parts (v) FROM STDIN;\n1\n2\n\\.
RELEASE a;\nDELETE FROM n WHERE v = 6;\nCOPY n (v) FROM STDIN;\n9\n\\.\nCOPY n (v) FROM STDIN;\n\\.\nCOMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM n;\nCOPY n (v) FROM STDIN;\n20\n\\.\nCOMMIT;
BEGIN;\nCOPY n (v) FROM STDIN;\n30\n\\.\nROLLBACK;
COPY n (v) FROM STDIN;\n40\n\\.\nCOPY parts (v) FROM STDIN WHERE v > 1;\n1\n2\n3\n\\.\n",
    );
    let bulk: String = (0..3000).map(|v| format!("{v}\n")).collect();
    scene.app().psql(&format!("COPY n (v) FROM STDIN;\n{bulk}\\.\nCOPY parts (v) FROM STDIN;\n{bulk}\\.\n"));
    scene.expect_exact();
}

#[tokio::test]
async fn several_sessions_at_once() {
    let scene = Scene::of(SCHEMA);
    let session = |first: usize| {
        let app = scene.app();
        async move {
            use futures::SinkExt;
            let client = app.connect().await;
            for n in 0..40 {
                let sink = client.copy_in("COPY n (v) FROM STDIN").await.unwrap();
                futures::pin_mut!(sink);
                for v in 0..=n % 5 {
                    sink.send(bytes::Bytes::from(format!("{}\n", first + v))).await.unwrap();
                }
                assert_eq!(sink.finish().await.unwrap(), (n % 5 + 1) as u64);
                client
                    .execute("INSERT INTO o SELECT max(id), max(id) FROM n ON CONFLICT DO NOTHING", &[])
                    .await
                    .unwrap();
                client.execute("UPDATE n SET v = v + 1 WHERE id = (SELECT max(id) FROM n)", &[]).await.unwrap();
            }
        }
    };
    tokio::join!(session(0), session(100), session(200), session(300));
    scene.expect_exact();
}

/// At the end of a table that is too large to be read through they are found; elsewhere they can't be, and then no other rows may be
/// taken for them.
#[test]
fn a_large_table() {
    let scene = Scene::of(SCHEMA);
    scene.app().psql(MANY);
    let scene_of_end = Scene::of(SCHEMA);
    scene_of_end.app().psql(MANY);
    scene_of_end.app().psql("COPY n (v) FROM STDIN;\n1\n2\n\\.\nBEGIN;\nINSERT INTO parts (v) VALUES (1);\nCOPY n (v) FROM STDIN;\n3\n\\.\nCOMMIT;\n");
    scene_of_end.expect_exact();
    // there is room at its front for what comes next, but not for long rows
    scene.app().psql("DELETE FROM n WHERE id <= 200 AND id % 2 = 0");
    scene.app().psql("ALTER TABLE n ALTER pad SET STORAGE PLAIN");
    scene.source.psql("VACUUM (INDEX_CLEANUP on) n");
    let in_room = "COPY n (v) FROM STDIN;\n91\n92\n\\.\n";
    scene.app().psql(&format!(
        "BEGIN;\nINSERT INTO n (v, pad) VALUES (81, repeat('x', 8090)), (82, repeat('x', 8090));\n{in_room}COMMIT;\n"
    ));
    let places = scene
        .source
        .psql("SELECT (ctid::text::point)[0] < 1000 FROM n WHERE v IN (81, 82, 91, 92) AND id > 19998 ORDER BY id");
    assert_eq!(places, "f\nf\nt\nt", "the test's own condition");
    scene.expect_suspects(&[("public.n", "default is computed")]);
}

/// A cascade writes the table too, though no statement names it.
#[test]
fn a_large_table_behind_a_cascade() {
    let scene = Scene::of(&format!(
        "{SCHEMA}; CREATE TABLE p (id int PRIMARY KEY); ALTER TABLE n ADD p int REFERENCES p ON UPDATE CASCADE, ALTER pad SET STORAGE PLAIN"
    ));
    scene.app().psql(MANY);
    scene.app().psql("INSERT INTO p VALUES (1); INSERT INTO n (v, pad, p) VALUES (81, repeat('x', 8080), 1), (82, repeat('x', 8080), 1)");
    scene.app().psql("DELETE FROM n WHERE id <= 200 AND id % 2 = 0");
    scene.source.psql("VACUUM (INDEX_CLEANUP on) n");
    scene.app().psql("BEGIN;\nUPDATE p SET id = 2 WHERE id = 1;\nCOPY n (v) FROM STDIN;\n91\n92\n\\.\nCOMMIT;\n");
    let places = scene
        .source
        .psql("SELECT (ctid::text::point)[0] < 1000 FROM n WHERE v IN (81, 82, 91, 92) AND id > 19998 ORDER BY id");
    assert_eq!(places, "f\nf\nt\nt", "the test's own condition");
    scene.expect_suspects(&[("public.n", "default is computed")]);
}

/// Reading what the client never read would make serializable transactions fail.
#[test]
fn a_serializable_transaction_reads_nothing_more() {
    let scene = Scene::of(SCHEMA);
    let locks = scene.app().psql(
        "BEGIN ISOLATION LEVEL SERIALIZABLE;\nCOPY n (v) FROM STDIN;\n1\n\\.\n
         SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'SIReadLock' AND relation = 'n'::regclass;\nCOMMIT;\n",
    );
    assert_eq!(locks, "0");
    scene.expect_suspects(&[("public.n", "default is computed")]);
}

/// What the trigger writes comes behind the rows of the COPY, and may be as many.
#[test]
fn a_trigger_that_writes_the_same_table() {
    let scene = Scene::of(
        "CREATE TABLE w (id serial PRIMARY KEY, v int);
         CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.v < 100 THEN INSERT INTO w (v) VALUES (NEW.v + 100); END IF; RETURN NEW; END';
         CREATE TRIGGER more BEFORE INSERT ON w FOR EACH ROW EXECUTE FUNCTION more()",
    );
    scene.app().psql("COPY w (v) FROM STDIN;\n1\n2\n\\.\n");
    scene.expect_suspects(&[("public.w", "")]);
}
