//! Delineation, QT, ST and heart rate variability on real recordings, as far as `HAAR_DATA` has them.
//!
//! The MIT-BIH records carry no wave borders. What is held is what must be so: that beats are delineated at
//! all, that P waves are found where annotators heard a sinus rhythm and more seldom in fibrillation, and
//! that intervals lie where they do in people. The annotated R peaks are used.
#![allow(clippy::unwrap_used)] // The helpers belong to tests as much as the tests do.

use std::path::PathBuf;

use haar_recordings::wfdb::{Record, find_records, read_annotations};
use haar_schema::SampleRate;
use haar_signals::ecg::hrv::{frequency_domain, time_domain};
use haar_signals::ecg::qt::{Correction, qt_intervals, summarise};
use haar_signals::ecg::st::median_st;
use haar_signals::ecg::{Artefact, RrSeries, delineate};

fn data(folder: &str) -> PathBuf {
    let root = std::env::var_os("HAAR_DATA")
        .expect("set HAAR_DATA to the folder with the recordings (mitdb, …), see README");
    PathBuf::from(root).join(folder)
}

/// The first lead of a record and its annotated beats: place and whether normal.
fn beats(path: &std::path::Path) -> (Record, SampleRate, Vec<(usize, bool)>) {
    let record = Record::open(path).unwrap();
    let rate = SampleRate::from_millihertz((record.header.rate_hz * 1e3).round() as u32).unwrap();
    let beats = read_annotations(path.with_extension("atr"))
        .unwrap()
        .iter()
        .filter(|annotation| annotation.is_beat())
        .map(|annotation| (annotation.sample as usize, annotation.symbol == 'N'))
        .collect();
    (record, rate, beats)
}

/// Share of beats with a P wave, between two times.
fn p_share(name: &str, from_s: usize, to_s: usize) -> f64 {
    let (record, rate, beats) = beats(&data("mitdb").join(name));
    let range = from_s * 360..to_s * 360;
    let peaks: Vec<usize> = beats.iter().map(|(r, _)| *r).filter(|r| range.contains(r)).collect();
    let found = delineate(&record.signals[0], rate, &peaks);
    found.iter().filter(|beat| beat.p.is_ok()).count() as f64 / found.len() as f64
}

#[test]
fn recorded_waves_are_found_and_intervals_are_human() {
    let (mut all, mut complexes, mut t_waves, mut records, mut measurable) = (0, 0, 0, 0, 0);
    for path in find_records(data("mitdb")).unwrap() {
        let (record, rate, beats) = beats(&path);
        let peaks: Vec<usize> = beats.iter().map(|(r, _)| *r).collect();
        let found = delineate(&record.signals[0], rate, &peaks);
        let qt = qt_intervals(&record.signals[0], rate, &found);
        let normal = |index: usize| beats[index].1;
        let (waves, intervals): (Vec<_>, Vec<_>) = found
            .into_iter()
            .zip(qt)
            .enumerate()
            .filter(|(index, _)| normal(*index))
            .map(|(_, both)| both)
            .unzip();
        if waves.len() < 500 {
            continue;
        }
        records += 1;
        all += waves.len();
        complexes += waves.iter().filter(|beat| beat.qrs.is_ok()).count();
        t_waves += waves.iter().filter(|beat| beat.t.is_ok()).count();
        let widths = waves.iter().filter_map(|beat| beat.qrs.ok());
        let mut widths: Vec<usize> = widths.map(|qrs| qrs.end - qrs.onset).collect();
        widths.sort_unstable();
        let width_ms = widths[widths.len() / 2] as f64 / 0.36;
        let summary = summarise(&intervals).unwrap();
        let qtc = Correction::Fridericia.qtc_ms(summary.qt_ms, summary.rr_ms);
        let st = median_st(&record.signals[0], rate, &waves).unwrap();
        println!(
            "{}: QRS {width_ms:.0} ms, {summary:?}, QTcF {qtc:.0} ms, {st:?}",
            record.header.name
        );
        let sure = summary.spread_ms < 60.0;
        measurable += usize::from(sure);
        assert!((50.0..180.0).contains(&width_ms));
        assert!(!sure || (320.0..500.0).contains(&qtc));
        assert!(st.level_mv.abs() < 0.5);
    }
    // Where the quartiles of QT lie far apart the lead shows no clear T, and the summary says so.
    assert!(measurable * 3 >= records * 2, "{measurable} of {records}");
    println!(
        "{records} records, {measurable} with a sure QT, {all} normal beats: QRS {complexes}, T {t_waves}"
    );
    assert!(complexes as f64 > 0.99 * all as f64);
    assert!(t_waves as f64 > 0.85 * all as f64);
}

#[test]
fn recorded_p_waves_are_rarer_in_fibrillation() {
    // Record 101 is in sinus rhythm throughout; record 201 fibrillates in its first minute.
    let (sinus, fibrillation) = (p_share("101", 0, 600), p_share("201", 0, 60));
    println!("{sinus} {fibrillation}");
    assert!(sinus > 0.9 && fibrillation < sinus - 0.1);
}

#[test]
fn recorded_ectopic_beats_are_no_variability() {
    // Of five-minute windows, RR from all annotated beats: the intervals next to beats that annotators did
    // not call normal are found, and RMSSD comes close to that of the others alone.
    let (mut beside, mut found, mut normal, mut wrongly, mut windows) = (0, 0, 0, 0, 0);
    for path in find_records(data("mitdb")).unwrap() {
        let (_, rate, beats) = beats(&path);
        for window in beats.chunk_by(|a, b| a.0 / (300 * 360) == b.0 / (300 * 360)) {
            let peaks: Vec<usize> = window.iter().map(|(r, _)| *r).collect();
            let series = RrSeries::from_peaks(&peaks, rate);
            let ectopic = window.iter().filter(|(_, normal)| !normal).count();
            // Fibrillation has no NN intervals, and bundle branch blocks are not "N".
            let regular = series.irregularity().is_ok_and(|irregularity| irregularity < -1.6);
            if peaks.len() < 100 || ectopic * 10 > peaks.len() || !regular {
                continue;
            }
            windows += 1;
            for (pair, artefact) in window.windows(2).zip(series.artefacts()) {
                let is_normal = pair.iter().all(|(_, normal)| *normal);
                normal += usize::from(is_normal);
                wrongly += usize::from(is_normal && artefact.is_some());
                beside += usize::from(!is_normal);
                found += usize::from(!is_normal && artefact.is_some());
                assert_ne!(artefact, Some(Artefact::Gap));
            }
            let nn = series.nn();
            assert!(time_domain(&nn).unwrap().rmssd_ms < 250.0);
            if let Ok(power) = frequency_domain(&nn) {
                assert!(power.hf_ms2 >= 0.0 && power.lf_ms2.is_none_or(f64::is_finite));
            }
        }
    }
    println!(
        "{windows} windows: {found} of {beside} beside ectopic beats, {wrongly} of {normal} others"
    );
    assert!(found as f64 > 0.7 * beside as f64);
    assert!((wrongly as f64) < 0.03 * normal as f64);
}
