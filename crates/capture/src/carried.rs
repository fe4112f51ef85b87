//! What a session has prepared, as messages that prepare it again on another server.
use crate::journal::Journal;
use crate::own::NAME;
use crate::session::Session;
use bytes::Bytes;
use pgshadow_wire::{Frame, Reader, backend, frontend};
use std::collections::{BTreeMap, BTreeSet};

/// Name of the statement that pgshadow prepares in a client's session for itself.
pub const OWN_STATEMENT: &[u8] = NAME;
/// Names that are kept.
const NAMES_MAX: usize = 1000;
/// OIDs from here on are a database's own.
const FIRST_NORMAL_OID: u32 = 16_384;

/// Names of settings of the application's own (`app.tenant`), which a server keeps but doesn't list.
#[derive(Debug, Default)]
pub(crate) struct OwnSettings {
    names: BTreeSet<String>,
    /// One may have been set whose name doesn't stand in a text.
    unknown: bool,
    /// A text may have said LISTEN.
    listens: bool,
    /// A text may have said LOAD.
    loads: bool,
}

impl OwnSettings {
    /// Takes note of what a text may set. What isn't one does no harm: it is asked for, and isn't there.
    pub fn of_text(&mut self, text: &[u8]) {
        let has = |word: &[u8]| text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
        if text.contains(&b'.') && has(b"set") {
            self.by_set(&String::from_utf8_lossy(text));
        }
        if sets_by_function(text) {
            self.by_function(&String::from_utf8_lossy(text));
        }
        self.listens |= has(b"listen");
        self.loads |= has(b"load") && begins_with(text, b"load");
    }

    /// `SET [SESSION] a.b = ...`
    fn by_set(&mut self, text: &str) {
        let lower = text.to_ascii_lowercase();
        for (at, _) in lower.match_indices("set") {
            let rest = text.get(at + 3..).unwrap_or_default().trim_start();
            let word = rest.get(..7).filter(|word| word.eq_ignore_ascii_case("session"));
            let rest = word.map_or(rest, |word| rest.get(word.len()..).unwrap_or_default().trim_start());
            let end = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | '"'));
            let name = rest.split(end).next().unwrap_or_default();
            // one whose name is put together, or so many that they can't be meant
            let letter = name.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '"'));
            self.unknown |= letter && name.ends_with('.') || self.names.len() >= NAMES_MAX;
            if letter && name.contains('.') {
                self.names.insert(name.replace('"', "").to_lowercase());
                self.names.insert(name.replace('"', ""));
            }
        }
    }

    /// `set_config('a.b', ..., false)`
    fn by_function(&mut self, text: &str) {
        let lower = text.to_ascii_lowercase();
        for (at, word) in lower.match_indices("set_config") {
            let rest = text.get(at + word.len()..).unwrap_or_default().trim_start_matches('"').trim_start();
            let Some(arguments) = rest.strip_prefix('(').and_then(arguments) else {
                self.unknown = true;
                continue;
            };
            // for the transaction alone
            if arguments.get(2).is_some_and(|last| last.eq_ignore_ascii_case("true")) {
                continue;
            }
            let name = arguments.first().and_then(|name| name.strip_prefix('\'')?.strip_suffix('\''));
            match name.filter(|name| !name.contains('\'')) {
                Some(name) => drop(self.names.insert(name.to_owned())),
                None => self.unknown = true,
            }
        }
    }
}

/// Whether it may call `set_config`: asked of each text.
pub(crate) fn sets_by_function(text: &[u8]) -> bool {
    let word = b"set_config";
    text.windows(word.len()).any(|part| part.get(3) == Some(&b'_') && part.eq_ignore_ascii_case(word))
}

/// Whether one of a string's statements begins with this word.
fn begins_with(text: &[u8], word: &[u8]) -> bool {
    text.split(|c| *c == b';').any(|statement| {
        let statement = statement.trim_ascii_start();
        statement.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
            && !statement.get(word.len()).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_')
    })
}

/// What stands between a parenthesis and its counterpart, cut at commas. `None`: there is none.
fn arguments(text: &str) -> Option<Vec<&str>> {
    let (mut depth, mut quoted, mut from, mut all) = (0_u32, false, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            _ if quoted => {}
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            ')' | ',' if depth == 0 => {
                all.push(text.get(from..at)?.trim());
                from = at + 1;
                if c == ')' {
                    return Some(all);
                }
            }
            _ => {}
        }
    }
    None
}

impl<J: Journal> Session<J> {
    /// Names of settings of the application's own that it may have. `None`: it may have others, whose names aren't known.
    #[must_use]
    pub fn own_settings(&self) -> Option<&BTreeSet<String>> {
        (!self.own_settings.unknown).then_some(&self.own_settings.names)
    }

    /// Whether it has a library of its own (LOAD).
    #[must_use]
    pub fn may_have_loaded(&self) -> bool {
        self.own_settings.loads
    }

    /// Knows of the application's own settings what `old` knew: it was given them by texts that tell no names.
    pub fn has_settings_of(&mut self, old: &mut Self) {
        self.own_settings = std::mem::take(&mut old.own_settings);
        self.client_pid = old.client_pid;
    }

    /// Whether it may listen to a channel.
    #[must_use]
    pub fn may_listen(&self) -> bool {
        self.own_settings.listens
    }

    /// The database's own types that it has sent, or was told, the number of.
    #[must_use]
    pub fn own_types(&self) -> BTreeSet<u32> {
        let sent = self.statements.values().flat_map(|prepared| oids(&prepared.types));
        sent.filter(own).chain(self.told_types.iter().copied()).collect()
    }

    /// Knows of types what `old` knew: its client still does.
    pub fn has_types_of(&mut self, old: &Self) {
        self.told_types.extend(&old.told_types);
    }

    /// Takes note of the types that a RowDescription or a ParameterDescription names.
    pub(crate) fn tells_types(&mut self, frame: &Frame) {
        match frame.tag {
            backend::ROW_DESCRIPTION => self.told_types.extend(backend::column_types(frame.body()).filter(own)),
            backend::PARAMETER_DESCRIPTION => self.told_types.extend(oids(frame.body()).into_iter().filter(own)),
            _ => {}
        }
    }

    /// Its prepared statements: each SQL's PREPARE as a Query, then a Parse and a Sync for each of the protocol's; and the same for the unnamed one,
    /// which any Query ends. `there`: what the server has by name, in UTF-8 ([`OWN_STATEMENT`] left out). `None`: it isn't known what one of them is.
    #[must_use]
    pub fn prepared_again(&self, there: &BTreeMap<String, String>) -> Option<(Vec<Bytes>, Vec<Bytes>)> {
        let named = self.statements.iter().filter(|(name, _)| !name.is_empty());
        if there.len() != self.sql_prepared.len() + named.clone().count() {
            return None;
        }
        let identity = self.identity.as_ref();
        let in_utf8 = identity.is_none_or(|i| i.client_encoding == "UTF8");
        let plain = identity.is_none_or(|i| i.standard_conforming_strings == "on");
        // the server is given the bytes anew, and must read them as it did
        let same = |text: &Bytes| (in_utf8 || text.is_ascii()) && (plain || !text.contains(&b'\\'));
        let (mut frames, mut last) = (Vec::new(), Vec::new());
        for (name, prepared) in &self.sql_prepared {
            // its text is the parser's, which may be another one than the client's
            let statement = there.get(name)?;
            let is_in = |text: &Bytes| std::str::from_utf8(text).is_ok_and(|text| statement.contains(text.trim()));
            let known = is_in(&prepared.text) || prepared.sent.as_ref().is_some_and(is_in);
            if !known || !same(&prepared.text) {
                return None;
            }
            frames.push(frontend::query(&prepared.text));
        }
        let unnamed = self.statements.get(&b""[..]).map(|prepared| (&b""[..], prepared));
        for (name, prepared) in named.map(|(name, prepared)| (&name[..], prepared)).chain(unnamed) {
            if prepared.lost || !same(&prepared.text) || !name.is_empty() && !there.contains_key(utf8(name)?) {
                return None;
            }
            // one that fails doesn't keep the others away
            let out = if name.is_empty() { &mut last } else { &mut frames };
            out.extend([frontend::parse(name, &prepared.text, &prepared.types), frontend::sync()]);
        }
        Some((frames, last))
    }
}

fn utf8(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn own(oid: &u32) -> bool {
    *oid >= FIRST_NORMAL_OID
}

/// The OIDs behind their count.
fn oids(types: &[u8]) -> Vec<u32> {
    let mut reader = Reader::new(types);
    let _count = reader.i16();
    std::iter::from_fn(|| reader.u32()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_application_s_own_are_known_by_name() {
        let of = |text: &str| {
            let mut all = OwnSettings::default();
            all.of_text(text.as_bytes());
            (!all.unknown).then(|| all.names.into_iter().collect::<Vec<_>>().join(" "))
        };
        for (text, names) in [
            ("SET app.tenant = 7", Some("app.tenant")),
            ("begin; set session App.Tenant to '7'", Some("App.Tenant app.tenant")),
            ("SET work_mem = '5MB'", Some("")),
            ("SELECT 1 OFFSET 1.5", Some("")),
            ("DO $$ BEGIN EXECUTE format('SET app.%s = 1', 'x'); END $$", None),
            ("UPDATE t SET v = o.v FROM o", Some("")),
            ("SELECT set_config('app.a', f(1, ')'), false), set_config ( 'b' , $1, 'f')", Some("app.a b")),
            ("SELECT pg_catalog.set_config($1, $2, true)", Some("")),
            ("SELECT set_config($1, $2, false)", None),
            ("SELECT set_config('app.' || 'x', 'y', false)", None),
            ("SELECT set_config('it''s', 'y', false)", None),
            ("SELECT set_config", None),
        ] {
            assert_eq!(of(text).as_deref(), names, "{text}");
        }
    }

    #[test]
    fn types_are_read_behind_their_count() {
        assert_eq!(oids(&[0, 2, 0, 0, 0, 23, 0, 0, 0x40, 1]), [23, 16_385]);
        assert!(oids(&[]).is_empty());
    }
}
