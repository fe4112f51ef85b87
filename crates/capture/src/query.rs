//! The simple protocol: a query string, whole or in pieces.
use crate::classify::names_of;
use crate::expected::{Expected, QueryRun, Stage};
use crate::journal::Journal;
use crate::plan::{Control, Effect, Plan, Step};
use crate::planning::{Known, readable, unreadable};
use crate::send::{is_commit, takes_back};
use crate::session::{Hold, Output, Session};
use crate::unit::Unit;
use bytes::Bytes;
use pgshadow_model::Suspect;
use pgshadow_sql::{SetKind, Statement, StatementKind, parse};
use pgshadow_telemetry::{Counter, StatementClass};
use pgshadow_wire::Frame;
use pgshadow_wire::frontend::{self};
use std::collections::HashMap;
use std::sync::Arc;

impl<J: Journal> Session<J> {
    pub(crate) fn query(&mut self, frame: Frame, out: &mut Output) {
        let text = frontend::query_text(frame.body()).map(|text| frame.bytes.slice_ref(text));
        let Some(text) = text else {
            // the server will say what is wrong with it
            self.pending.push_back(Expected::Query(Box::new(QueryRun::new(
                Arc::new(unreadable(&Bytes::new())),
                0,
                true,
            ))));
            return out.server(frame.bytes);
        };
        match self.known(&text) {
            Known::Ask(names) => match self.ahead_of_lookup(&text) {
                Some(cut) => self.cut_and_send(&text, cut, 0, out),
                None => self.ask(names, frame, out),
            },
            Known::Plan(plan) => {
                self.probe_failed = false;
                if plan.text.is_none() && plan.for_query.is_none() {
                    self.attempt.over();
                }
                let unsure = plan.steps.iter().any(|s| self.is_unsure_by_name(s));
                if unsure || plan.steps.first().is_some_and(|s| is_commit(s)) && self.must_know_before_commit() {
                    return self.hold = Hold::Answers(frame);
                }
                let Some(_) = self.guarded(&plan, frame, out) else { return };
                if let Some(error) = self.refusal() {
                    return self.refuse_query(error, out);
                }
                plan.steps.iter().for_each(|s| Counter::Statements(s.class).add(1));
                let changed = self.units.back().is_some_and(|u| !u.closed && u.session_changed);
                let cuts = |s: &Arc<Step>| ends_or_begins(s) || changed && takes_back(s);
                if plan.steps.len() > 1 && plan.steps.iter().any(cuts) {
                    self.split(&plan, &text, 0, out);
                } else {
                    self.send_query(&text, plan, 0, true, out);
                }
            }
        }
    }

    /// A text with transaction control among other statements is sent piece by piece, so that each piece can be captured as
    /// if it had come alone; the client sees one answer.
    pub(crate) fn split(&mut self, plan: &Plan, text: &Bytes, offset: usize, out: &mut Output) {
        let utf8 = self.identity.as_ref().is_some_and(|i| i.client_encoding == "UTF8");
        if text.windows(2).any(|pair| pair == b"\\'") || !utf8 && !text.is_ascii() {
            // by backslash_quote, or by bytes that aren't of its encoding, the server may refuse it as a whole
            return self.send_declared(plan, text, offset, out);
        }
        let mut block = self.block;
        let mut cuts: Vec<std::ops::Range<usize>> = Vec::new();
        let mut after_control = true;
        // outside a block: something was run since, so that a block of the string's own is open
        let mut open = false;
        for (step, range) in plan.steps.iter().zip(&plan.ranges) {
            let control = ends_or_begins(step);
            match &step.effect {
                // BEGIN would turn that one into a real one
                Effect::Control(Control::Begin) if !open => block = true,
                _ if control && !block => return self.send_declared(plan, text, offset, out),
                Effect::Control(Control::Commit { chain } | Control::Rollback { chain }) => block = *chain,
                Effect::Control(Control::Prepare(_)) => block = false,
                _ if !block && !same_by_itself(step) => return self.send_declared(plan, text, offset, out),
                _ => open = !block,
            }
            match cuts.last_mut() {
                Some(last) if !control && !after_control => last.end = range.end,
                _ => cuts.push(range.clone()),
            }
            // names may mean something else behind it
            after_control = control || takes_back(step);
        }
        for cut in cuts.into_iter().rev() {
            self.pieces.push_front((text.slice(cut.clone()), offset + characters(text, cut.start)));
        }
        self.next_piece(out);
    }

    /// How much of a text goes ahead of our lookup of its tables: in a block the modes of a transaction must come before any query.
    fn ahead_of_lookup(&self, text: &Bytes) -> Option<usize> {
        let encoding = self.identity.as_ref().map_or("UTF8", |i| i.client_encoding.as_str());
        let parsed = parse(readable(text, encoding).filter(|_| self.block)?.as_ref()).ok()?;
        let modes = |s: &Statement| {
            matches!(s.kind, StatementKind::Begin | StatementKind::Set { kind: SetKind::Transaction, .. })
        };
        let first = parsed.statements.iter().take_while(|s| names_of(s).is_empty());
        let behind = parsed.statements.iter().skip(first.enumerate().filter(|(_, s)| modes(s)).last()?.0 + 1);
        behind.map(|s| s.range.start).next()
    }

    fn cut_and_send(&mut self, text: &Bytes, cut: usize, offset: usize, out: &mut Output) {
        self.pieces.push_front((text.slice(cut.min(text.len())..), offset + characters(text, cut)));
        self.pieces.push_front((text.slice(..cut.min(text.len())), offset));
        self.next_piece(out);
    }

    /// Sends the next piece of a text.
    pub(crate) fn next_piece(&mut self, out: &mut Output) {
        let Some((text, offset)) = self.pieces.pop_front() else { return };
        match self.known(&text) {
            Known::Ask(names) => {
                if let Some(cut) = self.ahead_of_lookup(&text) {
                    return self.cut_and_send(&text, cut, offset, out);
                }
                self.pieces.push_front((text, offset));
                // an empty frame: when the answer is there, the pieces go on
                self.ask(names, Frame { tag: 0, bytes: Bytes::new() }, out);
            }
            Known::Plan(plan) => {
                self.probe_failed = false;
                // an empty frame, as above; where the whole text was judged before it goes on
                self.pieces.push_front((text.clone(), offset));
                let Some(_) = self.guarded(&plan, Frame { tag: 0, bytes: Bytes::new() }, out) else { return };
                if let Some(error) = self.refusal() {
                    self.pieces.clear();
                    return self.refuse_query(error, out);
                }
                self.pieces.pop_front();
                if plan.steps.len() > 1 && plan.steps.iter().any(|s| ends_or_begins(s)) {
                    return self.split(&plan, &text, offset, out);
                }
                let last = self.pieces.is_empty();
                self.send_query(&text, plan, offset, last, out);
                self.hold = Hold::Ready;
            }
        }
    }

    /// A text that can't be taken apart: everything that it names becomes suspect.
    pub(crate) fn send_declared(&mut self, plan: &Plan, text: &Bytes, offset: usize, out: &mut Output) {
        let mut unit = Unit::default();
        plan.steps.iter().for_each(|s| unit.sent(s));
        let reason = "it was written in a query string with statements both inside and outside a transaction block";
        let any = unit.hidden_writes || unit.defines.contains(&None);
        let named = unit.may_write.iter().cloned().map(Some).chain(any.then_some(None));
        let suspects = named.map(|table| Suspect { table, reason: reason.to_owned() }).collect();
        let step = Step {
            effect: Effect::Opaque(suspects),
            changes_session: true,
            may_commit: true,
            may_define: plan.steps.iter().any(|s| s.class == StatementClass::Ddl || s.may_define),
            alone: true,
            ..Step::none(StatementClass::Other)
        };
        let declared = Plan { steps: vec![Arc::new(step)], ..unreadable(text) };
        let mut run = QueryRun::new(Arc::new(declared), offset, self.pieces.is_empty());
        self.end_unnamed(&mut run);
        let unit = self.open_unit();
        unit.failed = false;
        unit.give_up(reason);
        run.plan.steps.iter().for_each(|s| unit.sent(s));
        unit.hidden_writes = false;
        unit.given_up.extend(run.plan.steps.iter().flat_map(|s| s.suspects().to_vec()));
        if !unit.given_up.is_empty() {
            self.write_intent(out);
        }
        if let Some(unit) = self.units.back_mut() {
            unit.closed = true;
        }
        run.ends_unit = true;
        self.pending.push_back(Expected::Query(Box::new(run)));
        self.copy_sent_with(plan.steps.iter().map(|s| &**s));
        self.hold = Hold::Ready;
        out.server(frontend::query(text));
    }

    pub(crate) fn send_query(
        &mut self,
        text: &Bytes,
        plan: Arc<Plan>,
        offset: usize,
        last_piece: bool,
        out: &mut Output,
    ) {
        let plan = plan.for_query.clone().unwrap_or(plan);
        let mut run = QueryRun::new(Arc::clone(&plan), offset, last_piece);
        self.end_unnamed(&mut run);
        self.copy_sent_with(plan.steps.iter().map(|s| &**s));
        let control = plan.steps.iter().find_map(|s| match &s.effect {
            Effect::Control(control @ Control::FinishPrepared { .. }) => Some(control.clone()),
            Effect::Control(control) if ends_or_begins(s) => Some(control.clone()),
            _ => None,
        });
        if run.unnamed.is_some() && !text.is_ascii() {
            // whether it has put an end to it isn't known yet
            self.hold = Hold::Ready;
        }
        let by_name = |e: &Effect| matches!(e, Effect::Execute { .. } | Effect::Prepare { .. } | Effect::Deallocate(_));
        if plan.steps.iter().any(|s| s.changes_session || by_name(&s.effect)) || control.is_some() {
            self.hold = Hold::Ready;
        }
        let steps: Vec<Arc<Step>> = plan.steps.iter().map(|s| self.resolved(s)).collect();
        run.settings = self.settings_for(&steps);
        run.sampled = self.sample_query(text, &plan.steps);
        let in_block = self.block;
        let unit = self.open_unit();
        steps.iter().for_each(|s| unit.sent(s));
        if unit.session_changed && steps.iter().any(|s| takes_back(s)) {
            self.hold = Hold::Ready;
        }
        let mut sent = plan.text.clone().unwrap_or_else(|| text.clone());
        match control {
            Some(Control::Begin) => self.block = true,
            Some(Control::Commit { chain } | Control::Rollback { chain }) if in_block => {
                if matches!(control, Some(Control::Commit { .. })) {
                    self.before_commit(out);
                }
                self.end_block(&mut run, chain);
            }
            Some(Control::FinishPrepared { gid, .. }) => self.finishes_prepared(&gid, out),
            Some(Control::Prepare(gid)) if in_block => {
                self.prepare_transaction(&gid);
                self.before_commit(out);
                self.end_block(&mut run, false);
            }
            _ => {}
        }
        if !in_block && !self.block {
            run.ends_unit = true;
            sent = self.end_statement(&plan, &steps, &mut run, sent, out);
        }
        sent = self.with_lock_timeout(&plan, in_block, &mut run, sent);
        self.pending.push_back(Expected::Query(Box::new(run)));
        out.server(frontend::query(&sent));
    }

    /// A Query puts an end to the unnamed statement, and takes the unnamed portal's place where it has a statement; the end of
    /// a transaction is that of all its portals.
    fn end_unnamed(&mut self, run: &mut QueryRun) {
        let unnamed: &[u8] = b"";
        run.unnamed = self.statements.remove(unnamed);
        let mut steps = run.plan.steps.iter();
        let ends =
            if self.block { steps.any(|s| ends_or_begins(s) && !is_begin(s)) } else { !steps.all(|s| is_begin(s)) };
        if ends {
            run.ended = std::mem::take(&mut self.portals);
        } else if let Some(portal) = self.portals.get_mut(unnamed).filter(|_| !run.plan.steps.is_empty()) {
            // where the server can't plan the first statement, the portal is still there
            portal.gone = true;
        }
        if self.batch {
            // it may be skipped
            let statement = run.unnamed.iter().map(|_| (b'S', Bytes::new()));
            let names = statement.chain(run.ended.keys().map(|name| (b'P', name.clone())));
            self.replaced.extend(names.map(|name| (name, self.syncs_sent)));
        }
    }
}

impl QueryRun {
    pub(crate) fn new(plan: Arc<Plan>, offset: usize, last_piece: bool) -> Self {
        Self {
            plan,
            at: 0,
            locked: false,
            looking: None,
            copied: None,
            stage: Stage::default(),
            suffix: Vec::new(),
            own_value: None,
            held: None,
            ends_unit: false,
            failed: false,
            again: false,
            offset,
            last_piece,
            instead: None,
            refusal: None,
            ahead: 0,
            sets: false,
            settings: None,
            sampled: None,
            unnamed: None,
            ended: HashMap::new(),
        }
    }
}

/// BEGIN, COMMIT, ROLLBACK, PREPARE TRANSACTION: what changes whether a block is open.
pub(crate) fn ends_or_begins(step: &Step) -> bool {
    matches!(
        &step.effect,
        Effect::Control(Control::Begin | Control::Commit { .. } | Control::Rollback { .. } | Control::Prepare(_))
    )
}

/// Characters in front of a place of a text.
fn characters(text: &[u8], end: usize) -> usize {
    text.get(..end).map_or(0, |front| String::from_utf8_lossy(front).chars().count())
}

fn is_begin(step: &Step) -> bool {
    matches!(step.effect, Effect::Control(Control::Begin))
}

/// Whether it does and says the same as a Query of its own as it does in a string's own block: SET LOCAL, LOCK, VACUUM, and
/// what is checked at the end, tell the two apart.
pub(crate) fn same_by_itself(step: &Step) -> bool {
    let deferrable = matches!(&step.effect, Effect::Write(write) if write.table.deferrable);
    let plain = matches!(
        step.class,
        StatementClass::Read | StatementClass::Insert | StatementClass::Update | StatementClass::Delete
    );
    plain && !deferrable && !step.alone && !step.changes_session && !matches!(step.effect, Effect::Control(_))
}
