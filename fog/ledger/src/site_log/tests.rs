use super::*;
use crate::fixtures::{append, identity, log_of, memory, record, records};
use crate::leaf::LeafKind;
use crate::tree::tests::naive_root;
use redb::ReadableDatabase;

fn naive(size: u64) -> [u8; 32] {
    let hash = |record: Record| tlog_tiles::record_hash(&record.leaf()).0;
    naive_root(&records(0..size).into_iter().map(hash).collect::<Vec<_>>())
}

#[test]
fn roots_are_those_of_rfc_6962_however_leaves_are_cut_into_appends() {
    let db = memory();
    let log = SiteLog::open(db.clone(), identity()).unwrap();
    assert_eq!(log.checkpoint().unwrap().root(), tlog_tiles::EMPTY_HASH.0);
    let mut size = 0;
    for step in [1, 1, 2, 3, 50, 198, 1, 1, 255, 0, 256, 257, 300] {
        let tx = db.begin_write().unwrap();
        let appended = log.append(&tx, &records(size..size + step)).unwrap();
        tx.commit().unwrap();
        assert_eq!(appended.first_index, size);
        size += step;
        assert_eq!(appended.checkpoint, log.checkpoint().unwrap());
        assert_eq!((appended.checkpoint.size(), appended.checkpoint.root()), (size, naive(size)));
    }
}

#[test]
fn every_size_to_600_one_leaf_at_a_time() {
    let db = memory();
    let log = SiteLog::open(db.clone(), identity()).unwrap();
    for size in 1..=600 {
        let tx = db.begin_write().unwrap();
        let appended = log.append(&tx, &[record(size - 1)]).unwrap();
        tx.commit().unwrap();
        assert_eq!(appended.checkpoint.root(), naive(size), "size {size}");
    }
}

#[test]
fn an_aborted_transaction_leaves_no_trace() {
    let (db, log) = log_of(300);
    let before = contents(&db);
    let tx = db.begin_write().unwrap();
    log.append(&tx, &records(300..900)).unwrap();
    tx.abort().unwrap();
    assert_eq!(contents(&db), before);
    append(&db, &log, &records(300..310));
    assert_eq!(log.checkpoint().unwrap().root(), naive(310));
}

#[test]
fn appends_in_one_transaction_follow_each_other() {
    let (db, log) = log_of(200);
    let tx = db.begin_write().unwrap();
    assert_eq!(log.append(&tx, &records(200..250)).unwrap().first_index, 200);
    assert_eq!(log.append(&tx, &[]).unwrap().first_index, 250);
    let last = log.append(&tx, &records(250..600)).unwrap();
    assert_eq!((last.first_index, last.checkpoint.root()), (250, naive(600)));
    assert_eq!(log.size().unwrap(), 200, "not visible before the commit");
    tx.commit().unwrap();
    assert_eq!(log.size().unwrap(), 600);
}

#[test]
fn an_empty_append_writes_nothing() {
    let (db, log) = log_of(5);
    let before = contents(&db);
    append(&db, &log, &[]);
    assert_eq!(contents(&db), before);
}

#[test]
fn how_a_log_is_cut_into_appends_does_not_show() {
    let (one, _) = log_of(777);
    let (many, log) = log_of(0);
    for cut in [0..1, 1..256, 256..257, 257..512, 512..777] {
        append(&many, &log, &records(cut));
    }
    assert_eq!(contents(&one), contents(&many));
}

#[test]
fn a_log_opens_again_with_its_key_only() {
    let (db, log) = log_of(300);
    drop(log);
    assert_eq!(SiteLog::open(db.clone(), identity()).unwrap().size().unwrap(), 300);
    let other_key = Identity::generate(identity().origin(), [1; 32]).unwrap();
    let other_origin = Identity::generate("fog-2.example/site-log", [42; 32]).unwrap();
    for other in [other_key, other_origin] {
        let error = SiteLog::open(db.clone(), other).err().unwrap();
        assert!(matches!(error, OpenError::OtherKey { .. }), "{error}");
        assert!(error.to_string().contains("configure the key"), "{error}");
    }
}

#[test]
fn a_damaged_edge_is_neither_opened_nor_signed_over() {
    let (db, log) = log_of(300);
    let tx = db.begin_write().unwrap();
    {
        let mut tiles = tx.open_table(TILES).unwrap();
        let mut tile = tiles.get((0, 1)).unwrap().unwrap().value().to_vec();
        tile[40] ^= 1;
        tiles.insert((0, 1), tile.as_slice()).unwrap();
    }
    tx.commit().unwrap();
    let tx = db.begin_write().unwrap();
    let error = log.append(&tx, &[record(300)]).unwrap_err();
    assert!(matches!(error, AppendError::Damaged(Damage::Root)), "{error}");
    drop(tx);
    let error = SiteLog::open(db.clone(), identity()).err().unwrap();
    assert!(matches!(error, OpenError::Damaged(Damage::Root)), "{error}");
    assert!(matches!(log.prove(299), Err(ReadError::Damaged(_))));
}

#[test]
fn a_lost_checkpoint_does_not_make_a_new_log() {
    let (db, log) = log_of(3);
    drop(log);
    let tx = db.begin_write().unwrap();
    tx.open_table(META).unwrap().remove(CHECKPOINT).unwrap();
    tx.commit().unwrap();
    let error = SiteLog::open(db, identity()).err().unwrap();
    assert!(matches!(error, OpenError::Damaged(Damage::NoCheckpoint)), "{error}");
}

#[test]
fn limits_are_refused_before_anything_is_written() {
    let (db, log) = log_of(3);
    let long = Record { body: vec![0; MAX_BODY_BYTES + 1], ..record(4) };
    let tx = db.begin_write().unwrap();
    let error = log.append(&tx, &[record(3), long]).unwrap_err();
    assert!(matches!(error, AppendError::BodyTooLong { position: 1, .. }), "{error}");
    tx.commit().unwrap();
    assert_eq!(log.size().unwrap(), 3);
    let longest = Record { body: vec![7; MAX_BODY_BYTES], ..record(3) };
    append(&db, &log, std::slice::from_ref(&longest));
    assert_eq!(log.record(3).unwrap(), longest);
    let proof = log.prove(3).unwrap().to_text();
    assert!(crate::verify(&proof, crate::Trust::Unpinned).is_ok());
}

#[test]
fn records_and_names() {
    let (_, log) = log_of(600);
    for index in [0, 1, 255, 256, 599] {
        assert_eq!(log.record(index).unwrap(), record(index));
    }
    assert_eq!(log.find(&record(300).name).unwrap(), [300, 301]);
    assert_eq!(log.find(&[0; 32]).unwrap(), [0; 0]);
    let error = log.record(600).unwrap_err();
    assert_eq!(error.to_string(), "there is no leaf 600: the log has 600 leaves, counted from 0");
    assert_eq!(record(2).kind, LeafKind::Correction);
}

#[test]
fn readers_see_one_state_while_another_thread_writes() {
    let (db, log) = log_of(10);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for first in (10..400).step_by(13) {
                append(&db, &log, &records(first..first + 13));
            }
        });
        while !writer.is_finished() {
            let snapshot = log.snapshot().unwrap();
            let last = snapshot.size() - 1;
            let proof = snapshot.prove(last).unwrap().to_text();
            let verified = crate::verify(&proof, crate::Trust::Unpinned).unwrap();
            assert_eq!((verified.index, verified.record), (last, record(last)));
        }
    });
}

/// All rows of all tables.
fn contents(db: &Database) -> Vec<(String, Vec<u8>)> {
    let tx = db.begin_read().unwrap();
    let mut rows = Vec::new();
    let mut add = |key: String, value: &[u8]| rows.push((key, value.to_vec()));
    for row in tx.open_table(META).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        add(format!("meta {}", key.value()), value.value());
    }
    for row in tx.open_table(TILES).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        add(format!("tile {:?}", key.value()), value.value());
    }
    for (name, table) in [("bundle", BUNDLES), ("record", RECORDS)] {
        for row in tx.open_table(table).unwrap().iter().unwrap() {
            let (key, value) = row.unwrap();
            add(format!("{name} {}", key.value()), value.value());
        }
    }
    for row in tx.open_table(NAMES).unwrap().iter().unwrap() {
        add("name".into(), row.unwrap().0.value());
    }
    rows
}
