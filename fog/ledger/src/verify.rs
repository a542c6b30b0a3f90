//! Checking a proof file, without network and without state.
//!
//! Body and key give the commitment, the commitment the leaf, leaf and path a root; that root must be
//! the signed one. So a proof that passes says: *the holder of this key has signed a log that has
//! exactly these bytes at this index.*
//!
//! # Not proven
//! That the bytes are true; that the log shows everybody the same tree (witnesses see to that); when
//! it was signed; that nothing newer (a correction) exists for the same name.

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::leaf::LEAF_BYTES;
use crate::policy::{Policy, PolicyError};
use crate::proof::{BareLeaf, Opening, ProofError, ProofFile};
use crate::tables::Record;
use haar_identity::VerifierKey;
use tlog_tiles::Hash;

/// Whose signature counts.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Only these keys'. An empty list accepts nothing.
    Pinned(&'a [VerifierKey]),
    /// That of a log of this policy, and only with the cosignatures that it wants.
    Policy(&'a Policy),
    /// That of the key which the file (or database) itself names. This finds every accident, and no
    /// forger: a forger brings a key of his own.
    Unpinned,
}

/// What a proof proves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The leaf's index.
    pub index: u64,
    /// What the leaf commits to.
    pub record: Record,
    /// The checkpoint under which it lies: origin, size, root and signer.
    pub checkpoint: SignedCheckpoint,
    /// Whether the signer was one of [`Trust::Pinned`] or of [`Trust::Policy`].
    pub key_pinned: bool,
    /// The witnesses of [`Trust::Policy`] that cosigned, with their times in POSIX seconds.
    pub witnesses: Vec<(String, u64)>,
}

/// Why a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The file is no proof.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The checkpoint is not to be relied on.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint does not satisfy the policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The file names one key and the pinned ones are others.
    #[error(
        "the proof is of the log {named}, which is not among the keys given; if that is the log you \
         mean, get its verifier key from its operator"
    )]
    OtherLog {
        /// The verifier key named in the file.
        named: String,
    },
    /// Leaf and path do not lead to the signed root.
    #[error(
        "the leaf is not in the signed tree: index, path, key, name or body was altered, or it \
         never was there"
    )]
    NotIncluded,
}

/// Checks a proof file.
///
/// # Errors
/// Unless every byte of it is as the log made it and the signature is of a key that [`Trust`] allows.
pub fn verify(text: &str, trust: Trust<'_>) -> Result<Verified, VerifyError> {
    let proof = ProofFile::parse(text)?;
    let opening = Opening::decode(&proof.extra)?;
    let leaf = opening.record.leaf();
    let Signed { checkpoint, key_pinned, witnesses } =
        included(&proof, &leaf, &opening.log, trust)?;
    let (index, record) = (proof.index, opening.record);
    Ok(Verified { index, record, checkpoint, key_pinned, witnesses })
}

/// A leaf that is in a log, without what it commits to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedLeaf {
    /// Its index.
    pub index: u64,
    /// The leaf.
    pub leaf: [u8; LEAF_BYTES],
    /// The checkpoint under which it lies.
    pub checkpoint: SignedCheckpoint,
    /// Whether the signer was one of [`Trust::Pinned`] or of [`Trust::Policy`].
    pub key_pinned: bool,
    /// The witnesses of [`Trust::Policy`] that cosigned, with their times in POSIX seconds.
    pub witnesses: Vec<(String, u64)>,
}

/// Checks a proof file without opening, as [`crate::Snapshot::prove_leaf`] makes it.
///
/// # Errors
/// As [`verify`].
pub fn verify_leaf(text: &str, trust: Trust<'_>) -> Result<VerifiedLeaf, VerifyError> {
    let proof = ProofFile::parse(text)?;
    let bare = BareLeaf::decode(&proof.extra)?;
    let Signed { checkpoint, key_pinned, witnesses } =
        included(&proof, &bare.leaf, &bare.log, trust)?;
    Ok(VerifiedLeaf { index: proof.index, leaf: bare.leaf, checkpoint, key_pinned, witnesses })
}

/// A checkpoint whose signatures were checked.
struct Signed {
    checkpoint: SignedCheckpoint,
    key_pinned: bool,
    witnesses: Vec<(String, u64)>,
}

/// The checkpoint, once `leaf` is under it.
fn included(
    proof: &ProofFile,
    leaf: &[u8],
    named: &VerifierKey,
    trust: Trust<'_>,
) -> Result<Signed, VerifyError> {
    let note = proof.checkpoint.as_bytes();
    let other = || VerifyError::OtherLog { named: named.to_string() };
    // The hint is held to the truth even where it is not needed, so that no byte of the file is free.
    let own = std::slice::from_ref(named);
    let signed = match trust {
        Trust::Pinned(keys) if !keys.contains(named) => return Err(other()),
        Trust::Pinned(_) | Trust::Unpinned => Signed {
            checkpoint: SignedCheckpoint::open(note, own)?,
            key_pinned: matches!(trust, Trust::Pinned(_)),
            witnesses: Vec::new(),
        },
        Trust::Policy(policy) => {
            let cosigned = policy.check(note)?;
            if cosigned.log != *named {
                return Err(other());
            }
            let checkpoint = SignedCheckpoint::open_cosigned(note, own)?;
            Signed { checkpoint, key_pinned: true, witnesses: cosigned.witnesses }
        }
    };
    check_path(proof, leaf, signed.checkpoint.size(), signed.checkpoint.root())?;
    Ok(signed)
}

/// Whether leaf and path lead to `root`.
pub(crate) fn check_path(
    proof: &ProofFile,
    leaf: &[u8],
    size: u64,
    root: [u8; 32],
) -> Result<(), VerifyError> {
    let path = proof.path.iter().copied().map(Hash).collect();
    let leaf = tlog_tiles::record_hash(leaf);
    tlog_tiles::check_record(&path, size, Hash(root), proof.index, leaf)
        .map_err(|_| VerifyError::NotIncluded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;
    use crate::fixtures::{identity, log_of, record};

    #[test]
    fn a_proof_proves_what_was_appended() {
        let (_, log) = log_of(300);
        let keys = [log.identity().vkey().clone()];
        for index in 0..300 {
            let proof = log.prove(index).unwrap();
            let text = proof.to_text();
            assert_eq!(ProofFile::parse(&text).unwrap(), proof);
            let verified = verify(&text, Trust::Pinned(&keys)).unwrap();
            assert_eq!((verified.index, &verified.record), (index, &record(index)));
            assert_eq!(verified.checkpoint, log.checkpoint().unwrap());
            assert!(verified.key_pinned);
            assert!(!verify(&text, Trust::Unpinned).unwrap().key_pinned);
        }
    }

    /// Every bit of the file, with and without a pinned key.
    #[test]
    fn every_flipped_bit_is_found() {
        let (_, log) = log_of(5);
        let text = log.prove(3).unwrap().to_text();
        let keys = [log.identity().vkey().clone()];
        for byte in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone().into_bytes();
                flipped[byte] ^= 1 << bit;
                // What is not UTF-8 cannot even be handed in.
                let Ok(flipped) = String::from_utf8(flipped) else { continue };
                assert!(verify(&flipped, Trust::Unpinned).is_err(), "byte {byte} bit {bit}");
                assert!(verify(&flipped, Trust::Pinned(&keys)).is_err(), "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn every_cut_and_every_byte_more_is_found() {
        let (_, log) = log_of(5);
        let text = log.prove(3).unwrap().to_text();
        for end in 0..text.len() {
            assert!(text.get(..end).is_none_or(|cut| verify(cut, Trust::Unpinned).is_err()));
        }
        for more in [" ", "\n", "x", &text] {
            assert!(verify(&format!("{text}{more}"), Trust::Unpinned).is_err());
            assert!(verify(&format!("{more}{text}"), Trust::Unpinned).is_err());
        }
        assert!(verify(&text.replace('\n', "\r\n"), Trust::Unpinned).is_err());
        // Base64 that decodes to an opening with white space, another order or one field twice.
        let opening = String::from_utf8(ProofFile::parse(&text).unwrap().extra).unwrap();
        for other in [
            opening.replacen(',', ", ", 1),
            opening.replacen("{\"v\":1,", "{", 1),
            opening.replacen("{\"v\":1,", "{\"v\":1,\"v\":1,", 1),
            opening.replacen("\"kind\":\"window-digest\",", "", 1).replacen(
                '}',
                ",\"kind\":\"window-digest\"}",
                1,
            ),
        ] {
            let mut proof = ProofFile::parse(&text).unwrap();
            proof.extra = other.into_bytes();
            let error = verify(&proof.to_text(), Trust::Unpinned).unwrap_err();
            assert_eq!(error, VerifyError::Proof(ProofError::Opening));
        }
    }

    #[test]
    fn a_forger_with_a_key_of_his_own_fails_only_against_a_pinned_one() {
        let db = crate::fixtures::memory();
        let forger = Identity::generate(identity().origin(), [13; 32]).unwrap();
        let log = crate::SiteLog::open(db.clone(), forger).unwrap();
        crate::fixtures::append(&db, &log, &[record(0)]);
        let text = log.prove(0).unwrap().to_text();
        assert!(!verify(&text, Trust::Unpinned).unwrap().key_pinned);
        let pinned = [identity().vkey().clone()];
        assert!(matches!(verify(&text, Trust::Pinned(&pinned)), Err(VerifyError::OtherLog { .. })));
        assert!(matches!(verify(&text, Trust::Pinned(&[])), Err(VerifyError::OtherLog { .. })));
    }

    #[test]
    fn another_leaf_s_opening_does_not_fit() {
        let (_, log) = log_of(300);
        let mut proof = log.prove(17).unwrap();
        proof.extra = log.prove(18).unwrap().extra;
        assert_eq!(verify(&proof.to_text(), Trust::Unpinned), Err(VerifyError::NotIncluded));
    }

    #[test]
    fn the_file_is_as_documented() {
        let (_, log) = log_of(3);
        expect_test::expect![[r#"
            c2sp.org/tlog-proof@v1
            extra eyJ2IjoxLCJraW5kIjoiZmxhZ2dlZC1ldmVudCIsIm5hbWUiOiIwYTg4MTExODUyMDk1Y2FlMDQ1MzQwZWExZjBiMjc5OTQ0YjJhNzU2YTIxM2Q5YjUwMTA3ZDc0ODk3NzFlMTU5Iiwia2V5Ijoid1ZpTEtsOXVHUkplU3FNSlNmTUtCWC80TFlUejRrREUvYVBmU08zMVgrdz0iLCJib2R5IjoiZXlKc1pXRm1Jam94TENKMFpYaDBJam9pZUNKOSIsImxvZyI6ImZvZy0xLmhvc3BpdGFsLWEuZXhhbXBsZS9zaXRlLWxvZys5MDBkMTY2MytBUmwvYXlQaGJJVXl4cXZJT1ByTlhxZUp2Z3gyc3BJRE5BT2Irb3M5Tm8xaCJ9
            index 1
            zsLe09XCmH3bkgw4mbD1Hj3JSx8YQ9yIw7BJR+P2v0U=
            eEkMs4Rnthn9hR6U9BH/fnQ5zYS2A5XHqAWT1yHPeaU=

            fog-1.hospital-a.example/site-log
            3
            V8xpS0TeP8YoUo9ebCUBXEam/FwQdNUgCTgRVYIscwQ=

            — fog-1.hospital-a.example/site-log kA0WY4sO6eJRLxvBfHOEdEVDsQVq0vgAp3b4zQr9CHGCT/Pp3puiA2blHyt7/SxUsGYCyqd3h2C0rla1I6mHamqyBA4=
        "#]].assert_eq(&log.prove(1).unwrap().to_text());
    }

    #[test]
    fn recorded_inclusion_proofs() {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Vector {
            leaf_idx: u64,
            tree_size: u64,
            root: Option<String>,
            leaf_hash: String,
            proof: Option<Vec<String>>,
            desc: String,
            want_err: bool,
        }
        let hash = |text: &str| Some(Hash(haar_identity::base64::decode_array(text)?));
        let mut folders = vec![crate::fixtures::folder().join("merkle/testdata/inclusion")];
        let (mut checked, mut good) = (0, 0);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let vector: Vector =
                    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                let proof = vector.proof.unwrap_or_default();
                let proof: Option<Vec<_>> = proof.iter().map(|text| hash(text)).collect();
                // A hash of the wrong length is refused where a proof file is read.
                let holds =
                    match (proof, vector.root.as_deref().and_then(hash), hash(&vector.leaf_hash)) {
                        (Some(proof), Some(root), Some(leaf)) => {
                            let (size, index) = (vector.tree_size, vector.leaf_idx);
                            tlog_tiles::check_record(&proof, size, root, index, leaf).is_ok()
                        }
                        _ => false,
                    };
                assert_eq!(holds, !vector.want_err, "{}: {}", path.display(), vector.desc);
                checked += 1;
                good += u32::from(holds);
            }
        }
        assert_eq!(checked, 98);
        assert!(good > 5, "{good} good proofs");
    }
}
