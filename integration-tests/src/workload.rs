//! Loads that pgbench runs.
use crate::client::{Bench, Endpoint};
use crate::process::Finished;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How pgbench sends its statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Simple queries.
    Simple,
    /// Parse, bind and execute each time.
    Extended,
    /// Parsed once a session.
    Prepared,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Simple, Protocol::Extended, Protocol::Prepared];
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Protocol::Simple => "simple",
            Protocol::Extended => "extended",
            Protocol::Prepared => "prepared",
        })
    }
}

/// Tables and a script for pgbench.
#[derive(Debug, Clone)]
pub struct Load {
    schema: String,
    script: Script,
    clients: u32,
    threads: u32,
    rate: Option<u32>,
    protocol: Protocol,
}

#[derive(Debug, Clone)]
enum Script {
    Builtin(&'static str),
    Own(String),
}

impl Load {
    /// pgbench's own TPC-B, scale 1.
    pub fn tpcb() -> Load {
        Load::new(TPCB_SCHEMA, Script::Builtin("tpcb-like"))
    }

    /// Writes whose order shows in the result, as TPC-B's sums don't: `v = (v * 31 + x) mod p` on 50 rows, and an
    /// insert with a serial key.
    pub fn order() -> Load {
        Load::new(ORDER_SCHEMA, Script::Own(ORDER_SCRIPT.into()))
    }

    /// Own tables and an own script.
    pub fn own(schema: &str, script: &str) -> Load {
        Load::new(schema, Script::Own(script.into()))
    }

    fn new(schema: &str, script: Script) -> Load {
        Load { schema: schema.into(), script, clients: 8, threads: 2, rate: None, protocol: Protocol::Simple }
    }

    /// Concurrent clients; 8 without this.
    pub fn clients(mut self, clients: u32) -> Load {
        self.clients = clients;
        self
    }

    /// Threads at most; 2 without this.
    pub fn threads(mut self, threads: u32) -> Load {
        self.threads = threads;
        self
    }

    /// So many scripts a second; as many as there can be without this.
    pub fn rate(mut self, rate: u32) -> Load {
        self.rate = Some(rate);
        self
    }

    /// The protocol; simple without this.
    pub fn protocol(mut self, protocol: Protocol) -> Load {
        self.protocol = protocol;
        self
    }

    /// Makes the tables with their first rows on each place, directly.
    pub fn install_on(&self, places: &[Endpoint]) {
        for place in places {
            place.psql_within(&self.schema, Duration::from_secs(120));
        }
    }

    /// Runs for this long; a failed transaction or a lost client fails the test.
    #[track_caller]
    pub fn run(&self, place: &Endpoint, duration: Duration) -> Bench {
        let bench = self.attempt(place, duration).unwrap_or_else(|finished| panic!("{finished:#?}"));
        assert!(bench.transactions > 0 && bench.failed == 0, "pgbench:\n{}", bench.output);
        bench
    }

    /// The load goes on for as long as `work` takes; a failed transaction or a lost client fails the test.
    pub fn during<T>(&self, place: &Endpoint, work: impl FnOnce() -> T) -> T {
        let transactions = AtomicU64::new(0);
        let bout = || {
            let bench = self.attempt(place, Duration::from_secs(1)).unwrap_or_else(|finished| panic!("{finished:#?}"));
            assert_eq!(bench.failed, 0, "pgbench:\n{}", bench.output);
            transactions.fetch_add(bench.transactions, Ordering::SeqCst);
        };
        let done = Self::beside(bout, work);
        // a busy machine may leave none of them to one bout
        assert!(transactions.into_inner() > 0, "the load did nothing");
        done
    }

    /// [`Load::during`], where servers are killed: what becomes of the clients doesn't matter, they begin again.
    pub fn during_faults<T>(&self, place: &Endpoint, work: impl FnOnce() -> T) -> T {
        Self::beside(|| drop(self.attempt(place, Duration::from_secs(1))), work)
    }

    fn beside<T>(bout: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    bout();
                }
            });
            let done = catch_unwind(AssertUnwindSafe(work));
            over.store(true, Ordering::SeqCst);
            done.unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    #[track_caller]
    fn attempt(&self, place: &Endpoint, duration: Duration) -> Result<Bench, Finished> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("script.sql");
        let file_name = file.to_string_lossy().into_owned();
        let (clients, protocol) = (self.clients.to_string(), self.protocol.to_string());
        let (seconds, threads) = (duration.as_secs().max(1).to_string(), self.clients.min(self.threads).to_string());
        let mut arguments = vec!["-n", "-c", &clients, "-j", &threads, "-T", &seconds, "-M", &protocol];
        let rate = self.rate.map(|rate| rate.to_string()).unwrap_or_default();
        if self.rate.is_some() {
            arguments.extend(["-R", &rate]);
        }
        match &self.script {
            Script::Builtin(name) => arguments.extend(["-b", name]),
            Script::Own(text) => {
                std::fs::write(&file, text).expect("own directory");
                arguments.extend(["-f", &file_name]);
            }
        }
        place.pgbench(&arguments, duration + Duration::from_secs(60))
    }
}

const ORDER_SCHEMA: &str = "
CREATE TABLE hot (id int PRIMARY KEY, v bigint NOT NULL);
INSERT INTO hot SELECT g, g FROM generate_series(1, 50) g;
CREATE TABLE entry (id bigserial PRIMARY KEY, hot int NOT NULL, x int NOT NULL);
";

const ORDER_SCRIPT: &str = r"\set id random(1, 50)
\set x random(1, 1000000)
BEGIN;
UPDATE hot SET v = (v * 31 + :x) % 1000003 WHERE id = :id;
INSERT INTO entry (hot, x) VALUES (:id, :x);
COMMIT;
";

/// What `pgbench -i -s 1` makes, with a key for the history: rows without one are another test's matter.
const TPCB_SCHEMA: &str = "
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88)) WITH (fillfactor = 100);
CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84)) WITH (fillfactor = 100);
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)) WITH (fillfactor = 100);
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
INSERT INTO pgbench_branches SELECT 1, 0;
INSERT INTO pgbench_tellers SELECT g, 1, 0 FROM generate_series(1, 10) g;
INSERT INTO pgbench_accounts SELECT g, 1, 0, '' FROM generate_series(1, 100000) g;
";
