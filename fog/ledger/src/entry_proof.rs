//! Proof files of the consortium log: that a quorum of its members has seen an entry.
//!
//! # Format
//! C2SP tlog-proof as in [`crate::proof`], with the cosigned checkpoint of the consortium log, and in the
//! `extra` line one JSON object with exactly these fields in this order and no white space:
//!
//! | field | |
//! |---|---|
//! | `v` | 1 |
//! | `entry` | the entry's note |
//! | `signer` | verifier key of the one who signed the entry, a hint |
//! | `record` | for a commitment, if it is opened: an object of `kind`, `name` (64 hexadecimal digits), `key` and `body` (base64); otherwise missing |
//!
//! # What it proves
//! *A quorum of the policy's witnesses has cosigned a tree of the log that has exactly this entry at this
//! index; the signer has made it for that log; and it commits to exactly these bytes.* With the entry in
//! it, nothing has to be asked for, and the file is less than 4 KiB beside the record's body
//! (a test holds it to that at 10⁹ entries and four witnesses).
//!
//! # Signatures that are not known
//! A checkpoint collects cosignatures of witnesses that this reader's policy does not name. As C2SP wants,
//! they are ignored; nothing is concluded from them. So, unlike a site log's proof, this one has more than
//! one valid text: every line that the policy does not know could be altered. All else is bound.
//!
//! # Not proven
//! That the signer was entitled to say it: that the log's state says (`haar ledger show`), or the reader by pinning
//! the key. That the clocks of the witnesses were right.

use crate::entry::{Entry, EntryError, EntryKind};
use crate::governance::CommitmentBody;
use crate::leaf::MAX_BODY_BYTES;
use crate::policy::{Cosigned, Policy, PolicyError};
use crate::proof::{ProofError, ProofFile};
use crate::tables::Record;
use crate::verify::{Trust, VerifyError, check_path};
use haar_identity::VerifierKey;
use haar_identity::base64;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;

/// What a proof of an entry proves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedEntry {
    /// Its index in the log.
    pub index: u64,
    /// The entry.
    pub entry: Entry,
    /// Who signed it.
    pub signer: VerifierKey,
    /// Whether the caller had named that key.
    pub signer_pinned: bool,
    /// The checkpoint, and the witnesses of the policy that cosigned it, with their times.
    pub checkpoint: Cosigned,
    /// What the entry commits to, if the file opens it.
    pub record: Option<Record>,
}

/// Why a proof of an entry does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryProofError {
    /// The file is no proof, or the entry is not in the tree.
    #[error(transparent)]
    Proof(#[from] VerifyError),
    /// The entry is none, or is not signed by the one named.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The checkpoint does not satisfy the policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Signed by somebody else than those pinned.
    #[error("the entry is signed by {0}, which is not among the keys given")]
    OtherSigner(String),
    /// Made for another log than the one it stands in.
    #[error("the entry was made for the log {0}, another one than it stands in")]
    OtherLog(String),
    /// The opening is of something else.
    #[error("the record in the file is not what the entry commits to")]
    NotCommitted,
}

impl From<ProofError> for EntryProofError {
    fn from(error: ProofError) -> Self {
        Self::Proof(error.into())
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extra {
    v: u8,
    entry: String,
    signer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<OpenedRecord>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenedRecord {
    kind: String,
    name: String,
    key: String,
    body: String,
}

impl OpenedRecord {
    fn new(record: &Record) -> Self {
        Self {
            kind: record.kind.as_str().to_owned(),
            name: hex::encode(record.name),
            key: base64::encode(&record.key),
            body: base64::encode(&record.body),
        }
    }

    fn read(&self) -> Option<Record> {
        let mut name = [0; 32];
        hex::decode_to_slice(&self.name, &mut name).ok()?;
        let body = base64::decode(&self.body).filter(|body| body.len() <= MAX_BODY_BYTES)?;
        let (kind, key) = (self.kind.parse().ok()?, base64::decode_array(&self.key)?);
        Some(Record { kind, name, key, body })
    }
}

/// A proof file of an entry, from its parts: where it is, the path there, the cosigned checkpoint (all as
/// in the [`crate::PlainProof`] that a server gives), who signed it, and what opens it.
///
/// It is not checked here: [`verify_entry`] does.
pub fn prove_entry(
    plain: &crate::PlainProof,
    entry: &Entry,
    signer: &VerifierKey,
    record: Option<&Record>,
) -> ProofFile {
    let extra = Extra {
        v: VERSION,
        // A note is UTF-8; that was checked when it was parsed.
        entry: String::from_utf8_lossy(entry.as_bytes()).into_owned(),
        signer: signer.to_string(),
        record: record.map(OpenedRecord::new),
    };
    ProofFile {
        // Strings and a number: serialising them has no failure.
        extra: serde_json::to_vec(&extra).unwrap_or_default(),
        index: plain.index,
        path: plain.path.clone(),
        checkpoint: plain.checkpoint.clone(),
    }
}

/// Checks a proof file of an entry, without network and without state. Of `signers` those count who may have
/// signed the entry; the policy says which log, and whose cosignatures.
///
/// # Errors
/// Unless the policy's quorum has cosigned a tree that has this entry, signed by one of these.
pub fn verify_entry(
    text: &str,
    policy: &Policy,
    signers: Trust<'_>,
) -> Result<VerifiedEntry, EntryProofError> {
    let proof = ProofFile::parse(text)?;
    let extra: Extra = serde_json::from_slice(&proof.extra).map_err(|_| ProofError::Opening)?;
    if extra.v != VERSION || serde_json::to_vec(&extra).ok().as_ref() != Some(&proof.extra) {
        return Err(ProofError::Opening.into());
    }
    let signer: VerifierKey = extra.signer.parse().map_err(|_| ProofError::Opening)?;
    let signer_pinned = match signers {
        Trust::Pinned(keys) if keys.contains(&signer) => true,
        Trust::Pinned(_) => return Err(EntryProofError::OtherSigner(signer.to_string())),
        Trust::Unpinned | Trust::Policy(_) => false,
    };
    let entry = Entry::parse(extra.entry.as_bytes())?;
    entry.verify(&signer)?;
    let checkpoint = policy.check(proof.checkpoint.as_bytes())?;
    if entry.origin() != checkpoint.origin {
        return Err(EntryProofError::OtherLog(entry.origin().to_owned()));
    }
    check_path(&proof, entry.as_bytes(), checkpoint.size, checkpoint.root)?;
    let record = extra.record.map(|record| opened(&record, &entry, &signer)).transpose()?;
    Ok(VerifiedEntry { index: proof.index, entry, signer, signer_pinned, checkpoint, record })
}

/// The record, if it is what `entry` commits to for the log of `signer`.
fn opened(
    record: &OpenedRecord,
    entry: &Entry,
    signer: &VerifierKey,
) -> Result<Record, EntryProofError> {
    if entry.kind() != EntryKind::Commitment {
        return Err(EntryProofError::NotCommitted);
    }
    let body: CommitmentBody = entry.body()?;
    let read = record.read().ok_or(ProofError::Opening)?;
    // One text for one record.
    if serde_json::to_vec(&OpenedRecord::new(&read)).ok() != serde_json::to_vec(record).ok() {
        return Err(ProofError::Opening.into());
    }
    if body.leaf.0 == read.leaf() && body.site == signer.origin() {
        Ok(read)
    } else {
        Err(EntryProofError::NotCommitted)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::checkpoint::SignedCheckpoint;
    use crate::fixtures::{identity, record};
    use crate::governance::Hex;
    use crate::policy::{PolicyLog, PolicyWitness, Rule};
    use crate::{Cosigner, Identity, PlainProof};

    const ORIGIN: &str = "consortium.example/log";
    /// As deep as a log of 10⁹ entries.
    const DEPTH: usize = 30;

    fn log() -> Identity {
        Identity::generate(ORIGIN, [1; 32]).unwrap()
    }

    fn cosigner(n: u8) -> Cosigner {
        Cosigner::generate(&format!("member-{n}.example/witness"), [n + 10; 32]).unwrap()
    }

    /// Three of four witnesses.
    pub(crate) fn policy() -> Policy {
        let witness = |n: u8| PolicyWitness {
            name: format!("member-{n}"),
            key: cosigner(n).vkey().clone(),
            url: None,
        };
        let logs = vec![PolicyLog { key: log().vkey().clone(), url: None }];
        let names = (0..4).map(|n| Rule::Witness(format!("member-{n}"))).collect();
        Policy::new(logs, (0..4).map(witness).collect(), Some(&Rule::AtLeast(3, names))).unwrap()
    }

    pub(crate) fn entry_of(kind: EntryKind, body: &impl Serialize, signer: &Identity) -> Entry {
        Entry::sign(kind, ORIGIN, body, &[signer]).unwrap()
    }

    fn commitment(record: &Record) -> Entry {
        let site = identity().origin().to_owned();
        let body = CommitmentBody { site, index: 900_000_000, leaf: Hex(record.leaf()) };
        entry_of(EntryKind::Commitment, &body, &identity())
    }

    /// A proof at the right edge of a tree of 2³⁰ entries whose others are whatever hashes to `path`.
    pub(crate) fn plain(entry: &Entry, cosigners: std::ops::Range<u8>) -> PlainProof {
        let index = (1 << DEPTH) - 1;
        let path: Vec<[u8; 32]> = (0..DEPTH as u8).map(|n| [n; 32]).collect();
        let mut hash = tlog_tiles::record_hash(entry.as_bytes());
        for left in &path {
            hash = tlog_tiles::node_hash(tlog_tiles::Hash(*left), hash);
        }
        let signed = SignedCheckpoint::sign(&log(), index + 1, hash.0).unwrap();
        let note = signed.note();
        let text = &note[..note.find("\n\n").unwrap() + 1];
        let checkpoint = cosigners
            .fold(note.to_owned(), |note, n| note + &cosigner(n).cosign(text, 1_790_000_000));
        PlainProof { index, path, checkpoint }
    }

    fn flagged() -> Record {
        Record { body: Vec::new(), ..record(1) }
    }

    #[test]
    fn a_flagged_event_is_shown_to_whoever_has_the_policy_only() {
        let record = flagged();
        let entry = commitment(&record);
        let signer = identity().vkey().clone();
        let proof = prove_entry(&plain(&entry, 0..4), &entry, &signer, Some(&record)).to_text();
        assert!(proof.len() <= 4 * 1024, "{} bytes at 10^9 entries", proof.len());
        println!("{} bytes", proof.len());
        let keys = [signer.clone()];
        let shown = verify_entry(&proof, &policy(), Trust::Pinned(&keys)).unwrap();
        assert_eq!((shown.record.as_ref(), shown.signer_pinned), (Some(&record), true));
        assert_eq!((&shown.entry, &shown.signer), (&entry, &signer));
        let times: Vec<_> = shown.checkpoint.witnesses.iter().map(|(_, time)| *time).collect();
        assert_eq!(times, [1_790_000_000; 4]);
        assert!(!verify_entry(&proof, &policy(), Trust::Unpinned).unwrap().signer_pinned);
        let other = [log().vkey().clone()];
        let error = verify_entry(&proof, &policy(), Trust::Pinned(&other)).unwrap_err();
        assert!(matches!(error, EntryProofError::OtherSigner(_)), "{error}");
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let record = record(4);
        let entry = commitment(&record);
        let signer = identity().vkey().clone();
        // Exactly a quorum: no line is superfluous.
        let proof = prove_entry(&plain(&entry, 0..3), &entry, &signer, Some(&record)).to_text();
        let policy = policy();
        verify_entry(&proof, &policy, Trust::Unpinned).unwrap();
        for byte in 0..proof.len() {
            // One bit of each byte: signatures are slow in a debug build.
            let mut flipped = proof.clone().into_bytes();
            flipped[byte] ^= 1 << (byte % 7);
            let Ok(flipped) = String::from_utf8(flipped) else { continue };
            assert!(verify_entry(&flipped, &policy, Trust::Unpinned).is_err(), "byte {byte}");
        }
        for more in ["\n", "x"] {
            let longer = format!("{proof}{more}");
            assert!(verify_entry(&longer, &policy, Trust::Unpinned).is_err());
        }
    }

    #[test]
    fn too_few_witnesses_are_not_enough_and_unknown_ones_do_not_count() {
        let record = flagged();
        let entry = commitment(&record);
        let signer = identity().vkey().clone();
        let of = |cosigners| {
            let plain = plain(&entry, cosigners);
            let proof = prove_entry(&plain, &entry, &signer, None).to_text();
            verify_entry(&proof, &policy(), Trust::Unpinned)
        };
        for cosigners in [0..0, 0..2, 2..6] {
            let error = of(cosigners).unwrap_err();
            assert!(matches!(error, EntryProofError::Policy(PolicyError::Quorum { .. })));
        }
        let shown = of(1..9).unwrap();
        assert_eq!(shown.checkpoint.witnesses.len(), 3);
        assert_eq!(shown.record, None);
    }

    #[test]
    fn another_s_record_log_or_place_does_not_pass() {
        let record = flagged();
        let entry = commitment(&record);
        let signer = identity().vkey().clone();
        let check = |plain: &PlainProof, entry: &Entry, record: Option<&Record>| {
            let proof = prove_entry(plain, entry, &signer, record).to_text();
            verify_entry(&proof, &policy(), Trust::Unpinned).unwrap_err()
        };
        let good = plain(&entry, 0..3);
        let other = Record { key: [9; 32], ..record.clone() };
        assert_eq!(check(&good, &entry, Some(&other)), EntryProofError::NotCommitted);
        let elsewhere = PlainProof { index: 5, ..good.clone() };
        let error = check(&elsewhere, &entry, None);
        assert_eq!(error, EntryProofError::Proof(VerifyError::NotIncluded));
        let foreign = Entry::sign(
            EntryKind::Commitment,
            "other.example/log",
            &entry.body::<CommitmentBody>().unwrap(),
            &[&identity()],
        );
        let foreign = foreign.unwrap();
        let error = check(&plain(&foreign, 0..3), &foreign, None);
        assert!(matches!(error, EntryProofError::OtherLog(_)), "{error}");
        // A site speaks for its own log only.
        let liar = Identity::generate("fog-2.example/site-log", [3; 32]).unwrap();
        let body = entry.body::<CommitmentBody>().unwrap();
        let lie = entry_of(EntryKind::Commitment, &body, &liar);
        let proof = prove_entry(&plain(&lie, 0..3), &lie, liar.vkey(), Some(&record)).to_text();
        let error = verify_entry(&proof, &policy(), Trust::Unpinned).unwrap_err();
        assert_eq!(error, EntryProofError::NotCommitted);
    }
}
