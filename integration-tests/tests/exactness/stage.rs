//! The servers, and cases run on them: directly, and through pgshadow.
use crate::case::{Around, Case, Protocol, Way};
use crate::contents::{self, rows_of, superuser};
use crate::play::{Player, Told};
use crate::verdict::{Outcome, Seen, judge};
use integration_tests::client::Endpoint;
use integration_tests::installation::Installation;
use integration_tests::postgres::{Auth, Cluster};
use integration_tests::proxy::Pgshadow;
use integration_tests::raw::RawClient;
use integration_tests::scene::DRAIN;
use std::collections::BTreeMap;

/// Roles of the cases, without passwords: the servers trust everyone.
const ROLES: &str = "CREATE ROLE clerk LOGIN; CREATE ROLE tenant LOGIN; CREATE ROLE owner_role; GRANT owner_role TO app; GRANT clerk TO pgshadow;
    CREATE ROLE narrow LOGIN; ALTER ROLE narrow SET work_mem = '64kB'; ALTER ROLE narrow SET temp_file_limit = '1MB';";

/// Trials through one pgshadow at a time.
const WORKERS: usize = 3;

/// Where foreign tables have their rows: those of a database without pgshadow, those of the source and its target.
const REMOTES: [&str; 2] = ["far_direct", "far"];

/// A source and its target.
#[derive(Debug)]
pub struct Pair {
    pub source: Cluster,
    pub target: Cluster,
}

impl Pair {
    /// Starts both.
    pub fn of(source: &Installation, target: &Installation) -> Pair {
        let start = |installation| {
            let cluster =
                Cluster::of(installation).auth(Auth::Trust).set("autovacuum", "off").set("jit", "off").start();
            cluster.superuser().psql(ROLES);
            cluster
        };
        let pair = Pair { source: start(source), target: start(target) };
        for remote in REMOTES {
            pair.source.create_database(remote).psql("CREATE TABLE far (who text, id int, v int)");
        }
        pair
    }

    /// Drops the databases of a run.
    pub fn forget(&self) {
        for (cluster, name) in [(&self.source, "alone_direct"), (&self.source, "alone"), (&self.target, "alone")] {
            cluster.superuser().psql(&format!("DROP DATABASE {name} WITH (FORCE)"));
        }
    }

    /// What foreign tables have written lies in databases that nothing compares otherwise: through pgshadow it is there
    /// once, as without it.
    #[track_caller]
    pub fn assert_remote_rows_are_written_once(&self) {
        let rows = |name| self.source.app().in_database(name).psql("SELECT * FROM far ORDER BY 1, 2, 3");
        let [direct, proxied] = REMOTES.map(rows);
        assert_eq!(direct, proxied, "rows of foreign tables");
    }

    /// Major version of the source.
    pub fn major(&self) -> u32 {
        self.source.installation().major
    }
}

/// A case in one way, in a schema of its own.
#[derive(Debug)]
pub struct Trial<'a> {
    pub case: &'a Case,
    pub way: Way,
    pub schema: String,
    function: String,
}

impl<'a> Trial<'a> {
    /// All ways of a case; `number` makes their names.
    pub fn all(number: usize, case: &'a Case) -> Vec<Trial<'a>> {
        let trial = |way: Way| {
            let protocol = if way.protocol == Protocol::Simple { 's' } else { 'x' };
            let around = match way.around {
                Around::Nothing => 'a',
                Around::Block => 'b',
                Around::Together => 't',
            };
            Trial { case, way, schema: format!("c{number}_{protocol}{around}"), function: format!("f{number}") }
        };
        case.ways().into_iter().map(trial).collect()
    }

    /// A text with the names that it was given.
    pub fn text(&self, sql: &str) -> String {
        sql.replace("{s}", &self.schema).replace("{f}", &self.function)
    }

    /// The text with the placeholders again.
    pub fn forget_names(&self, text: &str) -> String {
        text.replace(&self.schema, "s").replace(&self.function, "f")
    }

    /// What the superuser does: the remote database of foreign tables is the source's and the target's, or that of the
    /// database without pgshadow.
    fn admin(&self, source: &Endpoint, remote: &str) -> String {
        self.text(&self.case.admin).replace("{port}", &source.port.to_string()).replace("{remote}", remote)
    }
}

/// Runs these cases in all ways; those that are not alone share a pgshadow.
pub fn run<'a>(pair: &Pair, cases: &[(usize, &'a Case)]) -> Vec<(Trial<'a>, Outcome)> {
    let known = || cases.iter().filter(|(_, case)| case.since <= pair.major());
    // What functions do isn't known for a moment after each definition: others would be declared by chance.
    let mut outcomes = Vec::new();
    for (name, define) in [("together", false), ("definitions", true)] {
        let these = known().filter(|(_, case)| !case.alone && case.defines() == define);
        let trials: Vec<_> = these.flat_map(|(number, case)| Trial::all(*number, case)).collect();
        if !trials.is_empty() {
            outcomes.extend(Databases::on(pair, name).run(pair, trials));
        }
    }
    let databases = Databases::on(pair, "alone");
    for trial in known().filter(|(_, case)| case.alone).flat_map(|(number, case)| Trial::all(*number, case)) {
        outcomes.extend(databases.run(pair, vec![trial]));
        // The next pgshadow has a log of its own.
        databases.target.as_user("postgres", "").psql("DROP SCHEMA pgshadow CASCADE");
        // A case may have taken it away.
        for place in [&databases.direct, &databases.source, &databases.target] {
            let right = "GRANT EXECUTE ON FUNCTION pg_catalog.pg_current_wal_insert_lsn() TO PUBLIC";
            place.as_user("postgres", "").psql(right);
        }
    }
    outcomes
}

/// Where trials are run.
struct Databases {
    /// Without pgshadow.
    direct: Endpoint,
    source: Endpoint,
    target: Endpoint,
}

impl Databases {
    fn on(pair: &Pair, name: &str) -> Databases {
        let direct = pair.source.create_database(&format!("{name}_direct"));
        let (source, target) = (pair.source.create_database(name), pair.target.create_database(name));
        for place in [&direct, &source, &target] {
            place.as_user("postgres", "").psql("CREATE EXTENSION postgres_fdw");
        }
        Databases { direct, source, target }
    }

    fn run<'a>(&self, pair: &Pair, trials: Vec<Trial<'a>>) -> Vec<(Trial<'a>, Outcome)> {
        let Databases { direct, source, target } = self;
        std::thread::scope(|scope| {
            for (place, remote) in [(direct, REMOTES[0]), (source, REMOTES[1]), (target, REMOTES[1])] {
                let trials = &trials;
                scope.spawn(move || install(place, trials, source, remote));
            }
        });
        let pgshadow = Pgshadow::between(&pair.source, &pair.target).database(&source.database).start();
        let [directly, mirrored] = self.play(&trials, &pgshadow);
        pgshadow.wait_drained(DRAIN);
        let seen = Seen::of(&pgshadow, trials.iter().map(|trial| trial.schema.as_str()));
        for trial in &trials {
            assert_not_stored(&pgshadow, trial.case.secret);
        }
        let only = if let [trial] = trials.as_slice() { trial.schema.as_str() } else { "" };
        let contents = [direct, source, target].map(|place| contents::read(place, only));
        let told = directly.into_values().zip(mirrored.into_values());
        let judged = |(trial, told): (Trial<'a>, (Told, Told))| {
            let outcome = judge(&trial, &told.into(), contents.each_ref(), &seen);
            (trial, outcome)
        };
        trials.into_iter().zip(told).map(judged).collect()
    }

    /// What the trials' clients are told without pgshadow, and with it.
    fn play(&self, trials: &[Trial<'_>], pgshadow: &Pgshadow) -> [BTreeMap<usize, Told>; 2] {
        let some = |mut player: Player, worker: usize, workers: usize| {
            let these = trials.iter().enumerate().filter(|(index, _)| index % workers == worker);
            these.map(|(index, trial)| (index, player.play(trial))).collect::<BTreeMap<_, _>>()
        };
        let (direct, app) = (Player::direct(&self.direct), pgshadow.app());
        let through = || Player::through(&app, &self.source, &self.target);
        // What one trial alone does may be the cluster's: one after the other.
        if trials.len() == 1 {
            return [some(direct, 0, 1), some(through(), 0, 1)];
        }
        // Their tables are their own: several at a time, unless definitions change what is known of all.
        let serial = trials.iter().any(|trial| trial.case.defines());
        let workers = if serial { 1 } else { WORKERS };
        std::thread::scope(|scope| {
            let some = &some;
            let directly = scope.spawn(move || some(direct, 0, 1));
            let players: Vec<_> = (0..workers)
                .map(|worker| {
                    let player = through();
                    scope.spawn(move || some(player, worker, workers))
                })
                .collect();
            let told = players.into_iter().flat_map(|player| player.join().expect("it is played"));
            let told = told.collect();
            [directly.join().expect("it is played"), told]
        })
    }
}

/// Fails where the word is in a file of pgshadow's, its log included.
fn assert_not_stored(pgshadow: &Pgshadow, word: Option<&str>) {
    let Some(word) = word else { return };
    let mut directories = vec![pgshadow.data_directory()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("pgshadow's directory").flatten() {
            if entry.path().is_dir() {
                directories.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            let found = bytes.windows(word.len()).any(|bytes| bytes == word.as_bytes());
            assert!(!found, "{word} is stored in {}", entry.path().display());
        }
    }
    assert!(!pgshadow.log().contains(word), "{word} is in the log");
}

fn install(place: &Endpoint, trials: &[Trial<'_>], source: &Endpoint, remote: &str) {
    let mut app = RawClient::login(place.port, "app", "app", &place.database).expect("app is let in").0;
    let mut admin = superuser(place);
    for trial in trials {
        let schema = &trial.schema;
        let head = format!("CREATE SCHEMA {schema}; SET search_path = {schema}, public; ");
        rows_of(&mut app, &(head + &trial.text(&trial.case.schema)));
        if !trial.case.admin.is_empty() {
            let sql = format!("SET search_path = {schema}, public; {}", trial.admin(source, remote));
            rows_of(&mut admin, &sql);
        }
    }
}
