//! The file's shape, and every default. `""` stands for "not set" where there is none.
use serde::{Deserialize, Serialize};

/// The whole file. Each section may be missing, each key too.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub listen: Listen,
    pub auth: Auth,
    pub source: Database,
    pub target: Database,
    pub mirror_log: MirrorLog,
    pub mirror: Mirror,
    pub apply: Apply,
    pub backfill: Backfill,
    pub verify: Verify,
    pub compare: Compare,
    pub ddl: Ddl,
    pub cutover: Cutover,
    pub admin: Admin,
    pub test: Test,
}

/// Sections that no document and no suggestion names.
pub(super) const HIDDEN: &[&str] = &["test"];

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listen {
    pub address: String,
    pub other_databases: String,
}

impl Default for Listen {
    fn default() -> Self {
        Self { address: "127.0.0.1:6432".into(), other_databases: "refuse".into() }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Auth {
    pub mode: String,
    pub users_file: String,
    pub query: String,
}

impl Default for Auth {
    fn default() -> Self {
        Self { mode: "relay".into(), users_file: String::new(), query: String::new() }
    }
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Database {
    pub url: String,
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MirrorLog {
    pub directory: String,
    pub durability: String,
    pub size_max: String,
    pub on_full: String,
}

impl Default for MirrorLog {
    fn default() -> Self {
        Self {
            directory: "pgshadow-data".into(),
            durability: "fsync".into(),
            size_max: "10GiB".into(),
            on_full: "stop_mirroring".into(),
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Mirror {
    pub enabled: bool,
    pub exclude: Vec<String>,
}

impl Default for Mirror {
    fn default() -> Self {
        Self { enabled: true, exclude: Vec::new() }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Apply {
    pub lanes: i64,
}

impl Default for Apply {
    fn default() -> Self {
        Self { lanes: 4 }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Backfill {
    pub connections: i64,
    pub rate_max: String,
    pub latency_rise_max: String,
    pub snapshot_age_max: String,
    pub bindir: String,
}

impl Default for Backfill {
    fn default() -> Self {
        let Verify { connections, rate_max, latency_rise_max, snapshot_age_max } = Verify::default();
        Self { connections, rate_max, latency_rise_max, snapshot_age_max, bindir: String::new() }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Verify {
    pub connections: i64,
    pub rate_max: String,
    pub latency_rise_max: String,
    pub snapshot_age_max: String,
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            connections: 2,
            rate_max: String::new(),
            latency_rise_max: "10%".into(),
            snapshot_age_max: String::new(),
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Compare {
    pub statements: f64,
}

impl Default for Compare {
    fn default() -> Self {
        Self { statements: 1.0 }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ddl {
    pub guard: String,
    pub lock_timeout: String,
    pub oldest_transaction_max: String,
    pub table_size_max: String,
}

impl Default for Ddl {
    fn default() -> Self {
        Self {
            guard: "log".into(),
            lock_timeout: String::new(),
            oldest_transaction_max: "5s".into(),
            table_size_max: "1GiB".into(),
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cutover {
    pub latency_ratio_max: f64,
    pub unmovable: String,
    pub before: String,
    pub after: String,
}

impl Default for Cutover {
    fn default() -> Self {
        Self { latency_ratio_max: 5.0, unmovable: "end".into(), before: String::new(), after: String::new() }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    pub address: String,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: "127.0.0.1:6433".into() }
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Test {
    pub trace: String,
    pub held_entries: u32,
    pub flip_stops_at: String,
}
