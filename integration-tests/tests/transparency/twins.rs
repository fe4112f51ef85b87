//! Two servers that do the same, one of them behind a pgshadow that mirrors it: databases of one name, tables, types and
//! new objects of one number. What generated sessions are played on.
use crate::generator::Session;
use crate::messages::q;
use crate::notation;
use crate::stage;
use crate::transcript::{Play, Transcript};
use integration_tests::client::Endpoint;
use integration_tests::installation::Installation;
use integration_tests::postgres::Cluster;
use integration_tests::process::eventually;
use integration_tests::proxy::Pgshadow;
use integration_tests::raw::{Frame, RawClient};
use integration_tests::scene::DRAIN;
use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

const ROLES: &str = "DO $$ DECLARE name text; BEGIN FOREACH name IN ARRAY '{blind,columns,guarded,reader}'::text[] LOOP
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN EXECUTE 'CREATE ROLE ' || name || ' LOGIN'; END IF;
    END LOOP; END $$;
    GRANT blind, columns, guarded, reader TO app";
const SCHEMA: &str = include_str!("generator/schema.sql");
const RESET: &str = include_str!("generator/reset.sql");
const SEQUENCES: &str = "SELECT setval('child_id_seq', 1, false), setval('audit_n_seq', 1, false),
    setval('ident_id_seq', 1, false), setval('loose_id_seq', 10, false)";
const LAB: &str = include_str!("generator/lab.sql");
/// Nothing of a generated session takes so long.
const PATIENCE: Duration = Duration::from_secs(20);
const CONNECTIONS_MAX: u32 = 40;

/// A function that gives each table with its columns and rows, and (`-`) the sequences; long values as their hash.
const STATE: &str = "
SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET extra_float_digits = 1; SET bytea_output = 'hex';
CREATE FUNCTION pg_temp.state() RETURNS TABLE (item text, content text) LANGUAGE plpgsql AS $$DECLARE quoted text; BEGIN
FOR item, quoted, content IN
    SELECT n.nspname || '.' || c.relname, format('%I.%I', n.nspname, c.relname), string_agg(format('%I %s', a.attname, a.atttypid), ', ' ORDER BY attnum)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relkind = 'r' AND n.nspname IN ('public', 'lab') AND a.attnum > 0 AND NOT a.attisdropped
    GROUP BY 1, 2 ORDER BY 1
LOOP
    EXECUTE format('SELECT $1 || coalesce(string_agg(E''\\n'' || CASE WHEN length(r) > 300 THEN md5(r) ELSE r END, ''''
        ORDER BY r COLLATE \"C\"), '''') FROM (SELECT x::text AS r FROM ONLY %s x) x', quoted) INTO content USING content;
    RETURN NEXT;
END LOOP;
FOR item, content IN SELECT '-' || sequencename, last_value FROM pg_sequences WHERE schemaname IN ('public', 'lab') ORDER BY 1
LOOP RETURN NEXT; END LOOP;
END$$";

/// What a database holds.
pub type State = BTreeMap<String, String>;

/// A server for generated sessions. Temporary schemas are there from the beginning, so that none takes a number later.
fn server(installation: &Installation) -> Cluster {
    stage::builder(installation)
        .set("max_prepared_transactions", "20")
        .set("max_connections", &CONNECTIONS_MAX.to_string())
        .set("lock_timeout", "8s")
        .start()
}

/// Of each version one server for each side.
#[derive(Debug)]
struct Servers {
    direct: Cluster,
    source: Cluster,
}

fn servers(installation: &Installation) -> &'static Servers {
    static SERVERS: [OnceLock<Servers>; 2] = [OnceLock::new(), OnceLock::new()];
    SERVERS[is_newest(installation)].get_or_init(|| {
        let servers = Servers { direct: server(installation), source: server(installation) };
        let temporary = format!(
            "SET allow_system_table_mods = on; DO $$BEGIN FOR i IN 1..{CONNECTIONS_MAX} + 40 LOOP
            EXECUTE format('CREATE SCHEMA pg_temp_%s', i); EXECUTE format('CREATE SCHEMA pg_toast_temp_%s', i);
        END LOOP; END$$"
        );
        for cluster in [&servers.direct, &servers.source] {
            cluster.superuser().psql(ROLES);
            cluster.create_database("twins").as_user("postgres", "").psql(&temporary);
        }
        align([&servers.direct, &servers.source].map(|c| client(&c.superuser(), "")).each_mut());
        for cluster in [&servers.direct, &servers.source] {
            cluster.app().in_database("twins").psql(&format!("{SCHEMA}{LAB}"));
        }
        servers
    })
}

/// Holds the servers of one version: what two did there at once would not take the same numbers on both.
pub fn alone_with(installation: &Installation) -> MutexGuard<'static, ()> {
    static TAKEN: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    TAKEN[is_newest(installation)].lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_newest(installation: &Installation) -> usize {
    usize::from(installation.version == Installation::newest().version)
}

fn client(place: &Endpoint, first: &str) -> RawClient {
    let own = [("user", place.user.as_str()), ("database", &place.database), ("options", "-c lock_timeout=0")];
    // a server that has crashed takes connections again a little later
    let mut client = eventually("a connection", Duration::from_secs(30), || {
        let mut client = RawClient::connect_within(place.port, Duration::from_secs(30)).ok()?;
        client.start(&own, &place.password).ok().map(|_| client)
    });
    if !first.is_empty() {
        do_all(&mut client, first);
    }
    client
}

fn ask(client: &mut RawClient, sql: &str) -> Result<Vec<Frame>> {
    let frames = client.query(sql)?;
    match frames.iter().find(|frame| frame.tag == b'E') {
        None => Ok(frames),
        Some(error) => Err(Error::other(format!("{:?}: {sql}", error.field(b'M')))),
    }
}

#[track_caller]
fn do_all(client: &mut RawClient, sql: &str) {
    ask(client, sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
}

/// A script, one Query for each statement: several in one make more suspect than each by itself.
fn do_each(client: &mut RawClient, sql: &str) {
    let queries: Vec<_> = sql.split(";\n").filter(|sql| !sql.trim().is_empty()).collect();
    client.send(&queries.iter().flat_map(|sql| q(sql).0).collect::<Vec<_>>()).expect("it listens");
    for sql in queries {
        let frames = client.receive_until_ready().unwrap_or_else(|error| panic!("{error}: {sql}"));
        let error = frames.iter().find(|frame| frame.tag == b'E');
        assert!(error.is_none(), "{:?}: {sql}", error.and_then(|frame| frame.field(b'M')));
    }
}

fn rows(frames: &[Frame]) -> impl Iterator<Item = Vec<Option<String>>> + '_ {
    frames.iter().filter(|frame| frame.tag == b'D').map(Frame::columns)
}

/// Both give out the same object identifiers from here on.
fn align(mut clients: [&mut RawClient; 2]) {
    const NEXT: &str = "pg_nextoid('pg_class', 'oid', 'pg_class_oid_index')";
    let next = clients.each_mut().map(|client| {
        let text = client.value(&format!("SELECT {NEXT}")).expect("a superuser");
        text.parse::<u32>().expect("a number")
    });
    for (client, behind) in clients.into_iter().zip([next[1].saturating_sub(next[0]), next[0].saturating_sub(next[1])])
    {
        if behind > 0 {
            do_all(client, &format!("SELECT count({NEXT}) FROM generate_series(1, {behind})"));
        }
    }
}

/// One side: a database and connections for what is done between sessions.
#[derive(Debug)]
struct Side {
    /// Where sessions log in.
    place: Endpoint,
    /// Makes the tables anew, as their owner.
    owner: RawClient,
    /// The owner, directly.
    behind: RawClient,
    /// The superuser, directly.
    observer: RawClient,
    /// A transaction with a number, open from before the first session: no row that goes is pruned, which one side may
    /// do earlier than the other, so that later rows had other places and came in another order. It has no snapshot:
    /// CREATE INDEX CONCURRENTLY would wait for one.
    _horizon: RawClient,
}

/// See the module.
#[derive(Debug)]
pub struct Twins {
    servers: &'static Servers,
    wild: bool,
    sides: [Side; 2],
    target: RawClient,
    pgshadow: Pgshadow,
    /// The tables of `lab` may be anything.
    altered: bool,
    last: Option<Session>,
}

impl Side {
    /// Rolls back what was prepared and not finished; its names.
    fn forget_prepared(&mut self) -> Result<String> {
        let names = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1";
        let names: Vec<_> = rows(&ask(&mut self.observer, names)?).flatten().flatten().collect();
        if !names.is_empty() {
            let mut finisher = client(&self.place.as_user("postgres", ""), "");
            names.iter().for_each(|name| do_all(&mut finisher, &format!("ROLLBACK PREPARED '{name}'")));
        }
        Ok(names.join(", "))
    }

    fn state(&mut self) -> Result<State> {
        let prepared = self.forget_prepared()?;
        let mut state = state(&mut self.observer)?;
        state.insert("-prepared transactions".into(), prepared);
        Ok(state)
    }
}

impl Twins {
    /// On servers of this version, mirrored to the newest. `wild`: the shadow is never compared, so that what is done between
    /// sessions needs no pgshadow.
    pub fn of(installation: &Installation, wild: bool) -> Twins {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        static ONE_BY_ONE: Mutex<()> = Mutex::new(());
        let one = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = servers(installation);
        for cluster in [&servers.direct, &servers.source] {
            drop(client(&cluster.superuser(), ""));
        }
        let target = stage::target_of(&servers.source);
        let name = format!("twins{}", NEXT.fetch_add(1, Ordering::Relaxed));
        for cluster in [&servers.direct, &servers.source] {
            create(cluster, &name, "TEMPLATE twins");
        }
        roles_and_schema(target, &name);
        drop(one);
        let pgshadow = Pgshadow::between(&servers.source, target).database(&name).durability("os").start();
        let direct = servers.direct.app().in_database(&name);
        let source = servers.source.app().in_database(&name);
        let side = |direct: &Endpoint, place: Endpoint| Side {
            owner: client(if wild { direct } else { &place }, ""),
            place,
            behind: client(direct, "SET lock_timeout = '8s'"),
            observer: client(&direct.as_user("postgres", ""), STATE),
            _horizon: client(
                &direct.as_user("postgres", ""),
                "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT txid_current()",
            ),
        };
        let sides = [side(&direct, direct.clone()), side(&source, pgshadow.app())];
        let target = client(&target.superuser().in_database(&name), STATE);
        Twins { servers, wild, sides, target, pgshadow, altered: false, last: None }
    }

    /// Others of the same kind.
    pub fn again(&self) -> Twins {
        Twins::of(self.servers.source.installation(), self.wild)
    }

    /// Where sessions log in through pgshadow, instead of its own port.
    pub fn proxied_through(&mut self, port: u16) {
        self.sides[1].place.port = port;
    }

    /// Its own port.
    pub fn proxied_port(&self) -> u16 {
        self.pgshadow.port()
    }

    fn reset(&mut self) {
        for side in &mut self.sides {
            side.forget_prepared().expect("the servers are up");
            if self.altered {
                do_each(&mut side.owner, LAB);
            }
            do_all(&mut side.behind, SEQUENCES);
            do_each(&mut side.owner, RESET);
            // how many rows went, with a trigger at each, depends on the session before
            do_all(&mut side.behind, "SELECT setval('audit_n_seq', 1, false)");
        }
        self.altered = false;
        let [direct, proxied] = &mut self.sides;
        align([&mut direct.observer, &mut proxied.observer]);
    }

    /// One session directly and through pgshadow, each from the same state.
    pub fn transcripts(&mut self, session: &Session) -> [Transcript; 2] {
        self.last = Some(session.clone());
        self.altered |= session.alters;
        self.reset();
        self.altered = session.alters;
        self.sides.each_mut().map(|side| {
            let play = Play {
                place: &side.place.as_user(session.role, ""),
                parameters: &session.parameters,
                first: None,
                steps: &session.steps,
                pace: session.pace,
                end: session.end,
                patience: PATIENCE,
            };
            play.run(&mut |sql| behind(&mut side.behind, sql))
        })
    }

    /// A server that has ended its sessions, as one does that has crashed.
    pub fn crashed(&mut self) -> Option<&'static str> {
        // a server needs a moment to notice that one of its processes has gone
        std::thread::sleep(Duration::from_millis(300));
        let alive = self.sides.each_mut().map(|side| side.observer.value("SELECT 'alive'").is_ok());
        match alive {
            [true, true] => None,
            [false, _] => Some("the server has crashed without pgshadow"),
            [true, false] => Some("the server behind pgshadow has crashed"),
        }
    }

    /// What the sources hold that isn't the same.
    pub fn states(&mut self) -> Result<Option<String>> {
        let [direct, proxied] = &mut self.sides;
        let (direct, proxied) = (direct.state()?, proxied.state()?);
        Ok(difference(("direct", &direct), ("proxied", &proxied), |_| true))
    }

    /// Tables that are neither suspect nor the same on the shadow, and how many aren't suspect.
    pub fn lost(&mut self) -> Result<(Option<String>, usize)> {
        self.pgshadow.wait_drained(DRAIN);
        let suspects = self.pgshadow.suspect_tables();
        let (source, shadow) = (self.sides[1].state()?, state(&mut self.target)?);
        let suspect = |item: &str| suspects.iter().any(|suspect| suspect == item || suspect == "every table");
        let trusted = |item: &str| !item.starts_with('-') && !suspect(item);
        let count = source.keys().filter(|item| trusted(item)).count();
        Ok((difference(("source", &source), ("shadow", &shadow), trusted), count))
    }
}

impl Drop for Twins {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- last session: {}", self.last.as_ref().map(notation::session).unwrap_or_default());
            for (name, cluster) in [("direct", &self.servers.direct), ("source", &self.servers.source)] {
                eprintln!("--- log of {name}\n{}", cluster.log_tail());
            }
        }
    }
}

fn create(cluster: &Cluster, name: &str, how: &str) {
    cluster.superuser().in_database("postgres").psql(&format!("CREATE DATABASE {name} OWNER app {how}"));
}

fn roles_and_schema(cluster: &Cluster, name: &str) {
    let place = cluster.superuser();
    if place.psql("SELECT 1 FROM pg_roles WHERE rolname = 'blind'").is_empty() {
        place.psql(ROLES);
        create(cluster, "twins", "");
        cluster.app().in_database("twins").psql(&format!("{SCHEMA}{LAB}"));
    }
    create(cluster, name, "TEMPLATE twins");
}

/// What another session is told, as one frame.
fn behind(client: &mut RawClient, sql: &str) -> Frame {
    let frames = client.query(sql).unwrap_or_else(|error| panic!("behind: {error}: {sql}"));
    let said = frames.iter().map(|frame| match frame.tag {
        b'E' => frame.field(b'M').unwrap_or_default(),
        tag => char::from(tag).to_string(),
    });
    Frame { tag: b'!', body: said.collect::<Vec<_>>().join(" ").into_bytes() }
}

fn state(observer: &mut RawClient) -> Result<State> {
    let frames = ask(observer, "SELECT * FROM pg_temp.state()")?;
    let items = rows(&frames).map(|row| row.into_iter().map(Option::unwrap_or_default));
    Ok(items.filter_map(|mut row| row.next().zip(row.next())).collect())
}

fn difference(here: (&str, &State), there: (&str, &State), counts: impl Fn(&str) -> bool) -> Option<String> {
    let items = here.1.keys().chain(there.1.keys()).filter(|item| counts(item));
    let different: std::collections::BTreeSet<_> =
        items.filter(|item| here.1.get(*item) != there.1.get(*item)).collect();
    let show = |item: &String| {
        let side = |(name, state): (&str, &State)| {
            format!("  {name}: {}", state.get(item).map_or("absent", String::as_str).replace('\n', "\n      "))
        };
        format!("{item}\n{}\n{}", side(here), side(there))
    };
    (!different.is_empty()).then(|| different.into_iter().map(show).collect::<Vec<_>>().join("\n"))
}
