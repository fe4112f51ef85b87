//! A PgBouncer between application and pgshadow, in session and transaction mode: sessions that clients share, reset, look at and
//! give up. Behind pgshadow a pool has no place, and is refused.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::client::{Endpoint, within};
use integration_tests::pooler::{Mode, Pgbouncer};
use integration_tests::postgres::{Auth, Cluster};
use integration_tests::process::eventually;
use integration_tests::proxy::Pgshadow;
use integration_tests::raw::RawClient;
use integration_tests::scene::{Scene, servers};
use integration_tests::workload::{Load, Protocol};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const MODES: [Mode; 2] = [Mode::Session, Mode::Transaction];

fn pool(scene: &Scene, mode: Mode) -> (Pgbouncer, Endpoint) {
    let pool = Pgbouncer::before(scene.pgshadow.port(), mode).start();
    let place = pool.place(&scene.app());
    (pool, place)
}

fn load(scene: &Scene, place: &Endpoint, clients: u32, protocols: &[Protocol]) {
    let load = Load::order().clients(clients);
    load.install_on(&[scene.source.clone(), scene.target.clone()]);
    for protocol in protocols {
        let bench = load.clone().protocol(*protocol).run(place, Duration::from_secs(3));
        assert!(bench.transactions > 50, "{}", bench.output);
    }
    scene.expect_exact();
    scene.pgshadow.expect_clean_log(&[]);
}

#[test]
fn a_load_through_a_pool_of_sessions() {
    let scene = Scene::of("");
    let (_pool, place) = pool(&scene, Mode::Session);
    load(&scene, &place, 4, &Protocol::ALL);
}

#[test]
fn a_load_of_many_clients_through_few_sessions() {
    let scene = Scene::of("");
    let (_pool, place) = pool(&scene, Mode::Transaction);
    load(&scene, &place, 16, &[Protocol::Simple, Protocol::Extended]);
}

#[test]
#[ignore = "needs the PgBouncer that make conform installs"]
fn prepared_statements_move_between_sessions() {
    let scene = Scene::of("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE u (id int PRIMARY KEY, v text);");
    let pool = Pgbouncer::before(scene.pgshadow.port(), Mode::Transaction).with_prepared_statements().start();
    let place = pool.place(&scene.app());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // Each client has its own statements under the same names, and fewer sessions than clients are there to hold them.
    let clients = (0..12).map(|number| runtime.spawn(prepared(place.clone(), number))).collect::<Vec<_>>();
    for client in clients {
        runtime.block_on(within(LIMIT, "a client", client)).expect("a client").expect("its statements");
    }
    assert_eq!(scene.source.psql("SELECT count(*), sum(v) FROM t"), "240|2880");
    // pgbench waits for each of its clients' statements to be prepared: more clients than sessions would wait for each other.
    load(&scene, &place, 4, &Protocol::ALL);
}

async fn prepared(place: Endpoint, number: i32) -> Result<(), tokio_postgres::Error> {
    let mut client = place.connect().await;
    let (first, second) = match number % 2 {
        0 => ("INSERT INTO t VALUES ($1, 0)", "UPDATE t SET v = v + 1 WHERE id = $1 RETURNING v"),
        _ => ("INSERT INTO t VALUES ($1, 0) RETURNING id", "UPDATE t SET v = v + 1 WHERE id = $1"),
    };
    let (insert, update) = (client.prepare(first).await?, client.prepare(second).await?);
    assert_eq!((insert.columns().len(), update.columns().len()), ((number % 2) as usize, 1 - (number % 2) as usize));
    for round in 0..20 {
        let id = number * 1000 + round;
        client.query(&insert, &[&id]).await?;
        for _ in 0..10 {
            client.query(&update, &[&id]).await?;
        }
        let transaction = client.transaction().await?;
        transaction.query(&update, &[&id]).await?;
        transaction.query(&update, &[&id]).await?;
        transaction.commit().await?;
    }
    let other = client.prepare("INSERT INTO u VALUES ($1, $2)").await?;
    client.execute(&other, &[&number, &"text"]).await.map(drop)
}

const PATHS: &str = "CREATE SCHEMA one; CREATE SCHEMA two;
    CREATE TABLE one.t (id serial PRIMARY KEY, who text, at date); CREATE TABLE two.t (id serial PRIMARY KEY, who text, at date);
    CREATE TABLE t (id serial PRIMARY KEY, who text, at date);";

/// What one client sets is there for the next one in transaction mode, or is set again by PgBouncer.
#[test]
fn settings_of_many_clients_on_few_sessions() {
    for mode in MODES {
        let scene = Scene::of(PATHS);
        let (_pool, place) = pool(&scene, mode);
        let scripts = [
            "SET search_path = one; INSERT INTO t (who) VALUES ('one'); UPDATE t SET who = who || '!' WHERE id % 3 = 0;",
            "SET search_path = two; INSERT INTO t (who) VALUES ('two'); RESET search_path; INSERT INTO t (who) VALUES ('two');",
            "BEGIN; SET LOCAL search_path = one; INSERT INTO t (who) VALUES ('local'); COMMIT; INSERT INTO t (who) VALUES ('after');",
            "SET DateStyle = 'German'; SET application_name = 'x'; INSERT INTO one.t (at) VALUES ('31.12.2026') RETURNING at;",
            "SET client_encoding = 'LATIN1'; INSERT INTO two.t (who) VALUES (U&'\\00e4'); UPDATE two.t SET who = who || U&'\\00fc' WHERE id = 1;",
            "SET TimeZone = 'Asia/Tokyo'; BEGIN; SET LOCAL DateStyle = 'SQL, DMY'; INSERT INTO t (at) VALUES ('31/12/2026'); ROLLBACK;",
        ];
        std::thread::scope(|scope| {
            for number in 0..scripts.len() * 2 {
                let (place, script) = (place.clone(), scripts[number % scripts.len()]);
                scope.spawn(move || (0..8).for_each(|_| drop(place.psql(script))));
            }
        });
        scene.expect_exact();
        scene.pgshadow.expect_clean_log(&[]);
    }
}

/// What a client leaves behind in its session is taken away before the next one has it.
#[test]
fn a_session_is_reset_between_clients() {
    let scene = Scene::of("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0);");
    let pool = Pgbouncer::before(scene.pgshadow.port(), Mode::Session)
        .set("default_pool_size", "1")
        .set("server_lifetime", "600")
        .start();
    let place = pool.place(&scene.app());
    let mut pids = Vec::new();
    for round in 0..5 {
        pids.push(place.psql("SELECT pg_backend_pid()"));
        place.psql(&format!(
            "CREATE TEMPORARY TABLE t (id int, v int, extra text); INSERT INTO t VALUES (1, 2, 'temporary');
            PREPARE put AS UPDATE t SET v = v + 1; EXECUTE put; SET work_mem = '1MB'; LISTEN l;
            INSERT INTO public.t VALUES (10 + {round}, 1); DECLARE c CURSOR WITH HOLD FOR SELECT 1; SELECT pg_advisory_lock(7);"
        ));
        place.psql(
            "PREPARE put AS UPDATE t SET v = v + 1 WHERE id = 1; EXECUTE put; UPDATE t SET v = v * 2 WHERE id > 1;",
        );
    }
    assert!(pids.iter().all(|pid| *pid == pids[0]), "one session for all: {pids:?}");
    assert_eq!(scene.source.psql("SELECT v FROM t WHERE id = 1"), "5");
    scene.expect_exact();
    scene.pgshadow.expect_clean_log(&[]);
}

#[test]
fn a_query_is_cancelled_through_both() {
    for mode in MODES {
        let scene = Scene::of("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0), (2, 0);");
        let pool = Pgbouncer::before(scene.pgshadow.port(), mode).set("auth_type", "plain").start();
        let database = scene.app().database;
        let (mut client, frames) = RawClient::login(pool.port(), "app", "app", &database).expect("a session");
        let key = frames.iter().find(|frame| frame.tag == b'K').expect("a key").body.clone();
        // Blocked by a lock that another client holds; then by nothing but its own sleep.
        let mut holder = RawClient::login(pool.port(), "app", "app", &database).expect("a session").0;
        holder.query("BEGIN").expect("a block");
        holder.query("UPDATE t SET v = 5 WHERE id = 1").expect("a lock");
        for sql in ["UPDATE t SET v = 7 WHERE id = 1", "UPDATE t SET v = 8 WHERE id = 2 AND pg_sleep(60) IS NOT NULL"] {
            let mut message = vec![b'Q'];
            message.extend((sql.len() as u32 + 5).to_be_bytes());
            message.extend(sql.as_bytes());
            message.push(0);
            client.send(&message).expect("it reads");
            let running = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
                 AND query LIKE '{}%' AND wait_event IS NOT NULL",
                sql.replace('\'', "''")
            );
            eventually("the query waits", LIMIT, || (scene.source.psql(&running) == "1").then_some(()));
            let request = [&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes()[..], &key].concat();
            let mut canceller = RawClient::connect(pool.port()).expect("it listens");
            canceller.send(&request).expect("it reads");
            assert!(canceller.receive_bytes(1).is_err(), "a request to cancel has no answer but the end");
            let answer = client.receive_until_ready().expect("an answer");
            let error = answer.iter().find(|frame| frame.tag == b'E').expect("an error");
            assert_eq!(error.field(b'C').as_deref(), Some("57014"), "{mode:?}");
        }
        holder.query("COMMIT").expect("it commits");
        client.query("UPDATE t SET v = v + 1").expect("it goes on");
        assert_eq!(scene.source.psql("SELECT string_agg(v::text, ',' ORDER BY id) FROM t"), "6,1");
        scene.expect_exact();
    }
}

#[test]
fn roles_log_in_by_each_method() {
    for (server, pool) in
        [(Auth::Scram, "scram-sha-256"), (Auth::Md5, "md5"), (Auth::Trust, "trust"), (Auth::Password, "plain")]
    {
        let [source, target] = [(); 2].map(|()| Cluster::of(servers()[0].installation()).auth(server).start());
        for place in [&source, &target] {
            place.app().psql("CREATE TABLE t (id int PRIMARY KEY)");
        }
        let pgshadow = Pgshadow::between(&source, &target).start();
        let bouncer = Pgbouncer::before(pgshadow.port(), Mode::Transaction).set("auth_type", pool).start();
        let place = bouncer.place(&pgshadow.app());
        place.psql("INSERT INTO t VALUES (1)");
        pgshadow.wait_drained(LIMIT);
        assert_eq!(target.app().psql("SELECT id FROM t"), "1", "{server:?}");
        pgshadow.expect_spotless();
    }
}

#[test]
fn a_pool_behind_pgshadow_is_refused() {
    let [source, target] = servers();
    for mode in MODES {
        let pools = [source, target].map(|server| {
            Pgbouncer::before(server.port(), mode).set("ignore_startup_parameters", "extra_float_digits").start()
        });
        let said = Pgshadow::between(source, target).source_port(pools[0].port()).refused();
        assert!(said.contains("the primary can't be used") && said.contains("connection pool"), "{said}");
        let said = Pgshadow::between(source, target).target_port(pools[1].port()).refused();
        assert!(said.contains("the shadow can't be used") && said.contains("connection pool"), "{said}");
    }
}
