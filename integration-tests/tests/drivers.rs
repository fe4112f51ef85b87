//! Every driver program, directly against the older and the newest server: what they expect is what PostgreSQL does.
use integration_tests::drivers::Driver;
use integration_tests::postgres::Cluster;
use std::sync::OnceLock;

/// Two servers for all; each driver has a database of its own on each.
fn works_directly(driver: Driver) {
    static SERVERS: OnceLock<[Cluster; 2]> = OnceLock::new();
    for server in SERVERS.get_or_init(|| [Cluster::old(), Cluster::newest()]) {
        driver.run(&server.create_database(&format!("{driver:?}").to_lowercase()));
    }
}

#[test]
fn psycopg3_works_directly() {
    works_directly(Driver::Psycopg3);
}

#[test]
fn psycopg2_works_directly() {
    works_directly(Driver::Psycopg2);
}

#[test]
fn asyncpg_works_directly() {
    works_directly(Driver::Asyncpg);
}

#[test]
fn pg8000_works_directly() {
    works_directly(Driver::Pg8000);
}

#[test]
fn node_pg_works_directly() {
    works_directly(Driver::NodePg);
}

#[test]
fn pgjdbc_works_directly() {
    works_directly(Driver::Jdbc);
}

#[test]
fn psql_works_directly() {
    works_directly(Driver::PsqlOld);
    works_directly(Driver::PsqlNewest);
}
