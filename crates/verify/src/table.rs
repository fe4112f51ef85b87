//! The tables of a database, as a snapshot shows them.

use crate::Error;
use crate::pool::Pool;
use pgshadow_model::QualifiedName;
use std::collections::{BTreeMap, BTreeSet};

/// Every table that holds rows, but for the system's and pgshadow's own.
///
/// The key: the primary key, else the first unique index that can stand for one, as capture and the applier take it (by it a row is mended).
/// Sizes: bytes at present, not as the snapshot shows them; of a table that somebody has for himself, as it was vacuumed last, since asking would
/// wait for him, and of one that was dropped since, none. Before 11 there is no `indnkeyatts` and no `conparentid`.
///
/// Foreign keys, since what follows them isn't repeated: actions that change rows, and TRUNCATE ... CASCADE; one with an action that is disabled or not
/// enforced does nothing. Those that stand for one partition of the table that is referred to aren't told. Their text is made here: the server's own looks
/// at what is there at present. With each the columns that its action gives other values, by number.
const TABLES: &str = "
SELECT n.nspname, c.relname, c.oid, c.relfilenode, CASE WHEN c.oid = ANY (ARRAY(SELECT l.relation FROM pg_catalog.pg_locks l
      WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'))
    THEN ARRAY[c.relpages::int8 * 8192, coalesce((SELECT o.relpages::int8 * 8192 FROM pg_catalog.pg_class o WHERE o.oid = c.reltoastrelid), 0)]
    ELSE ARRAY[coalesce(pg_catalog.pg_relation_size(c.oid), 0), coalesce(pg_catalog.pg_relation_size(nullif(c.reltoastrelid, 0)), 0)] END,
  ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  ARRAY(SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  ARRAY(SELECT coalesce(nullif(t.typbasetype, 0), t.oid) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  ARRAY(SELECT a.attname::text FROM (SELECT i.indrelid, i.indkey,
      coalesce((pg_catalog.to_jsonb(i) ->> 'indnkeyatts')::int4, i.indnatts) AS keys FROM pg_catalog.pg_index i
      WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
          AND NOT a.attnotnull)
      ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1) AS i
    CROSS JOIN LATERAL pg_catalog.generate_series(0, i.keys - 1) AS place
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[place] ORDER BY place),
  ARRAY(SELECT a.attnum FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  ARRAY(SELECT pg_catalog.format('FOREIGN KEY (%s) REFERENCES %s.%s(%s)%s%s%s%s%s',
      (SELECT pg_catalog.string_agg(a.attname, ', ' ORDER BY k.n) FROM pg_catalog.unnest(f.conkey) WITH ORDINALITY AS k (num, n)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.num), rn.nspname, r.relname,
      (SELECT pg_catalog.string_agg(a.attname, ', ' ORDER BY k.n) FROM pg_catalog.unnest(f.confkey) WITH ORDINALITY AS k (num, n)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.num),
      CASE f.confmatchtype WHEN 'f' THEN ' MATCH FULL' ELSE '' END,
      CASE f.confupdtype WHEN 'c' THEN ' ON UPDATE CASCADE' WHEN 'n' THEN ' ON UPDATE SET NULL' WHEN 'd' THEN ' ON UPDATE SET DEFAULT' ELSE '' END,
      CASE f.confdeltype WHEN 'c' THEN ' ON DELETE CASCADE' WHEN 'n' THEN ' ON DELETE SET NULL' WHEN 'd' THEN ' ON DELETE SET DEFAULT' ELSE '' END,
      (SELECT ' (' || pg_catalog.string_agg(a.attname, ', ' ORDER BY a.attname) || ')' FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = f.conrelid AND pg_catalog.to_jsonb(f) -> 'confdelsetcols' @> pg_catalog.to_jsonb(a.attnum)),
      CASE WHEN f.condeferrable THEN ' DEFERRABLE' || CASE WHEN f.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END ELSE '' END)
      || ';' || CASE WHEN f.confupdtype IN ('c', 'n', 'd') THEN pg_catalog.array_to_string(f.conkey, ' ')
        WHEN f.confdeltype IN ('n', 'd') THEN coalesce((SELECT pg_catalog.string_agg(d.num, ' ') FROM
            pg_catalog.jsonb_array_elements_text(nullif(pg_catalog.to_jsonb(f) -> 'confdelsetcols', 'null')) AS d (num)), pg_catalog.array_to_string(f.conkey, ' '))
        ELSE '' END
    FROM pg_catalog.pg_constraint f JOIN pg_catalog.pg_class r ON r.oid = f.confrelid JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
    WHERE coalesce((pg_catalog.to_jsonb(f) ->> 'conenforced')::bool, true) AND f.conrelid = c.oid AND f.contype = 'f'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint p WHERE p.conrelid = f.conrelid
        AND p.oid = (pg_catalog.to_jsonb(f) ->> 'conparentid')::oid)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgconstraint = f.oid AND g.tgrelid = f.confrelid AND g.tgenabled IN ('D', 'R')))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('information_schema', 'pgshadow') AND n.nspname !~ '^pg_'";

/// Bytes of a page.
pub(crate) const PAGE: u64 = 8192;

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// As PostgreSQL writes it, with its length or precision.
    pub(crate) type_name: String,
    /// Its type; of a domain, the one that it is over.
    pub(crate) base: u32,
    /// `attnum`: its name may become another column's.
    pub(crate) number: i16,
}

/// A table on one side.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: QualifiedName,
    pub(crate) oid: u32,
    /// Another one once the table was truncated or rewritten.
    pub(crate) file: u32,
    /// Bytes of its pages.
    pub(crate) size: u64,
    /// Bytes of the long values beside them (TOAST).
    pub(crate) beside: u64,
    pub(crate) columns: Vec<Column>,
    /// Names of the key's columns; empty: it has none.
    pub(crate) key: Vec<String>,
    /// Its foreign keys, with the columns that their actions give other values, by number.
    pub(crate) foreign_keys: BTreeMap<String, BTreeSet<i16>>,
}

impl Table {
    #[cfg(test)]
    pub(crate) fn bare(columns: Vec<Column>) -> Self {
        let (name, key, foreign_keys) = (QualifiedName::new("public", "t"), Vec::new(), BTreeMap::new());
        Self { name, oid: 1, file: 1, size: 0, beside: 0, columns, key, foreign_keys }
    }

    /// Bytes of all that is read of it.
    pub(crate) fn bytes(&self) -> u64 {
        self.size + self.beside
    }

    /// Bytes that are read with a page, the long values of its rows included; about.
    pub(crate) fn page_bytes(&self) -> u64 {
        PAGE + self.beside / (self.size / PAGE).max(1)
    }
}

/// Reads them in the snapshot.
pub(crate) async fn tables(pool: &Pool) -> Result<BTreeMap<QualifiedName, Table>, Error> {
    let failed = Error::of(pool.whom());
    let mut all = BTreeMap::new();
    for row in pool.ask(TABLES, &[]).await? {
        let read = || -> Result<Table, tokio_postgres::Error> {
            let name = QualifiedName::new(row.try_get::<_, &str>(0)?, row.try_get::<_, &str>(1)?);
            let (names, types): (Vec<String>, Vec<String>) = (row.try_get(5)?, row.try_get(6)?);
            let bases: Vec<u32> = row.try_get(7)?;
            let numbers: Vec<i16> = row.try_get(9)?;
            let foreign_keys: Vec<String> = row.try_get(10)?;
            let sizes: Vec<i64> = row.try_get(4)?;
            let mut sizes = sizes.into_iter().map(|size| u64::try_from(size).unwrap_or(0));
            let columns = names.into_iter().zip(types).zip(bases).zip(numbers);
            Ok(Table {
                name,
                oid: row.try_get(2)?,
                file: row.try_get(3)?,
                size: sizes.next().unwrap_or(0),
                beside: sizes.next().unwrap_or(0),
                columns: columns
                    .map(|(((name, type_name), base), number)| Column { name, type_name, base, number })
                    .collect(),
                key: row.try_get(8)?,
                foreign_keys: foreign_keys.iter().map(|text| foreign_key(text)).collect(),
            })
        };
        let table = read().map_err(failed)?;
        all.insert(table.name.clone(), table);
    }
    Ok(all)
}

/// One that was read: its text, and numbers of columns behind the last semicolon.
fn foreign_key(text: &str) -> (String, BTreeSet<i16>) {
    let (key, columns) = text.rsplit_once(';').unwrap_or((text, ""));
    (key.to_owned(), columns.split_whitespace().filter_map(|number| number.parse().ok()).collect())
}

/// Why it isn't enough that the rows of the two are equal, if so: what the primary does to the one along its foreign keys (their actions, and
/// TRUNCATE ... CASCADE), the shadow must do to the other, since nobody repeats it.
pub(crate) fn foreign_keys_differ(primary: &Table, shadow: &Table) -> Option<String> {
    let only = |a: &Table, b: &Table| a.foreign_keys.keys().find(|key| !b.foreign_keys.contains_key(*key)).cloned();
    let missing = only(primary, shadow).map(|key| {
        format!("the shadow's table has no such foreign key, or has it disabled: {key}; what follows it (its action, TRUNCATE ... CASCADE) would be missing there")
    });
    missing.or_else(|| {
        let key = only(shadow, primary)?;
        Some(format!(
            "only the shadow's table has this foreign key, so more than on the primary would follow it: {key}"
        ))
    })
}

/// Why the columns of the two can't be compared, if they can't. Their order doesn't matter.
pub(crate) fn columns_differ(primary: &Table, shadow: &Table) -> Option<String> {
    let of = |table: &Table| -> BTreeMap<String, String> {
        table.columns.iter().map(|c| (c.name.clone(), c.type_name.clone())).collect()
    };
    let (here, there) = (of(primary), of(shadow));
    for (name, type_name) in &here {
        match there.get(name) {
            None => return Some(format!("the shadow's table has no column {name}")),
            Some(other) if other != type_name => {
                return Some(format!("column {name} is {type_name} on the primary and {other} on the shadow"));
            }
            Some(_) => {}
        }
    }
    let extra = there.keys().find(|name| !here.contains_key(*name))?;
    Some(format!("only the shadow's table has a column {extra}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[(&str, &str)]) -> Table {
        let column = |(name, type_name): &(&str, &str)| Column {
            name: (*name).to_owned(),
            type_name: (*type_name).to_owned(),
            base: 23,
            number: 1,
        };
        Table::bare(columns.iter().map(column).collect())
    }

    #[test]
    fn long_values_are_read_with_their_pages() {
        let mut table = table(&[]);
        assert_eq!((table.bytes(), table.page_bytes()), (0, PAGE));
        (table.size, table.beside) = (2 * PAGE, 300 * PAGE);
        assert_eq!((table.bytes(), table.page_bytes()), (302 * PAGE, 151 * PAGE));
    }

    #[test]
    fn columns_are_the_same_in_any_order() {
        let (a, b) = (table(&[("a", "integer"), ("b", "text")]), table(&[("b", "text"), ("a", "integer")]));
        assert_eq!(columns_differ(&a, &b), None);
        for (other, part) in [
            (table(&[("a", "integer")]), "no column b"),
            (table(&[("a", "bigint"), ("b", "text")]), "a is integer on the primary and bigint"),
            (table(&[("a", "integer"), ("b", "text"), ("c", "text")]), "only the shadow's table has a column c"),
        ] {
            let why = columns_differ(&a, &other).unwrap();
            assert!(why.contains(part), "{why}");
        }
    }
}
