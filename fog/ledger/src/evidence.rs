//! Evidence: what somebody attempted, with the bytes that show it.
//!
//! # Format
//! One JSON object of at most [`MAX_EVIDENCE_BYTES`] without white space, with exactly these fields in this
//! order: `v` (1), `kind`, `log` (verifier key of the consortium log), `notes` (checkpoint notes), `entry` (an
//! entry's bytes as text, or null), `reason` (one line for people). One piece has one text.
//!
//! # What it proves
//! [`Evidence::parse`] checks everything that the bytes alone can show: that the log signed the notes, and for
//! a [`EvidenceKind::Fork`] that they are two roots of one size, which proves the fork to anybody. The other
//! kinds are *testimony*: the notes are the log's own, and that one does not follow from the other is what
//! the witness says who could not be shown a proof of it. Anybody may ask the log for that proof.

use crate::checkpoint::{CheckpointError, Head};
use crate::entry::{Entry, EntryError};
use crate::identity::VerifierKey;
use crate::witness::Inconsistent;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// The longest piece: it must fit an entry of the log.
pub const MAX_EVIDENCE_BYTES: usize = 40 * 1024;
/// The longest reason, in bytes.
pub const MAX_REASON_BYTES: usize = 500;

/// What was attempted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EvidenceKind {
    /// The log signed two roots of one size. Proven by the two notes.
    Fork,
    /// The log signed a checkpoint that does not follow from one that it signed before.
    Rewritten,
    /// An entry that the log's rules refuse was handed in.
    RefusedEntry,
    /// The operator put an entry into the log that the log's rules refuse.
    BrokenRule,
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fork => "fork",
            Self::Rewritten => "rewritten",
            Self::RefusedEntry => "refused-entry",
            Self::BrokenRule => "broken-rule",
        })
    }
}

/// One piece of evidence.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    v: u8,
    kind: EvidenceKind,
    log: String,
    notes: Vec<String>,
    entry: Option<String>,
    reason: String,
}

/// Why a text is no evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// Not the one form of a piece of evidence, or too long.
    #[error("not a piece of evidence in its canonical form of at most {MAX_EVIDENCE_BYTES} bytes")]
    Malformed,
    /// A note in it is not the log's.
    #[error("a note in the evidence: {0}")]
    Note(#[from] CheckpointError),
    /// The entry in it is none.
    #[error("the entry in the evidence: {0}")]
    Entry(#[from] EntryError),
    /// The bytes do not show what is claimed.
    #[error("the evidence does not show what it claims: {0}")]
    Unproven(&'static str),
}

impl Evidence {
    /// Two checkpoints of which the later does not follow from the earlier: a fork if they are of one size.
    ///
    /// # Errors
    /// If the log did not sign both.
    pub fn of_checkpoints(
        log: &VerifierKey,
        earlier: &str,
        later: &str,
    ) -> Result<Self, EvidenceError> {
        let (one, two) = (signed(log, earlier)?, signed(log, later)?);
        let fork = one.size == two.size && one.root != two.root;
        let kind = if fork { EvidenceKind::Fork } else { EvidenceKind::Rewritten };
        let reason = format!("no proof leads from size {} to size {}", one.size, two.size);
        let notes = vec![one.signed_by_log(log), two.signed_by_log(log)];
        Self { v: 1, kind, log: log.to_string(), notes, entry: None, reason }.checked()
    }

    /// What a witness was asked to cosign and refused.
    ///
    /// # Errors
    /// If the log did not sign it.
    pub fn of_inconsistent(log: &VerifierKey, seen: &Inconsistent) -> Result<Self, EvidenceError> {
        match &seen.remembered {
            Some(remembered) => Self::of_checkpoints(log, remembered, &seen.offered),
            None => {
                let notes = vec![signed(log, &seen.offered)?.signed_by_log(log)];
                let (kind, log) = (EvidenceKind::Rewritten, log.to_string());
                let reason = "the checkpoint is impossible by itself".to_owned();
                Self { v: 1, kind, log, notes, entry: None, reason }.checked()
            }
        }
    }

    /// An entry that the rules refuse: handed in, or found in the log.
    ///
    /// # Errors
    /// If it is too long.
    pub fn of_entry(
        log: &VerifierKey,
        kind: EvidenceKind,
        entry: &Entry,
        reason: &str,
    ) -> Result<Self, EvidenceError> {
        let entry = String::from_utf8_lossy(entry.as_bytes()).into_owned();
        let mut reason = reason.replace(char::is_control, " ");
        while reason.len() > MAX_REASON_BYTES {
            reason.pop();
        }
        Self { v: 1, kind, log: log.to_string(), notes: Vec::new(), entry: Some(entry), reason }
            .checked()
    }

    /// Reads a piece and checks what its bytes can show.
    ///
    /// # Errors
    /// See [`EvidenceError`].
    pub fn parse(text: &str) -> Result<Self, EvidenceError> {
        if text.len() > MAX_EVIDENCE_BYTES {
            return Err(EvidenceError::Malformed);
        }
        let read: Self = serde_json::from_str(text).map_err(|_| EvidenceError::Malformed)?;
        if read.to_text() != text {
            return Err(EvidenceError::Malformed);
        }
        read.checked()
    }

    /// Its text.
    pub fn to_text(&self) -> String {
        // Strings and numbers only: that cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What was attempted.
    pub fn kind(&self) -> EvidenceKind {
        self.kind
    }

    /// Verifier key of the log that it is about.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// One line for people.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether the bytes alone prove it to anybody.
    pub fn is_proof(&self) -> bool {
        self.kind == EvidenceKind::Fork
    }

    /// SHA-256 of the text.
    pub fn id(&self) -> [u8; 32] {
        Sha256::digest(self.to_text()).into()
    }

    fn checked(self) -> Result<Self, EvidenceError> {
        let sound = self.v == 1
            && self.reason.len() <= MAX_REASON_BYTES
            && !self.reason.contains(char::is_control);
        if !sound || self.to_text().len() > MAX_EVIDENCE_BYTES {
            return Err(EvidenceError::Malformed);
        }
        let log: VerifierKey = self.log.parse().map_err(|_| EvidenceError::Malformed)?;
        let heads = self
            .notes
            .iter()
            .map(|note| signed(&log, note))
            .collect::<Result<Vec<Head>, EvidenceError>>()?;
        match (self.kind, heads.as_slice(), &self.entry) {
            (EvidenceKind::Fork, [one, two], None) => {
                if one.size != two.size || one.root == two.root {
                    return Err(EvidenceError::Unproven("the notes are not two roots of one size"));
                }
            }
            (EvidenceKind::Rewritten, [_] | [_, _], None) => {}
            (EvidenceKind::RefusedEntry | EvidenceKind::BrokenRule, [], Some(entry)) => {
                if Entry::parse(entry.as_bytes())?.origin() != log.origin() {
                    return Err(EvidenceError::Unproven("the entry is meant for another log"));
                }
            }
            _ => return Err(EvidenceError::Malformed),
        }
        Ok(self)
    }
}

fn signed(log: &VerifierKey, note: &str) -> Result<Head, EvidenceError> {
    let (head, _) = Head::open_cosigned(note.as_bytes(), std::slice::from_ref(log))?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::SignedCheckpoint;
    use crate::identity::Identity;

    fn log() -> Identity {
        Identity::generate("log.example", [1; 32]).unwrap()
    }

    fn note(size: u64, root: u8) -> String {
        SignedCheckpoint::sign(&log(), size, [root; 32]).unwrap().note().to_owned()
    }

    #[test]
    fn two_roots_of_one_size_are_proof_for_anybody() {
        let fork = Evidence::of_checkpoints(log().vkey(), &note(7, 1), &note(7, 2)).unwrap();
        assert_eq!((fork.kind(), fork.is_proof()), (EvidenceKind::Fork, true));
        assert_eq!(Evidence::parse(&fork.to_text()).unwrap(), fork);
        let other = Evidence::of_checkpoints(log().vkey(), &note(7, 1), &note(9, 2)).unwrap();
        assert_eq!((other.kind(), other.is_proof()), (EvidenceKind::Rewritten, false));
        let claimed = other.to_text().replace("rewritten", "fork");
        assert!(matches!(Evidence::parse(&claimed), Err(EvidenceError::Unproven(_))));
    }

    #[test]
    fn nobody_can_make_evidence_against_a_log_without_its_key() {
        let stranger = Identity::generate("log.example", [2; 32]).unwrap();
        let forged = SignedCheckpoint::sign(&stranger, 7, [2; 32]).unwrap().note().to_owned();
        let made = Evidence::of_checkpoints(log().vkey(), &note(7, 1), &forged);
        assert!(matches!(made, Err(EvidenceError::Note(_))), "{made:?}");
    }

    #[test]
    fn every_flipped_bit_is_found_or_is_another_piece() {
        let fork = Evidence::of_checkpoints(log().vkey(), &note(7, 1), &note(7, 2)).unwrap();
        let text = fork.to_text();
        let reason = text.find("\"reason\"").unwrap();
        for byte in 0..reason {
            for bit in 0..8 {
                let mut flipped = text.clone().into_bytes();
                flipped[byte] ^= 1 << bit;
                let Ok(flipped) = String::from_utf8(flipped) else { continue };
                assert!(Evidence::parse(&flipped).is_err(), "byte {byte} bit {bit}");
            }
        }
    }
}
