use crate::login::Secrets;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where a database server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// Host name or address, and port.
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Path of its socket (`DIRECTORY/.s.PGSQL.PORT`).
    Unix(PathBuf),
}

/// What becomes of connections to databases of the primary's server that aren't migrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherDatabases {
    /// They are refused with an error that says so.
    Refuse,
    /// They are passed through, unmirrored.
    Pass,
}

/// Who decides who may log in.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// The primary alone: its questions and the client's answers are relayed.
    Relay,
    /// pgshadow, by SCRAM-SHA-256; it logs in to the primary with what the client's proof holds.
    Scram(Arc<dyn Secrets>),
}

/// What the relay needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The migrated database.
    pub database: String,
    /// Connections to others.
    pub other_databases: OtherDatabases,
    /// Who decides who may log in.
    pub authentication: Authentication,
    /// How long a connection to the primary may take.
    pub connect_timeout: Duration,
    /// How long a client may take to send its startup packet.
    pub startup_timeout: Duration,
    /// Clients at once; more are refused with SQLSTATE 53300.
    pub clients_max: usize,
}
