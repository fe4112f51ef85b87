use crate::store::{LIFTED, SUSPECTS};
use crate::suspects::SuspectTable;
use crate::{Error, Store};
use pgshadow_model::QualifiedName;
use redb::ReadableTable;
use std::collections::{HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

/// When each table was doubted last, by number: told again and again, where the mark itself is written down once.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    number: u64,
    every: u64,
    tables: HashMap<QualifiedName, u64>,
}

impl Doubts {
    fn since(&self, table: &QualifiedName, mark: u64) -> bool {
        self.every > mark || self.tables.get(table).is_some_and(|last| *last > mark)
    }
}

impl Store {
    fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be read before a snapshot is taken that shows the table to be equal, for [`Store::lift`].
    #[must_use]
    pub fn doubt_mark(&self) -> u64 {
        self.doubts().number
    }

    /// Something may have changed this table (`None`: any) in a way that isn't known. To be told each time, also of a table that is
    /// suspect already, and before it is looked whether it is. Reads and writes memory only; it waits while a mark is lifted.
    pub fn doubt(&self, table: Option<&QualifiedName>) {
        let mut doubts = self.doubts();
        doubts.number += 1;
        let number = doubts.number;
        match table {
            None => doubts.every = number,
            Some(table) => match doubts.tables.get_mut(table) {
                Some(last) => *last = number,
                None => drop(doubts.tables.insert(table.clone(), number)),
            },
        }
    }

    /// These tables were equal in a snapshot that was taken after `mark` was read: those that nothing has doubted since are suspect no
    /// more. `whole`: they are all tables that there are. Gives those that stay suspect; of these `over` is no reason any more, if there is
    /// another one.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn lift(
        &self,
        tables: &[QualifiedName],
        mark: u64,
        whole: bool,
        over: Option<&str>,
    ) -> Result<Vec<QualifiedName>, Error> {
        // held to the end: a doubt that comes meanwhile finds the mark gone, and makes another one
        let doubts = self.doubts();
        let (stay, lifted): (Vec<_>, Vec<_>) = tables.iter().cloned().partition(|table| doubts.since(table, mark));
        let every = whole && stay.is_empty() && doubts.every <= mark;
        let write = self.database.begin_write()?;
        {
            let mut marks = write.open_table(SUSPECTS)?;
            let (mut gone, mut ended, mut kept, mut of_every) = (Vec::new(), Vec::new(), HashSet::new(), false);
            for row in marks.iter()? {
                let (key, value) = row?;
                let suspect: SuspectTable = serde_json::from_slice(value.value())?;
                of_every |= suspect.table.is_none();
                match suspect.table {
                    None if every => gone.push(key.value().to_owned()),
                    Some(table) if lifted.contains(&table) => gone.push(key.value().to_owned()),
                    Some(table) if stay.contains(&table) && over == Some(&*suspect.reason) => {
                        ended.push((key.value().to_owned(), table));
                    }
                    table => drop(kept.insert(table)),
                }
            }
            let has_other = |table: &QualifiedName| kept.contains(&None) || kept.contains(&Some(table.clone()));
            gone.extend(ended.into_iter().filter(|(_, table)| has_other(table)).map(|(key, _)| key));
            for key in gone {
                marks.remove(key.as_str())?;
            }
            let mut known = write.open_table(LIFTED)?;
            if every {
                known.retain(|_, ()| false)?;
            } else if of_every {
                for table in &lifted {
                    known.insert(serde_json::to_string(table)?.as_str(), ())?;
                }
            }
        }
        write.commit()?;
        self.load_suspects()?;
        drop(doubts);
        Ok(stay)
    }
}
