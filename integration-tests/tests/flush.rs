//! Both pgshadow and a source with synchronous_commit = off are killed: what the source has lost must not stay on the target.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::equal;
use integration_tests::postgres::Cluster;
use integration_tests::proxy::Pgshadow;
use integration_tests::workload::Load;
use std::time::Duration;

#[test]
fn what_the_source_lost() {
    let any = Cluster::old();
    let mut source = Cluster::of(any.installation())
        .set("synchronous_commit", "off")
        .set("wal_writer_delay", "10s")
        .set("wal_writer_flush_after", "1GB")
        .start();
    let target = Cluster::newest();
    let load = Load::order().clients(4);
    load.install_on(&[source.app(), target.app()]);
    let mut pgshadow = Pgshadow::between(&source, &target).start();
    for round in 0..3 {
        load.run(&pgshadow.app(), Duration::from_millis(700));
        eprintln!("round {round} lag {}", pgshadow.status()["lag"]);
        pgshadow.kill9();
        source.kill9();
        source.start();
        pgshadow.start();
        pgshadow.wait_drained(Duration::from_secs(90));
        let different = equal::differences(&source.app(), &target.app());
        let named = pgshadow.suspect_tables();
        let findings = pgshadow.findings().len();
        eprintln!("round {round}: {} different, named {named:?}, findings {findings}", different.len());
        assert!(different.is_empty(), "{different:?}");
    }
}
