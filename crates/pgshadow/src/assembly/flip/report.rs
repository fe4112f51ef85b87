//! What a flip is told of: kept as one file each.
use super::Stop;
use crate::assembly::task::now;
use pgshadow_admin::{FlipOutcome, FlipReport, Moment};
use pgshadow_model::Place;
use pgshadow_proxy::Sessions;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// A report that grows.
pub(super) struct Telling {
    pub report: FlipReport,
    begun: Instant,
    held: Option<Instant>,
    /// Sessions that had been moved, and ended, before.
    before: (u64, u64),
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Telling {
    /// `before`: sessions that had been moved, and ended, by then.
    pub fn new(from: Place, to: Place, before: (u64, u64)) -> Self {
        let report = FlipReport {
            started: now(),
            from,
            to,
            outcome: FlipOutcome::Undone,
            reason: None,
            gates: Vec::new(),
            unmovable: Vec::new(),
            waited_for: Vec::new(),
            predicted_pause_ms: None,
            pause_us: None,
            held: 0,
            added_us: None,
            moved: 0,
            ended: 0,
            sequences: 0,
            timeline: Vec::new(),
        };
        Self { report, begun: Instant::now(), held: None, before }
    }

    pub fn at(&mut self, what: &str) {
        self.report.timeline.push(Moment { at_us: us(self.begun.elapsed()), what: what.to_owned() });
    }

    pub fn held(&mut self) {
        self.at("new transactions are held");
        self.held = Some(Instant::now());
    }

    pub fn resumed(&mut self) {
        self.report.pause_us = self.held.map(|since| us(since.elapsed()));
        self.at("all goes on");
    }

    /// What clients saw of it.
    pub fn sessions(&mut self, sessions: &Sessions) {
        let mut waits: Vec<u64> = sessions.take_waits().into_iter().map(us).collect();
        waits.sort_unstable();
        self.report.held += waits.len() as u64;
        let at =
            |share: f64| waits.get(((waits.len() as f64 * share) as usize).min(waits.len().saturating_sub(1))).copied();
        self.report.added_us =
            at(0.5).zip(at(0.99)).zip(waits.last().copied()).map(|((p50, p99), max)| [p50, p99, max]);
        let (moved, ended) = sessions.moved();
        (self.report.moved, self.report.ended) =
            (moved.saturating_sub(self.before.0), ended.saturating_sub(self.before.1));
    }

    /// As it is in the end.
    pub fn end(&mut self, stopped: Option<Stop>) -> FlipReport {
        self.report.outcome = match &stopped {
            None => FlipOutcome::Flipped,
            Some(Stop::DryRun) => FlipOutcome::DryRun,
            Some(Stop::Refused(_)) => FlipOutcome::Refused,
            Some(Stop::Failed(_) | Stop::Torn(_)) => FlipOutcome::Undone,
        };
        self.report.reason = stopped.filter(|stop| !matches!(stop, Stop::DryRun)).map(|stop| stop.to_string());
        self.report.clone()
    }
}

/// Keeps it, by when it began.
pub(super) fn keep(directory: &Path, report: &FlipReport) {
    let path = directory.join(format!("{}.json", report.started.replace(':', "")));
    let text = serde_json::to_vec_pretty(report).unwrap_or_default();
    let kept = fs::create_dir_all(directory).and_then(|()| fs::write(&path, text));
    if let Err(error) = kept {
        tracing::warn!(path = %path.display(), %error, "the report of a flip could not be kept");
    }
}

/// All that are kept, oldest first.
pub(super) fn read(directory: &Path) -> Vec<FlipReport> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let report = serde_json::from_slice(&fs::read(path).ok()?);
        report
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "the report of a flip can't be read"))
            .ok()
    };
    paths.iter().filter_map(read).collect()
}
