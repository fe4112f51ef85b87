//! Cutovers and rollbacks under clients of three drivers, which don't try again: none is told of anything, and what they were told was committed is what
//! is there, once. `PGSHADOW_REPEATS` is how many times there and back, `PGSHADOW_IDLE` how many sessions
//! do nothing besides.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, reason = "a test fails by a panic")]
use integration_tests::drivers::Driver;
use integration_tests::installation::Installation;
use integration_tests::postgres::Cluster;
use integration_tests::proxy::Pgshadow;
use integration_tests::raw::RawClient;
use integration_tests::{equal, repeats};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
const SCHEMA: &str = "
CREATE TABLE district (id int PRIMARY KEY, next_order bigint NOT NULL DEFAULT 0, ytd bigint NOT NULL DEFAULT 0);
CREATE TABLE customer (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
CREATE TABLE stock (item int PRIMARY KEY, quantity bigint NOT NULL DEFAULT 0);
CREATE TABLE orders (id bigserial PRIMARY KEY, district int NOT NULL REFERENCES district, number bigint NOT NULL, ref text NOT NULL UNIQUE, UNIQUE (district, number));
CREATE TABLE order_line (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders, item int NOT NULL REFERENCES stock);
CREATE TABLE history (id bigserial PRIMARY KEY, customer int NOT NULL REFERENCES customer, amount int NOT NULL, ref text NOT NULL UNIQUE);
INSERT INTO district SELECT g FROM generate_series(1, 10) g;
INSERT INTO customer SELECT g FROM generate_series(1, 300) g;
INSERT INTO stock SELECT g FROM generate_series(1, 100) g;";
/// What must hold of what was written, whatever the order.
const SOUND: &str = "SELECT (SELECT sum(next_order) FROM district) = (SELECT count(*) FROM orders)
  AND (SELECT -sum(quantity) FROM stock) = (SELECT count(*) FROM order_line)
  AND (SELECT -sum(balance) FROM customer) = (SELECT coalesce(sum(amount), 0) FROM history)
  AND (SELECT sum(ytd) FROM district) = (SELECT coalesce(sum(amount), 0) FROM history)";

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

fn share(all: &[u64], of: f64) -> u64 {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() as f64 * of) as usize).min(sorted.len() - 1)]
}

#[test]
fn three_drivers_notice_nothing() {
    let whole = repeats() > 1;
    let (clients, idle) = if whole { (64, number("PGSHADOW_IDLE").unwrap_or(1000)) } else { (12, 30) };
    let connections = (2 * (clients + idle) + 150).to_string();
    let [source, target] = [Installation::old(), Installation::newest()]
        .map(|installation| Cluster::of(installation).set("max_connections", &connections).start());
    let known = source.superuser().psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'");
    target.superuser().psql(&format!("ALTER ROLE app PASSWORD '{known}'"));
    for server in [&source, &target] {
        server.app().psql(SCHEMA);
    }
    let pgshadow = Pgshadow::between(&source, &target).users(&format!("\"app\" \"{known}\"\n")).start();
    pgshadow.run(&["verify"], LIMIT).success();
    let app = pgshadow.app();
    let login = || RawClient::login(app.port, &app.user, &app.password, &app.database).unwrap().0;
    let mut waiting: Vec<RawClient> = (0..idle).map(|_| login()).collect();
    let directory = tempfile::tempdir().unwrap();
    let stop = directory.path().join("stop");
    let think = if whole { "400" } else { "100" };
    let drivers = [Driver::Psycopg3, Driver::NodePg, Driver::Jdbc];
    let programs: Vec<Child> = drivers
        .into_iter()
        .enumerate()
        .map(|(number, driver)| {
            let own = clients / 3 + usize::from(number < clients % 3);
            let mut command = driver.ledger();
            command.envs(app.environment()).env("CLIENTS", own.to_string()).env("STOP", &stop).env("THINK", think);
            command.stdout(Stdio::from(std::fs::File::create(directory.path().join(format!("{number}.out"))).unwrap()));
            command.stderr(Stdio::from(std::fs::File::create(directory.path().join(format!("{number}.err"))).unwrap()));
            command.spawn().unwrap()
        })
        .collect();
    let count =
        || app.psql("SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM history)").parse::<u64>().unwrap();
    integration_tests::process::eventually("they write", LIMIT, || (count() > 100).then_some(()));
    let (mut pauses, mut felt, mut moved) = (Vec::new(), Vec::new(), 0);
    for round in 0..2 * repeats() {
        let (command, to) = if round % 2 == 0 { ("cutover", "target") } else { ("rollback", "source") };
        let finished = pgshadow.run(&[command, "--unrehearsed", "--json"], LIMIT);
        assert_eq!(finished.status.code(), Some(0), "{finished:#?}\n{}", pgshadow.log_tail());
        let report: Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!((&report["ended"], pgshadow.status()["primary"].as_str()), (&0.into(), Some(to)), "{report:#}");
        pauses.push(report["pause_us"].as_u64().unwrap());
        moved += report["moved"].as_u64().unwrap();
        felt.extend(report["added_us"][2].as_u64());
        eprintln!(
            "{command} {round}: pause {} us, added {} us, moved {}",
            report["pause_us"], report["added_us"], report["moved"]
        );
        let more = count() + 50;
        integration_tests::process::eventually("they go on", LIMIT, || (count() >= more).then_some(()));
        pgshadow.wait_drained(LIMIT);
        let status = pgshadow.status();
        assert_eq!(status["certificate"]["valid"], true, "{:#}", status["certificate"]);
    }
    std::fs::write(&stop, "").unwrap();
    let mut acknowledged = BTreeSet::new();
    for (number, mut program) in programs.into_iter().enumerate() {
        let read = |name: &str| std::fs::read_to_string(directory.path().join(format!("{number}.{name}"))).unwrap();
        let ended = integration_tests::process::wait(&mut program, LIMIT).expect("it ends");
        assert!(ended.success(), "{:?}: {}", drivers[number], read("err"));
        let said = read("out");
        for line in said.lines().filter(|line| !line.is_empty()) {
            assert!(acknowledged.insert(line.to_owned()), "{line} twice");
        }
    }
    let version = app.psql("SHOW server_version_num");
    for client in &mut waiting {
        client.set_limit(LIMIT).unwrap();
        assert_eq!(client.value("SHOW server_version_num").unwrap(), version);
    }
    pgshadow.wait_drained(LIMIT);
    for server in [&source, &target] {
        let place = server.superuser().in_database("app");
        let refs = place.psql("SELECT ref FROM orders UNION ALL SELECT ref FROM history");
        let there: BTreeSet<String> = refs.lines().map(str::to_owned).collect();
        assert_eq!(there.len(), refs.lines().count(), "a transaction is there twice");
        assert_eq!(there, acknowledged);
        assert_eq!(place.psql(SOUND), "t");
    }
    pgshadow.run(&["verify"], LIMIT).success();
    let [source, target] = [&source, &target].map(|server| server.superuser().in_database("app"));
    equal::assert_equal(&source, &target);
    eprintln!(
        "{} flips, {} transactions, {moved} sessions moved; pause: median {} us, p99 {} us, longest {} us; longest wait of a client: median {} us, longest {} us",
        pauses.len(),
        acknowledged.len(),
        share(&pauses, 0.5),
        share(&pauses, 0.99),
        share(&pauses, 1.0),
        share(&felt, 0.5),
        share(&felt, 1.0)
    );
}
