//! Errors: what the server didn't run, and what the client is told.
use crate::expected::{Before, Expected, OwnRun, Portal, Prepared, Purpose, Stage, SyncPurpose};
use crate::journal::Journal;
use crate::outcome::aborted;
use crate::plan::{Control, Effect, Plan, Step};
use crate::renewal::LEFT_WHEN_CLOSED;
use crate::session::{Hold, Output, Session};
use bytes::Bytes;
use pgshadow_sql::LockAhead;
use pgshadow_wire::{Frame, backend, edit, frontend};
use std::sync::Arc;

impl<J: Journal> Session<J> {
    pub(crate) fn error(&mut self, frame: Frame, out: &mut Output) {
        self.copying = false;
        match self.pending.pop_front() {
            Some(Expected::Query(mut run)) if self.takes_query_again(&run, &frame) => {
                (run.failed, run.again) = (true, true);
                run.stage = Stage::default();
                if let Some(unit) = self.units.front_mut() {
                    unit.failed = true;
                    unit.outstanding = 0;
                }
                self.hold = Hold::Ready;
                self.pending.push_front(Expected::Query(run));
            }
            Some(Expected::Query(mut run)) => {
                run.failed = true;
                run.stage = Stage::default();
                run.held = None;
                run.looking = None;
                // a syntax error of the text itself, not of one that a block runs: none of it was run
                let field = |which| backend::error_field(frame.body(), which);
                let unparsed = run.at == 0 && field(b'C') == Some(b"42601") && field(b'W').is_none();
                if run.at == 0 && field(b'C') == Some(b"22021") && run.unnamed.is_some() {
                    // its own bytes, perhaps: the server refuses them before it puts an end to the unnamed statement
                    self.restore_statement(Bytes::new(), run.unnamed.take());
                }
                if let Some(unit) = self.units.front_mut() {
                    unit.may_commit &= !unparsed;
                    unit.failed = true;
                    (unit.outstanding, unit.finished) = (0, None);
                }
                let locks = !run.locked && run.plan.steps.get(run.at).is_some_and(|step| step.lock().is_some());
                let renamed = if locks { in_place_of_lock(&frame) } else { None };
                let refusal = run.refusal.take().or(renamed);
                out.client(refusal.unwrap_or_else(|| positioned(&run.plan, (run.offset, run.ahead), &frame)));
                self.pending.push_front(Expected::Query(run));
                self.copy_failed(out);
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
    pub(crate) fn batch_error(&mut self, first: Expected, frame: Frame, out: &mut Output) {
        let plan = match &first {
            Expected::Execute(run) => run.plan.clone(),
            Expected::Reply { plan, .. } => plan.clone(),
            _ => None,
        };
        // with more than one format the Bind had one more than the client's
        let fewer = matches!(&first, Expected::Reply { before: Before::Portal(.., true), .. });
        let frame = match edit::without_a_format(&frame).filter(|_| fewer) {
            Some(bytes) => Frame { bytes, ..frame },
            None => frame,
        };
        let own = match &first {
            Expected::Own(run) => Some(run.purpose.clone()),
            _ => None,
        };
        // what is skipped behind a refused Parse, say, has not run
        let ran = matches!(&first, Expected::Execute(run) if run.step.may_commit);
        if let Some(unit) = self.units.front_mut() {
            unit.may_commit &= ran || unit.ran_committing;
            unit.end_failed |= matches!(&first, Expected::Execute(run) if run.ends_unit);
        }
        let again = self.takes_batch_again(&first, &frame);
        let skipped = self.skip(first);
        self.fail_front(&skipped);
        if again && self.only_sync_follows() {
            return self.wait_to_take_again(out);
        }
        match own {
            Some(Purpose::Probe { .. } | Purpose::LockTimeout) => self.probe_error(frame, out),
            Some(Purpose::Refused(error)) => out.client(error),
            // what the client's own text would meet as well
            Some(Purpose::Parse { plan, .. }) => out.client(positioned(&plan, (0, 0), &frame)),
            Some(Purpose::Ran | Purpose::SetLockTimeout) => out.client(frame.bytes),
            Some(Purpose::Lock(lock)) => out.client(in_lock(&lock, &frame)),
            Some(_) if self.error_before_commit(&frame) => {}
            Some(_) => {
                self.roll_back_at_ready |= skipped.end;
                out.client(frame.bytes);
            }
            None => out.client(plan.map_or_else(|| frame.bytes.clone(), |p| positioned(&p, (0, 0), &frame))),
        }
        if self.pending.is_empty() {
            // its Sync is still to come: what the client sends before it is skipped
            self.skip_to_sync = true;
            // whatever is waited for is skipped as well
            let held = std::mem::replace(&mut self.hold, Hold::Free);
            self.copy_failed(out);
            if let Hold::Copy(frame) = held
                && frame.tag == frontend::SYNC
            {
                self.sync(frame, out);
            }
        }
    }

    /// Takes off what the server skips after an error of `first`: all up to the next Sync.
    pub(crate) fn skip(&mut self, first: Expected) -> Skipped {
        let mut skipped = vec![first];
        while let Some(expected) = self.pending.pop_front() {
            if matches!(expected, Expected::Sync { .. }) {
                self.pending.push_front(expected);
                break;
            }
            skipped.push(expected);
        }
        let of_pieces = |e: &Expected| matches!(e, Expected::Query(run) if !run.last_piece);
        if skipped.iter().any(of_pieces) {
            self.pieces.clear();
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
        for (place, expected) in skipped.into_iter().enumerate().rev() {
            match expected {
                Expected::Reply { before: Before::Statement(name, before), .. } => {
                    // a Parse that was refused has taken the unnamed one with it
                    let taken = place == 0 && name.is_empty();
                    self.restore_statement(name, before.filter(|_| !taken));
                }
                Expected::Reply { before: Before::Portal(name, before, _), .. } => {
                    // one that was refused may have taken the unnamed one with it
                    let refused = place == 0 && name.is_empty();
                    let before = before.map(|portal| Portal { gone: portal.gone || refused, ..portal });
                    self.restore_portal(name, before);
                }
                Expected::Reply { before: Before::Given(given), .. } => self.names_stand_again(given),
                Expected::Execute(run) => {
                    self.names_stand_again(run.given);
                    if let Some(page) = run.page
                        && let Some(portal) = self.portals.get_mut(&page.portal)
                    {
                        portal.paged = self.pages.contains_key(&page.portal);
                    }
                    if place == 0 {
                        continue;
                    }
                    run.ended.into_iter().for_each(|(name, portal)| self.restore_portal(name, Some(portal)));
                    if let Some(portal) = run.first.and_then(|name| self.portals.get_mut(&name)) {
                        portal.ran = false;
                    }
                }
                Expected::Query(run) => {
                    run.ended.into_iter().for_each(|(name, portal)| self.restore_portal(name, Some(portal)));
                    if run.unnamed.is_some() {
                        self.restore_statement(Bytes::new(), run.unnamed);
                    }
                }
                Expected::Own(OwnRun { purpose: Purpose::Parse { name, mut before, .. }, left, .. }) => {
                    before.lost |= left <= LEFT_WHEN_CLOSED;
                    self.restore_statement(name, Some(*before));
                }
                _ => {}
            }
        }
        count
    }

    /// A name means again what it did: for all, or up to the next message, already sent, that gives it another meaning.
    pub(crate) fn restore_statement(&mut self, name: Bytes, before: Option<Prepared>) {
        for later in &mut self.pending {
            match later {
                Expected::Reply { before: Before::Statement(other, place), .. } if *other == name => {
                    return *place = before;
                }
                Expected::Own(OwnRun { purpose: Purpose::Parse { name: other, before: place, .. }, .. })
                    if *other == name =>
                {
                    return before.into_iter().for_each(|before| **place = before);
                }
                Expected::Query(run) if name.is_empty() => return run.unnamed = before,
                _ => {}
            }
        }
        match before {
            Some(before) => self.statements.insert(name, before),
            None => self.statements.remove(&name),
        };
    }

    fn restore_portal(&mut self, name: Bytes, before: Option<Portal>) {
        for later in &mut self.pending {
            if let Expected::Reply { before: Before::Portal(other, place, _), .. } = later
                && *other == name
            {
                return *place = before;
            }
        }
        match before {
            Some(before) => self.portals.insert(name, before),
            None => self.portals.remove(&name),
        };
    }

    /// The front unit's statement failed; an end of it behind that, in the same batch, isn't run.
    pub(crate) fn fail_front(&mut self, skipped: &Skipped) {
        let Some(unit) = self.units.front_mut() else { return };
        unit.failed = true;
        (unit.outstanding, unit.finished) = (0, None);
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
    pub(crate) fn error_before_commit(&mut self, frame: &Frame) -> bool {
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

    pub(crate) fn probe_error(&mut self, frame: Frame, out: &mut Output) {
        let field = |which| backend::error_field(frame.body(), which).unwrap_or_default();
        let canceled = field(b'C') == b"57014";
        let timeout = canceled && field(b'M').windows(7).any(|w| w == b"timeout");
        let alone = !self.batch && self.status == b'I';
        if timeout && alone && self.probe_timeouts < PROBE_TIMEOUTS_MAX {
            // it is made again once the server is ready
            self.probe_timeouts += 1;
            return;
        }
        self.probe_failed = !canceled || timeout && alone;
        if self.batch {
            // the server skips the client's batch now, as it would have after the same error of the client's statement
            self.hold = Hold::Free;
            self.skip_to_sync = true;
            out.client(frame.bytes);
        } else if self.status == b'T' || !self.probe_failed {
            // our error has failed the client's transaction, or the client has canceled what it believes to be its own statement:
            // it is told, as if that had met it
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
}

/// How often a lookup that ran into the client's statement_timeout is made again.
const PROBE_TIMEOUTS_MAX: u8 = 3;

/// What the server didn't run after an error.
pub(crate) struct Skipped {
    /// The end of a transaction is among it.
    end: bool,
    /// Units that it belongs to, the front one included.
    units: usize,
}

/// An error whose position is that in the client's own text. `offset`: characters of it in front of what was sent; `ahead`: of ours
/// in front of that.
pub(crate) fn positioned(plan: &Plan, (offset, ahead): (usize, usize), frame: &Frame) -> Bytes {
    if plan.text.is_none() && offset == 0 && ahead == 0 {
        return frame.bytes.clone();
    }
    let original = |p: usize| plan.rewrites.original_position(p.saturating_sub(ahead)) + offset;
    edit::with_position(frame, original).unwrap_or_else(|| frame.bytes.clone())
}

/// The error that a statement's condition met while its rows were locked, with the position in the client's own text.
fn in_lock(lock: &LockAhead, frame: &Frame) -> Bytes {
    let placed = edit::with_position(frame, |p| lock.original_position(p));
    placed.or_else(|| in_place_of_lock(frame)).unwrap_or_else(|| frame.bytes.clone())
}

/// What the server refuses to lock (in a transaction that only reads), it would have refused to update in the same words.
fn in_place_of_lock(frame: &Frame) -> Option<Bytes> {
    let names = [&b"SELECT FOR NO KEY UPDATE"[..], b"SELECT FOR UPDATE"];
    names.iter().find_map(|name| edit::with_statement(frame, name, b"UPDATE"))
}
