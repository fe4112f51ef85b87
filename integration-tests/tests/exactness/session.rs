//! A client's session, byte by byte, and what it was told.
use crate::case::{Protocol, Statement};
use bytes::BytesMut;
use integration_tests::client::Endpoint;
use integration_tests::raw::{Frame, RawClient};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use std::collections::{HashMap, VecDeque};

/// A logged-in client.
#[derive(Debug)]
pub struct Session {
    client: RawClient,
    protocol: Protocol,
    /// Statements of the protocol by their text.
    prepared: HashMap<String, String>,
    /// Statements sent to be prepared, in order: their text where they have a name. Not answered yet.
    preparing: VecDeque<Option<String>>,
    /// Names given so far.
    names: usize,
    /// What it was told, in words that are the same for equal answers.
    pub told: Vec<String>,
}

/// Puts literals where the parameters are.
fn with_literals(sql: &str, parameters: &[&str]) -> String {
    // From the last one on: $1 is a part of $10.
    parameters.iter().enumerate().rev().fold(sql.to_owned(), |sql, (index, value)| {
        sql.replace(&format!("${}", index + 1), &format!("'{}'", value.replace('\'', "''")))
    })
}

impl Session {
    /// Logs in; names without a schema are looked for in `schema`, then in `public`.
    pub fn open(place: &Endpoint, schema: &str, application: &str, protocol: Protocol) -> Session {
        let mut client = RawClient::connect(place.port).expect("it listens");
        let options = format!("-c search_path={schema},public");
        let parameters = [
            ("user", place.user.as_str()),
            ("database", place.database.as_str()),
            ("application_name", application),
            ("options", options.as_str()),
        ];
        client.start(&parameters, &place.password).expect("it lets the client in");
        let preparing = VecDeque::new();
        Session { client, protocol, prepared: HashMap::new(), preparing, names: 0, told: Vec::new() }
    }

    /// Sends a statement; its answer is still to be read.
    pub fn send(&mut self, sql: &str, parameters: &[&str], portion: i32) {
        let mut bytes = BytesMut::new();
        match self.protocol {
            Protocol::Simple => frontend::query(&with_literals(sql, parameters), &mut bytes).expect("a Query"),
            Protocol::Extended => {
                self.extended(sql, parameters, portion, &mut bytes);
                frontend::sync(&mut bytes);
            }
        }
        self.client.send(&bytes).expect("it reads");
    }

    /// Sends several statements as one implicit transaction.
    pub fn send_together(&mut self, all: &[(String, &Statement)]) {
        let mut bytes = BytesMut::new();
        match self.protocol {
            Protocol::Simple => {
                let texts: Vec<_> =
                    all.iter().map(|(sql, statement)| with_literals(sql, statement.parameters)).collect();
                frontend::query(&texts.join("; "), &mut bytes).expect("a Query");
            }
            Protocol::Extended => {
                for (sql, statement) in all {
                    self.extended(sql, statement.parameters, statement.portion, &mut bytes);
                }
                frontend::sync(&mut bytes);
            }
        }
        self.client.send(&bytes).expect("it reads");
    }

    /// A statement with parameters is prepared under a name and kept; others have none.
    fn extended(&mut self, sql: &str, parameters: &[&str], portion: i32, bytes: &mut BytesMut) {
        let mut name = String::new();
        if parameters.is_empty() {
            frontend::parse("", sql, [], bytes).expect("a Parse");
            self.preparing.push_back(None);
        } else if let Some(known) = self.prepared.get(sql) {
            name.clone_from(known);
        } else {
            name = format!("s{}", self.names);
            self.names += 1;
            frontend::parse(&name, sql, [], bytes).expect("a Parse");
            self.prepared.insert(sql.to_owned(), name.clone());
            self.preparing.push_back(Some(sql.to_owned()));
        }
        let value = |value: &&str, bytes: &mut BytesMut| {
            bytes.extend_from_slice(value.as_bytes());
            Ok(IsNull::No)
        };
        drop(frontend::bind("", &name, [], parameters.iter(), value, [0], bytes));
        frontend::describe(b'P', "", bytes).expect("a Describe");
        let limits = if portion > 0 { vec![portion, portion, 0] } else { vec![0] };
        for limit in limits {
            frontend::execute("", limit, bytes).expect("an Execute");
        }
    }

    /// Reads an answer to its end; the SQLSTATE where there was an error.
    pub fn read(&mut self, copy: Option<&[u8]>) -> Result<Option<String>, String> {
        let mut state = None;
        loop {
            let frame = self.client.receive().map_err(|error| format!("no answer: {error}"))?;
            if frame.tag == b'G' {
                self.send_copy(copy.unwrap_or_default());
            }
            if frame.tag == b'E' {
                state = frame.field(b'C');
            }
            self.told.extend(said(&frame));
            if frame.tag == b'1' {
                self.preparing.pop_front();
            }
            if frame.tag == b'Z' {
                // refused (a deadlock with a TRUNCATE of its table, say), or skipped
                for unprepared in self.preparing.drain(..).flatten() {
                    self.prepared.remove(&unprepared);
                }
                return Ok(state);
            }
        }
    }

    fn send_copy(&mut self, data: &[u8]) {
        let mut bytes = BytesMut::new();
        frontend::CopyData::new(data).expect("short").write(&mut bytes);
        frontend::copy_done(&mut bytes);
        if self.protocol == Protocol::Extended {
            // The one behind Execute was read while the server waited for data, and ignored.
            frontend::sync(&mut bytes);
        }
        self.client.send(&bytes).expect("it reads");
    }

    /// `statement` by itself, to the end of its answer.
    pub fn run(&mut self, sql: &str, statement: &Statement) -> Result<Option<String>, String> {
        self.send(sql, statement.parameters, statement.portion);
        self.read(statement.copy)
    }
}

/// A frame in words; identifiers of objects and of processes are left out.
fn said(frame: &Frame) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    Some(match frame.tag {
        b'C' => format!("done: {}", text(&frame.body)),
        b'D' => format!("row: {:?}", frame.columns()),
        b'E' | b'N' => {
            let field = |code| frame.field(code).unwrap_or_default();
            format!("{}: {} {} {}", char::from(frame.tag), field(b'C'), field(b'M'), field(b'P'))
        }
        b'T' => format!("columns: {}", u16::from_be_bytes([frame.body[0], frame.body[1]])),
        b'Z' => format!("ready: {}", text(&frame.body)),
        b'A' | b'S' => return None,
        tag => char::from(tag).to_string(),
    })
}
