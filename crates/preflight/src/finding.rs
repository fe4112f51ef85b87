use pgshadow_model::Place;
use serde::{Deserialize, Serialize};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The migration fails, or its result is wrong, until this is mended.
    Block,
    /// It will be felt.
    Warn,
    /// To be known.
    Note,
}

/// How sure it is that what is said will happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sure {
    /// It follows from what was read.
    Certain,
    /// It does as a rule.
    Likely,
    /// It depends on what can't be read.
    Possible,
}

/// What must not begin before something that blocks is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Loading the target, and all that comes after.
    Load,
    /// The cutover.
    Flip,
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// Of what blocks: which step.
    pub blocks: Option<Step>,
    /// The check's name.
    pub check: String,
    /// On which side it is to be mended.
    pub place: Place,
    /// What it is about: a table, a role, a process.
    pub subject: String,
    /// What will happen.
    pub happens: String,
    /// How sure that is.
    pub sure: Sure,
    /// Statements or a command that mend it; `None`: it needs a decision, or none can.
    pub mend: Option<String>,
}

impl Finding {
    /// Of the check that runs, certain, without a mend.
    pub(crate) fn new(level: Level, place: Place, subject: impl Into<String>, happens: impl Into<String>) -> Self {
        let (subject, happens) = (subject.into(), happens.into());
        let blocks = (level == Level::Block).then_some(Step::Flip);
        Self { level, blocks, check: String::new(), place, subject, happens, sure: Sure::Certain, mend: None }
    }

    pub(crate) fn block(place: Place, subject: impl Into<String>, happens: impl Into<String>) -> Self {
        Self::new(Level::Block, place, subject, happens)
    }

    pub(crate) fn warn(place: Place, subject: impl Into<String>, happens: impl Into<String>) -> Self {
        Self::new(Level::Warn, place, subject, happens)
    }

    pub(crate) fn note(place: Place, subject: impl Into<String>, happens: impl Into<String>) -> Self {
        Self::new(Level::Note, place, subject, happens)
    }

    /// What blocks is in a load's way already, and nothing that loads would see it before it has begun.
    pub(crate) fn before_load(mut self) -> Self {
        self.blocks = self.blocks.map(|_| Step::Load);
        self
    }

    pub(crate) fn sure(mut self, sure: Sure) -> Self {
        self.sure = sure;
        self
    }

    pub(crate) fn mend(mut self, statement: impl Into<String>) -> Self {
        self.mend = Some(statement.into());
        self
    }
}

/// Findings of each level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of [`Level::Block`].
    pub block: usize,
    /// Of [`Level::Warn`].
    pub warn: usize,
    /// Of [`Level::Note`].
    pub note: usize,
}

/// A check that did not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRun {
    /// Its name.
    pub check: String,
    /// Why.
    pub why: String,
}

/// What all checks found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The findings: by level, then in the order in which they are best mended.
    pub findings: Vec<Finding>,
    /// Whether one of them blocks.
    pub blocked: bool,
    /// How many there are.
    pub counts: Counts,
    /// Names of the checks that ran.
    pub ran: Vec<String>,
    /// Those that did not.
    pub not_run: Vec<NotRun>,
}

impl Report {
    /// Sorts findings, which come in the order of checks, by level.
    pub(crate) fn new(mut findings: Vec<Finding>, ran: Vec<String>, not_run: Vec<NotRun>) -> Self {
        findings.sort_by_key(|finding| finding.level);
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        let counts = Counts { block: count(Level::Block), warn: count(Level::Warn), note: count(Level::Note) };
        Self { blocked: counts.block > 0, findings, counts, ran, not_run }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_worst_first_and_keeps_the_order_of_checks() {
        let note = Finding::note(Place::Source, "a", "x");
        let (first, second) =
            (Finding::block(Place::Target, "b", "x").mend("SELECT 1"), Finding::block(Place::Target, "c", "x"));
        let report = Report::new(vec![note, first, second], vec!["any".into()], Vec::new());
        let subjects: Vec<_> = report.findings.iter().map(|finding| finding.subject.as_str()).collect();
        assert_eq!((subjects, report.blocked), (vec!["b", "c", "a"], true));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["counts"], serde_json::json!({"block": 2, "warn": 0, "note": 1}));
        let expected = serde_json::json!({"level": "block", "blocks": "flip", "check": "", "place": "target", "subject": "b",
            "happens": "x", "sure": "certain", "mend": "SELECT 1"});
        assert_eq!(json["findings"][0], expected);
        assert!(!Report::new(Vec::new(), Vec::new(), Vec::new()).blocked);
        assert_eq!(Finding::block(Place::Source, "a", "x").before_load().blocks, Some(Step::Load));
        assert_eq!(Finding::warn(Place::Source, "a", "x").before_load().blocks, None);
    }
}
