//! What a fog has in its log: of a running one by HTTP, of a stopped one from its database.

use super::http_get;
use haar_alarms::Transition;
use haar_ledger::{LeafKind, RecordsKey, Snapshot, Trust, VerifierKey, fsck, open_read_only};
use haar_schema::{FlaggedEvent, Subject, Timestamp, WindowDigest, WindowId};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Every leaf of a log, decoded, with its index.
#[derive(Default)]
pub struct Leaves {
    pub digests: Vec<(u64, WindowDigest)>,
    pub flagged: Vec<(u64, FlaggedEvent)>,
    pub transitions: Vec<(u64, Transition)>,
    /// Decisions about models, parameters of patients.
    pub others: Vec<(u64, LeafKind)>,
}

impl Leaves {
    /// Reads the log in this database. It must be sound and signed by `vkey`.
    pub fn read(database: &Path, vkey: &VerifierKey) -> Self {
        let db = open_read_only(database).unwrap();
        let trust = Trust::Pinned(std::slice::from_ref(vkey));
        let key = Arc::new(RecordsKey::load(&database.with_file_name("records.key")).unwrap());
        let report = fsck(&db, trust, Some(&key), &mut |_, _| {}).unwrap();
        assert!(report.is_sound(), "{:?}", report.problems);
        assert_eq!((report.erased, report.locked), (0, 0));
        let snapshot = Snapshot::open_with(&db, key).unwrap();
        let mut leaves = Self::default();
        for index in 0..snapshot.size() {
            let record = snapshot.record(index).unwrap();
            match record.kind {
                LeafKind::FlaggedEvent => {
                    leaves.flagged.push((index, FlaggedEvent::from_json(&record.body).unwrap()));
                }
                LeafKind::AlarmTransition => {
                    leaves.transitions.push((index, Transition::from_json(&record.body).unwrap()));
                }
                LeafKind::ModelStatement | LeafKind::PatientParameters => {
                    leaves.others.push((index, record.kind));
                }
                kind => {
                    let digest = WindowDigest::from_json(&record.body).unwrap();
                    assert_eq!(digest.revision > 0, kind == LeafKind::Correction);
                    leaves.digests.push((index, digest));
                }
            }
        }
        leaves
    }

    /// The newest digest of every window.
    pub fn newest(&self) -> BTreeMap<WindowId, &WindowDigest> {
        let mut newest: BTreeMap<WindowId, &WindowDigest> = BTreeMap::new();
        for (_, digest) in &self.digests {
            let known = newest.entry(digest.id).or_insert(digest);
            if digest.revision >= known.revision {
                *known = digest;
            }
        }
        newest
    }
}

/// The windows of a running fog, read as they are committed. Outlives the fog's restarts.
pub struct Live {
    admin_port: u16,
    next: u64,
    /// Observations by subject and window, each with the revision that says so.
    newest: BTreeMap<(Subject, Timestamp), (u32, u64)>,
}

impl Live {
    /// Of the fog with this admin endpoint.
    pub fn new(admin_port: u16) -> Self {
        Self { admin_port, next: 0, newest: BTreeMap::new() }
    }

    /// How many observations are in each window committed so far, by its newest digest.
    pub fn windows(&mut self) -> BTreeMap<(Subject, Timestamp), u64> {
        while let Some((200, body)) =
            http_get(self.admin_port, &format!("/v1/records/{}", self.next))
        {
            self.next += 1;
            // The others are flags.
            if let Ok(digest) = WindowDigest::from_json(body.as_bytes()) {
                let key = (digest.key.subject, digest.key.start_us);
                let newest = self.newest.entry(key).or_default();
                *newest = (*newest).max((digest.revision, digest.inputs.observations));
            }
        }
        self.newest.iter().map(|(key, (_, observations))| (*key, *observations)).collect()
    }

    /// The sum of them.
    pub fn observations(&mut self) -> u64 {
        self.windows().values().sum()
    }
}
