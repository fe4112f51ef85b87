use crate::store::{CERTIFICATES, META, now};
use crate::{Error, Store};
use pgshadow_model::{Finding, Kind, QualifiedName};
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

/// Name of the text that says whether all tables were verified: this word, or why not.
const WHOLE: &str = "certificate_whole";

/// That a table was equal on both sides, and whether it has stayed so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCertificate {
    /// The table.
    pub table: QualifiedName,
    /// Its rows in the snapshot.
    pub rows: u64,
    /// Bytes of these as texts.
    pub bytes: u64,
    /// Their hash, hexadecimal.
    pub hash: String,
    /// What the primary's snapshot saw, as `txid_current_snapshot()` writes it.
    pub snapshot: String,
    /// When the verify began, RFC 3339 UTC.
    pub started: String,
    /// When it ended.
    pub ended: String,
    /// Why it isn't valid any more, or never was.
    pub lapsed: Option<String>,
    /// Since when.
    pub lapsed_at: Option<String>,
}

/// Whose certificates lapse.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LapseOf {
    /// Every table's.
    Every,
    /// This table's.
    Table(QualifiedName),
    /// Those of tables with this name in any schema.
    Named(String),
}

impl LapseOf {
    pub(crate) fn table(table: Option<&QualifiedName>) -> Self {
        table.map_or(Self::Every, |table| Self::Table(table.clone()))
    }

    fn covers(&self, table: &QualifiedName) -> bool {
        match self {
            Self::Every => true,
            Self::Table(one) => one == table,
            Self::Named(name) => *name == table.name,
        }
    }
}

/// What made certificates lapse, for a verify that runs and doesn't know of it.
#[derive(Debug, Default)]
pub(crate) struct Lapses {
    number: u64,
    last: HashMap<LapseOf, (u64, String)>,
    /// When definitions changed last: there may be other tables since.
    redefined: (u64, String),
}

/// All certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Certificates {
    /// Of each table that was verified, by name.
    pub tables: Vec<TableCertificate>,
    /// Why these aren't all tables that there are; `None`: they are.
    pub not_whole: Option<String>,
}

impl Store {
    fn lapses(&self) -> MutexGuard<'_, Lapses> {
        self.lapses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be read before a snapshot is taken, for [`Store::certify`].
    #[must_use]
    pub fn lapse_mark(&self) -> u64 {
        self.lapses().number
    }

    /// Keeps a table's certificate, with the mark that was read before its snapshot was taken: what made it lapse since then, makes it lapse too.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn certify(&self, mark: u64, mut certificate: TableCertificate) -> Result<(), Error> {
        // held to the end: what lapses meanwhile finds it written
        let lapses = self.lapses();
        let since = lapses.last.iter().filter(|(of, (n, _))| *n > mark && of.covers(&certificate.table));
        if let Some((_, (_, reason))) = since.min_by_key(|(_, (number, _))| *number)
            && certificate.lapsed.is_none()
        {
            (certificate.lapsed, certificate.lapsed_at) = (Some(reason.clone()), Some(now()));
        }
        let write = self.database.begin_write()?;
        let key = serde_json::to_string(&certificate.table)?;
        write.open_table(CERTIFICATES)?.insert(key.as_str(), serde_json::to_vec(&certificate)?.as_slice())?;
        write.commit()?;
        Ok(())
    }

    /// These were all tables that there were, at a snapshot before which this mark was read: certificates of others go.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn certify_whole(&self, mark: u64, tables: &[QualifiedName]) -> Result<(), Error> {
        let lapses = self.lapses();
        let write = self.database.begin_write()?;
        let keys = tables.iter().map(serde_json::to_string).collect::<Result<HashSet<String>, _>>()?;
        write.open_table(CERTIFICATES)?.retain(|key, _| keys.contains(key))?;
        let (number, reason) = &lapses.redefined;
        let known = if *number > mark { reason.as_str() } else { WHOLE };
        write.open_table(META)?.insert(WHOLE, known)?;
        write.commit()?;
        Ok(())
    }

    /// All of them, by table.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn certificates(&self) -> Result<Certificates, Error> {
        let read = self.database.begin_read()?;
        let mut tables = Vec::new();
        for row in read.open_table(CERTIFICATES)?.iter()? {
            tables.push(serde_json::from_slice(row?.1.value())?);
        }
        let whole = read.open_table(META)?.get(WHOLE)?.map(|text| text.value().to_owned());
        let not_whole = match whole {
            Some(text) if text == WHOLE => None,
            Some(reason) => Some(reason),
            None => Some("not all tables were verified".to_owned()),
        };
        Ok(Certificates { tables, not_whole })
    }

    /// Certificates aren't valid any more, for a reason that neither makes a table suspect nor is a finding. The first reason stays.
    /// `redefines`: there may be other tables from now on.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn lapse(&self, of: &[LapseOf], reason: &str, redefines: bool) -> Result<(), Error> {
        of.iter().for_each(|of| self.note_lapse(of, reason));
        if redefines {
            let mut lapses = self.lapses();
            lapses.number += 1;
            lapses.redefined = (lapses.number, reason.to_owned());
        } else {
            // it may be told again and again
            let (kept, covers) = (self.certificates()?, covered(of));
            let is_valid = |c: &TableCertificate| c.lapsed.is_none() && covers(&c.table);
            if !kept.tables.iter().any(is_valid) {
                return Ok(());
            }
        }
        let write = self.database.begin_write()?;
        lapse_in(&write, of, reason)?;
        if redefines {
            let mut meta = write.open_table(META)?;
            let was_whole = meta.get(WHOLE)?.is_some_and(|text| text.value() == WHOLE);
            if was_whole {
                meta.insert(WHOLE, reason)?;
            }
        }
        write.commit()?;
        Ok(())
    }

    /// A verify that runs is to know of it. Before a transaction of the store begins, never inside.
    pub(crate) fn note_lapse(&self, of: &LapseOf, reason: &str) {
        let mut lapses = self.lapses();
        lapses.number += 1;
        let number = lapses.number;
        lapses.last.insert(of.clone(), (number, reason.to_owned()));
    }
}

/// Whether one of these covers a table, of which there may be many.
fn covered(of: &[LapseOf]) -> impl Fn(&QualifiedName) -> bool {
    let tables: HashSet<&QualifiedName> =
        of.iter().filter_map(|of| if let LapseOf::Table(table) = of { Some(table) } else { None }).collect();
    let others: Vec<&LapseOf> = of.iter().filter(|of| !matches!(of, LapseOf::Table(_))).collect();
    move |table| tables.contains(table) || others.iter().any(|of| of.covers(table))
}

pub(crate) fn lapse_in(write: &WriteTransaction, of: &[LapseOf], reason: &str) -> Result<(), Error> {
    let covers = covered(of);
    let mut rows = write.open_table(CERTIFICATES)?;
    let mut lapsed = Vec::new();
    for row in rows.iter()? {
        let (key, value) = row?;
        let mut certificate: TableCertificate = serde_json::from_slice(value.value())?;
        if certificate.lapsed.is_none() && covers(&certificate.table) {
            (certificate.lapsed, certificate.lapsed_at) = (Some(reason.to_owned()), Some(now()));
            lapsed.push((key.value().to_owned(), serde_json::to_vec(&certificate)?));
        }
    }
    for (key, value) in lapsed {
        rows.insert(key.as_str(), value.as_slice())?;
    }
    Ok(())
}

/// Why a finding makes a certificate lapse, if it does: rows were found to differ, not only the way of an answer.
pub(crate) fn lapses_by(finding: &Finding) -> Option<String> {
    let of_rows = matches!(
        finding.kind,
        Kind::MissingRow | Kind::ExtraRow | Kind::Value | Kind::ErrorShadowOnly | Kind::ErrorPrimaryOnly | Kind::Schema
    );
    let what = finding.message.as_deref().unwrap_or("a finding");
    of_rows.then(|| what.to_owned())
}
