//! What reaches more than one table: foreign keys, partitions, inheritance, views, unlogged and temporary tables.
use super::{T, t_and};
use crate::case::{Around, Case, EVERY_TABLE, Protocol, case};

const FAMILY: &str = "CREATE TABLE a (id int PRIMARY KEY, v int);
    CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE, v int);
    CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b ON DELETE CASCADE);
    CREATE TABLE d (id int PRIMARY KEY, a int DEFAULT 9 REFERENCES a ON DELETE SET NULL);
    CREATE TABLE e (id int PRIMARY KEY, a int DEFAULT 9 REFERENCES a ON DELETE SET DEFAULT);
    INSERT INTO a SELECT g, g FROM generate_series(1, 9) g; INSERT INTO b SELECT g, 1 + g % 9, g FROM generate_series(1, 18) g;
    INSERT INTO c SELECT g, 1 + g % 18 FROM generate_series(1, 36) g; INSERT INTO d SELECT g, 1 + g % 9 FROM generate_series(1, 9) g;
    INSERT INTO e SELECT g, 1 + g % 9 FROM generate_series(1, 9) g;";
const PARTS: &str = "CREATE TABLE p (id int, k text, v int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
    CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a');
    CREATE TABLE p_b (v int, k text NOT NULL, id int NOT NULL, PRIMARY KEY (id, k)); ALTER TABLE p ATTACH PARTITION p_b FOR VALUES IN ('b');
    CREATE TABLE p_rest PARTITION OF p DEFAULT PARTITION BY RANGE (id);
    CREATE TABLE p_rest_1 PARTITION OF p_rest FOR VALUES FROM (0) TO (1000);
    INSERT INTO p VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'b', 4), (5, 'a', 5);";
const CHILDREN: &str = "CREATE TABLE parent (id int PRIMARY KEY, v int); CREATE TABLE child (extra text, PRIMARY KEY (id)) INHERITS (parent);
    INSERT INTO parent VALUES (1, 1), (2, 2); INSERT INTO child VALUES (3, 3, 'x'), (4, 4, 'y');";

pub fn cases() -> Vec<Case> {
    [references(), partitions(), inheritance(), views(), kinds(), foreign()].concat()
}

fn references() -> Vec<Case> {
    vec![
        case("DELETE with ON DELETE CASCADE, SET NULL, SET DEFAULT", FAMILY)
            .p("DELETE FROM a WHERE id = $1", &["1"])
            .q("DELETE FROM a WHERE id IN (2, 3) RETURNING *")
            .q("DELETE FROM b WHERE id = 5"),
        case("INSERT and UPDATE of referring rows", FAMILY)
            .p("INSERT INTO b VALUES ($1, 4, 0)", &["100"])
            .q("UPDATE b SET a = 4 WHERE a = 5")
            .q("DELETE FROM a WHERE id = 5")
            .q("UPDATE b SET a = NULL WHERE id = 100"),
        case("A parent that is deleted and inserted again, with its children", FAMILY)
            .q("DELETE FROM a WHERE id = 4")
            .q("INSERT INTO a VALUES (4, 44)")
            .p("INSERT INTO b VALUES ($1, 4, 0), (101, 4, 1)", &["100"])
            .q("DELETE FROM a WHERE id = 4"),
        case("A violated foreign key", FAMILY).fails("INSERT INTO b VALUES (500, 99, 0)", "23503").q("INSERT INTO b VALUES (500, 9, 0)"),
        case("A table that refers to itself", "CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree ON DELETE CASCADE, v int);
             INSERT INTO tree SELECT g, nullif(g / 2, 0), g FROM generate_series(1, 31) g;")
            .p("INSERT INTO tree VALUES (102, 101, 0), (101, 100, 0), ($1, 31, 0), (103, 103, 0)", &["100"])
            .q("UPDATE tree SET up = 102 WHERE id IN (16, 17, 18)")
            .q("DELETE FROM tree WHERE id IN (31, 4, 8)"),
        case("Deferred foreign keys", "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a DEFERRABLE INITIALLY DEFERRED);")
            .each(&["BEGIN", "INSERT INTO b VALUES (1, 1)", "INSERT INTO a VALUES (1)", "COMMIT"])
            .each(&["BEGIN", "SET CONSTRAINTS ALL IMMEDIATE", "INSERT INTO a VALUES (2)", "INSERT INTO b VALUES (2, 2)", "COMMIT"])
            .each(&["BEGIN", "INSERT INTO b VALUES (3, 99)"])
            .fails("COMMIT", "23503")
            .unwrapped(),
        case("Foreign keys between partitioned tables", "CREATE TABLE a (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (10); CREATE TABLE a2 PARTITION OF a FOR VALUES FROM (10) TO (20);
             CREATE TABLE b (id int, a int REFERENCES a ON DELETE CASCADE, PRIMARY KEY (id)) PARTITION BY HASH (id);
             CREATE TABLE b1 PARTITION OF b FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE b2 PARTITION OF b FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO a VALUES (1), (2), (11); INSERT INTO b SELECT g, 1 + 10 * (g % 2) FROM generate_series(1, 8) g;")
            .p("DELETE FROM a WHERE id = $1", &["11"])
            .q("INSERT INTO b VALUES (20, 2)")
            .q("UPDATE b SET a = 2"),
        case("A cascade into a partitioned table without a key", "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (v int, a int REFERENCES a ON DELETE CASCADE);
             INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1, 1), (1, 1), (2, 2);")
            .q("DELETE FROM a WHERE id = 1"),
    ]
}

fn partitions() -> Vec<Case> {
    vec![
        case("Rows of partitions, through the parent and directly", PARTS)
            .p("INSERT INTO p VALUES ($1, 'a', 1), (12, 'b', 2), (13, 'c', 3)", &["11"])
            .q("UPDATE p SET v = v + 1 RETURNING *")
            .q("INSERT INTO p_a VALUES (15, 'a', 5)")
            .q("UPDATE p_b SET v = 0 WHERE id = 2")
            .q("DELETE FROM p WHERE id = 3"),
        case("ON CONFLICT on a partitioned table", PARTS)
            .p("INSERT INTO p VALUES ($1, 'a', 9), (2, 'b', 9), (77, 'b', 7) ON CONFLICT (id, k) DO UPDATE SET v = excluded.v", &["1"]),
        case("Rows that move between partitions", PARTS)
            .p("UPDATE p SET k = $1 WHERE id = 1", &["b"])
            .q("UPDATE p SET k = 'a' WHERE k = 'b' RETURNING tableoid::regclass::text LIKE '%p_a', *")
            .q("UPDATE p SET k = 'zz', v = -1 WHERE id = 5"),
        case("Rows that move between partitions, the key staying", "CREATE TABLE s (id int, p int, v int) PARTITION BY LIST (p); CREATE TABLE s0 PARTITION OF s FOR VALUES IN (0); CREATE TABLE s1 PARTITION OF s FOR VALUES IN (1);
             INSERT INTO s SELECT g, g % 2, 0 FROM generate_series(1, 6) g;")
            .p("UPDATE s SET p = 1 - p, v = $1 WHERE id = 3", &["9"])
            .q("UPDATE s SET v = v * 3 + 1 WHERE p = 1"),
        case("ATTACH and DETACH PARTITION with rows around them", PARTS)
            .q("ALTER TABLE p DETACH PARTITION p_a")
            .q("INSERT INTO p_a VALUES (21, 'a', 1)")
            .q("CREATE TABLE p_x PARTITION OF p FOR VALUES IN ('x', 'y')")
            .q("INSERT INTO p VALUES (22, 'x', 1)")
            .q("ALTER TABLE p ATTACH PARTITION p_a FOR VALUES IN ('a')")
            .q("UPDATE p SET v = v + 1")
            .around(&[Around::Nothing, Around::Block]),
        case("DETACH PARTITION in one string with writes", PARTS)
            .q("ALTER TABLE p DETACH PARTITION p_a; INSERT INTO p_a VALUES (21, 'a', 1); UPDATE p SET v = v + 1")
            .unwrapped()
            .only(Protocol::Simple)
            .everywhere(&[(EVERY_TABLE, "another table")]),
        case("A partition with a trigger that only changes its row", format!("{PARTS} CREATE FUNCTION {{f}}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NEW.v + 100; RETURN NEW; END';
             CREATE TRIGGER up BEFORE INSERT OR UPDATE ON p_a FOR EACH ROW EXECUTE FUNCTION {{f}}();"))
            .q("INSERT INTO p VALUES (31, 'a', 1), (32, 'b', 1)")
            .q("UPDATE p SET v = 0 WHERE id < 4"),
    ]
}

fn inheritance() -> Vec<Case> {
    const TREE: &[(&str, &str)] = &[("parent", "inheritance"), ("child", "inheritance")];
    vec![
        case("INSERT into tables that inherit", CHILDREN)
            .p("INSERT INTO parent VALUES ($1, 5)", &["5"])
            .q("INSERT INTO child VALUES (6, 6, 'z')"),
        case("UPDATE ONLY and DELETE ONLY of a parent, writes of its child", CHILDREN)
            .p("UPDATE ONLY parent SET v = $1", &["50"])
            .q("DELETE FROM ONLY parent WHERE id = 1")
            .q("UPDATE child SET extra = 'w' WHERE id = 3"),
        case("UPDATE of a parent and its inheritance children", CHILDREN)
            .p("UPDATE parent SET v = $1 WHERE id > 1", &["7"])
            .declared(TREE),
        case("DELETE from a parent and its inheritance children", CHILDREN)
            .p("DELETE FROM parent WHERE id IN (1, $1)", &["3"])
            .declared(TREE),
    ]
}

fn views() -> Vec<Case> {
    vec![
        case("INSERT, UPDATE, DELETE through a simple view", t_and("CREATE VIEW {f}_w AS SELECT id, v FROM t WHERE v > 20;"))
            .p("INSERT INTO {f}_w VALUES ($1, 50)", &["100"])
            .q("UPDATE {f}_w SET v = v + 1 WHERE id = 5 RETURNING *")
            .q("DELETE FROM {f}_w WHERE id IN (1, 6)"),
        case("A view with renamed and computed columns, and WITH CHECK OPTION", t_and("CREATE VIEW {f}_w AS SELECT v AS amount, id AS number, upper(s) AS loud FROM t WHERE v < 1000 WITH CHECK OPTION;"))
            .p("INSERT INTO {f}_w (number, amount) VALUES ($1, 5)", &["100"])
            .q("UPDATE {f}_w AS x SET amount = x.amount * 2 WHERE number < 4 RETURNING loud")
            .q("INSERT INTO {f}_w (number, amount) VALUES (1, 1) ON CONFLICT (number) DO UPDATE SET amount = 0"),
        case("A view of a view", t_and("CREATE VIEW {f}_w1 AS SELECT * FROM t WHERE id > 1; CREATE VIEW {f}_w2 AS SELECT id, v FROM {f}_w1 WHERE v < 80;"))
            .p("UPDATE {f}_w2 SET v = $1 WHERE id = 2", &["3"])
            .q("DELETE FROM {f}_w2 WHERE id = 3"),
        case("A view with a column default", t_and("CREATE VIEW {f}_w AS SELECT * FROM t; ALTER VIEW {f}_w ALTER COLUMN v SET DEFAULT 77;"))
            .p("INSERT INTO {f}_w (id) VALUES ($1)", &["100"]),
        case("A view of a join with an INSTEAD OF trigger", t_and("CREATE TABLE o (id int PRIMARY KEY, w int); INSERT INTO o VALUES (1, 1);
             CREATE VIEW {f}_j AS SELECT t.id, v, w FROM t JOIN o USING (id);
             CREATE FUNCTION {f}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE t SET v = NEW.v WHERE id = NEW.id; UPDATE o SET w = NEW.w WHERE id = NEW.id; RETURN NEW; END';
             CREATE TRIGGER instead INSTEAD OF UPDATE ON {f}_j FOR EACH ROW EXECUTE FUNCTION {f}();"))
            .p("UPDATE {f}_j SET v = $1, w = 6 WHERE id = 1", &["5"])
            .declared(&[("t", ""), ("o", ""), ("f_j", "")]),
        case("SELECT from views that only read", t_and("CREATE VIEW {f}_w AS SELECT count(*) FROM t; CREATE FUNCTION {f}(i int) RETURNS int STABLE LANGUAGE sql AS 'SELECT i + 1'; CREATE VIEW {f}_x AS SELECT {f}(id) FROM t;"))
            .each(&["SELECT * FROM {f}_w", "SELECT * FROM {f}_x", "UPDATE t SET v = 1 WHERE id = 1"]),
        case("REFRESH MATERIALIZED VIEW", t_and("CREATE MATERIALIZED VIEW m AS SELECT id, v FROM t;"))
            .q("UPDATE t SET v = 5 WHERE id = 1")
            .q("REFRESH MATERIALIZED VIEW m")
            .declared(&[("m", "")]),
        case("REFRESH MATERIALIZED VIEW CONCURRENTLY", t_and("CREATE MATERIALIZED VIEW m AS SELECT id, v FROM t; CREATE UNIQUE INDEX ON m (id);"))
            .q("UPDATE t SET v = 5 WHERE id = 1")
            .q("REFRESH MATERIALIZED VIEW CONCURRENTLY m")
            .declared(&[("m", "")]),
    ]
}

fn kinds() -> Vec<Case> {
    vec![
        case("Unlogged tables", "CREATE UNLOGGED TABLE n (id int PRIMARY KEY, v int);")
            .p("INSERT INTO n SELECT g, g FROM generate_series(1, $1) g", &["20"])
            .q("UPDATE n SET v = v + 1 WHERE id % 2 = 0")
            .q("DELETE FROM n WHERE id > 15"),
        case("A temporary table that hides a real one", T)
            .q("UPDATE t SET v = 1 WHERE id = 1")
            .q("CREATE TEMP TABLE t (id int, v int)")
            .q("INSERT INTO t VALUES (1, 1), (2, 2)")
            .q("UPDATE t SET v = 99")
            .q("UPDATE {s}.t SET v = 5 WHERE id = 5")
            .q("DROP TABLE pg_temp.t")
            .q("UPDATE t SET v = 2 WHERE id = 2")
            .apart(),
        case("A temporary table that hides a real one, under prepared statements", T)
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .q("CREATE TEMP TABLE t (id int, v int)")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
            .q("DISCARD TEMP")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["3", "3"])
            .unwrapped(),
        case("A prepared statement that keeps its table, since the session had temporary ones before", T)
            .q("CREATE TEMP TABLE first (id int)")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .q("CREATE TEMP TABLE t (id int, v int)")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
            .q("DROP TABLE pg_temp.t")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["3", "3"])
            .unwrapped(),
        case("Prepared statements that keep their table, with other columns, RETURNING and ALTER TABLE", T)
            .q("CREATE TEMP TABLE first (id int)")
            .p("UPDATE t SET v = $1 WHERE id = $2 RETURNING v, id", &["1", "1"])
            .p("INSERT INTO t (id, v) VALUES ($1, $2)", &["100", "1"])
            .p("DELETE FROM t WHERE id = $1", &["3"])
            .q("CREATE TEMP TABLE t (w text, v int, id int)")
            .p("INSERT INTO t (id, v) VALUES ($1, $2)", &["101", "2"])
            .p("UPDATE t SET v = $1 WHERE id = $2 RETURNING v, id", &["2", "101"])
            .p("DELETE FROM t WHERE id = $1", &["4"])
            .q("ALTER TABLE {s}.t SET (fillfactor = 90)")
            .p("INSERT INTO t (id, v) VALUES ($1, $2)", &["102", "3"])
            .p("UPDATE t SET v = $1 WHERE id = $2 RETURNING v, id", &["3", "102"])
            .p("DELETE FROM t WHERE id = $1", &["5"])
            .q("DROP TABLE pg_temp.t")
            .p("INSERT INTO t (id, v) VALUES ($1, $2)", &["103", "4"])
            .p("UPDATE t SET v = $1 WHERE id = $2 RETURNING v, id", &["4", "103"])
            .p("DELETE FROM t WHERE id = $1", &["6"])
            .unwrapped(),
        case("A prepared UPDATE of a key that keeps its table", T)
            .q("CREATE TEMP TABLE first (id int)")
            .p("UPDATE t SET id = $1 WHERE v = $2", &["101", "10"])
            .q("CREATE TEMP TABLE t (id int, v int)")
            .p("UPDATE t SET id = $1 WHERE v = $2", &["102", "20"])
            .q("DROP TABLE pg_temp.t")
            .p("UPDATE t SET id = $1 WHERE v = $2", &["103", "30"])
            .unwrapped()
            .declared_before(18, &[("t", "another table took its name")]),
        case("A temporary table ON COMMIT DROP that hides a real one", T)
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .each(&["BEGIN", "CREATE TEMP TABLE t (id int, v int) ON COMMIT DROP"])
            .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
            .q("COMMIT")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["3", "3"])
            .unwrapped(),
        case("A temporary table whose making is rolled back", T)
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .each(&["BEGIN", "SAVEPOINT a", "CREATE TEMP TABLE t (id int, v int)"])
            .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
            .q("ROLLBACK TO a")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["3", "3"])
            .q("COMMIT")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["4", "4"])
            .unwrapped(),
        case(
            "A table made and dropped in front of another in the search_path, under prepared statements",
            t_and("CREATE SCHEMA {s}_front;"),
        )
        .q("SET search_path = {s}_front, {s}")
        .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
        .q("CREATE TABLE {s}_front.t (id int PRIMARY KEY, v int)")
        .q("INSERT INTO {s}_front.t VALUES (2, 0)")
        .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
        .q("DROP TABLE {s}_front.t")
        .p("UPDATE t SET v = $1 WHERE id = $2", &["3", "3"])
        .unwrapped()
        .alone(),
        case("Temporary tables filled from real ones", T)
            .q("CREATE TEMP TABLE work ON COMMIT PRESERVE ROWS AS SELECT * FROM t")
            .q("INSERT INTO work SELECT id + 100, v, s FROM t")
            .q("INSERT INTO t SELECT * FROM work WHERE id > 105")
            .apart(),
    ]
}

fn foreign() -> Vec<Case> {
    vec![
        case("A foreign table (postgres_fdw): the remote rows are written once", "CREATE TABLE local (id int PRIMARY KEY, v int); INSERT INTO local VALUES (1, 1);")
            .admin("CREATE SERVER {s} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname '{remote}');
                CREATE USER MAPPING FOR app SERVER {s} OPTIONS (user 'app', password_required 'false');
                CREATE FOREIGN TABLE near (who text, id int, v int) SERVER {s} OPTIONS (schema_name 'public', table_name 'far');
                ALTER FOREIGN TABLE near OWNER TO app;")
            .p("INSERT INTO near VALUES ('{s}', $1, 2), ('{s}', 3, 3)", &["2"])
            .q("UPDATE near SET v = v + 5 WHERE who = '{s}' AND id = 2")
            .q("UPDATE local SET v = 6 WHERE id = 1")
            .q("DELETE FROM near WHERE who = '{s}' AND id = 3")
            .declared(&[("near", "foreign"), ("local", "beside")]),
        case("A partition that is a foreign table", "CREATE TABLE p (who text, id int, v int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);")
            .admin("CREATE SERVER {s} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname '{remote}');
                CREATE USER MAPPING FOR app SERVER {s} OPTIONS (user 'app', password_required 'false');
                CREATE FOREIGN TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20) SERVER {s} OPTIONS (schema_name 'public', table_name 'far');
                ALTER FOREIGN TABLE p2 OWNER TO app;")
            .p("INSERT INTO p VALUES ('{s}', $1, 1), ('{s}', 12, 2)", &["1"])
            .q("DELETE FROM p WHERE who = '{s}' AND id = 12")
            .declared(&[("p", "foreign"), ("p1", "foreign"), ("p2", "foreign")]),
    ]
}
