//! Messages as a test writes them, see [`messages`](crate::messages).
use crate::generator::Session;
use crate::messages::Message;
use crate::transcript::Step;
use std::fmt::Write;

/// Long texts are cut to this.
const SHOWN: usize = 400;

/// The whole session.
pub fn session(session: &Session) -> String {
    let Session { role, parameters, pace, end, steps, .. } = session;
    let mut text = format!("{role} {parameters:?} {pace:?} {end:?}\n");
    for step in steps {
        match step {
            Step::Send(message) => writeln!(text, "    {},", notation(message)),
            Step::Behind(sql) => writeln!(text, "    // behind: {sql}"),
        }
        .expect("a String");
    }
    text
}

fn notation(message: &Message) -> String {
    let body = message.0.get(5..).unwrap_or_default();
    let known = match message.tag() {
        b'Q' => string(body).map(|(sql, _)| format!("q({sql})")),
        b'P' => string(body).and_then(|(name, rest)| {
            let (sql, types) = string(rest)?;
            Some(format!("parse_typed({name}, {sql}, &{:?})", oids(types)?))
        }),
        b'B' => bind(body),
        b'D' | b'C' => target(message.tag(), body),
        b'E' => string(body)
            .and_then(|(name, rest)| Some(format!("execute({name}, {})", i32::from_be_bytes(rest.try_into().ok()?)))),
        b'S' => Some("sync()".into()),
        b'H' => Some("flush()".into()),
        b'd' => Some(format!("copy_data({})", quoted(body))),
        b'c' => Some("copy_done()".into()),
        b'f' => string(body).map(|(reason, _)| format!("copy_fail({reason})")),
        _ => None,
    };
    known.unwrap_or_else(|| format!("raw({})", quoted(&message.0)))
}

fn quoted(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let cut = if shown.len() < bytes.len() { format!(" /* {} bytes */", bytes.len()) } else { String::new() };
    match std::str::from_utf8(shown) {
        Ok(text) => format!("{text:?}{cut}"),
        Err(_) => format!("b\"{}\"{cut}", shown.escape_ascii()),
    }
}

fn string(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((quoted(&bytes[..end]), &bytes[end + 1..]))
}

fn number(bytes: &mut &[u8]) -> Option<i16> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(i16::from_be_bytes(*number))
}

fn oids(mut bytes: &[u8]) -> Option<Vec<u32>> {
    number(&mut bytes)?;
    Some(bytes.chunks_exact(4).map(|oid| oid.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))).collect())
}

fn formats(bytes: &mut &[u8]) -> Option<Vec<i16>> {
    (0..number(bytes)?).map(|_| number(bytes)).collect()
}

fn bind(body: &[u8]) -> Option<String> {
    let (portal, rest) = string(body)?;
    let (statement, mut rest) = string(rest)?;
    let parameter_formats = formats(&mut rest)?;
    let mut values = Vec::new();
    for _ in 0..number(&mut rest)? {
        let (length, after) = rest.split_first_chunk()?;
        let length = i32::from_be_bytes(*length);
        rest = after;
        values.push(match usize::try_from(length) {
            Err(_) => "None".to_owned(),
            Ok(length) => {
                let value = rest.get(..length)?;
                rest = &rest[length..];
                format!("Some(b\"{}\")", value.escape_ascii())
            }
        });
    }
    let results = formats(&mut rest)?;
    let values = values.join(", ");
    Some(format!("bind_full({portal}, {statement}, &{parameter_formats:?}, &[{values}], &{results:?})"))
}

fn target(tag: u8, body: &[u8]) -> Option<String> {
    let (kind, name) = body.split_first()?;
    let verb = if tag == b'D' { "describe" } else { "close" };
    let kind = match kind {
        b'S' => "statement",
        b'P' => "portal",
        _ => return None,
    };
    Some(format!("{verb}_{kind}({})", string(name)?.0))
}
