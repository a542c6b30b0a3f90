//! The read API over HTTP.

use super::gatekeeper::{Call, Gatekeeper, MAX_RECORDS, Question, Refused};
use super::studies::StudyQuestion;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use haar_ledger::consent::{DataKind, MAX_STATEMENT_BYTES, Purpose, RequestError, SignedRequest};
use haar_schema::Subject;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(super) fn router(gatekeeper: Arc<Gatekeeper>) -> Router {
    Router::new()
        .route("/v1/access/statements", post(take))
        .route("/v1/access/records/{subject}", get(records))
        .route("/v1/access/studies/{study}/records", get(study))
        .route("/v1/access/audit/{subject}", get(audit))
        .route("/v1/access/view", get(view))
        .layer(DefaultBodyLimit::max(MAX_STATEMENT_BYTES))
        .with_state(gatekeeper)
}

/// What is asked for, in the query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    kind: DataKind,
    purpose: Purpose,
    scope: Option<String>,
    before: Option<u64>,
    limit: Option<usize>,
}

async fn take(State(gatekeeper): State<Arc<Gatekeeper>>, note: Bytes) -> Response {
    answer(move || gatekeeper.take(&note)).await
}

async fn records(
    State(gatekeeper): State<Arc<Gatekeeper>>,
    Path(subject): Path<String>,
    Query(asked): Query<Asked>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let Some(subject) = Subject::from_hex(&subject) else { return no_subject() };
    let scope = match asked.scope.as_deref().map(str::parse).transpose() {
        Ok(scope) => scope,
        Err(_) => {
            let words = "a scope is claim:NUMBER or study:NUMBER\n";
            return (StatusCode::BAD_REQUEST, words).into_response();
        }
    };
    let question = Question {
        subject,
        kind: asked.kind,
        purpose: asked.purpose,
        scope,
        before: asked.before,
        limit: asked.limit.unwrap_or(MAX_RECORDS),
    };
    answer(move || gatekeeper.read(&call(&uri, &headers)?, &question)).await
}

/// What is asked for of a study, in the query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedOfStudy {
    kind: DataKind,
    before: Option<u64>,
    limit: Option<usize>,
}

async fn study(
    State(gatekeeper): State<Arc<Gatekeeper>>,
    Path(study): Path<String>,
    Query(AskedOfStudy { kind, before, limit }): Query<AskedOfStudy>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let Ok(study) = study.parse() else {
        return (StatusCode::NOT_FOUND, "not a study's number\n").into_response();
    };
    let limit = limit.unwrap_or(MAX_RECORDS);
    let question = StudyQuestion { study, kind, before, limit };
    answer(move || gatekeeper.study(&call(&uri, &headers)?, &question)).await
}

async fn audit(
    State(gatekeeper): State<Arc<Gatekeeper>>,
    Path(subject): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let Some(subject) = Subject::from_hex(&subject) else { return no_subject() };
    answer(move || gatekeeper.audit(&call(&uri, &headers)?, subject)).await
}

async fn view(State(gatekeeper): State<Arc<Gatekeeper>>) -> Response {
    answer(move || Ok(gatekeeper.standing(now_s()))).await
}

fn call<'a>(uri: &'a Uri, headers: &HeaderMap) -> Result<Call<'a>, RequestError> {
    let field = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.ok_or(RequestError::Malformed)
    };
    let signed = SignedRequest::parse(field("signature-input")?, field("signature")?)?;
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    Ok(Call { method: "GET", target, signed, now_s: now_s() })
}

/// Decides on a thread that may block.
async fn answer<T: Serialize + Send + 'static>(
    decide: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Response {
    let refused = match tokio::task::spawn_blocking(decide).await {
        Ok(Ok(found)) => return Json(found).into_response(),
        Ok(Err(refused)) => refused,
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    let status = match &refused {
        Refused::Request(RequestError::Busy) => StatusCode::TOO_MANY_REQUESTS,
        Refused::Request(_) => StatusCode::UNAUTHORIZED,
        Refused::Role
        | Refused::NoResearcher
        | Refused::Denied(_)
        | Refused::NotOwn
        | Refused::Statement(_) => StatusCode::FORBIDDEN,
        Refused::Kind | Refused::Subject => StatusCode::BAD_REQUEST,
        Refused::NoView | Refused::Bundle(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => {
            tracing::error!(error = %refused, "the read API cannot answer");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    (status, format!("{refused}\n")).into_response()
}

fn no_subject() -> Response {
    (StatusCode::NOT_FOUND, "a subject is 32 hexadecimal digits\n").into_response()
}

/// The site's clock, in POSIX seconds.
fn now_s() -> u64 {
    u64::try_from(crate::commit::now().micros() / 1_000_000).unwrap_or(0)
}
