//! One transaction of a session, from its first statement to its outcome.
use crate::captured::Captured;
use crate::journal::{Journal, SpillRefused};
use crate::locked::Finished;
use crate::own::End;
use crate::plan::{Control, Effect, Step};
use pgshadow_catalog::Redefined;
use pgshadow_model::{Change, Changes, Epoch, Lsn, QualifiedName, Sequence, Suspect, Xid};
use pgshadow_telemetry::StatementClass;
use std::collections::{BTreeSet, HashSet};

/// One transaction: a block from BEGIN to COMMIT, or what runs between two Syncs, or one Query outside a block.
#[derive(Debug, Default)]
pub(crate) struct Unit {
    /// It is a block: only COMMIT ends it.
    pub explicit: bool,
    /// The server has opened that block.
    pub begun: bool,
    /// Something was sent that may write a mirrored table.
    pub writes: bool,
    /// Tables that statements sent so far may write.
    pub may_write: BTreeSet<QualifiedName>,
    /// Statements were sent whose hidden writes must be looked for at the end.
    pub hidden_writes: bool,
    /// They may also reach tables whose rows are captured.
    pub hidden_anywhere: bool,
    /// Not only beside a COPY whose rows are read back.
    pub hidden_others: bool,
    /// Tables that a COPY was the first to write, with nothing unseen before it.
    pub copied_first: BTreeSet<QualifiedName>,
    /// What the DDL sent so far changes (`None`: not a table, or not known).
    pub defines: BTreeSet<Option<QualifiedName>>,
    /// Statements that aren't repeated, and why: reported if it commits.
    pub not_repeated: Vec<(String, &'static str)>,
    /// Tables that go on under another name if it commits.
    pub renames: Vec<(QualifiedName, QualifiedName)>,
    /// A statement was sent that may commit what it did and fail all the same.
    pub may_commit: bool,
    /// Such a statement has run to its end.
    pub ran_committing: bool,
    /// ROLLBACK TO was sent and not answered: what of the changes will stand isn't known.
    pub undoing: usize,
    /// A statement's own token isn't enough: draw one at the end.
    pub end_token: bool,
    /// A deferrable constraint may be checked at commit.
    pub deferrable: bool,
    /// DDL was sent that others will see.
    pub ddl: bool,
    /// What functions and the like do may be something else for others, if it commits; for this session already.
    pub code: Redefined,
    /// Any DDL was sent: the catalog's own tables are locked by right.
    pub catalog: bool,
    /// Its end was sent: what is sent now belongs to the next unit.
    pub closed: bool,
    /// Names or settings may have changed; they change again if it rolls back.
    pub session_changed: bool,
    /// Life of the primary in which it was opened.
    pub epoch: Epoch,
    /// The intent's number, once it is written.
    pub intent: Option<Sequence>,
    /// Mirroring had stopped when the intent was due.
    pub unmirrored: bool,
    /// It ends in PREPARE TRANSACTION with this gid.
    pub prepared: Option<String>,
    /// Writes whose answers haven't come yet.
    pub outstanding: usize,
    /// One that is over, and that is looked at before its rows are taken up.
    pub finished: Option<Box<Finished>>,

    /// Captured so far, in order.
    pub captured: Captured,
    /// What becomes suspect by its commit, unless a savepoint takes it back.
    pub suspects: Vec<Suspect>,
    /// What becomes suspect by its commit whatever is taken back: changes of before were let go.
    pub given_up: Vec<Suspect>,
    pub token: Option<Lsn>,
    pub xid: Option<Xid>,
    pub barrier: Sequence,
    /// The end token was drawn.
    pub ended: bool,
    /// Its COMMIT failed by itself.
    pub end_failed: bool,
    /// A statement of the unit failed (outside a block: the unit rolls back).
    pub failed: bool,
    pub savepoints: Vec<Savepoint>,
}

/// A savepoint, with how much there was of what it takes back.
#[derive(Debug)]
pub(crate) struct Savepoint {
    name: String,
    captured: usize,
    suspects: usize,
    not_repeated: usize,
    renames: usize,
}

impl Unit {
    /// Notes what a statement that is about to be sent may do.
    pub fn sent(&mut self, step: &Step) {
        if self.refuses(step) {
            return;
        }
        if let Some(look) = step.look_back() {
            let table = &look.write.table;
            if self.hidden_others || table.tree.iter().any(|t| self.may_write.contains(t)) {
                self.copied_first.remove(&table.relation.name);
            } else {
                self.copied_first.insert(table.relation.name.clone());
            }
        } else {
            // a cascade, too, writes tables that no statement names
            let fires = matches!(&step.effect, Effect::Write(write) if write.all().any(|w| w.table.triggers));
            self.hidden_others |= step.hidden_writes || fires;
        }
        self.session_changed |= step.changes_session;
        self.hidden_writes |= step.hidden_writes;
        self.hidden_anywhere |= step.hidden_anywhere;
        self.may_commit |= step.may_commit;
        self.ddl |= step.may_define;
        self.code.add(&step.redefines());
        self.writes |= step.hidden_writes;
        self.catalog |= step.class == StatementClass::Ddl;
        match &step.effect {
            Effect::Write(write) => {
                self.writes = true;
                self.outstanding += 1;
                self.may_write.extend(write.trees().cloned());
                self.end_token |= write.all().any(|write| write.table.triggers);
                self.deferrable |= write.all().any(|write| write.table.deferrable);
            }
            Effect::Copy { table, .. } => {
                self.writes = true;
                self.outstanding += 1;
                self.may_write.extend(table.tree.iter().cloned());
                self.end_token = true;
                self.deferrable |= table.deferrable;
            }
            Effect::LookBack(look) => {
                let table = &look.write.table;
                self.writes = true;
                self.outstanding += 1;
                self.may_write.extend(table.tree.iter().cloned());
                self.deferrable |= table.deferrable;
            }
            Effect::Truncate { tables, .. } => {
                self.writes = true;
                self.outstanding += 1;
                self.may_write.extend(tables.iter().cloned());
                self.end_token = true;
            }
            Effect::Ddl { suspects, tables, .. } => {
                self.writes = true;
                self.ddl = true;
                self.end_token = true;
                self.may_write.extend(suspects.iter().filter_map(|s| s.table.clone()));
                self.may_write.extend(tables.iter().flatten().cloned());
                self.defines.extend(tables.iter().cloned());
            }
            Effect::Opaque(suspects) => {
                self.writes = true;
                self.may_write.extend(suspects.iter().filter_map(|s| s.table.clone()));
            }
            Effect::Control(Control::Begin) => self.explicit = true,
            // what failed before it may stand again; COMMIT's tag will tell
            Effect::Control(Control::RollbackTo(_)) => {
                self.failed = false;
                self.undoing += 1;
            }
            Effect::Beside { .. } => {
                self.writes = true;
                self.ddl = true;
            }
            Effect::NotRepeated { .. } => self.ddl = true,
            _ => {}
        }
    }

    /// Whether the server will refuse a statement, whatever it is: the transaction has failed, and nothing is on its way that could
    /// let it stand again. Its tables can't be looked up then, and it would count as one that may write anything.
    fn refuses(&self, step: &Step) -> bool {
        self.failed && self.undoing == 0 && !matches!(step.effect, Effect::Control(_))
    }

    /// Whether something must be asked before it commits.
    pub fn needs_end(&self) -> bool {
        self.writes && !self.ended && (self.end_token || self.hidden_writes)
    }

    /// Takes up what a finished statement did.
    pub fn done(&mut self, changes: impl IntoIterator<Item = Change>, suspects: &[Suspect]) {
        changes.into_iter().for_each(|change| self.captured.push(change));
        self.suspects.extend_from_slice(suspects);
    }

    /// Writes out what it holds where that has become much. False if it had to be given up.
    pub fn spill(&mut self, journal: &impl Journal) -> bool {
        let spilled = if self.captured.is_large() { self.captured.spill(|| journal.spill()) } else { Ok(()) };
        self.or_give_up(spilled).is_some()
    }

    /// What was written out and can't be had makes its tables suspect.
    pub fn or_give_up<T>(&mut self, result: Result<T, SpillRefused>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(refused) => {
                tracing::error!(%refused, "a large transaction is not mirrored");
                self.give_up(&format!("a transaction too large for memory could not be written out: {refused}"));
                None
            }
        }
    }

    /// Takes back what was captured from here on.
    pub fn take_back(&mut self, len: usize) {
        let taken = self.captured.truncate(len);
        self.or_give_up(taken);
    }

    /// What its intent holds, and what is known beyond that.
    pub fn all_changes(&mut self) -> (Changes, Changes) {
        let all = self.captured.finish();
        self.or_give_up(all).or_else(|| self.captured.finish().ok()).unwrap_or_default()
    }

    /// Its images are let go; every table that it may have written becomes suspect.
    pub fn give_up(&mut self, reason: &str) {
        self.captured.give_up();
        for table in self.may_write.iter().cloned().map(Some).chain(self.defines.iter().cloned()) {
            let suspect = Suspect { table, reason: reason.to_owned() };
            if !self.given_up.contains(&suspect) {
                self.given_up.push(suspect);
            }
        }
    }

    /// All that becomes suspect by its commit, as far as it is known: what is suspect and gets another name is so under that too.
    pub fn all_suspects(&self, journal: &impl Journal) -> Vec<Suspect> {
        let mut all: Vec<Suspect> = self.suspects.iter().chain(&self.given_up).cloned().collect();
        for (old, new) in &self.renames {
            let known = journal.is_suspect(old);
            let own = all.iter().filter(|s| s.table.as_ref() == Some(old)).map(|s| s.reason.clone());
            let renamed: Vec<_> = own.chain(known).map(|reason| Suspect { table: Some(new.clone()), reason }).collect();
            all.extend(renamed);
        }
        all
    }

    /// Whether it may have written tables that `may_write` doesn't name.
    pub fn may_write_any(&self) -> bool {
        self.hidden_writes && !self.ended || self.defines.contains(&None)
    }

    /// The token and xid of a written row.
    pub fn drew(&mut self, xid: Xid, token: Lsn) {
        self.xid = Some(xid);
        self.token = self.token.max(Some(token));
    }

    /// The end token, and what the locks tell; `excluded` are the tables that aren't mirrored.
    pub fn end(&mut self, end: End, excluded: &HashSet<QualifiedName>) {
        self.ended = true;
        self.xid = self.xid.or(end.xid);
        self.token = self.token.max(Some(end.token));
        let wrote = end.xid.is_some();
        let Some(locks) = end.locks.filter(|_| wrote) else { return };
        let catalog_changed = locks.iter().any(|t| t.schema == "pg_catalog" && t.name == "pg_class");
        if catalog_changed && !self.catalog {
            let reason = "a function or block changed the catalog: what it made or changed isn't known".to_owned();
            self.suspects.push(Suspect { table: None, reason });
            (self.ddl, self.code) = (true, Redefined::Anything);
        }
        for table in locks {
            let system = table.schema == "pg_catalog" && table.name != "pg_largeobject" || table.schema == "pg_toast";
            let seen = self.may_write.contains(&table);
            if !system && !excluded.contains(&table) && (!seen || self.hidden_anywhere) {
                let reason = if seen {
                    "a trigger, a function or a block may have written it beside the rows that pgshadow saw".to_owned()
                } else {
                    "it was written by a trigger, a function or a block, where pgshadow can't see the rows".to_owned()
                };
                self.suspects.push(Suspect { table: Some(table), reason });
            }
        }
    }

    /// SAVEPOINT, RELEASE and ROLLBACK TO went through.
    pub fn savepoint(&mut self, control: &Control) {
        match control {
            Control::Savepoint(name) => self.savepoints.push(Savepoint {
                name: name.clone(),
                captured: self.captured.len(),
                suspects: self.suspects.len(),
                not_repeated: self.not_repeated.len(),
                renames: self.renames.len(),
            }),
            Control::Release(name) => {
                if let Some(at) = self.savepoints.iter().rposition(|s| s.name == *name) {
                    self.savepoints.truncate(at);
                }
            }
            Control::RollbackTo(name) => {
                self.undoing = self.undoing.saturating_sub(1);
                self.failed = false;
                if let Some(at) = self.savepoints.iter().rposition(|s| s.name == *name) {
                    self.savepoints.truncate(at + 1);
                    if let Some(savepoint) = self.savepoints.last() {
                        self.suspects.truncate(savepoint.suspects);
                        self.not_repeated.truncate(savepoint.not_repeated);
                        self.renames.truncate(savepoint.renames);
                        self.take_back(savepoint.captured);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgshadow_model::{DdlStatement, SessionSettings};

    fn change(n: usize) -> Change {
        let settings = SessionSettings::default();
        Change::Ddl(DdlStatement { sql: n.to_string(), settings, in_transaction: true })
    }

    #[test]
    fn savepoints_take_changes_back() {
        let mut unit = Unit::default();
        unit.done([change(1)], &[]);
        unit.savepoint(&Control::Savepoint("a".into()));
        unit.done([change(2)], &[]);
        unit.savepoint(&Control::Savepoint("a".into()));
        unit.done([change(3)], &[]);
        unit.savepoint(&Control::RollbackTo("a".into()));
        assert_eq!(unit.captured.len(), 2);
        unit.savepoint(&Control::RollbackTo("a".into()));
        unit.savepoint(&Control::Release("a".into()));
        unit.savepoint(&Control::RollbackTo("a".into()));
        assert_eq!(unit.captured.finish().unwrap().1.rest, vec![change(1)]);
    }

    #[test]
    fn locks_name_what_was_written_unseen() {
        let mut unit = Unit { writes: true, hidden_writes: true, ..Unit::default() };
        unit.may_write.insert(QualifiedName::new("public", "seen"));
        let locks = Some(vec![QualifiedName::new("public", "seen"), QualifiedName::new("public", "audit")]);
        unit.end(End { xid: Some(Xid(5)), token: Lsn(9), locks: locks.clone() }, &HashSet::new());
        assert_eq!(unit.suspects.len(), 1);
        assert_eq!(unit.suspects[0].table, Some(QualifiedName::new("public", "audit")));
        let mut unit = Unit { hidden_anywhere: true, ..unit };
        unit.suspects.clear();
        unit.end(
            End { xid: Some(Xid(5)), token: Lsn(9), locks },
            &HashSet::from([QualifiedName::new("public", "audit")]),
        );
        assert_eq!(unit.suspects.len(), 1);
        assert_eq!(unit.suspects[0].table, Some(QualifiedName::new("public", "seen")));
    }

    #[test]
    fn a_failed_transaction_writes_nothing_until_it_is_taken_back() {
        let unknown = Step::unknown(StatementClass::Other);
        let back =
            Step { effect: Effect::Control(Control::RollbackTo("a".into())), ..Step::none(StatementClass::Other) };
        let mut unit = Unit { explicit: true, failed: true, ..Unit::default() };
        unit.sent(&unknown);
        assert!(!unit.writes && !unit.hidden_writes && !unit.hidden_anywhere);
        unit.sent(&back);
        // the answer to what was sent ahead of it
        unit.failed = true;
        unit.sent(&unknown);
        assert!(unit.writes && unit.hidden_writes && unit.hidden_anywhere);
    }

    #[test]
    fn what_was_given_up_stays_so_after_rollback_to() {
        let mut unit = Unit::default();
        unit.may_write.insert(QualifiedName::new("public", "t"));
        unit.savepoint(&Control::Savepoint("a".into()));
        unit.give_up("too large");
        unit.savepoint(&Control::RollbackTo("a".into()));
        assert_eq!(unit.given_up.len(), 1);
    }
}
