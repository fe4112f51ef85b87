//! How far a long command is.
use crate::output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::Instant;

/// Pause between two looks.
pub(super) const LOOKS_EVERY: Duration = Duration::from_millis(200);
/// Pause between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar on a terminal, else a line now and then.
pub(super) struct Screen {
    name: &'static str,
    bar: ProgressBar,
    lines: Option<std::cell::Cell<Instant>>,
}

impl Screen {
    /// For this command.
    pub(super) fn new(name: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        let lines = (!std::io::stderr().is_terminal()).then(|| std::cell::Cell::new(Instant::now()));
        Self { name, bar, lines }
    }

    /// So many bytes of so many are done; and more in words.
    pub(super) fn show(&self, done: u64, all: u64, text: String) {
        self.bar.set_length(all);
        self.bar.set_position(done.min(all));
        if let Some(last) = self.lines.as_ref().filter(|last| last.get().elapsed() >= LINE_EVERY) {
            last.set(Instant::now());
            eprintln!("{}: {} of {}, {text}", self.name, output::bytes(done), output::bytes(all));
        }
        self.bar.set_message(text);
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
