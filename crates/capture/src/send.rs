//! Frames of the client, on their way to the server.
use crate::expected::Expected;
use crate::guard::Guarding;
use crate::journal::Journal;
use crate::plan::{Control, Effect, Step};
use crate::session::{Output, Session};
use pgshadow_model::{QualifiedName, Suspect};
use pgshadow_wire::Frame;
use pgshadow_wire::frontend::{self};

impl<J: Journal> Session<J> {
    /// Takes one frame of the client; only while [`Session::takes_client_frames`].
    pub fn client(&mut self, frame: Frame, out: &mut Output) {
        let before = out.to_client.len();
        self.note_attempt(&frame);
        self.guarding = Guarding::Unasked;
        self.take(frame, out);
        if out.to_client.len() > before {
            self.attempt.over();
        }
    }

    pub(crate) fn take(&mut self, frame: Frame, out: &mut Output) {
        if self.skip_to_sync {
            // the server would skip what waits as well
            self.limited.clear();
        }
        if self.skip_to_sync && !matches!(frame.tag, frontend::SYNC | frontend::TERMINATE) {
            return;
        }
        let Some(frame) = self.behind_limited(frame, out) else { return };
        let Some(frame) = self.amid_copy(frame, out) else { return };
        match frame.tag {
            frontend::QUERY => self.query(frame, out),
            frontend::PARSE => self.parse(frame, out),
            frontend::BIND => self.bind(frame, out),
            frontend::DESCRIBE => self.describe(frame, out),
            frontend::EXECUTE => self.execute(frame, out),
            frontend::CLOSE => self.close(frame, out),
            frontend::SYNC => self.sync(frame, out),
            frontend::FUNCTION_CALL => self.function_call(frame, out),
            _ => out.server(frame.bytes),
        }
    }

    pub(crate) fn function_call(&mut self, frame: Frame, out: &mut Output) {
        const LARGE_OBJECT_WRITES: &[i32] = &[715, 764, 765, 767, 955, 957, 964, 1004, 3172, 3457, 3459, 3460];
        let oid = pgshadow_wire::Reader::new(frame.body()).i32().unwrap_or(0);
        let suspects = if oid >= 16_384 {
            vec![Suspect { table: None, reason: "a function was called by the fast-path interface".to_owned() }]
        } else if LARGE_OBJECT_WRITES.contains(&oid) {
            let table = Some(QualifiedName::new("pg_catalog", "pg_largeobject"));
            vec![Suspect { table, reason: "large objects aren't mirrored".to_owned() }]
        } else {
            Vec::new()
        };
        self.shared.journal.suspect(suspects.clone());
        self.pending.push_back(Expected::FunctionCall { suspects });
        out.server(frame.bytes);
    }
}

/// Whether it may take back what statements before it made of names and settings, or end what held for the transaction.
pub(crate) fn takes_back(step: &Step) -> bool {
    use Control::{Commit, Prepare, Rollback, RollbackTo};
    matches!(step.effect, Effect::Control(Commit { .. } | Prepare(_) | Rollback { .. } | RollbackTo(_)))
}

/// COMMIT or PREPARE TRANSACTION, ahead of which statements of ours may come.
pub(crate) fn is_commit(step: &Step) -> bool {
    matches!(step.effect, Effect::Control(Control::Commit { .. } | Control::Prepare(_)))
}
