//! Writes through views: exact where the view shows a table as it is, declared elsewhere.
use integration_tests::scene::Scene;

const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, s text);
    INSERT INTO t SELECT g, g * 10, 'row ' || g FROM generate_series(1, 20) g;
    CREATE VIEW plain AS SELECT * FROM t;
    CREATE VIEW renamed AS SELECT s AS name, v + 1 AS more, id AS number, v FROM t AS x WHERE id < 15 WITH CHECK OPTION;
    CREATE VIEW above AS SELECT v AS amount, number AS id, name AS title FROM renamed;
    CREATE VIEW fewer AS SELECT id, v FROM t;
    CREATE TABLE parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
    CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10); CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (99);
    INSERT INTO parts SELECT g, g FROM generate_series(1, 9) g; CREATE VIEW of_parts AS SELECT v, id FROM parts;
    CREATE TABLE keyless (v int, s text); INSERT INTO keyless VALUES (1, 'a'), (1, 'a'), (2, 'b');
    CREATE VIEW of_keyless AS SELECT s, v FROM keyless;
    CREATE TABLE secured (id int PRIMARY KEY, v int); ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
    CREATE VIEW of_secured AS SELECT * FROM secured;
    CREATE VIEW joined AS SELECT t.id, t.v FROM t JOIN keyless k ON k.v = t.id;
    CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE t SET v = NEW.v WHERE id = OLD.id; RETURN NEW; END';
    CREATE TRIGGER instead INSTEAD OF UPDATE ON joined FOR EACH ROW EXECUTE FUNCTION instead();";

const EXACT: &[&str] = &[
    "UPDATE plain SET v = 1 WHERE id = 1",
    "INSERT INTO plain VALUES (101, 1, 'é') RETURNING *",
    "UPDATE renamed SET name = 'x' || name, v = v + 1 WHERE more > 100 RETURNING number, more",
    "UPDATE renamed SET number = 2 + number - 1 WHERE number = 14 AND false",
    "UPDATE renamed SET number = 0 WHERE number = 5",
    "UPDATE renamed AS r SET number = -r.number WHERE r.v = 60 OR r.v = 70",
    "DELETE FROM above WHERE id = 3 RETURNING title",
    "UPDATE fewer SET v = -1 WHERE id = 9; INSERT INTO fewer VALUES (77, 7); DELETE FROM fewer WHERE id = 12",
    "UPDATE fewer SET v = v + 1 WHERE v > 100 RETURNING v; INSERT INTO fewer VALUES (78, 8), (79, 9) ON CONFLICT (id) DO UPDATE SET v = 0",
    "UPDATE above SET id = id - 100, title = NULL WHERE amount = 80",
    "INSERT INTO above (id, amount) VALUES (-50, 5) ON CONFLICT (id) DO UPDATE SET amount = 6",
    "INSERT INTO above (id, amount) VALUES (-50, 5) ON CONFLICT (id) DO UPDATE SET amount = 6",
    "UPDATE of_parts SET id = id + 20 WHERE id = 4; UPDATE of_parts SET v = 0 WHERE id IN (1, 2); DELETE FROM of_parts WHERE v = 9",
    "UPDATE of_keyless SET v = 7 WHERE s = 'a'; DELETE FROM of_keyless WHERE v = 2; INSERT INTO of_keyless VALUES ('n', 9)",
];

#[test]
fn simple_views() {
    for scene in [Scene::of(SCHEMA), Scene::newest(SCHEMA)] {
        let app = scene.app();
        EXACT.iter().for_each(|statement| drop(app.psql(statement)));
        app.psql("SET client_encoding = LATIN1; UPDATE above SET title = 'caf' || chr(233) WHERE id = 2");
        scene.expect_exact();
    }
}

#[tokio::test]
async fn prepared() {
    let scene = Scene::of(SCHEMA);
    let client = scene.app().connect().await;
    for n in 1..4_i32 {
        let id: i32 = 10 + n;
        client.execute("UPDATE above SET amount = $1 WHERE id = $2", &[&n, &id]).await.unwrap();
        client.execute("UPDATE above SET id = $1 WHERE id = $2", &[&(-n), &id]).await.unwrap();
        client.query("UPDATE of_keyless SET v = v + $1 WHERE s = $2 RETURNING v", &[&n, &"a"]).await.unwrap();
    }
    scene.expect_exact();
}

#[test]
fn merged_into() {
    let scene = Scene::newest(SCHEMA);
    scene.app().psql(
        "MERGE INTO above a USING (VALUES (1), (2), (-9)) s(i) ON a.id = s.i WHEN MATCHED AND i = 1 THEN DELETE \
         WHEN MATCHED THEN UPDATE SET title = 'm' WHEN NOT MATCHED THEN INSERT (id, amount) VALUES (i, 1)",
    );
    scene.expect_exact();
}

#[test]
fn other_views_are_declared() {
    for (script, table) in [
        ("UPDATE fewer SET id = 500 WHERE v = 10", "public.t"),
        ("UPDATE joined SET v = 1 WHERE id = 1", "public.t"),
        ("INSERT INTO of_secured VALUES (1, 1)", "public.secured"),
    ] {
        let scene = Scene::of(SCHEMA);
        scene.app().psql(script);
        let view = format!(
            "public.{}",
            script.split(' ').find(|w| w.len() > 4 && w.chars().all(|c| c.is_lowercase() || c == '_')).unwrap()
        );
        scene.expect_suspects(&[(&view, "view"), (table, "")]);
    }
}

/// A view that hides columns gives the key of each row alone: as many are read again one by one as one transaction may have.
#[test]
fn as_many_rows_of_a_view_that_hides_columns_as_are_read_again() {
    let insert = |last: u32| format!("INSERT INTO fewer SELECT g, g FROM generate_series(1001, {last}) g");
    let scene = Scene::of(SCHEMA);
    scene.app().psql(&insert(11_000));
    scene.drain();
    assert_eq!(scene.suspects(), []);
    let scene = Scene::of(SCHEMA);
    scene.app().psql(&insert(11_001));
    scene.expect_suspects(&[("public.t", "more than 10000 rows")]);
}
