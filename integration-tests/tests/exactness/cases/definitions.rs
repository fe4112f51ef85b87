//! DDL: repeated as the session meant it, declared where it computes values, reported where it can't be repeated.
use super::{T, t_and};
use crate::case::{Around, Case, EVERY_TABLE, Protocol, case};

pub fn cases() -> Vec<Case> {
    let all = [
        tables(),
        tables_with_relatives(),
        under_prepared_statements(),
        computed(),
        others(),
        settings(),
        settings_taken_back(),
        apart(),
    ]
    .concat();
    all.into_iter().map(Case::apart).chain(one_string()).collect()
}

fn tables() -> Vec<Case> {
    vec![
        case("CREATE TABLE and rows in it", "CREATE TABLE before (id int);")
            .q("CREATE TABLE fresh (id int PRIMARY KEY, v int CHECK (v > 0), s text DEFAULT 'x')")
            .q("INSERT INTO fresh VALUES (1, 1), (2, 2)")
            .q("CREATE TABLE alike (LIKE fresh INCLUDING ALL)")
            .q("INSERT INTO alike VALUES (1, 1)"),
        case("CREATE TABLE IF NOT EXISTS", T)
            .each(&["CREATE TABLE IF NOT EXISTS t (other int)", "UPDATE t SET v = 1 WHERE id = 1"]),
        case("CREATE TABLE with a serial and an identity column", "CREATE TABLE before (id int);").each(&[
            "CREATE TABLE fresh (id serial PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v int)",
            "INSERT INTO fresh (v) VALUES (1), (2)",
        ]),
        case("ALTER TABLE ADD COLUMN with and without a constant default", T).each(&[
            "ALTER TABLE t ADD COLUMN extra int",
            "ALTER TABLE t ADD COLUMN seven int NOT NULL DEFAULT 7",
            "UPDATE t SET extra = seven + 1 WHERE id = 1",
            "INSERT INTO t (id) VALUES (100)",
        ]),
        case("ALTER TABLE DROP COLUMN, RENAME COLUMN, RENAME TO", T)
            .each(&[
                "ALTER TABLE t DROP COLUMN v",
                "UPDATE t SET s = 'y' WHERE id = 1",
                "ALTER TABLE t RENAME COLUMN s TO words",
                "UPDATE t SET words = 'z' WHERE id = 2",
            ])
            .each(&["ALTER TABLE t RENAME TO renamed", "INSERT INTO renamed VALUES (100, 'w')"]),
        case("ALTER TABLE ... TYPE without USING", T)
            .each(&["ALTER TABLE t ALTER COLUMN v TYPE bigint", "UPDATE t SET v = 10000000000 WHERE id = 1"]),
    ]
}

fn tables_with_relatives() -> Vec<Case> {
    vec![
        case(
            "ALTER TABLE with constraints",
            t_and("CREATE TABLE o (id int PRIMARY KEY); INSERT INTO o SELECT generate_series(1, 100);"),
        )
        .each(&[
            "ALTER TABLE t ADD CONSTRAINT positive CHECK (id > 0)",
            "ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES o NOT VALID",
            "ALTER TABLE t ALTER COLUMN v SET NOT NULL",
        ])
        .each(&["INSERT INTO t VALUES (50, 1)", "ALTER TABLE t DROP CONSTRAINT positive"]),
        case("ALTER TABLE SET SCHEMA and a new key", t_and("CREATE SCHEMA {s}_2;")).each(&[
            "ALTER TABLE t DROP CONSTRAINT t_pkey",
            "ALTER TABLE t ADD PRIMARY KEY (id)",
            "UPDATE t SET v = 0 WHERE id = 1",
            "ALTER TABLE t SET SCHEMA {s}_2",
            "UPDATE {s}_2.t SET v = 0 WHERE id = 2",
        ]),
        case("CREATE INDEX, DROP INDEX, CREATE UNIQUE INDEX", T).each(&[
            "CREATE INDEX t_v ON t (v)",
            "CREATE UNIQUE INDEX ON t (s)",
            "UPDATE t SET v = 1 WHERE id = 1",
            "DROP INDEX t_v",
        ]),
        case("DROP TABLE and the same name again", T).each(&[
            "INSERT INTO t VALUES (100)",
            "DROP TABLE t",
            "CREATE TABLE t (s text PRIMARY KEY)",
            "INSERT INTO t VALUES ('other')",
        ]),
        case("DDL that is rolled back", T)
            .each(&[
                "BEGIN",
                "ALTER TABLE t ADD COLUMN z int",
                "UPDATE t SET z = 1 WHERE id = 1",
                "CREATE TABLE y (id int)",
                "ROLLBACK",
                "UPDATE t SET v = 1 WHERE id = 2",
            ])
            .unwrapped(),
    ]
}

fn under_prepared_statements() -> Vec<Case> {
    vec![
        case("Prepared statements across ADD COLUMN", T)
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .p("INSERT INTO t (id, v) VALUES ($1, 1) RETURNING id", &["100"])
            .q("ALTER TABLE t ADD COLUMN extra int DEFAULT 5")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
            .p("INSERT INTO t (id, v) VALUES ($1, 1) RETURNING id", &["101"]),
        case("Prepared statements across a swap of two tables' names", t_and("CREATE TABLE fresh (id int PRIMARY KEY, v int, s text); INSERT INTO fresh VALUES (1, 0), (2, 0);"))
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .each(&["BEGIN", "ALTER TABLE t RENAME TO old", "ALTER TABLE fresh RENAME TO t", "COMMIT"])
            .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
            .q("UPDATE old SET v = -1 WHERE id = 9")
            .unwrapped(),
        case("Prepared statements across a rename that is rolled back", T)
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .each(&["BEGIN", "ALTER TABLE t RENAME TO other", "UPDATE other SET v = 2 WHERE id = 2", "ROLLBACK"])
            .p("UPDATE t SET v = $1 WHERE id = $2", &["3", "3"])
            .unwrapped(),
        case("A column that is dropped and made again with its name", T)
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .q("ALTER TABLE t DROP COLUMN v, ADD COLUMN v bigint DEFAULT 7")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
            .q("INSERT INTO t (id, v) VALUES (100, 5)"),
        case("Prepared statements across DDL past pgshadow, on both sides", T)
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .p("INSERT INTO t VALUES ($1, 5) RETURNING *", &["100"])
            .behind_on_both("ALTER TABLE t ADD COLUMN extra int DEFAULT 5")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
            .q("UPDATE t SET extra = 6 WHERE id = 3")
            .behind_on_both("ALTER TABLE t DROP COLUMN s")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["4", "4"])
            .q("INSERT INTO t VALUES (101, 1, 2)")
            .declared(&[("t", "")]),
        case("A table made past pgshadow, on both sides", T)
            .behind_on_both("CREATE TABLE fresh (id int PRIMARY KEY, v int)")
            .q("INSERT INTO fresh VALUES (1, 1)")
            .p("UPDATE fresh SET v = $1", &["2"]),
        case("A trigger made past pgshadow, on both sides", t_and("CREATE TABLE audit (id int); CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO audit VALUES (NEW.id); RETURN NULL; END';"))
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .behind_on_both("CREATE TRIGGER writes AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION {f}()")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
            .q("UPDATE t SET v = 3 WHERE id = 3")
            .alone()
            .declared(&[(EVERY_TABLE, "")]),
        case("A function that is made to write past pgshadow, on both sides", t_and("CREATE TABLE audit (id int); CREATE FUNCTION {f}(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN i; END'"))
            .q("SELECT {f}(1)")
            .behind_on_both("CREATE OR REPLACE FUNCTION {f}(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO audit VALUES (i); RETURN i; END'")
            .q("SELECT {f}(2)")
            .alone()
            .declared(&[(EVERY_TABLE, "")]),
        case("DDL of another session beside an open transaction", t_and("CREATE TABLE o (id int PRIMARY KEY); INSERT INTO o VALUES (1);"))
            .each(&["BEGIN", "UPDATE t SET v = 1 WHERE id = 1"])
            .by(1, "ALTER TABLE o ADD COLUMN w int DEFAULT 4")
            .by(1, "INSERT INTO o VALUES (2, 2)")
            .q("UPDATE o SET w = 5 WHERE id = 1")
            .q("UPDATE t SET v = 2 WHERE id = 2")
            .q("COMMIT"),
        case("Prepared statements across ALTER TYPE and DROP COLUMN", T)
            .p("UPDATE t SET s = $1 WHERE id = $2", &["one", "1"])
            .q("ALTER TABLE t ALTER COLUMN s TYPE varchar(50)")
            .p("UPDATE t SET s = $1 WHERE id = $2", &["two", "2"])
            .q("ALTER TABLE t DROP COLUMN v")
            .p("UPDATE t SET s = $1 WHERE id = $2", &["three", "3"]),
    ]
}

fn computed() -> Vec<Case> {
    let on_t = |kind, sql, table: &'static [(&'static str, &'static str)]| {
        case(kind, T).q(sql).q("UPDATE t SET v = 1 WHERE id = 1").volatile().declared(table)
    };
    const TABLE: &[(&str, &str)] = &[("t", "")];
    vec![
        on_t("ADD COLUMN with a volatile default", "ALTER TABLE t ADD COLUMN r float8 DEFAULT random()", TABLE),
        on_t("ADD COLUMN with now()", "ALTER TABLE t ADD COLUMN at timestamptz DEFAULT now()", TABLE),
        on_t(
            "ADD COLUMN with a text that means a moment (DEFAULT 'now')",
            "ALTER TABLE t ADD COLUMN at timestamptz DEFAULT 'now'",
            TABLE,
        ),
        on_t("ADD COLUMN with CURRENT_USER", "ALTER TABLE t ADD COLUMN who text DEFAULT current_user", TABLE),
        on_t(
            "ADD COLUMN of a domain with a computed default",
            "CREATE DOMAIN {s}_d AS float8 DEFAULT random(); ALTER TABLE t ADD COLUMN r {s}_d",
            TABLE,
        )
        .unwrapped()
        .only(Protocol::Simple),
        case("CREATE TABLE with a default that means a moment ('now')", "CREATE TABLE before (id int);")
            .q("CREATE TABLE m (id int PRIMARY KEY, at timestamptz DEFAULT 'now', d date DEFAULT 'today'::date)")
            .q("INSERT INTO m VALUES (1)")
            .volatile()
            .declared(&[("m", "")]),
        case(
            "ALTER TYPE whose conversion depends on TimeZone",
            "CREATE TABLE m (id int PRIMARY KEY, at timestamp); INSERT INTO m VALUES (1, '2024-01-02 03:04');",
        )
        .q("SET TimeZone = 'Asia/Kathmandu'")
        .q("ALTER TABLE m ALTER COLUMN at TYPE timestamptz")
        .q("INSERT INTO m VALUES (2, '2024-01-02 03:04')"),
        case(
            "ALTER TYPE whose conversion depends on DateStyle",
            "CREATE TABLE m (id int PRIMARY KEY, at date); INSERT INTO m VALUES (1, '2024-01-02');",
        )
        .q("SET DateStyle = 'German'")
        .q("ALTER TABLE m ALTER COLUMN at TYPE text"),
        on_t("ADD COLUMN serial", "ALTER TABLE t ADD COLUMN n serial", TABLE),
        on_t(
            "ADD COLUMN ... GENERATED AS IDENTITY",
            "ALTER TABLE t ADD COLUMN n int GENERATED ALWAYS AS IDENTITY",
            TABLE,
        ),
        on_t("ALTER TYPE ... USING", "ALTER TABLE t ALTER COLUMN s TYPE int USING length(s)", TABLE),
        case("ADD COLUMN that is generated from the row", T).each(&[
            "ALTER TABLE t ADD COLUMN twice int GENERATED ALWAYS AS (v * 2) STORED",
            "UPDATE t SET v = 5 WHERE id = 1",
        ]),
        case("CREATE MATERIALIZED VIEW", T).q("CREATE MATERIALIZED VIEW m AS SELECT * FROM t").declared(&[("m", "")]),
        case("CREATE TABLE AS ... WITH NO DATA", T)
            .q("CREATE TABLE fresh AS SELECT id, v FROM t WITH NO DATA")
            .q("INSERT INTO fresh VALUES (1, 1)")
            .declared(&[("fresh", "")]),
        case("CREATE TABLE AS EXECUTE", T)
            .q("PREPARE {s}_q AS SELECT id FROM t")
            .q("CREATE TABLE fresh AS EXECUTE {s}_q")
            .declared(&[("fresh", "")]),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case("Schemas, views, comments, types", T)
            .each(&["CREATE SCHEMA {s}_x", "CREATE TABLE {s}_x.y (id int PRIMARY KEY)", "INSERT INTO {s}_x.y VALUES (1)", "CREATE VIEW {f}_w AS SELECT id FROM t", "COMMENT ON TABLE t IS 'a; comment'"])
            .each(&["CREATE TYPE colour AS ENUM ('red', 'blue')", "CREATE TABLE paint (id int PRIMARY KEY, c colour, cs colour[])", "INSERT INTO paint VALUES (1, 'blue', '{red,blue}')"]),
        case("ALTER TYPE ADD VALUE", "CREATE TYPE colour AS ENUM ('red'); CREATE TABLE paint (id int PRIMARY KEY, c colour);")
            .each(&["ALTER TYPE colour ADD VALUE 'green' BEFORE 'red'", "INSERT INTO paint VALUES (1, 'green')"])
            .unwrapped(),
        case("Functions and triggers made through pgshadow, used at once", T)
            .q("CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.s := 'by trigger'; RETURN NEW; END$$")
            .q("CREATE TRIGGER marks BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION {f}()")
            .q("UPDATE t SET v = 1 WHERE id = 1")
            .unsettled(),
        case("ALTER TABLE DISABLE TRIGGER", t_and("CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.s := ''by trigger''; RETURN NEW; END'; CREATE TRIGGER marks BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION {f}();"))
            .each(&["ALTER TABLE t DISABLE TRIGGER marks", "UPDATE t SET v = 1 WHERE id = 1", "ALTER TABLE t ENABLE TRIGGER marks", "UPDATE t SET v = 1 WHERE id = 2"]).unsettled(),
        case("Sequences made, owned and dropped", T)
            .each(&["CREATE SEQUENCE q START 100", "ALTER TABLE t ALTER COLUMN id SET DEFAULT nextval('q')", "INSERT INTO t (v) VALUES (1)", "ALTER SEQUENCE q OWNED BY t.id", "ALTER TABLE t ALTER COLUMN id DROP DEFAULT", "DROP SEQUENCE q"]),
        case("GRANT, REVOKE, policies, owner", t_and("GRANT CREATE, USAGE ON SCHEMA {s} TO owner_role;"))
            .each(&["GRANT SELECT, INSERT ON t TO clerk", "REVOKE INSERT ON t FROM clerk", "ALTER TABLE t ENABLE ROW LEVEL SECURITY", "CREATE POLICY p ON t USING (id > 0)", "UPDATE t SET v = 1 WHERE id = 1", "ALTER TABLE t OWNER TO owner_role", "UPDATE t SET v = 2 WHERE id = 2"]),
        case("DROP SCHEMA CASCADE and its name again", "CREATE SCHEMA {s}_2; CREATE TABLE {s}_2.t (id int PRIMARY KEY, v int); INSERT INTO {s}_2.t VALUES (1, 1); CREATE VIEW {f}_w AS SELECT * FROM {s}_2.t;")
            .each(&["UPDATE {s}_2.t SET v = 2", "DROP SCHEMA {s}_2 CASCADE", "CREATE SCHEMA {s}_2", "CREATE TABLE {s}_2.t (id int PRIMARY KEY)", "INSERT INTO {s}_2.t VALUES (7)"]),
        case("DROP TABLE CASCADE of a table that others refer to", t_and("CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t); INSERT INTO c VALUES (1, 1);"))
            .each(&["DROP TABLE t CASCADE", "INSERT INTO c VALUES (2, 4711)"]),
        case("DROP OWNED BY, REASSIGN OWNED BY", t_and("GRANT CREATE, USAGE ON SCHEMA {s} TO owner_role; SET ROLE owner_role; CREATE TABLE theirs (id int PRIMARY KEY); RESET ROLE;"))
            .each(&["INSERT INTO t VALUES (100)", "SET ROLE owner_role", "REASSIGN OWNED BY owner_role TO owner_role", "INSERT INTO theirs VALUES (1)", "RESET ROLE"])
            .alone()
            .declared(&[(EVERY_TABLE, "")]),
        case("CREATE SCHEMA with its tables in one statement", T)
            .each(&["CREATE SCHEMA {s}_x CREATE TABLE y (id int PRIMARY KEY) CREATE VIEW {f}_v AS SELECT * FROM y", "INSERT INTO {s}_x.y VALUES (1)"]),
        case("VACUUM, ANALYZE, CLUSTER, REINDEX", T).each(&["VACUUM t", "ANALYZE t", "CLUSTER t USING t_pkey", "REINDEX TABLE t", "UPDATE t SET v = 1 WHERE id = 1"]).unwrapped(),
        case("DO that makes a table", T).q("DO $$ BEGIN CREATE TABLE fresh (id int); INSERT INTO fresh VALUES (1); END $$").around(&[Around::Block])
            .alone().declared(&[("every table", ""), ("fresh", ""), ("t", "")]),
    ]
}

const TWO: &str = "CREATE SCHEMA {s}_b; CREATE TABLE {s}_b.t (id int PRIMARY KEY, v int); INSERT INTO {s}_b.t VALUES (1, 0), (2, 0); CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0), (2, 0);";

/// Owner and place are those of the session.
fn settings() -> Vec<Case> {
    vec![
        case("DDL under another search_path", t_and("CREATE SCHEMA {s}_2;"))
            .each(&["SET search_path = {s}_2", "CREATE TABLE placed (id int PRIMARY KEY)", "INSERT INTO placed VALUES (1)", "SET search_path = {s}", "CREATE TABLE placed (id int PRIMARY KEY)", "INSERT INTO placed VALUES (2)"])
            .apart(),
        case("DDL under SET LOCAL search_path", t_and("CREATE SCHEMA {s}_2;"))
            .each(&["BEGIN", "SET LOCAL search_path = {s}_2", "CREATE TABLE placed (id int PRIMARY KEY)", "COMMIT", "CREATE TABLE placed (id int PRIMARY KEY)", "INSERT INTO placed VALUES (2)"])
            .unwrapped(),
        case("DDL under SET ROLE", T).admin("GRANT CREATE, USAGE ON SCHEMA {s} TO owner_role")
            .each(&["SET ROLE owner_role", "CREATE TABLE theirs (id int PRIMARY KEY)", "INSERT INTO theirs VALUES (1)", "RESET ROLE", "CREATE TABLE mine (id int PRIMARY KEY)"])
            .apart(),
        case("DDL of another login", "CREATE TABLE before (id int); GRANT CREATE, USAGE ON SCHEMA {s} TO clerk;")
            .role("clerk")
            .each(&["CREATE TABLE theirs (id int PRIMARY KEY)", "INSERT INTO theirs VALUES (1)"]),
        case("DDL of a login that pgshadow may not act for on the target", "CREATE TABLE before (id int); GRANT CREATE, USAGE ON SCHEMA {s} TO tenant;")
            .role("tenant")
            .each(&["CREATE TABLE {s}.theirs (id int PRIMARY KEY)", "INSERT INTO {s}.theirs VALUES (1)"])
            .declared(&[("theirs", "")]),
        case("DDL whose constants depend on settings", "CREATE TABLE before (id int);")
            .each(&["SET DateStyle = 'German'", "SET TimeZone = 'Asia/Tokyo'", "CREATE TABLE d (id int PRIMARY KEY, at timestamptz DEFAULT '1.2.2024 03:04', d date DEFAULT '31.12.2024')", "INSERT INTO d VALUES (1)"])
            .each(&["SET default_tablespace = ''", "SET standard_conforming_strings = on", "ALTER TABLE d ADD COLUMN more date DEFAULT '2.1.2024'", "UPDATE d SET d = '3.1.2024'"])
            .apart(),
        case("Prepared statements that follow the search_path", "CREATE SCHEMA {s}_a; CREATE SCHEMA {s}_b; CREATE TABLE {s}_a.t (id int PRIMARY KEY, v int); CREATE TABLE {s}_b.t (id int PRIMARY KEY, v int); INSERT INTO {s}_a.t VALUES (1, 0); INSERT INTO {s}_b.t VALUES (1, 0);")
            .q("SET search_path = {s}_a")
            .p("UPDATE t SET v = v + $1 WHERE id = 1 RETURNING v", &["1"])
            .q("SET search_path = {s}_b")
            .p("UPDATE t SET v = v + $1 WHERE id = 1 RETURNING v", &["1"])
            .q("SELECT set_config('search_path', '{s}_a', false)")
            .p("UPDATE t SET v = v + $1 WHERE id = 1 RETURNING v", &["1"])
            .apart(),
    ]
}

fn settings_taken_back() -> Vec<Case> {
    vec![
        case("A search_path that is rolled back", TWO)
            .p("UPDATE t SET v = v + $1 WHERE id = 1", &["1"])
            .each(&["BEGIN", "SET search_path = {s}_b"])
            .p("UPDATE t SET v = v + $1 WHERE id = 1", &["10"])
            .q("ROLLBACK")
            .p("UPDATE t SET v = v + $1 WHERE id = 1", &["100"])
            .unwrapped(),
        case("A search_path that is rolled back to a savepoint", TWO)
            .p("UPDATE t SET v = v + $1 WHERE id = 1", &["1"])
            .each(&["BEGIN", "SAVEPOINT a", "SET search_path = {s}_b"])
            .p("UPDATE t SET v = v + $1 WHERE id = 1", &["10"])
            .q("ROLLBACK TO a")
            .p("UPDATE t SET v = v + $1 WHERE id = 1", &["100"])
            .q("COMMIT")
            .p("UPDATE t SET v = v + $1 WHERE id = 2", &["1000"])
            .unwrapped(),
        case("set_config for the transaction only", TWO)
            .each(&["BEGIN", "SELECT set_config('search_path', '{s}_b', true)"])
            .p("UPDATE t SET v = v + $1 WHERE id = 1", &["10"])
            .q("COMMIT")
            .p("UPDATE t SET v = v + $1 WHERE id = 1", &["100"])
            .unwrapped(),
        case("RESET ALL and DISCARD ALL go back to what the login asked for", TWO)
            .q("SET search_path = {s}_b")
            .q("UPDATE t SET v = 1 WHERE id = 1")
            .q("RESET ALL")
            .q("UPDATE t SET v = 2 WHERE id = 1")
            .q("SET search_path = {s}_b")
            .q("DISCARD ALL")
            .q("UPDATE t SET v = 3 WHERE id = 2")
            .unwrapped(),
        case("A function with SET search_path of its own", format!("{TWO} CREATE FUNCTION {{f}}() RETURNS bigint STABLE LANGUAGE sql SET search_path = pg_catalog AS 'SELECT 1::bigint';"))
            .q("SELECT {f}()")
            .q("UPDATE t SET v = {f}() WHERE id = 1"),
        case("A write behind a SET in the same string", "CREATE SCHEMA {s}_a; CREATE TABLE {s}_a.t (id int PRIMARY KEY, v int); CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO {s}_a.t VALUES (1, 0); INSERT INTO t VALUES (1, 0);")
            .q("SET search_path = {s}_a; UPDATE t SET v = 7 WHERE id = 1")
            .q("UPDATE t SET v = v + 1 WHERE id = 1")
            .only(Protocol::Simple)
            .around(&[Around::Nothing])
            .everywhere(&[(EVERY_TABLE, ""), ("t", "SET in front")]),
    ]
}

/// A definition ahead of writes in the same string.
fn one_string() -> Vec<Case> {
    let case = |kind, sql| case(kind, T).q(sql).unwrapped().only(Protocol::Simple);
    vec![
        case(
            "ALTER TABLE and writes in one string",
            "ALTER TABLE t ADD COLUMN extra int DEFAULT 5; UPDATE t SET extra = 6 WHERE id = 1",
        )
        .declared(&[("t", "")]),
        case(
            "CREATE TABLE and writes in one string",
            "CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh VALUES (1), (2)",
        )
        .declared(&[("fresh", "")]),
        case(
            "DROP TABLE, CREATE TABLE of its name and writes in one string",
            "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
        )
        .declared(&[(EVERY_TABLE, "")])
        .alone(),
    ]
}

/// What can't be repeated inside a transaction, or is no business of one database.
fn apart() -> Vec<Case> {
    vec![
        case("CREATE INDEX CONCURRENTLY", T).q("CREATE INDEX CONCURRENTLY t_v ON {s}.t (v)").q("UPDATE t SET v = 1 WHERE id = 1").unwrapped().alone(),
        case("DROP INDEX CONCURRENTLY", t_and("CREATE INDEX t_v ON t (v);")).q("DROP INDEX CONCURRENTLY {s}.t_v").unwrapped().alone(),
        case("REINDEX CONCURRENTLY", T).q("REINDEX TABLE CONCURRENTLY {s}.t").unwrapped(),
        case("ALTER TABLE ... DETACH PARTITION CONCURRENTLY", "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); INSERT INTO p VALUES (1);")
            .q("ALTER TABLE {s}.p DETACH PARTITION {s}.p1 CONCURRENTLY")
            .q("INSERT INTO p1 VALUES (2)")
            .unwrapped()
            .alone(),
        case("CREATE ROLE, ALTER ROLE: reported, the password stored nowhere", T)
            .q("CREATE ROLE role_of_{s} PASSWORD 'a-secret-word'")
            .q("ALTER ROLE role_of_{s} PASSWORD 'a-secret-word'")
            .q("DROP ROLE role_of_{s}")
            .role("postgres")
            .secret("a-secret-word")
            .reported("cluster"),
        case("CREATE DATABASE", T).q("CREATE DATABASE db_of_{s}").q("DROP DATABASE db_of_{s}").role("postgres").unwrapped().reported("cluster"),
        case("ALTER SYSTEM", T).q("ALTER SYSTEM RESET work_mem").q("UPDATE t SET v = 1 WHERE id = 1").role("postgres").unwrapped().reported(""),
    ]
}
