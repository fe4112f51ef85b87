//! `make torture` can fail: a difference that is planted on the shadow is found, and the smallest history that shows it is
//! printed.
#![allow(clippy::expect_used, reason = "a test fails by a panic")]
use integration_tests::installation::profile_directory;
use integration_tests::process::{self, Finished};
use std::process::Command;
use std::time::Duration;

fn torture(settings: &[(&str, &str)]) -> (Finished, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_torture"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TORTURE_") {
            command.env_remove(name);
        }
    }
    command.env("TORTURE_LOG", directory.path().join("log")).envs(settings.iter().copied());
    // Where `make` built it; else what a plain `cargo test` finds beside this.
    if std::env::var_os("PGSHADOW_BIN").is_none() {
        command.env("PGSHADOW_BIN", profile_directory().join("pgshadow"));
    }
    (process::run(&mut command, Duration::from_secs(900)), directory)
}

/// A small strict bout, the same in each run.
const SMALL: [(&str, &str); 5] = [
    ("TORTURE_SEED", "7"),
    ("TORTURE_SEEDS", "1"),
    ("TORTURE_SECONDS", "1"),
    ("TORTURE_UNITS", "60"),
    // What else may be known to fail isn't this test's matter.
    ("TORTURE_WITHOUT", "define,cancel,encoding,inherited"),
];

#[test]
fn a_row_that_is_changed_on_the_shadow_is_found() {
    let settings =
        [&SMALL[..], &[("TORTURE_KIND", "strict"), ("TORTURE_PLANT", "row"), ("TORTURE_SHRINK", "0")]].concat();
    let (finished, directory) = torture(&settings);
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    let told = finished.stdout.contains("FAILED Differs: ") && finished.stdout.contains("seed 7 done: FAILED");
    assert!(told, "{}", finished.stdout);
    let kept = std::fs::read_dir(directory.path()).expect("own directory").flatten();
    let kept = kept.map(|entry| entry.path()).find(|path| path.is_dir()).expect("the history is kept");
    for name in ["schema.sql", "session-00.sql", "verdict.txt", "pgshadow.log"] {
        assert!(kept.join(name).is_file(), "{name} is not in {kept:?}");
    }
}

#[test]
fn a_constraint_that_only_the_shadow_has_is_found_and_the_history_made_small() {
    let settings = [
        &SMALL[..],
        &[
            ("TORTURE_KIND", "strict"),
            ("TORTURE_PLANT", "constraint"),
            ("TORTURE_SHRINK", "240"),
            ("TORTURE_UNITS", "24"),
        ],
    ]
    .concat();
    let (finished, _directory) = torture(&settings);
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    assert!(finished.stdout.contains("violates check constraint"), "{}", finished.stdout);
    // In each way in which the bout failed.
    let smallest = finished
        .stdout
        .lines()
        .filter_map(|line| line.split_once("smallest failing history, ")?.1.split_once(" units"));
    let smallest: Vec<&str> = smallest.map(|(size, _)| size).collect();
    let small = |size: &&str| ["1 sessions, 1", "1 sessions, 2"].contains(size);
    assert!(!smallest.is_empty() && smallest.iter().all(small), "{smallest:?}\n{}", finished.stdout);
}

#[test]
fn a_seed_that_was_sound_is_not_run_again() {
    let settings = [&SMALL[..], &[("TORTURE_BOUT", "1"), ("TORTURE_SHRINK", "0"), ("TORTURE_KIND", "none")]].concat();
    let (first, directory) = torture(&settings);
    assert!(first.stdout.contains("seed 7 done: ok, 0 bouts"), "{first:#?}");
    let log = directory.path().join("log");
    let mut again = Command::new(env!("CARGO_BIN_EXE_torture"));
    again.envs(settings).env("TORTURE_LOG", &log);
    if std::env::var_os("PGSHADOW_BIN").is_none() {
        again.env("PGSHADOW_BIN", profile_directory().join("pgshadow"));
    }
    let second = process::run(&mut again, Duration::from_secs(60));
    assert!(second.stdout.contains("seed 7 was done before"), "{second:#?}");
    let anew = process::run(again.env("TORTURE_AGAIN", "1"), Duration::from_secs(60));
    assert!(anew.stdout.contains("seed 7 done: ok"), "{anew:#?}");
}
