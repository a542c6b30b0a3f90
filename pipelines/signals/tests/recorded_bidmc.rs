//! Pulses on real recordings, as far as `HAAR_DATA` has them.
#![allow(clippy::unwrap_used)] // The helpers belong to tests as much as the tests do.

use std::path::PathBuf;

use haar_recordings::bidmc::{self, RATE_HZ, Recording};
use haar_recordings::corpus::Corpus;
use haar_schema::SampleRate;
use haar_signals::ecg::detect_r_peaks;
use haar_signals::ppg::{detect_pulses, pulse_arrival, pulse_rate_variability, quality};

fn recordings() -> Vec<Recording> {
    let root = std::env::var_os("HAAR_DATA")
        .expect("set HAAR_DATA to the folder with the recordings (bidmc, …), see README");
    let folder = PathBuf::from(root).join("bidmc");
    let corpus = Corpus::open(&folder, "a BIDMC file", bidmc::is_part).unwrap();
    bidmc::names(&corpus).iter().map(|name| Recording::read(&corpus, name).unwrap()).collect()
}

#[test]
fn recorded_pulses_are_those_of_the_monitor() {
    let rate = SampleRate::from_hz(RATE_HZ).unwrap();
    let (mut windows, mut acceptable, mut near) = (0, 0, 0);
    for recording in recordings() {
        let (ppg, numerics) = (recording.signal("PLETH").unwrap(), recording.numerics.unwrap());
        for (k, window) in ppg.chunks_exact(16 * 125).enumerate() {
            let monitor = numerics.pulse_rate[k * 16 + 8];
            let pulses = detect_pulses(window, rate);
            windows += 1;
            if monitor.is_nan() || !quality(window, rate, &pulses).is_acceptable() {
                continue;
            }
            acceptable += 1;
            let found = pulse_rate_variability(&pulses, rate).unwrap();
            near += i32::from((found.rate - f64::from(monitor)).abs() <= 3.0);
        }
    }
    println!("{windows} windows, {acceptable} acceptable, {near} within 3/min of the monitor");
    assert!(f64::from(acceptable) > 0.6 * f64::from(windows));
    assert!(f64::from(near) > 0.97 * f64::from(acceptable));
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
