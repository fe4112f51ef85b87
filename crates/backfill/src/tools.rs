//! PostgreSQL's own tools that carry a schema over: `pg_dump` and `pg_restore`.

use crate::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tokio::process::Command;

/// Where packages put them, besides the path.
const PACKAGES: &str = "/usr/lib/postgresql";

/// Both programs, of one version that is new enough for both servers.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) dump: PathBuf,
    pub(crate) restore: PathBuf,
}

/// One server, for a tool.
pub(crate) struct Login {
    conninfo: String,
    password: Option<Vec<u8>>,
}

impl Login {
    pub(crate) fn of(config: &tokio_postgres::Config) -> Self {
        let mut parts = Vec::new();
        let mut add = |key: &str, value: &str| {
            parts.push(format!("{key}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'")));
        };
        if let Some(host) = config.get_hosts().first() {
            match host {
                tokio_postgres::config::Host::Tcp(host) => add("host", host),
                tokio_postgres::config::Host::Unix(directory) => add("host", &directory.to_string_lossy()),
            }
        }
        if let Some(port) = config.get_ports().first() {
            add("port", &port.to_string());
        }
        if let Some(user) = config.get_user() {
            add("user", user);
        }
        if let Some(name) = config.get_dbname() {
            add("dbname", name);
        }
        add("application_name", "pgshadow backfill");
        Self { conninfo: parts.join(" "), password: config.get_password().map(<[u8]>::to_vec) }
    }
}

impl Tools {
    /// The newest that are at least of this major version.
    ///
    /// # Errors
    /// There are none.
    pub(crate) async fn find(directory: Option<&Path>, major: u32) -> Result<Self, Error> {
        let mut directories: Vec<PathBuf> = Vec::new();
        match directory {
            Some(directory) => directories.push(directory.to_owned()),
            None => {
                directories.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
                let packages = std::fs::read_dir(PACKAGES).into_iter().flatten().flatten();
                directories.extend(packages.map(|package| package.path().join("bin")));
            }
        }
        let (mut best, mut seen) = (None, Vec::new());
        for directory in directories {
            let tools = Self { dump: directory.join("pg_dump"), restore: directory.join("pg_restore") };
            let Some(of) = version(&tools.dump).await.filter(|_| tools.restore.exists()) else { continue };
            seen.push(format!("{} is of {of}", tools.dump.display()));
            if of >= major && best.as_ref().is_none_or(|(newest, _)| of > *newest) {
                best = Some((of, tools));
            }
        }
        best.map(|(_, tools)| tools).ok_or_else(|| {
            let seen = if seen.is_empty() { "there is none".to_owned() } else { seen.join(", ") };
            Error::Tool(format!(
                "pg_dump and pg_restore of version {major} or newer are needed to make the schema: {seen}. Install the package \
                 postgresql-client-{major}, or set [backfill] bindir in pgshadow.toml"
            ))
        })
    }

    /// Runs one of them against a server.
    ///
    /// # Errors
    /// It can't be started. What it says of itself is in the output.
    pub(crate) async fn run<I, S>(program: &Path, login: Option<&Login>, arguments: I) -> Result<Output, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new(program);
        command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
        if let Some(login) = login {
            command.arg("--dbname").arg(&login.conninfo);
            command.env("PGOPTIONS", "-c statement_timeout=0");
            if let Some(password) = &login.password {
                command.env("PGPASSWORD", String::from_utf8_lossy(password).into_owned());
            }
        }
        let failed = |error| Error::Run { path: program.to_owned(), error };
        command.output().await.map_err(failed)
    }
}

async fn version(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().await.ok()?;
    major_of(&String::from_utf8_lossy(&output.stdout))
}

/// From `pg_dump (PostgreSQL) 18.1 (Debian ...)`.
fn major_of(text: &str) -> Option<u32> {
    let rest = text.split_once("(PostgreSQL) ")?.1;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major_of("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("pg_dump (PostgreSQL) 18.6\n"), Some(18));
        assert_eq!(major_of("pg_dump (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major_of("something else 3"), None);
    }
}
