//! What a restart must know, in one small file that is replaced as a whole.
use crate::State;
use pgshadow_model::Place;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Its name, in the directory of the first log.
const NAME: &str = "cutover.json";

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read or written.
    #[error("the journal of cutovers {path} can't be {what}: {source}")]
    File {
        /// Its path.
        path: PathBuf,
        /// "read" or "written".
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It isn't known which of two states it has on disk.
    #[error(
        "the journal of cutovers {path} was not written for certain: {source}; pgshadow ends, and begins with what is there"
    )]
    Torn {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It isn't one.
    #[error(
        "the journal of cutovers {path} can't be understood: {source}. It says which database is the primary: don't remove it; bring the file back from \
         where it was kept, or begin a new migration in another [mirror_log] directory"
    )]
    Content {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// How far the migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It goes on.
    #[default]
    UnderWay,
    /// It was ended before a flip.
    Aborted,
    /// It was ended after it.
    Finalized,
}

/// What clients may do on a database that was the primary, as it was before they were kept off.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rights {
    /// Who has CONNECT, and whether with grant option; `None` is PUBLIC.
    pub connect: Vec<(Option<String>, bool)>,
    /// `default_transaction_read_only` of the database, where it has one.
    pub read_only: Option<String>,
    /// That of pgshadow's own role there.
    pub own_read_only: Option<String>,
}

/// That a flip and the way back were rehearsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// When, RFC 3339 UTC.
    pub at: String,
    /// Of which schema and versions: what [`Rehearsed`] was asked with then.
    pub of: String,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Flips that were committed.
    pub era: u64,
    /// Where the primary is.
    pub primary: Place,
    /// Where the present flip is.
    pub state: State,
    /// The migration's.
    #[serde(default)]
    pub standing: Standing,
    /// Rights of before on the source, where its clients are kept off, or are about to be.
    #[serde(default)]
    pub source: Option<Rights>,
    /// The same of the target.
    #[serde(default)]
    pub target: Option<Rights>,
    /// A rehearsal is there, and not back yet.
    #[serde(default)]
    pub rehearsing: bool,
    /// The last rehearsal.
    #[serde(default)]
    pub rehearsed: Option<Rehearsed>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            era: 0,
            primary: Place::Source,
            state: State::Idle,
            standing: Standing::UnderWay,
            source: None,
            target: None,
            rehearsing: false,
            rehearsed: None,
        }
    }
}

impl Kept {
    /// Rights of before there.
    pub fn rights(&mut self, place: Place) -> &mut Option<Rights> {
        match place {
            Place::Source => &mut self.source,
            Place::Target => &mut self.target,
        }
    }
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    kept: Mutex<Kept>,
}

impl Journal {
    /// Reads the one in this directory, which exists; without one nothing was flipped yet.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(NAME);
        let kept = match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| Error::Content { path: path.clone(), source })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(source) => return Err(Error::File { path, what: "read", source }),
        };
        Ok(Self { path, kept: Mutex::new(kept) })
    }

    /// What is kept.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it, durably: on disk when this returns. After [`Error::File`] all is as before, on disk as well.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Torn`]: what is on disk isn't known, so the process has to end, and the next one goes by what it finds.
    pub fn keep(&self, change: impl FnOnce(&mut Kept)) -> Result<(), Error> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = kept.clone();
        change(&mut next);
        let Err(source) = self.write(&next) else {
            *kept = next;
            return Ok(());
        };
        // it may be there all the same, for as long as the machine lives
        match fs::read(&self.path).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok()) {
            Some(there) if there == *kept => {}
            None if !self.path.exists() => {}
            _ => self.write(&kept).map_err(|source| Error::Torn { path: self.path.clone(), source })?,
        }
        Err(Error::File { path: self.path.clone(), what: "written", source })
    }

    fn write(&self, kept: &Kept) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(kept)?;
        text.push(b'\n');
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_there_again() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        assert_eq!(journal.kept(), Kept::default());
        let rights = Rights { connect: vec![(None, false), (Some("a \"b".into()), true)], ..Rights::default() };
        journal
            .keep(|kept| {
                (kept.era, kept.primary, kept.state) = (3, Place::Target, State::Committed);
                *kept.rights(Place::Source) = Some(rights.clone());
            })
            .unwrap();
        let again = Journal::open(directory.path()).unwrap().kept();
        assert_eq!(again, journal.kept());
        assert_eq!((again.era, again.source), (3, Some(rights)));
    }

    #[test]
    fn a_journal_that_is_none_is_refused_and_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NAME);
        fs::write(&path, "{\"era\": 1").unwrap();
        let error = Journal::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("cutover.json") && error.contains("don't remove it"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"era\": 1");
    }

    #[test]
    fn what_can_not_be_written_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        fs::create_dir(directory.path().join("cutover.new")).unwrap();
        let error = journal.keep(|kept| kept.era = 1).unwrap_err().to_string();
        assert!(error.contains("can't be written"), "{error}");
        assert_eq!(journal.kept(), Kept::default());
    }
}
