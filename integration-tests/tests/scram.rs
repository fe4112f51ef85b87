//! Authentication mode `scram`: pgshadow checks the client itself, and logs in to the primary with what the proof holds.
#![allow(clippy::expect_used, reason = "a test fails by a panic")]
use integration_tests::client::Endpoint;
use integration_tests::drivers::Driver;
use integration_tests::installation::Installation;
use integration_tests::postgres::{Auth, Cluster};
use integration_tests::proxy::{Pgshadow, PgshadowBuilder};
use integration_tests::scene::servers;
use std::sync::OnceLock;

/// What a server keeps of a role's password.
fn verifier(cluster: &Cluster, role: &str) -> String {
    cluster.superuser().psql(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'"))
}

fn between(set_up: impl FnOnce(PgshadowBuilder) -> PgshadowBuilder) -> Pgshadow {
    let [source, target] = servers();
    set_up(Pgshadow::between(source, target).without_mirroring()).start()
}

/// Drivers log in against the verifier alone: no password stands anywhere at pgshadow.
fn logs_in(driver: Driver) {
    static PROXY: OnceLock<Pgshadow> = OnceLock::new();
    let proxy = PROXY.get_or_init(|| {
        let [source, _] = servers();
        between(|builder| builder.users(&format!("\"app\" \"{}\"\n", verifier(source, "app"))))
    });
    driver.run(&proxy.app());
    proxy.expect_clean_log(&[]);
}

#[test]
fn psycopg3() {
    logs_in(Driver::Psycopg3);
}

#[test]
fn asyncpg() {
    logs_in(Driver::Asyncpg);
}

#[test]
fn pg8000() {
    logs_in(Driver::Pg8000);
}

#[test]
fn node_pg() {
    logs_in(Driver::NodePg);
}

#[test]
fn pgjdbc() {
    logs_in(Driver::Jdbc);
}

#[test]
fn psql() {
    logs_in(Driver::PsqlOld);
    logs_in(Driver::PsqlNewest);
}

/// What a refused login says, without where and when.
fn refusal(place: &Endpoint) -> String {
    let said = place.try_psql("SELECT 1").expect_err("it must be refused");
    said.split_once("FATAL:").map_or(said.clone(), |(_, text)| text.trim().to_owned())
}

/// A wrong password and an unknown user are told in PostgreSQL's own words, and alike.
#[test]
fn who_is_not_known_is_refused_as_the_server_does_it() {
    let [source, _] = servers();
    let proxy = between(|builder| builder.users(&format!("\"app\" \"{}\"\n", verifier(source, "app"))));
    for (user, password) in [("app", "wrong"), ("app", ""), ("nobody", "app"), ("pgshadow", "pgshadow")] {
        let place = proxy.app().as_user(user, password);
        if !password.is_empty() {
            assert_eq!(refusal(&place), refusal(&source.app().as_user(user, "wrong")), "{user}");
        }
        assert!(place.try_psql("SELECT 1").is_err(), "{user}");
    }
    // nothing that a client may try leaves anything behind
    assert_eq!(proxy.app().psql("SELECT 1"), "1");
}

/// A password in the file logs in to servers that ask for anything; a verifier only to those that keep the same one.
#[test]
fn a_server_that_asks_otherwise() {
    let target = &servers()[1];
    for (auth, named) in [(Auth::Md5, "the password itself"), (Auth::Password, "the password itself")] {
        let source = Cluster::of(Installation::old()).auth(auth).start();
        let of = |users: &str| Pgshadow::between(&source, target).without_mirroring().users(users).start();
        assert_eq!(of("\"app\" \"app\"\n").app().psql("SELECT 1"), "1", "{auth:?}");
        let said = refusal(&of(&format!("\"app\" \"{}\"\n", verifier(&servers()[0], "app"))).app());
        assert!(said.contains(named) && said.contains("[auth] users_file"), "{auth:?}: {said}");
    }
    let source = Cluster::of(Installation::old()).auth(Auth::Trust).start();
    let proxy = Pgshadow::between(&source, target).without_mirroring().users("\"app\" \"app\"\n").start();
    assert_eq!(proxy.app().psql("SELECT 1"), "1");
    assert!(refusal(&proxy.app().as_user("app", "wrong")).contains("password authentication failed"));
}

/// Another verifier of the same password isn't the server's: the cause and the remedy are named.
#[test]
fn another_verifier_than_the_server_s_is_named() {
    let [source, _] = servers();
    source.superuser().psql("CREATE ROLE twice LOGIN PASSWORD 'twice'");
    let proxy = between(|builder| builder.users(&format!("\"twice\" \"{}\"\n", verifier(source, "twice"))));
    let place = proxy.app().as_user("twice", "twice");
    assert_eq!(place.psql("SELECT current_user"), "twice");
    source.superuser().psql("ALTER ROLE twice PASSWORD 'twice'");
    let said = refusal(&place);
    assert!(said.contains("another SCRAM verifier") && said.contains("pg_authid.rolpassword"), "{said}");
    // the file is read again once it was written
    proxy.write_users(&format!("\"twice\" \"{}\"\n", verifier(source, "twice")));
    assert_eq!(place.psql("SELECT current_user"), "twice");
    // one with a mistake changes nothing
    proxy.write_users("\"twice\" \"md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\n");
    assert_eq!(place.psql("SELECT current_user"), "twice");
    proxy.expect_clean_log(&["the users that were read before stay", "can't be logged in"]);
}

/// `[auth] query` asks the primary, by a function that a role without superuser rights may call.
#[test]
fn users_can_be_asked_of_the_primary() {
    let [source, _] = servers();
    source.superuser().psql(
        "CREATE FUNCTION user_lookup(text) RETURNS TABLE (u name, s text) LANGUAGE sql SECURITY DEFINER
           AS 'SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1 AND rolcanlogin';
         REVOKE ALL ON FUNCTION user_lookup(text) FROM public; GRANT EXECUTE ON FUNCTION user_lookup(text) TO pgshadow",
    );
    let proxy = between(|builder| {
        builder.set("auth", "mode", "\"scram\"").set("auth", "query", "\"SELECT * FROM user_lookup($1)\"")
    });
    assert_eq!(proxy.app().psql("SELECT 1"), "1");
    assert!(refusal(&proxy.app().as_user("nobody", "x")).contains("password authentication failed"));
    source.superuser().psql("DROP FUNCTION user_lookup");
    let said = refusal(&proxy.app());
    assert!(said.contains("pgshadow can't check user") && !said.contains("user_lookup"), "{said}");
    assert!(proxy.log().contains("user_lookup"), "{}", proxy.log());
}

/// Bad files are refused at the start, by line, without the secret.
#[test]
fn a_bad_file_is_refused() {
    let [source, target] = servers();
    for (lines, named) in [
        ("\"app\" \"md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\n", "line 1: user \"app\": an md5 hash can't be used"),
        ("; users\n\"app\" \"SCRAM-SHA-256$secretive\"\n", "line 2: user \"app\": its SCRAM verifier can't be read"),
        ("\"app\" \"a\"\n\"app\" \"b\"\n", "line 2: user \"app\" stands there twice"),
        ("app secretive\n", "line 1: a line is \"user\" \"secret\""),
    ] {
        let said = Pgshadow::between(source, target).without_mirroring().users(lines).refused();
        assert!(said.contains(named) && !said.contains("secretive"), "{said}");
    }
    let said = Pgshadow::between(source, target).without_mirroring().set("auth", "mode", "\"scram\"").refused();
    assert!(said.contains("users_file"), "{said}");
}
