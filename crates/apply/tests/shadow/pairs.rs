//! Two snapshots that hold the same, taken under load.

use crate::rig::{Rig, Write, relation, write};
use crate::write_load;
use pgshadow_apply::{Exported, PairError, SnapshotPair};
use pgshadow_model::Operation::{Insert, Update};
use std::time::Duration;
use tokio_postgres::Client;

const TABLES: &str =
    "CREATE TABLE ledger (id int8 PRIMARY KEY, v int8); CREATE TABLE hot (id int4 PRIMARY KEY, v int4);
    INSERT INTO hot SELECT g, 0 FROM generate_series(1, 6) g";

/// What a snapshot holds.
async fn held(client: &Client, snapshot: &Exported) -> Vec<String> {
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{}'", snapshot.name());
    client.batch_execute(&begin).await.unwrap();
    let all = "SELECT 'ledger' || ledger::text FROM ledger UNION ALL SELECT 'hot' || hot::text FROM hot ORDER BY 1";
    let rows = client.query(all, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    client.batch_execute("COMMIT").await.unwrap();
    rows
}

async fn pair(rig: &Rig) -> SnapshotPair {
    loop {
        let asked = rig.handle.as_ref().unwrap().snapshot_pair();
        match tokio::time::timeout(Duration::from_secs(30), asked).await.unwrap() {
            Ok(pair) => return pair,
            Err(PairError::Failed(error)) => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_snapshots_hold_the_same_while_rows_are_written() {
    let mut rig = Rig::new(TABLES).await;
    rig.start();
    let load = write_load(&rig, 6, 400).await;
    let (on_primary, on_shadow) = (rig.primary.client().await, rig.shadow.client().await);
    let (mut compared, mut sizes) = (0, std::collections::BTreeSet::new());
    while !load.iter().all(|task| task.is_finished()) || compared < 5 {
        let pair = pair(&rig).await;
        let (here, there) = (held(&on_primary, &pair.primary).await, held(&on_shadow, &pair.shadow).await);
        let differ: Vec<_> = here.iter().filter(|row| !there.contains(row)).take(5).collect();
        assert!(
            here == there,
            "pair {compared}: {} rows and {}; of the first only: {differ:?}",
            here.len(),
            there.len()
        );
        compared += 1;
        sizes.insert(here.len());
    }
    for task in load {
        task.await.unwrap();
    }
    assert!(compared >= 5 && sizes.len() >= 3, "{compared} pairs of {sizes:?} rows");
    rig.drained().await;
    rig.assert_equal(&["ledger", "hot"]).await;
    assert_eq!(rig.findings(), []);
}

/// A snapshot stays as it is, whatever is applied afterwards, and is gone with its pair.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_stays_as_it_was() {
    let mut rig = Rig::new(TABLES).await;
    rig.start();
    let pair = pair(&rig).await;
    let ledger = relation(&rig.on_primary, "ledger").await;
    let s = rig.session().await;
    s.autocommit(&write(&ledger, Insert, "INSERT INTO ledger VALUES (1, 1)")).await.unwrap();
    rig.drained().await;
    let (on_primary, on_shadow) = (rig.primary.client().await, rig.shadow.client().await);
    assert_eq!(held(&on_primary, &pair.primary).await.len(), 6);
    assert_eq!(held(&on_shadow, &pair.shadow).await.len(), 6);
    assert!(pair.primary.is_open() && pair.shadow.is_open());
    let name = pair.shadow.name().to_owned();
    drop(pair);
    let gone = async {
        loop {
            let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{name}'");
            let taken = on_shadow.batch_execute(&begin).await;
            on_shadow.batch_execute("ROLLBACK").await.unwrap();
            if taken.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}

/// What was committed but can't be told yet from what wasn't is waited for, not compared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pair_while_a_transaction_of_the_snapshot_has_no_outcome() {
    let mut rig = Rig::new(TABLES).await;
    rig.start();
    let hot = relation(&rig.on_primary, "hot").await;
    let s = rig.session().await;
    let late =
        Write { relation: &hot, operation: Update, sql: "UPDATE hot SET v = 9 WHERE id = 1".into(), old_key: None };
    let (written, refused) = tokio::join!(s.autocommit_read_late(&late, Duration::from_secs(6)), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.handle.as_ref().unwrap().snapshot_pair().await.err()
    });
    written.unwrap();
    assert!(matches!(refused, Some(PairError::InFlight)), "{refused:?}");
    pair(&rig).await;
}
