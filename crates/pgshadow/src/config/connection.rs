//! Connection strings: `postgres://...` and `key=value`, with libpq's keys. tokio-postgres reads most of them; those
//! that it doesn't know are taken out and understood here.
use super::passfile;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::config::{Host, SslMode};

/// How long connecting may take when `connect_timeout` isn't set.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The port when none is set.
const PORT_DEFAULT: u16 = 5432;
/// What the server sees when `application_name` isn't set.
const APPLICATION_NAME: &str = "pgshadow";

/// A database, and what pgshadow itself logs in with.
#[derive(Clone)]
pub struct Database {
    /// Everything for pgshadow's own connections, password included.
    pub postgres: tokio_postgres::Config,
    /// Where clients' connections go.
    pub server: Server,
    /// The database's name: the one that is migrated.
    pub name: String,
    /// pgshadow's own role.
    pub user: String,
    /// `sslmode`.
    pub tls: TlsMode,
    /// `sslrootcert`.
    pub root_certificate: Option<PathBuf>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket: `directory/.s.PGSQL.port`.
    Unix {
        /// Its directory.
        directory: PathBuf,
        /// Port.
        port: u16,
    },
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Only if the server wants it.
    Allow,
    /// If the server has it.
    #[default]
    Prefer,
    /// Always, with any certificate.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa,
    /// Always, with a certificate of a known authority for this host.
    VerifyFull,
}

impl TlsMode {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }

    /// Whether a connection without TLS is none.
    #[must_use]
    pub fn is_required(self) -> bool {
        self.for_postgres() == SslMode::Require
    }

    fn for_postgres(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Allow | Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => SslMode::Require,
        }
    }
}

/// `user@host:port/database`: what may be logged.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}/{}", self.user, self.server, self.name)
    }
}

/// Without the password.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("place", &self.to_string())
            .field("tls", &self.tls)
            .field("root_certificate", &self.root_certificate)
            .finish_non_exhaustive()
    }
}

/// What tokio-postgres doesn't know.
#[derive(Default)]
struct OwnKeys {
    tls: TlsMode,
    root_certificate: Option<PathBuf>,
    passfile: Option<PathBuf>,
    keepalives_count: Option<u32>,
    fallback_application_name: Option<String>,
}

impl Database {
    /// Understands the string; `variables` say where the password file is. An error never holds the password.
    pub(super) fn parse(text: &str, variables: &[(String, String)]) -> Result<Self, String> {
        let (own, rest) = take_own_keys(text)?;
        let mut postgres: tokio_postgres::Config = rest.parse().map_err(|e| not_understood(&e))?;
        postgres.ssl_mode(own.tls.for_postgres());
        if let Some(count) = own.keepalives_count {
            postgres.keepalives_retries(count);
        }
        if postgres.get_application_name().is_none() {
            postgres.application_name(own.fallback_application_name.as_deref().unwrap_or(APPLICATION_NAME));
        }
        if postgres.get_connect_timeout().is_none() {
            postgres.connect_timeout(CONNECT_TIMEOUT_DEFAULT);
        }
        let server = server(&postgres)?;
        let user = postgres.get_user().ok_or("names no user")?.to_owned();
        let name = postgres.get_dbname().unwrap_or(&user).to_owned();
        postgres.dbname(&name);
        if postgres.get_password().is_none()
            && let Some(password) = passfile::password(own.passfile.as_deref(), variables, &server, &name, &user)?
        {
            postgres.password(password);
        }
        Ok(Self { postgres, server, name, user, tls: own.tls, root_certificate: own.root_certificate })
    }
}

fn not_understood(error: &dyn std::error::Error) -> String {
    let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    format!("is no connection string that can be understood: {cause}")
}

const SEVERAL: &str = "names several servers; pgshadow mirrors one server to one server";

fn server(postgres: &tokio_postgres::Config) -> Result<Server, String> {
    let port = match postgres.get_ports() {
        [] => PORT_DEFAULT,
        [port] => *port,
        _ => return Err(SEVERAL.into()),
    };
    if let [address] = postgres.get_hostaddrs() {
        return Ok(Server::Tcp { host: address.to_string(), port });
    }
    match postgres.get_hosts() {
        [Host::Tcp(host)] => Ok(Server::Tcp { host: host.clone(), port }),
        #[cfg(unix)]
        [Host::Unix(directory)] => Ok(Server::Unix { directory: directory.clone(), port }),
        [] => Err("names no host".into()),
        _ => Err(SEVERAL.into()),
    }
}

/// Takes out what is understood here; gives back the rest in the form that it came in.
fn take_own_keys(text: &str) -> Result<(OwnKeys, String), String> {
    let mut own = OwnKeys::default();
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        let mut rest = Vec::new();
        for (key, value) in split_pairs(text)? {
            if !own.take(&key, &value)? {
                rest.push(format!("{key}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'")));
            }
        }
        return Ok((own, rest.join(" ")));
    }
    // A password may hold a question mark: the query starts after the credentials.
    let credentials_end = text.find('@').unwrap_or(0);
    let Some(question) = text.get(credentials_end..).and_then(|after| after.find('?')) else {
        return Ok((own, text.to_owned()));
    };
    let (base, query) = text.split_at(credentials_end + question);
    let mut rest = Vec::new();
    for pair in query.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8().map_err(|_| format!("has a {key} that is not UTF-8"))?;
        if !own.take(key, &value)? {
            rest.push(pair);
        }
    }
    let separator = if rest.is_empty() { "" } else { "?" };
    Ok((own, format!("{base}{separator}{}", rest.join("&"))))
}

impl OwnKeys {
    /// Whether the key was one of these.
    fn take(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "sslmode" => self.tls = TlsMode::parse(value).ok_or_else(|| format!("has sslmode={value:?}"))?,
            "sslrootcert" => self.root_certificate = Some(PathBuf::from(value)),
            "passfile" => self.passfile = Some(PathBuf::from(value)),
            "fallback_application_name" => self.fallback_application_name = Some(value.to_owned()),
            "keepalives_count" => {
                self.keepalives_count = Some(value.parse().map_err(|_| "has a keepalives_count that is no number")?);
            }
            // pgshadow always speaks UTF-8, never compresses, and has no GSSAPI.
            "client_encoding" | "sslcompression" | "sslsni" => {}
            "gssencmode" if value != "require" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// libpq's `key = value` list: values may stand in single quotes; a backslash takes the next character as it is.
fn split_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.peek().is_none() {
            return Ok(pairs);
        }
        let mut key = String::new();
        while let Some(character) = characters.next_if(|c| !c.is_whitespace() && *c != '=') {
            key.push(character);
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.next() != Some('=') {
            return Err("is neither postgres://user@host/database nor a list of key=value".into());
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = characters.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match characters.next() {
                Some('\'') if quoted => break,
                None if quoted => return Err(format!("has no closing quote after {key}=")),
                Some('\\') => value.extend(characters.next()),
                Some(character) if quoted || !character.is_whitespace() => value.push(character),
                _ => break,
            }
        }
        pairs.push((key, value));
    }
}
