//! The transparency log of a site.
//!
//! A leaf is a small commitment (module `leaf`); what it commits to lies beside it ([`Record`]). Leaves
//! form an RFC 6962 tree that is kept as C2SP tiles in tables of the fog's redb database, under one
//! signed checkpoint. [`SiteLog`] opens and appends, [`Snapshot`] reads, [`verify()`] checks a proof
//! file with no network and no state, [`fsck()`] re-hashes everything.
//!
//! The ledger knows bodies as opaque bytes of bounded size and never looks inside. It reads no clock
//! and makes no randomness: keys and seeds are the caller's. What is proven and what is not stands in
//! this crate's README, byte formats at the head of each module.
#![forbid(unsafe_code)]

mod checkpoint;
pub mod client;
pub mod consent;
pub mod consortium;
mod cosignature;
pub mod custody;
mod entry;
mod entry_proof;
pub mod evidence;
mod file;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod foreign;
mod fsck;
pub mod governance;
mod leaf;
mod plain_proof;
mod policy;
pub mod privacy;
mod proof;
mod resource;
pub mod server;
mod site_log;
mod snapshot;
pub mod store;
mod tables;
mod tree;
#[cfg(test)]
mod vectors;
mod verify;
mod witness;

pub use checkpoint::{CheckpointError, MAX_CHECKPOINT_BYTES, MAX_COSIGNED_BYTES, SignedCheckpoint};
pub use cosignature::{CosignatureError, Cosigner, CosignerKey, CosignerKeyError};
pub use entry::{Entry, EntryError, EntryId, EntryKind, MAX_ENTRY_BYTES, MAX_SIGNATURES};
pub use entry_proof::{EntryProofError, VerifiedEntry, prove_entry, verify_entry};
pub use file::{FileError, open_read_only};
pub use fsck::{FsckError, MAX_PROBLEMS, Problem, Report, fsck};
pub use haar_identity::{
    Identity, IdentityError, MAX_KEY_BYTES, MAX_ORIGIN_BYTES, SignError, SignedText, VerifierKey,
    VerifierKeyError, read_key_file, write_key_file,
};
pub use leaf::{
    LEAF_BYTES, LEAF_VERSION, LeafKey, LeafKind, MAX_BODY_BYTES, Name, UnknownKind, leaf,
};
pub use plain_proof::{MAX_PLAIN_PROOF_BYTES, MalformedProof, PlainProof};
pub use policy::{
    Cosigned, MAX_DEFINITIONS, MAX_POLICY_BYTES, Policy, PolicyError, PolicyLog, PolicySyntaxError,
    PolicyWitness, Rule, usual_threshold,
};
pub use privacy::erasure::{EraseError, Erased, MAX_ERASED, Sealing, erasure_name};
pub use privacy::facts::{FactError, FactOpener, FactSealer, MAX_FACT_BYTES, Place};
pub use privacy::records_key::{RecordsKey, RecordsKeyError};
pub use privacy::seal::{Held, Keyholder, MAX_KEYS, Random, SealError};
pub use proof::{MAX_PROOF_BYTES, ProofError, ProofFile, ProofKind};
pub use site_log::{AppendError, Appended, MAX_APPEND_RECORDS, OpenError, SiteLog};
pub use snapshot::{MAX_FOUND, ReadError, Snapshot};
pub use tables::{Damage, Record};
pub use tree::MAX_LEAVES;
pub use verify::{Trust, Verified, VerifiedLeaf, VerifyError, verify, verify_leaf};
pub use witness::{
    AddCheckpoint, AddCheckpointError, Inconsistent, MAX_PROOF_LINES, MAX_REQUEST_BYTES,
    MalformedRequest, Witness,
};
