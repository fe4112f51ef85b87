//! The PostgreSQL installations and other programs that `make deps` found.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// One PostgreSQL installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Where its programs are.
    pub bindir: PathBuf,
    /// As the server prints it: `15.18`.
    pub version: String,
    /// `15`.
    pub major: u32,
}

impl Installation {
    /// The older of the two: what users migrate from.
    pub fn old() -> &'static Installation {
        static OLD: OnceLock<Installation> = OnceLock::new();
        OLD.get_or_init(|| Installation::chosen("OLD", |found| found.first().cloned()))
    }

    /// The newest there is: what users migrate to.
    pub fn newest() -> &'static Installation {
        static NEWEST: OnceLock<Installation> = OnceLock::new();
        NEWEST.get_or_init(|| Installation::chosen("NEW", |found| found.last().cloned()))
    }

    /// The server of one major, as `make conform` has it. It may have no clients: those of [`newest`](Self::newest) serve.
    pub fn of_major(major: u32) -> Installation {
        let all = setting("PGSHADOW_PG_SERVERS").unwrap_or_default();
        let bindir = all.split_whitespace().find_map(|server| server.strip_prefix(&format!("{major}=")));
        let found = bindir.and_then(|bindir| Installation::at(Path::new(bindir)));
        let found = found.unwrap_or_else(|| panic!("no PostgreSQL {major} server; run: scripts/deps.sh conform"));
        assert_eq!(found.major, major, "{found:?}");
        found
    }

    /// Path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bindir.join(name)
    }

    fn chosen(which: &str, pick: impl Fn(&[Installation]) -> Option<Installation>) -> Installation {
        let named = setting(&format!("PGSHADOW_PG_{which}_BINDIR")).or_else(|| setting(&format!("PG_{which}_BINDIR")));
        match named {
            Some(bindir) => Installation::at(Path::new(&bindir))
                .unwrap_or_else(|| panic!("no PostgreSQL server in {bindir}; run: make deps")),
            None => pick(&on_this_machine()).unwrap_or_else(|| panic!("no PostgreSQL server found; run: make deps")),
        }
    }

    fn at(bindir: &Path) -> Option<Installation> {
        let output = Command::new(bindir.join("postgres")).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = text.split_whitespace().nth(2)?.to_owned();
        let major = version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        Some(Installation { bindir: bindir.to_owned(), version, major })
    }
}

/// Those of Debian's packages, oldest first.
fn on_this_machine() -> Vec<Installation> {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Installation::at(&entry.path().join("bin")))
        .collect();
    found.sort_by_key(|installation| installation.major);
    found
}

/// A value that `make` hands over: from the environment, or, for a plain `cargo test`, from what `make deps` wrote.
pub fn setting(name: &str) -> Option<String> {
    if let Some(value) = std::env::var(name).ok().filter(|value| !value.is_empty()) {
        return Some(value);
    }
    let text = std::fs::read_to_string(repository().join(".deps/env")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('\'').to_owned()).filter(|value| !value.is_empty())
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("integration-tests has a parent")
}

/// Where cargo put this test program, without `deps`: `target/debug`.
pub fn profile_directory() -> PathBuf {
    let program = std::env::current_exe().expect("a program knows its path");
    let directory = program.parent().expect("a program is in a directory");
    let directory = if directory.ends_with("deps") { directory.parent().expect("target/debug") } else { directory };
    directory.to_owned()
}
