//! What commands print: tables for people, JSON for programs.
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, Write};

/// Longer lines of a table are wrapped.
const WIDTH: u16 = 120;

/// A table with these headings.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH);
    if !headings.is_empty() {
        table.set_header(headings);
    }
    table
}

/// Prints text with a line end. A reader that went away (`| head`) is no error.
///
/// # Errors
/// When stdout can't be written.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints one JSON document.
///
/// # Errors
/// When stdout can't be written.
pub fn print_json(value: &impl Serialize) -> Result<(), crate::failure::Failure> {
    print(&serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// Bytes as people read them.
pub fn bytes(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

/// Milliseconds as people read them.
pub fn milliseconds(ms: u64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms)).to_string()
}

/// Data of the databases can't drive the terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() && character != '\n' { '\u{fffd}' } else { character })
        .collect()
}
