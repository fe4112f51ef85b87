use crate::certificates::{LapseOf, lapse_in};
use crate::store::{LIFTED, SUSPECTS, now};
use crate::{Error, Store};
use pgshadow_model::QualifiedName;
use redb::{ReadableDatabase, ReadableTable};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

/// A table that can no longer be taken as equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspectTable {
    /// The table; `None` means every table.
    pub table: Option<QualifiedName>,
    /// Why, in words for a DBA.
    pub reason: String,
    /// Since when, RFC 3339 UTC.
    pub since: String,
}

/// The first reason of each suspect table, since every applied row asks for it.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    every: Option<String>,
    /// Not among every table: known to be equal since.
    pub(crate) lifted: HashSet<QualifiedName>,
    tables: HashMap<QualifiedName, String>,
}

impl Cache {
    fn add(&mut self, suspect: &SuspectTable) {
        match &suspect.table {
            None => {
                self.lifted.clear();
                self.every.get_or_insert_with(|| suspect.reason.clone());
            }
            Some(t) => {
                self.tables.entry(t.clone()).or_insert_with(|| suspect.reason.clone());
            }
        }
    }
}

impl Store {
    /// Marks a table (`None`: every table) as suspect. The same reason again changes nothing. True if it is new.
    ///
    /// # Errors
    /// The file can't be written; nothing is marked then, so that another try is one.
    pub fn suspect(&self, table: Option<&QualifiedName>, reason: &str, since: Option<&str>) -> Result<bool, Error> {
        let suspect = SuspectTable {
            table: table.cloned(),
            reason: reason.to_owned(),
            since: since.map_or_else(now, str::to_owned),
        };
        // before it is looked whether it is known: what lifts a mark sees one or the other
        self.doubt(table);
        let key = serde_json::to_string(&(&suspect.table, reason))?;
        let known = self.database.begin_read()?.open_table(SUSPECTS)?.get(key.as_str())?.is_some();
        if known && (table.is_some() || self.lifted_tables().is_empty()) {
            return Ok(false);
        }
        self.note_lapse(&LapseOf::table(table), reason);
        let write = self.database.begin_write()?;
        write.open_table(SUSPECTS)?.insert(key.as_str(), serde_json::to_vec(&suspect)?.as_slice())?;
        if table.is_none() {
            write.open_table(LIFTED)?.retain(|_, ()| false)?;
        }
        lapse_in(&write, &[LapseOf::table(table)], reason)?;
        write.commit()?;
        self.suspects.write().unwrap_or_else(PoisonError::into_inner).add(&suspect);
        let shown = table.map_or_else(|| "every table".to_owned(), ToString::to_string);
        tracing::warn!(target: "pgshadow::suspect", table = shown, reason, "table is suspect");
        Ok(true)
    }

    /// Why this table is suspect, if it is: its first reason. Reads memory only.
    #[must_use]
    pub fn is_suspect(&self, table: &QualifiedName) -> Option<String> {
        let cache = self.suspects.read().unwrap_or_else(PoisonError::into_inner);
        let every = cache.every.as_ref().filter(|_| !cache.lifted.contains(table));
        cache.tables.get(table).or(every).cloned()
    }

    /// Tables that are known to be equal since every table became suspect.
    #[must_use]
    pub fn lifted_tables(&self) -> Vec<QualifiedName> {
        let cache = self.suspects.read().unwrap_or_else(PoisonError::into_inner);
        cache.lifted.iter().cloned().collect()
    }

    /// All of them, with every reason.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn suspects(&self) -> Result<Vec<SuspectTable>, Error> {
        let table = self.database.begin_read()?.open_table(SUSPECTS)?;
        let mut all = Vec::new();
        for row in table.iter()? {
            all.push(serde_json::from_slice(row?.1.value())?);
        }
        Ok(all)
    }

    pub(crate) fn load_suspects(&self) -> Result<(), Error> {
        let mut cache = Cache::default();
        for suspect in self.suspects()? {
            cache.add(&suspect);
        }
        for row in self.database.begin_read()?.open_table(LIFTED)?.iter()? {
            cache.lifted.insert(serde_json::from_str(row?.0.value())?);
        }
        *self.suspects.write().unwrap_or_else(PoisonError::into_inner) = cache;
        Ok(())
    }
}
