//! The node's database: the site log's tables, and the facts that outlive the dataflow's memory.
//!
//! # Format
//! One redb file, [`DATABASE_FILE`]. Beside the tables of `haar-ledger`:
//! - `fog.meta`: `format` → u64 1; `committed_us` → by the fog's clock, when the last epoch was committed.
//! - `fog.positions`: edge id → incarnation \[16\] | durable through u64 | keep from u64, little-endian.
//! - `fog.alarms`: subject \[16\] or nothing → the row of `haar-alarms`.
//! - `fog.windows`: window id \[32\] → revision u32, little-endian | SHA-256 of the inputs \[32\].
//! - `fog.courses`: subject \[16\] → the row of [`crate::courses`].
//! - `fog.sepsis`: subject \[16\] → the row of [`crate::sepsis`].
//! - `fog.decisions`: number of a model statement → (event time from which it holds i64, leaf u64 with the signed note).
//! - `fog.parameters`: (subject \[16\], version u32) → leaf u64 with the signed note.
//! - `fog.consortium`: see [`crate::consortium::envoy`].
//! - `fog.statements`: see [`crate::consortium::view`].
//! - `fog.edge_keys`: see [`crate::edges`].
//! - `fog.devices`, `fog.devices-told`: see [`crate::history`].
//! - `fog.outbox`, `fog.dead_letters`: see [`crate::notify`].
//!
//! The log's records are sealed, each under the key of its patient. The facts of this module are not: who has the file reads pseudonyms,
//! open alarms, and the courses of vital signs.
//!
//! Leaves, positions and windows of an epoch are written in one transaction (design D1, D2): after a
//! crash either all of an epoch is there, and its edges are told so, or none, and it is computed again.

use crate::consortium;
use crate::edges::{self, Signed};
use crate::facts;
use crate::history;
use crate::models::Followed;
use crate::notify::outbox::{self, Key};
use haar_alarms::ChangedRow;
use haar_ledger::governance::DeviceTally;
use haar_ledger::{
    AppendError, Appended, EraseError, Erased, Held, Identity, Keyholder, OpenError as LogError,
    Record, Sealing, SiteLog,
};
use haar_schema::{DeviceId, EdgeId, Priority, Subject, Timestamp, WindowId};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The database's name in the data directory.
pub const DATABASE_FILE: &str = "fog.redb";
/// The records key's name there, unless the configuration gives another file.
pub const RECORDS_KEY_FILE: &str = "records.key";

const META: TableDefinition<&str, u64> = TableDefinition::new("fog.meta");
const POSITIONS: TableDefinition<&str, [u8; 32]> = TableDefinition::new("fog.positions");
const WINDOWS: TableDefinition<[u8; 32], [u8; 36]> = TableDefinition::new("fog.windows");
const ALARMS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("fog.alarms");
const PARAMETERS: TableDefinition<([u8; 16], u32), u64> = TableDefinition::new("fog.parameters");
const DECISIONS: TableDefinition<u64, (i64, u64)> = TableDefinition::new("fog.decisions");
const COURSES: Rows = TableDefinition::new("fog.courses");
const CHARTS: Rows = TableDefinition::new("fog.sepsis");
const FORMAT: u64 = 1;

/// How far the lane of one edge has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    pub(crate) incarnation: [u8; 16],
    /// Everything up to here is committed.
    pub(crate) durable_through: u64,
    /// A replay would begin here.
    pub(crate) keep_from: u64,
}

/// The newest committed result of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) revision: u32,
    pub(crate) inputs: [u8; 32],
}

/// Why the database does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The data directory cannot be made or read.
    #[error("data directory {path}: {error}", path = .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// Another process has it open.
    #[error("{path} is open in another process; stop the other haar-fog, or give this one a data_dir of its own", path = .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// redb does not open it.
    #[error("{path} does not open: {error}. Restore it from a backup, or move it away to start a new log under a new key", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What redb said.
        #[source]
        error: Box<redb::DatabaseError>,
    },
    /// redb found a page that contradicts itself, which it reports by panicking.
    #[error("{path} is damaged. Restore it from a backup, or move it away to start a new log under a new key; `haar fsck --log` lists what is wrong", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("the fog's database: {0}")]
    Database(#[from] redb::Error),
    /// Written by another version.
    #[error(
        "the database has format {0}, this build reads {FORMAT}; use the version that wrote it"
    )]
    Format(u64),
    /// The site log.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Why an epoch was not committed. It is not known whether it is on disk: the node must stop, and the
/// next start finds out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Reading or writing failed.
    #[error(
        "the epoch could not be committed: {0}. Check the disk (full?) and start haar-fog again; the edges replay"
    )]
    Database(#[from] redb::Error),
    /// The site log refused.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// A table with one row a subject.
type Rows = TableDefinition<'static, [u8; 16], &'static [u8]>;

/// Key and value of a patient's alarms.
pub(crate) type AlarmRow = (Vec<u8>, Vec<u8>);

/// What one epoch writes.
#[derive(Default)]
pub(crate) struct Epoch {
    pub(crate) records: Vec<Held>,
    pub(crate) windows: Vec<(WindowId, Known)>,
    pub(crate) positions: Vec<(EdgeId, Position)>,
    pub(crate) alarms: Vec<ChangedRow>,
    pub(crate) courses: Vec<facts::ChangedRow>,
    pub(crate) charts: Vec<facts::ChangedRow>,
    /// Parameters of patients: subject, version, and the record with the note.
    pub(crate) parameters: Vec<(Subject, u32, u64)>,
    /// Decisions about models: number, event time from which each holds, and the record with the note.
    pub(crate) decisions: Vec<(u64, i64, u64)>,
    /// How devices did.
    pub(crate) devices: BTreeMap<DeviceId, DeviceTally>,
    /// Whose key signs an edge's lane from here on.
    pub(crate) signed: Vec<(EdgeId, [u8; 16], Signed)>,
    /// Who is to be told of which record.
    pub(crate) notices: Vec<Notice>,
    /// When, by the fog's clock.
    pub(crate) at: Timestamp,
}

/// One target is to be told of one record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Notice {
    /// Place of the record in the epoch.
    pub(crate) record: u64,
    pub(crate) priority: Priority,
    pub(crate) target: String,
}

pub(crate) struct Store {
    db: Arc<Database>,
    log: SiteLog,
}

impl Store {
    /// With the records key beside the database.
    #[cfg(test)]
    pub(crate) fn open(data_dir: &Path, identity: Identity) -> Result<Self, StoreError> {
        Self::open_with(data_dir, identity, data_dir.join(RECORDS_KEY_FILE))
    }

    pub(crate) fn open_with(
        data_dir: &Path,
        identity: Identity,
        records_key: PathBuf,
    ) -> Result<Self, StoreError> {
        let path = data_dir.join(DATABASE_FILE);
        // redb checks pages with assertions; nothing of what it held is used after one failed.
        std::panic::catch_unwind(AssertUnwindSafe(|| {
            Self::open_sound(&path, identity, records_key)
        }))
        .unwrap_or(Err(StoreError::Damaged { path }))
    }

    fn open_sound(
        path: &Path,
        identity: Identity,
        records_key: PathBuf,
    ) -> Result<Self, StoreError> {
        let db = Database::create(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.to_owned() },
            error => StoreError::Open { path: path.to_owned(), error: Box::new(error) },
        })?;
        let db = Arc::new(db);
        let tx = db.begin_write().map_err(redb::Error::from)?;
        {
            let mut meta = tx.open_table(META).map_err(redb::Error::from)?;
            let format =
                meta.get("format").map_err(redb::Error::from)?.map(|format| format.value());
            match format {
                None => {
                    meta.insert("format", FORMAT).map_err(redb::Error::from)?;
                }
                Some(FORMAT) => {}
                Some(other) => return Err(StoreError::Format(other)),
            }
            tx.open_table(POSITIONS).map_err(redb::Error::from)?;
            tx.open_table(WINDOWS).map_err(redb::Error::from)?;
            tx.open_table(ALARMS).map_err(redb::Error::from)?;
            tx.open_table(PARAMETERS).map_err(redb::Error::from)?;
            tx.open_table(DECISIONS).map_err(redb::Error::from)?;
            tx.open_table(COURSES).map_err(redb::Error::from)?;
            tx.open_table(CHARTS).map_err(redb::Error::from)?;
        }
        consortium::view::create(&tx)?;
        consortium::envoy::create(&tx)?;
        edges::create(&tx)?;
        history::create(&tx)?;
        outbox::create(&tx)?;
        tx.commit().map_err(redb::Error::from)?;
        let sealing = Sealing {
            key_file: records_key,
            random: |bytes| getrandom::fill(bytes).map_err(std::io::Error::from),
        };
        let log = SiteLog::open_sealed(Arc::clone(&db), identity, sealing)?;
        Ok(Self { db, log })
    }

    pub(crate) fn database(&self) -> &Database {
        &self.db
    }

    pub(crate) fn log(&self) -> &SiteLog {
        &self.log
    }

    pub(crate) fn position(&self, edge: &EdgeId) -> Result<Option<Position>, redb::Error> {
        let table = self.db.begin_read()?.open_table(POSITIONS)?;
        Ok(table.get(edge.as_str())?.map(|row| decode(&row.value())))
    }

    /// The positions of all edges.
    pub(crate) fn positions(&self) -> Result<Vec<(EdgeId, Position)>, redb::Error> {
        let table = self.db.begin_read()?.open_table(POSITIONS)?;
        let mut positions = Vec::new();
        for row in table.iter()? {
            let (edge, position) = row?;
            // Written by this module, so it is the id of an edge.
            if let Ok(edge) = edge.value().parse() {
                positions.push((edge, decode(&position.value())));
            }
        }
        Ok(positions)
    }

    pub(crate) fn known(&self, windows: &[WindowId]) -> Result<Vec<Option<Known>>, redb::Error> {
        let table = self.db.begin_read()?.open_table(WINDOWS)?;
        windows
            .iter()
            .map(|id| {
                Ok(table.get(id.to_bytes())?.map(|row| {
                    let row = row.value();
                    let (mut revision, mut inputs) = ([0; 4], [0; 32]);
                    revision.copy_from_slice(&row[..4]);
                    inputs.copy_from_slice(&row[4..]);
                    Known { revision: u32::from_le_bytes(revision), inputs }
                }))
            })
            .collect()
    }

    /// The rows of all alarms.
    pub(crate) fn alarms(&self) -> Result<Vec<AlarmRow>, redb::Error> {
        let table = self.db.begin_read()?.open_table(ALARMS)?;
        let rows = table.iter()?;
        rows.map(|row| row.map(|(key, row)| (key.value().to_vec(), row.value().to_vec())))
            .collect::<Result<_, _>>()
            .map_err(Into::into)
    }

    /// The rows of all courses.
    pub(crate) fn courses(&self) -> Result<Vec<(Subject, Vec<u8>)>, redb::Error> {
        self.rows(COURSES)
    }

    /// The rows of all charts.
    pub(crate) fn charts(&self) -> Result<Vec<(Subject, Vec<u8>)>, redb::Error> {
        self.rows(CHARTS)
    }

    fn rows(&self, table: Rows) -> Result<Vec<(Subject, Vec<u8>)>, redb::Error> {
        let table = self.db.begin_read()?.open_table(table)?;
        let rows = table.iter()?.map(|row| {
            row.map(|(subject, row)| (Subject::from_bytes(subject.value()), row.value().to_vec()))
        });
        rows.collect::<Result<_, _>>().map_err(Into::into)
    }

    /// The leaves with parameters of patients, by patient and version.
    pub(crate) fn parameters(&self) -> Result<Vec<u64>, redb::Error> {
        let table = self.db.begin_read()?.open_table(PARAMETERS)?;
        let leaves = table.iter()?.map(|row| row.map(|(_, leaf)| leaf.value()));
        leaves.collect::<Result<_, _>>().map_err(Into::into)
    }

    /// The decisions about models that were followed, in order.
    pub(crate) fn decisions(&self) -> Result<Vec<Followed>, redb::Error> {
        let table = self.db.begin_read()?.open_table(DECISIONS)?;
        let rows = table.iter()?.map(|row| {
            let (number, value) = row?;
            let (from_us, leaf) = value.value();
            Ok(Followed { number: number.value(), from_us, leaf })
        });
        rows.collect()
    }

    /// When the last epoch was committed, microseconds by the fog's clock; the beginning of time if none was.
    pub(crate) fn committed_us(&self) -> Result<i64, redb::Error> {
        let table = self.db.begin_read()?.open_table(META)?;
        let at = table.get("committed_us")?.map(|at| at.value());
        Ok(at.map_or(i64::MIN, |at| i64::try_from(at).unwrap_or(i64::MAX)))
    }

    /// Writes records that come from outside the dataflow, and how far their source was read.
    pub(crate) fn note(
        &self,
        records: &[Record],
        source: &str,
        read_to: u64,
    ) -> Result<(), CommitError> {
        let tx = self.db.begin_write().map_err(redb::Error::from)?;
        self.log.append(&tx, records)?;
        consortium::envoy::set(&tx, source, read_to)?;
        tx.commit().map_err(redb::Error::from)?;
        Ok(())
    }

    /// Appends records that come from outside the dataflow, and what `also` writes, which is told the index of the
    /// first: one durable transaction.
    pub(crate) fn append(
        &self,
        records: &[Held],
        also: impl FnOnce(&redb::WriteTransaction, u64) -> Result<(), redb::Error>,
    ) -> Result<u64, CommitError> {
        let tx = self.db.begin_write().map_err(redb::Error::from)?;
        let first = self.log.append_held(&tx, records)?.first_index;
        also(&tx, first)?;
        tx.commit().map_err(redb::Error::from)?;
        Ok(first)
    }

    /// Writes an epoch in one durable transaction.
    pub(crate) fn commit(&self, epoch: &Epoch) -> Result<Appended, CommitError> {
        let tx = self.db.begin_write().map_err(redb::Error::from)?;
        let appended = self.log.append_held(&tx, &epoch.records)?;
        {
            let mut windows = tx.open_table(WINDOWS).map_err(redb::Error::from)?;
            for (id, known) in &epoch.windows {
                let mut row = [0; 36];
                row[..4].copy_from_slice(&known.revision.to_le_bytes());
                row[4..].copy_from_slice(&known.inputs);
                windows.insert(id.to_bytes(), row).map_err(redb::Error::from)?;
            }
            let mut positions = tx.open_table(POSITIONS).map_err(redb::Error::from)?;
            for (edge, position) in &epoch.positions {
                positions.insert(edge.as_str(), encode(position)).map_err(redb::Error::from)?;
            }
            let mut alarms = tx.open_table(ALARMS).map_err(redb::Error::from)?;
            for (key, row) in &epoch.alarms {
                match row {
                    Some(row) => alarms.insert(key.as_slice(), row.as_slice()),
                    None => alarms.remove(key.as_slice()),
                }
                .map_err(redb::Error::from)?;
            }
        }
        {
            for (table, changed) in [(COURSES, &epoch.courses), (CHARTS, &epoch.charts)] {
                let mut rows = tx.open_table(table).map_err(redb::Error::from)?;
                for (subject, row) in changed {
                    match row {
                        Some(row) => rows.insert(subject.to_bytes(), row.as_slice()),
                        None => rows.remove(subject.to_bytes()),
                    }
                    .map_err(redb::Error::from)?;
                }
            }
            let mut decisions = tx.open_table(DECISIONS).map_err(redb::Error::from)?;
            for (number, from_us, record) in &epoch.decisions {
                let row = (*from_us, appended.first_index + record);
                decisions.insert(number, row).map_err(redb::Error::from)?;
            }
            let mut meta = tx.open_table(META).map_err(redb::Error::from)?;
            let at = u64::try_from(epoch.at.micros()).unwrap_or(0);
            meta.insert("committed_us", at).map_err(redb::Error::from)?;
            let mut parameters = tx.open_table(PARAMETERS).map_err(redb::Error::from)?;
            for (subject, version, record) in &epoch.parameters {
                let leaf = appended.first_index + record;
                let key = (subject.to_bytes(), *version);
                parameters.insert(key, leaf).map_err(redb::Error::from)?;
            }
        }
        history::count(&tx, &epoch.devices)?;
        for (edge, incarnation, signed) in &epoch.signed {
            signed.note(&tx, edge, incarnation)?;
        }
        let key = |notice: &Notice| {
            Key::new(&notice.target, notice.priority, appended.first_index + notice.record)
        };
        let keys: Vec<Key> = epoch.notices.iter().map(key).collect();
        let given_up = outbox::queue(&tx, &keys, epoch.at)?;
        tx.commit().map_err(redb::Error::from)?;
        if given_up > 0 {
            tracing::error!(
                given_up,
                "too many notifications wait; the least pressing were given up"
            );
        }
        Ok(appended)
    }

    /// Erases patients: their keys, and in the same transaction what is kept of them here. What a node
    /// that runs has of them in memory stays there.
    pub(crate) fn erase(&self, subjects: &[Subject]) -> Result<Vec<Erased>, StoreEraseError> {
        let keyholders: Vec<_> = subjects.iter().copied().map(keyholder).collect();
        let snapshot = self.log.snapshot()?;
        let mut windows = Vec::new();
        for keyholder in &keyholders {
            windows.extend(snapshot.names_of(keyholder)?);
        }
        let erased = self.log.erase(&keyholders, |tx| {
            // Among the names of records are those of alarms and notes; nothing lies under them.
            let mut table = tx.open_table(WINDOWS)?;
            for window in &windows {
                table.remove(window)?;
            }
            let (mut alarms, mut courses) = (tx.open_table(ALARMS)?, tx.open_table(COURSES)?);
            let mut charts = tx.open_table(CHARTS)?;
            let mut parameters = tx.open_table(PARAMETERS)?;
            for subject in subjects {
                let subject = subject.to_bytes();
                alarms.remove(subject.as_slice())?;
                courses.remove(subject)?;
                charts.remove(subject)?;
                parameters.retain_in((subject, 0)..=(subject, u32::MAX), |_, _| false)?;
            }
            Ok(())
        })?;
        Ok(erased)
    }
}

/// Why patients were not erased, or not surely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreEraseError {
    /// The log cannot be read; nobody was erased.
    #[error("nobody was erased: {0}")]
    Read(#[from] haar_ledger::ReadError),
    /// See there.
    #[error(transparent)]
    Erase(#[from] EraseError),
}

/// Whose key the records about a patient are sealed under.
pub(crate) fn keyholder(subject: Subject) -> Keyholder {
    Keyholder::of(&subject.to_bytes())
}

fn encode(position: &Position) -> [u8; 32] {
    let mut row = [0; 32];
    row[..16].copy_from_slice(&position.incarnation);
    row[16..24].copy_from_slice(&position.durable_through.to_le_bytes());
    row[24..].copy_from_slice(&position.keep_from.to_le_bytes());
    row
}

fn decode(row: &[u8; 32]) -> Position {
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&row[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let mut incarnation = [0; 16];
    incarnation.copy_from_slice(&row[..16]);
    Position { incarnation, durable_through: number(16), keep_from: number(24) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_there_after_reopening_and_a_second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let identity = || Identity::generate("haar.test/site", [7; 32]).unwrap();
        let position = Position { incarnation: [3; 16], durable_through: 9, keep_from: 4 };
        let edge: EdgeId = "edge-1".parse().unwrap();
        let id = WindowId::from_bytes([5; 32]);
        let known = Known { revision: 2, inputs: [6; 32] };
        {
            let store = Store::open(dir.path(), identity()).unwrap();
            assert!(matches!(Store::open(dir.path(), identity()), Err(StoreError::InUse { .. })));
            let epoch = Epoch {
                records: vec![],
                windows: vec![(id, known)],
                positions: vec![(edge.clone(), position)],
                alarms: vec![(vec![1], Some(vec![2, 3]))],
                ..Epoch::default()
            };
            store.commit(&epoch).unwrap();
        }
        let store = Store::open(dir.path(), identity()).unwrap();
        assert_eq!(store.position(&edge).unwrap(), Some(position));
        assert_eq!(store.known(&[id]).unwrap(), [Some(known)]);
        assert_eq!(store.alarms().unwrap(), [(vec![1], vec![2, 3])]);
        store.commit(&Epoch { alarms: vec![(vec![1], None)], ..Epoch::default() }).unwrap();
        assert!(store.alarms().unwrap().is_empty());
        drop(store);
        let other = Identity::generate("haar.test/site", [8; 32]).unwrap();
        assert!(matches!(Store::open(dir.path(), other), Err(StoreError::Log(_))));
    }

    #[test]
    fn an_erased_patient_leaves_nothing_here_that_is_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::generate("haar.test/site", [7; 32]).unwrap();
        let store = Store::open(dir.path(), identity).unwrap();
        let subjects = [1, 2].map(|n| Subject::from_bytes([n; 16]));
        let known = Known { revision: 0, inputs: [6; 32] };
        let windows = [3, 4].map(|n| WindowId::from_bytes([n; 32]));
        let held = |n: usize| Held {
            keyholder: Some(keyholder(subjects[n])),
            record: haar_ledger::Record {
                kind: haar_ledger::LeafKind::WindowDigest,
                name: windows[n].to_bytes(),
                key: [9; 32],
                body: b"{}".to_vec(),
            },
        };
        let epoch = Epoch {
            records: vec![held(0), held(1)],
            windows: windows.map(|id| (id, known)).into(),
            alarms: subjects.map(|subject| (subject.to_bytes().to_vec(), Some(vec![1]))).into(),
            courses: subjects.map(|subject| (subject, Some(vec![1]))).into(),
            charts: subjects.map(|subject| (subject, Some(vec![1]))).into(),
            parameters: vec![(subjects[0], 1, 0), (subjects[1], 1, 1)],
            ..Epoch::default()
        };
        store.commit(&epoch).unwrap();
        let erased = store.erase(&subjects[..1]).unwrap();
        assert_eq!(erased.len(), 1);
        assert!(matches!(store.log().record(0), Err(haar_ledger::ReadError::Erased { .. })));
        assert_eq!(store.log().record(1).unwrap(), held(1).record);
        assert_eq!(store.known(&windows).unwrap(), [None, Some(known)]);
        assert_eq!(store.alarms().unwrap(), [(vec![2; 16], vec![1])]);
        assert_eq!(store.courses().unwrap(), [(subjects[1], vec![1])]);
        assert_eq!(store.charts().unwrap(), [(subjects[1], vec![1])]);
        assert_eq!(store.parameters().unwrap(), [1]);
        assert!(store.erase(&subjects[..1]).is_err(), "there is nothing left to erase");
    }
}
