//! Sessions that are taken along to another primary, between two servers: what they had they have there, and no client is told of anything but
//! what is otherwise.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, reason = "a test fails by a panic")]
use futures::future::BoxFuture;
use integration_tests::client::Endpoint;
use integration_tests::postgres::Cluster;
use integration_tests::raw::{Frame, RawClient, parameters};
use integration_tests::scene::{databases, servers};
use pgshadow_capture::{
    Backends, Guard, Journal, Question, Settled, Shared, Spill, SpillRefused, Stopped, Unsettled, Verdict,
};
use pgshadow_catalog::Catalog;
use pgshadow_model::{Changes, Epoch, Intent, Lsn, QualifiedName, Sequence, Suspect};
use pgshadow_proxy::{
    Authentication, Config, Gate, OtherDatabases, Proxy, Route, Routes, Secret, Secrets, Sessions, Upstream,
};
use pgshadow_wire::scram::Verifier;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(30);

/// Counts what is written; nothing of it is kept.
#[derive(Debug, Default)]
struct Counted {
    intents: AtomicU64,
    committed: AtomicU64,
}

impl Journal for Counted {
    fn mirroring(&self) -> bool {
        true
    }
    fn is_behind(&self) -> bool {
        false
    }
    fn epoch(&self) -> Epoch {
        Epoch(1)
    }
    fn intent(&self, intent: Intent) -> (Changes, Result<Sequence, Stopped>) {
        (intent.changes, Ok(self.intents.fetch_add(1, Ordering::SeqCst) + 1))
    }
    fn spill(&self) -> Result<Box<dyn Spill>, SpillRefused> {
        Err(SpillRefused("there is no disk".to_owned()))
    }
    fn barrier(&self) -> Sequence {
        self.intents.load(Ordering::SeqCst) + 1
    }
    fn latest(&self) -> Lsn {
        Lsn(0)
    }
    fn settle(&self, settled: Settled) {
        let wrote = !settled.intent_changes.is_empty() || !settled.changes.is_empty();
        self.committed.fetch_add(u64::from(settled.committed && wrote), Ordering::SeqCst);
    }
    fn lost(&self, _: Unsettled) {}
    fn prepared(&self, _: String, _: Unsettled) {}
    fn finishing_prepared(&self, _: &str) -> Option<Sequence> {
        None
    }
    fn finished_prepared(&self, _: &str, _: bool) {}
    fn is_suspect(&self, _: &QualifiedName) -> Option<String> {
        None
    }
    fn suspect(&self, suspects: Vec<Suspect>) {
        panic!("suspect: {suspects:?}");
    }
    fn not_repeated(&self, sql: &str, _: &str) {
        panic!("not repeated: {sql}");
    }
}

impl Gate for Counted {
    async fn durable(&self, _: u64) {}
    async fn known_life(&self) {}
    async fn judge(&self, _: Question) -> Verdict {
        Verdict::Goes
    }
}

#[derive(Debug)]
struct App(Verifier);

impl Secrets for App {
    fn of<'a>(&'a self, user: &'a [u8]) -> BoxFuture<'a, Result<Option<Secret>, String>> {
        Box::pin(async move { Ok((user == b"app").then(|| Secret::Verifier(self.0.clone()))) })
    }
    fn salt(&self) -> &[u8; 32] {
        &[7; 32]
    }
}

/// A proxy, and the database on both servers.
struct Stage {
    here: Endpoint,
    there: Endpoint,
    /// Through the proxy.
    app: Endpoint,
    routes: Arc<Routes<Counted>>,
    sessions: Arc<Sessions>,
    journals: [Arc<Counted>; 2],
    shutdown: CancellationToken,
    _runtime: tokio::runtime::Runtime,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn verifier(cluster: &Cluster) -> String {
    cluster.superuser().psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
}

fn shared(journal: &Arc<Counted>) -> Arc<Shared<Counted>> {
    Arc::new(Shared {
        journal: Arc::clone(journal),
        catalog: Arc::new(Catalog::default()),
        excluded: HashSet::new(),
        backends: Arc::new(Backends::default()),
        statements: 0.0,
        guard: Guard::default(),
    })
}

fn upstream(place: &Endpoint) -> Upstream {
    Upstream::Tcp { host: "127.0.0.1".into(), port: place.port }
}

fn stage(schema: &str, authentication: impl FnOnce(Verifier) -> Authentication) -> Stage {
    static KNOWN: OnceLock<String> = OnceLock::new();
    let [source, target] = servers();
    let known = KNOWN.get_or_init(|| {
        let known = verifier(source);
        target.superuser().psql(&format!("ALTER ROLE app PASSWORD '{known}'"));
        known
    });
    let [here, mut there] = databases();
    // another name there
    let name = format!("{}_there", there.database);
    target.superuser().psql(&format!("ALTER DATABASE {} RENAME TO {name}", there.database));
    there.database = name;
    for place in [&here, &there] {
        place.psql(schema);
    }
    let journals = [Arc::new(Counted::default()), Arc::new(Counted::default())];
    let first = Route {
        number: 0,
        upstream: upstream(&here),
        database: None,
        settings: Vec::new(),
        shared: Some(shared(&journals[0])),
    };
    let routes = Arc::new(Routes::new(first, upstream(&here)));
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        database: here.database.clone(),
        other_databases: OtherDatabases::Refuse,
        authentication: authentication(Verifier::parse(known).unwrap()),
        connect_timeout: LIMIT,
        startup_timeout: LIMIT,
        clients_max: 1000,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let proxy = runtime.block_on(Proxy::bind(config, Arc::clone(&routes))).unwrap();
    let (port, sessions, shutdown) = (proxy.address().unwrap().port(), proxy.sessions(), CancellationToken::new());
    runtime.spawn(proxy.run(shutdown.clone(), Duration::from_secs(1)));
    let app = Endpoint { port, ..here.clone() };
    Stage { here, there, app, routes, sessions, journals, shutdown, _runtime: runtime }
}

fn scram(verifier: Verifier) -> Authentication {
    Authentication::Scram(Arc::new(App(verifier)))
}

impl Stage {
    fn login(&self) -> (RawClient, Vec<Frame>) {
        let (mut client, frames) =
            RawClient::login(self.app.port, &self.app.user, &self.app.password, &self.app.database).unwrap();
        client.set_limit(LIMIT).unwrap();
        (client, frames)
    }

    fn flip(&self) {
        self.flip_to(&self.there, 1);
    }

    /// Holds what would begin, waits for what is open, changes the way, lets all go on.
    fn flip_to(&self, place: &Endpoint, journal: usize) {
        let lease = self.sessions.pause.begin(LIMIT).unwrap();
        let begun = std::time::Instant::now();
        while self.sessions.busy() > 0 {
            assert!(begun.elapsed() < LIMIT, "{:?}", self.sessions.clients());
            std::thread::sleep(Duration::from_millis(1));
        }
        self.change(place, journal);
        drop(lease);
    }

    fn change(&self, place: &Endpoint, journal: usize) -> u64 {
        self.routes.change(self.route(place, journal))
    }

    fn route(&self, place: &Endpoint, journal: usize) -> Route<Counted> {
        Route {
            number: 0,
            upstream: upstream(place),
            database: Some(place.database.clone()),
            settings: vec!["app.by_function".to_owned()],
            shared: Some(shared(&self.journals[journal])),
        }
    }
}

fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| char::from(frame.tag)).collect()
}

/// Parse, and Bind and Execute of the same, each with its Sync.
fn parse(client: &mut RawClient, name: &str, text: &str, types: &[u32]) {
    let mut body = format!("{name}\0{text}\0").into_bytes();
    body.extend((types.len() as u16).to_be_bytes());
    types.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
    client.send_frame(b'P', &body).unwrap();
    client.send(b"S\0\0\0\x04").unwrap();
    assert_eq!(tags(&client.receive_until_ready().unwrap()), "1Z");
}

fn execute(client: &mut RawClient, name: &str, parameter: &str) -> Vec<Frame> {
    let mut body = format!("\0{name}\0").into_bytes();
    body.extend([0, 0, 0, 1]);
    body.extend((parameter.len() as u32).to_be_bytes());
    body.extend(parameter.as_bytes());
    body.extend([0, 0]);
    client.send_frame(b'B', &body).unwrap();
    client.send(b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04").unwrap();
    client.receive_until_ready().unwrap()
}

const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE SCHEMA other; CREATE TABLE other.t (id int PRIMARY KEY, v text);
CREATE FUNCTION by_function() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.by_function', 'y', false) $$;";

#[test]
fn a_session_has_on_the_new_primary_what_it_had() {
    let stage = stage(SCHEMA, scram);
    let (mut client, login) = stage.login();
    client.query("SET search_path = other, public").unwrap();
    client.query("SET work_mem = '5MB'").unwrap();
    client.query("SET application_name = 'an ''application'").unwrap();
    client.query("SET app.tenant = 'seven'; SELECT set_config('app.name', 'x', false)").unwrap();
    client.query("LISTEN \"a \"\"channel\"").unwrap();
    client.query("SELECT by_function()").unwrap();
    // one that would fail where it is used is no reason to end the session
    client.query("CREATE TABLE gone (id int)").unwrap();
    stage.there.psql("CREATE TABLE gone (id int)");
    parse(&mut client, "stale", "SELECT id FROM gone", &[]);
    client.query("DROP TABLE gone").unwrap();
    stage.there.psql("DROP TABLE gone");
    client.query("PREPARE by_sql (int) AS INSERT INTO t VALUES ($1, 'by sql')").unwrap();
    parse(&mut client, "named", "INSERT INTO t VALUES ($1::int, 'named') RETURNING v", &[]);
    client.query("SET statement_timeout = 29000; SET standard_conforming_strings = on").unwrap();
    parse(&mut client, "", "SELECT $1::text", &[]);
    stage.flip();
    // the unnamed statement first: a Query would end it
    assert_eq!(tags(&execute(&mut client, "", "x")).trim_start_matches('S'), "2DCZ");
    for (sql, expected) in [
        ("SELECT current_database()", stage.there.database.as_str()),
        ("SHOW search_path", "other, public"),
        ("SHOW work_mem", "5MB"),
        ("SHOW app.tenant", "seven"),
        ("SELECT current_setting('app.name')", "x"),
        ("SELECT current_setting('app.by_function')", "y"),
        ("SHOW statement_timeout", "29s"),
        ("SHOW application_name", "an 'application"),
        ("SELECT current_user || session_user", "appapp"),
        ("SHOW server_version_num", &stage.there.psql("SHOW server_version_num")),
    ] {
        assert_eq!(client.value(sql).unwrap(), expected, "{sql}");
    }
    assert_eq!(tags(&client.query("EXECUTE by_sql(1)").unwrap()), "CZ");
    assert_eq!(tags(&execute(&mut client, "named", "2")), "2DCZ");
    assert!(tags(&execute(&mut client, "stale", "")).contains('E'));
    let own = client.query("NOTIFY \"a \"\"channel\", 'own'").unwrap();
    let key = login.iter().find(|frame| frame.tag == b'K').unwrap();
    let told = own.iter().find(|frame| frame.tag == b'A').cloned();
    let told = told.unwrap_or_else(|| client.receive().unwrap());
    assert_eq!((told.tag, &told.body[..4]), (b'A', &key.body[..4]), "from the process that the client knows");
    assert_eq!(stage.there.psql("SELECT count(*) FROM other.t"), "2");
    assert_eq!(stage.here.psql("SELECT count(*) FROM other.t"), "0");
    assert_eq!(stage.journals[1].committed.load(Ordering::SeqCst), 2, "each was captured there");
    stage.there.psql("NOTIFY \"a \"\"channel\", 'word'");
    let told = client.receive().unwrap();
    assert_eq!(told.tag, b'A');
    assert!(String::from_utf8_lossy(&told.body).contains("word"));
    let before = parameters(&login);
    assert!(before.iter().any(|(name, value)| name == "server_version" && value.starts_with("15")), "{before:?}");
}

/// A driver that keeps the numbers of a database's own types would read and send them wrongly where they are other ones.
#[test]
fn whoever_knows_types_by_other_numbers_is_ended() {
    let stage = stage(SCHEMA, scram);
    stage.there.psql("CREATE TYPE before_it AS ENUM ('x'); DROP TYPE before_it");
    for place in [&stage.here, &stage.there] {
        place.psql("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE moods (id int PRIMARY KEY, m mood)");
    }
    let (mut sends, _) = stage.login();
    let mood: u32 = sends.value("SELECT 'mood'::regtype::oid::int8::text").unwrap().parse().unwrap();
    parse(&mut sends, "typed", "INSERT INTO moods VALUES (1, $1)", &[mood]);
    let (mut was_told, _) = stage.login();
    was_told.query("SELECT m FROM moods").unwrap();
    let (mut knows_none, _) = stage.login();
    knows_none.query("SELECT id FROM moods").unwrap();
    stage.flip();
    for client in [&mut sends, &mut was_told] {
        let told = client.receive().unwrap();
        assert_eq!((told.tag, told.field(b'C').as_deref()), (b'E', Some("57P01")));
        assert!(told.field(b'H').unwrap().contains("types of the database's own"), "{told:?}");
    }
    assert_eq!(knows_none.value("SELECT current_database()").unwrap(), stage.there.database);
}

/// What listeners would miss is told to them on the new primary from the pause's end on: they are moved ahead of it.
#[test]
fn who_listens_is_moved_while_all_is_held() {
    let stage = stage(SCHEMA, scram);
    let (mut listener, _) = stage.login();
    listener.query("LISTEN c").unwrap();
    let _idle: Vec<_> = (0..20).map(|_| stage.login()).collect();
    let lease = stage.sessions.pause.begin(LIMIT).unwrap();
    let number = stage.change(&stage.there, 1);
    integration_tests::process::eventually("it is moved", LIMIT, || {
        (stage.sessions.listening_elsewhere(number) == 0).then_some(())
    });
    assert_eq!(stage.sessions.elsewhere(number), 20, "the others wait");
    stage.there.psql("NOTIFY c, 'word'");
    while listener.receive().unwrap().tag != b'A' {}
    drop(lease);
    integration_tests::process::eventually("all are", LIMIT, || (stage.sessions.elsewhere(number) == 0).then_some(()));
    assert_eq!(stage.sessions.moved(), (21, 0));
}

/// A statement that waits here is cancelled here: in both protocols, and the session goes on.
#[test]
fn what_is_held_can_be_cancelled() {
    let stage = stage(SCHEMA, scram);
    let cancel = |login: &[Frame]| {
        let key = login.iter().find(|frame| frame.tag == b'K').unwrap().body.clone();
        let mut request = (8 + key.len() as u32).to_be_bytes().to_vec();
        request.extend(80_877_102_u32.to_be_bytes());
        request.extend(&key);
        RawClient::connect(stage.app.port).unwrap().send(&request).unwrap();
    };
    let (mut simple, of_simple) = stage.login();
    let (mut extended, of_extended) = stage.login();
    let lease = stage.sessions.pause.begin(LIMIT).unwrap();
    simple.send_frame(b'Q', format!("INSERT INTO t VALUES (1, '{}')\0", "x".repeat(1 << 20)).as_bytes()).unwrap();
    simple.send_frame(b'Q', b"INSERT INTO t VALUES (2, '')\0").unwrap();
    extended.send_frame(b'P', b"\0INSERT INTO t VALUES (3, '')\0\0\0").unwrap();
    extended.send(b"B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    cancel(&of_simple);
    cancel(&of_extended);
    let told = simple.receive_until_ready().unwrap();
    assert_eq!((tags(&told).as_str(), told[0].field(b'C').as_deref()), ("EZ", Some("57014")));
    assert_eq!(extended.receive().unwrap().tag, b'E');
    extended.send(b"S\0\0\0\x04").unwrap();
    assert_eq!(tags(&extended.receive_until_ready().unwrap()), "Z");
    drop(lease);
    assert_eq!(tags(&simple.receive_until_ready().unwrap()), "CZ");
    assert_eq!(extended.value("SELECT string_agg(id::text, ' ') FROM t").unwrap(), "2");
}

/// What is cancelled while the session is asked what it has is the client's statement, not the question; in a survey and in a move.
#[test]
fn what_is_cancelled_while_it_is_asked_is_the_client_s() {
    let stage = stage(SCHEMA, scram);
    let mut locker = stage.here.clone();
    locker.user = servers()[0].superuser().user;
    for moves in [false, true] {
        let (mut client, login) = stage.login();
        let before = stage.sessions.moved();
        let (mut holds, _) = RawClient::login(locker.port, &locker.user, &locker.password, &locker.database).unwrap();
        // whatever asks the catalog waits
        holds.query("BEGIN").unwrap();
        holds.query("LOCK TABLE pg_catalog.pg_class IN ACCESS EXCLUSIVE MODE").unwrap();
        let survey = if moves {
            stage.change(&stage.there, 1)
        } else {
            stage.routes.prepare(stage.route(&stage.there, 1), true)
        };
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        integration_tests::process::eventually("the question waits", LIMIT, || {
            holds.value(waits).is_ok_and(|count| count == "1").then_some(())
        });
        client.send_frame(b'Q', b"INSERT INTO t VALUES (1, 'cancelled')\0").unwrap();
        let key = login.iter().find(|frame| frame.tag == b'K').unwrap().body.clone();
        let mut request = (8 + key.len() as u32).to_be_bytes().to_vec();
        request.extend(80_877_102_u32.to_be_bytes());
        request.extend(&key);
        RawClient::connect(stage.app.port).unwrap().send(&request).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        holds.query("ROLLBACK").unwrap();
        let told = client.receive_until_ready().unwrap();
        let error = told.iter().find(|frame| frame.tag == b'E').unwrap_or_else(|| panic!("{told:?}"));
        assert_eq!(error.field(b'C').as_deref(), Some("57014"));
        let place = if moves { &stage.there } else { &stage.here };
        assert_eq!(client.value("SELECT current_database()").unwrap(), place.database, "the session goes on");
        assert_eq!(client.value("SELECT count(*) FROM t").unwrap(), "0");
        if !moves {
            integration_tests::process::eventually("it has looked", LIMIT, || {
                (stage.sessions.unmovable(survey).0 == 0).then_some(())
            });
            assert!(stage.sessions.unmovable(survey).1.is_empty(), "its question was answered");
        }
        assert_eq!(stage.sessions.moved(), (before.0 + u64::from(moves), 0));
    }
}

/// Who is logged in ahead is taken along by that, unless the server has ended it since; and one that isn't to come after all is let go.
#[test]
fn sessions_are_logged_in_ahead() {
    let stage = stage(SCHEMA, scram);
    let mut clients: Vec<RawClient> = (0..6).map(|_| stage.login().0).collect();
    let there = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app' AND pid <> pg_backend_pid()";
    let are_there = |count: &str| {
        integration_tests::process::eventually("so many are there", LIMIT, || {
            (stage.there.psql(there) == count).then_some(())
        });
    };
    for _ in 0..2 {
        stage.routes.prepare(stage.route(&stage.there, 1), true);
        are_there("6");
        stage.routes.prepare_nothing();
        are_there("0");
    }
    stage.routes.prepare(stage.route(&stage.there, 1), false);
    std::thread::sleep(Duration::from_millis(300));
    are_there("0");
    stage.routes.prepare(stage.route(&stage.there, 1), true);
    are_there("6");
    let pid = stage.there.psql("SELECT pg_terminate_backend(pid)::text || pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app' AND pid <> pg_backend_pid() LIMIT 1");
    assert!(pid.starts_with("true"), "{pid}");
    let pids = "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app' AND pid <> pg_backend_pid()";
    are_there("5");
    let ahead = stage.there.psql(pids);
    stage.flip();
    // also those who come a while later, when others log in by themselves
    stage.routes.prepare_nothing();
    std::thread::sleep(Duration::from_millis(100));
    for client in &mut clients {
        assert_eq!(client.value("SELECT current_database()").unwrap(), stage.there.database);
    }
    let now = stage.there.psql(pids);
    assert!(ahead.split(' ').all(|pid| now.split(' ').any(|other| other == pid)), "{ahead} {now}");
    assert_eq!(stage.sessions.moved(), (6, 0));
}

/// What is slow in a session's first transaction is done ahead, as who it is and with its settings; nothing of that is left, and nothing was executed.
#[test]
fn who_is_logged_in_ahead_is_warmed_up() {
    let stage = stage(SCHEMA, scram);
    let own = "SELECT string_agg(coalesce(current_setting(name, true), 'none'), ' ') FROM unnest(ARRAY['app.tenant', 'app.never']) AS name";
    let (mut client, _) = stage.login();
    client.query("SET work_mem = '5MB'; SET search_path = other; SET app.tenant = 'seven'").unwrap();
    parse(&mut client, "named", "INSERT INTO t VALUES ($1::int, 'named') RETURNING v", &[]);
    parse(&mut client, "asks", "SELECT v FROM t WHERE id = $1 FOR UPDATE", &[23]);
    let (mut stale, _) = stage.login();
    stale.query("CREATE TABLE gone (id int)").unwrap();
    parse(&mut stale, "stale", "SELECT id FROM gone", &[]);
    let (mut relogged, _) = stage.login();
    parse(&mut relogged, "named", "INSERT INTO public.t VALUES ($1::int, 'named') RETURNING v", &[]);
    stage.routes.prepare(stage.route(&stage.there, 1), true);
    let warm = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app' AND pid <> pg_backend_pid()
      AND query = 'ROLLBACK' AND state = 'idle'";
    integration_tests::process::eventually("they are", LIMIT, || (stage.there.psql(warm) == "3").then_some(()));
    // what was so then is so no more
    client.query("RESET work_mem").unwrap();
    let usual = client.value("SHOW work_mem").unwrap();
    stage.flip();
    assert_eq!(client.value("SHOW work_mem").unwrap(), usual);
    assert_eq!(client.value("SHOW search_path").unwrap(), "other");
    assert_eq!(client.value(own).unwrap(), "seven none");
    assert_eq!(relogged.value(own).unwrap(), "none none");
    assert_eq!(relogged.value("SHOW search_path").unwrap(), stage.here.psql("SHOW search_path"));
    assert_eq!(tags(&execute(&mut client, "named", "2")), "2DCZ");
    assert_eq!(tags(&execute(&mut relogged, "named", "3")), "2DCZ");
    assert_eq!(
        stage.there.psql(
            "SELECT (SELECT string_agg(id::text, ' ') FROM other.t) || ',' || (SELECT string_agg(id::text, ' ') FROM t)"
        ),
        "2,3"
    );
    integration_tests::process::eventually("all are moved", LIMIT, || (stage.sessions.moved() == (3, 0)).then_some(()));
}

/// There and back again, and once more: it is the same each time.
#[test]
fn a_session_is_taken_to_and_fro() {
    let stage = stage(SCHEMA, scram);
    let (mut client, _) = stage.login();
    client.query("SET app.tenant = 'seven'").unwrap();
    client.query("PREPARE by_sql (int) AS INSERT INTO t VALUES ($1, current_setting('app.tenant'))").unwrap();
    parse(&mut client, "named", "INSERT INTO t VALUES ($1::int, current_setting('app.tenant')) RETURNING v", &[]);
    for round in 0..4 {
        let (place, journal) = if round % 2 == 0 { (&stage.there, 1) } else { (&stage.here, 0) };
        stage.flip_to(place, journal);
        let frames = client.query(&format!("EXECUTE by_sql({round})")).unwrap();
        assert_eq!(tags(&frames).trim_start_matches('S'), "CZ", "{frames:?}");
        assert_eq!(tags(&execute(&mut client, "named", &(10 + round).to_string())), "2DCZ");
        assert_eq!(place.psql(&format!("SELECT count(*) FROM t WHERE id % 10 = {round} AND v = 'seven'")), "2");
    }
}

/// What the client was told at its login it is told again where it isn't so any more.
#[test]
fn a_client_is_told_of_the_new_version() {
    let stage = stage(SCHEMA, scram);
    let (mut client, _) = stage.login();
    stage.flip();
    client.send_frame(b'Q', b"SELECT 1\0").unwrap();
    let frames = client.receive_until_ready().unwrap();
    let told = parameters(&frames);
    let version = stage.there.psql("SHOW server_version");
    assert!(told.contains(&("server_version".to_owned(), version)), "{told:?}");
    assert_eq!(tags(&frames).trim_start_matches('S'), "TDCZ");
}

/// A client that holds the old server's key cancels what it runs on the new one.
#[test]
fn a_cancel_request_follows_the_session() {
    let stage = stage(SCHEMA, scram);
    let (mut client, login) = stage.login();
    let key = login.iter().find(|frame| frame.tag == b'K').unwrap().body.clone();
    stage.flip();
    assert_eq!(client.value("SELECT 1::text").unwrap(), "1");
    client.send_frame(b'Q', b"SELECT pg_sleep(25)\0").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let mut cancel = RawClient::connect(stage.app.port).unwrap();
    let mut request = (8 + key.len() as u32).to_be_bytes().to_vec();
    request.extend(80_877_102_u32.to_be_bytes());
    request.extend(&key);
    cancel.send(&request).unwrap();
    let frames = client.receive_until_ready().unwrap();
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57014"));
}

/// What lives in the old server alone can't be taken along; drivers reconnect on what such a session is told.
#[test]
fn a_session_that_can_not_be_taken_along_is_ended() {
    let stage = stage(SCHEMA, scram);
    let made = [
        ("CREATE TEMP TABLE tt (v int)", "temporary objects"),
        ("SELECT pg_advisory_lock(1)", "advisory locks"),
        ("SELECT set_config('app.' || 'x', 'y', false)", "names aren't known"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "WITH HOLD"),
    ];
    let mut clients: Vec<_> = made
        .iter()
        .map(|(sql, why)| {
            let (mut client, _) = stage.login();
            assert!(!tags(&client.query(sql).unwrap()).contains('E'), "{sql}");
            (client, *why)
        })
        .collect();
    // they are known beforehand, and nothing happens to them then; nor to a statement that was only parsed
    let (mut parsed, _) = stage.login();
    parse(&mut parsed, "", "SELECT $1::text", &[]);
    let survey = stage.routes.prepare(stage.route(&stage.there, 1), true);
    integration_tests::process::eventually("all have looked", LIMIT, || {
        (stage.sessions.unmovable(survey).0 == 0).then_some(())
    });
    let mut known: Vec<String> = stage.sessions.unmovable(survey).1.into_iter().map(|(_, why)| why).collect();
    known.sort();
    assert_eq!(known.len(), made.len(), "{known:?}");
    for (client, why) in &mut clients {
        assert!(known.iter().any(|known| known.contains(*why)), "{why}: {known:?}");
        assert_eq!(client.value("SELECT 1::text").unwrap(), "1");
    }
    assert_eq!(tags(&execute(&mut parsed, "", "x")), "2DCZ");
    stage.flip();
    for (mut client, why) in clients {
        let told = client.receive().unwrap();
        assert_eq!((told.tag, told.field(b'C').as_deref()), (b'E', Some("57P01")));
        assert!(told.field(b'H').unwrap().contains(why), "{told:?}");
    }
    let (mut relayed, _) = stage.login();
    assert_eq!(
        relayed.value("SELECT current_database()").unwrap(),
        stage.there.database,
        "who comes later comes there"
    );
}

/// Where only the primary knows the password sessions are ended, idle ones at once.
#[test]
fn relayed_logins_are_ended() {
    let stage = stage(SCHEMA, |_| Authentication::Relay);
    let (mut client, _) = stage.login();
    assert_eq!(client.value("SELECT current_database()").unwrap(), stage.here.database);
    stage.flip();
    let told = client.receive().unwrap();
    assert_eq!((told.tag, told.field(b'C').as_deref()), (b'E', Some("57P01")));
    assert!(told.field(b'H').unwrap().contains("relay"), "{told:?}");
}

/// Idle sessions are taken along by themselves, however many; those that are used at once as well.
#[test]
fn many_sessions_are_taken_along() {
    let stage = stage(SCHEMA, scram);
    let mut clients: Vec<RawClient> = (0..150).map(|_| stage.login().0).collect();
    stage.flip();
    for client in clients.iter_mut().take(20) {
        assert_eq!(client.value("SELECT current_database()").unwrap(), stage.there.database);
    }
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app' AND pid <> pg_backend_pid()";
    integration_tests::process::eventually("all are there", LIMIT, || {
        Some(()).filter(|()| (stage.here.psql(left) == "0") && (stage.there.psql(left) == "150"))
    });
    for client in &mut clients {
        assert_eq!(client.value("SELECT current_database()").unwrap(), stage.there.database);
    }
}
