//! The smallest session that still differs.
use crate::generator::{Session, playable};
use crate::transcript::Pace;
use std::time::{Duration, Instant};

/// Time for one session.
const TIME: Duration = Duration::from_secs(90);

/// Leaves out what isn't needed; `differs` says what differs in a session, if anything.
pub fn shrink(
    session: Session,
    found: String,
    mut differs: impl FnMut(&Session) -> Option<String>,
) -> (Session, String) {
    let deadline = Instant::now() + TIME;
    let (mut best, mut found) = (session, found);
    let mut try_one = |candidate: Session, best: &mut Session, found: &mut String| {
        let difference = if Instant::now() < deadline { differs(&candidate) } else { None };
        let smaller = difference.is_some();
        if let Some(difference) = difference {
            (*best, *found) = (candidate, difference);
        }
        smaller
    };
    let stepwise = Session { pace: Pace::Stepwise, ..best.clone() };
    try_one(stepwise, &mut best, &mut found);
    let mut size = best.steps.len().div_ceil(2);
    loop {
        let mut at = 0;
        let mut any = false;
        while at < best.steps.len() {
            let mut candidate = best.clone();
            candidate.steps.drain(at..(at + size).min(best.steps.len()));
            candidate.steps = playable(&candidate.steps);
            let smaller = candidate.steps.len() < best.steps.len();
            if smaller && try_one(candidate, &mut best, &mut found) {
                any = true;
            } else {
                at += size;
            }
        }
        match size {
            0 | 1 if !any => break,
            0 | 1 => {}
            _ => size = size.div_ceil(2),
        }
    }
    let plain = Session { parameters: Vec::new(), ..best.clone() };
    try_one(plain, &mut best, &mut found);
    let owner = Session { role: "app", ..best.clone() };
    try_one(owner, &mut best, &mut found);
    (best, found)
}
