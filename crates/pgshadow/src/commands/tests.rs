use super::*;
use crate::arguments::{ReportArguments, StatusArguments};
use crate::failure::{Ending, Failure};
use pgshadow_admin::{
    AcknowledgeRequest, Acknowledged, Applier, BackfillRequest, BackfillStarted, BackfillState, Certificate,
    CertificateRecord, Client, Counters, EQUAL_AT_START_NOTE, FinishReport, FinishRequest, FlipReport, FlipRequest,
    Lag, LogState, Offender, PauseReport, PauseRequest, Phase, RepairReport, RepairRequest, Source, Status,
    SuspectTable, VERSION, VerifyRequest, VerifyStarted, VerifyState, serve,
};
use pgshadow_model::{Cause, Finding, Kind, Place, QualifiedName, Severity};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(super) fn status_with_a_suspect() -> Status {
    Status {
        version: VERSION.into(),
        primary: Place::Source,
        phase: Phase::Mirroring,
        mirroring: true,
        paused: false,
        flipping: false,
        lag: Lag { entries: 2, bytes: 2048, ms: 1500 },
        log: LogState { bytes: 4096, bytes_max: 10 << 30, poisoned: true },
        suspect_tables: vec![SuspectTable {
            table: "public.orders".into(),
            reason: "written while mirroring was off".into(),
            since: "2026-11-22T10:00:00Z".into(),
        }],
        awaiting_load: Vec::new(),
        findings_open: 1,
        healed_rows: 0,
        certificate: Certificate::none("no verify was run"),
        clients: 8,
        next_step: "look at `pgshadow report`".into(),
        note: EQUAL_AT_START_NOTE.into(),
        applier: Applier {
            connected: false,
            last_error: Some("connection refused".into()),
            rows_applied: 5,
            rows_to_heal: 0,
        },
        counters: Counters::default(),
    }
}

pub(super) fn finding(id: u64, healed: bool) -> Finding {
    Finding {
        id,
        kind: Kind::MissingRow,
        cause: Cause::WrittenBehind,
        severity: Severity::Error,
        table: Some(QualifiedName::new("public", "orders")),
        key: Some(format!("id={id}")),
        column: None,
        primary: Some("new \x1b[31mred".into()),
        shadow: None,
        sqlstate: None,
        message: Some("the shadow has no such row".into()),
        sql: None,
        fingerprint: "00ff".into(),
        xid: None,
        lsn: None,
        user: None,
        application: None,
        healed,
        count: 2,
        first_seen: "2026-11-22T10:00:00Z".into(),
        last_seen: "2026-11-22T10:00:01Z".into(),
        acknowledged: false,
    }
}

struct Fixed {
    findings: Vec<Finding>,
    drains: bool,
}

impl Source for Fixed {
    fn status(&self) -> Status {
        status_with_a_suspect()
    }

    fn findings(&self) -> Vec<Finding> {
        self.findings.clone()
    }

    async fn drained(&self, _timeout: Duration) -> bool {
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

    fn verify(&self, _request: VerifyRequest) -> Result<VerifyStarted, String> {
        Err("it isn't asked for here".to_owned())
    }

    fn verify_state(&self) -> VerifyState {
        VerifyState::default()
    }

    fn stop_verify(&self) -> bool {
        false
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
        Ok(())
    }
}

async fn start(findings: Vec<Finding>, drains: bool) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&listener.local_addr().unwrap().to_string());
    let metrics = pgshadow_telemetry::install().unwrap();
    tokio::spawn(serve(listener, Arc::new(Fixed { findings, drains }), metrics, CancellationToken::new()));
    client
}

async fn ending_of_report(client: &Client) -> Ending {
    report(client, &ReportArguments { json: false, since: None }).await.unwrap()
}

#[tokio::test]
async fn a_report_ends_with_3_only_when_findings_are_open() {
    assert_eq!(ending_of_report(&start(vec![], true).await).await, Ending::Done);
    assert_eq!(ending_of_report(&start(vec![finding(1, true)], true).await).await, Ending::Done);
    assert_eq!(ending_of_report(&start(vec![finding(1, false)], true).await).await, Ending::DifferencesFound);
}

#[tokio::test]
async fn a_wait_ends_with_0_or_4() {
    let second = Duration::from_secs(1);
    assert_eq!(wait_drained(&start(vec![], true).await, second).await.unwrap(), Ending::Done);
    assert_eq!(wait_drained(&start(vec![], false).await, second).await.unwrap(), Ending::TimedOut);
}

#[tokio::test]
async fn a_status_is_done_in_both_forms() {
    let client = start(vec![], true).await;
    for json in [false, true] {
        assert_eq!(status(&client, &StatusArguments { json, watch: false }).await.unwrap(), Ending::Done);
    }
    let nobody = Client::new("127.0.0.1:1");
    let failure = status(&nobody, &StatusArguments { json: true, watch: false }).await.unwrap_err();
    assert!(matches!(failure, Failure::Client(_)));
}
