//! The PostgreSQL servers that this machine can run.
use super::account::{Account, command};
use super::error::DemoError;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest major that will do.
const OLDEST_MAJOR: u32 = 13;
/// The programs that a demo needs.
const PROGRAMS: [&str; 2] = ["initdb", "postgres"];
/// Variables that name a directory of programs: pgshadow's own, then the shorter ones.
const SOURCE_VARIABLES: [&str; 2] = ["PGSHADOW_PG_OLD_BINDIR", "PG_OLD_BINDIR"];
const TARGET_VARIABLES: [&str; 2] = ["PGSHADOW_PG_NEW_BINDIR", "PG_NEW_BINDIR"];
/// Where packages put servers, each version in a directory of its own.
const ROOMS: [(&str, &str); 3] = [("/usr/lib/postgresql", "bin"), ("/usr", "bin"), (".deps/pg", "bin")];

/// One PostgreSQL installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    bindir: PathBuf,
    /// As the server prints it: `15.18`.
    pub version: String,
    /// `15`.
    pub major: u32,
}

/// What the demo runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The oldest server found.
    pub source: Installation,
    /// The newest.
    pub target: Installation,
}

impl Pair {
    /// Looks for servers: in the variables, in packages' directories, by pg_config, in PATH, in ./.deps.
    ///
    /// # Errors
    /// When there is none, or a variable names a directory without one.
    pub fn find(account: Option<&Account>) -> Result<Self, DemoError> {
        let (source, target) = (named(&SOURCE_VARIABLES, account)?, named(&TARGET_VARIABLES, account)?);
        let (found, notes) = match (&source, &target) {
            (Some(_), Some(_)) => (BTreeMap::new(), Vec::new()),
            _ => on_this_machine(account),
        };
        let oldest = found.values().next().cloned();
        let newest = found.values().next_back().cloned();
        // One that was named may be beside all that was found.
        let source = source.or(oldest).or_else(|| target.clone());
        let target = target.or(newest).or_else(|| source.clone());
        match (source, target) {
            (Some(source), Some(target)) => Ok(Self { source, target }),
            _ => Err(DemoError::NoServer {
                oldest: OLDEST_MAJOR,
                notes: notes.iter().map(|note| format!("; {note}")).collect(),
            }),
        }
    }

    /// Whether the demo crosses versions, as a migration does.
    pub fn different(&self) -> bool {
        self.source.major != self.target.major
    }
}

impl Installation {
    /// Where its programs are, if those that carry a schema over are among them.
    pub fn tools(&self) -> Option<&Path> {
        let has_all = ["pg_dump", "pg_restore"].iter().all(|name| self.bindir.join(name).exists());
        has_all.then_some(&*self.bindir)
    }

    /// Path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bindir.join(name)
    }

    fn at(bindir: &Path, account: Option<&Account>) -> Result<Self, String> {
        if let Some(missing) = PROGRAMS.iter().find(|name| !bindir.join(name).exists()) {
            return Err(format!("there is no {missing}"));
        }
        let output = command(&bindir.join("postgres"), account).arg("--version").current_dir("/").output();
        let output = output.map_err(|error| match account {
            Some(account) => format!("the account {} can't run it ({error})", account.name),
            None => error.to_string(),
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let (version, major) = usable_version(&text)?;
        Ok(Self { bindir: bindir.to_owned(), version, major })
    }
}

/// The version that `postgres --version` printed, if it will do.
fn usable_version(text: &str) -> Result<(String, u32), String> {
    match parse_version(text) {
        None => Err(format!("`postgres --version` says {text:?}")),
        Some((version, major)) if major < OLDEST_MAJOR => {
            Err(format!("it is version {version}, and {OLDEST_MAJOR} is the oldest that will do"))
        }
        Some(usable) => Ok(usable),
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-1)`: the version and its major part.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text.split_once("PostgreSQL)")?.1.split_whitespace().next()?;
    let major = version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((version.to_owned(), major))
}

fn named(variables: &[&str], account: Option<&Account>) -> Result<Option<Installation>, DemoError> {
    let mut set = variables.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let Some((variable, value)) = set.find(|(_, value)| !value.is_empty()) else { return Ok(None) };
    let path = PathBuf::from(value);
    let here = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    Installation::at(&here, account).map(Some).map_err(|reason| DemoError::WrongDirectory {
        variable: variable.to_owned(),
        path,
        reason,
    })
}

/// One server of each major, in order, and what was found but can't be used.
fn on_this_machine(account: Option<&Account>) -> (BTreeMap<u32, Installation>, Vec<String>) {
    let (mut found, mut notes) = (BTreeMap::new(), Vec::new());
    for bindir in candidates().into_iter().filter(|bindir| bindir.join("postgres").exists()) {
        match Installation::at(&bindir, account) {
            Ok(installation) => {
                found.entry(installation.major).or_insert(installation);
            }
            Err(reason) => notes.push(format!("{} can't be used: {reason}", bindir.display())),
        }
    }
    (found, notes)
}

fn candidates() -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for (room, inner) in ROOMS {
        let Ok(room) = std::path::absolute(room) else { continue };
        let mut entries: Vec<_> = fs::read_dir(&room).into_iter().flatten().flatten().map(|e| e.path()).collect();
        entries.sort();
        // `/usr` itself holds everything: only the directories of PostgreSQL's own packages are meant.
        entries.retain(|path| room != Path::new("/usr") || path.to_string_lossy().starts_with("/usr/pgsql-"));
        directories.extend(entries.into_iter().map(|path| path.join(inner)));
    }
    let config = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).stderr(Stdio::null()).output();
    if let Ok(output) = config {
        let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        directories.extend(Some(line).filter(|line| !line.is_empty()).map(PathBuf::from));
    }
    directories.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    directories
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_print_them() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(parse_version(debian), Some(("15.18".to_owned(), 15)));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1\n"), Some(("18beta1".to_owned(), 18)));
        assert_eq!(parse_version("postgres (PostgreSQL)"), None);
        assert_eq!(parse_version("something else 15"), None);
    }

    #[test]
    fn a_directory_without_a_server_is_no_installation() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Installation::at(directory.path(), None).unwrap_err().contains("initdb"));
    }

    #[test]
    fn a_server_too_old_says_so() {
        assert!(usable_version("postgres (PostgreSQL) 9.6.24\n").unwrap_err().contains("9.6.24"));
        assert!(usable_version("").is_err());
        assert_eq!(usable_version("postgres (PostgreSQL) 13.23\n"), Ok(("13.23".to_owned(), 13)));
    }
}
