//! Every kind of statement, section by section.
use crate::case::Case;

mod code;
mod concurrency;
mod copies;
mod definitions;
mod keys;
mod relations;
mod rights;
mod rows;
mod transactions;
mod values;

/// A table with a key and nine rows.
pub(crate) const T: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, s text);
    INSERT INTO t SELECT g, g * 10, 'row ' || g FROM generate_series(1, 9) g; ";

/// `T` and more.
fn t_and(more: &str) -> String {
    format!("{T}{more}")
}

/// All cases in the document's order.
pub fn all() -> Vec<Case> {
    let sections = [
        ("Rows", rows::cases()),
        ("Keys", keys::cases()),
        ("Relations", relations::cases()),
        ("Transactions", transactions::cases()),
        ("Several sessions", concurrency::cases()),
        ("COPY and TRUNCATE", copies::cases()),
        ("Functions, triggers, rules and what else writes unseen", code::cases()),
        ("Definitions", definitions::cases()),
        ("Rights", rights::cases()),
        ("Values, settings and names", values::cases()),
    ];
    let of = |(section, cases): (&'static str, Vec<Case>)| cases.into_iter().map(move |case| Case { section, ..case });
    sections.into_iter().flat_map(of).collect()
}
