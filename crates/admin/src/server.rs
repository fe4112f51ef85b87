use crate::{
    AcknowledgeRequest, BackfillRequest, FinishRequest, FlipRequest, PauseRequest, RepairRequest, Report, Source,
    VerifyRequest,
};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use pgshadow_telemetry::Handle;
use serde::Deserialize;
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long `/api/wait/drained` waits when the caller doesn't say.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);
/// How long it waits at most.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often the histograms are folded.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Shared by all requests.
struct Windows<S> {
    source: Arc<S>,
    metrics: Handle,
    shutdown: CancellationToken,
}

impl<S> Clone for Windows<S> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), metrics: self.metrics.clone(), shutdown: self.shutdown.clone() }
    }
}

/// Answers on `listener` until `shutdown`; open waits are then ended, other answers are finished.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve<S: Source>(
    listener: TcpListener,
    source: Arc<S>,
    metrics: Handle,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let upkeep = tokio::spawn(keep_up(metrics.clone(), shutdown.clone()));
    let windows = Windows { source, metrics, shutdown: shutdown.clone() };
    let result = axum::serve(listener, router(windows)).with_graceful_shutdown(shutdown.cancelled_owned()).await;
    upkeep.abort();
    result
}

async fn keep_up(metrics: Handle, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(UPKEEP_EVERY);
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        metrics.upkeep();
    }
}

fn router<S: Source>(windows: Windows<S>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz::<S>))
        .route("/metrics", get(metrics::<S>))
        .route("/api/status", get(status::<S>))
        .route("/api/report", get(report::<S>))
        .route("/api/wait/drained", get(drained::<S>))
        .route("/api/backfill", get(backfill_state::<S>).post(backfill::<S>).delete(stop_backfill::<S>))
        .route("/api/verify", get(verify_state::<S>).post(verify::<S>).delete(stop_verify::<S>))
        .route("/api/certificate", get(certificate::<S>))
        .route("/api/repair", post(repair::<S>))
        .route("/api/acknowledge", post(acknowledge::<S>))
        .route("/api/pause", post(pause::<S>).delete(resume::<S>))
        .route("/api/flip", get(flips::<S>).post(flip::<S>))
        .route("/api/rehearse", post(rehearse::<S>))
        .route("/api/finish", post(finish::<S>))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "no such page"))
        .with_state(windows)
}

/// Every answer that isn't the wanted one: `{"error": "..."}`.
fn refusal(status: StatusCode, reason: impl Into<String>) -> Response {
    (status, Json(json!({ "error": reason.into() }))).into_response()
}

async fn readyz<S: Source>(State(windows): State<Windows<S>>) -> Response {
    match windows.source.ready() {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
}

async fn metrics<S: Source>(State(windows): State<Windows<S>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], windows.metrics.render()).into_response()
}

async fn status<S: Source>(State(windows): State<Windows<S>>) -> Response {
    Json(windows.source.status()).into_response()
}

async fn backfill<S: Source>(
    State(windows): State<Windows<S>>,
    request: Result<Json<BackfillRequest>, JsonRejection>,
) -> Response {
    let started = request.map_err(|e| e.body_text()).and_then(|Json(request)| windows.source.backfill(request));
    match started {
        Ok(started) => Json(started).into_response(),
        Err(reason) => refusal(StatusCode::CONFLICT, reason),
    }
}

async fn backfill_state<S: Source>(State(windows): State<Windows<S>>) -> Response {
    Json(windows.source.backfill_state()).into_response()
}

async fn stop_backfill<S: Source>(State(windows): State<Windows<S>>) -> Response {
    if windows.source.stop_backfill() {
        Json(json!({ "stopped": true })).into_response()
    } else {
        refusal(StatusCode::CONFLICT, "no backfill runs")
    }
}

async fn verify<S: Source>(
    State(windows): State<Windows<S>>,
    request: Result<Json<VerifyRequest>, JsonRejection>,
) -> Response {
    let started = request.map_err(|e| e.body_text()).and_then(|Json(request)| windows.source.verify(request));
    match started {
        Ok(started) => Json(started).into_response(),
        Err(reason) => refusal(StatusCode::CONFLICT, reason),
    }
}

async fn verify_state<S: Source>(State(windows): State<Windows<S>>) -> Response {
    Json(windows.source.verify_state()).into_response()
}

async fn stop_verify<S: Source>(State(windows): State<Windows<S>>) -> Response {
    if windows.source.stop_verify() {
        Json(json!({ "stopped": true })).into_response()
    } else {
        refusal(StatusCode::CONFLICT, "no verify runs")
    }
}

async fn certificate<S: Source>(State(windows): State<Windows<S>>) -> Response {
    match windows.source.certificate() {
        Ok(certificate) => Json(certificate).into_response(),
        Err(reason) => refusal(StatusCode::CONFLICT, reason),
    }
}

async fn repair<S: Source>(
    State(windows): State<Windows<S>>,
    request: Result<Json<RepairRequest>, JsonRejection>,
) -> Response {
    let repaired = match request.map_err(|e| e.body_text()) {
        Ok(Json(request)) => windows.source.repair(request).await,
        Err(reason) => Err(reason),
    };
    match repaired {
        Ok(report) => Json(report).into_response(),
        Err(reason) => refusal(StatusCode::CONFLICT, reason),
    }
}

async fn acknowledge<S: Source>(
    State(windows): State<Windows<S>>,
    request: Result<Json<AcknowledgeRequest>, JsonRejection>,
) -> Response {
    let done = request.map_err(|e| e.body_text()).and_then(|Json(request)| windows.source.acknowledge(&request));
    match done {
        Ok(acknowledged) => Json(acknowledged).into_response(),
        Err(reason) => refusal(StatusCode::CONFLICT, reason),
    }
}

async fn pause<S: Source>(
    State(windows): State<Windows<S>>,
    request: Result<Json<PauseRequest>, JsonRejection>,
) -> Response {
    let paused = match request.map_err(|e| e.body_text()) {
        Ok(Json(request)) => windows.source.pause(request).await,
        Err(reason) => Err(reason),
    };
    match paused {
        Ok(report) => Json(report).into_response(),
        Err(reason) => refusal(StatusCode::CONFLICT, reason),
    }
}

async fn resume<S: Source>(State(windows): State<Windows<S>>) -> Response {
    if windows.source.resume() {
        Json(json!({ "resumed": true })).into_response()
    } else {
        refusal(StatusCode::CONFLICT, "nothing is paused")
    }
}

async fn flip<S: Source>(
    State(windows): State<Windows<S>>,
    request: Result<Json<FlipRequest>, JsonRejection>,
) -> Response {
    let flipped = match request.map_err(|e| e.body_text()) {
        Ok(Json(request)) => windows.source.flip(request).await,
        Err(reason) => Err(reason),
    };
    match flipped {
        Ok(report) => Json(report).into_response(),
        Err(reason) => refusal(StatusCode::CONFLICT, reason),
    }
}

async fn rehearse<S: Source>(
    State(windows): State<Windows<S>>,
    request: Result<Json<FlipRequest>, JsonRejection>,
) -> Response {
    let rehearsed = match request.map_err(|e| e.body_text()) {
        Ok(Json(request)) => windows.source.rehearse(request).await,
        Err(reason) => Err(reason),
    };
    match rehearsed {
        Ok(reports) => Json(reports).into_response(),
        Err(reason) => refusal(StatusCode::CONFLICT, reason),
    }
}

async fn finish<S: Source>(
    State(windows): State<Windows<S>>,
    request: Result<Json<FinishRequest>, JsonRejection>,
) -> Response {
    let finished = match request.map_err(|e| e.body_text()) {
        Ok(Json(request)) => windows.source.finish(request).await,
        Err(reason) => Err(reason),
    };
    match finished {
        Ok(report) => Json(report).into_response(),
        Err(reason) => refusal(StatusCode::CONFLICT, reason),
    }
}

async fn flips<S: Source>(State(windows): State<Windows<S>>) -> Response {
    Json(windows.source.flips()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportQuery {
    /// RFC 3339.
    since: Option<String>,
}

async fn report<S: Source>(
    State(windows): State<Windows<S>>,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> Response {
    let since = match query.map_err(|e| e.body_text()).and_then(|Query(query)| parse_since(query.since)) {
        Ok(since) => since,
        Err(reason) => return refusal(StatusCode::BAD_REQUEST, reason),
    };
    let source = windows.source.clone();
    match tokio::task::spawn_blocking(move || Report::new(source.findings(), since)).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => {
            tracing::error!(%error, "the findings could not be read");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "the findings could not be read: see pgshadow's log")
        }
    }
}

fn parse_since(text: Option<String>) -> Result<Option<SystemTime>, String> {
    text.map(|text| humantime::parse_rfc3339(&text).map_err(|e| format!("since={text:?} is no RFC 3339 time: {e}")))
        .transpose()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainedQuery {
    timeout_ms: Option<u64>,
}

async fn drained<S: Source>(
    State(windows): State<Windows<S>>,
    query: Result<Query<DrainedQuery>, QueryRejection>,
) -> Response {
    let timeout = match query {
        Ok(Query(query)) => query.timeout_ms.map_or(WAIT_DEFAULT, Duration::from_millis).min(WAIT_MAX),
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error.body_text()),
    };
    match windows.shutdown.run_until_cancelled(windows.source.drained(timeout)).await {
        Some(true) => Json(json!({ "drained": true })).into_response(),
        Some(false) => {
            let status = windows.source.status();
            let body = json!({
                "drained": false, "error": "timed out", "mirroring": status.mirroring, "lag": status.lag,
                "applier": status.applier,
            });
            (StatusCode::REQUEST_TIMEOUT, Json(body)).into_response()
        }
        None => refusal(StatusCode::SERVICE_UNAVAILABLE, "pgshadow is shutting down"),
    }
}
