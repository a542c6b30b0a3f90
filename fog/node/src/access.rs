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
//! [`crate::consortium::view`] copies the consortium log from its first entry, so it knows who has which key and which policies are
//! agreed on; the pinned policy says since when a quorum vouches for that copy. Cedar decides for each record
//! that would be answered, each decision becomes a leaf of the site log, and only then is anything answered. A
//! request that nothing is found for is decided and recorded too.
//!
//! # Who is told
//! The patient finds every decision under their audit, and is told of a break-glass by the targets of the contact `patient` ([`crate::notify`]). Statements, and every break-glass, are put before the members
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
//! [`haar_ledger::consent::MAX_STATEMENT_BYTES`].

mod claims;
mod gatekeeper;
pub(crate) mod nonces;
mod routes;
mod shown;
mod studies;
#[cfg(test)]
mod tests;

use crate::config::AccessConfig;
use crate::consortium::view::SharedView;
use crate::notify::Roster;
use crate::store::Store;
use claims::{Claims, ClaimsError};
use gatekeeper::Gatekeeper;
use haar_ledger::server::{Door, HttpConfig, TlsError};
use haar_telemetry::Metrics;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use studies::StudyKeys;
use tokio_util::sync::CancellationToken;

pub use studies::StudyKeysError;

/// How long open requests may take after shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the read API did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The claims.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// The pseudonyms of studies.
    #[error(transparent)]
    Studies(#[from] StudyKeysError),
    /// Address or certificate.
    #[error("access: {0}")]
    Tls(#[from] TlsError),
    /// The requests that have counted.
    #[error("access: the fog's database: {0}")]
    Database(#[from] redb::Error),
}

/// The read API, ready to run.
pub(crate) struct Access {
    door: Door,
    router: axum::Router,
}

impl Access {
    /// Reads its files and listens.
    pub(crate) async fn open(
        config: &AccessConfig,
        view: SharedView,
        data_dir: &Path,
        store: Arc<Store>,
        roster: Roster,
        metrics: &Metrics,
    ) -> Result<Self, AccessError> {
        let claims = match &config.claims_file {
            Some(path) => Claims::load(path)?,
            None => Claims::default(),
        };
        let studies = StudyKeys::open(&data_dir.join(studies::KEY_FILE))?;
        let gatekeeper = Gatekeeper::new(store, view, claims, studies, roster, metrics)?;
        let door = Door::open(&HttpConfig {
            listen: config.listen,
            cert_file: Some(config.cert_file.clone()),
            key_file: Some(config.key_file.clone()),
            ca_file: None,
        })
        .await?;
        Ok(Self { door, router: routes::router(Arc::new(gatekeeper)) })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.door.addr()
    }

    /// Serves until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
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
    }
}
