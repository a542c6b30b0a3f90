//! What a ledger server answers by HTTP.
//!
//! | path | roles | |
//! |---|---|---|
//! | `GET /checkpoint`, `/tile/…` | operator, mirror | C2SP tlog-tiles; the checkpoint is cosigned by a quorum |
//! | `POST /v1/entries?level=sequenced\|witnessed&wait_ms=N` | operator | an [`Entry`]; 200 or 202 with [`Placed`] |
//! | `GET /v1/proof?index=N` or `?entry=SHA-256` | operator, mirror | C2SP tlog-proof against the published checkpoint |
//! | `GET /v1/entry?index=N` | operator, mirror | the entry's bytes |
//! | `GET /v1/policy?kind=K` | operator, mirror, monitor | C2SP tlog-policy, as the log's own entries give it |
//! | `GET /v1/members`, `/v1/state`, `/v1/site?name=N`, `/v1/keys?name=N`, `/v1/item?id=HEX` | operator, mirror, monitor | what the log's entries say, as JSON |
//! | `POST /add-checkpoint`, `GET /<origin hash>/checkpoint` | witness | C2SP tlog-witness |
//! | `GET /v1/evidence?after=N`, `POST /v1/evidence` | all | what somebody attempted, with its proof |
//!
//! # Limits
//! A request has at most [`MAX_BODY_BYTES`]; a submitter waits at most [`MAX_WAIT`]. `429` says that the queue is
//! full, `503` that nothing was taken for another reason; both with `Retry-After`.

use super::gossip::{Gossip, NotKept};
use super::instruments::Instruments;
use super::judge::Judge;
use super::operator::{Desk, NotSequenced, SharedState};
use crate::client::{EvidencePage, Level, Placed, SiteAt};
use crate::consortium::{CopyError, Published, Tiles, TilesError};
use crate::entry::{Entry, EntryKind, MAX_ENTRY_BYTES};
use crate::evidence::{Evidence, EvidenceKind};
use crate::governance::{CommitmentBody, Hex, Refused, SiteHead};
use crate::leaf::LeafKind;
use crate::plain_proof::PlainProof;
use crate::policy::Policy;
use crate::witness::{AddCheckpoint, AddCheckpointError, MAX_REQUEST_BYTES, Witness};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::{Arc, PoisonError, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::watch;

/// The longest body of a request.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// The longest that a submitter may wait for a level.
pub const MAX_WAIT: Duration = Duration::from_secs(60);
/// The longest path under `/tile/`.
const MAX_PATH_BYTES: usize = 64;

const _: () = assert!(MAX_ENTRY_BYTES <= MAX_BODY_BYTES && MAX_REQUEST_BYTES <= MAX_BODY_BYTES);

/// What the operator's paths need.
#[derive(Clone)]
pub(crate) struct Counter {
    pub(crate) desk: Desk,
    pub(crate) published: watch::Receiver<Published>,
    pub(crate) origin: Arc<str>,
    pub(crate) gossip: Gossip,
    pub(crate) state: SharedState,
    pub(crate) instruments: Instruments,
}

impl Counter {
    /// Whether somebody whom the log knows, now or once, has really signed the entry.
    fn knows_a_signer(&self, entry: &Entry) -> bool {
        let state = read(&self.state);
        let Some(state) = state.as_ref() else { return false };
        entry.signers().iter().any(|name| {
            let member = state.members().filter(|member| member.name.as_str() == name);
            let registered = state.keys_named(name).iter().map(|own| own.key.vkey());
            let mut keys = member.map(|member| member.key.vkey()).chain(registered);
            keys.any(|key| entry.verify(key).is_ok())
        })
    }

    /// The policy for this entry, where it is another than that of every published checkpoint.
    fn stricter(&self, entry: &Entry) -> Option<Policy> {
        if entry.kind() != EntryKind::Commitment {
            return None;
        }
        let body: CommitmentBody = entry.body().ok()?;
        let kind = LeafKind::from_byte(body.leaf.0[1])?;
        let state = read(&self.state);
        let state = state.as_ref()?;
        state.quorums().commitments.get(&kind)?;
        state.policy_text(Some(kind)).parse().ok()
    }
}

/// What a witness's paths need.
#[derive(Clone)]
pub(crate) struct Booth {
    pub(crate) witness: Arc<Witness>,
    pub(crate) judge: Judge,
    /// A mirror copies what it is asked to cosign, first.
    pub(crate) mirrors: bool,
    pub(crate) instruments: Instruments,
}

/// Paths that serve a log's tiles.
pub(crate) fn tiles(tiles: Tiles) -> Router {
    Router::new()
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tile))
        .route("/v1/proof", get(proof))
        .route("/v1/entry", get(entry))
        .with_state(tiles)
}

/// Paths that say what the log's entries come to.
pub(crate) fn state(state: SharedState) -> Router {
    Router::new()
        .route("/v1/policy", get(policy))
        .route("/v1/members", get(members))
        .route("/v1/state", get(summary))
        .route("/v1/site", get(site))
        .route("/v1/keys", get(keys))
        .route("/v1/item", get(item))
        .with_state(state)
}

/// Paths that take entries.
pub(crate) fn counter(counter: Counter) -> Router {
    Router::new()
        .route("/v1/entries", post(submit))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(counter)
}

/// Paths of a witness.
pub(crate) fn witness(booth: Booth) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{origin}/checkpoint", get(remembered))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(booth)
}

/// Paths for evidence.
pub(crate) fn evidence(gossip: Gossip) -> Router {
    Router::new()
        .route("/v1/evidence", get(kept_evidence).post(told))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(gossip)
}

async fn checkpoint(State(tiles): State<Tiles>) -> Response {
    resource(&tiles, "checkpoint", "no-store")
}

async fn tile(State(tiles): State<Tiles>, Path(path): Path<String>) -> Response {
    if path.len() > MAX_PATH_BYTES {
        return StatusCode::NOT_FOUND.into_response();
    }
    // Tiles never change: a partial one has its width in its name.
    resource(&tiles, &format!("tile/{path}"), "public, max-age=31536000, immutable")
}

fn resource(tiles: &Tiles, path: &str, caching: &'static str) -> Response {
    let kind = match path {
        "checkpoint" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    match tiles.resource(path) {
        Ok(Some(bytes)) => {
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, caching)], bytes)
                .into_response()
        }
        Ok(None) => (StatusCode::NOT_FOUND, "not there (yet)\n").into_response(),
        Err(error) => failed(&error),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    index: Option<u64>,
    /// SHA-256 of an entry's bytes, in hexadecimal digits.
    entry: Option<String>,
}

async fn proof(State(tiles): State<Tiles>, Query(which): Query<Which>) -> Response {
    let index = match (which.index, which.entry) {
        (Some(index), None) => index,
        (None, Some(hex)) => {
            let mut name = [0; 32];
            if hex::decode_to_slice(&hex, &mut name).is_err() {
                return bad("`entry` is the SHA-256 of the entry's bytes, 64 hexadecimal digits");
            }
            match tiles.find_hash(&name) {
                Ok(Some(index)) => index,
                Ok(None) => return (StatusCode::NOT_FOUND, "no such entry\n").into_response(),
                Err(error) => return failed(&error),
            }
        }
        _ => return bad("name an entry by `index` or by `entry`"),
    };
    match plain_proof(&tiles, index) {
        Ok(Some(text)) => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
        }
        Ok(None) => {
            (StatusCode::NOT_FOUND, "not under a published checkpoint yet\n").into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn entry(State(tiles): State<Tiles>, Query(which): Query<Which>) -> Response {
    let Some(index) = which.index else { return bad("name an entry by `index`") };
    match tiles.entry(index) {
        Ok(bytes) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response(),
        Err(TilesError::NoSuchEntry { .. }) => {
            (StatusCode::NOT_FOUND, "no such entry\n").into_response()
        }
        Err(error) => failed(&error),
    }
}

/// The proof of an entry; `None` if the published checkpoint does not contain the entry.
fn plain_proof(tiles: &Tiles, index: u64) -> Result<Option<String>, TilesError> {
    let Some(Published { size, note }) = tiles.published()? else { return Ok(None) };
    if index >= size {
        return Ok(None);
    }
    let path = tiles.inclusion(size, index)?;
    Ok(Some(PlainProof { index, path, checkpoint: note }.to_text()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct For {
    /// For commitments to leaves of this kind; without it, for everything else.
    kind: Option<LeafKind>,
}

async fn policy(State(state): State<SharedState>, Query(For { kind }): Query<For>) -> Response {
    let text = read(&state).as_ref().map(|state| state.policy_text(kind));
    text.map_or_else(unknown_yet, |text| {
        ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
    })
}

async fn members(State(state): State<SharedState>) -> Response {
    let members: Option<Vec<_>> =
        read(&state).as_ref().map(|state| state.members().cloned().collect());
    members.map_or_else(unknown_yet, |members| Json(members).into_response())
}

/// What the log's entries come to, without the registers.
async fn summary(State(state): State<SharedState>) -> Response {
    let summary = read(&state).as_ref().map(|state| {
        let open: Vec<_> = state
            .open_proposals()
            .map(|(id, open)| json!({ "id": hex::encode(id), "proposal": open }))
            .collect();
        let resolved: Vec<_> = state
            .resolved_proposals()
            .map(|(id, resolved)| json!({ "id": hex::encode(id), "resolved": resolved }))
            .collect();
        json!({
            "origin": state.origin(),
            "consortium": state.consortium(),
            "size": state.next_index(),
            "version": state.version(),
            "digest": state.digest(),
            "operator": state.operator(),
            "quorums": state.quorums(),
            "policy_bundle": state.policy_bundle(),
            "predecessor": state.predecessor(),
            "ended": state.ended(),
            "open": open,
            "resolved": resolved,
        })
    });
    summary.map_or_else(unknown_yet, |summary| Json(summary).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// A site's origin, or a key's name.
    name: String,
}

/// How far a site's log is known here.
async fn site(State(state): State<SharedState>, Query(named): Query<Named>) -> Response {
    let state = read(&state);
    let Some(state) = state.as_ref() else { return unknown_yet() };
    match state.site(&named.name) {
        Some(site) => {
            let SiteHead { checkpoint, size, index, .. } = site.clone();
            let head = SiteAt { checkpoint, size, index };
            Json(head).into_response()
        }
        None => (StatusCode::NOT_FOUND, "no checkpoint of such a site\n").into_response(),
    }
}

/// All keys that ever bore a name, and how the device did, if it is one.
async fn keys(State(state): State<SharedState>, Query(named): Query<Named>) -> Response {
    let state = read(&state);
    let Some(state) = state.as_ref() else { return unknown_yet() };
    let keys = state.keys_named(&named.name);
    Json(json!({ "keys": keys, "device": state.device(&named.name) })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemNamed {
    /// An item's name in the log.
    id: Hex<32>,
}

/// An item's chain of custody.
async fn item(State(state): State<SharedState>, Query(named): Query<ItemNamed>) -> Response {
    let state = read(&state);
    let Some(state) = state.as_ref() else { return unknown_yet() };
    match state.item(&named.id) {
        Some(chain) => Json(chain).into_response(),
        None => (StatusCode::NOT_FOUND, "no such item\n").into_response(),
    }
}

fn unknown_yet() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the log's first entry is not known here yet\n")
        .into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    level: Level,
    #[serde(default)]
    wait_ms: u64,
}

async fn submit(
    State(counter): State<Counter>,
    Query(wanted): Query<Wanted>,
    body: Bytes,
) -> Response {
    let entry = match Entry::parse(&body) {
        Ok(entry) => entry,
        Err(error) => {
            counter.instruments.refused("malformed");
            return bad(&error.to_string());
        }
    };
    if entry.origin() != &*counter.origin {
        counter.instruments.refused("other-log");
        let text = format!("this log is {}, the entry is meant for another\n", counter.origin);
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let index = match counter.desk.submit(entry.clone()).await {
        Ok(index) => index,
        Err(error) => return not_sequenced(&counter, &entry, &error).await,
    };
    let mut placed = Placed { index, level: Level::Sequenced };
    let wait = Duration::from_millis(wanted.wait_ms).min(MAX_WAIT);
    if wanted.level == Level::Witnessed {
        let stricter = counter.stricter(&entry);
        let enough = |published: &Published| {
            published.size > index
                && stricter.as_ref().is_none_or(|own| own.check(published.note.as_bytes()).is_ok())
        };
        let mut published = counter.published.clone();
        let witnessed = published.wait_for(enough);
        if !matches!(tokio::time::timeout(wait, witnessed).await, Ok(Ok(_))) {
            return (StatusCode::ACCEPTED, Json(placed)).into_response();
        }
        placed.level = Level::Witnessed;
    }
    Json(placed).into_response()
}

async fn not_sequenced(counter: &Counter, entry: &Entry, error: &NotSequenced) -> Response {
    counter.instruments.refused(match error {
        NotSequenced::Refused(_) => "refused",
        NotSequenced::Full => "full",
        NotSequenced::Failed(_) => "failed",
        NotSequenced::Unknown(_) => "unknown",
        NotSequenced::Stopping => "stopping",
    });
    let status = match error {
        NotSequenced::Refused(refused) => {
            if *refused == Refused::Again {
                return (StatusCode::ALREADY_REPORTED, format!("{refused}\n")).into_response();
            }
            // Why is said to the submitter: it may name a key, and that of a patient is a pseudonym.
            tracing::warn!(kind = %entry.kind(), "an entry was refused");
            // A stranger's attempt is nobody's, and strangers could make any number of them.
            if refused.is_attempt() && counter.knows_a_signer(entry) {
                let reason = refused.to_string();
                counter.gossip.refused(EvidenceKind::RefusedEntry, entry, &reason).await;
            }
            StatusCode::FORBIDDEN
        }
        NotSequenced::Full => StatusCode::TOO_MANY_REQUESTS,
        NotSequenced::Failed(_) | NotSequenced::Stopping => StatusCode::CONFLICT,
        NotSequenced::Unknown(_) => StatusCode::GATEWAY_TIMEOUT,
    };
    let mut answer = (status, format!("{error}\n")).into_response();
    if status != StatusCode::FORBIDDEN {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

async fn add_checkpoint(State(booth): State<Booth>, body: Bytes) -> Response {
    let Booth { witness, judge, mirrors, instruments } = booth;
    if let Some(mirror) = judge.follower.as_ref().filter(|_| mirrors) {
        let asked = AddCheckpoint::parse(&body);
        let checkpoint = asked.map(|asked| asked.checkpoint).unwrap_or_default();
        // What is not the log's own the witness refuses below, with the right status.
        if let Err(error @ CopyError::Read(_)) = mirror.take(checkpoint.as_bytes()).await {
            tracing::warn!(%error, "not copied, so not cosigned");
            instruments.cosigned("not-copied");
            let answer = "a mirror cosigns what it has stored, and could not read this\n";
            return (StatusCode::SERVICE_UNAVAILABLE, answer).into_response();
        }
    }
    let asked = body.clone();
    // It writes to disk: not on a thread that serves others.
    let cosigned =
        tokio::task::spawn_blocking(move || witness.add_checkpoint(&asked, super::now_s())).await;
    let error = match cosigned {
        Ok(Ok(line)) => {
            instruments.cosigned("cosigned");
            return line.into_response();
        }
        Ok(Err(error)) => error,
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    instruments.cosigned(match &error {
        AddCheckpointError::Conflict { .. } => "conflict",
        AddCheckpointError::Inconsistent(_) => "inconsistent",
        AddCheckpointError::Signature(_) => "signature",
        AddCheckpointError::Database(_) => "database",
        _ => "malformed",
    });
    if let Some(seen) = error.evidence() {
        judge.hear(seen).await;
    }
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match error {
        AddCheckpointError::Conflict { remembered, .. } => {
            (status, [(header::CONTENT_TYPE, "text/x.tlog.size")], format!("{remembered}\n"))
                .into_response()
        }
        error => (status, format!("{error}\n")).into_response(),
    }
}

async fn remembered(
    State(Booth { witness, .. }): State<Booth>,
    Path(hash): Path<String>,
) -> Response {
    let origin =
        witness.origins().into_iter().find(|origin| hex::encode(Sha256::digest(origin)) == hash);
    match origin.map(|origin| witness.latest(&origin)) {
        Some(Ok(Some(note))) => note.into_response(),
        Some(Err(error)) => failed(&error),
        None | Some(Ok(None)) => StatusCode::NOT_FOUND.into_response(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn kept_evidence(
    State(gossip): State<Gossip>,
    Query(After { after }): Query<After>,
) -> Response {
    match gossip.page(after) {
        Ok((next, evidence)) => Json(EvidencePage { next, evidence }).into_response(),
        Err(error) => failed(&error),
    }
}

async fn told(State(gossip): State<Gossip>, body: Bytes) -> Response {
    let text = match std::str::from_utf8(&body) {
        Ok(text) => text,
        Err(_) => return bad("evidence is text"),
    };
    match Evidence::parse(text) {
        Ok(evidence) => match gossip.take(evidence).await {
            Ok(()) => StatusCode::OK.into_response(),
            Err(error @ NotKept::OtherLog) => bad(&error.to_string()),
            Err(error @ NotKept::Stranger) => {
                (StatusCode::FORBIDDEN, format!("{error}\n")).into_response()
            }
            Err(error @ NotKept::MembersUnknown) => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
            }
            Err(error @ NotKept::Full) => {
                (StatusCode::INSUFFICIENT_STORAGE, format!("{error}\n")).into_response()
            }
            Err(error) => failed(&error),
        },
        Err(error) => bad(&error.to_string()),
    }
}

fn bad(problem: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response()
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "the ledger's database");
    (StatusCode::INTERNAL_SERVER_ERROR, "the server's database failed; see its log\n")
        .into_response()
}

fn read(state: &SharedState) -> RwLockReadGuard<'_, Option<crate::governance::State>> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}
