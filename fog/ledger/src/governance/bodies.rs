//! What the objects of genesis, proposal and ballot entries hold.
//!
//! # Limits
//! [`MAX_MEMBERS`] members with [`MAX_COSIGNERS`] keys each; a reason of [`MAX_REASON_BYTES`].

use super::names::{CosignerText, Digest, MemberName, StatementKey, Url};
use super::quorum::Quorums;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The most members of a consortium.
pub const MAX_MEMBERS: usize = 64;

/// The most cosigner keys of one member, which is its greatest weight.
pub const MAX_COSIGNERS: usize = 16;

/// The longest time for which a proposal may stay open, in leaves.
pub const MAX_EXPIRY_LEAVES: u64 = 1 << 24;

/// The longest reason, or name of a consortium.
pub(crate) const MAX_REASON_BYTES: usize = 512;

/// The object of the first entry.
///
/// It is signed by as many of its members as the quorum for `change-operator` in it wants.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// What the consortium calls itself.
    pub consortium: String,
    /// Who runs this log.
    pub operator: Operator,
    /// Who belongs to it, in the order of their names.
    pub members: Vec<Member>,
    /// Who decides.
    pub quorums: Quorums,
    /// SHA-256 of the bundle of Cedar policies under which access is decided.
    pub policy_bundle: Digest,
    /// The log that this one follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<Predecessor>,
}

/// Who runs a log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// Its name; it need not be a member.
    pub name: MemberName,
    /// The log's key, whose name is the log's origin.
    pub log: StatementKey,
    /// Where the log is read and entries are handed in.
    pub url: Url,
}

/// One member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name.
    pub name: MemberName,
    /// The key with which it signs entries; it bears the member's name.
    pub key: StatementKey,
    /// The keys with which it cosigns: as many as its weight.
    pub cosigners: Vec<CosignerText>,
    /// Where its witness is reached.
    pub url: Url,
    /// SHA-256 of the document by which it was admitted.
    pub admission: Digest,
}

/// The end of the log before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predecessor {
    /// Its origin.
    pub origin: String,
    /// Its last cosigned checkpoint, the whole note.
    pub checkpoint: String,
    /// The digest of the state that its leaves come to.
    pub state: Digest,
}

/// The object of a proposal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// What is to change.
    pub change: Change,
    /// The version of the state that it is meant for.
    pub version: u64,
    /// After how many more leaves it is no longer open.
    pub expires_after: u64,
    /// Why, in words. Nothing about a patient.
    pub reason: String,
}

/// What can be proposed.
///
/// Where who belongs to the consortium changes, `quorums` replaces the rules at the same leaf; it is
/// needed when the rules name members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Change {
    /// A new member.
    AddMember {
        /// The member.
        member: Box<Member>,
        /// New rules.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quorums: Option<Box<Quorums>>,
    },
    /// A member leaves. Its keys, and all that it or they registered, are revoked.
    RemoveMember {
        /// The member.
        member: MemberName,
        /// New rules.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quorums: Option<Box<Quorums>>,
    },
    /// A member's keys are replaced, and so its weight.
    RotateKey {
        /// The member.
        member: MemberName,
        /// Its key for entries from now on.
        key: Box<StatementKey>,
        /// Its cosigner keys from now on.
        cosigners: Vec<CosignerText>,
    },
    /// Other rules.
    ChangeQuorum {
        /// The rules.
        quorums: Box<Quorums>,
    },
    /// Another bundle of Cedar policies.
    ChangePolicy {
        /// SHA-256 of it.
        bundle: Digest,
    },
    /// Another operator: this log ends.
    ChangeOperator {
        /// Who goes on, with another log.
        operator: Box<Operator>,
    },
}

/// What a [`Change`] changes; rules may differ by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// Of [`Change::AddMember`].
    AddMember,
    /// Of [`Change::RemoveMember`].
    RemoveMember,
    /// Of [`Change::RotateKey`].
    RotateKey,
    /// Of [`Change::ChangeQuorum`].
    ChangeQuorum,
    /// Of [`Change::ChangePolicy`].
    ChangePolicy,
    /// Of [`Change::ChangeOperator`].
    ChangeOperator,
}

/// The object of a ballot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ballot {
    /// [`Entry::id`](crate::Entry::id) of the proposal.
    pub proposal: Digest,
    /// Yes or no; it cannot be taken back.
    pub vote: Vote,
}

/// A member's word on a proposal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vote {
    /// In favour.
    Yes,
    /// Against.
    No,
}

impl Member {
    /// How much it counts.
    pub fn weight(&self) -> u32 {
        self.cosigners.len() as u32
    }

    /// Whether its parts fit each other.
    pub(crate) fn is_sound(&self) -> bool {
        let distinct = |key: &CosignerText| {
            self.cosigners.iter().filter(|other| other.key() == key.key()).count() == 1
        };
        self.key.name() == self.name.as_str()
            && (1..=MAX_COSIGNERS).contains(&self.cosigners.len())
            && self.cosigners.iter().all(distinct)
    }
}

impl Change {
    /// What it changes.
    pub fn kind(&self) -> ChangeKind {
        match self {
            Self::AddMember { .. } => ChangeKind::AddMember,
            Self::RemoveMember { .. } => ChangeKind::RemoveMember,
            Self::RotateKey { .. } => ChangeKind::RotateKey,
            Self::ChangeQuorum { .. } => ChangeKind::ChangeQuorum,
            Self::ChangePolicy { .. } => ChangeKind::ChangePolicy,
            Self::ChangeOperator { .. } => ChangeKind::ChangeOperator,
        }
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddMember => "add-member",
            Self::RemoveMember => "remove-member",
            Self::RotateKey => "rotate-key",
            Self::ChangeQuorum => "change-quorum",
            Self::ChangePolicy => "change-policy",
            Self::ChangeOperator => "change-operator",
        })
    }
}
