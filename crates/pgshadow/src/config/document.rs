//! The file's text and the environment, key by key: what is known, of the right type, and where each value stands.
use super::Word;
use super::error::{ConfigError, Place};
use super::file::{File, HIDDEN};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// How names in the environment start, and what stands between section and key.
const PREFIX: &str = "PGSHADOW__";
const SEPARATOR: &str = "__";

/// Where each value of the configuration stands.
pub(super) struct Document {
    path: PathBuf,
    places: BTreeMap<String, Place>,
    /// Sections with their keys and defaults.
    known: Table,
    /// What was set.
    values: Table,
}

impl Document {
    /// Reads the text, then what the environment puts in its place.
    pub(super) fn read(path: &Path, text: &str, variables: &[(String, String)]) -> Result<(File, Self), ConfigError> {
        let mut document =
            Self { path: path.to_owned(), places: BTreeMap::new(), known: known_keys(path)?, values: Table::new() };
        document.read_text(text)?;
        for (name, value) in variables {
            if let Some(key) = name.strip_prefix(PREFIX) {
                document.read_variable(name, key, value)?;
            }
        }
        let file =
            File::deserialize(document.values.clone()).map_err(|error| syntax(Place::File(path.to_owned()), &error))?;
        Ok((file, document))
    }

    fn read_text(&mut self, text: &str) -> Result<(), ConfigError> {
        let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let place = |offset: usize| Place::Line(self.path.clone(), line_of(offset));
        let wrong = |error: toml::de::Error| syntax(place(error.span().map_or(0, |span| span.start)), &error);
        let spanned = DeTable::parse(text).map_err(wrong)?;
        let plain: Table = toml::from_str(text).map_err(wrong)?;
        let mut found = Vec::new();
        for (section, content) in spanned.get_ref() {
            let keys = section_keys(content);
            if keys.is_none() {
                found.push((section.get_ref().to_string(), place(section.span().start), None));
            }
            for key in keys.into_iter().flatten() {
                let name = format!("{}.{}", section.get_ref(), key.get_ref());
                let value = plain.get(section.get_ref().as_ref()).and_then(|table| table.get(key.get_ref().as_ref()));
                found.push((name, place(key.span().start), value.cloned()));
            }
            if !self.known.contains_key(section.get_ref().as_ref()) {
                return Err(self.unknown(place(section.span().start), section.get_ref()));
            }
        }
        for (name, place, value) in found {
            match value {
                Some(value) => self.put(name, place, value)?,
                None => return Err(wrong_value(place, &name, "is a section, written [section]")),
            }
        }
        Ok(())
    }

    fn read_variable(&mut self, name: &str, key: &str, text: &str) -> Result<(), ConfigError> {
        let key = key.to_lowercase().replacen(SEPARATOR, ".", 1);
        let place = Place::Variable(name.to_owned());
        let value = match self.default_of(&key) {
            Some(Value::Boolean(_)) => text.parse().map(Value::Boolean).unwrap_or_else(|_| text.into()),
            Some(Value::Integer(_)) => text.parse().map(Value::Integer).unwrap_or_else(|_| text.into()),
            Some(Value::Float(_)) => text.parse().map(Value::Float).unwrap_or_else(|_| text.into()),
            Some(Value::Array(_)) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Value::Array(parts.map(Value::from).collect())
            }
            _ => text.into(),
        };
        self.put(key, place, value)
    }

    fn put(&mut self, name: String, place: Place, value: Value) -> Result<(), ConfigError> {
        let Some(default) = self.default_of(&name) else {
            return Err(self.unknown(place, &name));
        };
        let value = match (default, value) {
            (Value::Float(_), Value::Integer(number)) => Value::Float(number as f64),
            (Value::Array(_), Value::Array(items)) if !items.iter().all(Value::is_str) => {
                return Err(wrong_value(place, &name, "must be a list of texts"));
            }
            (default, value) if default.same_type(&value) => value,
            (default, _) => return Err(wrong_value(place, &name, expectation(default))),
        };
        if let Some((section, key)) = name.split_once('.') {
            let section = self.values.entry(section.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(table) = section {
                table.insert(key.to_owned(), value);
            }
        }
        self.places.insert(name, place);
        Ok(())
    }

    fn default_of(&self, name: &str) -> Option<&Value> {
        let (section, key) = name.split_once('.')?;
        self.known.get(section)?.get(key)
    }

    fn unknown(&self, place: Place, name: &str) -> ConfigError {
        let sections = self.known.iter().filter(|(section, _)| !HIDDEN.contains(&section.as_str()));
        let candidates: Vec<String> = if name.contains('.') {
            let keys = |table: &Value| table.as_table().map(|table| table.keys().cloned().collect::<Vec<_>>());
            sections
                .flat_map(|(section, table)| {
                    keys(table).into_iter().flatten().map(move |key| format!("{section}.{key}"))
                })
                .collect()
        } else {
            sections.map(|(section, _)| section.clone()).collect()
        };
        let nearest = candidates.into_iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
        let spelled = |name: &str| match &place {
            Place::Variable(_) => format!("{PREFIX}{}", name.replacen('.', SEPARATOR, 1).to_uppercase()),
            _ => name.to_owned(),
        };
        let (key, nearest) = (spelled(name), spelled(&nearest.unwrap_or_default()));
        ConfigError::UnknownKey { place, key, nearest }
    }

    /// The error that says why the value of `key` can't be.
    pub(super) fn wrong(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        let place = self.places.get(key).cloned().unwrap_or_else(|| Place::File(self.path.clone()));
        wrong_value(place, key, reason)
    }

    /// The error for a key that has no default and no value.
    pub(super) fn unset(&self, key: &str, example: &str) -> ConfigError {
        let variable = format!("{PREFIX}{}", key.replacen('.', SEPARATOR, 1).to_uppercase());
        self.wrong(key, format!("is not set; set it there, or as {variable}, such as \"{example}\""))
    }

    /// One of a closed list of words.
    pub(super) fn word<T: Word>(&self, key: &str, text: &str) -> Result<T, ConfigError> {
        if let Some((_, meaning)) = T::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let list: Vec<String> = T::WORDS.iter().map(|(word, _)| format!("{word:?}")).collect();
        Err(self.wrong(key, format!("must be {}, not {text:?}", list.join(" or "))))
    }
}

/// The keys of a section; `None`: it isn't one.
fn section_keys<'a>(content: &'a Spanned<DeValue<'_>>) -> Option<Vec<&'a Spanned<std::borrow::Cow<'a, str>>>> {
    content.get_ref().as_table().map(|table| table.keys().collect())
}

/// Sections, keys and defaults as the file's types have them: the one list of what there is.
pub(super) fn known_keys(path: &Path) -> Result<Table, ConfigError> {
    Table::try_from(File::default())
        .map_err(|error| ConfigError::Syntax { place: Place::File(path.to_owned()), reason: error.to_string() })
}

/// The parser's message without the line that it quotes, which may hold a password.
fn syntax(place: Place, error: &toml::de::Error) -> ConfigError {
    ConfigError::Syntax { place, reason: error.message().replace('\n', ", ") }
}

fn wrong_value(place: Place, key: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Wrong { place, key: key.to_owned(), reason: reason.into() }
}

fn expectation(default: &Value) -> &'static str {
    match default {
        Value::Boolean(_) => "must be true or false",
        Value::Float(_) | Value::Integer(_) => "must be a number",
        Value::Array(_) => "must be a list of texts",
        _ => "must be a text in quotes",
    }
}
