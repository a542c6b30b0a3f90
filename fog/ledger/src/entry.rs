//! Entries of the consortium log: signed statements of members and sites.
//!
//! # Format
//! A C2SP signed-note of at most [`MAX_ENTRY_BYTES`] whose text is exactly three lines:
//!
//! ```text
//! haar.invalid/consortium/v1 <kind>
//! <origin of the log that it is meant for>
//! <one JSON object without white space outside strings>
//! ```
//!
//! followed by an empty line and 1 to [`MAX_SIGNATURES`] Ed25519 signature lines. What the object holds
//! depends on the [`EntryKind`] and is said where that kind is acted on. The *whole note* is the leaf's
//! content (RFC 6962 leaf hash over it), so signatures are in the log as well.
//!
//! # Why the origin
//! A ballot that was cast in one log must count in no other, not even in the log that follows it under a
//! new operator.
//!
//! # The same statement twice
//! [`Entry::id`] is over the text, not over the signatures: who signs the same words again has said
//! nothing new, and the log's state ignores it.
//!
//! # Trust
//! [`Entry::parse`] says that bytes have the form. Whether a signature holds is [`Entry::verify`], and
//! whether that key may say so is decided by the state that the log's earlier entries give.

use haar_identity::{Identity, VerifierKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use signed_note::{Note, NoteError, VerifierList};
use std::fmt;
use std::str::FromStr;

/// The longest entry: what the length in a C2SP entry bundle can say is 65,535.
pub const MAX_ENTRY_BYTES: usize = 60 * 1024;

/// The most signatures on one entry.
pub const MAX_SIGNATURES: usize = 16;

const HEAD: &str = "haar.invalid/consortium/v1 ";

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum EntryKind {
    /// The first of every log: members, quorum, operator, and what it follows.
    Genesis,
    /// A site's checkpoint, so that all sites' logs have one order.
    SiteCheckpoint,
    /// A leaf of a site log that is put before the members: a flagged event, a consent, a decision.
    Commitment,
    /// A key that is registered or revoked.
    Key,
    /// A change that members are asked to agree to.
    Proposal,
    /// A member's vote on a proposal.
    Ballot,
    /// What somebody attempted, with the proof of it.
    Evidence,
    /// A numbered item that is handed from one member to another.
    Custody,
    /// That custodians were asked to open a pseudonym.
    Reidentification,
}

impl EntryKind {
    const ALL: [Self; 9] = [
        Self::Genesis,
        Self::SiteCheckpoint,
        Self::Commitment,
        Self::Key,
        Self::Proposal,
        Self::Ballot,
        Self::Evidence,
        Self::Custody,
        Self::Reidentification,
    ];

    /// Its name in an entry's first line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Genesis => "genesis",
            Self::SiteCheckpoint => "site-checkpoint",
            Self::Commitment => "commitment",
            Self::Key => "key",
            Self::Proposal => "proposal",
            Self::Ballot => "ballot",
            Self::Evidence => "evidence",
            Self::Custody => "custody",
            Self::Reidentification => "reidentification",
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EntryKind {
    type Err = EntryError;
    fn from_str(text: &str) -> Result<Self, EntryError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(EntryError::Kind)
    }
}

/// The hash by which an entry is named: SHA-256 of its text.
pub type EntryId = [u8; 32];

/// An entry that has the form. Its signatures have not been checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    note: String,
    kind: EntryKind,
    origin: String,
    body: String,
    signers: Vec<String>,
}

/// Why bytes are not an entry, or not one to act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Over [`MAX_ENTRY_BYTES`].
    #[error("an entry has at most {MAX_ENTRY_BYTES} bytes, this one {0}")]
    TooLong(usize),
    /// Not a signed note of three lines in its one form.
    #[error(
        "not an entry of a consortium log; `haar ledger` makes them (a signed note of three lines: \
         kind, origin, JSON)"
    )]
    Malformed,
    /// A kind that this build does not know.
    #[error("the entry is of a kind that this version does not know; update haar")]
    Kind,
    /// The object does not hold what its kind wants.
    #[error("the object of this {kind} entry is wrong: {what}")]
    Body {
        /// The kind.
        kind: EntryKind,
        /// What serde says of it; places and field names, no values.
        what: String,
    },
    /// Too many signatures.
    #[error("an entry has 1 to {MAX_SIGNATURES} signatures, this one {0}")]
    Signatures(usize),
    /// No signature by the key that is asked for.
    #[error("the entry is not signed by {0}")]
    NotSigned(String),
    /// A signature by that key does not fit.
    #[error("the signature of {0} does not fit the entry: one of them was altered")]
    Signature(String),
}

impl Entry {
    /// Makes an entry for the log `origin` and signs it by each of `signers`.
    ///
    /// # Errors
    /// If it would be too long, or is signed by nobody or too many.
    pub fn sign(
        kind: EntryKind,
        origin: &str,
        body: &impl Serialize,
        signers: &[&Identity],
    ) -> Result<Self, EntryError> {
        let body = serde_json::to_string(body)
            .map_err(|error| EntryError::Body { kind, what: error.to_string() })?;
        let text = format!("{HEAD}{kind}\n{origin}\n{body}\n");
        let mut note = Note::new(text.as_bytes(), &[]).map_err(|_| EntryError::Malformed)?;
        for signer in signers {
            note.add_sigs(&[signer.note_signer()]).map_err(|_| EntryError::Malformed)?;
        }
        Self::parse(&note.to_bytes())
    }

    /// The same words with one more signature: how a second party agrees to them.
    ///
    /// # Errors
    /// If there are too many signatures already.
    pub fn countersign(&self, signer: &Identity) -> Result<Self, EntryError> {
        let mut note = self.parsed()?;
        note.add_sigs(&[signer.note_signer()]).map_err(|_| EntryError::Malformed)?;
        Self::parse(&note.to_bytes())
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// Unless the bytes are the one form of an entry.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLong(bytes.len()));
        }
        let malformed = || EntryError::Malformed;
        let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
        let note = Note::from_bytes(bytes).map_err(|_| malformed())?;
        if note.to_bytes() != bytes {
            return Err(malformed());
        }
        let (words, signatures) = text.rsplit_once("\n\n").ok_or_else(malformed)?;
        let mut lines = words.split('\n');
        let (Some(head), Some(origin), Some(body), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(malformed());
        };
        let kind = head.strip_prefix(HEAD).ok_or_else(malformed)?.parse()?;
        if origin.is_empty() || !body.starts_with('{') {
            return Err(malformed());
        }
        let signers: Vec<_> = signatures.lines().filter_map(signer).map(str::to_owned).collect();
        if !(1..=MAX_SIGNATURES).contains(&signers.len()) {
            return Err(EntryError::Signatures(signers.len()));
        }
        let (origin, body) = (origin.to_owned(), body.to_owned());
        Ok(Self { note: text.to_owned(), kind, origin, body, signers })
    }

    /// What it says, in the type that its kind wants.
    ///
    /// # Errors
    /// If the object is not of that type, has fields that it does not know, or is not in the one form in
    /// which `T` is written.
    pub fn body<T: DeserializeOwned + Serialize>(&self) -> Result<T, EntryError> {
        let wrong = |error: serde_json::Error| EntryError::Body {
            kind: self.kind,
            what: format!("{:?} at column {}", error.classify(), error.column()),
        };
        let value: T = serde_json::from_str(&self.body).map_err(wrong)?;
        if serde_json::to_string(&value).map_err(wrong)? == self.body {
            Ok(value)
        } else {
            Err(EntryError::Body { kind: self.kind, what: "not in its canonical form".to_owned() })
        }
    }

    /// Checks that `key` signed it.
    ///
    /// # Errors
    /// If it did not, or the signature does not fit.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), EntryError> {
        match self.parsed()?.verify(&VerifierList::new(vec![Box::new(key.note_verifier().clone())]))
        {
            Ok(_) => Ok(()),
            Err(NoteError::UnverifiedNote) => Err(EntryError::NotSigned(key.origin().to_owned())),
            Err(_) => Err(EntryError::Signature(key.origin().to_owned())),
        }
    }

    /// What kind of statement it is.
    pub fn kind(&self) -> EntryKind {
        self.kind
    }

    /// The log that it is meant for.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Names of the keys that it claims to be signed by, in the order of the signatures.
    pub fn signers(&self) -> &[String] {
        &self.signers
    }

    /// SHA-256 of the text that is signed.
    pub fn id(&self) -> EntryId {
        let text = self.note.rsplit_once("\n\n").map_or("", |(text, _)| text);
        Sha256::new().chain_update(text).chain_update("\n").finalize().into()
    }

    /// The bytes that are in the log.
    pub fn as_bytes(&self) -> &[u8] {
        self.note.as_bytes()
    }

    fn parsed(&self) -> Result<Note, EntryError> {
        Note::from_bytes(self.note.as_bytes()).map_err(|_| EntryError::Malformed)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({}, {} bytes)", self.kind, self.note.len())
    }
}

/// The key's name in a signature line.
fn signer(line: &str) -> Option<&str> {
    line.strip_prefix("— ")?.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(deny_unknown_fields)]
    struct Words {
        say: String,
        n: u32,
    }

    const LOG: &str = "consortium.example/log";

    fn member(name: &str) -> Identity {
        Identity::generate(name, [name.len() as u8; 32]).unwrap()
    }

    fn entry(signers: &[&Identity]) -> Entry {
        let words = Words { say: "yes".into(), n: 3 };
        Entry::sign(EntryKind::Ballot, LOG, &words, signers).unwrap()
    }

    #[test]
    fn an_entry_is_as_documented() {
        let entry = entry(&[&member("a.example")]);
        expect_test::expect![[r#"
            haar.invalid/consortium/v1 ballot
            consortium.example/log
            {"say":"yes","n":3}

            — a.example 82eGS3bx9u4KlblY1BqQy7vtcGleItHhBwLRq3yy3r5lk4JzZ0aMzBS2jqjXl/4RnBkC15CykIpybW+N55fGHcEiYwg=
        "#]]
        .assert_eq(std::str::from_utf8(entry.as_bytes()).unwrap());
        assert_eq!(Entry::parse(entry.as_bytes()).unwrap(), entry);
        assert_eq!(entry.body::<Words>().unwrap(), Words { say: "yes".into(), n: 3 });
        assert_eq!((entry.kind(), entry.origin()), (EntryKind::Ballot, LOG));
    }

    #[test]
    fn who_signed_is_checked_key_by_key() {
        let (a, bb, other) = (member("a.example"), member("bb.example"), member("ccc.example"));
        let one = entry(&[&a]);
        let both = one.countersign(&bb).unwrap();
        assert_eq!(both.signers(), ["a.example", "bb.example"]);
        assert_eq!((both.verify(a.vkey()), both.verify(bb.vkey())), (Ok(()), Ok(())));
        let missing = EntryError::NotSigned("ccc.example".into());
        assert_eq!(both.verify(other.vkey()), Err(missing));
        assert_eq!(both.id(), one.id(), "the words are the same");
        assert_ne!(both.as_bytes(), one.as_bytes());
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let a = member("a.example");
        let entry = entry(&[&a]);
        for byte in 0..entry.as_bytes().len() {
            for bit in 0..8 {
                let mut flipped = entry.as_bytes().to_vec();
                flipped[byte] ^= 1 << bit;
                let held = Entry::parse(&flipped).is_ok_and(|entry| entry.verify(a.vkey()).is_ok());
                assert!(!held, "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn bodies_have_one_form() {
        let a = member("a.example");
        let sign = |body: &str| {
            let text = format!("{HEAD}ballot\n{LOG}\n{body}\n");
            Entry::parse(&a.sign(&text).unwrap()).and_then(|entry| entry.body::<Words>())
        };
        assert!(sign(r#"{"say":"yes","n":3}"#).is_ok());
        for body in [
            r#"{"say": "yes","n":3}"#,
            r#"{"n":3,"say":"yes"}"#,
            r#"{"say":"yes","n":3,"more":1}"#,
            r#"{"say":"yes","say":"yes","n":3}"#,
            r#"{"say":"y\u0065s","n":3}"#,
            r#"{"say":"yes"}"#,
            "{}",
        ] {
            assert!(matches!(sign(body), Err(EntryError::Body { .. })), "{body}");
        }
        assert_eq!(sign("[]"), Err(EntryError::Malformed));
        assert_eq!(sign("{}\n{}"), Err(EntryError::Malformed));
    }

    #[test]
    fn limits_are_held() {
        let long = Words { say: "x".repeat(MAX_ENTRY_BYTES), n: 1 };
        let a = member("a.example");
        let signed = Entry::sign(EntryKind::Ballot, LOG, &long, &[&a]);
        assert!(matches!(signed, Err(EntryError::TooLong(_))));
        let words = Words { say: String::new(), n: 1 };
        assert!(Entry::sign(EntryKind::Ballot, LOG, &words, &[]).is_err());
    }
}
