//! What clients are checked against in authentication mode `scram`: `[auth] users_file` first, then `query` on the primary.
use super::primary::told;
use crate::config::users::{self, Users};
use futures::future::BoxFuture;
use pgshadow_proxy::{Secret, Secrets};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio_postgres::{Client, NoTls};

/// Users whose secrets are kept.
const MADE_MAX: usize = 10_000;
/// How long the primary may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The users.
pub(super) struct Known {
    file: Option<File>,
    query: Option<Query>,
    salt: [u8; 32],
}

/// Names only.
impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_ref().map(|file| &file.path);
        f.debug_struct("Known").field("file", &file).field("query", &self.query.is_some()).finish_non_exhaustive()
    }
}

impl Known {
    /// Users of this file, and those that the query finds with `primary`. No random bytes: an error.
    pub fn new(file: Option<PathBuf>, query: Option<String>, primary: &tokio_postgres::Config) -> Result<Self, String> {
        let salt = pgshadow_wire::scram::random().ok_or("the system gives no random bytes")?;
        Ok(Self {
            file: file.map(|path| File { path, read: Mutex::default() }),
            query: query.map(|text| Query {
                text,
                primary: Mutex::new(primary.clone()),
                client: tokio::sync::Mutex::default(),
                generation: AtomicU64::new(0),
                made: Mutex::default(),
            }),
            salt,
        })
    }

    /// Another database is the primary, and is asked from now on.
    pub fn moved_to(&self, primary: &tokio_postgres::Config) {
        if let Some(query) = &self.query {
            *query.primary.lock().unwrap_or_else(PoisonError::into_inner) = primary.clone();
            query.generation.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn find(&self, user: &[u8]) -> Result<Option<Secret>, String> {
        if let Some(file) = &self.file
            && let Some(secret) = file.users()?.get(user)
        {
            return Ok(Some(secret.clone()));
        }
        let (Some(query), Ok(name)) = (&self.query, std::str::from_utf8(user)) else { return Ok(None) };
        match query.ask(name).await? {
            // who has a secret that can't be used is refused like one who isn't known
            Some(text) => Ok(query.secret(name, &text)),
            None => Ok(None),
        }
    }
}

impl Secrets for Known {
    fn of<'a>(&'a self, user: &'a [u8]) -> BoxFuture<'a, Result<Option<Secret>, String>> {
        Box::pin(self.find(user))
    }

    fn salt(&self) -> &[u8; 32] {
        &self.salt
    }
}

/// When a file was written last, and how long it was.
type Stamp = Option<(SystemTime, u64)>;

/// `[auth] users_file`, read again when it was written.
struct File {
    path: PathBuf,
    read: Mutex<(Stamp, Arc<Users>)>,
}

impl File {
    /// What it holds. A file that can't be read, or has a mistake, leaves those of before; if there are none, that is an error.
    fn users(&self) -> Result<Arc<Users>, String> {
        let stamp = std::fs::metadata(&self.path).and_then(|data| Ok((data.modified()?, data.len()))).ok();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp.is_some() && read.0 == stamp {
            return Ok(Arc::clone(&read.1));
        }
        // thousands of hashes for each password: the thread's other tasks move to another one meanwhile
        match tokio::task::block_in_place(|| users::read(&self.path)) {
            Ok(users) => *read = (stamp, Arc::new(users)),
            Err(reason) if read.1.is_empty() => return Err(format!("[auth] users_file {reason}")),
            Err(reason) => {
                tracing::warn!("[auth] users_file {reason}; the users that were read before stay");
                read.0 = stamp;
            }
        }
        Ok(Arc::clone(&read.1))
    }
}

/// `[auth] query`, on a connection that is kept.
struct Query {
    text: String,
    primary: Mutex<tokio_postgres::Config>,
    client: tokio::sync::Mutex<Option<(u64, Client)>>,
    /// Goes up when another database is the primary: connections to the one before aren't used any more.
    generation: AtomicU64,
    /// What was made of users' passwords, lest each attempt shows another salt, and costs as much.
    made: Mutex<HashMap<String, (String, Secret)>>,
}

impl Query {
    /// The secret of a user, by the second column of the row that the query gives for the name.
    async fn ask(&self, user: &str) -> Result<Option<String>, String> {
        tokio::time::timeout(ANSWER_MAX, self.answer(user))
            .await
            .map_err(|_| "the primary did not answer [auth] query in time".to_owned())?
    }

    async fn answer(&self, user: &str) -> Result<Option<String>, String> {
        let mut kept = self.client.lock().await;
        let generation = self.generation.load(Ordering::SeqCst);
        let client = match kept.take().filter(|(of, client)| *of == generation && !client.is_closed()) {
            Some((_, client)) => client,
            None => self.connect().await?,
        };
        let rows = client.query_opt(&self.text, &[&user]).await;
        // one that has failed is closed: whatever was wrong with it is over with the next one
        let row = rows.map_err(|error| format!("[auth] query failed: {}", told(&error)))?;
        *kept = Some((generation, client));
        let Some(row) = row else { return Ok(None) };
        if row.len() != 2 {
            return Err(format!("[auth] query gives {} columns; it must give the user's name and secret", row.len()));
        }
        row.try_get(1).map_err(|error| format!("[auth] query: its second column is no text: {error}"))
    }

    /// What the user is checked against; `None` where that can't be used.
    fn secret(&self, user: &str, text: &str) -> Option<Secret> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, secret)) = made.get(user).filter(|(of, _)| of == text) {
            return Some(secret.clone());
        }
        let secret = tokio::task::block_in_place(|| users::secret(text))
            .inspect_err(|why| tracing::warn!(user, why, "[auth] query gives a secret that can't be used"));
        let secret = secret.ok()?;
        if made.len() >= MADE_MAX {
            made.clear();
        }
        made.insert(user.to_owned(), (text.to_owned(), secret.clone()));
        Some(secret)
    }

    async fn connect(&self) -> Result<Client, String> {
        let primary = self.primary.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let connected = primary.connect(NoTls).await;
        let (client, connection) =
            connected.map_err(|error| format!("[auth] query: no connection to the primary: {}", told(&error)))?;
        tokio::spawn(connection);
        Ok(client)
    }
}
