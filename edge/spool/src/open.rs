//! Opening, creating and recovering a spool.

use crate::counters::Counters;
use crate::error::{OpenError, StorageFailure};
use crate::tables::{BASE_MARKS, ENTRIES, FRAMES, LATEST_MARKS, META, QUARANTINE};
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableHandle,
};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

/// The format that this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Below this size a file is not worth compacting.
const COMPACT_MIN_FILE_BYTES: u64 = 64 << 20;
/// A file this many times larger than what is in it is compacted when it is opened.
const COMPACT_FACTOR: u64 = 4;

/// What becomes of an append that does not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OnFull {
    /// It is refused; the devices keep what they are not acknowledged for.
    Refuse,
    /// The oldest waveforms are replaced in place, so that sequences stay whole. If that does not
    /// make room the append is refused.
    ShedWaveforms {
        /// What stands where a waveform was.
        tombstone: Vec<u8>,
    },
}

/// How a spool is bounded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// 16 random bytes that tell this spool from any other; used only when it is created.
    pub incarnation: [u8; 16],
    /// The most bytes of entries; 2 GiB.
    pub capacity_bytes: u64,
    /// What happens at the capacity; refuse.
    pub on_full: OnFull,
    /// How many frame ids are remembered; 131,072 (of 8,000 frames a minute, the last 16 minutes).
    pub dedupe_frames: u64,
    /// The most bytes of quarantined frames, of which the oldest go first; 16 MiB.
    pub quarantine_bytes: u64,
    /// Memory that redb may use for pages; 32 MiB.
    pub cache_bytes: usize,
}

impl Settings {
    /// The defaults, with this incarnation for a new spool.
    pub const fn new(incarnation: [u8; 16]) -> Self {
        Self {
            incarnation,
            capacity_bytes: 2 << 30,
            on_full: OnFull::Refuse,
            dedupe_frames: 131_072,
            quarantine_bytes: 16 << 20,
            cache_bytes: 32 << 20,
        }
    }
}

/// A bounded durable FIFO. Calls block on the disk; reads go on beside one append.
pub struct Spool {
    pub(crate) settings: Settings,
    path: PathBuf,
    opener: Opener,
    incarnation: [u8; 16],
    /// `None` after a failed recovery.
    pub(crate) storage: RwLock<Option<Storage>>,
    /// The state as of the last successful commit. Whoever writes holds it from begin to commit.
    state: Mutex<State>,
}

/// Opens the storage anew; the seam at which tests put in faults.
pub(crate) type Opener =
    Box<dyn Fn(&Settings) -> Result<Database, DatabaseError> + Send + Sync + 'static>;

/// The open database.
pub(crate) type Storage = Database;

/// What is known of the content without reading it.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub counters: Counters,
    /// The frame ids in table `frames`.
    pub recent: HashSet<[u8; 16]>,
    /// Number of the oldest row in `frames`.
    pub oldest_frame: u64,
    /// Number of the oldest row in `quarantine`.
    pub oldest_quarantine: u64,
}

impl Spool {
    /// Opens the spool at `path`, or creates it there. Its folder must exist.
    ///
    /// Checks every page of the file, and compacts a file that is mostly empty.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub fn open(path: &Path, settings: Settings) -> Result<Self, OpenError> {
        match std::fs::metadata(path) {
            // What somebody made with `touch` holds nothing to lose.
            Ok(file) if file.is_file() && file.len() == 0 => create(path, &settings)?,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, &settings)?,
            Err(source) => return Err(OpenError::of_io(path.to_owned(), source)),
        }
        let file = path.to_owned();
        let opener = move |settings: &Settings| builder(settings).open(&file);
        Self::open_with(path, Box::new(opener), settings)
    }

    pub(crate) fn open_with(
        path: &Path,
        opener: Opener,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        let (storage, incarnation, state) = load(path, &opener, &settings)?;
        Ok(Self {
            settings,
            path: path.to_owned(),
            opener,
            incarnation,
            storage: RwLock::new(Some(storage)),
            state: Mutex::new(state),
        })
    }

    /// Closes the file and opens it again, as after a restart. Gives the next sequence, from which it
    /// is told whether an append of unknown result was written.
    ///
    /// # Errors
    /// See [`OpenError`]. The spool stays closed; recover it again once the cause is gone.
    pub fn recover(&self) -> Result<u64, OpenError> {
        let mut storage = self.storage.write().unwrap_or_else(PoisonError::into_inner);
        // The lock on the file goes with the old handle.
        *storage = None;
        let (opened, incarnation, state) = load(&self.path, &self.opener, &self.settings)?;
        if incarnation != self.incarnation {
            let detail = "another spool has been put in its place".to_owned();
            return Err(OpenError::Damaged { path: self.path.clone(), detail });
        }
        let next_seq = state.counters.next_seq;
        *self.state() = state;
        *storage = Some(opened);
        Ok(next_seq)
    }

    /// Tells this spool from any that was or will be at the same path.
    pub const fn incarnation(&self) -> [u8; 16] {
        self.incarnation
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // It changes in one step after a commit, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the open storage.
    pub(crate) fn with_storage<T, E>(
        &self,
        closed: impl FnOnce(StorageFailure) -> E,
        work: impl FnOnce(&Storage) -> Result<T, E>,
    ) -> Result<T, E> {
        let storage = self.storage.read().unwrap_or_else(PoisonError::into_inner);
        match storage.as_ref() {
            Some(storage) => work(storage),
            None => Err(closed(StorageFailure::Closed)),
        }
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("path", &self.path).finish_non_exhaustive()
    }
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(settings.cache_bytes).set_check_integrity_on_open(true);
    builder
}

/// Creates a whole, empty spool at `path` in one step.
fn create(path: &Path, settings: &Settings) -> Result<(), OpenError> {
    let io = |source| OpenError::of_io(path.to_owned(), source);
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&draft).map_err(io)?;
    // A half-written draft of a crash is of no use; the lock keeps out a process that is just
    // writing one.
    match file.try_lock() {
        Ok(()) => file.set_len(0).and_then(|()| file.unlock()).map_err(io)?,
        Err(_) => return Err(OpenError::InUse { path: path.to_owned() }),
    }
    let backend = redb::backends::FileBackend::new(file).map_err(|e| OpenError::of(path, e))?;
    let database =
        builder(settings).create_with_backend(backend).map_err(|e| OpenError::of(path, e))?;
    initialise(&database, settings).map_err(|e| OpenError::of(path, e))?;
    database.close().map_err(|e| OpenError::of(path, e))?;
    std::fs::rename(&draft, path).and_then(|()| sync_folder(path)).map_err(io)
}

/// Without it the new name may be gone after a power cut.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn initialise(database: &Database, settings: &Settings) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT_VERSION.to_le_bytes().as_slice())?;
        meta.insert("incarnation", settings.incarnation.as_slice())?;
        meta.insert("counters", Counters::NEW.encode().as_slice())?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(LATEST_MARKS)?;
        transaction.open_table(BASE_MARKS)?;
        transaction.open_table(FRAMES)?;
        transaction.open_table(QUARANTINE)?;
    }
    transaction.commit()?;
    Ok(())
}

/// The same at start and after a failure: open, check, and read what is kept in memory.
fn load(
    path: &Path,
    opener: &Opener,
    settings: &Settings,
) -> Result<(Storage, [u8; 16], State), OpenError> {
    let mut database = opener(settings).map_err(|e| OpenError::of(path, e))?;
    let tables = {
        let reading = database.begin_read().map_err(|e| OpenError::of(path, e))?;
        let tables = reading.list_tables().map_err(|e| OpenError::of(path, e))?;
        tables.map(|table| table.name().to_owned()).collect::<Vec<_>>()
    };
    if tables.is_empty() {
        initialise(&database, settings).map_err(|e| OpenError::of(path, e))?;
    } else if !tables.iter().any(|name| name == META.name()) {
        return Err(OpenError::NotASpool { path: path.to_owned() });
    }
    let (incarnation, state) = read_state(path, &database)?;
    let live = state.counters.bytes + state.counters.quarantine_bytes;
    let file_bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    if file_bytes > COMPACT_MIN_FILE_BYTES && file_bytes / COMPACT_FACTOR > live {
        database.compact().map_err(|e| OpenError::of(path, e))?;
    }
    Ok((database, incarnation, state))
}

fn read_state(path: &Path, database: &Database) -> Result<([u8; 16], State), OpenError> {
    let damaged =
        |detail: &str| OpenError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
    let failed = |error: redb::Error| OpenError::of(path, error);
    let reading = database.begin_read().map_err(|e| failed(e.into()))?;
    let meta = reading.open_table(META).map_err(|e| failed(e.into()))?;
    let value = |key: &str| -> Result<Vec<u8>, OpenError> {
        let found = meta.get(key).map_err(|e| failed(e.into()))?;
        Ok(found.ok_or_else(|| damaged("a row of table meta is missing"))?.value().to_vec())
    };
    let format: [u8; 4] =
        value("format")?.try_into().map_err(|_| damaged("the format version is not a number"))?;
    let found = u32::from_le_bytes(format);
    if found > FORMAT_VERSION {
        return Err(OpenError::NewerFormat { path: path.to_owned(), found });
    }
    let incarnation =
        value("incarnation")?.try_into().map_err(|_| damaged("the incarnation has no 16 bytes"))?;
    let counters = Counters::decode(&value("counters")?)
        .ok_or_else(|| damaged("the counters contradict each other"))?;

    let entries = reading.open_table(ENTRIES).map_err(|e| failed(e.into()))?;
    let first = entries.first().map_err(|e| failed(e.into()))?.map(|(seq, _)| seq.value());
    let last = entries.last().map_err(|e| failed(e.into()))?.map(|(seq, _)| seq.value());
    if first.unwrap_or(counters.next_seq) != counters.oldest_seq
        || last.map_or(counters.oldest_seq, |seq| seq + 1) != counters.next_seq
    {
        return Err(damaged("the entries are not those that the counters name"));
    }
    let frames = reading.open_table(FRAMES).map_err(|e| failed(e.into()))?;
    let mut recent = HashSet::new();
    let mut oldest_frame = counters.next_frame;
    for row in frames.iter().map_err(|e| failed(e.into()))? {
        let (number, id) = row.map_err(|e| failed(e.into()))?;
        oldest_frame = oldest_frame.min(number.value());
        recent.insert(id.value());
    }
    let quarantine = reading.open_table(QUARANTINE).map_err(|e| failed(e.into()))?;
    let oldest_quarantine = quarantine
        .first()
        .map_err(|e| failed(e.into()))?
        .map_or(counters.next_quarantine, |(number, _)| number.value());
    Ok((incarnation, State { counters, recent, oldest_frame, oldest_quarantine }))
}
