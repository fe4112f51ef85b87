//! The configuration: a TOML file, then `PGSHADOW__SECTION__KEY` from the environment, into plain structs.
//!
//! `file.rs` has the file's shape and every default, `document.rs` reads and names what is wrong with it,
//! `connection.rs` and `passfile.rs` understand connection strings, and this file turns words into types.
mod connection;
mod document;
mod error;
mod file;
mod passfile;
pub mod users;

#[cfg(test)]
mod tests;

pub use connection::{Database, Server};
pub use error::ConfigError;

use bytesize::ByteSize;
use document::Document;
use pgshadow_model::{Place, QualifiedName};
use pgshadow_verify::Limits;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The smallest mirror log that can work.
const LOG_SIZE_MIN: ByteSize = ByteSize::mib(1);
/// Connections that one thing may have to a server.
const CONNECTIONS_MAX: i64 = 64;

/// Everything that an operator can set. Passed by value; nothing of it is global.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: Listen,
    /// Who may.
    pub auth: Auth,
    /// Where the data is today.
    pub source: Database,
    /// Where it shall be.
    pub target: Database,
    /// The log between them.
    pub mirror_log: MirrorLog,
    /// What is mirrored.
    pub mirror: Mirror,
    /// How it is applied.
    pub apply: Apply,
    /// How the shadow is loaded.
    pub backfill: Backfill,
    /// How both databases are compared.
    pub verify: Reading,
    /// What is compared.
    pub compare: Compare,
    /// What is done about definitions that clients change.
    pub ddl: Ddl,
    /// What is run around a flip.
    pub cutover: Cutover,
    /// The windows.
    pub admin: Admin,
    /// For tests only.
    pub test: Test,
}

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// `host:port`.
    pub address: String,
    /// What happens to clients of another database.
    pub other_databases: OtherDatabases,
}

/// What happens to a client that asks for another database than the one that is migrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherDatabases {
    /// It gets an error.
    Refuse,
    /// It is passed through, unmirrored.
    Pass,
}

impl Word for OtherDatabases {
    const WORDS: &'static [(&'static str, Self)] = &[("refuse", Self::Refuse), ("pass", Self::Pass)];
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// The primary alone decides.
    Relay,
    /// pgshadow does.
    Scram {
        /// Where users and their secrets stand.
        users_file: Option<PathBuf>,
        /// What asks the primary for a user's secret.
        query: Option<String>,
    },
}

/// The modes of `[auth]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AuthMode {
    Relay,
    Scram,
}

impl Word for AuthMode {
    const WORDS: &'static [(&'static str, Self)] = &[("relay", Self::Relay), ("scram", Self::Scram)];
}

/// `[mirror_log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorLog {
    /// Where it lies, with the store of findings; relative to the working directory.
    pub directory: PathBuf,
    /// What a commit waits for.
    pub durability: Durability,
    /// Its limit.
    pub size_max_bytes: u64,
    /// What happens at the limit.
    pub on_full: OnFull,
}

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The disk: survives a crash of the machine.
    Fsync,
    /// The operating system: survives a crash of the process.
    Os,
}

impl Word for Durability {
    const WORDS: &'static [(&'static str, Self)] = &[("fsync", Self::Fsync), ("os", Self::Os)];
}

/// What happens when the log is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// Clients go on, mirroring doesn't; tables written meanwhile are suspect.
    StopMirroring,
    /// Writing clients wait.
    BlockWrites,
}

impl Word for OnFull {
    const WORDS: &'static [(&'static str, Self)] =
        &[("stop_mirroring", Self::StopMirroring), ("block_writes", Self::BlockWrites)];
}

/// `[mirror]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `false`: a plain proxy.
    pub enabled: bool,
    /// Tables that aren't mirrored.
    pub exclude: Vec<QualifiedName>,
}

/// `[apply]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apply {
    /// Connections to the shadow that apply at the same time.
    pub lanes: usize,
}

/// How tables are read, by `[backfill]` or `[verify]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Connections to each side.
    pub connections: usize,
    /// How fast they may be read.
    pub limits: Limits,
    /// When a snapshot is so old, what is left is read in another one.
    pub snapshot_age_max: Option<Duration>,
}

/// `[backfill]`
#[derive(Debug, Clone, PartialEq)]
pub struct Backfill {
    /// How tables are read.
    pub reading: Reading,
    /// Where `pg_dump` and `pg_restore` are, if that isn't to be found out.
    pub bindir: Option<PathBuf>,
}

/// `[compare]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compare {
    /// Share of the row-determined statements that also run on the shadow, from 0 to 1.
    pub statements: f64,
}

/// `[ddl]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ddl {
    /// What becomes of a statement that would keep others waiting.
    pub guard: DdlGuard,
    /// How long one may wait for its lock; `None`: as its session says.
    pub lock_timeout: Option<Duration>,
    /// From what age on a transaction that it would wait for is too old.
    pub oldest_transaction_max: Duration,
    /// From what size on a table is too large to be worked on under a lock.
    pub table_size_max_bytes: u64,
}

/// What becomes of a statement that would keep others waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DdlGuard {
    /// Nobody looks.
    Off,
    /// It is run, and the log says what was against it.
    Log,
    /// Its client gets an error.
    Refuse,
}

impl Word for DdlGuard {
    const WORDS: &'static [(&'static str, Self)] = &[("off", Self::Off), ("log", Self::Log), ("refuse", Self::Refuse)];
}

/// `[cutover]`
#[derive(Debug, Clone, PartialEq)]
pub struct Cutover {
    /// How many times as long as on the primary the p99 of clients' own statements may be on the shadow.
    pub latency_ratio_max: f64,
    /// What becomes of sessions that can't be taken along.
    pub unmovable: Unmovable,
    /// A program that is run before anything is held, and may veto.
    pub before: Option<PathBuf>,
    /// One that is told how it ended.
    pub after: Option<PathBuf>,
}

/// What becomes of sessions that can't be taken along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmovable {
    /// They are ended, upon which drivers connect again.
    End,
    /// There is no flip while there is one.
    Refuse,
}

impl Word for Unmovable {
    const WORDS: &'static [(&'static str, Self)] = &[("end", Self::End), ("refuse", Self::Refuse)];
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// `host:port` of the HTTP server.
    pub address: String,
}

/// `[test]`: hidden, and for pgshadow's own tests only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Test {
    /// Where to write one line for each row: epoch, token, xid, order of reply and of apply.
    pub trace: Option<PathBuf>,
    /// Committed transactions that are held before others are left in the log.
    pub held_entries: Option<usize>,
    /// A file that names a step: a flip waits in front of it for as long as the file does.
    pub flip_stops_at: Option<PathBuf>,
}

/// A closed list of words.
pub trait Word: Copy + PartialEq + 'static {
    /// Each value with its word in the file.
    const WORDS: &'static [(&'static str, Self)];

    /// The word in the file.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

impl Config {
    /// Reads the file and the process's environment.
    ///
    /// # Errors
    /// When the file can't be read, or a key or value is wrong; names the place, the cause and the remedy.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_text(path, &read(path)?, &environment())
    }

    /// The same for another direction, the `era`th since the migration began: its primary is `source` and its shadow `target`, and
    /// its log lies in a directory of its own.
    #[must_use]
    pub fn towards(&self, era: u64, primary: Place) -> Self {
        let mut config = self.clone();
        if primary == Place::Target {
            std::mem::swap(&mut config.source, &mut config.target);
        }
        if era > 0 {
            // the shadow was the primary: its clients' transactions are read-only by default since, and pgshadow's are not
            let options = config.target.postgres.get_options().unwrap_or_default();
            let options = format!("{options} -c default_transaction_read_only=off");
            config.target.postgres.options(&options);
            config.mirror_log.directory = self.mirror_log.directory.join("eras").join(era.to_string());
        }
        config
    }

    /// Reads only where the running proxy answers: who asks it needs neither the databases nor their passwords.
    ///
    /// # Errors
    /// When the file can't be read, a key is unknown or the address is wrong.
    pub fn load_admin(path: &Path) -> Result<Admin, ConfigError> {
        let (file, document) = Document::read(path, &read(path)?, &environment())?;
        Ok(Admin { address: address(&document, "admin.address", &file.admin.address)? })
    }

    fn from_text(path: &Path, text: &str, variables: &[(String, String)]) -> Result<Self, ConfigError> {
        let (file, document) = Document::read(path, text, variables)?;
        let config = Self {
            listen: Listen {
                address: address(&document, "listen.address", &file.listen.address)?,
                other_databases: document.word("listen.other_databases", &file.listen.other_databases)?,
            },
            auth: auth(&document, &file.auth)?,
            source: database(&document, "source.url", &file.source.url, variables)?,
            target: database(&document, "target.url", &file.target.url, variables)?,
            mirror_log: mirror_log(&document, &file.mirror_log)?,
            mirror: Mirror {
                enabled: file.mirror.enabled,
                exclude: file
                    .mirror
                    .exclude
                    .iter()
                    .map(|name| table(name).map_err(|reason| document.wrong("mirror.exclude", reason)))
                    .collect::<Result<_, _>>()?,
            },
            apply: Apply { lanes: connections(&document, "apply.lanes", file.apply.lanes)? },
            backfill: backfill(&document, file.backfill)?,
            verify: reading(&document, "verify", &file.verify)?,
            ddl: ddl(&document, &file.ddl)?,
            compare: Compare { statements: share(&document, "compare.statements", file.compare.statements)? },
            cutover: Cutover {
                latency_ratio_max: ratio(&document, "cutover.latency_ratio_max", file.cutover.latency_ratio_max)?,
                unmovable: document.word("cutover.unmovable", &file.cutover.unmovable)?,
                before: program(&file.cutover.before),
                after: program(&file.cutover.after),
            },
            admin: Admin { address: address(&document, "admin.address", &file.admin.address)? },
            test: Test {
                trace: Some(file.test.trace).filter(|trace| !trace.is_empty()).map(PathBuf::from),
                flip_stops_at: Some(file.test.flip_stops_at).filter(|path| !path.is_empty()).map(PathBuf::from),
                held_entries: usize::try_from(file.test.held_entries).ok().filter(|entries| *entries > 0),
            },
        };
        config.check(&document)?;
        Ok(config)
    }

    /// What no key can know alone.
    fn check(&self, document: &Document) -> Result<(), ConfigError> {
        let own_port = self.admin.address.ends_with(":0");
        if self.admin.address == self.listen.address && !own_port {
            return Err(document.wrong("admin.address", "is also [listen] address; clients and admin need one each"));
        }
        if self.source.server == self.target.server && self.source.name == self.target.name {
            return Err(document.wrong("target.url", "names the same database as source.url"));
        }
        Ok(())
    }
}

fn program(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| PathBuf::from(path))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|reason| ConfigError::Unreadable { path: path.to_owned(), reason: reason.to_string() })
}

fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect()
}

fn address(document: &Document, key: &str, text: &str) -> Result<String, ConfigError> {
    let parts = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    match parts {
        Some(_) => Ok(text.to_owned()),
        None => Err(document.wrong(key, format!("must be host:port, such as \"127.0.0.1:6432\", not {text:?}"))),
    }
}

fn database(
    document: &Document,
    key: &str,
    url: &str,
    variables: &[(String, String)],
) -> Result<Database, ConfigError> {
    if url.is_empty() {
        return Err(document.unset(key, "postgres://pgshadow:secret@host:5432/database"));
    }
    let database = Database::parse(url, variables).map_err(|reason| document.wrong(key, reason))?;
    if database.tls.is_required() {
        let reason = "asks for TLS by its sslmode, and this version of pgshadow has none towards the servers; \
                      write sslmode=prefer or disable, on a network that you trust";
        return Err(document.wrong(key, reason));
    }
    Ok(database)
}

fn auth(document: &Document, file: &file::Auth) -> Result<Auth, ConfigError> {
    let users_file = (!file.users_file.is_empty()).then(|| PathBuf::from(&file.users_file));
    let query = (!file.query.trim().is_empty()).then(|| file.query.clone());
    match document.word("auth.mode", &file.mode)? {
        AuthMode::Scram if users_file.is_none() && query.is_none() => {
            let reason = "\"scram\" needs to know the users: set [auth] users_file, or query, or both";
            Err(document.wrong("auth.mode", reason))
        }
        AuthMode::Scram => {
            if let Some(path) = &users_file {
                users::read(path).map_err(|reason| document.wrong("auth.users_file", reason))?;
            }
            Ok(Auth::Scram { users_file, query })
        }
        AuthMode::Relay => {
            for (key, set) in [("auth.users_file", users_file.is_some()), ("auth.query", query.is_some())] {
                if set {
                    let reason = "goes with [auth] mode = \"scram\"; in mode \"relay\" the primary alone decides";
                    return Err(document.wrong(key, reason));
                }
            }
            Ok(Auth::Relay)
        }
    }
}

fn mirror_log(document: &Document, file: &file::MirrorLog) -> Result<MirrorLog, ConfigError> {
    if file.directory.is_empty() {
        return Err(document.wrong("mirror_log.directory", "must not be empty"));
    }
    Ok(MirrorLog {
        directory: PathBuf::from(&file.directory),
        durability: document.word("mirror_log.durability", &file.durability)?,
        size_max_bytes: size(&file.size_max).map_err(|reason| document.wrong("mirror_log.size_max", reason))?,
        on_full: document.word("mirror_log.on_full", &file.on_full)?,
    })
}

/// What a statement that isn't to keep others waiting waits at most, where nothing else is said.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

fn ddl(document: &Document, file: &file::Ddl) -> Result<Ddl, ConfigError> {
    let guard = document.word("ddl.guard", &file.guard)?;
    let lock_timeout = match file.lock_timeout.as_str() {
        "" => (guard == DdlGuard::Refuse).then_some(LOCK_TIMEOUT),
        text => Some(time(text).map_err(|reason| document.wrong("ddl.lock_timeout", reason))?).filter(|t| !t.is_zero()),
    };
    let oldest_transaction_max = time(&file.oldest_transaction_max);
    Ok(Ddl {
        guard,
        lock_timeout,
        oldest_transaction_max: oldest_transaction_max
            .map_err(|reason| document.wrong("ddl.oldest_transaction_max", reason))?,
        table_size_max_bytes: size(&file.table_size_max)
            .map_err(|reason| document.wrong("ddl.table_size_max", reason))?,
    })
}

/// A time that a statement may take.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = |_| format!("must be a time such as \"5s\" or \"500ms\", not {text:?}");
    humantime::parse_duration(text).map_err(wrong)
}

fn connections(document: &Document, key: &str, number: i64) -> Result<usize, ConfigError> {
    let known = usize::try_from(number).ok().filter(|_| (1..=CONNECTIONS_MAX).contains(&number));
    known.ok_or_else(|| document.wrong(key, format!("must be from 1 to {CONNECTIONS_MAX}, not {number}")))
}

fn backfill(document: &Document, file: file::Backfill) -> Result<Backfill, ConfigError> {
    let file::Backfill { connections, rate_max, latency_rise_max, snapshot_age_max, bindir } = file;
    let read = file::Verify { connections, rate_max, latency_rise_max, snapshot_age_max };
    Ok(Backfill {
        reading: reading(document, "backfill", &read)?,
        bindir: (!bindir.is_empty()).then(|| PathBuf::from(bindir)),
    })
}

/// A section's keys for reading tables; an empty text: no limit.
fn reading(document: &Document, section: &str, file: &file::Verify) -> Result<Reading, ConfigError> {
    fn limit<T>(
        document: &Document,
        key: &str,
        text: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let value = (!text.is_empty()).then(|| read(text)).transpose();
        value.map_err(|reason| document.wrong(key, reason))
    }
    let key = |name: &str| format!("{section}.{name}");
    let age = |text: &str| {
        let wrong = |_| format!("must be a time such as \"30min\" or \"2h\", not {text:?}");
        humantime::parse_duration(text).map_err(wrong)
    };
    Ok(Reading {
        connections: connections(document, &key("connections"), file.connections)?,
        limits: Limits {
            rate_max: limit(document, &key("rate_max"), &file.rate_max, size)?,
            latency_rise_max: limit(document, &key("latency_rise_max"), &file.latency_rise_max, percent)?,
        },
        snapshot_age_max: limit(document, &key("snapshot_age_max"), &file.snapshot_age_max, age)?,
    })
}

fn ratio(document: &Document, key: &str, ratio: f64) -> Result<f64, ConfigError> {
    let known = (1.0..=1000.0).contains(&ratio).then_some(ratio);
    known.ok_or_else(|| document.wrong(key, format!("must be a number of times from 1.0 to 1000.0, not {ratio}")))
}

/// A share from its percents.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    let known = number.filter(|number| (1.0..=1000.0).contains(number)).map(|number| number / 100.0);
    known.ok_or_else(|| format!("must be from \"1%\" to \"1000%\", or \"\" for no limit, not {text:?}"))
}

fn size(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(size) if size < LOG_SIZE_MIN => Err(format!("must be at least {LOG_SIZE_MIN}, not {text:?}")),
        Ok(size) => Ok(size.as_u64()),
        Err(_) => Err(format!("must be a size such as \"10GiB\" or \"500MB\", not {text:?}")),
    }
}

/// `schema.table` as the catalog spells it, or a table of `public`.
pub fn table(text: &str) -> Result<QualifiedName, String> {
    let (schema, name) = text.split_once('.').unwrap_or(("public", text));
    if schema.is_empty() || name.is_empty() {
        return Err(format!("must hold names such as \"schema.table\", not {text:?}"));
    }
    Ok(QualifiedName::new(schema, name))
}

fn share(document: &Document, key: &str, share: f64) -> Result<f64, ConfigError> {
    if (0.0..=1.0).contains(&share) {
        return Ok(share);
    }
    Err(document.wrong(key, format!("must be a share from 0.0 to 1.0, not {share}")))
}
