//! The replicated checkpoint store: an etcd cluster of its own, asked over its v3 JSON gateway.
//!
//! # Format
//! | key, after `haar-ledger/<origin>/` | value |
//! |---|---|
//! | `checkpoint` | the current note |
//! | `staged/<size before it, 20 digits>` | the batch |
//! | `applied/<node>` | the size that the node has applied, in decimal |
//!
//! A swap is one transaction: *if* the checkpoint's value is the old note, *then* put the new note and its
//! batch. A note is never the current one twice, since sizes only grow, so comparing values is as strict as
//! comparing revisions. Reads are linearizable. No lock and no lease is used: a process that sleeps through
//! its lease still believes in it.
//!
//! # Limits
//! etcd refuses requests over 1.5 MiB, so a batch has at most [`MAX_BATCH_BYTES`]. Batches are kept until all
//! nodes that are known have applied them, the newest [`KEPT_STAGED`] in any case (a node may be about to
//! start), and never more than [`MAX_ETCD_STAGED`]: etcd holds 2 GiB. Old revisions are compacted
//! from here, so the cluster must not be shared with anybody who reads history.
//!
//! # Certain and unknown
//! Certain are: no connection, and a refusal by a gRPC code that is given before a proposal is made. All else
//! (time-outs, a leader that changed, a connection that broke) leaves open what happened. The next call then
//! begins at another endpoint.
//!
//! # Trust
//! Whoever can write to etcd can stop the log, but not forge it: what is read is checked against the log's
//! key and hashes by the sequencer.

use super::{CheckpointStore, MAX_NODES, Staged, StoreError, SwapError};
use haar_identity::base64;
use reqwest::{Client, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The longest batch; etcd takes requests of 1.5 MiB.
pub const MAX_BATCH_BYTES: usize = 1 << 20;
/// The most batches that are kept in etcd, 256 MiB at most.
pub const MAX_ETCD_STAGED: usize = 256;
/// The newest batches, which are kept even if every known node has applied them.
pub const KEPT_STAGED: usize = 64;
/// The most endpoints.
pub const MAX_ENDPOINTS: usize = 16;
/// How long one request may take: longer than a healthy write, shorter than an election.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long a connection may take: nothing was sent, so the next endpoint is asked at once.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// The longest answer that is read: a batch in base 64 and what is around it.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// A node says how far it is, and forgets what is not needed, once in so many batches.
const REPORT_EVERY: usize = 16;

/// A checkpoint store in etcd.
pub struct EtcdStore {
    http: Client,
    endpoints: Vec<String>,
    prefix: String,
    /// The endpoint that is asked first.
    preferred: AtomicUsize,
    /// Calls of `applied` so far.
    reports: AtomicUsize,
}

/// Why a request got no answer.
#[derive(Debug)]
enum AskError {
    /// It was not carried out.
    Certain(String),
    /// It may have been.
    Unknown(String),
}

impl EtcdStore {
    /// The store of the log `origin` in the cluster with these client URLs.
    ///
    /// # Errors
    /// If there is no endpoint, or more than [`MAX_ENDPOINTS`], or the HTTP client cannot be made.
    pub fn new(endpoints: &[String], origin: &str) -> Result<Self, StoreError> {
        if !(1..=MAX_ENDPOINTS).contains(&endpoints.len()) {
            return Err(StoreError(format!("name 1 to {MAX_ENDPOINTS} endpoints of etcd")));
        }
        // The process's provider of cryptography; that there is one already is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().connect_timeout(CONNECT_TIMEOUT).no_proxy();
        let http = http.redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|error| StoreError(format!("the HTTP client: {error}")))?;
        let endpoints = endpoints.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self {
            http,
            endpoints,
            prefix: format!("haar-ledger/{origin}/"),
            preferred: AtomicUsize::new(0),
            reports: AtomicUsize::new(0),
        })
    }

    fn key(&self, name: &str) -> String {
        base64::encode(format!("{}{name}", self.prefix).as_bytes())
    }

    fn staged_key(&self, old_size: u64) -> String {
        self.key(&format!("staged/{old_size:020}"))
    }

    async fn swap(&self, old: Option<&str>, new: Staged<'_>) -> Result<(), SwapError> {
        if new.batch.len() > MAX_BATCH_BYTES {
            return Err(SwapError::Failed(StoreError("the batch is too long for etcd".to_owned())));
        }
        let checkpoint = self.key("checkpoint");
        let compare = match old {
            None => json!({ "key": checkpoint, "target": "CREATE", "create_revision": "0" }),
            Some(note) => {
                json!({ "key": checkpoint, "target": "VALUE", "value": base64::encode(note.as_bytes()) })
            }
        };
        let note = base64::encode(new.note.as_bytes());
        let batch = base64::encode(new.batch);
        let request = json!({
            "compare": [compare],
            "success": [
                { "request_put": { "key": checkpoint, "value": note } },
                { "request_put": { "key": self.staged_key(new.old_size), "value": batch } },
            ],
        });
        match self.write("txn", &request).await {
            Ok(answer) if answer.succeeded => Ok(()),
            Ok(_) => Err(SwapError::Lost),
            Err(AskError::Certain(problem)) => Err(SwapError::Failed(StoreError(problem))),
            Err(AskError::Unknown(problem)) => Err(SwapError::Unknown(StoreError(problem))),
        }
    }

    /// Asks one endpoint after the other while it is certain that nothing was written.
    async fn write(&self, call: &str, request: &Value) -> Result<Answer, AskError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut problem = String::new();
        for step in 0..self.endpoints.len() {
            let at = (first + step) % self.endpoints.len();
            match self.ask(at, call, request).await {
                Ok(answer) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(AskError::Certain(certain)) => problem = certain,
                Err(unknown) => {
                    self.preferred.store((at + 1) % self.endpoints.len(), Ordering::Relaxed);
                    return Err(unknown);
                }
            }
        }
        Err(AskError::Certain(problem))
    }

    /// Asks one endpoint after the other.
    async fn read(&self, request: &Value) -> Result<Answer, StoreError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut problem = String::new();
        for step in 0..self.endpoints.len() {
            let at = (first + step) % self.endpoints.len();
            match self.ask(at, "range", request).await {
                Ok(answer) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(AskError::Certain(why) | AskError::Unknown(why)) => problem = why,
            }
        }
        Err(StoreError(problem))
    }

    async fn ask(&self, at: usize, call: &str, request: &Value) -> Result<Answer, AskError> {
        let url = &self.endpoints[at];
        let sent = self.http.post(format!("{url}/v3/kv/{call}"));
        let sent = sent.timeout(REQUEST_TIMEOUT).body(request.to_string()).send().await;
        let unknown =
            |problem: &dyn std::fmt::Display| AskError::Unknown(format!("{url}: {problem}"));
        let response = sent.map_err(|error| match error.is_connect() {
            true => AskError::Certain(format!("{url}: no connection")),
            false => unknown(&error.without_url()),
        })?;
        let status = response.status();
        let body = read_limited(response).await.map_err(|problem| unknown(&problem))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| unknown(&error));
        }
        let refusal: Refusal = serde_json::from_slice(&body).unwrap_or_default();
        match refusal.is_certain() {
            true => Err(AskError::Certain(format!("{url}: {}", refusal.error))),
            false => Err(unknown(&format!("{status} {}", refusal.error))),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let answer = self.read(&json!({ "key": key })).await?;
        let Some(row) = answer.kvs.into_iter().next() else { return Ok(None) };
        row.value().map(Some)
    }

    /// Forgets the batches that no node needs, and etcd's memory of them.
    async fn forget(&self) -> Result<(), StoreError> {
        let nodes = self.read(&range(&self.key("applied/"), &self.key("applied0"), false)).await?;
        let mut least = u64::MAX;
        for row in &nodes.kvs {
            let size = String::from_utf8(row.value()?).ok().and_then(|text| text.parse().ok());
            least = least.min(size.unwrap_or(0));
        }
        let staged = self.read(&range(&self.key("staged/"), &self.key("staged0"), true)).await?;
        let sizes: Vec<u64> = staged.kvs.iter().filter_map(Row::staged_size).collect();
        let Some(first_kept) = first_kept(&sizes, least) else { return Ok(()) };
        let delete = json!({ "key": self.staged_key(0), "range_end": self.staged_key(first_kept) });
        let deleted = self.write("deleterange", &delete).await.map_err(AskError::into_store)?;
        let compact = json!({ "revision": deleted.header.revision });
        // Another node may have compacted further; what is not compacted now is the next time.
        let at = self.preferred.load(Ordering::Relaxed);
        if let Err(error) = self.ask(at, "compaction", &compact).await {
            tracing::debug!(?error, "etcd was not compacted");
        }
        Ok(())
    }
}

/// The least size of which the batch is kept, of the sizes that are there in ascending order, if `least` is
/// what every known node has applied; `None` if all are.
fn first_kept(sizes: &[u64], least: u64) -> Option<u64> {
    let newest = sizes.len().saturating_sub(KEPT_STAGED);
    let too_many = sizes.len().saturating_sub(MAX_ETCD_STAGED);
    let applied = sizes.partition_point(|size| *size < least);
    let first = applied.min(newest).max(too_many);
    if first == 0 { None } else { sizes.get(first).copied() }
}

impl CheckpointStore for EtcdStore {
    async fn fetch(&self) -> Result<Option<String>, StoreError> {
        let Some(note) = self.get(&self.key("checkpoint")).await? else { return Ok(None) };
        let text = String::from_utf8(note);
        text.map(Some).map_err(|_| StoreError("the checkpoint in etcd is no text".to_owned()))
    }

    async fn create(&self, first: Staged<'_>) -> Result<(), SwapError> {
        self.swap(None, first).await
    }

    async fn compare_and_swap(&self, old: &str, new: Staged<'_>) -> Result<(), SwapError> {
        self.swap(Some(old), new).await
    }

    async fn staged(&self, old_size: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(&self.staged_key(old_size)).await
    }

    async fn applied(&self, node: &str, size: u64) -> Result<(), StoreError> {
        if !self.reports.fetch_add(1, Ordering::Relaxed).is_multiple_of(REPORT_EVERY) {
            return Ok(());
        }
        let key = self.key(&format!("applied/{node}"));
        let put = json!({ "key": key, "value": base64::encode(size.to_string().as_bytes()) });
        self.write("put", &put).await.map_err(AskError::into_store)?;
        self.forget().await
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn max_batch_bytes(&self) -> usize {
        MAX_BATCH_BYTES
    }
}

impl AskError {
    fn into_store(self) -> StoreError {
        match self {
            Self::Certain(problem) | Self::Unknown(problem) => StoreError(problem),
        }
    }
}

/// Of the answers to all calls, what is needed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    header: Header,
    succeeded: bool,
    kvs: Vec<Row>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Header {
    /// A number, written as text.
    revision: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    key: String,
    value: String,
}

impl Row {
    fn value(&self) -> Result<Vec<u8>, StoreError> {
        base64::decode(&self.value).ok_or_else(|| StoreError("etcd answered no base 64".to_owned()))
    }

    fn staged_size(&self) -> Option<u64> {
        let key = String::from_utf8(base64::decode(&self.key)?).ok()?;
        key.rsplit('/').next()?.parse().ok()
    }
}

/// What the gateway says when it refuses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    code: u32,
}

impl Refusal {
    /// Whether the gRPC code is one that etcd gives before it proposes anything: invalid argument (too large,
    /// compacted), permission denied, resource exhausted (space, too many requests), unimplemented,
    /// unauthenticated. "Unavailable" may come after a proposal.
    fn is_certain(&self) -> bool {
        matches!(self.code, 3 | 7 | 8 | 12 | 16)
    }
}

fn range(first: &str, end: &str, keys_only: bool) -> Value {
    // A node that is down for long must not make the answer grow without limit.
    let limit = (4 * MAX_ETCD_STAGED).max(MAX_NODES);
    json!({ "key": first, "range_end": end, "keys_only": keys_only, "limit": limit.to_string() })
}

async fn read_limited(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| error.without_url().to_string())?
    {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err("the answer is too long".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_a_node_needs_within_the_limits() {
        let sizes: Vec<u64> = (0..300).map(|n| n * 10).collect();
        assert_eq!(first_kept(&sizes[..50], u64::MAX), None, "the newest are kept");
        assert_eq!(first_kept(&sizes[..100], u64::MAX), Some(360));
        assert_eq!(first_kept(&sizes[..100], 95), Some(100), "a node has applied up to 95");
        assert_eq!(first_kept(&sizes[..100], 0), None, "a node has applied nothing");
        assert_eq!(first_kept(&sizes, 0), Some(440), "it is too far behind to be waited for");
        assert_eq!(first_kept(&[], 0), None);
    }

    #[test]
    fn only_what_was_refused_before_it_was_proposed_is_certain() {
        let refusal = |text: &str| serde_json::from_str::<Refusal>(text).unwrap().is_certain();
        assert!(refusal(r#"{"error":"etcdserver: request is too large","code":3}"#));
        assert!(refusal(r#"{"error":"etcdserver: mvcc: database space exceeded","code":8}"#));
        assert!(!refusal(r#"{"error":"etcdserver: leader changed","code":14}"#));
        assert!(!refusal(r#"{"error":"etcdserver: request timed out","code":14}"#));
        assert!(!refusal("{}"));
    }
}
