//! ReadyForQuery, and the outcome of a transaction.
use crate::expected::{Expected, OwnRun, Purpose, SyncPurpose};
use crate::journal::{Journal, Settled, Unsettled};
use crate::own::NAME;
use crate::session::{Hold, Output, Session};
use crate::unit::Unit;
use pgshadow_catalog::Redefined;
use pgshadow_model::{Changes, Intent, Sequence, Suspect};
use pgshadow_telemetry::Counter;
use pgshadow_wire::{Frame, frontend};

impl<J: Journal> Session<J> {
    pub(crate) fn ready(&mut self, frame: Frame, out: &mut Output) {
        self.status = frame.body().first().copied().unwrap_or(b'I');
        let (mut forward, mut piece, mut again) = (true, false, false);
        match self.pending.pop_front() {
            Some(Expected::Query(run)) => {
                if let Some(held) = run.held.filter(|_| !run.failed) {
                    out.client(held);
                }
                if run.ends_unit {
                    self.finish_front();
                }
                if run.failed && !run.last_piece {
                    self.pieces.clear();
                }
                forward = (run.last_piece || run.failed) && !run.again;
                piece = !run.last_piece && !run.failed;
                again = run.again;
            }
            Some(Expected::Sync { ends_unit, purpose }) => {
                if ends_unit {
                    self.finish_front();
                }
                forward = matches!(purpose, SyncPurpose::Client | SyncPurpose::RollBack);
                again = purpose == SyncPurpose::Again;
                self.syncs_answered += u64::from(again || purpose == SyncPurpose::Client);
                if purpose == SyncPurpose::Probe {
                    return self.resume(out);
                }
            }
            Some(Expected::Syncs { last, passed }) => return self.sync_amid_copy(last, passed, frame, out),
            Some(Expected::FunctionCall { .. }) | None => {}
            Some(other) => {
                // an answer that doesn't fit: this session can't be followed any more
                self.pending.push_front(other);
                self.lose_track("the server's answers did not fit what was sent");
            }
        }
        // not yet: our own Sync ahead of the COMMIT that was failed
        if forward && std::mem::take(&mut self.roll_back_at_ready) && self.status != b'I' {
            return self.roll_back(out);
        }
        if self.pending.is_empty() {
            self.settle_state();
            if !self.block {
                self.portals.clear();
                self.pages.clear();
            }
        }
        if again {
            return self.take_again(out);
        }
        if piece || forward {
            self.report(piece, out);
        }
        if piece {
            return self.next_piece(out);
        }
        if forward {
            out.client(frame.bytes);
            self.turn_pages(out);
        }
        if self.pending.is_empty() && matches!(self.hold, Hold::Ready) {
            self.hold = Hold::Free;
        }
        if matches!(self.hold, Hold::Answers(_)) && !self.awaits_ready() {
            self.resume(out);
        }
    }

    /// The server's word on whether a block is open is the last one.
    pub(crate) fn settle_state(&mut self) {
        self.block = self.status != b'I';
        if !self.block
            && let Some(mut unit) = self.units.pop_front()
        {
            // a COMMIT that fails rolls back
            if !(unit.end_failed && unit.failed) {
                // its end went unseen
                unit.give_up("the end of its transaction was not seen");
                if unit.hidden_writes {
                    let reason = "the end of a transaction was not seen".to_owned();
                    unit.given_up.push(Suspect { table: None, reason });
                }
                unit.failed = false;
            }
            self.finish(unit);
            self.units.clear();
        }
        if self.block && self.units.is_empty() {
            let (failed, epoch) = (self.status == b'E', self.shared.journal.epoch());
            self.units.push_back(Unit { explicit: true, begun: true, failed, epoch, ..Unit::default() });
        }
    }

    /// Ends a block that only our own statement's failure left open. Not by a Query, which would take the client's unnamed
    /// statement with it.
    pub(crate) fn roll_back(&mut self, out: &mut Output) {
        // that of the statement which failed is still there
        out.server(frontend::close_portal(NAME));
        out.server(frontend::own_statement(NAME, b"ROLLBACK", None));
        let (purpose, left) = (Purpose::RollBack, 1 + frontend::OWN_STATEMENT_REPLIES);
        self.pending.push_back(Expected::Own(OwnRun::new(purpose, left)));
        out.server(frontend::sync());
        self.pending.push_back(Expected::Sync { ends_unit: true, purpose: SyncPurpose::RollBack });
        self.hold = Hold::Ready;
    }

    pub(crate) fn resume(&mut self, out: &mut Output) {
        if let Hold::Probe(frame) | Hold::Answers(frame) | Hold::Copy(frame) =
            std::mem::replace(&mut self.hold, Hold::Free)
        {
            if frame.tag == 0 {
                self.next_piece(out);
            } else {
                self.take(frame, out);
            }
        }
    }

    pub(crate) fn finish_front(&mut self) {
        if let Some(unit) = self.units.pop_front() {
            self.finish(unit);
        }
    }

    /// A unit is over: its outcome is known.
    pub(crate) fn finish(&mut self, mut unit: Unit) {
        // what commits by itself inside may stand although the whole failed
        let committed = !unit.failed || unit.may_commit;
        if unit.session_changed {
            self.forget_identity();
        }
        let redefined = if committed { std::mem::take(&mut unit.code) } else { Redefined::Nothing };
        let defines = unit.ddl || !redefined.is_nothing();
        if defines {
            self.shared.catalog.seen_to_define(&unit.defines, &redefined);
            self.shared.catalog.changed(&redefined);
        }
        if let (true, Some(gid)) = (committed, &unit.prepared) {
            self.shared.catalog.prepared(gid, defines);
        }
        if unit.failed && unit.may_commit {
            unit.give_up("it failed after it may have committed a part of what it wrote");
        } else if committed && unit.needs_end() {
            unit.give_up("the end of its transaction was not drawn");
            if unit.hidden_writes {
                let reason = "what a function or block wrote was not looked for".to_owned();
                unit.given_up.push(Suspect { table: None, reason });
            }
        }
        if unit.ended && unit.xid.is_none() {
            // no transaction id was given: nothing was written (DROP TABLE IF EXISTS of what isn't there)
            unit.captured.give_up();
        }
        if committed && unit.captured.has_unlogged() && Self::order(&unit, unit.epoch).is_none() {
            unit.give_up("its place in the order of transactions isn't known");
        }
        if committed {
            for (sql, reason) in &unit.not_repeated {
                self.shared.journal.not_repeated(sql, reason);
            }
        }
        let Some(sequence) = unit.intent else { return self.finish_unlogged(unit, committed) };
        if !committed {
            Counter::TransactionsRolledBack.add(1);
            return self.shared.journal.settle(aborted(sequence));
        }
        if let Some(gid) = unit.prepared.take() {
            return self.finish_prepare(unit, gid, sequence);
        }
        let order = Self::order(&unit, self.shared.journal.epoch());
        let (intent_changes, changes) = unit.all_changes();
        let suspects = unit.all_suspects(&*self.shared.journal);
        self.shared.journal.settle(Settled {
            sequence,
            barrier: unit.barrier,
            flushed: self.flushes(),
            committed,
            order,
            intent_changes,
            changes,
            suspects,
        });
    }

    /// A transaction is prepared. All of it is known now: it is written down again, so that a restart knows it as well.
    fn finish_prepare(&mut self, mut unit: Unit, gid: String, first: Sequence) {
        let journal = &self.shared.journal;
        let changes = unit.captured.all();
        let changes = unit.or_give_up(changes).unwrap_or_default();
        let suspects = unit.all_suspects(&*self.shared.journal);
        let order = Self::order(&unit, journal.epoch());
        let complete = Intent {
            epoch: journal.epoch(),
            backend: self.backend.clone(),
            xid: unit.xid,
            token: unit.token,
            changes,
            may_write: Vec::new(),
            may_write_any: false,
            suspects: suspects.clone(),
            prepared: Some(gid.clone()),
        };
        let epoch = complete.epoch;
        let (intent_changes, written) = journal.intent(complete);
        journal.settle(aborted(first));
        let Ok(sequence) = written else {
            unit.give_up("mirroring had stopped when it was written");
            return journal.suspect(unit.all_suspects(&*self.shared.journal));
        };
        journal.prepared(
            gid.clone(),
            Unsettled {
                sequence,
                epoch,
                order,
                barrier: unit.barrier,
                backend: self.backend.clone(),
                intent_changes,
                changes: Changes::default(),
                complete: true,
                may_write: Vec::new(),
                may_write_any: false,
                suspects,
                prepared: Some(gid),
            },
        );
    }

    pub(crate) fn finish_unlogged(&mut self, mut unit: Unit, committed: bool) {
        if !committed {
            return;
        }
        if unit.unmirrored {
            unit.give_up("mirroring had stopped when it was written");
        } else if unit.writes {
            unit.give_up("it was written before pgshadow had noted that it would be");
        }
        let suspects = unit.all_suspects(&*self.shared.journal);
        if !suspects.is_empty() {
            self.shared.journal.suspect(suspects);
        }
    }
}

pub(crate) fn aborted(sequence: u64) -> Settled {
    Settled {
        sequence,
        barrier: 0,
        flushed: true,
        committed: false,
        order: None,
        intent_changes: Changes::default(),
        changes: Changes::default(),
        suspects: Vec::new(),
    }
}
