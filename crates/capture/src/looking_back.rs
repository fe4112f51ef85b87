//! The look back behind a COPY: what is sent for it, and what it finds.
use crate::expected::{Expected, OwnRun, Purpose, QueryRun, Stage};
use crate::journal::Journal;
use crate::own::NAME;
use crate::plan::{LookBack, Step};
use crate::rows::wrote;
use crate::session::{Output, Session};
use pgshadow_wire::{Frame, backend, frontend};
use std::sync::Arc;

impl<J: Journal> Session<J> {
    /// The COPY that was sent last has its data: in the extended protocol the look back is a statement of its own behind it.
    pub(crate) fn send_look_back(&mut self, out: &mut Output) {
        let Some(Expected::Execute(run)) = self.pending.back() else { return };
        let Some(look) = run.step.look_back() else { return };
        out.server(frontend::own_statement(NAME, look.text.as_bytes(), None));
        let purpose = Purpose::LookBack(Arc::clone(&run.step));
        self.pending.push_back(Expected::Own(OwnRun::new(purpose, frontend::OWN_STATEMENT_REPLIES)));
    }

    /// A COPY has stored so many rows: they come back now, or never.
    pub(crate) fn copied(&mut self, step: &Step, rows: Option<u64>) {
        let Some(look) = step.look_back() else { return };
        match self.pending.front_mut() {
            Some(Expected::Own(next)) if matches!(next.purpose, Purpose::LookBack(_)) => next.copied = rows,
            _ => self.looked_back(look, Stage::default(), rows),
        }
    }

    /// Answers to the look back that stands in the client's text.
    pub(crate) fn look_back_reply(&mut self, run: &mut QueryRun, step: &Step, frame: Frame) {
        match frame.tag {
            backend::DATA_ROW => drop(self.row(Some(step), &mut run.stage, frame, false)),
            backend::COMMAND_COMPLETE => {
                let (stage, copied) = (std::mem::take(&mut run.stage), run.copied.take());
                if let Some(look) = step.look_back() {
                    self.looked_back(look, stage, copied.flatten());
                }
                run.at += 1;
            }
            _ => {}
        }
    }

    /// The rows that it found are the COPY's if they are as many as that stored.
    pub(crate) fn looked_back(&mut self, look: &LookBack, mut stage: Stage, copied: Option<u64>) {
        let barrier = self.shared.journal.barrier();
        let Some(unit) = self.units.front_mut() else { return };
        unit.barrier = barrier;
        unit.outstanding = unit.outstanding.saturating_sub(1);
        if copied == Some(0) {
            // what it found was written before
            if let Some(begun) = stage.begun {
                unit.take_back(begun);
            }
            return;
        }
        let mistakable = stage.partial && !unit.copied_first.contains(&look.write.table.relation.name);
        if copied != Some(stage.rows) || mistakable {
            stage.broken = Some(look.reason);
        }
        wrote(unit, &look.write, stage, copied, false);
        unit.spill(&*self.shared.journal);
    }
}
