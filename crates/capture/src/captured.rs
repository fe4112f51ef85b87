//! What a transaction is known to have changed so far: at hand, or, where that is much, written out.
use crate::journal::{Spill, SpillRefused};
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

    /// Writes out what is at hand. `begin`: where, for the first time.
    pub fn spill(&mut self, begin: impl FnOnce() -> Result<Box<dyn Spill>, SpillRefused>) -> Result<(), SpillRefused> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => self.spill.insert(begin()?),
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

#[cfg(test)]
mod tests {
    use super::*;
    use pgshadow_model::{DdlStatement, SessionSettings, Truncate};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    /// A file in memory: parts by their offsets, as far as they weren't cut or written over.
    #[derive(Debug, Default)]
    struct File {
        parts: Mutex<BTreeMap<u64, Vec<Change>>>,
        kept: Mutex<bool>,
    }

    #[derive(Debug)]
    struct Writer(Arc<File>, u64, bool);

    impl Spill for Writer {
        fn number(&self) -> u64 {
            7
        }

        fn write(&mut self, changes: &[Change]) -> Result<SpilledPart, SpillRefused> {
            if self.2 {
                return Err(SpillRefused("the disk is full".to_owned()));
            }
            let part = SpilledPart { offset: self.1, length: 100, changes: u32::try_from(changes.len()).unwrap() };
            self.0.parts.lock().unwrap().insert(self.1, changes.to_vec());
            self.1 += 100;
            Ok(part)
        }

        fn read(&self, part: SpilledPart) -> Result<Vec<Change>, SpillRefused> {
            self.0.parts.lock().unwrap().get(&part.offset).cloned().ok_or(SpillRefused("gone".to_owned()))
        }

        fn cut(&mut self, offset: u64) {
            self.0.parts.lock().unwrap().retain(|at, _| *at < offset);
            self.1 = self.1.min(offset);
        }

        fn keep(&mut self) -> Result<(), SpillRefused> {
            *self.0.kept.lock().unwrap() = true;
            Ok(())
        }
    }

    fn change(n: u32) -> Change {
        let (sql, settings) = (n.to_string(), SessionSettings::default());
        if n.is_multiple_of(5) {
            return Change::Truncate(Truncate { tables: vec![QualifiedName::new("s", "t")], sql, settings });
        }
        Change::Ddl(DdlStatement { sql, settings, in_transaction: true })
    }

    fn read(file: &File, changes: &Changes) -> Vec<Change> {
        let parts = file.parts.lock().unwrap();
        let spilled = changes.spilled.iter().flat_map(|spilled| &spilled.parts);
        let spilled = spilled.flat_map(|part| {
            let changes = &parts[&part.offset];
            assert_eq!(changes.len(), part.changes as usize);
            changes.clone()
        });
        spilled.chain(changes.rest.clone()).collect()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u32),
        Spill,
        Truncate(usize),
        Log,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (1..9_u32).prop_map(Step::Push),
            3 => Just(Step::Spill),
            2 => (0..40_usize).prop_map(Step::Truncate),
            1 => Just(Step::Log),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_list_whatever_is_written_out(steps in prop::collection::vec(step(), 1..40), whole in any::<bool>()) {
            let file = Arc::new(File::default());
            let (mut captured, mut model, mut logged) = (Captured::default(), Vec::new(), None);
            let begin = || -> Result<Box<dyn Spill>, SpillRefused> { Ok(Box::new(Writer(Arc::clone(&file), 0, false))) };
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        next += 1;
                        captured.push(change(next));
                        model.push(change(next));
                    },
                    Step::Spill => captured.spill(begin).unwrap(),
                    Step::Truncate(len) => {
                        captured.truncate(len).unwrap();
                        model.truncate(len.max(logged.unwrap_or(0)));
                    }
                    Step::Log if logged.is_none() => {
                        let changes = captured.take().unwrap();
                        prop_assert_eq!(read(&file, &changes), model.clone());
                        captured.logged(changes);
                        logged = Some(model.len());
                    }
                    Step::Log => {}
                }
                prop_assert_eq!(captured.len(), model.len());
                prop_assert_eq!(captured.has_unlogged(), model.len() > logged.unwrap_or(0));
            }
            let all = if whole {
                let all = captured.all().unwrap();
                read(&file, &all)
            } else {
                let (first, more) = captured.finish().unwrap();
                prop_assert_eq!(read(&file, &first).len(), logged.unwrap_or(0));
                prop_assert!(first.spilled.is_none() && more.spilled.is_none() || *file.kept.lock().unwrap());
                read(&file, &first).into_iter().chain(read(&file, &more)).collect()
            };
            prop_assert_eq!(all, model);
        }
    }

    #[test]
    fn what_can_not_be_written_out_can_be_given_up() {
        let file = Arc::new(File::default());
        let mut captured = Captured::default();
        captured.push(change(1));
        let changes = captured.take().unwrap();
        captured.logged(changes);
        captured.push(change(2));
        let refused = captured.spill(|| Ok(Box::new(Writer(Arc::clone(&file), 0, true))));
        assert!(refused.is_err() && captured.len() == 2, "nothing is gone yet");
        captured.give_up();
        let (logged, more) = captured.finish().unwrap();
        assert_eq!((logged.rest, more), (vec![change(1)], Changes::default()));
    }
}
