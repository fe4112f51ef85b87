//! The table that a write really writes: the one that it names, or the one under a simple view.
use super::{Context, sql_name};
use crate::image::{ascii_name, columns_in_utf8};
use pgshadow_catalog::Table;
use pgshadow_model::RelationKind;
use pgshadow_sql::{Write, column, view_source};
use std::sync::Arc;

/// Views upon views that are looked through.
const DEPTH_MAX: usize = 8;

/// The table, and how the relation that the text names shows it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub table: Arc<Table>,
    /// For each of its columns, the view's name for it, if it shows it.
    names: Option<Vec<Option<String>>>,
    /// The role may read every column of what the text names.
    pub readable: bool,
}

impl Target {
    pub fn is_view(&self) -> bool {
        self.names.is_some()
    }

    /// Whether the text can name every column.
    pub fn shows_all(&self) -> bool {
        self.names.as_ref().is_none_or(|names| names.iter().all(Option::is_some))
    }

    /// A column's name in the text.
    pub fn shown_as(&self, position: usize) -> Option<&str> {
        match &self.names {
            Some(names) => names.get(position)?.as_deref(),
            None => self.table.relation.columns.get(position).map(|c| c.name.as_str()),
        }
    }

    /// The write with the table's own names for its columns; `named` is the relation that the text names.
    pub fn in_own_names(&self, write: &Write, named: &Table) -> Write {
        let mut own = write.clone();
        let columns = named.relation.columns.iter().map(|c| c.name.clone());
        let in_order = columns.zip(&write.fixed_in_order).filter_map(|(name, value)| Some((name, value.clone()?)));
        own.fixed.extend(in_order);
        if let Some(names) = &self.names {
            let of = |name: &String| {
                let at = names.iter().position(|n| n.as_ref() == Some(name))?;
                self.table.relation.columns.get(at).map(|c| c.name.clone())
            };
            own.assigned = write.assigned.iter().filter_map(of).collect();
            own.fixed = own.fixed.iter().filter_map(|(name, value)| Some((of(name)?, value.clone()))).collect();
        }
        own
    }
}

impl Context<'_> {
    /// The table under what a write names; the reason if that can't be told.
    pub(crate) fn target(&self, named: &Arc<Table>) -> Result<Target, &'static str> {
        self.target_at(named, DEPTH_MAX)
    }

    fn target_at(&self, named: &Arc<Table>, depth: usize) -> Result<Target, &'static str> {
        const ALL: i32 = 4 | 8 | 16;
        if named.relation.kind != RelationKind::View {
            return Ok(Target { table: Arc::clone(named), names: None, readable: named.selectable });
        }
        let complex = "it was written through a view with triggers, rules or a query that isn't simple";
        let view = named
            .view
            .as_ref()
            .filter(|v| v.plain && v.updatable & ALL == ALL && depth > 0 && !v.definition.contains("xmax"))
            .ok_or(complex)?;
        let source = view_source(&view.definition).ok_or(complex)?;
        let base = self.tables.get(&sql_name(&source.base)).and_then(Option::as_ref).ok_or(complex)?;
        let as_caller = view.options.as_ref().is_some_and(|options| options.contains("security_invoker"));
        let readable = view.owner_reads == Some(true) && (!as_caller || base.selectable && !base.row_security);
        if !readable {
            return Err("it was written through a view whose owner may not read all of it");
        }
        let below = self.target_at(base, depth - 1)?;
        let shown = |position: usize| {
            let name = below.shown_as(position)?;
            let at = source.columns.iter().position(|c| c.as_deref() == Some(name))?;
            named.relation.columns.get(at).map(|c| c.name.clone())
        };
        let names = (0..below.table.relation.columns.len()).map(shown).collect();
        Ok(Target { table: below.table, names: Some(names), readable: named.selectable })
    }

    /// Every column as an image holds it, as SQL with `{t}` for what the text names.
    pub(crate) fn image_columns(&self, target: &Target) -> Option<Vec<String>> {
        let relation = &target.table.relation;
        let names: Vec<String> =
            (0..relation.columns.len()).map(|p| column(target.shown_as(p)?)).collect::<Option<Vec<_>>>()?;
        if self.identity.client_encoding == "UTF8" {
            return Some(names);
        }
        let in_ascii = |position| format!("{{t}}.{}", ascii_name(target.shown_as(position).unwrap_or_default()));
        columns_in_utf8(relation, in_ascii)
    }

    /// The same of the columns of its key alone.
    pub(crate) fn key_columns(&self, target: &Target) -> Option<Vec<String>> {
        let relation = &target.table.relation;
        let key = || relation.key.iter().map(|position| usize::from(*position));
        if self.identity.client_encoding == "UTF8" {
            return key().map(|position| column(target.shown_as(position)?)).collect();
        }
        let in_ascii = |position| format!("{{t}}.{}", ascii_name(target.shown_as(position).unwrap_or_default()));
        let all = columns_in_utf8(relation, in_ascii)?;
        key().map(|position| all.get(position).cloned()).collect()
    }
}
