//! The log's tiles and entries on one node.
//!
//! # Format
//! | table | key | value |
//! |---|---|---|
//! | `consortium.meta` | `applied` | the note of the checkpoint that the tables below lead to |
//! | | `published` | the newest checkpoint that readers are given, with its cosignatures |
//! | `consortium.tiles` | level u8, index u64 | the tile's hashes |
//! | `consortium.bundles` | index u64 | the C2SP entry bundle |
//! | `consortium.entries` | SHA-256 of an entry | its index u64 |
//!
//! Of a tile or bundle only the widest form is kept: a narrower one is its beginning, and is served as
//! such. A batch is applied in one durable transaction: tiles, bundles and the checkpoint are all there or
//! none. `haar-ledger export` writes the same as files for any web server; `haar fsck` checks these.
//!
//! # Trust
//! Nothing is trusted because it is here: on opening, the edge of the tree must hash to the signed root.

use super::{bytes_of_first, decode_entries};
use crate::checkpoint::{CheckpointError, Head, SignedCheckpoint};
use crate::resource::Resource;
use crate::tree::{Edge, StoredTiles, TILE_WIDTH, WrongTile};
use haar_identity::VerifierKey;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tlog_tiles::{HASH_SIZE, Hash};

pub(super) const META: TableDefinition<&str, &str> = TableDefinition::new("consortium.meta");
pub(super) const TILES: TableDefinition<(u8, u64), &[u8]> =
    TableDefinition::new("consortium.tiles");
pub(super) const BUNDLES: TableDefinition<u64, &[u8]> = TableDefinition::new("consortium.bundles");
pub(super) const ENTRIES: TableDefinition<[u8; 32], u64> =
    TableDefinition::new("consortium.entries");

pub(super) const APPLIED: &str = "applied";
pub(super) const PUBLISHED: &str = "published";

/// The most entries that one call of [`Tiles::entries`] returns.
pub const MAX_ENTRIES_READ: u64 = 65_536;

/// The tiles of one log. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Tiles {
    db: Arc<Database>,
    log: VerifierKey,
}

/// A checkpoint that readers are given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Published {
    /// How many entries.
    pub size: u64,
    /// The note, with its cosignatures.
    pub note: String,
}

/// Why tiles cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TilesError {
    /// The database failed.
    #[error("the ledger's database: {0}")]
    Database(#[from] redb::Error),
    /// The stored checkpoint is not one of this log.
    #[error("the stored checkpoint: {0}; restore the data directory from a backup")]
    Checkpoint(#[from] CheckpointError),
    /// A tile is missing, of the wrong width, or does not lead to the signed root.
    #[error(
        "tile {index} of level {level} is damaged: restore the data directory from a backup, or copy another node's"
    )]
    Tile {
        /// Its level.
        level: u8,
        /// Its index.
        index: u64,
    },
    /// A bundle of entries is missing or malformed.
    #[error(
        "entry bundle {index} is damaged: restore the data directory from a backup, or copy another node's"
    )]
    Bundle {
        /// Its index.
        index: u64,
    },
    /// The tiles do not hash to the signed root.
    #[error(
        "the tiles do not hash to the root that was signed: restore the data directory from a backup, or copy another node's"
    )]
    Root,
    /// Beyond the end of the log.
    #[error("there is no entry {index}: the log has {size} entries, counted from 0")]
    NoSuchEntry {
        /// What was asked for.
        index: u64,
        /// The log's size.
        size: u64,
    },
}

/// Why a batch was not applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// As for reading.
    #[error(transparent)]
    Tiles(#[from] TilesError),
    /// The batch does not lead from what is stored to the checkpoint.
    #[error("the batch does not lead to the checkpoint that was signed over it")]
    Mismatch,
}

impl From<WrongTile> for TilesError {
    fn from(WrongTile { level, index }: WrongTile) -> Self {
        Self::Tile { level, index }
    }
}

impl Tiles {
    /// The tiles of `log` in `db`, made if they are not there.
    ///
    /// # Errors
    /// If the database fails or holds what `log` did not sign.
    pub fn open(db: Arc<Database>, log: VerifierKey) -> Result<Self, TilesError> {
        let make = || -> Result<(), redb::Error> {
            let tx = db.begin_write()?;
            tx.open_table(META)?;
            tx.open_table(TILES)?;
            tx.open_table(BUNDLES)?;
            tx.open_table(ENTRIES)?;
            tx.commit()?;
            Ok(())
        };
        make()?;
        let tiles = Self { db, log };
        tiles.edge()?;
        Ok(tiles)
    }

    /// The log's key.
    pub fn log(&self) -> &VerifierKey {
        &self.log
    }

    /// The checkpoint that the tiles lead to; `None` of an empty log.
    ///
    /// # Errors
    /// If the database fails or holds what the log did not sign.
    pub fn applied(&self) -> Result<Option<SignedCheckpoint>, TilesError> {
        let Some(note) = self.meta(APPLIED)? else { return Ok(None) };
        Ok(Some(SignedCheckpoint::open(note.as_bytes(), std::slice::from_ref(&self.log))?))
    }

    /// The newest checkpoint that readers are given.
    ///
    /// # Errors
    /// If the database fails or holds what is no checkpoint.
    pub fn published(&self) -> Result<Option<Published>, TilesError> {
        let Some(note) = self.meta(PUBLISHED)? else { return Ok(None) };
        Ok(Some(Published { size: Head::open_stored(&note)?.size, note }))
    }

    /// The RFC 6962 root of the first `size` entries.
    ///
    /// # Errors
    /// If there are fewer or a tile is missing.
    pub fn root_at(&self, size: u64) -> Result<[u8; 32], TilesError> {
        let stored = StoredTiles::new(|level, index| self.row(TILES, (level, index)));
        Ok(stored.root(size)?.0)
    }

    /// Gives readers this checkpoint, with its cosignatures, unless they have a larger one.
    ///
    /// # Errors
    /// If it is not signed by the log, the tiles do not lead so far, or the database fails.
    pub fn publish(&self, note: &str) -> Result<(), TilesError> {
        let (head, _) = Head::open_cosigned(note.as_bytes(), std::slice::from_ref(&self.log))?;
        let size = self.applied()?.map_or(0, |applied| applied.size());
        if head.size > size {
            return Err(TilesError::NoSuchEntry { index: head.size - 1, size });
        }
        let tx = self.db.begin_write().map_err(redb::Error::from)?;
        {
            let mut meta = tx.open_table(META).map_err(redb::Error::from)?;
            let settled = match meta.get(PUBLISHED).map_err(redb::Error::from)? {
                Some(old) => {
                    old.value() == note || Head::open_stored(old.value())?.size > head.size
                }
                None => false,
            };
            if settled {
                return Ok(());
            }
            meta.insert(PUBLISHED, note).map_err(redb::Error::from)?;
        }
        tx.commit().map_err(redb::Error::from)?;
        Ok(())
    }

    /// Where an entry is, by the SHA-256 of its bytes.
    ///
    /// # Errors
    /// If the database fails.
    pub fn find_hash(&self, hash: &[u8; 32]) -> Result<Option<u64>, TilesError> {
        let find = || -> Result<Option<u64>, redb::Error> {
            let table = self.db.begin_read()?.open_table(ENTRIES)?;
            Ok(table.get(*hash)?.map(|index| index.value()))
        };
        Ok(find()?)
    }

    /// The entries from `first` on, up to the end of the tiles, at most [`MAX_ENTRIES_READ`].
    ///
    /// # Errors
    /// If a bundle is damaged or the database fails.
    pub fn entries(&self, first: u64) -> Result<Vec<Vec<u8>>, TilesError> {
        let size = self.applied()?.map_or(0, |applied| applied.size());
        let end = size.min(first.saturating_add(MAX_ENTRIES_READ));
        let table = self.db.begin_read().map_err(redb::Error::from)?;
        let table = table.open_table(BUNDLES).map_err(redb::Error::from)?;
        let mut entries = Vec::new();
        let mut at = first;
        while at < end {
            let index = at / TILE_WIDTH;
            let bundle = table.get(index).map_err(redb::Error::from)?;
            let bundle = bundle.ok_or(TilesError::Bundle { index })?;
            let all = decode_entries(bundle.value()).ok_or(TilesError::Bundle { index })?;
            let until = end.min((index + 1) * TILE_WIDTH);
            let range = (at % TILE_WIDTH) as usize..(until - index * TILE_WIDTH) as usize;
            let wanted = all.get(range).ok_or(TilesError::Bundle { index })?;
            entries.extend(wanted.iter().map(|entry| entry.to_vec()));
            at = until;
        }
        Ok(entries)
    }

    /// One entry.
    ///
    /// # Errors
    /// As [`Tiles::entries`], and if there is none.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, TilesError> {
        let size = self.applied()?.map_or(0, |applied| applied.size());
        let bundle = self.row(BUNDLES, index / TILE_WIDTH)?;
        let found = bundle.as_deref().and_then(decode_entries).and_then(|entries| {
            entries.get((index % TILE_WIDTH) as usize).map(|entry| entry.to_vec())
        });
        match found {
            Some(entry) if index < size => Ok(entry),
            _ if index >= size => Err(TilesError::NoSuchEntry { index, size }),
            _ => Err(TilesError::Bundle { index: index / TILE_WIDTH }),
        }
    }

    /// RFC 6962 inclusion proof of entry `index` in the tree of `size`, from the leaf's sibling up. What is
    /// damaged gives a proof that does not hold.
    ///
    /// # Errors
    /// If there is no such entry or a tile is missing.
    pub fn inclusion(&self, size: u64, index: u64) -> Result<Vec<[u8; 32]>, TilesError> {
        if index >= size {
            return Err(TilesError::NoSuchEntry { index, size });
        }
        let stored = StoredTiles::new(|level, index| self.row(TILES, (level, index)));
        Ok(stored.prove(size, index)?.into_iter().map(|hash| hash.0).collect())
    }

    /// RFC 6962 consistency proof from the tree of `old` to that of `new` leaves.
    ///
    /// # Errors
    /// If the sizes are no such pair or a tile is missing.
    pub fn consistency(&self, old: u64, new: u64) -> Result<Vec<[u8; 32]>, TilesError> {
        if old > new {
            return Err(TilesError::NoSuchEntry { index: old, size: new });
        }
        if old == 0 || old == new {
            return Ok(Vec::new());
        }
        let stored = StoredTiles::new(|level, index| self.row(TILES, (level, index)));
        Ok(stored.prove_consistency(new, old)?.into_iter().map(|hash| hash.0).collect())
    }

    /// What stands under a path of C2SP tlog-tiles; `None` if there is no such thing.
    ///
    /// # Errors
    /// If the database fails.
    pub fn resource(&self, path: &str) -> Result<Option<Vec<u8>>, TilesError> {
        match Resource::parse(path) {
            Some(Resource::Checkpoint) => Ok(self.meta(PUBLISHED)?.map(String::into_bytes)),
            Some(Resource::Tile { level, index, width }) => {
                let tile = self.row(TILES, (level, index))?;
                Ok(tile.and_then(|tile| tile.get(..width * HASH_SIZE).map(<[u8]>::to_vec)))
            }
            Some(Resource::Entries { index, width }) => {
                let bundle = self.row(BUNDLES, index)?;
                Ok(bundle.and_then(|mut bundle| {
                    let bytes = bytes_of_first(&bundle, width)?;
                    bundle.truncate(bytes);
                    Some(bundle)
                }))
            }
            None => Ok(None),
        }
    }

    /// The right edge of the tree, once it hashes to the root that was signed.
    pub(crate) fn edge(&self) -> Result<Edge, TilesError> {
        let Some(applied) = self.applied()? else { return Ok(Edge::empty()) };
        let read = |level, index| self.row(TILES, (level, index));
        let edge = Edge::load(applied.size(), read, TilesError::from)?;
        match edge.root() {
            Ok(root) if root == applied.root() => Ok(edge),
            _ => Err(TilesError::Root),
        }
    }

    /// Applies a batch to the tree whose edge is given, in one durable transaction. `grown` is what [`grow`] made
    /// of the two. The new edge.
    pub(crate) fn apply(
        &self,
        edge: &Edge,
        entries: &[&[u8]],
        grown: Grown,
        checkpoint: &SignedCheckpoint,
    ) -> Result<Edge, ApplyError> {
        let Grown { edge: grown, tiles } = grown;
        let fits = grown.size() == checkpoint.size()
            && grown.root().is_ok_and(|root| root == checkpoint.root());
        if !fits {
            return Err(ApplyError::Mismatch);
        }
        let write = || -> Result<(), TilesError> {
            let tx = self.db.begin_write().map_err(redb::Error::from)?;
            {
                let mut table = tx.open_table(TILES).map_err(redb::Error::from)?;
                for (level, index, hashes) in &tiles {
                    table.insert((*level, *index), hashes.as_slice()).map_err(redb::Error::from)?;
                }
                let mut table = tx.open_table(BUNDLES).map_err(redb::Error::from)?;
                extend_bundles(&mut table, edge.size(), entries)?;
                let mut table = tx.open_table(ENTRIES).map_err(redb::Error::from)?;
                let names = entries.iter().map(|entry| <[u8; 32]>::from(Sha256::digest(entry)));
                let mut names: Vec<_> = names.zip(edge.size()..).collect();
                // In the table's order, so that each of its pages is visited once.
                names.sort_unstable();
                for (name, index) in names {
                    table.insert(name, index).map_err(redb::Error::from)?;
                }
                let mut meta = tx.open_table(META).map_err(redb::Error::from)?;
                meta.insert(APPLIED, checkpoint.note()).map_err(redb::Error::from)?;
            }
            tx.commit().map_err(redb::Error::from)?;
            Ok(())
        };
        write()?;
        Ok(grown)
    }

    fn meta(&self, key: &str) -> Result<Option<String>, TilesError> {
        let read = || -> Result<Option<String>, redb::Error> {
            let table = self.db.begin_read()?.open_table(META)?;
            Ok(table.get(key)?.map(|note| note.value().to_owned()))
        };
        Ok(read()?)
    }

    fn row<K: redb::Key + 'static>(
        &self,
        table: TableDefinition<'static, K, &'static [u8]>,
        key: K::SelfType<'_>,
    ) -> Result<Option<Vec<u8>>, TilesError> {
        let tx = self.db.begin_read().map_err(redb::Error::from)?;
        let table = tx.open_table(table).map_err(redb::Error::from)?;
        let row = table.get(key).map_err(redb::Error::from)?;
        Ok(row.map(|row| row.value().to_vec()))
    }
}

/// A tree after a batch, and the tiles that changed.
pub(crate) struct Grown {
    pub(crate) edge: Edge,
    tiles: Vec<(u8, u64, Vec<u8>)>,
}

/// What the tree is after `entries`.
pub(crate) fn grow(edge: &Edge, entries: &[&[u8]]) -> Result<Grown, TilesError> {
    let mut edge = edge.clone();
    let mut tiles = Vec::new();
    let mut keep = |level, index, hashes: &[u8]| -> Result<(), TilesError> {
        tiles.push((level, index, hashes.to_vec()));
        Ok(())
    };
    for entry in entries {
        edge.push(tlog_tiles::record_hash(entry), &mut keep)?;
    }
    edge.flush(&mut keep)?;
    Ok(Grown { edge, tiles })
}

/// Adds entries to the bundles of a log of `size` entries.
fn extend_bundles(
    table: &mut redb::Table<'_, u64, &'static [u8]>,
    size: u64,
    mut entries: &[&[u8]],
) -> Result<(), TilesError> {
    let mut at = size;
    while !entries.is_empty() {
        let (index, begun) = (at / TILE_WIDTH, (at % TILE_WIDTH) as usize);
        let (now, later) = entries.split_at(entries.len().min(TILE_WIDTH as usize - begun));
        let mut bundle = match begun {
            0 => Vec::new(),
            _ => {
                let row = table.get(index).map_err(redb::Error::from)?;
                row.map(|row| row.value().to_vec()).unwrap_or_default()
            }
        };
        if bytes_of_first(&bundle, begun) != Some(bundle.len()) {
            return Err(TilesError::Bundle { index });
        }
        bundle.extend_from_slice(&super::encode_entries(now));
        table.insert(index, bundle.as_slice()).map_err(redb::Error::from)?;
        at += now.len() as u64;
        entries = later;
    }
    Ok(())
}

/// Whether `entry` is at `index` of the tree with this size and root, by an RFC 6962 inclusion proof.
pub fn included(path: &[[u8; 32]], size: u64, root: [u8; 32], index: u64, entry: &[u8]) -> bool {
    let path = path.iter().copied().map(Hash).collect();
    tlog_tiles::check_record(&path, size, Hash(root), index, tlog_tiles::record_hash(entry)).is_ok()
}
