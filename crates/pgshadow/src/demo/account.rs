//! Who runs the servers: whoever runs the demo, or, when that is root, an account without rights.
use super::error::DemoError;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Accounts that root may run a server as, best first.
const NAMES: [&str; 2] = ["postgres", "nobody"];

/// An unprivileged account that root runs servers as: they refuse to run as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// The account for the servers of a demo that runs as `uid`; `None`: that one itself.
    ///
    /// # Errors
    /// When root has nobody to run them as.
    pub fn for_servers(uid: u32) -> Result<Option<Self>, DemoError> {
        if uid != 0 {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").map_err(DemoError::system("/etc/passwd"))?;
        NAMES.iter().find_map(|name| Self::read(&accounts, name)).map(Some).ok_or(DemoError::NoAccount)
    }

    fn read(accounts: &str, name: &str) -> Option<Self> {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (uid != 0).then(|| Self { name: name.to_owned(), uid, gid })
    }

    /// Makes a file or directory this account's.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn own(&self, path: &Path) -> std::io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
    }
}

/// A program of PostgreSQL's, run by the servers' account, with nothing of the caller's settings for libpq or servers.
pub fn command(program: &Path, account: Option<&Account>) -> Command {
    let mut command = Command::new(program);
    if let Some(account) = account {
        // Also drops root's groups.
        command.uid(account.uid).gid(account.gid);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("HOME", "/").env("LC_ALL", "C");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_takes_postgres_before_nobody_and_never_itself() {
        let accounts = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\npostgres:x:100:101::/:/bin/sh\n";
        let postgres = Account::read(accounts, "postgres").unwrap();
        assert_eq!((postgres.uid, postgres.gid), (100, 101));
        assert_eq!(Account::read(accounts, "nobody").unwrap().gid, 65533);
        assert_eq!(Account::read(accounts, "root"), None);
        assert_eq!(Account::read("postgres:broken", "postgres"), None);
        assert_eq!(Account::for_servers(1000).unwrap(), None);
    }
}
