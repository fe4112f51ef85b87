//! Loads of pgbench and of drivers' kinds of protocol, through pgshadow from the older to the newest server.
use integration_tests::client::within;
use integration_tests::scene::{Scene, servers};
use integration_tests::workload::{Load, Protocol};
use integration_tests::{equal, repeats};
use std::time::Duration;
use tokio_postgres::types::Type;

const LIMIT: Duration = Duration::from_secs(30);

/// Short in `make test`; `make conform` takes the 20 s of the promise.
fn duration() -> Duration {
    Duration::from_secs(if repeats() > 1 { 20 } else { 3 })
}

fn mirrored(load: &Load) {
    let scene = Scene::of("");
    load.install_on(&[scene.source.clone(), scene.target.clone()]);
    for protocol in Protocol::ALL {
        let bench = load.clone().protocol(protocol).run(&scene.app(), duration());
        scene.drain();
        let found = equal::differences(&scene.source, &scene.target);
        assert!(found.is_empty(), "{protocol}: {found:?}");
        assert!(bench.transactions > 50, "{}", bench.output);
    }
    scene.expect_exact();
    scene.pgshadow.expect_clean_log(&[]);
}

#[test]
fn tpcb_leaves_both_databases_equal() {
    mirrored(&Load::tpcb());
}

#[test]
fn writes_that_do_not_commute_leave_both_databases_equal() {
    mirrored(&Load::order());
}

const KEYED: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, s text);
    INSERT INTO t SELECT g, g * 10, 'row ' || g FROM generate_series(1, 20) g;";

#[tokio::test]
async fn prepared_statements_with_binary_values() {
    let scene = Scene::of(KEYED);
    let client = scene.app().connect().await;
    let work = async {
        let insert = client.prepare("INSERT INTO t VALUES ($1, $2, $3) RETURNING id, v").await?;
        assert_eq!(insert.params(), [Type::INT4, Type::INT4, Type::TEXT]);
        assert_eq!(insert.columns().len(), 2, "only the client's own columns");
        for id in 100..110_i32 {
            let row = client.query_one(&insert, &[&id, &(id * 2), &"x"]).await?;
            assert_eq!((row.len(), row.get::<_, i32>(1)), (2, id * 2));
        }
        let update = client.prepare("UPDATE t SET v = v + $1 WHERE id = $2").await?;
        assert!(update.columns().is_empty());
        assert_eq!(client.execute(&update, &[&1_i32, &100_i32]).await?, 1);
        assert_eq!(client.execute(&update, &[&1_i32, &-5_i32]).await?, 0);
        assert_eq!(client.execute("DELETE FROM t WHERE id < $1", &[&5_i32]).await?, 4);
        Ok::<_, tokio_postgres::Error>(())
    };
    within(LIMIT, "prepared statements", work).await.unwrap();
    scene.expect_exact();
}

#[tokio::test]
async fn a_prepared_statement_outlives_an_added_column() {
    let scene = Scene::of(KEYED);
    let (client, other) = (scene.app().connect().await, scene.app().connect().await);
    let work = async {
        let update = client.prepare("UPDATE t SET v = $1 WHERE id = $2").await?;
        let returning = client.prepare("UPDATE t SET v = $1 WHERE id = $2 RETURNING v").await?;
        client.execute(&update, &[&1_i32, &1_i32]).await?;
        other.batch_execute("ALTER TABLE t ADD COLUMN extra text DEFAULT 'e'").await?;
        client.execute(&update, &[&2_i32, &2_i32]).await?;
        let row = client.query_one(&returning, &[&3_i32, &3_i32]).await?;
        assert_eq!((row.len(), row.get::<_, i32>(0)), (1, 3));
        other.batch_execute("ALTER TABLE t DROP COLUMN s").await?;
        client.execute(&update, &[&4_i32, &4_i32]).await?;
        Ok::<_, tokio_postgres::Error>(())
    };
    within(LIMIT, "a prepared statement across ALTER TABLE", work).await.unwrap();
    scene.drain();
    let suspects = scene.suspects();
    let known =
        suspects.iter().all(|(table, reason)| table == "public.t" && reason.contains("before the table changed"));
    assert!(known, "{suspects:?}");
    if suspects.is_empty() {
        scene.expect_exact();
    }
}

#[tokio::test]
async fn pipelined_statements_keep_their_order() {
    let scene = Scene::of(KEYED);
    let client = scene.app().connect().await;
    let work = async {
        let add = client.prepare("UPDATE t SET v = (v * 31 + $1) % 1000003 WHERE id = $2").await?;
        let insert = client.prepare("INSERT INTO t VALUES ($1, 0, '')").await?;
        for round in 0..5_i32 {
            let (id, all) = (1000 + round, [1_i32, 2, 3, 4]);
            let one = async { client.execute(&insert, &[&id]).await };
            let refused = async { client.execute(&insert, &[&1_i32]).await };
            let [a, b, c, d] = all.each_ref().map(|x| async { client.execute(&add, &[x, &7_i32]).await });
            let (a, b, one, refused, c, d) = tokio::join!(a, b, one, refused, c, d);
            assert!(refused.is_err());
            assert_eq!([a?, b?, one?, c?, d?], [1; 5]);
        }
        Ok::<_, tokio_postgres::Error>(())
    };
    within(LIMIT, "pipelined statements", work).await.unwrap();
    scene.expect_exact();
}

#[tokio::test]
async fn portals_with_row_limits_are_finished_or_left() {
    let scene = Scene::of(KEYED);
    let mut client = scene.app().connect().await;
    let work = async {
        for finish in [true, false] {
            let transaction = client.transaction().await?;
            let portal = transaction.bind("UPDATE t SET v = v + 1 WHERE id <= 5 RETURNING id", &[]).await?;
            let mut ids = Vec::new();
            for _ in 0..if finish { 6 } else { 2 } {
                ids.extend(transaction.query_portal(&portal, 1).await?.iter().map(|row| row.get::<_, i32>(0)));
            }
            assert_eq!(ids, if finish { vec![1, 2, 3, 4, 5] } else { vec![1, 2] });
            transaction.commit().await?;
        }
        Ok::<_, tokio_postgres::Error>(())
    };
    within(LIMIT, "row limits", work).await.unwrap();
    scene.drain();
    // The rows that a client didn't fetch were written all the same.
    assert_eq!(scene.source.psql("SELECT v - id * 10 FROM t WHERE id <= 5 GROUP BY 1"), "2");
    if let [(table, reason)] = scene.suspects().as_slice() {
        assert!(table == "public.t" && !reason.is_empty(), "{table}: {reason}");
    } else {
        scene.expect_exact();
    }
}

#[tokio::test]
async fn copy_in_by_the_extended_protocol() {
    use futures::SinkExt;
    let scene = Scene::of(KEYED);
    let client = scene.app().connect().await;
    let work = async {
        let sink = client.copy_in("COPY t FROM STDIN").await?;
        tokio::pin!(sink);
        for id in 100..200 {
            sink.send(bytes::Bytes::from(format!("{id}\t1\tcopied\n"))).await?;
        }
        assert_eq!(sink.finish().await?, 100);
        let sink = client.copy_in("COPY t (id, v) FROM STDIN (FORMAT binary)").await?;
        let types = [Type::INT4, Type::INT4];
        let writer = tokio_postgres::binary_copy::BinaryCopyInWriter::new(sink, &types);
        tokio::pin!(writer);
        for id in 200..300_i32 {
            writer.as_mut().write(&[&id, &Some(id)]).await?;
        }
        assert_eq!(writer.finish().await?, 100);
        let sink = client.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await?;
        drop(sink);
        client.execute("UPDATE t SET v = 0 WHERE id = 250", &[]).await?;
        Ok::<_, tokio_postgres::Error>(())
    };
    within(LIMIT, "COPY", work).await.unwrap();
    scene.expect_exact();
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_nothing_behind() {
    let scene = Scene::of(KEYED);
    for sql in ["BEGIN; UPDATE t SET v = -1; INSERT INTO t VALUES (100)", "BEGIN; DELETE FROM t"] {
        let client = scene.app().connect().await;
        within(LIMIT, sql, client.batch_execute(sql)).await.unwrap();
        drop(client);
    }
    let client = scene.app().connect().await;
    // Waits for the locks of those that are gone.
    within(LIMIT, "an update", client.execute("UPDATE t SET v = 5 WHERE id = 1", &[])).await.unwrap();
    scene.expect_exact();
}

/// The look at tables takes the server longer than most statements do: a new session, which knows nothing yet, has none of
/// its own where others have looked.
#[tokio::test]
async fn new_sessions_know_what_others_have_found() {
    let scene = Scene::of(KEYED);
    let name = &scene.source.database;
    scene.source.as_user("postgres", "postgres").psql(&format!("ALTER DATABASE {name} SET log_statement = 'all'"));
    for v in 0..12 {
        let client = scene.app().connect().await;
        let written = client.execute(&format!("UPDATE t SET v = {v} WHERE id = {}", v + 1), &[]).await;
        assert_eq!(written.expect("an update"), 1);
    }
    let log = servers()[0].log();
    let looks = log.lines().filter(|line| line.contains(&format!("@{name} ")) && line.contains("'identity'"));
    let at_tables = looks.clone().filter(|line| line.contains("'indexes'")).count();
    assert_eq!((looks.count(), at_tables), (12, 1), "{log}");
    scene.expect_exact();
}
