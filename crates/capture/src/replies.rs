//! Frames of the server, on their way to the client.
use crate::expected::{Before, ExecuteRun, Expected, OwnRun, Purpose, QueryRun};
use crate::guard::Guarding;
use crate::journal::Journal;
use crate::locked::LockedRows;
use crate::plan::{Control, Effect, Step, Strip};
use crate::session::{Output, Session};
use bytes::Bytes;
use pgshadow_catalog::probe;
use pgshadow_wire::{Frame, backend, edit};
use std::sync::Arc;

/// What the server holds back of its answers before it sends them (`PQ_SEND_BUFFER_SIZE`).
pub(crate) const SERVER_BUFFER: usize = 8192;

/// From this version on a portal that is fetched in parts ends with the number of the last part's rows, before with that of all.
const COUNTS_PARTS: u32 = 130_000;

impl<J: Journal> Session<J> {
    /// Takes one frame of the server.
    pub fn server(&mut self, frame: Frame, out: &mut Output) {
        let before = out.to_client.len();
        // what waits for the client's data must reach it
        let asks = frame.tag == backend::COPY_IN;
        self.tells_types(&frame);
        self.server_frame(frame, out);
        if out.to_client.len() > before {
            self.attempt.over();
        }
        self.take_what_is_left(out);
        self.copy_goes_on(out);
        self.withhold(before, asks, out);
    }

    /// The server sends nothing of a string's first statements while a later one waits for a lock, say. Where it was given
    /// them piece by piece, the client doesn't get the first answers sooner for that.
    pub(crate) fn withhold(&mut self, before: usize, asks: bool, out: &mut Output) {
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

    pub(crate) fn server_frame(&mut self, frame: Frame, out: &mut Output) {
        match frame.tag {
            backend::NOTIFICATION => self.notification(frame, out),
            backend::NOTICE => self.notice(frame, out),
            backend::PARAMETER_STATUS => self.parameter_status(frame, out),
            backend::READY_FOR_QUERY => self.ready(frame, out),
            backend::ERROR => self.error(frame, out),
            backend::COPY_BOTH => {
                self.lose_track("a replication stream was started");
                out.client(frame.bytes);
            }
            _ => self.reply(frame, out),
        }
    }

    pub(crate) fn reply(&mut self, frame: Frame, out: &mut Output) {
        if frame.tag == backend::COPY_IN {
            self.copy_begins();
        }
        match self.pending.pop_front() {
            Some(Expected::Query(run)) => self.query_reply(run, frame, out),
            Some(Expected::Execute(run)) => self.execute_reply(run, frame, out),
            Some(Expected::Own(run)) => {
                self.own_reply(run, frame, out);
                self.turn_pages(out);
            }
            Some(Expected::Describe(strip, parameters)) => {
                if frame.tag == backend::PARAMETER_DESCRIPTION {
                    parameters.as_ref().map(|p| p.set(Bytes::copy_from_slice(&frame.bytes)));
                    self.pending.push_front(Expected::Describe(strip, parameters));
                    out.client(frame.bytes);
                } else {
                    out.client(description(strip, &frame));
                    self.turn_pages(out);
                }
            }
            Some(Expected::Reply { before, .. }) => {
                if let Before::Portal(name, ..) = &before
                    && let Some(portal) = self.portals.get_mut(name)
                {
                    portal.savepoints = self.units.front().map(|unit| unit.savepoints.len());
                    self.pages.remove(name);
                }
                out.client(frame.bytes);
                self.turn_pages(out);
            }
            Some(Expected::Parameters(parameters)) => {
                if frame.tag == backend::PARAMETER_DESCRIPTION {
                    drop(parameters.set(Bytes::copy_from_slice(&frame.bytes)));
                    self.pending.push_front(Expected::Parameters(parameters));
                } else {
                    self.turn_pages(out);
                }
            }
            Some(Expected::Syncs { passed, .. }) if frame.tag == backend::CLOSE_COMPLETE => {
                self.syncs_amid_copy_end(passed);
            }
            Some(other) => {
                self.pending.push_front(other);
                out.client(frame.bytes);
            }
            None => out.client(frame.bytes),
        }
    }

    pub(crate) fn query_reply(&mut self, mut run: Box<QueryRun>, frame: Frame, out: &mut Output) {
        let steps = run.plan.steps.len();
        if run.at >= steps && !run.suffix.is_empty() {
            self.suffix_reply(&mut run, &frame, out);
            return self.pending.push_front(Expected::Query(run));
        }
        if run.sets {
            // ours in front of the client's
            run.sets = frame.tag != backend::COMMAND_COMPLETE;
            return self.pending.push_front(Expected::Query(run));
        }
        let step = run.plan.steps.get(run.at).map(|s| self.resolved(s));
        if let (Some(_), Some(step)) = (&run.looking, &step) {
            self.look_behind_reply(&mut run, step, &frame, out);
            return self.pending.push_front(Expected::Query(run));
        }
        if !run.locked && step.as_ref().is_some_and(|s| s.lock().is_some()) {
            lock_reply(&mut run, &frame, out);
            return self.pending.push_front(Expected::Query(run));
        }
        if let (Some(_), Some(step)) = (&run.copied, &step) {
            self.look_back_reply(&mut run, step, frame);
            return self.pending.push_front(Expected::Query(run));
        }
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
                let mut stage = std::mem::take(&mut run.stage);
                stage.statement = run.recorded(&stage);
                if let (Some(step), Some(tag)) = (&step, backend::command_tag(frame.body())) {
                    self.gives_names(step);
                    self.complete(step, stage, tag, run.settings.as_ref());
                    self.rolled_back_to(step);
                    run.copied = step.look_back().map(|_| backend::tag_rows(tag));
                }
                if step.is_some_and(|step| step.look_behind().is_some()) {
                    run.looking = Some((frame.bytes, LockedRows::default()));
                } else {
                    statement_ended(&mut run, frame.bytes, out);
                }
            }
            _ => out.client(frame.bytes),
        }
        self.pending.push_front(Expected::Query(run));
    }

    /// Answers to the look behind a statement of a Query; then the client is told that it is over.
    fn look_behind_reply(&mut self, run: &mut QueryRun, step: &Step, frame: &Frame, out: &mut Output) {
        match frame.tag {
            backend::DATA_ROW => {
                if let (Some(row), Some((_, looked))) = (own_row(frame), &mut run.looking) {
                    looked.push(row);
                }
            }
            backend::COMMAND_COMPLETE => {
                if let Some((complete, looked)) = run.looking.take() {
                    self.looked_behind(step, looked);
                    statement_ended(run, complete, out);
                }
            }
            _ => {}
        }
    }

    /// Answers to our own statements at the end of a Query.
    pub(crate) fn suffix_reply(&mut self, run: &mut QueryRun, frame: &Frame, out: &mut Output) {
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

    pub(crate) fn execute_reply(&mut self, mut run: Box<ExecuteRun>, frame: Frame, out: &mut Output) {
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
                let mut stage = std::mem::take(&mut run.stage);
                stage.statement = run.sampled.take().and_then(|mut sampled| sampled.statement(None, &stage));
                if frame.tag == backend::PORTAL_SUSPENDED {
                    self.suspended(&run.step, stage);
                } else if let Some(tag) = backend::command_tag(frame.body()) {
                    self.complete(&run.step, stage, tag, run.settings.as_ref());
                    self.rolled_back_to(&run.step);
                    self.copied(&run.step, backend::tag_rows(tag));
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

    /// ROLLBACK TO takes the portals with it that were bound behind the savepoint.
    fn rolled_back_to(&mut self, step: &Step) {
        if let (Effect::Control(Control::RollbackTo(_)), Some(unit)) = (&step.effect, self.units.front()) {
            let left = unit.savepoints.len();
            self.portals.values_mut().for_each(|p| p.gone |= p.savepoints.is_some_and(|bound| bound >= left));
        }
    }

    /// Answers Executes of portals whose rows are here already, as soon as it is their turn.
    pub(crate) fn turn_pages(&mut self, out: &mut Output) {
        let in_parts = self.identity.as_ref().is_none_or(|identity| identity.version >= COUNTS_PARTS);
        loop {
            if let Some(Expected::Told(told)) = self.pending.front() {
                out.client(told.clone());
                self.pending.pop_front();
                continue;
            }
            let Some(Expected::Page { portal, limit }) = self.pending.front() else { return };
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
            out.client(match (rows == most, in_parts) {
                (true, _) => edit::portal_suspended(),
                (false, true) => edit::with_rows(&page.complete, rows),
                (false, false) => page.complete.clone(),
            });
        }
    }

    pub(crate) fn own_reply(&mut self, mut run: OwnRun, frame: Frame, out: &mut Output) {
        match frame.tag {
            backend::DATA_ROW => {
                let body = frame.body_bytes();
                let value = backend::fields(frame.body()).and_then(|f| f.first().copied().flatten());
                if let Purpose::LookBack(step) = &run.purpose {
                    let step = Arc::clone(step);
                    drop(self.row(Some(&step), &mut run.stage, frame, true));
                    return self.pending.push_front(Expected::Own(run));
                }
                match (value, &run.purpose) {
                    // copied where many may come: they must not hold the whole read buffer
                    (Some(row), Purpose::Lock(_) | Purpose::LookBehind(_)) => {
                        run.locked.push(Bytes::copy_from_slice(row))
                    }
                    (Some(value), _) => run.values.push(body.slice_ref(value)),
                    (None, _) => {}
                }
                self.pending.push_front(Expected::Own(run));
            }
            _ if run.left > 1 => {
                run.left -= 1;
                self.pending.push_front(Expected::Own(run));
            }
            _ => match run.purpose {
                Purpose::Constraints | Purpose::Parse { .. } | Purpose::Ran | Purpose::RollBack => {}
                Purpose::SetLockTimeout | Purpose::Refused(_) => {}
                Purpose::LockTimeout => {
                    if let (Guarding::Showing, Some(own)) = (&self.guarding, run.values.pop()) {
                        self.guarding = Guarding::Shown(own);
                    }
                    // outside a batch the frame goes on once the server is ready
                    if self.batch {
                        self.resume(out);
                    }
                }
                Purpose::LookBack(step) => {
                    if let Some(look) = step.look_back() {
                        self.looked_back(look, run.stage, run.copied);
                    }
                }
                Purpose::Lock(_) => {
                    if let Some(Expected::Execute(next)) = self.pending.front_mut() {
                        next.stage.locked = run.locked;
                    }
                }
                Purpose::LookBehind(step) => self.looked_behind(&step, run.locked),
                Purpose::End { locks } => self.ended(run.values.last().map(|v| &**v), locks),
                Purpose::Probe { names, epoch } => {
                    match run.values.last().map(|v| probe::answer(v)) {
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
}

/// The answer to Describe as the client's own text would have got it.
pub(crate) fn description(strip: Strip, frame: &Frame) -> Bytes {
    match (strip, frame.tag) {
        (Strip::Rows, backend::ROW_DESCRIPTION) => edit::no_data(),
        (Strip::LastColumn, backend::ROW_DESCRIPTION) => {
            edit::without_last_column(frame).unwrap_or_else(|| frame.bytes.clone())
        }
        _ => frame.bytes.clone(),
    }
}

/// Answers to the statement that locks the rows of the client's own one behind it: the client sees none of them.
fn lock_reply(run: &mut QueryRun, frame: &Frame, out: &mut Output) {
    match frame.tag {
        backend::ROW_DESCRIPTION => {}
        // one that can't be read makes the numbers differ
        backend::DATA_ROW => own_row(frame).into_iter().for_each(|row| run.stage.locked.push(row)),
        backend::COMMAND_COMPLETE => run.locked = true,
        _ => out.client(frame.bytes.clone()),
    }
}

/// The only column of a row that a statement of ours in a Query gave.
fn own_row(frame: &Frame) -> Option<Bytes> {
    let value = backend::fields(frame.body()).and_then(|f| f.first().copied().flatten());
    value.and_then(backend::bytea_text).map(Bytes::from)
}

/// A statement of a Query is over, with this CommandComplete.
fn statement_ended(run: &mut QueryRun, complete: Bytes, out: &mut Output) {
    let ended = run.at + 1;
    if run.copied.is_none() {
        run.at = ended;
    }
    run.locked = false;
    if let Some(instead) = run.instead.take() {
        run.failed = true;
        out.client(instead);
    } else if ended == run.plan.steps.len() && !run.suffix.is_empty() {
        run.held = Some(complete);
    } else {
        out.client(complete);
    }
}
