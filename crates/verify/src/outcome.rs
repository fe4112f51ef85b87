//! What a verify found.

use crate::locate::Located;
use crate::totals::Totals;
use pgshadow_compare::fingerprint;
use pgshadow_model::{Cause, Finding, Kind, QualifiedName, Severity};
use serde::{Deserialize, Serialize};

/// A table, compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableOutcome {
    /// Which.
    pub table: QualifiedName,
    /// In which of [`crate::Outcome::pairs`] it was read, or its first part was.
    pub pair: usize,
    /// In how many pairs of snapshots its parts were read; 0: by an earlier verify that was interrupted, and it has been applied exactly since.
    #[serde(default)]
    pub snapshots: usize,
    /// Rows of the primary, as `count(*)` gives them in the snapshot.
    pub rows: u64,
    /// Bytes of the primary's rows as texts.
    pub bytes: u64,
    /// Hash of the primary's rows, hexadecimal: sums of two hashes of 64 bits each.
    pub hash: String,
    /// Rows that only the primary has.
    pub missing: u64,
    /// Rows that only the shadow has.
    pub extra: u64,
    /// Rows that both have, under one key, with other values.
    pub different: u64,
    /// Some of those rows, located: a thousand at most.
    pub differences: Vec<Difference>,
    /// Why it could not be compared.
    pub not_compared: Option<String>,
    /// Seconds, with what it waited for.
    pub seconds: f64,
}

/// What a verify's findings begin their messages with.
const OF_VERIFY: &str = "verify: ";

/// Whether a verify has found it.
#[must_use]
pub fn is_of_verify(finding: &Finding) -> bool {
    finding.message.as_deref().is_some_and(|message| message.starts_with(OF_VERIFY))
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// `column=value, ...` of the key, or of the whole row where the table has no key.
    pub key: String,
    /// The key's columns with their values as texts (`None` is NULL); nothing where the table has no key.
    pub key_columns: Vec<(String, Option<String>)>,
    /// How.
    pub kind: Kind,
    /// Each column that differs. Of a row that only one side has, nothing.
    pub columns: Vec<DifferentColumn>,
    /// The whole row of the side that has it, where only one does.
    pub row: Option<String>,
}

/// Two values of a column, as texts; `None` is NULL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferentColumn {
    /// The column.
    pub name: String,
    /// The primary's.
    pub primary: Option<String>,
    /// The shadow's.
    pub shadow: Option<String>,
}

impl Difference {
    /// Bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let keys = self.key_columns.iter().map(|(name, value)| name.len() + text(value));
        let columns =
            self.columns.iter().map(|column| column.name.len() + text(&column.primary) + text(&column.shadow));
        self.key.len() + text(&self.row) + keys.chain(columns).sum::<usize>()
    }
}

impl TableOutcome {
    /// One that is known to be equal, from its certificate.
    #[must_use]
    pub fn known(table: QualifiedName, rows: u64, bytes: u64, hash: String) -> Self {
        let unknown = Self::not_compared(&table, String::new());
        Self { rows, bytes, hash, snapshots: 0, not_compared: None, ..unknown }
    }

    pub(crate) fn compared(table: &QualifiedName, here: Totals, located: Located, seconds: f64) -> Self {
        let Located { missing, extra, different, differences } = located;
        Self {
            table: table.clone(),
            pair: 0,
            snapshots: 1,
            rows: u64::try_from(here.rows).unwrap_or(0),
            bytes: u64::try_from(here.bytes).unwrap_or(0),
            hash: here.hash(),
            missing,
            extra,
            different,
            differences,
            not_compared: None,
            seconds,
        }
    }

    pub(crate) fn not_compared(table: &QualifiedName, why: String) -> Self {
        Self {
            table: table.clone(),
            pair: 0,
            snapshots: 1,
            rows: 0,
            bytes: 0,
            hash: String::new(),
            missing: 0,
            extra: 0,
            different: 0,
            differences: Vec::new(),
            not_compared: Some(why),
            seconds: 0.0,
        }
    }

    /// Compared, and nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.not_compared.is_none() && self.differ() == 0
    }

    /// Rows that differ.
    #[must_use]
    pub fn differ(&self) -> u64 {
        self.missing + self.extra + self.different
    }

    /// What it found, for the report.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        if let Some(reason) = &self.not_compared {
            return vec![self.finding(Kind::Schema, None, &[], None, None, format!("not compared: {reason}"))];
        }
        let located = self.differences.iter().map(|difference| {
            let columns: Vec<String> = difference.columns.iter().map(|column| column.name.clone()).collect();
            let values = |side: fn(&DifferentColumn) -> &Option<String>| {
                let value =
                    |column: &DifferentColumn| format!("{}={}", column.name, side(column).as_deref().unwrap_or("NULL"));
                difference.columns.iter().map(value).collect::<Vec<_>>().join(", ")
            };
            let (primary, shadow, message) = match difference.kind {
                Kind::MissingRow => (difference.row.clone(), None, "the shadow has no such row"),
                Kind::ExtraRow => (None, difference.row.clone(), "only the shadow has this row"),
                _ => (Some(values(|column| &column.primary)), Some(values(|column| &column.shadow)), "the rows differ"),
            };
            self.finding(difference.kind, Some(&difference.key), &columns, primary, shadow, message.to_owned())
        });
        located.collect()
    }

    fn finding(
        &self,
        kind: Kind,
        key: Option<&str>,
        columns: &[String],
        primary: Option<String>,
        shadow: Option<String>,
        message: String,
    ) -> Finding {
        let fingerprint = fingerprint(kind, Some(&self.table), columns, None);
        Finding {
            table: Some(self.table.clone()),
            key: key.map(str::to_owned),
            column: (!columns.is_empty()).then(|| columns.join(",")),
            primary,
            shadow,
            message: Some(format!("{OF_VERIFY}{message}")),
            ..Finding::new(kind, Cause::Unknown, Severity::Error, fingerprint)
        }
    }
}
