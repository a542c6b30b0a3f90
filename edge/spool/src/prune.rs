//! Forgetting what the fog has committed.

use crate::counters::Counters;
use crate::error::{PruneError, StorageFailure};
use crate::open::Spool;
use crate::tables::{BASE_MARKS, ENTRIES, Kind, META, Row, mark_row};
use redb::{Database, Durability};
use std::collections::BTreeMap;

/// A long prune goes in steps of so many entries, each a transaction of its own, so that appends get
/// in between and the pages that one transaction turns over stay few.
pub const MAX_PRUNE_ENTRIES_PER_TRANSACTION: u64 = 50_000;

/// What a prune did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Pruned {
    /// How many entries it forgot.
    pub entries: u64,
    /// The oldest sequence that is there now.
    pub oldest_seq: u64,
}

impl Spool {
    /// Forgets the entries before `keep_from`; in the same transaction their marks go into the base
    /// marks. A `keep_from` that lies before the oldest entry forgets nothing.
    ///
    /// # Errors
    /// See [`PruneError`].
    pub fn prune(&self, keep_from: u64) -> Result<Pruned, PruneError> {
        let mut entries = 0;
        // Every step forgets at least one entry, and there are finitely many before `keep_from`.
        loop {
            let step = self.with_storage(PruneError::Storage, |database| {
                let mut state = self.state();
                let before = state.counters;
                if keep_from > before.next_seq {
                    return Err(PruneError::Beyond { keep_from, next_seq: before.next_seq });
                }
                let until = keep_from.min(before.oldest_seq + MAX_PRUNE_ENTRIES_PER_TRANSACTION);
                if until > before.oldest_seq {
                    state.counters = forget_until(database, before, until)
                        .map_err(|error| PruneError::Storage(StorageFailure::of(error)))?;
                }
                let oldest_seq = state.counters.oldest_seq;
                Ok(Pruned { entries: oldest_seq - before.oldest_seq, oldest_seq })
            })?;
            entries += step.entries;
            if step.oldest_seq >= keep_from {
                return Ok(Pruned { entries, oldest_seq: step.oldest_seq });
            }
        }
    }
}

/// Forgets the entries before `until` in one transaction; gives the counters after it.
fn forget_until(
    database: &Database,
    mut counters: Counters,
    until: u64,
) -> Result<Counters, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut table = transaction.open_table(ENTRIES)?;
        // The last mark of each key, or `None` where that forgets its key.
        let mut marks: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for row in table.extract_from_if(counters.oldest_seq..until, |_, _| true)? {
            let (seq, row) = row?;
            let row = Row::decode(row.value())
                .ok_or_else(|| redb::Error::Corrupted(format!("entry {}", seq.value())))?;
            counters.bytes = counters.bytes.saturating_sub(row.cost());
            match row.kind {
                Kind::Waveform => {
                    counters.waveform_entries = counters.waveform_entries.saturating_sub(1);
                    counters.waveform_bytes = counters.waveform_bytes.saturating_sub(row.cost());
                }
                Kind::Mark => {
                    marks.insert(row.mark_key.to_vec(), Some(mark_row(seq.value(), row.bytes)));
                }
                Kind::ForgettingMark => {
                    marks.insert(row.mark_key.to_vec(), None);
                }
                Kind::Vital | Kind::Tombstone => {}
            }
        }
        let mut base = transaction.open_table(BASE_MARKS)?;
        for (key, mark) in marks {
            match mark {
                Some(row) => base.insert(key.as_slice(), row.as_slice())?,
                None => base.remove(key.as_slice())?,
            };
        }
        counters.oldest_seq = until;
        transaction.open_table(META)?.insert("counters", counters.encode().as_slice())?;
    }
    transaction.commit()?;
    Ok(counters)
}
