//! Roles that may not see what they write: nothing is added to their statements that needs a right, or that changes which rows they
//! write; rows whose key the text fixes are read again.
use integration_tests::scene::{EVERY_TABLE, Scene, servers};

const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, owner text);
    INSERT INTO t SELECT g, g, CASE WHEN g % 2 = 0 THEN 'clerk' ELSE 'other' END FROM generate_series(1, 20) g;
    CREATE TABLE written (id bigint PRIMARY KEY, note text, at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE about (id int PRIMARY KEY, written bigint REFERENCES written);
    CREATE TABLE counted (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
    CREATE VIEW part AS SELECT id, v FROM t;";

/// The role may write `t` under a policy by which it doesn't see all that it writes, and `written` without reading it.
const RIGHTS: &str = "ALTER TABLE t ENABLE ROW LEVEL SECURITY;
    DROP POLICY IF EXISTS sees ON t;
    CREATE POLICY sees ON t FOR SELECT TO clerk USING (v > 3); CREATE POLICY writes ON t FOR UPDATE TO clerk USING (true);
    CREATE POLICY adds ON t FOR INSERT TO clerk WITH CHECK (true); CREATE POLICY takes ON t FOR DELETE TO clerk USING (true);
    GRANT SELECT, INSERT, UPDATE, DELETE ON t, part TO clerk; GRANT INSERT ON written TO clerk; GRANT UPDATE (note), SELECT (id) ON written TO clerk;
    GRANT ALL ON about TO clerk; GRANT INSERT ON counted TO clerk; GRANT USAGE ON SCHEMA public TO clerk;";

fn scene() -> Scene {
    for server in servers() {
        let create = "DO $$ BEGIN CREATE ROLE clerk LOGIN PASSWORD 'clerk'; EXCEPTION WHEN OTHERS THEN NULL; END $$";
        server.superuser().psql(create);
    }
    let scene = Scene::of(SCHEMA);
    scene.source.psql(RIGHTS);
    scene.target.psql(RIGHTS);
    scene
}

#[test]
fn keys_by_constants() {
    let scene = scene();
    let clerk = scene.app().as_user("clerk", "clerk");
    let said = clerk.psql(
        "UPDATE t SET v = 4 WHERE id = 10; UPDATE t SET v = v + 100 WHERE id = 11 RETURNING id, v;
        INSERT INTO t (id, v, owner) VALUES (101, 1, 'x'); DELETE FROM t WHERE id = 12; UPDATE t SET v = 5 WHERE id = 999;
        INSERT INTO written (id, note) VALUES (1, 'a'); INSERT INTO written (note, id) VALUES ('b', 2);
        BEGIN; INSERT INTO written (id) VALUES (3); UPDATE written SET note = 'c' WHERE id = 3; INSERT INTO about VALUES (1, 3); COMMIT;
        UPDATE written SET note = 'é' WHERE id = 1",
    );
    assert_eq!(said, "11|111");
    scene.app().psql("INSERT INTO about VALUES (2, 1); UPDATE written SET note = note || '!' WHERE id = 2; UPDATE t SET v = 0 WHERE id = 10");
    scene.expect_exact();
}

#[tokio::test]
async fn keys_by_parameters() {
    let scene = scene();
    let clerk = scene.app().as_user("clerk", "clerk").connect().await;
    for n in 1..6_i32 {
        assert_eq!(clerk.execute("UPDATE t SET v = $1 WHERE id = $2", &[&(n + 10), &(n + 5)]).await.unwrap(), 1);
        clerk.execute("INSERT INTO written (id, note) VALUES ($1, $2)", &[&i64::from(n), &"x"]).await.unwrap();
        clerk.execute("INSERT INTO about VALUES ($1, $2)", &[&n, &i64::from(n)]).await.unwrap();
        clerk.execute("DELETE FROM t WHERE id = $1", &[&(n + 15)]).await.unwrap();
    }
    scene.expect_exact();
}

#[test]
fn a_view_that_shows_the_key() {
    let scene = scene();
    scene
        .app()
        .psql("UPDATE part SET v = 7 WHERE id = 1; INSERT INTO part VALUES (50, 5); DELETE FROM part WHERE id = 2");
    // its owner is held by no policy, but the table has one
    scene.expect_suspects(&[("public.part", "owner may not read"), ("public.t", "")]);
}

#[test]
fn other_rows_are_declared() {
    for (script, table) in [
        ("UPDATE t SET v = v + 1", "public.t"),
        ("UPDATE t SET id = 500 WHERE id = 6", "public.t"),
        ("INSERT INTO counted (note) VALUES ('a')", "public.counted"),
        ("INSERT INTO t VALUES (5, 5, 'x') ON CONFLICT (id) DO NOTHING", "public.t"),
    ] {
        let scene = scene();
        scene.app().as_user("clerk", "clerk").psql(script);
        scene.expect_suspects(&[(table, "")]);
        assert!(scene.suspects().iter().all(|(table, _)| table != EVERY_TABLE));
    }
}
