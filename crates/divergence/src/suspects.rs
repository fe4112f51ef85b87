use crate::certificates::{LapseOf, lapse_in};
use crate::store::{SUSPECTS, now};
use crate::{Error, Store};
use pgshadow_model::QualifiedName;
use redb::{ReadableDatabase, ReadableTable};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
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
    tables: HashMap<QualifiedName, String>,
}

impl Cache {
    fn add(&mut self, suspect: &SuspectTable) {
        match &suspect.table {
            None => {
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
        let key = serde_json::to_string(&(&suspect.table, reason))?;
        if self.database.begin_read()?.open_table(SUSPECTS)?.get(key.as_str())?.is_some() {
            return Ok(false);
        }
        self.note_lapse(&LapseOf::table(table), reason);
        let write = self.database.begin_write()?;
        write.open_table(SUSPECTS)?.insert(key.as_str(), serde_json::to_vec(&suspect)?.as_slice())?;
        lapse_in(&write, &LapseOf::table(table), reason)?;
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
        cache.tables.get(table).or(cache.every.as_ref()).cloned()
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

    /// The table is known to be equal again (`None`: lifts the mark that meant every table). True if it was suspect.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn clear_suspect(&self, table: Option<&QualifiedName>) -> Result<bool, Error> {
        let write = self.database.begin_write()?;
        let mut cleared = false;
        {
            let mut rows = write.open_table(SUSPECTS)?;
            let mut gone = Vec::new();
            for row in rows.iter()? {
                let (key, value) = row?;
                let suspect: SuspectTable = serde_json::from_slice(value.value())?;
                if suspect.table.as_ref() == table {
                    gone.push(key.value().to_owned());
                }
            }
            for key in gone {
                cleared |= rows.remove(key.as_str())?.is_some();
            }
        }
        write.commit()?;
        self.load_suspects()?;
        Ok(cleared)
    }

    pub(crate) fn load_suspects(&self) -> Result<(), Error> {
        let mut cache = Cache::default();
        for suspect in self.suspects()? {
            cache.add(&suspect);
        }
        *self.suspects.write().unwrap_or_else(PoisonError::into_inner) = cache;
        Ok(())
    }
}
