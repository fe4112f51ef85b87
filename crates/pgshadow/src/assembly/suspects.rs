//! Suspect tables, written down so that no failure of the store loses one.
use super::mirror::Mirror;
use pgshadow_divergence::{Error, LapseOf};
use pgshadow_mirror_log::{AppendError, Record};
use pgshadow_model::{QualifiedName, Sequence, Suspect};
use pgshadow_telemetry::Counter;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Suspect tables that the store doesn't take.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// Held while one is written down, so that who asks for the same one waits for it.
    keeping: Mutex<()>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    list: Vec<Suspect>,
    /// Records from here on name them all.
    from: Sequence,
    /// The record that names them all again, until it is on disk.
    renewed: Option<Sequence>,
}

impl Unwritten {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mirror {
    /// As [`Mirror::keep_suspect`]; where that fails mirroring has stopped at least.
    pub fn keep_suspects(&self, suspects: &[Suspect]) {
        for suspect in suspects {
            if let Err(error) = self.keep_suspect(suspect) {
                tracing::error!(%error, reason = suspect.reason, "a suspect table could not be written down");
            }
        }
    }

    /// Makes a table suspect, durably: in the store; else in the log, which the next start reads; else by the stop mark, which
    /// makes every table suspect.
    pub fn keep_suspect(&self, suspect: &Suspect) -> Result<(), Error> {
        // before it is looked whether it is known: what lifts a mark sees one or the other
        self.store.doubt(suspect.table.as_ref());
        let known = suspect.table.as_ref().and_then(|t| self.store.is_suspect(t));
        if known.as_ref() == Some(&suspect.reason) {
            return Ok(());
        }
        let _one_at_a_time = self.unwritten.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        if self.unwritten.lock().list.contains(suspect) {
            return Ok(());
        }
        let Err(error) = self.write_suspect(suspect) else { return Ok(()) };
        tracing::error!(%error, reason = suspect.reason, "the store doesn't take a suspect table: the log has to");
        match self.keep_in_log(suspect) {
            Ok(()) => Ok(()),
            Err(refused) if self.stop(&format!("{}; {error}; {refused}", suspect.reason)) => Ok(()),
            Err(_) => Err(error),
        }
    }

    fn write_suspect(&self, suspect: &Suspect) -> Result<(), Error> {
        if self.store.suspect(suspect.table.as_ref(), &suspect.reason, None)? {
            Counter::Suspects.add(1);
        }
        Ok(())
    }

    /// Certificates aren't valid any more, for a reason that doesn't make a table suspect.
    pub fn lapse(&self, of: &[LapseOf], reason: &str) {
        if let Err(error) = self.store.lapse(of, reason, false) {
            tracing::error!(%error, reason, "certificates have lapsed, but that could not be written down");
        }
    }

    /// The same, and there may be other tables from now on.
    pub fn redefined(&self, of: &[LapseOf], reason: &str) {
        if let Err(error) = self.store.lapse(of, reason, true) {
            tracing::error!(%error, reason, "certificates have lapsed, but that could not be written down");
        }
    }

    pub fn keep_in_log(&self, suspect: &Suspect) -> Result<(), AppendError> {
        {
            let mut held = self.unwritten.lock();
            if held.list.is_empty() {
                held.from = self.log.position();
            }
            held.list.push(suspect.clone());
        }
        let written = self.append_synced(&Record::Suspects(vec![suspect.clone()]));
        if written.is_err() {
            self.unwritten.lock().list.retain(|s| s != suspect);
        }
        written
    }

    /// How far the log may be trimmed: what it alone knows of is appended again before it goes.
    pub fn trimmable(&self, below: Sequence) -> Sequence {
        let mut held = self.unwritten.lock();
        held.list.retain(|suspect| self.write_suspect(suspect).is_err());
        if held.list.is_empty() {
            held.renewed = None;
            return below;
        }
        if let Some(at) = held.renewed.filter(|at| *at <= self.log.status().synced_sequence) {
            (held.from, held.renewed) = (at, None);
        }
        if below > held.from && held.renewed.is_none() {
            // refused for the moment, it is tried again the next time
            held.renewed = self.log.append(Record::Suspects(held.list.clone())).ok();
        }
        below.min(held.from)
    }
}

impl pgshadow_apply::Suspects for Mirror {
    fn is_suspect(&self, table: &QualifiedName) -> Option<String> {
        self.store.is_suspect(table)
    }

    fn doubt(&self, table: Option<&QualifiedName>) {
        self.store.doubt(table);
    }

    fn suspect(&self, table: Option<&QualifiedName>, reason: &str) -> Result<(), Error> {
        self.keep_suspect(&Suspect { table: table.cloned(), reason: reason.to_owned() })
    }
}
