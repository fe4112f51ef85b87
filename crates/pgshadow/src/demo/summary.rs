//! What was done, measured and found, and whether it is what should have been.
use super::equality::TableEquality;
use super::flip::Flipped;
use super::plant;
use pgshadow_admin::{BackfillReport, FindingView, Lag, SuspectTable, VerifyReport};
use serde::Serialize;
use std::time::Duration;

/// Which parts of a migration this version has.
pub const BUILT: &str =
    "preflight, backfill, mirror, report, heal, verify, repair, rehearsal, cutover, rollback and finalize are built";

/// What was loaded, under load.
#[derive(Debug, Clone, Serialize)]
pub struct Backfilled {
    /// Tables.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// How long it took, with the schema where that was made.
    pub seconds: f64,
}

impl Backfilled {
    /// Of a report.
    pub fn of(report: &BackfillReport, took: Duration) -> Self {
        let rows = report.tables.iter().map(|table| table.rows).sum();
        Self { tables: report.tables.len() as u64, rows, seconds: took.as_secs_f64() }
    }
}

/// What pgshadow's own comparison, under load, has told.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// Tables that are equal.
    pub equal: u64,
    /// Tables that aren't, or couldn't be compared.
    pub unequal: Vec<String>,
    /// Rows compared.
    pub rows: u64,
    /// How long no lane could apply at most, in milliseconds.
    pub held_ms: f64,
}

impl Verified {
    /// Of its report.
    pub fn of(report: &VerifyReport) -> Self {
        let failed = report.failed.iter().map(|why| format!("no result: {why}"));
        let unequal = report.tables.iter().filter(|table| !table.is_equal()).map(|table| table.table.to_string());
        Self {
            equal: report.tables.iter().filter(|table| table.is_equal()).count() as u64,
            unequal: failed.chain(unequal).collect(),
            rows: report.tables.iter().map(|table| table.rows).sum(),
            held_ms: report.held_ms.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// The summary; with `--json` it is printed as it stands here.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Version of pgshadow.
    pub version: &'static str,
    /// Version of the source's server.
    pub source_version: String,
    /// Version of the target's server.
    pub target_version: String,
    /// Which parts of a migration this version has.
    pub built: &'static str,
    /// Concurrent clients of the load.
    pub clients: u32,
    /// How long the load went on.
    pub load_seconds: f64,
    /// How long everything took.
    pub total_seconds: f64,
    /// Statements that the load sent.
    pub statements: u64,
    /// Transactions that the load committed.
    pub transactions: u64,
    /// Transactions that it rolled back.
    pub transactions_rolled_back: u64,
    /// Transactions that the source refused, as the load provokes.
    pub transactions_refused: u64,
    /// Committed transactions that wrote, in the mirror log.
    pub transactions_mirrored: u64,
    /// Row images that were captured.
    pub rows_captured: u64,
    /// Rows that were written to the target.
    pub rows_applied: u64,
    /// Rows of the target that were compared while they were applied.
    pub rows_compared_on_apply: u64,
    /// The largest lag seen.
    pub lag_peak: Lag,
    /// The lag when the load ended.
    pub lag_at_load_end: Lag,
    /// The lag at the end.
    pub lag_end: Lag,
    /// How long the target took to catch up after the load.
    pub drain_ms: u64,
    /// All findings, the planted one too.
    pub findings: Vec<FindingView>,
    /// Rows of the target that were mended.
    pub healed_rows: u64,
    /// Tables that may differ, with the reason.
    pub suspect_tables: Vec<SuspectTable>,
    /// Both databases compared, outside pgshadow.
    pub tables: Vec<TableEquality>,
    /// Their rows.
    pub rows_compared: u64,
    /// What was loaded, under load.
    pub backfilled: Backfilled,
    /// What pgshadow's own comparison has told, under load.
    pub verified: Verified,
    /// The flips, under writers.
    pub flipped: Option<Flipped>,
    /// Whether all is as it should be.
    pub passed: bool,
    /// What isn't.
    pub problems: Vec<String>,
}

impl Summary {
    /// What the flips have shown.
    pub fn flip(&mut self, flipped: Flipped) {
        self.problems.extend(flipped.problems());
        self.passed = self.problems.is_empty();
        self.flipped = Some(flipped);
    }

    /// Looks for what isn't as it should be.
    pub fn judge(&mut self) {
        let mut problems = Vec::new();
        let planted = self.findings.iter().filter(|finding| plant::is_planted(finding)).count();
        match planted {
            0 => problems.push("the planted difference was not found".to_owned()),
            1 => {}
            more => problems.push(format!("the planted difference was found {more} times")),
        }
        for finding in &self.findings {
            if !plant::is_planted(finding) {
                let table = finding.table.as_deref().unwrap_or("no table");
                let key = finding.key.as_deref().unwrap_or("no key");
                let message = finding.message.as_deref().unwrap_or_default();
                problems.push(format!("an unexpected finding: {:?} on {table}, {key} {message}", finding.kind));
            } else if !finding.healed {
                problems.push("the planted difference was not healed".to_owned());
            }
        }
        if planted == 1 && self.healed_rows != 1 {
            problems.push(format!("{} rows were healed instead of one", self.healed_rows));
        }
        for suspect in &self.suspect_tables {
            problems.push(format!("{} is suspect: {}", suspect.table, suspect.reason));
        }
        for table in self.tables.iter().filter(|table| !table.equal) {
            let TableEquality { table, only_source, only_target, example, .. } = table;
            let example = example.as_deref().unwrap_or_default();
            problems.push(format!(
                "{table} differs: {only_source} rows only on the source, {only_target} only on the target; {example}"
            ));
        }
        for table in &self.verified.unequal {
            problems.push(format!("verify, under load: not equal: {table}"));
        }
        if self.backfilled.rows == 0 {
            problems.push("backfill loaded nothing".to_owned());
        }
        if self.verified.equal == 0 {
            problems.push("verify compared nothing".to_owned());
        }
        if self.tables.is_empty() || self.rows_compared == 0 {
            problems.push("there was nothing to compare".to_owned());
        }
        if self.rows_applied == 0 {
            problems.push("nothing was mirrored".to_owned());
        }
        self.passed = problems.is_empty();
        self.problems = problems;
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use pgshadow_model::{Cause, Kind, Severity};

    /// The planted finding, healed.
    pub fn finding() -> FindingView {
        FindingView {
            id: 1,
            kind: Kind::MissingRow,
            cause: Cause::WrittenBehind,
            severity: Severity::Error,
            table: Some("public.customers".into()),
            key: Some("id=7".into()),
            column: None,
            primary: Some("(7,gold)".into()),
            shadow: None,
            sqlstate: None,
            message: None,
            sql: Some("UPDATE customers SET tier = 'gold' WHERE id = 7".into()),
            fingerprint: "00ff".into(),
            xid: Some(800),
            lsn: Some("0/16B3748".into()),
            user: Some("app".into()),
            application: Some("pgshadow-demo".into()),
            healed: true,
            count: 1,
            first_seen: "2026-11-22T10:00:00Z".into(),
            last_seen: "2026-11-22T10:00:00Z".into(),
            acknowledged: false,
        }
    }

    /// All as it should be.
    pub fn good() -> Summary {
        let mut summary = Summary {
            version: "0.1.0",
            source_version: "PostgreSQL 15.18".into(),
            target_version: "PostgreSQL 18.6".into(),
            built: BUILT,
            clients: 8,
            load_seconds: 15.0,
            total_seconds: 24.5,
            statements: 40_000,
            transactions: 12_000,
            transactions_rolled_back: 400,
            transactions_refused: 90,
            transactions_mirrored: 10_000,
            rows_captured: 24_000,
            rows_applied: 23_000,
            rows_compared_on_apply: 23_000,
            lag_peak: Lag { entries: 300, bytes: 100_000, ms: 210 },
            lag_at_load_end: Lag { entries: 30, bytes: 10_000, ms: 12 },
            lag_end: Lag::default(),
            drain_ms: 35,
            findings: vec![finding()],
            healed_rows: 1,
            suspect_tables: Vec::new(),
            tables: vec![TableEquality {
                table: "public.customers".into(),
                equal: true,
                rows: 2000,
                ..TableEquality::default()
            }],
            rows_compared: 2000,
            backfilled: Backfilled { tables: 1, rows: 2000, seconds: 0.5 },
            verified: Verified { equal: 1, unequal: Vec::new(), rows: 2000, held_ms: 5.0 },
            flipped: None,
            passed: false,
            problems: Vec::new(),
        };
        summary.judge();
        summary
    }

    fn problems(change: impl FnOnce(&mut Summary)) -> Vec<String> {
        let mut summary = good();
        change(&mut summary);
        summary.judge();
        assert_eq!(summary.passed, summary.problems.is_empty());
        summary.problems
    }

    #[test]
    fn the_planted_finding_alone_is_right() {
        assert_eq!(problems(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn everything_else_is_named() {
        type Change = fn(&mut Summary);
        let cases: [(Change, &str); 10] = [
            (|s| s.findings.clear(), "not found"),
            (|s| s.findings.push(finding()), "found 2 times"),
            (|s| s.findings[0].healed = false, "not healed"),
            (|s| s.findings.push(FindingView { kind: Kind::Value, ..finding() }), "an unexpected finding: Value"),
            (|s| s.healed_rows = 2, "2 rows were healed"),
            (
                |s| {
                    let (table, reason, since) = ("public.events".into(), "COPY".into(), String::new());
                    s.suspect_tables.push(SuspectTable { table, reason, since });
                },
                "public.events is suspect: COPY",
            ),
            (|s| s.tables[0].equal = false, "public.customers differs"),
            (|s| s.rows_applied = 0, "nothing was mirrored"),
            (|s| s.verified.unequal.push("public.events".into()), "verify, under load: not equal: public.events"),
            (|s| s.verified.equal = 0, "verify compared nothing"),
        ];
        for (change, expected) in cases {
            let found = problems(change);
            assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}: {found:?}");
        }
    }
}
