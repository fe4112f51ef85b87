//! For tests: one line per applied row, so that the order can be judged from outside.

use crate::Error;
use crate::entry::Loaded;
use pgshadow_model::{Change, Operation, RowImage, Sequence};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

pub(crate) struct Trace {
    file: File,
    applied: u64,
}

impl Trace {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::options().create(true).append(true).open(path).map_err(Error::Trace)?;
        Ok(Self { file, applied: 0 })
    }

    pub(crate) fn write(&mut self, entries: &[Loaded]) -> Result<(), Error> {
        let mut lines = String::new();
        for entry in entries {
            self.applied += 1;
            for change in entry.changes.iter() {
                let Change::Row(image) = change else { continue };
                let order = entry.order;
                let _ = writeln!(
                    lines,
                    "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
                    image.relation.name,
                    key_hex(image, entry.sequence),
                    order.epoch.0,
                    order.token.0,
                    order.xid,
                    entry.sequence,
                    entry.reply_number,
                    self.applied
                );
            }
        }
        self.file.write_all(lines.as_bytes()).map_err(Error::Trace)
    }
}

/// The key; of a table without one the whole row, as each stands for its equals. New rows of such a table come in any order.
fn key_hex(image: &RowImage, sequence: Sequence) -> String {
    let mut hex = String::new();
    let keyed = !image.relation.key.is_empty();
    if !keyed && image.operation == Operation::Insert {
        let _ = write!(hex, "new {sequence} ");
    }
    let all: Vec<u16> = (0..).take(image.values.len()).collect();
    for position in if keyed { &image.relation.key } else { &all } {
        for byte in image.values.get(usize::from(*position)).and_then(Option::as_deref).unwrap_or_default() {
            let _ = write!(hex, "{byte:02x}");
        }
        hex.push('.');
    }
    hex
}
