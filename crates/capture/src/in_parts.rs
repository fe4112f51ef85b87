//! Executes with a row limit whose statement changes rows, until it is known whether more follows in the same batch.
//!
//! A portal that has given as many rows as it was asked for is no finished command for the server: a statement that the same batch
//! binds behind it doesn't see what it has written. One that runs without a limit, so that every image comes, is finished. So what
//! follows decides: a Sync, say, can't tell the two apart; in front of another statement the client's limit stays, and the rows that
//! it never asked for are declared.
use crate::journal::Journal;
use crate::plan::{Effect, Step, Strip};
use crate::session::{Hold, Output, Session};
use bytes::Bytes;
use pgshadow_model::Operation;
use pgshadow_wire::{Frame, frontend};

/// Messages about one portal that wait at most; with more it runs without a limit.
const WAITING_MAX: usize = 64;

pub(crate) const IN_PARTS: &str = "its rows were fetched in parts, with another statement in the same batch";

impl<J: Journal> Session<J> {
    /// What waits is sent, now that the next message is here; `None` where that waits as well.
    pub(crate) fn behind_limited(&mut self, frame: Frame, out: &mut Output) -> Option<Frame> {
        let Some(first) = self.limited.first() else { return Some(frame) };
        let same = portal(first).is_some_and(|name| portal(&frame) == Some(name));
        if same && self.limited.len() < WAITING_MAX {
            self.limited.push(frame);
            return None;
        }
        let more = matches!(frame.tag, frontend::PARSE | frontend::BIND | frontend::DESCRIBE | frontend::EXECUTE);
        // the last one may fetch all that is left: then it is a finished command
        let executes = self.limited.iter().filter_map(|waiting| frontend::execute(waiting.body()));
        let more = more && !same && executes.last().is_some_and(|(_, limit)| limit > 0);
        for waiting in std::mem::take(&mut self.limited) {
            match waiting.tag {
                frontend::CLOSE => self.close(waiting, out),
                _ => self.execute_in(waiting, Some(more), out),
            }
        }
        Some(frame)
    }

    /// Whether an Execute has to wait for the message behind it; then it does.
    pub(crate) fn waits(&mut self, name: &Bytes, limit: i32, frame: &Frame) -> bool {
        let Some(portal) = self.portals.get(name).filter(|p| limit > 0 && !p.paged && !p.in_parts && !p.gone) else {
            return false;
        };
        if !changes_rows(&portal.step) {
            return false;
        }
        if self.awaits_ready() {
            self.hold = Hold::Answers(frame.clone());
        } else {
            self.limited.push(frame.clone());
        }
        true
    }
}

/// The portal that is executed or closed.
fn portal(frame: &Frame) -> Option<&[u8]> {
    match frame.tag {
        frontend::EXECUTE => frontend::execute(frame.body()).map(|(name, _)| name),
        frontend::CLOSE => {
            frontend::kind_and_name(frame.body()).filter(|(kind, _)| *kind == b'P').map(|(_, name)| name)
        }
        _ => None,
    }
}

/// Whether a statement behind it in the same command would find other rows than one behind the command.
fn changes_rows(step: &Step) -> bool {
    let changes = |operation| !matches!(operation, Operation::Insert);
    step.strip() == Strip::LastColumn && matches!(&step.effect, Effect::Write(write) if changes(write.operation))
}
