use std::fmt;
use std::path::PathBuf;

/// What is wrong with the configuration: one line that names the place, the cause and the remedy. Never a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file isn't there, or may not be read.
    #[error("can't read the configuration {}: {reason}; name the file with -c FILE", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is no TOML.
    #[error("{place}: not valid TOML: {reason}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser said.
        reason: String,
    },
    /// There is no such key.
    #[error("{place}: unknown key {key:?}; the nearest known one is {nearest:?}")]
    UnknownKey {
        /// Where.
        place: Place,
        /// As written.
        key: String,
        /// What may have been meant.
        nearest: String,
    },
    /// A value can't be.
    #[error("{place}: {key} {reason}")]
    Wrong {
        /// Where.
        place: Place,
        /// `section.key`.
        key: String,
        /// What it must be, and what it is.
        reason: String,
    },
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of the file, from 1.
    Line(PathBuf, usize),
    /// The file, but no line of it.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(path, line) => write!(f, "{} line {line}", path.display()),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}
