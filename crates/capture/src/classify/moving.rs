//! Rows that a write moves to another partition than it finds them in.
use super::{Context, Target};
use pgshadow_catalog::{Routing, Table};
use pgshadow_model::Operation;
use pgshadow_sql::{Statement, Write};

/// From here the server leaves out partitions of what it writes when a statement begins, by its parameters or by what stable
/// functions give. Where the first one is left out, it takes what RETURNING names from the places that the columns have there, even
/// of a row that moves to a partition with other places: an error, or values of other columns.
const LEAVES_OUT: u32 = 180_000;

impl Context<'_> {
    /// Whether the server may mix up the columns of what the write returns, or refuse to return it.
    pub(crate) fn mixes_up(&self, statement: &Statement, target: &Target, write: &Write, operation: Operation) -> bool {
        let table = &target.table;
        let Some(routing) = table.routing.as_ref().filter(|routing| routing.mixed) else { return false };
        self.identity.version >= LEAVES_OUT
            // what MERGE inserts goes to whatever partition
            && (statement.is_merge()
                || operation == Operation::Update
                    && self.may_move(table, routing, write)
                    // then it is known when it is planned which partitions are left out
                    && !(write.constant_condition && !target.is_view() && !self.masked))
    }

    fn may_move(&self, table: &Table, routing: &Routing, write: &Write) -> bool {
        let by_trigger = |name: &String| {
            self.functions.trigger_names_any(name, routing.columns.iter().map(String::as_str)) || routing.expressions
        };
        !write.assigned.is_empty()
            && (routing.expressions
                || routing.columns.iter().any(|column| write.assigned.contains(column))
                || table.before_triggers && table.trigger_functions.iter().any(by_trigger))
    }
}
