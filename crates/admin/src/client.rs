use crate::{
    AcknowledgeRequest, Acknowledged, Applier, BackfillRequest, BackfillStarted, BackfillState, CertificateRecord,
    FinishReport, FinishRequest, FlipReport, FlipRequest, Lag, PauseReport, PauseRequest, RepairReport, RepairRequest,
    Report, Status, VerifyRequest, VerifyStarted, VerifyState,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long connecting may take, and what an answer may take beyond the time it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the end of a migration may take.
const FINISHED_IN: Duration = Duration::from_secs(120);

/// Talks to a running pgshadow.
#[derive(Debug, Clone)]
pub struct Client {
    address: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error(
        "no pgshadow answers on {address}: {reason}; start `pgshadow run` with the same file, or set [admin] address"
    )]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// It answered with an error.
    #[error("pgshadow on {address} refuses: {reason}")]
    Refused {
        /// Who answered.
        address: String,
        /// Its reason.
        reason: String,
    },
    /// Somebody else answered, or another version.
    #[error("what answers on {address} is not this version of pgshadow: {reason}")]
    NotUnderstood {
        /// Who answered.
        address: String,
        /// What was wrong with it.
        reason: String,
    },
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// The shadow has everything that was committed when the wait began.
    Yes,
    /// Not in time.
    TimedOut {
        /// Whether there is any mirroring that could end the wait.
        mirroring: bool,
        /// What is still to apply.
        lag: Lag,
        /// The writer to the shadow.
        applier: Applier,
    },
}

#[derive(Deserialize)]
struct TimedOut {
    mirroring: bool,
    lag: Lag,
    applier: Applier,
}

impl Client {
    /// `address` as in the configuration, `host:port`. An address that means "every interface" is asked for on loopback.
    #[must_use]
    pub fn new(address: &str) -> Self {
        let address = match address.rsplit_once(':') {
            Some(("0.0.0.0" | "", port)) => format!("127.0.0.1:{port}"),
            Some(("[::]", port)) => format!("[::1]:{port}"),
            _ => address.to_owned(),
        };
        Self { address }
    }

    /// The state.
    ///
    /// # Errors
    /// When there is no usable answer.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get_json("/api/status").await
    }

    /// The findings seen at or after `since`.
    ///
    /// # Errors
    /// When there is no usable answer.
    pub async fn report(&self, since: Option<SystemTime>) -> Result<Report, ClientError> {
        let mut path = "/api/report".to_owned();
        if let Some(since) = since {
            let time = humantime::format_rfc3339_millis(since).to_string();
            path.push_str(&format!("?since={}", utf8_percent_encode(&time, NON_ALPHANUMERIC)));
        }
        self.get_json(&path).await
    }

    /// Begins a backfill.
    ///
    /// # Errors
    /// When there is no usable answer, or it can't begin.
    pub async fn backfill(&self, request: &BackfillRequest) -> Result<BackfillStarted, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| self.not_understood(e))?;
        self.json(Method::POST, "/api/backfill", body.into()).await
    }

    /// How the backfill fares.
    ///
    /// # Errors
    /// When there is no usable answer.
    pub async fn backfill_state(&self) -> Result<BackfillState, ClientError> {
        self.get_json("/api/backfill").await
    }

    /// Ends the backfill that runs.
    ///
    /// # Errors
    /// When there is no usable answer, or none runs.
    pub async fn stop_backfill(&self) -> Result<(), ClientError> {
        self.json::<serde_json::Value>(Method::DELETE, "/api/backfill", Bytes::new()).await.map(drop)
    }

    /// Begins a verify.
    ///
    /// # Errors
    /// When there is no usable answer, or it can't begin.
    pub async fn verify(&self, request: &VerifyRequest) -> Result<VerifyStarted, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| self.not_understood(e))?;
        self.json(Method::POST, "/api/verify", body.into()).await
    }

    /// How the verify fares.
    ///
    /// # Errors
    /// When there is no usable answer.
    pub async fn verify_state(&self) -> Result<VerifyState, ClientError> {
        self.get_json("/api/verify").await
    }

    /// Ends the verify that runs.
    ///
    /// # Errors
    /// When there is no usable answer, or none runs.
    pub async fn stop_verify(&self) -> Result<(), ClientError> {
        self.json::<serde_json::Value>(Method::DELETE, "/api/verify", Bytes::new()).await.map(drop)
    }

    /// What is proven.
    ///
    /// # Errors
    /// When there is no usable answer.
    pub async fn certificate(&self) -> Result<CertificateRecord, ClientError> {
        self.get_json("/api/certificate").await
    }

    /// Has what the last verify found mended.
    ///
    /// # Errors
    /// When there is no usable answer, or nothing to go by.
    pub async fn repair(&self, request: &RepairRequest) -> Result<RepairReport, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| self.not_understood(e))?;
        self.json(Method::POST, "/api/repair", body.into()).await
    }

    /// Acknowledges findings.
    ///
    /// # Errors
    /// When there is no usable answer, or they can't be.
    pub async fn acknowledge(&self, request: &AcknowledgeRequest) -> Result<Acknowledged, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| self.not_understood(e))?;
        self.json(Method::POST, "/api/acknowledge", body.into()).await
    }

    /// Has new transactions held, and waits until none is open.
    ///
    /// # Errors
    /// When there is no usable answer, or another command holds them.
    pub async fn pause(&self, request: &PauseRequest) -> Result<PauseReport, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| self.not_understood(e))?;
        let wait = Duration::from_millis(request.timeout_ms).saturating_add(PATIENCE);
        self.json_within(Method::POST, "/api/pause", body.into(), wait).await
    }

    /// Makes another database the primary. `wait`: how long the answer may take.
    ///
    /// # Errors
    /// When there is no usable answer, or it can't be begun.
    pub async fn flip(&self, request: &FlipRequest, wait: Duration) -> Result<FlipReport, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| self.not_understood(e))?;
        self.json_within(Method::POST, "/api/flip", body.into(), wait).await
    }

    /// A flip and the way back.
    ///
    /// # Errors
    /// As [`Client::flip`].
    pub async fn rehearse(&self, request: &FlipRequest, wait: Duration) -> Result<Vec<FlipReport>, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| self.not_understood(e))?;
        self.json_within(Method::POST, "/api/rehearse", body.into(), wait).await
    }

    /// Ends the migration.
    ///
    /// # Errors
    /// When there is no usable answer, or it can't be ended so.
    pub async fn finish(&self, request: &FinishRequest) -> Result<FinishReport, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| self.not_understood(e))?;
        self.json_within(Method::POST, "/api/finish", body.into(), FINISHED_IN).await
    }

    /// All flips that there were.
    ///
    /// # Errors
    /// When there is no usable answer.
    pub async fn flips(&self) -> Result<Vec<FlipReport>, ClientError> {
        self.json(Method::GET, "/api/flip", Bytes::new()).await
    }

    /// Lets new transactions begin.
    ///
    /// # Errors
    /// When there is no usable answer, or nothing is paused.
    pub async fn resume(&self) -> Result<(), ClientError> {
        self.json::<serde_json::Value>(Method::DELETE, "/api/pause", Bytes::new()).await.map(drop)
    }

    /// Waits until the shadow has what was committed when this was called.
    ///
    /// # Errors
    /// When there is no usable answer.
    pub async fn drained(&self, wait: Duration) -> Result<Drained, ClientError> {
        let path = format!("/api/wait/drained?timeout_ms={}", wait.as_millis());
        match self.ask(Method::GET, &path, Bytes::new(), wait.saturating_add(PATIENCE)).await? {
            (StatusCode::OK, _) => Ok(Drained::Yes),
            (StatusCode::REQUEST_TIMEOUT, body) => {
                let TimedOut { mirroring, lag, applier } = self.read(&body)?;
                Ok(Drained::TimedOut { mirroring, lag, applier })
            }
            (status, body) => Err(self.refused(status, &body)),
        }
    }

    async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path, Bytes::new()).await
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        self.json_within(method, path, body, PATIENCE).await
    }

    async fn json_within<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<T, ClientError> {
        match self.ask(method, path, body, wait).await? {
            (StatusCode::OK, body) => self.read(&body),
            (status, body) => Err(self.refused(status, &body)),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        wait: Duration,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let connected = timeout(PATIENCE, TcpStream::connect(&self.address)).await;
        let stream = connected.map_err(|_| self.unreachable("timed out"))?.map_err(|e| self.unreachable(e))?;
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            let request = Request::builder().method(method).uri(path).header(HOST, &self.address);
            let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body));
            let Ok(request) = request else { return Ok(None) };
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            connection.abort();
            Ok::<_, hyper::Error>(Some((status, body)))
        };
        let answer = timeout(wait, exchange).await.map_err(|_| self.unreachable("no answer in time"))?;
        let lost = |e: hyper::Error| if e.is_parse() { self.not_understood(e) } else { self.unreachable(e) };
        answer.map_err(lost)?.ok_or_else(|| self.not_understood("the address is no host:port"))
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|e| self.not_understood(e))
    }

    fn unreachable(&self, reason: impl ToString) -> ClientError {
        ClientError::Unreachable { address: self.address.clone(), reason: reason.to_string() }
    }

    fn not_understood(&self, reason: impl ToString) -> ClientError {
        ClientError::NotUnderstood { address: self.address.clone(), reason: reason.to_string() }
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        #[derive(Deserialize)]
        struct Refusal {
            error: String,
        }
        match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) => ClientError::Refused { address: self.address.clone(), reason: refusal.error },
            Err(_) => self.not_understood(format!("HTTP status {status}")),
        }
    }
}
