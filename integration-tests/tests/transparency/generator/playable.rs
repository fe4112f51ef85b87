//! What is left out of every session, also of one that was made smaller.
use crate::messages::sync;
use crate::transcript::Step;

fn message_is(step: &Step, body: &[u8]) -> bool {
    matches!(step, Step::Send(message) if message.0.get(5..) == Some(body))
}

/// These steps without what can't be compared.
///
/// - Not yet: a Query that the server skips because of an earlier error; after it nothing more is answered. A Sync stands
///   ahead of each.
/// - A Sync stands at the end: what a server hasn't flushed at the end of the stream is nowhere promised.
/// - The unnamed portal is run and described only between its Bind and the next Sync or Query: a server that is told to run the one
///   that a failed Query left in a transaction reads memory that it has given back, and may crash.
pub fn playable(steps: &[Step]) -> Vec<Step> {
    let mut out = Vec::new();
    let (mut unsynced, mut bound) = (false, false);
    for step in steps {
        let (tag, unnamed) = match step {
            Step::Send(message) => (message.tag(), message.0.get(5) == Some(&0)),
            Step::Behind(_) => (0, false),
        };
        match tag {
            b'Q' | b'F' if unsynced => {
                out.push(Step::Send(sync()));
                (unsynced, bound) = (false, false);
            }
            b'Q' | b'F' | b'S' => (unsynced, bound) = (false, false),
            b'E' if unnamed && !bound => continue,
            b'D' if !bound && message_is(step, b"P\0") => continue,
            b'P' | b'B' | b'D' | b'E' | b'C' => {
                unsynced = true;
                bound |= tag == b'B' && unnamed;
            }
            _ => {}
        }
        out.push(step.clone());
    }
    if unsynced {
        out.push(Step::Send(sync()));
    }
    out
}
