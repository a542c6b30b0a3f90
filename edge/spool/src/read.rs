//! Reading entries, marks, quarantine and numbers.

use crate::counters::Counters;
use crate::error::{ReadError, StorageFailure};
use crate::open::Spool;
use crate::tables::{
    BASE_MARKS, ENTRIES, LATEST_MARKS, META, QUARANTINE, Quarantined, Row, mark_of_row,
};
use redb::{ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

/// The last mark of each key as of the entry before the oldest: what a reader that starts at the
/// oldest entry would know had it read all that was forgotten.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseMarks {
    /// The oldest sequence that is there, of the same moment.
    pub oldest_seq: u64,
    /// The marks' bytes, ordered by the sequence that they had.
    pub marks: Vec<Vec<u8>>,
}

/// How full the spool is, and what it lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Entries that are there.
    pub entries: u64,
    /// What they count for against the capacity.
    pub bytes: u64,
    /// The capacity.
    pub capacity_bytes: u64,
    /// Frames in quarantine.
    pub quarantined: u64,
    /// Frames that were dropped from quarantine for want of room, since the spool was created.
    pub quarantine_dropped: u64,
    /// Waveforms that were shed, since the spool was created.
    pub shed_entries: u64,
    /// What they had counted for.
    pub shed_bytes: u64,
    /// Size of the file; 0 if it cannot be told.
    pub file_bytes: u64,
}

impl Spool {
    /// Entries from `from_seq` on in order: at most `max_entries`, and as many as fit in `max_bytes`,
    /// but at least one if there is one.
    ///
    /// # Errors
    /// [`ReadError::Pruned`] if `from_seq` has been forgotten; else if the storage fails.
    pub fn read(
        &self,
        from_seq: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
        self.with_snapshot(|snapshot| {
            let oldest_seq = oldest_seq(snapshot)?;
            if from_seq < oldest_seq {
                return Err(ReadError::Pruned { oldest_seq });
            }
            let table = snapshot.open_table(ENTRIES).map_err(failed)?;
            let mut found = Vec::new();
            let mut bytes = 0;
            for row in table.range(from_seq..).map_err(failed)?.take(max_entries) {
                let (seq, row) = row.map_err(failed)?;
                let seq = seq.value();
                let row = Row::decode(row.value()).ok_or(ReadError::Damaged { seq })?;
                bytes += row.bytes.len();
                if bytes > max_bytes && !found.is_empty() {
                    break;
                }
                found.push((seq, row.bytes.to_vec()));
            }
            Ok(found)
        })
    }

    /// What a reader that begins at the oldest entry must know of the marks before it.
    ///
    /// # Errors
    /// If the storage fails.
    pub fn base_marks(&self) -> Result<BaseMarks, ReadError> {
        self.with_snapshot(|snapshot| {
            let oldest_seq = oldest_seq(snapshot)?;
            Ok(BaseMarks { oldest_seq, marks: marks(snapshot, BASE_MARKS)? })
        })
    }

    /// The last mark of each key, ordered by sequence: from these the edge goes on after a restart.
    ///
    /// # Errors
    /// If the storage fails.
    pub fn latest_marks(&self) -> Result<Vec<Vec<u8>>, ReadError> {
        self.with_snapshot(|snapshot| marks(snapshot, LATEST_MARKS))
    }

    /// The newest frames in quarantine, newest first.
    ///
    /// # Errors
    /// If the storage fails.
    pub fn quarantine(&self, limit: usize) -> Result<Vec<Quarantined>, ReadError> {
        self.with_snapshot(|snapshot| {
            let table = snapshot.open_table(QUARANTINE).map_err(failed)?;
            let newest = table.iter().map_err(failed)?.rev().take(limit);
            let mut frames = Vec::new();
            for row in newest {
                let (number, row) = row.map_err(failed)?;
                let damaged = ReadError::Damaged { seq: number.value() };
                frames.push(Quarantined::decode(row.value()).ok_or(damaged)?);
            }
            Ok(frames)
        })
    }

    /// The sequence that the next entry gets.
    pub fn next_seq(&self) -> u64 {
        self.state().counters.next_seq
    }

    /// The oldest entry's sequence; [`Spool::next_seq`] if there is none.
    pub fn oldest_seq(&self) -> u64 {
        self.state().counters.oldest_seq
    }

    /// How full it is, as of the last commit.
    pub fn stats(&self) -> Stats {
        let (counters, oldest_quarantine) = {
            let state = self.state();
            (state.counters, state.oldest_quarantine)
        };
        Stats {
            entries: counters.next_seq - counters.oldest_seq,
            bytes: counters.bytes,
            capacity_bytes: self.settings.capacity_bytes,
            quarantined: counters.next_quarantine - oldest_quarantine,
            quarantine_dropped: counters.quarantine_dropped,
            shed_entries: counters.shed_entries,
            shed_bytes: counters.shed_bytes,
            file_bytes: std::fs::metadata(self.path()).map_or(0, |file| file.len()),
        }
    }

    fn with_snapshot<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        self.with_storage(ReadError::Storage, |database| {
            work(&database.begin_read().map_err(failed)?)
        })
    }
}

impl std::fmt::Debug for BaseMarks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BaseMarks({} before {})", self.marks.len(), self.oldest_seq)
    }
}

fn failed(error: impl Into<redb::Error>) -> ReadError {
    ReadError::Storage(StorageFailure::of(error))
}

/// As the snapshot has it; the state in memory may be one commit further.
fn oldest_seq(snapshot: &ReadTransaction) -> Result<u64, ReadError> {
    let meta = snapshot.open_table(META).map_err(failed)?;
    let row = meta.get("counters").map_err(failed)?;
    let counters = row.and_then(|row| Counters::decode(row.value()));
    Ok(counters.ok_or(ReadError::Damaged { seq: 0 })?.oldest_seq)
}

fn marks(
    snapshot: &ReadTransaction,
    definition: TableDefinition<'_, &'static [u8], &'static [u8]>,
) -> Result<Vec<Vec<u8>>, ReadError> {
    let table = snapshot.open_table(definition).map_err(failed)?;
    let mut marks = Vec::new();
    for row in table.iter().map_err(failed)? {
        let (_, row) = row.map_err(failed)?;
        let (seq, bytes) = mark_of_row(row.value()).ok_or(ReadError::Damaged { seq: 0 })?;
        marks.push((seq, bytes.to_vec()));
    }
    marks.sort_unstable();
    Ok(marks.into_iter().map(|(_, bytes)| bytes).collect())
}
