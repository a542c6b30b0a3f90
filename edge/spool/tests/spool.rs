//! A spool in a folder: order, bounds, marks, quarantine, and every way of not opening.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test with its line")]

use haar_spool::{
    AppendError, Certainty, MAX_APPEND_ENTRIES, MAX_ENTRY_BYTES, NewEntry, NewFrame, OnFull,
    OpenError, PruneError, Quarantined, ReadError, Settings, Spool,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const INCARNATION: [u8; 16] = [5; 16];

fn settings() -> Settings {
    Settings::new(INCARNATION)
}

fn spool(settings: Settings) -> (TempDir, Spool) {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(&folder.path().join("spool.redb"), settings).unwrap();
    (folder, spool)
}

fn vital(byte: u8) -> NewEntry {
    NewEntry::vital(vec![byte; 10])
}

fn mark(key: u8, byte: u8) -> NewEntry {
    NewEntry::mark(vec![key], false, vec![byte])
}

fn frame(id: u8, entries: Vec<NewEntry>) -> NewFrame {
    NewFrame { frame_id: (id > 0).then_some([id; 16]), entries }
}

fn rejected(path: &str, bytes: usize) -> Quarantined {
    Quarantined {
        received_us: 7,
        reason: "bad_time".to_owned(),
        path: path.to_owned(),
        payload: vec![1; bytes],
    }
}

fn all(spool: &Spool) -> Vec<(u64, Vec<u8>)> {
    spool.read(spool.oldest_seq(), usize::MAX, usize::MAX).unwrap()
}

#[test]
fn what_is_appended_is_read_in_order_and_after_a_restart() {
    let (folder, spool) = spool(settings());
    assert_eq!((spool.oldest_seq(), spool.next_seq()), (1, 1));
    let appended =
        spool.append(&[frame(1, vec![vital(1), vital(2)]), frame(0, vec![vital(3)])], &[]);
    let appended = appended.unwrap();
    assert_eq!((appended.first_seq, appended.next_seq), (1, 4));
    assert_eq!(appended.duplicates, [false, false]);
    let expected: Vec<_> = (1..=3).map(|seq| (u64::from(seq), vec![seq; 10])).collect();
    assert_eq!(all(&spool), expected);
    assert_eq!(spool.read(2, 1, 1_000).unwrap(), expected[1..2]);
    assert_eq!(spool.read(1, 9, 20).unwrap(), expected[..2]);
    assert_eq!(spool.read(1, 9, 0).unwrap(), expected[..1]);
    assert_eq!(spool.read(4, 9, 9).unwrap(), []);
    drop(spool);
    let path = folder.path().join("spool.redb");
    let spool = Spool::open(&path, Settings::new([6; 16])).unwrap();
    assert_eq!(spool.incarnation(), INCARNATION);
    assert_eq!(all(&spool), expected);
    assert_eq!(spool.recover().unwrap(), 4);
    assert_eq!(all(&spool), expected);
}

#[test]
fn a_frame_is_taken_once_as_long_as_its_id_is_remembered() {
    let (folder, spool) = spool(Settings { dedupe_frames: 3, ..settings() });
    let append = |spool: &Spool, ids: &[u8]| {
        let frames: Vec<_> = ids.iter().map(|id| frame(*id, vec![vital(*id)])).collect();
        spool.append(&frames, &[]).unwrap().duplicates
    };
    assert_eq!(append(&spool, &[1, 1, 0, 0]), [false, true, false, false]);
    assert_eq!(append(&spool, &[2, 3]), [false, false]);
    assert_eq!(append(&spool, &[1, 2, 3]), [true, true, true]);
    drop(spool);
    let spool =
        Spool::open(&folder.path().join("spool.redb"), Settings { dedupe_frames: 3, ..settings() })
            .unwrap();
    assert_eq!(append(&spool, &[1]), [true]);
    // The fourth id pushes out the first.
    assert_eq!(append(&spool, &[4, 2]), [false, true]);
    assert_eq!(append(&spool, &[1]), [false]);
    assert_eq!(append(&spool, &[5, 6, 7, 8, 9]), [false; 5]);
    assert_eq!(append(&spool, &[5, 9]), [false, true]);
}

#[test]
fn an_append_over_a_limit_is_refused_whole() {
    let (_folder, spool) = spool(settings());
    let huge = NewEntry::vital(vec![0; MAX_ENTRY_BYTES + 1]);
    let key = NewEntry::mark(vec![0; 256], false, vec![]);
    let many = vec![vital(1); MAX_APPEND_ENTRIES + 1];
    for entries in [vec![vital(1), huge], vec![key], many] {
        let error = spool.append(&[frame(1, entries)], &[]).unwrap_err();
        assert!(matches!(error, AppendError::TooLarge { .. }));
        assert_eq!(error.certainty(), Certainty::NotWritten);
        assert!(!error.needs_recover());
    }
    assert_eq!(spool.next_seq(), 1);
}

#[test]
fn a_full_spool_refuses_until_it_is_pruned() {
    let (_folder, spool) = spool(Settings { capacity_bytes: 150, ..settings() });
    for id in 1..=4 {
        spool.append(&[frame(id, vec![vital(id)])], &[]).unwrap();
    }
    let error = spool.append(&[frame(5, vec![vital(5)])], &[]).unwrap_err();
    assert!(matches!(error, AppendError::Full { bytes: 144, capacity_bytes: 150, .. }));
    assert!(!error.needs_recover());
    // Quarantine has a bound of its own.
    spool.append(&[], &[rejected("p", 10)]).unwrap();
    assert_eq!(spool.prune(2).unwrap().entries, 1);
    assert_eq!(spool.append(&[frame(5, vec![vital(5)])], &[]).unwrap().first_seq, 5);
}

#[test]
fn waveforms_are_shed_oldest_first_and_nothing_else() {
    let tombstone = vec![9];
    let on_full = OnFull::ShedWaveforms { tombstone: tombstone.clone() };
    let (folder, spool) = spool(Settings { capacity_bytes: 2_050, on_full, ..settings() });
    let wave = |byte| NewEntry::waveform(vec![byte; 300]);
    for byte in 1..=5 {
        let entries = vec![vital(byte), wave(byte), mark(1, byte)];
        assert_eq!(spool.append(&[frame(0, entries)], &[]).unwrap().shed_entries, 0);
    }
    let appended = spool.append(&[frame(0, vec![wave(6), vital(6)])], &[]).unwrap();
    assert_eq!((appended.shed_entries, appended.first_seq), (1, 16));
    let entries = all(&spool);
    assert_eq!(entries.len(), 17);
    assert_eq!(entries[1], (2, tombstone.clone()));
    assert_eq!(entries[4], (5, vec![2; 300]));
    let stats = spool.stats();
    assert_eq!((stats.shed_entries, stats.entries), (1, 17));
    assert!(stats.bytes <= 2_050);
    // More than all waveforms together make room for is refused, and sheds none.
    let big = NewEntry::vital(vec![0; 1_900]);
    let error = spool.append(&[frame(0, vec![big])], &[]).unwrap_err();
    assert!(matches!(error, AppendError::Full { .. }));
    assert_eq!(spool.stats(), stats);
    // It goes on where it was after a restart.
    drop(spool);
    let on_full = OnFull::ShedWaveforms { tombstone };
    let path = folder.path().join("spool.redb");
    let spool = Spool::open(&path, Settings { capacity_bytes: 2_050, on_full, ..settings() });
    let spool = spool.unwrap();
    let appended = spool.append(&[frame(0, vec![wave(7), wave(8)])], &[]).unwrap();
    assert_eq!(appended.shed_entries, 3);
    assert_eq!(all(&spool)[4].1, [9]);
    let vitals = all(&spool).iter().filter(|(_, bytes)| bytes.len() == 10).count();
    assert_eq!(vitals, 6);
}

#[test]
fn pruning_folds_marks_into_the_base() {
    let (folder, spool) = spool(settings());
    let forget = NewEntry::mark(vec![2], true, vec![24]);
    let entries = vec![mark(1, 11), mark(2, 21), vital(0), mark(1, 12), forget, mark(3, 31)];
    spool.append(&[frame(0, entries)], &[]).unwrap();
    assert_eq!(spool.latest_marks().unwrap(), [[12], [31]]);
    assert_eq!(spool.base_marks().unwrap().marks, Vec::<Vec<u8>>::new());
    let base = |until| {
        spool.prune(until).unwrap();
        let base = spool.base_marks().unwrap();
        assert_eq!(base.oldest_seq, spool.oldest_seq());
        base.marks
    };
    assert_eq!(base(4), [[11], [21]]);
    assert_eq!(base(5), [[21], [12]]);
    assert_eq!(base(2), [[21], [12]]);
    assert_eq!(base(6), [[12]]);
    assert!(matches!(spool.read(5, 1, 1), Err(ReadError::Pruned { oldest_seq: 6 })));
    assert!(matches!(spool.prune(8), Err(PruneError::Beyond { next_seq: 7, .. })));
    assert_eq!(base(7), [[12], [31]]);
    let stats = spool.stats();
    assert_eq!((stats.entries, stats.bytes), (0, 0));
    drop(spool);
    let spool = Spool::open(&folder.path().join("spool.redb"), settings()).unwrap();
    assert_eq!((spool.oldest_seq(), spool.next_seq()), (7, 7));
    assert_eq!(spool.latest_marks().unwrap(), [[12], [31]]);
}

#[test]
fn quarantine_keeps_the_newest() {
    let (_folder, spool) = spool(Settings { quarantine_bytes: 250, ..settings() });
    for path in ["a", "b", "c"] {
        spool.append(&[], &[rejected(path, 80)]).unwrap();
    }
    let kept = spool.quarantine(10).unwrap();
    assert_eq!(kept, [rejected("c", 80), rejected("b", 80)]);
    assert_eq!(spool.quarantine(1).unwrap().len(), 1);
    let stats = spool.stats();
    assert_eq!((stats.quarantined, stats.quarantine_dropped), (2, 1));
    assert_eq!(stats.entries, 0);
}

#[test]
fn every_way_of_not_opening_says_what_to_do() {
    let (folder, spool) = spool(settings());
    let path = folder.path().join("spool.redb");
    let open = |path: &Path| Spool::open(path, settings()).unwrap_err();
    assert!(matches!(open(&path), OpenError::InUse { .. }));
    for byte in 0..50 {
        spool.append(&[frame(0, vec![NewEntry::vital(vec![byte; 4_000])])], &[]).unwrap();
    }
    drop(spool);

    let other = folder.path().join("other");
    fs::write(&other, "no spool at all, but long enough for a header of some kind").unwrap();
    assert!(matches!(open(&other), OpenError::NotASpool { .. }));
    fs::write(&other, "").unwrap();
    drop(Spool::open(&other, settings()).unwrap());
    assert!(matches!(open(folder.path()), OpenError::NotASpool { .. }));
    assert!(matches!(open(&folder.path().join("none/spool")), OpenError::Io { .. }));

    let whole = fs::read(&path).unwrap();
    fs::write(&other, &whole[..whole.len() / 2]).unwrap();
    let error = open(&other);
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("move it away"));
    // One flipped bit in each of many places: found, or in a page that holds nothing.
    let mut found = 0;
    for at in (4_096..whole.len()).step_by(whole.len() / 40) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&other, &flipped).unwrap();
        match Spool::open(&other, settings()) {
            Ok(spool) => assert_eq!(all(&spool).len(), 50),
            Err(OpenError::Damaged { .. }) => found += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(found > 3, "{found}");
}

#[test]
fn a_newer_format_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.redb");
    let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
    drop(Spool::open(&path, settings()).unwrap());
    let database = redb::Database::open(&path).unwrap();
    let writing = database.begin_write().unwrap();
    writing.open_table(meta).unwrap().insert("format", [2u8, 0, 0, 0].as_slice()).unwrap();
    writing.commit().unwrap();
    drop(database);
    let error = Spool::open(&path, settings()).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 2, .. }));

    let foreign = folder.path().join("foreign.redb");
    let database = redb::Database::create(&foreign).unwrap();
    let writing = database.begin_write().unwrap();
    writing.open_table(redb::TableDefinition::<u64, u64>::new("theirs")).unwrap();
    writing.commit().unwrap();
    drop(database);
    let error = Spool::open(&foreign, settings()).unwrap_err();
    assert!(matches!(error, OpenError::NotASpool { .. }));
}

#[test]
fn a_draft_of_a_crash_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.redb");
    fs::write(folder.path().join("spool.redb.new"), [1; 9_000]).unwrap();
    let spool = Spool::open(&path, settings()).unwrap();
    spool.append(&[frame(0, vec![vital(1)])], &[]).unwrap();
    assert!(!folder.path().join("spool.redb.new").exists());
}

#[test]
fn space_is_given_back_when_a_day_offline_is_over() {
    let (folder, spool) = spool(settings());
    let path = folder.path().join("spool.redb");
    for _ in 0..10 {
        let entries = vec![NewEntry::waveform(vec![3; 100_000]); 100];
        spool.append(&[frame(0, entries)], &[]).unwrap();
    }
    let before = spool.stats().file_bytes;
    assert!(before > 100_000_000);
    spool.append(&[frame(0, vec![vital(1)])], &[]).unwrap();
    spool.prune(1_001).unwrap();
    drop(spool);
    let spool = Spool::open(&path, settings()).unwrap();
    assert_eq!(all(&spool), [(1_001, vec![1; 10])]);
    let after = spool.stats().file_bytes;
    assert!(after < before / 10, "{before} → {after}");
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u8, u8, u8)>),
    Prune(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec((0..6u8, 0..5u8, any::<u8>()), 0..6).prop_map(Step::Append),
        2 => (0..40u64).prop_map(Step::Prune),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Against the obvious model: a map of entries, and marks by scanning everything ever appended.
    #[test]
    fn it_does_what_a_list_would(steps in proptest::collection::vec(step(), 1..25)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool.redb");
        let mut spool = Spool::open(&path, settings()).unwrap();
        let mut ever: BTreeMap<u64, NewEntry> = BTreeMap::new();
        let mut ids = std::collections::HashSet::new();
        let mut oldest = 1;
        for step in steps {
            match step {
                Step::Append(rows) => {
                    let frames: Vec<_> = rows.iter().map(|(id, kind, byte)| {
                        let entry = match kind {
                            0 => NewEntry::waveform(vec![*byte]),
                            1 | 2 => mark(*kind, *byte),
                            3 => NewEntry::mark(vec![1], true, vec![*byte]),
                            _ => vital(*byte),
                        };
                        frame(*id, vec![entry])
                    }).collect();
                    let appended = spool.append(&frames, &[]).unwrap();
                    let mut next = ever.last_key_value().map_or(1, |(seq, _)| seq + 1);
                    for (frame, duplicate) in frames.iter().zip(appended.duplicates) {
                        let known = frame.frame_id.is_some_and(|id| !ids.insert(id));
                        prop_assert_eq!(duplicate, known);
                        if !known {
                            ever.insert(next, frame.entries[0].clone());
                            next += 1;
                        }
                    }
                    prop_assert_eq!(appended.next_seq, next);
                }
                Step::Prune(back) => {
                    let until = spool.next_seq().saturating_sub(back);
                    spool.prune(until).unwrap();
                    oldest = oldest.max(until);
                }
                Step::Reopen => {
                    drop(spool);
                    spool = Spool::open(&path, settings()).unwrap();
                }
            }
            prop_assert_eq!(spool.oldest_seq(), oldest);
            let expected: Vec<_> =
                ever.range(oldest..).map(|(seq, entry)| (*seq, entry.bytes.clone())).collect();
            prop_assert_eq!(all(&spool), expected);
            let marks_before = |end: u64| {
                let mut marks: BTreeMap<&Vec<u8>, (u64, Vec<u8>)> = BTreeMap::new();
                for (seq, entry) in ever.range(..end) {
                    let Some(key) = &entry.mark_key else { continue };
                    if entry.forget {
                        marks.remove(key);
                    } else {
                        marks.insert(key, (*seq, entry.bytes.clone()));
                    }
                }
                let mut marks: Vec<_> = marks.into_values().collect();
                marks.sort();
                marks.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>()
            };
            prop_assert_eq!(spool.base_marks().unwrap().marks, marks_before(oldest));
            prop_assert_eq!(spool.latest_marks().unwrap(), marks_before(u64::MAX));
        }
    }
}
