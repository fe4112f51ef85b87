//! Which functions give the same for the same arguments, wherever and whenever they run.
use super::source::all_words;
use super::{Function, Functions};

/// Stable functions whose result depends on nothing but their arguments and settings that go with a statement.
const BY_SETTINGS: &[&str] = &[
    "concat",
    "concat_ws",
    "format",
    "to_char",
    "date_trunc",
    "date_part",
    "extract",
    "timezone",
    "to_json",
    "to_jsonb",
    "json_build_array",
    "json_build_object",
    "jsonb_build_array",
    "jsonb_build_object",
    "array_to_string",
    "array_append",
    "quote_literal",
    "quote_nullable",
    "row_to_json",
    "timestamptz",
    "date",
    "time",
    "timestamp",
    "text",
    "interval",
];

/// Words in a source that reach other rows, the moment, or what isn't an argument.
const REACHING: &[&str] = &[
    "perform",
    "execute",
    "call",
    "query",
    "insert",
    "update",
    "delete",
    "merge",
    "table",
    "cursor",
    "fetch",
    "with",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "current_user",
    "session_user",
    "current_role",
    "current_catalog",
    "current_schema",
    "user",
    "now",
    "today",
    "tomorrow",
    "yesterday",
    "tg_relid",
    "diagnostics",
    "exception",
    "set",
    "reset",
];

impl Functions {
    pub(super) fn note_determined(&mut self, name: &str, immutable: bool, source: Option<&str>) {
        let reaching = source.map(|source| {
            let words = all_words(source);
            let reads = if immutable { "from" } else { "select" };
            words.contains(reads) || REACHING.iter().any(|w| words.contains(*w))
        });
        let own = reaching.map_or(immutable, |reaching| !reaching);
        if let Some(function) = self.others.get_mut(name) {
            function.determined = own;
        }
    }

    /// Who calls what isn't determined isn't either.
    pub(super) fn follow_determined(&mut self) {
        loop {
            let calls_other = |function: &Function| {
                let words = function.words.iter().flatten();
                words.into_iter().any(|word| match self.others.get(word) {
                    Some(called) => !called.determined,
                    None => self.built_in.contains(word) && !self.is_determined_built_in(word),
                })
            };
            let fallen: Vec<String> = self
                .others
                .iter()
                .filter(|(_, function)| function.determined && calls_other(function))
                .map(|(name, _)| name.clone())
                .collect();
            if fallen.is_empty() {
                return;
            }
            for name in fallen {
                if let Some(function) = self.others.get_mut(&name) {
                    function.determined = false;
                }
            }
        }
    }

    fn is_determined_built_in(&self, name: &str) -> bool {
        self.immutable.contains(name) || BY_SETTINGS.contains(&name)
    }

    /// Whether what a call of this name gives is determined by its arguments, in this state of definitions.
    #[must_use]
    pub fn is_determined(&self, definitions: Option<u64>, name: &str) -> bool {
        match self.others.get(name) {
            Some(function) => {
                let hides = self.built_in.contains(name) && !self.is_determined_built_in(name);
                self.is_known(definitions) && function.determined && !hides
            }
            None => self.is_known(definitions) && self.is_determined_built_in(name),
        }
    }

    /// Whether reading a relation of this name runs nothing but what [`is_determined`](Self::is_determined): a view calls functions.
    #[must_use]
    pub fn is_determined_read(&self, definitions: Option<u64>, relation: &str) -> bool {
        match self.others.get(relation) {
            Some(_) => self.is_determined(definitions, relation),
            None => self.is_known(definitions),
        }
    }

    /// The same for an operator, a type or a column, and for what any statement may run unseen.
    #[must_use]
    pub fn is_determined_behind(&self, definitions: Option<u64>, names: &[String]) -> bool {
        let concerned = self.behind.iter().filter(|b| b.anywhere || names.contains(&b.name));
        concerned.into_iter().all(|b| self.is_determined(definitions, &b.function))
    }
}
