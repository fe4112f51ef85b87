use pgshadow_model::{Cause, Finding, Kind, Severity};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// Answer of `/api/report`, and of `pgshadow report --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Findings in order of `id`.
    pub findings: Vec<FindingView>,
}

/// A finding as the interface shows it: names and positions are text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "every field is documented where it comes from, in pgshadow_model::Finding")]
pub struct FindingView {
    pub id: u64,
    pub kind: Kind,
    pub cause: Cause,
    pub severity: Severity,
    /// `schema.name`.
    pub table: Option<String>,
    pub key: Option<String>,
    pub column: Option<String>,
    pub primary: Option<String>,
    pub shadow: Option<String>,
    pub sqlstate: Option<String>,
    pub message: Option<String>,
    pub sql: Option<String>,
    pub fingerprint: String,
    pub xid: Option<u64>,
    /// As PostgreSQL writes it: `0/16B3748`.
    pub lsn: Option<String>,
    pub user: Option<String>,
    pub application: Option<String>,
    pub healed: bool,
    pub count: u64,
    pub first_seen: String,
    pub last_seen: String,
    pub acknowledged: bool,
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        Self {
            id: finding.id,
            kind: finding.kind,
            cause: finding.cause,
            severity: finding.severity,
            table: finding.table.map(|table| table.to_string()),
            key: finding.key,
            column: finding.column,
            primary: finding.primary,
            shadow: finding.shadow,
            sqlstate: finding.sqlstate,
            message: finding.message,
            sql: finding.sql,
            fingerprint: finding.fingerprint,
            xid: finding.xid.map(|xid| xid.0),
            lsn: finding.lsn.map(|lsn| lsn.to_string()),
            user: finding.user,
            application: finding.application,
            healed: finding.healed,
            count: finding.count,
            first_seen: finding.first_seen,
            last_seen: finding.last_seen,
            acknowledged: finding.acknowledged,
        }
    }
}

impl FindingView {
    /// Neither healed nor acknowledged: somebody has to look at it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.healed && !self.acknowledged
    }
}

impl Report {
    /// All findings, or those seen at or after `since`. One whose time can't be read is kept.
    #[must_use]
    pub fn new(findings: Vec<Finding>, since: Option<SystemTime>) -> Self {
        let recent = |finding: &Finding| match (since, humantime::parse_rfc3339(&finding.last_seen)) {
            (Some(since), Ok(seen)) => seen >= since,
            _ => true,
        };
        Self { findings: findings.into_iter().filter(recent).map(FindingView::from).collect() }
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.findings.iter().filter(|finding| finding.is_open()).count()
    }
}

/// Body of `POST /api/acknowledge`: findings that are to stay as they are, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeRequest {
    /// Their numbers.
    pub findings: Vec<u64>,
}

/// Answer of `POST /api/acknowledge`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Numbers that no finding has.
    pub unknown: Vec<u64>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use pgshadow_model::{Lsn, QualifiedName, Xid};

    pub(crate) fn finding(id: u64, last_seen: &str) -> Finding {
        Finding {
            id,
            table: Some(QualifiedName::new("public", "orders")),
            key: Some("id=7".into()),
            primary: Some("(7,new)".into()),
            message: Some("the shadow has no such row".into()),
            sql: Some("UPDATE orders SET state = $1 WHERE id = $2".into()),
            xid: Some(Xid(4_294_967_999)),
            lsn: Some(Lsn(0x16_B374_8000)),
            user: Some("shop".into()),
            application: Some("psql".into()),
            first_seen: last_seen.into(),
            last_seen: last_seen.into(),
            ..Finding::new(Kind::MissingRow, Cause::WrittenBehind, Severity::Error, "00ff".into())
        }
    }

    #[test]
    fn the_json_has_the_words_of_the_interface() {
        let report = Report::new(vec![finding(1, "2026-11-22T10:00:00Z")], None);
        let json = serde_json::to_value(&report).unwrap();
        let expected = serde_json::json!({"findings": [{
            "id": 1, "kind": "missing_row", "cause": "written_behind", "severity": "error", "table": "public.orders",
            "key": "id=7", "column": null, "primary": "(7,new)", "shadow": null, "sqlstate": null,
            "message": "the shadow has no such row", "sql": "UPDATE orders SET state = $1 WHERE id = $2",
            "fingerprint": "00ff", "xid": 4_294_967_999_u64, "lsn": "16/B3748000", "user": "shop",
            "application": "psql", "healed": false, "count": 1, "first_seen": "2026-11-22T10:00:00Z",
            "last_seen": "2026-11-22T10:00:00Z", "acknowledged": false,
        }]});
        assert_eq!(json, expected);
    }

    #[test]
    fn since_compares_times_and_not_letters() {
        let findings = vec![finding(1, "2026-11-22T10:00:00Z"), finding(2, "2026-11-22T10:00:00.5Z")];
        let since = humantime::parse_rfc3339("2026-11-22T10:00:00.2Z").unwrap();
        let report = Report::new(findings, Some(since));
        assert_eq!(report.findings.iter().map(|f| f.id).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn healed_and_acknowledged_findings_are_not_open() {
        let healed = Finding { healed: true, ..finding(1, "2026-11-22T10:00:00Z") };
        let acknowledged = Finding { acknowledged: true, ..finding(2, "2026-11-22T10:00:00Z") };
        let report = Report::new(vec![healed, acknowledged, finding(3, "2026-11-22T10:00:00Z")], None);
        assert_eq!(report.open(), 1);
    }
}
