//! Servers that can't be mirrored are refused at the start, with the reason and what to do.
use integration_tests::installation::Installation;
use integration_tests::postgres::Cluster;
use integration_tests::proxy::Pgshadow;

#[track_caller]
fn refused(source: &Cluster, target: &Cluster, expected: &[&str]) {
    let said = Pgshadow::between(source, target).refused();
    assert!(expected.iter().all(|text| said.contains(text)), "{expected:?} is not all in: {said}");
}

#[test]
fn a_standby_is_neither_primary_nor_shadow() {
    let (mut any, target) = (Cluster::newest(), Cluster::newest());
    let standby = any.standby();
    refused(&standby, &target, &["the primary can't be used", "standby", "[source] url"]);
    refused(&any, &standby, &["the shadow can't be used", "standby", "[target] url"]);
}

/// As on a server with a storage of its own: the function is there, and what it says stays the same.
#[test]
fn a_server_whose_position_stands_still_is_no_primary() {
    for installation in [Installation::old(), Installation::newest()] {
        let (source, target) = (Cluster::of(installation).start(), Cluster::newest());
        source.superuser().psql(
            "ALTER FUNCTION pg_catalog.pg_current_wal_insert_lsn() RENAME TO pg_real_wal_insert_lsn;
            SET allow_system_table_mods = on;
            CREATE FUNCTION pg_catalog.pg_current_wal_insert_lsn() RETURNS pg_lsn LANGUAGE sql AS $$SELECT '0/2000028'::pg_lsn$$;",
        );
        refused(&source, &target, &["the primary can't be used", "stays at 0/2000028", "Aurora", "[source] url"]);
        // As a plain proxy it is of use all the same.
        let proxy = Pgshadow::between(&source, &target).without_mirroring().start();
        assert_eq!(proxy.app().psql("SELECT 1"), "1");
    }
}

#[test]
fn the_look_at_a_primary_leaves_nothing_behind() {
    let (source, target) = (Cluster::old(), Cluster::newest());
    let objects =
        "SELECT (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_namespace),
        (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables)";
    let before = source.superuser().psql(objects);
    let pgshadow = Pgshadow::between(&source, &target).start();
    assert_eq!(source.superuser().psql(objects), before);
    pgshadow.expect_clean_log(&[]);
}

/// The application works without its shadow, which may come later.
#[test]
fn a_shadow_that_is_not_there_is_waited_for() {
    let (source, mut target) = (Cluster::old(), Cluster::newest());
    for place in [&source, &target] {
        place.app().psql("CREATE TABLE t (id int PRIMARY KEY)");
    }
    target.stop();
    let pgshadow = Pgshadow::between(&source, &target).start();
    pgshadow.app().psql("INSERT INTO t VALUES (1)");
    target.start();
    pgshadow.wait_drained(std::time::Duration::from_secs(30));
    assert_eq!(target.app().psql("SELECT id FROM t"), "1");
}
