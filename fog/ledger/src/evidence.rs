//! Evidence: what somebody attempted, with the bytes that show it.
//!
//! # Format
//! One JSON object of at most [`MAX_EVIDENCE_BYTES`] without white space, with exactly these fields in this
//! order: `v` (1), `kind`, `log` (verifier key of the consortium log), `notes` (checkpoint notes), `entry` (an
//! entry's bytes as text, or null), `reason` (one line for people), of a bad signature `key` (whose it is), and of what a member only *says*
//! `by`: the member's signature line (C2SP signed-note) over the same object without `by`, and a line feed. A note bears the log's signature
//! line and no other, but for the line that does not fit; of a fork the smaller text stands first; what the notes say fixes the reason. So of
//! one attempt there is one text, however often it is told, and one for each who says so where it has to be believed.
//!
//! # What it proves
//! [`Evidence::parse`] checks everything that the bytes alone can show: that the log signed the notes, and for
//! a [`EvidenceKind::Fork`] that they are two roots of one size, or for one note that its root is impossible, which proves it to anybody
//! ([`Evidence::is_proof`]). Everything else is *testimony*, and bears its member's signature: that one checkpoint does not
//! follow from the other, that a log is stale, that a signature line was seen, that an entry is refused. Anybody may ask the log for the
//! proof that a witness says it was not shown; and anybody may have handed a checkpoint of an honest log to that witness with a wrong one, which is
//! why a server of this crate looks at the log's entries first. Whether the one who says it is a member is the reader's to know:
//! [`Evidence::is_said_by`]. Of an entry it is not checked here who signed it: that needs the key registry of the log.

use crate::checkpoint::{CheckpointError, Head, MAX_COSIGNED_BYTES};
use crate::cosignature::CosignerKey;
use crate::entry::{Entry, EntryError};
use crate::governance::State;
use haar_identity::{Identity, VerifierKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use signed_note::{Signature, Verifier as _};
use std::fmt;

/// The longest piece: it must fit an entry of the log.
pub const MAX_EVIDENCE_BYTES: usize = 40 * 1024;
/// The longest reason, in bytes.
pub const MAX_REASON_BYTES: usize = 500;

const BAD_SIGNATURE: &str = "a signature line of this key does not fit the checkpoint";
const STALE: &str = "no quorum has vouched for anything newer since ";

/// What was attempted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EvidenceKind {
    /// The log signed two roots of one size. Proven by the two notes.
    Fork,
    /// The log signed a checkpoint that does not follow from one that it signed before. A member says so, unless the root is impossible.
    Rewritten,
    /// Somebody showed a checkpoint with a signature line of a known key that does not fit it. A member says so.
    BadSignature,
    /// No quorum has vouched for anything newer for too long: the operator delays, or is away. A member says so.
    Stale,
    /// An entry that the log's rules refuse was handed in. A member says so.
    RefusedEntry,
    /// The operator put an entry into the log that the log's rules refuse. A member says so.
    BrokenRule,
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fork => "fork",
            Self::Rewritten => "rewritten",
            Self::BadSignature => "bad-signature",
            Self::Stale => "stale",
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
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
    /// Two checkpoints of which the later does not follow from the earlier: a fork if they are of one size. The same one
    /// twice is one that is impossible by itself, or that what the log serves does not lead to. What the two do not prove is
    /// said `by` a member.
    ///
    /// # Errors
    /// If the log did not sign both, or nobody says what they do not prove.
    pub fn of_checkpoints(
        log: &VerifierKey,
        earlier: &str,
        later: &str,
        by: Option<&Identity>,
    ) -> Result<Self, EvidenceError> {
        let mut heads = vec![signed(log, earlier)?, signed(log, later)?];
        if heads[0].text() == heads[1].text() {
            heads.truncate(1);
        }
        Self::of_heads(log, heads, by)
    }

    fn of_heads(
        log: &VerifierKey,
        mut heads: Vec<Head>,
        by: Option<&Identity>,
    ) -> Result<Self, EvidenceError> {
        let kind = kind_of(&heads);
        if kind == EvidenceKind::Fork {
            heads.sort_by(|one, two| one.text().cmp(two.text()));
        }
        let reason = reason_of(&heads);
        let notes = heads.iter().map(|head| head.signed_by_log(log)).collect();
        let log = log.to_string();
        let made = Self { v: 1, kind, log, notes, entry: None, reason, key: None, by: None };
        match (made.is_proof(), by) {
            (true, _) => made.checked(),
            (false, Some(by)) => made.said(by),
            (false, None) => Err(EvidenceError::Unproven("it rests on the word of nobody")),
        }
    }

    /// A checkpoint with a signature line that does not fit: of the log itself, or of the witness whose line alone was
    /// added to what the log signed. `key` is the verifier key that the line names.
    ///
    /// # Errors
    /// If the line fits after all, there is none of that key, or it is too long.
    pub fn of_bad_signature(
        log: &VerifierKey,
        note: &str,
        key: &str,
        by: &Identity,
    ) -> Result<Self, EvidenceError> {
        let (notes, reason) = (vec![note.to_owned()], BAD_SIGNATURE.to_owned());
        let (kind, key) = (EvidenceKind::BadSignature, Some(key.to_owned()));
        Self { v: 1, kind, log: log.to_string(), notes, entry: None, reason, key, by: None }
            .said(by)
    }

    /// Since `since_s` (POSIX seconds) no quorum has vouched for `last`, or for anything newer.
    ///
    /// # Errors
    /// If the log did not sign `last`.
    pub fn of_stale(
        log: &VerifierKey,
        last: &str,
        since_s: u64,
        by: &Identity,
    ) -> Result<Self, EvidenceError> {
        let notes = vec![signed(log, last)?.signed_by_log(log)];
        let (kind, reason) = (EvidenceKind::Stale, format!("{STALE}{since_s}"));
        Self { v: 1, kind, log: log.to_string(), notes, entry: None, reason, key: None, by: None }
            .said(by)
    }

    /// Signs it.
    fn said(mut self, by: &Identity) -> Result<Self, EvidenceError> {
        let note = by.sign(&self.unsigned()).map_err(|_| EvidenceError::Malformed)?;
        let note = String::from_utf8_lossy(&note).into_owned();
        self.by = note.lines().next_back().map(str::to_owned);
        self.checked()
    }

    /// What is signed: the object without who says it, and a line feed.
    fn unsigned(&self) -> String {
        Self { by: None, ..self.clone() }.to_text() + "\n"
    }

    /// The name of the member who says it; `None` of what does not rest on anybody's word.
    pub fn speaker(&self) -> Option<&str> {
        let (name, _) = self.by.as_deref()?.strip_prefix("— ")?.split_once(' ')?;
        Some(name)
    }

    /// Whether it is said by whoever has this key.
    pub fn is_said_by(&self, key: &VerifierKey) -> bool {
        let line = self.by.as_deref().map(|line| Signature::from_bytes(line.as_bytes()));
        let Some(Ok(line)) = line else { return false };
        line.name() == key.origin()
            && line.id() == key.note_verifier().key_id()
            && key.note_verifier().verify(self.unsigned().as_bytes(), line.signature())
    }

    /// Whether it proves itself, or is said by a member of the log.
    pub fn is_vouched_by(&self, state: &State) -> bool {
        let Some(speaker) = self.speaker() else { return self.is_proof() };
        let mut members = state.members().filter(|member| member.name.as_str() == speaker);
        members.any(|member| self.is_said_by(member.key.vkey()))
    }

    /// An entry that the rules refuse: handed in, or found in the log, as `by` says.
    ///
    /// # Errors
    /// If it is too long.
    pub fn of_entry(
        log: &VerifierKey,
        kind: EvidenceKind,
        entry: &Entry,
        reason: &str,
        by: &Identity,
    ) -> Result<Self, EvidenceError> {
        let entry = String::from_utf8_lossy(entry.as_bytes()).into_owned();
        let mut reason = reason.replace(char::is_control, " ");
        while reason.len() > MAX_REASON_BYTES {
            reason.pop();
        }
        let (log, notes, entry) = (log.to_string(), Vec::new(), Some(entry));
        Self { v: 1, kind, log, notes, entry, reason, key: None, by: None }.said(by)
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
        match self.kind {
            EvidenceKind::Fork => true,
            EvidenceKind::Rewritten => self.notes.iter().any(impossible),
            _ => false,
        }
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

    /// Whether the one note bears a line of the key that does not fit, and nothing else that matters.
    fn check_bad_signature(&self, log: &VerifierKey) -> Result<(), EvidenceError> {
        let ([note], Some(key), None) = (self.notes.as_slice(), &self.key, &self.entry) else {
            return Err(EvidenceError::Malformed);
        };
        if self.reason != BAD_SIGNATURE || note.len() > MAX_COSIGNED_BYTES {
            return Err(EvidenceError::Malformed);
        }
        if *key == self.log {
            return match signed(log, note) {
                Err(EvidenceError::Note(CheckpointError::Signature { .. })) => Ok(()),
                Ok(_) => Err(EvidenceError::Unproven("the signature fits")),
                Err(error) => Err(error),
            };
        }
        let cosigner: CosignerKey = key.parse().map_err(|_| EvidenceError::Malformed)?;
        let plain = signed(log, note)?.signed_by_log(log);
        let added = note.strip_prefix(&plain).ok_or(EvidenceError::Malformed)?;
        if added.lines().count() != 1 {
            return Err(EvidenceError::Malformed);
        }
        match cosigner.verify(note) {
            Err(_) => Ok(()),
            Ok(_) => Err(EvidenceError::Unproven("the signature fits, or is another's")),
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
        let is_word = !self.is_proof();
        if is_word != self.speaker().is_some() || is_word != self.by.is_some() {
            return Err(EvidenceError::Malformed);
        }
        if self.kind == EvidenceKind::BadSignature {
            self.check_bad_signature(&log)?;
            return Ok(self);
        }
        let heads = self
            .notes
            .iter()
            .map(|note| signed(&log, note))
            .collect::<Result<Vec<Head>, EvidenceError>>()?;
        if self.key.is_some() {
            return Err(EvidenceError::Malformed);
        }
        match (self.kind, heads.as_slice(), &self.entry) {
            (EvidenceKind::Stale, [head], None) => {
                let since = self.reason.strip_prefix(STALE).and_then(|own| own.parse::<u64>().ok());
                let plain = since.is_some_and(|since_s| self.reason == format!("{STALE}{since_s}"));
                if !plain || head.signed_by_log(&log) != self.notes[0] {
                    return Err(EvidenceError::Malformed);
                }
            }
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
    use haar_identity::Identity;
    use proptest::prelude::*;

    fn log() -> Identity {
        Identity::generate("log.example", [1; 32]).unwrap()
    }

    fn note(size: u64, root: u8) -> String {
        SignedCheckpoint::sign(&log(), size, [root; 32]).unwrap().note().to_owned()
    }

    fn member() -> Identity {
        Identity::generate("b.example", [5; 32]).unwrap()
    }

    fn fork() -> Evidence {
        Evidence::of_checkpoints(log().vkey(), &note(7, 1), &note(7, 2), None).unwrap()
    }

    fn rewritten(one: &str, two: &str) -> Evidence {
        Evidence::of_checkpoints(log().vkey(), one, two, Some(&member())).unwrap()
    }

    #[test]
    fn what_is_no_proof_is_somebodys_word() {
        let made = [EvidenceKind::RefusedEntry, EvidenceKind::BrokenRule].map(|kind| {
            let body = serde_json::json!({});
            let entry =
                Entry::sign(crate::EntryKind::Evidence, log().origin(), &body, &[&member()])
                    .unwrap();
            Evidence::of_entry(log().vkey(), kind, &entry, "why not", &member()).unwrap()
        });
        for own in made.into_iter().chain([rewritten(&note(7, 1), &note(9, 2))]) {
            assert_eq!(Evidence::parse(&own.to_text()).unwrap(), own);
            assert!(own.is_said_by(member().vkey()) && !own.is_said_by(log().vkey()));
            let unsaid = Evidence { by: None, ..own.clone() };
            assert!(Evidence::parse(&unsaid.to_text()).is_err());
            let other =
                own.to_text().replace("why not", "why yes").replace("from size 7", "from size 8");
            assert!(Evidence::parse(&other).map_or(true, |own| !own.is_said_by(member().vkey())));
        }
    }

    #[test]
    fn two_roots_of_one_size_are_proof_for_anybody() {
        let fork = fork();
        assert_eq!((fork.kind(), fork.is_proof()), (EvidenceKind::Fork, true));
        assert_eq!(Evidence::parse(&fork.to_text()).unwrap(), fork);
        let unsaid = Evidence::of_checkpoints(log().vkey(), &note(7, 1), &note(9, 2), None);
        assert!(matches!(unsaid, Err(EvidenceError::Unproven(_))), "that is no proof");
        let other = rewritten(&note(7, 1), &note(9, 2));
        assert_eq!((other.kind(), other.is_proof()), (EvidenceKind::Rewritten, false));
        let claimed = other.to_text().replace("rewritten", "fork");
        assert!(Evidence::parse(&claimed).is_err());
    }

    #[test]
    fn nobody_can_make_evidence_against_a_log_without_its_key() {
        let stranger = Identity::generate("log.example", [2; 32]).unwrap();
        let forged = SignedCheckpoint::sign(&stranger, 7, [2; 32]).unwrap().note().to_owned();
        let made = Evidence::of_checkpoints(log().vkey(), &note(7, 1), &forged, Some(&member()));
        assert!(matches!(made, Err(EvidenceError::Note(_))), "{made:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_is_itself(at: prop::sample::Index, put in "[ -~\\n]{0,4}", cut in 0_usize..6) {
            let fork = fork();
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
        let make =
            |one: &str, two: &str| Evidence::of_checkpoints(log().vkey(), one, two, None).unwrap();
        let fork = make(&one, &two);
        assert_eq!(make(&two, &one), fork, "whichever was seen first");
        // Lines that an operator puts in front, under its own name too, hide nothing and change nothing.
        let junk = haar_identity::base64::encode(&[7; 68]);
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
        let made = Evidence::of_checkpoints(log().vkey(), &offered, &offered, None).unwrap();
        assert!(made.is_proof() && Evidence::parse(&made.to_text()).is_ok());
        // The same checkpoint twice is said only by who was served entries that do not fit it.
        let served = rewritten(&note(7, 1), &note(7, 1));
        assert_eq!((served.kind(), served.is_proof()), (EvidenceKind::Rewritten, false));
    }

    #[test]
    fn a_signature_that_does_not_fit_is_said_by_a_member() {
        use crate::cosignature::Cosigner;
        let (log, member) = (log(), Identity::generate("b.example", [5; 32]).unwrap());
        let witness = Cosigner::generate("c.example/witness", [6; 32]).unwrap();
        let (one, two) = (note(7, 1), note(8, 2));
        let text = |note: &str| note.split_once("\n\n").unwrap().0.to_owned() + "\n";
        let made =
            |note: &str, key: &str| Evidence::of_bad_signature(log.vkey(), note, key, &member);
        // The witness's line is for another checkpoint; the log's signature was moved to another.
        let line = witness.cosign(&text(&two), 1_000);
        let bad = made(&format!("{one}{line}"), witness.vkey().as_str()).unwrap();
        let moved = format!("{}\n{}", text(&two), one.split_once("\n\n").unwrap().1);
        let other = made(&moved, log.vkey().as_str()).unwrap();
        for own in [&bad, &other] {
            assert_eq!(Evidence::parse(&own.to_text()).unwrap(), *own);
            assert_eq!((own.kind(), own.is_proof()), (EvidenceKind::BadSignature, false));
            assert_eq!(own.speaker(), Some("b.example"));
            assert!(own.is_said_by(member.vkey()) && !own.is_said_by(log.vkey()));
            // Whoever takes out or changes who says it has none.
            let mut silent = own.clone();
            silent.by = None;
            assert!(Evidence::parse(&silent.to_text()).is_err());
            let altered = own.to_text().replacen("\"by\":\"— b.", "\"by\":\"— c.", 1);
            assert!(!Evidence::parse(&altered).unwrap().is_said_by(member.vkey()));
        }
        let fits = witness.cosign(&text(&one), 1_000);
        assert!(made(&format!("{one}{fits}"), witness.vkey().as_str()).is_err());
        assert!(made(&one, witness.vkey().as_str()).is_err(), "no line at all");
        assert!(made(&one, log.vkey().as_str()).is_err());
        assert!(made(&format!("{one}{fits}{line}"), witness.vkey().as_str()).is_err());
    }

    #[test]
    fn a_stale_log_is_said_by_a_member() {
        let member = Identity::generate("b.example", [5; 32]).unwrap();
        let stale = Evidence::of_stale(log().vkey(), &note(7, 1), 1_700_000_000, &member).unwrap();
        assert_eq!(Evidence::parse(&stale.to_text()).unwrap(), stale);
        assert!(stale.is_said_by(member.vkey()) && !stale.is_proof());
        let padded = stale.to_text().replace("since 1", "since 01");
        assert!(Evidence::parse(&padded).is_err());
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let fork = fork();
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
