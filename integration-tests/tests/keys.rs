//! Keys that change and tables without one: the old row is known, so that the shadow finds its own.
use integration_tests::client::within;
use integration_tests::scene::Scene;
use std::time::Duration;

const TABLES: &str = "CREATE TABLE k (id int PRIMARY KEY, v int, s text);
    INSERT INTO k SELECT g, g % 5, 'row ' || g FROM generate_series(1, 20) g;
    CREATE TABLE u (a uuid, b varchar(10), c bigint, v int, PRIMARY KEY (a, b, c));
    INSERT INTO u SELECT ('00000000-0000-0000-0000-00000000000' || g)::uuid, 'b' || g, g, g FROM generate_series(1, 9) g;
    CREATE TABLE d (day date PRIMARY KEY, v numeric);
    INSERT INTO d SELECT date '2024-01-01' + g, g FROM generate_series(1, 9) g;
    CREATE TABLE parent (id int PRIMARY KEY, n int); CREATE TABLE child (id int PRIMARY KEY,
      parent_id int REFERENCES parent ON UPDATE CASCADE ON DELETE CASCADE);
    INSERT INTO parent SELECT g, g FROM generate_series(1, 9) g; INSERT INTO child SELECT g, g FROM generate_series(1, 9) g;
    CREATE TABLE keyless (v int, s text, j json); INSERT INTO keyless SELECT g % 3, 's' || g % 2, '{}' FROM generate_series(1, 9) g;
    CREATE TABLE parts (id int, v int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10); CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (99);
    INSERT INTO parts SELECT g, g FROM generate_series(1, 9) g;";

/// In the simple protocol, each by itself and all in one block.
#[track_caller]
fn simple(scene: &Scene, statements: &[&str]) {
    let app = scene.app();
    for statement in statements {
        app.psql(statement);
    }
    scene.expect_exact();
}

const BY_CONSTANTS: &[&str] = &[
    "UPDATE k SET id = 101 WHERE id = 1",
    "UPDATE k AS x SET id = x.id + 100, v = 9 WHERE x.id = 2 RETURNING x.id, v",
    "UPDATE k SET id = 3 WHERE id = '3'",
    "UPDATE k SET id = 4000 WHERE id = 99999",
    "UPDATE k SET id = 105 FROM d WHERE k.id = 5 AND d.v = 1",
    "UPDATE u SET b = 'new' WHERE a = '00000000-0000-0000-0000-000000000001' AND b = 'b1' AND c = 1",
    "UPDATE parts SET id = 55 WHERE id = 5",
    "BEGIN; UPDATE k SET id = 106 WHERE id = 6; SAVEPOINT a; UPDATE k SET id = 206 WHERE id = 106; ROLLBACK TO a; \
     UPDATE k SET id = 306 WHERE id = 106; COMMIT",
    "UPDATE k SET id = 107 WHERE id = 7; UPDATE k SET id = 108 WHERE id = 8;",
    "PREPARE p AS UPDATE k SET id = $1 WHERE id = $2; EXECUTE p(109, 9); EXECUTE p(110, 10)",
    "UPDATE parent SET id = 105 WHERE id = 5",
];

const BY_LOCKS: &[&str] = &[
    "UPDATE k SET id = id + 1000 WHERE v = 1",
    "UPDATE k SET id = id + 1000 WHERE id = 12 OR id = 13 OR id = 20 RETURNING *",
    "UPDATE k SET id = id + 2000 WHERE id > 1000; UPDATE k SET v = 7 WHERE id = 14",
    "BEGIN; UPDATE k SET id = -id WHERE id > 100; UPDATE k SET id = -id WHERE id < 0; COMMIT",
    "UPDATE d SET day = day + 100 WHERE day = '2024-01-03'",
    "UPDATE d SET day = day + 1000",
    "UPDATE parent SET id = id + 50 WHERE n = 3",
    "UPDATE parent SET id = id + 50 WHERE n IN (1, 2)",
    "UPDATE parts SET id = id + 20 WHERE v < 3",
    "UPDATE keyless SET v = v + 1 WHERE s = 's1'",
    "UPDATE keyless SET s = 'é', j = '{\"a\": 1}' WHERE v = 1 RETURNING v",
    "UPDATE keyless SET v = 0",
    "DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless)",
    "BEGIN; UPDATE keyless SET v = 5 WHERE s = 's0'; DELETE FROM keyless WHERE v = 5 AND s = 'é'; COMMIT",
];

#[test]
fn the_text_fixes_the_old_key() {
    simple(&Scene::of(TABLES), BY_CONSTANTS);
}

#[test]
fn rows_are_locked_ahead() {
    simple(&Scene::of(TABLES), BY_LOCKS);
}

#[test]
fn the_newest_server_returns_the_old_row() {
    let scene = Scene::newest(TABLES);
    simple(&scene, BY_CONSTANTS);
    simple(&scene, BY_LOCKS);
    simple(
        &scene,
        &[
            "UPDATE k SET id = (SELECT max(id) + 1 FROM k) WHERE id = (SELECT min(id) FROM k)",
            "UPDATE keyless SET v = k.v FROM k WHERE k.id = keyless.v",
            "INSERT INTO k VALUES (14, 1, 'x'), (500, 1, 'y') ON CONFLICT (id) DO UPDATE SET id = k.id + 600",
            "INSERT INTO parts VALUES (4, 1), (60, 1) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_fix_or_lock() {
    for scene in [Scene::of(TABLES), Scene::newest(TABLES)] {
        let mut client = scene.app().connect().await;
        assert_eq!(client.execute("UPDATE k SET id = $1 WHERE id = $2", &[&101_i32, &1_i32]).await.unwrap(), 1);
        let by_two = client.prepare("UPDATE k SET s = $1, id = id + $2 WHERE v = $3 AND id < 100").await.unwrap();
        for v in [1_i32, 2, 3] {
            assert!(client.execute(&by_two, &[&"moved", &200_i32, &v]).await.unwrap() > 1);
        }
        let key = "UPDATE u SET c = $4 WHERE a = $1::uuid AND b = $2 AND c = $3 RETURNING v";
        let a = "00000000-0000-0000-0000-000000000002";
        let key = client.prepare_typed(key, &[tokio_postgres::types::Type::TEXT]).await.unwrap();
        assert_eq!(client.query(&key, &[&a, &"b2", &2_i64, &22_i64]).await.unwrap().len(), 1);
        client.execute("UPDATE keyless SET v = $1 WHERE s = $2", &[&7_i32, &"s1"]).await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.execute("UPDATE k SET id = $1 WHERE id = $2", &[&102_i32, &101_i32]).await.unwrap();
        transaction.execute("UPDATE keyless SET v = v + 1 WHERE v = $1", &[&7_i32]).await.unwrap();
        transaction.commit().await.unwrap();
        scene.expect_exact();
    }
}

/// What is found by the lock is what the UPDATE finds, although others write the same rows.
#[tokio::test(flavor = "multi_thread")]
async fn beside_other_writers() {
    for scene in [Scene::of(TABLES), Scene::newest(TABLES)] {
        let writers = (0..3_i32).map(|n| {
            let app = scene.app();
            tokio::spawn(async move {
                let client = app.connect().await;
                for i in 0..12_i32 {
                    let v = (n + i) % 5;
                    let text = match i % 4 {
                        0 => format!("UPDATE k SET id = id + 1000 WHERE v = {v}"),
                        1 => format!("UPDATE k SET v = {} WHERE v = {v}", (v + 1) % 5),
                        2 => format!("UPDATE keyless SET v = v + 1 WHERE v % 5 = {v}"),
                        _ => format!("INSERT INTO keyless VALUES ({v}, 's', NULL)"),
                    };
                    // a row may have two writers that each hold what the other wants
                    if let Err(error) = client.batch_execute(&text).await {
                        assert_eq!(error.code().map(|c| c.code()), Some("40P01"), "{error}");
                    }
                }
            })
        });
        let all = futures::future::join_all(writers.collect::<Vec<_>>());
        within(Duration::from_secs(60), "the writers", all).await.into_iter().for_each(|w| w.unwrap());
        scene.drain();
        // new rows may have come between a lock and its UPDATE: then, and only then, the table is suspect
        for (table, reason) in scene.suspects() {
            assert!(reason.contains("other rows were written than had been locked ahead"), "{table}: {reason}");
        }
        let suspect: Vec<String> = scene.suspects().into_iter().map(|(table, _)| table).collect();
        for difference in integration_tests::equal::differences(&scene.source, &scene.target) {
            assert!(suspect.contains(&difference.table), "{difference}");
        }
        assert_eq!(scene.pgshadow.status()["findings_open"], 0, "{:#}", scene.pgshadow.report());
    }
}

#[test]
fn merges() {
    let scene = Scene::newest(TABLES);
    simple(
        &scene,
        &[
            "MERGE INTO k USING (VALUES (1, 7), (2, 8), (50, 9)) AS s(id, v) ON k.id = s.id \
             WHEN MATCHED AND s.v = 8 THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v, 'm')",
            "MERGE INTO k AS x USING d ON x.id = d.v WHEN MATCHED THEN UPDATE SET id = x.id + 500 RETURNING merge_action(), x.id, d.day",
            "MERGE INTO parts USING k ON parts.id = k.id WHEN MATCHED THEN UPDATE SET id = parts.id + 30 \
             WHEN NOT MATCHED BY SOURCE THEN DELETE WHEN NOT MATCHED AND k.id BETWEEN 10 AND 19 THEN INSERT VALUES (k.id, 0)",
            "MERGE INTO keyless USING k ON keyless.v = k.id WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN INSERT VALUES (k.id, 'x', NULL)",
            "PREPARE m(int) AS MERGE INTO parent USING (SELECT $1 AS id) s ON parent.id = s.id WHEN MATCHED THEN DELETE; EXECUTE m(4)",
            "WITH s AS (SELECT 5 AS id) MERGE INTO parent USING s ON parent.id = s.id WHEN MATCHED THEN UPDATE SET id = 77",
        ],
    );
}
