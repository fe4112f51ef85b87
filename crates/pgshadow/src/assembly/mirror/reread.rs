//! What the applier reads again of the log.
use super::{Mirror, runs_beside};
use pgshadow_apply::{Entry, LogError, LogExtent, Payload, Vast};
use pgshadow_capture::Journal;
use pgshadow_mirror_log::{ReadError, Record};
use pgshadow_model::{Change, Changes, Lsn, Order, Outcome, Sequence};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

impl pgshadow_apply::Log for Mirror {
    fn extent(&self) -> LogExtent {
        self.extent.get().cloned().unwrap_or_default()
    }

    fn read(&self, sequence: Sequence) -> Result<Vec<Change>, LogError> {
        let (first, more) = self.logged(sequence)?;
        Ok(first.rest.into_iter().chain(more.rest).collect())
    }

    fn read_left(
        &self,
        outcome: Sequence,
        gate: Option<Lsn>,
        wanted: &dyn Fn(Sequence) -> bool,
    ) -> Result<Option<Entry>, LogError> {
        let committed = match self.read_record(outcome)? {
            Record::Outcome { of, flushed, outcome: Outcome::Committed { order: Some(order), changes, .. } } => {
                wanted(of).then_some((of, flushed, order, changes))
            }
            _ => return Err(LogError::from("not the outcome of a commit".to_owned())),
        };
        let Some((sequence, flushed, order, more)) = committed else { return Ok(None) };
        let Record::Intent(intent) = self.read_record(sequence)? else {
            return Err(LogError::from("not an intent".to_owned()));
        };
        let flushed = flushed || runs_beside(&intent.changes.rest);
        let flush_gate = if flushed { None } else { Some(self.gate_for(order, gate).ok_or(LogError::NotYet)?) };
        self.outcomes.insert(sequence, outcome);
        let reply_number = self.replies.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Entry { sequence, order, changes: payload(intent.changes, more), flush_gate, reply_number }))
    }

    fn read_part(&self, sequence: Sequence, mut part: usize) -> Result<Option<Vec<Change>>, LogError> {
        let (first, more) = self.logged(sequence)?;
        for changes in [first, more] {
            if let Some(spilled) = changes.spilled {
                if part < spilled.parts.len() {
                    let read = self.log.read_spilled(&spilled, part);
                    return read.map(Some).map_err(|error| LogError::Failed(Box::new(error)));
                }
                part -= spilled.parts.len();
            }
            if part == 0 {
                return Ok(Some(changes.rest));
            }
            part -= 1;
        }
        Ok(None)
    }

    fn let_go(&self, sequence: Sequence) {
        self.spilled.over(sequence, &self.log);
    }

    fn applied(&self, below: Sequence) {
        self.shadow_has.store(below, Ordering::SeqCst);
        self.outcomes.retain(|sequence, _| *sequence >= below);
        self.spilled.applied(below, &self.log);
        self.log.trim(self.trimmable(below));
    }

    fn marked(&self, mark: u64) {
        self.shadow_mark.store(mark, Ordering::SeqCst);
    }
}

impl Mirror {
    fn read_record(&self, at: Sequence) -> Result<Record, LogError> {
        match self.log.read(at) {
            Err(ReadError::NotWritten(_)) if self.log.status().poisoned.is_none() => Err(LogError::NotYet),
            read => read.map_err(|error| LogError::Failed(Box::new(error))),
        }
    }

    /// The changes of an intent and of its outcome, read again.
    fn logged(&self, sequence: Sequence) -> Result<(Changes, Changes), LogError> {
        let failed = |error: &str| LogError::from(error.to_owned());
        let Record::Intent(intent) = self.read_record(sequence)? else { return Err(failed("not an intent")) };
        let at = self.outcomes.get(&sequence).map(|o| *o);
        match self.read_record(at.ok_or_else(|| failed("its outcome isn't known"))?)? {
            Record::Outcome { of, outcome: Outcome::Committed { changes, .. }, .. } if of == sequence => {
                Ok((intent.changes, changes))
            }
            _ => Err(failed("its outcome can't be read")),
        }
    }

    /// A position that lies above a commit of this process's time or before it, which was not known to be flushed. `known`: one that
    /// was read for it.
    fn gate_for(&self, order: Order, known: Option<Lsn>) -> Option<Lsn> {
        if order.epoch != self.epoch() {
            // The life that could have said so is over: any gate of it is one that will never be known to be passed.
            return Some(Lsn(0));
        }
        let read = self.gate.lock().unwrap_or_else(PoisonError::into_inner).filter(|(epoch, _)| *epoch == order.epoch);
        let gate = known.or(read.map(|(_, lsn)| lsn));
        if gate.is_none() {
            self.gate_wanted.store(true, Ordering::Release);
        }
        gate
    }
}

/// All changes of a transaction, or what is known of them where they are too many to be held.
pub(super) fn payload(first: Changes, more: Changes) -> Payload {
    if first.spilled.is_none() && more.spilled.is_none() {
        let mut all = first.rest;
        all.extend(more.rest);
        return Payload::memory(all);
    }
    let mut vast = Vast { tables: first.tables().into_iter().chain(more.tables()).collect(), ..Vast::default() };
    for changes in [first, more] {
        vast.bytes += changes.bytes();
        vast.changes += changes.rest.len() as u64;
        if let Some(spilled) = changes.spilled {
            vast.defines |= spilled.defines;
            vast.changes += spilled.changes();
        }
        vast.defines |= changes.rest.iter().any(|change| matches!(change, Change::Ddl(_) | Change::Truncate(_)));
    }
    Payload::Vast(Arc::new(vast))
}
