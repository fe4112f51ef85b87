//! The helpers themselves: a test that uses them must be able to trust them.
use integration_tests::client::{Endpoint, within};
use integration_tests::equal::{self, Difference};
use integration_tests::fault::Frozen;
use integration_tests::installation::Installation;
use integration_tests::postgres::{Auth, Cluster};
use integration_tests::raw::{RawClient, parameters};
use integration_tests::workload::{Load, Protocol};
use std::time::Duration;

#[test]
fn two_major_versions_run_at_once() {
    let (source, target) = (Cluster::old(), Cluster::newest());
    let versions = [source.app().psql("SHOW server_version"), target.app().psql("SHOW server_version")];
    assert!(versions[0].starts_with(&source.installation().version));
    assert!(source.installation().major < target.installation().major, "{versions:?}");
    let identifier = "SELECT system_identifier FROM pg_control_system()";
    let second = Cluster::old();
    assert_ne!(source.superuser().psql(identifier), second.superuser().psql(identifier));
}

#[test]
fn each_kind_of_authentication_asks_for_the_password() {
    for auth in [Auth::Password, Auth::Md5, Auth::Scram] {
        let cluster = Cluster::of(Installation::old()).auth(auth).start();
        assert_eq!(cluster.app().psql("SELECT current_user"), "app");
        let refused = cluster.app().as_user("app", "wrong").try_psql("SELECT 1").unwrap_err();
        assert!(refused.contains("password authentication failed"), "{auth:?}: {refused}");
    }
    let cluster = Cluster::of(Installation::old()).auth(Auth::Trust).start();
    assert_eq!(cluster.app().as_user("app", "wrong").psql("SELECT current_user"), "app");
}

#[test]
fn differences_are_found_and_named() {
    let (source, target) = (Cluster::old(), Cluster::newest());
    let schema =
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, E'b\\n\\\\ü'), (3, NULL)";
    for cluster in [&source, &target] {
        cluster.app().psql(schema);
    }
    equal::assert_equal(&source.app(), &target.app());
    target.app().psql("UPDATE t SET v = 'x' WHERE id = 2; DELETE FROM t WHERE id = 3; CREATE TABLE extra (id int)");
    let found = equal::differences(&source.app(), &target.app());
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((found[0].table.as_str(), &found[0].difference), ("public.extra", &Difference::MissingOnSource));
    let Difference::Rows { only_source, only_target, .. } = &found[1].difference else { panic!("{found:?}") };
    assert_eq!((*only_source, *only_target), (2, 1));
}

#[test]
fn a_server_survives_a_kill_and_a_freeze() {
    let mut cluster = Cluster::of(Installation::old()).with_fsync().start();
    cluster.app().psql("CREATE TABLE t AS SELECT 7 AS v");
    cluster.kill9();
    assert!(RawClient::login(cluster.port(), "postgres", "", "app").is_err());
    cluster.start();
    assert_eq!(cluster.app().psql("SELECT v FROM t"), "7");
    let (mut session, _) = RawClient::login(cluster.port(), "postgres", "", "app").unwrap();
    let frozen = Frozen::new(&cluster);
    let answer = std::thread::spawn(move || session.value("SELECT 1").unwrap());
    std::thread::sleep(Duration::from_millis(300));
    assert!(!answer.is_finished(), "a frozen server must not answer");
    drop(frozen);
    assert_eq!(answer.join().unwrap(), "1");
    cluster.restart();
    assert_eq!(cluster.app().psql("SELECT v FROM t"), "7");
}

#[test]
fn loads_run_in_every_protocol() {
    let cluster = Cluster::newest();
    let loads = [Load::order(), Load::tpcb()];
    for load in loads {
        load.install_on(&[cluster.app()]);
        for protocol in Protocol::ALL {
            let bench = load.clone().protocol(protocol).clients(4).run(&cluster.app(), Duration::from_secs(1));
            assert!(bench.transactions_per_second > 0.0 && bench.latency_ms > 0.0, "{}", bench.output);
        }
    }
}

#[tokio::test]
async fn clients_connect_and_a_raw_one_sees_frames() {
    let cluster = Cluster::old();
    let client = cluster.app().connect().await;
    let row =
        within(Duration::from_secs(10), "one row", client.query_one("SELECT 1 + $1::int4", &[&1_i32])).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 2);

    let Endpoint { port, .. } = cluster.app();
    let (mut raw, frames) = RawClient::login(port, "postgres", "", "app").unwrap();
    assert!(parameters(&frames).iter().any(|(name, _)| name == "server_version"));
    let frames = raw.query("SELECT 'a', NULL; SELECT 1/0").unwrap();
    let tags: Vec<_> = frames.iter().map(|frame| char::from(frame.tag)).collect();
    assert_eq!(tags, ['T', 'D', 'C', 'E', 'Z']);
    assert_eq!(frames[1].columns(), [Some("a".to_owned()), None]);
    assert_eq!(frames[3].field(b'C').as_deref(), Some("22012"));
}
