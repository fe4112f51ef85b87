//! What a server, or pgshadow in its place, answers to a list of messages.
use crate::messages::{Message, q, sync, terminate};
use integration_tests::client::Endpoint;
use integration_tests::raw::{Frame, RawClient};
use std::fmt::Write;
use std::io::ErrorKind;
use std::time::Duration;

/// How the messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Each by itself; what answers with ReadyForQuery is waited for.
    Stepwise,
    /// So many in one write; what the last of them answers is waited for.
    Grouped(usize),
    /// All in one write.
    Pipelined,
}

/// What ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Sync, a query, and Terminate.
    Query,
    /// The client closes its direction.
    HalfClose,
    /// Sync, a query, and the end once that is answered: a pool that sees an end gives up what is still at work.
    Awaited,
}

/// Frames of the server up to the end, made comparable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// In their order.
    pub frames: Vec<Frame>,
    /// `closed`, `refused` or `silent`.
    pub end: &'static str,
}

/// One step of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The client sends this.
    Send(Message),
    /// Another session runs this, if the client's is in no transaction and nothing is under way.
    Behind(String),
}

/// What runs [`Step::Behind`]; its answer stands in the transcript.
pub type Behind<'a> = &'a mut dyn FnMut(&str) -> Frame;

/// A session to be played.
#[derive(Debug)]
pub struct Play<'a> {
    /// Where, and as whom.
    pub place: &'a Endpoint,
    /// Of the startup, besides `user` and `database`.
    pub parameters: &'a [(&'a str, &'a str)],
    /// A Query ahead of all.
    pub first: Option<&'a str>,
    /// What is sent.
    pub steps: &'a [Step],
    /// In how many writes.
    pub pace: Pace,
    /// And then.
    pub end: End,
    /// Where nothing comes for so long, the session is `silent`.
    pub patience: Duration,
}

impl Play<'_> {
    /// Logs in and does it all.
    pub fn run(&self, behind: Behind<'_>) -> Transcript {
        let place = self.place;
        let mut client = RawClient::connect_within(place.port, self.patience).expect("it listens");
        let own = [("user", place.user.as_str()), ("database", place.database.as_str())];
        let frames = match client.start(&[&own, self.parameters].concat(), &place.password) {
            Ok(frames) => frames,
            Err(error) => {
                let refusal = Frame { tag: b'E', body: error.to_string().into_bytes() };
                return Transcript { frames: vec![refusal], end: "refused" };
            }
        };
        let mut reader = Reader { client, frames, unsynced: false, copying: false, copied: false };
        let end = reader.all(self, behind).err().unwrap_or("answered");
        Transcript { frames: reader.frames.into_iter().map(normalised).collect(), end }
    }
}

struct Reader {
    client: RawClient,
    frames: Vec<Frame>,
    /// Extended messages since the last Sync: after an error all but Sync is skipped, so nothing else is waited for.
    unsynced: bool,
    /// The server takes rows.
    copying: bool,
    /// The rows' end was sent since the last Sync.
    copied: bool,
}

/// The session ended: by the server's end of the stream, or by nothing that came.
type Over = &'static str;

impl Reader {
    fn all(&mut self, play: &Play<'_>, behind: Behind<'_>) -> Result<(), Over> {
        if let Some(first) = play.first {
            self.send(&q(first).0);
            self.read_until(|frame| frame.tag == b'Z')?;
        }
        match play.pace {
            Pace::Pipelined => return self.pipelined(play),
            Pace::Grouped(size) => self.step(play.steps, size, behind)?,
            Pace::Stepwise => self.step(play.steps, 1, behind)?,
        }
        self.send(&last(play.end));
        if play.end == End::HalfClose {
            drop(self.client.half_close());
        }
        self.read_to_the_end(play.end)
    }

    fn read_to_the_end(&mut self, end: End) -> Result<(), Over> {
        if end != End::Awaited {
            return self.read_until(|_| false);
        }
        self.read_until(|frame| frame.tag == b'D' && frame.body.ends_with(b"the last query"))?;
        self.read_until(|frame| frame.tag == b'Z')
    }

    /// All at once, while answers are read: neither side waits for the other to read.
    fn pipelined(&mut self, play: &Play<'_>) -> Result<(), Over> {
        let mut bytes: Vec<u8> = play.steps.iter().filter_map(Step::message).flat_map(|m| m.0.clone()).collect();
        bytes.extend(last(play.end));
        let mut sender = self.client.second().map_err(|_| "closed")?;
        let end = play.end;
        let sending = std::thread::spawn(move || {
            drop(sender.send(&bytes));
            if end == End::HalfClose {
                drop(sender.half_close());
            }
        });
        let over = self.read_to_the_end(play.end);
        drop(sending.join());
        over
    }

    fn step(&mut self, steps: &[Step], size: usize, behind: Behind<'_>) -> Result<(), Over> {
        for group in steps.chunks(size) {
            let mut waits = None;
            let mut bytes = Vec::new();
            for step in group {
                match step {
                    Step::Send(message) => {
                        bytes.extend(&message.0);
                        waits = self.sent(message.tag());
                    }
                    Step::Behind(sql) if self.idle() => self.frames.push(behind(sql)),
                    Step::Behind(_) => {}
                }
            }
            self.send(&bytes);
            if let Some(tag) = waits {
                let copied = std::mem::take(&mut self.copied);
                self.read_until(|frame| frame.tag == b'Z' || frame.tag == b'G' && !copied)?;
                self.copying = self.frames.last().is_some_and(|frame| frame.tag == b'G');
                // a server that takes rows ignores Sync
                self.unsynced |= self.copying && tag == b'S';
            }
        }
        Ok(())
    }

    fn idle(&self) -> bool {
        let idle = |frame: &Frame| frame.tag == b'Z' && frame.body == b"I";
        !self.unsynced && !self.copying && self.frames.iter().rfind(|frame| frame.tag != b'!').is_some_and(idle)
    }

    /// What is known after a message of this type, and the type if it has an answer to be waited for.
    fn sent(&mut self, tag: u8) -> Option<u8> {
        let waits = match tag {
            b'd' | b'H' => false,
            b'c' | b'f' if self.unsynced => {
                self.copied = true;
                self.copying = false;
                false
            }
            b'c' | b'f' => std::mem::take(&mut self.copying),
            b'S' => !self.copying,
            b'Q' | b'F' => {
                self.copying = false;
                !self.unsynced
            }
            _ => {
                // in the middle of a COPY it ends that one
                !self.unsynced && std::mem::take(&mut self.copying)
            }
        };
        match tag {
            b'P' | b'B' | b'D' | b'E' | b'C' if !waits => self.unsynced = true,
            b'S' if !self.copying => self.unsynced = false,
            _ => {}
        }
        waits.then_some(tag)
    }

    /// A server that has closed refuses what is sent: what it said before is read all the same.
    fn send(&mut self, bytes: &[u8]) {
        drop(self.client.send(bytes));
    }

    fn read_until(&mut self, last: impl Fn(&Frame) -> bool) -> Result<(), Over> {
        loop {
            let frame = self.client.receive().map_err(|error| match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => "silent",
                _ => "closed",
            })?;
            let found = last(&frame);
            self.frames.push(frame);
            if found {
                return Ok(());
            }
        }
    }
}

/// Sync, a query and Terminate, or nothing.
fn last(end: End) -> Vec<u8> {
    match end {
        End::HalfClose => Vec::new(),
        End::Awaited => [sync().0, q("SELECT 'the last query'").0].concat(),
        End::Query => [sync().0, q("SELECT 'the last query'").0, terminate().0].concat(),
    }
}

impl Step {
    fn message(&self) -> Option<&Message> {
        match self {
            Step::Send(message) => Some(message),
            Step::Behind(_) => None,
        }
    }
}

/// Without what differs from one session to the next: keys of cancellation and process ids.
fn normalised(mut frame: Frame) -> Frame {
    match frame.tag {
        b'K' => frame.body.fill(0),
        b'A' => frame.body[..4].fill(0),
        _ => {}
    }
    frame
}

impl Transcript {
    /// Both from the first frame that isn't the same, with a few before it; `None` where they are equal.
    pub fn difference(&self, proxied: &Transcript) -> Option<String> {
        if self == proxied {
            return None;
        }
        let same = self.frames.iter().zip(&proxied.frames).take_while(|(left, right)| left == right).count();
        let mut text = format!("after {same} equal frames\n");
        for (name, transcript) in [("direct ", self), ("proxied", proxied)] {
            for frame in transcript.frames.iter().skip(same.saturating_sub(3)).take(9) {
                let shown = &frame.body[..frame.body.len().min(300)];
                writeln!(text, "  {name} {} \"{}\"", char::from(frame.tag), shown.escape_ascii()).expect("a String");
            }
            writeln!(text, "  {name} {}", transcript.end).expect("a String");
        }
        Some(text)
    }
}
