//! What several tests begin with: small logs, and the place of foreign vectors.

use crate::{Identity, LeafKind, Record, SiteLog};
use redb::Database;
use redb::backends::InMemoryBackend;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) const ORIGIN: &str = "fog-1.hospital-a.example/site-log";

/// Given in PROVENANCE.md beside the vectors.
pub(crate) const TESSERA_VKEY: &str =
    "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";

/// Where foreign vectors lie.
pub(crate) fn folder() -> PathBuf {
    let data = std::env::var_os("HAAR_DATA").expect(
        "set HAAR_DATA to the folder that holds fixtures-crypto, such as /work/shared/data; \
         tests/run leaves recorded_* tests out when there is none",
    );
    PathBuf::from(data).join("fixtures-crypto")
}

pub(crate) fn identity() -> Identity {
    Identity::generate(ORIGIN, [42; 32]).unwrap()
}

pub(crate) fn memory() -> Arc<Database> {
    Arc::new(Database::builder().create_with_backend(InMemoryBackend::new()).unwrap())
}

/// The record of leaf `index`: every third bears the name of the one before it.
pub(crate) fn record(index: u64) -> Record {
    let kind = [LeafKind::WindowDigest, LeafKind::FlaggedEvent, LeafKind::Correction];
    let named = index - u64::from(index % 3 == 1);
    let fill = |salt: u64| {
        let hash = tlog_tiles::record_hash(&[salt.to_be_bytes(), named.to_be_bytes()].concat());
        hash.0
    };
    Record {
        kind: kind[index as usize % 3],
        name: fill(0),
        key: fill(1 + index),
        body: format!("{{\"leaf\":{index},\"text\":\"{}\"}}", "x".repeat(index as usize % 70))
            .into(),
    }
}

pub(crate) fn records(range: std::ops::Range<u64>) -> Vec<Record> {
    range.map(record).collect()
}

/// A committed log of `size` leaves.
pub(crate) fn log_of(size: u64) -> (Arc<Database>, SiteLog) {
    let db = memory();
    let log = SiteLog::open(db.clone(), identity()).unwrap();
    append(&db, &log, &records(0..size));
    (db, log)
}

pub(crate) fn append(db: &Database, log: &SiteLog, records: &[Record]) {
    let tx = db.begin_write().unwrap();
    log.append(&tx, records).unwrap();
    tx.commit().unwrap();
}

/// The stored hashes of a tree.
pub(crate) struct Hashes(pub(crate) Vec<tlog_tiles::Hash>);

impl tlog_tiles::HashReader for Hashes {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

/// The hashes of a tree of `size` leaves, of which leaf `i` is `salt` and `i`.
pub(crate) fn hashes_of(size: u64, salt: &str) -> Hashes {
    let mut hashes = Hashes(Vec::new());
    for index in 0..size {
        let leaf = format!("{salt}{index}");
        let new = tlog_tiles::stored_hashes(index, leaf.as_bytes(), &hashes).unwrap();
        hashes.0.extend(new);
    }
    hashes
}

/// Numbers that look random and are the same for a seed (SplitMix64, Steele and others 2014).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
