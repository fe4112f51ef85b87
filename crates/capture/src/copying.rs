//! COPY FROM STDIN: what the client sends behind it until its data end, and what the server ignores of that.
use crate::captured::HELD_BYTES;
use crate::expected::{Expected, SyncPurpose};
use crate::journal::Journal;
use crate::own::NAME;
use crate::plan::{Effect, Step};
use crate::session::{Hold, Output, Session};
use bytes::Bytes;
use pgshadow_wire::Frame;
use pgshadow_wire::frontend;
use std::sync::Arc;

/// Data of a COPY that come before the server has asked for them.
const UNASKED_BYTES_MAX: usize = 16 << 20;

/// The COPY FROM STDIN that was sent last, until it is over.
#[derive(Debug, Default)]
pub(crate) struct Copying {
    /// There is one.
    open: bool,
    /// How many of its text's the client has still to end.
    left: usize,
    /// Data were sent: they may have made it fail.
    data: bool,
    /// Syncs were sent behind them: answered if it had failed by then, ignored if it hadn't.
    syncs: bool,
    /// ReadyForQuery is awaited once the data are ended.
    then_ready: bool,
}

impl<J: Journal> Session<J> {
    /// These statements are about to be sent.
    pub(crate) fn copy_sent_with<'a>(&mut self, steps: impl Iterator<Item = &'a Step>) {
        let left = steps.filter(|s| s.copy_in).count();
        if left > 0 {
            self.copy = Copying { open: true, left, ..Copying::default() };
        }
    }

    /// Takes the client's frame where a COPY's data haven't ended; else it is given back.
    pub(crate) fn amid_copy(&mut self, frame: Frame, out: &mut Output) -> Option<Frame> {
        match frame.tag {
            _ if self.copy.left == 0 => return Some(frame),
            frontend::FLUSH | frontend::TERMINATE => out.server(frame.bytes),
            frontend::COPY_DATA => {
                self.copy.data = true;
                self.record(&frame);
                out.server(frame.bytes);
            }
            frontend::COPY_DONE | frontend::COPY_FAIL => {
                let left = if frame.tag == frontend::COPY_DONE { self.copy.left - 1 } else { 0 };
                self.copy.left = left;
                let done = frame.tag == frontend::COPY_DONE;
                out.server(frame.bytes);
                // where Syncs came amid the data it may have failed by then, and what comes now is another transaction's
                if done && !self.copy.syncs {
                    self.send_look_back(out);
                }
                if left == 0 && self.copy.syncs {
                    // which of them the server took is told by the COPY's end
                    out.server(frontend::flush());
                    self.hold = Hold::Ready;
                } else if left == 0 && self.copy.then_ready {
                    self.hold = Hold::Ready;
                }
            }
            // it may not begin at all: then this isn't a part of it
            _ if !self.copying => self.hold = Hold::Copy(frame),
            // "The server ignores Sync and Flush during COPY": no answer will come
            frontend::SYNC => {
                self.copy.syncs |= self.copy.data;
                out.server(frame.bytes);
            }
            _ => {
                // the server refuses it, unless the data have made the COPY fail: then it may be anything
                if self.copy.data {
                    self.lose_track("a message was sent amid the data of a COPY");
                    out.to_client.append(&mut self.take_withheld());
                }
                out.server(frame.bytes);
            }
        }
        None
    }

    /// Keeps the data, where they are to be repeated.
    fn record(&mut self, frame: &Frame) {
        let copies = |s: &Step| matches!(s.effect, Effect::Copy { .. });
        let copy = self.pending.iter_mut().find_map(|e| match e {
            Expected::Query(run) => {
                // of several in one text the one that answers at present
                let at = if self.copying { run.at } else { 0 };
                let step = run.plan.steps.iter().skip(at).find(|s| copies(s)).cloned()?;
                Some((step, &mut run.stage, &run.settings))
            }
            Expected::Execute(run) if copies(&run.step) => Some((Arc::clone(&run.step), &mut run.stage, &run.settings)),
            _ => None,
        });
        let Some((step, stage, settings)) = copy else { return };
        let Effect::Copy { table, .. } = &step.effect else { return };
        stage.moments.look(&table.relation.columns, frame.body());
        if stage.broken.is_some() {
            return;
        }
        stage.copy_bytes += frame.body().len();
        stage.copy.push(Bytes::copy_from_slice(frame.body()));
        if stage.copy_bytes < HELD_BYTES {
            return;
        }
        match (self.units.front_mut(), settings) {
            (Some(unit), Some(settings)) if self.copying => {
                Self::hold_less_copied(unit, &step, stage, settings, &self.shared.journal);
            }
            // not begun yet: what was sent before is still to be answered
            _ if stage.copy_bytes > UNASKED_BYTES_MAX => {
                stage.broken = Some("more of its data were sent than may be held before the server asks for them");
            }
            _ => return,
        }
        if stage.broken.is_some() {
            stage.copy = Vec::new();
        }
    }

    /// Whether the client's next data are looked into: all that are repeated, and the first of any COPY.
    pub(crate) fn reads_copy_data(&self) -> bool {
        self.copy.left > 0 && (!self.copy.data || self.copy_sent())
    }

    /// The server asks for data.
    pub(crate) fn copy_begins(&mut self) {
        self.copying = true;
        let known = match self.pending.front() {
            Some(Expected::Query(run)) => run.plan.steps.get(run.at).is_some_and(|s| s.copy_in),
            Some(Expected::Execute(run)) => run.step.copy_in,
            _ => false,
        };
        if !known {
            // of a text that couldn't be read
            self.copy = Copying { open: true, left: 1, ..Copying::default() };
        }
        // where the data have ended already, what is waited for stands behind them
        if self.copy.left > 0 && matches!(self.hold, Hold::Ready) {
            self.hold = Hold::Free;
            self.copy.then_ready = true;
        }
    }

    /// After each of the server's frames: whether the COPY has begun, or is over.
    pub(crate) fn copy_goes_on(&mut self, out: &mut Output) {
        if !self.copy.open && !matches!(self.hold, Hold::Copy(_)) {
            return;
        }
        let awaited = |e: &Expected| match e {
            Expected::Query(run) => !run.failed && run.plan.steps.iter().skip(run.at).any(|s| s.copy_in),
            Expected::Execute(run) => run.step.copy_in,
            _ => false,
        };
        if !self.copying && !self.pending.iter().any(awaited) {
            let over = std::mem::take(&mut self.copy);
            if over.syncs && matches!(self.hold, Hold::Ready) && !self.awaits_ready() {
                self.hold = Hold::Free;
            }
        }
        if (self.copy.left == 0 || self.copying) && matches!(self.hold, Hold::Copy(_)) {
            self.resume(out);
        }
    }

    /// A COPY has failed. Of the Syncs that were sent amid its data those behind the failure are answered, those ahead of it were
    /// ignored: one of ours, and a message of which the answer is known, end their answers.
    pub(crate) fn copy_failed(&mut self, out: &mut Output) {
        if !std::mem::take(&mut self.copy).syncs {
            return;
        }
        for bytes in [frontend::sync(), frontend::close_statement(NAME), frontend::sync()] {
            out.server(bytes);
        }
        self.pending.push_back(Expected::Syncs { last: None, passed: false });
        self.hold = Hold::Ready;
    }

    /// ReadyForQuery for one of those Syncs: the last of them is ours.
    pub(crate) fn sync_amid_copy(&mut self, last: Option<Bytes>, passed: bool, frame: Frame, out: &mut Output) {
        let passed = passed || last.is_some();
        last.into_iter().for_each(|earlier| out.client(earlier));
        self.pending.push_front(Expected::Syncs { last: Some(frame.bytes), passed });
    }

    /// All of them are answered; `passed`: the client got ReadyForQuery.
    pub(crate) fn syncs_amid_copy_end(&mut self, passed: bool) {
        if passed {
            self.skip_to_sync = false;
            self.batch = false;
            self.batch_control = false;
        }
        let ends_unit = self.units.front().is_some_and(|u| !u.explicit);
        self.pending.push_front(Expected::Sync { ends_unit, purpose: SyncPurpose::AfterCopy });
    }
}
