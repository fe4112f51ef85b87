use crate::cause::{ShadowColumn, is_type, of_sqlstate};
use pgshadow_model::{Cause, Kind, Operation, Relation, RowImage, Severity};

/// Texts of one row's columns under fixed settings, in the order of the relation's columns; `None` is NULL.
pub type Texts = [Option<String>];

/// An error that the shadow raised for a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowError {
    /// SQLSTATE.
    pub sqlstate: String,
    /// The server's message, with its detail.
    pub message: String,
    /// It says that the row's own key (primary or unique) is taken.
    pub own_key_taken: bool,
}

/// What the shadow did with an image.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen<'a> {
    /// Rows written.
    pub rows: u64,
    /// Whether the shadow's row was equal to the image; for DELETE, the row that it deleted.
    pub equal: bool,
    /// The error in the row's place.
    pub error: Option<&'a ShadowError>,
    /// The image's texts, where they were fetched.
    pub primary: Option<&'a Texts>,
    /// The shadow's texts, where it has the row.
    pub shadow: Option<&'a Texts>,
    /// The shadow's columns by position; `None`: the shadow has no such column. Empty: not known.
    pub columns: &'a [Option<ShadowColumn>],
    /// Triggers of the shadow may have run on the row.
    pub triggers_ran: bool,
}

/// The parts of a finding that the evidence gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What differs.
    pub kind: Kind,
    /// Why.
    pub cause: Cause,
    /// How bad.
    pub severity: Severity,
    /// The columns that differ.
    pub columns: Vec<String>,
    /// A sentence for a DBA.
    pub message: String,
}

/// The verdict on one row; `None` if the shadow did what the primary did.
#[must_use]
pub fn judge(image: &RowImage, seen: &Seen<'_>) -> Option<Verdict> {
    if let Some(error) = seen.error {
        return Some(judge_row_error(image, error, seen));
    }
    let table = &image.relation.name;
    let behind = if seen.triggers_ran { Cause::Unknown } else { Cause::WrittenBehind };
    match (seen.rows, seen.equal) {
        (1, true) => None,
        (0, _) => {
            let what = if image.operation == Operation::Delete { "deleted" } else { "wrote" };
            let message = if image.operation == Operation::Insert {
                format!("the shadow stored no row in {table} for the primary's insert")
            } else {
                format!("the primary {what} a row of {table} that the shadow does not have")
            };
            Some(verdict(Kind::MissingRow, behind, Vec::new(), message))
        }
        (1, false) => Some(judge_values(image, seen, behind)),
        (n, _) => Some(verdict(
            Kind::RowCount,
            Cause::Unknown,
            Vec::new(),
            format!("one row of {table} on the primary, {n} rows on the shadow with the same key"),
        )),
    }
}

/// The verdict on an error that belongs to no row: a COPY, TRUNCATE, DDL statement or a check at the end.
#[must_use]
pub fn judge_error(error: &ShadowError) -> Verdict {
    let (kind, cause) = of_sqlstate(&error.sqlstate);
    verdict(kind, cause, Vec::new(), error.message.clone())
}

fn judge_row_error(image: &RowImage, error: &ShadowError, seen: &Seen<'_>) -> Verdict {
    if error.own_key_taken && matches!(image.operation, Operation::Insert | Operation::Upsert) {
        let cause = if seen.triggers_ran { Cause::Unknown } else { Cause::WrittenBehind };
        let message = format!("the shadow already has the row that the primary inserted: {}", error.message);
        return verdict(Kind::ExtraRow, cause, differing(&image.relation, seen), message);
    }
    judge_error(error)
}

fn judge_values(image: &RowImage, seen: &Seen<'_>, behind: Cause) -> Verdict {
    let columns = differing(&image.relation, seen);
    let table = &image.relation.name;
    let by_type = !columns.is_empty() && explained_by_type(&image.relation, seen);
    let (cause, what) = match (by_type, image.operation) {
        (true, _) => (Cause::Type, "the shadow's type holds another value than the primary's"),
        (_, Operation::Delete) => (behind, "the deleted row was another one on the shadow"),
        _ => (Cause::Unknown, "the shadow stored another value than the primary"),
    };
    let message = format!("{what} ({table}: {})", if columns.is_empty() { "-".into() } else { columns.join(", ") });
    verdict(Kind::Value, cause, columns, message)
}

fn verdict(kind: Kind, cause: Cause, columns: Vec<String>, message: String) -> Verdict {
    Verdict { kind, cause, severity: Severity::Error, columns, message }
}

/// Names of the columns whose texts differ, with those that the shadow lacks.
fn differing(relation: &Relation, seen: &Seen<'_>) -> Vec<String> {
    let (Some(primary), Some(shadow)) = (seen.primary, seen.shadow) else {
        return Vec::new();
    };
    let pairs = primary.iter().zip(shadow);
    relation.columns.iter().zip(pairs).filter(|(_, (p, s))| p != s).map(|(c, _)| c.name.clone()).collect()
}

/// Whether every column that differs does so for its type's sake.
fn explained_by_type(relation: &Relation, seen: &Seen<'_>) -> bool {
    let (Some(primary), Some(shadow)) = (seen.primary, seen.shadow) else {
        return false;
    };
    let rows = relation.columns.iter().zip(seen.columns).zip(primary.iter().zip(shadow));
    let mut differing = 0;
    for ((column, of_shadow), (p, s)) in rows {
        if p == s {
            continue;
        }
        differing += 1;
        match (of_shadow, p, s) {
            (Some(of_shadow), Some(p), Some(s)) if is_type(column, of_shadow, p, s) => {}
            _ => return false,
        }
    }
    differing > 0
}

/// The key as a finding shows it: `column=value, ...`; the whole row where the table has no key.
#[must_use]
pub fn describe_key(relation: &Relation, texts: &Texts) -> String {
    let all: Vec<u16> = (0..u16::try_from(relation.columns.len()).unwrap_or(u16::MAX)).collect();
    let positions = if relation.key.is_empty() { &all } else { &relation.key };
    let shown = positions.iter().filter_map(|p| {
        let (column, text) = (relation.columns.get(usize::from(*p))?, texts.get(usize::from(*p))?);
        Some(format!("{}={}", column.name, text.as_deref().unwrap_or("NULL")))
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// A row as a finding shows it: the named columns, or all if none is named.
#[must_use]
pub fn describe_row(relation: &Relation, columns: &[String], texts: &Texts) -> String {
    let shown = relation.columns.iter().zip(texts).filter(|(c, _)| columns.is_empty() || columns.contains(&c.name));
    shown.map(|(c, t)| format!("{}={}", c.name, t.as_deref().unwrap_or("NULL"))).collect::<Vec<_>>().join(", ")
}
