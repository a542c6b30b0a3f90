//! A log as a folder of static files (C2SP tlog-tiles), for any web server; and checking such a folder.
//!
//! # Format
//! `checkpoint`, `tile/<level>/<index>[.p/<width>]` and `tile/entries/<index>[.p/<width>]`, of the tree that
//! the checkpoint speaks of. The partial forms of an earlier tree may lie beside them and are not read.
//!
//! Every file is written under another name, synced and renamed, and its folder synced; the checkpoint comes
//! last. So whatever happens in between, what the checkpoint there speaks of is there.
//!
//! # Trust
//! A checkpoint counts if it is signed by the log's key. Cosignatures are the policy's to count, not looked at
//! here.

use super::decode_entries;
use super::tiles::{Published, Tiles, TilesError};
use crate::checkpoint::{Head, MAX_COSIGNED_BYTES};
use crate::entry::MAX_ENTRY_BYTES;
use crate::fsck::{MAX_PROBLEMS, Problem};
use crate::tree::{Edge, TILE_HEIGHT, TILE_WIDTH, hashes_at};
use haar_identity::VerifierKey;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tlog_tiles::{HASH_SIZE, Tile};

/// The longest file that is read: a bundle of 256 entries of the longest kind.
const MAX_FILE_BYTES: u64 = 256 * (2 + MAX_ENTRY_BYTES as u64);

/// Why a log was not written to a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The log.
    #[error(transparent)]
    Tiles(#[from] TilesError),
    /// Nothing has been published yet.
    #[error("the log has published nothing yet: there is nothing to export")]
    Nothing,
    /// The file system.
    #[error("{path}: {error}", path = .path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// What it said.
        #[source]
        error: io::Error,
    },
}

/// What a check of a folder found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FolderReport {
    /// How many leaves the checkpoint speaks of, if it is signed.
    pub leaves: Option<u64>,
    /// The first [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// How many more there were.
    pub omitted: u64,
}

impl Tiles {
    /// Writes the published log to `folder`. What is there already in full is not written again.
    ///
    /// # Errors
    /// If nothing is published, or the database or the file system fails. The checkpoint that was there
    /// before still holds then.
    pub fn export(&self, folder: &Path) -> Result<(), ExportError> {
        let Published { size, note } = self.published()?.ok_or(ExportError::Nothing)?;
        let file = |path: &Path, error| ExportError::File { path: path.to_owned(), error };
        for path in paths(size) {
            let target = folder.join(&path);
            if target.exists() {
                continue;
            }
            let bytes = self.resource(&path)?.ok_or(TilesError::Root)?;
            write_durably(&target, &bytes).map_err(|error| file(&target, error))?;
        }
        let target = folder.join("checkpoint");
        write_durably(&target, note.as_bytes()).map_err(|error| file(&target, error))
    }
}

/// Hashes all of a folder again, from the entries up to the signed root, and names what is not as it was
/// written. `progress` is called with leaves done and leaves in all, once for every 256.
pub fn fsck_folder(
    folder: &Path,
    log: &VerifierKey,
    progress: &mut dyn FnMut(u64, u64),
) -> FolderReport {
    let mut check =
        Check { folder, report: FolderReport { leaves: None, problems: Vec::new(), omitted: 0 } };
    let note = check.read("checkpoint").filter(|note| note.len() <= MAX_COSIGNED_BYTES);
    let Some(note) = note else {
        check.problem(Problem::NoCheckpoint);
        return check.report;
    };
    match Head::open_cosigned(&note, std::slice::from_ref(log)) {
        Ok((head, _)) => {
            check.report.leaves = Some(head.size);
            check.leaves(&head, progress);
        }
        Err(error) => check.problem(Problem::Checkpoint(error)),
    }
    check.report
}

struct Check<'a> {
    folder: &'a Path,
    report: FolderReport,
}

impl Check<'_> {
    fn leaves(&mut self, head: &Head, progress: &mut dyn FnMut(u64, u64)) {
        let (mut edge, mut filled) = (Edge::empty(), Vec::new());
        let mut keep = |level, index, hashes: &[u8]| {
            filled.push((level, index, hashes.to_vec()));
            Ok::<_, Infallible>(())
        };
        for index in 0..head.size.div_ceil(TILE_WIDTH) {
            let width = TILE_WIDTH.min(head.size - index * TILE_WIDTH);
            for hash in self.bundle(index, width) {
                let Ok(()) = edge.push(hash, &mut keep);
            }
            progress(index * TILE_WIDTH + width, head.size);
        }
        let Ok(()) = edge.flush(&mut keep);
        for (level, index, hashes) in filled {
            self.tile(level, index, &hashes);
        }
        if edge.root().ok() != Some(head.root) {
            self.problem(Problem::Root);
        }
    }

    /// The leaf hashes of a bundle; if it cannot be read those in its tile, so that one file is one problem.
    fn bundle(&mut self, index: u64, width: u64) -> Vec<tlog_tiles::Hash> {
        let bytes = self.read(&entries_path(index, width));
        let entries = bytes.as_deref().and_then(decode_entries);
        if let Some(entries) = entries.filter(|entries| entries.len() as u64 == width) {
            return entries.into_iter().map(tlog_tiles::record_hash).collect();
        }
        self.problem(Problem::Bundle { index });
        let mut hashes = self.read(&tile_path(0, index, width)).unwrap_or_default();
        hashes.resize(width as usize * HASH_SIZE, 0);
        let (hashes, _) = hashes.as_chunks::<HASH_SIZE>();
        hashes.iter().map(|hash| tlog_tiles::Hash(*hash)).collect()
    }

    fn tile(&mut self, level: u8, index: u64, expected: &[u8]) {
        let width = (expected.len() / HASH_SIZE) as u64;
        let stored = self.read(&tile_path(level, index, width)).unwrap_or_default();
        if stored.len() != expected.len() {
            return self.problem(Problem::Tile { level, index });
        }
        let pairs = stored.chunks(HASH_SIZE).zip(expected.chunks(HASH_SIZE));
        if let Some(position) = pairs.into_iter().position(|(stored, expected)| stored != expected)
        {
            self.problem(Problem::Hash { level, index, position: position as u64 });
        }
    }

    /// `None` if it is not there, too long or unreadable: all the same to whoever needs it.
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.folder.join(path)).ok()?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= MAX_FILE_BYTES).then_some(bytes)
    }

    fn problem(&mut self, problem: Problem) {
        if self.report.problems.len() < MAX_PROBLEMS {
            self.report.problems.push(problem);
        } else {
            self.report.omitted += 1;
        }
    }
}

/// Every file of a tree of `size` leaves but the checkpoint.
fn paths(size: u64) -> impl Iterator<Item = String> {
    let tiles_of = |hashes: u64| {
        (0..hashes.div_ceil(TILE_WIDTH))
            .map(move |index| (index, TILE_WIDTH.min(hashes - index * TILE_WIDTH)))
    };
    let entries = tiles_of(size).map(|(index, width)| entries_path(index, width));
    let levels = (0..).take_while(move |level| hashes_at(size, *level) > 0);
    let tiles = levels.flat_map(move |level| {
        tiles_of(hashes_at(size, level)).map(move |(index, width)| tile_path(level, index, width))
    });
    entries.chain(tiles)
}

/// The C2SP tlog-tiles path of a tile.
fn tile_path(level: u8, index: u64, width: u64) -> String {
    // `tlog_tiles` writes Go's paths, with the height in front.
    let path = Tile::new(TILE_HEIGHT, level, index, width as u32, false).path();
    path.replacen(&format!("tile/{TILE_HEIGHT}/"), "tile/", 1)
}

/// The C2SP tlog-tiles path of a bundle.
pub(crate) fn entries_path(index: u64, width: u64) -> String {
    let path = Tile::new(TILE_HEIGHT, 0, index, width as u32, true).path();
    path.replacen(&format!("tile/{TILE_HEIGHT}/data/"), "tile/entries/", 1)
}

fn write_durably(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = target.parent().unwrap_or(Path::new("."));
    make_durably(parent)?;
    let mut unfinished = target.as_os_str().to_owned();
    unfinished.push(".new");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, target)?;
    File::open(parent)?.sync_all()
}

/// Makes a folder and those above it; that it is there is synced in the one above.
fn make_durably(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    make_durably(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consortium::Sequencer;
    use crate::fixtures::memory;
    use crate::store::RedbStore;
    use haar_identity::Identity;

    async fn log(entries: u64) -> Sequencer<RedbStore> {
        let (db, key) = (memory(), Identity::generate("consortium.example/log", [1; 32]).unwrap());
        let tiles = Tiles::open(db.clone(), key.vkey().clone()).unwrap();
        let store = RedbStore::open(db).unwrap();
        let mut own = Sequencer::open(store, tiles, key, "node-1", b"genesis").await.unwrap();
        append(&mut own, entries).await;
        own
    }

    async fn append(own: &mut Sequencer<RedbStore>, count: u64) {
        let first = own.checkpoint().size();
        let new: Vec<_> = (first..first + count).map(|n| format!("entry {n}")).collect();
        let new: Vec<_> = new.iter().map(String::as_bytes).collect();
        own.append(&new).await.unwrap();
        own.tiles().publish(own.checkpoint().note()).unwrap();
    }

    fn check(folder: &Path, own: &Sequencer<RedbStore>) -> FolderReport {
        fsck_folder(folder, own.tiles().log(), &mut |_, _| {})
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(entries_path(273, 112), "tile/entries/273.p/112");
        assert_eq!(entries_path(1_234_067, 256), "tile/entries/x001/x234/067");
        let all: Vec<_> = paths(70_000).collect();
        assert_eq!(all.len(), 274 + 274 + 2 + 1);
        assert_eq!(
            all[274 + 273..][..4],
            ["tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"]
        );
    }

    #[tokio::test]
    async fn what_is_exported_is_sound_and_grows() {
        let dir = tempfile::tempdir().unwrap();
        let mut own = log(299).await;
        for leaves in [300, 700, 701] {
            if leaves > 300 {
                let more = leaves - own.checkpoint().size();
                append(&mut own, more).await;
            }
            own.tiles().export(dir.path()).unwrap();
            let expected = FolderReport { leaves: Some(leaves), problems: vec![], omitted: 0 };
            assert_eq!(check(dir.path(), &own), expected);
        }
    }

    #[tokio::test]
    async fn the_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let own = log(599).await;
        own.tiles().export(dir.path()).unwrap();
        let problems = || check(dir.path(), &own).problems;
        let with = |path: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let path = dir.path().join(path);
            let sound = fs::read(&path).unwrap();
            let mut damaged = sound.clone();
            change(&mut damaged);
            fs::write(&path, damaged).unwrap();
            let found = problems();
            fs::write(&path, sound).unwrap();
            found
        };
        let flip = |bytes: &mut Vec<u8>| bytes[40] ^= 1;
        let shorten = |bytes: &mut Vec<u8>| bytes.truncate(40);
        let hash = |level, index| Problem::Hash { level, index, position: 1 };
        assert_eq!(with("tile/0/001", &flip), [hash(0, 1)]);
        assert_eq!(with("tile/1/000.p/2", &flip), [hash(1, 0)]);
        assert_eq!(with("tile/0/002.p/88", &shorten), [Problem::Tile { level: 0, index: 2 }]);
        assert_eq!(with("tile/entries/002.p/88", &shorten), [Problem::Bundle { index: 2 }]);
        let altered = with("tile/entries/001", &|bytes| bytes[5] ^= 1);
        assert!(altered.contains(&Problem::Root), "{altered:?}");
        let note = with("checkpoint", &|note| note[24] ^= 1);
        assert!(matches!(note[..], [Problem::Checkpoint(_)]), "{note:?}");
        fs::remove_file(dir.path().join("checkpoint")).unwrap();
        assert_eq!(problems(), [Problem::NoCheckpoint]);
    }
}
