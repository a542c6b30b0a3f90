//! When the heart beats: sinus rhythm, ectopic beats, atrial fibrillation.
//!
//! # Model
//! - *Sinus rhythm*: RR = mean · (1 + LF + HF), after McSharry, Clifford, Tarassenko, Smith, "A dynamical
//!   model for generating synthetic electrocardiogram signals", IEEE Trans Biomed Eng 2003;50(3):289–294,
//!   section III: a spectrum of two Gaussian bands, the low one about 0.1 Hz (Mayer waves, σ 0.01 Hz), the
//!   high one at the breathing rate (σ 0.01 Hz), power ratio LF/HF 0.5. The paper makes the series by an
//!   inverse Fourier transform with random phases over the whole record; here the low band is the same sum
//!   of random-phase cosines evaluated at the beats, which needs no end of the record, and the high band
//!   follows the patient's own breath, so that ECG and respiration agree.
//! - *Ventricular ectopic beat*: comes at 0.6 of the expected RR, followed by a full compensatory pause:
//!   the two intervals together are two expected ones. Never two in a row.
//! - *Supraventricular ectopic beat*: at 0.7, and the next RR is an ordinary one (the sinus node is reset).
//! - *Atrial fibrillation*: independent log-normal intervals with a coefficient of variation of 0.24, at
//!   1.3 times the sinus rate; the irregularity is the one that detectors look for (Tateno and Glass, Med Biol
//!   Eng Comput 2001;39:664–671).
//!
//! Not modelled: couplets, runs, block, pauses, any memory between intervals in fibrillation.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// Cosines that make up the low-frequency band.
const LF_COMPONENTS: usize = 16;
/// Shortest and longest interval that the model gives, in seconds (200 and 24 beats a minute).
const RR_S: (f64, f64) = (0.3, 2.5);
/// When an ectopic beat comes, as a share of the expected interval.
const COUPLING_V: f64 = 0.6;
const COUPLING_S: f64 = 0.7;
/// How much faster the ventricles go in fibrillation than the sinus node would.
const AF_RATE: f64 = 1.3;
/// Standard deviation over mean of the intervals in fibrillation.
const AF_VARIATION: f64 = 0.24;

/// The class of a beat, as ANSI/AAMI EC57 groups them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum BeatClass {
    /// Normal, or any conducted beat in fibrillation.
    N,
    /// Ventricular ectopic.
    V,
    /// Supraventricular ectopic.
    S,
}

/// What the atria do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rhythm {
    /// Sinus rhythm.
    Sinus,
    /// Atrial fibrillation.
    AtrialFibrillation,
}

/// One beat.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Beat {
    /// Time of the R peak, in seconds since the simulation began.
    pub at_s: f64,
    /// Interval from the R peak before, in seconds.
    pub rr_s: f64,
    /// Its class.
    pub class: BeatClass,
    /// The rhythm that it is part of.
    pub rhythm: Rhythm,
}

/// Parameters of the sinus rhythm.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Variability {
    /// Standard deviation of RR over its mean.
    pub rr_variation: f64,
    /// Power of the low over that of the high band.
    pub lf_hf: f64,
    /// Centre of the low band, in hertz.
    pub lf_hz: f64,
    /// Standard deviation of the low band, in hertz.
    pub lf_width_hz: f64,
}

impl Default for Variability {
    /// LF/HF and band as published; RR varies by 4 % of its mean.
    fn default() -> Self {
        Self { rr_variation: 0.04, lf_hf: 0.5, lf_hz: 0.1, lf_width_hz: 0.01 }
    }
}

/// What the body asks of the heart when the next interval is drawn.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Drive {
    /// Rate of the sinus node, per minute.
    pub rate_per_min: f64,
    /// Sine of the phase of the breath at the last beat, −1 to 1.
    pub breath: f64,
    /// Rhythm from here on.
    pub rhythm: Rhythm,
    /// Chance that a beat is a ventricular ectopic one, 0 to 0.5.
    pub ventricular: f64,
    /// Chance that a beat is a supraventricular ectopic one, 0 to 0.5.
    pub supraventricular: f64,
}

/// Draws beat after beat.
#[derive(Clone, Debug)]
pub struct RhythmModel {
    rng: ChaCha8Rng,
    variability: Variability,
    low: Vec<(f64, f64)>,
    last: Beat,
    /// What remains of two expected intervals after a ventricular ectopic beat.
    pause_s: Option<f64>,
}

impl RhythmModel {
    /// A rhythm whose first, uncounted beat is at `first_s`.
    pub fn new(mut rng: ChaCha8Rng, variability: Variability, first_s: f64) -> Self {
        let low = (0..LF_COMPONENTS)
            .map(|_| {
                let normal: f64 = rng.sample(StandardNormal);
                let hz = variability.lf_hz + variability.lf_width_hz * normal.clamp(-3.0, 3.0);
                (hz, rng.random_range(0.0..TAU))
            })
            .collect();
        let last = Beat { at_s: first_s, rr_s: 1.0, class: BeatClass::N, rhythm: Rhythm::Sinus };
        Self { rng, variability, low, last, pause_s: None }
    }

    /// The beat drawn last.
    pub fn last(&self) -> Beat {
        self.last
    }

    /// The next beat.
    pub fn next(&mut self, drive: Drive) -> Beat {
        let (rr_s, class) = match drive.rhythm {
            Rhythm::Sinus => self.sinus(drive),
            Rhythm::AtrialFibrillation => {
                self.pause_s = None;
                (self.fibrillation(drive), BeatClass::N)
            }
        };
        let rr_s = rr_s.clamp(RR_S.0, RR_S.1);
        self.last = Beat { at_s: self.last.at_s + rr_s, rr_s, class, rhythm: drive.rhythm };
        self.last
    }

    fn sinus(&mut self, drive: Drive) -> (f64, BeatClass) {
        let expected = 60.0 / drive.rate_per_min * (1.0 + self.modulation(drive.breath));
        // Drawn for every beat, so that a scenario's fractions do not shift all later draws.
        let draw: f64 = self.rng.random();
        if let Some(pause_s) = self.pause_s.take() {
            return (pause_s, BeatClass::N);
        }
        // After an ectopic beat comes an ordinary one, so of all beats a share f is ectopic if an
        // ordinary one is followed by an ectopic one with chance f / (1 − f).
        let after_ectopic = self.last.class != BeatClass::N;
        let ectopic = drive.ventricular + drive.supraventricular;
        let scale = 1.0 / (1.0 - ectopic.min(0.5));
        if after_ectopic || draw >= ectopic * scale {
            (expected, BeatClass::N)
        } else if draw < drive.ventricular * scale {
            let rr_s = COUPLING_V * expected;
            self.pause_s = Some(2.0 * expected - rr_s);
            (rr_s, BeatClass::V)
        } else {
            (COUPLING_S * expected, BeatClass::S)
        }
    }

    fn modulation(&self, breath: f64) -> f64 {
        let Variability { rr_variation, lf_hf, .. } = self.variability;
        // A sine of amplitude a has variance a²/2.
        let high = (2.0 / (1.0 + lf_hf)).sqrt() * breath;
        let amplitude = (2.0 * lf_hf / (1.0 + lf_hf) / self.low.len() as f64).sqrt();
        let low: f64 = self
            .low
            .iter()
            .map(|(hz, phase)| amplitude * (TAU * hz * self.last.at_s + phase).cos())
            .sum();
        // Inspiration (rising breath) shortens the interval.
        (rr_variation * (low - high)).clamp(-0.4, 0.4)
    }

    fn fibrillation(&mut self, drive: Drive) -> f64 {
        let mean = 60.0 / (drive.rate_per_min * AF_RATE);
        let sigma = (1.0 + AF_VARIATION * AF_VARIATION).ln().sqrt();
        let normal: f64 = self.rng.sample(StandardNormal);
        (mean.ln() - sigma * sigma / 2.0 + sigma * normal).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const BREATHS_HZ: f64 = 0.25;

    fn beats(drive: Drive, count: usize) -> Vec<Beat> {
        let rng = ChaCha8Rng::seed_from_u64(7);
        let mut model = RhythmModel::new(rng, Variability::default(), 0.0);
        (0..count)
            .map(|_| {
                let breath = (TAU * BREATHS_HZ * model.last().at_s).sin();
                model.next(Drive { breath, ..drive })
            })
            .collect()
    }

    fn moments(beats: &[Beat]) -> (f64, f64) {
        let n = beats.len() as f64;
        let mean = beats.iter().map(|beat| beat.rr_s).sum::<f64>() / n;
        let variance = beats.iter().map(|beat| (beat.rr_s - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }

    const SINUS: Drive = Drive {
        rate_per_min: 75.0,
        breath: 0.0,
        rhythm: Rhythm::Sinus,
        ventricular: 0.0,
        supraventricular: 0.0,
    };

    /// Power of the RR series at `hz`, taken at the beats (Lomb's sum without the offset).
    fn power(beats: &[Beat], hz: f64) -> f64 {
        let (mean, _) = moments(beats);
        let (re, im) = beats.iter().fold((0.0, 0.0), |(re, im), beat| {
            let angle = TAU * hz * beat.at_s;
            (re + (beat.rr_s - mean) * angle.cos(), im + (beat.rr_s - mean) * angle.sin())
        });
        (re * re + im * im) / beats.len() as f64
    }

    #[test]
    fn sinus_intervals_have_the_mean_and_deviation_asked_for() {
        let (mean, deviation) = moments(&beats(SINUS, 4_000));
        assert!((mean - 0.8).abs() < 0.005, "{mean}");
        assert!((deviation / mean - 0.04).abs() < 0.006, "{}", deviation / mean);
    }

    #[test]
    fn the_spectrum_has_the_two_bands_in_their_ratio() {
        let beats = beats(SINUS, 2_000);
        let band = |from: f64, to: f64| -> f64 {
            let steps = 400;
            (0..steps)
                .map(|i| power(&beats, from + (to - from) * f64::from(i) / f64::from(steps)))
                .sum::<f64>()
                * (to - from)
        };
        let (low, gap, high) = (band(0.06, 0.14), band(0.15, 0.21), band(0.22, 0.28));
        assert!((low / high - 0.5).abs() < 0.15, "LF/HF {}", low / high);
        assert!(gap < 0.05 * high, "between the bands there is {gap} of {high}");
    }

    #[test]
    fn a_ventricular_beat_is_premature_and_followed_by_a_full_pause() {
        let beats = beats(Drive { ventricular: 0.2, ..SINUS }, 2_000);
        let share = beats.iter().filter(|beat| beat.class == BeatClass::V).count() as f64 / 2_000.0;
        assert!((share - 0.2).abs() < 0.03, "{share}");
        for pair in beats.windows(2).filter(|pair| pair[0].class == BeatClass::V) {
            assert_eq!(pair[1].class, BeatClass::N);
            assert!(pair[0].rr_s < 0.62);
            assert!((pair[0].rr_s + pair[1].rr_s - 1.6).abs() < 0.25);
        }
    }

    #[test]
    fn fibrillation_is_irregular_without_a_pattern() {
        let beats = beats(Drive { rhythm: Rhythm::AtrialFibrillation, ..SINUS }, 4_000);
        let (mean, deviation) = moments(&beats);
        assert!((mean - 0.8 / AF_RATE).abs() < 0.02, "{mean}");
        assert!((deviation / mean - AF_VARIATION).abs() < 0.03, "{}", deviation / mean);
        let lagged: f64 =
            beats.windows(2).map(|pair| (pair[0].rr_s - mean) * (pair[1].rr_s - mean)).sum();
        let correlation = lagged / (beats.len() as f64 * deviation * deviation);
        assert!(correlation.abs() < 0.06, "{correlation}");
    }
}
