//! A table as the shadow's catalog has it: what decides how its rows are written there.

use crate::Error;
use pgshadow_compare::ShadowColumn;
use pgshadow_model::{QualifiedName, Relation};
use std::collections::HashMap;
use tokio_postgres::Client;

/// A column of the shadow's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableColumn {
    pub(crate) shape: ShadowColumn,
    pub(crate) identity_always: bool,
    /// Schema of the type's equality operator.
    pub(crate) equality_schema: String,
}

/// A table of the shadow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ShadowTable {
    pub(crate) columns: HashMap<String, TableColumn>,
    /// Its rows live in partitions.
    pub(crate) partitioned: bool,
    /// Has user triggers that fire in an ordinary session.
    pub(crate) origin_triggers: bool,
    /// Has user triggers that fire even in replica role.
    pub(crate) replica_triggers: bool,
    /// Tables that a cascade from this one reaches, and whether user triggers fire there.
    pub(crate) cascades: Vec<(QualifiedName, bool)>,
}

impl ShadowTable {
    pub(crate) async fn read(client: &Client, name: &QualifiedName) -> Result<Option<Self>, Error> {
        let rows = client.query(COLUMNS, &[&name.schema, &name.name]).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let (oid, partitioned): (i64, bool) = (first.try_get(0)?, first.try_get(8)?);
        let mut columns = HashMap::new();
        for row in &rows {
            let Some(column) = row.try_get::<_, Option<String>>(1)? else { continue };
            let type_name = QualifiedName::new(row.try_get::<_, String>(2)?, row.try_get::<_, String>(3)?);
            let shape = ShadowColumn { type_name, typmod: row.try_get(4)?, generated: row.try_get(5)? };
            let of_table = TableColumn { shape, identity_always: row.try_get(6)?, equality_schema: row.try_get(7)? };
            columns.insert(column, of_table);
        }
        let triggers = client.query_one(TRIGGERS, &[&oid]).await?;
        let mut cascades = Vec::new();
        for row in client.query(CASCADES, &[&oid]).await? {
            let child = QualifiedName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
            cascades.push((child, row.try_get(2)?));
        }
        let (origin_triggers, replica_triggers) = (triggers.try_get(0)?, triggers.try_get(1)?);
        Ok(Some(Self { columns, partitioned, origin_triggers, replica_triggers, cascades }))
    }

    /// Columns of the image that the shadow lacks.
    pub(crate) fn missing(&self, relation: &Relation) -> Vec<String> {
        let names = relation.columns.iter().map(|c| &c.name);
        names.filter(|n| !self.columns.contains_key(*n)).cloned().collect()
    }

    /// The shadow's columns by the positions of the image.
    pub(crate) fn by_position(&self, relation: &Relation) -> Vec<Option<ShadowColumn>> {
        relation.columns.iter().map(|c| self.columns.get(&c.name).map(|c| c.shape.clone())).collect()
    }
}

/// An unqualified name falls to `before_12` where the catalog has no such column yet.
const COLUMNS: &str = "
SELECT known.* FROM (SELECT ''::\"char\" AS attgenerated) AS before_12 CROSS JOIN LATERAL (
SELECT c.oid::int8, a.attname::text, tn.nspname::text, t.typname::text, a.atttypmod, attgenerated <> '' AS generated,
       a.attidentity = 'a' AS always, coalesce(eq.nspname::text, 'pg_catalog') AS equality,
       c.relkind = 'p' AS partitioned
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
LEFT JOIN LATERAL (
    SELECT opn.nspname
    FROM pg_catalog.pg_opclass oc
    JOIN pg_catalog.pg_amop am ON am.amopfamily = oc.opcfamily AND am.amoplefttype = oc.opcintype
         AND am.amoprighttype = oc.opcintype AND am.amopstrategy = 3
    JOIN pg_catalog.pg_operator o ON o.oid = am.amopopr
    JOIN pg_catalog.pg_namespace opn ON opn.oid = o.oprnamespace
    WHERE oc.opcmethod = 403 AND oc.opcdefault
      AND oc.opcintype = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
    LIMIT 1) eq ON true
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
ORDER BY a.attnum) AS known";

const TRIGGERS: &str = "
WITH RECURSIVE tree(relid) AS (
    SELECT $1::int8::oid
  UNION
    SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = relid
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition)
SELECT coalesce(bool_or(tgenabled IN ('O', 'A')), false), coalesce(bool_or(tgenabled IN ('R', 'A')), false)
FROM pg_catalog.pg_trigger JOIN tree ON tgrelid = relid WHERE NOT tgisinternal";

const CASCADES: &str = "
WITH RECURSIVE reached(oid) AS (
    SELECT conrelid FROM pg_catalog.pg_constraint
    WHERE contype = 'f' AND confrelid = $1::int8::oid
      AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
  UNION
    SELECT con.conrelid FROM reached r JOIN pg_catalog.pg_constraint con ON con.confrelid = r.oid
    WHERE con.contype = 'f' AND (con.confdeltype IN ('c', 'n', 'd') OR con.confupdtype IN ('c', 'n', 'd')))
SELECT n.nspname::text, c.relname::text,
       EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t
               WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A'))
FROM reached r JOIN pg_catalog.pg_class c ON c.oid = r.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";
