//! The log of results, by which a run goes on where it was; and what is kept of a failure.
use crate::settings::Settings;
use crate::shrink::History;
use integration_tests::installation::{profile_directory, setting};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The log of one pgshadow's results.
#[derive(Debug)]
pub struct Journal {
    file: File,
    directory: PathBuf,
    done: BTreeSet<u64>,
}

/// What the log begins with: another pgshadow, or another share of statements, begins it anew.
fn heading(settings: &Settings) -> String {
    let path = setting("PGSHADOW_BIN").map_or_else(|| profile_directory().join("pgshadow"), PathBuf::from);
    let mut hasher = DefaultHasher::new();
    fs::read(&path).unwrap_or_default().hash(&mut hasher);
    format!("torture of pgshadow {:016x}, statements {:?}", hasher.finish(), settings.statements)
}

impl Journal {
    /// Opens it, and reads which seeds are done.
    pub fn open(settings: &Settings) -> std::io::Result<Journal> {
        let directory = settings.log.parent().map(Path::to_owned).unwrap_or_default();
        fs::create_dir_all(&directory)?;
        let heading = heading(settings);
        let old = fs::read_to_string(&settings.log).unwrap_or_default();
        let goes_on = !settings.again && old.lines().next() == Some(heading.as_str());
        let mut file =
            File::options().create(true).append(goes_on).write(true).truncate(!goes_on).open(&settings.log)?;
        let mut done = BTreeSet::new();
        if goes_on {
            done = old.lines().filter_map(seed_done).collect();
        } else {
            writeln!(file, "{heading}")?;
        }
        Ok(Journal { file, directory, done })
    }

    /// Whether this seed was run before.
    pub fn is_done(&self, seed: u64) -> bool {
        self.done.contains(&seed)
    }

    /// A line for the log and for whoever looks on.
    pub fn say(&mut self, line: &str) {
        println!("{line}");
        drop(writeln!(self.file, "{line}"));
    }

    /// A seed has come to its end.
    pub fn done(&mut self, seed: u64, failures: usize, summary: &str) {
        let word = if failures == 0 { "ok" } else { "FAILED" };
        self.say(&format!("seed {seed} done: {word}, {summary}"));
    }

    /// Writes a failing history as SQL for each session, with what is known of it; returns where.
    pub fn keep(&self, name: &str, history: &History) -> std::io::Result<PathBuf> {
        let directory = self.directory.join(name);
        drop(fs::remove_dir_all(&directory));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("schema.sql"), history.schema.ddl())?;
        for script in &history.scripts {
            fs::write(directory.join(format!("session-{:02}.sql", script.number)), script.sql())?;
        }
        fs::write(directory.join("verdict.txt"), format!("{}\n", history.verdict))?;
        fs::write(directory.join("pgshadow.log"), &history.verdict.log)?;
        for (name, log) in ["source", "target"].iter().zip(&history.verdict.servers) {
            fs::write(directory.join(format!("postgresql-{name}.log")), log)?;
        }
        Ok(directory)
    }
}

/// `seed 5 done: ok` is 5. Those that failed are run again.
fn seed_done(line: &str) -> Option<u64> {
    line.strip_prefix("seed ")?.split_once(" done: ok").and_then(|(number, _)| number.parse().ok())
}
