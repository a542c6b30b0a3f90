//! The tables and the bytes of their rows.

use redb::TableDefinition;
use std::fmt;

pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
pub(crate) const LATEST_MARKS: TableDefinition<'_, &[u8], &[u8]> =
    TableDefinition::new("latest_marks");
pub(crate) const BASE_MARKS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("base_marks");
pub(crate) const FRAMES: TableDefinition<'_, u64, [u8; 16]> = TableDefinition::new("frames");
pub(crate) const QUARANTINE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("quarantine");

/// What an entry counts for beside its bytes: key, header and its share of the tree.
pub const ENTRY_OVERHEAD_BYTES: u64 = 24;
/// Longer payloads are cut off in quarantine.
pub const MAX_QUARANTINED_PAYLOAD_BYTES: usize = 4096;
/// Longer paths are cut off in quarantine.
pub const MAX_QUARANTINED_PATH_BYTES: usize = 512;
/// Longer reasons are cut off in quarantine.
pub const MAX_QUARANTINED_REASON_BYTES: usize = 256;

/// What an entry is, as far as the spool's policies ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Never shed.
    Vital,
    /// Shed, oldest first, where the settings say so.
    Waveform,
    /// Never shed; the last of each key outlives pruning.
    Mark,
}

/// An entry to be appended.
#[derive(Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// What it is.
    pub class: Class,
    /// Of a [`Class::Mark`], what it is a mark of; entries of other classes have none.
    pub mark_key: Option<Vec<u8>>,
    /// The mark ends its key: neither latest nor base marks hold it any longer.
    pub forget: bool,
    /// What is read back.
    pub bytes: Vec<u8>,
}

impl NewEntry {
    /// An entry of class [`Class::Vital`].
    pub const fn vital(bytes: Vec<u8>) -> Self {
        Self { class: Class::Vital, mark_key: None, forget: false, bytes }
    }

    /// An entry of class [`Class::Waveform`].
    pub const fn waveform(bytes: Vec<u8>) -> Self {
        Self { class: Class::Waveform, mark_key: None, forget: false, bytes }
    }

    /// An entry of class [`Class::Mark`].
    pub const fn mark(key: Vec<u8>, forget: bool, bytes: Vec<u8>) -> Self {
        Self { class: Class::Mark, mark_key: Some(key), forget, bytes }
    }
}

/// Shows no reading.
impl fmt::Debug for NewEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewEntry({:?}, {} bytes)", self.class, self.bytes.len())
    }
}

/// Entries that stand or fall together with the id of the device frame that they are from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewFrame {
    /// If the id is among the last ones appended, the frame is a duplicate and nothing of it is
    /// appended. `None`: always appended.
    pub frame_id: Option<[u8; 16]>,
    /// In order.
    pub entries: Vec<NewEntry>,
}

/// A frame that could not be decoded, kept for a human.
#[derive(Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Ingest time, microseconds since the Unix epoch.
    pub received_us: i64,
    /// Why; cut off after [`MAX_QUARANTINED_REASON_BYTES`].
    pub reason: String,
    /// Topic or path, with the identifiers in it; cut off after [`MAX_QUARANTINED_PATH_BYTES`].
    pub path: String,
    /// What came; cut off after [`MAX_QUARANTINED_PAYLOAD_BYTES`].
    pub payload: Vec<u8>,
}

/// Shows neither path nor payload.
impl fmt::Debug for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quarantined({}, {} bytes)", self.reason, self.payload.len())
    }
}

impl Quarantined {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let reason = cut(&self.reason, MAX_QUARANTINED_REASON_BYTES);
        let path = cut(&self.path, MAX_QUARANTINED_PATH_BYTES);
        let payload = &self.payload[..self.payload.len().min(MAX_QUARANTINED_PAYLOAD_BYTES)];
        let mut bytes = Vec::with_capacity(12 + reason.len() + path.len() + payload.len());
        bytes.extend(self.received_us.to_le_bytes());
        for text in [reason, path] {
            // Both limits are below 2^16.
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes.extend(payload);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (time, mut rest) = bytes.split_first_chunk::<8>()?;
        let mut text = || {
            let (length, behind) = rest.split_first_chunk::<2>()?;
            let (text, behind) =
                behind.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            rest = behind;
            String::from_utf8(text.to_vec()).ok()
        };
        let (reason, path) = (text()?, text()?);
        let received_us = i64::from_le_bytes(*time);
        Some(Self { received_us, reason, path, payload: rest.to_vec() })
    }
}

/// The kinds of rows in `entries`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Vital,
    Waveform,
    Mark,
    ForgettingMark,
    Tombstone,
}

/// A row of `entries`, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row<'a> {
    pub kind: Kind,
    pub mark_key: &'a [u8],
    pub bytes: &'a [u8],
}

impl<'a> Row<'a> {
    pub(crate) fn of(entry: &'a NewEntry) -> Self {
        let kind = match (entry.class, entry.forget) {
            (Class::Vital, _) => Kind::Vital,
            (Class::Waveform, _) => Kind::Waveform,
            (Class::Mark, false) => Kind::Mark,
            (Class::Mark, true) => Kind::ForgettingMark,
        };
        // A key only means something on a mark.
        let mark_key = match (entry.class, &entry.mark_key) {
            (Class::Mark, Some(key)) => key.as_slice(),
            _ => &[],
        };
        Self { kind, mark_key, bytes: &entry.bytes }
    }

    pub(crate) const fn tombstone(bytes: &'a [u8]) -> Self {
        Self { kind: Kind::Tombstone, mark_key: &[], bytes }
    }

    /// What it counts for against the capacity.
    pub(crate) const fn cost(&self) -> u64 {
        (2 + self.mark_key.len() + self.bytes.len()) as u64 + ENTRY_OVERHEAD_BYTES
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(2 + self.mark_key.len() + self.bytes.len());
        // Keys are at most MAX_MARK_KEY_BYTES, checked before anything is written.
        row.extend([self.kind as u8, self.mark_key.len() as u8]);
        row.extend(self.mark_key);
        row.extend(self.bytes);
        row
    }

    pub(crate) fn decode(row: &'a [u8]) -> Option<Self> {
        let (&[kind, key_length], rest) = row.split_first_chunk::<2>()?;
        let kind = match kind {
            0 => Kind::Vital,
            1 => Kind::Waveform,
            2 => Kind::Mark,
            3 => Kind::ForgettingMark,
            4 => Kind::Tombstone,
            _ => return None,
        };
        let (mark_key, bytes) = rest.split_at_checked(usize::from(key_length))?;
        Some(Self { kind, mark_key, bytes })
    }
}

/// A row of the tables of marks: the mark's sequence, and the mark.
pub(crate) fn mark_row(seq: u64, bytes: &[u8]) -> Vec<u8> {
    [&seq.to_le_bytes(), bytes].concat()
}

/// The mark in a row of the tables of marks.
pub(crate) fn mark_of_row(row: &[u8]) -> Option<(u64, &[u8])> {
    let (seq, bytes) = row.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*seq), bytes))
}

fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_row_is_its_kind_key_and_bytes() {
        let entry = NewEntry::mark(vec![7, 8], true, vec![1, 2, 3]);
        let row = Row::of(&entry).encode();
        assert_eq!(row, [3, 2, 7, 8, 1, 2, 3]);
        assert_eq!(Row::decode(&row), Some(Row::of(&entry)));
        assert_eq!(Row::decode(&[9, 0]), None);
        assert_eq!(Row::decode(&[2, 5, 1]), None);
    }

    #[test]
    fn quarantine_is_cut_off_and_not_shown() {
        let frame = Quarantined {
            received_us: -5,
            reason: "malformed_payload".to_owned(),
            path: "ä".repeat(MAX_QUARANTINED_PATH_BYTES),
            payload: vec![1; MAX_QUARANTINED_PAYLOAD_BYTES + 1],
        };
        let back = Quarantined::decode(&frame.encode()).unwrap();
        assert_eq!(back.path.len(), MAX_QUARANTINED_PATH_BYTES);
        assert_eq!(back.payload.len(), MAX_QUARANTINED_PAYLOAD_BYTES);
        assert_eq!((back.received_us, &back.reason), (-5, &frame.reason));
        assert!(!format!("{frame:?}").contains('ä'));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Row::decode(&bytes);
            let _ = Quarantined::decode(&bytes);
            let _ = mark_of_row(&bytes);
        }
    }
}
