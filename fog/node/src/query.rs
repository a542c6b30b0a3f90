//! What the node shows by HTTP: the log as static tiles, and its records to those on the admin address.
//!
//! - `GET /log/checkpoint`, `/log/tile/…`: C2SP tlog-tiles. Commitments only; fit to be published.
//! - `GET /v1/records/{index}`: the record behind a leaf, as JSON. Discloses; admin address only.
//! - `GET /v1/proofs/{index}`: its proof file (C2SP tlog-proof with the opening).
//! - `GET /v1/alarms`: the alarms that are not over, the most pressing first.
//! - `POST /v1/alarms/{id}/acknowledge`, `…/pause`, `…/resume`: somebody acts. The body is JSON: `by`, the name of whoever acts, and
//!   for a pause `seconds`. The answer comes when the step is committed, and names its leaf.
//! - `GET /v1/episodes`, `/v1/rollups`: [`haar_dataflow::rollup`], as JSON arrays.

use crate::alarms::Desk;
use crate::stats::Tally;
use crate::store::Store;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use haar_alarms::{Action, Actor, AlarmId, Deed, StepError};
use haar_ledger::ReadError;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// How long whoever acts on an alarm waits for the commit.
const ANSWER_AFTER: Duration = Duration::from_secs(10);

pub(crate) fn router(store: Arc<Store>, tally: Arc<Tally>, desk: Desk) -> Router {
    let rollups = Arc::clone(&tally);
    Router::new()
        .route("/v1/episodes", get(move || async move { Json(tally.episodes()) }))
        .route("/v1/rollups", get(move || async move { Json(rollups.rollups()) }))
        .route("/log/{*path}", get(resource))
        .route("/v1/records/{index}", get(record))
        .route("/v1/proofs/{index}", get(proof))
        .with_state(store)
        .merge(alarms(desk))
}

fn alarms(desk: Desk) -> Router {
    let open = desk.clone();
    Router::new()
        .route("/v1/alarms", get(move || async move { Json(open.open()) }))
        .route("/v1/alarms/{id}/{deed}", post(act))
        .with_state(desk)
}

/// Who acts, and how.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Act {
    by: Actor,
    /// For a pause: how long.
    seconds: Option<u32>,
}

async fn act(
    State(desk): State<Desk>,
    Path((id, deed)): Path<(String, String)>,
    Json(body): Json<Act>,
) -> Response {
    let Some(alarm) = AlarmId::from_hex(&id) else {
        return (StatusCode::NOT_FOUND, "an alarm's id is 64 hexadecimal digits\n").into_response();
    };
    let deed = match (deed.as_str(), body.seconds) {
        ("acknowledge", None) => Deed::Acknowledge,
        ("resume", None) => Deed::Resume,
        ("pause", Some(seconds)) => Deed::Pause { for_us: i64::from(seconds) * 1_000_000 },
        ("pause", None) => {
            return (StatusCode::BAD_REQUEST, "a pause needs `seconds`\n").into_response();
        }
        ("acknowledge" | "resume", Some(_)) => {
            return (StatusCode::BAD_REQUEST, "only a pause has `seconds`\n").into_response();
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let answer = match desk.act(Action { alarm, by: body.by, deed }) {
        Ok(answer) => answer,
        Err(error) => {
            return (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response();
        }
    };
    match tokio::time::timeout(ANSWER_AFTER, answer).await {
        Ok(Ok(Ok(committed))) => Json(committed).into_response(),
        Ok(Ok(Err(error @ StepError::NoSuchAlarm))) => {
            (StatusCode::NOT_FOUND, format!("{error}\n")).into_response()
        }
        Ok(Ok(Err(error))) => (StatusCode::CONFLICT, format!("{error}\n")).into_response(),
        // Whether it will be committed is not known: the alarm's state says so later.
        Ok(Err(_)) | Err(_) => (
            StatusCode::GATEWAY_TIMEOUT,
            "not known yet whether the action was committed; look at /v1/alarms\n",
        )
            .into_response(),
    }
}

async fn resource(State(store): State<Arc<Store>>, Path(path): Path<String>) -> Response {
    let kind =
        if path == "checkpoint" { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    read(
        move || store.log().resource(&path),
        move |found| match found {
            Some(bytes) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
            None => (StatusCode::NOT_FOUND, "no such tile (yet)\n").into_response(),
        },
    )
    .await
}

async fn record(State(store): State<Arc<Store>>, Path(index): Path<u64>) -> Response {
    read(
        move || store.log().record(index),
        |record| ([(header::CONTENT_TYPE, "application/json")], record.body).into_response(),
    )
    .await
}

async fn proof(State(store): State<Arc<Store>>, Path(index): Path<u64>) -> Response {
    read(
        move || store.log().prove(index),
        |proof| {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], proof.to_text()).into_response()
        },
    )
    .await
}

/// Reads the log on a thread that may block.
async fn read<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    show: impl FnOnce(T) -> Response,
) -> Response {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(found)) => show(found),
        Ok(Err(error @ ReadError::NoSuchLeaf { .. })) => {
            (StatusCode::NOT_FOUND, format!("{error}\n")).into_response()
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the site log cannot be read");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
