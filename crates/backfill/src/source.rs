//! The tables to load, as a snapshot of the primary shows them.

use crate::Error;
use crate::archive::Belongings;
use pgshadow_model::{QualifiedName, quote};
use pgshadow_verify::Pool;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Row;

/// Every table that holds rows, or whose partitions do, but for the system's and pgshadow's own. `binary`: whether what COPY writes in
/// binary means the same to another database: no OID is in it.
const TABLES: &str = "
WITH RECURSIVE known AS (SELECT ''::\"char\" AS attgenerated), shape AS (
    SELECT t.oid AS of, t.oid, t.typtype, t.typelem, t.typbasetype, t.typlen, t.typsend::oid <> 0 AND t.typreceive::oid <> 0 AS io, 0 AS deep
    FROM pg_catalog.pg_type t
  UNION ALL
    SELECT s.of, t.oid, t.typtype, t.typelem, t.typbasetype, t.typlen, t.typsend::oid <> 0 AND t.typreceive::oid <> 0, s.deep + 1
    FROM shape s JOIN pg_catalog.pg_type t ON t.oid = s.typbasetype WHERE s.typtype = 'd'),
base AS (SELECT s.* FROM shape s WHERE s.typtype <> 'd'),
plain AS (SELECT b.of, b.io AND CASE
      WHEN b.oid IN (24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191) THEN false
      WHEN b.typtype = 'e' THEN true
      WHEN b.typtype = 'r' THEN (SELECT r.rngsubtype < 16384 FROM pg_catalog.pg_range r WHERE r.rngtypid = b.oid)
      WHEN b.typtype <> 'b' OR b.oid >= 16384 THEN false
      WHEN b.typelem <> 0 AND b.typlen = -1 THEN b.typelem < 16384
        AND b.typelem NOT IN (24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191)
      ELSE true END AS binary FROM base b)
SELECT n.nspname::text, c.relname::text, c.oid, c.relfilenode, coalesce(pg_catalog.pg_relation_size(c.oid), 0),
  c.relkind = 'p' AS partitioned,
  ARRAY(SELECT a.attname::text FROM known k CROSS JOIN LATERAL (SELECT a.attname, attgenerated AS g, a.attnum
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS a WHERE a.g = '' ORDER BY a.attnum),
  NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN plain p ON p.of = a.atttypid
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT coalesce(p.binary, false)) AS binary,
  ARRAY(SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid),
  ARRAY(SELECT f.confrelid FROM pg_catalog.pg_constraint f WHERE f.conrelid = c.oid AND f.contype = 'f'
    AND (f.confdeltype IN ('c', 'n', 'd') OR f.confupdtype IN ('c', 'n', 'd')) ORDER BY 1),
  ARRAY(SELECT a.attnum FROM known k CROSS JOIN LATERAL (SELECT a.attnum, attgenerated AS g
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS a WHERE a.g = '' ORDER BY a.attnum)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('information_schema', 'pgshadow') AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    AND d.objid = c.oid AND d.deptype = 'e')";

/// Names of all that are there now, not only in the snapshot.
pub(crate) const NAMES: &str = "
SELECT n.nspname::text, c.relname::text, c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('information_schema', 'pgshadow') AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    AND d.objid = c.oid AND d.deptype = 'e')";

const INDEXES: &str = "
SELECT i.indexrelid, n.nspname::text || ' ' || c.relname::text
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE i.indrelid = ANY ($1)";
/// Keys; and foreign keys within the unit, by which cascades go on.
const CONSTRAINTS: &str = "SELECT c.oid FROM pg_catalog.pg_constraint c WHERE c.conrelid = ANY ($1)
    AND (c.contype IN ('p', 'u', 'x') OR (c.contype = 'f' AND c.confrelid = ANY ($1)))";

/// A table of the primary.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: QualifiedName,
    pub(crate) oid: u32,
    /// As the snapshot shows it: another one once the table was truncated or rewritten. A partitioned table has none.
    pub(crate) file: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// Its rows are those of its partitions.
    pub(crate) partitioned: bool,
    /// Those that aren't computed.
    pub(crate) columns: Vec<String>,
    /// Their `attnum`: a name may become another column's.
    pub(crate) numbers: Vec<i16>,
    /// What COPY writes in binary can be read by the shadow.
    pub(crate) binary: bool,
    /// Tables that it is a part of, or inherits from.
    parents: Vec<u32>,
    /// Tables from which a change goes on to it.
    cascades_from: Vec<u32>,
}

impl Table {
    #[cfg(test)]
    pub(crate) fn bare(name: QualifiedName, size: u64) -> Self {
        Self {
            name,
            oid: 1,
            file: 1,
            size,
            partitioned: false,
            columns: Vec::new(),
            numbers: Vec::new(),
            binary: true,
            parents: Vec::new(),
            cascades_from: Vec::new(),
        }
    }

    pub(crate) fn column_list(&self) -> String {
        self.columns.iter().map(|column| quote(column)).collect::<Vec<_>>().join(", ")
    }
}

/// Tables that are loaded, and let go, together: one that stands alone, or those that are tied by inheritance or cascades.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) tables: Vec<Table>,
    /// Rows of one may reach others.
    pub(crate) tied: bool,
}

impl Unit {
    pub(crate) fn names(&self) -> Vec<QualifiedName> {
        self.tables.iter().map(|table| table.name.clone()).collect()
    }

    pub(crate) fn size(&self) -> u64 {
        self.tables.iter().map(|table| table.size).sum()
    }

    /// What of an archive belongs to it.
    pub(crate) async fn belongings(&self, primary: &Pool) -> Result<Belongings, Error> {
        let oids: Vec<u32> = self.tables.iter().map(|table| table.oid).collect();
        let mut all = Belongings::default();
        for row in primary.ask(INDEXES, &[&oids]).await? {
            all.indexes.insert(row.try_get(0).map_err(Error::primary)?);
            all.index_names.push(row.try_get(1).map_err(Error::primary)?);
        }
        for row in primary.ask(CONSTRAINTS, &[&oids]).await? {
            all.constraints.insert(row.try_get(0).map_err(Error::primary)?);
        }
        Ok(all)
    }
}

/// Reads them in the snapshot.
pub(crate) async fn tables(primary: &Pool) -> Result<BTreeMap<u32, Table>, Error> {
    let read = |row: &Row| -> Result<Table, tokio_postgres::Error> {
        let name = QualifiedName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
        Ok(Table {
            name,
            oid: row.try_get(2)?,
            file: row.try_get(3)?,
            size: u64::try_from(row.try_get::<_, i64>(4)?).unwrap_or(0),
            partitioned: row.try_get(5)?,
            columns: row.try_get(6)?,
            binary: row.try_get(7)?,
            parents: row.try_get(8)?,
            cascades_from: row.try_get(9)?,
            numbers: row.try_get(10)?,
        })
    };
    let rows = primary.ask(TABLES, &[]).await?;
    rows.iter().map(|row| read(row).map(|table| (table.oid, table)).map_err(Error::primary)).collect()
}

/// The wanted ones by units, the largest first. One that is tied to a wanted one is wanted too: by inheritance, or by cascades, since what a cascade writes
/// has no image, and comes about on the shadow only where the row is written that it comes from, which is passed over while its table awaits its load.
pub(crate) fn units(tables: &BTreeMap<u32, Table>, wanted: &BTreeSet<u32>) -> Vec<Unit> {
    let mut group: BTreeMap<u32, u32> = tables.keys().map(|oid| (*oid, *oid)).collect();
    let mut tied = BTreeSet::new();
    loop {
        let mut changed = false;
        for table in tables.values() {
            for other in table.parents.iter().chain(&table.cascades_from) {
                let (Some(one), Some(two)) = (group.get(&table.oid).copied(), group.get(other).copied()) else {
                    continue;
                };
                tied.extend([table.oid, *other]);
                if one != two {
                    let low = one.min(two);
                    group.values_mut().filter(|of| **of == one || **of == two).for_each(|of| *of = low);
                    changed = true;
                }
            }
        }
        if !changed {
            break;
        }
    }
    let mut units: BTreeMap<u32, Unit> = BTreeMap::new();
    for table in tables.values() {
        let Some(of) = group.get(&table.oid) else { continue };
        let unit = units.entry(*of).or_insert_with(|| Unit { tables: Vec::new(), tied: false });
        unit.tied |= tied.contains(&table.oid);
        unit.tables.push(table.clone());
    }
    let is_wanted = |unit: &Unit| unit.tables.iter().any(|table| wanted.contains(&table.oid));
    let mut units: Vec<Unit> = units.into_values().filter(is_wanted).collect();
    units.sort_by_key(|unit| std::cmp::Reverse(unit.size()));
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(oid: u32, size: u64, parents: &[u32], cascades_from: &[u32]) -> Table {
        let bare = Table::bare(QualifiedName::new("public", format!("t{oid}")), size);
        Table { oid, parents: parents.to_vec(), cascades_from: cascades_from.to_vec(), ..bare }
    }

    #[test]
    fn what_is_tied_goes_together() {
        let all = [
            table(1, 1, &[], &[]),
            table(2, 5, &[1], &[]),
            table(3, 7, &[1], &[]),
            table(4, 9, &[], &[3]),
            table(5, 8, &[], &[]),
        ];
        let all: BTreeMap<u32, Table> = all.into_iter().map(|table| (table.oid, table)).collect();
        let shape = |wanted: &[u32]| -> Vec<(Vec<u32>, bool)> {
            let units = units(&all, &wanted.iter().copied().collect());
            units.iter().map(|unit| (unit.tables.iter().map(|table| table.oid).collect(), unit.tied)).collect()
        };
        assert_eq!(shape(&[1, 2, 3, 4, 5]), [(vec![1, 2, 3, 4], true), (vec![5], false)]);
        assert_eq!(shape(&[2]), [(vec![1, 2, 3, 4], true)]);
        assert_eq!(shape(&[5]), [(vec![5], false)]);
    }
}
