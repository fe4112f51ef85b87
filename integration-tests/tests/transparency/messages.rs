//! The messages of a client, as bytes.
use std::fmt;

/// One message as it is sent; some are no messages at all.
#[derive(Clone, PartialEq, Eq)]
pub struct Message(pub Vec<u8>);

impl Message {
    /// Its type; 0 for bytes that are none.
    pub fn tag(&self) -> u8 {
        self.0.first().copied().unwrap_or_default()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(200)];
        write!(out, "b\"{}\"", shown.escape_ascii())?;
        if shown.len() < self.0.len() { write!(out, "... {} bytes", self.0.len()) } else { Ok(()) }
    }
}

/// Any type and body, with the right length.
pub fn message(tag: u8, body: &[u8]) -> Message {
    let mut bytes = vec![tag];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    Message(bytes)
}

/// Bytes as they are.
pub fn raw(bytes: &[u8]) -> Message {
    Message(bytes.to_vec())
}

fn text(value: &(impl AsRef<[u8]> + ?Sized)) -> Vec<u8> {
    [value.as_ref(), b"\0"].concat()
}

fn list<T>(items: &[T], bytes: impl Fn(&T) -> Vec<u8>) -> Vec<u8> {
    let mut all = (items.len() as u16).to_be_bytes().to_vec();
    all.extend(items.iter().flat_map(bytes));
    all
}

fn formats(items: &[i16]) -> Vec<u8> {
    list(items, |format| format.to_be_bytes().to_vec())
}

fn values(items: &[Option<&[u8]>]) -> Vec<u8> {
    list(items, |value| match value {
        None => (-1_i32).to_be_bytes().to_vec(),
        Some(value) => [&(value.len() as u32).to_be_bytes(), *value].concat(),
    })
}

/// Query.
pub fn q(sql: &(impl AsRef<[u8]> + ?Sized)) -> Message {
    message(b'Q', &text(sql))
}

/// Parse without types.
pub fn parse(name: &str, sql: &(impl AsRef<[u8]> + ?Sized)) -> Message {
    parse_typed(name, sql, &[])
}

/// Parse with the parameters' types.
pub fn parse_typed(name: &str, sql: &(impl AsRef<[u8]> + ?Sized), types: &[u32]) -> Message {
    message(b'P', &[text(name), text(sql), list(types, |oid| oid.to_be_bytes().to_vec())].concat())
}

/// Bind with text parameters and text results.
pub fn bind(portal: &str, statement: &str, parameters: &[&str]) -> Message {
    bind_as(portal, statement, parameters, &[])
}

/// Bind with text parameters; the results' formats are 0 for text and 1 for binary.
pub fn bind_as(portal: &str, statement: &str, parameters: &[&str], results: &[i16]) -> Message {
    let parameters: Vec<_> = parameters.iter().map(|value| Some(value.as_bytes())).collect();
    bind_full(portal, statement, &[], &parameters, results)
}

/// Bind with all that it can say.
pub fn bind_full(
    portal: &str,
    statement: &str,
    parameter_formats: &[i16],
    parameters: &[Option<&[u8]>],
    results: &[i16],
) -> Message {
    let parts = [text(portal), text(statement), formats(parameter_formats), values(parameters), formats(results)];
    message(b'B', &parts.concat())
}

/// Describe of a statement.
pub fn describe_statement(name: &str) -> Message {
    message(b'D', &[b"S", text(name).as_slice()].concat())
}

/// Describe of a portal.
pub fn describe_portal(name: &str) -> Message {
    message(b'D', &[b"P", text(name).as_slice()].concat())
}

/// Execute of a portal, with a limit of rows where it isn't 0.
pub fn execute(portal: &str, rows: i32) -> Message {
    message(b'E', &[text(portal).as_slice(), &rows.to_be_bytes()].concat())
}

/// Close of a statement.
pub fn close_statement(name: &str) -> Message {
    message(b'C', &[b"S", text(name).as_slice()].concat())
}

/// Close of a portal.
pub fn close_portal(name: &str) -> Message {
    message(b'C', &[b"P", text(name).as_slice()].concat())
}

/// Sync.
pub fn sync() -> Message {
    message(b'S', b"")
}

/// Flush.
pub fn flush() -> Message {
    message(b'H', b"")
}

/// Terminate.
pub fn terminate() -> Message {
    message(b'X', b"")
}

/// CopyData.
pub fn copy_data(data: &[u8]) -> Message {
    message(b'd', data)
}

/// CopyDone.
pub fn copy_done() -> Message {
    message(b'c', b"")
}

/// CopyFail.
pub fn copy_fail(reason: &str) -> Message {
    message(b'f', &text(reason))
}

/// FunctionCall with text arguments and result.
pub fn function_call(oid: u32, arguments: &[&str]) -> Message {
    let arguments: Vec<_> = arguments.iter().map(|value| Some(value.as_bytes())).collect();
    let parts = [oid.to_be_bytes().to_vec(), formats(&[]), values(&arguments), 0_i16.to_be_bytes().to_vec()];
    message(b'F', &parts.concat())
}

/// Unnamed: Parse, Bind, Describe, Execute, Sync.
pub fn unnamed(sql: &str, parameters: &[&str]) -> Vec<Message> {
    vec![parse("", sql), bind("", "", parameters), describe_portal(""), execute("", 0), sync()]
}

/// [`unnamed`] without its Sync.
pub fn open(sql: &str, parameters: &[&str]) -> Vec<Message> {
    vec![parse("", sql), bind("", "", parameters), execute("", 0)]
}
