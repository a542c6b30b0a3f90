//! What the node shows by HTTP: the log as static tiles, and its records to those on the admin address.
//!
//! - `GET /log/checkpoint`, `/log/tile/…`: C2SP tlog-tiles. Commitments only; fit to be published.
//! - `GET /v1/records/{index}`: the record behind a leaf, as JSON. Discloses; admin address only. 410 if the patient was erased.
//! - `GET /v1/proofs/{index}`: its proof file (C2SP tlog-proof with the opening).
//! - `GET /v1/consortium`: how far the site log has come: leaves in all, put forward, sequenced and witnessed in the consortium log.
//! - `GET /v1/alarms`: the alarms that are not over, the most pressing first.
//! - `POST /v1/alarms/{id}/acknowledge`, `…/pause`, `…/resume`: somebody acts. The body is JSON: `by`, the name of whoever acts, and
//!   for a pause `seconds`. The answer comes when the step is committed, and names its leaf.
//! - `GET /v1/alarms/history?before=LEAF&limit=N`: steps that alarms took, the newest first: JSON with `steps` (each with its `leaf`)
//!   and `before` for the next page, or none at the beginning of the log.
//! - `GET /v1/alarms/outbox`: what waits to be delivered and what was given up, without content.
//! - `POST /v1/parameters`: what a doctor sets for one patient, a signed note (`haar parameters`). The answer comes when it is committed.
//! - `GET /v1/parameters/{subject}`: all versions, as their texts.
//! - `POST /v1/erasures`: an order to erase patients, signed ([`crate::erasure::order`]). The answer comes when they are erased, with a receipt each
//!   that is kept nowhere.
//! - `GET /v1/episodes`, `/v1/rollups`: [`haar_dataflow::rollup`], as JSON arrays.

use crate::alarms::Desk;
use crate::erasure::eraser::{Orders, RefusedOrder};
use crate::erasure::order::{MAX_ORDER_BYTES, OrderError};
use crate::notify::outbox::Outbox;
use crate::parameters::{Charts, RefusedNote};
use crate::stats::Tally;
use crate::store::{Store, StoreEraseError};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use haar_alarms::{Action, Actor, AlarmId, Deed, StepError, Transition};
use haar_catalog::parameters::{MAX_NOTE_BYTES, ParameterError, Parameters};
use haar_ledger::{EraseError, LeafKind, ReadError};
use haar_schema::Subject;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long whoever acts on an alarm waits for the commit.
const ANSWER_AFTER: Duration = Duration::from_secs(10);

/// Steps in one page of the history, unless asked otherwise, and at most.
const HISTORY: (usize, usize) = (100, 1_000);
/// Leaves that are looked at for one page.
const HISTORY_LEAVES: u64 = 20_000;
/// Dead letters that are shown.
const DEAD_LETTERS: usize = 1_000;

pub(crate) fn router(
    store: Arc<Store>,
    tally: Arc<Tally>,
    desk: Desk,
    outbox: Outbox,
    charts: Charts,
    orders: Orders,
) -> Router {
    let rollups = Arc::clone(&tally);
    Router::new()
        .route("/v1/episodes", get(move || async move { Json(tally.episodes()) }))
        .route("/v1/rollups", get(move || async move { Json(rollups.rollups()) }))
        .route("/log/{*path}", get(resource))
        .route("/v1/records/{index}", get(record))
        .route("/v1/proofs/{index}", get(proof))
        .route("/v1/consortium", get(consortium))
        .route("/v1/alarms/history", get(history))
        .with_state(store)
        .route("/v1/alarms/outbox", get(move || standing(outbox.clone())))
        .merge(alarms(desk))
        .merge(parameters(charts))
        .merge(erasures(orders))
}

async fn consortium(State(store): State<Arc<Store>>) -> Response {
    let read = || -> Result<_, ReadError> {
        let [put_forward, sequenced, witnessed] = crate::consortium::envoy::levels(&store)?;
        Ok((store.log().size()?, put_forward, sequenced, witnessed))
    };
    match read() {
        Ok((leaves, put_forward, sequenced, witnessed)) => Json(serde_json::json!({
            "leaves": leaves,
            "put_forward": put_forward,
            "sequenced": sequenced,
            "witnessed": witnessed,
        }))
        .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
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
    let status = |error: &StepError| match error {
        StepError::NoSuchAlarm => StatusCode::NOT_FOUND,
        _ => StatusCode::CONFLICT,
    };
    let unknown = "not known yet whether the action was committed; look at /v1/alarms\n";
    committed(answer, status, unknown).await
}

/// The answer to what was handed to the commit thread: as JSON, or why it was refused. What is not answered in time may
/// still be done: whoever asked is told to look.
async fn committed<T: Serialize, E: std::fmt::Display>(
    answer: oneshot::Receiver<Result<T, E>>,
    status: impl Fn(&E) -> StatusCode,
    unknown: &'static str,
) -> Response {
    match tokio::time::timeout(ANSWER_AFTER, answer).await {
        Ok(Ok(Ok(done))) => Json(done).into_response(),
        Ok(Ok(Err(refused))) => (status(&refused), format!("{refused}\n")).into_response(),
        Ok(Err(_)) | Err(_) => (StatusCode::GATEWAY_TIMEOUT, unknown).into_response(),
    }
}

fn parameters(charts: Charts) -> Router {
    Router::new()
        .route("/v1/parameters", post(set_parameters))
        .route("/v1/parameters/{subject}", get(parameters_of))
        .layer(DefaultBodyLimit::max(MAX_NOTE_BYTES))
        .with_state(charts)
}

async fn set_parameters(State(charts): State<Charts>, note: Bytes) -> Response {
    let Some(answer) = charts.set(note.to_vec()) else {
        let busy = "too many wait; try again in a second\n";
        return (StatusCode::SERVICE_UNAVAILABLE, busy).into_response();
    };
    let status = |refused: &RefusedNote| match refused {
        RefusedNote::Parameters(ParameterError::Signature) => StatusCode::FORBIDDEN,
        RefusedNote::Parameters(ParameterError::Malformed) => StatusCode::BAD_REQUEST,
        _ => StatusCode::CONFLICT,
    };
    let unknown = "not known yet whether they are in force; look at /v1/parameters\n";
    committed(answer, status, unknown).await
}

async fn parameters_of(State(charts): State<Charts>, Path(subject): Path<String>) -> Response {
    let Some(subject) = Subject::from_hex(&subject) else {
        return (StatusCode::NOT_FOUND, "a subject is 32 hexadecimal digits\n").into_response();
    };
    let texts: Vec<String> = charts.versions(subject).iter().map(Parameters::text).collect();
    Json(texts).into_response()
}

fn erasures(orders: Orders) -> Router {
    Router::new()
        .route("/v1/erasures", post(erase))
        .layer(DefaultBodyLimit::max(MAX_ORDER_BYTES))
        .with_state(orders)
}

async fn erase(State(orders): State<Orders>, note: Bytes) -> Response {
    let Some(answer) = orders.hand_in(note.to_vec()) else {
        let busy = "too many wait; try again in a second\n";
        return (StatusCode::SERVICE_UNAVAILABLE, busy).into_response();
    };
    let status = |refused: &RefusedOrder| match refused {
        RefusedOrder::Order(OrderError::Signature) => StatusCode::FORBIDDEN,
        RefusedOrder::Order(OrderError::Malformed) => StatusCode::BAD_REQUEST,
        RefusedOrder::Order(_) => StatusCode::CONFLICT,
        RefusedOrder::Erase(StoreEraseError::Erase(EraseError::NoSuchPatient { .. })) => {
            StatusCode::NOT_FOUND
        }
        RefusedOrder::Erase(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let unknown = "not known yet whether they are erased; look whether their records are gone\n";
    committed(answer, status, unknown).await
}

/// Which page of the history.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    before: Option<u64>,
    limit: Option<usize>,
}

/// One page of the history.
#[derive(Serialize)]
struct History {
    steps: Vec<RecordedStep>,
    before: Option<u64>,
}

#[derive(Serialize)]
struct RecordedStep {
    leaf: u64,
    #[serde(flatten)]
    step: Transition,
}

async fn history(State(store): State<Arc<Store>>, Query(page): Query<Page>) -> Response {
    let limit = page.limit.unwrap_or(HISTORY.0).clamp(1, HISTORY.1);
    let find = move || {
        let log = store.log().snapshot()?;
        let end = page.before.unwrap_or(u64::MAX).min(log.size());
        let begin = end.saturating_sub(HISTORY_LEAVES);
        let mut steps = Vec::new();
        for leaf in (begin..end).rev() {
            let record = match log.record(leaf) {
                Err(ReadError::Erased { .. }) => continue,
                record => record?,
            };
            if record.kind != LeafKind::AlarmTransition {
                continue;
            }
            // What this version cannot read is shown by /v1/records.
            if let Ok(step) = Transition::from_json(&record.body) {
                steps.push(RecordedStep { leaf, step });
            }
            if steps.len() == limit {
                return Ok(History { steps, before: Some(leaf).filter(|leaf| *leaf > 0) });
            }
        }
        Ok(History { steps, before: Some(begin).filter(|begin| *begin > 0) })
    };
    read(find, |history| Json(history).into_response()).await
}

async fn standing(outbox: Outbox) -> Response {
    match tokio::task::spawn_blocking(move || outbox.standing(DEAD_LETTERS)).await {
        Ok(Ok(standing)) => Json(standing).into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, "the outbox cannot be read");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
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
        Ok(Err(error @ ReadError::Erased { .. })) => {
            (StatusCode::GONE, format!("{error}\n")).into_response()
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the site log cannot be read");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
