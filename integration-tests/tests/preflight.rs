//! What `pgshadow preflight` finds, and that what it prints mends it.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
use integration_tests::client::{Endpoint, LIMIT};
use integration_tests::installation::Installation;
use integration_tests::postgres::Cluster;
use integration_tests::process::{self, eventually};
use integration_tests::proxy::Pgshadow;
use integration_tests::scene::{databases, newest_servers, servers};
use serde_json::Value;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

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

    /// [`of`](Self::of), between two servers of one major, which write definitions the same way.
    fn of_one_major(on_both: &str) -> Stage {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("alike{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let [source, target] = newest_servers().each_ref().map(|server| server.create_database(&name));
        for place in [&source, &target] {
            place.psql(on_both);
        }
        Stage::between(newest_servers(), source, target)
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

    /// A role that both servers have; its name is this stage's own.
    fn role(&self, kind: &str) -> String {
        let name = format!("{kind}_{}", self.source.database);
        for place in ["source", "target"] {
            self.at(place).psql(&format!("CREATE ROLE {name} LOGIN"));
        }
        name
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

/// Where nothing is planted, a right, an owner, a policy and the like are the same for any two majors.
const ALIKE: &str = "CREATE VIEW seen AS SELECT t.id, t.v + 1 AS more FROM t WHERE t.v > 1 AND t.w IS NOT NULL;
    CREATE MATERIALIZED VIEW kept AS SELECT id FROM t; CREATE TYPE mood AS ENUM ('ok'); CREATE SEQUENCE counted;
    CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a'; CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int);
    CREATE RULE noted AS ON UPDATE TO u WHERE new.t > 7 DO ALSO DELETE FROM t WHERE t.id = new.t; CREATE POLICY own ON t FOR SELECT TO app USING (v > 0);
    GRANT SELECT ON t TO PUBLIC; GRANT SELECT (t) ON u TO PUBLIC; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;";

#[test]
fn rights_that_were_granted_on_one_side_only_are_found_and_mended() {
    let stage = Stage::of(&format!("{TABLES} {ALIKE} REVOKE SELECT ON t FROM PUBLIC; CREATE SCHEMA \"Odd \"\"s\""));
    let (reader, database) = (stage.role("reader"), stage.source.database.clone());
    for (on, sql, level, subject) in [
        ("source", format!("GRANT SELECT, UPDATE ON t TO {reader}"), "block", "public.t"),
        ("source", format!("GRANT UPDATE (t), INSERT (t) ON u TO {reader}"), "block", "public.u.t"),
        ("source", format!("GRANT USAGE ON SEQUENCE counted TO {reader} WITH GRANT OPTION"), "block", "public.counted"),
        ("source", format!("GRANT USAGE ON SCHEMA \"Odd \"\"s\" TO {reader}"), "block", "\"Odd \"\"s\""),
        ("source", format!("GRANT CREATE ON DATABASE {database} TO {reader}"), "block", &*database),
        ("target", "REVOKE USAGE ON TYPE mood FROM PUBLIC".to_owned(), "block", "public.mood"),
        ("target", "REVOKE EXECUTE ON FUNCTION f FROM PUBLIC".to_owned(), "block", "public.f(a integer)"),
        ("target", format!("GRANT DELETE ON t TO {reader}"), "warn", "public.t"),
        ("target", format!("GRANT SELECT ON t TO {reader} WITH GRANT OPTION"), "warn", "public.t"),
        ("source", "GRANT SELECT ON u TO PUBLIC".to_owned(), "block", "public.u"),
        ("source", format!("GRANT SELECT ON u TO {reader}"), "note", "public.u"),
        ("source", format!("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {reader}"), "warn", "tables of app"),
        (
            "target",
            format!("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO {reader}"),
            "warn",
            "sequences of app in public",
        ),
        (
            "target",
            "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC".to_owned(),
            "warn",
            "functions of app",
        ),
        ("source", "ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC".to_owned(), "warn", "types of app"),
    ] {
        assert!(stage.find("grants", "target", "").is_none(), "before {sql}");
        stage.planted(on, &sql, level, "grants", "target", subject);
    }
}

#[test]
fn what_belongs_to_another_role_is_found_and_mended() {
    let stage = Stage::of(&format!("{TABLES} {ALIKE} CREATE SCHEMA other"));
    let other = stage.role("other");
    for (kind, named, subject) in [
        ("TABLE", "t", "public.t"),
        ("VIEW", "seen", "public.seen"),
        ("MATERIALIZED VIEW", "kept", "public.kept"),
        ("SEQUENCE", "counted", "public.counted"),
        ("TYPE", "mood", "public.mood"),
        ("FUNCTION", "f(int)", "public.f(a integer)"),
        ("AGGREGATE", "total(int)", "public.total(integer)"),
        ("SCHEMA", "other", "other"),
    ] {
        assert!(stage.find("owners", "target", "").is_none(), "before {named}");
        let sql = format!("RESET ROLE; ALTER {kind} {named} OWNER TO {other}");
        stage.planted("target", &sql, "block", "owners", "target", subject);
    }
    let sql = format!("RESET ROLE; GRANT {other} TO app; ALTER TABLE u OWNER TO {other}");
    stage.planted("target", &sql, "note", "owners", "target", "public.u");
    stage.at("target").psql(&format!("REVOKE {other} FROM app"));
    // a superuser of the source may be none on the target
    stage.at("source").psql(&format!("ALTER ROLE {other} SUPERUSER; ALTER TABLE t OWNER TO {other}"));
    stage.planted("source", "SELECT 1", "warn", "owners", "target", "public.t");
}

#[test]
fn settings_that_differ_and_timeouts_are_found_and_mended() {
    let stage = Stage::of(TABLES);
    let database = stage.source.database.clone();
    for (on, sql, subject) in [
        (
            "source",
            format!("ALTER DATABASE {database} SET search_path = \"$user\", public, \"Odd \"\"s, one\""),
            &*database,
        ),
        ("target", format!("ALTER DATABASE {database} SET search_path = public"), &*database),
        ("target", format!("ALTER DATABASE {database} SET work_mem = '5MB'"), &*database),
        ("source", format!("RESET ROLE; ALTER ROLE app IN DATABASE {database} SET my.own = 'it''s, \"so\"'"), "app"),
        ("source", format!("RESET ROLE; ALTER ROLE app IN DATABASE {database} SET DateStyle = 'ISO, DMY'"), "app"),
    ] {
        assert!(stage.find("settings", "target", "").is_none(), "before {sql}");
        stage.planted(on, &sql, "warn", "settings", "target", subject);
    }
    let set = "SELECT array_agg(c ORDER BY c) FROM pg_db_role_setting s, unnest(setconfig) c WHERE setdatabase =
        (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(stage.source.psql(set), stage.target.psql(set));
    // not known since 14; it is kept where a server was upgraded in its place
    stage.at("source").psql(
        "SET allow_system_table_mods = on; UPDATE pg_db_role_setting SET setconfig = setconfig || 'operator_precedence_warning=on'::text
        WHERE setrole = 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
    );
    let unknown = stage.find("settings", "target", &database).unwrap();
    assert_eq!((&unknown["level"], &unknown["mend"]), (&"note".into(), &Value::Null), "{unknown:#}");
    for place in ["source", "target"] {
        for setting in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"] {
            assert!(stage.find("timeouts", place, "").is_none(), "before {setting}");
            let sql = format!("RESET ROLE; ALTER ROLE pgshadow IN DATABASE {database} SET {setting} = '300s'");
            stage.planted(place, &sql, "note", "timeouts", place, "pgshadow");
        }
    }
}

#[test]
fn rules_policies_and_views_that_differ_are_found_and_mended() {
    let stage = Stage::of_one_major(&format!("{TABLES} {ALIKE}"));
    for check in ["rules", "policies", "views"] {
        assert!(stage.find(check, "target", "").is_none(), "{check}");
    }
    for (on, sql, level, check, subject) in [
        ("source", "CREATE RULE kept AS ON DELETE TO t DO INSTEAD NOTHING", "block", "rules", "public.t.kept"),
        ("target", "CREATE RULE more AS ON DELETE TO u DO ALSO NOTIFY more", "warn", "rules", "public.u.more"),
        (
            "target",
            "CREATE OR REPLACE RULE noted AS ON UPDATE TO u DO ALSO NOTIFY noted",
            "warn",
            "rules",
            "public.u.noted",
        ),
        ("target", "ALTER TABLE u DISABLE RULE noted", "warn", "rules", "public.u.noted"),
        (
            "source",
            "CREATE POLICY \"P 1\" ON t AS RESTRICTIVE USING (v > 0) WITH CHECK (v > 1)",
            "block",
            "policies",
            "public.t.\"P 1\"",
        ),
        ("target", "CREATE POLICY more ON t FOR DELETE USING (true)", "warn", "policies", "public.t.more"),
        ("target", "ALTER POLICY own ON t TO PUBLIC USING (v > 5)", "warn", "policies", "public.t.own"),
        ("source", "ALTER TABLE t FORCE ROW LEVEL SECURITY", "warn", "policies", "public.t"),
        ("target", "ALTER TABLE u FORCE ROW LEVEL SECURITY", "warn", "policies", "public.u"),
        ("target", "ALTER TABLE u ENABLE ROW LEVEL SECURITY", "warn", "policies", "public.u"),
        ("target", "CREATE OR REPLACE VIEW seen AS SELECT id, v + 2 AS more FROM t", "warn", "views", "public.seen"),
        ("source", "ALTER VIEW seen SET (security_barrier = true)", "warn", "views", "public.seen"),
        ("target", "REFRESH MATERIALIZED VIEW kept WITH NO DATA", "warn", "views", "public.kept"),
        ("target", "DROP VIEW seen; CREATE VIEW seen AS SELECT id FROM t", "warn", "views", "public.seen"),
        (
            "target",
            "DROP MATERIALIZED VIEW kept; CREATE MATERIALIZED VIEW kept AS SELECT id + 1 AS id FROM t",
            "warn",
            "views",
            "public.kept",
        ),
        ("target", "DROP MATERIALIZED VIEW kept; CREATE VIEW kept AS SELECT id FROM t", "warn", "views", "public.kept"),
    ] {
        stage.planted(on, sql, level, check, "target", subject);
    }
    for side in [&stage.source, &stage.target] {
        side.psql("ALTER TABLE t ADD COLUMN g int GENERATED ALWAYS AS (id + 1) STORED");
    }
    let sql = "ALTER TABLE t ALTER g SET EXPRESSION AS (id + 2)";
    stage.planted("target", sql, "block", "columns", "target", "public.t.g");
    // between majors, what reads otherwise may be the same
    let stage =
        Stage::of(&format!("{TABLES} {ALIKE} ALTER TABLE t ADD COLUMN g int GENERATED ALWAYS AS (id + 1) STORED"));
    for check in ["rules", "policies", "views", "columns"] {
        assert!(stage.find(check, "target", "").is_none(), "{check}");
    }
    for (sql, level, check, subject) in [
        ("CREATE OR REPLACE VIEW seen AS SELECT id, v + 2 AS more FROM t", "note", "views", "public.seen"),
        ("CREATE OR REPLACE RULE noted AS ON UPDATE TO u DO ALSO NOTIFY noted", "note", "rules", "public.u.noted"),
        ("ALTER TABLE t ALTER g SET EXPRESSION AS (id + 2)", "warn", "columns", "public.t.g"),
    ] {
        stage.planted("target", sql, level, check, "target", subject);
    }
}

#[test]
fn other_objects_that_the_target_lacks_are_found_and_mended() {
    let stage = Stage::of(TABLES);
    for (sql, subject) in [
        ("CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')", "public.total(integer)"),
        (
            "CREATE AGGREGATE many (*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0', COMBINEFUNC = int8pl)",
            "public.many()",
        ),
        ("CREATE OPERATOR #+# (PROCEDURE = int4pl, LEFTARG = int, RIGHTARG = int)", "public.#+#(integer,integer)"),
        ("CREATE TYPE span AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = float8mi)", "public.span"),
        ("CREATE COLLATION \"Plain\" (LOCALE = 'C')", "public.\"Plain\""),
        ("CREATE TEXT SEARCH DICTIONARY short (TEMPLATE = simple, STOPWORDS = english)", "public.short"),
        ("CREATE TEXT SEARCH CONFIGURATION words (COPY = english)", "public.words"),
        ("CREATE STATISTICS together (dependencies) ON v, w FROM t", "public.together"),
    ] {
        stage.planted("source", sql, "warn", "other-objects", "target", subject);
    }
    stage.source.psql("CREATE TYPE mood AS ENUM ('ok')");
    stage.target.psql("CREATE TYPE mood AS ENUM ('ok')");
    let sql = "CREATE CAST (mood AS int) WITH INOUT AS ASSIGNMENT";
    stage.planted("source", sql, "warn", "other-objects", "target", "public.mood AS integer");
    stage.at("source").psql("CREATE OPERATOR FAMILY odd USING btree; CREATE OPERATOR CLASS odd FOR TYPE int USING btree FAMILY odd AS OPERATOR 1 <");
    assert_eq!(stage.find("other-objects", "target", "public.odd").unwrap()["level"], "warn");
}

#[test]
fn what_reaches_out_of_the_source_or_runs_by_itself_is_named() {
    let stage = Stage::of(TABLES);
    for place in ["source", "target"] {
        stage
            .at(place)
            .psql("CREATE FOREIGN DATA WRAPPER away OPTIONS (a 'b'); GRANT USAGE ON FOREIGN DATA WRAPPER away TO app");
    }
    for (sql, level, subject) in [
        (
            "CREATE SERVER \"Far\" TYPE 'x' FOREIGN DATA WRAPPER away OPTIONS (host 'it''s', port '1')",
            "block",
            "\"Far\"",
        ),
        ("CREATE USER MAPPING FOR app SERVER \"Far\"", "warn", "app at \"Far\""),
        ("CREATE USER MAPPING FOR PUBLIC SERVER \"Far\"", "warn", "public at \"Far\""),
        ("CREATE FOREIGN TABLE afar (id int) SERVER \"Far\"", "block", "public.afar"),
    ] {
        assert!(stage.find("foreign-tables", "target", "").is_none(), "before {sql}");
        stage.planted("source", sql, level, "foreign-tables", "target", subject);
    }
    assert!(stage.find("jobs", "source", "").is_none());
    stage.at("source").psql(&format!("ALTER DATABASE {} SET cron.database_name = 'jobs'", stage.source.database));
    let jobs = stage.find("jobs", "source", "pg_cron").unwrap();
    assert!(jobs["level"] == "note" && jobs["happens"].as_str().unwrap().contains("database jobs"), "{jobs:#}");
    let slot = format!("kept_{}", stage.source.database);
    for place in ["source", "target"] {
        let sql = format!("RESET ROLE; SELECT pg_create_physical_replication_slot('{slot}', true)");
        stage.planted(place, &sql, "warn", "disk", place, &slot);
    }
    let room = stage.find("disk", "target", &stage.target.database).unwrap();
    assert!(room["level"] == "note" && room["happens"].as_str().unwrap().contains("max_wal_size"), "{room:#}");
    let log = stage.find("disk", "source", "size_max").unwrap();
    assert!(log["happens"].as_str().unwrap().contains("10.0 GiB"), "{log:#}");
}

/// Large tables that are read as a whole, by their statistics and their size in the catalog.
#[test]
fn a_large_table_that_is_read_as_a_whole_is_named() {
    let stage = Stage::of(TABLES);
    stage
        .source
        .psql("INSERT INTO t VALUES (1); INSERT INTO u SELECT g, 1 FROM generate_series(1, 50) g; DROP INDEX u_t");
    assert!(stage.find("sequential-scans", "source", "").is_none());
    stage.source.psql("SET enable_indexscan = off; SET enable_bitmapscan = off; DO 'BEGIN FOR i IN 1 .. 120 LOOP PERFORM FROM u WHERE t = i; END LOOP; END'");
    let pages = "SET allow_system_table_mods = on; UPDATE pg_class SET relpages = 1000000 WHERE relname = 'u'";
    stage.at("source").psql(pages);
    let found = eventually("the statistics are told", LIMIT, || stage.find("sequential-scans", "source", "public.u"));
    assert!(
        found["level"] == "warn" && found["happens"].as_str().unwrap().contains("0 times by an index"),
        "{found:#}"
    );
    stage.at("source").psql(&pages.replace("1000000", "1"));
    assert!(stage.find("sequential-scans", "source", "").is_none(), "a small table");
}

#[test]
fn servers_and_databases_that_do_not_fit_are_named() {
    let blocks = |stage: &Stage, check: &str, subject: &str| {
        let found = stage.find(check, "target", subject).unwrap_or_else(|| panic!("{check} {subject}"));
        assert_eq!(found["level"], "block", "{found:#}");
        found["blocks"].clone()
    };
    // an older target, which has few connections left
    let (mut old, new) = (Cluster::of(Installation::old()).set("max_connections", "12").start(), Cluster::newest());
    new.app().psql(TABLES);
    old.app().psql(TABLES);
    let of = [new.app(), old.app()];
    let mut pgshadow = Pgshadow::between(&new, &old).without_mirroring().start();
    pgshadow.stop();
    let [source, target] = of;
    let stage = Stage { source, target, pgshadow };
    assert_eq!(blocks(&stage, "versions", "server"), "flip");
    let room = stage.find("connections", "target", "max_connections").unwrap();
    let mend = room["mend"].as_str().unwrap();
    assert!(room["level"] == "warn" && mend.starts_with("ALTER SYSTEM SET max_connections = 2"), "{room:#}");
    assert!(stage.find("connections", "source", "").is_none());
    // a standby, which can't be written to
    let standby = old.standby();
    let mut pgshadow = Pgshadow::between(&new, &standby).without_mirroring().start();
    pgshadow.stop();
    let stage = Stage { source: new.app(), target: standby.app(), pgshadow };
    let found = stage.preflight().0;
    let standby = |f: &&Value| f["happens"].as_str().unwrap().contains("standby") && f["blocks"] == "load";
    assert!(found["findings"].as_array().unwrap().iter().any(|f| standby(&f)), "{found:#}");
    // another encoding, other rules of sorting, and a collation of which the system has another version now
    let [old, new] = servers();
    let source = old.create_database("coded");
    new.superuser()
        .psql("CREATE DATABASE coded OWNER app TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
    let stage = Stage::between(servers(), source, new.app().in_database("coded"));
    assert_eq!(blocks(&stage, "encoding", "coded"), "load");
    let found = stage.preflight().0;
    let sorted = |f: &&Value| f["check"] == "encoding" && f["happens"].as_str().unwrap().contains("lc_collate");
    assert_eq!(found["findings"].as_array().unwrap().iter().filter(sorted).count(), 1, "{found:#}");
    let stage = Stage::of(TABLES);
    assert!(stage.find("encoding", "target", "").is_none());
    if stage.source.try_psql("CREATE COLLATION german (PROVIDER = icu, LOCALE = 'de')").is_ok() {
        let sql = "RESET ROLE; UPDATE pg_collation SET collversion = '1' WHERE collname = 'german'";
        stage.planted("source", sql, "warn", "collations", "source", "public.german");
    }
}

/// What a load must not begin with refuses it, names what mends it, and lets it go when that was run.
#[test]
fn a_backfill_asks_preflight_first() {
    let (source, target) = (Cluster::old(), Cluster::newest());
    source.app().psql(&format!("{TABLES} INSERT INTO t VALUES (1, 1)"));
    source
        .superuser()
        .psql("CREATE ROLE other; CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden OWNER TO other");
    let pgshadow = Pgshadow::between(&source, &target).start();
    let refused = |arguments: &[&str]| {
        let mut all = vec!["backfill", "--json"];
        all.extend(arguments);
        let finished = pgshadow.run(&all, LIMIT);
        assert_eq!(finished.status.code(), Some(3), "{finished:#?}");
        serde_json::from_str::<Value>(&finished.stdout).unwrap()
    };
    let report = refused(&["--create-schema"]);
    let blocked_by = report["blocked_by"].as_array().unwrap();
    assert_eq!(blocked_by.len(), 1, "{report:#}");
    let lacking = &blocked_by[0];
    let is = (&lacking["check"], &lacking["place"], &lacking["blocks"]);
    assert_eq!(is, (&"own-rights".into(), &"source".into(), &"load".into()), "{report:#}");
    assert!(report["failed"].as_str().unwrap().contains("GRANT pg_read_all_data"), "{report:#}");
    let told = pgshadow.run(&["backfill", "--create-schema"], LIMIT);
    assert!(told.status.code() == Some(3) && told.stdout.contains("GRANT pg_read_all_data"), "{told:#?}");
    assert!(told.stdout.contains("--skip-preflight"), "{told:#?}");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(
        (target.app().psql(tables), &pgshadow.status()["awaiting_load"]),
        ("0".to_owned(), &serde_json::json!([]))
    );
    // what comes with it is as without: it is pg_dump that may not read the table
    let skipped = pgshadow.run(&["backfill", "--create-schema", "--skip-preflight"], LIMIT);
    assert!(skipped.status.code() == Some(1) && skipped.stderr.contains("hidden"), "{skipped:#?}");
    source.superuser().psql(lacking["mend"].as_str().unwrap());
    let loaded = pgshadow.run(&["backfill", "--create-schema", "--json"], LIMIT);
    assert!(loaded.status.code() == Some(3), "the owner `other` is told of: {loaded:#?}");
    let report: Value = serde_json::from_str(&loaded.stdout).unwrap();
    assert_eq!((&report["failed"], &report["blocked_by"]), (&Value::Null, &serde_json::json!([])), "{report:#}");
    assert_eq!(target.app().psql("SELECT count(*) FROM t"), "1");
    // a table that pgshadow may not write refuses its own load, not another one's
    target.superuser().psql("CREATE ROLE other; ALTER TABLE u OWNER TO other");
    let report = refused(&["--table", "public.u"]);
    assert!(report["failed"].as_str().unwrap().contains("GRANT \"other\" TO \"pgshadow\""), "{report:#}");
    pgshadow.run(&["backfill", "--table", "public.t"], LIMIT).success();
}

/// Every check can look at every major, and finds nothing to compare where both sides have the same.
#[test]
#[ignore = "needs the servers that make conform installs"]
fn every_major_is_looked_at() {
    let objects = format!(
        "{TABLES} {ALIKE} CREATE OPERATOR #+# (PROCEDURE = int4pl, LEFTARG = int, RIGHTARG = int);
        CREATE TYPE span AS RANGE (SUBTYPE = float8); CREATE COLLATION plain (LOCALE = 'C');
        CREATE TEXT SEARCH CONFIGURATION words (COPY = english); CREATE STATISTICS together ON v, w FROM t;
        ALTER TABLE t ALTER id ADD GENERATED BY DEFAULT AS IDENTITY;"
    );
    let compared = ["owners", "grants", "settings", "rules", "policies", "views", "columns", "triggers"];
    let compared = [&compared[..], &["types", "functions", "other-objects", "foreign-tables", "constraints"]].concat();
    for major in 10..=18 {
        let servers = [Cluster::of(&Installation::of_major(major)).start(), Cluster::newest()];
        for (name, order) in [("there", [0, 1]), ("back", [1, 0])] {
            let databases = servers.each_ref().map(|server| server.create_database(name));
            databases.iter().for_each(|database| drop(database.psql(&objects)));
            let [from, to] = order.map(|side| &servers[side]);
            let mut pgshadow = Pgshadow::between(from, to).database(name).without_mirroring().start();
            pgshadow.stop();
            let [source, target] = order.map(|side| databases[side].clone());
            let stage = Stage { source, target, pgshadow };
            let looked = stage.preflight().0;
            assert_eq!(looked["not_run"], serde_json::json!([]), "{major}: {looked:#}");
            // 15 has closed the schema `public`
            let closed =
                |f: &Value| major < 15 && f["check"] == "grants" && f["subject"] == "public" && f["level"] == "warn";
            let found = looked["findings"].as_array().unwrap().iter();
            let found: Vec<_> = found
                .filter(|f| f["level"] != "note" && compared.iter().any(|check| f["check"] == *check) && !closed(f))
                .collect();
            assert!(found.is_empty(), "{major} {name}: {found:#?}");
            // what is missing is told by all of them, with statements that the other side understands
            stage.at("target").psql("DROP OWNED BY app; CREATE TABLE other (id int PRIMARY KEY)");
            let looked = stage.preflight().0;
            assert_eq!(looked["not_run"], serde_json::json!([]), "{major}: {looked:#}");
        }
    }
}
