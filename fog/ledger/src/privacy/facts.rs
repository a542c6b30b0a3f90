//! What a site keeps beside its log, sealed like the log's records: open alarms, courses of vital signs.
//!
//! # Format
//! A sealed fact is version u8 = 1, slot u64 big-endian, nonce [u8; 24], sealed. *Sealed* is XChaCha20-Poly1305 of the fact under
//! the slot's data key (see [`super::seal`]), with the tag behind. Authenticated with it are version, slot, nonce, and the
//! fact's place: table and key as the caller names them, each with its length, u64 big-endian, before it. The nonce is random:
//! a fact is written again under the same key as often as it changes, and of 2^192 nonces none comes twice.
//!
//! # Not guaranteed
//! Which of two sealed versions of a fact is the newer: who can write to the database can put an old one back.

use crate::privacy::records_key::{DataKey, TAG_BYTES};
use crate::privacy::seal::{Keyholder, Keyring, SealError, Sealer, Slot};
use crate::site_log::SiteLog;
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use redb::{ReadTransaction, ReadableDatabase, WriteTransaction};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest fact, in bytes.
pub const MAX_FACT_BYTES: usize = 1 << 20;

const VERSION: u8 = 1;
/// Version, slot, nonce.
const HEAD_BYTES: usize = 1 + 8 + 24;

/// Where a fact lies: it opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The table.
    pub table: &'a str,
    /// The row's key.
    pub key: &'a [u8],
}

/// Why a fact cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactError {
    /// The database failed.
    #[error("the site log's database: {0}")]
    Database(#[from] redb::Error),
    /// The log was opened without a records key.
    #[error("this log was opened without a records key")]
    NotSealed,
    /// It is not what was written, or not where.
    #[error("what was kept in {table} is damaged; restore the database from a backup")]
    Damaged {
        /// The table.
        table: String,
    },
}

/// Seals facts in one transaction.
pub struct FactSealer<'tx>(Sealer<'tx>);

/// Opens facts as they were when a transaction began.
pub struct FactOpener {
    keyring: Keyring,
    /// `None`: destroyed.
    used: BTreeMap<u64, Option<DataKey>>,
}

impl SiteLog {
    /// Seals facts in the caller's transaction, in which no append may be under way meanwhile.
    ///
    /// # Errors
    /// If the log is not sealed, or the database fails.
    pub fn fact_sealer<'tx>(
        &self,
        tx: &'tx WriteTransaction,
    ) -> Result<FactSealer<'tx>, SealError> {
        let vault = self.vault.as_ref().ok_or(SealError::NotSealed)?;
        Ok(FactSealer(Sealer::open(tx, vault.key(), vault.random())?))
    }

    /// Runs `read` on what is committed now; no erasure comes between.
    ///
    /// # Errors
    /// Those of `read`; and if the log is not sealed, or the database fails.
    pub fn read_facts<T, E: From<FactError>>(
        &self,
        read: impl FnOnce(&ReadTransaction, &mut FactOpener) -> Result<T, E>,
    ) -> Result<T, E> {
        let vault = self.vault.as_ref().ok_or(FactError::NotSealed)?;
        let (tx, keyring) = vault
            .with_key(|key| {
                let tx = self.db.begin_read()?;
                let keyring = Keyring::open(&tx, Some(Arc::clone(&key)))?;
                Ok((tx, keyring))
            })
            .map_err(FactError::Database)?;
        read(&tx, &mut FactOpener { keyring, used: BTreeMap::new() })
    }
}

impl<'tx> FactSealer<'tx> {
    pub(crate) fn new(sealer: Sealer<'tx>) -> Self {
        Self(sealer)
    }

    /// A fact, at most [`MAX_FACT_BYTES`], about `holder` or about nobody, sealed for its place.
    ///
    /// # Errors
    /// If it is too long, or keys or randomness fail.
    pub fn seal(
        &mut self,
        holder: Option<Keyholder>,
        place: Place<'_>,
        fact: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        if fact.len() > MAX_FACT_BYTES {
            return Err(SealError::FactTooLong(fact.len()));
        }
        let mut random = [0; 32];
        self.0.random(&mut random)?;
        let (slot, cipher) = self.0.cipher(holder.unwrap_or(Keyholder::SITE))?;
        let mut row = Vec::with_capacity(HEAD_BYTES + fact.len() + TAG_BYTES);
        row.push(VERSION);
        row.extend_from_slice(&slot.to_be_bytes());
        row.extend_from_slice(&random[..24]);
        let context = context(&row, place);
        row.extend_from_slice(fact);
        let (head, text) = row.split_at_mut(HEAD_BYTES);
        let nonce = chacha20poly1305::XNonce::clone_from_slice(&head[9..]);
        // It refuses only messages of more than 256 GiB.
        let tag = cipher
            .encrypt_in_place_detached(&nonce, &context, text)
            .map_err(|_| SealError::Damaged { slot: *slot })?;
        row.extend_from_slice(&tag);
        Ok(row)
    }
}

impl FactOpener {
    /// The fact in `row`; `None` if whom it is about was erased.
    ///
    /// # Errors
    /// If it is not what was written there.
    pub fn open(&mut self, place: Place<'_>, row: &[u8]) -> Result<Option<Vec<u8>>, FactError> {
        let damaged = || FactError::Damaged { table: place.table.to_owned() };
        let (head, sealed) = row.split_first_chunk::<HEAD_BYTES>().ok_or_else(damaged)?;
        let (text, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or_else(damaged)?;
        let (version, rest) = head.split_first().ok_or_else(damaged)?;
        let (slot, nonce) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let nonce: &[u8; 24] = nonce.try_into().map_err(|_| damaged())?;
        if *version != VERSION {
            return Err(damaged());
        }
        let Some(key) = self.key(u64::from_be_bytes(*slot)).map_err(FactError::Database)? else {
            return Err(damaged());
        };
        let Some(key) = key else { return Ok(None) };
        let mut text = text.to_vec();
        XChaCha20Poly1305::new((&**key).into())
            .decrypt_in_place_detached(nonce.into(), &context(head, place), &mut text, tag.into())
            .map_err(|_| damaged())?;
        Ok(Some(text))
    }

    /// The key of a slot: `None` if there is none that fits, `Some(None)` if it was destroyed.
    fn key(&mut self, slot: u64) -> Result<Option<&Option<DataKey>>, redb::Error> {
        if !self.used.contains_key(&slot) {
            let key = match self.keyring.slot(slot)? {
                Slot::Key(key) => Some(key),
                Slot::Erased => None,
                Slot::Locked | Slot::Damaged => return Ok(None),
            };
            self.used.insert(slot, key);
        }
        Ok(self.used.get(&slot))
    }
}

fn context(head: &[u8], place: Place<'_>) -> Vec<u8> {
    let mut context = head.to_vec();
    for part in [place.table.as_bytes(), place.key] {
        context.extend_from_slice(&(part.len() as u64).to_be_bytes());
        context.extend_from_slice(part);
    }
    context
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, LeafKind, Record, Sealing};
    use redb::Database;
    use std::path::Path;

    const HERE: Place<'static> = Place { table: "alarms", key: b"row" };

    fn log(folder: &Path) -> SiteLog {
        let db = Arc::new(Database::create(folder.join("log.redb")).unwrap());
        let identity = Identity::generate("haar.test/site", [7; 32]).unwrap();
        let random = |bytes: &mut [u8; 32]| getrandom::fill(bytes).map_err(std::io::Error::from);
        let sealing = Sealing { key_file: folder.join("records.key"), random };
        SiteLog::open_sealed(db, identity, sealing).unwrap()
    }

    fn seal(log: &SiteLog, holder: Option<Keyholder>, fact: &[u8]) -> Vec<u8> {
        let tx = log.db.begin_write().unwrap();
        let row = log.fact_sealer(&tx).unwrap().seal(holder, HERE, fact).unwrap();
        tx.commit().unwrap();
        row
    }

    fn open(log: &SiteLog, place: Place<'_>, row: &[u8]) -> Result<Option<Vec<u8>>, FactError> {
        log.read_facts(|_, facts| facts.open(place, row))
    }

    #[test]
    fn a_fact_opens_in_its_place_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path());
        let patient = Keyholder::of(b"patient");
        for holder in [None, Some(patient)] {
            let row = seal(&log, holder, b"what is known");
            assert_eq!(open(&log, HERE, &row).unwrap().unwrap(), b"what is known");
            assert!(!row.windows(4).any(|part| part == b"what"), "it is sealed");
            assert_ne!(row, seal(&log, holder, b"what is known"), "no nonce serves twice");
            for place in [Place { table: "alarm", key: b"srow" }, Place { key: b"row2", ..HERE }] {
                assert!(open(&log, place, &row).is_err());
            }
            for byte in 0..row.len() {
                let mut flipped = row.clone();
                flipped[byte] ^= 1;
                assert!(open(&log, HERE, &flipped).is_err(), "byte {byte}");
                assert!(open(&log, HERE, &row[..byte]).is_err(), "cut at {byte}");
            }
        }
        let long = vec![0; MAX_FACT_BYTES + 1];
        let tx = log.db.begin_write().unwrap();
        let refused = log.fact_sealer(&tx).unwrap().seal(None, HERE, &long);
        assert!(matches!(refused, Err(SealError::FactTooLong(_))));
    }

    #[test]
    fn an_erasure_takes_the_facts_of_the_erased_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(folder.path());
        let [gone, stays] = [b"a", b"b"].map(|name| Keyholder::of(name));
        let tx = log.db.begin_write().unwrap();
        let record =
            Record { kind: LeafKind::WindowDigest, name: [1; 32], key: [2; 32], body: vec![3] };
        log.append_held(&tx, &[crate::Held { keyholder: Some(gone), record }]).unwrap();
        tx.commit().unwrap();
        let rows = [gone, stays].map(|holder| seal(&log, Some(holder), b"known"));
        log.erase(&[gone], |_, _| Ok(())).unwrap();
        assert_eq!(open(&log, HERE, &rows[0]).unwrap(), None);
        assert_eq!(open(&log, HERE, &rows[1]).unwrap().unwrap(), b"known");
    }
}
