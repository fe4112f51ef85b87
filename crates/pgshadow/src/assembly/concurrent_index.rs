//! Indexes that are made or dropped concurrently, where no session saw how that ended: it runs in several transactions whose ids
//! nobody knows, but what has come of it stands in the primary's catalog.
use super::primary::{Connection, Unanswered, answered};
use pgshadow_model::{Change, SessionSettings};
use pgshadow_sql::{Ddl, RelationName, SetKind, StatementKind};

/// An index that has a name, and what was to be done with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Definition {
    /// Where names without a schema are looked for, in order; of the schema that was given, that one alone.
    schemas: Vec<String>,
    /// The table that CREATE INDEX names; `None` is DROP INDEX.
    table: Option<String>,
    index: String,
}

/// A row for the first schema that has the table: whether it has the index, and a valid one.
const MADE: &str = "SELECT pg_catalog.bool_or(x.indisvalid) IS TRUE
    FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY AS path(schema, place)
    JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) path.schema
    JOIN pg_catalog.pg_class t ON t.relnamespace OPERATOR(pg_catalog.=) n.oid
        AND t.relname OPERATOR(pg_catalog.=) $2::pg_catalog.text
    LEFT JOIN pg_catalog.pg_class i ON i.relnamespace OPERATOR(pg_catalog.=) n.oid
        AND i.relname OPERATOR(pg_catalog.=) $3::pg_catalog.text
    LEFT JOIN pg_catalog.pg_index x ON x.indexrelid OPERATOR(pg_catalog.=) i.oid
        AND x.indrelid OPERATOR(pg_catalog.=) t.oid
    GROUP BY path.place ORDER BY path.place LIMIT 1";
/// Whether no schema has a relation of that name.
const DROPPED: &str = "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_class i
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) i.relnamespace
    WHERE n.nspname OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[])
        AND i.relname OPERATOR(pg_catalog.=) $2::pg_catalog.text)";

impl Definition {
    /// What an intent is about, if it is this, and the index has a name.
    pub(super) fn of(changes: &[Change]) -> Option<Definition> {
        let [Change::Ddl(statement)] = changes else { return None };
        if statement.in_transaction {
            return None;
        }
        let parsed = pgshadow_sql::parse(&statement.sql).ok()?;
        let [parsed] = parsed.statements.as_slice() else { return None };
        let StatementKind::Ddl(Ddl { tag, tables, made, others, .. }) = &parsed.kind else { return None };
        let (index, table) = match (tag.as_str(), tables.as_slice(), made, others.as_slice()) {
            ("CREATE INDEX", [table], Some(index), _) => (index, Some(table.name.clone())),
            ("DROP INDEX", _, _, [index]) => (index, None),
            _ => return None,
        };
        let RelationName { schema, name, .. } = index;
        let schemas = match schema {
            Some(schema) => vec![schema.clone()],
            None => path(&statement.settings)?,
        };
        Some(Definition { schemas, table, index: name.clone() })
    }
}

/// The schemas of a session's `search_path`; `None` if it can't be read.
fn path(settings: &SessionSettings) -> Option<Vec<String>> {
    if settings.search_path == "\"\"" {
        return Some(Vec::new());
    }
    let parsed = pgshadow_sql::parse(&format!("SET search_path = {}", settings.search_path)).ok()?;
    let [parsed] = parsed.statements.as_slice() else { return None };
    let StatementKind::Set { kind: SetKind::Value(schemas), .. } = &parsed.kind else { return None };
    let named = |schema: &String| if schema == "$user" { settings.role.clone() } else { schema.clone() };
    Some(schemas.iter().map(named).collect())
}

/// Whether the index is as the statement was to leave it, once its backend is gone; `None` if that can't be told. An index that
/// was left half built isn't there for anybody, and stays so.
pub(super) async fn is_done(client: &Connection, definition: &Definition) -> Result<Option<bool>, Unanswered> {
    let Definition { schemas, table, index } = definition;
    let row = match table {
        Some(table) => answered(client.query_opt(MADE, &[schemas, table, index])).await?,
        None => answered(client.query_opt(DROPPED, &[schemas, index])).await?,
    };
    Ok(row.map(|row| row.get(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgshadow_model::DdlStatement;

    fn definition(sql: &str, search_path: &str) -> Option<Definition> {
        let settings = SessionSettings { role: "Me".into(), search_path: search_path.into(), ..Default::default() };
        Definition::of(&[Change::Ddl(DdlStatement { sql: sql.into(), settings, in_transaction: false })])
    }

    fn expected(schemas: &[&str], table: Option<&str>, index: &str) -> Option<Definition> {
        let schemas = schemas.iter().map(|&schema| schema.to_owned()).collect();
        Some(Definition { schemas, table: table.map(str::to_owned), index: index.to_owned() })
    }

    #[test]
    fn names_are_looked_for_where_the_session_did() {
        let made = "CREATE INDEX CONCURRENTLY i ON t (a)";
        let path = "\"$user\", public, \"O\"\"dd\"";
        assert_eq!(definition(made, path), expected(&["Me", "public", "O\"dd"], Some("t"), "i"));
        assert_eq!(definition(made, "\"\""), expected(&[], Some("t"), "i"));
        let made = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"I\" ON s.t (a)";
        assert_eq!(definition(made, path), expected(&["s"], Some("t"), "I"));
        let dropped = "DROP INDEX CONCURRENTLY IF EXISTS s.i";
        assert_eq!(definition(dropped, path), expected(&["s"], None, "i"));
        assert_eq!(definition("DROP INDEX CONCURRENTLY i", "a"), expected(&["a"], None, "i"));
        for unknown in ["CREATE INDEX CONCURRENTLY ON t (a)", "ALTER TYPE y ADD VALUE 'z'"] {
            assert_eq!(definition(unknown, "public"), None, "{unknown}");
        }
    }
}
