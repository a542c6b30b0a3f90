//! A leaf: what is in the tree, and how it binds the bytes that are not.
//!
//! # Format
//! 34 bytes: [`LEAF_VERSION`] u8 | [`LeafKind`] u8 | commitment [u8; 32].
//! The commitment is HMAC-SHA-256 (RFC 2104) under the leaf's own random 32-byte key over
//! `haar-leaf-v1` (12 bytes) | kind u8 | name [u8; 32] | body. All but the body have fixed length, so
//! no two inputs give the same bytes.
//!
//! # Why an HMAC and not a hash
//! Bodies are guessable: a hash of a heart rate and a time is found in minutes by trying. Under a key
//! that nobody outside the site has, the commitment says nothing; whoever is handed key and body can
//! check it. HMAC-SHA-256 under a known key is collision resistant, so the site cannot open one leaf in
//! two ways.
//!
//! # Not hidden
//! The kind, and how many leaves there are.

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use std::str::FromStr;

/// First byte of every leaf.
pub const LEAF_VERSION: u8 = 1;

/// Length of a leaf.
pub const LEAF_BYTES: usize = 34;

/// The longest body that a leaf may commit to: a flagged event with the longest strip, and change.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// Keeps these commitments apart from any other use of the same keys.
const DOMAIN: &[u8] = b"haar-leaf-v1";

/// What a leaf is about. The ledger stores it and never acts on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
#[non_exhaustive]
pub enum LeafKind {
    /// The first digest of a window.
    WindowDigest = 1,
    /// A window in which a rule held.
    FlaggedEvent = 2,
    /// A digest of a window that has one already: its revision is above zero.
    Correction = 3,
    /// A step of an alarm: raised, acknowledged, escalated, ended and so on.
    AlarmTransition = 4,
    /// A decision about a model: shadow, promotion, rollback, withdrawal.
    ModelStatement = 5,
    /// What a doctor has set for one patient.
    PatientParameters = 6,
    /// What a patient allows somebody.
    ConsentGrant = 7,
    /// What a patient no longer allows.
    ConsentRevocation = 8,
    /// That access was asked for, and what was decided.
    AccessDecision = 9,
    /// What is confidential in the way of a numbered item.
    Custody = 10,
    /// A patient's key was destroyed, and with it what all earlier leaves about them commit to.
    Erasure = 11,
    /// That somebody attempted something on the consortium log, with its proof.
    Evidence = 12,
    /// Whose key signs an edge's batches from some sequence on.
    EdgeKey = 13,
}

impl LeafKind {
    const ALL: [Self; 13] = [
        Self::WindowDigest,
        Self::FlaggedEvent,
        Self::Correction,
        Self::AlarmTransition,
        Self::ModelStatement,
        Self::PatientParameters,
        Self::ConsentGrant,
        Self::ConsentRevocation,
        Self::AccessDecision,
        Self::Custody,
        Self::Erasure,
        Self::Evidence,
        Self::EdgeKey,
    ];

    /// Its byte in a leaf.
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// From its byte in a leaf; `None` for a kind that this build does not know.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }

    /// Its name in a proof file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WindowDigest => "window-digest",
            Self::FlaggedEvent => "flagged-event",
            Self::Correction => "correction",
            Self::AlarmTransition => "alarm-transition",
            Self::ModelStatement => "model-statement",
            Self::PatientParameters => "patient-parameters",
            Self::ConsentGrant => "consent-grant",
            Self::ConsentRevocation => "consent-revocation",
            Self::AccessDecision => "access-decision",
            Self::Custody => "custody",
            Self::Evidence => "evidence",
            Self::EdgeKey => "edge-key",
            Self::Erasure => "erasure",
        }
    }
}

impl fmt::Display for LeafKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of a [`LeafKind`].
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown kind of leaf; this build knows window-digest, flagged-event, correction, \
     alarm-transition, model-statement, patient-parameters, consent-grant, consent-revocation, \
     access-decision, custody, erasure, evidence and edge-key"
)]
pub struct UnknownKind;

impl FromStr for LeafKind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

/// The name under which leaves are found again, such as a window's id. Several leaves may bear one.
pub type Name = [u8; 32];

/// The key of one leaf's commitment. Fresh and uniformly random for every leaf.
pub type LeafKey = [u8; 32];

/// The bytes of a leaf that commits to `name` and `body`.
pub fn leaf(kind: LeafKind, name: &Name, body: &[u8], key: &LeafKey) -> [u8; LEAF_BYTES] {
    // RFC 2104, section 2: a key shorter than the hash's block is filled up with zeros.
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    mac.update(DOMAIN);
    mac.update(&[kind.byte()]);
    mac.update(name);
    mac.update(body);
    let mut leaf = [0; LEAF_BYTES];
    leaf[0] = LEAF_VERSION;
    leaf[1] = kind.byte();
    leaf[2..].copy_from_slice(&mac.finalize().into_bytes());
    leaf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_as_documented() {
        // Computed with Python: hmac.new(bytes([3])*32, b"haar-leaf-v1" + b"\x02" + bytes([7])*32
        // + b"{}", "sha256").hexdigest()
        let leaf = leaf(LeafKind::FlaggedEvent, &[7; 32], b"{}", &[3; 32]);
        expect_test::expect![
            "010202471ee98f7dda5e587abb6e357fca8d15e4da0e58ba9804f89a724b314ffb0f"
        ]
        .assert_eq(&hex::encode(leaf));
    }

    #[test]
    fn every_input_is_committed_to() {
        let base = leaf(LeafKind::WindowDigest, &[7; 32], b"body", &[3; 32]);
        assert_ne!(base, leaf(LeafKind::Correction, &[7; 32], b"body", &[3; 32]));
        assert_ne!(base, leaf(LeafKind::WindowDigest, &[8; 32], b"body", &[3; 32]));
        assert_ne!(base, leaf(LeafKind::WindowDigest, &[7; 32], b"bodY", &[3; 32]));
        assert_ne!(base, leaf(LeafKind::WindowDigest, &[7; 32], b"body", &[4; 32]));
    }

    #[test]
    fn kinds_round_trip() {
        for kind in LeafKind::ALL {
            assert_eq!(LeafKind::from_byte(kind.byte()), Some(kind));
            assert_eq!(kind.as_str().parse::<LeafKind>().unwrap(), kind);
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
            assert!(UnknownKind.to_string().contains(kind.as_str()));
        }
        assert_eq!(LeafKind::from_byte(0), None);
        assert!("Correction".parse::<LeafKind>().is_err());
    }
}
