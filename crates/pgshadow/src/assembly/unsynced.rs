//! `durability = "os"`: what a crash of the machine makes doubtful.
//!
//! The log then survives a crash of the process, but not one of the machine. So the name of each table is written to the store,
//! durably, before the first write to it in one boot of the machine; if the next start finds another boot, exactly these
//! tables are suspect. A clean end, after which the log is on disk, takes the names back.
use pgshadow_divergence::{Error, Store};
use pgshadow_model::{Intent, QualifiedName, Suspect};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

const META: &str = "unsynced_tables";

/// Tables written in this boot. `None` stands for every table.
#[derive(Debug)]
pub(super) struct Unsynced {
    boot: String,
    tables: Mutex<BTreeSet<Option<QualifiedName>>>,
}

/// The kernel's id of this boot; without one every start counts as another boot, which errs on the safe side.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(
        |_| humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string(),
        |id| id.trim().to_owned(),
    )
}

impl Unsynced {
    /// Reads what the last process left; also what became suspect if the machine has crashed since.
    pub fn open(store: &Store) -> Result<(Self, Vec<Suspect>), Error> {
        let boot = boot_id();
        let left = store.meta_get(META)?;
        let left: Option<(String, BTreeSet<Option<QualifiedName>>)> =
            left.and_then(|json| serde_json::from_str(&json).ok());
        let (suspects, tables) = match left {
            Some((last, tables)) if last == boot => (Vec::new(), tables),
            Some((_, tables)) => (tables.into_iter().map(doubtful).collect(), BTreeSet::new()),
            None => (Vec::new(), BTreeSet::new()),
        };
        Ok((Self { boot, tables: Mutex::new(tables) }, suspects))
    }

    /// Makes the names of an intent's tables durable where they are new.
    pub fn note(&self, store: &Store, intent: &Intent) -> Result<(), Error> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let every = intent.may_write_any.then_some(None);
        let written =
            intent.changes.tables().into_iter().chain(intent.may_write.iter().cloned().map(Some)).chain(every);
        let fresh: Vec<Option<QualifiedName>> = written.filter(|t| !tables.contains(t)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        tables.extend(fresh);
        self.write(store, &tables)
    }

    /// The log is on disk, whole.
    pub fn clear(&self, store: &Store) -> Result<(), Error> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.clear();
        self.write(store, &tables)
    }

    fn write(&self, store: &Store, tables: &BTreeSet<Option<QualifiedName>>) -> Result<(), Error> {
        store.meta_set(META, &serde_json::to_string(&(&self.boot, tables))?)
    }
}

fn doubtful(table: Option<QualifiedName>) -> Suspect {
    let reason = "the machine crashed, and with durability = \"os\" the last writes to it may be missing from the log";
    Suspect { table, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use pgshadow_model::{Backend, Changes, Epoch};

    fn intent(table: &str) -> Intent {
        Intent {
            epoch: Epoch(1),
            backend: Backend { pid: 1, cancel_key: Bytes::new() },
            xid: None,
            token: None,
            changes: Changes::default(),
            may_write: vec![QualifiedName::new("public", table)],
            may_write_any: false,
            suspects: Vec::new(),
            prepared: None,
        }
    }

    #[test]
    fn another_boot_makes_the_written_tables_suspect() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("f.redb")).unwrap();
        let (unsynced, suspects) = Unsynced::open(&store).unwrap();
        assert!(suspects.is_empty());
        unsynced.note(&store, &intent("a")).unwrap();
        unsynced.note(&store, &intent("b")).unwrap();
        unsynced.note(&store, &intent("a")).unwrap();
        assert!(Unsynced::open(&store).unwrap().1.is_empty(), "the same boot");
        let other = Unsynced { boot: "another".into(), tables: Mutex::new(BTreeSet::new()) };
        other.note(&store, &intent("c")).unwrap();
        let tables: Vec<_> = Unsynced::open(&store).unwrap().1.into_iter().map(|s| s.table.unwrap().name).collect();
        assert_eq!(tables, ["c"]);
        other.clear(&store).unwrap();
        assert!(Unsynced::open(&store).unwrap().1.is_empty());
    }
}
