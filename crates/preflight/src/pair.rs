//! Both servers, and what every check may ask of them.
use crate::error::Error;
use crate::facts::Facts;
use crate::server::Server;
use pgshadow_model::{Place, QualifiedName};
use std::collections::BTreeSet;
use tokio_postgres::Client;

/// Schemas of the user, by `pg_namespace n`.
pub(crate) const USERS: &str = "n.nspname NOT IN ('information_schema', 'pgshadow') AND n.nspname !~ '^pg_'";

/// Not an extension's own, which comes with it; nor, of functions and casts, a range type's.
pub(crate) fn free(catalog: &str, oid: &str) -> String {
    let kinds = if matches!(catalog, "pg_proc" | "pg_cast") { "'e', 'i'" } else { "'e'" };
    format!(
        "NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass
            AND e.objid = {oid} AND e.deptype IN ({kinds}))"
    )
}

/// Both servers.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) source: Server<'a>,
    pub(crate) target: Server<'a>,
    pub(crate) facts: &'a Facts,
    /// Tables, views and the like that are on both sides.
    pub(crate) common: BTreeSet<QualifiedName>,
    /// The target has no table, though the source has some.
    pub(crate) target_is_empty: bool,
}

impl<'a> Pair<'a> {
    pub(crate) async fn new(source: &'a Client, target: &'a Client, facts: &'a Facts) -> Result<Self, Error> {
        let (source, target) = (Server::new(source, Place::Source).await?, Server::new(target, Place::Target).await?);
        let (of_source, of_target) = (relations(&source).await?, relations(&target).await?);
        let tables = |all: &[(QualifiedName, bool)]| all.iter().any(|(_, is_table)| *is_table);
        let target_is_empty = tables(&of_source) && !tables(&of_target);
        let of_target: BTreeSet<_> = of_target.into_iter().map(|(name, _)| name).collect();
        let common = of_source.into_iter().map(|(name, _)| name).filter(|name| of_target.contains(name)).collect();
        Ok(Self { source, target, facts, common, target_is_empty })
    }

    /// The source, then the target.
    pub(crate) fn both(&self) -> [&Server<'a>; 2] {
        [&self.source, &self.target]
    }

    pub(crate) fn is_excluded(&self, table: &QualifiedName) -> bool {
        self.facts.excluded.contains(table)
    }

    /// Whether a load that finds a table on the target would write it.
    pub(crate) fn is_loaded(&self, table: &QualifiedName) -> bool {
        let wanted = self.facts.tables.is_empty() || self.facts.tables.contains(table);
        wanted && self.common.contains(table) && !self.is_excluded(table)
    }

    /// Whether both write definitions the same way.
    pub(crate) fn same_major(&self) -> bool {
        self.source.version / 10_000 == self.target.version / 10_000
    }

    /// Whether a role is pgshadow's own on either side.
    pub(crate) fn is_own(&self, role: &str) -> bool {
        self.source.role == role || self.target.role == role
    }
}

/// Everything that has columns, and whether it holds rows of its own.
async fn relations(server: &Server<'_>) -> Result<Vec<(QualifiedName, bool)>, Error> {
    let sql = format!(
        "SELECT n.nspname, c.relname, c.relkind IN ('r', 'p') FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' AND {USERS} AND {}",
        free("pg_class", "c.oid")
    );
    let rows = server.rows(&sql).await?;
    let read = |row| {
        let name = QualifiedName::new(server.get::<String>(row, 0)?, server.get::<String>(row, 1)?);
        Ok((name, server.get(row, 2)?))
    };
    rows.iter().map(read).collect()
}
