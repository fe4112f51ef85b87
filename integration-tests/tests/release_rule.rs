//! Twelve sessions update six contended rows, half of them in autocommit, while one transaction stays open with an old
//! token: nothing waits for it, and no row is applied with a falling token.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::client::{Endpoint, within};
use integration_tests::history::{Dice, Inversions};
use integration_tests::repeats;
use integration_tests::scene::Scene;
use std::time::Duration;

const SESSIONS: u64 = 12;
const LIMIT: Duration = Duration::from_secs(120);
const SCHEMA: &str = "CREATE TABLE release_rule (id int PRIMARY KEY, v bigint);
    INSERT INTO release_rule SELECT g, g FROM generate_series(0, 6) g;";

async fn session(place: Endpoint, seed: u64, number: u64, transactions: u32) -> Result<(), tokio_postgres::Error> {
    let mut dice = Dice::new(seed, number);
    let mut client = place.connect().await;
    let sql = "UPDATE release_rule SET v = (v * 31 + $1) % 1000003 WHERE id = $2";
    let update = client.prepare(sql).await?;
    for _ in 0..transactions {
        if dice.percent(50) {
            client.execute(&update, &[&i64::from(dice.between(1, 999)), &dice.between(1, 6)]).await?;
        } else {
            let mut rows = [dice.between(1, 6), dice.between(1, 6)];
            rows.sort_unstable();
            let transaction = client.transaction().await?;
            for row in rows {
                transaction.execute(&update, &[&i64::from(dice.between(1, 999)), &row]).await?;
            }
            transaction.commit().await?;
        }
    }
    Ok(())
}

fn run(seed: u64) -> Inversions {
    eprintln!("seed {seed}");
    let scene = Scene::with(SCHEMA, "", |builder| builder.with_trace());
    let transactions = if repeats() > 1 { 300 } else { 80 };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let idle = scene.app().connect().await;
        let open = "BEGIN; UPDATE release_rule SET v = -1 WHERE id = 0";
        within(LIMIT, "the idle writer", idle.batch_execute(open)).await.unwrap();
        let sessions: Vec<_> =
            (0..SESSIONS).map(|number| tokio::spawn(session(scene.app(), seed, number, transactions))).collect();
        for session in sessions {
            within(LIMIT, "a session", session).await.expect("a session").expect("its statements");
        }
        // An open transaction holds nothing back.
        scene.drain();
        within(LIMIT, "the idle writer's end", idle.batch_execute("COMMIT")).await.unwrap();
    });
    scene.expect_exact();
    let inversions = Inversions::of(&scene.pgshadow.trace());
    assert!(inversions.rows as u32 >= transactions * SESSIONS as u32, "{inversions:?}");
    assert_eq!(inversions.applied, 0, "{inversions:?}");
    inversions
}

#[test]
fn rows_are_applied_by_the_release_rule() {
    let runs = repeats().max(2);
    let replied: usize = (1..=runs).map(|seed| run(u64::from(seed)).replied).sum();
    assert!(replied > 0, "the load was too tame: the order of replies was right by chance in all {runs} runs");
}
