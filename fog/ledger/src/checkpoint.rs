//! Signed checkpoints: the one small text that stands for the whole log.
//!
//! # Format
//! C2SP tlog-checkpoint in a C2SP signed-note: origin, size in decimal, root in base 64, an empty line,
//! and one Ed25519 signature line by the key that is named as the origin. At most
//! [`MAX_CHECKPOINT_BYTES`].
//!
//! A checkpoint of the consortium log carries cosignatures as well ([`crate::cosignature`]), and is then at
//! most [`MAX_COSIGNED_BYTES`].
//!
//! # Stricter than C2SP
//! A signed-note may carry signatures of keys that the reader does not know, and they are to be
//! ignored. A site log's checkpoint has its own signature and no other: whatever a verifier ignores
//! could be altered unseen. Base 64 and numbers must be in their one canonical form.
//!
//! # Not guaranteed
//! That there is only one log: whoever holds the key can sign two different checkpoints of one size.
//! Only witnesses, who remember, find that.

use haar_identity::{Identity, VerifierKey};
use signed_note::{Note, Signature, Verifier};
use tlog_tiles::{Checkpoint, Hash};

/// The longest checkpoint note that is read.
pub const MAX_CHECKPOINT_BYTES: usize = 4 * 1024;

/// The longest checkpoint note with cosignatures that is read.
pub const MAX_COSIGNED_BYTES: usize = 64 * 1024;

/// A checkpoint whose signature has been checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedCheckpoint {
    head: Head,
    signer: VerifierKey,
}

/// Why bytes are not a checkpoint to rely on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not a checkpoint in its canonical form.
    #[error("the checkpoint is malformed")]
    Malformed,
    /// Not exactly one signature line.
    #[error("the checkpoint has {0} signature lines where a site log's has one")]
    Signatures(usize),
    /// Signed by a key that is not among the given ones.
    #[error("the checkpoint is of {origin} and not signed by a key that is trusted for it")]
    UnknownKey {
        /// The origin line.
        origin: String,
    },
    /// Signed by the right key, but not this text.
    #[error("the signature of {origin} does not fit the checkpoint: one of them was altered")]
    Signature {
        /// The origin line.
        origin: String,
    },
}

impl SignedCheckpoint {
    /// Reads a checkpoint note and checks its signature against `keys`.
    ///
    /// # Errors
    /// If it is malformed, or not signed by the one of `keys` that speaks for its origin.
    pub fn open(note: &[u8], keys: &[VerifierKey]) -> Result<Self, CheckpointError> {
        let head = parse(note)?;
        let signer = signed_by(&head, keys)?;
        Ok(Self { head, signer })
    }

    /// As [`SignedCheckpoint::open`], for one that may carry cosignatures, which are not looked at.
    pub(crate) fn open_cosigned(
        note: &[u8],
        keys: &[VerifierKey],
    ) -> Result<Self, CheckpointError> {
        let (head, signer) = Head::open_cosigned(note, keys)?;
        Ok(Self { head, signer })
    }

    /// Signs the checkpoint of a tree. It is opened again before it is handed out.
    pub(crate) fn sign(
        identity: &Identity,
        size: u64,
        root: [u8; 32],
    ) -> Result<Self, CheckpointError> {
        let text = Checkpoint::new(identity.origin(), size, Hash(root), "")
            .map_err(|_| CheckpointError::Malformed)?;
        let mut note = Note::new(&text.to_bytes(), &[]).map_err(|_| CheckpointError::Malformed)?;
        note.add_sigs(&[identity.note_signer()]).map_err(|_| CheckpointError::Malformed)?;
        Self::open(&note.to_bytes(), std::slice::from_ref(identity.vkey()))
    }

    /// The log's origin.
    pub fn origin(&self) -> &str {
        &self.head.origin
    }

    /// How many leaves.
    pub fn size(&self) -> u64 {
        self.head.size
    }

    /// The RFC 6962 root over them.
    pub fn root(&self) -> [u8; 32] {
        self.head.root
    }

    /// The signed note.
    pub fn note(&self) -> &str {
        &self.head.note
    }

    /// The key whose signature was checked.
    pub fn signer(&self) -> &VerifierKey {
        &self.signer
    }
}

/// What a checkpoint says, its signature not yet checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) origin: String,
    pub(crate) size: u64,
    pub(crate) root: [u8; 32],
    pub(crate) note: String,
}

impl Head {
    pub(crate) fn parse(note: &[u8]) -> Result<Self, CheckpointError> {
        parse(note)
    }

    /// Reads a checkpoint that may be cosigned, and finds the one of `keys` that signed it for its log.
    pub(crate) fn open_cosigned(
        note: &[u8],
        keys: &[VerifierKey],
    ) -> Result<(Self, VerifierKey), CheckpointError> {
        let head = parse_cosigned(note)?;
        let signer = signed_by(&head, keys)?;
        Ok((head, signer))
    }

    /// A note that was checked before it was stored.
    pub(crate) fn open_stored(note: &str) -> Result<Self, CheckpointError> {
        parse_cosigned(note.as_bytes())
    }

    /// The note with one signature line, that of the log: a line of the same name that is not by its key is
    /// no more the log's than any other.
    pub(crate) fn signed_by_log(&self, log: &VerifierKey) -> String {
        let line = self.line_of(log).ok().flatten().unwrap_or_default();
        format!("{}\n{line}", self.text())
    }

    /// The first signature line by this key, once all lines that bear its name and id are found to fit.
    fn line_of(&self, key: &VerifierKey) -> Result<Option<&str>, CheckpointError> {
        let mut own = None;
        for line in self.note[self.text().len() + 1..].split_inclusive('\n') {
            let signature = Signature::from_bytes(line.trim_end_matches('\n').as_bytes())
                .map_err(|_| CheckpointError::Malformed)?;
            if signature.name() != key.origin() || signature.id() != key.note_verifier().key_id() {
                continue;
            }
            if !key.note_verifier().verify(self.text().as_bytes(), signature.signature()) {
                return Err(CheckpointError::Signature { origin: self.origin.clone() });
            }
            own = own.or(Some(line));
        }
        Ok(own)
    }

    /// The text that is signed, with the line feed at its end.
    pub(crate) fn text(&self) -> &str {
        let end = self.note.rfind("\n\n").map_or(0, |end| end + 1);
        &self.note[..end]
    }
}

/// The first of `keys` that speaks for the checkpoint's origin and has signed it. Every line of every one of them must
/// fit (C2SP signed-note): a note with a broken line of a known key is not to be relied on.
fn signed_by(head: &Head, keys: &[VerifierKey]) -> Result<VerifierKey, CheckpointError> {
    let mut signer = None;
    for key in keys.iter().filter(|key| key.origin() == head.origin) {
        if head.line_of(key)?.is_some() {
            signer = signer.or(Some(key));
        }
    }
    signer.cloned().ok_or_else(|| CheckpointError::UnknownKey { origin: head.origin.clone() })
}

fn parse(bytes: &[u8]) -> Result<Head, CheckpointError> {
    if bytes.len() > MAX_CHECKPOINT_BYTES {
        return Err(CheckpointError::Malformed);
    }
    let head = parse_cosigned(bytes)?;
    match head.note[head.text().len() + 1..].lines().count() {
        1 => Ok(head),
        count => Err(CheckpointError::Signatures(count)),
    }
}

fn parse_cosigned(bytes: &[u8]) -> Result<Head, CheckpointError> {
    let malformed = || CheckpointError::Malformed;
    if bytes.len() > MAX_COSIGNED_BYTES {
        return Err(malformed());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
    let note = Note::from_bytes(bytes).map_err(|_| malformed())?;
    let checkpoint = Checkpoint::from_bytes(note.text()).map_err(|_| malformed())?;
    if note.to_bytes() != bytes || checkpoint.to_bytes() != note.text() {
        return Err(malformed());
    }
    Ok(Head {
        origin: checkpoint.origin().to_owned(),
        size: checkpoint.size(),
        root: checkpoint.hash().0,
        note: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_024))]

        /// Whatever is read is written again byte for byte, and nothing is read that is not in its one form.
        #[test]
        fn any_bytes_are_a_checkpoint_or_none(
            origin in "[ -~]{0,8}", size in "(0|[1-9][0-9]{0,21}|0[0-9])", root: [u8; 32],
            more in "([ -~]{0,6}\n){0,2}", lines in prop::collection::vec((".{0,6}", any::<[u8; 9]>()), 0..4), noise: Vec<u8>,
        ) {
            let root = haar_identity::base64::encode(&root);
            let mut note = format!("{origin}\n{size}\n{root}\n{more}\n");
            for (name, bytes) in lines {
                note += &format!("— {name} {}\n", haar_identity::base64::encode(&bytes));
            }
            if let Ok(head) = Head::open_stored(&note) {
                prop_assert_eq!(&head.note, &note);
                prop_assert_eq!((head.origin.as_str(), head.size.to_string()), (origin.as_str(), size));
                let text = format!("{}\n{}\n{root}\n", head.origin, head.size);
                prop_assert!(head.text().starts_with(&text));
            }
            prop_assert!(Head::parse(&noise).is_err());
        }
    }

    #[test]
    fn a_checkpoint_is_as_documented() {
        let identity = Identity::generate("fog-1.example/site", [1; 32]).unwrap();
        let checkpoint = SignedCheckpoint::sign(&identity, 7, [9; 32]).unwrap();
        expect_test::expect![[r#"
            fog-1.example/site
            7
            CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=

            — fog-1.example/site bBKdhQ03n/IS4DRMKXJmOhASrxycLsOmQkE/EdDjtlN95jfNYUHyQ5Sa4Hi6Y/8IlIXL6hSfkO7q16NOUExFKwy5tQk=
        "#]].assert_eq(checkpoint.note());
        let keys = [identity.vkey().clone()];
        assert_eq!(SignedCheckpoint::open(checkpoint.note().as_bytes(), &keys), Ok(checkpoint));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let identity = Identity::generate("fog-1.example/site", [1; 32]).unwrap();
        let keys = [identity.vkey().clone()];
        let note = SignedCheckpoint::sign(&identity, 7, [9; 32]).unwrap().note().to_owned();
        for byte in 0..note.len() {
            for bit in 0..8 {
                let mut flipped = note.clone().into_bytes();
                flipped[byte] ^= 1 << bit;
                assert!(SignedCheckpoint::open(&flipped, &keys).is_err(), "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn other_keys_and_more_signatures_are_refused() {
        let identity = Identity::generate("fog-1.example/site", [1; 32]).unwrap();
        let older = Identity::generate("fog-1.example/site", [2; 32]).unwrap();
        let other = Identity::generate("fog-2.example/site", [1; 32]).unwrap();
        let note = SignedCheckpoint::sign(&identity, 7, [9; 32]).unwrap().note().to_owned();
        let open = |note: &str, keys: &[&Identity]| {
            let keys: Vec<_> = keys.iter().map(|identity| identity.vkey().clone()).collect();
            SignedCheckpoint::open(note.as_bytes(), &keys)
        };
        assert!(open(&note, &[&older, &other, &identity, &identity]).is_ok());
        let unknown = CheckpointError::UnknownKey { origin: "fog-1.example/site".into() };
        assert_eq!(open(&note, &[&older, &other]), Err(unknown));
        let line = note.lines().last().unwrap();
        assert_eq!(
            open(&format!("{note}{line}\n"), &[&identity]),
            Err(CheckpointError::Signatures(2))
        );
    }

    #[test]
    fn lines_of_strangers_neither_hide_the_log_s_own_nor_a_broken_one() {
        let log = Identity::generate("log.example", [1; 32]).unwrap();
        let newer = Identity::generate("log.example", [2; 32]).unwrap();
        let keys = [log.vkey().clone(), newer.vkey().clone()];
        let note = SignedCheckpoint::sign(&log, 7, [9; 32]).unwrap().note().to_owned();
        let (text, line) = note.split_once("\n\n").unwrap();
        let stranger = format!("— log.example {}\n", haar_identity::base64::encode(&[7; 68]));
        let crowded = format!("{text}\n\n{stranger}{line}{stranger}");
        let (head, signer) = Head::open_cosigned(crowded.as_bytes(), &keys).unwrap();
        assert_eq!((&signer, head.signed_by_log(&signer)), (log.vkey(), note.clone()));
        // A broken line of a known key spoils the note, wherever it stands and whoever else signed.
        for key in &keys {
            let mut broken = vec![0; 68];
            broken[..4].copy_from_slice(&key.note_verifier().key_id().to_be_bytes());
            let broken = format!("— log.example {}\n", haar_identity::base64::encode(&broken));
            for lines in [format!("{line}{broken}"), format!("{broken}{line}")] {
                let opened = Head::open_cosigned(format!("{text}\n\n{lines}").as_bytes(), &keys);
                assert!(matches!(opened, Err(CheckpointError::Signature { .. })), "{lines}");
            }
        }
    }

    #[test]
    fn recorded_tessera_checkpoints_are_accepted() {
        let folder = crate::fixtures::folder().join("tessera/testdata/log");
        let key = crate::fixtures::TESSERA_VKEY.parse().unwrap();
        for size in 0..=15 {
            let note = std::fs::read(folder.join(format!("checkpoint.{size}"))).unwrap();
            let checkpoint = SignedCheckpoint::open(&note, std::slice::from_ref(&key)).unwrap();
            assert_eq!((checkpoint.size(), checkpoint.signer()), (size, &key));
        }
    }
}
