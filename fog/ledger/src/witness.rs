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

use crate::base64;
use crate::checkpoint::{CheckpointError, Head, MAX_COSIGNED_BYTES};
use crate::cosignature::Cosigner;
use crate::identity::VerifierKey;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::fmt::Write;
use std::sync::{Arc, PoisonError, RwLock};
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
    },
    /// The log signed what does not follow from what it signed before, or the request's proof is wrong.
    #[error("the checkpoint does not follow from the one that is remembered")]
    Inconsistent(Box<Inconsistent>),
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
    /// Whether the two notes prove by themselves that the log signed two histories: one size, two roots.
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
            Self::Inconsistent(_) => 422,
            Self::Database(_) => 500,
        }
    }
}

/// A witness.
pub struct Witness {
    db: Arc<Database>,
    cosigner: Cosigner,
    logs: RwLock<Vec<VerifierKey>>,
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
        Ok(Self { db, cosigner, logs: RwLock::new(logs) })
    }

    /// Who cosigns.
    pub fn cosigner(&self) -> &Cosigner {
        &self.cosigner
    }

    /// The origins of the logs that are watched.
    pub fn origins(&self) -> Vec<String> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.iter().map(|log| log.origin().to_owned()).collect()
    }

    /// Watches one more log, or one more key of a log.
    pub fn watch(&self, log: VerifierKey) {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        if !logs.contains(&log) {
            logs.push(log);
        }
    }

    /// Answers an `add-checkpoint` request at `now_s` (POSIX seconds) with the cosignature line. It is on disk
    /// by then that this checkpoint was cosigned.
    ///
    /// # Errors
    /// See [`AddCheckpointError`]; nothing was cosigned then.
    pub fn add_checkpoint(&self, request: &[u8], now_s: u64) -> Result<String, AddCheckpointError> {
        let request = AddCheckpoint::parse(request)?;
        let head = self.signed(&request)?;
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
            let note = format!("{}{line}", without_cosigner(&head, self.cosigner.vkey().name()));
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

    fn signed(&self, request: &AddCheckpoint) -> Result<Head, AddCheckpointError> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        let origin = request.checkpoint.lines().next().unwrap_or_default();
        if !logs.iter().any(|log| log.origin() == origin) {
            return Err(AddCheckpointError::UnknownLog(origin.to_owned()));
        }
        let opened = Head::open_cosigned(request.checkpoint.as_bytes(), &logs);
        opened.map(|(head, _)| head).map_err(AddCheckpointError::Signature)
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
    let wrong = |fork: bool| {
        let remembered = old.as_ref().map(|old| old.note.clone());
        Err(AddCheckpointError::Inconsistent(Box::new(Inconsistent {
            remembered,
            offered: head.note.clone(),
            fork,
        })))
    };
    if let Some(old) = &old {
        // Whatever the request says of the old size: two roots of one size are two histories.
        if old.size == head.size && old.root != head.root {
            return wrong(true);
        }
    }
    if request.old_size != old_size {
        return Err(AddCheckpointError::Conflict { remembered: old_size });
    }
    if head.size == 0 && head.root != tlog_tiles::EMPTY_HASH.0 {
        return wrong(false);
    }
    let old_root = old.as_ref().map_or(tlog_tiles::EMPTY_HASH.0, |old| old.root);
    if old_size == 0 || old_size == head.size {
        // From nothing, and to itself, the proof is empty.
        return if request.proof.is_empty() { Ok(()) } else { wrong(false) };
    }
    let proof = request.proof.iter().copied().map(Hash).collect();
    match tlog_tiles::check_tree(&proof, head.size, Hash(head.root), old_size, Hash(old_root)) {
        Ok(()) => Ok(()),
        Err(_) => wrong(false),
    }
}

/// The note without earlier lines of this cosigner, so that what is remembered does not grow.
fn without_cosigner(head: &Head, name: &str) -> String {
    let own = format!("— {name} ");
    let (text, signatures) = head.note.split_at(head.text().len() + 1);
    let others = signatures.split_inclusive('\n').filter(|line| !line.starts_with(&own));
    std::iter::once(text).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::SignedCheckpoint;
    use crate::fixtures::hashes_of;
    use crate::identity::Identity;

    fn log() -> Identity {
        Identity::generate("log.example", [1; 32]).unwrap()
    }

    fn witness() -> Witness {
        let backend = redb::backends::InMemoryBackend::new();
        let db = Arc::new(Database::builder().create_with_backend(backend).unwrap());
        let cosigner = Cosigner::generate("w.example", [6; 32]).unwrap();
        Witness::open(db, cosigner, vec![log().vkey().clone()]).unwrap()
    }

    /// A request from size `old` to `new` of the log whose leaf `i` is `salt` and `i`.
    fn request(old: u64, new: u64, salt: &str) -> AddCheckpoint {
        let hashes = hashes_of(new, salt);
        let root = tlog_tiles::tree_hash(new, &hashes).unwrap();
        let proof = if old == 0 || old == new {
            Vec::new()
        } else {
            let proof = tlog_tiles::prove_tree(new, old, &hashes).unwrap();
            proof.into_iter().map(|hash| hash.0).collect()
        };
        let checkpoint = SignedCheckpoint::sign(&log(), new, root.0).unwrap().note().to_owned();
        AddCheckpoint { old_size: old, proof, checkpoint }
    }

    fn ask(witness: &Witness, request: &AddCheckpoint) -> Result<String, u16> {
        witness.add_checkpoint(request.to_text().as_bytes(), 1_000).map_err(|error| error.status())
    }

    #[test]
    fn what_follows_is_cosigned_and_remembered() {
        let witness = witness();
        let mut old = 0;
        for new in [1, 2, 3, 3, 8, 13, 300] {
            let request = request(old, new, "");
            let line = ask(&witness, &request).unwrap();
            let note = format!("{}{line}", request.checkpoint);
            assert_eq!(witness.cosigner().vkey().verify(&note), Ok(Some(1_000)));
            assert_eq!(witness.latest("log.example").unwrap().unwrap(), note);
            old = new;
        }
    }

    #[test]
    fn what_does_not_follow_is_refused() {
        let witness = witness();
        ask(&witness, &request(0, 5, "")).unwrap();
        assert_eq!(ask(&witness, &request(0, 9, "")), Err(409));
        assert_eq!(ask(&witness, &request(4, 9, "")), Err(409));
        assert_eq!(ask(&witness, &request(3, 4, "")), Err(409), "a rollback");
        assert_eq!(ask(&witness, &request(5, 9, "fork")), Err(422));
        assert_eq!(ask(&witness, &request(5, 5, "fork")), Err(422));
        assert_eq!(ask(&witness, &AddCheckpoint { old_size: 10, ..request(5, 9, "") }), Err(400));
        let proof = vec![[0; 32]];
        assert_eq!(ask(&witness, &AddCheckpoint { proof, ..request(5, 5, "") }), Err(422));
        let other = request(5, 9, "").checkpoint.replace("log.example\n9", "other.example\n9");
        assert_eq!(
            ask(&witness, &AddCheckpoint { checkpoint: other, ..request(5, 9, "") }),
            Err(404)
        );
        let altered = request(5, 9, "").checkpoint.replace("\n9\n", "\n10\n");
        assert_eq!(
            ask(&witness, &AddCheckpoint { checkpoint: altered, ..request(5, 9, "") }),
            Err(403)
        );
        assert_eq!(
            ask(&witness, &request(5, 9, "")).map(|_| ()),
            Ok(()),
            "and is not spoilt by it"
        );
    }

    #[test]
    fn two_roots_of_one_size_are_given_back_as_proof() {
        let witness = witness();
        ask(&witness, &request(0, 5, "")).unwrap();
        let offered = request(5, 5, "fork");
        let error = witness.add_checkpoint(offered.to_text().as_bytes(), 1_000).unwrap_err();
        let AddCheckpointError::Inconsistent(proof) = error else { panic!("{error}") };
        assert!(proof.fork && proof.offered == offered.checkpoint);
        assert!(proof.remembered.unwrap().starts_with("log.example\n5\n"));
    }
}
