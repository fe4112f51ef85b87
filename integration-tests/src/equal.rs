//! Are two databases equal? Told without any of pgshadow's code, by psql and COPY.
//!
//! Every table that holds rows, on either side, is read as `COPY (SELECT t::text FROM ONLY table t) TO STDOUT` under
//! fixed settings, and the two lists of rows are sorted by their bytes and compared as multisets. The schema `pgshadow`
//! is the proxy's own and left out.
use crate::client::Endpoint;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);
/// So many rows of each kind are shown.
const SHOWN: usize = 5;

const SETTINGS: &str = "
SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1;
SET bytea_output = 'hex'; SET search_path = pg_catalog; SET lc_monetary = 'C'; SET xmloption = 'content';
SET row_security = off; SET client_encoding = 'UTF8'; SET default_transaction_isolation = 'repeatable read';
";

const TABLES: &str = "
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname <> 'pgshadow' AND n.nspname !~ '^pg_'
ORDER BY 1;
";

/// A table that isn't the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDifference {
    /// Schema and name, quoted where needed.
    pub table: String,
    /// What differs.
    pub difference: Difference,
}

/// How a table differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Only the source has it.
    MissingOnTarget,
    /// Only the target has it.
    MissingOnSource,
    /// Rows differ. The vectors hold the first few; a changed row is in both.
    Rows {
        /// Number of rows only the source has.
        only_source: usize,
        /// Number of rows only the target has.
        only_target: usize,
        /// Examples.
        source_examples: Vec<String>,
        /// Examples.
        target_examples: Vec<String>,
    },
}

impl fmt::Display for TableDifference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.table)?;
        match &self.difference {
            Difference::MissingOnTarget => write!(formatter, "not on the target"),
            Difference::MissingOnSource => write!(formatter, "not on the source"),
            Difference::Rows { only_source, only_target, source_examples, target_examples } => {
                write!(formatter, "{only_source} rows only on the source, {only_target} only on the target")?;
                for row in source_examples {
                    write!(formatter, "\n  source {row}")?;
                }
                for row in target_examples {
                    write!(formatter, "\n  target {row}")?;
                }
                Ok(())
            }
        }
    }
}

/// The tables that differ. Both places are read as their superuser, past row-level security.
#[track_caller]
pub fn differences(source: &Endpoint, target: &Endpoint) -> Vec<TableDifference> {
    let source = source.as_user("postgres", "postgres");
    let target = target.as_user("postgres", "postgres");
    let (here, there) = (tables(&source), tables(&target));
    let mut found = Vec::new();
    for table in here.union(&there) {
        let difference = if !there.contains(table) {
            Some(Difference::MissingOnTarget)
        } else if !here.contains(table) {
            Some(Difference::MissingOnSource)
        } else {
            compare(&rows(&source, table), &rows(&target, table))
        };
        found.extend(difference.map(|difference| TableDifference { table: table.clone(), difference }));
    }
    found
}

/// Fails the test where a table differs, or where there is none at all, and says how.
#[track_caller]
pub fn assert_equal(source: &Endpoint, target: &Endpoint) {
    assert!(!tables(&source.as_user("postgres", "postgres")).is_empty(), "no tables to compare in {}", source.url());
    let found = differences(source, target);
    let report: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "source and target differ\n{}", report.join("\n"));
}

/// The tables that hold rows, quoted where needed; the schema `pgshadow` is left out.
#[track_caller]
pub fn tables(place: &Endpoint) -> BTreeSet<String> {
    place.psql(TABLES).lines().map(str::to_owned).collect()
}

fn rows(place: &Endpoint, table: &str) -> Vec<String> {
    let copy = format!("{SETTINGS} COPY (SELECT t::text FROM ONLY {table} t) TO STDOUT;");
    let mut rows: Vec<_> = place.psql_within(&copy, LIMIT).lines().map(str::to_owned).collect();
    rows.sort_unstable();
    rows
}

fn compare(source: &[String], target: &[String]) -> Option<Difference> {
    let (mut here, mut there) = (source.iter().peekable(), target.iter().peekable());
    let (mut only_source, mut only_target) = (Vec::new(), Vec::new());
    loop {
        let order = match (here.peek(), there.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.cmp(b),
        };
        match order {
            Ordering::Less => only_source.extend(here.next()),
            Ordering::Greater => only_target.extend(there.next()),
            Ordering::Equal => drop((here.next(), there.next())),
        }
    }
    let examples = |rows: &[&String]| rows.iter().take(SHOWN).map(|row| (*row).clone()).collect();
    (!only_source.is_empty() || !only_target.is_empty()).then(|| Difference::Rows {
        only_source: only_source.len(),
        only_target: only_target.len(),
        source_examples: examples(&only_source),
        target_examples: examples(&only_target),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(rows: &[&str]) -> Vec<String> {
        rows.iter().map(|row| (*row).to_owned()).collect()
    }

    #[test]
    fn equal_lists_have_no_difference() {
        assert_eq!(compare(&list(&["(1)", "(1)", "(2)"]), &list(&["(1)", "(1)", "(2)"])), None);
    }

    #[test]
    fn a_row_that_is_there_twice_is_not_the_same_as_once() {
        let found = compare(&list(&["(1)", "(1)", "(3)"]), &list(&["(1)", "(2)"]));
        let expected = Difference::Rows {
            only_source: 2,
            only_target: 1,
            source_examples: list(&["(1)", "(3)"]),
            target_examples: list(&["(2)"]),
        };
        assert_eq!(found, Some(expected));
    }
}
