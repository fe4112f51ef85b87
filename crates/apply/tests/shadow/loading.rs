//! Tables that are loaded from a snapshot while rows are written to them.

use crate::rig::{Rig, relation, write};
use crate::write_load;
use pgshadow_apply::{HoldOf, LoadSnapshot, PairError};
use pgshadow_model::Operation::Insert;
use pgshadow_model::QualifiedName;
use std::time::Duration;
use tokio_postgres::Client;

const TABLES: &str =
    "CREATE TABLE ledger (id int8 PRIMARY KEY, v int8); CREATE TABLE hot (id int4 PRIMARY KEY, v int4);
    INSERT INTO hot SELECT g, 0 FROM generate_series(1, 6) g";

fn names() -> Vec<QualifiedName> {
    ["ledger", "hot"].map(|table| QualifiedName::new("public", table)).to_vec()
}

async fn snapshot(rig: &Rig) -> LoadSnapshot {
    loop {
        let held = HoldOf::Tables { tables: names(), relatives: false };
        let asked = rig.handle.as_ref().unwrap().load_snapshot(held);
        match tokio::time::timeout(Duration::from_secs(30), asked).await.unwrap() {
            Ok(snapshot) => return snapshot,
            Err(PairError::Failed(error)) => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// What the snapshot holds takes the place of what the shadow does.
async fn copy(from: &Client, to: &Client, snapshot: &LoadSnapshot, table: &str) {
    let begin =
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{}'", snapshot.primary.name());
    from.batch_execute(&begin).await.unwrap();
    let all = format!("SELECT coalesce(string_agg(format('(%s, %s)', id, v), ', '), '') FROM {table}");
    let rows: String = from.query_one(&all, &[]).await.unwrap().get(0);
    from.batch_execute("COMMIT").await.unwrap();
    let insert = if rows.is_empty() { String::new() } else { format!("INSERT INTO {table} VALUES {rows}") };
    to.batch_execute(&format!("BEGIN; DELETE FROM {table}; {insert}; COMMIT")).await.unwrap();
}

async fn begin(rig: &Rig) {
    for table in names() {
        rig.store.suspect(Some(&table), "it is being loaded", None).unwrap();
    }
    rig.handle.as_ref().unwrap().await_load(names()).await.unwrap();
}

/// Loads both tables. Without `hold` what comes after the snapshot doesn't wait for that.
async fn load(rig: &Rig, hold: bool) {
    begin(rig).await;
    let handle = rig.handle.as_ref().unwrap();
    let mut snapshot = snapshot(rig).await;
    if !hold {
        snapshot.hold = rig.book.hold(&HoldOf::Tables { tables: Vec::new(), relatives: false });
    }
    let (from, to) = (rig.primary.client().await, handle.writer().await.unwrap());
    for table in ["ledger", "hot"] {
        copy(&from, &to.client, &snapshot, table).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(rig.store.lift(&names(), snapshot.doubts, true, None).unwrap(), []);
    let hold = handle.loaded(names(), Some(snapshot.hold)).await.unwrap();
    drop(hold);
}

async fn ruin(rig: &Rig) {
    let sql = "DELETE FROM ledger WHERE id % 3 = 0; UPDATE hot SET v = -1 WHERE id > 3; INSERT INTO hot VALUES (77, 7)
        ON CONFLICT (id) DO UPDATE SET v = 8";
    rig.shadow.client().await.batch_execute(sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_snapshot_contains_is_loaded_and_all_else_is_applied() {
    let mut rig = Rig::new(TABLES).await;
    rig.start();
    let writers = write_load(&rig, 4, 400).await;
    let mut loads = 0;
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) || loads < 3 {
        ruin(&rig).await;
        load(&rig, true).await;
        loads += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    rig.drained().await;
    rig.assert_equal(&["ledger", "hot"]).await;
    assert_eq!(rig.suspects(), Vec::<String>::new());
}

/// The test above can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_hold_it_would_be_lost() {
    let mut rig = Rig::new(TABLES).await;
    rig.start();
    let writers = write_load(&rig, 4, 300).await;
    ruin(&rig).await;
    load(&rig, false).await;
    for writer in writers {
        writer.await.unwrap();
    }
    rig.drained().await;
    let (primary, shadow) = rig.rows("ledger").await;
    assert_ne!(primary, shadow);
}

/// Until it is loaded it is passed over, also by the next process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_was_cut_short_begins_again() {
    let mut rig = Rig::new(TABLES).await;
    rig.start();
    begin(&rig).await;
    for writer in write_load(&rig, 2, 100).await {
        writer.await.unwrap();
    }
    let taken = snapshot(&rig).await;
    let (from, to) = (rig.primary.client().await, rig.handle.as_ref().unwrap().writer().await.unwrap());
    copy(&from, &to.client, &taken, "ledger").await;
    let ledger = relation(&rig.on_primary, "ledger").await;
    let insert = |id: i64| write(&ledger, Insert, format!("INSERT INTO ledger VALUES ({id}, 0)"));
    rig.session().await.autocommit(&insert(-1)).await.unwrap();
    drop(taken);
    rig.restart().await;
    rig.session().await.autocommit(&insert(-2)).await.unwrap();
    rig.drained().await;
    assert!(to.client.batch_execute("SELECT 1").await.is_err(), "the life that came after has ended it");
    let count = |rows: (Vec<String>, Vec<String>)| (rows.0.len(), rows.1.len());
    assert_eq!(count(rig.rows("ledger").await), (202, 200));
    load(&rig, true).await;
    rig.drained().await;
    rig.assert_equal(&["ledger", "hot"]).await;
    assert_eq!(rig.suspects(), Vec::<String>::new());
}
