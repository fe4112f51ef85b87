//! The extended protocol: Parse, Bind, Describe, Execute, Close, Sync.
use crate::expected::{Before, ExecuteRun, Expected, OwnRun, Page, Portal, Prepared, Purpose, Stage, SyncPurpose};
use crate::journal::Journal;
use crate::own::NAME;
use crate::plan::{Control, Effect, Step, Strip};
use crate::planning::Known;
use crate::send::{is_commit, takes_back};
use crate::session::{Hold, Output, Session};
use crate::unit::Unit;
use bytes::Bytes;
use pgshadow_sql::LockAhead;
use pgshadow_telemetry::{Counter, StatementClass};
use pgshadow_wire::Frame;
use pgshadow_wire::frontend::{self, Bind, Parameter, Parse};
use std::sync::Arc;

impl<J: Journal> Session<J> {
    pub(crate) fn parse(&mut self, frame: Frame, out: &mut Output) {
        let Some(read) = Parse::read(frame.body()) else {
            self.reply_to(frame, Before::Nothing, out);
            return;
        };
        let (name, text) = (Bytes::copy_from_slice(read.name), Bytes::copy_from_slice(read.query));
        match self.known(&text) {
            Known::Ask(names) => self.ask(names, frame, out),
            Known::Plan(plan) => {
                self.probe_failed = false;
                let bytes = match &plan.text {
                    Some(rewritten) => frontend::parse(read.name, rewritten, read.types),
                    None => frame.bytes.clone(),
                };
                let step = plan.steps.first().cloned().unwrap_or_else(|| Arc::new(Step::none(StatementClass::Other)));
                let generation = self.identity_changes;
                let types = Bytes::copy_from_slice(read.types);
                let prepared = Prepared { text, plan: Arc::clone(&plan), step, types, generation };
                let before = self.statements.insert(name.clone(), prepared);
                let before = Before::Statement(name, before);
                self.replacing(&before);
                self.pending.push_back(Expected::Reply { plan: Some(plan), before });
                self.batch = true;
                out.server(bytes);
            }
        }
    }

    pub(crate) fn reply_to(&mut self, frame: Frame, before: Before, out: &mut Output) {
        self.replacing(&before);
        self.pending.push_back(Expected::Reply { plan: None, before });
        self.batch = true;
        out.server(frame.bytes);
    }

    pub(crate) fn bind(&mut self, frame: Frame, out: &mut Output) {
        let Some(bind) = Bind::read(frame.body()) else { return self.reply_to(frame, Before::Nothing, out) };
        let portal = Bytes::copy_from_slice(bind.portal);
        let name = Bytes::copy_from_slice(bind.statement);
        if self.is_unsure(b'S', &name) {
            return self.hold = Hold::Answers(frame);
        }
        let prepared = match self.current(&name, out) {
            Ok(prepared) => prepared,
            Err(names) => return self.ask(names, frame, out),
        };
        let Some(prepared) = prepared else {
            let sql = std::str::from_utf8(&name).ok().and_then(|n| self.sql_prepared.get(n));
            let step =
                sql.map(|p| Arc::clone(&p.step)).unwrap_or_else(|| Arc::new(Step::unknown(StatementClass::Other)));
            let bound = Portal { plan: None, step, binary: false, lock: None, paged: false };
            let before = self.portals.insert(portal.clone(), bound);
            return self.reply_to(frame, Before::Portal(portal, before), out);
        };
        let formats = bind.result_formats.as_slice();
        let (bytes, binary) = match (self.resolved(&prepared.step).strip(), formats) {
            (Strip::Nothing, _) => (frame.bytes.clone(), false),
            // for no result any formats are fine
            (Strip::Rows, _) => (frontend::bind_with_result_formats(bind.head, &[1]), true),
            (Strip::LastColumn, []) => (frame.bytes.clone(), false),
            (Strip::LastColumn, [all]) => (frame.bytes.clone(), *all == 1),
            (Strip::LastColumn, each) => (frontend::bind_with_result_formats(bind.head, &[each, &[1]].concat()), true),
        };
        let lock = prepared.step.lock().map(|lock| lock_statement(lock, &bind, &prepared.types));
        let bound = Portal { plan: Some(Arc::clone(&prepared.plan)), step: prepared.step, binary, lock, paged: false };
        let before = self.portals.insert(portal.clone(), bound);
        let before = Before::Portal(portal, before);
        self.replacing(&before);
        self.pending.push_back(Expected::Reply { plan: Some(prepared.plan), before });
        self.batch = true;
        out.server(bytes);
    }

    /// A prepared statement as it stands with the present catalog and settings; names that must be asked for first. Where its
    /// text must be another one now, the server is given that.
    pub(crate) fn current(&mut self, name: &Bytes, out: &mut Output) -> Result<Option<Prepared>, Vec<String>> {
        self.refresh();
        let Some(prepared) = self.statements.get(name).cloned() else { return Ok(None) };
        if self.is_current(&prepared) {
            return Ok(Some(prepared));
        }
        let plan = match self.known(&prepared.text) {
            Known::Ask(names) => return Err(names),
            Known::Plan(plan) => plan,
        };
        self.probe_failed = false;
        let step = plan.steps.first().cloned().unwrap_or_else(|| Arc::clone(&prepared.step));
        if plan.text != prepared.plan.text {
            let text = plan.text.as_ref().unwrap_or(&prepared.text);
            out.server(frontend::close_statement(name));
            out.server(frontend::parse(name, text, &prepared.types));
            self.pending.push_back(Expected::Own(OwnRun { purpose: Purpose::Parse, left: 2, values: Vec::new() }));
            self.batch = true;
        }
        let renewed = Prepared { plan, step, generation: self.identity_changes, ..prepared };
        self.statements.insert(name.clone(), renewed.clone());
        Ok(Some(renewed))
    }

    pub(crate) fn describe(&mut self, frame: Frame, out: &mut Output) {
        let named = frontend::kind_and_name(frame.body());
        if named.is_some_and(|(kind, name)| self.is_unsure(kind, name)) {
            return self.hold = Hold::Answers(frame);
        }
        let strip = match named {
            Some((b'S', name)) => self.statements.get(name).map(|s| self.resolved(&s.step).strip()),
            Some((_, name)) => self.portals.get(name).map(|p| self.resolved(&p.step).strip()),
            None => None,
        };
        self.pending.push_back(Expected::Describe(strip.unwrap_or(Strip::Nothing)));
        self.batch = true;
        out.server(frame.bytes);
    }

    pub(crate) fn close(&mut self, frame: Frame, out: &mut Output) {
        let before = match frontend::kind_and_name(frame.body()) {
            Some((b'S', name)) => Before::Statement(Bytes::copy_from_slice(name), self.statements.remove(name)),
            Some((_, name)) => Before::Portal(Bytes::copy_from_slice(name), self.portals.remove(name)),
            None => Before::Nothing,
        };
        self.reply_to(frame, before, out);
    }

    pub(crate) fn execute(&mut self, frame: Frame, out: &mut Output) {
        let Some((name, limit)) = frontend::execute(frame.body()) else {
            return self.reply_to(frame, Before::Nothing, out);
        };
        let name = Bytes::copy_from_slice(name);
        if self.is_unsure(b'P', &name) {
            return self.hold = Hold::Answers(frame);
        }
        let (step, plan, binary, lock) = match self.portals.get(&name) {
            Some(portal) if portal.paged => {
                // its rows have come, or are coming, all at once: the client gets them page by page
                self.pending.push_back(Expected::Page { portal: name, limit });
                return self.turn_pages(out);
            }
            Some(p) => (self.resolved(&p.step), p.plan.clone(), p.binary, p.lock.clone()),
            None => (Arc::new(Step::none(StatementClass::Other)), None, false, None),
        };
        if is_commit(&step) && self.must_know_before_commit() {
            return self.hold = Hold::Answers(frame);
        }
        Counter::Statements(step.class).add(1);
        let in_block = self.block;
        self.batch = true;
        let unit = self.open_unit();
        unit.sent(&step);
        let takes_back = unit.session_changed && takes_back(&step);
        let mut ends_unit = false;
        if let Effect::Control(control) = &step.effect {
            match control {
                Control::Begin => {
                    self.block = true;
                    self.batch_control = true;
                }
                Control::Commit { chain } | Control::Rollback { chain } if in_block => {
                    if matches!(control, Control::Commit { .. })
                        && self.units.back().is_some_and(|u| u.writes && !u.failed)
                    {
                        if self.units.back().is_some_and(Unit::needs_end) {
                            self.own_end(out);
                        }
                        self.write_intent(out);
                    }
                    ends_unit = true;
                    self.block = *chain;
                    self.batch_control = true;
                }
                Control::FinishPrepared { gid, .. } => self.finishes_prepared(gid, out),
                Control::Prepare(gid) if in_block => {
                    self.prepare_transaction(gid);
                    if self.units.back().is_some_and(|u| u.writes && !u.failed) {
                        if self.units.back().is_some_and(Unit::needs_end) {
                            self.own_end(out);
                        }
                        self.write_intent(out);
                    }
                    ends_unit = true;
                    self.block = false;
                    self.batch_control = true;
                }
                _ => {}
            }
        }
        if !in_block && step.alone && step.hidden_writes {
            // it may commit before the Sync
            self.declare_alone();
            self.write_intent(out);
        }
        if !in_block && matches!(step.effect, Effect::Beside { .. }) {
            self.note_beside(&step);
            self.write_intent(out);
        }
        self.copy_sent_with(std::iter::once(&*step));
        if ends_unit && let Some(unit) = self.units.back_mut() {
            unit.closed = true;
        }
        // every written row must come back in the same transaction, whatever the client's row limit
        let captured = step.strip() != Strip::Nothing && limit > 0;
        let bytes = if captured { frontend::execute_frame(&name, 0) } else { frame.bytes };
        let page = (captured && step.strip() == Strip::LastColumn).then(|| Page::new(name.clone(), limit));
        if page.is_some()
            && let Some(portal) = self.portals.get_mut(&name)
        {
            portal.paged = true;
        }
        let settings = self.settings_for(std::slice::from_ref(&step));
        if step.changes_session || takes_back {
            self.batch_control = true;
            // what comes in the same batch is looked up behind it
            self.forget_identity();
        }
        if let (Some(statement), Some(lock)) = (lock, step.lock()) {
            let (purpose, left) = (Purpose::Lock(Arc::clone(lock)), frontend::OWN_STATEMENT_REPLIES);
            self.pending.push_back(Expected::Own(OwnRun { purpose, left, values: Vec::new() }));
            out.server(statement);
        }
        let run = ExecuteRun { step, plan, stage: Stage::default(), binary, ends_unit, page, settings };
        self.pending.push_back(Expected::Execute(Box::new(run)));
        out.server(bytes);
    }

    pub(crate) fn sync(&mut self, frame: Frame, out: &mut Output) {
        self.skip_to_sync = false;
        let mut ends_unit = false;
        if let Some(unit) = self.units.back().filter(|u| !u.closed && !u.explicit) {
            let (writes, needs_end) = (unit.writes && !unit.failed, unit.needs_end());
            ends_unit = true;
            if writes && needs_end && self.batch_alone() {
                self.declare_alone();
            } else if writes && needs_end {
                self.own_end(out);
            }
            if writes {
                self.write_intent(out);
            }
            if let Some(unit) = self.units.back_mut() {
                unit.closed = true;
            }
        }
        self.pending.push_back(Expected::Sync { ends_unit, purpose: SyncPurpose::Client });
        self.syncs_sent += 1;
        if !self.block {
            // the transaction ends, and its portals with it
            self.portals.clear();
        }
        if self.batch_control {
            self.hold = Hold::Ready;
        }
        self.batch = false;
        self.batch_control = false;
        out.server(frame.bytes);
    }
}

/// The statement that locks the rows of a bound UPDATE: with its own values, as far as the condition needs them.
fn lock_statement(lock: &LockAhead, bind: &Bind<'_>, types: &[u8]) -> Bytes {
    const TEXT: u32 = 25;
    let declared = |index: usize| {
        let at = 2 + index * 4;
        types.get(at..at + 4).and_then(|oid| oid.try_into().ok()).map_or(0, u32::from_be_bytes)
    };
    let count = lock.parameters.last().map_or(0, |last| usize::from(*last));
    let parameters: Vec<Parameter<'_>> = (0..count)
        .map(|index| {
            let used = lock.parameters.iter().any(|number| usize::from(*number) == index + 1);
            if !used {
                // of one that isn't there the server couldn't tell the type
                return Parameter { type_oid: TEXT, format: 0, value: None };
            }
            let value = bind.parameters.get(index).copied().flatten();
            Parameter { type_oid: declared(index), format: bind.format(index), value }
        })
        .collect();
    frontend::own_statement_with(NAME, lock.text.as_bytes(), &parameters)
}
