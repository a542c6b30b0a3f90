//! The detector on real recordings, as far as `HAAR_DATA` has them.
#![allow(clippy::unwrap_used)] // The helpers belong to tests as much as the tests do.

use std::path::PathBuf;

use haar_recordings::wfdb::{Record, find_records, read_annotations};
use haar_schema::SampleRate;
use haar_signals::ecg::{
    Detector, Matches, RrSeries, coverage, detect_r_peaks, detect_r_peaks_in_pair, match_beats,
    quality,
};

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
    assert!(matches.sensitivity().unwrap() >= 0.997, "{matches:?}");
    assert!(matches.ppv().unwrap() >= 0.997, "{matches:?}");
}

#[test]
fn recorded_qrs_of_half_minutes() {
    let matches = evaluate("mitdb", Some(30));
    assert!(matches.sensitivity().unwrap() >= 0.99, "{matches:?}");
    assert!(matches.ppv().unwrap() >= 0.99, "{matches:?}");
}

/// Frame lengths that follow each other without a pattern, from one sample to three thousand.
fn frames(mv: &[f32], seed: u32) -> impl Iterator<Item = &[f32]> {
    let (mut rest, mut state) = (mv, seed);
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (frame, after) = rest.split_at((1 + state as usize % 3_000).min(rest.len()));
        rest = after;
        (!frame.is_empty()).then_some(frame)
    })
}

#[test]
fn recorded_peaks_do_not_depend_on_frames() {
    for (seed, path) in (1..).zip(find_records(data("mitdb")).unwrap()) {
        let record = Record::open(&path).unwrap();
        let (mv, rate) = lead(&record);
        let mut mv = mv.to_vec();
        // Lead off for twenty seconds, on the rail for ten, and every seventh sample lost for five.
        mv[100_000..107_200].fill(f32::NAN);
        mv[200_000..203_600].fill(-5.12);
        mv[300_000..301_800].iter_mut().step_by(7).for_each(|value| *value = f32::NAN);
        let mut detector = Detector::new(rate);
        let mut peaks: Vec<usize> = Vec::new();
        let mut taken = 0;
        for frame in frames(&mv, seed) {
            peaks.extend(detector.push(frame));
            taken += frame.len();
            let settled = detector.settled();
            assert!(peaks.last().is_none_or(|peak| *peak < taken));
            assert!(taken as f64 - settled as f64 <= haar_signals::ecg::DELAY_S_MAX * rate.hz());
        }
        peaks.extend(detector.finish());
        assert_eq!(peaks, detect_r_peaks(&mv, rate), "{}", record.header.name);
        assert!(!peaks.iter().any(|peak| (100_000..107_200).contains(peak)));
    }
}

#[test]
fn recorded_second_lead_helps_where_the_first_is_off() {
    // The first lead is off every other half minute.
    let (mut one, mut pair) = (Matches::default(), Matches::default());
    for path in find_records(data("mitdb")).unwrap() {
        let record = Record::open(&path).unwrap();
        let (mv, rate) = lead(&record);
        let mut first = mv.to_vec();
        let half_minute = (30.0 * rate.hz()) as usize;
        first.chunks_mut(half_minute).skip(1).step_by(2).for_each(|part| part.fill(f32::NAN));
        let reference: Vec<usize> = read_annotations(path.with_extension("atr"))
            .unwrap()
            .iter()
            .filter(|annotation| annotation.is_beat())
            .map(|annotation| annotation.sample as usize)
            .collect();
        let tolerance = (0.15 * rate.hz()) as usize;
        one += match_beats(&reference, &detect_r_peaks(&first, rate), tolerance);
        let peaks = detect_r_peaks_in_pair([&first, &record.signals[1]], rate);
        pair += match_beats(&reference, &peaks, tolerance);
    }
    println!("{one:?} {pair:?}");
    assert!(one.sensitivity().unwrap() < 0.52);
    assert!(pair.sensitivity().unwrap() > 0.97 && pair.ppv().unwrap() > 0.97, "{pair:?}");
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
