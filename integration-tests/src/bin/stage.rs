//! Runs a program with two servers and pgshadow between them, for what is no Rust test: PostgreSQL's own suites,
//! benchmarks, a look by hand.
//!
//! ```text
//! stage [--mirroring on|off] [--no-proxy] [--database NAME] [--superuser] [--fsync] [--set SECTION.KEY=VALUE] -- PROGRAM [ARGUMENT...]
//! ```
//!
//! The program finds in its environment: `SOURCE_PORT`, `TARGET_PORT`, `PROXY_PORT`, `ADMIN_PORT`, `SOURCE_BINDIR`,
//! `TARGET_BINDIR`, `PGSHADOW_CONFIG`, and `STAGE_DATABASE`, the migrated database; with `--no-proxy` neither `PROXY_PORT`,
//! `ADMIN_PORT` nor `PGSHADOW_CONFIG`. Its exit code is that of `stage`. pgshadow logs in with its own role, or as superuser.
//! `--set`, which may stand several times, is a key of its configuration, the value written as in TOML.
use integration_tests::installation::Installation;
use integration_tests::postgres::Cluster;
use integration_tests::proxy::Pgshadow;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut mirroring, mut proxy, mut superuser, mut fsync) = (true, true, false, false);
    let mut database = "app".to_owned();
    let mut keys: Vec<(String, String, String)> = Vec::new();
    loop {
        match arguments.next().as_deref() {
            Some("--mirroring") => match arguments.next().as_deref() {
                Some("on") => mirroring = true,
                Some("off") => mirroring = false,
                _ => return usage(),
            },
            Some("--set") => match arguments.next().as_deref().and_then(key) {
                Some(key) => keys.push(key),
                None => return usage(),
            },
            Some("--database") => match arguments.next() {
                Some(name) => database = name,
                None => return usage(),
            },
            Some("--no-proxy") => proxy = false,
            Some("--superuser") => superuser = true,
            Some("--fsync") => fsync = true,
            Some("--") => break,
            _ => return usage(),
        }
    }
    let Some(program) = arguments.next() else { return usage() };

    let [source, target] = [Installation::old(), Installation::newest()].map(|installation| {
        let cluster = Cluster::of(installation);
        if fsync { cluster.with_fsync().start() } else { cluster.start() }
    });
    if database != "app" {
        source.create_database(&database);
        target.create_database(&database);
    }
    let pgshadow = proxy.then(|| {
        let mut pgshadow = Pgshadow::between(&source, &target).database(&database);
        if superuser {
            pgshadow = pgshadow.as_user("postgres", "postgres");
        }
        for (section, key, value) in &keys {
            pgshadow = pgshadow.set(section, key, value);
        }
        if !mirroring {
            pgshadow = pgshadow.without_mirroring();
        }
        pgshadow.start()
    });

    let mut command = Command::new(&program);
    command
        .args(arguments)
        .env("SOURCE_PORT", source.port().to_string())
        .env("TARGET_PORT", target.port().to_string())
        .env("SOURCE_BINDIR", &source.installation().bindir)
        .env("TARGET_BINDIR", &target.installation().bindir)
        .env("STAGE_DATABASE", &database);
    if let Some(pgshadow) = &pgshadow {
        command
            .env("PROXY_PORT", pgshadow.port().to_string())
            .env("ADMIN_PORT", pgshadow.admin_port().to_string())
            .env("PGSHADOW_CONFIG", pgshadow.config());
    }
    match command.status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("stage: can't run {program}: {error}");
            ExitCode::from(2)
        }
    }
}

/// `SECTION.KEY=VALUE`
fn key(text: &str) -> Option<(String, String, String)> {
    let (name, value) = text.split_once('=')?;
    let (section, key) = name.split_once('.')?;
    Some((section.to_owned(), key.to_owned(), value.to_owned()))
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: stage [--mirroring on|off] [--no-proxy] [--database NAME] [--superuser] [--fsync] [--set SECTION.KEY=VALUE] -- PROGRAM [ARGUMENT...]"
    );
    ExitCode::from(2)
}
