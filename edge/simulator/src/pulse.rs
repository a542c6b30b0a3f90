//! The plethysmogram and the respiration curve, from the same beats and breaths as the ECG.
//!
//! # Model
//! - *PPG*: each beat gives one pulse, the sum of two Gaussians over the phase of the pulse, after Tang,
//!   Chen, Ward, Elgendi, "Synthetic photoplethysmogram generation using two Gaussian functions", Scientific
//!   Reports 2020;10:13883; heights, centres and widths here are ours, for a young finger. The pulse starts [`PULSE_TRANSIT_S`] after the R peak. A premature ventricular
//!   beat ejects less: its pulse is half as high. Breathing moves the height by 8 % and the baseline by 5 %.
//! - *Respiration*: the phase of the breath advances at the breathing rate, which wanders from its set value
//!   by the 0.01 Hz that McSharry et al. 2003 give their respiratory band; the curve is a sine with a second
//!   harmonic, so that breathing out takes longer than breathing in.
//!
//! Both in arbitrary units (a PPG pulse is about 1 high, a breath about 2). Not modelled: motion, perfusion, venous
//! pulsation, apnoea.

use crate::rhythm::{Beat, BeatClass};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::f64::consts::{PI, TAU};

/// PPG samples a second.
pub const PPG_HZ: u32 = 125;
/// Respiration samples a second.
pub const RESPIRATION_HZ: u32 = 25;
/// From the R peak to the foot of the pulse at the finger, in seconds.
pub const PULSE_TRANSIT_S: f64 = 0.2;
/// Height, centre and width of the two Gaussians; phase runs from −π to π.
const GAUSSIANS: [(f64, f64, f64); 2] = [(0.82, -PI / 2.0, 0.6), (0.4, 0.0, 1.2)];
/// White noise, standard deviation in the unit of the curve.
const NOISE: f64 = 0.004;
/// How the breathing rate wanders: standard deviation in hertz, and time constant in seconds.
const BREATH_WANDER: (f64, f64) = (0.01, 10.0);

/// The phase of the breath over time.
#[derive(Clone, Debug)]
pub struct BreathModel {
    rng: ChaCha8Rng,
    phase: f64,
    wander_hz: f64,
}

/// One second of breathing.
#[derive(Clone, Debug)]
pub struct Breathing {
    /// Phase at the beginning, in radians.
    pub phase: f64,
    /// Breaths a second during this second.
    pub hz: f64,
    /// [`RESPIRATION_HZ`] samples of the curve.
    pub samples: Vec<f64>,
}

impl Breathing {
    /// The phase `offset_s` after the beginning, in radians.
    pub fn phase_at(&self, offset_s: f64) -> f64 {
        self.phase + TAU * self.hz * offset_s
    }
}

impl BreathModel {
    /// Begins anywhere in a breath.
    pub fn new(mut rng: ChaCha8Rng) -> Self {
        let phase = rng.random_range(0.0..TAU);
        Self { rng, phase, wander_hz: 0.0 }
    }

    /// The next second at `rate_per_min` breaths a minute.
    pub fn second(&mut self, rate_per_min: f64) -> Breathing {
        let (deviation, tau_s) = BREATH_WANDER;
        let keep = (-1.0 / tau_s).exp();
        let normal: f64 = self.rng.sample(StandardNormal);
        self.wander_hz = self.wander_hz * keep + deviation * (1.0 - keep * keep).sqrt() * normal;
        let hz = (rate_per_min / 60.0 + self.wander_hz).max(0.02);
        let phase = self.phase;
        self.phase = (phase + TAU * hz) % TAU;
        let samples = (0..RESPIRATION_HZ)
            .map(|i| {
                let angle = phase + TAU * hz * f64::from(i) / f64::from(RESPIRATION_HZ);
                let noise: f64 = self.rng.sample(StandardNormal);
                angle.sin() + 0.2 * (2.0 * angle).sin() + NOISE * noise
            })
            .collect();
        Breathing { phase, hz, samples }
    }
}

/// Makes the plethysmogram.
#[derive(Clone, Debug)]
pub struct PpgModel {
    rng: ChaCha8Rng,
}

impl PpgModel {
    /// Noise comes from `rng`.
    pub fn new(rng: ChaCha8Rng) -> Self {
        Self { rng }
    }

    /// The samples of one second from `from_s`. `beats` are in order and cover the second and
    /// [`PULSE_TRANSIT_S`] before it; what they do not cover is flat.
    pub fn second(&mut self, beats: &[Beat], from_s: f64, breathing: &Breathing) -> Vec<f64> {
        let mut at = 0;
        (0..PPG_HZ)
            .map(|i| {
                let offset_s = f64::from(i) / f64::from(PPG_HZ);
                let t = from_s + offset_s - PULSE_TRANSIT_S;
                while beats.get(at + 1).is_some_and(|next| next.at_s <= t) {
                    at += 1;
                }
                let noise: f64 = self.rng.sample(StandardNormal);
                let breath = breathing.phase_at(offset_s).sin();
                (1.0 + 0.08 * breath) * pulse(beats, at, t) + 0.05 * breath + NOISE * noise
            })
            .collect()
    }
}

fn pulse(beats: &[Beat], at: usize, t: f64) -> f64 {
    let (Some(beat), Some(next)) = (beats.get(at), beats.get(at + 1)) else { return 0.0 };
    let phase = TAU * (t - beat.at_s) / (next.at_s - beat.at_s) - PI;
    if !(-PI..=PI).contains(&phase) {
        return 0.0;
    }
    let shape: f64 = GAUSSIANS
        .iter()
        .map(|(height, centre, width)| height * (-0.5 * ((phase - centre) / width).powi(2)).exp())
        .sum();
    if beat.class == BeatClass::V { 0.5 * shape } else { shape }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rhythm::Rhythm;
    use rand::SeedableRng;

    #[test]
    fn every_beat_has_one_pulse_behind_it() {
        let beats: Vec<Beat> = (0..20)
            .map(|i| Beat {
                at_s: f64::from(i) * 0.8 - 1.0,
                rr_s: 0.8,
                class: BeatClass::N,
                rhythm: Rhythm::Sinus,
            })
            .collect();
        let rng = ChaCha8Rng::seed_from_u64(3);
        let mut breath = BreathModel::new(rng.clone());
        let mut model = PpgModel::new(rng);
        let samples: Vec<f64> = (0..10)
            .flat_map(|k| model.second(&beats, f64::from(k), &breath.second(15.0)))
            .collect();
        for beat in beats.iter().filter(|beat| beat.at_s > 0.0 && beat.at_s < 8.5) {
            let from = ((beat.at_s + PULSE_TRANSIT_S) * f64::from(PPG_HZ)) as usize;
            let cycle = &samples[from..from + 95];
            let peak = (0..95).max_by(|a, b| cycle[*a].total_cmp(&cycle[*b])).unwrap();
            // Systole is in the first half of the pulse, and its foot is low.
            assert!((15..45).contains(&peak), "peak at {peak}");
            assert!(cycle[peak] - cycle[0] > 0.6);
        }
    }

    #[test]
    fn breaths_come_at_their_rate() {
        let mut model = BreathModel::new(ChaCha8Rng::seed_from_u64(5));
        let samples: Vec<f64> = (0..300).flat_map(|_| model.second(18.0).samples).collect();
        let rising = samples.windows(2).filter(|pair| pair[0] < 0.5 && pair[1] >= 0.5).count();
        assert!((85..=97).contains(&rising), "{rising} breaths in five minutes, 90 asked for");
    }
}
