//! Scenes that are flipped.
use crate::process::eventually;
use crate::scene::{Scene, servers};
use serde_json::Value;
use std::process::Child;
use std::sync::OnceLock;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// Steps of a flip, in their order, and behind them those of one that is undone: what `flip_crash` kills in.
pub const STEPS: [&str; 14] = [
    "Prepare Preparing",
    "Canary",
    "Hold Holding",
    "Sequences",
    "Keep Fencing",
    "Fence Fencing",
    "Keep Committed",
    "Lift Committed",
    "Swap Committed",
    "Resume Committed",
    "Leave Committed",
    "Keep Idle",
    // of a flip that is undone
    "Unfence Undoing",
    "Leave Undoing",
];
/// Of these.
pub const COMMITTED: [&str; 5] =
    ["Lift Committed", "Swap Committed", "Resume Committed", "Leave Committed", "Keep Idle"];

/// A line of the users' file: the application's role with one verifier on both of the shared servers.
pub fn users() -> String {
    static KNOWN: OnceLock<String> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let [source, target] = servers();
        let known = source.superuser().psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'");
        target.superuser().psql(&format!("ALTER ROLE app PASSWORD '{known}'"));
        known
    });
    format!("\"app\" \"{known}\"\n")
}

/// A scene whose sessions can be taken along.
#[track_caller]
pub fn scene(schema: &str) -> Scene {
    let scene = Scene::with(schema, "", |builder| builder.users(&users()));
    // what was written nowhere drains without the shadow
    eventually("the shadow is there", LIMIT, || {
        (scene.pgshadow.status()["applier"]["connected"] == true).then_some(())
    });
    scene
}

/// Proves that both databases are equal.
#[track_caller]
pub fn verify(scene: &Scene) {
    scene.drain();
    scene.pgshadow.run(&["verify"], LIMIT).success();
}

/// `pgshadow cutover`: exit code and report.
#[track_caller]
pub fn cutover(scene: &Scene, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut all = vec!["cutover"];
    all.extend(arguments);
    flip(scene, &all)
}

/// `cutover` or `rollback` with arguments: exit code and report.
#[track_caller]
pub fn flip(scene: &Scene, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut all = arguments.to_vec();
    all.push("--json");
    let finished = scene.pgshadow.run(&all, LIMIT);
    let report = serde_json::from_str(&finished.stdout);
    (finished.status.code(), report.unwrap_or_else(|_| panic!("{finished:#?}\n{}", scene.pgshadow.log())))
}

/// Begins a command that flips, which stops in front of a step.
#[track_caller]
pub fn stopped(scene: &Scene, step: &str, arguments: &[&str]) -> Child {
    scene.pgshadow.stop_flip_at(step);
    let commanding = scene.pgshadow.begin(arguments);
    eventually("it stops", LIMIT, || scene.pgshadow.flip_has_stopped().then_some(()));
    commanding
}

/// It must succeed, although nobody has rehearsed it; its report.
#[track_caller]
pub fn flipped(scene: &Scene, command: &str, to: &str) -> Value {
    let (code, report) = flip(scene, &[command, "--unrehearsed"]);
    assert_eq!((code, report["outcome"].as_str()), (Some(0), Some("flipped")), "{report:#}\n{}", scene.pgshadow.log());
    assert_eq!(scene.pgshadow.status()["primary"], to);
    report
}

/// The report of the last flip, as it is kept.
#[track_caller]
pub fn last_report(scene: &Scene) -> Value {
    let directory = scene.pgshadow.data_directory().join("flips");
    let mut paths: Vec<_> = std::fs::read_dir(directory).expect("flips").flatten().map(|file| file.path()).collect();
    paths.sort();
    serde_json::from_slice(&std::fs::read(paths.last().expect("a flip")).expect("a report")).expect("JSON")
}
