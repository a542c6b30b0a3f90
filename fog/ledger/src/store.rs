//! Where a log's one current checkpoint is decided: an existing engine that can compare and swap.
//!
//! A log is operated by one node, or by several under one key. Whoever appends signs a checkpoint and swaps
//! it in for the one that he built on; who was slower finds another one there and builds on that. So there is
//! one history without a lock, a leader or a consensus of our own: the engine's is enough.
//!
//! With the checkpoint goes, in the same transaction, the batch of entries that leads to it (*staged*), so
//! any node can finish what another began. It is kept until every node that takes part has said that it
//! has applied it.
//!
//! | engine | for | |
//! |---|---|---|
//! | [`RedbStore`] | one node | embedded; durable when the call returns |
//! | [`EtcdStore`] | several nodes | one transaction with a comparison; linearizable reads |
//!
//! # Certain and unknown
//! [`SwapError::Unknown`] says that the swap may have happened, or may still happen. The caller tries
//! *the same* swap again: it succeeds, or is lost to whatever happened.

mod etcd;
mod redb;
#[cfg(test)]
pub(crate) mod tests;

pub use self::etcd::{EtcdStore, KEPT_STAGED, MAX_ENDPOINTS, MAX_ETCD_STAGED};
pub use self::redb::RedbStore;
use std::future::Future;

/// The most nodes of one log.
pub const MAX_NODES: usize = 16;
/// The most batches that are kept for nodes that have not applied them. A node that is further behind takes
/// the log's tiles from another node.
pub const MAX_STAGED: usize = 4_096;

/// A checkpoint and the batch that leads to it.
#[derive(Clone, Copy, Debug)]
pub struct Staged<'a> {
    /// The checkpoint's note, signed by the log.
    pub note: &'a str,
    /// How many leaves there were before.
    pub old_size: u64,
    /// The new entries, each with its length in front (the form of a C2SP entry bundle, of any width).
    pub batch: &'a [u8],
}

/// Why the store was not read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the checkpoint store: {0}")]
pub struct StoreError(pub String);

/// Why a checkpoint was not swapped in.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SwapError {
    /// Another checkpoint is there, or one is there already. Nothing was written.
    #[error("another node was quicker")]
    Lost,
    /// Nothing was written.
    #[error(transparent)]
    Failed(StoreError),
    /// It is not known whether it was written.
    #[error("{0}; it is not known whether the checkpoint was written")]
    Unknown(StoreError),
}

/// An engine that decides which checkpoint is the current one.
pub trait CheckpointStore: Send + Sync + 'static {
    /// The current checkpoint's note; `None` before the first.
    fn fetch(&self) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;

    /// Puts the first checkpoint there.
    fn create(&self, first: Staged<'_>) -> impl Future<Output = Result<(), SwapError>> + Send;

    /// Puts `new` in the place of the checkpoint whose note is `old`, byte for byte.
    fn compare_and_swap(
        &self,
        old: &str,
        new: Staged<'_>,
    ) -> impl Future<Output = Result<(), SwapError>> + Send;

    /// The batch that was staged on a tree of `old_size`; `None` if it is not kept any more.
    fn staged(
        &self,
        old_size: u64,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, StoreError>> + Send;

    /// Says that `node` has applied everything up to `size`; what all nodes have applied may be forgotten.
    fn applied(&self, node: &str, size: u64)
    -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Whether other nodes may write to it.
    fn is_shared(&self) -> bool;

    /// The longest batch that one swap takes.
    fn max_batch_bytes(&self) -> usize;
}
