//! The extended protocol: Parse, Bind, Describe, Execute, Close, Sync.
use crate::described::are_declared;
use crate::expected::{Before, ExecuteRun, Expected, OwnRun, Page, Portal, Prepared, Purpose, Stage, SyncPurpose};
use crate::journal::Journal;
use crate::own::{NAME, lock_statement};
use crate::plan::{Control, Effect, Step, Strip};
use crate::planning::Known;
use crate::renewal::Current;
use crate::send::{is_commit, takes_back};
use crate::session::{Hold, Output, Session};
use crate::unit::Unit;
use bytes::Bytes;
use pgshadow_telemetry::{Counter, StatementClass};
use pgshadow_wire::frontend::{self, Bind, Parse};
use pgshadow_wire::{Frame, edit};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

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
                if plan.text.is_none() {
                    self.attempt.over();
                }
                let bytes = match &plan.text {
                    Some(rewritten) => frontend::parse(read.name, rewritten, read.types),
                    None => frame.bytes.clone(),
                };
                let step = plan.steps.first().cloned().unwrap_or_else(|| Arc::new(Step::none(StatementClass::Other)));
                let (generation, identity) = (self.identity_changes, self.identity.clone());
                let (types, parameters) = (Bytes::copy_from_slice(read.types), Arc::new(OnceLock::new()));
                let unknown = step.strip() == Strip::Rows && !are_declared(&text, &types, &parameters);
                let asked = unknown && (!name.is_empty() || self.asks_unnamed(&plan, &text, &types));
                let asked = asked.then(|| (name.clone(), Arc::clone(&parameters)));
                if asked.is_some() {
                    drop(plan.described.set((types.clone(), Arc::clone(&parameters))));
                }
                let (ours, kept, lost) = (Arc::clone(&plan), Vec::new(), false);
                let prepared = Prepared { text, plan: ours, step, types, generation, identity, parameters, lost, kept };
                let before = Before::Statement(name.clone(), self.statements.insert(name, prepared));
                self.replacing(&before);
                self.pending.push_back(Expected::Reply { plan: Some(plan), before });
                self.batch = true;
                out.server(bytes);
                if let Some((name, parameters)) = asked {
                    self.pending.push_back(Expected::Parameters(parameters));
                    out.server(frontend::describe_statement(&name));
                }
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
        if self.is_unsure_name(&name) || self.executes_unsure(&name) {
            return self.hold = Hold::Answers(frame);
        }
        let current = match self.misfitting(&name, &bind) {
            Some(prepared) => Current::Is(Some(prepared)),
            None => self.current(&name, out),
        };
        let prepared = match current {
            Current::Is(prepared) => prepared,
            Current::Ask(names) => return self.ask(names, frame, out),
            Current::Wait => return self.hold = Hold::Answers(frame),
        };
        let (step, plan, lock) = match &prepared {
            Some(prepared) => {
                let lock = prepared.step.lock().map(|lock| lock_statement(lock, &bind, &prepared.types));
                (Arc::clone(&prepared.step), Some(Arc::clone(&prepared.plan)), lock)
            }
            None => match self.prepared_by_sql(&name) {
                Ok(step) => (step, None, None),
                Err(names) => return self.ask(names, frame, out),
            },
        };
        let formats = bind.result_formats.as_slice();
        let (bytes, binary) = match (self.resolved(&step).strip(), formats) {
            (Strip::Nothing, _) => {
                self.attempt.over();
                (frame.bytes.clone(), false)
            }
            // for no result any formats are fine
            (Strip::Rows, _) => (frontend::bind_with_result_formats(bind.head, &[1]), true),
            (Strip::LastColumn, []) => (frame.bytes.clone(), false),
            (Strip::LastColumn, [all]) => (frame.bytes.clone(), *all == 1),
            (Strip::LastColumn, each) => (frontend::bind_with_result_formats(bind.head, &[each, &[1]].concat()), true),
        };
        let sampled = prepared.as_ref().and_then(|p| self.sample_bind(p, &bind));
        let bound = Portal { binary, lock, bound: sampled, ..Portal::new(plan.clone(), Arc::clone(&step)) };
        let before = self.portals.insert(portal.clone(), bound);
        let more = self.resolved(&step).strip() == Strip::LastColumn;
        let before = Before::Portal(portal, before, more);
        self.replacing(&before);
        self.pending.push_back(Expected::Reply { plan, before });
        self.batch = true;
        out.server(bytes);
    }

    pub(crate) fn describe(&mut self, frame: Frame, out: &mut Output) {
        let named = frontend::kind_and_name(frame.body());
        if named.is_some_and(|(kind, name)| self.is_unsure(kind, name) || self.describes_unsure(kind, name)) {
            return self.hold = Hold::Answers(frame);
        }
        let (strip, parameters) = match named {
            Some((b'S', name)) => match self.statements.get(name) {
                Some(s) => (self.resolved(&s.step).strip(), Some(self.parameters_of(name, s))),
                None => (Strip::Nothing, None),
            },
            Some((_, name)) => {
                (self.portals.get(name).map_or(Strip::Nothing, |p| self.resolved(&p.step).strip()), None)
            }
            None => (Strip::Nothing, None),
        };
        if strip == Strip::Rows
            && self.awaits_ready()
            && !named.is_some_and(|(kind, name)| self.is_of_batch(kind, name))
        {
            // whether it is still there, or has ever been, isn't known yet
            return self.hold = Hold::Answers(frame);
        }
        let told = strip == Strip::Rows && parameters.as_ref().is_some_and(|known| known.get().is_some());
        if let Some((b'S', name)) =
            named.filter(|(_, name)| !told && self.statements.get(*name).is_some_and(|s| s.lost))
        {
            match self.current(&Bytes::copy_from_slice(name), out) {
                Current::Is(_) => {}
                Current::Ask(names) => return self.ask(names, frame, out),
                Current::Wait => return self.hold = Hold::Answers(frame),
            }
        }
        self.batch = true;
        let gone = named.and_then(|(_, name)| self.portals.get(name)).is_some_and(|p| p.gone && parameters.is_none());
        // of what returns nothing the server tells that even where the transaction has failed, or the table is gone
        if strip == Strip::Rows && !gone {
            let known = parameters.as_ref().map(|p| p.get().cloned());
            if let Some(parameters) = known.unwrap_or(Some(Bytes::new())) {
                let told = [&parameters, &edit::no_data()].map(|b| b.to_vec()).concat();
                self.pending.push_back(Expected::Told(told.into()));
                return self.turn_pages(out);
            }
        }
        self.pending.push_back(Expected::Describe(strip, parameters));
        out.server(frame.bytes);
    }

    pub(crate) fn close(&mut self, frame: Frame, out: &mut Output) {
        let before = match frontend::kind_and_name(frame.body()) {
            Some((b'S', name)) => {
                match std::str::from_utf8(name).ok().filter(|name| self.sql_prepared.contains_key(*name)) {
                    Some(name) => Before::Given(self.gives_away(name)),
                    None => Before::Statement(Bytes::copy_from_slice(name), self.statements.remove(name)),
                }
            }
            Some((b'P', name)) => Before::Portal(Bytes::copy_from_slice(name), self.portals.remove(name), false),
            _ => return self.reply_to(frame, Before::Nothing, out),
        };
        self.replacing(&before);
        self.pending.push_back(Expected::Reply { plan: None, before });
        // it can't fail, and there is nothing yet that a Sync of ours would end: a question in the same batch would make a block
        // of it for the server, in which a CALL can't commit and no VACUUM runs
        out.server(frame.bytes);
    }

    pub(crate) fn execute(&mut self, frame: Frame, out: &mut Output) {
        self.execute_in(frame, None, out);
    }

    /// `parts`: it has waited for the message behind it, and is run with the client's row limit or without.
    pub(crate) fn execute_in(&mut self, frame: Frame, parts: Option<bool>, out: &mut Output) {
        let Some((name, limit)) = frontend::execute(frame.body()) else {
            return self.reply_to(frame, Before::Nothing, out);
        };
        let name = Bytes::copy_from_slice(name);
        if self.is_unsure(b'P', &name) {
            return self.hold = Hold::Answers(frame);
        }
        if parts.is_none() && self.waits(&name, limit, &frame) {
            return;
        }
        let failed = self.units.back().is_some_and(|u| u.failed && !u.closed);
        let (step, plan, binary, lock) = match self.portals.get(&name) {
            // whether its rows come at all isn't known yet
            Some(portal)
                if portal.paged && !portal.gone && self.awaits_ready() && (self.block || self.awaits_page(&name)) =>
            {
                return self.hold = Hold::Answers(frame);
            }
            Some(portal) if portal.paged && !portal.gone && !failed => {
                // its rows have come, or are coming, all at once: the client gets them page by page
                self.pending.push_back(Expected::Page { portal: name, limit });
                return self.turn_pages(out);
            }
            // whether the transaction has failed isn't known yet
            Some(portal) if portal.ran && self.block && self.awaits_ready() => {
                return self.hold = Hold::Answers(frame);
            }
            Some(portal) if portal.ran && !portal.gone && !failed => {
                self.ran_already(&name, out);
                (Arc::new(Step::none(StatementClass::Other)), None, false, None)
            }
            Some(p) => (self.resolved(&p.step), p.plan.clone(), p.binary, p.lock.clone()),
            None => (Arc::new(Step::none(StatementClass::Other)), None, false, None),
        };
        if is_commit(&step) && self.must_know_before_commit() || self.is_unsure_by_name(&step) {
            return self.hold = Hold::Answers(frame);
        }
        let frame = match &plan {
            // what it may mean by its names isn't known any more
            Some(plan) if !plan.locks.is_empty() && self.identity.is_none() && !self.probe_failed => {
                return self.ask(Vec::new(), frame, out);
            }
            Some(plan) if parts.is_none() => match self.guarded(plan, frame, out) {
                Some(frame) => frame,
                None => return,
            },
            _ => frame,
        };
        if let Some(error) = self.refusal() {
            return self.refuse_execute(error, out);
        }
        Counter::Statements(step.class).add(1);
        let in_block = self.block;
        self.batch = true;
        let unit = self.open_unit();
        let wrote = unit.writes && !unit.failed;
        unit.sent(&step);
        let takes_back = unit.session_changed && takes_back(&step);
        let (mut ends_unit, mut ended) = (false, HashMap::new());
        if let Effect::Control(control) = &step.effect {
            match control {
                Control::Begin => {
                    self.block = true;
                    self.batch_control = true;
                }
                Control::Commit { chain } | Control::Rollback { chain } if in_block => {
                    ended = self.end_portals();
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
                    ended = self.end_portals();
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
                Control::Commit { .. } | Control::Rollback { .. } | Control::Prepare(_) if wrote => {
                    self.declare_ended_batch();
                    self.write_intent(out);
                    ends_unit = true;
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
        let in_parts = parts == Some(true) || self.portals.get(&name).is_some_and(|portal| portal.in_parts);
        let captured = step.strip() != Strip::Nothing && limit > 0 && !in_parts;
        let bytes = if captured { frontend::execute_frame(&name, 0) } else { frame.bytes };
        let page = (captured && step.strip() == Strip::LastColumn).then(|| Page::new(name.clone(), limit));
        if let Some(portal) = self.portals.get_mut(&name) {
            portal.paged |= page.is_some();
            portal.in_parts |= in_parts;
        }
        let first = (step.strip() == Strip::Rows).then(|| name.clone());
        if let Some(portal) = first.as_ref().and_then(|name| self.portals.get_mut(name)) {
            portal.ran = true;
        }
        let given = self.gives_names(&step);
        let settings = self.settings_for(std::slice::from_ref(&step));
        let sampled = self.sample_execute(&name);
        if step.changes_session || takes_back {
            self.batch_control = true;
            // what comes in the same batch is looked up behind it
            self.forget_identity();
        }
        let put_back = self.set_lock_timeout(plan.as_deref(), out);
        let mut behind = None;
        if let (Some(statement), Some(lock)) = (lock, step.lock()) {
            behind = lock.behind.as_ref().map(|look| (look.text.clone(), Purpose::LookBehind(Arc::clone(&step))));
            let (purpose, left) = (Purpose::Lock(Arc::clone(lock)), frontend::OWN_STATEMENT_REPLIES);
            self.pending.push_back(Expected::Own(OwnRun::new(purpose, left)));
            out.server(statement);
        }
        let run = ExecuteRun {
            step,
            plan,
            stage: Stage::default(),
            binary,
            ends_unit,
            page,
            first,
            ended,
            given,
            settings,
            sampled,
        };
        let reads_file = !run.step.copy_in;
        self.pending.push_back(Expected::Execute(Box::new(run)));
        out.server(bytes);
        if let Some((text, purpose)) = behind {
            out.server(frontend::own_statement(NAME, text.as_bytes(), None));
            self.pending.push_back(Expected::Own(OwnRun::new(purpose, frontend::OWN_STATEMENT_REPLIES)));
        }
        if reads_file {
            self.send_look_back(out);
        }
        if let Some(sql) = put_back {
            self.own_set(&sql, out);
        }
    }

    /// A transaction's end is that of its portals.
    fn end_portals(&mut self) -> HashMap<Bytes, Portal> {
        self.replaced.extend(self.portals.keys().map(|name| ((b'P', name.clone()), self.syncs_sent)));
        std::mem::take(&mut self.portals)
    }

    /// What returns no rows can't be executed again; with our column it returns some, and could. The server's own refusal
    /// comes by a portal of that name that has run a statement without effect.
    fn ran_already(&mut self, name: &Bytes, out: &mut Output) {
        for bytes in [
            frontend::close_statement(NAME),
            frontend::parse(NAME, b"UNLISTEN _pgshadow", &0_i16.to_be_bytes()),
            frontend::close_portal(name),
            frontend::bind_nothing(name, NAME),
            frontend::execute_frame(name, 0),
            frontend::close_statement(NAME),
        ] {
            out.server(bytes);
        }
        self.pending.push_back(Expected::Own(OwnRun::new(Purpose::Ran, 6)));
    }

    pub(crate) fn sync(&mut self, frame: Frame, out: &mut Output) {
        self.skip_to_sync = false;
        let mut ends_unit = false;
        if let Some(unit) = self.units.back().filter(|u| !u.closed && !u.explicit) {
            let (writes, needs_end) = (unit.writes && !unit.failed, unit.needs_end());
            ends_unit = true;
            if writes && needs_end && self.identity.as_ref().is_some_and(|i| !i.may_draw) {
                self.declare_undrawn();
            } else if writes && needs_end && self.batch_alone() {
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
