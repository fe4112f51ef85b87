//! Which tables a statement may change or look at, by its text.

use pgshadow_divergence::LapseOf;
use pgshadow_model::{DdlStatement, QualifiedName};
use pgshadow_sql::{Ddl, Statement, StatementKind, parse};

/// Definitions that reach nothing but the tables that they name and those that stand to them in a foreign key or an inheritance.
const OF_TABLES: [&str; 9] = [
    "CREATE TABLE",
    "ALTER TABLE",
    "DROP TABLE",
    "CREATE INDEX",
    "CREATE POLICY",
    "ALTER POLICY",
    "CREATE STATISTICS",
    "COMMENT",
    "GRANT",
];

/// Tables by their names without the schema, since that depends on the session's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Not known: any.
    Everything,
    /// These, and their relatives.
    Tables(Vec<String>),
}

/// What the statements of a text are called; the text itself may be long, and hold secrets.
pub(crate) fn tags(sql: &str) -> String {
    let statements = parse(sql).map(|parsed| parsed.statements).unwrap_or_default();
    let tag = |statement: &Statement| match &statement.kind {
        StatementKind::Ddl(ddl) => {
            let named: Vec<&str> = ddl.tables.iter().map(|table| table.name.as_str()).collect();
            format!("{} {}", ddl.tag, named.join(", ")).trim_end().to_owned()
        }
        _ => "a statement".to_owned(),
    };
    statements.iter().map(tag).collect::<Vec<_>>().join("; ")
}

impl Reach {
    pub(crate) fn of(sql: &str) -> Self {
        let Ok(parsed) = parse(sql) else { return Self::Everything };
        let mut tables = Vec::new();
        for statement in &parsed.statements {
            match of_statement(statement) {
                Some(named) => tables.extend(named),
                None => return Self::Everything,
            }
        }
        Self::Tables(tables)
    }

    /// Whose certificates lapse by it.
    pub(crate) fn lapses(self) -> Vec<LapseOf> {
        match self {
            Self::Everything => vec![LapseOf::Every],
            Self::Tables(names) => names.into_iter().map(LapseOf::Named).collect(),
        }
    }

    /// TRUNCATE, which the journal names tables of besides: partitions too.
    pub(crate) fn truncated(self, named: &[QualifiedName]) -> Self {
        match self {
            Self::Everything => Self::Everything,
            Self::Tables(mut tables) => {
                tables.extend(named.iter().map(|table| table.name.clone()));
                Self::Tables(tables)
            }
        }
    }

    /// The tables of an index that is built or dropped concurrently; `None`: it is another statement.
    pub(crate) fn beside(ddl: &DdlStatement) -> Option<Self> {
        if ddl.in_transaction {
            return None;
        }
        let parsed = parse(&ddl.sql).ok()?;
        let [Statement { kind: StatementKind::Ddl(ddl), .. }] = parsed.statements.as_slice() else { return None };
        match ddl.tag.as_str() {
            "CREATE INDEX" if ddl.concurrently => Some(Self::Tables(names(ddl))),
            "DROP INDEX" if ddl.concurrently => Some(Self::Everything),
            _ => None,
        }
    }
}

fn of_statement(statement: &Statement) -> Option<Vec<String>> {
    let ddl = match &statement.kind {
        StatementKind::Truncate { tables, .. } => return Some(tables.iter().map(|t| t.name.clone()).collect()),
        StatementKind::Ddl(ddl) => ddl,
        _ => return None,
    };
    let of_tables = OF_TABLES.contains(&ddl.tag.as_str()) && !ddl.tables.is_empty();
    let more = ddl.cascade || ddl.cluster_wide || ddl.computes_values.is_some() || ddl.opaque.is_some();
    // What a function looks at while the rows are checked isn't known. A new table has none.
    let calls = !statement.functions.is_empty() && ddl.tag != "CREATE TABLE";
    (of_tables && !more && !calls).then(|| names(ddl))
}

fn names(ddl: &Ddl) -> Vec<String> {
    ddl.tables.iter().map(|t| t.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_reaches_the_tables_that_it_names_or_everything() {
        let tables = |sql: &str| match Reach::of(sql) {
            Reach::Everything => "everything".to_owned(),
            Reach::Tables(mut names) => {
                names.sort();
                names.dedup();
                names.join(" ")
            }
        };
        for (sql, expected) in [
            ("ALTER TABLE a ADD COLUMN c int", "a"),
            ("ALTER TABLE s.a ADD FOREIGN KEY (x) REFERENCES b", "a b"),
            ("ALTER TABLE a RENAME TO b", "a b"),
            ("ALTER TABLE a ATTACH PARTITION b FOR VALUES IN (1)", "a b"),
            ("CREATE TABLE a (id int PRIMARY KEY DEFAULT f(), b int REFERENCES c)", "a c"),
            ("CREATE TABLE a PARTITION OF b FOR VALUES IN (1)", "a b"),
            ("CREATE INDEX ON a (c)", "a"),
            ("DROP TABLE a, b", "a b"),
            ("TRUNCATE a, s.b CASCADE", "a b"),
            ("COMMENT ON COLUMN a.c IS 'x'", "everything"),
            ("COMMENT ON TABLE a IS 'x'", "a"),
            ("DROP TABLE a CASCADE", "everything"),
            ("DROP INDEX i", "everything"),
            ("ALTER INDEX i RENAME TO j", "everything"),
            ("ALTER TABLE a ADD CHECK (f(c))", "everything"),
            ("ALTER TABLE a ADD COLUMN c int DEFAULT f()", "everything"),
            ("CREATE TYPE t AS ENUM ('a')", "everything"),
            ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "everything"),
            ("GRANT SELECT ON ALL TABLES IN SCHEMA s TO r", "everything"),
            ("ALTER TABLE a ADD COLUMN c int; DROP INDEX i", "everything"),
            ("no statement", "everything"),
        ] {
            let found = tables(sql);
            // a comment's or a column's table may be known or not
            assert!(found == expected || (sql.starts_with("COMMENT") && found == "a"), "{sql}: {found}");
        }
    }

    #[test]
    fn only_indexes_go_beside() {
        let ddl = |sql: &str| DdlStatement { sql: sql.into(), settings: Default::default(), in_transaction: false };
        let beside = |sql| Reach::beside(&ddl(sql));
        assert_eq!(beside("CREATE UNIQUE INDEX CONCURRENTLY i ON s.a (c)"), Some(Reach::Tables(vec!["a".into()])));
        assert_eq!(beside("DROP INDEX CONCURRENTLY i"), Some(Reach::Everything));
        assert_eq!(beside("ALTER TABLE a DETACH PARTITION b CONCURRENTLY"), None);
        let inside = DdlStatement { in_transaction: true, ..ddl("CREATE INDEX i ON a (c)") };
        assert_eq!(Reach::beside(&inside), None);
    }

    #[test]
    fn what_is_told_of_definitions_holds_no_secret() {
        for (sql, told) in [
            ("CREATE USER MAPPING FOR u SERVER s OPTIONS (password 'secret')", "CREATE USER MAPPING"),
            ("ALTER TABLE a ADD COLUMN s text DEFAULT 'secret'; DROP TABLE b, c", "ALTER TABLE a; DROP TABLE b, c"),
        ] {
            assert_eq!(tags(sql), told);
        }
    }
}
