//! Whose turn it is: a pause lets what is open go on and holds what would begin, and another way is taken between two transactions.
use super::{Phase, READ, Relay};
use crate::cancel::Key;
use crate::listener::Gate;
use futures::FutureExt;
use pgshadow_telemetry::{Counter, Direction};
use pgshadow_wire::{Header, backend, error, frontend};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

/// What a client has sent is dropped, since it was cancelled while it waited.
pub(super) struct Dropping {
    /// Bytes of the present frame.
    frame: usize,
    /// All up to its Sync is.
    to_sync: bool,
}

impl<J: Gate> Relay<J> {
    /// Whether nothing is under way, as far as it is followed.
    pub(super) fn is_at_rest(&self) -> bool {
        let rests = match &self.phase {
            Phase::Capture(session) => session.at_rest(),
            Phase::Plain(plain) => plain.at_rest(),
            Phase::Login(..) | Phase::Raw { .. } => false,
        };
        let passing = self.passing_client > 0 || self.passing_server > 0 || self.dropping.is_some();
        rests && !passing && self.nothing_for_server()
    }

    /// The client's next frame isn't taken yet.
    pub(super) fn waits_for_turn(&self) -> bool {
        self.held || self.due || self.restoring.is_some()
    }

    /// Whether it may listen to a channel; others are told.
    pub(super) fn listens(&self) -> bool {
        let (Some(turn), Phase::Capture(session)) = (&self.turn, &self.phase) else { return false };
        let listens = session.may_listen();
        if listens && !turn.is_listening() {
            turn.listens();
        }
        listens
    }

    /// Whether it is to take another way now. Then it is busy: there is no third one meanwhile.
    pub(super) fn is_due(&mut self) -> bool {
        let Some(turn) = &self.turn else { return false };
        if !self.due && self.permit.is_some() && self.restoring.is_none() && self.is_at_rest() {
            if self.listens() {
                // also amid the pause, lest it misses what others notify behind it
                turn.moves();
                self.due = true;
            } else {
                self.due = turn.begins();
                self.held = !self.due;
            }
        }
        self.due
    }

    /// Whether a pause lets the client's next frame through: what is open goes on, what would begin is held.
    pub(super) fn has_its_turn(&mut self) -> bool {
        let Some(turn) = &self.turn else { return true };
        // one that says goodbye begins nothing, and a stream belongs to what has begun
        let begins_nothing = [frontend::TERMINATE, frontend::COPY_DATA, frontend::COPY_DONE, frontend::COPY_FAIL];
        if self.restoring.is_some() || self.from_client.first().is_some_and(|tag| begins_nothing.contains(tag)) {
            return true;
        }
        let rests = self.is_at_rest();
        self.held = match &self.phase {
            Phase::Capture(session) if session.is_lost() => {
                turn.unfollowed();
                false
            }
            _ if rests => !turn.begins(),
            // what follows a Sync, or a Query, may begin the next transaction: the answer tells
            Phase::Capture(session) => session.between_batches() && turn.holds(),
            Phase::Plain(plain) => plain.between_batches() && turn.holds(),
            Phase::Login(..) | Phase::Raw { .. } => false,
        };
        // from now on there can't be another one
        self.due = !self.held && rests && self.routes.number() != self.route.number;
        if self.held || self.due {
            self.waits_since.get_or_insert_with(Instant::now);
            self.key.as_ref().filter(|_| rests).inspect(|key| key.waits());
            return false;
        }
        if rests {
            self.used = Instant::now();
        }
        if let Some(since) = self.waits_since.take() {
            turn.waited(since.elapsed());
            if self.key.as_ref().is_some_and(Key::goes_on) {
                self.drop_what_waits();
                return false;
            }
        }
        true
    }

    /// The client has cancelled what waits at the front: none of it has begun. It is answered as a server does it.
    pub(super) fn drop_what_waits(&mut self) {
        if let Some(key) = &self.key {
            key.goes_on();
        }
        self.held = false;
        let Ok(Some(header)) = Header::read(&self.from_client) else { return };
        self.due = false;
        self.waits_since = None;
        if let Some(turn) = &self.turn {
            turn.rests();
        }
        let to_sync = !matches!(header.tag, frontend::QUERY | frontend::FUNCTION_CALL);
        self.dropping = Some(Dropping { frame: if to_sync { 0 } else { header.size }, to_sync });
        self.to_client.push(error::error("57014", "canceling statement due to user request"));
        if !to_sync {
            self.to_client.push(backend::ready_for_query(b'I'));
        }
    }

    /// Nothing of ours runs in its session any more: what was cancelled meanwhile is the client's.
    pub(super) fn ours_is_over(&mut self) {
        if self.key.as_ref().is_some_and(Key::goes_on) {
            // it may not have been read yet
            self.from_client.reserve(READ);
            match self.client.0.read_buf(&mut self.from_client).now_or_never() {
                Some(Ok(0)) => self.client_ended = true,
                Some(Ok(n)) => Counter::RelayedBytes(Direction::ToPrimary).add(n as u64),
                Some(Err(_)) => self.lose_client(),
                None => {}
            }
            self.drop_what_waits();
        }
    }

    /// Drops what there is of it; false if more must come.
    pub(super) fn drop_some(&mut self) -> bool {
        let Some(dropping) = &mut self.dropping else { return true };
        let part = dropping.frame.min(self.from_client.len());
        dropping.frame -= part;
        drop(self.from_client.split_to(part));
        if dropping.frame > 0 {
            return false;
        }
        if !dropping.to_sync {
            self.dropping = None;
            return true;
        }
        match Header::read(&self.from_client) {
            Ok(None) => return false,
            Ok(Some(header)) if header.tag != frontend::TERMINATE => {
                dropping.frame = header.size;
                dropping.to_sync = header.tag != frontend::SYNC;
                if !dropping.to_sync {
                    self.to_client.push(backend::ready_for_query(b'I'));
                }
            }
            _ => self.dropping = None,
        }
        true
    }

    /// Tells that nothing is under way, where that is so.
    pub(super) fn rest(&mut self) {
        if let Some(turn) = &self.turn
            && self.restoring.is_none()
            && !self.due
            && self.is_at_rest()
        {
            turn.rests();
            self.listens();
        }
    }
}
