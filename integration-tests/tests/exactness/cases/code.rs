//! Writes that the statement's own text doesn't show.
use super::{T, t_and};
use crate::case::{Around, Case, EVERY_TABLE, case};

const TOTALS: &str = "CREATE TABLE orders (id int PRIMARY KEY, total int NOT NULL DEFAULT 0); CREATE TABLE items (id int PRIMARY KEY, order_id int, price int);
    INSERT INTO orders VALUES (1, 0), (2, 0); INSERT INTO items VALUES (50, 1, 5);";

pub fn cases() -> Vec<Case> {
    [triggers(), functions(), blocks(), rules(), other()].concat()
}

fn trigger(more: &str, when: &str, body: &str) -> String {
    t_and(&format!(
        "{more} CREATE FUNCTION {{f}}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$;
        CREATE TRIGGER fires {when} EXECUTE FUNCTION {{f}}();"
    ))
}

fn triggers() -> Vec<Case> {
    let writes = |case: Case| {
        case.p("INSERT INTO t VALUES ($1, 1, 'abc')", &["100"])
            .q("UPDATE t SET v = 2 WHERE id < 3")
            .q("DELETE FROM t WHERE id = 9")
    };
    vec![
        writes(case("BEFORE trigger that changes its own row", trigger("", "BEFORE INSERT OR UPDATE ON t FOR EACH ROW", "NEW.s := upper(NEW.s); NEW.v := NEW.v + 1; RETURN NEW;"))),
        writes(case("BEFORE trigger that sets the time of the change", trigger("ALTER TABLE t ADD COLUMN at timestamptz;", "BEFORE INSERT OR UPDATE ON t FOR EACH ROW", "NEW.at := clock_timestamp(); RETURN NEW;"))).volatile(),
        writes(case("BEFORE trigger that looks into another table", trigger("CREATE TABLE o (w int); INSERT INTO o VALUES (7);", "BEFORE INSERT OR UPDATE ON t FOR EACH ROW", "NEW.v := (SELECT w FROM o); RETURN NEW;"))),
        writes(case("BEFORE trigger that skips rows", trigger("", "BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW", "IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; IF NEW.id IN (1, 100) THEN RETURN NULL; END IF; RETURN NEW;"))),
        writes(case("AFTER trigger that only says something", trigger("", "AFTER INSERT OR UPDATE ON t FOR EACH ROW", "RAISE NOTICE '% of %', TG_OP, NEW.id; RETURN NULL;"))),
        writes(case("AFTER trigger that sends a notification", trigger("", "AFTER INSERT OR UPDATE ON t FOR EACH ROW", "PERFORM pg_notify('ch', 'x'); RETURN NULL;"))),
        writes(case("AFTER trigger that refuses", trigger("", "AFTER INSERT OR UPDATE ON t FOR EACH ROW", "IF NEW.v > 1000 THEN RAISE EXCEPTION 'no'; END IF; RETURN NULL;"))),
        case("BEFORE trigger that the shadow would fire too (ENABLE ALWAYS)", trigger("", "BEFORE INSERT OR UPDATE ON t FOR EACH ROW", "NEW.v := NEW.v + 1; RETURN NEW;") + "ALTER TABLE t ENABLE ALWAYS TRIGGER fires;")
            .p("INSERT INTO t VALUES ($1, 1, 'abc')", &["100"])
            .q("UPDATE t SET v = 2 WHERE id < 3")
        .declared(&[("t", "ENABLE ALWAYS")]),
        case("AFTER trigger that the shadow would fire too (ENABLE ALWAYS)", trigger("CREATE TABLE audit (id serial PRIMARY KEY, what text);", "AFTER UPDATE ON t FOR EACH ROW", "INSERT INTO audit (what) VALUES (TG_OP); RETURN NULL;") + "ALTER TABLE t ENABLE ALWAYS TRIGGER fires;")
            .p("UPDATE t SET v = $1 WHERE id = 1", &["5"])
            .declared(&[("t", ""), ("audit", "")]),
        case("BEFORE trigger for replicas only (ENABLE REPLICA)", trigger("", "BEFORE INSERT OR UPDATE ON t FOR EACH ROW", "NEW.v := NEW.v + 1; RETURN NEW;") + "ALTER TABLE t ENABLE REPLICA TRIGGER fires;")
            .p("INSERT INTO t VALUES ($1, 1, 'abc')", &["100"])
            .q("UPDATE t SET v = 2 WHERE id < 3"),
        case("BEFORE trigger that the shadow has, on both sides, and a table without a key", trigger("ALTER TABLE t DROP CONSTRAINT t_pkey;", "BEFORE INSERT ON t FOR EACH ROW", "NEW.v := NEW.v + 1; RETURN NEW;"))
            .p("INSERT INTO t VALUES ($1, 1, 'abc')", &["100"])
            .q("DELETE FROM t WHERE id = 100"),
        case("BEFORE trigger that routes the row elsewhere and returns NULL", trigger("CREATE TABLE other (LIKE t);", "BEFORE INSERT ON t FOR EACH ROW", "INSERT INTO other VALUES (NEW.*); RETURN NULL;"))
            .p("INSERT INTO t VALUES ($1, 1, 'abc')", &["100"])
            .declared(&[("t", ""), ("other", "")]),
        case("BEFORE trigger that writes other rows of its own table", trigger("", "BEFORE INSERT ON t FOR EACH ROW", "UPDATE t SET v = NEW.v WHERE id = NEW.id; IF FOUND THEN RETURN NULL; END IF; RETURN NEW;"))
            .p("INSERT INTO t VALUES ($1, 111, 'abc')", &["1"])
            .declared(&[("t", "")]),
        case("AFTER trigger that writes another table", trigger("CREATE TABLE audit (id serial PRIMARY KEY, what text);", "AFTER UPDATE ON t FOR EACH ROW", "INSERT INTO audit (what) VALUES (TG_OP); RETURN NULL;"))
            .p("UPDATE t SET v = $1 WHERE id = 1", &["5"])
            .declared(&[("t", ""), ("audit", "")]),
        case("AFTER trigger of the statement, with transition tables, that writes another table", trigger("CREATE TABLE audit (id int, v int);", "AFTER UPDATE ON t REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT", "INSERT INTO audit SELECT id, v FROM fresh; RETURN NULL;"))
            .p("UPDATE t SET v = $1 WHERE id < 4", &["5"])
            .declared(&[("t", ""), ("audit", "")]),
        case("AFTER trigger that rewrites its own row", trigger("", "AFTER INSERT ON t FOR EACH ROW", "UPDATE t SET v = v + 1000 WHERE id = NEW.id; RETURN NULL;"))
            .p("INSERT INTO t VALUES ($1, 1, 'abc')", &["100"])
            .declared(&[("t", "")]),
        case("Constraint trigger that writes at COMMIT", t_and("CREATE TABLE audit (what text); CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO audit VALUES (TG_OP); RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {f}();"))
            .p("INSERT INTO t VALUES ($1)", &["100"])
            .declared(&[("t", ""), ("audit", "")]),
        case("A trigger that writes a table which the transaction writes itself", format!("{TOTALS} CREATE FUNCTION {{f}}() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN UPDATE orders SET total = total + NEW.price WHERE id = NEW.order_id; RETURN NULL; END';
             CREATE TRIGGER add_up AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION {{f}}();"))
            .each(&["BEGIN", "INSERT INTO orders VALUES (3, 0)", "INSERT INTO items VALUES (1, 3, 10)", "COMMIT"])
            .unwrapped()
            .declared(&[("items", ""), ("orders", "")]),
        case("A cascade that reaches a table with a trigger that writes", "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE); CREATE TABLE log (id int);
             INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1, 1), (2, 2); CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (OLD.id); RETURN OLD; END';
             CREATE TRIGGER gone AFTER DELETE ON b FOR EACH ROW EXECUTE FUNCTION {f}();")
            .p("DELETE FROM a WHERE id = $1", &["1"])
            .declared(&[("a", ""), ("b", ""), ("log", "")]),
    ]
}

fn functions() -> Vec<Case> {
    let writer = "CREATE FUNCTION {f}(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (i); RETURN i; END'; CREATE TABLE log (id int PRIMARY KEY);";
    vec![
        case("SELECT of a function that only reads", t_and("CREATE FUNCTION {f}(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT v FROM t WHERE id = i); END';"))
            .p("SELECT {f}($1)", &["1"])
            .q("UPDATE t SET v = {f}(2) + 1 WHERE id = 1"),
        case("SELECT of a function that writes", t_and(writer)).p("SELECT {f}($1)", &["1"]).q("UPDATE t SET v = 1 WHERE id = 1").declared(&[("log", ""), ("t", "beside")]),
        case("SELECT of a function written in SQL that writes", t_and("CREATE FUNCTION {f}(i int) RETURNS int LANGUAGE sql AS 'UPDATE t SET v = v + i WHERE id = 1 RETURNING v';"))
            .p("SELECT {f}($1)", &["1"])
            .declared(&[("t", "")]),
        case("A function that writes the table which its statement writes", t_and("CREATE FUNCTION {f}() RETURNS int LANGUAGE sql AS 'UPDATE t SET v = v + 1 WHERE id = 2 RETURNING v';"))
            .q("UPDATE t SET v = {f}() WHERE id = 1")
            .declared(&[("t", "")]),
        case("A default that calls a function that writes", "CREATE TABLE no (v int); INSERT INTO no VALUES (1); CREATE FUNCTION {f}() RETURNS int LANGUAGE sql AS 'UPDATE no SET v = v + 1 RETURNING v'; CREATE TABLE invoice (id int PRIMARY KEY DEFAULT {f}(), v int);")
            .p("INSERT INTO invoice (v) VALUES ($1)", &["1"])
            .declared(&[("no", ""), ("invoice", "")]),
        case("A view that calls a function that writes", t_and("CREATE FUNCTION {f}() RETURNS int LANGUAGE sql AS 'UPDATE t SET v = v + 1 WHERE id = 1 RETURNING v'; CREATE VIEW {f}_w AS SELECT {f}() AS no;"))
            .q("SELECT * FROM {f}_w")
            .declared(&[("t", "")]),
        case("A function that makes a temporary table", t_and("CREATE FUNCTION {f}() RETURNS int LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE t (id int, v int); RETURN 1; END';"))
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .q("SELECT {f}()")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
            .q("DISCARD TEMP")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["3", "3"])
            .unwrapped()
            .alone()
            .declared(&[(EVERY_TABLE, ""), ("t", "")]),
        case("A function that sets the search_path", t_and("CREATE SCHEMA {s}_b; CREATE TABLE {s}_b.t (id int PRIMARY KEY, v int); INSERT INTO {s}_b.t VALUES (1, 0); CREATE FUNCTION {f}() RETURNS text LANGUAGE sql AS 'SELECT set_config(''search_path'', current_schema() || ''_b'', false)';"))
            .p("UPDATE t SET v = $1 WHERE id = 1", &["1"])
            .q("SELECT {f}()")
            .p("UPDATE t SET v = $1 WHERE id = 1", &["2"])
            .apart(),
        case("A cast that calls a function that writes", t_and("CREATE TABLE log (id int); CREATE TYPE {f}_pair AS (a int); CREATE FUNCTION {f}(int) RETURNS {f}_pair LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES ($1); RETURN ROW($1)::{f}_pair; END'; CREATE CAST (int AS {f}_pair) WITH FUNCTION {f}(int);"))
            .q("UPDATE t SET s = 'hit' WHERE (id::{f}_pair).a = 1")
            .declared(&[("t", ""), ("log", "")]),
        case("A check constraint and an index that call a function that only reads", t_and("CREATE FUNCTION {f}(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i + 1'; ALTER TABLE t ADD CHECK ({s}.{f}(id) > 0); CREATE INDEX ON t ({s}.{f}(v));"))
            .p("UPDATE t SET v = $1 WHERE id = 1", &["5"])
            .q("INSERT INTO t VALUES (100, 1)"),
        case("An aggregate of the user's own whose function writes", t_and("CREATE TABLE log (id int); CREATE FUNCTION {f}(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES ($2); RETURN $1 + $2; END'; CREATE AGGREGATE {f}_sum(int) (SFUNC = {f}, STYPE = int, INITCOND = '0');"))
            .q("SELECT {f}_sum(id) FROM t")
            .declared(&[("log", ""), ("t", "")]),
        case("A domain's check that calls a function that writes", t_and("CREATE TABLE log (id int); CREATE FUNCTION {f}(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES ($1); RETURN true; END'; CREATE DOMAIN {f}_d AS int CHECK ({f}(VALUE)); CREATE TABLE dom (id int PRIMARY KEY, d {f}_d);"))
            .q("INSERT INTO dom VALUES (1, 7)")
            .declared(&[("log", ""), ("dom", "")]),
        case("A policy that calls a function that writes", "CREATE TABLE {f}_t (id int PRIMARY KEY, v int); INSERT INTO {f}_t SELECT g, g FROM generate_series(1, 9) g; CREATE TABLE log (id int); CREATE FUNCTION {f}(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES ($1); RETURN true; END'; ALTER TABLE {f}_t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {f}_t USING ({f}(id));
             GRANT USAGE ON SCHEMA {s} TO tenant; GRANT SELECT ON {f}_t TO tenant; GRANT INSERT ON log TO tenant;")
            .role("tenant")
            .q("SELECT count(*) FROM {f}_t")
            .declared(&[("log", ""), ("f_t", "")]),
        case("A policy made through pgshadow that calls a function that writes", "CREATE TABLE {f}_t (id int PRIMARY KEY, v int); INSERT INTO {f}_t SELECT g, g FROM generate_series(1, 9) g; CREATE TABLE log (id int); CREATE FUNCTION {f}(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES ($1); RETURN true; END'; ALTER TABLE {f}_t ENABLE ROW LEVEL SECURITY; ALTER TABLE {f}_t FORCE ROW LEVEL SECURITY")
            .q("CREATE POLICY p ON {f}_t USING ({f}(id))")
            .q("SELECT count(*) FROM {f}_t")
            .apart()
            .declared(&[("log", ""), ("f_t", "")]),
        case("A function with dynamic SQL", t_and("CREATE FUNCTION {f}(x text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE x; END';"))
            .q("SELECT {f}('UPDATE t SET v = 0 WHERE id = 1')")
            .declared(&[("t", "")]),
        case("A function whose exception block takes its write back", t_and("CREATE FUNCTION {f}() RETURNS int LANGUAGE plpgsql AS 'BEGIN BEGIN UPDATE t SET v = 0; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN RETURN 1; END; END';"))
            .q("SELECT {f}()")
            .declared(&[("t", "")]),
        case("An operator that calls a function that writes", t_and("CREATE TABLE log (id int); CREATE FUNCTION {f}(a int, b int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (a); RETURN a = b; END'; CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = {f});"))
            .q("UPDATE t SET s = 'hit' WHERE id OPERATOR({s}.===) 1")
            .declared(&[("t", ""), ("log", "")]),
    ]
}

fn blocks() -> Vec<Case> {
    let procedure = "CREATE TABLE k (id int PRIMARY KEY, v int); INSERT INTO k VALUES (1, 1), (2, 2); CREATE PROCEDURE {f}(i int) LANGUAGE plpgsql AS 'BEGIN DELETE FROM k WHERE id = i; END';";
    vec![
        case("DO that writes, in a transaction", t_and("CREATE TABLE untouched (id int);")).q("DO $$ BEGIN UPDATE t SET v = 0 WHERE id = 1; END $$").around(&[Around::Block]).declared(&[("t", "block")]),
        case("CALL of a procedure that writes, in a transaction", procedure).q("CALL {f}(1)").around(&[Around::Block]).declared(&[("k", "block")]),
        case("DO that writes", t_and("CREATE TABLE untouched (id int);")).q("DO $$ BEGIN UPDATE t SET v = 0 WHERE id = 1; END $$").unwrapped().everywhere(&[(EVERY_TABLE, "block"), ("t", "")]),
        case("DO that commits", T).q("DO $$ BEGIN UPDATE t SET v = 0 WHERE id = 1; COMMIT; UPDATE t SET v = 0 WHERE id = 2; END $$").unwrapped().everywhere(&[(EVERY_TABLE, "block"), ("t", "")]),
        case("DO that commits and then fails", T).fails("DO $$ BEGIN UPDATE t SET v = 0 WHERE id = 1; COMMIT; RAISE EXCEPTION 'late'; END $$", "P0001").everywhere(&[(EVERY_TABLE, ""), ("t", "")]),
        case("DO that fails", T).fails("DO $$ BEGIN UPDATE t SET v = 0 WHERE id = 1; RAISE EXCEPTION 'no'; END $$", "P0001").q("UPDATE t SET v = 5 WHERE id = 5").alone(),
        case("CALL of a procedure that writes", procedure).p("CALL {f}($1)", &["1"]).unwrapped().everywhere(&[(EVERY_TABLE, "block"), ("k", "")]),
        case("CALL of a procedure that commits", "CREATE TABLE k (id int PRIMARY KEY); CREATE PROCEDURE {f}() LANGUAGE plpgsql AS 'BEGIN FOR i IN 1..3 LOOP INSERT INTO k VALUES (i); COMMIT; END LOOP; END';")
            .q("CALL {f}()")
            .unwrapped()
            .everywhere(&[(EVERY_TABLE, "block"), ("k", "")]),
    ]
}

fn rules() -> Vec<Case> {
    vec![
        case("A rule DO ALSO", t_and("CREATE TABLE r (id int PRIMARY KEY); CREATE RULE twice AS ON INSERT TO r DO ALSO INSERT INTO t VALUES (NEW.id + 500);"))
            .p("INSERT INTO r VALUES ($1)", &["1"])
            .declared(&[("r", "rule"), ("t", "")]),
        case("A rule DO INSTEAD", t_and("CREATE TABLE r (id int PRIMARY KEY); CREATE RULE other AS ON INSERT TO r DO INSTEAD INSERT INTO t VALUES (NEW.id + 500);"))
            .p("INSERT INTO r VALUES ($1)", &["1"])
            .declared(&[("r", "rule"), ("t", "")]),
        case("A rule DO INSTEAD under a condition", t_and("CREATE TABLE r (id int PRIMARY KEY); CREATE RULE big AS ON INSERT TO r WHERE NEW.id > 10 DO INSTEAD INSERT INTO t VALUES (NEW.id + 500);"))
            .p("INSERT INTO r VALUES ($1), (11)", &["1"])
            .declared(&[("r", "rule"), ("t", "")]),
        case("A rule on a view", t_and("CREATE VIEW {f}_w AS SELECT id, v FROM t; CREATE RULE up AS ON UPDATE TO {f}_w DO INSTEAD UPDATE t SET v = NEW.v + 1 WHERE id = NEW.id;"))
            .p("UPDATE {f}_w SET v = $1 WHERE id = 1", &["5"])
            .declared(&[("f_w", ""), ("t", "")]),
    ]
}

fn other() -> Vec<Case> {
    let k = t_and("CREATE TABLE k (id int PRIMARY KEY, v int);");
    vec![
        case("Writes inside WITH", k.clone())
            .p("WITH gone AS (DELETE FROM t WHERE id < $1 RETURNING *) INSERT INTO k SELECT id, v FROM gone", &["3"])
            .declared(&[("t", "WITH"), ("k", "WITH")]),
        case("A SELECT with a write inside WITH", k.clone())
            .q("WITH up AS (UPDATE t SET v = 0 WHERE id < 3 RETURNING id) SELECT count(*) FROM up")
            .declared(&[("t", "WITH")]),
        case("A write inside WITH beside a write of the same table", k.clone())
            .q("WITH up AS (UPDATE t SET v = 1 WHERE id = 1 RETURNING id) UPDATE t SET v = 2 WHERE id = 2")
            .declared(&[("t", "WITH")]),
        case("EXPLAIN ANALYZE of a write", T).q("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) DELETE FROM t WHERE id = 1").volatile().declared(&[("t", "EXPLAIN")]),
        case("EXPLAIN ANALYZE of EXECUTE", T)
            .q("PREPARE {s}_up AS DELETE FROM t WHERE id = 1")
            .q("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) EXECUTE {s}_up")
            .volatile()
            .apart()
            .declared(&[("t", "")]),
        case("EXPLAIN of a write", T).each(&["EXPLAIN (COSTS OFF) DELETE FROM t WHERE id = 1", "UPDATE t SET v = 0 WHERE id = 2"]),
        case("SELECT ... INTO", T).q("SELECT id, v INTO fresh FROM t").declared(&[("fresh", "INTO")]),
        case("CREATE TABLE AS", T).q("CREATE TABLE fresh AS SELECT * FROM t").q("INSERT INTO fresh VALUES (50)").declared(&[("fresh", "")]),
        case("A cursor WITH HOLD over a function that writes", t_and("CREATE TABLE log (id int); CREATE FUNCTION {f}(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (i); RETURN i; END';"))
            .each(&["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT {f}(id) FROM t", "COMMIT", "FETCH ALL FROM c", "CLOSE c"])
            .unwrapped()
            .everywhere(&[(EVERY_TABLE, "WITH HOLD"), ("log", "")]),
        case("A cursor WITH HOLD over plain rows", T)
            .each(&["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT id FROM t ORDER BY id", "UPDATE t SET v = 1 WHERE id = 1", "COMMIT", "FETCH 2 FROM c", "CLOSE c"])
            .unwrapped(),
        case("Large objects", T)
            .q("SELECT lo_from_bytea(0, 'data') > 0")
            .q("UPDATE t SET v = 1 WHERE id = 1")
            .alone()
            .declared(&[(EVERY_TABLE, ""), ("pg_catalog.pg_largeobject", "")]),
        case("NOTIFY and LISTEN", T).each(&["LISTEN {s}", "NOTIFY {s}, 'x'", "UPDATE t SET v = 1 WHERE id = 1"]),
        case("A write with session_replication_role = replica", T)
            .role("postgres")
            .q("SET session_replication_role = replica")
            .q("UPDATE t SET v = 1 WHERE id = 1")
            .apart()
            .declared(&[("t", "session_replication_role")]),
    ]
}
