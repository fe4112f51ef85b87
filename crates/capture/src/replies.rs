//! Frames of the server, on their way to the client.
use crate::image;
use crate::journal::{Journal, Settled};
use crate::own;
use crate::plan::{Control, Effect, Plan, Step, Strip, WriteEffect};
use crate::session::{
    Before, ExecuteRun, Expected, Hold, Output, OwnRun, Purpose, QueryRun, Session, SqlPrepared, Stage, SyncPurpose,
};
use crate::unit::{HELD_BYTES_MAX, Unit};
use bytes::Bytes;
use pgshadow_catalog::probe;
use pgshadow_model::{
    Change, CopyData, DdlStatement, Lsn, Operation, RowImage, SessionSettings, Suspect, Truncate, Xid,
};
use pgshadow_telemetry::{Counter, StatementClass};
use pgshadow_wire::{Frame, backend, edit, frontend};
use std::collections::HashMap;
use std::sync::Arc;

/// What the server holds back of its answers before it sends them (`PQ_SEND_BUFFER_SIZE`).
const SERVER_BUFFER: usize = 8192;

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
        let before = out.to_client.len();
        // what waits for the client's data must reach it
        let asks = frame.tag == backend::COPY_IN;
        self.server_frame(frame, out);
        self.withhold(before, asks, out);
    }

    /// The server sends nothing of a string's first statements while a later one waits for a lock, say. Where it was given
    /// them piece by piece, the client doesn't get the first answers sooner for that.
    fn withhold(&mut self, before: usize, asks: bool, out: &mut Output) {
        if out.to_client.len() == before && !self.lost_track {
            return;
        }
        let fresh = out.to_client.split_off(before);
        self.withheld.extend(fresh);
        let length: usize = self.withheld.iter().map(Bytes::len).sum();
        if self.pieces.is_empty() || asks || length > SERVER_BUFFER {
            out.to_client.append(&mut self.withheld);
        }
    }

    fn server_frame(&mut self, frame: Frame, out: &mut Output) {
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
                if frame.tag == backend::PORTAL_SUSPENDED {
                    self.suspended(&run.step);
                } else if let Some(tag) = backend::command_tag(frame.body()) {
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
            let portal = portal.clone();
            self.pending.pop_front();
            let Some(page) = self.pages.get_mut(&portal) else {
                // its rows never came: the Execute before this one failed
                out.client(edit::no_such_portal(&portal));
                continue;
            };
            let rows = page.rows.len().min(most);
            page.rows.drain(..rows).for_each(|row| out.client(row));
            // as the server does it: "suspended" also where the limit was met exactly, and the rows of this turn are counted
            out.client(if rows == most { edit::portal_suspended() } else { edit::with_rows(&page.complete, rows) });
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
                Purpose::Constraints | Purpose::Parse => {}
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
            Some(end) => unit.end(end, &self.shared.excluded),
            None => unit.give_up("the end of its transaction could not be read"),
        }
        unit.barrier = barrier;
    }

    /// Takes a row's image out; what the client gets of it.
    fn row(&mut self, step: Option<&Step>, stage: &mut Stage, frame: Frame, binary: bool) -> Option<Bytes> {
        let Some(Effect::Write(write)) = step.map(|s| &s.effect) else { return Some(frame.bytes) };
        stage.rows += 1;
        let held = self.units.front().map_or(0, |u| u.held_bytes);
        match image_of(write, &frame, binary) {
            Some(read) => {
                if let Some(unit) = self.units.front_mut() {
                    unit.drew(read.xid, read.token);
                }
                stage.bytes += read.bytes;
                if !write.table.tree_oids.contains(&read.table_oid) {
                    stage.elsewhere = true;
                    stage.broken = Some("a written row was of another table than the statement names");
                } else if held + stage.bytes > HELD_BYTES_MAX {
                    stage.broken = Some("the transaction was larger than pgshadow may hold in memory");
                }
                if stage.broken.is_none() {
                    stage.images.push(read.row);
                } else {
                    stage.images = Vec::new();
                }
            }
            None => stage.broken = Some("a written row could not be read"),
        }
        match write.strip {
            Strip::Rows => None,
            Strip::LastColumn => Some(edit::without_last_field(&frame).unwrap_or(frame.bytes)),
            Strip::Nothing => Some(frame.bytes),
        }
    }

    /// A portal has given some of its rows, and may never be asked for more: what writes has run to its end by then.
    fn suspended(&mut self, step: &Step) {
        if step.changes_session {
            self.forget_identity();
        }
        if let (Effect::Opaque(suspects), Some(unit)) = (&step.effect, self.units.front_mut()) {
            unit.done(Vec::new(), suspects, 0);
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
        match &step.effect {
            Effect::Prepare { name, step, text, sent } => {
                let (text, sent, step) = (text.clone(), sent.clone(), Arc::clone(step));
                let (epoch, generation) = (self.tables_epoch, self.identity_changes);
                self.sql_prepared.insert(name.clone(), SqlPrepared { text, sent, step, epoch, generation });
            }
            Effect::Deallocate(Some(name)) => {
                self.sql_prepared.remove(name);
                self.statements.remove(name.as_bytes());
            }
            Effect::Deallocate(None) => {
                self.sql_prepared.clear();
                // the unnamed one stays
                self.statements.retain(|name, _| name.is_empty());
            }
            _ => {}
        }
        if let Effect::NotRepeated { sql, reason } = &step.effect {
            self.shared.journal.not_repeated(sql, reason);
        }
        let Some(unit) = self.units.front_mut() else { return };
        unit.barrier = barrier;
        unit.ran_committing |= step.may_commit;
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
                        if stage.rows == 0 && !step.hidden_anywhere {
                            unit.suspects.truncate(unit.suspects.len() - write.suspects.len().min(unit.suspects.len()));
                        }
                    }
                    Some(reason) => {
                        let mut suspects = declare(write, reason);
                        if stage.elsewhere {
                            suspects.push(Suspect { table: None, reason: reason.to_owned() });
                        }
                        unit.done(Vec::new(), &suspects, 0);
                    }
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
            Effect::Ddl { sql, suspects, tables, moves } => {
                unit.ddl = true;
                if let (true, [Some(old), Some(new), ..]) = (*moves, tables.as_slice()) {
                    unit.renames.push((old.clone(), new.clone()));
                }
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
                // a syntax error of the text itself, not of one that a block runs: none of it was run
                let field = |which| backend::error_field(frame.body(), which);
                let unparsed = run.at == 0 && field(b'C') == Some(b"42601") && field(b'W').is_none();
                if let Some(unit) = self.units.front_mut() {
                    unit.may_commit &= !unparsed;
                    unit.failed = true;
                    unit.outstanding = 0;
                }
                out.client(positioned(&run.plan, run.offset, &frame));
                self.pending.push_front(Expected::Query(run));
            }
            Some(Expected::FunctionCall { suspects }) => {
                if let Some(unit) = self.units.front_mut().filter(|u| u.begun) {
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
        // what is skipped behind a refused Parse, say, has not run
        let ran = matches!(&first, Expected::Execute(run) if run.step.may_commit);
        if let Some(unit) = self.units.front_mut() {
            unit.may_commit &= ran || unit.ran_committing;
        }
        let skipped = self.skip(first);
        self.fail_front(&skipped);
        // whatever portals there are can't be run in a failed transaction: the server says so
        self.pages.clear();
        self.portals.values_mut().for_each(|portal| portal.paged = false);
        match own {
            Some(Purpose::Probe { .. }) => self.probe_error(frame, out),
            // what the client's own text would meet as well
            Some(Purpose::Parse) => out.client(frame.bytes),
            Some(_) if self.error_before_commit(&frame) => {}
            Some(_) => {
                self.roll_back_at_ready |= skipped.end;
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

    /// Takes off what the server skips after an error of `first`: all up to the next Sync.
    fn skip(&mut self, first: Expected) -> Skipped {
        let mut skipped = vec![first];
        while let Some(expected) = self.pending.pop_front() {
            if matches!(expected, Expected::Sync { .. }) {
                self.pending.push_front(expected);
                break;
            }
            skipped.push(expected);
        }
        let (mut count, mut open) = (Skipped { end: false, units: 1 }, true);
        for expected in &skipped {
            let ends = match expected {
                Expected::Execute(run) => run.ends_unit,
                Expected::Query(run) => run.ends_unit,
                _ => continue,
            };
            count.units += usize::from(!open);
            count.end |= ends;
            open = !ends;
        }
        // the last one first: each leaves what stood before it
        for expected in skipped.into_iter().rev() {
            match expected {
                Expected::Reply { before: Before::Statement(name, before), .. } => {
                    restore(&mut self.statements, name, before);
                }
                Expected::Reply { before: Before::Portal(name, before), .. } => {
                    restore(&mut self.portals, name, before);
                }
                _ => {}
            }
        }
        count
    }

    /// The front unit's statement failed; an end of it behind that, in the same batch, isn't run.
    fn fail_front(&mut self, skipped: &Skipped) {
        let Some(unit) = self.units.front_mut() else { return };
        unit.failed = true;
        unit.outstanding = 0;
        if !skipped.end && unit.explicit == unit.begun {
            return;
        }
        // a BEGIN behind it isn't run either
        unit.explicit = unit.begun;
        unit.closed = false;
        let (explicit, intent) = (unit.explicit, unit.intent.take());
        let units = skipped.units.min(self.units.len());
        let later = self.units.drain(1..units).filter_map(|later| later.intent);
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
    fn settle_state(&mut self) {
        self.block = self.status != b'I';
        if !self.block
            && let Some(mut unit) = self.units.pop_front()
        {
            // its end went unseen
            unit.give_up("the end of its transaction was not seen");
            if unit.hidden_writes {
                let reason = "the end of a transaction was not seen".to_owned();
                unit.given_up.push(Suspect { table: None, reason });
            }
            unit.failed = false;
            self.finish(unit);
            self.units.clear();
        }
        if self.block && self.units.is_empty() {
            let (failed, epoch) = (self.status == b'E', self.shared.journal.epoch());
            self.units.push_back(Unit { explicit: true, begun: true, failed, epoch, ..Unit::default() });
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
        // what commits by itself inside may stand although the whole failed
        let committed = !unit.failed || unit.may_commit;
        if unit.session_changed {
            self.forget_identity();
        }
        if unit.ddl {
            self.shared.catalog.changed();
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
            unit.changes.truncate(unit.intent_changes);
        }
        if committed
            && unit.changes.len() > unit.intent_changes.min(unit.changes.len())
            && Self::order(&unit, unit.epoch).is_none()
        {
            unit.give_up("its place in the order of transactions isn't known");
        }
        if committed {
            for (old, new) in &unit.renames {
                self.shared.journal.renamed(old, new);
            }
        }
        let Some(sequence) = unit.intent else { return self.finish_unlogged(unit, committed) };
        if !committed {
            Counter::TransactionsRolledBack.add(1);
            return self.shared.journal.settle(aborted(sequence));
        }
        let order = Self::order(&unit, self.shared.journal.epoch());
        let suspects = unit.all_suspects();
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
            suspects,
        });
    }

    fn finish_unlogged(&mut self, mut unit: Unit, committed: bool) {
        if !committed {
            return;
        }
        if unit.unmirrored {
            unit.give_up("mirroring had stopped when it was written");
        } else if unit.writes {
            unit.give_up("it was written before pgshadow had noted that it would be");
        }
        let suspects = unit.all_suspects();
        if !suspects.is_empty() {
            self.shared.journal.suspect(suspects);
        }
    }
}

/// What the server didn't run after an error.
struct Skipped {
    /// The end of a transaction is among it.
    end: bool,
    /// Units that it belongs to, the front one included.
    units: usize,
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

/// A written row as it came.
struct ReadRow {
    row: RowImage,
    table_oid: u32,
    xid: Xid,
    token: Lsn,
    bytes: usize,
}

/// The image in a row's last field.
fn image_of(write: &WriteEffect, frame: &Frame, binary: bool) -> Option<ReadRow> {
    let body = frame.body_bytes();
    let (_, value) = backend::last_field(&body)?;
    let record = body.slice(value?);
    // copied: an image may be held for long, and must not hold the whole read buffer
    let record = if binary { Bytes::copy_from_slice(&record) } else { Bytes::from(backend::bytea_text(&record)?) };
    let relation = &write.table.relation;
    let image = image::read(&record, relation, write.flag, write.converted)?;
    let operation = match (write.operation, image.inserted) {
        (Operation::Upsert, Some(true)) => Operation::Insert,
        (Operation::Upsert, Some(false)) => Operation::Update,
        (other, _) => other,
    };
    let row = RowImage { relation: Arc::clone(relation), operation, values: image.values, old_key: None };
    Some(ReadRow { row, table_oid: image.table_oid, xid: image.xid, token: image.token, bytes: record.len() })
}
