//! What preflight is told of the configuration.
use crate::config::{Auth, Config, Database, Server};
use pgshadow_preflight::Facts;

/// Of this configuration.
pub fn facts(config: &Config) -> Facts {
    Facts {
        source: reached_by(&config.source),
        target: reached_by(&config.target),
        excluded: config.mirror.exclude.clone(),
        lanes: config.apply.lanes,
        readers: config.backfill.reading.connections.max(config.verify.connections),
        log_bytes_max: config.mirror_log.size_max_bytes,
        scram: matches!(config.auth, Auth::Scram { .. }),
        ..Facts::default()
    }
}

/// A connection string for libpq's programs, without the password.
fn reached_by(database: &Database) -> String {
    let (host, port) = match &database.server {
        Server::Tcp { host, port } => (host.clone(), port),
        Server::Unix { directory, port } => (directory.display().to_string(), port),
    };
    let value = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
        let escaped = || format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { escaped() }
    };
    format!("host={} port={port} user={} dbname={}", value(&host), value(&database.user), value(&database.name))
}
