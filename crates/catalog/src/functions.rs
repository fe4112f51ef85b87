mod determined;
mod load;
mod procedures;
mod refused;
mod source;
#[cfg(test)]
mod tests;

pub use procedures::{block_may_commit, block_may_define};

use load::{BEHIND, EVENT_TRIGGERS, LOAD, OPERATORS};
use refused::refused_in_block;
use source::{assigned, defines_code, words};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tokio_postgres::Client;

/// What a call of a function may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FunctionNature {
    /// Writes nothing that is mirrored.
    Harmless,
    /// Changes the session's settings: names may mean something else afterwards.
    ChangesSession,
    /// May write tables, but hardly the one that the statement itself writes (C functions of extensions).
    MayWriteOthers,
    /// May write any table, or is not known.
    MayWrite,
}

/// Functions, and views by the functions that they call, by name, as of one state of definitions ([`crate::Catalog::definitions`]).
#[derive(Debug, Clone, Default)]
pub struct Functions {
    definitions: Option<u64>,
    built_in: HashSet<String>,
    others: HashMap<String, Function>,
    /// An event trigger runs whenever definitions change.
    event_triggers: bool,
    /// Functions that run without being called.
    behind: Vec<Behind>,
    /// What a name may do that isn't a function's: operators, types, columns that are functions of the row.
    other_names: HashMap<String, FunctionNature>,
    /// What any statement may do unseen: by implicit casts, comparisons, index support.
    anywhere: Option<FunctionNature>,
    /// Names of all operators.
    operators: HashSet<String>,
    /// Built-in functions whose result is determined by their arguments.
    immutable: HashSet<String>,
    /// Names that have come to stand for what is refused in a transaction block, and by which state of definitions.
    refused: BTreeMap<String, u64>,
}

/// A function of the user's that stands behind another name.
#[derive(Debug, Clone)]
struct Behind {
    name: String,
    function: String,
    /// Any statement may run it.
    anywhere: bool,
}

#[derive(Debug, Clone, Default)]
struct Function {
    nature: Option<FunctionNature>,
    /// Words of its source, where that can be read.
    words: Option<HashSet<String>>,
    trigger: bool,
    /// It, or what it calls, may change what names and values mean.
    sets: bool,
    /// It, or what it calls, may define functions, views and the like anew.
    defines: bool,
    /// It, or what it calls, runs what is refused in a transaction block.
    refused: bool,
    /// Columns of NEW that it assigns, where that can be read.
    assigned: Option<HashSet<String>>,
    /// What it does is determined by its arguments, as far as its own text tells; then also by what it calls.
    determined: bool,
}

/// Built-in functions that write large objects, or run SQL of their own.
const WRITING: &[&str] = &[
    "lo_create",
    "lo_creat",
    "lo_from_bytea",
    "lo_import",
    "lo_put",
    "lo_truncate",
    "lo_truncate64",
    "lo_unlink",
    "lowrite",
    "lo_open",
    "pg_import_system_collations",
    "pg_extension_config_dump",
];

/// Words with which a function writes, runs what can't be read here, or ends transactions.
const WRITING_WORDS: &[&str] = &[
    "insert", "update", "delete", "merge", "truncate", "copy", "execute", "call", "do", "create", "alter", "drop",
    "refresh", "grant", "revoke", "comment", "import", "reassign", "commit", "rollback", "security", "reindex",
    "cluster",
];
const SETTING_WORDS: &[&str] = &["set", "reset", "set_config", "discard"];

/// Words with which a function that updates rows (by SET as well) would change what names and values mean (a
/// temporary table hides another one).
const NAMED_SETTINGS: &[&str] = &[
    "create",
    "drop",
    "alter",
    "call",
    "set_config",
    "search_path",
    "role",
    "authorization",
    "reset",
    "discard",
    "datestyle",
    "timezone",
    "client_encoding",
    "execute",
];

impl Function {
    /// What its own words say.
    fn by_words(&self, volatile: bool) -> FunctionNature {
        let Some(words) = &self.words else { return FunctionNature::MayWrite };
        let any = |list: &[&str]| list.iter().any(|w| words.contains(*w));
        if volatile && any(WRITING_WORDS) || any(WRITING) {
            FunctionNature::MayWrite
        } else if any(SETTING_WORDS) {
            FunctionNature::ChangesSession
        } else {
            FunctionNature::Harmless
        }
    }
}

impl Functions {
    /// Asks the database for its functions.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub async fn load(client: &Client, definitions: u64) -> Result<Self, tokio_postgres::Error> {
        let mut functions = Self { definitions: Some(definitions), ..Self::default() };
        functions.event_triggers = client.query_one(EVENT_TRIGGERS, &[]).await?.get(0);
        let behind = client.query(BEHIND, &[]).await?;
        functions.behind =
            behind.iter().map(|r| Behind { name: r.get(0), function: r.get(1), anywhere: r.get(2) }).collect();
        functions.operators = client.query(OPERATORS, &[]).await?.iter().map(|r| r.get(0)).collect();
        for row in client.query(LOAD, &[]).await? {
            let (name, built_in): (String, bool) = (row.get(0), row.get(1));
            let immutable: bool = row.get(6);
            if built_in {
                if immutable {
                    functions.immutable.insert(name.clone());
                }
                functions.built_in.insert(name);
            } else {
                let source = row.get::<_, Option<&str>>(5);
                functions.add(name.clone(), row.get(2), row.get(3), row.get(4), source);
                functions.note_determined(&name, immutable, source);
            }
        }
        functions.follow_calls();
        functions.follow_determined();
        functions.look_behind();
        Ok(functions)
    }

    fn add(&mut self, name: String, volatile: bool, language: bool, trigger: bool, source: Option<&str>) {
        let mut function =
            Function { words: source.map(words), trigger, assigned: source.and_then(assigned), ..Function::default() };
        if let (Some(words), Some(source)) = (&mut function.words, source) {
            let used = self.behind.iter().filter(|b| source.contains(&b.name));
            words.extend(used.map(|b| b.function.clone()));
        }
        function.nature = Some(match (volatile, language) {
            (_, true) if function.words.is_some() => function.by_words(volatile),
            // what isn't volatile doesn't write by itself, and what it calls can't be seen
            (false, _) => FunctionNature::Harmless,
            (true, false) => FunctionNature::MayWriteOthers,
            (true, true) => FunctionNature::MayWrite,
        });
        function.sets = match &function.words {
            Some(words) => NAMED_SETTINGS.iter().any(|w| words.contains(*w)),
            None => function.nature == Some(FunctionNature::MayWrite),
        };
        function.defines = source.is_some_and(defines_code);
        function.refused = source.is_some_and(refused_in_block);
        // another one of that name, in another schema or of other parameters
        if let Some(same) = self.others.get(&name) {
            function.nature = function.nature.max(same.nature);
            function.trigger |= same.trigger;
            function.sets |= same.sets;
            function.defines |= same.defines;
            function.refused |= same.refused;
            function.assigned = match (function.assigned, &same.assigned) {
                (Some(own), Some(other)) => Some(own.union(other).cloned().collect()),
                _ => None,
            };
            function.words = match (function.words, &same.words) {
                (Some(own), Some(other)) => Some(own.union(other).cloned().collect()),
                _ => None,
            };
        }
        self.others.insert(name, function);
    }

    /// Who calls what may write may write, and who calls what sets something sets it.
    fn follow_calls(&mut self) {
        loop {
            let of = |word: &String| self.others.get(word).map(|f| (f.nature, f.sets, f.defines, f.refused));
            let raised: Vec<_> = self
                .others
                .iter()
                .filter_map(|(name, function)| {
                    let called = function.words.as_ref()?.iter().filter_map(of);
                    let own = (function.nature, function.sets, function.defines, function.refused);
                    let all =
                        called.fold(own, |own, of| (own.0.max(of.0), own.1 || of.1, own.2 || of.2, own.3 || of.3));
                    (all != own).then(|| (name.clone(), all))
                })
                .collect();
            if raised.is_empty() {
                return;
            }
            for (name, (nature, sets, defines, refused)) in raised {
                if let Some(function) = self.others.get_mut(&name) {
                    (function.nature, function.sets) = (nature, sets);
                    (function.defines, function.refused) = (defines, refused);
                }
            }
        }
    }

    /// What stands behind the other names, once it is known what functions may do.
    fn look_behind(&mut self) {
        for behind in &self.behind {
            let nature = self.others.get(&behind.function).and_then(|f| f.nature);
            if nature <= Some(FunctionNature::Harmless) {
                continue;
            }
            if behind.anywhere {
                self.anywhere = self.anywhere.max(nature);
            }
            let of_name = self.other_names.entry(behind.name.clone()).or_insert(FunctionNature::Harmless);
            *of_name = nature.map_or(*of_name, |n| n.max(*of_name));
        }
    }

    /// What an operator, a type or a column of this name may do.
    #[must_use]
    pub fn nature_of_other(&self, definitions: Option<u64>, name: &str) -> FunctionNature {
        let known = self.is_known(definitions);
        match self.other_names.get(name) {
            Some(nature) if known => *nature,
            Some(_) => FunctionNature::MayWrite,
            // an operator that was just made
            None if !known && !name.starts_with(|c: char| c.is_alphanumeric() || c == '_') => {
                if self.operators.contains(name) { FunctionNature::Harmless } else { FunctionNature::MayWrite }
            }
            None => FunctionNature::Harmless,
        }
    }

    /// What any statement may do, whatever it names.
    #[must_use]
    pub fn nature_anywhere(&self) -> FunctionNature {
        self.anywhere.unwrap_or(FunctionNature::Harmless)
    }

    /// Whether a function may define functions, views and the like anew.
    #[must_use]
    pub fn defines(&self, name: &str) -> bool {
        self.others.get(name).is_some_and(|f| f.defines)
    }

    /// Whether they are those of this state of definitions.
    pub(crate) fn are_of(&self, definitions: u64) -> bool {
        self.is_known(Some(definitions))
    }

    /// As they may be in the state of definitions that follows, in which these names stand for something that isn't known yet.
    pub(crate) fn doubting(&self, names: &BTreeSet<String>, definitions: u64) -> Self {
        let mut functions = Self { definitions: Some(definitions), ..self.clone() };
        let nature = Some(FunctionNature::MayWrite);
        for name in names {
            let refused = self.is_refused_in_block(name);
            let unknown = Function { nature, trigger: true, sets: true, defines: true, refused, ..Function::default() };
            functions.others.insert(name.clone(), unknown);
            functions.other_names.insert(name.clone(), FunctionNature::MayWrite);
        }
        functions.follow_calls();
        functions.look_behind();
        functions
    }

    /// These, which only read.
    #[cfg(test)]
    pub(crate) fn of(definitions: u64, names: &[&str]) -> Self {
        let mut functions = Self { definitions: Some(definitions), ..Self::default() };
        names.iter().for_each(|name| functions.add((*name).to_owned(), true, true, false, Some("begin return 1; end")));
        functions
    }

    fn is_known(&self, definitions: Option<u64>) -> bool {
        definitions.is_some() && self.definitions == definitions
    }

    /// What a call of `schema.name` may do, in this state of definitions; `schema` is `None` where the call is unqualified.
    #[must_use]
    pub fn nature(&self, definitions: Option<u64>, schema: Option<&str>, name: &str) -> FunctionNature {
        let qualified_built_in = schema == Some("pg_catalog");
        if name == "set_config" {
            return FunctionNature::ChangesSession;
        }
        if WRITING.contains(&name) {
            return FunctionNature::MayWrite;
        }
        if qualified_built_in {
            return FunctionNature::Harmless;
        }
        match self.others.get(name).and_then(|f| f.nature) {
            // a function of the user's may hide, or overload, a built-in one
            Some(nature) if self.is_known(definitions) => nature,
            Some(_) => FunctionNature::MayWrite,
            None if schema.is_none() && self.built_in.contains(name) => FunctionNature::Harmless,
            None => FunctionNature::MayWrite,
        }
    }

    /// What reading a relation of this name may do: a view calls functions.
    #[must_use]
    pub fn nature_of_read(&self, definitions: Option<u64>, relation: &str) -> FunctionNature {
        match self.others.get(relation).and_then(|f| f.nature) {
            Some(nature) => nature,
            None if self.is_known(definitions) => FunctionNature::Harmless,
            // it may be a view that was just made
            None => FunctionNature::MayWriteOthers,
        }
    }

    /// What a trigger function may do besides changing its own row.
    #[must_use]
    pub fn nature_of_trigger(&self, definitions: Option<u64>, name: &str) -> FunctionNature {
        if self.built_in.contains(name) && !self.others.contains_key(name) {
            return FunctionNature::Harmless;
        }
        self.nature(definitions, Some(""), name)
    }

    /// Whether a trigger function may leave the session with other settings: by its source, or since that can't be read.
    #[must_use]
    pub fn trigger_sets(&self, definitions: Option<u64>, name: &str) -> bool {
        if self.built_in.contains(name) && !self.others.contains_key(name) {
            return false;
        }
        self.others.get(name).filter(|_| self.is_known(definitions)).is_none_or(|function| function.sets)
    }

    /// Whether the source of a trigger function names one of these columns, or can't be read.
    #[must_use]
    pub fn trigger_names_any<'a>(&self, name: &str, mut columns: impl Iterator<Item = &'a str>) -> bool {
        let function = self.others.get(name);
        let read = function.and_then(|f| f.assigned.as_ref().or(f.words.as_ref()));
        match read {
            Some(words) => columns.any(|column| words.contains(&column.to_lowercase())),
            // in C: extensions' own, which change columns that their arguments name
            None => {
                function.is_none_or(|f| f.nature == Some(FunctionNature::MayWrite)) && !self.built_in.contains(name)
            }
        }
    }

    /// Whether an event trigger may run at a change of definitions.
    #[must_use]
    pub fn has_event_triggers(&self) -> bool {
        self.event_triggers
    }
}
