//! The consortium log: its tiles, who puts entries in order, and who reads it from elsewhere.
//!
//! [`Tiles`] keeps the log on one node. [`Sequencer`] appends to it: stage, hash again what was staged, sign,
//! compare and swap, apply. [`Reader`] fetches from a node what a proof or a follower needs.

mod folder;
mod fsck;
mod lineage;
#[cfg(test)]
mod power_cuts;
mod reader;
mod sequencer;
#[cfg(test)]
mod store_faults;
mod tiles;

pub use folder::ExportError;
pub use fsck::{LogReport, fsck_folder, fsck_tables, keeps_consortium_log};
pub use lineage::{Lineage, LineageError, MAX_PREDECESSORS};
pub use reader::{Copy, CopyError, MAX_ADVANCE, ReadLogError, Reader};
pub use sequencer::{MAX_APPEND_ENTRIES, SequenceError, Sequenced, Sequencer};
pub use tiles::{ApplyError, MAX_ENTRIES_READ, Published, Tiles, TilesError, included};

use crate::entry::MAX_ENTRY_BYTES;

/// Writes entries in the form of a C2SP entry bundle: each with its length in front, u16 big-endian.
///
/// Entries over [`MAX_ENTRY_BYTES`] must have been refused before; their length would not fit.
pub(crate) fn encode_entries(entries: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.iter().map(|entry| 2 + entry.len()).sum());
    for entry in entries {
        bytes.extend_from_slice(&(entry.len() as u16).to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    bytes
}

/// The entries of a C2SP entry bundle, each with its length in front, u16 big-endian; `None` if it is none, or one is over
/// [`MAX_ENTRY_BYTES`].
pub fn decode_entries(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length > MAX_ENTRY_BYTES || length > rest.len() {
            return None;
        }
        let (entry, rest) = rest.split_at(length);
        entries.push(entry);
        bytes = rest;
    }
    Some(entries)
}

/// How many bytes the first `count` entries of a bundle have; `None` if there are not so many.
pub(crate) fn bytes_of_first(bundle: &[u8], count: usize) -> Option<usize> {
    let mut at = 0;
    for _ in 0..count {
        let length = bundle.get(at..at + 2)?;
        at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    }
    (at <= bundle.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bundles_are_as_in_the_specification() {
        let bytes = encode_entries(&[b"hi", b"", b"you"]);
        assert_eq!(bytes, b"\0\x02hi\0\0\0\x03you");
        assert_eq!(decode_entries(&bytes).unwrap(), [&b"hi"[..], b"", b"you"]);
        assert_eq!(
            (0..5).map(|n| bytes_of_first(&bytes, n)).collect::<Vec<_>>(),
            [Some(0), Some(4), Some(6), Some(11), None]
        );
        assert_eq!(decode_entries(&bytes[..10]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Some(entries) = decode_entries(&bytes) {
                prop_assert_eq!(encode_entries(&entries), bytes);
            }
        }
    }
}
