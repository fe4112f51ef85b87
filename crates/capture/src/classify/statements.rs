//! COPY, TRUNCATE and DDL, which are repeated as statements.
use super::temporary::Whose;
use super::{Context, Rewritten};
use crate::plan::{Effect, Step};
use pgshadow_catalog::{Default, FunctionNature, Redefined, Table};
use pgshadow_model::{QualifiedName, RelationKind, Suspect, quote};
use pgshadow_sql::{CopyCommand, Ddl, RelationName, Statement};
use pgshadow_telemetry::StatementClass as Class;
use std::collections::BTreeSet;
use std::sync::Arc;

/// DDL after which functions, views and the like do what they did before; what a table calls is looked up with the table.
const WITHOUT_CODE: &[&str] = &[
    "CREATE TABLE",
    "CREATE TABLE AS",
    "ALTER TABLE",
    "DROP TABLE",
    "CREATE INDEX",
    "ALTER INDEX",
    "DROP INDEX",
    "CREATE SEQUENCE",
    "ALTER SEQUENCE",
    "DROP SEQUENCE",
    "CREATE MATERIALIZED VIEW",
    "REFRESH MATERIALIZED VIEW",
    "DROP MATERIALIZED VIEW",
    "CREATE TRIGGER",
    "DROP TRIGGER",
    "DROP POLICY",
    "CREATE STATISTICS",
    "DROP STATISTICS",
    "COMMENT",
    "GRANT",
    "REVOKE",
    "ALTER DEFAULT PRIVILEGES",
];

/// From this version on ALTER TYPE ... ADD VALUE runs in transactions, together with others.
const ADDS_VALUES_IN_BLOCKS: u32 = 120_000;

/// Whether what it makes does nothing but what its text names.
fn of_what_it_names(tag: &str) -> bool {
    matches!(tag, "CREATE VIEW" | "CREATE DOMAIN" | "CREATE TYPE" | "CREATE POLICY" | "ALTER POLICY")
}

impl Context<'_> {
    pub(crate) fn copy(&self, statement: &Statement, copy: &CopyCommand, rewrites: &mut Rewritten) -> Step {
        if !copy.from {
            let writes = !copy.query_writes.is_empty();
            return if writes {
                self.opaque(statement, Class::Copy, "it was written by COPY TO")
            } else {
                Step::none(Class::Copy)
            };
        }
        let name = copy.relation.as_ref();
        let Some(table) = name.and_then(|name| self.table(name)).map(Arc::clone) else {
            return Step { hidden_writes: true, hidden_anywhere: true, ..Step::none(Class::Copy) };
        };
        if self.not_mirrored(&table) {
            return self.beside(&table, &name.into_iter().collect::<Vec<_>>(), Class::Copy);
        }
        let reason = if copy.program_or_file || !copy.stdin_stdout {
            Some("COPY read a file on the server")
        } else if copy.where_clause || copy.options.iter().any(|(name, _)| name == "on_error" || name == "default") {
            Some("COPY stored other rows than its stream holds (WHERE, ON_ERROR, DEFAULT)")
        } else if !matches!(table.relation.kind, RelationKind::Table | RelationKind::Partitioned) || table.foreign {
            Some("COPY wrote to a view or a foreign table")
        } else if self.masked {
            Some("its COPY isn't written in UTF-8")
        } else if table.before_triggers || table.after_triggers {
            Some("COPY ran into triggers, which may store other rows than its stream holds")
        } else if table.row_security {
            Some("row-level security applies to the role that wrote it")
        } else if self.copy_computes(&table, copy) {
            Some("COPY left a column out whose default is computed")
        } else {
            None
        };
        let sql = match reason {
            None => without_freeze(&table, copy),
            Some(reason) => Err(reason),
        };
        match sql {
            Ok(sql) => {
                let text = self.text.get(statement.range.clone()).unwrap_or_default();
                let sql = sql.unwrap_or_else(|| text.to_owned());
                Step { effect: Effect::Copy { table, sql }, ..Step::none(Class::Copy) }
            }
            Err(reason) => self
                .look_back(statement, &table, reason, rewrites)
                .unwrap_or_else(|| self.opaque(statement, Class::Copy, reason)),
        }
    }

    pub(crate) fn copy_computes(&self, table: &Table, copy: &CopyCommand) -> bool {
        !copy.columns.is_empty()
            && table
                .relation
                .columns
                .iter()
                .zip(&table.defaults)
                .any(|(column, default)| *default == Default::Computed && !copy.columns.contains(&column.name))
    }

    pub(crate) fn truncate(&self, statement: &Statement, names: &[RelationName], cascade: bool) -> Step {
        let found: Vec<&Arc<Table>> = names.iter().filter_map(|n| self.table(n)).collect();
        let mirrored: Vec<&&Arc<Table>> = found.iter().filter(|t| !self.not_mirrored(t)).collect();
        if mirrored.is_empty() {
            // a name that isn't there yet may be made by a statement ahead of it; a foreign key may lead to one that is mirrored
            let unknown = found.len() < names.len() || cascade;
            return Step { hidden_writes: unknown, hidden_anywhere: unknown, ..Step::none(Class::Truncate) };
        }
        if mirrored.len() < names.len()
            || mirrored.iter().any(|t| t.foreign || t.relation.kind == RelationKind::Foreign)
        {
            let reason = "it was truncated together with a table that isn't mirrored";
            let step = self.opaque(statement, Class::Truncate, reason);
            return Step {
                hidden_writes: step.hidden_writes || cascade,
                hidden_anywhere: step.hidden_anywhere || cascade,
                ..step
            };
        }
        let tables = mirrored.iter().flat_map(|t| t.tree.iter().cloned()).collect();
        let sql = self.text.get(statement.range.clone()).unwrap_or_default().to_owned();
        Step {
            effect: Effect::Truncate { tables, sql },
            hidden_writes: mirrored.iter().any(|t| t.after_triggers || t.before_triggers),
            hidden_anywhere: mirrored.iter().any(|t| t.after_triggers || t.before_triggers),
            ..Step::none(Class::Truncate)
        }
    }

    /// What functions, views and the like do something else behind it.
    fn redefined(&self, statement: &Statement, ddl: &Ddl) -> Redefined {
        let is_table = |kind| matches!(kind, RelationKind::Table | RelationKind::Partitioned);
        let first = ddl.tables.first().filter(|_| ddl.moves).and_then(|name| self.table(name));
        // a table under another name is no view
        let moves = ddl.moves && !first.is_some_and(|table| is_table(table.relation.kind));
        match &ddl.redefines {
            _ if !moves && WITHOUT_CODE.contains(&ddl.tag.as_str()) => Redefined::Nothing,
            // what is made of what only reads only reads
            Some(_) if of_what_it_names(&ddl.tag) && self.nature_of_named(statement) == FunctionNature::Harmless => {
                Redefined::names(BTreeSet::new())
            }
            Some(names) => {
                let text = self.text.get(statement.range.clone()).unwrap_or_default();
                let function = matches!(ddl.tag.as_str(), "CREATE FUNCTION" | "CREATE PROCEDURE");
                let refused = function && self.functions.makes_refused_in_block(text);
                Redefined::Names { names: names.iter().cloned().collect(), refused }
            }
            None => Redefined::Anything,
        }
    }

    pub(crate) fn ddl(&self, statement: &Statement, ddl: &Ddl) -> Step {
        let sql = self.text.get(statement.range.clone()).unwrap_or_default().to_owned();
        let step = Step {
            changes_session: true,
            alone: !ddl.in_transaction_block_allowed,
            code: self.redefined(statement, ddl),
            ..Step::none(Class::Ddl)
        };
        if ddl.cluster_wide {
            let reason = "it changes the whole cluster (roles, databases, tablespaces)";
            return Step { effect: Effect::NotRepeated { sql: String::new(), reason }, ..step };
        }
        let (whose, sql) = match self.whose(ddl) {
            Whose::OthersDrop(others) => (Whose::Everybody, others),
            whose => (whose, sql),
        };
        if matches!(whose, Whose::Session) && ddl.opaque.is_none() {
            return Step { effect: Effect::None, ..step };
        }
        if ddl.concurrently && matches!(ddl.tag.as_str(), "CREATE INDEX" | "DROP INDEX") && !self.masked {
            return Step { effect: Effect::Beside { sql }, ..step };
        }
        let refuses_company = (1..ADDS_VALUES_IN_BLOCKS).contains(&self.identity.version);
        if ddl.tag == "ALTER TYPE ADD VALUE" && refuses_company && !self.masked {
            return Step { effect: Effect::Beside { sql }, alone: true, ..step };
        }
        if ddl.opaque.is_some() && ddl.tables.is_empty() || !ddl.in_transaction_block_allowed {
            let reason = ddl.opaque.unwrap_or("it can't run inside a transaction");
            // a subscription's text may hold a password
            let sql = if ddl.tag.ends_with("SUBSCRIPTION") { ddl.tag.clone() } else { sql };
            let hidden = ddl.in_transaction_block_allowed;
            let step = Step { hidden_writes: hidden, hidden_anywhere: hidden, ..step };
            return Step { effect: Effect::NotRepeated { sql, reason }, ..step };
        }
        let known = self.tables_of(ddl);
        let masked = self.masked.then_some("its text isn't written in UTF-8");
        let of_session = matches!(whose, Whose::OfSession).then_some("it names something temporary");
        let reason = masked.or(of_session).or(ddl.computes_values).or(ddl.opaque);
        let mut suspects = Vec::new();
        if let Some(reason) = reason {
            for (name, table) in ddl.tables.iter().zip(&known) {
                if table.map_or(ddl.temporary, |t| t.temporary) {
                    continue;
                }
                let table = table.map(|t| t.relation.name.clone()).or_else(|| self.created_name(name));
                suspects.push(Suspect { table, reason: format!("{}: {reason}", ddl.tag) });
            }
        }
        if let (true, Some(reason)) = (suspects.is_empty(), of_session) {
            return Step { effect: Effect::NotRepeated { sql, reason }, ..step };
        }
        if ddl.opaque.or(masked).or(of_session).is_some() {
            if let (true, Some(reason)) = (suspects.is_empty(), masked) {
                suspects.push(Suspect { table: None, reason: format!("{}: {reason}", ddl.tag) });
            }
            return Step { effect: Effect::Opaque(suspects), hidden_writes: true, hidden_anywhere: true, ..step };
        }
        let name = |(name, table): (&RelationName, &Option<&Arc<Table>>)| match table {
            Some(table) => Some(table.relation.name.clone()),
            None => self.created_name(name),
        };
        let mut tables: Vec<Option<QualifiedName>> = ddl.tables.iter().zip(&known).map(name).collect();
        // SET SCHEMA's second name is in the first one's schema if none is given
        if let (true, [Some(old), Some(new), ..]) = (ddl.moves, tables.as_mut_slice())
            && ddl.tables.get(1).is_some_and(|n| n.schema.is_none())
        {
            new.schema.clone_from(&old.schema);
        }
        if tables.is_empty() {
            tables.push(None);
        }
        let watched = self.functions.has_event_triggers();
        let effect = Effect::Ddl { sql, suspects, tables, moves: ddl.moves };
        Step { effect, hidden_writes: watched, ..step }
    }
}

/// The COPY to repeat where the client's says FREEZE: on the shadow the table was not made or emptied in the same
/// subtransaction, which FREEZE asks for. `None`: the client's own text.
pub(crate) fn without_freeze(table: &Table, copy: &CopyCommand) -> Result<Option<String>, &'static str> {
    const PLAIN: &[&str] = &["format", "delimiter", "null", "header", "quote", "escape", "encoding"];
    if !copy.options.iter().any(|(name, _)| name == "freeze") {
        return Ok(None);
    }
    let mut options = Vec::new();
    for (name, value) in copy.options.iter().filter(|(name, _)| name != "freeze") {
        if !PLAIN.contains(&name.as_str()) {
            return Err("COPY with FREEZE and further options isn't repeated");
        }
        let value = value.as_ref().map(|v| format!(" '{}'", v.replace('\'', "''"))).unwrap_or_default();
        options.push(format!("{name}{value}"));
    }
    let columns: Vec<String> = copy.columns.iter().map(|column| quote(column)).collect();
    let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
    let options = if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
    Ok(Some(format!("COPY {}{columns} FROM STDIN{options}", table.relation.name.sql())))
}
