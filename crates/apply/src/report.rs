//! What is said of a change that did not do on the shadow what it did on the primary, and what is done about it.

use crate::entry::Loaded;
use crate::target::Target;
use crate::waiting::is_of_several_rows;
use pgshadow_compare::{Seen, ShadowError, Texts, Verdict, describe_key, describe_row, fingerprint};
use pgshadow_divergence::Origin;
use pgshadow_model::{Finding, QualifiedName, RowImage};
use std::collections::HashSet;

/// Rows of one transaction that are read again one by one: beyond, their tables are suspect.
const ROWS_MAX: usize = 10_000;

/// A finding with its origin and its remedy.
pub(crate) struct Report {
    pub(crate) origin: Origin,
    /// `None`: nothing is wrong, but the row isn't known for certain.
    pub(crate) finding: Option<Finding>,
    /// Rows to be read again on the primary.
    pub(crate) heal: Vec<Target>,
    /// Tables that can't be healed, and why.
    pub(crate) suspect: Vec<(Option<QualifiedName>, String)>,
}

/// The reports of one transaction on the shadow: one fault is one finding.
#[derive(Default)]
pub(crate) struct Reports {
    pub(crate) list: Vec<Report>,
    targets: HashSet<Target>,
    tables: HashSet<QualifiedName>,
    looked_at: HashSet<QualifiedName>,
}

impl Reports {
    /// Whether a table is looked at anew: once, since what the transaction has written keeps others from changing it.
    pub(crate) fn looks_at(&mut self, table: &QualifiedName) -> bool {
        self.looked_at.insert(table.clone())
    }

    /// Whether rows that are to be read again may be what this one lacks.
    pub(crate) fn may_explain(&self, image: &RowImage, sqlstate: &str) -> bool {
        if !is_of_several_rows(sqlstate) {
            return false;
        }
        let targets = self.list.iter().filter(|r| r.finding.is_none()).flat_map(|r| &r.heal);
        let name = &image.relation.name;
        let refers = |table: &QualifiedName| image.relation.foreign_keys.iter().any(|key| key.parent == *table);
        targets.into_iter().any(|t| t.relation.name == *name || refers(&t.relation.name))
    }

    /// Whether this row is spoken of already, or its whole table.
    pub(crate) fn speak_of(&self, image: &RowImage) -> bool {
        self.tables.contains(&image.relation.name) || Target::of(image).iter().any(|t| self.targets.contains(t))
    }

    pub(crate) fn add(&mut self, mut report: Report) {
        if self.list.len() >= ROWS_MAX {
            let reason = format!("one transaction found more than {ROWS_MAX} rows that differ");
            let tables = report.heal.drain(..).map(|target| (Some(target.relation.name.clone()), reason.clone()));
            report.suspect.extend(tables);
        }
        self.targets.extend(report.heal.iter().cloned());
        self.tables.extend(report.suspect.iter().filter_map(|(t, _)| t.clone()));
        self.list.push(report);
    }
}

/// The texts that go with a verdict.
#[derive(Default, Clone, Copy)]
pub(crate) struct Evidence<'a> {
    pub(crate) primary: Option<&'a Texts>,
    pub(crate) shadow: Option<&'a Texts>,
    pub(crate) error: Option<&'a ShadowError>,
}

impl<'a> Evidence<'a> {
    pub(crate) fn of(seen: &Seen<'a>) -> Self {
        Self { primary: seen.primary, shadow: seen.shadow, error: seen.error }
    }
}

/// A finding about a row. `keyed`: it is about this very row, not about its table.
pub(crate) fn row_finding(
    image: &RowImage,
    entry: &Loaded,
    verdict: &Verdict,
    by: Evidence<'_>,
    keyed: bool,
) -> Finding {
    let relation = &*image.relation;
    let sqlstate = by.error.map(|e| e.sqlstate.clone());
    let show = |texts: &Texts| describe_row(relation, &verdict.columns, texts);
    let mut finding = finding(entry, Some(&relation.name), verdict, sqlstate);
    finding.key = by.primary.filter(|_| keyed).map(|texts| describe_key(relation, texts));
    (finding.primary, finding.shadow) = (by.primary.map(show), by.shadow.map(show));
    finding
}

/// A finding about a table, or a statement.
pub(crate) fn finding(
    entry: &Loaded,
    table: Option<&QualifiedName>,
    verdict: &Verdict,
    sqlstate: Option<String>,
) -> Finding {
    let fingerprint = fingerprint(verdict.kind, table, &verdict.columns, sqlstate.as_deref());
    Finding {
        table: table.cloned(),
        column: (!verdict.columns.is_empty()).then(|| verdict.columns.join(", ")),
        sqlstate,
        message: Some(verdict.message.clone()),
        xid: Some(entry.order.xid),
        lsn: Some(entry.order.token),
        ..Finding::new(verdict.kind, verdict.cause, verdict.severity, fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order_tests::{relation, row};
    use pgshadow_model::Change;

    #[test]
    fn a_table_is_looked_at_once_in_a_transaction() {
        let mut reports = Reports::default();
        let [one, other] = ["one", "other"].map(|name| QualifiedName::new("public", name));
        assert!(reports.looks_at(&one) && reports.looks_at(&other));
        assert!(!reports.looks_at(&one) && !reports.looks_at(&other));
        assert!(Reports::default().looks_at(&one));
    }

    #[test]
    fn of_more_rows_than_are_read_again_the_table_is_suspect() {
        let relation = relation("t");
        let Change::Row(image) = row(&relation, 1) else { panic!("a row") };
        let heal = Target::of(&image);
        let report = || Report { origin: (1, 0), finding: None, heal: heal.clone(), suspect: Vec::new() };
        let mut reports = Reports::default();
        (0..ROWS_MAX).for_each(|_| reports.add(report()));
        assert!(reports.list.iter().all(|report| report.heal == heal && report.suspect.is_empty()));
        assert!(reports.speak_of(&image) && !reports.tables.contains(&relation.name));
        reports.add(report());
        let last = reports.list.last().expect("it was added");
        assert!(last.heal.is_empty() && last.suspect[0].0.as_ref() == Some(&relation.name), "{:?}", last.suspect);
        assert!(reports.tables.contains(&relation.name));
    }
}
