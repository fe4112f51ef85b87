//! Servers that all bouts share, and a database for each of them.
use crate::round::Bout;
use integration_tests::client::Endpoint;
use integration_tests::installation::Installation;
use integration_tests::postgres::{Auth, Cluster};

/// Sources and targets: the oldest major to the newest, and the newest to itself.
#[derive(Debug, Default)]
pub struct Stage {
    pairs: [Option<[Cluster; 2]>; 2],
    databases: u32,
}

/// The majors of the two sources.
pub fn majors() -> [u32; 2] {
    [Installation::old().major, Installation::newest().major]
}

fn start(installation: &Installation) -> Cluster {
    // Deadlocks are part of the load; frames of our own log in with a clear password.
    Cluster::of(installation).auth(Auth::Password).set("deadlock_timeout", "100ms").set("jit", "off").start()
}

impl Stage {
    /// The servers for a bout, started if need be.
    pub fn pair(&mut self, bout: &Bout) -> &mut [Cluster; 2] {
        let make = || {
            let source = if bout.same_major { Installation::newest() } else { Installation::old() };
            [start(source), start(Installation::newest())]
        };
        self.pairs[usize::from(bout.same_major)].get_or_insert_with(make)
    }

    /// The same empty database on both servers; the source's and the target's, past pgshadow.
    pub fn databases(&mut self, bout: &Bout) -> [Endpoint; 2] {
        self.databases += 1;
        let name = format!("torture{}", self.databases);
        self.pair(bout).each_ref().map(|server| server.create_database(&name))
    }

    /// Removes them.
    pub fn drop_databases(&mut self, bout: &Bout, name: &str) {
        for server in self.pair(bout) {
            // with one that is still prepared no database can be dropped
            let there = server.superuser().in_database(name);
            let left = there.psql(
                "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE database = current_database()",
            );
            left.lines().filter(|line| !line.is_empty()).for_each(|line| drop(there.psql(line)));
            server.superuser().psql(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        }
    }
}

/// What a server has logged of a database, and of none.
pub fn log_of(server: &Cluster, database: &str) -> String {
    let mut told = false;
    let concerns = |line: &&str| {
        // "... [123] user@database LOG:  ..."; lines that go on begin with a tab.
        if !line.starts_with('\t') {
            told = !line.contains('@') || line.split(['@', ' ']).any(|word| word == database);
        }
        told
    };
    server.log().lines().filter(concerns).collect::<Vec<_>>().join("\n")
}
