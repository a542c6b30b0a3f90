//! Evidence: what somebody attempted, with the bytes that show it.
//!
//! # Format
//! One JSON object of at most [`MAX_EVIDENCE_BYTES`] without white space, with exactly these fields in this
//! order: `v` (1), `kind`, `log` (verifier key of the consortium log), `notes` (checkpoint notes), `entry` (an
//! entry's bytes as text, or null), `reason` (one line for people). A note bears the log's signature line and no
//! other; of a fork the smaller text stands first; what the notes say fixes the reason. So of one attempt there
//! is one text, however often and by whomever it is told.
//!
//! # What it proves
//! [`Evidence::parse`] checks everything that the bytes alone can show: that the log signed the notes, and for
//! a [`EvidenceKind::Fork`] that they are two roots of one size, which proves the fork to anybody. The other
//! kinds are *testimony*: the notes are the log's own, and that one does not follow from the other is what
//! the witness says who was not shown a proof of it. Anybody may ask the log for that proof; and anybody may have
//! handed a checkpoint of an honest log to that witness with a wrong one. Of an entry
//! it is not checked here who signed it: that needs the key registry of the log.

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
    /// If the log did not sign both, or both say the same.
    pub fn of_checkpoints(
        log: &VerifierKey,
        earlier: &str,
        later: &str,
    ) -> Result<Self, EvidenceError> {
        let mut heads = vec![signed(log, earlier)?, signed(log, later)?];
        if heads[0].text() == heads[1].text() {
            heads.truncate(1);
        }
        Self::of_heads(log, heads)
    }

    /// What a witness was asked to cosign and refused.
    ///
    /// # Errors
    /// If the log did not sign it.
    pub fn of_inconsistent(log: &VerifierKey, seen: &Inconsistent) -> Result<Self, EvidenceError> {
        match &seen.remembered {
            Some(remembered) => Self::of_checkpoints(log, remembered, &seen.offered),
            None => {
                let heads = vec![signed(log, &seen.offered)?];
                Self::of_heads(log, heads)
            }
        }
    }

    fn of_heads(log: &VerifierKey, mut heads: Vec<Head>) -> Result<Self, EvidenceError> {
        let kind = kind_of(&heads);
        if kind == EvidenceKind::Fork {
            heads.sort_by(|one, two| one.text().cmp(two.text()));
        }
        let reason = reason_of(&heads);
        let notes = heads.iter().map(|head| head.signed_by_log(log)).collect();
        Self { v: 1, kind, log: log.to_string(), notes, entry: None, reason }.checked()
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
        let impossible =
            |note: &String| Head::open_stored(note).is_ok_and(|head| is_impossible(&head));
        self.kind == EvidenceKind::Fork || self.notes.iter().any(impossible)
    }

    /// SHA-256 of the text.
    pub fn id(&self) -> [u8; 32] {
        Sha256::digest(self.to_text()).into()
    }

    /// Whether the checkpoints are of this kind, and in their one form.
    fn check_heads(&self, log: &VerifierKey, heads: &[Head]) -> Result<(), EvidenceError> {
        if self.kind == EvidenceKind::Fork && kind_of(heads) != EvidenceKind::Fork {
            return Err(EvidenceError::Unproven("the notes are not two roots of one size"));
        }
        let same = |pair: &[Head]| pair[0].size == pair[1].size && pair[0].root == pair[1].root;
        if heads.windows(2).any(same) {
            return Err(EvidenceError::Unproven("the notes say the same"));
        }
        let ordered = self.kind != EvidenceKind::Fork || heads.is_sorted_by_key(|head| head.text());
        let plain =
            heads.iter().zip(&self.notes).all(|(head, note)| head.signed_by_log(log) == *note);
        if ordered && plain && self.kind == kind_of(heads) && self.reason == reason_of(heads) {
            Ok(())
        } else {
            Err(EvidenceError::Malformed)
        }
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
            (EvidenceKind::Fork | EvidenceKind::Rewritten, [_] | [_, _], None) => {
                self.check_heads(&log, &heads)?;
            }
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

/// What checkpoints of one log are that do not fit together.
fn kind_of(heads: &[Head]) -> EvidenceKind {
    match heads {
        [one, two] if one.size == two.size && one.root != two.root => EvidenceKind::Fork,
        _ => EvidenceKind::Rewritten,
    }
}

fn reason_of(heads: &[Head]) -> String {
    match heads {
        [one, two] => format!("no proof leads from size {} to size {}", one.size, two.size),
        [one] if is_impossible(one) => "the root is not that of an empty tree".to_owned(),
        _ => "what the log serves does not lead to its checkpoint".to_owned(),
    }
}

/// The empty tree has one root (RFC 6962, section 2.1).
fn is_impossible(head: &Head) -> bool {
    head.size == 0 && head.root != tlog_tiles::EMPTY_HASH.0
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn any_text_is_refused_or_is_itself(at: prop::sample::Index, put in "[ -~\\n]{0,4}", cut in 0_usize..6) {
            let fork = Evidence::of_checkpoints(log().vkey(), &note(7, 1), &note(7, 2)).unwrap();
            let text = fork.to_text();
            // Above ASCII there is only the dash; it is not cut in two.
            let at = (0..=at.index(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            let end = (at + cut..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
            let spoilt = format!("{}{put}{}", &text[..at], &text[end..]);
            if let Ok(read) = Evidence::parse(&spoilt) {
                prop_assert_eq!(read, fork);
                prop_assert_eq!(spoilt, text);
            }
        }
    }

    #[test]
    fn one_attempt_has_one_text() {
        let (one, two) = (note(7, 1), note(7, 2));
        let make = |one: &str, two: &str| Evidence::of_checkpoints(log().vkey(), one, two).unwrap();
        let fork = make(&one, &two);
        assert_eq!(make(&two, &one), fork, "whichever was seen first");
        // Lines that an operator puts in front, under its own name too, hide nothing and change nothing.
        let junk = crate::base64::encode(&[7; 68]);
        let crowded =
            one.replacen("— log.example ", &format!("— log.example {junk}\n— log.example "), 1);
        assert_ne!(crowded, one);
        assert_eq!(make(&crowded, &two), fork);
        let escaped = |note: &str| serde_json::to_string(note).unwrap();
        let text = fork.to_text();
        for other in [
            text.replace(&escaped(&one), &escaped(&crowded)),
            text.replace("no proof", "no  proof"),
            text.replace(&escaped(&one), "#")
                .replace(&escaped(&two), &escaped(&one))
                .replace('#', &escaped(&two)),
            text.replace(&escaped(&one), &escaped(&two)),
        ] {
            assert_ne!(other, text);
            assert!(Evidence::parse(&other).is_err(), "{other}");
        }
    }

    #[test]
    fn an_impossible_checkpoint_is_proof_and_an_honest_pair_is_nothing() {
        let offered = note(0, 1);
        let seen = Inconsistent { remembered: None, offered, fork: false };
        let made = Evidence::of_inconsistent(log().vkey(), &seen).unwrap();
        assert!(made.is_proof() && Evidence::parse(&made.to_text()).is_ok());
        // The same checkpoint twice is said only by who was served entries that do not fit it.
        let served = Evidence::of_checkpoints(log().vkey(), &note(7, 1), &note(7, 1)).unwrap();
        assert_eq!((served.kind(), served.is_proof()), (EvidenceKind::Rewritten, false));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let fork = Evidence::of_checkpoints(log().vkey(), &note(7, 1), &note(7, 2)).unwrap();
        let text = fork.to_text();
        for byte in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone().into_bytes();
                flipped[byte] ^= 1 << bit;
                let Ok(flipped) = String::from_utf8(flipped) else { continue };
                assert!(Evidence::parse(&flipped).is_err(), "byte {byte} bit {bit}");
            }
        }
    }
}
