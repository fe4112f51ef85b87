use crate::{AskedFor, Functions, Redefined, Seen, Table};
use dashmap::{DashMap, DashSet};
use pgshadow_model::QualifiedName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::Notify;

/// Entries kept before the cache is emptied: bounds its memory where names are generated.
const TABLES_MAX: usize = 20_000;

/// Prepared transactions remembered; others are taken as defining anything.
const PREPARED_MAX: usize = 10_000;

/// Identity key and name as SQL text.
type Question = (String, String);
/// Catalog epoch of the answer, and the table if there is one.
type Answer = (u64, Option<Arc<Table>>);

/// What sessions have found, shared among those that would find the same.
#[derive(Debug, Default)]
pub struct Catalog {
    epoch: AtomicU64,
    /// Raised by what may have changed functions and the like.
    definitions: AtomicU64,
    /// Raised by that, and when they have been loaded.
    functions_version: AtomicU64,
    defined: Notify,
    tables: DashMap<Question, Answer>,
    /// Names that were looked up, whoever asked, and when last.
    names: DashMap<String, u64>,
    /// Names of which a plain look has not told enough.
    involved: DashSet<String>,
    /// Prepared transactions that define nothing.
    undefining: DashSet<String>,
    functions: RwLock<Arc<Functions>>,
    seen: Mutex<Seen>,
}

impl Catalog {
    /// Number of the catalog's present state: raised by every DDL that went through.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The catalog changed, or may have: nothing found before is used any more. `redefined`: what functions and the like do that
    /// may have changed as well.
    pub fn changed(&self, redefined: &Redefined) {
        if !redefined.is_nothing() {
            let mut held = self.functions.write().unwrap_or_else(PoisonError::into_inner);
            let before = self.definitions.fetch_add(1, Ordering::AcqRel);
            if let Redefined::Names { names, refused } = redefined {
                if held.are_of(before) {
                    *held = Arc::new(held.doubting(names, before + 1));
                }
                if *refused {
                    Arc::make_mut(&mut held).note_refused(names, before + 1);
                }
            }
            drop(held);
            self.functions_version.fetch_add(1, Ordering::AcqRel);
            self.defined.notify_one();
        }
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.tables.clear();
        self.names.clear();
    }

    /// Definitions of these tables (`None`: of something that isn't known) have come through pgshadow.
    pub fn seen_to_define(&self, tables: &BTreeSet<Option<QualifiedName>>, redefined: &Redefined) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).add(tables, redefined);
    }

    /// What the definitions named that have come since this was last asked.
    #[must_use]
    pub fn take_seen(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A transaction was prepared; `defines`: by its end definitions change.
    pub fn prepared(&self, gid: &str, defines: bool) {
        if defines || self.undefining.len() >= PREPARED_MAX {
            // one of that name may have been ended past pgshadow
            self.undefining.remove(gid);
        } else {
            self.undefining.insert(gid.to_owned());
        }
    }

    /// A prepared transaction is committed, or rolled back: what it defined, if it isn't known to define nothing, is there now.
    pub fn finished(&self, gid: &str) {
        if self.undefining.remove(gid).is_none() {
            self.redefined();
        }
    }

    /// What came through pgshadow has defined something, and it isn't known what.
    pub fn redefined(&self) {
        self.seen_to_define(&BTreeSet::new(), &Redefined::Anything);
        self.changed(&Redefined::Anything);
    }

    /// Number of the functions' present state, as [`Functions`] are loaded for.
    #[must_use]
    pub fn definitions(&self) -> u64 {
        self.definitions.load(Ordering::Acquire)
    }

    /// Another number for each time that functions changed or were loaded: what was concluded from them is old then.
    #[must_use]
    pub fn functions_version(&self) -> u64 {
        self.functions_version.load(Ordering::Acquire)
    }

    /// Until functions may have changed.
    pub async fn defined(&self) {
        self.defined.notified().await;
    }

    /// What a session with this identity key found under `name`; `None` if nobody has looked yet.
    #[must_use]
    pub fn table(&self, identity: &str, name: &str) -> Option<Option<Arc<Table>>> {
        let found = self.tables.get(&(identity.to_owned(), name.to_owned()))?;
        let (epoch, table) = found.value();
        (*epoch == self.epoch()).then(|| table.clone())
    }

    /// What has been found, by who asked for it: those who find the same asked for these names. Without what only some sessions find
    /// (`session_replication_role` is another one), and without names that may be in an encoding of their own.
    #[must_use]
    pub fn asked_for(&self) -> Vec<AskedFor> {
        let epoch = self.epoch();
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in self.tables.iter().filter(|entry| entry.value().0 == epoch && entry.key().1.is_ascii()) {
            let (identity, name) = entry.key();
            all.entry(identity.clone()).or_default().push(name.clone());
        }
        all.into_iter().filter_map(|(identity, names)| AskedFor::of(&identity, names)).collect()
    }

    /// Keeps what a session found at catalog epoch `epoch` (as it was before it asked).
    pub fn keep(&self, epoch: u64, identity: &str, name: &str, table: Option<Arc<Table>>) {
        if self.tables.len() >= TABLES_MAX {
            self.tables.clear();
            self.names.clear();
        }
        self.names.insert(name.to_owned(), epoch);
        self.tables.insert((identity.to_owned(), name.to_owned()), (epoch, table));
    }

    /// Whether all these names have been looked up, by sessions that may have been others: who this one is will tell if it is to
    /// find the same.
    #[must_use]
    pub fn has_all(&self, names: &[String]) -> bool {
        let epoch = self.epoch();
        names.iter().all(|name| self.names.get(name).is_some_and(|looked| *looked == epoch))
    }

    /// A plain look has not told enough of what has this name, nor will the next one.
    pub fn note_involved(&self, name: &str) {
        if self.involved.len() >= TABLES_MAX {
            self.involved.clear();
        }
        self.involved.insert(name.to_owned());
    }

    /// Whether a plain look may tell enough of these names.
    #[must_use]
    pub fn are_plain(&self, names: &[String]) -> bool {
        !names.iter().any(|name| self.involved.contains(name))
    }

    /// The functions known at present.
    #[must_use]
    pub fn functions(&self) -> Arc<Functions> {
        Arc::clone(&self.functions.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The functions known at present, and the number of the state that they would have to be of: read together, since another
    /// session's definition may come between two readings.
    #[must_use]
    pub fn functions_now(&self) -> (Arc<Functions>, u64) {
        let held = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&held), self.definitions())
    }

    /// Replaces the known functions, unless they have changed since these were loaded and it is known which: then they are about
    /// to be loaded again.
    pub fn set_functions(&self, mut functions: Functions) {
        let mut held = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        let now = self.definitions();
        functions.note_refused_since(&held);
        if functions.are_of(now) || !held.are_of(now) {
            *held = Arc::new(functions);
        }
        drop(held);
        self.functions_version.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe;

    #[test]
    fn a_prepared_transaction_that_defines_nothing_changes_nothing() {
        let catalog = Catalog::default();
        catalog.prepared("a", false);
        catalog.finished("a");
        assert_eq!((catalog.epoch(), catalog.definitions()), (0, 0));
        // ended past pgshadow, and then another one under its name
        catalog.prepared("b", false);
        catalog.prepared("b", true);
        for (gid, state) in [("a", 1), ("b", 2)] {
            catalog.finished(gid);
            assert_eq!((catalog.epoch(), catalog.definitions()), (state, state), "{gid}");
        }
    }

    #[test]
    fn it_is_told_who_asked_for_what() {
        let catalog = Catalog::default();
        let identity = |role: &str, replication: &str| {
            probe::tests::identity(&serde_json::json!({
                "role": role, "schemas": ["pg_catalog", "a\"b"], "session_replication_role": replication
            }))
            .key()
        };
        catalog.keep(0, &identity("old", "origin"), "\"gone\"", None);
        catalog.changed(&Redefined::Nothing);
        catalog.keep(1, &identity("app", "origin"), "\"t\"", None);
        catalog.keep(1, &identity("app", "replica"), "\"u\"", None);
        catalog.keep(1, &identity("app", "origin"), "\"\u{e4}\"", None);
        let asked = catalog.asked_for();
        let [asked] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!((&asked.role[..], &asked.row_security[..]), ("app", "on"));
        assert_eq!(
            (&asked.schemas[..], &asked.names[..]),
            (&["pg_catalog", "a\"b"].map(String::from)[..], &["\"t\"".into()][..])
        );
    }

    #[test]
    fn functions_that_come_late_leave_what_is_known_since() {
        let catalog = Catalog::default();
        let known = |name: &str| {
            catalog.functions().nature(Some(catalog.definitions()), None, name) == crate::FunctionNature::Harmless
        };
        catalog.set_functions(Functions::of(0, &["reads", "others"]));
        assert!(known("reads") && known("others"));
        catalog.changed(&Redefined::names(["reads".to_owned()].into()));
        catalog.set_functions(Functions::of(0, &["reads", "others"]));
        assert!(!known("reads") && known("others"));
        catalog.set_functions(Functions::of(1, &["reads", "others"]));
        assert!(known("reads") && known("others"));
        catalog.changed(&Redefined::Anything);
        assert!(!known("others"));
        catalog.set_functions(Functions::of(1, &["reads", "others"]));
        assert!(!known("others"));
    }
}
