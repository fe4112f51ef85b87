use crate::Error;
use crate::certificates::Lapses;
use crate::doubts::Doubts;
use crate::suspects::Cache;
use pgshadow_model::QualifiedName;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::Path;
use std::sync::{Mutex, RwLock};
use std::time::SystemTime;

/// Number of a finding -> JSON of it.
pub(crate) const FINDINGS: TableDefinition<u64, &[u8]> = TableDefinition::new("findings");
/// Fingerprint, table and key of a finding -> its number.
pub(crate) const BY_KEY: TableDefinition<&str, u64> = TableDefinition::new("findings_by_key");
/// Fingerprint and table -> JSON of the numbers of the examples kept.
pub(crate) const GROUPS: TableDefinition<&str, &[u8]> = TableDefinition::new("groups");
/// Sequence and position of a change -> number of its finding, and whether that occurrence is healed.
pub(crate) const ORIGINS: TableDefinition<(u64, u32), (u64, bool)> = TableDefinition::new("origins");
/// Suspect table and reason -> JSON.
pub(crate) const SUSPECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("suspects");
/// JSON of each table that was known to be equal after every table had become suspect.
pub(crate) const LIFTED: TableDefinition<&str, ()> = TableDefinition::new("lifted");
/// Table -> JSON of its certificate.
pub(crate) const CERTIFICATES: TableDefinition<&str, &[u8]> = TableDefinition::new("certificates");
/// Named texts.
pub(crate) const META: TableDefinition<&str, &str> = TableDefinition::new("meta");
/// Named numbers.
pub(crate) const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
/// Name of the text that keeps which tables aren't mirrored.
const EXCLUDED: &str = "excluded";
/// How the names of counters begin that count what isn't kept.
const UNCOUNTED: &str = "uncounted";

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Examples of one fingerprint and table.
    pub examples_per_group: usize,
    /// Findings at all.
    pub findings: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { examples_per_group: 20, findings: 10_000 }
    }
}

/// The store, open. Shared by reference: every call is a transaction of its own.
pub struct Store {
    pub(crate) database: Database,
    pub(crate) limits: Limits,
    pub(crate) suspects: RwLock<Cache>,
    pub(crate) lapses: Mutex<Lapses>,
    pub(crate) doubts: Mutex<Doubts>,
}

impl Store {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// Says in words for a DBA what is wrong with the file and what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path, Limits::default())
    }

    /// As [`Store::open`], with other limits.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(path: impl AsRef<Path>, limits: Limits) -> Result<Self, Error> {
        let path = path.as_ref();
        let damaged = |e: &Error| Error::Damaged { path: path.to_owned(), reason: e.to_string() };
        let (database, is_whole) = open_checked(path)?;
        let store = Self::of(database, limits).map_err(|e| damaged(&e))?;
        if !is_whole {
            store.suspect(None, "the store of findings was damaged, and is back at an older state", None)?;
        }
        Ok(store)
    }

    pub(crate) fn of(database: Database, limits: Limits) -> Result<Self, Error> {
        let (suspects, lapses, doubts) = (RwLock::default(), Mutex::default(), Mutex::default());
        let store = Self { database, limits, suspects, lapses, doubts };
        store.create_tables()?;
        store.load_suspects()?;
        Ok(store)
    }

    fn create_tables(&self) -> Result<(), Error> {
        let write = self.database.begin_write()?;
        write.open_table(FINDINGS)?;
        write.open_table(BY_KEY)?;
        write.open_table(GROUPS)?;
        write.open_table(ORIGINS)?;
        write.open_table(SUSPECTS)?;
        write.open_table(LIFTED)?;
        write.open_table(CERTIFICATES)?;
        write.open_table(META)?;
        write.open_table(COUNTERS)?;
        write.commit()?;
        Ok(())
    }

    /// A named text, as it was set last.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn meta_get(&self, name: &str) -> Result<Option<String>, Error> {
        let table = self.database.begin_read()?.open_table(META)?;
        Ok(table.get(name)?.map(|v| v.value().to_owned()))
    }

    /// Sets a named text; durable when it returns.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn meta_set(&self, name: &str, value: &str) -> Result<(), Error> {
        let write = self.database.begin_write()?;
        write.open_table(META)?.insert(name, value)?;
        write.commit()?;
        Ok(())
    }

    /// Tables that weren't mirrored when pgshadow was started last; `None`: it never was.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn excluded(&self) -> Result<Option<Vec<QualifiedName>>, Error> {
        Ok(self.meta_get(EXCLUDED)?.as_deref().map(serde_json::from_str).transpose()?)
    }

    /// Keeps which tables aren't mirrored.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn set_excluded(&self, tables: &[QualifiedName]) -> Result<(), Error> {
        self.meta_set(EXCLUDED, &serde_json::to_string(tables)?)
    }

    /// Rows that were healed, ever.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn healed_rows(&self) -> Result<u64, Error> {
        self.counter("healed_rows")
    }

    /// Counts healed rows that belong to no finding.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn add_healed_rows(&self, rows: u64) -> Result<(), Error> {
        let write = self.database.begin_write()?;
        add(&write, "healed_rows", rows)?;
        write.commit()?;
        Ok(())
    }

    /// Findings that were logged and counted but not kept, since the store was full of open ones.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn uncounted(&self) -> Result<u64, Error> {
        let table = self.database.begin_read()?.open_table(COUNTERS)?;
        let mut all = 0;
        for row in table.range(UNCOUNTED..)? {
            let (name, count) = row?;
            if !name.value().starts_with(UNCOUNTED) {
                break;
            }
            all += count.value();
        }
        Ok(all)
    }

    /// Those of rows of a table, or of none, are mended: it was found to be equal, or what differs was found again.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn forget_uncounted(&self, table: Option<&QualifiedName>) -> Result<(), Error> {
        let name = uncounted_of(table, true)?;
        if self.counter(&name)? > 0 {
            let write = self.database.begin_write()?;
            write.open_table(COUNTERS)?.remove(name.as_str())?;
            write.commit()?;
        }
        Ok(())
    }

    fn counter(&self, name: &str) -> Result<u64, Error> {
        let table = self.database.begin_read()?.open_table(COUNTERS)?;
        Ok(table.get(name)?.map_or(0, |v| v.value()))
    }
}

/// Opens the file and checks every page of it (it is small), since redb panics where it meets a damaged page later. False: it is back at an
/// older state.
fn open_checked(path: &Path) -> Result<(Database, bool), Error> {
    let opened = std::panic::catch_unwind(|| {
        let mut database = Database::create(path)?;
        let is_whole = database.check_integrity()?;
        if !is_whole {
            tracing::error!(path = %path.display(), "the store of findings was damaged and is back at an older state: \
                verify every table before a cutover");
        }
        Ok((database, is_whole))
    });
    match opened {
        Ok(opened) => opened.map_err(|e| Error::opening(path, &e)),
        Err(_) => Err(Error::Damaged { path: path.to_owned(), reason: "a page of it makes no sense".to_owned() }),
    }
}

/// The counter of a table's findings that aren't kept; `of_rows`: of rows that differ.
pub(crate) fn uncounted_of(table: Option<&QualifiedName>, of_rows: bool) -> Result<String, Error> {
    let of = table.map(serde_json::to_string).transpose()?.unwrap_or_default();
    Ok(format!("{UNCOUNTED} {} {of}", if of_rows { "rows" } else { "other" }))
}

pub(crate) fn add(write: &redb::WriteTransaction, name: &str, by: u64) -> Result<u64, Error> {
    let mut table = write.open_table(COUNTERS)?;
    let value = table.get(name)?.map_or(0, |v| v.value()).saturating_add(by);
    table.insert(name, value)?;
    Ok(value)
}

/// Now, RFC 3339 in UTC.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
