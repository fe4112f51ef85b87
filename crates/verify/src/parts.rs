//! A table that no snapshot is kept long enough for: cut by its key into parts, each of which is compared in one pair of snapshots, and its sums added.
//!
//! Where the cuts are doesn't matter for the result, as long as both sides agree on which rows are in a part: so only columns whose order no collation
//! and no version of a library decides are cut by.

use crate::Error;
use crate::locate::Located;
use crate::pool::Pool;
use crate::table::{Column, PAGE, Table};
use crate::totals::Totals;
use std::collections::BTreeSet;

/// Types that have the same order everywhere: int8, int2, int4, oid, date, timestamp, timestamptz, uuid.
const ORDERED: [u32; 8] = [20, 21, 23, 26, 1082, 1114, 1184, 2950];
/// Parts at most, and bytes of one at least: each may need a pair of snapshots of its own.
const PARTS_MAX: u64 = 1000;
const PART_MIN: u64 = 512 * 1024;
/// Rows that are looked at for one cut, about, if a page held one.
const SAMPLE: f64 = 32.0;

/// A table in parts, and what is known of those that are done.
#[derive(Debug)]
pub(crate) struct Parts {
    oid: u32,
    columns: Vec<Column>,
    conditions: Vec<String>,
    next: usize,
    /// The primary's sums.
    pub(crate) here: Totals,
    /// Whether a part's sums differed.
    pub(crate) located: Located,
    /// The pair of the first part.
    pub(crate) pair: Option<usize>,
    /// Pairs of snapshots that they were compared in.
    pub(crate) snapshots: usize,
    pub(crate) seconds: f64,
}

/// The columns that it can be cut by: those that its key begins with.
fn ordered(table: &Table) -> Vec<&Column> {
    let columns = table.key.iter().map_while(|name| table.columns.iter().find(|column| column.name == *name));
    columns.take_while(|column| ORDERED.contains(&column.base)).collect()
}

/// Whether it can be cut. Not where a foreign key's action may give a row another key: it could go from a part that isn't compared yet to one that is,
/// and what else is wrong with it goes along, since the shadow does that by itself.
pub(crate) fn can_be_cut(table: &Table) -> bool {
    let columns = ordered(table);
    let moves = |changed: &BTreeSet<i16>| columns.iter().any(|column| changed.contains(&column.number));
    !columns.is_empty() && !table.foreign_keys.values().any(moves)
}

/// Each part as a condition; `cuts`: values of the columns, ascending.
fn conditions(columns: &[&Column], cuts: &[Vec<String>]) -> Vec<String> {
    let names: Vec<String> =
        columns.iter().map(|column| format!("r.{}", pgshadow_model::quote(&column.name))).collect();
    let row = format!("ROW({})", names.join(", "));
    let cut = |values: &Vec<String>| {
        let values = values.iter().zip(columns).map(|(value, column)| {
            // a domain's value is compared as what it is over
            format!("'{}'::{}", value.replace('\'', "''"), base_name(column.base))
        });
        format!("ROW({})", values.collect::<Vec<_>>().join(", "))
    };
    let mut all = Vec::with_capacity(cuts.len() + 1);
    let mut from: Option<String> = None;
    for to in cuts.iter().map(cut).map(Some).chain([None]) {
        let above = from.as_ref().map(|from| format!("{row} >= {from}"));
        let below = to.as_ref().map(|to| format!("{row} < {to}"));
        let both: Vec<String> = [above, below].into_iter().flatten().collect();
        all.push(if both.is_empty() { String::new() } else { format!(" WHERE {}", both.join(" AND ")) });
        from = to;
    }
    all
}

fn base_name(base: u32) -> &'static str {
    match base {
        20 => "int8",
        21 => "int2",
        26 => "oid",
        1082 => "date",
        1114 => "timestamp",
        1184 => "timestamptz",
        2950 => "uuid",
        _ => "int4",
    }
}

/// Cuts the table into so many parts, about: fewer where a sample doesn't show as many keys.
pub(crate) async fn cut(primary: &Pool, table: &Table, parts: u64) -> Result<Parts, Error> {
    let parts = parts.min(table.bytes() / PART_MIN).clamp(2, PARTS_MAX);
    let columns = ordered(table);
    let of = |each: &dyn Fn(&str) -> String| {
        columns.iter().map(|column| each(&pgshadow_model::quote(&column.name))).collect::<Vec<_>>().join(", ")
    };
    let (texts, names) = (of(&|name| format!("s.{name}::text")), of(&|name| format!("r.{name}")));
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    let percent = (100.0 * parts as f64 * SAMPLE * PAGE as f64 / table.size.max(1) as f64).clamp(0.001, 100.0);
    let sql = format!(
        "SELECT DISTINCT ON (s.n / (s.c / {parts} + 1)) ARRAY[{texts}] FROM (SELECT {names}, row_number() OVER (ORDER BY {names}) AS n, count(*) OVER () AS c
         FROM ONLY {} AS r TABLESAMPLE SYSTEM ({percent})) AS s ORDER BY s.n / (s.c / {parts} + 1), s.n",
        table.name.sql()
    );
    let rows = primary.ask(&sql, &[]).await?;
    let cuts = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Vec<String>>, _>>();
    let mut cuts = cuts.map_err(Error::of(primary.whom()))?;
    cuts.dedup();
    Ok(Parts {
        oid: table.oid,
        columns: table.columns.clone(),
        conditions: conditions(&columns, &cuts),
        next: 0,
        here: Totals::default(),
        located: Located::default(),
        pair: None,
        snapshots: 0,
        seconds: 0.0,
    })
}

impl Parts {
    /// Whether it still is this table.
    pub(crate) fn is_of(&self, table: &Table) -> bool {
        self.oid == table.oid && self.columns == table.columns
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.conditions.len()
    }

    /// The next part's condition; `None`: all are done.
    pub(crate) fn next(&self) -> Option<String> {
        self.conditions.get(self.next).cloned()
    }

    /// The next part is done.
    pub(crate) fn add(&mut self, here: Totals, located: Located) {
        self.next += 1;
        self.here.add(here);
        self.located.add(located);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn column(name: &str, base: u32) -> Column {
        Column { name: name.to_owned(), type_name: "any".to_owned(), base, number: 1 }
    }

    fn table(columns: Vec<Column>, key: &[&str]) -> Table {
        Table { key: key.iter().map(|name| (*name).to_owned()).collect(), ..Table::bare(columns) }
    }

    #[test]
    fn parts_meet_and_leave_nothing_out() {
        let (a, b) = (column("a", 23), column("B", 2950));
        let cuts = [vec!["1".to_owned(), "x'".to_owned()], vec!["2".to_owned(), "y".to_owned()]];
        let all = conditions(&[&a, &b], &cuts);
        let first = "ROW('1'::int4, 'x'''::uuid)";
        let second = "ROW('2'::int4, 'y'::uuid)";
        let row = format!("ROW(r.{}, r.{})", pgshadow_model::quote("a"), pgshadow_model::quote("B"));
        let expected = [
            format!(" WHERE {row} < {first}"),
            format!(" WHERE {row} >= {first} AND {row} < {second}"),
            format!(" WHERE {row} >= {second}"),
        ];
        assert_eq!(all, expected);
        assert_eq!(conditions(&[&a], &[]), [""]);
    }

    #[test]
    fn parts_are_of_one_table_as_it_was() {
        let table = table(vec![column("a", 20)], &["a"]);
        let parts = Parts {
            oid: 1,
            columns: table.columns.clone(),
            conditions: Vec::new(),
            next: 0,
            here: Totals::default(),
            located: Located::default(),
            pair: None,
            snapshots: 0,
            seconds: 0.0,
        };
        assert!(parts.is_of(&Table { file: 2, ..table.clone() }), "rows in another file are the same rows");
        assert!(!parts.is_of(&Table { oid: 2, ..table.clone() }));
        assert!(!parts.is_of(&Table { columns: vec![column("a", 20), column("b", 20)], ..table }));
    }

    #[test]
    fn only_what_has_the_same_order_everywhere_is_cut_by() {
        let columns = [column("a", 20), column("t", 25), column("c", 23)].into_iter().zip(1..);
        let mut table = table(columns.map(|(column, number)| Column { number, ..column }).collect(), &[]);
        assert!(!can_be_cut(&table), "it has no key");
        for (key, by) in [(vec!["a", "t", "c"], vec!["a"]), (vec!["t", "a"], vec![]), (vec!["c", "a"], vec!["c", "a"])]
        {
            table.key = key.iter().map(|name| (*name).to_owned()).collect();
            let names: Vec<&str> = ordered(&table).iter().map(|column| column.name.as_str()).collect();
            assert_eq!(names, by);
        }
        let number =
            |name: &str| table.columns.iter().find(|column| column.name == name).map(|column| column.number).unwrap();
        for (changed, cut) in [(vec![], true), (vec!["t"], true), (vec!["t", "c"], false), (vec!["a"], false)] {
            let changed_numbers = changed.iter().map(|name| number(name)).collect();
            let mut table = table.clone();
            table.foreign_keys = BTreeMap::from([("FOREIGN KEY ...".to_owned(), changed_numbers)]);
            assert_eq!(can_be_cut(&table), cut, "{changed:?}");
        }
    }
}
