//! A witness: remembers of every log the checkpoint that it saw last, and cosigns only what follows from it.
//!
//! # Protocol
//! C2SP tlog-witness, `add-checkpoint`; [`AddCheckpointError::status`] gives its status codes. `sign-subtree` is
//! optional there and not done: Ed25519 cosignatures cannot carry it.
//!
//! # Format
//! Table `witness.checkpoints`: origin → the note as the log signed it, with this witness's own cosignature
//! line. One durable transaction compares the old size, writes the new note and ends *before* the
//! cosignature is handed out: after a crash the witness remembers at least what it ever cosigned.
//!
//! # Trust
//! The signature on the checkpoint is the only authentication of a request. Whatever a log signed that does
//! not follow from what it signed before comes back in [`AddCheckpointError::Inconsistent`], with both notes:
//! that is the proof against it.
//!
//! # Not guaranteed
//! A witness whose database is put back to an old backup would cosign a second history. Keep it on storage
//! of its own, and give a restored witness a new key.

use crate::checkpoint::{CheckpointError, Head, MAX_COSIGNED_BYTES};
use crate::cosignature::Cosigner;
use haar_identity::base64;
use haar_identity::{MAX_ORIGIN_BYTES, VerifierKey};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::fmt::Write;
use std::sync::Arc;
use tlog_tiles::Hash;

/// The most hashes in a consistency proof (C2SP tlog-witness).
pub const MAX_PROOF_LINES: usize = 63;
/// The longest `add-checkpoint` request: the checkpoint, the proof and the old size.
pub const MAX_REQUEST_BYTES: usize = MAX_COSIGNED_BYTES + (MAX_PROOF_LINES + 1) * 64;

const CHECKPOINTS: TableDefinition<&str, &str> = TableDefinition::new("witness.checkpoints");

/// The body of an `add-checkpoint` request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddCheckpoint {
    /// The size of the checkpoint that the witness is thought to remember.
    pub old_size: u64,
    /// RFC 6962 consistency proof from there.
    pub proof: Vec<[u8; 32]>,
    /// The new checkpoint's note.
    pub checkpoint: String,
}

/// The text is not the body of an `add-checkpoint` request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request is malformed: it is `old <size>`, up to {MAX_PROOF_LINES} hashes in base64, an empty line \
     and a checkpoint"
)]
pub struct MalformedRequest;

impl AddCheckpoint {
    /// The request's body.
    pub fn to_text(&self) -> String {
        let mut text = format!("old {}\n", self.old_size);
        for hash in &self.proof {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", base64::encode(hash));
        }
        text.push('\n');
        text += &self.checkpoint;
        text
    }

    /// Reads a request's body.
    ///
    /// # Errors
    /// Unless it has the one form.
    pub fn parse(bytes: &[u8]) -> Result<Self, MalformedRequest> {
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(MalformedRequest);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| MalformedRequest)?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(MalformedRequest)?;
        let mut lines = head.split('\n');
        let size =
            lines.next().and_then(|line| line.strip_prefix("old ")).ok_or(MalformedRequest)?;
        let old_size: u64 = size.parse().map_err(|_| MalformedRequest)?;
        if old_size.to_string() != size {
            return Err(MalformedRequest);
        }
        let proof = lines
            .map(|line| base64::decode(line)?.try_into().ok())
            .collect::<Option<Vec<[u8; 32]>>>()
            .filter(|proof| proof.len() <= MAX_PROOF_LINES)
            .ok_or(MalformedRequest)?;
        Ok(Self { old_size, proof, checkpoint: checkpoint.to_owned() })
    }
}

/// Why a witness does not cosign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddCheckpointError {
    /// Not a request.
    #[error(transparent)]
    Malformed(#[from] MalformedRequest),
    /// The old size is over the checkpoint's.
    #[error("the old size is larger than the checkpoint's")]
    OldSize,
    /// Not a log that is watched.
    #[error("this witness does not watch the log {0}")]
    UnknownLog(String),
    /// Not signed by the log's key.
    #[error(transparent)]
    Signature(CheckpointError),
    /// The witness remembers another size.
    #[error("the witness remembers size {remembered}")]
    Conflict {
        /// Which.
        remembered: u64,
        /// What the request shows all the same: a second root of that size.
        fork: Option<Box<Inconsistent>>,
    },
    /// The log signed what does not follow from what it signed before, or the request's proof is wrong.
    #[error("the checkpoint does not follow from the one that is remembered")]
    Inconsistent(Box<Inconsistent>),
    /// A proof where none belongs: nothing needs to be proven from size zero, or from a checkpoint to itself.
    #[error("the consistency proof must be empty from size zero and from a size to itself")]
    Proof,
    /// A cosignature must say when, and there is no such time.
    #[error("the witness's clock gives no time that a cosignature can bear")]
    Clock,
    /// It is not known whether the checkpoint was written; nothing was cosigned.
    #[error("the witness's database: {0}")]
    Database(#[from] redb::Error),
}

/// Two notes of one log of which the second does not follow from the first by the proof that was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inconsistent {
    /// What the witness remembers; `None` where the new one is impossible by itself.
    pub remembered: Option<String>,
    /// What it was asked to cosign.
    pub offered: String,
    /// Whether the notes prove by themselves that the log signed what it must not: one size, two roots.
    /// Where they do not, it may as well be the proof that is wrong, and that anybody can attach.
    pub fork: bool,
}

impl AddCheckpointError {
    /// The status code of the HTTP answer (C2SP tlog-witness).
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::OldSize => 400,
            Self::UnknownLog(_) => 404,
            Self::Signature(CheckpointError::Malformed) => 400,
            Self::Signature(_) => 403,
            Self::Conflict { .. } => 409,
            Self::Inconsistent(_) | Self::Proof => 422,
            Self::Database(_) | Self::Clock => 500,
        }
    }

    /// What the log can be reproached with: two notes of which the second does not follow by the proof that
    /// was given. Nothing of a request that is wrong whatever the log did: an honest checkpoint with a proof
    /// where none belongs is no attempt of the log's.
    pub fn evidence(&self) -> Option<&Inconsistent> {
        match self {
            Self::Inconsistent(seen) => Some(seen),
            Self::Conflict { fork, .. } => fork.as_deref(),
            _ => None,
        }
    }
}

/// A witness.
pub struct Witness {
    db: Arc<Database>,
    cosigner: Cosigner,
    logs: Vec<VerifierKey>,
}

impl Witness {
    /// A witness of `logs` that keeps what it remembers in `db`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn open(
        db: Arc<Database>,
        cosigner: Cosigner,
        logs: Vec<VerifierKey>,
    ) -> Result<Self, redb::Error> {
        let tx = db.begin_write()?;
        tx.open_table(CHECKPOINTS)?;
        tx.commit()?;
        Ok(Self { db, cosigner, logs })
    }

    /// Who cosigns.
    pub fn cosigner(&self) -> &Cosigner {
        &self.cosigner
    }

    /// The origins of the logs that are watched.
    pub fn origins(&self) -> Vec<String> {
        self.logs.iter().map(|log| log.origin().to_owned()).collect()
    }

    /// Answers an `add-checkpoint` request at `now_s` (POSIX seconds) with the cosignature line. It is on disk
    /// by then that this checkpoint was cosigned.
    ///
    /// # Errors
    /// See [`AddCheckpointError`]; nothing was cosigned then.
    pub fn add_checkpoint(&self, request: &[u8], now_s: u64) -> Result<String, AddCheckpointError> {
        let request = AddCheckpoint::parse(request)?;
        let (head, log) = self.signed(&request)?;
        if now_s == 0 || i64::try_from(now_s).is_err() {
            return Err(AddCheckpointError::Clock);
        }
        if request.old_size > head.size {
            return Err(AddCheckpointError::OldSize);
        }
        // One writer at a time: between the comparison and the commit nobody else writes.
        let tx = self.db.begin_write().map_err(redb::Error::from)?;
        let line = {
            let mut table = tx.open_table(CHECKPOINTS).map_err(redb::Error::from)?;
            let remembered = table
                .get(head.origin.as_str())
                .map_err(redb::Error::from)?
                .map(|note| note.value().to_owned());
            follows(&request, &head, remembered.as_deref())?;
            let line = self.cosigner.cosign(head.text(), now_s);
            // Of the lines that came along only the log's is kept: anybody can append more, until the note
            // could not be read again.
            let note = format!("{}{line}", head.signed_by_log(&log));
            table.insert(head.origin.as_str(), note.as_str()).map_err(redb::Error::from)?;
            line
        };
        tx.commit().map_err(redb::Error::from)?;
        Ok(line)
    }

    /// The note that is remembered of a log, with this witness's cosignature; `None` if it never cosigned one.
    ///
    /// # Errors
    /// If the database fails.
    pub fn latest(&self, origin: &str) -> Result<Option<String>, redb::Error> {
        let table = self.db.begin_read()?.open_table(CHECKPOINTS)?;
        Ok(table.get(origin)?.map(|note| note.value().to_owned()))
    }

    fn signed(&self, request: &AddCheckpoint) -> Result<(Head, VerifierKey), AddCheckpointError> {
        let origin = request.checkpoint.lines().next().unwrap_or_default();
        if !self.logs.iter().any(|log| log.origin() == origin) {
            let origin = origin.chars().take(MAX_ORIGIN_BYTES).collect();
            return Err(AddCheckpointError::UnknownLog(origin));
        }
        Head::open_cosigned(request.checkpoint.as_bytes(), &self.logs)
            .map_err(AddCheckpointError::Signature)
    }
}

/// Whether `head` follows from what is remembered, by the request's proof.
fn follows(
    request: &AddCheckpoint,
    head: &Head,
    remembered: Option<&str>,
) -> Result<(), AddCheckpointError> {
    let old = match remembered {
        None => None,
        Some(note) => Some(Head::open_stored(note).map_err(AddCheckpointError::Signature)?),
    };
    let old_size = old.as_ref().map_or(0, |old| old.size);
    let seen = |fork: bool| {
        let remembered = old.as_ref().map(|old| old.note.clone());
        Box::new(Inconsistent { remembered, offered: head.note.clone(), fork })
    };
    let inconsistent = |fork| Err(AddCheckpointError::Inconsistent(seen(fork)));
    let fork = old.as_ref().is_some_and(|old| old.size == head.size && old.root != head.root);
    if request.old_size != old_size {
        let fork = fork.then(|| seen(true));
        return Err(AddCheckpointError::Conflict { remembered: old_size, fork });
    }
    if fork || (head.size == 0 && head.root != tlog_tiles::EMPTY_HASH.0) {
        return inconsistent(fork);
    }
    let Some(old) = old.as_ref().filter(|old| old.size != 0 && old.size != head.size) else {
        // From nothing, and to itself, the proof is empty.
        return if request.proof.is_empty() { Ok(()) } else { Err(AddCheckpointError::Proof) };
    };
    let proof = request.proof.iter().copied().map(Hash).collect();
    match tlog_tiles::check_tree(&proof, head.size, Hash(head.root), old.size, Hash(old.root)) {
        Ok(()) => Ok(()),
        Err(_) => inconsistent(false),
    }
}

#[cfg(test)]
mod tests;
