//! The read API: who may read what of whom, asked of the log that all members share.
//!
//! - `POST /v1/access/statements`: a patient's signed grant or revocation (`haar ledger grant`, `revoke`). The
//!   answer comes when it is committed and in force, and names its leaf and id.
//! - `GET /v1/access/records/{subject}?kind=…&purpose=…[&scope=…][&before=LEAF][&limit=N]`: records of one kind,
//!   the newest first. Signed by a registered key ([`haar_ledger::consent::RequestSignature`]).
//! - `GET /v1/access/studies/{study}/records?kind=…[&before=LEAF][&limit=N]`: records of all who have granted the study to the
//!   researcher who asks, each under the patient's name in that study ([`studies`]).
//! - `GET /v1/access/audit/{subject}`: every decision about a patient, the newest first, as FHIR `AuditEvent`s; for
//!   the patient's own key only.
//! - `GET /v1/access/view`: the site's origin, and how old its view of the consortium log is.
//!
//! # How it is decided
//! [`view`] copies the consortium log from its first entry, so it knows who has which key and which policies are
//! agreed on; the pinned policy says since when a quorum vouches for that copy. Cedar decides for each record
//! that would be answered, each decision becomes a leaf of the site log, and only then is anything answered. A
//! request that nothing is found for is decided and recorded too.
//!
//! # Who is told
//! The patient finds every decision under their audit. Statements, and every break-glass, are put before the members
//! as commitments ([`crate::consortium`]): that it happened, where and when, not to whom.
//!
//! # How statements travel
//! A statement names the one site that it is meant for, and goes there and nowhere else, over HTTPS: so it is in force
//! as soon as it is committed. Members see its commitment. A patient of two sites tells both.
//!
//! # Trust
//! The site reads all records anyway: this API binds those who come from outside. A site that suppresses
//! a revocation can be found out by the patient, who has the leaf that was answered and finds no commitment of it.
//!
//! # Limits
//! [`gatekeeper::MAX_RECORDS`] records an answer, found among [`gatekeeper::MAX_LOOKED_AT`] leaves; `before` in the answer says where to go on. Bodies of at most
//! [`haar_ledger::consent::MAX_STATEMENT_BYTES`]. Not served yet: alarms and parameters.

mod claims;
mod gatekeeper;
mod routes;
mod studies;
#[cfg(test)]
mod tests;
mod view;

use crate::config::{AccessConfig, ConsortiumConfig};
use crate::consortium::{Pinned, PinnedError};
use crate::store::Store;
use claims::{Claims, ClaimsError};
use gatekeeper::Gatekeeper;
use haar_ledger::client::{Client, HttpError, http};
use haar_ledger::consortium::{Lineage, Reader, Tiles, TilesError};
use haar_ledger::server::{Door, HttpConfig, TlsError};
use haar_ledger::{ReadError, VerifierKey, VerifierKeyError};
use haar_telemetry::Metrics;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use studies::StudyKeys;
use tokio_util::sync::CancellationToken;
use view::Follower;

pub use studies::StudyKeysError;
pub(crate) use view::create;

/// The name of a consortium log's copy in the data directory: `consortium-`, the first eight hexadecimal digits of the SHA-256 of
/// the log's verifier key, `.redb`.
pub fn copy_file(log: &VerifierKey) -> String {
    let hash = hex::encode(Sha256::digest(log.as_str()));
    format!("consortium-{}.redb", &hash[..8])
}

/// How long open requests may take after shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the read API did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The pinned policy.
    #[error(transparent)]
    Pinned(#[from] PinnedError),
    /// The copy of the consortium log.
    #[error("the copy of the consortium log: {0}")]
    Copy(#[from] TilesError),
    /// Its file.
    #[error(
        "the consortium log's copy in the data directory (consortium-*.redb) does not open: {0}. Move it away: it is copied again"
    )]
    Database(#[from] redb::Error),
    /// The copy of a log before.
    #[error(
        "{path}, the copy of the log {log} that the consortium log follows: {error}. Take that file from another fog", path = .path.display()
    )]
    Predecessor {
        /// The file.
        path: PathBuf,
        /// Whose copy.
        log: String,
        /// What is wrong.
        #[source]
        error: Box<redb::DatabaseError>,
    },
    /// A key of such a log.
    #[error("consortium.predecessors: {0}")]
    PredecessorKey(#[from] VerifierKeyError),
    /// What patients have said.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The claims.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// The pseudonyms of studies.
    #[error(transparent)]
    Studies(#[from] StudyKeysError),
    /// Address or certificate.
    #[error("access: {0}")]
    Tls(#[from] TlsError),
    /// The HTTPS client.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// The read API, ready to run.
pub(crate) struct Access {
    door: Door,
    router: axum::Router,
    follower: Follower,
}

impl Access {
    /// Reads the view back from disk and listens.
    pub(crate) async fn open(
        config: &AccessConfig,
        consortium: &ConsortiumConfig,
        data_dir: &Path,
        store: Arc<Store>,
        metrics: &Metrics,
    ) -> Result<Self, AccessError> {
        let Pinned { policy, log } = Pinned::load(consortium)?;
        let before = lineage(&consortium.predecessors, data_dir)?;
        let path = data_dir.join(copy_file(&log));
        let db = redb::Database::create(path).map_err(redb::Error::from)?;
        let tiles = Tiles::open(Arc::new(db), log)?;
        let http = http(consortium.ca_file.as_deref())?;
        let readers = consortium.urls.iter();
        let readers = readers.map(|url| Reader::new(Client::new(http.clone(), url))).collect();
        let poll = Duration::from_millis(config.poll_ms);
        let follower = Follower::open(tiles, before, policy, readers, poll, &store, metrics)?;
        let claims = match &config.claims_file {
            Some(path) => Claims::load(path)?,
            None => Claims::default(),
        };
        let studies = StudyKeys::open(&data_dir.join(studies::KEY_FILE))?;
        let gatekeeper = Gatekeeper::new(store, follower.view(), claims, studies, metrics);
        let door = Door::open(&HttpConfig {
            listen: config.listen,
            cert_file: Some(config.cert_file.clone()),
            key_file: Some(config.key_file.clone()),
            ca_file: None,
        })
        .await?;
        Ok(Self { door, router: routes::router(Arc::new(gatekeeper)), follower })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.door.addr()
    }

    /// Serves and follows until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let following = self.follower.run(shutdown.clone());
        let serving = async {
            let served = axum::serve(self.door, self.router)
                .with_graceful_shutdown(shutdown.clone().cancelled_owned());
            let late = async {
                shutdown.cancelled().await;
                tokio::time::sleep(DRAIN_TIMEOUT).await;
            };
            tokio::select! {
                served = async { served.await } => if let Err(error) = served {
                    tracing::error!(%error, "the read API has stopped");
                },
                () = late => {}
            }
        };
        tokio::join!(following, serving);
    }
}

/// The copies of the logs before.
fn lineage(keys: &[String], data_dir: &Path) -> Result<Lineage, AccessError> {
    let mut logs = Vec::new();
    for key in keys {
        let log: VerifierKey = key.parse()?;
        let path = data_dir.join(copy_file(&log));
        let db = redb::Database::open(&path).map_err(|error| AccessError::Predecessor {
            path,
            log: log.origin().to_owned(),
            error: Box::new(error),
        })?;
        logs.push(Tiles::open(Arc::new(db), log)?);
    }
    Ok(Lineage::new(logs))
}
