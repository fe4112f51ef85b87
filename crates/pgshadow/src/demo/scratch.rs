//! One fresh directory for everything that a demo writes.
use super::account::Account;
use super::error::DemoError;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Below the range from which the kernel takes the ports of outgoing connections.
const PORT_FIRST: u16 = 10_000;
const PORT_COUNT: u16 = 22_000;
/// Directory of the notes about running processes.
pub const PROCESSES: &str = "processes";

/// A directory that only this demo (and, when it is root's, the servers' account) can enter; it goes with the value.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    account: Option<Account>,
    kept: Kept,
}

/// Whether what was started stays when the demo ends: one flag that all share.
#[derive(Debug, Clone, Default)]
pub struct Kept(Arc<AtomicBool>);

impl Kept {
    /// Whether it stays.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// From now on it stays.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Scratch {
    /// Makes it, and finds out who the servers will run as.
    ///
    /// # Errors
    /// When there is no place for it, or root has no account for servers.
    pub fn new() -> Result<Self, DemoError> {
        let places = [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
        let mut refusal = std::io::Error::other("none that the servers' account may enter");
        for place in &places {
            let path = place.join(format!("pgshadow-demo-{}", secret(6)?));
            match DirBuilder::new().mode(0o700).create(&path).and_then(|()| fs::metadata(&path)) {
                Ok(made) => {
                    let mut scratch = Self { path, account: None, kept: Kept::default() };
                    scratch.account = Account::for_servers(made.uid())?;
                    if scratch.account.is_none() || may_be_entered_by_all(place) {
                        scratch.prepare().map_err(DemoError::system("own directory"))?;
                        return Ok(scratch);
                    }
                }
                Err(error) => refusal = error,
            }
        }
        Err(DemoError::System { what: "can't make a temporary directory".to_owned(), reason: refusal })
    }

    /// The servers' account may pass through root's directory, and list nothing.
    fn prepare(&self) -> std::io::Result<()> {
        if self.account.is_some() {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o711))?;
        }
        DirBuilder::new().mode(0o700).create(self.path.join(PROCESSES))
    }

    /// Whether this and all that was started stays when the demo ends; it doesn't until that is set.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who the servers run as, if not as the one who runs the demo.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// A directory inside that belongs to the servers' account.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn directory_for_server(&self, name: &str) -> Result<PathBuf, DemoError> {
        let path = self.path.join(name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.and_then(|()| self.account.as_ref().map_or(Ok(()), |account| account.own(&path)))
            .map_err(DemoError::system(path.display().to_string()))?;
        Ok(path)
    }

    /// A file that only this user can read, for secrets.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn private_file(&self, path: &Path, text: &str) -> Result<(), DemoError> {
        let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        open.and_then(|mut file| file.write_all(text.as_bytes())).map_err(DemoError::system(path.display().to_string()))
    }

    /// Notes a process that the reaper has to end if the demo is killed: a file by its id, to be removed at its end.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn note_process(&self, pid: u32) -> Result<PathBuf, DemoError> {
        let note = self.path.join(PROCESSES).join(pid.to_string());
        self.private_file(&note, "")?;
        Ok(note)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.kept.is_set() {
            return;
        }
        // A process that was just ended may be at its last file.
        for _ in 0..40 {
            match fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                _ => return,
            }
        }
        eprintln!("pgshadow: could not remove {}", self.path.display());
    }
}

fn may_be_entered_by_all(path: &Path) -> bool {
    path.is_absolute()
        && path.ancestors().all(|part| fs::metadata(part).is_ok_and(|data| data.permissions().mode() & 0o001 != 0))
}

/// Random letters for names and passwords.
///
/// # Errors
/// When the system has none.
pub fn secret(bytes: usize) -> Result<String, DemoError> {
    let mut random = vec![0; bytes];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random));
    read.map_err(DemoError::system("/dev/urandom"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A port on loopback that nobody listens on now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16, DemoError> {
    let start = u16::from_str_radix(&secret(2)?, 16).unwrap_or_default();
    (0..PORT_COUNT)
        .map(|step| PORT_FIRST + (start % PORT_COUNT + step) % PORT_COUNT)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| DemoError::system("no free port on 127.0.0.1")(std::io::ErrorKind::AddrInUse.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_with_its_value_and_is_nobody_elses() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        let inner = scratch.directory_for_server("source").unwrap();
        scratch.private_file(&path.join("secret"), "x").unwrap();
        assert!(scratch.note_process(1).unwrap().ends_with("processes/1"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&path.join("secret"))), (0o700, 0o600));
        assert_eq!(mode(&path) & 0o066, 0);
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_place_must_be_reachable_for_the_servers() {
        let closed = tempfile::tempdir().unwrap();
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let inner = closed.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!may_be_entered_by_all(&inner), "its parent is closed");
        assert!(may_be_entered_by_all(Path::new("/")));
        assert!(!may_be_entered_by_all(Path::new("relative")));
    }

    #[test]
    fn ports_and_secrets_differ() {
        assert_ne!(secret(16).unwrap(), secret(16).unwrap());
        assert_eq!(secret(16).unwrap().len(), 32);
        assert!(free_port().unwrap() >= PORT_FIRST);
    }
}
