//! A write outside a block that failed by what was added to it, since a definition has changed past pgshadow: it is taken again.
//!
//! Only where the error came before anything was run, and before the client was told anything; then a second try is all that it sees.
//! Whether the client's own text fails as well is for that to tell. What the client sent in the meantime waits.
use crate::expected::{Before, Expected, OwnRun, Purpose, QueryRun, SyncPurpose};
use crate::journal::Journal;
use crate::plan::{Plan, Strip};
use crate::session::{Hold, Output, Session};
use bytes::Bytes;
use pgshadow_catalog::Redefined;
use pgshadow_sql::parse;
use pgshadow_wire::{Frame, backend, frontend};
use std::collections::VecDeque;
use std::sync::Arc;

/// Messages of one batch that are kept, and bytes of them.
const FRAMES_MAX: usize = 8;
const BYTES_MAX: usize = 1 << 20;

/// What the client sent since nothing was under way.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    frames: Vec<Frame>,
    bytes: usize,
    /// Its Sync or Query is among them.
    ended: bool,
    /// They can be taken again.
    open: bool,
    /// They are being taken again: these are left.
    again: VecDeque<Frame>,
}

impl Attempt {
    /// It has been answered, or nothing in it is ours.
    pub fn over(&mut self) {
        if self.open {
            *self = Self { again: std::mem::take(&mut self.again), ..Self::default() };
        }
    }

    /// Whether all of it has been taken.
    pub fn taken(&self) -> bool {
        self.again.is_empty()
    }

    fn begin(&mut self) {
        *self = Self { open: true, ..Self::default() };
    }

    fn note(&mut self, frame: &Frame) {
        if !self.open {
            return;
        }
        let executed = |kept: &Frame| kept.tag == frontend::EXECUTE;
        let one_more = frame.tag == frontend::EXECUTE && self.frames.iter().any(executed);
        self.bytes += frame.bytes.len();
        let follows = match frame.tag {
            frontend::QUERY => self.frames.is_empty(),
            frontend::PARSE | frontend::BIND | frontend::DESCRIBE | frontend::EXECUTE => !one_more,
            frontend::SYNC | frontend::FLUSH => true,
            _ => false,
        };
        if self.ended || !follows || self.frames.len() >= FRAMES_MAX || self.bytes > BYTES_MAX {
            return self.over();
        }
        self.ended = matches!(frame.tag, frontend::QUERY | frontend::SYNC);
        self.frames.push(frame.clone());
    }
}

impl<J: Journal> Session<J> {
    /// The client's next frame, before it is taken.
    pub(crate) fn note_attempt(&mut self, frame: &Frame) {
        if self.idle() && !self.batch && self.status == b'I' && !self.skip_to_sync && self.attempt.taken() {
            self.attempt.begin();
        }
        self.attempt.note(frame);
    }

    /// A Query has failed: whether it is taken again once the server is ready.
    pub(crate) fn takes_query_again(&mut self, run: &QueryRun, error: &Frame) -> bool {
        let strip = run.plan.steps.get(run.at).map_or(Strip::Nothing, |step| self.resolved(step).strip());
        if !self.is_ours(&run.plan, strip, error) {
            return false;
        }
        let whole = run.at == 0 && run.last_piece && run.offset == 0 && !run.plan.steps.iter().any(|step| step.copy_in);
        whole && self.may_be_taken_again() && self.pending.is_empty()
    }

    /// A batch has failed by what was sent first: whether it is taken again, if nothing follows it.
    pub(crate) fn takes_batch_again(&mut self, first: &Expected, error: &Frame) -> bool {
        let plan = match first {
            Expected::Reply { plan: Some(plan), .. } => Arc::clone(plan),
            Expected::Own(OwnRun { purpose: Purpose::Parse { plan, .. }, .. }) => Arc::clone(plan),
            Expected::Own(OwnRun { purpose: Purpose::Lock(lock), .. }) => {
                // the client has been told of its Bind by then
                if position(error).is_some_and(|position| lock.original_position(position) == 1) {
                    self.shared.catalog.changed(&Redefined::Nothing);
                }
                return false;
            }
            _ => return false,
        };
        let strip = plan.steps.first().map_or(Strip::Nothing, |step| self.resolved(step).strip());
        if !self.is_ours(&plan, strip, error) {
            return false;
        }
        let parsed = matches!(first, Expected::Reply { before: Before::Statement(..), .. });
        (parsed || strip == Strip::Rows || !self.binds_a_star()) && self.may_be_taken_again()
    }

    /// Its Sync, or our own, is answered once the server has skipped the rest; then it begins anew.
    pub(crate) fn wait_to_take_again(&mut self, out: &mut Output) {
        self.limited.clear();
        match self.pending.front_mut() {
            Some(Expected::Sync { purpose, .. }) => *purpose = SyncPurpose::Again,
            _ => {
                let ends_unit = self.units.back().is_some_and(|unit| !unit.closed);
                self.units.iter_mut().for_each(|unit| unit.closed = true);
                self.pending.push_back(Expected::Sync { ends_unit, purpose: SyncPurpose::Again });
                self.syncs_sent += 1;
                self.portals.clear();
                (self.batch, self.batch_control) = (false, false);
                out.server(frontend::sync());
            }
        }
        self.hold = Hold::Ready;
    }

    /// The server is ready for it.
    pub(crate) fn take_again(&mut self, out: &mut Output) {
        self.hold = Hold::Free;
        self.attempt = Attempt { again: std::mem::take(&mut self.attempt.frames).into(), ..Attempt::default() };
        self.take_what_is_left(out);
    }

    /// Takes of it what can be taken by now.
    pub(crate) fn take_what_is_left(&mut self, out: &mut Output) {
        while matches!(self.hold, Hold::Free)
            && let Some(frame) = self.attempt.again.pop_front()
        {
            self.take(frame, out);
        }
    }

    /// Whether an error can only be one of what was added; then the definitions have changed past pgshadow. Nothing was run yet.
    fn is_ours(&mut self, plan: &Plan, strip: Strip, error: &Frame) -> bool {
        let field = |which| backend::error_field(error.body(), which);
        if field(b'V') != Some(b"ERROR") || field(b'W').is_some() {
            return false;
        }
        let inserted = position(error).is_some_and(|position| plan.rewrites.is_inserted(position));
        // rules don't return anything
        let ruled = strip == Strip::Rows && field(b'C') == Some(b"0A000") && field(b'R') == Some(b"RewriteQuery");
        if inserted || ruled {
            self.shared.catalog.changed(&Redefined::Nothing);
        }
        inserted || ruled
    }

    fn may_be_taken_again(&self) -> bool {
        let block = self.block || self.units.iter().any(|unit| unit.explicit);
        let free = matches!(self.hold, Hold::Free | Hold::Ready);
        self.attempt.open && !self.attempt.frames.is_empty() && !block && free && !self.lost_track
    }

    /// Whether the client has sent nothing behind it, once what the server skips is taken off.
    pub(crate) fn only_sync_follows(&self) -> bool {
        match self.pending.front() {
            None => !self.attempt.ended,
            Some(Expected::Sync { purpose: SyncPurpose::Client, .. }) => self.pending.len() == 1,
            Some(_) => false,
        }
    }

    /// Whether it binds a statement prepared before, whose own result has changed if the table has: the server refuses that one.
    fn binds_a_star(&self) -> bool {
        let bound = self.attempt.frames.iter().find(|frame| frame.tag == frontend::BIND);
        let name = bound
            .and_then(|frame| frontend::Bind::read(frame.body()))
            .map(|bind| Bytes::copy_from_slice(bind.statement));
        let text = name.and_then(|name| self.statements.get(&name)).map(|prepared| prepared.text.clone());
        let parsed = text.as_ref().and_then(|text| self.readable(text)).and_then(|read| parse(&read).ok());
        let returned = parsed.as_ref().and_then(|parsed| parsed.statements.first()).and_then(|s| s.returned());
        returned.is_none_or(|returned| returned.targets > 0 || !returned.relations.is_empty() || returned.uncounted)
    }
}

fn position(error: &Frame) -> Option<usize> {
    std::str::from_utf8(backend::error_field(error.body(), b'P')?).ok()?.parse().ok()
}
