//! Frames of the server, on their way to the client.
use crate::image;
use crate::journal::{Journal, Settled};
use crate::own;
use crate::plan::{Control, Effect, Plan, Step, Strip, WriteEffect};
use crate::session::{
    Before, ExecuteRun, Expected, Hold, Output, OwnRun, Purpose, QueryRun, Session, Stage, SyncPurpose,
};
use crate::unit::Unit;
use bytes::Bytes;
use pgshadow_catalog::probe;
use pgshadow_model::{
    Change, CopyData, DdlStatement, Lsn, Operation, RowImage, SessionSettings, Suspect, Truncate, Xid,
};
use pgshadow_telemetry::{Counter, StatementClass};
use pgshadow_wire::{Frame, backend, edit, frontend};
use std::collections::HashMap;
use std::sync::Arc;

/// Reported settings on which the meaning of names and values depends.
const IDENTITY_PARAMETERS: &[&[u8]] = &[
    b"client_encoding",
    b"standard_conforming_strings",
    b"datestyle",
    b"timezone",
    b"intervalstyle",
    b"session_authorization",
    b"search_path",
];

impl<J: Journal> Session<J> {
    /// Takes one frame of the server.
    pub fn server(&mut self, frame: Frame, out: &mut Output) {
        match frame.tag {
            // SET CONSTRAINTS outside a block: before 18 the server remarks on it. Every other notice is the application's own,
            // that of a deferred trigger included
            backend::NOTICE if self.ours_runs() && backend::error_field(frame.body(), b'C') == Some(b"25P01") => {}
            backend::NOTIFICATION | backend::NOTICE => out.client(frame.bytes),
            backend::PARAMETER_STATUS => {
                let name = backend::parameter_status(frame.body()).map(|(name, _)| name.to_ascii_lowercase());
                if name.is_none_or(|name| IDENTITY_PARAMETERS.contains(&name.as_slice())) {
                    self.forget_identity();
                }
                out.client(frame.bytes);
            }
            backend::READY_FOR_QUERY => self.ready(frame, out),
            backend::ERROR => self.error(frame, out),
            backend::COPY_BOTH => {
                self.lose_track("a replication stream was started");
                out.client(frame.bytes);
            }
            _ => self.reply(frame, out),
        }
    }

    /// Whether the next answers belong to a statement of ours.
    fn ours_runs(&self) -> bool {
        match self.pending.front() {
            Some(Expected::Own(_)) => true,
            Some(Expected::Query(run)) => !run.suffix.is_empty() && run.at >= run.plan.steps.len(),
            _ => false,
        }
    }

    fn reply(&mut self, frame: Frame, out: &mut Output) {
        if frame.tag == backend::COPY_IN {
            self.copy_begins();
        }
        match self.pending.pop_front() {
            Some(Expected::Query(run)) => self.query_reply(run, frame, out),
            Some(Expected::Execute(run)) => self.execute_reply(run, frame, out),
            Some(Expected::Own(run)) => self.own_reply(run, frame, out),
            Some(Expected::Describe(strip)) => {
                if frame.tag == backend::PARAMETER_DESCRIPTION {
                    self.pending.push_front(Expected::Describe(strip));
                    out.client(frame.bytes);
                } else {
                    out.client(description(strip, &frame));
                    self.turn_pages(out);
                }
            }
            Some(Expected::Reply { .. }) => {
                out.client(frame.bytes);
                self.turn_pages(out);
            }
            Some(other) => {
                self.pending.push_front(other);
                out.client(frame.bytes);
            }
            None => out.client(frame.bytes),
        }
    }

    /// COPY FROM STDIN: a Sync sent ahead of the data is ignored by the server, so no answer to it will come.
    fn copy_begins(&mut self) {
        self.copying = true;
        if matches!(self.hold, Hold::Ready) {
            self.hold = Hold::Free;
        }
        let early =
            self.pending.iter().position(|e| matches!(e, Expected::Sync { purpose: SyncPurpose::AheadOfCopy, .. }));
        if let Some(at) = early {
            self.pending.remove(at);
            self.syncs_answered += 1;
            self.batch = true;
        }
    }

    fn query_reply(&mut self, mut run: Box<QueryRun>, frame: Frame, out: &mut Output) {
        let steps = run.plan.steps.len();
        if run.at >= steps && !run.suffix.is_empty() {
            self.suffix_reply(&mut run, &frame, out);
            return self.pending.push_front(Expected::Query(run));
        }
        let step = run.plan.steps.get(run.at).map(|s| self.resolved(s));
        match frame.tag {
            backend::ROW_DESCRIPTION => match step.as_ref().map_or(Strip::Nothing, |s| s.strip()) {
                Strip::Nothing => out.client(frame.bytes),
                Strip::Rows => {}
                Strip::LastColumn => out.client(edit::without_last_column(&frame).unwrap_or(frame.bytes)),
            },
            backend::DATA_ROW => {
                if let Some(bytes) = self.row(step.as_deref(), &mut run.stage, frame, false) {
                    out.client(bytes);
                }
            }
            backend::COMMAND_COMPLETE | backend::EMPTY_QUERY => {
                let stage = std::mem::take(&mut run.stage);
                if let (Some(step), Some(tag)) = (&step, backend::command_tag(frame.body())) {
                    self.complete(step, stage, tag, run.settings.as_ref());
                }
                run.at += 1;
                if let Some(instead) = run.instead.take() {
                    run.failed = true;
                    out.client(instead);
                } else if run.at == steps && !run.suffix.is_empty() {
                    run.held = Some(frame.bytes);
                } else {
                    out.client(frame.bytes);
                }
            }
            _ => out.client(frame.bytes),
        }
        self.pending.push_front(Expected::Query(run));
    }

    /// Answers to our own statements at the end of a Query.
    fn suffix_reply(&mut self, run: &mut QueryRun, frame: &Frame, out: &mut Output) {
        match frame.tag {
            backend::DATA_ROW => {
                let value = backend::fields(frame.body())
                    .and_then(|f| f.first().copied().flatten().and_then(backend::bytea_text));
                run.own_value = value.map(Bytes::from);
            }
            backend::COMMAND_COMPLETE => {
                let purpose = run.suffix.get(run.at - run.plan.steps.len()).cloned();
                run.at += 1;
                if let Some(Purpose::End { locks }) = purpose {
                    self.ended(run.own_value.take().as_deref(), locks);
                }
                if run.at == run.plan.steps.len() + run.suffix.len()
                    && let Some(held) = run.held.take()
                {
                    out.client(held);
                }
            }
            _ => {}
        }
    }

    fn execute_reply(&mut self, mut run: Box<ExecuteRun>, frame: Frame, out: &mut Output) {
        match frame.tag {
            backend::DATA_ROW => {
                let step = Arc::clone(&run.step);
                if let Some(bytes) = self.row(Some(&step), &mut run.stage, frame, run.binary) {
                    match &mut run.page {
                        Some(page) if page.left == 0 => page.rows.push_back(bytes),
                        page => {
                            if let Some(page) = page {
                                page.left -= 1;
                            }
                            out.client(bytes);
                        }
                    }
                }
                self.pending.push_front(Expected::Execute(run));
            }
            backend::COMMAND_COMPLETE | backend::EMPTY_QUERY | backend::PORTAL_SUSPENDED => {
                let stage = std::mem::take(&mut run.stage);
                if let Some(tag) = backend::command_tag(frame.body()).filter(|_| frame.tag != backend::PORTAL_SUSPENDED)
                {
                    self.complete(&run.step, stage, tag, run.settings.as_ref());
                }
                match run.page.take() {
                    Some(mut page) => {
                        // "portal suspended" also where the limit was met exactly
                        out.client(if page.left == 0 { edit::portal_suspended() } else { frame.bytes.clone() });
                        page.complete = frame.bytes;
                        self.pages.insert(page.portal.clone(), page);
                    }
                    None => out.client(frame.bytes),
                }
                if run.ends_unit {
                    self.finish_front();
                }
                self.turn_pages(out);
            }
            _ => {
                out.client(frame.bytes);
                self.pending.push_front(Expected::Execute(run));
            }
        }
    }

    /// Answers Executes of portals whose rows are here already, as soon as it is their turn.
    pub(crate) fn turn_pages(&mut self, out: &mut Output) {
        while let Some(Expected::Page { portal, limit }) = self.pending.front() {
            let most = usize::try_from(*limit).ok().filter(|l| *l > 0).unwrap_or(usize::MAX);
            let page = self.pages.get_mut(portal);
            self.pending.pop_front();
            let Some(page) = page else { continue };
            let rows = page.rows.len().min(most);
            page.rows.drain(..rows).for_each(|row| out.client(row));
            out.client(if rows == most { edit::portal_suspended() } else { page.complete.clone() });
        }
    }

    fn own_reply(&mut self, mut run: OwnRun, frame: Frame, out: &mut Output) {
        match frame.tag {
            backend::DATA_ROW => {
                let body = frame.body_bytes();
                let value =
                    backend::fields(frame.body()).and_then(|f| f.first().copied().flatten().map(|v| body.slice_ref(v)));
                run.value = value;
                self.pending.push_front(Expected::Own(run));
            }
            _ if run.left > 1 => {
                run.left -= 1;
                self.pending.push_front(Expected::Own(run));
            }
            _ => match run.purpose {
                Purpose::Constraints => {}
                Purpose::End { locks } => self.ended(run.value.as_deref(), locks),
                Purpose::Probe { names, epoch } => {
                    match run.value.as_deref().map(probe::answer) {
                        Some(Ok(probed)) => self.learn(probed, &names, epoch),
                        Some(Err(error)) => {
                            tracing::warn!(%error, "catalog probe");
                            self.probe_failed = true;
                        }
                        None => self.probe_failed = true,
                    }
                    // outside a batch the frame goes on once the server is ready
                    if self.batch {
                        self.resume(out);
                    }
                }
            },
        }
    }

    /// The end token has arrived, or hasn't.
    fn ended(&mut self, value: Option<&[u8]>, locks: bool) {
        let barrier = self.shared.journal.barrier();
        let Some(unit) = self.units.front_mut() else { return };
        match value.and_then(|v| own::end(v, locks)) {
            Some(end) => unit.end(end),
            None => unit.give_up("the end of its transaction could not be read"),
        }
        unit.barrier = barrier;
    }

    /// Takes a row's image out; what the client gets of it.
    fn row(&mut self, step: Option<&Step>, stage: &mut Stage, frame: Frame, binary: bool) -> Option<Bytes> {
        let Some(Effect::Write(write)) = step.map(|s| &s.effect) else { return Some(frame.bytes) };
        stage.rows += 1;
        match image_of(write, &frame, binary) {
            Some((image, xid, token, bytes)) => {
                if let Some(unit) = self.units.front_mut() {
                    unit.drew(xid, token);
                }
                stage.bytes += bytes;
                if stage.broken.is_none() {
                    stage.images.push(image);
                }
            }
            None => {
                stage.broken = Some("a written row could not be read, or was of another table than the statement names")
            }
        }
        match write.strip {
            Strip::Rows => None,
            Strip::LastColumn => Some(edit::without_last_field(&frame).unwrap_or(frame.bytes)),
            Strip::Nothing => Some(frame.bytes),
        }
    }

    /// A statement has finished.
    fn complete(&mut self, step: &Step, stage: Stage, tag: &[u8], settings: Option<&SessionSettings>) {
        let barrier = self.shared.journal.barrier();
        let settings = settings.cloned();
        self.copying = false;
        if step.changes_session {
            self.forget_identity();
        }
        if let Effect::Prepare { name, step } = &step.effect {
            self.sql_prepared.insert(name.clone(), Arc::clone(step));
        }
        if let Effect::NotRepeated { sql, reason } = &step.effect {
            self.shared.journal.not_repeated(sql, reason);
        }
        let Some(unit) = self.units.front_mut() else { return };
        unit.barrier = barrier;
        let repeated = matches!(step.effect, Effect::Copy { .. } | Effect::Truncate { .. } | Effect::Ddl { .. });
        let settings = match settings {
            Some(settings) => settings,
            None if repeated => {
                unit.outstanding = unit.outstanding.saturating_sub(1);
                let suspects = step.suspects_of_all("the settings of its session were not known");
                return unit.done(Vec::new(), &suspects, 0);
            }
            None => SessionSettings::default(),
        };
        match &step.effect {
            Effect::Write(write) => {
                unit.outstanding = unit.outstanding.saturating_sub(1);
                let counted = backend::tag_rows(tag);
                let broken =
                    stage.broken.or((counted != Some(stage.rows)).then_some("not every written row came back"));
                match broken {
                    None => {
                        Counter::RowsCaptured.add(stage.rows);
                        unit.done(stage.images.into_iter().map(Change::Row).collect(), &write.suspects, stage.bytes);
                        if stage.rows == 0 {
                            unit.suspects.truncate(unit.suspects.len() - write.suspects.len().min(unit.suspects.len()));
                        }
                    }
                    Some(reason) => unit.done(Vec::new(), &declare(write, reason), 0),
                }
            }
            Effect::Copy { table, sql } => {
                unit.outstanding = unit.outstanding.saturating_sub(1);
                match stage.broken {
                    Some(reason) => {
                        let suspect = Suspect { table: Some(table.relation.name.clone()), reason: reason.to_owned() };
                        unit.done(Vec::new(), &[suspect], 0);
                    }
                    // without rows there is no xid either, and nothing to repeat
                    None if backend::tag_rows(tag) == Some(0) => {}
                    None => {
                        let rows = backend::tag_rows(tag).unwrap_or(0);
                        let relation = Arc::clone(&table.relation);
                        let change = CopyData { relation, sql: sql.clone(), settings, data: stage.copy, rows };
                        unit.done(vec![Change::Copy(change)], &[], stage.copy_bytes);
                    }
                }
            }
            Effect::Truncate { tables, sql } => {
                unit.outstanding = unit.outstanding.saturating_sub(1);
                unit.done(
                    vec![Change::Truncate(Truncate { tables: tables.clone(), sql: sql.clone(), settings })],
                    &[],
                    sql.len(),
                );
            }
            Effect::Ddl { sql, suspects } => {
                unit.ddl = true;
                let change = DdlStatement { sql: sql.clone(), settings, in_transaction: true };
                unit.done(vec![Change::Ddl(change)], suspects, sql.len());
            }
            Effect::Opaque(suspects) => unit.done(Vec::new(), suspects, 0),
            Effect::NotRepeated { .. } => unit.ddl = true,
            Effect::Control(control) => {
                unit.begun |= *control == Control::Begin;
                unit.savepoint(control);
                let undone = unit.session_changed && matches!(control, Control::RollbackTo(_));
                if matches!(control, Control::Commit { .. } | Control::Rollback { .. } | Control::Prepare) {
                    unit.failed |= !matches!(tag, b"COMMIT" | b"PREPARE TRANSACTION");
                }
                if undone {
                    self.forget_identity();
                }
            }
            _ => {}
        }
        if step.class == StatementClass::Ddl {
            self.tables.clear();
            self.drop_plans();
        }
    }

    fn error(&mut self, frame: Frame, out: &mut Output) {
        self.copying = false;
        match self.pending.pop_front() {
            Some(Expected::Query(mut run)) => {
                run.failed = true;
                run.stage = Stage::default();
                run.held = None;
                if let Some(unit) = self.units.front_mut() {
                    unit.failed = true;
                    unit.outstanding = 0;
                }
                out.client(positioned(&run.plan, run.offset, &frame));
                self.pending.push_front(Expected::Query(run));
            }
            Some(Expected::FunctionCall { suspects }) => {
                if let Some(unit) = self.units.front_mut() {
                    unit.failed = true;
                }
                out.client(frame.bytes);
                self.pending.push_front(Expected::FunctionCall { suspects });
            }
            Some(sync @ Expected::Sync { .. }) => {
                if let Some(unit) = self.units.front_mut() {
                    unit.failed = true;
                }
                self.pending.push_front(sync);
                out.client(frame.bytes);
            }
            Some(other) => self.batch_error(other, frame, out),
            None => out.client(frame.bytes),
        }
    }

    /// An error in the extended protocol: the server skips everything up to the next Sync.
    fn batch_error(&mut self, first: Expected, frame: Frame, out: &mut Output) {
        let plan = match &first {
            Expected::Execute(run) => run.plan.clone(),
            Expected::Reply { plan, .. } => plan.clone(),
            _ => None,
        };
        let own = match &first {
            Expected::Own(run) => Some(run.purpose.clone()),
            _ => None,
        };
        let skipped_end = self.skip(first);
        self.fail_front(skipped_end);
        match own {
            Some(Purpose::Probe { .. }) => self.probe_error(frame, out),
            Some(_) if self.error_before_commit(&frame) => {}
            Some(_) => {
                self.roll_back_at_ready |= skipped_end;
                out.client(frame.bytes);
            }
            None => out.client(plan.map_or_else(|| frame.bytes.clone(), |p| positioned(&p, 0, &frame))),
        }
        if self.pending.is_empty() {
            // its Sync is still to come: what the client sends before it is skipped
            self.skip_to_sync = true;
            if matches!(self.hold, Hold::Probe(_) | Hold::Answers(_)) {
                self.hold = Hold::Free;
            }
        }
    }

    /// Takes off what the server skips after an error of `first`: all up to the next Sync. Whether the end of a transaction
    /// is among it.
    fn skip(&mut self, first: Expected) -> bool {
        let mut skipped = vec![first];
        while let Some(expected) = self.pending.pop_front() {
            if matches!(expected, Expected::Sync { .. }) {
                self.pending.push_front(expected);
                break;
            }
            skipped.push(expected);
        }
        let mut ends = false;
        // the last one first: each leaves what stood before it
        for expected in skipped.into_iter().rev() {
            match expected {
                Expected::Execute(run) => ends |= run.ends_unit,
                Expected::Query(run) => ends |= run.ends_unit,
                Expected::Reply { before: Before::Statement(name, before), .. } => {
                    restore(&mut self.statements, name, before)
                }
                Expected::Reply { before: Before::Portal(name, before), .. } => {
                    restore(&mut self.portals, name, before)
                }
                _ => {}
            }
        }
        ends
    }

    /// The front unit's statement failed; `skipped_end`: the COMMIT behind it in the same batch isn't run.
    fn fail_front(&mut self, skipped_end: bool) {
        let Some(unit) = self.units.front_mut() else { return };
        unit.failed = true;
        unit.outstanding = 0;
        if !skipped_end && unit.explicit == unit.begun {
            return;
        }
        // a BEGIN behind it isn't run either
        unit.explicit = unit.begun;
        unit.closed = false;
        let (explicit, intent) = (unit.explicit, unit.intent.take());
        let later = self.units.drain(1..).filter_map(|later| later.intent);
        for sequence in intent.into_iter().chain(later) {
            self.shared.journal.settle(aborted(sequence));
        }
        self.block = explicit;
        if let Some(Expected::Sync { ends_unit, .. }) = self.pending.front_mut() {
            *ends_unit = !explicit;
        }
    }

    /// A deferred check, made ahead of the client's COMMIT, failed: its error is the answer to that COMMIT.
    fn error_before_commit(&mut self, frame: &Frame) -> bool {
        let Some(Expected::Sync { purpose: SyncPurpose::BeforeCommit, .. }) = self.pending.front() else {
            return false;
        };
        if let Some(Expected::Query(run)) = self.pending.get_mut(1) {
            run.instead = Some(frame.bytes.clone());
            // a failed COMMIT AND CHAIN opens nothing, but the server now sees one of a transaction that had failed before
            let chain = |s: &Arc<Step>| matches!(s.effect, Effect::Control(Control::Commit { chain: true }));
            self.roll_back_at_ready |= run.plan.steps.iter().any(chain);
        }
        true
    }

    fn probe_error(&mut self, frame: Frame, out: &mut Output) {
        self.probe_failed = true;
        if self.batch {
            // the server skips the client's batch now, as it would have after the same error of the client's statement
            self.hold = Hold::Free;
            self.skip_to_sync = true;
            out.client(frame.bytes);
        } else if self.status == b'T' {
            // our error has failed the client's transaction: it is told, as if its own statement had met it
            if let Some(Expected::Sync { purpose, .. }) = self.pending.front_mut()
                && matches!(&self.hold, Hold::Probe(held) if held.tag == frontend::QUERY || held.tag == 0)
            {
                *purpose = SyncPurpose::Client;
                self.syncs_sent += 1;
            } else {
                self.skip_to_sync = true;
            }
            self.pieces.clear();
            self.hold = Hold::Free;
            out.client(frame.bytes);
        }
    }

    fn ready(&mut self, frame: Frame, out: &mut Output) {
        self.status = frame.body().first().copied().unwrap_or(b'I');
        let (mut forward, mut piece) = (true, false);
        match self.pending.pop_front() {
            Some(Expected::Query(run)) => {
                if let Some(held) = run.held.filter(|_| !run.failed) {
                    out.client(held);
                }
                if run.ends_unit {
                    self.finish_front();
                }
                if run.failed {
                    self.pieces.clear();
                }
                forward = run.last_piece || run.failed;
                piece = !forward;
            }
            Some(Expected::Sync { ends_unit, purpose }) => {
                if ends_unit {
                    self.finish_front();
                }
                forward = purpose == SyncPurpose::Client || purpose == SyncPurpose::AheadOfCopy;
                self.syncs_answered += u64::from(forward);
                if purpose == SyncPurpose::Probe {
                    return self.resume(out);
                }
            }
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
        if piece {
            return self.next_piece(out);
        }
        if forward {
            out.client(frame.bytes);
        }
        if self.pending.is_empty() && matches!(self.hold, Hold::Ready) {
            self.hold = Hold::Free;
        }
        if matches!(self.hold, Hold::Answers(_)) && !self.awaits_ready() {
            self.resume(out);
        }
    }

    /// The server's word on whether a block is open is the last one.
    fn settle_state(&mut self) {
        self.block = self.status != b'I';
        if !self.block
            && let Some(mut unit) = self.units.pop_front()
        {
            // its end went unseen
            unit.give_up("the end of its transaction was not seen");
            if unit.hidden_writes {
                unit.suspects.push(Suspect { table: None, reason: "the end of a transaction was not seen".to_owned() });
            }
            unit.failed = false;
            self.finish(unit);
            self.units.clear();
        }
        if self.block && self.units.is_empty() {
            self.units.push_back(Unit { explicit: true, begun: true, failed: self.status == b'E', ..Unit::default() });
        }
    }

    /// Ends a block that only our own statement's failure left open.
    fn roll_back(&mut self, out: &mut Output) {
        let plan = Plan { steps: vec![Arc::new(control_rollback())], ..Plan::empty() };
        let mut run = QueryRun::new(Arc::new(plan), 0, true);
        run.instead = Some(Bytes::new());
        run.ends_unit = true;
        self.pending.push_back(Expected::Query(Box::new(run)));
        self.hold = Hold::Ready;
        out.server(frontend::query(b"ROLLBACK"));
    }

    fn resume(&mut self, out: &mut Output) {
        if let Hold::Probe(frame) | Hold::Answers(frame) = std::mem::replace(&mut self.hold, Hold::Free) {
            if frame.tag == 0 {
                self.next_piece(out);
            } else {
                self.client(frame, out);
            }
        }
    }

    fn finish_front(&mut self) {
        if let Some(unit) = self.units.pop_front() {
            self.finish(unit);
        }
    }

    /// A unit is over: its outcome is known.
    fn finish(&mut self, mut unit: Unit) {
        let committed = !unit.failed;
        if unit.session_changed {
            self.forget_identity();
        }
        if unit.ddl {
            self.shared.catalog.changed();
        }
        if committed && unit.needs_end() {
            unit.give_up("the end of its transaction was not drawn");
            if unit.hidden_writes {
                unit.suspects.push(Suspect {
                    table: None,
                    reason: "what a function or block wrote was not looked for".to_owned(),
                });
            }
        }
        if committed && unit.changes.len() > unit.intent_changes.min(unit.changes.len()) && self.order(&unit).is_none()
        {
            unit.give_up("its place in the order of transactions isn't known");
        }
        let Some(sequence) = unit.intent else { return self.finish_unlogged(unit, committed) };
        if !committed {
            Counter::TransactionsRolledBack.add(1);
            return self.shared.journal.settle(aborted(sequence));
        }
        let order = self.order(&unit);
        let mut intent_changes = std::mem::take(&mut unit.changes);
        let changes = intent_changes.split_off(unit.intent_changes.min(intent_changes.len()));
        self.shared.journal.settle(Settled {
            sequence,
            barrier: unit.barrier,
            flushed: self.flushes(),
            committed,
            order,
            intent_changes,
            changes,
            suspects: unit.suspects,
        });
    }

    fn finish_unlogged(&mut self, mut unit: Unit, committed: bool) {
        if !committed {
            return;
        }
        if unit.unmirrored {
            unit.give_up("mirroring had stopped when it was written");
        }
        if !unit.suspects.is_empty() {
            self.shared.journal.suspect(unit.suspects);
        }
    }
}

fn restore<T>(places: &mut HashMap<Bytes, T>, name: Bytes, before: Option<T>) {
    match before {
        Some(before) => places.insert(name, before),
        None => places.remove(&name),
    };
}

fn aborted(sequence: u64) -> Settled {
    Settled {
        sequence,
        barrier: 0,
        flushed: true,
        committed: false,
        order: None,
        intent_changes: Vec::new(),
        changes: Vec::new(),
        suspects: Vec::new(),
    }
}

fn control_rollback() -> Step {
    let effect = Effect::Control(Control::Rollback { chain: false });
    Step { effect, alone: true, ..Step::none(StatementClass::Transaction) }
}

/// All tables of a write, with the reason why its rows aren't there.
fn declare(write: &WriteEffect, reason: &str) -> Vec<Suspect> {
    let mut suspects = write.suspects.clone();
    suspects.push(Suspect { table: Some(write.table.relation.name.clone()), reason: reason.to_owned() });
    suspects
}

/// The answer to Describe as the client's own text would have got it.
fn description(strip: Strip, frame: &Frame) -> Bytes {
    match (strip, frame.tag) {
        (Strip::Rows, backend::ROW_DESCRIPTION) => edit::no_data(),
        (Strip::LastColumn, backend::ROW_DESCRIPTION) => {
            edit::without_last_column(frame).unwrap_or_else(|| frame.bytes.clone())
        }
        _ => frame.bytes.clone(),
    }
}

/// An error whose position is that in the client's own text.
fn positioned(plan: &Plan, offset: usize, frame: &Frame) -> Bytes {
    if plan.text.is_none() && offset == 0 {
        return frame.bytes.clone();
    }
    edit::with_position(frame, |p| plan.rewrites.original_position(p) + offset).unwrap_or_else(|| frame.bytes.clone())
}

/// The image in a row's last field, with its xid, token and size in bytes.
fn image_of(write: &WriteEffect, frame: &Frame, binary: bool) -> Option<(RowImage, Xid, Lsn, usize)> {
    let body = frame.body_bytes();
    let (_, value) = backend::last_field(&body)?;
    let record = body.slice(value?);
    // copied: an image may be held for long, and must not hold the whole read buffer
    let record = if binary { Bytes::copy_from_slice(&record) } else { Bytes::from(backend::bytea_text(&record)?) };
    let relation = &write.table.relation;
    let image = image::read(&record, relation, write.flag, write.converted)?;
    if !write.table.tree_oids.contains(&image.table_oid) {
        return None;
    }
    let operation = match (write.operation, image.inserted) {
        (Operation::Upsert, Some(true)) => Operation::Insert,
        (Operation::Upsert, Some(false)) => Operation::Update,
        (other, _) => other,
    };
    let row = RowImage { relation: Arc::clone(relation), operation, values: image.values, old_key: None };
    Some((row, image.xid, image.token, record.len()))
}
