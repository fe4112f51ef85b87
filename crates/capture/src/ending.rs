//! The end of a transaction on its way to the server: deferred checks, the end token, the intent.
use crate::expected::{Expected, OwnRun, Purpose, QueryRun, SyncPurpose};
use crate::journal::Journal;
use crate::own;
use crate::plan::{Effect, Plan, Step};
use crate::session::{Output, Session, ToServer};
use bytes::Bytes;
use pgshadow_model::{Change, Changes, DdlStatement, Intent, Suspect, Xid};
use pgshadow_wire::frontend::{self};
use std::sync::Arc;

impl<J: Journal> Session<J> {
    pub(crate) fn end_block(&mut self, run: &mut QueryRun, chain: bool) {
        run.ends_unit = true;
        self.block = chain;
        if let Some(unit) = self.units.back_mut() {
            unit.closed = true;
        }
    }

    /// A Query outside a block commits by itself: its end statement is appended and its intent comes first.
    pub(crate) fn end_statement(
        &mut self,
        plan: &Plan,
        steps: &[Arc<Step>],
        run: &mut QueryRun,
        sent: Bytes,
        out: &mut Output,
    ) -> Bytes {
        let alone = steps.iter().any(|s| s.alone);
        let utf8 = self.identity.as_ref().is_none_or(|i| i.client_encoding == "UTF8");
        let Some(unit) = self.units.back_mut() else { return sent };
        unit.closed = true;
        if !unit.writes {
            return sent;
        }
        let mut text = sent;
        if let [step] = steps
            && matches!(step.effect, Effect::Beside { .. })
        {
            self.note_beside(step);
        } else if unit.needs_end() && !utf8 && !text.get(plan.end..).is_none_or(<[u8]>::is_ascii) {
            // the server refuses bytes that aren't of its encoding wherever they stand, and in its own words only as they stand
            let reason =
                "something that isn't ASCII stands behind the statement, where the end of its transaction is drawn";
            unit.give_up(reason);
            if unit.may_write_any() {
                unit.given_up.push(Suspect { table: None, reason: reason.to_owned() });
            }
            unit.ended = true;
        } else if unit.needs_end() && alone {
            let reason =
                "a procedure or block outside a transaction may have written it, where pgshadow can't see the rows"
                    .to_owned();
            unit.given_up.push(Suspect { table: None, reason });
            unit.ended = true;
        } else if unit.needs_end() {
            let mut longer = text.slice(..plan.end.min(text.len())).to_vec();
            if unit.deferrable {
                longer.extend_from_slice(format!("; {}", own::CHECK_CONSTRAINTS).as_bytes());
                run.suffix.push(Purpose::Constraints);
            }
            longer.extend_from_slice(format!("; {}", own::end_token(unit.hidden_writes)).as_bytes());
            run.suffix.push(Purpose::End { locks: unit.hidden_writes });
            text = Bytes::from(longer);
        }
        self.write_intent(out);
        text
    }

    /// What runs outside any transaction stands in its intent as a whole. Its place is the last one known before it: rows don't
    /// mind, and definitions that come later wait for it on the shadow.
    pub(crate) fn note_beside(&mut self, step: &Arc<Step>) {
        let Effect::Beside { sql } = &step.effect else { return };
        let (settings, token) = (self.settings_for(std::slice::from_ref(step)), self.shared.journal.latest());
        match (settings, self.units.back_mut()) {
            (Some(settings), Some(unit)) => {
                let change = DdlStatement { sql: sql.clone(), settings, in_transaction: false };
                unit.captured.push(Change::Ddl(change));
                (unit.token, unit.xid) = (Some(token), Some(Xid(0)));
            }
            _ => self.shared.journal.not_repeated(sql, "the settings of its session were not known"),
        }
    }

    /// What comes before the client's COMMIT in a Query: deferred checks, the end token, the intent.
    pub(crate) fn before_commit(&mut self, out: &mut Output) {
        let Some(unit) = self.units.back_mut() else { return };
        if unit.failed || !unit.writes {
            return;
        }
        if unit.needs_end() && self.identity.as_ref().is_some_and(|i| !i.may_draw) {
            self.declare_undrawn();
        } else if unit.needs_end() {
            self.own_end(out);
            out.server(frontend::sync());
            self.pending.push_back(Expected::Sync { ends_unit: false, purpose: SyncPurpose::BeforeCommit });
        }
        self.write_intent(out);
    }

    /// PREPARE TRANSACTION comes: what a COMMIT would do, but for the outcome.
    pub(crate) fn prepare_transaction(&mut self, gid: &str) {
        if let Some(unit) = self.units.back_mut() {
            unit.prepared = Some(gid.to_owned());
        }
    }

    /// COMMIT PREPARED comes: what it commits is durable in the log first.
    pub(crate) fn finishes_prepared(&self, gid: &str, out: &mut Output) {
        if let Some(sequence) = self.shared.journal.finishing_prepared(gid) {
            out.to_server.push_back(ToServer::Durable(sequence));
        }
    }

    /// Our statements at the end of a transaction, in the extended protocol.
    pub(crate) fn own_end(&mut self, out: &mut Output) {
        let Some(unit) = self.units.back() else { return };
        let (deferrable, locks) = (unit.deferrable, unit.hidden_writes);
        let mut send = |purpose: Purpose, sql: &str| {
            out.server(frontend::own_statement(own::NAME, sql.as_bytes(), None));
            self.pending.push_back(Expected::Own(OwnRun::new(purpose, frontend::OWN_STATEMENT_REPLIES)));
        };
        if deferrable {
            send(Purpose::Constraints, own::CHECK_CONSTRAINTS);
        }
        send(Purpose::End { locks }, &own::end_token(locks));
    }

    /// Writes the open unit's intent; what is sent next waits until it is durable.
    pub(crate) fn write_intent(&mut self, out: &mut Output) {
        let epoch = self.shared.journal.epoch();
        let backend = self.backend.clone();
        let Some(unit) = self.units.back_mut() else { return };
        if unit.intent.is_some() || unit.failed {
            return;
        }
        // what an unanswered ROLLBACK TO leaves isn't known yet
        let complete = unit.outstanding == 0 && !unit.needs_end() && unit.undoing == 0;
        let changes = if unit.undoing == 0 { unit.captured.take() } else { Ok(Changes::default()) };
        let changes = unit.or_give_up(changes).unwrap_or_default();
        let intent = Intent {
            epoch,
            backend,
            xid: unit.xid,
            token: unit.token.filter(|_| complete),
            changes,
            may_write: if complete { Vec::new() } else { unit.may_write.iter().cloned().collect() },
            may_write_any: unit.may_write_any() && !complete,
            suspects: unit.all_suspects(&*self.shared.journal),
            prepared: unit.prepared.clone(),
        };
        let (changes, result) = self.shared.journal.intent(intent);
        if unit.undoing == 0 {
            unit.captured.logged(changes);
        } else {
            unit.captured.log_nothing();
        }
        match result {
            Ok(sequence) => {
                unit.intent = Some(sequence);
                out.to_server.push_back(ToServer::Durable(sequence));
            }
            Err(_) => unit.unmirrored = true,
        }
    }

    /// Whether the open batch holds a statement that nothing can be appended to (CALL and DO may end the transaction).
    pub(crate) fn batch_alone(&self) -> bool {
        self.pending
            .iter()
            .rev()
            .take_while(|e| !matches!(e, Expected::Sync { .. } | Expected::Query(_)))
            .any(|e| matches!(e, Expected::Execute(run) if run.step.alone))
    }

    /// The role may not ask for the place of what another one, which the session had before, has written.
    pub(crate) fn declare_undrawn(&mut self) {
        if let Some(unit) = self.units.back_mut() {
            let reason = "the role that committed it may not ask for its place in the order of transactions";
            unit.give_up(reason);
            if unit.may_write_any() {
                unit.given_up.push(Suspect { table: None, reason: reason.to_owned() });
            }
            unit.ended = true;
        }
    }

    pub(crate) fn declare_alone(&mut self) {
        if let Some(unit) = self.units.back_mut() {
            let reason =
                "a procedure or block outside a transaction may have written it, where pgshadow can't see the rows"
                    .to_owned();
            unit.given_up.push(Suspect { table: None, reason });
            unit.ended = true;
        }
    }

    /// COMMIT or ROLLBACK stands in a batch without BEGIN: what was written ahead of it is settled by that, or by the batch's end,
    /// which may be another; that depends on the server's version, the minor one included.
    pub(crate) fn declare_ended_batch(&mut self) {
        if let Some(unit) = self.units.back_mut() {
            let reason = "COMMIT or ROLLBACK stood in its batch without BEGIN: what of it was committed isn't known";
            unit.give_up(reason);
            if unit.may_write_any() {
                unit.given_up.push(Suspect { table: None, reason: reason.to_owned() });
            }
            (unit.ended, unit.may_commit, unit.ran_committing) = (true, true, true);
        }
    }
}
