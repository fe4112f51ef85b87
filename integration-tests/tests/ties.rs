//! What ties the log to the target: a log that was deleted or is back at an older state gives its numbers out again, and the
//! target must not take them as applied.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::equal;
use integration_tests::postgres::Cluster;
use integration_tests::proxy::Pgshadow;
use integration_tests::workload::Load;
use std::fs;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn replaced(replace: impl Fn(&Path, &Path)) {
    let (source, target) = (Cluster::old(), Cluster::newest());
    let load = Load::order().clients(2);
    load.install_on(&[source.app(), target.app()]);
    let mut pgshadow = Pgshadow::between(&source, &target).start();
    let run = |pgshadow: &Pgshadow| {
        load.run(&pgshadow.app(), Duration::from_millis(500));
        pgshadow.wait_drained(LIMIT);
        equal::assert_equal(&source.app(), &target.app());
    };
    let (log, kept) = (pgshadow.data_directory().join("log"), pgshadow.data_directory().join("kept"));
    run(&pgshadow);
    pgshadow.stop();
    copy(&log, &kept);
    pgshadow.start();
    run(&pgshadow);
    pgshadow.expect_spotless();
    pgshadow.stop();
    replace(&log, &kept);
    for _ in 0..2 {
        pgshadow.start();
        run(&pgshadow);
        assert_eq!(pgshadow.suspect_tables(), ["every table"]);
        pgshadow.stop();
    }
}

#[test]
fn a_log_that_was_deleted() {
    replaced(|log, _| fs::remove_dir_all(log).unwrap());
}

#[test]
fn a_log_that_is_back_at_an_older_state() {
    replaced(|log, kept| {
        fs::remove_dir_all(log).unwrap();
        copy(kept, log);
    });
}
