//! Who is connected, and who is in a transaction: what a pause waits for.
use crate::pause::Pause;
use dashmap::DashMap;
use pgshadow_wire::startup::Startup;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::{Duration, Instant};

/// The sessions of the migrated database, and their pause.
#[derive(Debug, Default)]
pub struct Sessions {
    /// What they all obey.
    pub pause: Arc<Pause>,
    next: AtomicU64,
    /// So many were taken along to another primary, and so many ended instead, since the process began.
    moved: AtomicU64,
    left_behind: AtomicU64,
    waits: Waits,
    all: DashMap<u64, Arc<Seen>>,
}

/// So many are kept.
pub const WAITS_MAX: usize = 100_000;

#[derive(Debug, Default)]
struct Waits(Mutex<Vec<Duration>>);

impl Waits {
    fn lock(&self) -> MutexGuard<'_, Vec<Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What others may know of a session.
#[derive(Debug)]
struct Seen {
    /// A transaction is open, or something awaits its answer.
    busy: AtomicBool,
    /// Its frames can't be told apart any more.
    unfollowed: AtomicBool,
    /// It may listen to a channel.
    listens: AtomicBool,
    /// Number of the way that it has taken.
    route: AtomicU64,
    /// The last survey that it has answered, and why it can't be taken along, if it can't.
    survey: Mutex<(u64, Option<String>)>,
    /// 0: it isn't logged in yet.
    pid: AtomicI32,
    user: String,
    application: String,
    address: SocketAddr,
    begun: Instant,
}

/// A session, as it was at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Pid of its server process; 0: it isn't logged in yet.
    pub pid: i32,
    /// User name.
    pub user: String,
    /// `application_name` of its startup packet.
    pub application: String,
    /// Where it comes from.
    pub address: SocketAddr,
    /// How long it has been connected.
    pub age: Duration,
    /// A transaction is open, or something awaits its answer.
    pub busy: bool,
    /// Its frames can't be told apart any more, so it can't be held.
    pub unfollowed: bool,
}

impl Sessions {
    /// Registers a session; it takes part until it is dropped.
    pub(crate) fn enter(self: &Arc<Self>, startup: &Startup, address: SocketAddr) -> Turn {
        let text = |name| String::from_utf8_lossy(startup.parameter(name).unwrap_or_default()).into_owned();
        let seen = Arc::new(Seen {
            busy: AtomicBool::new(false),
            unfollowed: AtomicBool::new(false),
            listens: AtomicBool::new(false),
            route: AtomicU64::new(0),
            survey: Mutex::default(),
            pid: AtomicI32::new(0),
            user: text("user"),
            application: text("application_name"),
            address,
            begun: Instant::now(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.all.insert(number, Arc::clone(&seen));
        Turn { sessions: Arc::clone(self), number, seen }
    }

    /// How many are in a transaction, or await an answer. Once a pause holds none can join them.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.all.iter().filter(|one| one.busy.load(Ordering::SeqCst)).count()
    }

    /// How many may listen to a channel, and haven't taken this way yet: what is notified there they wouldn't hear.
    #[must_use]
    pub fn listening_elsewhere(&self, route: u64) -> usize {
        let elsewhere = |seen: &Seen| seen.listens.load(Ordering::SeqCst) && seen.route.load(Ordering::SeqCst) != route;
        self.all.iter().filter(|one| elsewhere(one)).count()
    }

    /// Of a survey ([`crate::Routes::prepare`]): how many haven't answered it yet, and who can't be taken along, with the reason.
    #[must_use]
    pub fn unmovable(&self, survey: u64) -> (usize, Vec<(Client, String)>) {
        let (mut unasked, mut unmovable) = (0, Vec::new());
        for one in &self.all {
            let answer = one.survey.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match answer {
                (number, Some(why)) if number >= survey => unmovable.push((client(&one), why)),
                (number, None) if number >= survey => {}
                _ => unasked += 1,
            }
        }
        (unasked, unmovable)
    }

    /// How many haven't taken this way yet.
    #[must_use]
    pub fn elsewhere(&self, route: u64) -> usize {
        let logged_in = |seen: &Seen| seen.pid.load(Ordering::SeqCst) != 0;
        self.all.iter().filter(|one| logged_in(one) && one.route.load(Ordering::SeqCst) != route).count()
    }

    /// How many were taken along to another primary, and how many were ended instead, since the process began.
    #[must_use]
    pub fn moved(&self) -> (u64, u64) {
        (self.moved.load(Ordering::SeqCst), self.left_behind.load(Ordering::SeqCst))
    }

    /// How long clients' transactions waited, of those that were held since this was asked last; the first [`WAITS_MAX`].
    #[must_use]
    pub fn take_waits(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.waits.lock())
    }

    /// All of them.
    #[must_use]
    pub fn clients(&self) -> Vec<Client> {
        self.all.iter().map(|one| client(&one)).collect()
    }
}

fn client(seen: &Seen) -> Client {
    Client {
        pid: seen.pid.load(Ordering::Relaxed),
        user: seen.user.clone(),
        application: seen.application.clone(),
        address: seen.address,
        age: seen.begun.elapsed(),
        busy: seen.busy.load(Ordering::SeqCst),
        unfollowed: seen.unfollowed.load(Ordering::Relaxed),
    }
}

/// A session's place among the others.
#[derive(Debug)]
pub(crate) struct Turn {
    sessions: Arc<Sessions>,
    number: u64,
    seen: Arc<Seen>,
}

impl Turn {
    /// A transaction, or a login, would begin now: whether it may. Either it is seen to be busy, or it sees that it is held.
    pub fn begins(&self) -> bool {
        if self.seen.busy.swap(true, Ordering::SeqCst) || !self.holds() {
            return true;
        }
        self.seen.busy.store(false, Ordering::SeqCst);
        false
    }

    /// It is to move: it is busy, also where transactions are held.
    pub fn moves(&self) {
        self.seen.busy.store(true, Ordering::SeqCst);
    }

    /// Nothing is under way any more. Of one whose frames can't be told apart that isn't known.
    pub fn rests(&self) {
        if !self.seen.unfollowed.load(Ordering::SeqCst) {
            self.seen.busy.store(false, Ordering::SeqCst);
        }
    }

    /// Whether what would begin is held.
    pub fn holds(&self) -> bool {
        self.sessions.pause.holds()
    }

    /// Until nothing is held.
    pub async fn over(&self) {
        self.sessions.pause.over().await;
    }

    /// It has a server process, at the end of this way.
    pub fn logged_in(&self, pid: i32, route: u64) {
        self.seen.pid.store(pid, Ordering::Relaxed);
        self.seen.route.store(route, Ordering::SeqCst);
    }

    /// It has answered a survey.
    pub fn surveyed(&self, number: u64, why_not: Option<String>) {
        *self.seen.survey.lock().unwrap_or_else(PoisonError::into_inner) = (number, why_not);
    }

    pub fn listens(&self) {
        self.seen.listens.store(true, Ordering::SeqCst);
    }

    /// Whether it was seen to listen.
    pub fn is_listening(&self) -> bool {
        self.seen.listens.load(Ordering::SeqCst)
    }

    /// Its frames can't be told apart any more: it may be in a transaction at any time.
    pub fn unfollowed(&self) {
        self.seen.unfollowed.store(true, Ordering::SeqCst);
        self.seen.busy.store(true, Ordering::SeqCst);
    }

    pub fn moved(&self) {
        self.sessions.moved.fetch_add(1, Ordering::SeqCst);
    }

    pub fn left_behind(&self) {
        self.sessions.left_behind.fetch_add(1, Ordering::SeqCst);
    }

    /// What was held for so long goes on.
    pub fn waited(&self, time: Duration) {
        let mut waits = self.sessions.waits.lock();
        if waits.len() < WAITS_MAX {
            waits.push(time);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.sessions.all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn enter(sessions: &Arc<Sessions>) -> Turn {
        let startup = Startup {
            protocol: 196_608,
            parameters: vec![(Bytes::from_static(b"user"), Bytes::from_static(b"app"))],
            bytes: Bytes::new(),
        };
        sessions.enter(&startup, ([127, 0, 0, 1], 1).into())
    }

    #[test]
    fn what_is_open_goes_on_and_what_would_begin_is_held() {
        let sessions = Arc::new(Sessions::default());
        let (open, resting) = (enter(&sessions), enter(&sessions));
        assert!(open.begins());
        let lease = sessions.pause.begin(Duration::from_secs(60)).unwrap();
        assert!(open.begins() && !resting.begins());
        assert_eq!(sessions.busy(), 1);
        open.rests();
        assert!(!open.begins());
        assert_eq!(sessions.busy(), 0);
        drop(lease);
        assert!(resting.begins());
        assert_eq!(sessions.busy(), 1);
        drop(resting);
        assert_eq!((sessions.busy(), sessions.clients().len()), (0, 1));
        open.unfollowed();
        open.rests();
        assert_eq!(sessions.busy(), 1, "it may be in a transaction");
        assert_eq!(sessions.clients()[0].user, "app");
    }

    /// No transaction is in progress once a pause that began was seen to have nobody busy, however they meet.
    #[test]
    fn nobody_slips_through() {
        for _ in 0..200 {
            let sessions = Arc::new(Sessions::default());
            let turns: Vec<Turn> = (0..3).map(|_| enter(&sessions)).collect();
            let under_way = AtomicI32::new(0);
            std::thread::scope(|threads| {
                for turn in &turns {
                    threads.spawn(|| {
                        for _ in 0..200 {
                            if turn.begins() {
                                under_way.fetch_add(1, Ordering::SeqCst);
                                under_way.fetch_sub(1, Ordering::SeqCst);
                                turn.rests();
                            }
                        }
                    });
                }
                let lease = sessions.pause.begin(Duration::from_secs(60)).unwrap();
                while sessions.busy() > 0 {
                    std::hint::spin_loop();
                }
                for _ in 0..100 {
                    assert_eq!(under_way.load(Ordering::SeqCst), 0);
                }
                drop(lease);
            });
        }
    }
}
