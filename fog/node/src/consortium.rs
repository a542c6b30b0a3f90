//! The log of many parties, as this site sees it and is seen in it.
//!
//! [`envoy`] puts the site's log before the members, [`view`] copies theirs, [`roll`] is what that says about this site's
//! edges, devices and people, [`signers`] whose decisions count, [`items`] what is watched over for the members' chains of custody, and [`held`] what edges keep
//! meanwhile. What counts is what the pinned policy's quorum has cosigned.

pub(crate) mod envoy;
mod held;
mod items;
pub(crate) mod roll;
pub(crate) mod signers;
pub(crate) mod view;

use crate::config::ConsortiumConfig;
pub use envoy::PUT_FORWARD;
use haar_ledger::client::{Client, HttpError, http};
use haar_ledger::{Policy, PolicySyntaxError, VerifierKey};
pub(crate) use held::Held;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// The name of a consortium log's copy in the data directory: `consortium-`, the first eight hexadecimal digits of the SHA-256 of
/// the log's verifier key, `.redb`.
pub fn copy_file(log: &VerifierKey) -> String {
    let hash = hex::encode(Sha256::digest(log.as_str()));
    format!("consortium-{}.redb", &hash[..8])
}

/// Why there is no pinned policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinnedError {
    /// The policy file.
    #[error("consortium.policy_file {path}: {error}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// Its content.
    #[error("consortium.policy_file: {0}")]
    Policy(#[from] PolicySyntaxError),
    /// Not exactly one log.
    #[error("consortium.policy_file names {0} logs; a site is put before one")]
    Logs(usize),
    /// The HTTPS client.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// The policy that this site pins, which names one log; and how it speaks with that log's nodes.
pub(crate) struct Pinned {
    policy: Policy,
    log: VerifierKey,
    http: reqwest::Client,
}

impl Pinned {
    pub(crate) fn load(config: &ConsortiumConfig) -> Result<Self, PinnedError> {
        let path = &config.policy_file;
        let text = std::fs::read_to_string(path)
            .map_err(|error| PinnedError::File { path: path.clone(), error })?;
        let policy: Policy = text.parse()?;
        let [log] = policy.logs() else { return Err(PinnedError::Logs(policy.logs().len())) };
        let http = http(config.ca_file.as_deref())?;
        Ok(Self { log: log.key.clone(), policy, http })
    }

    fn clients(&self, urls: &[String]) -> Vec<Client> {
        urls.iter().map(|url| Client::new(self.http.clone(), url)).collect()
    }
}
