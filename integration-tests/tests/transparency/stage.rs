//! Two equal databases on one server, one of them behind a pgshadow that mirrors it.
use crate::messages::Message;
use crate::transcript::{End, Pace, Play, Step, Transcript};
use integration_tests::client::Endpoint;
use integration_tests::installation::Installation;
use integration_tests::pooler::{Mode, Pgbouncer};
use integration_tests::postgres::{Auth, Cluster, ClusterBuilder};
use integration_tests::proxy::Pgshadow;
use integration_tests::raw::Frame;
use integration_tests::scene::DRAIN;
use integration_tests::{equal, repeats};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Keys, a foreign key, a deferrable unique key, a sequence, and triggers that say something, at once and at COMMIT.
const SCHEMA: &str = "
CREATE TABLE t (id int PRIMARY KEY, v int, s text);
CREATE TABLE parent (id int PRIMARY KEY, name text);
CREATE TABLE child (id serial PRIMARY KEY, parent_id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED,
    u int UNIQUE DEFERRABLE INITIALLY DEFERRED, note text);
CREATE TABLE noisy (id int PRIMARY KEY, v int CHECK (v < 1000));
CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
    RAISE NOTICE '% of %', TG_OP, NEW.id USING HINT = 'before';
    RETURN NEW;
END$$;
CREATE FUNCTION say_late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
    RAISE NOTICE 'at the end: % of %', TG_OP, NEW.id;
    IF NEW.v = 13 THEN RAISE EXCEPTION 'thirteen'; END IF;
    RETURN NULL;
END$$;
CREATE SCHEMA lab;
CREATE TABLE lab.a (id int PRIMARY KEY, v int, s text);
GRANT USAGE ON SCHEMA lab TO columns;
GRANT SELECT (id, v, s), INSERT (id, v), UPDATE (v) ON lab.a TO columns;
CREATE TABLE lab.b (id int PRIMARY KEY, v int, s text);
CREATE TABLE lab.owned (id int PRIMARY KEY, who text);
ALTER TABLE lab.owned ENABLE ROW LEVEL SECURITY;
CREATE POLICY sees ON lab.owned FOR SELECT TO columns USING (who = 'columns');
CREATE POLICY changes ON lab.owned FOR UPDATE TO columns USING (true);
GRANT UPDATE (who) ON lab.owned TO columns;
GRANT SELECT ON lab.owned TO columns;
CREATE VIEW lab.unread AS SELECT id, v, s FROM lab.a;
GRANT INSERT, UPDATE, DELETE ON lab.unread TO columns;
DO $$BEGIN
    EXECUTE 'CREATE TABLE lab.wide (id int PRIMARY KEY, ' ||
        (SELECT string_agg(format('c%s int', g), ', ') FROM generate_series(2, 1600) g) || ')';
END$$;
INSERT INTO lab.wide VALUES (1), (2), (3);
CREATE PROCEDURE lab.commits() LANGUAGE plpgsql AS $$BEGIN
    UPDATE t SET v = 0 WHERE id = 1;
    COMMIT;
    UPDATE t SET v = 0 WHERE id = 2;
END$$;
CREATE TRIGGER say BEFORE INSERT OR UPDATE ON noisy FOR EACH ROW EXECUTE PROCEDURE say();
CREATE CONSTRAINT TRIGGER say_late AFTER INSERT OR UPDATE ON noisy DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE PROCEDURE say_late();
";

/// What each session starts from, made by the session itself; rows that are as they should be stay.
const RESET: &str = "DELETE FROM lab.owned WHERE ((id, who) IN (VALUES (1, 'app'), (2, 'columns'), (3, 'nobody'))) IS NOT TRUE;
DELETE FROM lab.a WHERE (id BETWEEN 1 AND 9 AND v = id * 10 AND s = 'row ' || id) IS NOT TRUE;
DELETE FROM lab.b WHERE (id BETWEEN 1 AND 9 AND v = id * 10 AND s = 'row ' || id) IS NOT TRUE;
DELETE FROM child WHERE (note IS NULL AND (id, parent_id, u) IN (VALUES (101, 1, 1), (102, 2, 2), (103, 2, 3))) IS NOT TRUE;
DELETE FROM parent WHERE (id BETWEEN 1 AND 3 AND name = 'p' || id) IS NOT TRUE;
DELETE FROM noisy WHERE (id IN (1, 2) AND v = id) IS NOT TRUE;
DELETE FROM t WHERE (id BETWEEN 1 AND 9 AND v = id * 10 AND s = 'row ' || id) IS NOT TRUE;
INSERT INTO t SELECT g, g * 10, 'row ' || g FROM generate_series(1, 9) g WHERE g NOT IN (SELECT id FROM t);
INSERT INTO lab.a SELECT g, g * 10, 'row ' || g FROM generate_series(1, 9) g WHERE g NOT IN (SELECT id FROM lab.a);
INSERT INTO lab.b SELECT g, g * 10, 'row ' || g FROM generate_series(1, 9) g WHERE g NOT IN (SELECT id FROM lab.b);
INSERT INTO lab.owned SELECT * FROM (VALUES (1, 'app'), (2, 'columns'), (3, 'nobody')) AS w (id, who) WHERE id NOT IN (SELECT id FROM lab.owned);
INSERT INTO parent SELECT g, 'p' || g FROM generate_series(1, 3) g WHERE g NOT IN (SELECT id FROM parent);
INSERT INTO child (id, parent_id, u) SELECT * FROM (VALUES (101, 1, 1), (102, 2, 2), (103, 2, 3)) AS w (id, p, u) WHERE id NOT IN (SELECT id FROM child);
INSERT INTO noisy SELECT g, g FROM generate_series(1, 2) g WHERE g NOT IN (SELECT id FROM noisy);
SELECT setval('child_id_seq', 1, false)";

/// Rows are found by index, so that they come in the order of their keys and not of their places (and plans that look dear
/// for it are not compiled).
pub fn builder(installation: &Installation) -> ClusterBuilder {
    let builder = Cluster::of(installation).auth(Auth::Trust);
    let builder = if installation.major > 10 { builder.set("jit", "off") } else { builder };
    builder.set("enable_seqscan", "off").set("enable_bitmapscan", "off").set("autovacuum", "off")
}

/// The older and the newest server, and another newest one as a shadow of the newest.
fn servers() -> &'static [Cluster; 3] {
    static SERVERS: OnceLock<[Cluster; 3]> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let servers = [Installation::old(), Installation::newest(), Installation::newest()]
            .map(|installation| builder(installation).start());
        for server in &servers {
            server.superuser().psql("CREATE ROLE columns; GRANT columns TO app");
            server.create_database("pattern").psql(SCHEMA);
        }
        servers
    })
}

/// A newest server that isn't taken for `source`: its identity is another one.
pub fn target_of(source: &Cluster) -> &'static Cluster {
    let identity = |cluster: &Cluster| cluster.superuser().psql("SELECT system_identifier FROM pg_control_system()");
    let own = identity(source);
    let [_, one, other] = servers();
    if identity(one) == own { other } else { one }
}

/// Sessions of one list that `make test` plays, about; `make conform` plays all of them.
const SAMPLE: usize = 80;

/// The same ones each time, spread without an order, since lists are made by loops in loops.
pub fn sampled<T>(sessions: &[T]) -> impl Iterator<Item = &T> {
    let every = if repeats() > 1 { 1 } else { sessions.len().div_ceil(SAMPLE).max(1) };
    let spread = |number: usize| number.wrapping_mul(2_654_435_761) >> 8;
    sessions.iter().enumerate().filter(move |(number, _)| spread(*number) % every == 0).map(|(_, session)| session)
}

/// A session: its name and its messages.
pub type Session = (&'static str, Vec<Message>);

/// See the module.
#[derive(Debug)]
pub struct Stage {
    /// Without pgshadow.
    pub direct: Endpoint,
    source: Endpoint,
    target: Endpoint,
    pgshadow: Pgshadow,
    /// In front of the server and of pgshadow.
    pools: Option<[Pgbouncer; 2]>,
}

impl Stage {
    /// On the older server, mirrored to the newest.
    pub fn old() -> Stage {
        let [old, newest, _] = servers();
        Stage::between(old, newest)
    }

    /// On the newest server, mirrored to its like.
    pub fn newest() -> Stage {
        let [_, newest, other] = servers();
        Stage::between(newest, other)
    }

    fn between(source: &Cluster, target: &Cluster) -> Stage {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Copies of one database: tables have the same object identifiers, which clients see.
        let create = |cluster: &Cluster, name: &str| {
            cluster
                .superuser()
                .in_database("postgres")
                .psql(&format!("CREATE DATABASE {name} OWNER app TEMPLATE pattern"));
            cluster.app().in_database(name)
        };
        let direct = create(source, &format!("direct{number}"));
        let name = format!("proxied{number}");
        let (source_place, target_place) = (create(source, &name), create(target, &name));
        let pgshadow = Pgshadow::between(source, target).database(&name).start();
        Stage { direct, source: source_place, target: target_place, pgshadow, pools: None }
    }

    /// Clients reach both places through pools.
    pub fn pooled(mut self, mode: Mode) -> Stage {
        let pool = |port| {
            Pgbouncer::before(port, mode).set("auth_type", "trust").set("application_name_add_host", "0").start()
        };
        let pools = [self.direct.port, self.pgshadow.port()].map(pool);
        self.direct.port = pools[0].port();
        self.pools = Some(pools);
        self
    }

    /// Through pgshadow.
    pub fn proxied(&self) -> Endpoint {
        let place = self.pgshadow.app();
        self.pools.as_ref().map_or(place.clone(), |[_, pool]| pool.place(&place))
    }

    /// One session at both places; what differs.
    pub fn difference(&self, parameters: &[(&str, &str)], messages: &[Message], how: (Pace, End)) -> Option<String> {
        let [direct, proxied] = self.transcripts(parameters, messages, how);
        direct.difference(&proxied)
    }

    /// One session directly and through pgshadow.
    pub fn transcripts(&self, parameters: &[(&str, &str)], messages: &[Message], how: (Pace, End)) -> [Transcript; 2] {
        let steps: Vec<_> = messages.iter().cloned().map(Step::Send).collect();
        self.played(parameters, &steps, how)
    }

    /// The same, with what another session does directly in between.
    pub fn played(&self, parameters: &[(&str, &str)], steps: &[Step], how: (Pace, End)) -> [Transcript; 2] {
        let (pace, end) = how;
        [(self.direct.clone(), &self.direct), (self.proxied(), &self.source)].map(|(place, beside)| {
            let (first, patience) = (Some(RESET), Duration::from_secs(10));
            let play = Play { place: &place, parameters, first, steps, pace, end, patience };
            play.run(&mut |sql| Frame { tag: b'!', body: beside.psql(sql).into_bytes() })
        })
    }

    /// All sessions, stepwise and pipelined, are the same at both places.
    #[track_caller]
    pub fn expect_same(&self, sessions: &[Session]) {
        self.expect_same_with(&[], End::Query, sessions);
    }

    /// [`expect_same`](Self::expect_same) with parameters of the startup and another end.
    #[track_caller]
    pub fn expect_same_with(&self, parameters: &[(&str, &str)], end: End, sessions: &[Session]) {
        let mut found = Vec::new();
        for (name, messages) in sampled(sessions) {
            for pace in [Pace::Stepwise, Pace::Pipelined] {
                if let Some(difference) = self.difference(parameters, messages, (pace, end)) {
                    found.push(format!("=== {name}, {pace:?}\nsent {messages:#?}\n{difference}"));
                }
            }
        }
        assert!(found.is_empty(), "{} differ\n{}", found.len(), found.join("\n"));
        self.expect_mirrored();
    }

    /// What was written is on the shadow, or its table is called suspect.
    #[track_caller]
    pub fn expect_mirrored(&self) {
        self.pgshadow.wait_drained(DRAIN);
        let suspects = self.pgshadow.suspect_tables();
        let lost: Vec<_> = equal::differences(&self.source, &self.target)
            .into_iter()
            .filter(|difference| !suspects.contains(&difference.table))
            .map(|difference| difference.to_string())
            .collect();
        assert!(lost.is_empty(), "differ without being suspect ({suspects:?}):\n{}", lost.join("\n"));
    }
}
