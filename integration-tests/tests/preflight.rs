//! What `pgshadow preflight` finds, and that what it prints mends it.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
use integration_tests::client::{Endpoint, LIMIT};
use integration_tests::installation::Installation;
use integration_tests::postgres::Cluster;
use integration_tests::process;
use integration_tests::proxy::Pgshadow;
use integration_tests::scene::{databases, servers};
use serde_json::Value;
use std::process::Command;

const TABLES: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v int, w text DEFAULT 'a'); CREATE TABLE u (id int PRIMARY KEY, t int);
    CREATE INDEX u_t ON u (t); ALTER TABLE u ADD CONSTRAINT u_t_fkey FOREIGN KEY (t) REFERENCES t;";

/// Two databases with their tables, and a pgshadow that is stopped again: preflight needs none.
struct Stage {
    source: Endpoint,
    target: Endpoint,
    pgshadow: Pgshadow,
}

impl Stage {
    fn of(on_both: &str) -> Stage {
        let [source, target] = databases();
        for place in [&source, &target] {
            place.psql(on_both);
        }
        Stage::between(servers(), source, target)
    }

    fn between(servers: &[Cluster; 2], source: Endpoint, target: Endpoint) -> Stage {
        let [old, new] = servers;
        let mut pgshadow = Pgshadow::between(old, new).database(&source.database).without_mirroring().start();
        pgshadow.stop();
        Stage { source, target, pgshadow }
    }

    fn preflight(&self) -> (Value, Option<i32>) {
        let finished = self.pgshadow.run(&["preflight", "--json", "--older-than", "0s"], LIMIT);
        (serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:#?}")), finished.status.code())
    }

    fn find(&self, check: &str, place: &str, subject: &str) -> Option<Value> {
        let (report, code) = self.preflight();
        assert_eq!(code, Some(if report["blocked"] == true { 3 } else { 0 }));
        assert!(report["not_run"].as_array().unwrap().is_empty(), "{report:#}");
        let found = report["findings"].as_array().unwrap();
        let is =
            |f: &&Value| f["check"] == check && f["place"] == place && f["subject"].as_str().unwrap().contains(subject);
        found.iter().find(is).cloned()
    }

    fn at(&self, place: &str) -> Endpoint {
        let end = if place == "source" { &self.source } else { &self.target };
        end.as_user("postgres", "postgres")
    }

    /// Plants a cause on one side; it is found, and isn't any more once the printed mend was run.
    #[track_caller]
    fn planted(&self, on: &str, sql: &str, level: &str, check: &str, place: &str, subject: &str) {
        self.at(on).psql(&format!("SET ROLE app; {sql}"));
        let found = self
            .find(check, place, subject)
            .unwrap_or_else(|| panic!("{sql}: no {check} {subject}: {:#}", self.preflight().0));
        assert_eq!(found["level"], level, "{found:#}");
        let mend = found["mend"].as_str().unwrap_or_else(|| panic!("{found:#}"));
        if mend.starts_with("pg_dump") {
            let bindir = &Installation::newest().bindir;
            let path = format!("{}:{}", bindir.display(), std::env::var("PATH").unwrap());
            process::run(Command::new("sh").args(["-ec", mend]).env("PATH", path).env("PGPASSWORD", "pgshadow"), LIMIT)
                .success();
        } else {
            self.at(place).psql(mend);
        }
        let left = self.find(check, place, subject);
        let left = left.filter(|left| left["level"] == level);
        assert!(left.is_none(), "{sql}: {left:#?}");
    }
}

#[test]
fn a_difference_of_definitions_is_found_and_mended() {
    let stage = Stage::of(TABLES);
    for (on, sql, level, check, subject) in [
        ("source", "CREATE SCHEMA \"Odd \"\"s\"", "block", "schemas", "\"Odd \"\"s\""),
        ("source", "CREATE TYPE mood AS ENUM ('ok', 'it''s')", "block", "types", "public.mood"),
        ("source", "CREATE DOMAIN positive AS int CHECK (VALUE > 0)", "block", "types", "public.positive"),
        ("source", "CREATE SEQUENCE counted INCREMENT 5", "block", "sequences", "public.counted"),
        ("target", "ALTER SEQUENCE counted INCREMENT 6", "warn", "sequences", "public.counted"),
        (
            "source",
            "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a'",
            "block",
            "functions",
            "public.f(a integer)",
        ),
        (
            "target",
            "CREATE OR REPLACE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a + 1'",
            "warn",
            "functions",
            "public.f(a integer)",
        ),
        ("source", "CREATE TABLE \"Odd \"\"s\".\"It's.\" (id int PRIMARY KEY)", "block", "tables", "\"It's.\""),
        (
            "source",
            "ALTER TABLE t ADD COLUMN \"New\" numeric(9, 2) NOT NULL DEFAULT 1",
            "block",
            "columns",
            "public.t.\"New\"",
        ),
        ("target", "ALTER TABLE t ADD COLUMN more int", "block", "columns", "public.t.more"),
        ("target", "ALTER TABLE t ALTER v TYPE bigint", "block", "columns", "public.t.v"),
        ("target", "ALTER TABLE t ALTER v SET NOT NULL", "warn", "columns", "public.t.v"),
        ("target", "ALTER TABLE t ALTER w SET DEFAULT 'b'", "warn", "columns", "public.t.w"),
        (
            "source",
            "ALTER TABLE t ADD COLUMN g int GENERATED ALWAYS AS (id + 1) STORED",
            "block",
            "columns",
            "public.t.g",
        ),
        ("source", "ALTER TABLE t ALTER id ADD GENERATED BY DEFAULT AS IDENTITY", "warn", "columns", "public.t.id"),
        ("target", "ALTER TABLE u DROP CONSTRAINT u_pkey", "block", "constraints", "public.u.u_pkey"),
        ("target", "ALTER TABLE u DROP CONSTRAINT u_t_fkey", "block", "constraints", "public.u.u_t_fkey"),
        ("source", "ALTER TABLE t ADD CONSTRAINT c CHECK (v > 0)", "warn", "constraints", "public.t.c"),
        ("target", "ALTER TABLE t ADD CONSTRAINT d CHECK (v > 1)", "warn", "constraints", "public.t.d"),
        ("target", "ALTER TABLE u RENAME CONSTRAINT u_t_fkey TO other", "note", "constraints", "public.u.u_t_fkey"),
        ("source", "CREATE INDEX \"t V\" ON t (v)", "warn", "indexes", "public.\"t V\""),
        ("source", "CREATE UNIQUE INDEX t_w ON t (w)", "block", "indexes", "public.t_w"),
        ("target", "ALTER INDEX t_w RENAME TO t_x", "note", "indexes", "public.t_w"),
        ("target", "CREATE UNIQUE INDEX t_only ON t (w, v)", "block", "indexes", "public.t_only"),
        ("source", "CREATE VIEW seen AS SELECT id FROM t", "block", "views", "public.seen"),
        ("source", "CREATE MATERIALIZED VIEW kept AS SELECT id FROM t", "block", "views", "public.kept"),
        ("target", "ALTER INDEX u_t RENAME TO u_u", "note", "indexes", "public.u_t"),
    ] {
        stage.planted(on, sql, level, check, "target", subject);
    }
    stage
        .at("source")
        .psql("SET allow_system_table_mods = on; UPDATE pg_class SET relpages = 1000000 WHERE relname = 'u'");
    stage.planted("target", "DROP INDEX u_t", "block", "indexes", "target", "public.u_t");
    let trigger = "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'";
    stage.target.psql(trigger);
    stage.planted(
        "source",
        &format!("{trigger}; CREATE TRIGGER touch BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION touch()"),
        "block",
        "triggers",
        "target",
        "public.t.touch",
    );
    stage.planted("target", "ALTER TABLE t DISABLE TRIGGER touch", "warn", "triggers", "target", "public.t.touch");
    stage.planted("source", "ALTER TABLE t ENABLE ROW LEVEL SECURITY", "block", "triggers", "target", "public.t");
}

#[test]
fn what_harms_on_one_side_is_found_and_mended() {
    let stage = Stage::of(TABLES);
    for (sql, level, check, subject) in [
        ("CREATE UNLOGGED TABLE quick (id int PRIMARY KEY)", "note", "unlogged-tables", "public.quick"),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (v > 0) NOT VALID", "warn", "not-valid-constraints", "public.t.c"),
        ("DROP INDEX u_t", "warn", "foreign-key-indexes", "public.u.u_t_fkey"),
        (
            "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'it''s one'",
            "warn",
            "prepared-transactions",
            "it's one",
        ),
    ] {
        stage.planted("source", sql, level, check, "source", subject);
    }
    stage.source.psql("CREATE TABLE bare (v int); CREATE TABLE twice (v int); INSERT INTO twice VALUES (1), (1)");
    stage.source.try_psql("CREATE UNIQUE INDEX CONCURRENTLY twice_v ON twice (v)").expect_err("not unique");
    stage.planted("source", "DELETE FROM twice", "warn", "invalid-indexes", "source", "public.twice_v");
    assert_eq!(stage.find("unkeyed-tables", "source", "public.bare").unwrap()["level"], "warn");
    stage.source.psql("SELECT lo_create(0)");
    assert_eq!(stage.find("large-objects", "source", "").unwrap()["level"], "warn");
    assert_eq!(stage.find("rehearsal", "target", "rollback").unwrap()["level"], "note");
    assert!(stage.find("superusers", "source", "postgres").unwrap()["happens"].as_str().unwrap().contains("fenced"));
    stage.at("source").psql("CREATE PUBLICATION told FOR ALL TABLES");
    assert_eq!(stage.find("replication", "source", "told").unwrap()["level"], "warn");
    for (place, end) in [("source", &stage.source), ("target", &stage.target)] {
        end.psql(if place == "source" {
            "CREATE TYPE pad AS ENUM ('a'); CREATE TYPE mood AS ENUM ('a')"
        } else {
            "CREATE TYPE mood AS ENUM ('a')"
        });
    }
    assert_eq!(stage.find("type-oids", "target", "public.mood").unwrap()["sure"], "certain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_in_a_transaction_is_named_and_can_be_ended() {
    let stage = Stage::of(TABLES);
    let client = stage.source.connect().await;
    client.batch_execute("BEGIN; SELECT 1 AS found_here").await.unwrap();
    let found = stage.find("long-transactions", "source", "pid").unwrap();
    assert!(found["happens"].as_str().unwrap().contains("found_here"), "{found:#}");
    assert_eq!(stage.find("direct-clients", "source", "app").unwrap()["level"], "note");
    stage.at("source").psql(found["mend"].as_str().unwrap());
    assert!(stage.find("long-transactions", "source", "pid").is_none());
}

#[test]
fn roles_and_extensions_that_the_target_lacks() {
    let stage = Stage::of(TABLES);
    let name = format!("reader_{}", stage.source.database);
    stage.at("source").psql(&format!("CREATE ROLE {name} LOGIN; GRANT SELECT ON t TO {name}"));
    stage.planted("source", "SELECT 1", "block", "roles", "target", &name);
    if stage.at("source").try_psql("CREATE EXTENSION pg_trgm").is_ok() {
        let found = stage.find("extensions", "target", "pg_trgm").unwrap();
        assert_eq!(found["level"], "block", "{found:#}");
    }
}

#[test]
fn an_empty_target_is_one_note_and_a_server_that_is_away_is_code_1() {
    let [source, target] = databases();
    source.psql(TABLES);
    let mut stage = Stage::between(servers(), source, target);
    let (report, _) = stage.preflight();
    let found = report["findings"].as_array().unwrap();
    let empty: Vec<_> = found.iter().filter(|f| f["check"] == "empty-target").collect();
    assert_eq!(empty.len(), 1, "{report:#}");
    assert_eq!((&empty[0]["level"], &empty[0]["mend"]), (&"note".into(), &"pgshadow backfill --create-schema".into()));
    assert!(found.iter().all(|f| f["check"] != "tables"), "{report:#}");
    let table = stage.pgshadow.run(&["preflight"], LIMIT);
    assert!(table.stdout.contains("empty-target") && table.stdout.contains("checks ran"), "{table:#?}");
    stage.pgshadow = Pgshadow::between(&servers()[0], &servers()[1]).target_port(1).without_mirroring().start();
    let finished = stage.pgshadow.run(&["preflight"], LIMIT);
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    assert!(finished.stderr.contains("the target"), "{finished:#?}");
}

#[test]
fn what_grants_prints_makes_the_role_able_and_a_clean_pair_is_clean() {
    let servers = [Cluster::old(), Cluster::newest()];
    let [source, target] = servers.each_ref().map(|server| server.create_database("clean"));
    for (server, place) in servers.iter().zip([&source, &target]) {
        server.superuser().psql("CREATE ROLE bare LOGIN PASSWORD 'bare'");
        place.psql(TABLES);
    }
    let [old, new] = &servers;
    let mut pgshadow =
        Pgshadow::between(old, new).database("clean").as_user("bare", "bare").without_mirroring().start();
    pgshadow.stop();
    let stage = Stage { source, target, pgshadow };
    let lacking = stage.find("own-rights", "target", "bare").unwrap();
    assert_eq!(lacking["level"], "block", "{lacking:#}");
    let sql = stage.pgshadow.run(&["preflight", "--grants"], LIMIT).success();
    old.superuser().psql(&sql);
    let (report, code) = stage.preflight();
    assert_eq!(
        (&report["counts"]["block"], &report["counts"]["warn"], code),
        (&0.into(), &0.into(), Some(0)),
        "{report:#}"
    );
    assert!(report["not_run"].as_array().unwrap().is_empty(), "{report:#}");
}
