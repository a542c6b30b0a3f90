//! The node's database: the site log's tables, and the facts that outlive the dataflow's memory.
//!
//! # Format
//! One redb file, [`DATABASE_FILE`]. Beside the tables of `haar-ledger`:
//! - `fog.meta`: `format` → u64 2; `committed_us` → by the fog's clock, when the last epoch was committed.
//! - `fog.positions`: edge id → incarnation \[16\] | durable through u64 | keep from u64, little-endian.
//! - `fog.windows`: window id \[32\] → a sealed fact: revision u32, little-endian | SHA-256 of the inputs \[32\].
//! - `fog.alarms`, `fog.courses`, `fog.sepsis`: rows about a patient ([`sealed`]) of `haar-alarms`, [`crate::courses`], [`crate::sepsis`].
//! - `fog.erased`: see [`erased`].
//! - `fog.decisions`: number of a model statement → (event time from which it holds i64, leaf u64 with the signed note).
//! - `fog.parameters`: (hash of the pseudonym \[32\], version u32) → leaf u64 with the signed note.
//! - `fog.consortium`: see [`crate::consortium::envoy`].
//! - `fog.statements`: see [`crate::consortium::view`].
//! - `fog.nonces`: see [`crate::access::nonces`].
//! - `fog.edge_keys`: see [`crate::edges`].
//! - `fog.devices`, `fog.devices-told`: see [`crate::history`].
//! - `fog.outbox`, `fog.dead_letters`: see [`crate::notify`].
//!
//! What is about a patient is sealed under the patient's key, as the log's records are, and goes with it. In clear are: edges and how far
//! they have come, devices and how often they fail, which model ran, who waits to be told of which leaf, hashes of
//! windows' names (see `haar-ledger` on what they confirm) and of pseudonyms.
//!
//! Leaves, positions and windows of an epoch are written in one transaction (design D1, D2): after a
//! crash either all of an epoch is there, and its edges are told so, or none, and it is computed again.

use crate::access;
use crate::consortium;
use crate::edges::{self, Signed};
use crate::facts;
use crate::history;
use crate::models::Followed;
use crate::notify::outbox::{self, Key};
use haar_alarms::ChangedRow;
use haar_ledger::governance::DeviceTally;
use haar_ledger::{
    AppendError, Appended, FactError, FactSealer, Held, Identity, Keyholder, OpenError as LogError,
    Place, Record, SealError, Sealing, SiteLog,
};
use haar_schema::{DeviceId, EdgeId, Priority, Subject, Timestamp, WindowId};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod erased;
mod sealed;

pub use erased::StoreEraseError;
use sealed::{Row, Sealed};

/// The database's name in the data directory.
pub const DATABASE_FILE: &str = "fog.redb";
/// The records key's name there, unless the configuration gives another file.
pub const RECORDS_KEY_FILE: &str = "records.key";

const META: TableDefinition<&str, u64> = TableDefinition::new("fog.meta");
const POSITIONS: TableDefinition<&str, [u8; 32]> = TableDefinition::new("fog.positions");
const WINDOWS: TableDefinition<[u8; 32], &[u8]> = TableDefinition::new(WINDOWS_NAME);
const WINDOWS_NAME: &str = "fog.windows";
const PARAMETERS: TableDefinition<([u8; 32], u32), u64> = TableDefinition::new("fog.parameters");
const DECISIONS: TableDefinition<u64, (i64, u64)> = TableDefinition::new("fog.decisions");
const ALARMS: Sealed = Sealed::new("fog.alarms");
const COURSES: Sealed = Sealed::new("fog.courses");
const CHARTS: Sealed = Sealed::new("fog.sepsis");
/// All tables of rows about one patient.
const SEALED: [Sealed; 3] = [ALARMS, COURSES, CHARTS];
const FORMAT: u64 = 2;

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
    /// A row does not open.
    #[error(transparent)]
    Fact(#[from] FactError),
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
    /// A fact could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A fact could not be read.
    #[error(transparent)]
    Fact(#[from] FactError),
}

/// Key and value of a patient's alarms.
pub(crate) type AlarmRow = (Vec<u8>, Vec<u8>);

/// What one epoch writes.
#[derive(Default)]
pub(crate) struct Epoch {
    pub(crate) records: Vec<Held>,
    pub(crate) windows: Vec<(WindowId, Subject, Known)>,
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
            tx.open_table(PARAMETERS).map_err(redb::Error::from)?;
            tx.open_table(DECISIONS).map_err(redb::Error::from)?;
        }
        for table in SEALED {
            table.create(&tx)?;
        }
        erased::create(&tx)?;
        consortium::view::create(&tx)?;
        consortium::envoy::create(&tx)?;
        edges::create(&tx)?;
        access::nonces::create(&tx)?;
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

    pub(crate) fn known(&self, windows: &[WindowId]) -> Result<Vec<Option<Known>>, FactError> {
        self.log.read_facts(|tx, facts| {
            let table = tx.open_table(WINDOWS).map_err(redb::Error::from)?;
            windows
                .iter()
                .map(|id| {
                    let key = id.to_bytes();
                    let Some(row) = table.get(key).map_err(redb::Error::from)? else {
                        return Ok(None);
                    };
                    let place = Place { table: WINDOWS_NAME, key: &key };
                    let Some(fact) = facts.open(place, row.value())? else { return Ok(None) };
                    let damaged = || FactError::Damaged { table: WINDOWS_NAME.to_owned() };
                    Known::decode(&fact).ok_or_else(damaged).map(Some)
                })
                .collect()
        })
    }

    /// The rows of all alarms.
    pub(crate) fn alarms(&self) -> Result<Vec<AlarmRow>, FactError> {
        let rows = self.rows(&ALARMS)?.into_iter();
        let key =
            |subject: Option<Subject>| subject.map_or(Vec::new(), |own| own.to_bytes().to_vec());
        Ok(rows.map(|(subject, row)| (key(subject), row)).collect())
    }

    /// The rows of all courses.
    pub(crate) fn courses(&self) -> Result<Vec<(Subject, Vec<u8>)>, FactError> {
        self.rows_of_patients(&COURSES)
    }

    /// The rows of all charts.
    pub(crate) fn charts(&self) -> Result<Vec<(Subject, Vec<u8>)>, FactError> {
        self.rows_of_patients(&CHARTS)
    }

    fn rows_of_patients(&self, table: &Sealed) -> Result<Vec<(Subject, Vec<u8>)>, FactError> {
        let rows = self.rows(table)?.into_iter();
        Ok(rows.filter_map(|(subject, row)| Some((subject?, row))).collect())
    }

    fn rows(&self, table: &Sealed) -> Result<Vec<Row>, FactError> {
        self.log.read_facts(|tx, facts| table.read(tx, facts))
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
        epoch.write_facts(&tx, &mut self.log.fact_sealer(&tx)?)?;
        epoch.write_references(&tx, appended.first_index)?;
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
}

impl Epoch {
    /// What is known of patients.
    fn write_facts(
        &self,
        tx: &redb::WriteTransaction,
        sealer: &mut FactSealer<'_>,
    ) -> Result<(), CommitError> {
        let mut windows = tx.open_table(WINDOWS).map_err(redb::Error::from)?;
        for (id, subject, known) in &self.windows {
            let key = id.to_bytes();
            let place = Place { table: WINDOWS_NAME, key: &key };
            let row = sealer.seal(Some(keyholder(*subject)), place, &known.encode())?;
            windows.insert(key, row.as_slice()).map_err(redb::Error::from)?;
        }
        // The alarms' own key of the site is empty.
        let subject = |key: &[u8]| key.try_into().ok().map(Subject::from_bytes);
        let alarms = self.alarms.iter().map(|(key, row)| (subject(key), row.as_deref()));
        ALARMS.write(tx, sealer, alarms)?;
        for (table, changed) in [(COURSES, &self.courses), (CHARTS, &self.charts)] {
            let rows = changed.iter().map(|(subject, row)| (Some(*subject), row.as_deref()));
            table.write(tx, sealer, rows)?;
        }
        Ok(())
    }

    /// Where lanes are, and which leaf, counted from the epoch's `first`, says what.
    fn write_references(&self, tx: &redb::WriteTransaction, first: u64) -> Result<(), redb::Error> {
        let mut positions = tx.open_table(POSITIONS)?;
        for (edge, position) in &self.positions {
            positions.insert(edge.as_str(), encode(position))?;
        }
        let mut decisions = tx.open_table(DECISIONS)?;
        for (number, from_us, record) in &self.decisions {
            decisions.insert(number, (*from_us, first + record))?;
        }
        let at = u64::try_from(self.at.micros()).unwrap_or(0);
        tx.open_table(META)?.insert("committed_us", at)?;
        let mut parameters = tx.open_table(PARAMETERS)?;
        for (subject, version, record) in &self.parameters {
            let key = (keyholder(*subject).to_bytes(), *version);
            parameters.insert(key, first + record)?;
        }
        Ok(())
    }
}

impl Known {
    fn encode(&self) -> [u8; 36] {
        let mut row = [0; 36];
        row[..4].copy_from_slice(&self.revision.to_le_bytes());
        row[4..].copy_from_slice(&self.inputs);
        row
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (revision, inputs) = row.split_first_chunk::<4>()?;
        Some(Self { revision: u32::from_le_bytes(*revision), inputs: inputs.try_into().ok()? })
    }
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
                windows: vec![(id, Subject::from_bytes([4; 16]), known)],
                positions: vec![(edge.clone(), position)],
                alarms: vec![(vec![1; 16], Some(vec![2, 3]))],
                ..Epoch::default()
            };
            store.commit(&epoch).unwrap();
        }
        let store = Store::open(dir.path(), identity()).unwrap();
        assert_eq!(store.position(&edge).unwrap(), Some(position));
        assert_eq!(store.known(&[id]).unwrap(), [Some(known)]);
        assert_eq!(store.alarms().unwrap(), [(vec![1; 16], vec![2, 3])]);
        store.commit(&Epoch { alarms: vec![(vec![1; 16], None)], ..Epoch::default() }).unwrap();
        assert!(store.alarms().unwrap().is_empty());
        drop(store);
        let other = Identity::generate("haar.test/site", [8; 32]).unwrap();
        assert!(matches!(Store::open(dir.path(), other), Err(StoreError::Log(_))));
    }
}
