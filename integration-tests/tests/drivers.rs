//! Every driver program: directly against the older and the newest server, since what they expect must be what PostgreSQL
//! does; through a pgshadow that mirrors nothing; and through one that mirrors, after which both databases are equal.
use integration_tests::drivers::Driver;
use integration_tests::postgres::Cluster;
use integration_tests::proxy::Pgshadow;
use std::sync::OnceLock;

/// Two servers for all; each driver has a database of its own on each.
fn works_directly(driver: Driver) {
    static SERVERS: OnceLock<[Cluster; 2]> = OnceLock::new();
    for server in SERVERS.get_or_init(|| [Cluster::old(), Cluster::newest()]) {
        driver.run(&server.create_database(&format!("{driver:?}").to_lowercase()));
    }
}

/// One pgshadow for all; each driver has tables of its own.
fn works_through_a_plain_proxy(driver: Driver) {
    static PROXY: OnceLock<(Cluster, Cluster, Pgshadow)> = OnceLock::new();
    let (.., pgshadow) = PROXY.get_or_init(|| {
        let (source, target) = (Cluster::old(), Cluster::newest());
        let pgshadow = Pgshadow::between(&source, &target).without_mirroring().start();
        (source, target, pgshadow)
    });
    driver.run(&pgshadow.app());
    pgshadow.expect_clean_log(&[]);
}

mod directly {
    use super::*;

    #[test]
    fn psycopg3() {
        works_directly(Driver::Psycopg3);
    }

    #[test]
    fn psycopg2() {
        works_directly(Driver::Psycopg2);
    }

    #[test]
    fn asyncpg() {
        works_directly(Driver::Asyncpg);
    }

    #[test]
    fn pg8000() {
        works_directly(Driver::Pg8000);
    }

    #[test]
    fn node_pg() {
        works_directly(Driver::NodePg);
    }

    #[test]
    fn pgjdbc() {
        works_directly(Driver::Jdbc);
    }

    #[test]
    fn psql() {
        works_directly(Driver::PsqlOld);
        works_directly(Driver::PsqlNewest);
    }
}

mod through_a_plain_proxy {
    use super::*;

    #[test]
    fn psycopg3() {
        works_through_a_plain_proxy(Driver::Psycopg3);
    }

    #[test]
    fn psycopg2() {
        works_through_a_plain_proxy(Driver::Psycopg2);
    }

    #[test]
    fn asyncpg() {
        works_through_a_plain_proxy(Driver::Asyncpg);
    }

    #[test]
    fn pg8000() {
        works_through_a_plain_proxy(Driver::Pg8000);
    }

    #[test]
    fn node_pg() {
        works_through_a_plain_proxy(Driver::NodePg);
    }

    #[test]
    fn pgjdbc() {
        works_through_a_plain_proxy(Driver::Jdbc);
    }

    #[test]
    fn psql() {
        works_through_a_plain_proxy(Driver::PsqlOld);
        works_through_a_plain_proxy(Driver::PsqlNewest);
    }
}

/// The lists name what capture says of itself that it doesn't mirror yet: shrink them, never grow them.
mod mirrored {
    use super::*;

    #[test]
    fn psycopg3() {
        Driver::Psycopg3.run_mirrored(&[]);
    }

    /// EXECUTE of a statement prepared in SQL.
    #[test]
    fn psycopg2() {
        Driver::Psycopg2.run_mirrored(&["public.psycopg2_execute"]);
    }

    /// RETURNING rows that are fetched with a limit, as `fetchval` does.
    #[test]
    fn asyncpg() {
        Driver::Asyncpg.run_mirrored(&["public.asyncpg_item", "public.asyncpg_value"]);
    }

    #[test]
    fn node_pg() {
        Driver::NodePg.run_mirrored(&[]);
    }

    #[test]
    fn pgjdbc() {
        Driver::Jdbc.run_mirrored(&[]);
    }

    /// EXECUTE of a statement prepared in SQL.
    #[test]
    fn psql() {
        Driver::PsqlNewest.run_mirrored(&["public.psql_execute"]);
    }
}
