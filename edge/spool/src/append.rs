//! Appending: one durable transaction for everything that came together.

use crate::counters::Counters;
use crate::error::{AppendError, StorageFailure};
use crate::open::{OnFull, Spool, State};
use crate::tables::{
    ENTRIES, FRAMES, Kind, LATEST_MARKS, META, NewFrame, QUARANTINE, Quarantined, Row, mark_row,
};
use redb::{Database, Durability, ReadableTable, Table, WriteTransaction};
use std::collections::{BTreeMap, HashSet};

/// The longest entry.
pub const MAX_ENTRY_BYTES: usize = 128 * 1024;
/// The longest mark key.
pub const MAX_MARK_KEY_BYTES: usize = 255;
/// The most entries and quarantined frames in one append.
pub const MAX_APPEND_ENTRIES: usize = 65_536;

/// What an append did.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Appended {
    /// Sequence of the first entry appended; [`Appended::next_seq`] if none was.
    pub first_seq: u64,
    /// The sequence that comes next.
    pub next_seq: u64,
    /// For each frame given, whether it was a duplicate and therefore left out.
    pub duplicates: Vec<bool>,
    /// How many waveforms were shed to make room.
    pub shed_entries: u64,
}

impl Spool {
    /// Appends all of it in one transaction that is on the disk when this returns.
    ///
    /// # Errors
    /// See [`AppendError`], in particular [`AppendError::certainty`].
    pub fn append(
        &self,
        frames: &[NewFrame],
        quarantined: &[Quarantined],
    ) -> Result<Appended, AppendError> {
        check_limits(frames, quarantined)?;
        self.with_storage(AppendError::NotWritten, |database| {
            let mut state = self.state();
            let duplicates = find_duplicates(&state.recent, frames);
            let fresh = || {
                let kept = frames.iter().zip(&duplicates).filter(|(_, duplicate)| !**duplicate);
                kept.map(|(frame, _)| frame)
            };
            let first_seq = state.counters.next_seq;
            if fresh().all(|frame| frame.entries.is_empty() && frame.frame_id.is_none())
                && quarantined.is_empty()
            {
                return Ok(Appended {
                    first_seq,
                    next_seq: first_seq,
                    duplicates,
                    shed_entries: 0,
                });
            }
            let rows: Vec<Row<'_>> =
                fresh().flat_map(|frame| &frame.entries).map(Row::of).collect();
            let ids: Vec<[u8; 16]> = fresh().filter_map(|frame| frame.frame_id).collect();
            let needed_bytes = rows.iter().map(Row::cost).sum();
            let to_shed = self.bytes_to_shed(&state.counters, needed_bytes)?;

            let mut change = Change::of(&state);
            let written = self
                .write(database, &mut change, &rows, &ids, quarantined, to_shed)
                .map_err(|error| AppendError::NotWritten(StorageFailure::of(error)))?;
            written.commit().map_err(|error| AppendError::Unknown(StorageFailure::of(error)))?;
            let shed_entries = change.counters.shed_entries - state.counters.shed_entries;
            change.apply(&mut state, &ids);
            Ok(Appended { first_seq, next_seq: state.counters.next_seq, duplicates, shed_entries })
        })
    }

    /// How much must be shed for `needed_bytes` more.
    fn bytes_to_shed(&self, counters: &Counters, needed_bytes: u64) -> Result<u64, AppendError> {
        let capacity_bytes = self.settings.capacity_bytes;
        let excess = (counters.bytes + needed_bytes).saturating_sub(capacity_bytes);
        let can_shed = match &self.settings.on_full {
            OnFull::Refuse => 0,
            OnFull::ShedWaveforms { tombstone } => {
                let left = counters.waveform_entries * Row::tombstone(tombstone).cost();
                counters.waveform_bytes.saturating_sub(left)
            }
        };
        if excess > can_shed {
            return Err(AppendError::Full { bytes: counters.bytes, capacity_bytes, needed_bytes });
        }
        Ok(excess)
    }

    fn write(
        &self,
        database: &Database,
        change: &mut Change,
        rows: &[Row<'_>],
        ids: &[[u8; 16]],
        quarantined: &[Quarantined],
        to_shed: u64,
    ) -> Result<WriteTransaction, redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let counters = &mut change.counters;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            if let OnFull::ShedWaveforms { tombstone } = &self.settings.on_full {
                shed(&mut entries, counters, tombstone, to_shed)?;
            }
            append_rows(&transaction, &mut entries, counters, rows)?;
            let mut table = transaction.open_table(FRAMES)?;
            for id in ids {
                table.insert(counters.next_frame, id)?;
                counters.next_frame += 1;
            }
            let keep_from = counters.next_frame.saturating_sub(self.settings.dedupe_frames);
            while change.oldest_frame < keep_from {
                if let Some(id) = table.remove(change.oldest_frame)? {
                    change.forgotten.push(id.value());
                }
                change.oldest_frame += 1;
            }
            let mut table = transaction.open_table(QUARANTINE)?;
            for frame in quarantined {
                let row = frame.encode();
                table.insert(counters.next_quarantine, row.as_slice())?;
                counters.next_quarantine += 1;
                counters.quarantine_bytes += row.len() as u64;
            }
            while counters.quarantine_bytes > self.settings.quarantine_bytes
                && change.oldest_quarantine < counters.next_quarantine
            {
                if let Some(row) = table.remove(change.oldest_quarantine)? {
                    counters.quarantine_bytes -= row.value().len() as u64;
                    counters.quarantine_dropped += 1;
                }
                change.oldest_quarantine += 1;
            }
            transaction.open_table(META)?.insert("counters", counters.encode().as_slice())?;
        }
        Ok(transaction)
    }
}

/// What becomes of the state once the transaction has been committed.
struct Change {
    counters: Counters,
    oldest_frame: u64,
    oldest_quarantine: u64,
    forgotten: Vec<[u8; 16]>,
}

impl Change {
    fn of(state: &State) -> Self {
        Self {
            counters: state.counters,
            oldest_frame: state.oldest_frame,
            oldest_quarantine: state.oldest_quarantine,
            forgotten: Vec::new(),
        }
    }

    fn apply(self, state: &mut State, ids: &[[u8; 16]]) {
        state.counters = self.counters;
        state.oldest_frame = self.oldest_frame;
        state.oldest_quarantine = self.oldest_quarantine;
        // In this order: of more ids than are remembered, the append's own first ones are forgotten.
        state.recent.extend(ids);
        for id in &self.forgotten {
            state.recent.remove(id);
        }
    }
}

fn check_limits(frames: &[NewFrame], quarantined: &[Quarantined]) -> Result<(), AppendError> {
    let check = |what, found, limit| {
        if found > limit { Err(AppendError::TooLarge { what, found, limit }) } else { Ok(()) }
    };
    let entries = || frames.iter().flat_map(|frame| &frame.entries);
    check("an append (entries)", entries().count() + quarantined.len(), MAX_APPEND_ENTRIES)?;
    for entry in entries() {
        check("an entry (bytes)", entry.bytes.len(), MAX_ENTRY_BYTES)?;
        let key_bytes = entry.mark_key.as_ref().map_or(0, Vec::len);
        check("a mark key (bytes)", key_bytes, MAX_MARK_KEY_BYTES)?;
    }
    Ok(())
}

/// A frame is a duplicate of one that is remembered, or of one before it in the same append.
fn find_duplicates(recent: &HashSet<[u8; 16]>, frames: &[NewFrame]) -> Vec<bool> {
    let mut seen = HashSet::new();
    let mut duplicate = |id| recent.contains(&id) || !seen.insert(id);
    frames.iter().map(|frame| frame.frame_id.is_some_and(&mut duplicate)).collect()
}

fn append_rows(
    transaction: &WriteTransaction,
    entries: &mut Table<'_, u64, &'static [u8]>,
    counters: &mut Counters,
    rows: &[Row<'_>],
) -> Result<(), redb::Error> {
    // Only the last mark of each key is worth a write.
    let mut marks: BTreeMap<&[u8], (u64, &Row<'_>)> = BTreeMap::new();
    for row in rows {
        let seq = counters.next_seq;
        entries.insert(seq, row.encode().as_slice())?;
        counters.next_seq += 1;
        counters.bytes += row.cost();
        match row.kind {
            Kind::Waveform => {
                counters.waveform_entries += 1;
                counters.waveform_bytes += row.cost();
            }
            Kind::Mark | Kind::ForgettingMark => {
                marks.insert(row.mark_key, (seq, row));
            }
            Kind::Vital | Kind::Tombstone => {}
        }
    }
    if marks.is_empty() {
        return Ok(());
    }
    let mut latest = transaction.open_table(LATEST_MARKS)?;
    for (key, (seq, row)) in marks {
        if row.kind == Kind::ForgettingMark {
            latest.remove(key)?;
        } else {
            latest.insert(key, mark_row(seq, row.bytes).as_slice())?;
        }
    }
    Ok(())
}

/// Replaces the oldest waveforms until `to_shed` bytes are free. The caller has made sure that there
/// are as many, so the loop ends at the newest entry at the latest.
fn shed(
    entries: &mut Table<'_, u64, &'static [u8]>,
    counters: &mut Counters,
    tombstone: &[u8],
    to_shed: u64,
) -> Result<(), redb::Error> {
    let replacement = Row::tombstone(tombstone);
    let mut replaced = Vec::new();
    let mut freed = 0;
    for row in entries.range(counters.shed_cursor.max(counters.oldest_seq)..)? {
        if freed >= to_shed {
            break;
        }
        let (seq, row) = row?;
        let Some(row) = Row::decode(row.value()) else { continue };
        // One that is smaller than its tombstone would only grow.
        if row.kind == Kind::Waveform && row.cost() > replacement.cost() {
            freed += row.cost() - replacement.cost();
            replaced.push((seq.value(), row.cost()));
        }
    }
    let encoded = replacement.encode();
    for (seq, cost) in replaced {
        entries.insert(seq, encoded.as_slice())?;
        counters.shed_cursor = seq + 1;
        counters.shed_entries += 1;
        counters.shed_bytes += cost;
        counters.waveform_entries -= 1;
        counters.waveform_bytes -= cost;
        counters.bytes -= cost - replacement.cost();
    }
    Ok(())
}
