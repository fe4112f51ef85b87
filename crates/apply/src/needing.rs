//! Rows of a statement that can't be written one by one in the order in which they came.

use crate::Error;
use crate::failure::shadow_error;
use crate::lane::refers_to_itself;
use crate::target::Target;
use pgshadow_model::{Change, QualifiedName, RowImage};
use std::collections::HashSet;

/// Rows that can be written once others of the same statement are: of a table that refers to itself, or of one whose key moves
/// from row to row while others refer to it.
#[derive(Default)]
pub(crate) struct Waiting {
    pub rows: Vec<(u32, RowImage)>,
    keys: HashSet<Target>,
}

impl Waiting {
    pub(crate) fn add(&mut self, n: u32, image: &RowImage) {
        self.rows.push((n, image.clone()));
        self.keys.extend(Target::of(image));
    }

    /// Whether they must be tried again before this change: it isn't of the same statement, whose end found them in place.
    pub(crate) fn come_before(&self, change: &Change) -> bool {
        let Some((_, last)) = self.rows.last() else { return false };
        match change {
            Change::Row(image) => {
                let other = if refers_to_itself(&last.relation) {
                    image.operation != last.operation
                } else {
                    // one statement may both insert and update
                    image.relation.name != last.relation.name
                };
                other || self.has(image)
            }
            // it changes nothing, and what comes behind it will tell
            Change::Statement(_) => false,
            _ => true,
        }
    }

    pub(crate) fn has_rows_of(&self, table: &QualifiedName) -> bool {
        self.rows.iter().any(|(_, image)| image.relation.name == *table)
    }

    /// Whether what still doesn't go ahead of this change never will: it would undo a later change of its row, or nothing that comes
    /// behind its statement can be what it waits for.
    pub(crate) fn end_before(&self, change: &Change) -> bool {
        let undoes = !matches!(change, Change::Row(image) if !self.has(image));
        undoes || !self.rows.iter().any(|(_, image)| refers_to_itself(&image.relation))
    }

    fn has(&self, image: &RowImage) -> bool {
        Target::of(image).iter().any(|target| self.keys.contains(target))
    }
}

/// Whether this row may be written once others of its table are (`others`: some of them wait already).
pub(crate) fn may_wait(image: &RowImage, error: &Error, others: bool) -> bool {
    match (error, shadow_error(error).sqlstate.as_str()) {
        (Error::Postgres(e), "23503") => {
            // the error names the table that refers: another one, where it is this one's key that is missing then
            let named = e.as_db_error().and_then(|e| Some(QualifiedName::new(e.schema()?, e.table()?)));
            refers_to_itself(&image.relation) || named.is_some_and(|table| table != image.relation.name)
        }
        // the value that it takes may be free once that one is written
        (_, "23505") => others,
        _ => false,
    }
}
