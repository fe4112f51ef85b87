//! The rights that the configuration's manual names are enough, and none of them is a superuser's.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
use integration_tests::equal;
use integration_tests::installation::repository;
use integration_tests::postgres::Cluster;
use integration_tests::process::eventually;
use integration_tests::proxy::Pgshadow;
use integration_tests::workload::Load;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The manual's statements for source and target, for a role `documented`.
fn grants() -> [String; 2] {
    let manual = std::fs::read_to_string(repository().join("proxy-config/README.md")).expect("the manual");
    let chapter = manual.split("## Rights of pgshadow's own role").nth(1).expect("its chapter");
    let blocks: Vec<_> = chapter.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [source, target] = blocks[..] else { panic!("two blocks of SQL, not {}", blocks.len()) };
    [source, target].map(|sql| {
        let sql = sql.replace("app_owner", "app").replace("'secret'", "'documented'");
        sql.replace("ROLE pgshadow", "ROLE documented").replace("TO pgshadow", "TO documented")
    })
}

#[test]
fn what_the_manual_grants_is_enough() {
    let (source, target) = (Cluster::old(), Cluster::newest());
    for (server, grants) in [&source, &target].into_iter().zip(grants()) {
        server.superuser().psql(&grants);
        let role =
            "SELECT rolsuper, rolreplication, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname = 'documented'";
        assert_eq!(server.superuser().psql(role), "f|f|f|f", "{grants}");
    }
    let load = Load::order();
    load.install_on(&[source.app(), target.app()]);
    for place in [source.app(), target.app()] {
        place.psql(
            "CREATE SCHEMA other; CREATE TABLE other.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int, w int);
            CREATE FUNCTION other.touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.w := coalesce(NEW.w, 0) + 1; RETURN NEW; END$$;
            CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON other.t FOR EACH ROW EXECUTE FUNCTION other.touch();
            INSERT INTO other.t (v) SELECT g FROM generate_series(1, 20) g;",
        );
    }
    let pgshadow = Pgshadow::between(&source, &target).as_user("documented", "documented").start();
    load.run(&pgshadow.app(), Duration::from_secs(2));
    pgshadow.app().psql(
        "INSERT INTO other.t (v) VALUES (1); UPDATE other.t SET v = v + 1; DELETE FROM other.t WHERE id = 3;
        TRUNCATE hot; INSERT INTO hot VALUES (1, 1); CREATE TABLE other.u (id int PRIMARY KEY);
        COPY other.u FROM STDIN;\n1\n2\n\\.\nALTER TABLE other.u ADD COLUMN x int; UPDATE other.u SET x = id;",
    );
    pgshadow.wait_drained(LIMIT);
    pgshadow.expect_spotless();
    equal::assert_equal(&source.app(), &target.app());
    pgshadow.expect_clean_log(&[]);

    // Healing reads on the source.
    target.superuser().psql("SET session_replication_role = replica; DELETE FROM other.t WHERE id = 5");
    pgshadow.app().psql("UPDATE other.t SET v = v + 1 WHERE id = 5");
    let healed = || (pgshadow.status()["healed_rows"] == 1).then_some(());
    eventually("the row is healed", LIMIT, healed);
    equal::assert_equal(&source.app(), &target.app());
}
