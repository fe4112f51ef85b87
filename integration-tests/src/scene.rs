//! A database of its own for each scenario, on two servers that all scenarios of a test program share, and a pgshadow
//! that mirrors it.
use crate::client::Endpoint;
use crate::equal;
use crate::postgres::Cluster;
use crate::proxy::{Pgshadow, PgshadowBuilder};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long the shadow may take to apply what a scenario wrote.
pub const DRAIN: Duration = Duration::from_secs(60);

/// What stands in the place of a table where all of them are suspect.
pub const EVERY_TABLE: &str = "every table";

static SERVERS: OnceLock<[Cluster; 2]> = OnceLock::new();
static NEWEST: OnceLock<[Cluster; 2]> = OnceLock::new();
static BACK: OnceLock<[Cluster; 2]> = OnceLock::new();

/// The older and the newest server of this test program.
pub fn servers() -> &'static [Cluster; 2] {
    // Statics are never dropped: the servers' reapers end them with the program.
    SERVERS.get_or_init(|| [Cluster::old(), Cluster::newest()])
}

/// Two servers of the newest major.
pub fn newest_servers() -> &'static [Cluster; 2] {
    NEWEST.get_or_init(|| [Cluster::newest(), Cluster::newest()])
}

/// The same empty database on both servers; the source's and the target's, as the role `app`, past pgshadow.
pub fn databases() -> [Endpoint; 2] {
    databases_on(servers())
}

fn databases_on(servers: &[Cluster; 2]) -> [Endpoint; 2] {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let name = format!("scene{}", NEXT.fetch_add(1, Ordering::Relaxed));
    servers.each_ref().map(|server| server.create_database(&name))
}

/// One scenario's stage.
#[derive(Debug)]
pub struct Scene {
    /// The primary's database, directly.
    pub source: Endpoint,
    /// The shadow's database, directly.
    pub target: Endpoint,
    /// The proxy before them.
    pub pgshadow: Pgshadow,
}

impl Scene {
    /// The same tables on both sides, made directly, and pgshadow with its settings as they come.
    #[track_caller]
    pub fn of(schema: &str) -> Scene {
        Scene::with(schema, "", |builder| builder)
    }

    /// [`of`](Self::of), where the target then differs by some statements and pgshadow is set up otherwise.
    #[track_caller]
    pub fn with(schema: &str, on_target: &str, set_up: impl FnOnce(PgshadowBuilder) -> PgshadowBuilder) -> Scene {
        Scene::on(servers(), schema, on_target, set_up)
    }

    /// [`of`](Self::of), between two servers of the newest major.
    #[track_caller]
    pub fn newest(schema: &str) -> Scene {
        Scene::on(newest_servers(), schema, "", |builder| builder)
    }

    /// [`of`](Self::of), from the newest major to the oldest one: as after a cutover.
    #[track_caller]
    pub fn back(schema: &str) -> Scene {
        let servers = BACK.get_or_init(|| [Cluster::newest(), Cluster::old()]);
        Scene::on(servers, schema, "", |builder| builder)
    }

    /// [`with`](Self::with), where the target has none of the tables.
    #[track_caller]
    pub fn onto_nothing(schema: &str, set_up: impl FnOnce(PgshadowBuilder) -> PgshadowBuilder) -> Scene {
        let [source, target] = databases();
        source.psql(schema);
        let [of_source, of_target] = servers();
        let pgshadow = set_up(Pgshadow::between(of_source, of_target).database(&source.database)).start();
        Scene { source, target, pgshadow }
    }

    #[track_caller]
    fn on(
        servers: &[Cluster; 2],
        schema: &str,
        on_target: &str,
        set_up: impl FnOnce(PgshadowBuilder) -> PgshadowBuilder,
    ) -> Scene {
        let [source, target] = databases_on(servers);
        source.psql(schema);
        target.psql(schema);
        target.psql(on_target);
        let [of_source, of_target] = servers;
        let pgshadow = set_up(Pgshadow::between(of_source, of_target).database(&source.database)).start();
        Scene { source, target, pgshadow }
    }

    /// The application's role, through pgshadow.
    pub fn app(&self) -> Endpoint {
        self.pgshadow.app()
    }

    /// Waits until the shadow has all that was committed.
    #[track_caller]
    pub fn drain(&self) {
        self.pgshadow.wait_drained(DRAIN);
    }

    /// All tables are equal, and nothing was noticed, mended or declared.
    #[track_caller]
    pub fn expect_exact(&self) {
        self.drain();
        let status = self.pgshadow.status();
        let suspects = &status["suspect_tables"];
        assert!(suspects.as_array().is_some_and(Vec::is_empty), "suspect tables: {suspects:#}");
        equal::assert_equal(&self.source, &self.target);
        self.pgshadow.expect_spotless();
    }

    /// Exactly these tables are suspect, each for a reason that holds this text; all others are equal, and there is no
    /// finding.
    #[track_caller]
    pub fn expect_suspects(&self, expected: &[(&str, &str)]) {
        self.drain();
        let status = self.pgshadow.status();
        let suspects = self.suspects();
        let named = |table: &str| expected.iter().find(|(name, _)| *name == table || *name == EVERY_TABLE);
        for (table, reason) in &suspects {
            let fits = named(table).is_some_and(|(_, text)| reason.contains(text));
            assert!(fits, "{table} is suspect: {reason}\nexpected: {expected:?}");
        }
        for (table, text) in expected {
            assert!(suspects.iter().any(|(name, _)| name == table), "{table} is not suspect ({text}): {suspects:?}");
        }
        let unnamed: Vec<_> = equal::differences(&self.source, &self.target)
            .into_iter()
            .filter(|difference| named(&difference.table).is_none())
            .map(|difference| difference.to_string())
            .collect();
        assert!(unnamed.is_empty(), "differ without being suspect:\n{}", unnamed.join("\n"));
        assert_eq!(status["findings_open"], 0, "{:#}", self.pgshadow.report());
    }

    /// The suspect tables with their reasons.
    #[track_caller]
    pub fn suspects(&self) -> Vec<(String, String)> {
        let status = self.pgshadow.status();
        let tables = status["suspect_tables"].as_array().expect("status --json has suspect_tables");
        let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
        tables.iter().map(|suspect| (text(&suspect["table"]), text(&suspect["reason"]))).collect()
    }
}
