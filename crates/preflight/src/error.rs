use pgshadow_model::Place;

/// Why a server could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It refused, or was lost.
    #[error("the {}: {}", word(*place), describe(error))]
    Postgres {
        /// Which one.
        place: Place,
        /// What it said.
        error: tokio_postgres::Error,
    },
    /// No answer in time.
    #[error("the {} did not answer in time", word(*.0))]
    Timeout(Place),
}

/// `source` or `target`.
pub(crate) fn word(place: Place) -> &'static str {
    match place {
        Place::Source => "source",
        Place::Target => "target",
    }
}

/// What the server said, or what became of the connection.
fn describe(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |said| format!("{} ({})", said.message(), said.code().code()))
}
