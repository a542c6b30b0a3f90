//! Re-hashing a whole log.
//!
//! From the records up: record and key give the leaf, which must be the one in the entry bundle; the
//! leaves give the tiles of level 0, those the levels above, the last of each the root, and that must
//! be the signed one. The names table must say what the records say, and no table may hold a row that
//! a log of the signed size does not have. So no bit of a stored row is left unread.
//!
//! A problem does not stop the check. Where two of record, leaf and hash agree, the third is named as
//! the altered one and the check goes on with the two, so that one flipped bit is not a flood.
//!
//! # Damage below the tables
//! redb verifies its pages' checksums only when it repairs a file. On a page that was altered it may
//! return an error, return other rows, or (its slicing and its debug assertions) panic. Other rows are
//! found by the hashes. Panics are caught here: a damaged disk is precisely what fsck is for, and it
//! must end with a finding and go on with the other tables. Only reads run under the catch; what they
//! leave behind is thrown away.
//!
//! # Sealed records
//! They are opened with the records key. Of one whose patient was erased only kind, name and nonce can be held
//! against leaf and names table, and the erasure must itself be a leaf of the log; without a records key
//! that is so for all of them. How many those are is in the [`Report`].
//!
//! # Not found
//! A log that was put back as a whole to an earlier, once signed state.

use crate::checkpoint::{CheckpointError, Head, SignedCheckpoint};
use crate::leaf::{LeafKind, Name};
use crate::privacy::records_key::RecordsKey;
use crate::privacy::seal::Row;
use crate::tables::{
    self, BUNDLE_ROW_BYTES, BUNDLES, CHECKPOINT, META, NAME_ROW_BYTES, NAMES, RECORDS, TILES, VKEY,
};
use crate::tree::{Edge, TILE_WIDTH, hashes_at};
use crate::verify::Trust;
use haar_identity::VerifierKey;
use redb::{ReadableDatabase, TableError};
use rows::{Found, Rows, guarded};
use slots::{Content, Slots};
use std::convert::Infallible;
use tlog_tiles::{HASH_SIZE, Hash};

/// The most problems that a report holds; the rest are counted.
pub const MAX_PROBLEMS: usize = 1000;

/// What fsck found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The signed checkpoint, if it is in order.
    pub checkpoint: Option<SignedCheckpoint>,
    /// Whether its signer was pinned by the caller.
    pub key_pinned: bool,
    /// Leaves that were checked.
    pub leaves: u64,
    /// Leaves whose content was erased.
    pub erased: u64,
    /// Leaves whose content was not looked at, because it is sealed and no records key was given.
    pub locked: u64,
    /// The first [`MAX_PROBLEMS`], in the order found.
    pub problems: Vec<Problem>,
    /// How many more there were.
    pub omitted: u64,
}

impl Report {
    /// Whether all is as it was written.
    pub fn is_sound(&self) -> bool {
        self.checkpoint.is_some() && self.problems.is_empty()
    }
}

/// One thing that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The checkpoint does not hold.
    #[error("checkpoint: {0}")]
    Checkpoint(CheckpointError),
    /// There is no checkpoint.
    #[error("checkpoint: missing")]
    NoCheckpoint,
    /// The stored verifier key is missing, altered, or not among those given.
    #[error("verifier key: the stored one is missing, altered, or not a key that is trusted")]
    VerifierKey,
    /// The tree is another than the signed one.
    #[error("root: the leaves do not hash to the signed root")]
    Root,
    /// A tile is missing or of the wrong width.
    #[error("tile {level}/{index}: missing or of the wrong width")]
    Tile {
        /// Its level.
        level: u8,
        /// Its index in the level.
        index: u64,
    },
    /// A hash is not that of what is below it.
    #[error("tile {level}/{index}: hash {position} is not that of what lies below it")]
    Hash {
        /// The tile's level.
        level: u8,
        /// The tile's index in the level.
        index: u64,
        /// Which hash in it.
        position: u64,
    },
    /// A bundle is missing or of the wrong width.
    #[error("entry bundle {index}: missing or of the wrong width")]
    Bundle {
        /// Its index.
        index: u64,
    },
    /// A leaf is not the one that is in the tree.
    #[error("leaf {index}: the entry bundle holds another than is in the tree")]
    Leaf {
        /// Its index.
        index: u64,
    },
    /// A record is missing or does not open its leaf.
    #[error("record {index}: missing, or its bytes, name or key are not those committed to")]
    Record {
        /// Its leaf's index.
        index: u64,
    },
    /// A leaf cannot be found by its name.
    #[error("name of leaf {index}: missing in the names table")]
    Name {
        /// The leaf's index.
        index: u64,
    },
    /// A name leads to a leaf that does not bear it.
    #[error("names table: a row names leaf {index}, which does not bear that name")]
    StrayName {
        /// The leaf's index.
        index: u64,
    },
    /// A data key is missing or damaged, and no leaf says that it was destroyed.
    #[error("data key {slot}: missing or damaged, and not erased by a leaf that says so")]
    DataKey {
        /// Its slot.
        slot: u64,
    },
    /// The records are sealed under another key than the one given.
    #[error("records key: the records are sealed under another one; an erasure replaces it")]
    RecordsKey,
    /// A row that a log of this size does not have.
    #[error("{table}: a row {row} that does not belong to a log of this size")]
    StrayRow {
        /// The table.
        table: &'static str,
        /// The row's key.
        row: String,
    },
    /// The checkpoint that readers are given is not of this tree.
    #[error("published checkpoint: not signed by the log's key, or not of this tree")]
    Published,
    /// A table cannot be opened or read.
    #[error("{table}: the database is damaged or cannot be read: {cause}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// What the database said.
        cause: String,
    },
}

/// Why nothing was checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsckError {
    /// The database cannot be read at all.
    #[error("the database cannot be read: {0}")]
    Database(#[from] redb::Error),
    /// No log was ever created there.
    #[error("this database holds no site log; give the one in the fog's data directory")]
    NoLog,
    /// The database is damaged beyond reading.
    #[error("the database is damaged: {0}; restore it from a backup or the disk's mirror")]
    Damaged(String),
}

/// Checks every stored row of the log in `db`. Sealed records are opened with `records_key`. `progress` is
/// called with steps done and steps in all, at least once for every 256 leaves.
///
/// # Errors
/// If there is nothing that could be checked. What is wrong with a log is in the [`Report`].
pub fn fsck(
    db: &impl ReadableDatabase,
    trust: Trust<'_>,
    records_key: Option<&RecordsKey>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, FsckError> {
    let tx = guarded(|| db.begin_read()).map_err(FsckError::Damaged)?;
    let tx = tx.map_err(redb::Error::from)?;
    if let Ok(Err(TableError::TableDoesNotExist(_))) = guarded(|| tx.open_table(META))
        && let Ok(Err(TableError::TableDoesNotExist(_))) = guarded(|| tx.open_table(RECORDS))
    {
        return Err(FsckError::NoLog);
    }
    let mut found = Found::default();
    let meta = Rows::open(&tx, "site_log.meta", META, &mut found);
    let (checkpoint, head) = check_signature(&meta, trust, &mut found);
    let slots = Slots::check(&tx, records_key, &mut found);
    let log = Log {
        slots,
        tiles: Rows::open(&tx, "site_log.tiles", TILES, &mut found),
        bundles: Rows::open(&tx, "site_log.bundles", BUNDLES, &mut found),
        records: Rows::open(&tx, "site_log.records", RECORDS, &mut found),
        names: Rows::open(&tx, "site_log.names", NAMES, &mut found),
    };
    // An unsigned size is no reason to look for as many leaves.
    let leaves = match &checkpoint {
        Some(checkpoint) => checkpoint.size(),
        None => log.records.len(&mut found),
    };
    let root = log.check_leaves(leaves, &mut found, &mut |done| progress(done, leaves * 2));
    if head.is_some_and(|head| root != Some(head.root)) {
        found.problem(Problem::Root);
    }
    log.check_strays(leaves, &mut found);
    log.check_erasures(leaves, &mut found);
    log.check_names(leaves, &mut found, &mut |done| progress(leaves + done, leaves * 2));
    progress(leaves * 2, leaves * 2);
    let key_pinned = !matches!(trust, Trust::Unpinned) && checkpoint.is_some();
    let Found { problems, omitted, erased, locked } = found;
    Ok(Report { checkpoint, key_pinned, leaves, erased, locked, problems, omitted })
}

struct Log {
    slots: Slots,
    tiles: Rows<(u8, u64), &'static [u8]>,
    bundles: Rows<u64, &'static [u8]>,
    records: Rows<u64, &'static [u8]>,
    names: Rows<&'static [u8; NAME_ROW_BYTES], ()>,
}

impl Log {
    /// Checks records, names of records, leaves and tiles; returns the root.
    fn check_leaves(
        &self,
        size: u64,
        found: &mut Found,
        progress: &mut dyn FnMut(u64),
    ) -> Option<[u8; 32]> {
        let mut edge = Edge::empty();
        let mut filled = Vec::new();
        for bundle in 0..size.div_ceil(TILE_WIDTH) {
            let first = bundle * TILE_WIDTH;
            let width = TILE_WIDTH.min(size - first);
            for hash in self.check_bundle(first, width, found) {
                let Ok(()) = edge.push(hash, |level, index, hashes| {
                    filled.push((level, index, hashes.to_vec()));
                    Ok::<_, Infallible>(())
                });
            }
            for (level, index, hashes) in filled.drain(..) {
                self.check_tile(level, index, &hashes, found);
            }
            progress(first + width);
        }
        let Ok(()) = edge.flush(|level, index, hashes| {
            self.check_tile(level, index, hashes, found);
            Ok::<_, Infallible>(())
        });
        edge.root().ok()
    }

    /// Checks the leaves from `first` on; returns their hashes, as well as can be told.
    fn check_bundle(&self, first: u64, width: u64, found: &mut Found) -> Vec<Hash> {
        let index = first / TILE_WIDTH;
        let bundle = self.bundles.bytes(index, found).unwrap_or_default();
        if bundle.len() as u64 != width * BUNDLE_ROW_BYTES as u64 {
            found.problem(Problem::Bundle { index });
        }
        let tile = self.tiles.bytes((0, index), found).unwrap_or_default();
        if tile.len() as u64 != width * HASH_SIZE as u64 {
            found.problem(Problem::Tile { level: 0, index });
        }
        (0..width as usize)
            .map(|position| {
                let leaf = tables::leaf_in(&bundle, position);
                let hashes = (leaf_hash_in(&bundle, position), hash_in(&tile, position));
                self.check_leaf(first + position as u64, leaf, hashes, found)
            })
            .collect()
    }

    /// Checks one record against the leaf in the bundle, and the hashes of that and in the tile; returns
    /// the hash that two of the three agree on.
    fn check_leaf(
        &self,
        index: u64,
        bytes: Option<&[u8]>,
        (leaf, stored): (Option<Hash>, Option<Hash>),
        found: &mut Found,
    ) -> Hash {
        let row = self.records.bytes(index, found).unwrap_or_default();
        let row = Row::decode(&row);
        let content = row.as_ref().map_or(Content::Damaged, |row| self.slots.read(index, row));
        let opened = content.record().map(|record| tlog_tiles::record_hash(&record.leaf()));
        let hash = if opened.is_some() && (opened == leaf || opened == stored) {
            opened
        } else {
            stored.or(leaf).or(opened)
        };
        let fits = match (&content, &row) {
            (Content::Record(_), _) => opened == hash,
            // Against a leaf that was itself altered it cannot be held.
            (Content::Erased | Content::Locked, Some(Row::Sealed(sealed))) => {
                leaf != hash || bytes.is_some_and(|leaf| sealed.may_open(leaf))
            }
            _ => false,
        };
        found.erased += u64::from(matches!(content, Content::Erased));
        found.locked += u64::from(matches!(content, Content::Locked));
        if !fits {
            found.problem(Problem::Record { index });
        } else if let Some(row) = row {
            let row = tables::name_row(&row.name(), index);
            let name = self.names.read(found, |names| Ok(names.get(&row)?.is_some()));
            if name != Some(true) {
                found.problem(Problem::Name { index });
            }
        }
        // What is not there at all has been named with its bundle or tile.
        if leaf.is_some() && leaf != hash {
            found.problem(Problem::Leaf { index });
        }
        if stored.is_some() && stored != hash {
            let (tile, position) = (index / TILE_WIDTH, index % TILE_WIDTH);
            found.problem(Problem::Hash { level: 0, index: tile, position });
        }
        hash.unwrap_or_default()
    }

    /// Checks a tile above level 0 against what the tiles below it hash to.
    fn check_tile(&self, level: u8, index: u64, expected: &[u8], found: &mut Found) {
        if level == 0 {
            return;
        }
        let tile = self.tiles.bytes((level, index), found).unwrap_or_default();
        if tile.len() != expected.len() {
            found.problem(Problem::Tile { level, index });
        }
        for position in 0..expected.len() / HASH_SIZE {
            let stored = hash_in(&tile, position);
            if stored.is_some() && stored != hash_in(expected, position) {
                found.problem(Problem::Hash { level, index, position: position as u64 });
            }
        }
    }

    /// Looks for rows that a log of this size does not have.
    fn check_strays(&self, size: u64, found: &mut Found) {
        let stray = |found: &mut Found, table, row: String| {
            found.problem(Problem::StrayRow { table, row });
        };
        self.tiles.each_key(found, |found, (level, index)| {
            if index >= hashes_at(size, level).div_ceil(TILE_WIDTH) {
                stray(found, self.tiles.name, format!("{level}/{index}"));
            }
        });
        self.bundles.each_key(found, |found, index| {
            if index >= size.div_ceil(TILE_WIDTH) {
                stray(found, self.bundles.name, index.to_string());
            }
        });
        self.records.each_key(found, |found, index| {
            if index >= size {
                stray(found, self.records.name, index.to_string());
            }
        });
    }

    /// Checks that what is said to be erased is so by a leaf.
    fn check_erasures(&self, size: u64, found: &mut Found) {
        for (slot, index) in self.slots.erasures() {
            let row = self.records.bytes(index, found).unwrap_or_default();
            let row = Row::decode(&row).filter(|_| index < size);
            let says_so = match row.as_ref().map(|row| self.slots.read(index, row)) {
                Some(Content::Record(record)) => slots::says_erased(&record, slot),
                Some(Content::Locked) => matches!(
                    &row,
                    Some(Row::Sealed(sealed)) if sealed.kind == LeafKind::Erasure
                ),
                _ => false,
            };
            if !says_so {
                found.problem(Problem::DataKey { slot });
            }
        }
    }

    /// Checks that every name leads to a leaf that bears it. That every leaf is found by its name was
    /// checked with the leaf.
    fn check_names(&self, size: u64, found: &mut Found, progress: &mut dyn FnMut(u64)) {
        let mut done = 0;
        self.names.each_key(found, |found, row| {
            let (name, index) = tables::split_name_row(row);
            if index >= size || self.name_of(index, found).is_some_and(|known| known != name) {
                found.problem(Problem::StrayName { index });
            }
            done += 1;
            if done % TILE_WIDTH == 0 {
                progress(done.min(size));
            }
        });
    }

    fn name_of(&self, index: u64, found: &mut Found) -> Option<Name> {
        let row = self.records.bytes(index, found)?;
        Row::decode(&row).map(|row| row.name())
    }
}

/// Checks key and checkpoint; returns the checkpoint if it holds, and what it says if it can be read.
fn check_signature(
    meta: &Rows<&'static str, &'static [u8]>,
    trust: Trust<'_>,
    found: &mut Found,
) -> (Option<SignedCheckpoint>, Option<Head>) {
    let stored = meta.bytes(VKEY, found).and_then(|text| String::from_utf8(text).ok());
    let stored: Option<VerifierKey> = stored.and_then(|text| text.parse().ok());
    let of_policy: Vec<_> = match trust {
        Trust::Policy(policy) => policy.logs().iter().map(|log| log.key.clone()).collect(),
        _ => Vec::new(),
    };
    let keys = match trust {
        Trust::Pinned(keys) => keys,
        // The stored checkpoint has no cosignatures; the policy's log keys count.
        Trust::Policy(_) => &of_policy,
        Trust::Unpinned => stored.as_slice(),
    };
    if !stored.as_ref().is_some_and(|stored| keys.contains(stored)) {
        found.problem(Problem::VerifierKey);
    }
    meta.each_key(found, |found, key| {
        if key != CHECKPOINT && key != VKEY {
            found.problem(Problem::StrayRow { table: meta.name, row: key.to_owned() });
        }
    });
    let Some(note) = meta.bytes(CHECKPOINT, found) else {
        found.problem(Problem::NoCheckpoint);
        return (None, None);
    };
    match SignedCheckpoint::open(&note, keys) {
        Ok(checkpoint) => (Some(checkpoint), Head::parse(&note).ok()),
        Err(error) => {
            found.problem(Problem::Checkpoint(error));
            (None, Head::parse(&note).ok())
        }
    }
}

/// The hash of a leaf in a bundle; one that no leaf has where its length was altered.
fn leaf_hash_in(bundle: &[u8], position: usize) -> Option<Hash> {
    bundle.chunks_exact(BUNDLE_ROW_BYTES).nth(position)?;
    Some(tables::leaf_in(bundle, position).map_or(Hash::default(), tlog_tiles::record_hash))
}

fn hash_in(tile: &[u8], position: usize) -> Option<Hash> {
    let bytes = tile.chunks_exact(HASH_SIZE).nth(position)?;
    Some(Hash(bytes.try_into().ok()?))
}

pub(crate) mod rows;
mod slots;
#[cfg(test)]
mod tests;
