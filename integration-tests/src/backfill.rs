//! What the scenarios of `backfill` share.
use crate::process::Finished;
use crate::proxy::{Pgshadow, PgshadowBuilder};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long a backfill may take.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Loads; its report.
pub fn backfill(pgshadow: &Pgshadow, arguments: &[&str]) -> Value {
    let mut all = vec!["backfill", "--json"];
    all.extend(arguments);
    let finished = pgshadow.run(&all, LIMIT);
    assert!(finished.status.code() == Some(0), "{finished:#?}\n{}", pgshadow.log_tail());
    serde_json::from_str(&finished.stdout).expect("--json gives JSON")
}

/// What a backfill that does nothing says.
pub fn refused(pgshadow: &Pgshadow, arguments: &[&str]) -> String {
    let mut all = vec!["backfill"];
    all.extend(arguments);
    let finished: Finished = pgshadow.run(&all, LIMIT);
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    finished.stderr
}

/// Slow enough that things happen meanwhile.
pub fn slow(builder: PgshadowBuilder) -> PgshadowBuilder {
    builder.set("backfill", "rate_max", "\"6MiB\"")
}

/// Looks at the backfill until it is so.
pub fn wait_for(pgshadow: &Pgshadow, wanted: impl Fn(&Value) -> bool) {
    let from = Instant::now();
    loop {
        let (_, body) = pgshadow.http("/api/backfill").expect("it answers");
        let state: Value = serde_json::from_str(&body).unwrap();
        if wanted(&state) {
            return;
        }
        assert!(from.elapsed() < LIMIT, "{state:#}\n{}", pgshadow.log_tail());
        std::thread::sleep(Duration::from_millis(20));
    }
}
