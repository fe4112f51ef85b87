//! What an error of the shadow means for the lane.

use crate::Error;
use pgshadow_compare::ShadowError;

/// What is to be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The connection is gone, or of no use: make a new one and start from the position that the shadow holds.
    Lost,
    /// It will pass: roll back and try the same again.
    Again,
    /// The row's own doing.
    Row,
}

pub(crate) fn classify(error: &Error) -> Class {
    match error {
        Error::Postgres(e) => e.code().map_or(Class::Lost, |code| of_code(code.code())),
        _ => Class::Lost,
    }
}

fn of_code(code: &str) -> Class {
    match code {
        // the server goes down or comes up
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" => Class::Lost,
        // cancelled, lock not to be had, object in use, read only (a standby, a full disk's remedy), prepared statement lost
        "57014" | "55P03" | "55006" | "25006" | "26000" => Class::Again,
        c if c.starts_with("08") => Class::Lost,
        // deadlock and serialization, no resources (disk full, out of memory), the system's own errors
        c if c.starts_with("40") || c.starts_with("53") || c.starts_with("58") => Class::Again,
        _ => Class::Row,
    }
}

/// Whether the shadow's catalog may have changed under us, so that what is cached may be the fault.
pub(crate) fn is_stale(error: &Error) -> bool {
    let code = |e: &tokio_postgres::Error| e.code().map(|c| c.code().to_owned());
    matches!(error, Error::Postgres(e) if code(e).is_some_and(|c| c.starts_with("42") || c == "0A000" || c == "3F000"))
}

pub(crate) fn shadow_error(error: &Error) -> ShadowError {
    let db = match error {
        Error::Postgres(e) => e.as_db_error(),
        _ => None,
    };
    let Some(db) = db else {
        return ShadowError { sqlstate: "XX000".to_owned(), message: error.to_string(), own_key_taken: false };
    };
    let detail = db.detail().map_or_else(String::new, |d| format!(" ({d})"));
    ShadowError {
        sqlstate: db.code().code().to_owned(),
        message: format!("{}{detail}", db.message()),
        own_key_taken: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_again_and_what_the_row_did_is_its_own() {
        for again in ["40P01", "40001", "55P03", "57014", "53100", "25006", "53300"] {
            assert_eq!(of_code(again), Class::Again, "{again}");
        }
        for lost in ["57P01", "57P03", "08006"] {
            assert_eq!(of_code(lost), Class::Lost, "{lost}");
        }
        for row in ["23505", "22001", "42P01", "P0001"] {
            assert_eq!(of_code(row), Class::Row, "{row}");
        }
    }
}
