//! Functions that run what is refused in a transaction block. It is refused in every function, but what the refusal says depends
//! on whether there is a block: nothing may make one of the statement that calls them.
use super::source::{all_words, sequence};
use super::{Function, FunctionNature, Functions};
use std::collections::BTreeSet;

/// Whether the source runs, by texts too, what is refused in a transaction block.
pub(super) fn refused_in_block(source: &str) -> bool {
    const TOGETHER: &[(&str, &str)] = &[
        ("create", "subscription"),
        ("alter", "subscription"),
        ("drop", "subscription"),
        ("create", "database"),
        ("drop", "database"),
        ("create", "tablespace"),
        ("drop", "tablespace"),
        ("alter", "system"),
        ("discard", "all"),
        ("reindex", "schema"),
        ("reindex", "database"),
        ("reindex", "system"),
    ];
    let words = sequence(source);
    let mut pairs = words.iter().zip(words.iter().skip(1)).map(|(first, second)| (first.as_str(), second.as_str()));
    // REFRESH MATERIALIZED VIEW CONCURRENTLY runs anywhere
    let refused = |pair| TOGETHER.contains(&pair) || matches!(pair, (before, "concurrently") if before != "view");
    words.iter().any(|word| word == "vacuum") || pairs.any(refused)
}

impl Functions {
    /// Whether a function is one of those.
    #[must_use]
    pub fn is_refused_in_block(&self, name: &str) -> bool {
        self.others.get(name).is_some_and(|f| f.refused)
    }

    /// Whether a CREATE FUNCTION makes one.
    #[must_use]
    pub fn makes_refused_in_block(&self, statement: &str) -> bool {
        // the body is a literal of the statement: words in it count
        let words = all_words(statement);
        refused_in_block(&format!("execute {statement}")) || words.iter().any(|word| self.is_refused_in_block(word))
    }

    /// These names stand for such functions from this state of definitions on; they needn't be loaded yet.
    pub(crate) fn note_refused(&mut self, names: &BTreeSet<String>, definitions: u64) {
        let unknown = Function { nature: Some(FunctionNature::MayWrite), ..Function::default() };
        for name in names {
            self.refused.insert(name.clone(), definitions);
            self.others.entry(name.clone()).or_insert_with(|| unknown.clone()).refused = true;
        }
        self.follow_calls();
    }

    /// Takes over what the others knew of definitions that these were loaded ahead of.
    pub(crate) fn note_refused_since(&mut self, others: &Self) {
        let later = |state: u64| self.definitions.is_none_or(|own| own < state);
        let since: Vec<_> = others.refused.iter().filter(|(_, state)| later(**state)).collect();
        for (name, state) in since {
            self.note_refused(&BTreeSet::from([name.clone()]), *state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_block_refuses() {
        for source in [
            "begin update t set v = 1; vacuum t; end",
            "execute format('CREATE DATABASE %I', name)",
            "alter subscription s refresh publication",
            "begin execute 'create index ' || 'concurrently on t (v)'; end",
        ] {
            assert!(refused_in_block(source), "{source}");
        }
        for source in [
            "insert into subscription select database from system; -- vacuum",
            "raise notice 'vacuum it'; create table database (v int)",
            "create index on t (v); reindex table t; refresh materialized view concurrently m",
        ] {
            assert!(!refused_in_block(source), "{source}");
        }
    }

    #[test]
    fn what_is_made_is_known_by_its_text_until_it_is_loaded() {
        let mut known = Functions::of(3, &["calls"]);
        known.note_refused(&BTreeSet::from(["cleans".to_owned()]), 4);
        assert!(known.is_refused_in_block("cleans") && !known.is_refused_in_block("calls"));
        assert!(known.makes_refused_in_block("create function f() returns int as 'select cleans()' language sql"));
        assert!(!known.makes_refused_in_block("create function f() returns int as 'select calls()' language sql"));
        let loaded_at = |state| {
            let mut loaded = Functions::of(state, &["calls"]);
            loaded.note_refused_since(&known);
            loaded.is_refused_in_block("cleans")
        };
        assert!(loaded_at(3) && !loaded_at(4));
    }
}
