//! Records at rest: sealed under the key of their patient.
//!
//! # Format
//! | table | key | value |
//! |---|---|---|
//! | `site_log.records` | leaf index u64 | version u8 = 2, kind u8, name [u8; 32], slot u64 big-endian, nonce [u8; 24], sealed |
//! | `site_log.keys` | slot u64 | keyholder [u8; 32], wrapped data key [u8; 72] (see [`super::records_key`]) |
//! | `site_log.holders` | keyholder [u8; 32] | slot u64 |
//! | `site_log.erased` | slot u64 | index u64 of the leaf that says so |
//! | `site_log.sealing` | `records-key` | id [u8; 16] of the records key in force |
//! | | `slots` | u64 big-endian: the first slot that was never given out |
//!
//! *Sealed* is XChaCha20-Poly1305 under the slot's data key of the commitment's key [u8; 32] and the body,
//! with the tag behind. Authenticated with it are all bytes before it in the row and the leaf's index,
//! u64 big-endian. The nonce is the first 24 bytes of the leaf's commitment: a pseudo-random function,
//! under a key of the record's own, of everything that is sealed. So it needs no memory and no counter:
//! an index that is given out again, after an abort or a restored backup, cannot repeat a nonce.
//!
//! A *slot* is one key of one keyholder. Who was erased and comes back gets another slot. Records about
//! no patient are sealed under a slot of the site's own. Rows of version 1, in clear, are from before
//! there were keys (or from a log that was opened without) and are read still.
//!
//! # Trust
//! The database alone says how many records there are, of which kinds, which of them are about one
//! person, and under which names they are found. See the README for what a thief learns.

use crate::leaf::{LEAF_BYTES, LeafKind, MAX_BODY_BYTES, Name};
use crate::privacy::records_key::{
    DataKey, RecordsKey, RecordsKeyError, RecordsKeyId, TAG_BYTES, WRAPPED_BYTES,
};
use crate::tables::{self, Record};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, StorageError, Table,
    TableDefinition, TableError, WriteTransaction,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// The most patients that have a key at one time.
pub const MAX_KEYS: u64 = 1 << 24;

pub(crate) const KEYS: TableDefinition<u64, &[u8]> = TableDefinition::new("site_log.keys");
pub(crate) const HOLDERS: TableDefinition<&[u8; 32], u64> =
    TableDefinition::new("site_log.holders");
pub(crate) const ERASED: TableDefinition<u64, u64> = TableDefinition::new("site_log.erased");
pub(crate) const SEALING: TableDefinition<&str, &[u8]> = TableDefinition::new("site_log.sealing");

/// The rows of [`SEALING`].
pub(crate) const RECORDS_KEY: &str = "records-key";
pub(crate) const SLOTS: &str = "slots";

const ROW_VERSION: u8 = 2;
const ROW_HEAD_BYTES: usize = 66;
const NONCE_AT: usize = 42;
/// Beside the body, the commitment's key is sealed.
const LEAF_KEY_BYTES: usize = 32;

/// Gives random bytes: fresh, uniform, for keys. The ledger has no other source.
pub type Random = fn(&mut [u8; 32]) -> io::Result<()>;

/// Whose key a record is sealed under: a person, by a hash of the pseudonym.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Keyholder([u8; 32]);

impl Keyholder {
    /// The site itself, for records about nobody.
    pub(crate) const SITE: Self = Self([0; 32]);

    /// Whoever bears this pseudonym.
    pub fn of(pseudonym: &[u8]) -> Self {
        Self(
            Sha256::new()
                .chain_update("haar-keyholder-v1")
                .chain_update(pseudonym)
                .finalize()
                .into(),
        )
    }

    /// The one of whom [`Keyholder::to_bytes`] gave these.
    pub fn from_bytes(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The hash.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A record, and whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Whom it is about; `None`: nobody, or the site.
    pub keyholder: Option<Keyholder>,
    /// What is appended.
    pub record: Record,
}

impl From<Record> for Held {
    /// A record about nobody.
    fn from(record: Record) -> Self {
        Self { keyholder: None, record }
    }
}

/// Why a record cannot be sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The database failed.
    #[error("the site log's database: {0}")]
    Database(#[from] redb::Error),
    /// The database was sealed under another key than the one in hand.
    #[error("the records key was replaced by another process; start the fog again")]
    OtherKey,
    /// The log was opened without a records key.
    #[error("this log was opened without a records key")]
    NotSealed,
    /// A fact over the limit.
    #[error("a fact of {0} bytes is longer than any that is kept")]
    FactTooLong(usize),
    /// A data key does not open, or is missing.
    #[error("data key {slot} is damaged. Stop the fog and run `haar fsck --log`")]
    Damaged {
        /// Its slot.
        slot: u64,
    },
    /// Over [`MAX_KEYS`].
    #[error("the log holds keys of {MAX_KEYS} patients, which is the most")]
    Full,
    /// No randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(#[source] io::Error),
    /// The key file.
    #[error(transparent)]
    RecordsKey(#[from] RecordsKeyError),
}

impl From<StorageError> for SealError {
    fn from(error: StorageError) -> Self {
        Self::Database(error.into())
    }
}

/// A row of the records table.
pub(crate) enum Row<'a> {
    Plain(Record),
    Sealed(Sealed<'a>),
}

impl<'a> Row<'a> {
    /// Reads a row; `None` if it is none.
    pub(crate) fn decode(row: &'a [u8]) -> Option<Self> {
        match row.first()? {
            &ROW_VERSION => Sealed::decode(row).map(Self::Sealed),
            _ => Record::decode(row).map(Self::Plain),
        }
    }

    pub(crate) fn name(&self) -> Name {
        match self {
            Self::Plain(record) => record.name,
            Self::Sealed(sealed) => sealed.name,
        }
    }
}

/// A record that needs a key.
pub(crate) struct Sealed<'a> {
    pub(crate) kind: LeafKind,
    pub(crate) name: Name,
    pub(crate) slot: u64,
    nonce: [u8; 24],
    head: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> Sealed<'a> {
    fn decode(row: &'a [u8]) -> Option<Self> {
        const LEAST: usize = ROW_HEAD_BYTES + LEAF_KEY_BYTES + TAG_BYTES;
        if !(LEAST..=LEAST + MAX_BODY_BYTES).contains(&row.len()) {
            return None;
        }
        let (head, sealed) = row.split_at(ROW_HEAD_BYTES);
        Some(Self {
            kind: LeafKind::from_byte(head[1])?,
            name: head[2..34].try_into().ok()?,
            slot: u64::from_be_bytes(head[34..NONCE_AT].try_into().ok()?),
            nonce: head[NONCE_AT..].try_into().ok()?,
            head,
            sealed,
        })
    }

    /// The record; `None` if any byte of the row, or its place, is not as it was written.
    pub(crate) fn open(&self, index: u64, key: &DataKey) -> Option<Record> {
        let (text, tag) = self.sealed.split_last_chunk::<TAG_BYTES>()?;
        let mut text = text.to_vec();
        let cipher = XChaCha20Poly1305::new((&**key).into());
        let context = context(self.head, index);
        cipher
            .decrypt_in_place_detached(&self.nonce.into(), &context, &mut text, tag.into())
            .ok()?;
        let body = text.split_off(LEAF_KEY_BYTES);
        Some(Record { kind: self.kind, name: self.name, key: text.try_into().ok()?, body })
    }

    /// Whether this may be the row of `leaf`: all that can be said without the key.
    pub(crate) fn may_open(&self, leaf: &[u8]) -> bool {
        leaf.get(1) == Some(&self.kind.byte()) && leaf.get(2..26) == Some(&self.nonce[..])
    }
}

fn context(head: &[u8], index: u64) -> [u8; ROW_HEAD_BYTES + 8] {
    let mut context = [0; ROW_HEAD_BYTES + 8];
    context[..ROW_HEAD_BYTES].copy_from_slice(head);
    context[ROW_HEAD_BYTES..].copy_from_slice(&index.to_be_bytes());
    context
}

/// What a wrapped data key is the key of.
fn key_of(slot: u64, holder: &Keyholder) -> [u8; 40] {
    let mut of = [0; 40];
    of[..8].copy_from_slice(&slot.to_be_bytes());
    of[8..].copy_from_slice(holder.bytes());
    of
}

/// A row of [`KEYS`].
pub(crate) struct KeyRow<'a> {
    pub(crate) holder: Keyholder,
    wrapped: &'a [u8],
}

impl<'a> KeyRow<'a> {
    pub(crate) fn decode(row: &'a [u8]) -> Option<Self> {
        let (holder, wrapped) = row.split_first_chunk::<32>()?;
        (wrapped.len() == WRAPPED_BYTES).then_some(Self { holder: Keyholder(*holder), wrapped })
    }

    pub(crate) fn encode(
        slot: u64,
        holder: &Keyholder,
        key: &DataKey,
        under: &RecordsKey,
    ) -> Vec<u8> {
        [&holder.0[..], &under.wrap(&key_of(slot, holder), key)].concat()
    }

    pub(crate) fn data_key(&self, slot: u64, under: &RecordsKey) -> Option<DataKey> {
        under.unwrap(&key_of(slot, &self.holder), self.wrapped)
    }
}

/// The id of the records key in force; `None` in a log without sealed records.
pub(crate) fn records_key_id(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<RecordsKeyId>, StorageError> {
    Ok(tables::bytes(table, RECORDS_KEY)?.and_then(|id| id.try_into().ok()))
}

/// Seals the records of one append, in its transaction.
pub(crate) struct Sealer<'tx> {
    keys: Table<'tx, u64, &'static [u8]>,
    holders: Table<'tx, &'static [u8; 32], u64>,
    sealing: Table<'tx, &'static str, &'static [u8]>,
    key: Arc<RecordsKey>,
    random: Random,
    /// Keys that this append has used: it would otherwise unwrap one for every record.
    used: BTreeMap<Keyholder, (u64, XChaCha20Poly1305)>,
}

impl<'tx> Sealer<'tx> {
    pub(crate) fn open(
        tx: &'tx WriteTransaction,
        key: Arc<RecordsKey>,
        random: Random,
    ) -> Result<Self, SealError> {
        let sealing = tx.open_table(SEALING).map_err(redb::Error::from)?;
        if records_key_id(&sealing)? != Some(key.id()) {
            return Err(SealError::OtherKey);
        }
        Ok(Self {
            keys: tx.open_table(KEYS).map_err(redb::Error::from)?,
            holders: tx.open_table(HOLDERS).map_err(redb::Error::from)?,
            sealing,
            key,
            random,
            used: BTreeMap::new(),
        })
    }

    /// Writes the sealed row of a record over what is in `row`.
    pub(crate) fn seal_into(
        &mut self,
        index: u64,
        holder: Option<Keyholder>,
        record: &Record,
        leaf: &[u8; LEAF_BYTES],
        row: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let (slot, cipher) = self.cipher(holder.unwrap_or(Keyholder::SITE))?;
        row.clear();
        row.extend_from_slice(&[ROW_VERSION, record.kind.byte()]);
        row.extend_from_slice(&record.name);
        row.extend_from_slice(&slot.to_be_bytes());
        row.extend_from_slice(&leaf[2..26]);
        let context = context(row, index);
        let nonce = XNonce::clone_from_slice(&leaf[2..26]);
        row.extend_from_slice(&record.key);
        row.extend_from_slice(&record.body);
        // It refuses only messages of more than 256 GiB.
        let tag = cipher
            .encrypt_in_place_detached(&nonce, &context, &mut row[ROW_HEAD_BYTES..])
            .map_err(|_| SealError::Damaged { slot: *slot })?;
        row.extend_from_slice(&tag);
        Ok(())
    }

    /// Fresh random bytes.
    pub(crate) fn random(&self, bytes: &mut [u8; 32]) -> Result<(), SealError> {
        (self.random)(bytes).map_err(SealError::Random)
    }

    pub(crate) fn cipher(
        &mut self,
        holder: Keyholder,
    ) -> Result<&(u64, XChaCha20Poly1305), SealError> {
        if !self.used.contains_key(&holder) {
            let slot = self.holders.get(holder.bytes())?.map(|slot| slot.value());
            let (slot, key) = match slot {
                Some(slot) => (slot, self.stored(slot)?),
                None => self.create(holder)?,
            };
            self.used.insert(holder, (slot, XChaCha20Poly1305::new((&*key).into())));
        }
        // It was put there above if it was not there.
        self.used.get(&holder).ok_or(SealError::OtherKey)
    }

    fn stored(&self, slot: u64) -> Result<DataKey, SealError> {
        let row = self.keys.get(slot)?.ok_or(SealError::Damaged { slot })?;
        let row = KeyRow::decode(row.value());
        row.and_then(|row| row.data_key(slot, &self.key)).ok_or(SealError::Damaged { slot })
    }

    fn create(&mut self, holder: Keyholder) -> Result<(u64, DataKey), SealError> {
        if self.keys.len()? >= MAX_KEYS {
            return Err(SealError::Full);
        }
        let slot = tables::bytes(&self.sealing, SLOTS)?.and_then(|slots| slots.try_into().ok());
        let slot = slot.map_or(0, u64::from_be_bytes);
        let mut key = DataKey::default();
        (self.random)(&mut key).map_err(SealError::Random)?;
        self.keys.insert(slot, KeyRow::encode(slot, &holder, &key, &self.key).as_slice())?;
        self.holders.insert(holder.bytes(), slot)?;
        self.sealing.insert(SLOTS, (slot + 1).to_be_bytes().as_slice())?;
        Ok((slot, key))
    }
}

/// What is known of a slot's key.
pub(crate) enum Slot {
    /// It is there.
    Key(DataKey),
    /// It was destroyed.
    Erased,
    /// Nobody gave a records key.
    Locked,
    /// Neither there nor erased, or it does not open.
    Damaged,
}

/// The data keys as they were when a snapshot was taken.
pub(crate) struct Keyring {
    tables: Option<KeyTables>,
    key: Option<Arc<RecordsKey>>,
}

struct KeyTables {
    keys: ReadOnlyTable<u64, &'static [u8]>,
    erased: ReadOnlyTable<u64, u64>,
    in_force: Option<RecordsKeyId>,
}

impl Keyring {
    pub(crate) fn open(
        tx: &ReadTransaction,
        key: Option<Arc<RecordsKey>>,
    ) -> Result<Self, redb::Error> {
        let sealing = match tx.open_table(SEALING) {
            Ok(sealing) => sealing,
            // A log from before records were sealed.
            Err(TableError::TableDoesNotExist(_)) => return Ok(Self { tables: None, key }),
            Err(error) => return Err(error.into()),
        };
        let tables = KeyTables {
            keys: tx.open_table(KEYS)?,
            erased: tx.open_table(ERASED)?,
            in_force: records_key_id(&sealing)?,
        };
        Ok(Self { tables: Some(tables), key })
    }

    /// Whether the key that was given is another than the one in force.
    pub(crate) fn has_other_key(&self) -> bool {
        match (&self.tables, &self.key) {
            (Some(tables), Some(key)) => tables.in_force != Some(key.id()),
            _ => false,
        }
    }

    /// Whether records are sealed.
    pub(crate) fn in_force(&self) -> Option<RecordsKeyId> {
        self.tables.as_ref().and_then(|tables| tables.in_force)
    }

    pub(crate) fn slot(&self, slot: u64) -> Result<Slot, StorageError> {
        let Some(tables) = &self.tables else { return Ok(Slot::Damaged) };
        let Some(row) = tables.keys.get(slot)? else {
            let erased = tables.erased.get(slot)?.is_some();
            return Ok(if erased { Slot::Erased } else { Slot::Damaged });
        };
        let Some(key) = &self.key else { return Ok(Slot::Locked) };
        let data_key = KeyRow::decode(row.value()).and_then(|row| row.data_key(slot, key));
        Ok(data_key.map_or(Slot::Damaged, Slot::Key))
    }
}
