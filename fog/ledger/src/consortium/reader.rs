//! Reading a log from elsewhere.
//!
//! [`Reader`] fetches what a node serves; nothing that it fetches is trusted. [`Copy`] follows a log entry by
//! entry into [`Tiles`] of its own: what it applied hashes to a root that the log signed. That is what a
//! mirror stores, and what a monitor and a site read the log's rules from.

use super::decode_entries;
use super::folder::entries_path;
use super::tiles::{ApplyError, Tiles, TilesError, grow};
use crate::checkpoint::{CheckpointError, Head, SignedCheckpoint};
use crate::client::{Client, FetchError};
use crate::tree::{Edge, TILE_WIDTH};

/// The most entries that a copy takes in one step: all of them are in memory until they are checked.
pub const MAX_ADVANCE: u64 = 1 << 20;

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadLogError {
    /// The node could not be asked.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A bundle of entries is not one.
    #[error("entry bundle {index} of {url} is malformed")]
    Bundle {
        /// Whose.
        url: String,
        /// Its index.
        index: u64,
    },
}

/// Fetches a log's tiles from a node.
#[derive(Clone, Debug)]
pub struct Reader {
    client: Client,
}

impl Reader {
    /// Reads from this node.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The node.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Entries from `first` up to (not including) `end`, of a tree of `size`; not checked.
    ///
    /// # Errors
    /// If the node does not serve them.
    pub async fn entries(
        &self,
        size: u64,
        first: u64,
        end: u64,
    ) -> Result<Vec<Vec<u8>>, ReadLogError> {
        let mut entries = Vec::new();
        let mut at = first;
        while at < end {
            let index = at / TILE_WIDTH;
            let width = (size - index * TILE_WIDTH).min(TILE_WIDTH);
            let bundle = self.client.get(&format!("/{}", entries_path(index, width))).await?;
            let malformed = || ReadLogError::Bundle { url: self.client.url().to_owned(), index };
            let all = decode_entries(&bundle).ok_or_else(malformed)?;
            if all.len() as u64 != width {
                return Err(malformed());
            }
            let until = end.min((index + 1) * TILE_WIDTH);
            let range = (at % TILE_WIDTH) as usize..(until - index * TILE_WIDTH) as usize;
            entries.extend(all[range].iter().map(|entry| entry.to_vec()));
            at = until;
        }
        Ok(entries)
    }
}

/// Why a copy did not advance.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The node could not be read.
    #[error(transparent)]
    Read(#[from] ReadLogError),
    /// The copy's own database.
    #[error(transparent)]
    Tiles(#[from] TilesError),
    /// The checkpoint is not signed by the log.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Further behind than [`MAX_ADVANCE`].
    #[error(
        "the copy is at {from} and the log at {size}, more than {MAX_ADVANCE} entries ahead: begin with a \
         copy of another member's data directory"
    )]
    TooFar {
        /// Where the copy stands.
        from: u64,
        /// Where the log is.
        size: u64,
    },
    /// The log signed a checkpoint that its own entries do not lead to from what was copied before: it
    /// rewrote its history, or serves other entries than it signed.
    #[error("the log's entries from {from} on do not lead to its checkpoint of size {size}")]
    Inconsistent {
        /// Where the copy stood.
        from: u64,
        /// The checkpoint's size.
        size: u64,
        /// The checkpoint that was copied last, and the one that does not follow.
        notes: Box<(Option<String>, String)>,
    },
}

/// A copy of a log that follows it.
pub struct Copy {
    tiles: Tiles,
    edge: Edge,
}

impl Copy {
    /// A copy in these tiles, from wherever they are.
    ///
    /// # Errors
    /// If they are damaged.
    pub fn open(tiles: Tiles) -> Result<Self, TilesError> {
        let edge = tiles.edge()?;
        Ok(Self { tiles, edge })
    }

    /// Its tiles.
    pub fn tiles(&self) -> &Tiles {
        &self.tiles
    }

    /// How many entries it has.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Copies from `reader` up to the checkpoint `note` (with or without cosignatures), and returns the new
    /// entries with their indexes. All of them are applied in one step, so that a copy always ends at a
    /// checkpoint that the log signed; a checkpoint that is no larger changes nothing.
    ///
    /// # Errors
    /// See [`CopyError`]. Nothing was applied then.
    pub async fn advance(
        &mut self,
        reader: &Reader,
        note: &[u8],
    ) -> Result<Vec<(u64, Vec<u8>)>, CopyError> {
        let keys = std::slice::from_ref(self.tiles.log());
        let (head, _) = Head::open_cosigned(note, keys)?;
        let from = self.edge.size();
        let applied = self.tiles.applied()?;
        let inconsistent = |offered: &Head| CopyError::Inconsistent {
            from,
            size: offered.size,
            notes: Box::new((
                applied.as_ref().map(|applied| applied.note().to_owned()),
                offered.note.clone(),
            )),
        };
        if head.size <= from {
            let same = applied.as_ref().is_none_or(|applied| applied.root() == head.root);
            return if head.size < from || same {
                Ok(Vec::new())
            } else {
                Err(inconsistent(&head))
            };
        }
        if head.size - from > MAX_ADVANCE {
            return Err(CopyError::TooFar { from, size: head.size });
        }
        let entries = reader.entries(head.size, from, head.size).await?;
        let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        let grown = grow(&self.edge, &slices)?;
        if grown.edge.root().ok() != Some(head.root) {
            return Err(inconsistent(&head));
        }
        let checkpoint =
            SignedCheckpoint::open(head.signed_by_log(self.tiles.log()).as_bytes(), keys)?;
        self.edge =
            self.tiles.apply(&self.edge, &slices, grown, &checkpoint).map_err(
                |error| match error {
                    ApplyError::Tiles(error) => CopyError::Tiles(error),
                    ApplyError::Mismatch => inconsistent(&head),
                },
            )?;
        Ok((from..).zip(entries).collect())
    }
}
