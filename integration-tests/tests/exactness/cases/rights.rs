//! Roles that may write what they may not read.
use super::{T, t_and};
use crate::case::{Around, Case, case};

const TENANTS: &str = "CREATE TABLE rl (id int PRIMARY KEY, who text, v int); INSERT INTO rl VALUES (1, 'tenant', 1), (2, 'b', 1), (3, 'tenant', 3), (4, 'c', 1);
    ALTER TABLE rl ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON rl USING (who = current_user);
    GRANT USAGE ON SCHEMA {s} TO tenant; GRANT SELECT, INSERT, UPDATE, DELETE ON rl TO tenant;";
/// What may be written is more than what may be read.
const WIDE: &str = "CREATE TABLE rl (id int PRIMARY KEY, who text, v int); INSERT INTO rl VALUES (1, 'tenant', 1), (2, 'b', 1), (3, 'c', 1);
    ALTER TABLE rl ENABLE ROW LEVEL SECURITY; CREATE POLICY see ON rl FOR SELECT USING (who = current_user);
    CREATE POLICY change ON rl FOR UPDATE USING (true); CREATE POLICY gone ON rl FOR DELETE USING (true); CREATE POLICY fresh ON rl FOR INSERT WITH CHECK (true);
    GRANT USAGE ON SCHEMA {s} TO tenant; GRANT SELECT, INSERT, UPDATE, DELETE ON rl TO tenant;";

fn clerk(grants: &str) -> String {
    t_and(&format!("GRANT USAGE ON SCHEMA {{s}} TO clerk; {grants}"))
}

pub fn cases() -> Vec<Case> {
    [row_security(), columns(), others()].concat()
}

fn row_security() -> Vec<Case> {
    const POLICY: &[(&str, &str)] = &[("rl", "row-level security")];
    vec![
        case("Row-level security, the owner writes", TENANTS).p("UPDATE rl SET v = $1", &["5"]).q("DELETE FROM rl WHERE id = 1").q("INSERT INTO rl VALUES (9, 'x', 1)"),
        case("Row-level security, keys are constants: UPDATE", TENANTS).role("tenant")
            .p("UPDATE rl SET v = $1 WHERE id = $2", &["5", "1"])
            .p("UPDATE rl SET v = $1 WHERE id = $2", &["5", "2"])
            .q("UPDATE rl SET v = v + 1 WHERE id = 3 RETURNING v"),
        case("Row-level security, keys are constants: DELETE", TENANTS).role("tenant").p("DELETE FROM rl WHERE id = $1", &["1"]).q("DELETE FROM rl WHERE id = 2"),
        case("Row-level security, keys are constants: INSERT", TENANTS).role("tenant").p("INSERT INTO rl VALUES ($1, 'tenant', 1)", &["100"]).fails("INSERT INTO rl VALUES (101, 'b', 1)", "42501"),
        case("Row-level security, keys are constants: INSERT of a row that can't be read", WIDE).role("tenant").p("INSERT INTO rl VALUES ($1, 'someone', 1)", &["100"]),
        case("Row-level security, several rows: UPDATE without WHERE", WIDE).role("tenant").q("UPDATE rl SET v = 7").declared(POLICY),
        case("Row-level security, several rows: DELETE without WHERE", WIDE).role("tenant").q("DELETE FROM rl").declared(POLICY),
        case("Row-level security, rows found by a condition", TENANTS).role("tenant")
            .p("UPDATE rl SET v = 7 WHERE v > $1", &["0"])
            .p("UPDATE rl SET v = 8 WHERE id IN (SELECT g FROM generate_series(1, $1) g)", &["2"])
            .q("UPDATE rl SET v = rl.v + g FROM generate_series(1, 3) g WHERE rl.id = g RETURNING g, rl.v")
            .q("UPDATE rl SET v = v + 1")
            .q("DELETE FROM rl WHERE v IS NOT NULL AND id > 2"),
        case("Row-level security, what may be written is more than what may be read: rows found by a condition", WIDE).role("tenant")
            .p("UPDATE rl SET v = 7 WHERE v > $1", &["0"])
            .q("UPDATE rl SET v = v + 1")
            .q("INSERT INTO rl VALUES (4, 'tenant', 1) RETURNING id")
            .fails("INSERT INTO rl VALUES (5, 'c', 1) RETURNING id", "42501")
            .q("DELETE FROM rl WHERE who > ''"),
        case("Row-level security, what may be written is more than what may be read: rows that aren't looked at", WIDE).role("tenant")
            .q("UPDATE rl SET v = 7 FROM generate_series(1, 3) g WHERE g = 2")
            .q("DELETE FROM rl USING generate_series(1, 3) g WHERE g = 2")
            .declared(POLICY),
        case("Row-level security, a table made in front of it, under prepared statements", format!("{TENANTS} CREATE SCHEMA {{s}}_front; GRANT ALL ON SCHEMA {{s}}_front TO tenant;")).role("tenant")
            .q("SET search_path = {s}_front, {s}")
            .p("UPDATE rl SET v = $1 WHERE id = $2", &["5", "1"])
            .q("CREATE TABLE {s}_front.rl (id int PRIMARY KEY, who text, v int)")
            .q("INSERT INTO {s}_front.rl VALUES (3, 'tenant', 0)")
            .q("ALTER TABLE {s}_front.rl ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
            .q("CREATE POLICY own ON {s}_front.rl USING (who = current_user)")
            .p("UPDATE rl SET v = $1 WHERE id = $2", &["6", "3"])
            .declared(&[("rl", ""), ("s_front.rl", "")])
            .unwrapped(),
        case("Row-level security, forced on the owner", "CREATE TABLE rl (id int PRIMARY KEY, who text, v int); INSERT INTO rl VALUES (1, 'app', 1), (2, 'b', 1); ALTER TABLE rl ENABLE ROW LEVEL SECURITY; ALTER TABLE rl FORCE ROW LEVEL SECURITY; CREATE POLICY own ON rl USING (who = current_user);")
            .p("UPDATE rl SET v = $1 WHERE id = 1", &["5"]),
    ]
}

fn columns() -> Vec<Case> {
    const RIGHT: &[(&str, &str)] = &[("t", "may not read")];
    vec![
        case("No SELECT right: INSERT", clerk("GRANT INSERT ON t TO clerk;"))
            .role("clerk")
            .p("INSERT INTO t VALUES ($1, 1, 'a')", &["100"])
            .q("INSERT INTO t VALUES (101, 1), (102, 2)")
            .p("INSERT INTO t (v, id) VALUES (1, $1), ($3, $2), (3, 105)", &["103", "104", "2"])
            .q("INSERT INTO t VALUES (1, 1), (106, 1) ON CONFLICT DO NOTHING"),
        case("No SELECT right: INSERT of several rows with a generated key", clerk("CREATE TABLE g (id serial PRIMARY KEY, v int); GRANT INSERT ON g TO clerk; GRANT USAGE ON g_id_seq TO clerk;"))
            .role("clerk")
            .p("INSERT INTO g (v) VALUES ($1), (2)", &["1"])
            .q("INSERT INTO g (v) VALUES (3)")
            .declared(&[("g", "may not read")]),
        case("No SELECT right: UPDATE of all rows", clerk("GRANT UPDATE (v) ON t TO clerk;"))
            .role("clerk")
            .q("UPDATE t SET v = 5")
            .declared(RIGHT),
        case("No SELECT right: DELETE of all rows", clerk("GRANT DELETE ON t TO clerk;"))
            .role("clerk")
            .q("DELETE FROM t")
            .declared(RIGHT),
        case("SELECT right on the key only: UPDATE by the key", clerk("GRANT SELECT (id), UPDATE (v) ON t TO clerk;"))
            .role("clerk")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["5", "1"])
            .q("UPDATE t SET v = 6 WHERE id = 2 RETURNING id"),
        case("SELECT right on the key only: DELETE by the key", clerk("GRANT SELECT (id), DELETE ON t TO clerk;"))
            .role("clerk")
            .p("DELETE FROM t WHERE id = $1", &["5"]),
        case(
            "SELECT right on the key only: ON CONFLICT",
            clerk("GRANT SELECT (id), INSERT, UPDATE (v) ON t TO clerk;"),
        )
        .role("clerk")
        .p("INSERT INTO t VALUES ($1, 5) ON CONFLICT (id) DO UPDATE SET v = 6", &["1"])
        .p("INSERT INTO t VALUES ($1, 5) ON CONFLICT (id) DO UPDATE SET v = 6", &["100"])
        .p("INSERT INTO t VALUES ($1, 5) ON CONFLICT DO NOTHING", &["2"]),
        case(
            "All rights on the columns that are written, SELECT too",
            clerk("GRANT SELECT, INSERT, UPDATE, DELETE ON t TO clerk;"),
        )
        .role("clerk")
        .p("UPDATE t SET v = $1 WHERE id < 4", &["5"])
        .q("DELETE FROM t WHERE id = 9"),
        case("No right at all", clerk(""))
            .role("clerk")
            .fails("UPDATE t SET v = 5", "42501")
            .fails("INSERT INTO t VALUES (100)", "42501"),
        case(
            "SELECT right on the columns, tableoid and xmax by their names: COPY with a volatile default",
            clerk("CREATE TABLE c (id int PRIMARY KEY, r float8 DEFAULT random()); GRANT INSERT, SELECT (id, r, tableoid, xmax) ON c TO clerk;"),
        )
        .role("clerk")
        .copy("COPY c (id) FROM STDIN", "1\n2\n")
        .q("INSERT INTO c VALUES (3, 0.5)")
        .volatile()
        .declared(&[("c", "")]),
        case("No SELECT right: COPY FROM", clerk("GRANT INSERT ON t TO clerk;"))
            .role("clerk")
            .copy("COPY t FROM STDIN", "100\t1\ta\n"),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case("SET ROLE to a role with fewer rights", t_and("GRANT USAGE ON SCHEMA {s} TO owner_role; GRANT INSERT ON t TO owner_role;"))
            .each(&["UPDATE t SET v = 1 WHERE id = 1", "SET ROLE owner_role", "INSERT INTO t VALUES (100)", "RESET ROLE", "UPDATE t SET v = 2 WHERE id = 2"]).around(&[Around::Nothing, Around::Block]),
        case("SET LOCAL ROLE under prepared statements", t_and("GRANT USAGE ON SCHEMA {s} TO owner_role; GRANT SELECT, UPDATE ON t TO owner_role;"))
            .p("UPDATE t SET v = $1 WHERE id = $2", &["1", "1"])
            .each(&["BEGIN", "SET LOCAL ROLE owner_role"])
            .p("UPDATE t SET v = $1 WHERE id = $2", &["2", "2"])
            .q("COMMIT")
            .p("UPDATE t SET v = $1 WHERE id = $2", &["3", "3"])
            .unwrapped(),
        case("A view of another owner (its rights count)", clerk("CREATE VIEW {f}_w AS SELECT id, v FROM t; GRANT SELECT, UPDATE ON {f}_w TO clerk;")).role("clerk").p("UPDATE {f}_w SET v = $1 WHERE id = 1", &["5"]),
        case("A function SECURITY DEFINER that writes", clerk("CREATE FUNCTION {f}(i int) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS 'UPDATE t SET v = 0 WHERE id = i'; GRANT EXECUTE ON FUNCTION {f} TO clerk;"))
            .role("clerk")
            .p("SELECT {f}($1)", &["1"])
            .declared(&[("t", "")]),
        case("A role that may not ask for the position in the log", T)
            .admin("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_current_wal_insert_lsn() FROM PUBLIC; GRANT EXECUTE ON FUNCTION pg_catalog.pg_current_wal_insert_lsn() TO pgshadow")
            .q("UPDATE t SET v = 1 WHERE id = 1")
            .q("ALTER TABLE t ADD COLUMN w int")
            .alone()
            .declared(&[("t", "its place in the order")]),
        case("SET SESSION AUTHORIZATION", t_and("GRANT USAGE ON SCHEMA {s} TO clerk; GRANT SELECT, INSERT ON t TO clerk;"))
            .role("postgres")
            .each(&["UPDATE t SET v = 1 WHERE id = 1", "SET SESSION AUTHORIZATION clerk", "INSERT INTO t VALUES (100)", "RESET SESSION AUTHORIZATION", "UPDATE t SET v = 2 WHERE id = 2"])
            .apart(),
        case("The superuser writes", T).role("postgres").p("UPDATE t SET v = $1 WHERE id = 1", &["5"]).q("INSERT INTO t VALUES (100)").around(&[Around::Nothing, Around::Block]),
    ]
}
