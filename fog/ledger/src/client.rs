//! Asking a ledger server: submit, fetch, prove.
//!
//! # Certain and unknown
//! A refusal is certain. A submission that was not answered may have been sequenced: submit the same bytes
//! again, and the log answers with the place that they have. Entries are signed deterministically
//! (RFC 8032), so whoever makes the same entry again makes the same bytes.

use crate::entry::Entry;
use crate::evidence::Evidence;
use crate::proof::MAX_PROOF_BYTES;
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest answer that is read: a page of evidence.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// How long a server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no HTTPS client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The file of authorities.
    #[error("{path}: {problem}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// TLS could not be set up.
    #[error("the HTTPS client: {0}")]
    Setup(String),
}

/// An HTTP client for [`Client`]: HTTP/1.1 with connections kept open, no redirects. `ca_file` names a PEM file
/// of the only authorities that are trusted; without it the system's are.
///
/// # Errors
/// If the file cannot be used.
pub fn http(ca_file: Option<&Path>) -> Result<reqwest::Client, HttpError> {
    install_provider();
    let mut builder = reqwest::Client::builder()
        .timeout(ANSWER_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = ca_file {
        let wrong = |problem: String| HttpError::File { path: path.to_owned(), problem };
        let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| wrong(error.to_string()))?;
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(|error| HttpError::Setup(error.to_string()))
}

/// The process's provider of cryptography; that there is one already is fine.
pub(crate) fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// How sure a submitter wants to be before it goes on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The entry has its place in a signed checkpoint that the operator cannot take back unseen.
    #[default]
    Sequenced,
    /// A checkpoint that contains it has the cosignatures that the log's policy demands.
    Witnessed,
}

/// Where an entry is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Placed {
    /// Its index in the log.
    pub index: u64,
    /// What holds of it now.
    pub level: Level,
}

/// Why an entry has no place, as far as one knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The log refuses it, and will again.
    #[error("the log refuses the entry: {0}")]
    Refused(String),
    /// What it says is in the log already, in an entry of other bytes, or in a log that this one follows.
    #[error("the log has it already: {0}")]
    Known(String),
    /// Not now: the queue is full or the server is no operator. Nothing was taken.
    #[error("the log takes nothing now: {0}")]
    NotNow(String),
    /// No answer, or none that can be read. Submit the same bytes again.
    #[error("it is not known whether the log took the entry: {0}; submit it again")]
    Unknown(String),
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It is not there.
    #[error("{0} has nothing there yet")]
    Absent(String),
    /// It does not want what it was told.
    #[error("{url} refuses it: {status}")]
    Refused {
        /// Which.
        url: String,
        /// The status code.
        status: u16,
    },
    /// The server could not be asked.
    #[error("cannot ask {url}: {problem}")]
    Unreachable {
        /// Which.
        url: String,
        /// Why.
        problem: String,
    },
    /// The answer is not one.
    #[error("the answer of {url} is wrong: {problem}")]
    Answer {
        /// Which.
        url: String,
        /// What is wrong.
        problem: String,
    },
}

/// One ledger server.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

/// How far a site's log is known to the consortium log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SiteAt {
    /// The note of its last checkpoint there.
    pub checkpoint: String,
    /// That checkpoint's size.
    pub size: u64,
    /// Index of the entry with it.
    pub index: u64,
}

/// A page of evidence.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvidencePage {
    /// What to ask for next.
    pub next: u64,
    /// Each a text that [`Evidence::parse`] reads.
    pub evidence: Vec<String>,
}

impl Client {
    /// A server by its URL, asked through `http`.
    pub fn new(http: reqwest::Client, url: &str) -> Self {
        Self { http, url: url.trim_end_matches('/').to_owned() }
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Submits an entry and waits up to `patience` until it is at `level`. If it gets a place but not the
    /// level in time, the answer says the level that it has.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(
        &self,
        entry: &Entry,
        level: Level,
        patience: Duration,
    ) -> Result<Placed, SubmitError> {
        let level = match level {
            Level::Sequenced => "sequenced",
            Level::Witnessed => "witnessed",
        };
        let url = format!("{}/v1/entries?level={level}&wait_ms={}", self.url, patience.as_millis());
        let request = self
            .http
            .post(&url)
            .header("content-type", "text/plain; charset=utf-8")
            .timeout(patience + Duration::from_secs(2))
            .body(entry.as_bytes().to_vec());
        let unknown = |error: reqwest::Error| SubmitError::Unknown(error.without_url().to_string());
        let mut answer = request.send().await.map_err(unknown)?;
        let status = answer.status();
        let body = read(&mut answer).await.map_err(SubmitError::Unknown)?;
        let said = || String::from_utf8_lossy(&body).trim().to_owned();
        match status {
            StatusCode::OK | StatusCode::ACCEPTED => serde_json::from_slice(&body)
                .map_err(|error| SubmitError::Unknown(error.to_string())),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::NOT_FOUND | StatusCode::CONFLICT => {
                Err(SubmitError::NotNow(said()))
            }
            StatusCode::ALREADY_REPORTED => Err(SubmitError::Known(said())),
            status if status.is_client_error() => Err(SubmitError::Refused(said())),
            _ => Err(SubmitError::Unknown(said())),
        }
    }

    /// The published checkpoint, as it was sent: nothing in it has been checked.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn checkpoint(&self) -> Result<Vec<u8>, FetchError> {
        self.get("/checkpoint").await
    }

    /// How far this site's log is known there; `None` if it is not.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn site(&self, origin: &str) -> Result<Option<SiteAt>, FetchError> {
        // Origins have no character that a query would have to escape but these.
        let name = origin.replace('%', "%25").replace('&', "%26").replace('#', "%23");
        match self.get(&format!("/v1/site?name={name}")).await {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(site) => Ok(Some(site)),
                Err(error) => Err(self.wrong(error.to_string())),
            },
            Err(FetchError::Absent(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The entry at `index`; not checked.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn entry(&self, index: u64) -> Result<Entry, FetchError> {
        let bytes = self.get(&format!("/v1/entry?index={index}")).await?;
        Entry::parse(&bytes).map_err(|error| self.wrong(error.to_string()))
    }

    /// The proof of the entry at `index` against the published checkpoint, a C2SP tlog-proof; not checked.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn proof(&self, index: u64) -> Result<String, FetchError> {
        let bytes = self.get(&format!("/v1/proof?index={index}")).await?;
        if bytes.len() > MAX_PROOF_BYTES {
            return Err(self.wrong(format!("a proof of {} bytes", bytes.len())));
        }
        String::from_utf8(bytes).map_err(|_| self.wrong("a proof that is no text".to_owned()))
    }

    /// What a witness or monitor has found since place `after`. Each piece has been checked.
    ///
    /// # Errors
    /// See [`FetchError`]; one piece that proves nothing spoils the page.
    pub async fn evidence(&self, after: u64) -> Result<(u64, Vec<Evidence>), FetchError> {
        let bytes = self.get(&format!("/v1/evidence?after={after}")).await?;
        let page: EvidencePage =
            serde_json::from_slice(&bytes).map_err(|error| self.wrong(error.to_string()))?;
        let mut found = Vec::with_capacity(page.evidence.len());
        for text in page.evidence {
            found.push(Evidence::parse(&text).map_err(|error| self.wrong(error.to_string()))?);
        }
        Ok((page.next, found))
    }

    /// Tells of evidence.
    ///
    /// # Errors
    /// See [`FetchError`]; after [`FetchError::Refused`] telling it again changes nothing.
    pub async fn tell(&self, evidence: &Evidence) -> Result<(), FetchError> {
        let request = self.http.post(format!("{}/v1/evidence", self.url)).body(evidence.to_text());
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::TOO_MANY_REQUESTS => Err(self.wrong(answer.status().to_string())),
            status if status.is_client_error() || status == StatusCode::INSUFFICIENT_STORAGE => {
                Err(FetchError::Refused { url: self.url.clone(), status: status.as_u16() })
            }
            status => Err(self.wrong(status.to_string())),
        }
    }

    /// Asks a witness for its cosignature (C2SP tlog-witness): its status and body.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn add_checkpoint(&self, request: String) -> Result<(u16, String), FetchError> {
        let request = self.http.post(format!("{}/add-checkpoint", self.url)).body(request);
        let mut answer = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = answer.status().as_u16();
        let body = read(&mut answer).await.map_err(|problem| self.wrong(problem))?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Any other path, as bytes.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn get(&self, path: &str) -> Result<Vec<u8>, FetchError> {
        let request = self.http.get(format!("{}{path}", self.url));
        let mut answer = request.send().await.map_err(|error| self.unreachable(error))?;
        match answer.status() {
            StatusCode::OK => read(&mut answer).await.map_err(|problem| self.wrong(problem)),
            StatusCode::NOT_FOUND => Err(FetchError::Absent(self.url.clone())),
            status => {
                let body = read(&mut answer).await.unwrap_or_default();
                Err(self.wrong(format!("{status}: {}", String::from_utf8_lossy(&body).trim())))
            }
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> FetchError {
        // reqwest's own text leaves out why; the innermost cause says it.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        FetchError::Unreachable { url: self.url.clone(), problem: cause.to_string() }
    }

    fn wrong(&self, problem: String) -> FetchError {
        FetchError::Answer { url: self.url.clone(), problem }
    }
}

async fn read(answer: &mut Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| error.without_url().to_string())? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err("the answer is longer than any of a ledger server".to_owned());
        }
    }
    Ok(bytes)
}
