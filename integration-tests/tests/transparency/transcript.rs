//! What a server, or pgshadow in its place, answers to a list of messages.
use crate::messages::{Message, q, sync, terminate};
use integration_tests::client::Endpoint;
use integration_tests::raw::{Frame, RawClient};
use std::fmt::Write;
use std::io::ErrorKind;

/// How the messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Each by itself; what answers with ReadyForQuery is waited for.
    Stepwise,
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

/// Logs in (with `user` and `database` of the endpoint and these parameters), makes `first` and sends `messages`.
pub fn play(
    place: &Endpoint,
    parameters: &[(&str, &str)],
    first: &str,
    messages: &[Message],
    (pace, end): (Pace, End),
) -> Transcript {
    let mut client = RawClient::connect(place.port).expect("it listens");
    let own = [("user", place.user.as_str()), ("database", place.database.as_str())];
    let frames = match client.start(&[&own, parameters].concat(), &place.password) {
        Ok(frames) => frames,
        Err(error) => {
            let refusal = Frame { tag: b'E', body: error.to_string().into_bytes() };
            return Transcript { frames: vec![refusal], end: "refused" };
        }
    };
    let mut reader = Reader { client, frames };
    let end = reader.session(first, messages, pace, end);
    Transcript { frames: reader.frames.into_iter().map(normalised).collect(), end }
}

struct Reader {
    client: RawClient,
    frames: Vec<Frame>,
}

/// The session ended: by the server's end of the stream, or by nothing that came.
type Over = &'static str;

impl Reader {
    fn session(&mut self, first: &str, messages: &[Message], pace: Pace, end: End) -> &'static str {
        match self.all(first, messages, pace, end) {
            Ok(()) => "answered",
            Err(over) => over,
        }
    }

    fn all(&mut self, first: &str, messages: &[Message], pace: Pace, end: End) -> Result<(), Over> {
        self.send(&q(first).0);
        self.read_until(|frame| frame.tag == b'Z')?;
        match pace {
            Pace::Pipelined => self.send(&messages.iter().flat_map(|message| message.0.clone()).collect::<Vec<_>>()),
            Pace::Stepwise => self.step(messages)?,
        }
        match end {
            End::HalfClose => {
                drop(self.client.half_close());
                self.read_until(|_| false)
            }
            End::Awaited => {
                self.send(&[sync().0, q("SELECT 'the last query'").0].concat());
                let last = |frame: &Frame| frame.tag == b'D' && frame.body.ends_with(b"the last query");
                self.read_until(last)?;
                self.read_until(|frame| frame.tag == b'Z')
            }
            End::Query => {
                self.send(&[sync().0, q("SELECT 'the last query'").0, terminate().0].concat());
                self.read_until(|_| false)
            }
        }
    }

    fn step(&mut self, messages: &[Message]) -> Result<(), Over> {
        // Extended messages since the last Sync: after an error all but Sync is skipped, so nothing else is waited for.
        let mut unsynced = false;
        for message in messages {
            self.send(&message.0);
            let copying = self.frames.last().is_some_and(|frame| frame.tag == b'G');
            let waits = match message.tag() {
                b'Q' | b'F' => !unsynced,
                b'c' | b'f' => copying,
                b'S' => true,
                _ => false,
            };
            match message.tag() {
                b'P' | b'B' | b'D' | b'E' | b'C' => unsynced = true,
                b'S' => unsynced = false,
                _ => {}
            }
            if waits {
                self.read_until(|frame| matches!(frame.tag, b'Z' | b'G'))?;
            }
        }
        Ok(())
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
