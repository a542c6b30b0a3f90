//! What the node shows by HTTP: the log as static tiles, and its records to those on the admin address.
//!
//! - `GET /log/checkpoint`, `/log/tile/…`: C2SP tlog-tiles. Commitments only; fit to be published.
//! - `GET /v1/records/{index}`: the record behind a leaf, as JSON. Discloses; admin address only.
//! - `GET /v1/proofs/{index}`: its proof file (C2SP tlog-proof with the opening).
//! - `GET /v1/episodes`, `/v1/rollups`: [`haar_dataflow::rollup`], as JSON arrays.

use crate::stats::Tally;
use crate::store::Store;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use haar_ledger::ReadError;
use std::sync::Arc;

pub(crate) fn router(store: Arc<Store>, tally: Arc<Tally>) -> Router {
    let rollups = Arc::clone(&tally);
    Router::new()
        .route("/v1/episodes", get(move || async move { Json(tally.episodes()) }))
        .route("/v1/rollups", get(move || async move { Json(rollups.rollups()) }))
        .route("/log/{*path}", get(resource))
        .route("/v1/records/{index}", get(record))
        .route("/v1/proofs/{index}", get(proof))
        .with_state(store)
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
