//! Whose signatures count under what people decide about a site: which models run, what holds for a patient, who is erased.
//!
//! The keys of the configuration; if it says so, those too that the members' log has for a role under this site's member. A key
//! that the log has revoked counts from then on for nothing more, wherever it came from: what it signed before, and the site has
//! followed, stays.

use super::roll::Roll;
use crate::config::Config;
use haar_ledger::governance::Role;

/// Who decides about what.
pub(crate) struct Authorities {
    /// About which models run.
    pub(crate) models: Signers,
    /// About what holds for a patient.
    pub(crate) parameters: Signers,
    /// About who is erased.
    pub(crate) erasure: Signers,
}

impl Authorities {
    /// As the configuration has it.
    pub(crate) fn of(config: &Config, roll: &Roll) -> Self {
        let Config { models, parameters, erasure, .. } = config;
        let signers =
            |keys: &[String], role: Option<Role>| Signers::new(keys.to_owned(), role, roll.clone());
        let decides = models.registered_keys.then_some(Role::Model);
        let treats = parameters.registered_keys.then_some(Role::Clinician);
        Self {
            models: signers(&models.trusted_keys, decides),
            parameters: signers(&parameters.trusted_keys, treats),
            erasure: signers(&erasure.trusted_keys, None),
        }
    }
}

/// The keys of those who may decide about one kind of thing.
#[derive(Clone)]
pub(crate) struct Signers {
    configured: Vec<String>,
    registered: Option<Role>,
    roll: Roll,
}

impl Signers {
    /// The `configured` verifier keys, and those that are `registered` for a role.
    pub(crate) fn new(configured: Vec<String>, registered: Option<Role>, roll: Roll) -> Self {
        Self { configured, registered, roll }
    }

    /// Whether it is known whose signatures count: registered keys are read from the members' log first.
    pub(crate) fn are_known(&self) -> bool {
        self.registered.is_none() || self.roll.is_known()
    }

    /// Every key that counts, or did.
    pub(crate) fn ever(&self) -> Vec<String> {
        self.keys(|_| true)
    }

    /// The keys that count now.
    pub(crate) fn now(&self) -> Vec<String> {
        self.keys(|key| !self.roll.is_revoked(key))
    }

    fn keys(&self, mut counts: impl FnMut(&str) -> bool) -> Vec<String> {
        let mut keys = self.configured.clone();
        if let Some(role) = self.registered {
            keys.extend(self.roll.keys_of(role));
        }
        keys.retain(|key| counts(key));
        keys
    }
}
