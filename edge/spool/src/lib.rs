//! The edge's spool: a bounded, durable FIFO of opaque entries on [redb](https://docs.rs/redb).
//!
//! It is the only journal of readings (DESIGN.md, D1). A device is acknowledged after
//! [`Spool::append`] has returned, and the spool forgets an entry only when [`Spool::prune`] is told
//! that the fog will not ask for it again. The node above decides what the bytes are; the spool knows
//! of each entry its [`Class`] and, of a mark, its key.
//!
//! # Format, version 1
//! One redb file (its own format is redb's file format 3). All numbers are little-endian.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` | u32, [`FORMAT_VERSION`] |
//! | | `incarnation` | 16 bytes, given at creation |
//! | | `counters` | twelve u64: next seq, oldest seq, bytes, waveform entries, waveform bytes, shed cursor, shed entries, shed bytes, next frame number, next quarantine number, quarantine bytes, quarantine dropped |
//! | `entries` | u64 sequence, from 1, contiguous | u8 kind (0 vital, 1 waveform, 2 mark, 3 mark that forgets its key, 4 tombstone), u8 length of the mark's key, the key, the entry's bytes |
//! | `latest_marks` | mark key | u64 sequence, the last mark's bytes |
//! | `base_marks` | mark key | the same, as of the entry before the oldest |
//! | `frames` | u64 frame number, contiguous | 16 bytes of frame id |
//! | `quarantine` | u64 number, contiguous | i64 time received in µs, u16 length and reason, u16 length and path, payload |
//!
//! A spool is created under `<name>.new`, filled, synced and renamed, so that a crash while it is
//! created leaves none rather than half of one.
//!
//! # Limits
//! [`Settings::capacity_bytes`] bounds the bytes of entries (each with [`ENTRY_OVERHEAD_BYTES`]). The
//! file is larger by frame ids, quarantine and redb's copy-on-write: 1.6 times with vitals of 64 bytes
//! (`cargo run --example throughput`); a long waveform may take twice its size, as redb rounds it up
//! to a power of two. Leave the disk three times the capacity. A file that is mostly empty is
//! compacted when it is opened.
//! [`MAX_ENTRY_BYTES`], [`MAX_MARK_KEY_BYTES`] and [`MAX_APPEND_ENTRIES`] bound one append,
//! [`Settings::dedupe_frames`] the remembered frame ids, [`Settings::quarantine_bytes`] the quarantine.
//! `latest_marks` and `base_marks` have one row a key; who writes marks bounds the keys.
//!
//! # Trust
//! Whoever can write the file can change everything in it: redb's checksums find accidents, not
//! intent. The file is readable by its owner only. Quarantined paths hold patient identifiers as the
//! device sent them. The whole file is checked when it is opened, so opening takes as long as reading it.
//!
//! # Not guaranteed
//! - That an append failed because its result is unknown: see [`AppendError::certainty`].
//! - Deduplication beyond the last [`Settings::dedupe_frames`] ids, or of frames without an id.
//! - That a disk that lies about syncing keeps anything.
//! - That damage which appears while the spool is open is found before it is opened again.
//! - Encryption: none here; put the file on an encrypted volume.
#![forbid(unsafe_code)]

mod append;
mod counters;
mod error;
mod open;
#[cfg(test)]
mod power_cuts;
mod prune;
mod read;
mod tables;

pub use append::{Appended, MAX_APPEND_ENTRIES, MAX_ENTRY_BYTES, MAX_MARK_KEY_BYTES};
pub use error::{AppendError, Certainty, OpenError, PruneError, ReadError, StorageFailure};
pub use open::{FORMAT_VERSION, OnFull, Settings, Spool};
pub use prune::{MAX_PRUNE_ENTRIES_PER_TRANSACTION, Pruned};
pub use read::{BaseMarks, Stats};
pub use tables::{
    Class, ENTRY_OVERHEAD_BYTES, MAX_QUARANTINED_PATH_BYTES, MAX_QUARANTINED_PAYLOAD_BYTES,
    MAX_QUARANTINED_REASON_BYTES, NewEntry, NewFrame, Quarantined,
};
