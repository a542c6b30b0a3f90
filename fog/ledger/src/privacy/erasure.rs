//! A log whose records are sealed, and the erasure of patients from it.
//!
//! # What an erasure does
//! In one transaction: the patient's data key is removed; a new records key takes the place of the old
//! one and every other data key is wrapped again under it; a leaf of kind [`LeafKind::Erasure`] is appended
//! for every patient. Then the old records key is overwritten (see [`super::records_key`]).
//!
//! The new records key is what makes it last. redb does not overwrite the pages that it frees: the
//! removed row, wrapped, stays in the file for a while. What it was wrapped under is gone.
//!
//! Leaves, tiles, names and checkpoints stay, so every proof that was handed out verifies as before.
//! The sealed records stay as well, and nothing opens them.
//!
//! # The leaf
//! Its body is `{"v":1,"slot":N,"patient":"<64 hexadecimal digits>"}`, its name the same 32 bytes:
//! HMAC-SHA-256 under a fresh key, the *receipt*, over `haar-erasure-v1` and the keyholder. The receipt is
//! returned and not kept: whoever has it and the pseudonym can find and prove the erasure, nobody else can say
//! whose it is.
//!
//! # Not erased
//! Records of version 1, which are in clear and under nobody's key. Proof files, backups and messages
//! that have left the site. The names of the records: a window's name is a hash, and who knows the pseudonym
//! and guesses edge, pipeline and minute can confirm that there was such a window.

use crate::leaf::{LeafKind, Name};
use crate::privacy::facts::FactSealer;
use crate::privacy::records_key::{DataKey, KeyFile, RecordsKey, RecordsKeyError};
use crate::privacy::seal::{
    ERASED, HOLDERS, Held, KEYS, KeyRow, Keyholder, Keyring, RECORDS_KEY, Random, SEALING,
    SealError, Sealer,
};
use crate::site_log::{AppendError, Appended, OpenError, SiteLog};
use crate::tables::Record;
use haar_identity::Identity;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use sha2::Sha256;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

/// The most patients in one erasure.
pub const MAX_ERASED: usize = 1024;

/// Data keys that are wrapped again at a time.
const REWRAPPED: usize = 4096;

/// How records are kept from whoever has the database.
pub struct Sealing {
    /// The file of the records key. Made if it is not there and nothing is sealed yet.
    pub key_file: PathBuf,
    /// For new keys.
    pub random: Random,
}

/// The records key of a log that is open.
pub(crate) struct Vault {
    file: KeyFile,
    random: Random,
    key: RwLock<Arc<RecordsKey>>,
}

impl Vault {
    pub(crate) fn key(&self) -> Arc<RecordsKey> {
        Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn random(&self) -> Random {
        self.random
    }

    /// Runs `read` with the key in force, which stays in force meanwhile.
    pub(crate) fn with_key<T>(&self, read: impl FnOnce(Arc<RecordsKey>) -> T) -> T {
        let key = self.key.read().unwrap_or_else(PoisonError::into_inner);
        read(Arc::clone(&key))
    }

    fn fresh(&self) -> Result<RecordsKey, SealError> {
        let mut secret = DataKey::default();
        (self.random)(&mut secret).map_err(SealError::Random)?;
        Ok(RecordsKey::new(*secret))
    }

    /// Finds the key of the log in `db`, or makes its first.
    fn open(db: &Database, sealing: Sealing) -> Result<Self, SealError> {
        let file = KeyFile::new(sealing.key_file);
        let keyring = Keyring::open(&db.begin_read().map_err(redb::Error::from)?, None)?;
        let key = match keyring.in_force() {
            Some(id) => file.in_force(id)?,
            None => {
                let mut secret = DataKey::default();
                (sealing.random)(&mut secret).map_err(SealError::Random)?;
                let key = file.first(RecordsKey::new(*secret))?;
                begin_sealing(db, &key)?;
                key
            }
        };
        Ok(Self { file, random: sealing.random, key: RwLock::new(Arc::new(key)) })
    }
}

fn begin_sealing(db: &Database, key: &RecordsKey) -> Result<(), redb::Error> {
    let tx = db.begin_write()?;
    tx.open_table(KEYS)?;
    tx.open_table(HOLDERS)?;
    tx.open_table(ERASED)?;
    tx.open_table(SEALING)?.insert(RECORDS_KEY, key.id().as_slice())?;
    tx.commit()?;
    Ok(())
}

/// One patient was erased.
#[derive(Clone, PartialEq, Eq)]
pub struct Erased {
    /// Who.
    pub keyholder: Keyholder,
    /// The leaf that says so.
    pub leaf: u64,
    /// The key with which it can be shown whose erasure that leaf is. It is kept nowhere.
    pub receipt: [u8; 32],
}

/// Why nobody was erased, or not surely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EraseError {
    /// The database failed before anything was written.
    #[error("nobody was erased; the site log's database: {0}")]
    Database(#[from] redb::Error),
    /// The log was opened without a records key.
    #[error("this log was opened without a records key")]
    NotSealed,
    /// No record is sealed under that patient's key.
    #[error(
        "nobody was erased: no record is sealed under the key of patient {position} of those given; \
         is that the pseudonym of this site? Records from before they were sealed have no key"
    )]
    NoSuchPatient {
        /// Which of the keyholders given.
        position: usize,
    },
    /// Over [`MAX_ERASED`].
    #[error("at most {MAX_ERASED} patients are erased at a time, not {0}")]
    TooMany(usize),
    /// Keys or their file.
    #[error("nobody was erased: {0}")]
    Seal(#[from] SealError),
    /// The leaf was not appended.
    #[error("nobody was erased: {0}")]
    Append(#[from] AppendError),
    /// The commit failed.
    #[error(
        "it is not known whether they were erased: {0}. Start the fog again: it finds out which of \
         the two records keys is in force; then ask again"
    )]
    Unknown(#[source] redb::Error),
    /// They are erased, but the old records key is still there.
    #[error(
        "they are erased, but the old records key was not overwritten: {0}. Start the fog again, \
         which does it"
    )]
    OldKey(#[source] RecordsKeyError),
}

impl From<RecordsKeyError> for EraseError {
    fn from(error: RecordsKeyError) -> Self {
        Self::Seal(error.into())
    }
}

impl SiteLog {
    /// As [`SiteLog::open`], but records are sealed from here on, and those that are sealed can be read.
    ///
    /// # Errors
    /// As there, and if the key file is not the one that the records are sealed under.
    pub fn open_sealed(
        db: Arc<Database>,
        identity: Identity,
        sealing: Sealing,
    ) -> Result<Self, OpenError> {
        let mut log = Self::open_unsealed(db, identity)?;
        log.vault = Some(Vault::open(&log.db, sealing)?);
        Ok(log)
    }

    /// As [`SiteLog::append`]; each record is sealed under the key of the one it is about.
    ///
    /// # Errors
    /// As there.
    pub fn append_held(
        &self,
        tx: &WriteTransaction,
        records: &[Held],
    ) -> Result<Appended, AppendError> {
        let records: Vec<_> = records.iter().map(|held| (held.keyholder, &held.record)).collect();
        self.append_under(
            tx,
            &records,
            self.vault.as_ref().map(|vault| (vault.key(), vault.random)),
        )
    }

    /// Erases patients: see the head of the module. `with` may remove what else the database has of
    /// them, and seal facts, in the same transaction. It waits for a transaction that is being written, and readers wait
    /// for it while it commits; what it does takes some microseconds for every key that is left.
    ///
    /// # Errors
    /// See [`EraseError`]: which of them are certain is said there.
    pub fn erase(
        &self,
        keyholders: &[Keyholder],
        with: impl FnOnce(&WriteTransaction, &mut FactSealer<'_>) -> Result<(), SealError>,
    ) -> Result<Vec<Erased>, EraseError> {
        if keyholders.len() > MAX_ERASED {
            return Err(EraseError::TooMany(keyholders.len()));
        }
        let vault = self.vault.as_ref().ok_or(EraseError::NotSealed)?;
        let fresh = Arc::new(vault.fresh()?);
        // The order matters: an append has a transaction before it asks for the key.
        let tx = self.db.begin_write().map_err(redb::Error::from)?;
        let mut key = vault.key.write().unwrap_or_else(PoisonError::into_inner);
        vault.file.put_next(&fresh)?;
        match self.write_erasure(&tx, keyholders, &key, &fresh, vault.random, with) {
            Ok(erased) => {
                tx.commit().map_err(|error| EraseError::Unknown(error.into()))?;
                *key = fresh;
                vault.file.adopt_next().map_err(EraseError::OldKey)?;
                Ok(erased)
            }
            Err(error) => {
                tx.abort().map_err(redb::Error::from)?;
                vault.file.discard_next()?;
                Err(error)
            }
        }
    }

    /// Puts a new records key in the place of the one in force, which is overwritten: after somebody may
    /// have seen it, say.
    ///
    /// # Errors
    /// As [`SiteLog::erase`].
    pub fn replace_records_key(&self) -> Result<(), EraseError> {
        self.erase(&[], |_, _| Ok(())).map(|_| ())
    }

    fn write_erasure(
        &self,
        tx: &WriteTransaction,
        keyholders: &[Keyholder],
        old: &RecordsKey,
        new: &Arc<RecordsKey>,
        random: Random,
        with: impl FnOnce(&WriteTransaction, &mut FactSealer<'_>) -> Result<(), SealError>,
    ) -> Result<Vec<Erased>, EraseError> {
        let slots = forget(tx, keyholders)?;
        rewrap(tx, old, new)?;
        with(tx, &mut FactSealer::new(Sealer::open(tx, Arc::clone(new), random)?))?;
        let mut receipts = Vec::new();
        let mut records = Vec::new();
        for (keyholder, slot) in keyholders.iter().zip(&slots) {
            let (mut receipt, mut key) = ([0; 32], [0; 32]);
            random(&mut receipt).and_then(|()| random(&mut key)).map_err(SealError::Random)?;
            let name = erasure_name(&receipt, keyholder);
            let body = format!(r#"{{"v":1,"slot":{slot},"patient":"{}"}}"#, hex::encode(name));
            records.push(Record { kind: LeafKind::Erasure, name, key, body: body.into() });
            receipts.push(receipt);
        }
        let records: Vec<_> = records.iter().map(|record| (None, record)).collect();
        let appended = self.append_under(tx, &records, Some((Arc::clone(new), random)))?;
        let mut table = tx.open_table(ERASED).map_err(redb::Error::from)?;
        let mut erased = Vec::new();
        for (at, (slot, receipt)) in slots.into_iter().zip(receipts).enumerate() {
            let leaf = appended.first_index + at as u64;
            table.insert(slot, leaf).map_err(redb::Error::from)?;
            erased.push(Erased { keyholder: keyholders[at], leaf, receipt });
        }
        Ok(erased)
    }
}

/// The name of the leaf that says that `keyholder` was erased, for whoever has the receipt.
pub fn erasure_name(receipt: &[u8; 32], keyholder: &Keyholder) -> Name {
    // RFC 2104, section 2: a key shorter than the hash's block is filled up with zeros.
    let mut block = [0; 64];
    block[..32].copy_from_slice(receipt);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    mac.update(b"haar-erasure-v1");
    mac.update(keyholder.bytes());
    mac.finalize().into_bytes().into()
}

/// Removes the keys of `keyholders` and returns their slots.
fn forget(tx: &WriteTransaction, keyholders: &[Keyholder]) -> Result<Vec<u64>, EraseError> {
    let mut keys = tx.open_table(KEYS).map_err(redb::Error::from)?;
    let mut holders = tx.open_table(HOLDERS).map_err(redb::Error::from)?;
    let mut slots = Vec::new();
    for (position, keyholder) in keyholders.iter().enumerate() {
        let slot = holders.remove(keyholder.bytes()).map_err(redb::Error::from)?;
        let slot = slot.map(|slot| slot.value()).ok_or(EraseError::NoSuchPatient { position })?;
        keys.remove(slot).map_err(redb::Error::from)?;
        slots.push(slot);
    }
    Ok(slots)
}

/// Wraps every data key under `new`, which is in force from then on.
fn rewrap(tx: &WriteTransaction, old: &RecordsKey, new: &RecordsKey) -> Result<(), SealError> {
    let mut sealing = tx.open_table(SEALING).map_err(redb::Error::from)?;
    sealing.insert(RECORDS_KEY, new.id().as_slice())?;
    let mut keys = tx.open_table(KEYS).map_err(redb::Error::from)?;
    let mut from = 0;
    loop {
        let mut rows = Vec::new();
        for row in keys.range(from..)?.take(REWRAPPED) {
            let (slot, row) = row?;
            let slot = slot.value();
            let row = KeyRow::decode(row.value()).ok_or(SealError::Damaged { slot })?;
            let key = row.data_key(slot, old).ok_or(SealError::Damaged { slot })?;
            rows.push((slot, KeyRow::encode(slot, &row.holder, &key, new)));
        }
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from = last + 1;
        for (slot, row) in &rows {
            keys.insert(slot, row.as_slice())?;
        }
    }
}

#[cfg(test)]
mod tests;
