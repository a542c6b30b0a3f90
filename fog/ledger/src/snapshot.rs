//! Reading the log: one consistent state of it, while others write.

use crate::checkpoint::{Head, SignedCheckpoint};
use crate::leaf::{LEAF_BYTES, Name};
use crate::privacy::records_key::RecordsKey;
use crate::privacy::seal::{Keyring, Row, Slot};
use crate::proof::{BareLeaf, Opening, ProofFile};
use crate::resource::Resource;
use crate::tables::{
    self, BUNDLE_ROW_BYTES, BUNDLES, CHECKPOINT, Damage, META, NAME_ROW_BYTES, NAMES, RECORDS,
    Record, TILES, VKEY,
};
use crate::tree::{StoredTiles, TILE_WIDTH, WrongTile};
use haar_identity::VerifierKey;
use redb::{ReadOnlyTable, ReadableDatabase, TableError};
use std::sync::Arc;
use tlog_tiles::{HASH_SIZE, Hash};

/// The most leaves that [`Snapshot::find`] returns for one name.
pub const MAX_FOUND: usize = 4096;

/// The log as it was committed when the snapshot was taken.
pub struct Snapshot {
    head: Head,
    vkey: VerifierKey,
    tiles: ReadOnlyTable<(u8, u64), &'static [u8]>,
    bundles: ReadOnlyTable<u64, &'static [u8]>,
    records: ReadOnlyTable<u64, &'static [u8]>,
    names: ReadOnlyTable<&'static [u8; NAME_ROW_BYTES], ()>,
    keyring: Keyring,
}

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The database failed.
    #[error("the site log's database: {0}")]
    Database(#[from] redb::Error),
    /// No log was ever created there.
    #[error("this database holds no site log; give the one in the fog's data directory")]
    NoLog,
    /// The log is shorter.
    #[error("there is no leaf {index}: the log has {size} leaves, counted from 0")]
    NoSuchLeaf {
        /// The index asked for.
        index: u64,
        /// The log's size.
        size: u64,
    },
    /// What is stored is not what was signed.
    #[error("the site log is damaged: {0}. Run `haar fsck --log` on it for the whole list")]
    Damaged(#[from] Damage),
    /// The key of whom it is about was destroyed. The leaf is in the tree; what it commits to is gone.
    #[error(
        "what leaf {index} commits to was erased at the patient's request; the leaf itself is still \
         in the log, and proofs made before hold"
    )]
    Erased {
        /// The leaf's index.
        index: u64,
    },
    /// It is sealed and no records key was given.
    #[error("the records of this log are sealed; its records key is needed to read leaf {index}")]
    Locked {
        /// The leaf's index.
        index: u64,
    },
    /// The records key given is another.
    #[error(
        "the records of this log are sealed under another records key than the one given; an erasure \
         replaces the key, so take the newest"
    )]
    OtherRecordsKey,
}

impl From<redb::StorageError> for ReadError {
    fn from(error: redb::StorageError) -> Self {
        Self::Database(error.into())
    }
}

impl From<WrongTile> for ReadError {
    fn from(wrong: WrongTile) -> Self {
        Self::Damaged(wrong.into())
    }
}

impl Snapshot {
    /// Takes a snapshot that cannot read sealed records. The database may also be one that was opened
    /// read-only.
    ///
    /// # Errors
    /// If it cannot be read or holds no log.
    pub fn open(db: &impl ReadableDatabase) -> Result<Self, ReadError> {
        Self::take(db, None)
    }

    /// Takes a snapshot that reads sealed records too.
    ///
    /// # Errors
    /// As [`Snapshot::open`], and if this is not the key that they are sealed under.
    pub fn open_with(db: &impl ReadableDatabase, key: Arc<RecordsKey>) -> Result<Self, ReadError> {
        let snapshot = Self::take(db, Some(key))?;
        if snapshot.keyring.has_other_key() {
            return Err(ReadError::OtherRecordsKey);
        }
        Ok(snapshot)
    }

    fn take(db: &impl ReadableDatabase, key: Option<Arc<RecordsKey>>) -> Result<Self, ReadError> {
        let tx = db.begin_read().map_err(redb::Error::from)?;
        let meta = match tx.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::TableDoesNotExist(_)) => return Err(ReadError::NoLog),
            Err(error) => return Err(redb::Error::from(error).into()),
        };
        let row = |key| tables::bytes(&meta, key)?.ok_or(ReadError::Damaged(Damage::NoCheckpoint));
        let vkey = String::from_utf8(row(VKEY)?).ok().and_then(|text| text.parse().ok());
        Ok(Self {
            head: Head::parse(&row(CHECKPOINT)?).map_err(Damage::from)?,
            vkey: vkey.ok_or(Damage::NoCheckpoint)?,
            tiles: tx.open_table(TILES).map_err(redb::Error::from)?,
            bundles: tx.open_table(BUNDLES).map_err(redb::Error::from)?,
            records: tx.open_table(RECORDS).map_err(redb::Error::from)?,
            names: tx.open_table(NAMES).map_err(redb::Error::from)?,
            keyring: Keyring::open(&tx, key)?,
        })
    }

    /// Whether new records of this log are sealed.
    pub fn is_sealed(&self) -> bool {
        self.keyring.in_force().is_some()
    }

    /// How many leaves the log says it has.
    pub fn size(&self) -> u64 {
        self.head.size
    }

    /// The verifier key that is stored with the log. Whoever can write the file can write this: to
    /// rely on it, compare it with one that came another way.
    pub fn vkey(&self) -> &VerifierKey {
        &self.vkey
    }

    /// The checkpoint, its signature checked against [`Snapshot::vkey`].
    ///
    /// # Errors
    /// If it is not signed by that key.
    pub fn checkpoint(&self) -> Result<SignedCheckpoint, ReadError> {
        let key = std::slice::from_ref(&self.vkey);
        Ok(SignedCheckpoint::open(self.head.note.as_bytes(), key).map_err(Damage::from)?)
    }

    /// What leaf `index` commits to. It is handed out only if it opens that leaf.
    ///
    /// # Errors
    /// If there is no such leaf, what is stored does not open it, it was erased, or it is sealed and
    /// the snapshot has no records key.
    pub fn record(&self, index: u64) -> Result<Record, ReadError> {
        if index >= self.size() {
            return Err(ReadError::NoSuchLeaf { index, size: self.size() });
        }
        let damaged = Damage::Record { index };
        let row = self.records.get(index)?.ok_or_else(|| damaged.clone())?;
        let record = match Row::decode(row.value()).ok_or_else(|| damaged.clone())? {
            Row::Plain(record) => record,
            Row::Sealed(sealed) => match self.keyring.slot(sealed.slot)? {
                Slot::Key(key) => sealed.open(index, &key).ok_or_else(|| damaged.clone())?,
                Slot::Erased => return Err(ReadError::Erased { index }),
                Slot::Locked => return Err(ReadError::Locked { index }),
                Slot::Damaged => return Err(damaged.into()),
            },
        };
        if self.leaf(index)? == record.leaf() { Ok(record) } else { Err(damaged.into()) }
    }

    /// The leaf itself: what is in the tree, of erased records as well.
    ///
    /// # Errors
    /// If there is none or its bundle is damaged.
    pub fn leaf(&self, index: u64) -> Result<[u8; LEAF_BYTES], ReadError> {
        let bundle = self.bundles.get(index / TILE_WIDTH)?;
        let leaf = bundle.as_ref().and_then(|bundle| {
            tables::leaf_in(bundle.value(), (index % TILE_WIDTH) as usize)?.try_into().ok()
        });
        Ok(leaf.ok_or(Damage::Record { index })?)
    }

    /// The leaves that bear `name`, in ascending order: the newest [`MAX_FOUND`] of them.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn find(&self, name: &Name) -> Result<Vec<u64>, ReadError> {
        let rows = tables::name_row(name, 0)..=tables::name_row(name, u64::MAX);
        let mut found = self
            .names
            .range::<&[u8; NAME_ROW_BYTES]>(rows.start()..=rows.end())?
            .rev()
            .take(MAX_FOUND)
            .map(|row| Ok(tables::split_name_row(row?.0.value()).1))
            .collect::<Result<Vec<_>, ReadError>>()?;
        found.reverse();
        Ok(found)
    }

    /// A proof that leaf `index` is in the log, with what opens it: [`crate::verify`] accepts it.
    /// It discloses the leaf's key, name and body.
    ///
    /// # Errors
    /// If there is no such leaf, its content cannot be read, or the stored log is damaged where the
    /// proof passes.
    pub fn prove(&self, index: u64) -> Result<ProofFile, ReadError> {
        let record = self.record(index)?;
        let leaf = record.leaf();
        let extra = Opening { record, log: self.vkey.clone() }.encode();
        self.prove_with(index, &leaf, extra)
    }

    /// A proof that leaf `index` is in the log, without what it commits to: [`crate::verify_leaf`]
    /// accepts it. It discloses the kind, and can be made when the content was erased.
    ///
    /// # Errors
    /// If there is no such leaf, or the stored log is damaged where the proof passes.
    pub fn prove_leaf(&self, index: u64) -> Result<ProofFile, ReadError> {
        let leaf = self.leaf(index)?;
        let extra = BareLeaf { leaf, log: self.vkey.clone() }.encode();
        self.prove_with(index, &leaf, extra)
    }

    fn prove_with(&self, index: u64, leaf: &[u8], extra: Vec<u8>) -> Result<ProofFile, ReadError> {
        let checkpoint = self.checkpoint()?;
        let read = |level, tile| Ok::<_, ReadError>(tables::bytes(&self.tiles, (level, tile))?);
        let path = StoredTiles::new(read).prove(self.size(), index)?;
        let leaf = tlog_tiles::record_hash(leaf);
        tlog_tiles::check_record(&path, self.size(), Hash(checkpoint.root()), index, leaf)
            .map_err(|_| Damage::Record { index })?;
        Ok(ProofFile {
            extra,
            index,
            path: path.into_iter().map(|hash| hash.0).collect(),
            checkpoint: checkpoint.note().to_owned(),
        })
    }

    /// RFC 6962 consistency proof from the log's first `old` leaves to all of them.
    ///
    /// # Errors
    /// If there are fewer, or a tile is missing.
    pub fn consistency(&self, old: u64) -> Result<Vec<[u8; 32]>, ReadError> {
        let size = self.head.size;
        if old > size {
            return Err(ReadError::NoSuchLeaf { index: old, size });
        }
        if old == 0 || old == size {
            return Ok(Vec::new());
        }
        let read = |level, index| Ok::<_, ReadError>(tables::bytes(&self.tiles, (level, index))?);
        let proof = StoredTiles::new(read).prove_consistency(size, old)?;
        Ok(proof.into_iter().map(|hash| hash.0).collect())
    }

    /// What is to be served under `path` of the log's URL (C2SP tlog-tiles): `checkpoint`,
    /// `tile/<level>/<index>`, `tile/entries/<index>`, the latter two with `.p/<width>` for a
    /// partial one. `None` if there is no such thing (yet). Leaves only; never a record.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn resource(&self, path: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let (stored, bytes) = match Resource::parse(path) {
            Some(Resource::Checkpoint) => return Ok(Some(self.head.note.clone().into_bytes())),
            Some(Resource::Tile { level, index, width }) => {
                (tables::bytes(&self.tiles, (level, index))?, width * HASH_SIZE)
            }
            Some(Resource::Entries { index, width }) => {
                (tables::bytes(&self.bundles, index)?, width * BUNDLE_ROW_BYTES)
            }
            None => return Ok(None),
        };
        Ok(stored.filter(|stored| stored.len() >= bytes).map(|mut stored| {
            stored.truncate(bytes);
            stored
        }))
    }

    pub(crate) fn note(&self) -> &str {
        &self.head.note
    }

    pub(crate) fn tiles(&self) -> &ReadOnlyTable<(u8, u64), &'static [u8]> {
        &self.tiles
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{append, folder, log_of, records};
    use tlog_tiles::Tile;

    #[test]
    fn resources_are_the_tiles_of_the_specification() {
        let (db, log) = log_of(300);
        let get = |path: &str| log.resource(path).unwrap();
        assert_eq!(get("checkpoint").unwrap(), log.checkpoint().unwrap().note().as_bytes());
        let full = get("tile/0/000").unwrap();
        assert_eq!(full.len(), 8192);
        assert_eq!(get("tile/1/000.p/1").unwrap(), Tile::subtree_hash(&full).0);
        assert_eq!(get("tile/0/001.p/44").unwrap().len(), 44 * 32);
        assert_eq!(get("tile/entries/001.p/44").unwrap().len(), 44 * 36);
        assert_eq!(get("tile/entries/000").unwrap().len(), 256 * 36);
        for absent in ["tile/0/001", "tile/0/001.p/45", "tile/1/000", "tile/2/000.p/1", "x"] {
            assert_eq!(get(absent), None, "{absent}");
        }
        // What was served for a smaller log is served still.
        let partial = get("tile/0/001.p/44");
        append(&db, &log, &records(300..600));
        assert_eq!(log.resource("tile/0/001.p/44").unwrap(), partial);
    }

    #[test]
    fn entries_hash_to_their_tile() {
        let (_, log) = log_of(10);
        let bundle = log.resource("tile/entries/000.p/10").unwrap().unwrap();
        let tile = log.resource("tile/0/000.p/10").unwrap().unwrap();
        for position in 0..10 {
            let hash = tlog_tiles::record_hash(tables::leaf_in(&bundle, position).unwrap());
            assert_eq!(hash.0, tile[position * 32..][..32]);
        }
    }

    /// Tessera's files under our paths, read by what reads our own tiles.
    #[test]
    fn recorded_tessera_tiles_lead_to_their_checkpoints() {
        let folder = folder().join("tessera/testdata/log");
        let key: VerifierKey = crate::fixtures::TESSERA_VKEY.parse().unwrap();
        for size in 1..=15u64 {
            let note = std::fs::read(folder.join(format!("checkpoint.{size}"))).unwrap();
            let checkpoint = SignedCheckpoint::open(&note, std::slice::from_ref(&key)).unwrap();
            let path = format!("tile/0/000.p/{size}");
            let width = size as usize;
            assert_eq!(Resource::parse(&path), Some(Resource::Tile { level: 0, index: 0, width }));
            let tile = std::fs::read(folder.join(path)).unwrap();
            let edge = crate::tree::Edge::load(
                size,
                |_, _| Ok::<_, WrongTile>(Some(tile.clone())),
                |wrong| wrong,
            );
            assert_eq!(edge.unwrap().root().unwrap(), checkpoint.root());
            let bundle = std::fs::read(folder.join(format!("tile/entries/000.p/{size}"))).unwrap();
            let mut rest = bundle.as_slice();
            for index in 0..size {
                let (length, after) = rest.split_first_chunk::<2>().unwrap();
                let (entry, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
                rest = after;
                let read = |_, _| Ok::<_, WrongTile>(Some(tile.clone()));
                let proof = StoredTiles::new(read).prove(size, index).unwrap();
                let (root, leaf) = (Hash(checkpoint.root()), tlog_tiles::record_hash(entry));
                tlog_tiles::check_record(&proof, size, root, index, leaf).unwrap();
            }
            assert!(rest.is_empty());
        }
    }
}
