//! UPDATEs of keys, and of tables without one, whose rows are told by joins, subqueries and functions: before 18 they are locked ahead,
//! and it is looked behind them whether they were those that were written.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
use integration_tests::client::{LIMIT, within};
use integration_tests::equal;
use integration_tests::scene::Scene;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

const TABLES: &str = "CREATE TABLE k (id int PRIMARY KEY, v int, s text); INSERT INTO k SELECT g, g % 5, 'row ' || g FROM generate_series(1, 40) g;
    CREATE TABLE o (of int, w int); INSERT INTO o SELECT g, g + 500 FROM generate_series(1, 20) g; INSERT INTO o VALUES (3, 503), (3, 503);
    CREATE VIEW w AS SELECT of, lower(w::text) AS low FROM o WHERE of > 10;
    CREATE TABLE keyless (v int, s text); INSERT INTO keyless SELECT g % 3, 's' || g % 2 FROM generate_series(1, 9) g;
    CREATE TABLE parent (id int PRIMARY KEY, n int); CREATE TABLE child (id int PRIMARY KEY, parent_id int REFERENCES parent ON UPDATE CASCADE);
    INSERT INTO parent SELECT g, g FROM generate_series(1, 9) g; INSERT INTO child SELECT g, g FROM generate_series(1, 9) g;
    CREATE TABLE self (id int PRIMARY KEY, up int REFERENCES self ON UPDATE CASCADE); INSERT INTO self VALUES (1, NULL), (2, 1);
    CREATE TABLE parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
    CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10); CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (99);
    INSERT INTO parts SELECT g, g FROM generate_series(1, 19) g;
    CREATE TABLE odds (v int, s text); INSERT INTO odds VALUES (1, 'a'), (2, 'b'), (3, 'a');
    CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF OLD.v = 2 THEN RETURN NULL; END IF; RETURN NEW; END';
    CREATE TRIGGER odd BEFORE UPDATE ON odds FOR EACH ROW EXECUTE FUNCTION odd();
    CREATE FUNCTION loud(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''called''; RETURN $1; END'; CREATE SEQUENCE q;";

const BY_LOOKS: &[&str] = &[
    "UPDATE k SET id = o.w FROM o WHERE o.of = k.id AND k.id < 3",
    // found three times, written once
    "UPDATE k SET id = o.w + 400 FROM o WHERE o.of = k.id AND k.id = ANY (ARRAY[3]) RETURNING k.*, o.w",
    "UPDATE k AS x SET id = x.id + 2000, s = a.w || b.low FROM o a JOIN w b ON a.of = b.of, LATERAL (SELECT a.w + 1) AS l(n) WHERE x.id = a.of AND n > 512",
    "UPDATE public.k SET id = id + 3000 WHERE id IN (SELECT of FROM o WHERE of BETWEEN 5 AND 8)",
    "UPDATE k SET id = (SELECT max(id) + 1 FROM k) WHERE id = (SELECT min(id) FROM k)",
    "UPDATE k SET id = 7000 WHERE id = (SELECT id FROM k WHERE v = 1 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING *",
    "UPDATE k SET id = id + 9000 FROM o WHERE false",
    "UPDATE k SET id = id + 8000 WHERE lower(s) = 'row 30'; UPDATE k SET id = id + 1 WHERE id > (SELECT 8000); UPDATE k SET v = 8 WHERE id = 31",
    "BEGIN; UPDATE k SET id = -id WHERE id IN (SELECT 33); SAVEPOINT a; UPDATE k SET id = -id WHERE id IN (SELECT -33); ROLLBACK TO a; \
     UPDATE k SET id = id - 1 WHERE abs(id) = 33; COMMIT",
    "BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE k SET id = -id WHERE id IN (SELECT 35); UPDATE keyless SET v = 9 FROM o WHERE o.of = keyless.v; COMMIT",
    "UPDATE keyless SET v = 50 WHERE ctid = (SELECT min(ctid) FROM keyless)",
    "UPDATE keyless SET s = o.w::text FROM o WHERE o.of = keyless.v RETURNING keyless.*, o.w",
    "UPDATE keyless SET v = v + 1 WHERE EXISTS (SELECT FROM w WHERE keyless.v < of)",
    "UPDATE parent SET id = o.w FROM o WHERE o.of = parent.id AND n < 4",
    "UPDATE parts SET id = o.of + 60 FROM o WHERE o.of = parts.id AND o.of % 4 = 1",
    "UPDATE odds SET v = 7 WHERE v IN (SELECT 1)",
    "UPDATE odds SET v = 8 WHERE v = 7 RETURNING *",
];

#[test]
fn joins_subqueries_and_functions() {
    for scene in [Scene::of(TABLES), Scene::newest(TABLES)] {
        let app = scene.app();
        for statement in BY_LOOKS {
            app.psql(statement);
            scene.drain();
            assert!(scene.suspects().is_empty(), "{statement}: {:?}", scene.suspects());
        }
        scene.expect_exact();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_parameters() {
    for scene in [Scene::of(TABLES), Scene::newest(TABLES)] {
        let mut client = scene.app().connect().await;
        let moved = client
            .prepare("UPDATE k SET id = o.w + $1 FROM o WHERE o.of = k.id AND o.of = $2 RETURNING o.w")
            .await
            .unwrap();
        for of in [1_i32, 2, 3] {
            assert_eq!(client.query(&moved, &[&1000_i32, &of]).await.unwrap().len(), 1);
        }
        let first = "UPDATE keyless SET s = $2 WHERE ctid = (SELECT min(ctid) FROM keyless WHERE v = $1)";
        assert_eq!(client.execute(first, &[&1_i32, &"one"]).await.unwrap(), 1);
        let transaction = client.transaction().await.unwrap();
        assert_eq!(transaction.execute(first, &[&2_i32, &"two"]).await.unwrap(), 1);
        assert_eq!(transaction.execute(first, &[&77_i32, &"none"]).await.unwrap(), 0);
        // in one batch
        let (a, b) = (&transaction.prepare(first).await.unwrap(), &moved);
        let both =
            futures::join!(transaction.execute(a, &[&0_i32, &"zero"]), transaction.query(b, &[&2000_i32, &9_i32]));
        assert_eq!((both.0.unwrap(), both.1.unwrap().len()), (1, 1));
        transaction.commit().await.unwrap();
        scene.expect_exact();
    }
}

/// What can't be looked at behind, or may not run once more, is declared, and the client's own text goes out.
#[test]
fn what_stays_declared() {
    let sets = "UPDATE k SET id = id + 100 WHERE id = ";
    for (statement, table) in [
        (format!("{sets}(SELECT nextval('q')::int)"), "public.k"),
        (format!("{sets}(SELECT 1 WHERE clock_timestamp() > '2000-01-01')"), "public.k"),
        (format!("{sets}(SELECT 5 FOR UPDATE NOWAIT)"), "public.k"),
        (format!("BEGIN ISOLATION LEVEL SERIALIZABLE; {sets}(SELECT 6); COMMIT"), "public.k"),
        (format!("WITH x AS (SELECT 7 AS id) {sets}(SELECT id FROM x)"), "public.k"),
        ("UPDATE self SET id = 11 WHERE id = (SELECT 1)".to_owned(), "public.self"),
        // one of them is passed over by the trigger
        ("UPDATE odds SET v = 6 WHERE v IN (SELECT generate_series(1, 2))".to_owned(), "public.odds"),
    ] {
        let scene = Scene::of(TABLES);
        scene.app().psql(&statement);
        scene.drain();
        let suspects = scene.suspects();
        let named = !suspects.is_empty() && suspects.iter().all(|(name, _)| name == table);
        assert!(named, "{statement}: {suspects:?}");
        // the sequence was drawn from as often as the client asked
        assert_eq!(scene.source.psql("SELECT last_value < 2 FROM q"), "t", "{statement}");
    }
}

/// A role that may not call what keeps the places has its own text sent.
#[test]
fn without_the_right_to_set() {
    let scene = Scene::of(TABLES);
    scene.source.as_user("postgres", "postgres").psql("REVOKE EXECUTE ON FUNCTION set_config FROM PUBLIC");
    scene.app().psql("UPDATE k SET id = o.w FROM o WHERE o.of = k.id");
    scene.expect_suspects(&[("public.k", "the old key can't be told")]);
}

/// More rows than are looked at, and functions that speak: once.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_sees_nothing_of_it() {
    let scene = Scene::of(TABLES);
    let [direct, proxied] = [&scene.source, &scene.app()].map(|endpoint| {
        let spoken = |sql: &str| endpoint.try_psql(&format!("{sql}; ROLLBACK")).unwrap_or_else(|error| error);
        [
            "BEGIN; UPDATE k SET id = id + 100 WHERE id = loud(5)",
            "BEGIN READ ONLY; UPDATE k SET id = id + 100 WHERE id IN (SELECT 5)",
            "BEGIN; UPDATE k SET id = id + 100 FROM o WHERE o.of = k.id AND 1 / (o.of - 3) > 0",
            "UPDATE k SET id = id + 100 FROM o WHERE o.nothing = k.id",
            "UPDATE k SET id = id + 100 FROM o, LATERAL (SELECT k.id) AS l WHERE o.of = k.id",
            "SELECT count(*) FROM pg_settings WHERE name LIKE '%pgshadow%'",
        ]
        .map(spoken)
    });
    for (direct, proxied) in direct.iter().zip(&proxied) {
        let places = |text: &str| text.lines().filter(|line| !line.contains("LOCATION")).collect::<Vec<_>>().join("\n");
        assert_eq!(places(direct), places(proxied));
    }
    scene.expect_exact();
    scene.app().psql("INSERT INTO keyless SELECT 100 + g, 'many' FROM generate_series(1, 10001) g");
    scene.app().psql("UPDATE keyless SET s = 'more' WHERE v > (SELECT 100)");
    scene.expect_suspects(&[("public.keyless", "could not be told")]);
}

async fn until_waiting(source: &Client, count: i64) {
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    within(LIMIT, "a session that waits for a lock", async {
        while source.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The UPDATE's lock has found the row that `o` names, and waits for it; then `o` names another, and the row is given free.
async fn found_otherwise(text: &str, extended: bool, holders: &str, suspect: &str) {
    let schema = "CREATE TABLE k (id int PRIMARY KEY, v int); INSERT INTO k SELECT g, 0 FROM generate_series(1, 5) g;
        CREATE TABLE l (id int, v int); INSERT INTO l SELECT * FROM k; CREATE TABLE o (of int); INSERT INTO o VALUES (1)";
    let scene = Scene::of(schema);
    let (holder, other, client) =
        (scene.app().connect().await, scene.source.connect().await, scene.app().connect().await);
    holder.batch_execute(&format!("BEGIN; {holders}")).await.unwrap();
    let own = text.to_owned();
    let update: JoinHandle<u64> = tokio::spawn(async move {
        if extended {
            return client.execute(&own, &[]).await.unwrap();
        }
        let messages = client.simple_query(&own).await.unwrap();
        messages
            .iter()
            .map(|m| if let tokio_postgres::SimpleQueryMessage::CommandComplete(n) = m { *n } else { 0 })
            .sum()
    });
    until_waiting(&other, 1).await;
    scene.app().psql("UPDATE o SET of = 2");
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(within(LIMIT, "the UPDATE", update).await.unwrap(), 1, "{text}");
    scene.expect_suspects(&[(suspect, "other rows were written than had been locked ahead")]);
    // it was the other one
    assert_eq!(scene.source.psql("SELECT count(*) FROM k JOIN l USING (id) WHERE id = 2 AND k.v = l.v"), "0");
}

/// As many rows as were locked, but others: numbers don't tell.
#[tokio::test(flavor = "multi_thread")]
async fn others_as_many() {
    for extended in [false, true] {
        for (text, suspect) in [
            ("UPDATE k SET id = k.id + 100 FROM o WHERE k.id = o.of", "public.k"),
            ("UPDATE k SET id = k.id + 100 WHERE id = (SELECT of FROM o)", "public.k"),
            ("UPDATE l SET id = l.id + 100 FROM o WHERE l.id = o.of", "public.l"),
        ] {
            for holders in [
                "SELECT FROM k, l WHERE k.id = 1 AND l.id = 1 FOR UPDATE",
                "UPDATE k SET v = 1 WHERE id = 1; UPDATE l SET v = 1 WHERE id = 1 AND v = 0",
            ] {
                found_otherwise(text, extended, holders, suspect).await;
            }
        }
    }
}

/// The same without a join, where a trigger passes over the row that was locked.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_passes_over_it() {
    let scene = Scene::of(TABLES);
    let (holder, other, client) =
        (scene.app().connect().await, scene.source.connect().await, scene.app().connect().await);
    holder.batch_execute("BEGIN; SELECT FROM odds WHERE v = 2 FOR UPDATE").await.unwrap();
    let update = tokio::spawn(async move { client.batch_execute("UPDATE odds SET v = v + 100 WHERE s = 'b'").await });
    until_waiting(&other, 1).await;
    scene.app().psql("INSERT INTO odds VALUES (5, 'b')");
    holder.batch_execute("COMMIT").await.unwrap();
    within(LIMIT, "the UPDATE", update).await.unwrap().unwrap();
    scene.expect_suspects(&[("public.odds", "other rows were written than had been locked ahead")]);
    assert_eq!(scene.source.psql("SELECT v FROM odds WHERE s = 'b' ORDER BY v"), "2\n105");
}

/// A row that another one has changed while the lock waited for it is locked, and looked for, where it stands now.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_has_moved_meanwhile() {
    let scene = Scene::of(TABLES);
    let (holder, other, client) =
        (scene.app().connect().await, scene.source.connect().await, scene.app().connect().await);
    holder.batch_execute("BEGIN; UPDATE k SET v = 77 WHERE id = 1").await.unwrap();
    let update = tokio::spawn(async move {
        client.execute("UPDATE k SET id = o.w FROM o WHERE o.of = k.id AND o.of < 3", &[]).await
    });
    until_waiting(&other, 1).await;
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(within(LIMIT, "the UPDATE", update).await.unwrap().unwrap(), 2);
    scene.expect_exact();
    assert_eq!(scene.target.psql("SELECT v FROM k WHERE id = 501"), "77");
}

/// Many at once, over tables whose joined rows change all the time: what differs is suspect, and there is no finding.
#[tokio::test(flavor = "multi_thread")]
async fn beside_writers_of_what_is_joined() {
    let tables = "CREATE TABLE o (n int PRIMARY KEY, of int); INSERT INTO o VALUES (1, 1), (2, 2);";
    let scene = Scene::of(&(0..6).fold(tables.to_owned(), |all, n| {
        format!("{all} CREATE TABLE k{n} (id int PRIMARY KEY, v int); INSERT INTO k{n} SELECT g, 0 FROM generate_series(1, 10) g; \
                 CREATE TABLE l{n} (id int, v int); INSERT INTO l{n} SELECT g, 0 FROM generate_series(1, 10) g;")
    }));
    let mut all: Vec<JoinHandle<()>> = Vec::new();
    for n in 0..6_i32 {
        let app = scene.app();
        all.push(tokio::spawn(async move {
            let client = app.connect().await;
            for i in 0..60_i32 {
                let table = if i % 2 == 0 { "k" } else { "l" };
                let text = format!("UPDATE {table}{n} AS t SET id = -t.id, v = t.v + 1 FROM o WHERE abs(t.id) = o.of");
                let simple = i % 3 == 0;
                let done =
                    if simple { client.batch_execute(&text).await } else { client.execute(&text, &[]).await.map(drop) };
                done.unwrap();
            }
        }));
    }
    for n in 1..3_i32 {
        let app = scene.app();
        all.push(tokio::spawn(async move {
            let client = app.connect().await;
            for i in 0..400_i32 {
                client.execute("UPDATE o SET of = $1 WHERE n = $2", &[&(i % 10 + 1), &n]).await.unwrap();
            }
        }));
    }
    let all = within(Duration::from_secs(60), "the writers", futures::future::join_all(all)).await;
    all.into_iter().for_each(|one| one.unwrap());
    scene.drain();
    let suspects = scene.suspects();
    for (table, reason) in &suspects {
        assert!(reason.contains("other rows were written than had been locked ahead"), "{table}: {reason}");
    }
    for difference in equal::differences(&scene.source, &scene.target) {
        assert!(suspects.iter().any(|(table, _)| *table == difference.table), "{difference}");
    }
    assert_eq!(scene.pgshadow.status()["findings_open"], 0, "{:#}", scene.pgshadow.report());
}
