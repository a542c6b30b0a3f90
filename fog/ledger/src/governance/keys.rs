//! Keys of devices, edges, fogs, patients and others: registered and revoked in the log.
//!
//! # Who registers whom
//! A member any key; a fog the keys of edges and devices; an edge those of devices. The new key signs the
//! entry too, so that nobody registers a key that somebody else holds. A key is revoked by itself, by the
//! key that registered it, or by the member that it stands under.
//!
//! # From when on
//! The state that an entry meets is that of all entries before it: the first that a revoked key cannot
//! sign is the one after its revocation. A revoked key never comes back; its name may get a new one.
//!
//! # Names
//! Key names are read by everybody. That of a patient must be `patient/` and 32 hexadecimal digits, a
//! pseudonym; the others name things and staff, and who registers them chooses what they give away.

use super::names::{MemberName, StatementKey};
use super::refused::Refused;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The most keys that one name may have had.
pub const MAX_KEYS_PER_NAME: usize = 64;

/// The most names in the register.
const MAX_KEY_NAMES: usize = 1 << 22;

/// The object of a key entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum KeyBody {
    /// A key that counts from the next leaf on. Signed by the registrar and by the key itself.
    Register {
        /// The key; its name is what it is called.
        key: StatementKey,
        /// Whose it is.
        role: Role,
    },
    /// A key that does not count from the next leaf on.
    Revoke {
        /// The key.
        key: StatementKey,
    },
}

/// Whose a key is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// A medical device.
    Device,
    /// An edge box.
    Edge,
    /// A fog: the site whose log bears the key's name.
    Fog,
    /// A patient, under a pseudonym.
    Patient,
    /// A doctor or nurse.
    Clinician,
    /// Somebody who researches.
    Researcher,
    /// Somebody who settles claims.
    Insurer,
    /// Somebody who holds a share for re-identification.
    Custodian,
    /// Somebody who decides which models run at the sites of the key's member.
    Model,
}

/// A key in the register.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisteredKey {
    /// The key.
    pub key: StatementKey,
    /// Whose it is.
    pub role: Role,
    /// The member under whom it stands.
    pub member: MemberName,
    /// The name of the key that registered it.
    pub by: String,
    /// The leaf by which it was registered; 0 if that was in a log before this one.
    pub registered: u64,
    /// The leaf from which on it does not count.
    pub revoked: Option<u64>,
}

impl RegisteredKey {
    /// Whether a signature at leaf `index` counts.
    pub fn counts_at(&self, index: u64) -> bool {
        self.registered < index && self.revoked.is_none_or(|revoked| index <= revoked)
    }
}

impl Role {
    /// Whether a key of role `self` may register one of `other`.
    pub(crate) fn registers(self, other: Self) -> bool {
        match self {
            Self::Fog => matches!(other, Self::Edge | Self::Device),
            Self::Edge => other == Self::Device,
            _ => false,
        }
    }

    /// Whether a key of this role may be called so.
    fn fits(self, name: &str) -> bool {
        let pseudonym = |rest: &str| {
            rest.len() == 32 && rest.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        };
        match name.strip_prefix("patient/") {
            Some(rest) => self == Self::Patient && pseudonym(rest),
            None => self != Self::Patient,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Edge => "edge",
            Self::Fog => "fog",
            Self::Patient => "patient",
            Self::Clinician => "clinician",
            Self::Researcher => "researcher",
            Self::Insurer => "insurer",
            Self::Custodian => "custodian",
            Self::Model => "model",
        })
    }
}

/// All keys that ever were, by name, in the order in which they came.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Register(BTreeMap<String, Arc<Vec<RegisteredKey>>>);

impl Register {
    pub(crate) fn named(&self, name: &str) -> &[RegisteredKey] {
        self.0.get(name).map_or(&[], |keys| keys.as_slice())
    }

    pub(crate) fn find(&self, key: &StatementKey) -> Option<&RegisteredKey> {
        self.named(key.name()).iter().find(|known| known.key == *key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &RegisteredKey> {
        self.0.values().flat_map(|keys| keys.iter())
    }

    /// Whether `key` may be added under `member`.
    pub(crate) fn admits(
        &self,
        key: &StatementKey,
        role: Role,
        member: &MemberName,
    ) -> Result<(), Refused> {
        if !role.fits(key.name()) {
            return Err(Refused::KeyName);
        }
        let known = self.named(key.name());
        if known.is_empty() && self.0.len() >= MAX_KEY_NAMES || known.len() >= MAX_KEYS_PER_NAME {
            return Err(Refused::Full);
        }
        if known.iter().any(|known| known.key.key() == key.key()) {
            return Err(Refused::Again);
        }
        match known.first() {
            Some(first) if first.role != role || first.member != *member => Err(Refused::KeyName),
            _ => Ok(()),
        }
    }

    pub(crate) fn add(&mut self, key: RegisteredKey) {
        Arc::make_mut(self.0.entry(key.key.name().to_owned()).or_default()).push(key);
    }

    pub(crate) fn revoke(&mut self, key: &StatementKey, index: u64) {
        let named = self.0.get_mut(key.name()).map(Arc::make_mut).into_iter().flatten();
        for known in named.filter(|known| known.key == *key) {
            known.revoked.get_or_insert(index);
        }
    }

    pub(crate) fn revoke_all(&mut self, member: &MemberName, index: u64) {
        // All keys of one name stand under one member.
        let theirs = |keys: &&mut Arc<Vec<RegisteredKey>>| {
            keys.first().is_some_and(|first| first.member == *member)
        };
        for keys in self.0.values_mut().filter(theirs) {
            for key in Arc::make_mut(keys) {
                key.revoked.get_or_insert(index);
            }
        }
    }

    /// The same keys in the log that follows: all that happened, happened before its first leaf.
    pub(crate) fn carry_over(&mut self) {
        for known in self.0.values_mut().flat_map(Arc::make_mut) {
            known.registered = 0;
            known.revoked = known.revoked.map(|_| 0);
        }
    }
}
