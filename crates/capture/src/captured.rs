//! What a transaction is known to have changed so far: at hand, or, where that is much, written out.
use crate::journal::{Journal, Spill, SpillRefused};
use pgshadow_model::{Change, Changes, QualifiedName, Spilled, SpilledPart};
use std::collections::BTreeSet;

/// What a transaction holds in memory at most, roughly, before it is written out.
pub(crate) const HELD_BYTES: usize = 1 << 20;

/// The changes of one transaction in order, each with its number. Those that its intent holds can't be taken back.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    /// Those that the intent holds, and how many they are.
    logged: Changes,
    logged_len: usize,
    spill: Option<Box<dyn Spill>>,
    /// Behind those: parts that are written out, each with the number of its first change.
    parts: Vec<(usize, SpilledPart)>,
    /// All that was ever written out names these.
    tables: BTreeSet<Option<QualifiedName>>,
    defines: bool,
    /// Behind those, with the number of the first one.
    tail: Vec<Change>,
    tail_from: usize,
    tail_bytes: usize,
}

impl Captured {
    pub fn len(&self) -> usize {
        self.tail_from + self.tail.len()
    }

    /// Whether there is more than the intent holds.
    pub fn has_unlogged(&self) -> bool {
        self.len() > self.logged_len
    }

    pub fn push(&mut self, change: Change) {
        self.tail_bytes += change.memory_bytes();
        self.tail.push(change);
    }

    /// Whether it is time to write out what is at hand.
    pub fn is_large(&self) -> bool {
        self.tail_bytes > HELD_BYTES
    }

    /// Writes out what is at hand.
    pub fn spill(&mut self, journal: &impl Journal) -> Result<(), SpillRefused> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => self.spill.insert(journal.spill()?),
        };
        let part = spill.write(&self.tail)?;
        self.parts.push((self.tail_from, part));
        self.tables.extend(self.tail.iter().flat_map(Change::tables));
        self.defines |= self.tail.iter().any(|change| matches!(change, Change::Ddl(_) | Change::Truncate(_)));
        self.tail_from += self.tail.len();
        (self.tail, self.tail_bytes) = (Vec::new(), 0);
        Ok(())
    }

    /// Takes back all from this one on, but for what the intent holds.
    pub fn truncate(&mut self, len: usize) -> Result<(), SpillRefused> {
        let len = len.max(self.logged_len);
        while len < self.tail_from
            && let (Some((from, part)), Some(spill)) = (self.parts.pop(), &mut self.spill)
        {
            self.tail = if from < len { spill.read(part)? } else { Vec::new() };
            self.tail_from = from;
            spill.cut(part.offset);
        }
        self.tail.truncate(len.saturating_sub(self.tail_from));
        self.tail_bytes = self.tail.iter().map(Change::memory_bytes).sum();
        Ok(())
    }

    /// Takes back all but what the intent holds; that can't fail.
    pub fn give_up(&mut self) {
        if let (Some((_, first)), Some(spill)) = (self.parts.first(), &mut self.spill) {
            spill.cut(first.offset);
        }
        self.parts.clear();
        (self.tail, self.tail_bytes, self.tail_from) = (Vec::new(), 0, self.logged_len);
    }

    /// For the intent, which holds them from now on ([`Captured::logged`]).
    pub fn take(&mut self) -> Result<Changes, SpillRefused> {
        let spilled = self.kept()?;
        self.parts.clear();
        self.tail_bytes = 0;
        Ok(Changes { spilled, rest: std::mem::take(&mut self.tail) })
    }

    /// The intent has them.
    pub fn logged(&mut self, changes: Changes) {
        self.logged_len = changes.spilled.as_ref().map_or(0, |s| usize::try_from(s.changes()).unwrap_or(usize::MAX))
            + changes.rest.len();
        self.tail_from = self.logged_len;
        self.logged = changes;
    }

    /// The intent holds none of them.
    pub fn log_nothing(&mut self) {
        (self.logged, self.logged_len) = (Changes::default(), 0);
    }

    /// Those of the intent, and those behind.
    pub fn finish(&mut self) -> Result<(Changes, Changes), SpillRefused> {
        let logged = std::mem::take(&mut self.logged);
        match self.take() {
            Ok(more) => Ok((logged, more)),
            Err(refused) => {
                self.logged = logged;
                Err(refused)
            }
        }
    }

    /// All of them, for an intent that takes the place of the one before.
    pub fn all(&mut self) -> Result<Changes, SpillRefused> {
        let (mut logged, more) = self.finish()?;
        let Some(mut behind) = more.spilled else {
            logged.rest.extend(more.rest);
            return Ok(logged);
        };
        // Parts come in any order; what the intent had at hand becomes one between them.
        let mut parts = logged.spilled.map_or_else(Vec::new, |spilled| spilled.parts);
        if let (false, Some(spill)) = (logged.rest.is_empty(), &mut self.spill) {
            behind.tables.extend(logged.rest.iter().flat_map(Change::tables));
            behind.defines |= logged.rest.iter().any(|change| matches!(change, Change::Ddl(_) | Change::Truncate(_)));
            parts.push(spill.write(&logged.rest)?);
            spill.keep()?;
        }
        parts.append(&mut behind.parts);
        Ok(Changes { spilled: Some(Spilled { parts, ..behind }), rest: more.rest })
    }

    fn kept(&mut self) -> Result<Option<Spilled>, SpillRefused> {
        let Some(spill) = self.spill.as_mut().filter(|_| !self.parts.is_empty()) else { return Ok(None) };
        spill.keep()?;
        let parts = self.parts.iter().map(|(_, part)| *part).collect();
        Ok(Some(Spilled { file: spill.number(), parts, tables: self.tables.clone(), defines: self.defines }))
    }
}
