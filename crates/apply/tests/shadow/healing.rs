//! Rows that are read again on the primary: which do, and what is told of them.

use crate::rig::{Rig, relation, settings, write};
use crate::{inversions, write_load};
use pgshadow_model::Operation::{Delete, Insert, Update};
use pgshadow_model::{Cause, Change, CopyData, Kind};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_does_not_fit_is_one_finding_and_is_healed() {
    let schema = "CREATE TABLE t (id int4 PRIMARY KEY, v text, u int4 UNIQUE); INSERT INTO t SELECT g, 'v' || g, g FROM generate_series(1, 20) g";
    let mut rig = Rig::new(schema).await;
    let behind = rig.shadow.client().await;
    let t = relation(&rig.on_primary, "t").await;
    behind
        .batch_execute(
            "DELETE FROM t WHERE id IN (1, 2); UPDATE t SET v = 'other' WHERE id IN (3, 4); \
            INSERT INTO t VALUES (101, 'extra', 101), (202, 'extra', 102)",
        )
        .await
        .unwrap();
    rig.start();
    let s = rig.session().await;
    let seen = async |sql: &str, operation, n: usize| {
        s.autocommit(&write(&t, operation, sql)).await.unwrap();
        rig.drained().await;
        let findings = rig.findings();
        assert_eq!(findings.len(), n, "{sql}: {findings:#?}");
        let last = findings[n - 1].clone();
        assert!(last.healed && last.count == 1, "{last:#?}");
        (last.kind, last.cause, last.key.unwrap_or_default(), last.primary.unwrap_or_default(), last.shadow)
    };
    let (kind, cause, key, primary, shadow) = seen("UPDATE t SET v = 'new' WHERE id = 1", Update, 1).await;
    assert_eq!((kind, cause, key.as_str(), shadow), (Kind::MissingRow, Cause::WrittenBehind, "id=1", None));
    assert_eq!(primary, "id=1, v=new, u=1");
    assert_eq!(seen("DELETE FROM t WHERE id = 2", Delete, 2).await.0, Kind::MissingRow);
    let (kind, _, _, primary, shadow) = seen("DELETE FROM t WHERE id = 3", Delete, 3).await;
    assert_eq!((kind, primary.as_str(), shadow.as_deref()), (Kind::Value, "v=v3", Some("v=other")));
    let (kind, cause, _, _, shadow) = seen("INSERT INTO t VALUES (101, 'mine', 101)", Insert, 4).await;
    assert_eq!((kind, cause, shadow.as_deref()), (Kind::ExtraRow, Cause::WrittenBehind, Some("v=extra")));
    let (kind, cause, ..) = seen("INSERT INTO t VALUES (102, 'mine', 102)", Insert, 5).await;
    assert_eq!((kind, cause), (Kind::ErrorShadowOnly, Cause::Constraint), "another row has its unique value");
    // An UPDATE writes all columns, so it mends what was different.
    s.autocommit(&write(&t, Update, "UPDATE t SET v = 'w' WHERE id = 4")).await.unwrap();
    rig.drained().await;
    rig.assert_equal(&["t"]).await;
    assert_eq!(rig.store.open_count().unwrap(), 0);
    assert_eq!(rig.store.healed_rows().unwrap(), 5);
    assert!(rig.suspects().is_empty(), "{:?}", rig.suspects());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healing_under_load_converges_and_every_finding_is_healed() {
    let schema = "CREATE TABLE ledger (id int8 PRIMARY KEY, v int4); CREATE TABLE hot (id int4 PRIMARY KEY, v int8);
        INSERT INTO hot SELECT g, 0 FROM generate_series(1, 6) g";
    let mut rig = Rig::new(schema).await;
    rig.start();
    let writers = write_load(&rig, 4, 400).await;
    let behind = rig.shadow.client().await;
    let mut planted = 0;
    while writers.iter().any(|w| !w.is_finished()) {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let gone = behind.execute(&format!("DELETE FROM hot WHERE id = {}", planted % 6 + 1), &[]).await.unwrap();
        planted += gone;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    // The last planted ones are found by the next writes of these rows.
    let s = rig.session().await;
    let hot = relation(&rig.on_primary, "hot").await;
    s.autocommit(&write(&hot, Update, "UPDATE hot SET v = v + 1")).await.unwrap();
    rig.drained().await;
    rig.assert_equal(&["ledger", "hot"]).await;
    let findings = rig.findings();
    let seen: u64 = findings.iter().map(|f| f.count).sum();
    println!("planted {planted}, seen {seen}, findings {}", findings.len());
    assert!(seen >= 1 && seen <= planted, "planted {planted}, seen {seen}");
    assert!(findings.iter().all(|f| f.healed && f.kind == Kind::MissingRow), "{findings:#?}");
    assert_eq!(rig.store.healed_rows().unwrap(), seen);
    assert_eq!(inversions(&rig.trace_path()).0, 0);
    assert!(rig.suspects().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healing_writes_a_key_as_the_primary_spells_it() {
    let mut rig = Rig::new("CREATE TABLE t (n numeric PRIMARY KEY, v text); INSERT INTO t VALUES (1.0, 'a')").await;
    rig.shadow.client().await.batch_execute("UPDATE t SET n = 1.0, v = 'other'").await.unwrap();
    let s = rig.session().await;
    let t = relation(&rig.on_primary, "t").await;
    // What the session saw is spelled another way than what is there when the row is read again.
    s.autocommit(&write(&t, Delete, "DELETE FROM t")).await.unwrap();
    rig.on_primary.batch_execute("INSERT INTO t VALUES (1.00, 'b')").await.unwrap();
    rig.shadow.client().await.batch_execute("DELETE FROM t").await.unwrap();
    rig.start();
    rig.drained().await;
    rig.assert_equal(&["t"]).await;
    assert!(rig.suspects().is_empty(), "{:?}", rig.suspects());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_primary_may_have_lost_is_read_again_and_not_applied() {
    let schema = "CREATE TABLE t (id int4 PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'old'), (2, 'old')";
    let mut rig = Rig::new(schema).await;
    let t = relation(&rig.on_primary, "t").await;
    // Gated far above what is ever flushed; then the row is set back, as a primary that lost the commit has it.
    rig.gate.store(u64::MAX, std::sync::atomic::Ordering::SeqCst);
    let s = rig.session().await;
    s.autocommit(&write(&t, Update, "UPDATE t SET v = 'lost' WHERE id = 1")).await.unwrap();
    s.autocommit(&write(&t, Update, "UPDATE t SET v = 'kept' WHERE id = 2")).await.unwrap();
    rig.on_primary.batch_execute("UPDATE t SET v = 'old' WHERE id = 1").await.unwrap();
    rig.start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.rows("t").await.1, ["(1,old)", "(2,old)"], "not flushed, so not applied");
    rig.book.set_epoch(pgshadow_model::Epoch(2));
    rig.drained().await;
    rig.assert_equal(&["t"]).await;
    assert_eq!(rig.rows("t").await.1, ["(1,old)", "(2,kept)"]);
    assert!(rig.findings().is_empty() && rig.suspects().is_empty());
}

/// What the shadow refuses because rows that are to be read again aren't there yet is no difference between the databases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rows_that_wait_stand_in_the_way_of_is_no_finding() {
    let schema = "CREATE TABLE late (id int4 PRIMARY KEY, u int4 UNIQUE DEFERRABLE); INSERT INTO late VALUES (1, 10);
        CREATE TABLE once (id int4 PRIMARY KEY, u int4 UNIQUE); INSERT INTO once VALUES (1, 10);
        CREATE TABLE copied (id int4 PRIMARY KEY); INSERT INTO copied VALUES (1);
        CREATE TABLE checked (id int4 PRIMARY KEY, v int4); INSERT INTO checked VALUES (1, 10)";
    let mut rig = Rig::new(schema).await;
    let names = ["late", "once", "copied", "checked"];
    let mut tables = Vec::new();
    for name in names {
        tables.push(relation(&rig.on_primary, name).await);
    }
    let [late, once, copied, checked] = tables.as_slice() else { unreachable!() };
    let s = rig.session().await;
    rig.gate.store(u64::MAX, std::sync::atomic::Ordering::SeqCst);
    for table in &tables {
        let gone = format!("DELETE FROM {} WHERE id = 1", table.name.name);
        s.autocommit(&write(table, Delete, gone)).await.unwrap();
    }
    rig.gate.store(0, std::sync::atomic::Ordering::SeqCst);
    s.autocommit(&write(late, Insert, "INSERT INTO late VALUES (2, 10)")).await.unwrap();
    s.autocommit(&write(once, Insert, "INSERT INTO once VALUES (2, 10)")).await.unwrap();
    // no other row can explain this one
    rig.shadow.client().await.batch_execute("ALTER TABLE checked ADD CHECK (v < 100)").await.unwrap();
    s.autocommit(&write(checked, Insert, "INSERT INTO checked VALUES (2, 500)")).await.unwrap();
    let (relation, data) = (Arc::clone(copied), vec!["1\n".into()]);
    let copy = CopyData { relation, sql: "COPY copied FROM STDIN".into(), settings: settings(), data, rows: Some(1) };
    s.statement("INSERT INTO copied VALUES (1)", Change::Copy(copy)).await.unwrap();
    rig.book.set_epoch(pgshadow_model::Epoch(2));
    // nothing can be read again for now
    rig.primary.crash();
    rig.start();
    let book = Arc::clone(&rig.book);
    tokio::time::timeout(Duration::from_secs(20), book.wait_applied(book.barrier())).await.unwrap();
    let told = |rig: &Rig| rig.findings().into_iter().map(|finding| finding.sqlstate.unwrap()).collect::<Vec<_>>();
    assert_eq!(told(&rig), ["23514"]);
    rig.primary.up();
    rig.on_primary = rig.primary.client().await;
    rig.drained().await;
    rig.assert_equal(&["late", "once"]).await;
    assert_eq!(told(&rig), ["23514"]);
    let suspects: Vec<_> = rig.suspects().into_iter().map(|s| s.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(suspects, ["public.checked", "public.copied"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_primary_puts_healing_off_and_the_lane_goes_on() {
    let schema = "CREATE TABLE t (id int4 PRIMARY KEY, v int4); INSERT INTO t SELECT g, 0 FROM generate_series(1, 9) g";
    let mut rig = Rig::new(schema).await;
    let s = rig.session().await;
    let t = relation(&rig.on_primary, "t").await;
    for id in [1, 2, 1, 3] {
        s.autocommit(&write(&t, Update, format!("UPDATE t SET v = v + 1 WHERE id = {id}"))).await.unwrap();
    }
    rig.shadow.client().await.batch_execute("DELETE FROM t WHERE id = 1").await.unwrap();
    let late = tokio::spawn(async move {
        let again = write(&t, Update, "UPDATE t SET v = v + 1 WHERE id = 1");
        s.autocommit_read_late(&again, Duration::from_secs(2)).await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.primary.crash();
    rig.start();
    late.await.unwrap().unwrap();
    let book = Arc::clone(&rig.book);
    tokio::time::timeout(Duration::from_secs(20), book.wait_applied(book.barrier())).await.unwrap();
    assert_eq!(rig.store.open_count().unwrap(), 1);
    // What waits to be healed outlives the process, and nobody is told before that the shadow has everything.
    rig.restart().await;
    let early = tokio::time::timeout(Duration::from_millis(500), rig.drained()).await;
    assert!(early.is_err(), "a row waits to be healed");
    assert_eq!(rig.handle.as_ref().unwrap().status().to_heal, 1);
    rig.primary.up();
    rig.on_primary = rig.primary.client().await;
    rig.drained().await;
    rig.assert_equal(&["t"]).await;
    let findings = rig.findings();
    assert_eq!((findings.len(), findings[0].count, findings[0].healed), (1, 1, true), "{findings:#?}");
}
