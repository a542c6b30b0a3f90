//! Who puts entries in order.
//!
//! # One append
//! 1. The batch is written down as it will be stored, and *hashed from those bytes*: what is signed is what
//!    anybody reads later.
//! 2. The new checkpoint is signed. Nobody has seen it yet.
//! 3. Checkpoint and batch are swapped in for the checkpoint that was built on ([`CheckpointStore`]).
//! 4. The batch is applied to this node's [`Tiles`], durably. Only now the caller is told.
//!
//! # Never two roots for one size
//! A signed checkpoint that lost the swap is dropped unseen. One whose swap got no certain answer is kept and
//! swapped again, the same bytes, before anything else is signed: so this node signs nothing else of that
//! size while it may still be there. When such a batch turns out to be in the log, its caller has gone: the
//! next append answers [`SequenceError::Behind`], and catching up gives its entries like anybody's.
//!
//! # After a crash
//! Between 3 and 4 the batch is in the store and not in the tiles; the next start, and every other node,
//! applies it from there ([`Sequencer::catch_up`]): recovery and a node that was slower are one function.

use super::tiles::{ApplyError, Grown, Tiles, TilesError, grow};
use super::{decode_entries, encode_entries};
use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::entry::MAX_ENTRY_BYTES;
use crate::store::{CheckpointStore, Staged, StoreError, SwapError};
use crate::tree::{Edge, MAX_LEAVES};
use haar_identity::Identity;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// The most entries in one append.
pub const MAX_APPEND_ENTRIES: usize = 65_536;
/// How often an unknown swap is tried again at once, and how long to wait in between.
const SWAP_TRIES: u32 = 3;
const SWAP_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });

/// What an append did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sequenced {
    /// Index of the first new entry; the others follow in the order given.
    pub first_index: u64,
    /// The checkpoint over all entries. It is signed by the log and not cosigned yet.
    pub checkpoint: SignedCheckpoint,
}

/// Why nothing was appended, as far as one knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// There are entries that the caller has not seen, another node's or those of an append that had no
    /// certain answer: [`Sequencer::catch_up`], and append again.
    #[error("the log has entries that this node did not know of")]
    Behind,
    /// Whether the batch is in the log is not known. The next append or catch-up finds out.
    #[error("it is not known whether the batch was sequenced: {0}")]
    Unknown(String),
    /// The store failed before anything was written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tiles of this node.
    #[error(transparent)]
    Tiles(#[from] TilesError),
    /// A staged batch does not lead to the checkpoint that is in the store.
    #[error(
        "the batch that is staged at size {0} does not lead to the log's checkpoint: the store was \
         altered, or two logs share it"
    )]
    Staged(u64),
    /// Batches that this node needs are not kept any more.
    #[error(
        "this node is at size {size} and the batch that follows is not kept any more: stop this \
         node, and begin again with a copy of another node's data directory"
    )]
    TooFarBehind {
        /// What this node has.
        size: u64,
    },
    /// The checkpoint in the store is not this log's.
    #[error("the checkpoint in the store: {0}; check the endpoints and the log's key")]
    Foreign(#[source] CheckpointError),
    /// Nothing to append, too much, or too long.
    #[error(
        "an append has 1 to {MAX_APPEND_ENTRIES} entries of at most {MAX_ENTRY_BYTES} bytes, and in all \
         no more than the store takes"
    )]
    Size,
    /// The log would pass [`MAX_LEAVES`].
    #[error("the log is full at {MAX_LEAVES} entries; start a new one under a new origin")]
    Full,
    /// The checkpoint could not be signed.
    #[error("signing: {0}")]
    Sign(#[source] CheckpointError),
}

/// A signed checkpoint whose swap got no certain answer.
struct Pending {
    checkpoint: SignedCheckpoint,
    batch: Vec<u8>,
    /// What the batch makes of the tree.
    grown: Grown,
    /// Whether it may be in the store already.
    uncertain: bool,
}

/// The log, on one of the nodes that operate it.
pub struct Sequencer<S> {
    store: S,
    tiles: Tiles,
    identity: Identity,
    node: String,
    edge: Edge,
    current: SignedCheckpoint,
    pending: Option<Pending>,
    /// Entries in the tiles that no answer has told the caller of; [`Sequencer::catch_up`] does.
    untold: Vec<(u64, Vec<u8>)>,
}

impl<S: CheckpointStore> Sequencer<S> {
    /// Opens the log, or makes it with `genesis` as its first entry, and applies what other nodes (or this
    /// one, before a crash) have left staged. `node` is this node's name among the log's.
    ///
    /// # Errors
    /// See [`SequenceError`].
    pub async fn open(
        store: S,
        tiles: Tiles,
        identity: Identity,
        node: &str,
        genesis: &[u8],
    ) -> Result<Self, SequenceError> {
        let edge = tiles.edge()?;
        let current = match tiles.applied()? {
            Some(applied) => applied,
            None => sign(&identity, &edge)?,
        };
        let (node, untold) = (node.to_owned(), Vec::new());
        let mut own = Self { store, tiles, identity, node, edge, current, pending: None, untold };
        // From now on nothing is forgotten that this node has yet to apply.
        own.report().await;
        if own.fetch().await?.is_none() {
            if own.edge.size() > 0 {
                // The tiles have a log that the store does not know.
                return Err(SequenceError::Staged(own.edge.size()));
            }
            own.create(genesis).await?;
        }
        own.catch_up().await?;
        Ok(own)
    }

    /// The newest checkpoint that this node has applied.
    pub fn checkpoint(&self) -> &SignedCheckpoint {
        &self.current
    }

    /// This node's tiles.
    pub fn tiles(&self) -> &Tiles {
        &self.tiles
    }

    /// Whether other nodes write to this log too.
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// Appends `entries`, in this order.
    ///
    /// # Errors
    /// See [`SequenceError`]. After [`SequenceError::Unknown`] the entries may turn out to be in the log.
    pub async fn append(&mut self, entries: &[&[u8]]) -> Result<Sequenced, SequenceError> {
        self.settle_late().await?;
        let batch = self.stage(entries)?;
        let stored = decode_entries(&batch).ok_or(SequenceError::Size)?;
        let grown = grow(&self.edge, &stored)?;
        let checkpoint = sign(&self.identity, &grown.edge)?;
        let first_index = self.edge.size();
        self.pending =
            Some(Pending { checkpoint: checkpoint.clone(), batch, grown, uncertain: false });
        self.resolve().await?;
        Ok(Sequenced { first_index, checkpoint })
    }

    /// Applies what is in the store and not in this node's tiles. The entries, with their indexes, that no
    /// append of this caller has been told the place of.
    ///
    /// # Errors
    /// See [`SequenceError`].
    pub async fn catch_up(&mut self) -> Result<Vec<(u64, Vec<u8>)>, SequenceError> {
        let Some(stored) = self.fetch().await? else { return Ok(std::mem::take(&mut self.untold)) };
        while self.edge.size() < stored.size() {
            let size = self.edge.size();
            let batch = self.store.staged(size).await?;
            let batch = batch.ok_or(SequenceError::TooFarBehind { size })?;
            let entries = decode_entries(&batch).filter(|entries| !entries.is_empty());
            let entries = entries.ok_or(SequenceError::Staged(size))?;
            let grown = grow(&self.edge, &entries)?;
            // Only the last checkpoint is kept; what this log's key signs on the way there is the same root
            // again, and no longer checkpoint than the one that is there.
            let checkpoint = match grown.edge.size() {
                at if at == stored.size() => stored.clone(),
                at if at < stored.size() => sign(&self.identity, &grown.edge)?,
                _ => return Err(SequenceError::Staged(size)),
            };
            self.apply(&entries, grown, checkpoint).await?;
            // The checkpoint that it was built on is not the current one any more and never will be.
            self.pending = None;
            self.untold.extend((size..).zip(entries.into_iter().map(<[u8]>::to_vec)));
        }
        if self.current.root() != stored.root() || self.current.size() != stored.size() {
            return Err(SequenceError::Staged(self.edge.size()));
        }
        Ok(std::mem::take(&mut self.untold))
    }

    /// Where an entry is, by its bytes.
    ///
    /// # Errors
    /// If the database fails.
    pub fn find(&self, entry: &[u8]) -> Result<Option<u64>, SequenceError> {
        Ok(self.tiles.find_hash(&Sha256::digest(entry).into())?)
    }

    /// The store, for tests that put another one in its place.
    #[cfg(test)]
    pub(crate) fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    fn stage(&self, entries: &[&[u8]]) -> Result<Vec<u8>, SequenceError> {
        let fits = (1..=MAX_APPEND_ENTRIES).contains(&entries.len())
            && entries.iter().all(|entry| entry.len() <= MAX_ENTRY_BYTES);
        if !fits {
            return Err(SequenceError::Size);
        }
        if self.edge.size() + entries.len() as u64 > MAX_LEAVES {
            return Err(SequenceError::Full);
        }
        let batch = encode_entries(entries);
        if batch.len() <= self.store.max_batch_bytes() {
            Ok(batch)
        } else {
            Err(SequenceError::Size)
        }
    }

    /// Finds out about a batch that had no certain answer, and whether the caller knows of all entries.
    async fn settle_late(&mut self) -> Result<(), SequenceError> {
        if let Some(Pending { batch, .. }) = &self.pending {
            let (size, batch) = (self.edge.size(), batch.clone());
            self.resolve().await?;
            let entries = decode_entries(&batch).ok_or(SequenceError::Size)?;
            self.untold.extend((size..).zip(entries.into_iter().map(<[u8]>::to_vec)));
        }
        if self.untold.is_empty() { Ok(()) } else { Err(SequenceError::Behind) }
    }

    /// Swaps in what waits to be, and applies it.
    async fn resolve(&mut self) -> Result<(), SequenceError> {
        for last in (0..SWAP_TRIES).map(|tries| tries + 1 == SWAP_TRIES) {
            let Some(Pending { checkpoint, batch, uncertain, .. }) = &mut self.pending else {
                return Ok(());
            };
            let staged = Staged { note: checkpoint.note(), old_size: self.edge.size(), batch };
            match self.store.compare_and_swap(self.current.note(), staged).await {
                Ok(()) => return self.settle().await,
                Err(SwapError::Lost) => return self.lost().await,
                Err(SwapError::Failed(error)) if !*uncertain => {
                    self.pending = None;
                    return Err(error.into());
                }
                // That this try wrote nothing says nothing about the one before.
                Err(SwapError::Failed(error) | SwapError::Unknown(error)) => {
                    *uncertain = true;
                    if last {
                        return Err(SequenceError::Unknown(error.to_string()));
                    }
                    tokio::time::sleep(SWAP_PAUSE).await;
                }
            }
        }
        Ok(())
    }

    /// The swap says that something else is there: our own checkpoint, if an earlier try succeeded without
    /// saying so, or another node's.
    async fn lost(&mut self) -> Result<(), SequenceError> {
        let stored = match self.fetch().await {
            Ok(stored) => stored,
            Err(error) => return Err(SequenceError::Unknown(error.to_string())),
        };
        let own = self.pending.as_ref().map(|pending| pending.checkpoint.note());
        if own.is_some() && stored.as_ref().map(SignedCheckpoint::note) == own {
            return self.settle().await;
        }
        // It may have been there and been built upon: then the batch is staged at our size.
        if let (Some(pending), Some(_)) = (&self.pending, &stored) {
            let staged = self.store.staged(self.edge.size()).await;
            match staged {
                Ok(Some(batch)) if batch == pending.batch => return self.settle().await,
                Ok(_) => {}
                Err(error) => return Err(SequenceError::Unknown(error.to_string())),
            }
        }
        self.pending = None;
        Err(SequenceError::Behind)
    }

    /// What was swapped in is applied here. If that fails it is in the log all the same, and catching up
    /// applies it.
    async fn settle(&mut self) -> Result<(), SequenceError> {
        let Some(Pending { checkpoint, batch, grown, .. }) = self.pending.take() else {
            return Ok(());
        };
        let entries = decode_entries(&batch).ok_or(SequenceError::Size)?;
        let applied = self.apply(&entries, grown, checkpoint).await;
        applied.map_err(|error| SequenceError::Unknown(format!("in the store, not here: {error}")))
    }

    async fn apply(
        &mut self,
        entries: &[&[u8]],
        grown: Grown,
        checkpoint: SignedCheckpoint,
    ) -> Result<(), SequenceError> {
        let size = self.edge.size();
        let tiles = self.tiles.clone();
        self.edge =
            tiles.apply(&self.edge, entries, grown, &checkpoint).map_err(|error| match error {
                ApplyError::Tiles(error) => SequenceError::Tiles(error),
                ApplyError::Mismatch => SequenceError::Staged(size),
            })?;
        self.current = checkpoint;
        self.report().await;
        Ok(())
    }

    /// Says how far this node is. What is kept too long does no harm; it is forgotten the next time.
    async fn report(&self) {
        if let Err(error) = self.store.applied(&self.node, self.edge.size()).await {
            tracing::warn!(%error, "could not say how far this node is");
        }
    }

    async fn create(&mut self, genesis: &[u8]) -> Result<(), SequenceError> {
        let batch = self.stage(&[genesis])?;
        let grown = grow(&self.edge, &[genesis])?;
        let checkpoint = sign(&self.identity, &grown.edge)?;
        let staged = Staged { note: checkpoint.note(), old_size: 0, batch: &batch };
        match self.store.create(staged).await {
            // Who was quicker made the same log; catching up says so.
            Ok(()) | Err(SwapError::Lost) => Ok(()),
            Err(SwapError::Failed(error)) => Err(error.into()),
            Err(SwapError::Unknown(error)) => Err(SequenceError::Unknown(error.to_string())),
        }
    }

    async fn fetch(&self) -> Result<Option<SignedCheckpoint>, SequenceError> {
        let Some(note) = self.store.fetch().await? else { return Ok(None) };
        let keys = std::slice::from_ref(self.identity.vkey());
        SignedCheckpoint::open(note.as_bytes(), keys).map(Some).map_err(SequenceError::Foreign)
    }
}

fn sign(identity: &Identity, edge: &Edge) -> Result<SignedCheckpoint, SequenceError> {
    let root = edge.root().map_err(|_| SequenceError::Tiles(TilesError::Root))?;
    SignedCheckpoint::sign(identity, edge.size(), root).map_err(SequenceError::Sign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::memory;
    use crate::store::RedbStore;
    use redb::Database;
    use std::sync::Arc;

    fn log() -> Identity {
        Identity::generate("consortium.example/log", [1; 32]).unwrap()
    }

    async fn open(db: &Arc<Database>) -> Sequencer<RedbStore> {
        let tiles = Tiles::open(db.clone(), log().vkey().clone()).unwrap();
        let store = RedbStore::open(db.clone()).unwrap();
        Sequencer::open(store, tiles, log(), "node-1", b"genesis").await.unwrap()
    }

    fn entries(range: std::ops::Range<u64>) -> Vec<Vec<u8>> {
        range.map(|n| format!("entry {n} {}", "x".repeat(n as usize % 40)).into_bytes()).collect()
    }

    async fn append(own: &mut Sequencer<RedbStore>, range: std::ops::Range<u64>) -> Sequenced {
        let entries = entries(range);
        let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        own.append(&entries).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_appended_is_there_after_a_restart_and_proven() {
        let db = memory();
        let mut own = open(&db).await;
        let mut size = 1;
        for count in [1, 2, 252, 1, 700, 3] {
            let sequenced = append(&mut own, size..size + count).await;
            assert_eq!(sequenced.first_index, size);
            size += count;
            assert_eq!(sequenced.checkpoint.size(), size);
        }
        drop(own);
        let own = open(&db).await;
        let checkpoint = own.checkpoint().clone();
        assert_eq!(checkpoint.size(), size);
        let all = own.tiles().entries(0).unwrap();
        assert_eq!(all[0], b"genesis");
        assert_eq!(all[1..], entries(1..size));
        for index in 0..size {
            let path = own.tiles().inclusion(size, index).unwrap();
            let entry = own.tiles().entry(index).unwrap();
            let (root, other) = (checkpoint.root(), b"other");
            assert!(super::super::tiles::included(&path, size, root, index, &entry));
            assert!(!super::super::tiles::included(&path, size, root, index, other));
            assert_eq!(own.find(&entry).unwrap(), Some(index));
        }
        assert_eq!(own.find(b"other").unwrap(), None);
    }

    #[tokio::test]
    async fn tiles_are_those_of_the_specification() {
        let db = memory();
        let mut own = open(&db).await;
        append(&mut own, 1..300).await;
        let get = |path: &str| own.tiles().resource(path).unwrap();
        assert_eq!(get("checkpoint"), None, "nothing is published before it is cosigned");
        own.tiles().publish(own.checkpoint().note()).unwrap();
        assert_eq!(get("checkpoint").unwrap(), own.checkpoint().note().as_bytes());
        assert_eq!(get("tile/0/000").unwrap().len(), 8192);
        assert_eq!(get("tile/0/001.p/44").unwrap().len(), 44 * 32);
        let bundle = get("tile/entries/001.p/3").unwrap();
        let expected = entries(256..259);
        let read: Vec<_> = decode_entries(&bundle).unwrap();
        assert_eq!(read, expected.iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert_eq!(get("tile/entries/001.p/45"), None);
    }

    #[tokio::test]
    async fn a_batch_that_was_staged_and_not_applied_is_applied_by_the_next() {
        let db = memory();
        let mut own = open(&db).await;
        append(&mut own, 1..10).await;
        // What a crash between the swap and the tiles leaves.
        let (edge, current) = (own.edge.clone(), own.current.clone());
        let new = entries(10..300);
        let new: Vec<&[u8]> = new.iter().map(Vec::as_slice).collect();
        let checkpoint = sign(&log(), &grow(&edge, &new).unwrap().edge).unwrap();
        let batch = encode_entries(&new);
        let staged = Staged { note: checkpoint.note(), old_size: 10, batch: &batch };
        own.store.compare_and_swap(current.note(), staged).await.unwrap();
        drop(own);
        let own = open(&db).await;
        assert_eq!(*own.checkpoint(), checkpoint);
        assert_eq!(own.tiles().entries(1).unwrap(), entries(1..300));
    }

    #[tokio::test]
    async fn who_is_slower_builds_on_what_is_there() {
        let (shared, other) = (memory(), memory());
        // The store forgets a batch once all nodes that it knows have it.
        let store = RedbStore::open(shared.clone()).unwrap();
        store.applied("node-2", 0).await.unwrap();
        let mut one = open(&shared).await;
        let tiles = Tiles::open(other, log().vkey().clone()).unwrap();
        let mut two = Sequencer::open(store, tiles, log(), "node-2", b"genesis").await.unwrap();
        append(&mut one, 1..9).await;
        let late = two.append(&[b"late"]).await;
        assert!(matches!(late, Err(SequenceError::Behind)), "{late:?}");
        let new = two.catch_up().await.unwrap();
        assert_eq!(new.len(), 8);
        assert_eq!(two.checkpoint(), one.checkpoint());
        assert_eq!(two.append(&[b"late"]).await.unwrap().first_index, 9);
        assert_eq!(one.catch_up().await.unwrap(), [(9, b"late".to_vec())]);
        assert_eq!(two.checkpoint(), one.checkpoint());
    }

    #[tokio::test]
    async fn limits_are_held() {
        let mut own = open(&memory()).await;
        let long = vec![0; MAX_ENTRY_BYTES + 1];
        for entries in [&[][..], &[long.as_slice()][..]] {
            assert!(matches!(own.append(entries).await, Err(SequenceError::Size)));
        }
        assert_eq!(own.append(&[b"x"]).await.unwrap().first_index, 1);
    }
}
