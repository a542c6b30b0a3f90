//! The MIT-BIH Arrhythmia Database, as far as `HAAR_DATA` has it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use haar_recordings::wfdb::{Annotation, Record, RecordError, find_records, read_annotations};

fn data(folder: &str) -> PathBuf {
    let root = std::env::var_os("HAAR_DATA")
        .expect("set HAAR_DATA to the folder with the recordings (mitdb, …), see README");
    PathBuf::from(root).join(folder)
}

/// Beats per record, from the database's own table of beats by type (mitdbdir/tables.htm).
const BEATS: [(&str, usize); 24] = [
    ("101", 1865),
    ("102", 2187),
    ("104", 2229),
    ("106", 2027),
    ("108", 1763),
    ("109", 2532),
    ("112", 2539),
    ("114", 1879),
    ("115", 1953),
    ("116", 2412),
    ("118", 2278),
    ("119", 1987),
    ("122", 2476),
    ("124", 1619),
    ("201", 1963),
    ("203", 2980),
    ("205", 2656),
    ("207", 1860),
    ("208", 2955),
    ("209", 3005),
    ("215", 3363),
    ("220", 2048),
    ("223", 2605),
    ("230", 2256),
];

#[test]
fn recorded_arrhythmias_open_with_their_checksums_and_beats() {
    let beats_of = BTreeMap::from(BEATS);
    let records = find_records(data("mitdb")).unwrap();
    assert!(!records.is_empty());
    for path in records {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // Checksums are verified on the way: format 212, two signals in one file.
        let record = Record::open(&path).unwrap();
        assert_eq!((record.header.name.as_str(), record.header.rate_hz), (name.as_str(), 360.0));
        assert_eq!(record.signals.len(), 2);
        for (signal, spec) in record.signals.iter().zip(&record.header.signals) {
            assert_eq!(signal.len(), 650_000);
            assert!(spec.checksum.is_some());
            let first = (f64::from(spec.initial_value.unwrap()) - 1024.0) / 200.0;
            assert_eq!(signal[0], first as f32);
        }
        let annotations = read_annotations(path.with_extension("atr")).unwrap();
        let beats = annotations.iter().filter(|a| a.is_beat()).count();
        if let Some(expected) = beats_of.get(name.as_str()) {
            assert_eq!(beats, *expected, "beats of {name}");
        }
        assert!(annotations.is_sorted_by_key(|annotation| annotation.sample));
        assert!(annotations.iter().all(|annotation| annotation.sample < 650_000));
    }
}

#[test]
fn recorded_rhythms_are_in_aux() {
    let annotations = read_annotations(data("mitdb/207.atr")).unwrap();
    let first = Annotation {
        sample: annotations[0].sample,
        symbol: '+',
        subtype: 0,
        channel: 0,
        number: 0,
        aux: Some("(B".to_owned()),
    };
    assert_eq!(annotations[0], first);
    assert!(annotations.iter().any(|a| a.aux.as_deref() == Some("(VFL")));
}

#[test]
fn recorded_format_16_equals_its_twin_before_the_noise() {
    // 118e00 is record 118 with noise from the sixth minute on, written in format 16; its samples are
    // centred on 0 while its baseline says 1024, so it stands 1024 / 200 mV lower.
    let clean = Record::open(data("nstdb-partial/118")).unwrap();
    let noisy = Record::open(data("nstdb-partial/118e00.hea")).unwrap();
    let apart = |sample: usize| clean.signals[0][sample] - noisy.signals[0][sample] - 5.12;
    assert!((0..100_000).all(|sample| apart(sample).abs() < 1e-5));
    assert!((110_000..150_000).any(|sample| apart(sample).abs() > 0.5));
}

#[test]
fn recorded_signal_cut_short_says_how_much_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(data("mitdb/101.dat")).unwrap();
    std::fs::write(folder.path().join("101.dat"), &bytes[..3000]).unwrap();
    std::fs::copy(data("mitdb/101.hea"), folder.path().join("101.hea")).unwrap();
    let error = Record::open(folder.path().join("101")).unwrap_err();
    assert!(matches!(error, RecordError::Truncated { found: 1000, promised: 650_000, .. }));
}
