//! The embedded checkpoint store, for a log of one node.
//!
//! # Format
//! | table | key | value |
//! |---|---|---|
//! | `checkpoint_store.current` | – | the current note |
//! | `checkpoint_store.staged` | size before it, u64 | the batch |
//! | `checkpoint_store.applied` | node | size u64 |
//!
//! Every write is one durable transaction. An error of a commit leaves open whether it is on disk; redb then
//! refuses further work, and the next start finds out.

use super::{CheckpointStore, MAX_NODES, MAX_STAGED, Staged, StoreError, SwapError};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use std::sync::Arc;

const CURRENT: TableDefinition<(), &str> = TableDefinition::new("checkpoint_store.current");
const STAGED: TableDefinition<u64, &[u8]> = TableDefinition::new("checkpoint_store.staged");
const APPLIED: TableDefinition<&str, u64> = TableDefinition::new("checkpoint_store.applied");

/// The longest batch; all of it is in memory.
const MAX_BATCH_BYTES: usize = 64 << 20;

/// A checkpoint store in a redb database.
pub struct RedbStore {
    db: Arc<Database>,
}

impl RedbStore {
    /// The store in `db`, made if it is not there.
    ///
    /// # Errors
    /// If the database fails.
    pub fn open(db: Arc<Database>) -> Result<Self, StoreError> {
        let make = || -> Result<(), redb::Error> {
            let tx = db.begin_write()?;
            tx.open_table(CURRENT)?;
            tx.open_table(STAGED)?;
            tx.open_table(APPLIED)?;
            tx.commit()?;
            Ok(())
        };
        make().map_err(failed)?;
        Ok(Self { db })
    }

    fn swap(&self, old: Option<&str>, new: Staged<'_>) -> Result<(), SwapError> {
        let certain = |error: redb::Error| SwapError::Failed(failed(error));
        if new.batch.len() > MAX_BATCH_BYTES {
            return Err(SwapError::Failed(StoreError("the batch is too long".to_owned())));
        }
        let tx = self.db.begin_write().map_err(|error| certain(error.into()))?;
        let write = || -> Result<bool, redb::Error> {
            let mut current = tx.open_table(CURRENT)?;
            if current.get(())?.as_ref().map(|note| note.value()) != old {
                return Ok(false);
            }
            current.insert((), new.note)?;
            let mut staged = tx.open_table(STAGED)?;
            staged.insert(new.old_size, new.batch)?;
            while staged.len()? > MAX_STAGED as u64 {
                staged.pop_first()?;
            }
            Ok(true)
        };
        if !write().map_err(certain)? {
            return Err(SwapError::Lost);
        }
        tx.commit().map_err(|error| SwapError::Unknown(failed(error.into())))
    }

    fn forget(&self, node: &str, size: u64) -> Result<(), redb::Error> {
        let mut tx = self.db.begin_write()?;
        // Losing this costs nothing: what is kept too long is forgotten the next time.
        tx.set_durability(redb::Durability::None)?;
        {
            let mut applied = tx.open_table(APPLIED)?;
            if applied.len()? < MAX_NODES as u64 || applied.get(node)?.is_some() {
                applied.insert(node, size)?;
            }
            let mut least = size;
            for row in applied.iter()? {
                least = least.min(row?.1.value());
            }
            tx.open_table(STAGED)?.retain_in(..least, |_, _| false)?;
        }
        tx.commit()?;
        Ok(())
    }
}

impl CheckpointStore for RedbStore {
    async fn fetch(&self) -> Result<Option<String>, StoreError> {
        let read = || -> Result<Option<String>, redb::Error> {
            let table = self.db.begin_read()?.open_table(CURRENT)?;
            Ok(table.get(())?.map(|note| note.value().to_owned()))
        };
        read().map_err(failed)
    }

    async fn create(&self, first: Staged<'_>) -> Result<(), SwapError> {
        self.swap(None, first)
    }

    async fn compare_and_swap(&self, old: &str, new: Staged<'_>) -> Result<(), SwapError> {
        self.swap(Some(old), new)
    }

    async fn staged(&self, old_size: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = self.db.begin_read()?.open_table(STAGED)?;
            Ok(table.get(old_size)?.map(|batch| batch.value().to_vec()))
        };
        read().map_err(failed)
    }

    async fn applied(&self, node: &str, size: u64) -> Result<(), StoreError> {
        self.forget(node, size).map_err(failed)
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn max_batch_bytes(&self) -> usize {
        MAX_BATCH_BYTES
    }
}

fn failed(error: redb::Error) -> StoreError {
    StoreError(error.to_string())
}
