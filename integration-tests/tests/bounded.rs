//! pgshadow's memory, whatever the application does and however far the shadow is behind.
//!
//! `make test` runs this small; `make bounded` (PGSHADOW_BOUNDED=full) with two million rows, a gigabyte, 2,000 connections and ten
//! minutes.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
use integration_tests::client::Endpoint;
use integration_tests::equal;
use integration_tests::installation::{Installation, setting};
use integration_tests::postgres::{Auth, Cluster};
use integration_tests::process::eventually;
use integration_tests::proxy::Pgshadow;
use integration_tests::raw::RawClient;
use integration_tests::workload::Load;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What pgshadow may take in all, and what each connection may add (`docs/memory.md`).
const LIMIT: u64 = 256 << 20;
const PER_CONNECTION: u64 = 64 << 10;
/// What the small cases may add to what it takes at the start.
const SMALL_GROWTH: u64 = 48 << 20;
/// The whole of a case at most.
const CASE: Duration = Duration::from_secs(3600);

/// One case at a time: they are measured.
static ALONE: Mutex<()> = Mutex::new(());

fn is_full() -> bool {
    setting("PGSHADOW_BOUNDED").as_deref() == Some("full")
}

fn scaled(small: u64, full: u64) -> u64 {
    if is_full() { full } else { small }
}

/// One pair with pgshadow between, and what it took at the start.
struct Stage {
    source: Cluster,
    target: Cluster,
    pgshadow: Pgshadow,
    at_start: u64,
}

impl Stage {
    fn of(schema: &str, connections: u64) -> Stage {
        let most = (connections + 100).to_string();
        let source = Cluster::of(Installation::old())
            .auth(Auth::Password)
            .set("max_connections", &most)
            .set("max_wal_size", "8GB")
            .start();
        let target = Cluster::of(Installation::newest()).set("max_wal_size", "8GB").start();
        source.app().psql(schema);
        target.app().psql(schema);
        let pgshadow = Pgshadow::between(&source, &target).start();
        let stage = Stage { at_start: 0, source, target, pgshadow };
        stage.app().psql("CREATE TABLE warm (id int PRIMARY KEY); INSERT INTO warm SELECT generate_series(1, 1000)");
        stage.pgshadow.wait_drained(CASE);
        let at_start = stage.status("VmHWM");
        Stage { at_start, ..stage }
    }

    fn app(&self) -> Endpoint {
        self.pgshadow.app()
    }

    /// A line of `/proc/PID/status`, in bytes.
    fn status(&self, name: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pgshadow.pid())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).expect("a number of kB");
        kib << 10
    }

    #[track_caller]
    fn expect_bounded(&self, what: &str, connections: u64) {
        let (most, now) = (self.status("VmHWM"), self.status("VmRSS"));
        let small = self.at_start + SMALL_GROWTH;
        let limit = (if is_full() { LIMIT } else { small.min(LIMIT) }) + connections * PER_CONNECTION;
        let mib = |bytes: u64| bytes >> 20;
        println!(
            "{what}: at most {} MiB, now {} MiB, {} MiB at the start, limit {} MiB",
            mib(most),
            mib(now),
            mib(self.at_start),
            mib(limit)
        );
        println!("lag {}", self.pgshadow.status()["lag"]);
        assert!(most <= limit, "{what}: {} MiB, more than {} MiB", mib(most), mib(limit));
    }

    #[track_caller]
    fn expect_exact(&self) {
        let begun = Instant::now();
        self.pgshadow.wait_drained(CASE);
        println!("drained in {:.1} s", begun.elapsed().as_secs_f64());
        self.pgshadow.expect_spotless();
        equal::assert_equal(&self.source.app(), &self.target.app());
    }
}

const WIDE: &str = "CREATE TABLE wide (id int PRIMARY KEY, n bigint, pad text)";

#[test]
fn a_transaction_of_many_rows() {
    let _alone = ALONE.lock();
    let stage = Stage::of(WIDE, 10);
    let rows = scaled(200_000, 2_000_000);
    let begun = Instant::now();
    stage.app().psql_within(
        &format!("INSERT INTO wide SELECT g, g, 'some text of row ' || g FROM generate_series(1, {rows}) g"),
        CASE,
    );
    println!("written in {:.1} s", begun.elapsed().as_secs_f64());
    stage.expect_bounded("once it is committed", 1);
    stage.expect_exact();
    stage.expect_bounded("once it is applied", 1);
    let half = rows / 2;
    stage
        .app()
        .psql_within(&format!("BEGIN; UPDATE wide SET n = n + 1; DELETE FROM wide WHERE id > {half}; COMMIT"), CASE);
    stage.expect_exact();
    stage.expect_bounded("after a block that writes all of them", 1);
}

#[test]
fn a_large_copy() {
    let _alone = ALONE.lock();
    let stage = Stage::of(WIDE, 10);
    let rows = scaled(400_000, 5_000_000);
    let copy = format!("\\copy wide FROM PROGRAM 'seq 1 {rows} | sed \"s/.*/&\\t&\\tand {} &/\"'", "x".repeat(190));
    let begun = Instant::now();
    stage.app().psql_within(&copy, CASE);
    println!("written in {:.1} s", begun.elapsed().as_secs_f64());
    stage.expect_bounded("once it is committed", 1);
    stage.expect_exact();
    stage.expect_bounded("once it is applied", 1);
}

#[test]
fn a_client_that_does_not_read() {
    let _alone = ALONE.lock();
    let stage = Stage::of(WIDE, 10);
    let rows = scaled(300_000, 3_000_000);
    let place = stage.app();
    let login = || {
        let (mut client, _) =
            RawClient::login(stage.pgshadow.port(), &place.user, &place.password, &place.database).expect("a login");
        client.set_limit(CASE).expect("a limit");
        client
    };
    let texts = [
        format!("SELECT g, repeat('r', 300) FROM generate_series(1, {rows}) g"),
        format!("INSERT INTO wide SELECT g, g, repeat('w', 300) FROM generate_series(1, {rows}) g RETURNING *"),
    ];
    let mut clients: Vec<RawClient> = texts.iter().map(|_| login()).collect();
    for (client, text) in clients.iter_mut().zip(&texts) {
        client.send_frame(b'Q', &[text.as_bytes(), b"\0"].concat()).expect("sent");
    }
    std::thread::sleep(Duration::from_secs(scaled(2, 60)));
    stage.expect_bounded("while it does not read", 2);
    for client in &mut clients {
        let mut got = 0;
        loop {
            match client.receive().expect("an answer").tag {
                b'D' => got += 1,
                b'Z' => break,
                b'E' => panic!("an error"),
                _ => {}
            }
        }
        assert_eq!(got, rows);
    }
    stage.expect_exact();
    stage.expect_bounded("once it has read", 2);
}

#[test]
fn many_idle_connections() {
    let _alone = ALONE.lock();
    let connections = scaled(200, 2000);
    let stage = Stage::of(WIDE, connections);
    let place = stage.app();
    let before = stage.status("VmRSS");
    let clients: Vec<RawClient> = (0..connections)
        .map(|n| {
            let login = RawClient::login(stage.pgshadow.port(), &place.user, &place.password, &place.database);
            let (mut client, _) = login.expect("a login");
            client.query(&format!("INSERT INTO wide VALUES ({n}, 1, 'idle')")).expect("an answer");
            client
        })
        .collect();
    stage.pgshadow.wait_drained(CASE);
    let each = stage.status("VmRSS").saturating_sub(before) / connections;
    println!("{} KiB a connection", each >> 10);
    stage.expect_bounded("idle connections", connections);
    drop(clients);
    stage.expect_exact();
}

#[test]
fn a_target_that_is_away() {
    let _alone = ALONE.lock();
    let load = Load::tpcb().clients(16);
    let mut stage = Stage::of("SELECT 1", 40);
    load.install_on(&[stage.source.app(), stage.target.app()]);
    stage.pgshadow.restart();
    stage.pgshadow.wait_drained(CASE);
    stage.target.stop();
    let bench = load.run(&stage.app(), Duration::from_secs(scaled(10, 600)));
    println!("{} transactions, {:.0} a second", bench.transactions, bench.transactions_per_second);
    stage.expect_bounded("while the target is away", 16);
    // and again, read from the log
    stage.pgshadow.restart();
    eventually("it is there again", CASE, || stage.app().try_psql("SELECT 1").ok());
    stage.expect_bounded("started again", 16);
    stage.target.start();
    stage.expect_exact();
    stage.expect_bounded("once the target has all", 16);
}
