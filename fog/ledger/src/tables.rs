//! What the site log keeps in the fog's database.
//!
//! # Format
//! | table | key | value |
//! |---|---|---|
//! | `site_log.meta` | `checkpoint` | the signed note |
//! | | `vkey` | the log's verifier key, as text |
//! | `site_log.tiles` | level u8, index u64 | the tile's hashes, 32 bytes each, 256 in a full tile |
//! | `site_log.bundles` | index u64 | the C2SP entry bundle: u16 big-endian length and leaf, 256 times |
//! | `site_log.records` | leaf index u64 | version u8 = 1, kind u8, name [u8; 32], key [u8; 32], body |
//! | `site_log.names` | name [u8; 32], leaf index u64 big-endian | nothing |
//!
//! Of a tile or bundle only the widest form is kept: a narrower one is its beginning.
//!
//! # Trust
//! Nothing here is trusted because it is here. Tiles and leaves are bound by the checkpoint's
//! signature, name, key and body by their leaf, and the names table must be what the records say.

use crate::checkpoint::CheckpointError;
use crate::leaf::{self, LEAF_BYTES, LeafKey, LeafKind, MAX_BODY_BYTES, Name};
use crate::tree::WrongTile;
use redb::{ReadableTable, TableDefinition};
use std::fmt;

pub(crate) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("site_log.meta");
pub(crate) const TILES: TableDefinition<(u8, u64), &[u8]> = TableDefinition::new("site_log.tiles");
pub(crate) const BUNDLES: TableDefinition<u64, &[u8]> = TableDefinition::new("site_log.bundles");
pub(crate) const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("site_log.records");
pub(crate) const NAMES: TableDefinition<&[u8; NAME_ROW_BYTES], ()> =
    TableDefinition::new("site_log.names");

/// The rows of [`META`].
pub(crate) const CHECKPOINT: &str = "checkpoint";
pub(crate) const VKEY: &str = "vkey";

pub(crate) const NAME_ROW_BYTES: usize = 40;

/// Bytes of one leaf in a bundle, its length in front.
pub(crate) const BUNDLE_ROW_BYTES: usize = 2 + LEAF_BYTES;

const RECORD_VERSION: u8 = 1;
const RECORD_HEAD_BYTES: usize = 66;

/// What lies beside a leaf: enough to open its commitment.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub kind: LeafKind,
    /// The name under which it is found.
    pub name: Name,
    /// The key of its commitment. Whoever has it and guesses the body can confirm the guess.
    pub key: LeafKey,
    /// The bytes committed to; the ledger never looks inside.
    pub body: Vec<u8>,
}

impl Record {
    /// The leaf that commits to this.
    pub fn leaf(&self) -> [u8; LEAF_BYTES] {
        leaf::leaf(self.kind, &self.name, &self.body, &self.key)
    }

    /// Writes the row's bytes over what is in `row`.
    pub(crate) fn encode_into(&self, row: &mut Vec<u8>) {
        row.clear();
        row.extend_from_slice(&[RECORD_VERSION, self.kind.byte()]);
        row.extend_from_slice(&self.name);
        row.extend_from_slice(&self.key);
        row.extend_from_slice(&self.body);
    }

    /// Reads a row; `None` if it is none.
    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        if !(RECORD_HEAD_BYTES..=RECORD_HEAD_BYTES + MAX_BODY_BYTES).contains(&row.len()) {
            return None;
        }
        let (head, body) = row.split_at(RECORD_HEAD_BYTES);
        if head[0] != RECORD_VERSION {
            return None;
        }
        Some(Self {
            kind: LeafKind::from_byte(head[1])?,
            name: head[2..34].try_into().ok()?,
            key: head[34..66].try_into().ok()?,
            body: body.to_vec(),
        })
    }
}

impl fmt::Debug for Record {
    /// Neither name nor key nor body: they are about a patient.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}, {} bytes)", self.kind, self.body.len())
    }
}

/// Something stored is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The checkpoint or the verifier key.
    #[error("the stored checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// There is a log's content but no checkpoint, or no verifier key.
    #[error("the stored checkpoint or verifier key is missing")]
    NoCheckpoint,
    /// A tile of hashes.
    #[error("tile {index} of level {level} is missing or of the wrong width")]
    Tile {
        /// Its level.
        level: u8,
        /// Its index in the level.
        index: u64,
    },
    /// A bundle of leaves.
    #[error("entry bundle {index} is missing or of the wrong width")]
    Bundle {
        /// Its index.
        index: u64,
    },
    /// The tiles do not hash to the signed root.
    #[error("the tiles do not hash to the root that was signed")]
    Root,
    /// The record does not open its leaf, or the leaf is not in the tree.
    #[error("leaf {index} and what is stored beside it do not fit together")]
    Record {
        /// The leaf's index.
        index: u64,
    },
}

impl From<WrongTile> for Damage {
    fn from(WrongTile { level, index }: WrongTile) -> Self {
        Self::Tile { level, index }
    }
}

/// The key of a row of [`NAMES`].
pub(crate) fn name_row(name: &Name, index: u64) -> [u8; NAME_ROW_BYTES] {
    let mut row = [0; NAME_ROW_BYTES];
    row[..32].copy_from_slice(name);
    row[32..].copy_from_slice(&index.to_be_bytes());
    row
}

/// The parts of a key of [`NAMES`].
pub(crate) fn split_name_row(row: &[u8; NAME_ROW_BYTES]) -> (Name, u64) {
    let (mut name, mut index) = ([0; 32], [0; 8]);
    name.copy_from_slice(&row[..32]);
    index.copy_from_slice(&row[32..]);
    (name, u64::from_be_bytes(index))
}

/// Appends a leaf to a bundle.
pub(crate) fn extend_bundle(bundle: &mut Vec<u8>, leaf: &[u8; LEAF_BYTES]) {
    bundle.extend_from_slice(&(LEAF_BYTES as u16).to_be_bytes());
    bundle.extend_from_slice(leaf);
}

/// Leaf `position` of a bundle; `None` if there is none or its length is not a leaf's.
pub(crate) fn leaf_in(bundle: &[u8], position: usize) -> Option<&[u8]> {
    let row = bundle.chunks_exact(BUNDLE_ROW_BYTES).nth(position)?;
    row.strip_prefix(&(LEAF_BYTES as u16).to_be_bytes())
}

/// A tile or bundle as it is stored.
pub(crate) fn bytes<K: redb::Key + 'static>(
    table: &impl ReadableTable<K, &'static [u8]>,
    key: K::SelfType<'_>,
) -> Result<Option<Vec<u8>>, redb::StorageError> {
    Ok(table.get(key)?.map(|value| value.value().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_as_documented() {
        let record =
            Record { kind: LeafKind::Correction, name: [1; 32], key: [2; 32], body: b"hi".into() };
        let mut row = vec![9; 3];
        record.encode_into(&mut row);
        let expected = [&[1, 3][..], &[1; 32], &[2; 32], b"hi"].concat();
        assert_eq!(row, expected);
        assert_eq!(Record::decode(&row), Some(record));
        assert_eq!(Record::decode(&row[..65]), None);
        assert_eq!(split_name_row(&name_row(&[7; 32], 258)), ([7; 32], 258));
        assert_eq!(name_row(&[7; 32], 258)[32..], [0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn a_record_does_not_print_what_it_holds() {
        let record =
            Record { kind: LeafKind::Correction, name: [1; 32], key: [2; 32], body: b"hi".into() };
        assert_eq!(format!("{record:?}"), "Record(correction, 2 bytes)");
    }
}
