//! The detector on real recordings, as far as `HAAR_DATA` has them.
#![allow(clippy::unwrap_used)] // The helpers belong to tests as much as the tests do.

use std::path::PathBuf;

use haar_recordings::wfdb::{Record, find_records, read_annotations};
use haar_schema::SampleRate;
use haar_signals::ecg::{Matches, RrSeries, coverage, detect_r_peaks, match_beats, quality};

fn data(folder: &str) -> PathBuf {
    let root = std::env::var_os("HAAR_DATA")
        .expect("set HAAR_DATA to the folder with the recordings (mitdb, …), see README");
    PathBuf::from(root).join(folder)
}

fn lead(record: &Record) -> (&[f32], SampleRate) {
    let rate = SampleRate::from_millihertz((record.header.rate_hz * 1_000.0).round() as u32);
    (&record.signals[0], rate.unwrap())
}

/// All records of a folder, first lead, all annotated beats, 150 ms; slices of so many seconds, each by
/// itself, or whole records.
fn evaluate(folder: &str, slice_s: Option<usize>) -> Matches {
    let mut total = Matches::default();
    for path in find_records(data(folder)).unwrap() {
        let record = Record::open(&path).unwrap();
        let (mv, rate) = lead(&record);
        let reference: Vec<usize> = read_annotations(path.with_extension("atr"))
            .unwrap()
            .iter()
            .filter(|annotation| annotation.is_beat())
            .map(|annotation| annotation.sample as usize)
            .collect();
        let slice = slice_s.map_or(mv.len(), |seconds| (seconds as f64 * rate.hz()) as usize);
        let detected: Vec<usize> = mv
            .chunks(slice)
            .enumerate()
            .flat_map(|(index, part)| {
                detect_r_peaks(part, rate).into_iter().map(move |peak| index * slice + peak)
            })
            .collect();
        let matches = match_beats(&reference, &detected, (0.15 * rate.hz()) as usize);
        println!("{}: {matches:?}", record.header.name);
        total += matches;
    }
    println!("{folder}: {total:?} {:?} {:?}", total.sensitivity(), total.ppv());
    total
}

#[test]
fn recorded_qrs_of_whole_records() {
    let matches = evaluate("mitdb", None);
    assert!(matches.sensitivity().unwrap() >= 0.99, "{matches:?}");
    assert!(matches.ppv().unwrap() >= 0.99, "{matches:?}");
}

#[test]
fn recorded_qrs_of_half_minutes() {
    let matches = evaluate("mitdb", Some(30));
    assert!(matches.sensitivity().unwrap() >= 0.99, "{matches:?}");
    assert!(matches.ppv().unwrap() >= 0.99, "{matches:?}");
}

#[test]
fn recorded_quality_falls_with_the_noise() {
    // Record 118 with two minutes of electrode motion from the sixth minute on, at three levels.
    let index = |name: &str| {
        let record = Record::open(data("nstdb-partial").join(name)).unwrap();
        let (mv, rate) = lead(&record);
        let noisy = &mv[305 * 360..415 * 360];
        assert_eq!(coverage(noisy), 1.0);
        quality(noisy, rate, &detect_r_peaks(noisy, rate)).unwrap().index
    };
    let indices = ["118", "118e24", "118e12", "118e00"].map(index);
    println!("{indices:?}");
    assert!(indices.windows(2).all(|pair| pair[0] >= pair[1]), "{indices:?}");
    assert!(indices[0] > 0.8 && indices[3] < 0.7, "{indices:?}");
}

#[test]
fn recorded_fibrillation_is_irregular() {
    // Record 201 fibrillates in its first minute; record 101 is in sinus rhythm.
    let irregularity = |name: &str| {
        let record = Record::open(data("mitdb").join(name)).unwrap();
        let (mv, rate) = lead(&record);
        let minute = &mv[..60 * 360];
        RrSeries::from_peaks(&detect_r_peaks(minute, rate), rate).irregularity().unwrap()
    };
    assert!(irregularity("201") > -1.4);
    assert!(irregularity("101") < -1.4);
}
