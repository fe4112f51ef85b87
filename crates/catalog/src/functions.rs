use std::collections::{HashMap, HashSet};
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

/// Functions, and views by the functions that they call, by name, as of one catalog epoch.
#[derive(Debug, Clone, Default)]
pub struct Functions {
    epoch: Option<u64>,
    built_in: HashSet<String>,
    others: HashMap<String, Function>,
    /// An event trigger runs whenever definitions change.
    event_triggers: bool,
}

#[derive(Debug, Clone, Default)]
struct Function {
    nature: Option<FunctionNature>,
    /// Words of its source, where that can be read.
    words: Option<HashSet<String>>,
    trigger: bool,
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

// Sources of functions in SQL and PL/pgSQL tell by their words what they may do; those that are kept parsed (BEGIN ATOMIC)
// don't. A view stands here with the names of what it calls and reads as its words.
const LOAD: &str = "
SELECT p.proname::pg_catalog.text,
       n.nspname OPERATOR(pg_catalog.=) 'pg_catalog' AND p.oid OPERATOR(pg_catalog.<) 16384 AS built_in,
       pg_catalog.bool_or(p.provolatile OPERATOR(pg_catalog.=) 'v'),
       pg_catalog.bool_or(NOT l.lanname OPERATOR(pg_catalog.=) ANY ('{c,internal}')),
       pg_catalog.bool_or(p.prorettype OPERATOR(pg_catalog.=) 'pg_catalog.trigger'::pg_catalog.regtype),
       CASE WHEN pg_catalog.bool_and(p.oid OPERATOR(pg_catalog.>=) 16384
                 AND l.lanname OPERATOR(pg_catalog.=) ANY ('{sql,plpgsql}') AND NOT p.prosrc OPERATOR(pg_catalog.=) '')
            THEN pg_catalog.string_agg(p.prosrc, ' ') END
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
     JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE NOT n.nspname OPERATOR(pg_catalog.=) 'information_schema' GROUP BY 1, 2
UNION ALL
SELECT c.relname::pg_catalog.text, false, false, true, false,
       COALESCE(pg_catalog.string_agg(pg_catalog.concat_ws(' ', f.proname, v.relname), ' '), '')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_rewrite r ON r.ev_class OPERATOR(pg_catalog.=) c.oid
     JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
          AND d.objid OPERATOR(pg_catalog.=) r.oid
     LEFT JOIN pg_catalog.pg_proc f ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
          AND f.oid OPERATOR(pg_catalog.=) d.refobjid
     LEFT JOIN pg_catalog.pg_class v ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND v.oid OPERATOR(pg_catalog.=) d.refobjid AND v.relkind OPERATOR(pg_catalog.=) 'v'
          AND NOT v.oid OPERATOR(pg_catalog.=) c.oid
WHERE c.relkind OPERATOR(pg_catalog.=) 'v' AND c.oid OPERATOR(pg_catalog.>=) 16384 GROUP BY c.oid, c.relname";

const EVENT_TRIGGERS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_event_trigger
WHERE NOT evtenabled OPERATOR(pg_catalog.=) 'D')";

/// Words with which a function writes, runs what can't be read here, or ends transactions.
const WRITING_WORDS: &[&str] = &[
    "insert", "update", "delete", "merge", "truncate", "copy", "execute", "call", "do", "create", "alter", "drop",
    "refresh", "grant", "revoke", "comment", "import", "reassign", "commit", "rollback", "security", "reindex",
    "cluster",
];
const SETTING_WORDS: &[&str] = &["set", "reset", "set_config", "discard"];

/// Words with which a function that updates rows (by SET as well) would change what names and values mean.
const NAMED_SETTINGS: &[&str] = &[
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

/// What a procedure or block can end a transaction with, or what can hide it.
const COMMITTING_WORDS: &[&str] = &["commit", "rollback", "call", "execute"];

fn words(source: &str) -> HashSet<String> {
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    source.split(|c: char| !inside(c)).filter(|w| !w.is_empty()).map(str::to_lowercase).collect()
}

/// Whether the text of a DO block may commit before it ends.
#[must_use]
pub fn block_may_commit(text: &str) -> bool {
    let words = words(text);
    COMMITTING_WORDS.iter().any(|w| words.contains(*w))
}

/// What changes definitions, or can hide it.
const DEFINING_WORDS: &[&str] = &["create", "alter", "drop", "call", "execute"];

/// Whether a DO block may change definitions.
#[must_use]
pub fn block_may_define(text: &str) -> bool {
    let words = words(text);
    DEFINING_WORDS.iter().any(|w| words.contains(*w))
}

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
    pub async fn load(client: &Client, epoch: u64) -> Result<Self, tokio_postgres::Error> {
        let mut functions = Self { epoch: Some(epoch), ..Self::default() };
        functions.event_triggers = client.query_one(EVENT_TRIGGERS, &[]).await?.get(0);
        for row in client.query(LOAD, &[]).await? {
            let (name, built_in): (String, bool) = (row.get(0), row.get(1));
            if built_in {
                functions.built_in.insert(name);
            } else {
                functions.add(name, row.get(2), row.get(3), row.get(4), row.get::<_, Option<&str>>(5));
            }
        }
        functions.follow_calls();
        Ok(functions)
    }

    fn add(&mut self, name: String, volatile: bool, language: bool, trigger: bool, source: Option<&str>) {
        let mut function = Function { nature: None, words: source.map(words), trigger };
        function.nature = Some(match (volatile, language) {
            (_, true) if function.words.is_some() => function.by_words(volatile),
            // what isn't volatile doesn't write by itself, and what it calls can't be seen
            (false, _) => FunctionNature::Harmless,
            (true, false) => FunctionNature::MayWriteOthers,
            (true, true) => FunctionNature::MayWrite,
        });
        // another one of that name, in another schema or of other parameters
        if let Some(same) = self.others.get(&name) {
            function.nature = function.nature.max(same.nature);
            function.trigger |= same.trigger;
            function.words = match (function.words, &same.words) {
                (Some(own), Some(other)) => Some(own.union(other).cloned().collect()),
                _ => None,
            };
        }
        self.others.insert(name, function);
    }

    /// Who calls what may write may write.
    fn follow_calls(&mut self) {
        loop {
            let nature_of = |word: &String| self.others.get(word).and_then(|f| f.nature);
            let raised: Vec<(String, FunctionNature)> = self
                .others
                .iter()
                .filter_map(|(name, function)| {
                    let called = function.words.as_ref()?.iter().filter_map(nature_of).max()?;
                    (Some(called) > function.nature).then(|| (name.clone(), called))
                })
                .collect();
            if raised.is_empty() {
                return;
            }
            for (name, nature) in raised {
                if let Some(function) = self.others.get_mut(&name) {
                    function.nature = Some(nature);
                }
            }
        }
    }

    /// What a call of `schema.name` may do, at catalog epoch `epoch`; `schema` is `None` where the call is unqualified.
    #[must_use]
    pub fn nature(&self, epoch: u64, schema: Option<&str>, name: &str) -> FunctionNature {
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
            Some(nature) if self.epoch == Some(epoch) => nature,
            Some(_) => FunctionNature::MayWrite,
            None if schema.is_none() && self.built_in.contains(name) => FunctionNature::Harmless,
            None => FunctionNature::MayWrite,
        }
    }

    /// What reading a relation of this name may do: a view calls functions.
    #[must_use]
    pub fn nature_of_read(&self, epoch: u64, relation: &str) -> FunctionNature {
        match self.others.get(relation).and_then(|f| f.nature) {
            Some(nature) => nature,
            None if self.epoch == Some(epoch) => FunctionNature::Harmless,
            // it may be a view that was just made
            None => FunctionNature::MayWriteOthers,
        }
    }

    /// What a trigger function may do besides changing its own row.
    #[must_use]
    pub fn nature_of_trigger(&self, epoch: u64, name: &str) -> FunctionNature {
        if self.built_in.contains(name) && !self.others.contains_key(name) {
            return FunctionNature::Harmless;
        }
        self.nature(epoch, Some(""), name)
    }

    /// Whether a trigger function may leave the session with other settings: by its source, or since that can't be read.
    #[must_use]
    pub fn trigger_sets(&self, epoch: u64, name: &str) -> bool {
        if self.built_in.contains(name) && !self.others.contains_key(name) {
            return false;
        }
        let Some(function) = self.others.get(name).filter(|_| self.epoch == Some(epoch)) else { return true };
        match &function.words {
            Some(words) => NAMED_SETTINGS.iter().any(|w| words.contains(*w)),
            None => function.nature == Some(FunctionNature::MayWrite),
        }
    }

    /// Whether the source of a trigger function names one of these columns, or can't be read.
    #[must_use]
    pub fn trigger_names_any<'a>(&self, name: &str, mut columns: impl Iterator<Item = &'a str>) -> bool {
        let function = self.others.get(name);
        match function.and_then(|f| f.words.as_ref()) {
            Some(words) => columns.any(|column| words.contains(&column.to_lowercase())),
            // in C: extensions' own, which change columns that their arguments name
            None => {
                function.is_none_or(|f| f.nature == Some(FunctionNature::MayWrite)) && !self.built_in.contains(name)
            }
        }
    }

    /// Whether a procedure of that name may commit before it ends.
    #[must_use]
    pub fn may_commit(&self, epoch: u64, name: &str) -> bool {
        let words = self.others.get(name).filter(|_| self.epoch == Some(epoch)).and_then(|f| f.words.as_ref());
        words.is_none_or(|words| COMMITTING_WORDS.iter().any(|w| words.contains(*w)))
    }

    /// Whether a procedure of that name may change definitions.
    #[must_use]
    pub fn may_define(&self, epoch: u64, name: &str) -> bool {
        let words = self.others.get(name).filter(|_| self.epoch == Some(epoch)).and_then(|f| f.words.as_ref());
        words.is_none_or(|words| DEFINING_WORDS.iter().any(|w| words.contains(*w)))
    }

    /// Whether an event trigger may run at a change of definitions.
    #[must_use]
    pub fn has_event_triggers(&self) -> bool {
        self.event_triggers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(list: &[(&str, bool, bool, Option<&str>)]) -> Functions {
        let mut functions = Functions { epoch: Some(3), ..Functions::default() };
        for (name, volatile, language, source) in list {
            functions.add((*name).to_owned(), *volatile, *language, false, *source);
        }
        functions.follow_calls();
        functions
    }

    #[test]
    fn unknown_functions_may_write() {
        let mut functions = with(&[("uuid_generate_v4", true, false, None)]);
        functions.built_in.insert("lower".into());
        assert_eq!(functions.nature(3, None, "lower"), FunctionNature::Harmless);
        assert_eq!(functions.nature(3, Some("app"), "lower"), FunctionNature::MayWrite);
        assert_eq!(functions.nature(3, None, "uuid_generate_v4"), FunctionNature::MayWriteOthers);
        assert_eq!(functions.nature(4, None, "uuid_generate_v4"), FunctionNature::MayWrite);
        assert_eq!(functions.nature(3, Some("pg_catalog"), "lo_unlink"), FunctionNature::MayWrite);
        assert_eq!(functions.nature(3, None, "anything"), FunctionNature::MayWrite);
    }

    #[test]
    fn a_source_tells_what_a_function_may_do() {
        let functions = with(&[
            ("reads", true, true, Some("begin return (select max(v) from t); end")),
            ("writes", true, true, Some("BEGIN UPDATE t SET v = 1; END")),
            ("calls", true, true, Some("begin perform further(); end")),
            ("further", false, true, Some("select writes()")),
            ("sets", true, true, Some("begin set local search_path = a; end")),
            ("parsed", true, true, None),
            ("a_view", false, true, Some("calls lower")),
        ]);
        let nature = |name| functions.nature(3, None, name);
        assert_eq!(nature("reads"), FunctionNature::Harmless);
        assert_eq!(nature("sets"), FunctionNature::ChangesSession);
        for name in ["writes", "calls", "further", "parsed"] {
            assert_eq!(nature(name), FunctionNature::MayWrite, "{name}");
        }
        assert_eq!(functions.nature_of_read(3, "a_view"), FunctionNature::MayWrite);
        assert_eq!(functions.nature_of_read(3, "a_table"), FunctionNature::Harmless);
        assert!(functions.may_commit(3, "parsed") && !functions.may_commit(3, "writes"));
        assert!(block_may_commit("begin commit; end") && !block_may_commit("begin update t set v = 1; end"));
    }
}
