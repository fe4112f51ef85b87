//! The applier against two real servers of different majors.
#![allow(missing_docs, clippy::indexing_slicing, clippy::unwrap_used)]

mod cluster;
mod healing;
mod lives;
mod loading;
mod pairs;
mod rig;

use pgshadow_model::{Cause, Change, CopyData, DdlStatement, Kind, Operation, Truncate, Values};
use rig::{Rig, Write, relation, settings, write};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use Operation::{Delete, Insert, Update, Upsert};

fn int4(value: i32) -> Values {
    vec![Some(bytes::Bytes::copy_from_slice(&value.to_be_bytes()))]
}

/// Same-row pairs that were applied with a falling order.
fn inversions(trace: &std::path::Path) -> (usize, usize) {
    let (mut last, mut falling, mut lines) = (BTreeMap::new(), 0, 0);
    for line in std::fs::read_to_string(trace).unwrap().lines() {
        let f: Vec<&str> = line.split('\t').collect();
        let order: (u64, u64, u64) = (f[2].parse().unwrap(), f[3].parse().unwrap(), f[4].parse().unwrap());
        lines += 1;
        falling += usize::from(last.insert((f[0].to_owned(), f[1].to_owned()), order).is_some_and(|b| b > order));
    }
    (falling, lines)
}

const TYPES: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN small AS int4 CHECK (VALUE < 100);
CREATE TABLE kinds (id int4 PRIMARY KEY, n numeric, f8 float8, f4 float4, t text, vc varchar(10), c char(5), j json, jb jsonb,
  ts timestamp, tz timestamptz, d date, iv interval, u uuid, b bytea, m mood, ms mood[], a int4[], txt text[], dom small,
  bl boolean, i8 int8, inet inet, r int4range, bits bit(3), ch \"char\", nm name, g int8 GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE ident (id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
CREATE TABLE only_key (id int4 PRIMARY KEY);
CREATE TABLE keyless (a int4, b numeric);
CREATE TABLE parts (id int4 PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (1000);
CREATE TABLE \"Odd \"\"Name\" (\"Ke y\" text PRIMARY KEY, \"select\" int4)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_every_kind_arrive_as_they_are() {
    let mut rig = Rig::new(TYPES).await;
    rig.start();
    let s = rig.session().await;
    let kinds = relation(&rig.on_primary, "kinds").await;
    let all = "INSERT INTO kinds VALUES (1, 1.500, '-0', 0.1, 'a ', 'vc', 'ch', '{\"a\" : 1}', '{\"b\": [1, null]}', now(), now(), \
        'infinity', '1 mon 2 days 00:00:03.5', gen_random_uuid(), '\\x00ff', 'ok', '{sad,NULL,happy}', '[2:3]={7,8}', \
        '{\"x y\",\"\"}', 7, true, 1::int8 << 40, '10.0.0.0/8', '[1,5)', B'101', 'q', 'nm')";
    s.autocommit(&write(&kinds, Insert, all)).await.unwrap();
    s.autocommit(&write(&kinds, Insert, "INSERT INTO kinds (id, n) VALUES (2, 'NaN'), (3, NULL)")).await.unwrap();
    s.autocommit(&write(&kinds, Update, "UPDATE kinds SET n = 1.50, ms = '{}', f8 = 'NaN' WHERE id = 1"))
        .await
        .unwrap();
    let mut moved = write(&kinds, Update, "UPDATE kinds SET id = 30 WHERE id = 3");
    moved.old_key = Some(int4(3));
    s.autocommit(&moved).await.unwrap();
    s.autocommit(&write(&kinds, Delete, "DELETE FROM kinds WHERE id = 2")).await.unwrap();
    for sql in ["INSERT INTO kinds (id, t) VALUES (4, 'x') ON CONFLICT (id) DO UPDATE SET t = 'y'"; 2] {
        s.autocommit(&write(&kinds, Upsert, sql)).await.unwrap();
    }
    let ident = relation(&rig.on_primary, "ident").await;
    s.autocommit(&write(&ident, Insert, "INSERT INTO ident (v) VALUES ('a'), ('b')")).await.unwrap();
    s.autocommit(&write(&ident, Update, "UPDATE ident SET v = 'c' WHERE id = 1")).await.unwrap();
    let mut moved = write(&ident, Update, "UPDATE ident SET id = DEFAULT WHERE id = 2");
    moved.old_key = Some(int4(2));
    s.autocommit(&moved).await.unwrap();
    let only_key = relation(&rig.on_primary, "only_key").await;
    s.autocommit(&write(&only_key, Insert, "INSERT INTO only_key VALUES (1)")).await.unwrap();
    s.autocommit(&write(&only_key, Update, "UPDATE only_key SET id = id")).await.unwrap();
    let keyless = relation(&rig.on_primary, "keyless").await;
    s.autocommit(&write(&keyless, Insert, "INSERT INTO keyless VALUES (1, 1.0), (1, 1.00), (1, 1.0), (2, NULL)"))
        .await
        .unwrap();
    s.autocommit(&write(&keyless, Delete, "DELETE FROM keyless WHERE ctid = '(0,2)'")).await.unwrap();
    let parts = relation(&rig.on_primary, "parts").await;
    s.autocommit(&write(&parts, Insert, "INSERT INTO parts VALUES (1, 'a'), (200, 'b')")).await.unwrap();
    let mut moved = write(&parts, Update, "UPDATE parts SET id = 300 WHERE id = 1");
    moved.old_key = Some(int4(1));
    s.autocommit(&moved).await.unwrap();
    let odd = relation(&rig.on_primary, "\"Odd \"\"Name\"").await;
    let odd = Arc::new(pgshadow_model::Relation {
        name: pgshadow_model::QualifiedName::new("public", "Odd \"Name"),
        ..(*odd).clone()
    });
    s.autocommit(&write(&odd, Insert, "INSERT INTO \"Odd \"\"Name\" VALUES ('it''s', 1)")).await.unwrap();
    s.autocommit(&write(&odd, Update, "UPDATE \"Odd \"\"Name\" SET \"select\" = 2")).await.unwrap();
    rig.drained().await;
    rig.assert_equal(&["kinds", "ident", "only_key", "keyless", "parts", "parts_2", "\"Odd \"\"Name\""]).await;
    assert!(rig.findings().is_empty(), "{:#?}", rig.findings());
    assert!(rig.suspects().is_empty(), "{:?}", rig.suspects());
    let (falling, lines) = inversions(&rig.trace_path());
    assert_eq!((falling, lines), (0, 24));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_shadow_cannot_hold_makes_its_table_suspect() {
    let mut rig = Rig::new(
        "CREATE TABLE money (id int4 PRIMARY KEY, n numeric); CREATE TABLE wide (id int4 PRIMARY KEY, i int4, v text);
        CREATE TABLE short (id int4 PRIMARY KEY, v text); CREATE TABLE gone (id int4 PRIMARY KEY);
        CREATE TABLE less (id int4 PRIMARY KEY, a int4, b int4);
        CREATE TABLE p (id int4 PRIMARY KEY); CREATE TABLE c (id int4 PRIMARY KEY, p int4)",
    )
    .await;
    let behind = rig.shadow.client().await;
    behind
        .batch_execute(
            "ALTER TABLE money ALTER n TYPE numeric(10, 2); ALTER TABLE wide ALTER i TYPE int8; DROP TABLE gone;
            ALTER TABLE short ALTER v TYPE varchar(3); ALTER TABLE less DROP b;
            ALTER TABLE c ADD FOREIGN KEY (p) REFERENCES p DEFERRABLE INITIALLY DEFERRED",
        )
        .await
        .unwrap();
    rig.start();
    let s = rig.session().await;
    for (table, sql) in [
        ("wide", "INSERT INTO wide VALUES (1, 4, 'x')"),
        ("money", "INSERT INTO money VALUES (1, 1.005)"),
        ("money", "INSERT INTO money VALUES (2, 1.005)"),
        ("short", "INSERT INTO short VALUES (1, 'abc'), (2, 'abcd')"),
        ("gone", "INSERT INTO gone VALUES (1), (2)"),
        ("less", "INSERT INTO less VALUES (1, 2, 3)"),
        ("c", "INSERT INTO c VALUES (1, 77)"),
    ] {
        let relation = relation(&rig.on_primary, table).await;
        s.autocommit(&write(&relation, Insert, sql)).await.unwrap();
        rig.drained().await;
    }
    let findings = rig.findings();
    let shown: Vec<_> = findings
        .iter()
        .map(|f| (f.table.as_ref().unwrap().name.as_str(), f.kind, f.cause, f.sqlstate.as_deref(), f.healed))
        .collect();
    assert_eq!(
        shown,
        [
            ("money", Kind::Value, Cause::Type, None, false),
            ("short", Kind::ErrorShadowOnly, Cause::Type, Some("22001"), false),
            ("gone", Kind::Schema, Cause::Unknown, None, false),
            ("less", Kind::Schema, Cause::Unknown, None, false),
            ("c", Kind::ErrorShadowOnly, Cause::Constraint, Some("23503"), false),
        ],
        "{findings:#?}"
    );
    assert_eq!(findings[0].shadow.as_deref(), Some("n=1.01"));
    let mut tables: Vec<_> = rig.store.suspects().unwrap().into_iter().map(|s| s.table.unwrap().name).collect();
    tables.sort();
    tables.dedup();
    assert_eq!(tables, ["c", "gone", "less", "money", "short"], "{:?}", rig.suspects());
    rig.assert_equal(&["wide"]).await;
    assert_eq!(rig.rows("short").await.1, ["(1,abc)"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_over_crashes_of_both_sides() {
    let schema = "CREATE TABLE ledger (id int8 PRIMARY KEY, v int4); CREATE TABLE hot (id int4 PRIMARY KEY, v int8);
        INSERT INTO hot SELECT g, 0 FROM generate_series(1, 6) g";
    let mut rig = Rig::new(schema).await;
    rig.start();
    let writers = write_load(&rig, 4, 400).await;
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        match round % 3 {
            0 => {
                rig.shadow.crash();
                tokio::time::sleep(Duration::from_millis(150)).await;
                rig.shadow.up();
            }
            1 => {
                rig.shadow.freeze(true);
                tokio::time::sleep(Duration::from_millis(700)).await;
                rig.shadow.freeze(false);
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    rig.restart().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.restart().await;
    rig.drained().await;
    rig.assert_equal(&["ledger", "hot"]).await;
    assert!(rig.findings().is_empty(), "{:#?}", rig.findings());
    assert_eq!(inversions(&rig.trace_path()).0, 0);
}

/// Sessions that insert rows of their own and update a few rows of everybody's.
async fn write_load(rig: &Rig, sessions: i64, each: i64) -> Vec<tokio::task::JoinHandle<()>> {
    let ledger = relation(&rig.on_primary, "ledger").await;
    let hot = relation(&rig.on_primary, "hot").await;
    let mut tasks = Vec::new();
    for n in 0..sessions {
        let (s, ledger, hot) = (rig.session().await, Arc::clone(&ledger), Arc::clone(&hot));
        tasks.push(tokio::spawn(async move {
            for i in 0..each {
                let insert = format!("INSERT INTO ledger VALUES ({}, {i})", n * 1_000_000 + i);
                let update = |k| format!("UPDATE hot SET v = (v * 31 + {i}) % 1000003 WHERE id = {k}");
                let key = (i * 7 + n) % 6 + 1;
                if i % 2 == 0 {
                    s.autocommit(&write(&ledger, Insert, insert)).await.unwrap();
                    s.autocommit(&write(&hot, Update, update(key))).await.unwrap();
                } else {
                    let keys = [key.min(key % 6 + 1), key.max(key % 6 + 1)];
                    let mut writes: Vec<Write<'_>> = vec![write(&ledger, Insert, insert)];
                    writes.extend(keys.map(|k| write(&hot, Update, update(k))));
                    s.transaction(&writes).await.unwrap();
                }
            }
        }));
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_come_back_from_the_log_and_statements_run_as_their_sessions_did() {
    let schema = "CREATE TABLE t (id int4 PRIMARY KEY, v text); CREATE TABLE dates (d date)";
    let mut rig = Rig::new(schema).await;
    rig.memory = 1;
    rig.book = rig.log.replay(1);
    let s = rig.session().await;
    let t = relation(&rig.on_primary, "t").await;
    for i in 1..=50 {
        s.autocommit(&write(&t, Insert, format!("INSERT INTO t VALUES ({i}, repeat('x', 1000))"))).await.unwrap();
    }
    // More often than a read that fails is tried again.
    *rig.log.not_yet.lock().unwrap() = 12;
    rig.start();
    rig.drained().await;
    assert!(*rig.log.reads.lock().unwrap() == 50);
    rig.assert_equal(&["t"]).await;
    let truncate = "TRUNCATE t";
    let tables = vec![t.name.clone()];
    s.statement(truncate, Change::Truncate(Truncate { tables, sql: truncate.into(), settings: settings() }))
        .await
        .unwrap();
    let ddl = |sql: &str| Change::Ddl(DdlStatement { sql: sql.into(), settings: settings(), in_transaction: true });
    let add = "ALTER TABLE t ADD w int4";
    s.statement(add, ddl(add)).await.unwrap();
    let wider = relation(&rig.on_primary, "t").await;
    s.autocommit(&write(&wider, Insert, "INSERT INTO t VALUES (1, 'a', 2)")).await.unwrap();
    let dates = relation(&rig.on_primary, "dates").await;
    let sql = "COPY dates FROM STDIN";
    let data = vec!["31.12.2025\n".into(), "01.02.20".into(), "26\n".into()];
    let copy = CopyData { relation: dates, sql: sql.into(), settings: settings(), data, rows: Some(2) };
    s.statement("INSERT INTO dates VALUES ('2025-12-31'), ('2026-02-01')", Change::Copy(copy)).await.unwrap();
    let index = "CREATE INDEX CONCURRENTLY t_v ON t (v)";
    let alone = Change::Ddl(DdlStatement { sql: index.into(), settings: settings(), in_transaction: false });
    s.statement("CREATE INDEX t_v ON t (v)", alone).await.unwrap();
    let bad = ddl("ALTER TABLE t ADD CONSTRAINT no CHECK (id > 5)");
    s.statement("SELECT pg_current_xact_id()", bad).await.unwrap();
    s.autocommit(&write(&wider, Insert, "INSERT INTO t VALUES (2, 'b', 3)")).await.unwrap();
    rig.drained().await;
    rig.assert_equal(&["t", "dates"]).await;
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 't_v'::regclass";
    assert!(rig.shadow.client().await.query_one(valid, &[]).await.unwrap().get::<_, bool>(0));
    let findings = rig.findings();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!((findings[0].kind, findings[0].sqlstate.as_deref()), (Kind::Schema, Some("23514")));
    assert!(rig.suspects()[0].starts_with("public.t: "), "{:?}", rig.suspects());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_statement_is_only_passed_over_where_all_that_it_names_is_suspect() {
    let mut rig =
        Rig::new("CREATE TABLE item (id int4 PRIMARY KEY); CREATE TABLE item_list (id int4 PRIMARY KEY)").await;
    rig.start();
    let s = rig.session().await;
    let refused = async |sql: &str| {
        let settings = settings();
        let ddl = Change::Ddl(DdlStatement { sql: sql.into(), settings, in_transaction: true });
        s.statement("SELECT pg_current_xact_id()", ddl).await.unwrap();
        rig.drained().await;
        let tables: Vec<_> = rig.store.suspects().unwrap().into_iter().map(|t| t.table.map(|t| t.name)).collect();
        (rig.findings().iter().map(|f| f.count).sum::<u64>(), tables)
    };
    let (item, list) = (Some("item".to_owned()), Some("item_list".to_owned()));
    assert_eq!(refused("ALTER TABLE item DROP gone").await, (1, vec![item.clone()]));
    assert_eq!(refused("ALTER TABLE item DROP gone").await, (1, vec![item.clone()]), "nothing new");
    let both = vec![item.clone(), list.clone()];
    assert_eq!(refused("ALTER TABLE item_list DROP gone").await, (2, both), "the name of one stands in the other's");
    let every = vec![item, list, None];
    let mut last = refused("ALTER TABLE nowhere DROP gone").await;
    last.1.sort_by_key(|t| (t.is_none(), t.clone()));
    assert_eq!(last, (3, every));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rolled_back_lets_the_log_be_trimmed() {
    let mut rig = Rig::new("CREATE TABLE t (id int4 PRIMARY KEY)").await;
    rig.start();
    let s = rig.session().await;
    for _ in 0..10 {
        s.rolled_back();
    }
    let trimmed = async || {
        while *rig.log.below.lock().unwrap() < 11 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), trimmed()).await.unwrap();
    let sql = "SELECT below FROM pgshadow.applied";
    assert_eq!(rig.shadow.client().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_of_another_log_are_not_taken_as_applied() {
    let mut rig = Rig::new("CREATE TABLE t (id int4 PRIMARY KEY, v text)").await;
    rig.start();
    let t = relation(&rig.on_primary, "t").await;
    let insert = async |rig: &Rig, id: i32| {
        let s = rig.session().await;
        s.autocommit(&write(&t, Insert, format!("INSERT INTO t VALUES ({id}, 'v')"))).await.unwrap();
        rig.drained().await;
        rig.assert_equal(&["t"]).await;
    };
    for id in 1..=5 {
        insert(&rig, id).await;
    }
    rig.restart().await;
    insert(&rig, 6).await;
    assert!(rig.suspects().is_empty(), "{:?}", rig.suspects());

    rig.log = Arc::default();
    rig.restart().await;
    insert(&rig, 7).await;
    assert!(rig.suspects().iter().all(|s| s.starts_with("*: the target is ahead")), "{:?}", rig.suspects());
    assert!(rig.store.lift(&[], rig.store.doubt_mark(), true, None).unwrap().is_empty());
    rig.restart().await;
    insert(&rig, 8).await;
    assert!(rig.suspects().is_empty(), "once: {:?}", rig.suspects());

    rig.log.extent.lock().unwrap().identity = "another".into();
    rig.restart().await;
    insert(&rig, 9).await;
    assert!(rig.suspects().iter().all(|s| s.starts_with("*: the target was mirrored from")), "{:?}", rig.suspects());
    assert_eq!(rig.suspects().len(), 1);
    let sql = "SELECT log FROM pgshadow.applied";
    assert_eq!(rig.shadow.client().await.query_one(sql, &[]).await.unwrap().get::<_, String>(0), "another");
}

const TRIGGERS: &str = "
CREATE TABLE t (id int4 PRIMARY KEY, v text);
CREATE TABLE parent (id int4 PRIMARY KEY); CREATE TABLE child (id int4 PRIMARY KEY, p int4 REFERENCES parent ON DELETE CASCADE);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := 'stamped'; RETURN NEW; END $$";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn triggers_of_the_shadow_do_not_change_rows_and_cascades_run() {
    let mut rig = Rig::new(TRIGGERS).await;
    let behind = rig.shadow.client().await;
    behind
        .batch_execute("CREATE TRIGGER s BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp()")
        .await
        .unwrap();
    rig.start();
    let s = rig.session().await;
    let (t, parent, child) = (
        relation(&rig.on_primary, "t").await,
        relation(&rig.on_primary, "parent").await,
        relation(&rig.on_primary, "child").await,
    );
    s.autocommit(&write(&t, Insert, "INSERT INTO t VALUES (1, 'mine')")).await.unwrap();
    s.transaction(&[
        write(&parent, Insert, "INSERT INTO parent VALUES (1), (2)"),
        write(&child, Insert, "INSERT INTO child VALUES (1, 1), (2, 2)"),
        write(&t, Update, "UPDATE t SET v = 'still mine'"),
    ])
    .await
    .unwrap();
    s.transaction(&[write(&parent, Delete, "DELETE FROM parent WHERE id = 1")]).await.unwrap();
    rig.drained().await;
    rig.assert_equal(&["t", "parent", "child"]).await;
    assert!(rig.findings().is_empty() && rig.suspects().is_empty(), "{:?} {:?}", rig.findings(), rig.suspects());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_silence_triggers_their_tables_are_suspect() {
    let mut rig = Rig::new(TRIGGERS).await;
    let behind = rig.shadow.client().await;
    behind
        .batch_execute(
            "CREATE TRIGGER s BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp();
             CREATE ROLE app LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT CREATE ON DATABASE postgres TO app",
        )
        .await
        .unwrap();
    rig.user = "app";
    rig.start();
    let s = rig.session().await;
    let (t, parent) = (relation(&rig.on_primary, "t").await, relation(&rig.on_primary, "parent").await);
    s.autocommit(&write(&t, Insert, "INSERT INTO t VALUES (1, 'mine')")).await.unwrap();
    s.transaction(&[write(&parent, Insert, "INSERT INTO parent VALUES (1), (2)")]).await.unwrap();
    rig.drained().await;
    rig.assert_equal(&["parent"]).await;
    assert!(rig.findings().is_empty(), "{:#?}", rig.findings());
    assert!(rig.suspects()[0].contains("may not set session_replication_role"), "{:?}", rig.suspects());
    assert_eq!(rig.suspects().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_waits_for_what_was_in_flight_at_its_snapshot() {
    let schema = "CREATE TABLE t (id int4 PRIMARY KEY, v int4); INSERT INTO t VALUES (1, 0), (2, 0)";
    let mut rig = Rig::new(schema).await;
    rig.shadow.client().await.batch_execute("DELETE FROM t WHERE id = 1").await.unwrap();
    let t = relation(&rig.on_primary, "t").await;
    let (s, slow) = (rig.session().await, rig.session().await);
    rig.start();
    s.autocommit(&write(&t, Update, "UPDATE t SET v = 1 WHERE id = 1")).await.unwrap();
    // Committed before the fence's snapshot, known only after it: the snapshot has no row, and this delete finds none.
    let delete = write(&t, Delete, "DELETE FROM t WHERE id = 1");
    slow.autocommit_read_late(&delete, Duration::from_secs(1)).await.unwrap();
    s.autocommit(&write(&t, Insert, "INSERT INTO t VALUES (1, 2)")).await.unwrap();
    rig.drained().await;
    rig.assert_equal(&["t"]).await;
    let findings = rig.findings();
    assert_eq!((findings.len(), findings[0].count, findings[0].healed), (1, 1, true), "{findings:#?}");
}
