//! Suspect tables, written down so that no failure of the store loses one.
use super::mirror::Mirror;
use pgshadow_divergence::Error;
use pgshadow_mirror_log::Record;
use pgshadow_model::{QualifiedName, Suspect};
use pgshadow_telemetry::Counter;
use std::sync::PoisonError;

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
        let known = suspect.table.as_ref().and_then(|t| self.store.is_suspect(t));
        if known.as_ref() == Some(&suspect.reason) {
            return Ok(());
        }
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        if unwritten.contains(suspect) {
            return Ok(());
        }
        let Err(error) = self.write_suspect(suspect) else { return Ok(()) };
        tracing::error!(%error, reason = suspect.reason, "the store doesn't take a suspect table: the log has to");
        match self.append_synced(&Record::Suspects(vec![suspect.clone()])) {
            Ok(()) => unwritten.push(suspect.clone()),
            Err(refused) if self.stop(&format!("{}; {error}; {refused}", suspect.reason)) => {}
            Err(_) => return Err(error),
        }
        Ok(())
    }

    fn write_suspect(&self, suspect: &Suspect) -> Result<(), Error> {
        if self.store.suspect(suspect.table.as_ref(), &suspect.reason, None)? {
            Counter::Suspects.add(1);
        }
        Ok(())
    }

    /// Whether the log may be trimmed: not while it alone knows of a suspect table.
    pub fn suspects_are_written(&self) -> bool {
        // whoever holds it writes one at present, perhaps to a log that is full until it is trimmed: the next time will do
        let Ok(mut unwritten) = self.unwritten.try_lock() else { return false };
        unwritten.retain(|suspect| self.write_suspect(suspect).is_err());
        unwritten.is_empty()
    }
}

impl pgshadow_apply::Suspects for Mirror {
    fn is_suspect(&self, table: &QualifiedName) -> Option<String> {
        self.store.is_suspect(table)
    }

    fn suspect(&self, table: Option<&QualifiedName>, reason: &str) -> Result<(), Error> {
        self.keep_suspect(&Suspect { table: table.cloned(), reason: reason.to_owned() })
    }
}
