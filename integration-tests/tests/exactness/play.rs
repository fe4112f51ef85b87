//! A trial's sessions at one place.
use crate::case::{Around, Protocol, Statement, Step};
use crate::contents::{rows_of, superuser};
use crate::session::Session;
use crate::stage::Trial;
use integration_tests::client::Endpoint;
use integration_tests::process::eventually;
use integration_tests::raw::RawClient;
use std::collections::BTreeMap;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// What the sessions of a trial were told, session by session, and what went wrong on the way.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub sessions: Vec<Vec<String>>,
    pub errors: Vec<String>,
}

/// Plays trials at a place.
pub struct Player {
    place: Endpoint,
    /// The server behind it, and the target.
    behind: [Option<Endpoint>; 2],
    watch: RawClient,
}

impl Player {
    /// Without pgshadow.
    pub fn direct(place: &Endpoint) -> Player {
        Player { place: place.clone(), behind: [Some(place.clone()), None], watch: superuser(place) }
    }

    /// Through pgshadow, between these two.
    pub fn through(pgshadow: &Endpoint, source: &Endpoint, target: &Endpoint) -> Player {
        let behind = [Some(source.clone()), Some(target.clone())];
        Player { place: pgshadow.clone(), behind, watch: superuser(source) }
    }

    /// Runs a trial.
    pub fn play(&mut self, trial: &Trial<'_>) -> Told {
        let mut scene = Scene { trial, player: self, sessions: BTreeMap::new(), errors: Vec::new() };
        match trial.way.around {
            Around::Nothing => scene.steps(),
            Around::Together => scene.together(),
            Around::Block => {
                scene.run(0, "BEGIN");
                scene.steps();
                scene.run(0, "COMMIT");
            }
        }
        let Scene { sessions, errors, .. } = scene;
        let told = sessions.into_values().map(|session| session.told).collect();
        let mut told = Told { sessions: told, errors };
        if trial.case.volatile {
            // Values differ from run to run.
            told.sessions.iter_mut().for_each(|told| told.retain(|line| !line.starts_with("row: ")));
        }
        told
    }
}

/// A trial that is being played.
struct Scene<'a> {
    trial: &'a Trial<'a>,
    player: &'a mut Player,
    sessions: BTreeMap<usize, Session>,
    errors: Vec<String>,
}

impl Scene<'_> {
    fn steps(&mut self) {
        for step in &self.trial.case.steps {
            match step {
                Step::Run { session, statement, fails } => {
                    let text = self.text(statement.sql);
                    let result = self.session(*session).run(&text, statement);
                    self.note(statement.sql, result, *fails);
                }
                Step::Start { session, statement } => {
                    let text = self.text(statement.sql);
                    self.session(*session).send(&text, statement.parameters, 0);
                    let name = self.name(*session);
                    wait_for_lock(&mut self.player.watch, &name);
                }
                Step::Finish { session } => {
                    let result = self.session(*session).read(None);
                    self.note("what had to wait", result, None);
                }
                Step::Behind { sql, both } => self.behind(sql, *both),
            }
        }
    }

    fn behind(&mut self, sql: &str, both: bool) {
        let places = self.player.behind.clone();
        for place in places.iter().take(if both { 2 } else { 1 }).flatten() {
            let place = place.as_user(self.trial.case.role, "");
            let mut session = Session::open(&place, &self.trial.schema, "behind", Protocol::Simple);
            session.send(&self.text(sql), &[], 0);
            let result = session.read(None);
            self.note(sql, result, None);
        }
    }

    fn run(&mut self, session: usize, sql: &'static str) {
        let result = self.session(session).run(sql, &Statement::plain(sql));
        self.note(sql, result, None);
    }

    fn together(&mut self) {
        let mut texts = Vec::new();
        for step in &self.trial.case.steps {
            if let Step::Run { statement, .. } = step {
                texts.push((self.text(statement.sql), statement));
            }
        }
        let session = self.session(0);
        session.send_together(&texts);
        let result = session.read(None);
        self.note("all statements", result, self.trial.case.together_fails);
    }

    /// Prepared transactions have names in the whole cluster.
    fn text(&self, sql: &str) -> String {
        let name = format!("{}_{}", self.trial.schema, self.player.place.port);
        self.trial.text(&sql.replace("{g}", &name))
    }

    fn name(&self, session: usize) -> String {
        format!("{}_{session}_{}", self.trial.schema, self.player.place.port)
    }

    fn session(&mut self, number: usize) -> &mut Session {
        let name = self.name(number);
        let (trial, player) = (self.trial, &self.player);
        let place = player.place.as_user(trial.case.role, "");
        self.sessions.entry(number).or_insert_with(|| Session::open(&place, &trial.schema, &name, trial.way.protocol))
    }

    fn note(&mut self, what: &str, result: Result<Option<String>, String>, wanted: Option<&str>) {
        match result {
            Err(error) => self.errors.push(format!("{what}: {error}")),
            Ok(state) if state.as_deref() != wanted => {
                self.errors.push(format!("{what}: SQLSTATE {state:?}, not {wanted:?}"));
            }
            Ok(_) => {}
        }
    }
}

/// Waits until the server says that this session waits for a lock.
fn wait_for_lock(watch: &mut RawClient, application: &str) {
    let sql =
        format!("SELECT 1 FROM pg_stat_activity WHERE application_name = '{application}' AND wait_event_type = 'Lock'");
    eventually(&format!("{application} waits for a lock"), LIMIT, || (!rows_of(watch, &sql).is_empty()).then_some(()));
}
