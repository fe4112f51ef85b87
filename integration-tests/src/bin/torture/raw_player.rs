//! Carries steps frame by frame: pipelines with one Sync, portals that are fetched in pages, other encodings.
use crate::player::{Lost, Player, Reply};
use crate::script::Step;
use crate::statement::Statement;
use crate::value::{literal, parameters};
use bytes::BytesMut;
use integration_tests::client::Endpoint;
use integration_tests::raw::{Frame, RawClient};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use std::collections::HashMap;
use std::io::Error;
use std::time::Duration;

/// A session by frames.
#[derive(Debug)]
pub struct RawPlayer {
    client: RawClient,
    port: u16,
    key: (i32, Vec<u8>),
    /// Text to name.
    prepared: HashMap<String, String>,
}

fn lost(error: Error) -> Lost {
    Lost(error.to_string())
}

impl RawPlayer {
    /// Logs in.
    pub fn connect(place: &Endpoint, encoding: Option<&str>) -> Result<RawPlayer, String> {
        let open = || {
            let mut client = RawClient::connect(place.port)?;
            client.set_limit(Duration::from_secs(60))?;
            let mut settings = vec![("user", place.user.as_str()), ("database", place.database.as_str())];
            settings.extend(encoding.map(|encoding| ("client_encoding", encoding)));
            let frames = client.start(&settings, &place.password)?;
            Ok::<_, Error>((client, frames))
        };
        let (client, frames) = open().map_err(|error| error.to_string())?;
        let body = frames.iter().find(|frame| frame.tag == b'K').map(|frame| frame.body.clone()).unwrap_or_default();
        let (pid, secret) = body.split_at(body.len().min(4));
        let pid = pid.try_into().map(i32::from_be_bytes).unwrap_or_default();
        Ok(RawPlayer { client, port: place.port, key: (pid, secret.to_vec()), prepared: HashMap::new() })
    }

    /// Parse, Bind, Describe, Execute, without a Sync. The text that is parsed under a name, if one is.
    fn execute(
        &self,
        statement: &Statement,
        named: bool,
        page: i32,
        out: &mut BytesMut,
    ) -> Result<Option<String>, Error> {
        let (text, values) = parameters(&statement.sql);
        let (name, parsed) = match self.prepared.get(&text) {
            Some(name) if named => (name.clone(), None),
            _ if named => (format!("s{}", self.prepared.len()), Some(text.clone())),
            _ => (String::new(), None),
        };
        if parsed.is_some() || !named {
            frontend::parse(&name, &text, std::iter::empty(), out)?;
        }
        let put = |value: Option<String>, buffer: &mut BytesMut| {
            let Some(value) = value else { return Ok(IsNull::Yes) };
            buffer.extend_from_slice(value.as_bytes());
            Ok(IsNull::No)
        };
        frontend::bind("", &name, [0_i16], values, put, [0_i16], out).map_err(|_| Error::other("Bind"))?;
        frontend::describe(b'P', "", out)?;
        frontend::execute("", page, out)?;
        Ok(parsed)
    }

    fn extended(&mut self, statement: &Statement, named: bool, page: i32) -> Result<Vec<Reply>, Error> {
        let mut out = BytesMut::new();
        let parsed = self.execute(statement, named, page, &mut out)?;
        if page == 0 {
            frontend::sync(&mut out);
        } else {
            frontend::flush(&mut out);
        }
        self.client.send(&out)?;
        let mut answer = Answer::new(std::slice::from_ref(statement));
        answer.paged = page > 0;
        let mut synced = page == 0;
        loop {
            let frame = self.client.receive()?;
            answer.take(&frame);
            match frame.tag {
                b'Z' => break,
                b's' => {
                    let mut more = BytesMut::new();
                    frontend::execute("", page, &mut more)?;
                    frontend::flush(&mut more);
                    self.client.send(&more)?;
                }
                // The Sync may fail in its turn, by a deferred check.
                b'C' | b'E' if !synced => {
                    synced = true;
                    let mut end = BytesMut::new();
                    frontend::sync(&mut end);
                    self.client.send(&end)?;
                }
                _ => {}
            }
        }
        self.keep(parsed, &answer);
        Ok(answer.replies)
    }

    fn keep(&mut self, parsed: Option<String>, answer: &Answer<'_>) {
        if let (Some(text), true) = (parsed, answer.parsed > 0) {
            let name = format!("s{}", self.prepared.len());
            self.prepared.insert(text, name);
        }
    }

    fn pipeline(&mut self, statements: &[Statement], sync_each: bool) -> Result<Vec<Reply>, Error> {
        let mut out = BytesMut::new();
        for (at, statement) in statements.iter().enumerate() {
            self.execute(statement, false, 0, &mut out)?;
            if sync_each || at + 1 == statements.len() {
                frontend::sync(&mut out);
            }
        }
        self.client.send(&out)?;
        let mut answer = Answer::new(statements);
        answer.sync_each = sync_each;
        for _ in 0..if sync_each { statements.len() } else { 1 } {
            for frame in self.client.receive_until_ready()? {
                answer.take(&frame);
            }
        }
        Ok(answer.replies)
    }

    fn simple(&mut self, statements: &[Statement]) -> Result<Vec<Reply>, Error> {
        let texts: Vec<_> = statements.iter().map(|statement| literal(&statement.sql)).collect();
        let mut answer = Answer::new(statements);
        for frame in self.client.query(&texts.join("; "))? {
            answer.take(&frame);
        }
        Ok(answer.replies)
    }

    fn copy(&mut self, statement: &Statement) -> Result<Vec<Reply>, Error> {
        let mut out = BytesMut::new();
        frontend::query(&statement.sql, &mut out)?;
        self.client.send(&out)?;
        let mut answer = Answer::new(std::slice::from_ref(statement));
        loop {
            let frame = self.client.receive()?;
            answer.take(&frame);
            match frame.tag {
                b'Z' => return Ok(answer.replies),
                b'G' => {
                    let mut data = BytesMut::new();
                    // In pieces that end anywhere.
                    for piece in statement.copy.as_deref().unwrap_or_default().chunks(7) {
                        frontend::CopyData::new(piece)?.write(&mut data);
                    }
                    frontend::copy_done(&mut data);
                    self.client.send(&data)?;
                }
                _ => {}
            }
        }
    }

    fn cancelled(&mut self, statement: &Statement, after: u64) -> Result<Vec<Reply>, Error> {
        let mut out = BytesMut::new();
        frontend::query(&literal(&statement.sql), &mut out)?;
        self.client.send(&out)?;
        std::thread::sleep(Duration::from_millis(after));
        let mut cancel = RawClient::connect(self.port)?;
        let mut message = Vec::new();
        message.extend_from_slice(&(12 + self.key.1.len() as i32).to_be_bytes());
        message.extend_from_slice(&80_877_102_i32.to_be_bytes());
        message.extend_from_slice(&self.key.0.to_be_bytes());
        message.extend_from_slice(&self.key.1);
        cancel.send(&message)?;
        let mut answer = Answer::new(std::slice::from_ref(statement));
        for frame in self.client.receive_until_ready()? {
            answer.take(&frame);
        }
        // The other side closes when the cancel was passed on: one that comes too late must not meet the next statement.
        drop(cancel.receive());
        self.client.query("SELECT pg_sleep(0.02)")?;
        Ok(answer.replies)
    }

    fn hang_up(&mut self, statement: &Statement) -> Error {
        let mut out = BytesMut::new();
        let sent = frontend::query(&literal(&statement.sql), &mut out).and_then(|()| self.client.send(&out));
        sent.err().unwrap_or_else(|| Error::other("hung up"))
    }
}

impl Player for RawPlayer {
    fn play(&mut self, step: &Step) -> Result<Vec<Reply>, Lost> {
        match step {
            Step::Simple(statements) => self.simple(statements),
            Step::Extended { statement, named, page } => self.extended(statement, *named, *page),
            Step::Pipeline { statements, sync_each } => self.pipeline(statements, *sync_each),
            Step::Copy(statement) => self.copy(statement),
            Step::Cancelled(statement, after) => self.cancelled(statement, *after),
            Step::HangUp(statement) => Err(self.hang_up(statement)),
            _ => Ok(Vec::new()),
        }
        .map_err(lost)
    }

    fn control(&mut self, sql: &str) -> Result<Reply, Lost> {
        let statement = [Statement::plain("control", sql)];
        let mut answer = Answer::new(&statement);
        self.client.query(sql).map_err(lost)?.iter().for_each(|frame| answer.take(frame));
        Ok(answer.replies.into_iter().next().unwrap_or_default())
    }
}

/// Sorts frames into replies.
struct Answer<'a> {
    statements: &'a [Statement],
    replies: Vec<Reply>,
    odd: Option<String>,
    rows: usize,
    parsed: usize,
    paged: bool,
    /// Each statement has a Sync of its own.
    sync_each: bool,
    synced: usize,
    failed: bool,
}

impl<'a> Answer<'a> {
    fn new(statements: &'a [Statement]) -> Answer<'a> {
        Answer {
            statements,
            replies: Vec::new(),
            odd: None,
            rows: 0,
            parsed: 0,
            paged: false,
            sync_each: false,
            synced: 0,
            failed: false,
        }
    }

    fn take(&mut self, frame: &Frame) {
        let expected = self.statements.get(self.replies.len()).map_or(0, |statement| statement.columns);
        let count = || frame.body.first_chunk::<2>().map_or(0, |bytes| u16::from_be_bytes(*bytes));
        match frame.tag {
            b'1' => self.parsed += 1,
            b'T' | b'D' if usize::from(count()) != expected => {
                self.odd = Some(format!("{} columns in {:?} instead of {expected}", count(), char::from(frame.tag)));
            }
            b'n' if expected > 0 => self.odd = Some("NoData for a statement that gives rows".to_owned()),
            b'D' => self.rows += 1,
            b'C' => {
                let tag = String::from_utf8_lossy(frame.body.strip_suffix(&[0]).unwrap_or(&frame.body)).into_owned();
                let told = tag.rsplit(' ').next().and_then(|number| number.parse::<usize>().ok());
                // With pages, the tag counts the last page only.
                if !self.paged && expected > 0 && told.is_some_and(|told| told != self.rows) {
                    self.odd = Some(format!("{} rows, but the tag is {tag}", self.rows));
                }
                self.rows = 0;
                self.replies.push(Reply { error: None, odd: self.odd.take() });
            }
            b'E' => {
                let field = |code| frame.field(code).unwrap_or_default();
                self.rows = 0;
                self.odd = None;
                // A deferred check's, at the Sync or the end of the string: behind the last one's own answer.
                if self.replies.len() > self.synced && !self.failed && self.sync_each
                    || self.replies.len() == self.statements.len()
                {
                    self.replies.pop();
                }
                self.failed = true;
                self.replies.push(Reply { error: Some((field(b'C'), field(b'M'))), ..Reply::default() });
            }
            b'Z' => {
                self.synced += 1;
                self.failed = false;
            }
            _ => {}
        }
    }
}
