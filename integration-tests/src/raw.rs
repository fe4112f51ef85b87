//! PostgreSQL's protocol byte by byte, for tests that must see every frame.
use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// One message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type: `b'Z'`, `b'D'`, ...
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

impl Frame {
    /// A field of an ErrorResponse or NoticeResponse: `b'C'` is the SQLSTATE, `b'M'` the message.
    pub fn field(&self, code: u8) -> Option<String> {
        let mut rest = self.body.as_slice();
        while let Some((&this, after)) = rest.split_first() {
            let end = after.iter().position(|byte| *byte == 0)?;
            if this == code {
                return Some(String::from_utf8_lossy(&after[..end]).into_owned());
            }
            rest = &after[end + 1..];
        }
        None
    }

    /// Columns of a DataRow as text; NULL is `None`.
    pub fn columns(&self) -> Vec<Option<String>> {
        assert_eq!(self.tag, b'D', "not a DataRow");
        let count = i16::from_be_bytes([self.body[0], self.body[1]]);
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        for _ in 0..count {
            let (length, after) = rest.split_at(4);
            let length = i32::from_be_bytes(length.try_into().expect("four bytes"));
            rest = after;
            columns.push(usize::try_from(length).ok().map(|length| {
                let (value, after) = rest.split_at(length);
                rest = after;
                String::from_utf8_lossy(value).into_owned()
            }));
        }
        columns
    }
}

/// A connection that blocks, with a time limit on every read and write.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
}

impl RawClient {
    /// Connects; sends nothing.
    pub fn connect(port: u16) -> std::io::Result<RawClient> {
        RawClient::connect_within(port, Duration::from_secs(10))
    }

    /// [`connect`](Self::connect) with another limit.
    pub fn connect_within(port: u16, limit: Duration) -> std::io::Result<RawClient> {
        let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        Ok(RawClient { stream })
    }

    /// Connects and logs in where no password, a clear one, or SCRAM-SHA-256 is asked for; returns all frames up to ReadyForQuery.
    pub fn login(port: u16, user: &str, password: &str, database: &str) -> std::io::Result<(RawClient, Vec<Frame>)> {
        let mut client = RawClient::connect(port)?;
        let frames = client.start(&[("user", user), ("database", database)], password)?;
        Ok((client, frames))
    }

    /// The startup of protocol 3.0 with these parameters; returns all frames up to ReadyForQuery. A refusal is an error
    /// that holds the server's message.
    pub fn start(&mut self, parameters: &[(&str, &str)], password: &str) -> std::io::Result<Vec<Frame>> {
        let mut startup = BytesMut::new();
        frontend::startup_message(parameters.iter().copied(), &mut startup)?;
        self.send(&startup)?;
        let mut frames = Vec::new();
        let mut exchange = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let frame = self.receive()?;
            let rest = frame.body.get(4..).unwrap_or_default();
            match (frame.tag, frame.body.get(..4)) {
                (b'R', Some([0, 0, 0, 10])) => {
                    let mut answer = BytesMut::new();
                    frontend::sasl_initial_response("SCRAM-SHA-256", exchange.message(), &mut answer)?;
                    self.send(&answer)?;
                }
                (b'R', Some([0, 0, 0, 11])) => {
                    exchange.update(rest)?;
                    let mut answer = BytesMut::new();
                    frontend::sasl_response(exchange.message(), &mut answer)?;
                    self.send(&answer)?;
                }
                (b'R', Some([0, 0, 0, 12])) => exchange.finish(rest)?,
                (b'R', Some([0, 0, 0, 3])) => {
                    let mut answer = BytesMut::new();
                    frontend::password_message(password.as_bytes(), &mut answer)?;
                    self.send(&answer)?;
                }
                (b'R', Some(kind)) if kind != [0, 0, 0, 0] => {
                    return Err(Error::new(ErrorKind::Unsupported, format!("authentication {kind:?}")));
                }
                (b'E', _) => return Err(Error::other(frame.field(b'M').unwrap_or_default())),
                _ => {}
            }
            let ready = frame.tag == b'Z';
            frames.push(frame);
            if ready {
                return Ok(frames);
            }
        }
    }

    /// Another time limit than the usual ten seconds for each read and write.
    pub fn set_limit(&mut self, limit: Duration) -> std::io::Result<()> {
        self.stream.set_read_timeout(Some(limit))?;
        self.stream.set_write_timeout(Some(limit))
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one message.
    pub fn send_frame(&mut self, tag: u8, body: &[u8]) -> std::io::Result<()> {
        let length = i32::try_from(body.len() + 4).map_err(Error::other)?;
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(body);
        self.send(&bytes)
    }

    /// Reads exactly this many bytes, for answers that are no frames (SSLRequest).
    pub fn receive_bytes(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads one message.
    pub fn receive(&mut self) -> std::io::Result<Frame> {
        let head = self.receive_bytes(5)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let length = length.checked_sub(4).ok_or_else(|| Error::new(ErrorKind::InvalidData, "length below 4"))?;
        Ok(Frame { tag: head[0], body: self.receive_bytes(length as usize)? })
    }

    /// Reads up to and with the next ReadyForQuery.
    pub fn receive_until_ready(&mut self) -> std::io::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        loop {
            let frame = self.receive()?;
            let ready = frame.tag == b'Z';
            frames.push(frame);
            if ready {
                return Ok(frames);
            }
        }
    }

    /// A simple query; all frames of its answer.
    pub fn query(&mut self, sql: &str) -> std::io::Result<Vec<Frame>> {
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message)?;
        self.send(&message)?;
        self.receive_until_ready()
    }

    /// A simple query's first value, as text.
    pub fn value(&mut self, sql: &str) -> std::io::Result<String> {
        let frames = self.query(sql)?;
        if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
            return Err(Error::other(error.field(b'M').unwrap_or_default()));
        }
        let row = frames.iter().find(|frame| frame.tag == b'D').map(Frame::columns).unwrap_or_default();
        row.into_iter().next().flatten().ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no value: {sql}")))
    }

    /// A second handle of the same connection, so that one thread sends while another one reads.
    pub fn second(&self) -> std::io::Result<RawClient> {
        Ok(RawClient { stream: self.stream.try_clone()? })
    }

    /// Closes one direction: the server sees the end of the stream and may still answer.
    pub fn half_close(&mut self) -> std::io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }
}

/// What a server sent of itself in a startup: ParameterStatus by name.
pub fn parameters(frames: &[Frame]) -> Vec<(String, String)> {
    frames
        .iter()
        .filter(|frame| frame.tag == b'S')
        .filter_map(|frame| {
            let mut parts = frame.body.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
            Some((parts.next()?, parts.next()?))
        })
        .collect()
}
