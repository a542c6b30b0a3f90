//! The site log: opening and appending.
//!
//! The caller owns the database and the transaction, so that leaves stand or fall together with
//! whatever else one epoch commits. An append writes records, names, bundles, tiles and the newly
//! signed checkpoint into that transaction and nothing anywhere else: an aborted one leaves no trace.
//!
//! # What is checked before signing
//! A log must never sign a checkpoint that contradicts one it signed before. So an append first hashes
//! the stored edge of the tree and compares it with the last checkpoint, whose signature it checks. A
//! damaged tile is found before it is signed over.
//!
//! # Not guaranteed
//! A database that was put back from an old backup looks in order from inside, and the log would sign
//! a second history from there. The consortium log sees that; a site log alone cannot.

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::leaf::{LEAF_BYTES, MAX_BODY_BYTES, Name};
use crate::privacy::erasure::Vault;
use crate::privacy::records_key::RecordsKey;
use crate::privacy::seal::{Keyholder, Random, SealError, Sealer};
use crate::proof::ProofFile;
use crate::snapshot::{ReadError, Snapshot};
use crate::tables::{
    self, BUNDLE_ROW_BYTES, BUNDLES, CHECKPOINT, Damage, META, NAMES, RECORDS, Record, TILES, VKEY,
};
use crate::tree::{Edge, MAX_LEAVES, TILE_WIDTH};
use haar_identity::Identity;
use redb::{Database, ReadableTable, ReadableTableMetadata, WriteTransaction};
use std::sync::Arc;

/// The most records in one append; all of them are in memory.
pub const MAX_APPEND_RECORDS: usize = 1 << 20;

/// The log of one fog. May be shared between threads; redb lets one write at a time.
pub struct SiteLog {
    pub(crate) db: Arc<Database>,
    identity: Identity,
    /// The key of its records; without one they are stored in clear.
    pub(crate) vault: Option<Vault>,
}

/// What an append did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Index of the first new leaf; the others follow in the order given.
    pub first_index: u64,
    /// The checkpoint over all leaves. It holds once the caller's transaction is committed.
    pub checkpoint: SignedCheckpoint,
}

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The database failed.
    #[error("the site log's database: {0}")]
    Database(#[from] redb::Error),
    /// The log was made with another key.
    #[error(
        "this site log belongs to {stored} but the key file is of {given}; \
         configure the key that the log was made with, or an empty data directory for a new log"
    )]
    OtherKey {
        /// Verifier key of the log.
        stored: String,
        /// Verifier key of the identity.
        given: String,
    },
    /// What is stored is not what was signed.
    #[error(
        "the site log is damaged: {0}. Nothing was changed. Run `haar fsck --log` on it for the \
         whole list, and restore the data directory from a backup or the disk's mirror"
    )]
    Damaged(#[from] Damage),
    /// Its records are sealed and no key was given.
    #[error("the records of this log are sealed; open it with its records key")]
    Sealed,
    /// The records key.
    #[error(transparent)]
    Sealing(#[from] SealError),
}

/// Why nothing was appended. After any of these the transaction must not be committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The database failed.
    #[error("the site log's database: {0}")]
    Database(#[from] redb::Error),
    /// A body over the limit.
    #[error(
        "record {position} of the append has {bytes} bytes; a leaf commits to at most \
         {MAX_BODY_BYTES}"
    )]
    BodyTooLong {
        /// Which of the given records.
        position: usize,
        /// Its body's length.
        bytes: usize,
    },
    /// More than [`MAX_APPEND_RECORDS`].
    #[error("an append has at most {MAX_APPEND_RECORDS} records, this one {0}; split it")]
    TooMany(usize),
    /// The log would pass [`MAX_LEAVES`].
    #[error("the log is full at {MAX_LEAVES} leaves; start a new one under a new origin")]
    Full,
    /// What is stored is not what was signed; nothing will be signed on top of it.
    #[error("the site log is damaged: {0}. Stop the fog and run `haar fsck --log`")]
    Damaged(#[from] Damage),
    /// The new checkpoint could not be signed.
    #[error("signing: {0}")]
    Sign(#[source] CheckpointError),
    /// A record could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl SiteLog {
    /// Opens the log in `db`, or creates it there with an empty tree. Its records are stored in clear;
    /// see [`SiteLog::open_sealed`].
    ///
    /// # Errors
    /// If the log that is there was made with another key or origin, if its checkpoint is not signed
    /// by this key, if its tiles do not hash to the signed root, or if its records are sealed. Nothing
    /// is changed then.
    pub fn open(db: Arc<Database>, identity: Identity) -> Result<Self, OpenError> {
        let log = Self::open_unsealed(db, identity)?;
        match log.snapshot() {
            Ok(snapshot) if snapshot.is_sealed() => Err(OpenError::Sealed),
            Ok(_) => Ok(log),
            Err(error) => Err(read_failure(error)),
        }
    }

    /// Opens the log without a look at how its records are kept.
    pub(crate) fn open_unsealed(db: Arc<Database>, identity: Identity) -> Result<Self, OpenError> {
        let log = Self { db, identity, vault: None };
        match Snapshot::open(&*log.db) {
            Ok(snapshot) => log.check(&snapshot)?,
            Err(ReadError::NoLog) => log.create()?,
            Err(error) => return Err(read_failure(error)),
        }
        Ok(log)
    }

    /// Appends leaves for `records`, in this order, inside the caller's transaction on the same
    /// database. Without records nothing is written. Several appends may share a transaction. In a log
    /// that is sealed these records are about nobody; see [`SiteLog::append_held`].
    ///
    /// # Errors
    /// See [`AppendError`]. The transaction must then be aborted, not committed.
    pub fn append(
        &self,
        tx: &WriteTransaction,
        records: &[Record],
    ) -> Result<Appended, AppendError> {
        let records: Vec<_> = records.iter().map(|record| (None, record)).collect();
        let sealing = self.vault.as_ref().map(|vault| (vault.key(), vault.random()));
        self.append_under(tx, &records, sealing)
    }

    /// Appends records, sealed under the key of whom they are about if `sealing` says with what.
    pub(crate) fn append_under(
        &self,
        tx: &WriteTransaction,
        records: &[(Option<Keyholder>, &Record)],
        sealing: Option<(Arc<RecordsKey>, Random)>,
    ) -> Result<Appended, AppendError> {
        refuse_oversize(records)?;
        let mut meta = tx.open_table(META).map_err(redb::Error::from)?;
        let mut tiles = tx.open_table(TILES).map_err(redb::Error::from)?;
        let last = {
            let note = meta.get(CHECKPOINT).map_err(redb::Error::from)?;
            let note = note.ok_or(Damage::NoCheckpoint)?;
            let keys = std::slice::from_ref(self.identity.vkey());
            SignedCheckpoint::open(note.value(), keys).map_err(Damage::from)?
        };
        let first_index = last.size();
        if first_index + records.len() as u64 > MAX_LEAVES {
            return Err(AppendError::Full);
        }
        let mut edge = edge_under::<AppendError>(&last, &tiles)?;
        if records.is_empty() {
            return Ok(Appended { first_index, checkpoint: last });
        }
        let leaves: Vec<_> = records.iter().map(|(_, record)| record.leaf()).collect();
        write_records(tx, first_index, records, &leaves, sealing)?;
        write_bundles(tx, first_index, &leaves)?;
        let mut write = |level, index, hashes: &[u8]| -> Result<(), redb::Error> {
            tiles.insert((level, index), hashes)?;
            Ok(())
        };
        for leaf in &leaves {
            edge.push(tlog_tiles::record_hash(leaf), &mut write)?;
        }
        edge.flush(&mut write)?;
        let root = edge.root().map_err(|_| Damage::Root)?;
        let checkpoint =
            SignedCheckpoint::sign(&self.identity, edge.size(), root).map_err(AppendError::Sign)?;
        meta.insert(CHECKPOINT, checkpoint.note().as_bytes()).map_err(redb::Error::from)?;
        Ok(Appended { first_index, checkpoint })
    }

    /// Who signs this log.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is committed now, for several reads that must agree with each other. It does not see
    /// later commits and does not hinder them.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        match &self.vault {
            // An erasure replaces key and rows; a snapshot must have both of before or both of after.
            Some(vault) => vault.with_key(|key| Snapshot::open_with(&*self.db, key)),
            None => Snapshot::open(&*self.db),
        }
    }

    /// [`Snapshot::size`] of what is committed now.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn size(&self) -> Result<u64, ReadError> {
        Ok(self.snapshot()?.size())
    }

    /// [`Snapshot::checkpoint`] of what is committed now.
    ///
    /// # Errors
    /// As there.
    pub fn checkpoint(&self) -> Result<SignedCheckpoint, ReadError> {
        self.snapshot()?.checkpoint()
    }

    /// [`Snapshot::record`] of what is committed now.
    ///
    /// # Errors
    /// As there.
    pub fn record(&self, index: u64) -> Result<Record, ReadError> {
        self.snapshot()?.record(index)
    }

    /// [`Snapshot::find`] in what is committed now.
    ///
    /// # Errors
    /// As there.
    pub fn find(&self, name: &Name) -> Result<Vec<u64>, ReadError> {
        self.snapshot()?.find(name)
    }

    /// [`Snapshot::prove`] from what is committed now.
    ///
    /// # Errors
    /// As there.
    pub fn prove(&self, index: u64) -> Result<ProofFile, ReadError> {
        self.snapshot()?.prove(index)
    }

    /// [`Snapshot::prove_leaf`] from what is committed now.
    ///
    /// # Errors
    /// As there.
    pub fn prove_leaf(&self, index: u64) -> Result<ProofFile, ReadError> {
        self.snapshot()?.prove_leaf(index)
    }

    /// [`Snapshot::resource`] of what is committed now.
    ///
    /// # Errors
    /// As there.
    pub fn resource(&self, path: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.snapshot()?.resource(path)
    }

    fn check(&self, snapshot: &Snapshot) -> Result<(), OpenError> {
        let (stored, given) = (snapshot.vkey(), self.identity.vkey());
        if stored != given {
            return Err(OpenError::OtherKey {
                stored: stored.to_string(),
                given: given.to_string(),
            });
        }
        let checkpoint = SignedCheckpoint::open(
            snapshot.note().as_bytes(),
            std::slice::from_ref(self.identity.vkey()),
        );
        edge_under::<OpenError>(&checkpoint.map_err(Damage::from)?, snapshot.tiles())?;
        Ok(())
    }

    fn create(&self) -> Result<(), OpenError> {
        let tx = self.db.begin_write().map_err(redb::Error::from)?;
        {
            let mut meta = tx.open_table(META).map_err(redb::Error::from)?;
            let rows = tx
                .open_table(TILES)
                .map_err(redb::Error::from)?
                .len()
                .and_then(|tiles| Ok(tiles + meta.len()?))
                .map_err(redb::Error::from)?;
            if rows > 0 {
                return Err(Damage::NoCheckpoint.into());
            }
            tx.open_table(BUNDLES).map_err(redb::Error::from)?;
            tx.open_table(RECORDS).map_err(redb::Error::from)?;
            tx.open_table(NAMES).map_err(redb::Error::from)?;
            let checkpoint = SignedCheckpoint::sign(&self.identity, 0, tlog_tiles::EMPTY_HASH.0)
                .map_err(Damage::from)?;
            meta.insert(CHECKPOINT, checkpoint.note().as_bytes()).map_err(redb::Error::from)?;
            meta.insert(VKEY, self.identity.vkey().as_str().as_bytes())
                .map_err(redb::Error::from)?;
        }
        tx.commit().map_err(redb::Error::from)?;
        Ok(())
    }
}

fn read_failure(error: ReadError) -> OpenError {
    match error {
        ReadError::Database(error) => error.into(),
        ReadError::Damaged(damage) => damage.into(),
        // A snapshot that reads no record meets none of the others.
        _ => Damage::NoCheckpoint.into(),
    }
}

fn refuse_oversize(records: &[(Option<Keyholder>, &Record)]) -> Result<(), AppendError> {
    if records.len() > MAX_APPEND_RECORDS {
        return Err(AppendError::TooMany(records.len()));
    }
    match records.iter().position(|(_, record)| record.body.len() > MAX_BODY_BYTES) {
        Some(position) => {
            Err(AppendError::BodyTooLong { position, bytes: records[position].1.body.len() })
        }
        None => Ok(()),
    }
}

/// The stored edge, once it hashes to the root that `checkpoint` signs.
fn edge_under<E: From<redb::Error> + From<Damage>>(
    checkpoint: &SignedCheckpoint,
    tiles: &impl ReadableTable<(u8, u64), &'static [u8]>,
) -> Result<Edge, E> {
    let read = |level, index| {
        tables::bytes(tiles, (level, index)).map_err(|error| E::from(redb::Error::from(error)))
    };
    let edge = Edge::load(checkpoint.size(), read, |wrong| E::from(Damage::from(wrong)))?;
    match edge.root() {
        Ok(root) if root == checkpoint.root() => Ok(edge),
        _ => Err(Damage::Root.into()),
    }
}

fn write_records(
    tx: &WriteTransaction,
    first_index: u64,
    records: &[(Option<Keyholder>, &Record)],
    leaves: &[[u8; LEAF_BYTES]],
    sealing: Option<(Arc<RecordsKey>, Random)>,
) -> Result<(), AppendError> {
    let mut table = tx.open_table(RECORDS).map_err(redb::Error::from)?;
    let mut names = tx.open_table(NAMES).map_err(redb::Error::from)?;
    let mut sealer = match sealing {
        Some((key, random)) => Some(Sealer::open(tx, key, random)?),
        None => None,
    };
    let mut row = Vec::new();
    for (index, ((holder, record), leaf)) in (first_index..).zip(records.iter().zip(leaves)) {
        match &mut sealer {
            Some(sealer) => sealer.seal_into(index, *holder, record, leaf, &mut row)?,
            None => record.encode_into(&mut row),
        }
        table.insert(index, row.as_slice()).map_err(redb::Error::from)?;
        names.insert(&tables::name_row(&record.name, index), ()).map_err(redb::Error::from)?;
    }
    Ok(())
}

fn write_bundles(
    tx: &WriteTransaction,
    first_index: u64,
    leaves: &[[u8; LEAF_BYTES]],
) -> Result<(), AppendError> {
    let mut table = tx.open_table(BUNDLES).map_err(redb::Error::from)?;
    let mut index = first_index / TILE_WIDTH;
    let begun = (first_index % TILE_WIDTH) as usize * BUNDLE_ROW_BYTES;
    let mut bundle = match begun {
        0 => Vec::new(),
        _ => tables::bytes(&table, index).map_err(redb::Error::from)?.unwrap_or_default(),
    };
    if bundle.len() != begun {
        return Err(Damage::Bundle { index }.into());
    }
    for leaf in leaves {
        tables::extend_bundle(&mut bundle, leaf);
        if bundle.len() == BUNDLE_ROW_BYTES * TILE_WIDTH as usize {
            table.insert(index, bundle.as_slice()).map_err(redb::Error::from)?;
            bundle.clear();
            index += 1;
        }
    }
    if !bundle.is_empty() {
        table.insert(index, bundle.as_slice()).map_err(redb::Error::from)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
