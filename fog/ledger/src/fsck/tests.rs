use super::*;
use crate::fixtures::{append, identity, log_of, record, records};
use crate::{FileError, SiteLog, Snapshot, open_read_only};
use redb::ReadableTable;
use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend, WriteTransaction};

const LEAVES: u64 = 300;

/// One row of one table, by its key.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Row {
    Meta(String),
    Tile(u8, u64),
    Bundle(u64),
    Record(u64),
    Name([u8; NAME_ROW_BYTES]),
}

impl Row {
    fn all(db: &Database) -> Vec<Self> {
        let tx = db.begin_read().unwrap();
        let mut rows = vec![Self::Meta(CHECKPOINT.into()), Self::Meta(VKEY.into())];
        for row in tx.open_table(TILES).unwrap().iter().unwrap() {
            let (level, index) = row.unwrap().0.value();
            rows.push(Self::Tile(level, index));
        }
        for row in tx.open_table(BUNDLES).unwrap().iter().unwrap() {
            rows.push(Self::Bundle(row.unwrap().0.value()));
        }
        for row in tx.open_table(RECORDS).unwrap().iter().unwrap() {
            rows.push(Self::Record(row.unwrap().0.value()));
        }
        for row in tx.open_table(NAMES).unwrap().iter().unwrap() {
            rows.push(Self::Name(*row.unwrap().0.value()));
        }
        rows
    }

    fn take(&self, tx: &WriteTransaction) -> Option<Vec<u8>> {
        macro_rules! take {
            ($table:expr, $key:expr) => {
                tx.open_table($table).unwrap().remove($key).unwrap().map(|v| v.value().to_vec())
            };
        }
        match self {
            Self::Meta(key) => take!(META, key.as_str()),
            Self::Tile(level, index) => take!(TILES, (*level, *index)),
            Self::Bundle(index) => take!(BUNDLES, *index),
            Self::Record(index) => take!(RECORDS, *index),
            Self::Name(row) => {
                tx.open_table(NAMES).unwrap().remove(row).unwrap().map(|_| Vec::new())
            }
        }
    }

    fn put(&self, tx: &WriteTransaction, value: &[u8]) {
        match self {
            Self::Meta(key) => {
                tx.open_table(META).unwrap().insert(key.as_str(), value).unwrap();
            }
            Self::Tile(level, index) => {
                tx.open_table(TILES).unwrap().insert((*level, *index), value).unwrap();
            }
            Self::Bundle(index) => {
                tx.open_table(BUNDLES).unwrap().insert(*index, value).unwrap();
            }
            Self::Record(index) => {
                tx.open_table(RECORDS).unwrap().insert(*index, value).unwrap();
            }
            Self::Name(row) => {
                tx.open_table(NAMES).unwrap().insert(row, ()).unwrap();
            }
        }
    }

    /// The same row under a key with one bit flipped.
    fn flipped(&self, bit: usize) -> Self {
        let index = |index: u64| index ^ (1 << (bit % 64));
        match self {
            Self::Meta(key) => {
                let mut key = key.clone().into_bytes();
                let place = bit / 3 % key.len();
                key[place] ^= 1 << (bit % 3);
                Self::Meta(String::from_utf8(key).unwrap())
            }
            Self::Tile(level, tile) if bit.is_multiple_of(2) => {
                Self::Tile(level ^ (1 << (bit / 2 % 8)), *tile)
            }
            Self::Tile(level, tile) => Self::Tile(*level, index(*tile)),
            Self::Bundle(bundle) => Self::Bundle(index(*bundle)),
            Self::Record(record) => Self::Record(index(*record)),
            Self::Name(row) => {
                let mut row = *row;
                row[bit / 8 % NAME_ROW_BYTES] ^= 1 << (bit % 8);
                Self::Name(row)
            }
        }
    }

    /// Whether a problem names this row.
    fn is_named_by(&self, problem: &Problem, byte: usize) -> bool {
        let index = |width: usize, first: u64| first * TILE_WIDTH + (byte / width) as u64;
        match (self, problem) {
            (Self::Meta(key), Problem::VerifierKey) => key == VKEY,
            (Self::Meta(key), Problem::Checkpoint(_)) => key == CHECKPOINT,
            (Self::Tile(level, tile), Problem::Hash { level: l, index: i, position }) => {
                (level, tile, (byte / HASH_SIZE) as u64) == (l, i, *position)
            }
            (Self::Bundle(bundle), Problem::Leaf { index: i }) => {
                index(BUNDLE_ROW_BYTES, *bundle) == *i
            }
            (Self::Record(record), Problem::Record { index }) => record == index,
            _ => false,
        }
    }

    /// Whether a problem says that this row is missing.
    fn is_missed_by(&self, problem: &Problem) -> bool {
        match (self, problem) {
            (Self::Meta(key), Problem::NoCheckpoint) => key == CHECKPOINT,
            (Self::Meta(key), Problem::VerifierKey) => key == VKEY,
            (Self::Tile(level, tile), Problem::Tile { level: l, index }) => {
                (level, tile) == (l, index)
            }
            (Self::Bundle(bundle), Problem::Bundle { index }) => bundle == index,
            (Self::Record(record), Problem::Record { index }) => record == index,
            (Self::Name(row), Problem::Name { index }) => tables::split_name_row(row).1 == *index,
            _ => false,
        }
    }
}

fn change(db: &Database, change: impl FnOnce(&WriteTransaction)) {
    let tx = db.begin_write().unwrap();
    change(&tx);
    tx.commit().unwrap();
}

fn check(db: &impl ReadableDatabase) -> Report {
    fsck(db, Trust::Pinned(&[identity().vkey().clone()]), None, &mut |_, _| {}).unwrap()
}

/// Bits of a value to flip: all of a few bytes, one of the rest, more sparsely in long values.
fn sampled_bits(bytes: usize, salt: usize) -> impl Iterator<Item = usize> {
    let step = (bytes * 8 / 12).max(1) | 1;
    (salt % step..bytes * 8).step_by(step).chain(0..4)
}

#[test]
fn a_sound_log_is_found_sound() {
    for size in [0, 1, 255, 256, 257, LEAVES, 513] {
        let (db, log) = log_of(size);
        let mut last = (0, 0);
        let keys = [identity().vkey().clone()];
        let report = fsck(&*db, Trust::Pinned(&keys), None, &mut |done, total| {
            assert!(done >= last.0 && done <= total, "progress goes forward");
            last = (done, total);
        });
        let report = report.unwrap();
        assert!(report.is_sound() && report.key_pinned, "{:?}", report.problems);
        assert_eq!(report.leaves, size);
        assert_eq!(report.checkpoint.unwrap(), log.checkpoint().unwrap());
        assert_eq!(last.0, last.1);
        assert!(fsck(&*db, Trust::Unpinned, None, &mut |_, _| {}).unwrap().is_sound());
    }
}

#[test]
fn flipped_bits_in_every_stored_value_are_named() {
    let (db, _log) = log_of(LEAVES);
    for (salt, row) in Row::all(&db).into_iter().enumerate() {
        let mut value = Vec::new();
        change(&db, |tx| {
            value = row.take(tx).unwrap();
            row.put(tx, &value);
        });
        // One bit in each of hundreds of records, many bits in the few long values.
        let few = if matches!(row, Row::Record(_)) { 2 } else { usize::MAX };
        for bit in sampled_bits(value.len(), salt * 7).take(few) {
            if value.is_empty() {
                break;
            }
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            change(&db, |tx| row.put(tx, &flipped));
            let report = check(&*db);
            let named = report.problems.iter().any(|p| row.is_named_by(p, bit / 8));
            assert!(named, "{row:?} bit {bit}: {:?}", report.problems);
            assert!(report.problems.len() <= 3, "{row:?} bit {bit}: {:?}", report.problems);
            assert!(!report.is_sound());
        }
        change(&db, |tx| row.put(tx, &value));
    }
    assert!(check(&*db).is_sound());
}

#[test]
fn flipped_bits_in_keys_are_named() {
    let (db, _log) = log_of(LEAVES);
    for (salt, row) in Row::all(&db).into_iter().enumerate() {
        for bit in [salt * 5, salt * 11 + 40] {
            let other = row.flipped(bit);
            let (mut value, mut overwritten) = (Vec::new(), None);
            change(&db, |tx| {
                value = row.take(tx).unwrap();
                overwritten = other.take(tx);
                other.put(tx, &value);
            });
            let report = check(&*db);
            let named = report.problems.iter().any(|problem| row.is_missed_by(problem));
            assert!(named, "{row:?} bit {bit}: {:?}", report.problems);
            assert!(report.problems.len() >= 2, "the new row: {row:?}: {:?}", report.problems);
            change(&db, |tx| {
                other.take(tx);
                if let Some(overwritten) = &overwritten {
                    other.put(tx, overwritten);
                }
                row.put(tx, &value);
            });
        }
    }
    assert!(check(&*db).is_sound());
}

#[test]
fn several_problems_are_all_named() {
    let (db, _log) = log_of(LEAVES);
    change(&db, |tx| {
        Row::Record(7).take(tx);
        Row::Bundle(1).take(tx);
        let mut tile = Row::Tile(0, 0).take(tx).unwrap();
        tile[32 * 200] ^= 4;
        Row::Tile(0, 0).put(tx, &tile);
        Row::Name(tables::name_row(&record(40).name, 40)).take(tx);
        Row::Record(5000).put(tx, b"more");
    });
    let texts: Vec<_> = check(&*db).problems.iter().map(ToString::to_string).collect();
    expect_test::expect![[r#"
        record 7: missing, or its bytes, name or key are not those committed to
        name of leaf 40: missing in the names table
        tile 0/0: hash 200 is not that of what lies below it
        entry bundle 1: missing or of the wrong width
        site_log.records: a row 5000 that does not belong to a log of this size"#]]
    .assert_eq(&texts.join("\n"));
}

#[test]
fn a_log_that_was_cut_or_replaced_is_found() {
    let (db, _log) = log_of(LEAVES);
    change(&db, |tx| {
        tx.delete_table(RECORDS).unwrap();
    });
    let report = check(&*db);
    assert_eq!(report.problems.len() as u64 + report.omitted, 1 + LEAVES);
    assert!(matches!(report.problems[0], Problem::Unreadable { table: "site_log.records", .. }));

    // A consistent log, one bit of one body other than what was signed.
    let (db, _log) = log_of(LEAVES);
    let (other, _) = log_of(0);
    let log = SiteLog::open(other.clone(), identity()).unwrap();
    let mut changed = records(0..LEAVES);
    changed[100].body[3] ^= 1;
    append(&other, &log, &changed);
    let note = log.checkpoint().unwrap().note().to_owned();
    change(&db, |tx| Row::Meta(CHECKPOINT.into()).put(tx, note.as_bytes()));
    assert_eq!(check(&*db).problems, [Problem::Root]);
}

#[test]
fn there_must_be_a_log() {
    let db = crate::fixtures::memory();
    let error = fsck(&*db, Trust::Unpinned, None, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, FsckError::NoLog));
}

#[test]
fn files_in_use_left_open_or_missing_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fog.redb");
    assert!(matches!(open_read_only(&path), Err(FileError::Missing(_))));
    let db = std::sync::Arc::new(Database::create(&path).unwrap());
    let log = SiteLog::open(db.clone(), identity()).unwrap();
    append(&db, &log, &records(0..10));
    let error = open_read_only(&path).err().unwrap();
    assert!(matches!(error, FileError::InUse(_)), "{error}");
    let copy = folder.path().join("copy.redb");
    std::fs::copy(&path, &copy).unwrap();
    let error = open_read_only(&copy).err().unwrap();
    assert!(matches!(error, FileError::NotClosed(_)), "{error}");
    drop((log, db));
    let db = open_read_only(&path).unwrap();
    assert!(check(&db).is_sound());
    assert!(Snapshot::open(&db).unwrap().prove(9).is_ok());
    std::fs::write(&path, b"not a database").unwrap();
    let error = open_read_only(&path).err().unwrap();
    assert!(matches!(error, FileError::Damaged { .. }), "{error}");
}

/// Bits flipped in the raw file: what is found is named, and what is not found changed nothing.
#[test]
fn flipped_bits_in_the_file_never_pass_as_other_content() {
    const SIZE: u64 = 40;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fog.redb");
    let db = std::sync::Arc::new(Database::create(&path).unwrap());
    let log = SiteLog::open(db.clone(), identity()).unwrap();
    append(&db, &log, &records(0..SIZE));
    let note = log.checkpoint().unwrap().note().to_owned();
    drop((log, db));
    let file = std::fs::read(&path).unwrap();
    let used: Vec<usize> = (0..file.len()).filter(|&at| file[at] != 0).collect();
    let (mut found, mut harmless) = (0, 0);
    for (count, at) in used.iter().step_by(used.len() / 1500).enumerate() {
        let mut flipped = file.clone();
        flipped[*at] ^= 1 << (count % 8);
        let backend = InMemoryBackend::new();
        backend.set_len(flipped.len() as u64).unwrap();
        backend.write(0, &flipped).unwrap();
        let opened = guarded(|| Database::builder().create_with_backend(backend));
        let Ok(Ok(db)) = opened else {
            found += 1;
            continue;
        };
        let keys = [identity().vkey().clone()];
        match fsck(&db, Trust::Pinned(&keys), None, &mut |_, _| {}) {
            Ok(report) if report.is_sound() => {
                harmless += 1;
                let snapshot = Snapshot::open(&db).unwrap();
                assert_eq!(snapshot.note(), note, "byte {at}");
                for index in 0..SIZE {
                    assert_eq!(snapshot.record(index).unwrap(), record(index), "byte {at}");
                    assert!(snapshot.find(&record(index).name).unwrap().contains(&index));
                }
            }
            _ => found += 1,
        }
        // A database on damaged pages may also panic when it is closed.
        let _ = guarded(|| drop(db));
    }
    println!("{found} of {} flips found, {harmless} in bytes that mean nothing", found + harmless);
    assert!(found > 100, "{found} found, {harmless} harmless");
}
