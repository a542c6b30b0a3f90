//! What the entries of governance say: the JSON objects in their third line.
//!
//! Fields stand in this order and no other, options that are not set are `null`. Keys are C2SP verifier keys,
//! hashes 64 hexadecimal digits.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The first entry of a log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// What people call the consortium.
    pub name: String,
    /// Who operates the log.
    pub operator: Operator,
    /// The founding members.
    pub members: Vec<Member>,
    /// Whose cosignatures make a checkpoint count.
    pub quorum: Quorum,
    /// SHA-256 of the bundle of access policies that every site uses.
    pub access_policy: String,
    /// The log that this one follows, after its operator was gone or changed.
    pub predecessor: Option<Predecessor>,
}

/// Who operates a log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// The member that does.
    pub member: String,
    /// The log's verifier key.
    pub log: String,
    /// Where it is.
    pub url: String,
}

/// A member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name, which is that of its key.
    pub name: String,
    /// The key by which it speaks.
    pub key: String,
    /// Its witnesses' keys, one for each vote: a member's weight is how many it has. May be empty.
    pub cosigners: Vec<String>,
    /// Where its server is.
    pub url: Option<String>,
    /// SHA-256 of the document of its admission.
    pub admission: String,
}

/// A log that came to its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predecessor {
    /// Its last checkpoint that a quorum of its members cosigned, the whole note.
    pub checkpoint: String,
}

/// Whose cosignatures make a checkpoint count.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quorum {
    /// What every checkpoint needs; `null`: more than two thirds of all votes.
    pub rule: Option<QuorumRule>,
    /// Kinds of entries for which more votes are needed before they count, by name of the kind.
    pub kinds: BTreeMap<String, usize>,
}

/// A rule over members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum QuorumRule {
    /// All votes of this member.
    Member(String),
    /// At least so many of these.
    AtLeast(usize, Vec<QuorumRule>),
}

/// A key that is registered or revoked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Which of the two.
    pub action: KeyAction,
    /// Whose key it is.
    pub kind: KeyKind,
    /// The verifier key.
    pub key: String,
}

/// What happens to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyAction {
    /// It may speak from here on.
    Register,
    /// It may not any more.
    Revoke,
}

/// Whose key it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeyKind {
    /// A bedside device.
    Device,
    /// An edge box.
    Edge,
    /// A fog cluster: the key of its site log.
    Fog,
    /// A patient, under a pseudonymous name.
    Patient,
    /// A clinician.
    Clinician,
    /// One who counts for a study, an insurer's clerk, any other reader.
    Reader,
}

/// A site's checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteCheckpoint {
    /// The note, signed by the site's log.
    pub checkpoint: String,
}

/// A leaf of a site log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// The site log's origin.
    pub site: String,
    /// Its index there.
    pub index: u64,
    /// The 34 bytes of the leaf, in hexadecimal digits.
    pub leaf: String,
}

/// A change that members are asked to agree to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// What would change.
    pub change: Change,
    /// Why, one line for people.
    pub reason: String,
}

/// What a proposal changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Change {
    /// A new member.
    AddMember(Member),
    /// A member goes.
    RemoveMember {
        /// Which.
        name: String,
    },
    /// A member's keys and address are replaced; its name stays.
    RotateKeys(Member),
    /// Another quorum.
    Quorum(Quorum),
    /// Other access policies, by the SHA-256 of their bundle.
    AccessPolicy {
        /// The hash.
        hash: String,
    },
    /// Another operator. This log ends; the next one's genesis names this one's last checkpoint.
    Operator(Operator),
}

/// A member's vote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ballot {
    /// The proposal entry's id: SHA-256 of its text.
    pub proposal: String,
    /// For or against.
    pub vote: Vote,
}

/// For or against.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vote {
    /// For.
    Accept,
    /// Against.
    Reject,
}
