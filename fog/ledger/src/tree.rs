//! The RFC 6962 tree as C2SP tiles: its right edge, which is all that an append touches.
//!
//! Hashing and proofs are `tlog_tiles`'; here is only which hash lies in which tile. A tile at level
//! `l` has up to 256 hashes of subtrees of 256^l leaves; a full one is hashed into the level above.
//! The root of a tree of any size needs nothing but the last tile of each level, the [`Edge`].
//!
//! Append and fsck push leaf hashes through the same edge: what the one writes, the other expects.

use std::cell::RefCell;
use tlog_tiles::{HASH_SIZE, Hash, HashReader, Tile};

/// Height of a tile (C2SP tlog-tiles): 256 hashes wide.
pub(crate) const TILE_HEIGHT: u8 = 8;

/// Hashes in a full tile, leaves in a full bundle.
pub(crate) const TILE_WIDTH: u64 = 1 << TILE_HEIGHT;

/// Bytes of a full tile.
pub(crate) const TILE_BYTES: usize = HASH_SIZE << TILE_HEIGHT;

/// The most leaves in one log: 256^5, over a thousand years at thirty leaves a second. Bounds levels.
pub const MAX_LEAVES: u64 = 1 << 40;

/// The last, partial tile of every level.
#[derive(Clone)]
pub(crate) struct Edge {
    size: u64,
    levels: Vec<Level>,
}

#[derive(Clone, Default)]
struct Level {
    /// Fewer than [`TILE_BYTES`].
    hashes: Vec<u8>,
    changed: bool,
}

/// The last tile of a level is not there or not as wide as the tree's size wants it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrongTile {
    pub(crate) level: u8,
    pub(crate) index: u64,
}

impl Edge {
    /// The edge of the empty tree.
    pub(crate) fn empty() -> Self {
        Self { size: 0, levels: Vec::new() }
    }

    /// The edge of a tree of `size` leaves; `read` gives a tile as it is stored.
    pub(crate) fn load<E>(
        size: u64,
        mut read: impl FnMut(u8, u64) -> Result<Option<Vec<u8>>, E>,
        wrong: impl FnOnce(WrongTile) -> E,
    ) -> Result<Self, E> {
        let mut levels = Vec::new();
        for level in 0.. {
            let width = hashes_at(size, level);
            if width == 0 {
                break;
            }
            let bytes = (width % TILE_WIDTH) as usize * HASH_SIZE;
            let index = width / TILE_WIDTH;
            let hashes = match bytes {
                0 => Vec::new(),
                _ => read(level, index)?.unwrap_or_default(),
            };
            if hashes.len() != bytes {
                return Err(wrong(WrongTile { level, index }));
            }
            levels.push(Level { hashes, changed: false });
        }
        Ok(Self { size, levels })
    }

    /// Leaves in the tree.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf's hash; `full` is given each tile that it fills: level, index, bytes.
    pub(crate) fn push<E>(
        &mut self,
        mut hash: Hash,
        mut full: impl FnMut(u8, u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut level = 0;
        loop {
            if self.levels.len() == level {
                self.levels.push(Level::default());
            }
            let index = self.tile_index(level);
            let row = &mut self.levels[level];
            row.hashes.extend_from_slice(&hash.0);
            row.changed = true;
            if row.hashes.len() < TILE_BYTES {
                break;
            }
            full(level as u8, index, &row.hashes)?;
            hash = Tile::subtree_hash(&row.hashes);
            row.hashes.clear();
            level += 1;
        }
        self.size += 1;
        Ok(())
    }

    /// Gives the partial tiles that pushes have changed: level, index, bytes.
    pub(crate) fn flush<E>(
        &mut self,
        mut partial: impl FnMut(u8, u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for level in 0..self.levels.len() {
            let index = self.tile_index(level);
            let row = &mut self.levels[level];
            if std::mem::take(&mut row.changed) && !row.hashes.is_empty() {
                partial(level as u8, index, &row.hashes)?;
            }
        }
        Ok(())
    }

    /// The tree's root.
    pub(crate) fn root(&self) -> Result<[u8; 32], tlog_tiles::Error> {
        tlog_tiles::tree_hash(self.size, self).map(|hash| hash.0)
    }

    /// The index of the tile of this level that holds, or will hold, the next leaf.
    fn tile_index(&self, level: usize) -> u64 {
        self.size >> (usize::from(TILE_HEIGHT) * (level + 1))
    }
}

impl HashReader for Edge {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let hash = |&index: &u64| {
            let wanted = Tile::from_index(TILE_HEIGHT, index);
            let level = usize::from(wanted.level());
            match self.levels.get(level) {
                Some(row) if wanted.level_index() == self.tile_index(level) => {
                    hash_in(&row.hashes, index)
                }
                _ => Err(tlog_tiles::Error::IndexesNotInTree),
            }
        };
        indexes.iter().map(hash).collect()
    }
}

/// Reads hashes out of stored tiles, for `tlog_tiles` to make proofs of. It trusts the tiles: check
/// what comes out of it.
pub(crate) struct StoredTiles<F, E> {
    read: F,
    /// `tlog_tiles` has no room in its error for ours, so ours waits here.
    failure: RefCell<Option<E>>,
}

impl<F, E> StoredTiles<F, E>
where
    F: Fn(u8, u64) -> Result<Option<Vec<u8>>, E>,
    E: From<WrongTile>,
{
    pub(crate) fn new(read: F) -> Self {
        Self { read, failure: RefCell::new(None) }
    }

    /// The inclusion proof of leaf `index` in the tree of `size` leaves.
    pub(crate) fn prove(self, size: u64, index: u64) -> Result<Vec<Hash>, E> {
        tlog_tiles::prove_record(size, index, &self).map_err(|_| {
            // No failure of ours means that the tile of this leaf did not hold what was asked for.
            let wrong = WrongTile { level: 0, index: index / TILE_WIDTH };
            self.failure.take().unwrap_or_else(|| wrong.into())
        })
    }

    /// The root of the tree of `size` leaves.
    pub(crate) fn root(self, size: u64) -> Result<Hash, E> {
        tlog_tiles::tree_hash(size, &self).map_err(|_| {
            let wrong = WrongTile { level: 0, index: size / TILE_WIDTH };
            self.failure.take().unwrap_or_else(|| wrong.into())
        })
    }

    /// The consistency proof from the tree of `old` to that of `new` leaves, neither empty nor equal.
    pub(crate) fn prove_consistency(self, new: u64, old: u64) -> Result<Vec<Hash>, E> {
        tlog_tiles::prove_tree(new, old, &self).map_err(|_| {
            let wrong = WrongTile { level: 0, index: old / TILE_WIDTH };
            self.failure.take().unwrap_or_else(|| wrong.into())
        })
    }

    fn hash(&self, index: u64) -> Result<Hash, E> {
        let wanted = Tile::from_index(TILE_HEIGHT, index);
        let (level, tile) = (wanted.level(), wanted.level_index());
        let data = (self.read)(level, tile)?.unwrap_or_default();
        hash_in(&data, index).map_err(|_| WrongTile { level, index: tile }.into())
    }
}

impl<F, E> HashReader for StoredTiles<F, E>
where
    F: Fn(u8, u64) -> Result<Option<Vec<u8>>, E>,
    E: From<WrongTile>,
{
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let read = indexes.iter().map(|&index| self.hash(index)).collect::<Result<_, E>>();
        read.map_err(|error| {
            *self.failure.borrow_mut() = Some(error);
            tlog_tiles::Error::InvalidTile
        })
    }
}

/// How many hashes a tree of `size` leaves has in its tiles of `level`.
pub(crate) fn hashes_at(size: u64, level: u8) -> u64 {
    size.checked_shr(u32::from(TILE_HEIGHT) * u32::from(level)).unwrap_or(0)
}

/// The hash with this `tlog_tiles` storage index, from the bytes of its tile.
fn hash_in(data: &[u8], index: u64) -> Result<Hash, tlog_tiles::Error> {
    let wanted = Tile::from_index(TILE_HEIGHT, index);
    let width = data.len() / HASH_SIZE;
    if width == 0 || !data.len().is_multiple_of(HASH_SIZE) || data.len() > TILE_BYTES {
        return Err(tlog_tiles::Error::InvalidTile);
    }
    Tile::new(TILE_HEIGHT, wanted.level(), wanted.level_index(), width as u32, false)
        .hash_at_index(data, index)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    /// MTH of RFC 6962, section 2.1, word for word, on leaf hashes.
    pub(crate) fn naive_root(leaf_hashes: &[[u8; 32]]) -> [u8; 32] {
        match leaf_hashes {
            [] => Sha256::digest([]).into(),
            [only] => *only,
            _ => {
                let split = leaf_hashes.len().next_power_of_two() / 2;
                let (left, right) = leaf_hashes.split_at(split);
                let mut hash = Sha256::new();
                hash.update([1]);
                hash.update(naive_root(left));
                hash.update(naive_root(right));
                hash.finalize().into()
            }
        }
    }

    fn store(
        tiles: &mut BTreeMap<(u8, u64), Vec<u8>>,
    ) -> impl FnMut(u8, u64, &[u8]) -> Result<(), Infallible> {
        |level, index, data| {
            tiles.insert((level, index), data.to_vec());
            Ok(())
        }
    }

    #[test]
    fn roots_tiles_and_proofs_of_every_small_size() {
        let mut edge = Edge::empty();
        let mut tiles = BTreeMap::new();
        let mut hashes = Vec::new();
        for size in 0..=600u64 {
            let root = naive_root(&hashes);
            assert_eq!(edge.root().unwrap(), root, "size {size}");
            let read = |level, index| Ok::<_, WrongTile>(tiles.get(&(level, index)).cloned());
            let loaded = Edge::load(size, read, |wrong| wrong);
            assert_eq!(loaded.unwrap().root().unwrap(), root, "size {size}, loaded");
            for index in (0..size).filter(|index| index % 37 == 0 || index + 2 > size) {
                let read = |level, tile| Ok::<_, WrongTile>(tiles.get(&(level, tile)).cloned());
                let proof = StoredTiles::new(read).prove(size, index).unwrap();
                let leaf = Hash(hashes[index as usize]);
                tlog_tiles::check_record(&proof, size, Hash(root), index, leaf).unwrap();
            }
            let hash = tlog_tiles::record_hash(&size.to_be_bytes());
            hashes.push(hash.0);
            edge.push(hash, store(&mut tiles)).unwrap();
            edge.flush(store(&mut tiles)).unwrap();
        }
    }

    #[test]
    fn three_levels_of_tiles() {
        let size = 70_000u64;
        let (mut edge, mut tiles) = (Edge::empty(), BTreeMap::new());
        let hash = |n: u64| tlog_tiles::record_hash(&n.to_be_bytes());
        for n in 0..size {
            edge.push(hash(n), store(&mut tiles)).unwrap();
        }
        edge.flush(store(&mut tiles)).unwrap();
        let hashes: Vec<_> = (0..size).map(|n| hash(n).0).collect();
        assert_eq!(edge.root().unwrap(), naive_root(&hashes));
        // The example of C2SP tlog-tiles, "Partial Tiles".
        let full = |level| {
            let of_level = tiles.iter().filter(|(key, _)| key.0 == level);
            of_level.filter(|(_, data)| data.len() == TILE_BYTES).count()
        };
        assert_eq!((full(0), full(1), full(2)), (273, 1, 0));
        assert_eq!(tiles[&(0, 273)].len(), 112 * HASH_SIZE);
        assert_eq!(tiles[&(1, 1)].len(), 17 * HASH_SIZE);
        assert_eq!(tiles[&(2, 0)].len(), HASH_SIZE);
    }

    #[test]
    fn recorded_rfc6962_roots() {
        let file = crate::fixtures::folder().join("rfc6962_vectors.json");
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let texts =
            |key: &str| -> Vec<String> { serde_json::from_value(json[key].clone()).unwrap() };
        let (leaves, roots) = (texts("leaf_inputs_hex"), texts("root_hash_hex_by_size"));
        assert_eq!((leaves.len(), roots.len()), (8, 9));
        let mut edge = Edge::empty();
        for (size, root) in roots.iter().enumerate() {
            assert_eq!(&hex::encode(edge.root().unwrap()), root, "size {size}");
            if let Some(leaf) = leaves.get(size) {
                let hash = tlog_tiles::record_hash(&hex::decode(leaf).unwrap());
                edge.push(hash, |_, _, _| Ok::<_, Infallible>(())).unwrap();
            }
        }
    }
}
