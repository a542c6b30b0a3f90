//! Features of one ECG lead.
//!
//! [`detect_r_peaks`] finds the beats, [`RrSeries`] says what their timing tells, [`quality`] and
//! [`coverage`] how far to believe either, and [`flutter_episodes`] where there are no beats to find.
//! [`Detector`] finds the beats as the samples come, [`LeadPair`] in two leads; [`filter`] cleans a lead.
//! [`RrSeries::nn`] takes out artefacts, and [`hrv`] measures what is left. [`delineate`] finds the waves of
//! each beat, for [`st`] and [`qt`]. [`match_beats`] holds a detector against annotations.

mod delineate;
mod detect;
pub mod filter;
mod flutter;
pub mod hrv;
mod leads;
mod matching;
mod nn;
pub mod qt;
mod quality;
mod rr;
pub mod st;

pub use delineate::{
    AFTER_S, Absent, BEFORE_S, Complex, Delineation, MAX_BRIDGED_S, MIN_WAVE_MV, Wave, delineate,
    delineate_beat,
};
pub use detect::{DELAY_S_MAX, Detector, MIN_RATE_HZ, detect_r_peaks};
pub use flutter::flutter_episodes;
pub use leads::{LeadPair, detect_r_peaks_in_pair};
pub use matching::{Matches, match_beats};
pub use nn::{Artefact, MAX_WINDOW_BEATS, MIN_THRESHOLD_MS, NnSeries, RrWindow, RrWindows};
pub use quality::{Quality, coverage, quality};
pub use rr::{IntervalKind, MAX_INTERVAL_MS, MIN_INTERVAL_MS, RrSeries, TooFewBeats};

#[cfg(test)]
mod tests {
    /// P, QRS and T as Gaussians, one beat every `interval_s` seconds from 0.4 s on, in mV.
    pub(super) fn rhythm(rate_hz: f64, seconds: f64, interval_s: f64) -> Vec<f32> {
        // Height in mV, place against the R and width in seconds.
        const WAVES: [(f64, f64, f64); 5] = [
            (0.15, -0.17, 0.022),
            (-0.12, -0.028, 0.009),
            (1.1, 0.0, 0.011),
            (-0.25, 0.03, 0.010),
            (0.3, 0.27, 0.045),
        ];
        let count = (seconds * rate_hz) as usize;
        (0..count)
            .map(|sample| {
                let time = sample as f64 / rate_hz - 0.4;
                let beat = (time / interval_s).round().max(0.0) * interval_s;
                let wave = |(height, place, width): (f64, f64, f64)| {
                    [beat - interval_s, beat, beat + interval_s]
                        .iter()
                        .filter(|beat| **beat > -1e-9)
                        .map(|beat| {
                            let away = (time - beat - place) / width;
                            height * (-0.5 * away * away).exp()
                        })
                        .sum::<f64>()
                };
                WAVES.map(wave).iter().sum::<f64>() as f32
            })
            .collect()
    }

    /// Reproducible noise of about ±0.5 mV.
    pub(super) fn noise() -> impl Iterator<Item = f32> {
        let mut state = 1_u32;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        })
    }
}
