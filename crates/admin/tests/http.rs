//! Server and client over a real socket.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use pgshadow_admin::{
    AcknowledgeRequest, Acknowledged, Applier, BackfillRequest, BackfillStarted, BackfillState, Certificate,
    CertificateRecord, Client, ClientError, Counters, Drained, EQUAL_AT_START_NOTE, FinishReport, FinishRequest,
    FlipReport, FlipRequest, Lag, LogState, Offender, PauseReport, PauseRequest, Phase, RepairReport, RepairRequest,
    Source, Status, VERSION, VerifyRequest, VerifyStarted, VerifyState, serve,
};
use pgshadow_model::{Cause, Finding, Kind, Place, Severity};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct Fixed {
    ready: bool,
    drains: bool,
}

impl Source for Fixed {
    fn status(&self) -> Status {
        Status {
            version: VERSION.into(),
            primary: Place::Source,
            phase: Phase::Mirroring,
            mirroring: true,
            paused: false,
            flipping: false,
            lag: Lag { entries: 2, bytes: 10, ms: 5 },
            log: LogState::default(),
            suspect_tables: Vec::new(),
            awaiting_load: Vec::new(),
            findings_open: 1,
            healed_rows: 0,
            certificate: Certificate::none("no verify was run"),
            clients: 0,
            next_step: String::new(),
            note: EQUAL_AT_START_NOTE.into(),
            applier: Applier::default(),
            counters: Counters::now(),
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let finding = |id: u64, last_seen: &str| Finding {
            id,
            primary: Some("1".into()),
            shadow: Some("2".into()),
            first_seen: last_seen.into(),
            last_seen: last_seen.into(),
            ..Finding::new(Kind::Value, Cause::Unknown, Severity::Error, "1".into())
        };
        vec![finding(1, "2026-11-22T10:00:00Z"), finding(2, "2026-11-22T11:00:00Z")]
    }

    async fn drained(&self, timeout: Duration) -> bool {
        if !self.drains {
            tokio::time::sleep(timeout).await;
        }
        self.drains
    }

    fn backfill(&self, request: BackfillRequest) -> Result<BackfillStarted, String> {
        if request.tables.is_empty() { Ok(BackfillStarted { number: 1 }) } else { Err("no such table".to_owned()) }
    }

    fn backfill_state(&self) -> BackfillState {
        BackfillState::default()
    }

    fn stop_backfill(&self) -> bool {
        false
    }

    fn verify(&self, request: VerifyRequest) -> Result<VerifyStarted, String> {
        if request.tables.is_empty() { Ok(VerifyStarted { number: 7 }) } else { Err("another one runs".into()) }
    }

    fn verify_state(&self) -> VerifyState {
        VerifyState::default()
    }

    fn stop_verify(&self) -> bool {
        self.drains
    }

    async fn repair(&self, _request: RepairRequest) -> Result<RepairReport, String> {
        Err("no verify has ended".to_owned())
    }

    fn acknowledge(&self, request: &AcknowledgeRequest) -> Result<Acknowledged, String> {
        Ok(Acknowledged { unknown: request.findings.iter().copied().filter(|id| *id > 2).collect() })
    }

    fn certificate(&self) -> Result<CertificateRecord, String> {
        Err("nothing is mirrored".to_owned())
    }

    async fn pause(&self, request: PauseRequest) -> Result<PauseReport, String> {
        let waited_for = vec![Offender {
            pid: 7,
            user: "app".into(),
            application: "psql".into(),
            address: "127.0.0.1:5".into(),
            state: "idle in transaction".into(),
            transaction_ms: Some(70_000),
            query: "UPDATE t SET v = 1".into(),
        }];
        Ok(PauseReport { paused: false, drain_ms: request.timeout_ms, waited_for })
    }

    fn resume(&self) -> bool {
        false
    }

    async fn flip(&self, _: FlipRequest) -> Result<FlipReport, String> {
        Err("nothing is mirrored".into())
    }

    async fn rehearse(&self, _: FlipRequest) -> Result<Vec<FlipReport>, String> {
        Err("nothing is mirrored".into())
    }

    async fn finish(&self, _: FinishRequest) -> Result<FinishReport, String> {
        Err("nothing is mirrored".into())
    }

    fn flips(&self) -> Vec<FlipReport> {
        Vec::new()
    }

    fn ready(&self) -> Result<(), String> {
        if self.ready { Ok(()) } else { Err("the primary can't be reached".into()) }
    }
}

async fn start(source: Fixed) -> (Client, String, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let shutdown = CancellationToken::new();
    let metrics = pgshadow_telemetry::install().unwrap();
    tokio::spawn(serve(listener, Arc::new(source), metrics, shutdown.clone()));
    (Client::new(&address), address, shutdown)
}

async fn raw(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_client_reads_what_the_server_shows() {
    let source = Fixed { ready: true, drains: true };
    let expected = source.status();
    let (client, _, _) = start(source).await;
    assert_eq!(client.status().await.unwrap(), expected);
    assert_eq!(client.report(None).await.unwrap().open(), 2);
    let since = humantime::parse_rfc3339("2026-11-22T10:30:00Z").unwrap();
    let recent = client.report(Some(since)).await.unwrap();
    assert_eq!(recent.findings.iter().map(|f| f.id).collect::<Vec<_>>(), [2]);
    assert_eq!(client.drained(Duration::from_secs(1)).await.unwrap(), Drained::Yes);
}

#[tokio::test]
async fn a_wait_that_times_out_says_what_is_left() {
    let (client, _, _) = start(Fixed { ready: true, drains: false }).await;
    let drained = client.drained(Duration::from_millis(20)).await.unwrap();
    assert!(matches!(drained, Drained::TimedOut { mirroring: true, lag: Lag { entries: 2, .. }, .. }), "{drained:?}");
}

#[tokio::test]
async fn shutdown_ends_an_open_wait() {
    let (client, _, shutdown) = start(Fixed { ready: true, drains: false }).await;
    let waiting = tokio::spawn(async move { client.drained(Duration::from_secs(600)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    assert!(
        matches!(&ended, Err(ClientError::Refused { reason, .. }) if reason.contains("shutting down")),
        "{ended:?}"
    );
}

#[tokio::test]
async fn probes_and_metrics_answer_in_plain_text() {
    let (_, address, _) = start(Fixed { ready: false, drains: true }).await;
    assert!(raw(&address, "/livez").await.starts_with("HTTP/1.1 200"));
    let ready = raw(&address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("the primary can't be reached"), "{ready}");
    let metrics = raw(&address, "/metrics").await;
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("# TYPE pgshadow_lag_ms gauge"), "{metrics}");
}

#[tokio::test]
async fn wrong_requests_are_named() {
    let (_, address, _) = start(Fixed { ready: true, drains: true }).await;
    let answer = raw(&address, "/api/report?since=yesterday").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("RFC 3339"), "{answer}");
    assert!(raw(&address, "/api/wait/drained?timeout=1s").await.starts_with("HTTP/1.1 400"));
    assert!(raw(&address, "/api/nothing").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn nobody_there_is_said_with_a_remedy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Client::new(&address).status().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }));
    assert!(error.to_string().contains("pgshadow run"), "{error}");
}
