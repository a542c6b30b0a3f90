//! Hashing a whole consortium log again: as a folder of static files (C2SP tlog-tiles), or as a server or a fog keeps it.
//!
//! From the entries up: they give the tiles of level 0, those the levels above, the last of each the root, and that must be the
//! signed one. Of tables also: every entry is found by its hash, no table has a row that a log of the signed size does not have, and the
//! checkpoint that readers are given is of this tree.
//!
//! # Trust
//! A checkpoint counts if it is signed by the log's key. Cosignatures are the policy's to count, not looked at
//! here; nor are what the operator has staged, what a witness remembers, and evidence.

use super::decode_entries;
use super::folder::{entries_path, tile_path};
use super::tiles::{APPLIED, BUNDLES, ENTRIES, META, PUBLISHED, TILES};
use crate::checkpoint::{Head, MAX_COSIGNED_BYTES};
use crate::entry::MAX_ENTRY_BYTES;
use crate::fsck::rows::{Found, Rows, guarded};
use crate::fsck::{FsckError, Problem};
use crate::tree::{Edge, TILE_WIDTH, hashes_at};
use haar_identity::VerifierKey;
use redb::{ReadTransaction, ReadableDatabase, TableError};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use tlog_tiles::{HASH_SIZE, Hash};

/// The longest file that is read: a bundle of 256 entries of the longest kind.
const MAX_FILE_BYTES: u64 = 256 * (2 + MAX_ENTRY_BYTES as u64);

/// What a check of a consortium log found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogReport {
    /// How many leaves the checkpoint speaks of, if it is signed.
    pub leaves: Option<u64>,
    /// The first [`MAX_PROBLEMS`](crate::MAX_PROBLEMS).
    pub problems: Vec<Problem>,
    /// How many more there were.
    pub omitted: u64,
}

/// Hashes all of a folder again, and names what is not as it was written. `progress` is called with leaves done and leaves in
/// all, once for every 256.
pub fn fsck_folder(
    folder: &Path,
    log: &VerifierKey,
    progress: &mut dyn FnMut(u64, u64),
) -> LogReport {
    let folder = Folder(folder);
    let note = folder.read("checkpoint");
    let note = note.filter(|note| note.len() <= MAX_COSIGNED_BYTES);
    check(&folder, note, None, log, Found::default(), progress)
}

/// The same of the log that `db` keeps.
///
/// # Errors
/// If there is none, or the database cannot be read at all. What is wrong with the log is in the report.
pub fn fsck_tables(
    db: &impl ReadableDatabase,
    log: &VerifierKey,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<LogReport, FsckError> {
    let tx = begin(db)?;
    if !has_log(&tx) {
        return Err(FsckError::NoLog);
    }
    let mut found = Found::default();
    let meta = Rows::open(&tx, "consortium.meta", META, &mut found);
    let mut note = |key| -> Option<String> {
        meta.read(&mut found, |table| Ok(table.get(key)?.map(|note| note.value().to_owned())))?
    };
    let (applied, published) = (note(APPLIED), note(PUBLISHED));
    meta.each_key(&mut found, |found, key| {
        if key != APPLIED && key != PUBLISHED {
            found.problem(Problem::StrayRow { table: meta.name, row: key.to_owned() });
        }
    });
    let tables = Tables {
        tiles: Rows::open(&tx, "consortium.tiles", TILES, &mut found),
        bundles: Rows::open(&tx, "consortium.bundles", BUNDLES, &mut found),
        entries: Rows::open(&tx, "consortium.entries", ENTRIES, &mut found),
    };
    let applied = applied.map(String::into_bytes);
    Ok(check(&tables, applied, published, log, found, progress))
}

/// Whether a database keeps a consortium log.
///
/// # Errors
/// If it cannot be read at all.
pub fn keeps_consortium_log(db: &impl ReadableDatabase) -> Result<bool, FsckError> {
    Ok(has_log(&begin(db)?))
}

fn begin(db: &impl ReadableDatabase) -> Result<ReadTransaction, FsckError> {
    let tx = guarded(|| db.begin_read()).map_err(FsckError::Damaged)?;
    Ok(tx.map_err(redb::Error::from)?)
}

/// A table that is damaged is there.
fn has_log(tx: &ReadTransaction) -> bool {
    let is_absent = |absent| matches!(absent, Ok(Err(TableError::TableDoesNotExist(_))));
    !is_absent(guarded(|| tx.open_table(META).map(drop)))
        || !is_absent(guarded(|| tx.open_table(TILES).map(drop)))
}

/// Where tiles and bundles lie. What is not there, too long or unreadable is `None`: all the same to whoever needs it.
trait Stored {
    fn tile(&self, level: u8, index: u64, width: u64, found: &mut Found) -> Option<Vec<u8>>;
    fn bundle(&self, index: u64, width: u64, found: &mut Found) -> Option<Vec<u8>>;
    /// Looks for the entry with this hash by its row, which says this index, or a later one if the entry is there twice; whether it is
    /// this one.
    fn place(&self, index: u64, hash: [u8; 32], found: &mut Found) -> bool;
    /// Looks for what a log of this size, in which so many entries were found by their own rows, does not have.
    fn strays(&self, size: u64, placed: u64, found: &mut Found);
}

fn check(
    stored: &impl Stored,
    note: Option<Vec<u8>>,
    published: Option<String>,
    log: &VerifierKey,
    found: Found,
    progress: &mut dyn FnMut(u64, u64),
) -> LogReport {
    let mut check = Check { stored, found, placed: 0, published: None };
    let keys = std::slice::from_ref(log);
    if let Some(note) = published {
        match Head::open_cosigned(note.as_bytes(), keys) {
            Ok((head, _)) => check.published = Some(head),
            Err(_) => check.found.problem(Problem::Published),
        }
    }
    let head = match note.as_deref().map(|note| Head::open_cosigned(note, keys)) {
        Some(Ok((head, _))) => Some(head),
        Some(Err(error)) => {
            check.found.problem(Problem::Checkpoint(error));
            None
        }
        None => {
            check.found.problem(Problem::NoCheckpoint);
            None
        }
    };
    if let Some(head) = &head {
        check.leaves(head, progress);
    }
    let Found { problems, omitted, .. } = check.found;
    LogReport { leaves: head.map(|head| head.size), problems, omitted }
}

struct Check<'a, S> {
    stored: &'a S,
    found: Found,
    /// Entries whose row says where they are.
    placed: u64,
    /// What readers are given, until its root was seen.
    published: Option<Head>,
}

impl<S: Stored> Check<'_, S> {
    fn leaves(&mut self, head: &Head, progress: &mut dyn FnMut(u64, u64)) {
        let (mut edge, mut filled) = (Edge::empty(), Vec::new());
        self.pass(&edge);
        for index in 0..head.size.div_ceil(TILE_WIDTH) {
            let width = TILE_WIDTH.min(head.size - index * TILE_WIDTH);
            for hash in self.bundle(index, width) {
                let Ok(()) = edge.push(hash, |level, index, hashes| {
                    filled.push((level, index, hashes.to_vec()));
                    Ok::<_, Infallible>(())
                });
                self.pass(&edge);
            }
            for (level, index, hashes) in filled.drain(..) {
                self.tile(level, index, &hashes);
            }
            progress(index * TILE_WIDTH + width, head.size);
        }
        let Ok(()) = edge.flush(|level, index, hashes| {
            filled.push((level, index, hashes.to_vec()));
            Ok::<_, Infallible>(())
        });
        for (level, index, hashes) in filled {
            self.tile(level, index, &hashes);
        }
        if edge.root().ok() != Some(head.root) {
            self.found.problem(Problem::Root);
        }
        if self.published.is_some() {
            self.found.problem(Problem::Published);
        }
        self.stored.strays(head.size, self.placed, &mut self.found);
    }

    /// The tree has come so far: is it that which readers are given?
    fn pass(&mut self, edge: &Edge) {
        if self.published.as_ref().is_some_and(|head| {
            head.size == edge.size() && edge.root().is_ok_and(|root| root == head.root)
        }) {
            self.published = None;
        }
    }

    /// The leaf hashes of a bundle; if it cannot be read those in its tile, so that one file is one problem.
    fn bundle(&mut self, index: u64, width: u64) -> Vec<Hash> {
        let bytes = self.stored.bundle(index, width, &mut self.found);
        let entries = bytes.as_deref().and_then(decode_entries);
        if let Some(entries) = entries.filter(|entries| entries.len() as u64 == width) {
            for (entry, leaf) in entries.iter().zip(index * TILE_WIDTH..) {
                let hash = Sha256::digest(entry).into();
                self.placed += u64::from(self.stored.place(leaf, hash, &mut self.found));
            }
            return entries.into_iter().map(tlog_tiles::record_hash).collect();
        }
        self.found.problem(Problem::Bundle { index });
        let mut hashes = self.stored.tile(0, index, width, &mut self.found).unwrap_or_default();
        hashes.resize(width as usize * HASH_SIZE, 0);
        let (hashes, _) = hashes.as_chunks::<HASH_SIZE>();
        hashes.iter().map(|hash| Hash(*hash)).collect()
    }

    fn tile(&mut self, level: u8, index: u64, expected: &[u8]) {
        let width = (expected.len() / HASH_SIZE) as u64;
        let stored = self.stored.tile(level, index, width, &mut self.found).unwrap_or_default();
        if stored.len() != expected.len() {
            return self.found.problem(Problem::Tile { level, index });
        }
        let pairs = stored.chunks(HASH_SIZE).zip(expected.chunks(HASH_SIZE));
        if let Some(position) = pairs.into_iter().position(|(stored, expected)| stored != expected)
        {
            self.found.problem(Problem::Hash { level, index, position: position as u64 });
        }
    }
}

struct Folder<'a>(&'a Path);

impl Folder<'_> {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.0.join(path)).ok()?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= MAX_FILE_BYTES).then_some(bytes)
    }
}

impl Stored for Folder<'_> {
    fn tile(&self, level: u8, index: u64, width: u64, _: &mut Found) -> Option<Vec<u8>> {
        self.read(&tile_path(level, index, width))
    }

    fn bundle(&self, index: u64, width: u64, _: &mut Found) -> Option<Vec<u8>> {
        self.read(&entries_path(index, width))
    }

    /// Static files are not searched.
    fn place(&self, _: u64, _: [u8; 32], _: &mut Found) -> bool {
        false
    }

    /// The partial forms of an earlier tree may lie there.
    fn strays(&self, _: u64, _: u64, _: &mut Found) {}
}

struct Tables {
    tiles: Rows<(u8, u64), &'static [u8]>,
    bundles: Rows<u64, &'static [u8]>,
    entries: Rows<[u8; 32], u64>,
}

impl Stored for Tables {
    fn tile(&self, level: u8, index: u64, _: u64, found: &mut Found) -> Option<Vec<u8>> {
        self.tiles.bytes((level, index), found)
    }

    fn bundle(&self, index: u64, _: u64, found: &mut Found) -> Option<Vec<u8>> {
        self.bundles.bytes(index, found)
    }

    fn place(&self, index: u64, hash: [u8; 32], found: &mut Found) -> bool {
        let row = self.entries.read(found, |table| Ok(table.get(hash)?.map(|row| row.value())));
        match row.flatten() {
            Some(place) if place >= index => place == index,
            _ => {
                found.problem(Problem::Name { index });
                false
            }
        }
    }

    fn strays(&self, size: u64, placed: u64, found: &mut Found) {
        self.tiles.each_key(found, |found, (level, index)| {
            if index >= hashes_at(size, level).div_ceil(TILE_WIDTH) {
                let row = format!("{level}/{index}");
                found.problem(Problem::StrayRow { table: self.tiles.name, row });
            }
        });
        self.bundles.each_key(found, |found, index| {
            if index >= size.div_ceil(TILE_WIDTH) {
                let row = index.to_string();
                found.problem(Problem::StrayRow { table: self.bundles.name, row });
            }
        });
        // Every entry has claimed its row: what is over leads nowhere.
        if self.entries.len(found) > placed {
            self.entries.each_row(found, |found, hash, index| {
                let bundle = self.bundles.bytes(index / TILE_WIDTH, found);
                let entries = bundle.as_deref().and_then(decode_entries);
                let leads = match entries {
                    _ if index >= size => false,
                    // It has been named, and against it nothing can be held.
                    None => true,
                    Some(entries) => entries
                        .get((index % TILE_WIDTH) as usize)
                        .is_some_and(|entry| <[u8; 32]>::from(Sha256::digest(entry)) == hash),
                };
                if !leads {
                    found.problem(Problem::StrayName { index });
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consortium::{Sequencer, Tiles};
    use crate::fixtures::memory;
    use crate::store::RedbStore;
    use haar_identity::Identity;
    use redb::{Database, ReadableTable};
    use std::fs;
    use std::sync::Arc;

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

    fn check(folder: &Path, own: &Sequencer<RedbStore>) -> LogReport {
        fsck_folder(folder, own.tiles().log(), &mut |_, _| {})
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
            let expected = LogReport { leaves: Some(leaves), problems: vec![], omitted: 0 };
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

    /// The log in a database of its own, which tests may damage.
    async fn kept(entries: u64) -> (Arc<Database>, VerifierKey) {
        let (db, key) = (memory(), Identity::generate("consortium.example/log", [1; 32]).unwrap());
        let vkey = key.vkey().clone();
        let tiles = Tiles::open(db.clone(), vkey.clone()).unwrap();
        let store = RedbStore::open(db.clone()).unwrap();
        let mut own = Sequencer::open(store, tiles, key, "node-1", b"genesis").await.unwrap();
        append(&mut own, entries).await;
        (db, vkey)
    }

    #[tokio::test]
    async fn what_a_node_keeps_is_sound_at_every_kind_of_size() {
        for entries in [1, 254, 255, 256, 511, 700] {
            let (db, key) = kept(entries).await;
            let expected = LogReport { leaves: Some(entries + 1), problems: vec![], omitted: 0 };
            assert_eq!(fsck_tables(&*db, &key, &mut |_, _| {}).unwrap(), expected);
        }
        let other = Identity::generate("consortium.example/log", [2; 32]).unwrap();
        let (db, _) = kept(5).await;
        let report = fsck_tables(&*db, other.vkey(), &mut |_, _| {}).unwrap();
        assert!(matches!(report.problems[..], [Problem::Published, Problem::Checkpoint(_)]));
        assert!(keeps_consortium_log(&*db).unwrap() && !keeps_consortium_log(&*memory()).unwrap());
        assert!(matches!(
            fsck_tables(&*memory(), &key_of(), &mut |_, _| {}),
            Err(FsckError::NoLog)
        ));
    }

    fn key_of() -> VerifierKey {
        Identity::generate("consortium.example/log", [1; 32]).unwrap().vkey().clone()
    }

    /// Every kind of row, altered, missing and put in.
    #[tokio::test]
    async fn the_damaged_row_is_named() {
        type Damage = fn(&redb::WriteTransaction);
        let hash = |level, index| Problem::Hash { level, index, position: 1 };
        let stray = |table, row: &str| Problem::StrayRow { table, row: row.to_owned() };
        let damages: [(Damage, Vec<Problem>); 9] = [
            (|tx| flip(tx, (0, 1)), vec![hash(0, 1)]),
            (|tx| flip(tx, (1, 0)), vec![hash(1, 0)]),
            (
                |tx| drop(tx.open_table(TILES).unwrap().remove((0, 2)).unwrap()),
                vec![Problem::Tile { level: 0, index: 2 }],
            ),
            (
                |tx| drop(tx.open_table(BUNDLES).unwrap().remove(2).unwrap()),
                vec![Problem::Bundle { index: 2 }],
            ),
            (
                |tx| drop(tx.open_table(TILES).unwrap().insert((0, 3), &[7; 32][..]).unwrap()),
                vec![stray("consortium.tiles", "0/3")],
            ),
            (
                |tx| drop(tx.open_table(BUNDLES).unwrap().insert(3, &[0, 0][..]).unwrap()),
                vec![stray("consortium.bundles", "3")],
            ),
            (
                |tx| drop(tx.open_table(META).unwrap().insert("other", "x").unwrap()),
                vec![stray("consortium.meta", "other")],
            ),
            (
                |tx| drop(tx.open_table(ENTRIES).unwrap().insert([9; 32], 4).unwrap()),
                vec![Problem::StrayName { index: 4 }],
            ),
            (
                |tx| {
                    let hash: [u8; 32] = Sha256::digest(b"entry 300").into();
                    drop(tx.open_table(ENTRIES).unwrap().remove(hash).unwrap());
                },
                vec![Problem::Name { index: 300 }],
            ),
        ];
        for (damage, expected) in damages {
            let (db, key) = kept(599).await;
            let tx = db.begin_write().unwrap();
            damage(&tx);
            tx.commit().unwrap();
            let found = fsck_tables(&*db, &key, &mut |_, _| {}).unwrap();
            assert_eq!(found.problems, expected);
        }
    }

    fn flip(tx: &redb::WriteTransaction, key: (u8, u64)) {
        let mut table = tx.open_table(TILES).unwrap();
        let mut row = table.get(key).unwrap().unwrap().value().to_vec();
        row[40] ^= 1;
        table.insert(key, row.as_slice()).unwrap();
    }

    /// An operator that publishes another tree than it keeps.
    #[tokio::test]
    async fn a_published_checkpoint_of_another_tree_is_named() {
        let (db, key) = kept(30).await;
        let log = Identity::generate("consortium.example/log", [1; 32]).unwrap();
        for size in [12, 31, 32] {
            let note = crate::SignedCheckpoint::sign(&log, size, [3; 32]).unwrap();
            let tx = db.begin_write().unwrap();
            tx.open_table(META).unwrap().insert(PUBLISHED, note.note()).unwrap();
            tx.commit().unwrap();
            let found = fsck_tables(&*db, &key, &mut |_, _| {}).unwrap();
            assert_eq!(found.problems, [Problem::Published], "size {size}");
        }
    }
}
