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

/// Functions by name, as of one catalog epoch.
#[derive(Debug, Clone, Default)]
pub struct Functions {
    epoch: Option<u64>,
    built_in: HashSet<String>,
    others: HashMap<String, FunctionNature>,
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

const LOAD: &str = "
SELECT p.proname::pg_catalog.text, n.nspname OPERATOR(pg_catalog.=) 'pg_catalog' AND p.oid OPERATOR(pg_catalog.<) 16384 AS built_in,
       pg_catalog.bool_or(p.provolatile OPERATOR(pg_catalog.=) 'v') AS volatile,
       pg_catalog.bool_or(NOT l.lanname OPERATOR(pg_catalog.=) ANY ('{c,internal}')) AS language
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
     JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE NOT n.nspname OPERATOR(pg_catalog.=) 'information_schema' GROUP BY 1, 2";

impl Functions {
    /// Asks the database for its functions.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub async fn load(client: &Client, epoch: u64) -> Result<Self, tokio_postgres::Error> {
        let mut functions = Self { epoch: Some(epoch), ..Self::default() };
        for row in client.query(LOAD, &[]).await? {
            let (name, built_in, volatile, language): (String, bool, bool, bool) =
                (row.get(0), row.get(1), row.get(2), row.get(3));
            if built_in {
                functions.built_in.insert(name);
            } else {
                let nature = match (volatile, language) {
                    (false, _) => FunctionNature::Harmless,
                    (true, false) => FunctionNature::MayWriteOthers,
                    (true, true) => FunctionNature::MayWrite,
                };
                functions.others.insert(name, nature);
            }
        }
        Ok(functions)
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
        match self.others.get(name) {
            // a function of the user's may hide, or overload, a built-in one
            Some(nature) if self.epoch == Some(epoch) => *nature,
            Some(_) => FunctionNature::MayWrite,
            None if schema.is_none() && self.built_in.contains(name) => FunctionNature::Harmless,
            None => FunctionNature::MayWrite,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_functions_may_write() {
        let mut functions = Functions { epoch: Some(3), ..Functions::default() };
        functions.built_in.insert("lower".into());
        functions.others.insert("uuid_generate_v4".into(), FunctionNature::MayWriteOthers);
        assert_eq!(functions.nature(3, None, "lower"), FunctionNature::Harmless);
        assert_eq!(functions.nature(3, Some("app"), "lower"), FunctionNature::MayWrite);
        assert_eq!(functions.nature(3, None, "uuid_generate_v4"), FunctionNature::MayWriteOthers);
        assert_eq!(functions.nature(4, None, "uuid_generate_v4"), FunctionNature::MayWrite);
        assert_eq!(functions.nature(3, Some("pg_catalog"), "lo_unlink"), FunctionNature::MayWrite);
        assert_eq!(functions.nature(3, None, "anything"), FunctionNature::MayWrite);
    }
}
