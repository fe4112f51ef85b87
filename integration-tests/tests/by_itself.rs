//! What the database says by itself, without pgshadow, where torture lets it pass.
#![allow(clippy::expect_used, reason = "a test fails by a panic")]
use integration_tests::client::Endpoint;
use integration_tests::postgres::Cluster;
use integration_tests::raw::RawClient;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);
/// simple_heap_update() of a catalog: an error that isn't meant to be seen.
const CONCURRENTLY_UPDATED: &str = "XX000 tuple concurrently updated";

fn session(place: &Endpoint) -> RawClient {
    let login = RawClient::login(place.port, &place.user, &place.password, &place.database);
    login.expect("the server takes connections").0
}

/// Sends statements one after the other until told to stop; which errors there were.
fn errors(place: &Endpoint, stop: &AtomicBool, statements: impl Fn(u32) -> String) -> BTreeSet<String> {
    let (mut client, mut errors) = (session(place), BTreeSet::new());
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let frames = client.query(&statements(number)).expect("the server answers");
        for frame in frames.iter().filter(|frame| frame.tag == b'E') {
            let field = |code| frame.field(code).unwrap_or_default();
            errors.insert(format!("{} {}", field(b'C'), field(b'M')));
            if errors.contains(CONCURRENTLY_UPDATED) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    }
    errors
}

/// Looks for a race: it takes as long as that takes to come up.
fn truncate_beside_a_concurrent_index(server: &Cluster) {
    let place = server.superuser();
    place.psql("CREATE TABLE t (id int PRIMARY KEY, n int)");
    let stop = AtomicBool::new(false);
    let truncate = |_| "TRUNCATE t".to_owned();
    let index = |number| match number % 2 {
        0 => "CREATE INDEX CONCURRENTLY t_n ON t (n)".to_owned(),
        _ => "DROP INDEX IF EXISTS t_n".to_owned(),
    };
    let seen = std::thread::scope(|scope| {
        let truncating = [(), ()].map(|()| scope.spawn(|| errors(&place, &stop, truncate)));
        let indexing = scope.spawn(|| errors(&place, &stop, index));
        let started = Instant::now();
        while !stop.load(Ordering::Relaxed) && started.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        indexing.join().expect("a session");
        truncating.map(|session| session.join().expect("a session"))
    });
    assert!(seen.iter().flatten().any(|error| error == CONCURRENTLY_UPDATED), "{seen:?}");
}

#[test]
#[ignore = "a race is waited for"]
fn truncate_beside_a_concurrent_index_fails_on_the_older_server() {
    truncate_beside_a_concurrent_index(&Cluster::old());
}

#[test]
#[ignore = "a race is waited for"]
fn truncate_beside_a_concurrent_index_fails_on_the_newest_server() {
    truncate_beside_a_concurrent_index(&Cluster::newest());
}
