//! Connections of an older life of the stream, which may not know yet that it is over.

use crate::rig::{Rig, relation, write};
use pgshadow_model::Operation::{Insert, Update};
use std::time::Duration;
use tokio_postgres::Client;

const SCHEMA: &str =
    "CREATE TABLE t (id int4 PRIMARY KEY, v int4); INSERT INTO t SELECT g, 0 FROM generate_series(1, 9) g;
    CREATE TABLE log (v int4)";

/// Polls until a query gives true.
async fn until(client: &Client, what: &str, sql: &str) {
    for _ in 0..1200 {
        if client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

const BLOCKED: &str = "FROM pg_stat_activity WHERE application_name = 'pgshadow apply' AND wait_event_type = 'Lock' AND wait_event <> 'advisory'";

/// The process is gone, its backends aren't: each is in the middle of a transaction that waits for a row. The next one comes
/// with another role, which may not end them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_applies_while_a_lane_of_an_older_life_still_may_commit() {
    let mut rig = Rig::new(SCHEMA).await;
    rig.lock_timeout = Duration::from_secs(120);
    rig.start();
    let (t, log) = (relation(&rig.on_primary, "t").await, relation(&rig.on_primary, "log").await);
    let holder = rig.shadow.client().await;
    holder.batch_execute("BEGIN; SELECT FROM t WHERE id < 5 FOR UPDATE").await.unwrap();
    let (session, looker) = (rig.session().await, rig.shadow.client().await);
    for id in 1..5 {
        let update = write(&t, Update, format!("UPDATE t SET v = {id} WHERE id = {id}"));
        let insert = write(&log, Insert, format!("INSERT INTO log VALUES ({id})"));
        session.transaction(&[update, insert]).await.unwrap();
        until(&looker, "another lane waits", &format!("SELECT count(*) = {id} {BLOCKED}")).await;
    }
    let role = "CREATE ROLE second LOGIN; GRANT USAGE, CREATE ON SCHEMA pgshadow TO second;
        GRANT ALL ON ALL TABLES IN SCHEMA public, pgshadow TO second; GRANT SET ON PARAMETER session_replication_role TO second";
    looker.batch_execute(role).await.unwrap();
    rig.user = "second";
    rig.restart().await;
    // Of the older life only lanes are left, not the one that led.
    let lead = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted
        AND pid IN (SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event <> 'advisory')";
    assert_eq!(looker.execute(lead, &[]).await.unwrap(), 1);
    until(&looker, "the new life has begun", "SELECT number = 2 FROM pgshadow.life").await;
    for _ in 0..20 {
        let connected = rig.handle.as_ref().unwrap().status().connected;
        let left: i64 = looker.query_one(&format!("SELECT count(*) {BLOCKED}"), &[]).await.unwrap().get(0);
        assert!(!connected && left == 3, "connected: {connected}, {left} lanes of the older life");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    holder.batch_execute("COMMIT").await.unwrap();
    rig.drained().await;
    rig.assert_equal(&["t", "log"]).await;
    assert!(rig.findings().is_empty() && rig.suspects().is_empty(), "{:?} {:?}", rig.findings(), rig.suspects());
}

/// Where it may, it doesn't wait: they may be at something that takes hours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_of_an_older_life_are_ended() {
    let mut rig = Rig::new(SCHEMA).await;
    rig.lock_timeout = Duration::from_secs(120);
    rig.start();
    let t = relation(&rig.on_primary, "t").await;
    let holder = rig.shadow.client().await;
    holder.batch_execute("BEGIN; SELECT FROM t WHERE id < 3 FOR UPDATE").await.unwrap();
    let (session, looker) = (rig.session().await, rig.shadow.client().await);
    for id in 1..3 {
        session.autocommit(&write(&t, Update, format!("UPDATE t SET v = {id} WHERE id = {id}"))).await.unwrap();
        until(&looker, "another lane waits", &format!("SELECT count(*) = {id} {BLOCKED}")).await;
    }
    // The one that leads is idle or not: it notices at once, or is ended here.
    let lead = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted";
    looker.execute(lead, &[]).await.unwrap();
    let before: String = looker.query_one("SELECT now()::text", &[]).await.unwrap().get(0);
    rig.restart().await;
    // Both rows are in the way of the new life too; the older one's lanes may still be there.
    let waits = format!("SELECT count(*) > 0 {BLOCKED} AND backend_start > '{before}'");
    until(&looker, "the new life waits", &waits).await;
    let session = rig.session().await;
    session.autocommit(&write(&t, Update, "UPDATE t SET v = 9 WHERE id = 9")).await.unwrap();
    until(&looker, "the new life applies", "SELECT v = 9 FROM t WHERE id = 9").await;
    holder.batch_execute("COMMIT").await.unwrap();
    rig.drained().await;
    rig.assert_equal(&["t"]).await;
}

/// What a version with one lane has left on the shadow goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_of_before_there_were_lanes_is_taken_over() {
    let mut rig = Rig::new(SCHEMA).await;
    let log = relation(&rig.on_primary, "log").await;
    let session = rig.session().await;
    for v in 1..=3 {
        session.autocommit(&write(&log, Insert, format!("INSERT INTO log VALUES ({v})"))).await.unwrap();
    }
    let old = "CREATE SCHEMA pgshadow;
        CREATE TABLE pgshadow.applied (stream text PRIMARY KEY, log text NOT NULL, source text, below int8 NOT NULL, above int8[] NOT NULL);
        CREATE TABLE pgshadow.started (stream text, sequence int8, change int4, PRIMARY KEY (stream, sequence, change));
        INSERT INTO pgshadow.applied VALUES ('source-target', '', NULL, 2, '{3,4}'); INSERT INTO log VALUES (1), (3)";
    rig.shadow.client().await.batch_execute(old).await.unwrap();
    rig.restart().await;
    rig.drained().await;
    rig.assert_equal(&["log"]).await;
    assert!(rig.suspects().is_empty(), "{:?}", rig.suspects());
}
