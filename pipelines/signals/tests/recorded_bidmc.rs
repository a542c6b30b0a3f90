//! Pulses on real recordings, as far as `HAAR_DATA` has them.
#![allow(clippy::unwrap_used)] // The helpers belong to tests as much as the tests do.

use std::path::PathBuf;

use haar_recordings::bidmc::{self, RATE_HZ, Recording};
use haar_recordings::corpus::Corpus;
use haar_schema::SampleRate;
use haar_signals::ecg::detect_r_peaks;
use haar_signals::ppg::{detect_pulses, pulse_arrival, quality};

fn recordings() -> Vec<Recording> {
    let root = std::env::var_os("HAAR_DATA")
        .expect("set HAAR_DATA to the folder with the recordings (bidmc, …), see README");
    let folder = PathBuf::from(root).join("bidmc");
    let corpus = Corpus::open(&folder, "a BIDMC file", bidmc::is_part).unwrap();
    bidmc::names(&corpus).iter().map(|name| Recording::read(&corpus, name).unwrap()).collect()
}

/// Beats per minute from the first to the last of them.
fn per_minute(places: &[usize]) -> Option<f64> {
    let span = places.last()?.checked_sub(*places.first()?).filter(|span| *span > 0)?;
    Some(60.0 * f64::from(RATE_HZ) * (places.len() - 1) as f64 / span as f64)
}

/// Against the ECG and not the monitor's own figure, which is a mean over a time of its own.
#[test]
fn recorded_pulses_are_the_beats_of_the_heart() {
    let rate = SampleRate::from_hz(RATE_HZ).unwrap();
    let (mut windows, mut acceptable, mut near) = (0, 0, 0);
    for recording in recordings() {
        let Some(ecg) = recording.signal("II") else { continue };
        let ppg = recording.signal("PLETH").unwrap();
        for (ppg, ecg) in ppg.chunks_exact(16 * 125).zip(ecg.chunks_exact(16 * 125)) {
            let pulses = detect_pulses(ppg, rate);
            windows += 1;
            if !quality(ppg, rate, &pulses).is_acceptable() {
                continue;
            }
            acceptable += 1;
            let places: Vec<usize> = pulses.iter().map(|pulse| pulse.peak as usize).collect();
            let pair = per_minute(&places).zip(per_minute(&detect_r_peaks(ecg, rate)));
            near += i32::from(pair.is_some_and(|(pulse, heart)| (pulse - heart).abs() <= 3.0));
        }
    }
    println!("{windows} windows, {acceptable} acceptable, {near} within 3/min of the ECG");
    assert!(f64::from(acceptable) > 0.8 * f64::from(windows));
    // The rest is mostly premature beats that send no pulse.
    assert!(f64::from(near) > 0.92 * f64::from(acceptable));
}

#[test]
fn recorded_pulses_arrive_after_the_beat() {
    let rate = SampleRate::from_hz(RATE_HZ).unwrap();
    let (mut beats, mut paired) = (0, 0);
    for recording in recordings() {
        let Some(ecg) = recording.signal("II") else { continue };
        let (ecg, ppg) = (&ecg[..120 * 125], &recording.signal("PLETH").unwrap()[..120 * 125]);
        let arrival = pulse_arrival(&detect_r_peaks(ecg, rate), &detect_pulses(ppg, rate), rate);
        if let Ok(arrival) = arrival {
            println!("{:.0} ± {:.0} ms", arrival.median_ms, arrival.spread_ms);
            beats += arrival.beats.len() + arrival.unpaired;
            paired += arrival.beats.len();
        }
    }
    assert!(paired as f64 > 0.9 * beats as f64, "{paired} of {beats}");
}
