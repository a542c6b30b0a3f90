use super::*;
use crate::fixtures::{append, identity, record, records};
use crate::privacy::seal::Row;
use crate::tables::RECORDS;
use crate::{Problem, ReadError, Report, Snapshot, Trust, fsck, open_read_only, verify};
use sha2::Digest;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

/// Different at every call, the same in every run of one test.
fn counted(bytes: &mut [u8; 32]) -> std::io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    *bytes = sha2::Sha256::digest(count.to_be_bytes()).into();
    Ok(())
}

fn patient(number: u64) -> Keyholder {
    Keyholder::of(&number.to_be_bytes())
}

fn held(index: u64) -> Held {
    // Every fourth is about nobody.
    Held { keyholder: (index % 4 != 3).then(|| patient(index % 4)), record: record(index) }
}

struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn database(&self) -> std::path::PathBuf {
        self.folder.path().join("fog.redb")
    }

    fn key_file(&self) -> std::path::PathBuf {
        self.folder.path().join("records.key")
    }

    fn open(&self) -> (Arc<Database>, SiteLog) {
        let db = Arc::new(Database::create(self.database()).unwrap());
        let log = self.try_open(&db).unwrap();
        (db, log)
    }

    fn try_open(&self, db: &Arc<Database>) -> Result<SiteLog, OpenError> {
        let sealing = Sealing { key_file: self.key_file(), random: counted };
        SiteLog::open_sealed(db.clone(), identity(), sealing)
    }

    /// A log of so many leaves.
    fn of(size: u64) -> Self {
        let site = Self::new();
        let (db, log) = site.open();
        append_held(&db, &log, 0..size);
        site
    }
}

fn append_held(db: &Database, log: &SiteLog, range: std::ops::Range<u64>) {
    let tx = db.begin_write().unwrap();
    log.append_held(&tx, &range.map(held).collect::<Vec<_>>()).unwrap();
    tx.commit().unwrap();
}

fn check(db: &Database, key: Option<&RecordsKey>) -> Report {
    fsck(db, Trust::Pinned(&[identity().vkey().clone()]), key, &mut |_, _| {}).unwrap()
}

#[test]
fn sealed_records_are_read_as_they_were_appended() {
    let site = Site::of(300);
    let (db, log) = site.open();
    for index in 0..300 {
        assert_eq!(log.record(index).unwrap(), record(index));
    }
    let proof = log.prove(17).unwrap().to_text();
    assert_eq!(verify(&proof, Trust::Unpinned).unwrap().record, record(17));
    // The tree is that of a log in clear.
    let (_, clear) = crate::fixtures::log_of(300);
    assert_eq!(log.checkpoint().unwrap(), clear.checkpoint().unwrap());
    let key = RecordsKey::load(&site.key_file()).unwrap();
    let report = check(&db, Some(&key));
    assert!(report.is_sound(), "{:?}", report.problems);
    assert_eq!((report.erased, report.locked), (0, 0));
    let report = check(&db, None);
    assert!(report.is_sound(), "{:?}", report.problems);
    assert_eq!((report.erased, report.locked), (0, 300));
}

#[test]
fn the_file_tells_no_body_and_no_key() {
    let site = Site::of(300);
    let file = std::fs::read(site.database()).unwrap();
    let contains = |what: &[u8]| file.windows(what.len()).any(|window| window == what);
    for index in [0, 3, 150, 299] {
        let record = record(index);
        assert!(!contains(&record.body) && !contains(&record.key), "record {index}");
        assert!(contains(&record.name), "names are in clear");
    }
    // The search finds what is there: in a log in clear, all of it.
    let plain = TempDir::new().unwrap();
    let path = plain.path().join("fog.redb");
    {
        let db = Arc::new(Database::create(&path).unwrap());
        let log = SiteLog::open(db.clone(), identity()).unwrap();
        append(&db, &log, &records(0..300));
    }
    let file = std::fs::read(path).unwrap();
    let contains = |what: &[u8]| file.windows(what.len()).any(|window| window == what);
    assert!(contains(&record(150).body) && contains(&record(150).key));
}

#[test]
fn without_the_key_nothing_is_read_and_nothing_appended_in_clear() {
    let site = Site::of(10);
    {
        let db = open_read_only(&site.database()).unwrap();
        let snapshot = Snapshot::open(&db).unwrap();
        assert!(matches!(snapshot.record(4), Err(ReadError::Locked { index: 4 })));
        let other = Arc::new(RecordsKey::new([9; 32]));
        let error = Snapshot::open_with(&db, other).err().unwrap();
        assert!(matches!(error, ReadError::OtherRecordsKey), "{error}");
    }
    let db = Arc::new(Database::create(site.database()).unwrap());
    let error = SiteLog::open(db.clone(), identity()).err().unwrap();
    assert!(matches!(error, OpenError::Sealed), "{error}");
    std::fs::remove_file(site.key_file()).unwrap();
    let error = site.try_open(&db).err().unwrap();
    assert!(error.to_string().contains("records.key"), "{error}");
    assert!(!site.key_file().exists(), "no new key is made for records sealed under another");
}

#[test]
fn rows_in_clear_from_before_are_read_still() {
    let site = Site::new();
    {
        let db = Arc::new(Database::create(site.database()).unwrap());
        let log = SiteLog::open(db.clone(), identity()).unwrap();
        append(&db, &log, &records(0..10));
    }
    let (db, log) = site.open();
    append_held(&db, &log, 10..20);
    for index in 0..20 {
        assert_eq!(log.record(index).unwrap(), record(index));
    }
    log.erase(&[patient(0)], |_, _| Ok(())).unwrap();
    assert_eq!(log.record(0).unwrap(), record(0), "nobody's key holds it");
    assert!(matches!(log.record(12), Err(ReadError::Erased { .. })));
    let key = RecordsKey::load(&site.key_file()).unwrap();
    assert!(check(&db, Some(&key)).is_sound());
}

#[test]
fn an_erased_patient_is_gone_and_every_proof_holds() {
    let site = Site::of(600);
    let (db, log) = site.open();
    let before: Vec<String> = (0..600).map(|index| log.prove(index).unwrap().to_text()).collect();
    let [erased] =
        <[Erased; 1]>::try_from(log.erase(&[patient(1)], |_, _| Ok(())).unwrap()).ok().unwrap();
    assert_eq!(erased.leaf, 600);
    for index in 0..600 {
        if index % 4 == 1 {
            assert!(matches!(log.record(index), Err(ReadError::Erased { .. })));
            let error = log.prove(index).unwrap_err();
            assert!(error.to_string().contains("erased"), "{error}");
            let bare = log.prove_leaf(index).unwrap().to_text();
            let shown = crate::verify_leaf(&bare, Trust::Unpinned).unwrap();
            assert_eq!((shown.index, shown.leaf), (index, record(index).leaf()));
        } else {
            assert_eq!(log.record(index).unwrap(), record(index));
        }
        assert_eq!(verify(&before[index as usize], Trust::Unpinned).unwrap().index, index);
    }
    // The leaf is found by whoever has the receipt, and names the slot.
    let name = erasure_name(&erased.receipt, &patient(1));
    assert_eq!(log.find(&name).unwrap(), [600]);
    let said = log.record(600).unwrap();
    assert_eq!(said.kind, LeafKind::Erasure);
    let expected = format!(r#"{{"v":1,"slot":1,"patient":"{}"}}"#, hex::encode(name));
    assert_eq!(String::from_utf8(said.body).unwrap(), expected);
    let key = RecordsKey::load(&site.key_file()).unwrap();
    let report = check(&db, Some(&key));
    assert!(report.is_sound(), "{:?}", report.problems);
    assert_eq!((report.erased, report.locked, report.leaves), (150, 0, 601));

    let error = log.erase(&[patient(2), patient(1)], |_, _| Ok(())).err().unwrap();
    assert!(matches!(error, EraseError::NoSuchPatient { position: 1 }), "{error}");
    assert_eq!(log.record(2).unwrap(), record(2), "all or none");
    // Whoever comes back gets another key, under which the old records stay shut.
    append_held(&db, &log, 600..605);
    drop((log, db));
    let (db, log) = site.open();
    assert_eq!(log.record(602).unwrap(), record(601));
    assert!(matches!(log.record(1), Err(ReadError::Erased { .. })));
    assert!(check(&db, Some(&RecordsKey::load(&site.key_file()).unwrap())).is_sound());
}

/// The row of the destroyed key is still in a page that redb freed. Under the old records key, of which
/// the thief may find no copy, it opens; under nothing that is left does it.
#[test]
fn nothing_that_is_left_opens_an_erased_record() {
    let site = Site::of(300);
    let old = RecordsKey::load(&site.key_file()).unwrap();
    let (sealed, data_key) = {
        let (db, log) = site.open();
        let tx = db.begin_read().unwrap();
        let row = tx.open_table(RECORDS).unwrap().get(1).unwrap().unwrap().value().to_vec();
        let slots = tx.open_table(HOLDERS).unwrap();
        let slot = slots.get(patient(1).bytes()).unwrap().unwrap().value();
        let key = tx.open_table(KEYS).unwrap().get(slot).unwrap().unwrap().value().to_vec();
        let key = KeyRow::decode(&key).unwrap().data_key(slot, &old).unwrap();
        drop(tx);
        log.erase(&[patient(1)], |_, _| Ok(())).unwrap();
        assert!(matches!(Row::decode(&row), Some(Row::Sealed(row)) if row.slot == slot));
        (row, key)
    };
    let new = RecordsKey::load(&site.key_file()).unwrap();
    assert_ne!(old.id(), new.id());
    let Some(Row::Sealed(sealed)) = Row::decode(&sealed) else { panic!("not sealed") };
    assert_eq!(sealed.open(1, &data_key).unwrap(), record(1), "the key that was destroyed");

    let left = site.every_byte();
    assert!(!left.windows(32).any(|window| window == &data_key[..]));
    let opened_with = |key: &RecordsKey| found_keys(&left, key, &patient(1), sealed.slot);
    assert_eq!(opened_with(&new), 0);
    // What the search is worth: with the key that was overwritten it finds the freed row.
    assert!(opened_with(&old) > 0, "redb no longer keeps freed pages: say so in the README");
    let secret = site.secret_of(&old);
    assert!(!left.windows(secret.len()).any(|window| window == secret.as_bytes()));
}

impl Site {
    /// All files of the folder, one behind the other.
    fn every_byte(&self) -> Vec<u8> {
        let mut files: Vec<_> = std::fs::read_dir(self.folder.path()).unwrap().collect();
        let mut bytes = Vec::new();
        for file in files.drain(..) {
            bytes.extend(std::fs::read(file.unwrap().path()).unwrap());
        }
        bytes
    }

    fn secret_of(&self, key: &RecordsKey) -> String {
        let path = self.folder.path().join("copy");
        KeyFile::new(path.clone()).put_next(key).unwrap();
        let next = self.folder.path().join("copy.next");
        let text = std::fs::read_to_string(&next).unwrap();
        std::fs::remove_file(next).unwrap();
        text.trim_end().rsplit('+').next().unwrap().to_owned()
    }
}

/// Places in `bytes` that are a row of [`KEYS`] which opens under `key`.
fn found_keys(bytes: &[u8], key: &RecordsKey, holder: &Keyholder, slot: u64) -> usize {
    bytes
        .windows(104)
        .filter(|row| row.starts_with(holder.bytes()))
        .filter(|row| KeyRow::decode(row).is_some_and(|row| row.data_key(slot, key).is_some()))
        .count()
}

#[test]
fn every_altered_byte_of_the_keys_is_found() {
    let site = Site::of(40);
    {
        let (_, log) = site.open();
        log.erase(&[patient(2)], |_, _| Ok(())).unwrap();
    }
    let (db, _log) = site.open();
    let key = RecordsKey::load(&site.key_file()).unwrap();
    assert!(check(&db, Some(&key)).is_sound());
    let found = |alter: &dyn Fn(&WriteTransaction)| {
        let tx = db.begin_write().unwrap();
        let savepoint = tx.ephemeral_savepoint().unwrap();
        alter(&tx);
        tx.commit().unwrap();
        let report = check(&db, Some(&key));
        let mut tx = db.begin_write().unwrap();
        tx.restore_savepoint(&savepoint).unwrap();
        tx.commit().unwrap();
        report.problems
    };
    for slot in [0, 1, 3] {
        let row = |tx: &WriteTransaction| {
            let keys = tx.open_table(KEYS).unwrap();
            keys.get(slot).unwrap().unwrap().value().to_vec()
        };
        for byte in (0..104).step_by(5) {
            let problems = found(&|tx| {
                let mut altered = row(tx);
                altered[byte] ^= 1;
                tx.open_table(KEYS).unwrap().insert(slot, altered.as_slice()).unwrap();
            });
            assert!(problems.contains(&Problem::DataKey { slot }), "slot {slot}, byte {byte}");
        }
        // A key that is destroyed without a leaf that says so is damage, not erasure.
        let problems = found(&|tx| {
            tx.open_table(KEYS).unwrap().remove(slot).unwrap();
        });
        assert!(problems.contains(&Problem::DataKey { slot }), "slot {slot}");
        let problems = found(&|tx| {
            tx.open_table(KEYS).unwrap().remove(slot).unwrap();
            tx.open_table(HOLDERS).unwrap().retain(|_, known| known != slot).unwrap();
            tx.open_table(ERASED).unwrap().insert(slot, 40).unwrap();
        });
        assert!(problems.contains(&Problem::DataKey { slot }), "leaf 40 names another slot");
    }
    for altered in [0, 39, 41, 1 << 40] {
        let problems = found(&|tx| {
            tx.open_table(ERASED).unwrap().insert(2, altered).unwrap();
        });
        assert!(problems.contains(&Problem::DataKey { slot: 2 }), "erased by leaf {altered}");
    }
    let problems = found(&|tx| {
        tx.open_table(ERASED).unwrap().remove(2).unwrap();
    });
    assert!(problems.contains(&Problem::DataKey { slot: 2 }));
    let problems = found(&|tx| {
        tx.open_table(SEALING).unwrap().insert("slots", [0; 8].as_slice()).unwrap();
    });
    assert!(!problems.is_empty());
}

#[test]
fn every_altered_byte_of_a_sealed_row_is_found() {
    let site = Site::of(8);
    let (db, log) = site.open();
    let key = RecordsKey::load(&site.key_file()).unwrap();
    let row = db.begin_read().unwrap().open_table(RECORDS).unwrap();
    let row = row.get(2).unwrap().unwrap().value().to_vec();
    let put = |at: u64, row: &[u8]| {
        let tx = db.begin_write().unwrap();
        tx.open_table(RECORDS).unwrap().insert(at, row).unwrap();
        tx.commit().unwrap();
    };
    for byte in 0..row.len() {
        let mut altered = row.clone();
        altered[byte] ^= 1;
        put(2, &altered);
        assert!(matches!(log.record(2), Err(ReadError::Damaged(_))), "byte {byte}");
        assert_eq!(check(&db, Some(&key)).problems[0], Problem::Record { index: 2 }, "byte {byte}");
    }
    put(2, &row);
    assert!(check(&db, Some(&key)).is_sound());
    put(6, &row);
    assert!(log.record(6).is_err(), "a row in another row's place");
}

/// The key file and the database are two things; the process may end between any two steps.
#[test]
fn an_erasure_that_was_interrupted_is_there_or_not() {
    for step in ["next written", "committed", "old overwritten"] {
        let site = Site::of(20);
        let file = KeyFile::new(site.key_file());
        let fresh = Arc::new(RecordsKey::new([77; 32]));
        {
            let (db, log) = site.open();
            file.put_next(&fresh).unwrap();
            if step != "next written" {
                let tx = db.begin_write().unwrap();
                let old = log.vault.as_ref().unwrap().key();
                log.write_erasure(&tx, &[patient(0)], &old, &fresh, counted, |_, _| Ok(()))
                    .unwrap();
                tx.commit().unwrap();
                // A process that has the old key in memory appends nothing under it.
                let tx = db.begin_write().unwrap();
                let error = log.append_held(&tx, &[held(20)]).unwrap_err();
                assert!(matches!(error, AppendError::Seal(SealError::OtherKey)), "{error}");
            }
            if step == "old overwritten" {
                std::fs::write(site.key_file(), [0; 80]).unwrap();
            }
        }
        let (db, log) = site.open();
        let erased = matches!(log.record(0), Err(ReadError::Erased { .. }));
        assert_eq!(erased, step != "next written", "{step}");
        assert_eq!(log.record(1).unwrap(), record(1), "{step}");
        assert!(!Path::new(&format!("{}.next", site.key_file().display())).exists());
        let key = RecordsKey::load(&site.key_file()).unwrap();
        assert!(check(&db, Some(&key)).is_sound(), "{step}");
    }
}

#[test]
fn readers_and_a_writer_meet_an_erasure() {
    let site = Site::of(200);
    let (db, log) = site.open();
    std::thread::scope(|scope| {
        let eraser = scope.spawn(|| {
            for _ in 0..20 {
                log.replace_records_key().unwrap();
            }
            log.erase(&[patient(0)], |_, _| Ok(())).unwrap();
        });
        let writer = scope.spawn(|| {
            for first in (200..300).step_by(5) {
                append_held(&db, &log, first..first + 5);
            }
        });
        while !(eraser.is_finished() && writer.is_finished()) {
            let snapshot = log.snapshot().unwrap();
            assert_eq!(snapshot.record(1).unwrap(), record(1));
            assert!(matches!(snapshot.record(0), Ok(_) | Err(ReadError::Erased { .. })));
        }
    });
    assert_eq!(log.size().unwrap(), 301);
    assert!(matches!(log.record(0), Err(ReadError::Erased { .. })));
}

#[test]
fn what_the_caller_removes_goes_with_it_or_not_at_all() {
    const OTHER: redb::TableDefinition<u64, u64> = redb::TableDefinition::new("other");
    let site = Site::of(8);
    let (db, log) = site.open();
    let tx = db.begin_write().unwrap();
    tx.open_table(OTHER).unwrap().insert(1, 1).unwrap();
    tx.commit().unwrap();
    let left = || {
        let tx = db.begin_read().unwrap();
        tx.open_table(OTHER).unwrap().get(1).unwrap().is_some()
    };
    let remove = |tx: &WriteTransaction, _: &mut FactSealer<'_>| -> Result<(), SealError> {
        tx.open_table(OTHER).map_err(redb::Error::from)?.remove(1)?;
        Ok(())
    };
    let failed = log.erase(&[patient(0)], |tx, sealer| {
        remove(tx, sealer)?;
        Err(redb::Error::Corrupted("as if".to_owned()).into())
    });
    assert!(matches!(failed, Err(EraseError::Seal(SealError::Database(_)))));
    assert!(left() && log.record(0).is_ok());
    log.erase(&[patient(0)], remove).unwrap();
    assert!(!left() && log.record(0).is_err());
}

#[test]
fn a_log_in_clear_erases_nobody() {
    let (_, log) = crate::fixtures::log_of(3);
    assert!(matches!(log.erase(&[patient(0)], |_, _| Ok(())), Err(EraseError::NotSealed)));
    let site = Site::of(3);
    let (_, log) = site.open();
    let many = vec![patient(0); MAX_ERASED + 1];
    assert!(matches!(log.erase(&many, |_, _| Ok(())), Err(EraseError::TooMany(_))));
}
