//! Definitions of what only this session has: a temporary table, its indexes, a view of it, a temporary sequence, type or function.
//! On the shadow their names may be those of others.
use super::Context;
use pgshadow_catalog::Table;
use pgshadow_sql::{Ddl, ObjectKind, RelationName};
use std::sync::Arc;

/// Whose definition it is.
pub(super) enum Whose {
    /// Everybody's.
    Everybody,
    /// This session's.
    Session,
    /// It drops some of either kind: the statement for the others.
    OthersDrop(String),
    /// Everybody's, of what only this session has.
    OfSession,
}

impl Context<'_> {
    /// The tables that it names; what it makes isn't one that is there already, of the same name but temporary.
    pub(super) fn tables_of(&self, ddl: &Ddl) -> Vec<Option<&Arc<Table>>> {
        let makes = ddl.tag.starts_with("CREATE");
        let is_made = |name: &RelationName| makes && ddl.made.as_ref() == Some(name);
        ddl.tables.iter().map(|name| self.table(name).filter(|table| !(is_made(name) && table.temporary))).collect()
    }

    pub(super) fn whose(&self, ddl: &Ddl) -> Whose {
        let is_temporary = |name: &RelationName| self.table(name).is_some_and(|table| table.temporary);
        let reads_temporary = ddl.reads.iter().any(is_temporary);
        if ddl.temporary || reads_temporary || self.makes_temporary(ddl) {
            return Whose::Session;
        }
        if ddl.kind != ObjectKind::Other {
            let own = |name: &&RelationName| self.has_object(ddl.kind, name);
            return match ddl.objects.iter().filter(own).count() {
                0 => Whose::Everybody,
                // a type may be behind another of its name
                all if all == ddl.objects.len() && !(ddl.kind == ObjectKind::Type && self.names_temporary_late()) => {
                    Whose::Session
                }
                _ => Whose::OfSession,
            };
        }
        let known = self.tables_of(ddl);
        // the new name is nobody's yet
        let known = if ddl.moves { known.get(..1).unwrap_or_default() } else { known.as_slice() };
        let others = ddl.others.iter().map(|name| self.table(name));
        let (own, theirs): (Vec<_>, Vec<_>) =
            known.iter().copied().chain(others).partition(|table| table.is_some_and(|table| table.temporary));
        let altered = || ddl.tag.starts_with("ALTER") && ddl.tables.first().is_some_and(is_temporary);
        match (own.as_slice(), theirs.as_slice()) {
            ([], _) => Whose::Everybody,
            (_, []) => Whose::Session,
            _ if altered() => Whose::Session,
            _ if ddl.tag.starts_with("DROP ") => {
                let there: Vec<String> = theirs.iter().flatten().map(|table| table.relation.name.sql()).collect();
                let cascade = if ddl.cascade { " CASCADE" } else { "" };
                if there.is_empty() {
                    return Whose::Session;
                }
                Whose::OthersDrop(format!("{} {}{cascade}", ddl.tag, there.join(", ")))
            }
            _ => Whose::OfSession,
        }
    }

    /// Whether what it makes is temporary by the place where unqualified names are made.
    fn makes_temporary(&self, ddl: &Ddl) -> bool {
        let made = ddl.made.as_ref().or_else(|| ddl.objects.first());
        let unqualified = made.is_some_and(|made| made.schema.is_none());
        unqualified
            && ddl.tag.starts_with("CREATE")
            && !matches!(ddl.tag.as_str(), "CREATE INDEX" | "CREATE STATISTICS")
            && self.path().next() == Some("pg_temp")
    }

    /// Whether this type is temporary, or these statistics are of a temporary table.
    fn has_object(&self, kind: ObjectKind, named: &RelationName) -> bool {
        let own = self.identity;
        named.is_temporary()
            || match kind {
                ObjectKind::Other => false,
                ObjectKind::Type => named.schema.is_none() && own.temporary_types.contains(&named.name),
                ObjectKind::Statistics => own.temporary_statistics.iter().any(|(schema, name, visible)| {
                    *name == named.name && named.schema.as_ref().map_or(*visible, |given| given == schema)
                }),
            }
    }

    /// Whether the path has the temporary schema behind others.
    fn names_temporary_late(&self) -> bool {
        self.path().skip(1).any(|schema| schema == "pg_temp")
    }

    fn path(&self) -> impl Iterator<Item = &str> {
        self.identity.search_path.split(',').map(|schema| schema.trim().trim_matches('"'))
    }
}
