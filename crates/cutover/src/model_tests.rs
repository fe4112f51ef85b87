//! All states, events and crashes: the machine runs on a world of two databases, and is cut off, or fails, at each effect, again and again.
use crate::{Effect, Event, State, transition};
use std::collections::{BTreeSet, HashSet, VecDeque};

/// What there is: on disk, at the servers, in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct World {
    /// The journal: state, and which database is the primary.
    kept: (u8, usize),
    /// Whether clients are kept off.
    fenced: [bool; 2],
    /// In the process: where the machine is, effects of it that are still to be run, where new transactions go, whether they are held.
    state: u8,
    left: u8,
    way: usize,
    held: bool,
    /// Which of the two the machine takes for the primary.
    primary: usize,
    /// All effects of the state were run, or one has failed.
    settled: bool,
    /// The event by which the state was reached: with it, its effects.
    event: u8,
    from: u8,
}

const STATES: [State; 6] =
    [State::Idle, State::Preparing, State::Holding, State::Fencing, State::Undoing, State::Committed];
const EVENTS: [Event; 4] = [Event::Begin, Event::Done, Event::Failed, Event::Restarted];

fn number<T: PartialEq>(all: &[T], one: T) -> u8 {
    all.iter().position(|other| *other == one).unwrap() as u8
}

impl World {
    fn effects(&self) -> &'static [Effect] {
        transition(STATES[self.from as usize], EVENTS[self.event as usize]).1
    }

    fn take(mut self, event: Event) -> Self {
        let from = STATES[self.state as usize];
        let (state, effects) = transition(from, event);
        (self.from, self.event) = (self.state, number(&EVENTS, event));
        // the primary is another one from the moment on that this is on disk
        self.state = number(&STATES, state);
        self.left = effects.len() as u8;
        self.settled = effects.is_empty();
        self
    }

    fn next_effect(&self) -> Effect {
        let effects = self.effects();
        effects[effects.len() - self.left as usize]
    }

    /// The next effect is run.
    fn run(mut self) -> Self {
        let effect = self.next_effect();
        self.left -= 1;
        self.settled = self.left == 0;
        let (old, new) = match STATES[self.state as usize] {
            State::Committed => (1 - self.primary, self.primary),
            _ => (self.primary, 1 - self.primary),
        };
        match effect {
            Effect::Keep => {
                if (STATES[self.from as usize], STATES[self.state as usize]) == (State::Fencing, State::Committed) {
                    self.primary = 1 - self.primary;
                }
                self.kept = (self.state, self.primary);
            }
            Effect::Hold => self.held = true,
            Effect::Fence => self.fenced[old] = true,
            Effect::Unfence => self.fenced[self.primary] = false,
            Effect::Lift => self.fenced[new] = false,
            Effect::Swap => self.way = new,
            Effect::Resume => self.held = false,
            Effect::Prepare | Effect::Leave => {}
        }
        self
    }

    /// The process is killed, and another one begins: it knows what is on disk.
    fn crash(mut self) -> Self {
        (self.state, self.primary) = self.kept;
        (self.way, self.held) = (self.primary, false);
        self.take(Event::Restarted)
    }

    fn next(self) -> Vec<Self> {
        let mut all = vec![self.crash()];
        if self.left > 0 {
            all.push(self.run());
            let first = self.left as usize == self.effects().len();
            let state = if first && self.effects().first() == Some(&Effect::Keep) { self.from } else { self.state };
            // the others happen in memory
            let can_fail = !matches!(self.next_effect(), Effect::Swap | Effect::Resume | Effect::Leave);
            all.extend(can_fail.then(|| Self { left: 0, settled: true, state, ..self }.take(Event::Failed)));
        } else {
            let state = STATES[self.state as usize];
            all.push(self.take(if state == State::Idle { Event::Begin } else { Event::Done }));
        }
        all
    }

    fn writes(&self) -> bool {
        !self.held
    }

    fn check(&self) {
        let committed_there = self.kept.1;
        if self.writes() {
            // whoever may write through pgshadow writes to the primary that a restart would take
            assert_eq!(self.way, committed_there, "{self:?}");
        }
        if STATES[self.state as usize] == State::Idle && self.left == 0 {
            assert!(!self.fenced[self.primary], "the primary lets nobody in: {self:?}");
            assert_eq!((self.way, self.held), (self.primary, false), "{self:?}");
            assert!(self.primary == 0 || self.fenced[0], "the old primary lets clients in: {self:?}");
        }
    }
}

fn all_worlds() -> HashSet<World> {
    let idle = number(&STATES, State::Idle);
    let first = World {
        kept: (idle, 0),
        fenced: [false, false],
        state: idle,
        left: 0,
        way: 0,
        held: false,
        primary: 0,
        settled: true,
        event: number(&EVENTS, Event::Done),
        from: idle,
    };
    let (mut seen, mut waiting) = (HashSet::from([first]), VecDeque::from([first]));
    while let Some(world) = waiting.pop_front() {
        world.check();
        waiting.extend(world.next().into_iter().filter(|next| seen.insert(*next)));
    }
    seen
}

/// In every world that can come to be, however often the process is killed: at most one database is written through pgshadow, and it is the
/// one that the journal names.
#[test]
fn never_two_primaries() {
    let worlds = all_worlds();
    let states: BTreeSet<u8> = worlds.iter().map(|world| world.state).collect();
    assert_eq!(states.len(), STATES.len(), "all of them were reached");
    assert!(worlds.iter().any(|world| world.primary == 1) && worlds.iter().any(|world| world.fenced[1]));
}

/// From every world, once nothing fails any more, it comes to rest: at the old primary before the point of no return, at the new one behind it.
#[test]
fn it_comes_to_rest_where_the_journal_says() {
    for world in all_worlds() {
        let (mut now, committed) = (world.crash(), world.kept.1);
        for _ in 0..20 {
            now = if now.left > 0 { now.run() } else { now };
            now.check();
            if now.left == 0 && STATES[now.state as usize] != State::Idle {
                now = now.take(Event::Done);
            }
        }
        assert_eq!(STATES[now.state as usize], State::Idle, "{world:?}");
        assert_eq!((now.primary, now.way), (committed, committed), "{world:?} {now:?}");
        assert!(!now.fenced[now.primary], "{world:?}");
    }
}

/// Every pair: what has no meaning changes nothing, and nothing is done to rights but behind the journal.
#[test]
fn every_pair() {
    for (state, event) in STATES.iter().flat_map(|state| EVENTS.iter().map(move |event| (*state, *event))) {
        let (next, effects) = transition(state, event);
        let taken = |effect: Effect| effects.iter().position(|one| *one == effect);
        if let Some(fence) = taken(Effect::Fence) {
            assert!(taken(Effect::Keep).is_some_and(|keep| keep < fence) || next == state, "{state:?} {event:?}");
        }
        if let Some(swap) = taken(Effect::Swap) {
            assert_eq!(next, State::Committed);
            assert!(taken(Effect::Lift).is_some_and(|lift| lift < swap));
            assert!(taken(Effect::Resume).is_none_or(|resume| swap < resume));
        }
        if state == State::Committed {
            assert_eq!(next, if event == Event::Done { State::Idle } else { State::Committed }, "there is no way back");
        }
    }
}
