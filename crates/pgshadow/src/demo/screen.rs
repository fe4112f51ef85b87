//! What people see: what happens now, then the results.
use super::summary::Summary;
use crate::failure::Failure;
use crate::output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pgshadow_admin::{FindingView, Lag};
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Width of the first column.
const NAME: usize = 12;
/// Where there is no terminal, the load says how it goes this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where a demo is shown.
#[derive(Debug)]
pub struct Screen {
    /// Only the JSON at the end.
    quiet: bool,
    terminal: bool,
}

/// A load that is going on.
#[derive(Debug)]
pub struct LoadProgress<'a> {
    screen: &'a Screen,
    bar: ProgressBar,
    begun: Instant,
    length: Duration,
    next_line: Duration,
}

impl Screen {
    /// `quiet`: only what is asked for at the end.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, terminal: stderr().is_terminal() }
    }

    /// Plain text.
    ///
    /// # Errors
    /// When stdout can't be written.
    pub fn say(&self, text: &str) -> std::io::Result<()> {
        if self.quiet { Ok(()) } else { output::print(text) }
    }

    /// Something that must be known: on stderr where stdout is for JSON.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn insist(&self, name: &str, text: &str) -> std::io::Result<()> {
        if self.quiet { writeln!(stderr(), "pgshadow: {name}: {text}") } else { self.done(name, text) }
    }

    /// Something that was done.
    ///
    /// # Errors
    /// When stdout can't be written.
    pub fn done(&self, name: &str, text: &str) -> std::io::Result<()> {
        self.say(&format!("  {name:NAME$}  {text}"))
    }

    /// On a terminal, what goes on now, until the value is dropped.
    pub fn now(&self, text: &str) -> Spinner {
        let bar = self.bar(0);
        bar.set_style(ProgressStyle::default_spinner().tick_chars(r"|/-\ "));
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(bar)
    }

    /// A progress bar for the load; lines where there is no terminal.
    pub fn load(&self, length: Duration) -> LoadProgress<'_> {
        let bar = self.bar(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        if let Ok(style) = ProgressStyle::with_template("  load          [{bar:16}] {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        LoadProgress { screen: self, bar, begun: Instant::now(), length, next_line: LINE_EVERY }
    }

    fn bar(&self, length: u64) -> ProgressBar {
        let shown = self.terminal && !self.quiet;
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        ProgressBar::with_draw_target(Some(length), target)
    }
}

/// Something that goes on now.
#[derive(Debug)]
pub struct Spinner(ProgressBar);

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl LoadProgress<'_> {
    /// How far it is.
    ///
    /// # Errors
    /// When stdout can't be written.
    pub fn update(&mut self, statements: u64, lag: Lag) -> std::io::Result<()> {
        let elapsed = self.begun.elapsed().min(self.length);
        let left = (self.length - elapsed).as_secs_f64().ceil();
        let rate = statements as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let text = format!(
            "{} statements, {}/s, lag {}, {left:.0} s left",
            grouped(statements),
            grouped(rate as u64),
            grouped(lag.entries),
        );
        self.bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        self.bar.set_message(text.clone());
        if !self.screen.terminal && elapsed >= self.next_line && elapsed < self.length {
            self.next_line += LINE_EVERY;
            self.screen.done("", &text)?;
        }
        Ok(())
    }

    /// A line above the bar.
    ///
    /// # Errors
    /// When stdout can't be written.
    pub fn done(&self, name: &str, text: &str) -> std::io::Result<()> {
        self.bar.suspend(|| self.screen.done(name, text))
    }
}

impl Drop for LoadProgress<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Prints what was found, compared and measured.
///
/// # Errors
/// When stdout can't be written.
pub fn results(summary: &Summary, json: bool) -> Result<(), Failure> {
    if json {
        return output::print_json(summary);
    }
    let mut text = String::new();
    for finding in &summary.findings {
        text.push_str(&format!("\nFinding {}\n{}", finding.id, evidence(finding)));
    }
    text.push_str("\nBoth databases, row for row, compared without pgshadow\n");
    let widest = summary.tables.iter().map(|table| table.table.len()).max().unwrap_or(0);
    for table in &summary.tables {
        let rows = format!("{} rows", grouped(table.rows));
        let verdict = match (&table.example, table.equal) {
            (_, true) => "equal".to_owned(),
            (example, false) => format!("DIFFERS  {}", example.as_deref().unwrap_or_default()),
        };
        text.push_str(&format!("  {:widest$}  {rows:>14}  {verdict}\n", table.table));
    }
    text.push_str("\nSummary\n");
    for (name, value) in measured(summary) {
        text.push_str(&format!("  {name:22}  {value}\n"));
    }
    text.push('\n');
    if summary.passed {
        text.push_str("Passed: the planted difference was found and healed, nothing else differs.");
    } else {
        text.push_str("FAILED\n");
        text.push_str(&summary.problems.iter().map(|problem| format!("  {problem}\n")).collect::<String>());
        text.push_str("`pgshadow demo --keep` leaves databases and logs to look at.");
    }
    output::print(text.trim_end())?;
    Ok(())
}

fn evidence(finding: &FindingView) -> String {
    let word = |value: serde_json::Result<serde_json::Value>| {
        value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let rows = [
        ("kind", Some(word(serde_json::to_value(finding.kind)))),
        ("cause", Some(word(serde_json::to_value(finding.cause)))),
        ("table", finding.table.clone()),
        ("key", finding.key.clone()),
        ("column", finding.column.clone()),
        ("primary", finding.primary.clone()),
        ("shadow", Some(finding.shadow.clone().unwrap_or_else(|| "(no such row)".to_owned()))),
        ("sqlstate", finding.sqlstate.clone()),
        ("message", finding.message.clone()),
        ("sql", finding.sql.clone()),
        ("xid", finding.xid.map(|xid| xid.to_string())),
        ("lsn", finding.lsn.clone()),
        ("written by", finding.user.clone()),
        ("application", finding.application.clone()),
        ("seen", Some(format!("{}, {}", finding.first_seen, times(finding.count)))),
        ("healed", Some(if finding.healed { "yes" } else { "NO" }.to_owned())),
    ];
    let present = rows.into_iter().filter_map(|(name, value)| Some((name, value?)));
    present.map(|(name, value)| format!("  {name:NAME$}  {}\n", printable(&value))).collect()
}

fn measured(summary: &Summary) -> Vec<(&'static str, String)> {
    let Summary { lag_peak, lag_at_load_end, .. } = summary;
    let lag = |lag: &Lag| format!("{} transactions, {} ms", grouped(lag.entries), grouped(lag.ms));
    vec![
        ("from, to", format!("{}, {}", summary.source_version, summary.target_version)),
        ("load", format!("{} clients for {:.1} s", summary.clients, summary.load_seconds)),
        ("statements sent", grouped(summary.statements)),
        (
            "transactions",
            format!(
                "{} committed, {} rolled back, {} refused by the source",
                grouped(summary.transactions),
                grouped(summary.transactions_rolled_back),
                grouped(summary.transactions_refused),
            ),
        ),
        (
            "writes mirrored",
            format!(
                "{} row images captured, {} transactions in the log",
                grouped(summary.rows_captured),
                grouped(summary.transactions_mirrored),
            ),
        ),
        (
            "rows applied",
            format!(
                "{}, of which {} were compared as they were applied",
                grouped(summary.rows_applied),
                grouped(summary.rows_compared_on_apply),
            ),
        ),
        ("lag at its peak", lag(lag_peak)),
        ("lag at the load's end", format!("{}, drained in {} ms", lag(lag_at_load_end), grouped(summary.drain_ms))),
        ("lag at the end", lag(&summary.lag_end)),
        ("findings", format!("{}, healed rows {}", summary.findings.len(), summary.healed_rows)),
        ("suspect tables", summary.suspect_tables.len().to_string()),
        ("rows compared", format!("{} in {} tables", grouped(summary.rows_compared), summary.tables.len())),
        (
            "flips",
            summary.flipped.as_ref().map_or_else(String::new, |flipped| {
                format!(
                    "{}, pauses up to {:.0} ms, {} writes meanwhile, {} failed",
                    flipped.flips,
                    flipped.pause_max_ms,
                    grouped(flipped.acknowledged),
                    flipped.failed
                )
            }),
        ),
        ("all of it took", format!("{:.1} s", summary.total_seconds)),
        ("built so far", summary.built.to_owned()),
    ]
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// `12,345,678`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Data of the databases can't drive the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::{finding, good};
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        let expected = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (number, text) in expected {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn evidence_says_what_where_and_who() {
        let text = evidence(&finding());
        for expected in
            ["missing_row", "written_behind", "public.customers", "id=7", "0/16B3748", "(no such row)", "once"]
        {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
        assert!(!text.contains("sqlstate"), "{text}");
        assert!(!evidence(&FindingView { message: Some("\x1b[31m".into()), ..finding() }).contains('\x1b'));
    }

    #[test]
    fn the_summary_says_what_was_measured() {
        let lines = measured(&good());
        let value = |name: &str| lines.iter().find(|(found, _)| *found == name).unwrap().1.clone();
        assert_eq!(value("statements sent"), "40,000");
        assert_eq!(value("lag at its peak"), "300 transactions, 210 ms");
        assert_eq!(value("rows compared"), "2,000 in 1 tables");
        let json = serde_json::to_value(good()).unwrap();
        assert_eq!((&json["passed"], &json["findings"][0]["kind"]), (&true.into(), &"missing_row".into()));
    }
}
