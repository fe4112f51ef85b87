//! What the server says beside its answers: notices, of ours or of the application's, and settings that it reports.
use crate::expected::{Expected, Purpose, SyncPurpose};
use crate::journal::Journal;
use crate::session::{Output, Session};
use bytes::{Bytes, BytesMut};
use pgshadow_wire::{Frame, backend};
use std::collections::HashMap;

/// Where a NotificationResponse has its pid: behind type and length.
const PID_AT: usize = 5;
/// Reported settings on which the meaning of names and values depends.
const IDENTITY_PARAMETERS: &[&[u8]] = &[
    b"client_encoding",
    b"standard_conforming_strings",
    b"datestyle",
    b"timezone",
    b"intervalstyle",
    b"session_authorization",
    b"search_path",
];

/// Settings as the client knows them, and reports that wait for the end of a string in pieces.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    values: HashMap<Bytes, Bytes>,
    waiting: Vec<Frame>,
    /// How many of them the present piece has brought.
    fresh: usize,
    /// Notifications that wait for the same, and for the end of a block that the string has begun.
    notifications: Vec<Bytes>,
}

/// Whose statement runs.
enum Runs {
    Theirs,
    Ours,
    /// Ours, with the checks and triggers that the application's have left to the end.
    Checks,
}

impl<J: Journal> Session<J> {
    /// A ParameterStatus of the login.
    pub fn reported(&mut self, status: &Frame) {
        if let Some((name, value)) = backend::parameter_status(status.body()) {
            self.reported.values.insert(Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
        }
    }

    /// ParameterStatus messages for what is otherwise than in `old`, whose client this is now.
    #[must_use]
    pub fn reported_otherwise(&self, old: &Self) -> Vec<Bytes> {
        let values = self.reported.values.iter().filter(|(name, value)| old.reported.values.get(*name) != Some(*value));
        values.map(|(name, value)| backend::parameter_status_frame(name, value)).collect()
    }

    pub(crate) fn notice(&mut self, frame: Frame, out: &mut Output) {
        let field = |which| backend::error_field(frame.body(), which).unwrap_or_default();
        let debug = field(b'V').starts_with(b"DEBUG");
        let ours = match self.runs() {
            Runs::Theirs => false,
            // the server itself is going down
            Runs::Ours => !field(b'C').starts_with(b"57P"),
            // what a deferred trigger says is the application's: the server's own words have no context. (SET CONSTRAINTS outside
            // a block: before 18 the server remarks on it)
            Runs::Checks => field(b'C') == b"25P01" || debug && field(b'W').is_empty(),
        };
        if !ours {
            out.client(frame.bytes);
        }
    }

    fn runs(&self) -> Runs {
        match self.pending.front() {
            Some(Expected::Own(run)) if matches!(run.purpose, Purpose::Constraints) => Runs::Checks,
            Some(Expected::Own(_) | Expected::Parameters(_)) => Runs::Ours,
            Some(Expected::Sync { purpose, .. }) if *purpose != SyncPurpose::Client => Runs::Ours,
            Some(Expected::Query(run)) => {
                let locks = !run.locked && run.plan.steps.get(run.at).is_some_and(|s| s.lock().is_some());
                // the last of them is answered when the transaction has been committed
                let behind = run.at >= run.plan.steps.len() && !run.suffix.is_empty();
                match (locks || run.looking.is_some(), behind) {
                    (true, _) => Runs::Ours,
                    (_, true) => Runs::Checks,
                    _ => Runs::Theirs,
                }
            }
            _ => Runs::Theirs,
        }
    }

    /// The server sends notifications where it is ready and in no transaction: of a string in pieces that is behind the last one.
    pub(crate) fn notification(&mut self, frame: Frame, out: &mut Output) {
        let bytes = self.as_client_knows(frame.bytes);
        let piece = matches!(self.pending.front(), Some(Expected::Query(run)) if !run.last_piece);
        if piece || !self.pieces.is_empty() || !self.reported.notifications.is_empty() {
            self.reported.notifications.push(bytes);
        } else {
            out.client(bytes);
        }
    }

    /// Its own notifications come from the process that its client was told of at its login.
    fn as_client_knows(&self, notification: Bytes) -> Bytes {
        let own = self.backend.pid.to_be_bytes();
        if self.client_pid == self.backend.pid || notification.get(PID_AT..PID_AT + own.len()) != Some(&own[..]) {
            return notification;
        }
        let mut known = BytesMut::from(&notification[..]);
        if let Some(pid) = known.get_mut(PID_AT..PID_AT + own.len()) {
            pid.copy_from_slice(&self.client_pid.to_be_bytes());
        }
        known.freeze()
    }

    /// From 14 on the server reports ahead of ReadyForQuery; of a string that it got in pieces the client gets one report.
    pub(crate) fn parameter_status(&mut self, frame: Frame, out: &mut Output) {
        let name = backend::parameter_status(frame.body()).map(|(name, _)| Bytes::copy_from_slice(name));
        if name.as_ref().is_none_or(|name| IDENTITY_PARAMETERS.contains(&name.to_ascii_lowercase().as_slice())) {
            self.forget_identity();
        }
        let between = matches!(self.pending.front(), Some(Expected::Query(run))
            if !run.failed && !run.last_piece && run.at >= run.plan.steps.len());
        if between || !self.reported.waiting.is_empty() {
            self.reported.wait(frame, name);
        } else {
            self.reported(&frame);
            out.client(frame.bytes);
        }
    }

    /// ReadyForQuery has come: for a piece, or for the client.
    pub(crate) fn report(&mut self, piece: bool, out: &mut Output) {
        self.reported.fresh = 0;
        if !piece && self.status == b'I' {
            out.to_client.append(&mut self.reported.notifications);
        }
        if piece || self.reported.waiting.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.reported.waiting);
        let name = |frame: &Frame| backend::parameter_status(frame.body()).map(|(name, _)| name.to_ascii_lowercase());
        if !self.reported.last_changed_first() {
            waiting.sort_by_cached_key(name);
        }
        for frame in waiting {
            let known = |(name, value): (&[u8], &[u8])| self.reported.values.get(name).is_some_and(|v| v == value);
            if !backend::parameter_status(frame.body()).is_some_and(known) {
                self.reported(&frame);
                out.client(frame.bytes);
            }
        }
    }
}

impl Reported {
    fn wait(&mut self, frame: Frame, name: Option<Bytes>) {
        let named = |other: &Frame| backend::parameter_status(other.body()).map(|(other, _)| other) == name.as_deref();
        match self.waiting.iter().position(named).and_then(|at| self.waiting.get_mut(at)) {
            Some(place) => *place = frame,
            None => {
                self.waiting.insert(self.fresh.min(self.waiting.len()), frame);
                self.fresh += 1;
            }
        }
    }

    /// Notifications and reports that the client hasn't got.
    pub fn take(&mut self) -> Vec<Bytes> {
        let mut all = std::mem::take(&mut self.notifications);
        all.extend(std::mem::take(&mut self.waiting).into_iter().map(|frame| frame.bytes));
        all
    }

    /// From 16 on what was changed last is reported first; before, settings are reported in the order of their names.
    fn last_changed_first(&self) -> bool {
        let version = self.values.get(&b"server_version"[..]).map(|v| String::from_utf8_lossy(v).into_owned());
        let major = version.as_deref().and_then(|v| v.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok());
        major.is_none_or(|major| major >= 16)
    }
}
