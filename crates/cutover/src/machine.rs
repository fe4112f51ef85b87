use serde::{Deserialize, Serialize};

/// Where a flip is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// None is under way.
    Idle,
    /// The mirror of the other direction is opened and proven; the application notices nothing.
    Preparing,
    /// New transactions are held; open ones end, the log is drained, sequences are set.
    Holding,
    /// Rights are taken from the present primary's clients: what these were is in the journal.
    Fencing,
    /// They are given back: the flip was given up.
    Undoing,
    /// The other database is the primary. There is no way back but another flip.
    Committed,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Ops want it.
    Begin,
    /// All effects of the state were run.
    Done,
    /// One of them failed.
    Failed,
    /// The process has begun anew: what was in memory only is gone, the pause among it.
    Restarted,
}

/// What is to be done, in order. Each can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The state is written to the journal, durably, before anything else is done. Where that fails the state is not reached: [`Event::Failed`]
    /// happens to the one before.
    Keep,
    /// The mirror of the other direction is opened, and proven by a canary row.
    Prepare,
    /// New transactions are held, open ones awaited, the log drained, gates asked again, sequences set.
    Hold,
    /// Clients are kept off the present primary.
    Fence,
    /// Clients get their rights on the present primary back.
    Unfence,
    /// Clients get their rights on the other database, which is the new primary, back.
    Lift,
    /// New transactions go to the new primary.
    Swap,
    /// What is held goes on.
    Resume,
    /// The mirror of the direction that isn't the present one is closed.
    Leave,
}

/// What comes of an event, and what is to be done then. The state is on disk where [`Effect::Keep`] is among the effects, which is the first
/// one that runs. An event that has no meaning in a state changes nothing.
#[must_use]
pub fn transition(state: State, event: Event) -> (State, &'static [Effect]) {
    use Effect::{Fence, Hold, Keep, Leave, Lift, Prepare, Resume, Swap, Unfence};
    match (state, event) {
        (State::Idle, Event::Begin) => (State::Preparing, &[Prepare]),
        (State::Preparing, Event::Done) => (State::Holding, &[Hold]),
        (State::Holding, Event::Done) => (State::Fencing, &[Keep, Fence]),
        (State::Fencing, Event::Done) => (State::Committed, &[Keep, Lift, Swap, Resume, Leave]),
        (State::Committed, Event::Done) => (State::Idle, &[Keep]),
        // nothing was done yet that isn't gone with the process
        (State::Preparing | State::Holding, Event::Failed) => (State::Idle, &[Resume, Leave]),
        (State::Preparing | State::Holding, Event::Restarted) => (State::Idle, &[Leave]),
        // on disk it stays what it was: a restart undoes it as well
        (State::Fencing, Event::Failed) => (State::Undoing, &[Unfence, Resume, Leave]),
        // who waits isn't kept waiting for a server that can't be reached
        (State::Undoing, Event::Failed) => (State::Undoing, &[Resume, Unfence, Leave]),
        (State::Fencing | State::Undoing, Event::Restarted) => (State::Undoing, &[Unfence, Leave]),
        (State::Undoing, Event::Done) => (State::Idle, &[Keep]),
        // who is sent to the new primary must be let in there, and must not be let in at the old one
        (State::Committed, Event::Failed) => (State::Committed, &[Lift, Swap, Resume, Leave]),
        (State::Committed, Event::Restarted) => (State::Committed, &[Fence, Lift, Swap, Leave]),
        (state, Event::Begin) | (state @ State::Idle, _) => (state, &[]),
    }
}
