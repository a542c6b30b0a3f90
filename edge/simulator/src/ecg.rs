//! ECG lead II from the dynamical model of McSharry, Clifford, Tarassenko and Smith, "A dynamical model for
//! generating synthetic electrocardiogram signals", IEEE Trans Biomed Eng 2003;50(3):289–294.
//!
//! # Model
//! A point runs round the unit circle once a beat (equations 1 and 2) and is pulled up and down when it passes
//! the angles of P, Q, R, S and T: `z' = −Σ aᵢ Δθᵢ exp(−Δθᵢ²/2bᵢ²) − (z − z₀)` with `z₀` at the breathing
//! rate, 0.15 mV. Angles, aᵢ and bᵢ are those of the paper's Table I, stretched with the heart rate as the
//! authors' program ECGSYN does (PhysioNet, ecgsyn 1.0.0): bᵢ and the angles of Q and S by √(1 s/RR), those
//! of P and T by its square root.
//!
//! # What differs
//! - The point starts on its limit cycle, where the first two equations have a solution in closed form: the
//!   angle is linear between two R peaks. So an R peak lies where [`crate::rhythm`] put it and no error of
//!   integration moves it. `z` is integrated by RK4 with one step a sample.
//! - RR is that of the half beat (before R for P and Q, behind R for S and T), and a wave may reach into the
//!   neighbouring half: T of one beat and P of the next simply add. As `a·b²/ω` does not depend on RR then, an
//!   R peak is as high in a short beat as in a long one.
//! - ECGSYN scales each record to −0.4…1.2 mV; a stream has no extremes, so the gain is fixed
//!   ([`GAIN_MV`]).
//! - Ectopic beats switch the table for one beat (the idea of Clifford, Nemati, Sameni, Physiol Meas
//!   2010;31(5):595–609; the numbers here are drawn to look like a premature ventricular beat: no P, wide
//!   QRS, T against it). In fibrillation there is no P, and the sawtooth of Stridh and Sörnmo (IEEE Trans Biomed
//!   Eng 2001;48(1):105–111) with three harmonics stands for the atrial waves.
//!
//! Not modelled: other leads, axis, ischaemia, muscle noise beyond a white floor.

use crate::rhythm::{Beat, BeatClass, Rhythm};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::f64::consts::{PI, TAU};

/// Samples a second.
pub const ECG_HZ: u32 = 250;
/// Millivolts per unit of `z`: makes R about 1.2 mV at 60 beats a minute.
pub const GAIN_MV: f64 = 27.0;
/// Amplitude of the baseline's forcing, in millivolts (the paper's A).
const BASELINE_MV: f64 = 0.15;
/// White noise of electrodes and amplifier, standard deviation in millivolts.
const NOISE_MV: f64 = 0.01;
/// Amplitude of the fibrillatory waves, in millivolts.
const FIBRILLATION_MV: f64 = 0.06;
/// Their rate in hertz, and by how much and how fast it wanders.
const FIBRILLATION_HZ: (f64, f64, f64) = (6.0, 0.3, 0.17);

/// One of the waves of a beat.
#[derive(Clone, Copy, Debug)]
struct Wave {
    theta: f64,
    a: f64,
    b: f64,
}

const fn wave(theta: f64, a: f64, b: f64) -> Wave {
    Wave { theta, a, b }
}

/// Table I: P, Q, R, S, T.
const NORMAL: [Wave; 5] = [
    wave(-PI / 3.0, 1.2, 0.25),
    wave(-PI / 12.0, -5.0, 0.1),
    wave(0.0, 30.0, 0.1),
    wave(PI / 12.0, -7.5, 0.1),
    wave(PI / 2.0, 0.75, 0.4),
];

/// An early atrial beat: P is inverted, as from a focus low in the atrium.
const SUPRAVENTRICULAR: [Wave; 5] =
    [wave(-PI / 3.0, -0.9, 0.2), NORMAL[1], NORMAL[2], NORMAL[3], NORMAL[4]];

/// A ventricular beat: no P; R 1.3 times as high and 2.2 times as wide; deep S; T inverted.
const VENTRICULAR: [Wave; 5] = [
    wave(-PI / 3.0, 0.0, 0.25),
    wave(-PI / 6.0, -0.6, 0.2),
    wave(0.0, 8.0, 0.22),
    wave(PI / 5.0, -4.5, 0.22),
    wave(PI / 1.8, -1.2, 0.4),
];

/// Integrates the model along a series of beats.
#[derive(Clone, Debug)]
pub struct EcgModel {
    rng: ChaCha8Rng,
    z: f64,
    flutter: f64,
}

impl EcgModel {
    /// At rest; noise comes from `rng`.
    pub fn new(rng: ChaCha8Rng) -> Self {
        Self { rng, z: 0.0, flutter: 0.0 }
    }

    /// The samples of one second from `from_s`, in millivolts. `beats` are in order, one of them not after
    /// `from_s` and one behind the second; `breath_hz` is the breathing rate in hertz and `breath` the phase at
    /// `from_s`. Time that the beats do not cover stays flat.
    pub fn second(&mut self, beats: &[Beat], from_s: f64, breath: f64, breath_hz: f64) -> Vec<f64> {
        let step = 1.0 / f64::from(ECG_HZ);
        let mut samples = Vec::with_capacity(ECG_HZ as usize);
        let mut at = 0;
        for i in 0..ECG_HZ {
            let t = from_s + f64::from(i) * step;
            while beats.get(at + 1).is_some_and(|next| next.at_s <= t) {
                at += 1;
            }
            let baseline =
                |t: f64| BASELINE_MV / GAIN_MV * (breath + TAU * breath_hz * (t - from_s)).sin();
            let slope = |t: f64, z: f64| pull(beats, at, t) - (z - baseline(t));
            let flutter = self.flutter(beats, at, t, step);
            let noise: f64 = self.rng.sample(StandardNormal);
            samples.push(GAIN_MV * self.z + flutter + NOISE_MV * noise);
            self.z = rk4(self.z, t, step, slope);
        }
        samples
    }

    fn flutter(&mut self, beats: &[Beat], at: usize, t: f64, step: f64) -> f64 {
        let (hz, width, wander_hz) = FIBRILLATION_HZ;
        self.flutter =
            (self.flutter + TAU * step * (hz + width * (TAU * wander_hz * t).sin())) % TAU;
        let fibrillating =
            beats.get(at + 1).is_some_and(|beat| beat.rhythm == Rhythm::AtrialFibrillation);
        if fibrillating {
            let saw: f64 =
                (1..=3).map(|k| (f64::from(k) * self.flutter).sin() / f64::from(k)).sum();
            FIBRILLATION_MV * saw
        } else {
            0.0
        }
    }
}

/// `−Σ aᵢ Δθᵢ exp(−Δθᵢ²/2bᵢ²)` at time `t` between `beats[at]` and the next one.
fn pull(beats: &[Beat], at: usize, t: f64) -> f64 {
    let (Some(last), Some(next)) = (beats.get(at), beats.get(at + 1)) else { return 0.0 };
    let rr_s = next.at_s - last.at_s;
    let theta = TAU * (t - last.at_s) / rr_s;
    // Behind R of the last beat, and before R of the next.
    half(last, theta, rr_s, 2..5) + half(next, theta - TAU, rr_s, 0..3)
}

fn half(beat: &Beat, theta: f64, rr_s: f64, waves: std::ops::Range<usize>) -> f64 {
    let table = match (beat.class, beat.rhythm) {
        (BeatClass::V, _) => &VENTRICULAR,
        (BeatClass::S, _) => &SUPRAVENTRICULAR,
        (BeatClass::N, _) => &NORMAL,
    };
    let stretch = rr_s.recip().sqrt();
    let mut sum = 0.0;
    for index in waves {
        if index == 0 && beat.rhythm == Rhythm::AtrialFibrillation {
            continue;
        }
        let Wave { theta: centre, a, b } = table[index];
        let centre = centre * if matches!(index, 0 | 4) { stretch.sqrt() } else { stretch };
        let (delta, b) = (theta - centre, b * stretch);
        let scaled = delta / b;
        // Beyond five widths a wave is below a ten-thousandth of its height.
        if scaled.abs() < 5.0 {
            sum -= a * delta * (-0.5 * scaled * scaled).exp();
        }
    }
    sum
}

/// One step of the classical Runge–Kutta method.
fn rk4(z: f64, t: f64, step: f64, slope: impl Fn(f64, f64) -> f64) -> f64 {
    let k1 = slope(t, z);
    let k2 = slope(t + step / 2.0, z + step / 2.0 * k1);
    let k3 = slope(t + step / 2.0, z + step / 2.0 * k2);
    let k4 = slope(t + step, z + step * k3);
    z + step / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn series(rr_s: &[f64], class: impl Fn(usize) -> BeatClass, rhythm: Rhythm) -> Vec<Beat> {
        let mut at_s = -0.5;
        rr_s.iter()
            .enumerate()
            .map(|(i, &rr_s)| {
                at_s += rr_s;
                Beat { at_s, rr_s, class: class(i), rhythm }
            })
            .collect()
    }

    fn run(beats: &[Beat], seconds: u32) -> Vec<f64> {
        let mut model = EcgModel::new(ChaCha8Rng::seed_from_u64(1));
        let phase = |second: u32| TAU * 0.25 * f64::from(second);
        (0..seconds).flat_map(|k| model.second(beats, f64::from(k), phase(k), 0.25)).collect()
    }

    fn height(samples: &[f64], at_s: f64, width_s: f64) -> (f64, f64) {
        let hz = f64::from(ECG_HZ);
        let (from, to) = (((at_s - width_s) * hz) as usize, ((at_s + width_s) * hz) as usize);
        let mut best = (0.0, f64::MIN);
        for (i, sample) in samples.iter().enumerate().take(to).skip(from) {
            if *sample > best.1 {
                best = (i as f64 / hz, *sample);
            }
        }
        best
    }

    #[test]
    fn r_peaks_stand_at_the_beats_at_any_rate() {
        for rr_s in [0.4, 0.6, 1.0, 1.4] {
            let beats = series(&[rr_s; 60], |_| BeatClass::N, Rhythm::Sinus);
            let samples = run(&beats, 20);
            for beat in beats.iter().filter(|beat| beat.at_s > 2.0 && beat.at_s < 19.0) {
                let (at_s, mv) = height(&samples, beat.at_s, 0.15);
                assert!((at_s - beat.at_s).abs() <= 0.012, "{at_s} for {} at RR {rr_s}", beat.at_s);
                assert!((0.8..1.7).contains(&mv), "{mv} mV at RR {rr_s}");
            }
        }
    }

    #[test]
    fn a_ventricular_beat_is_wide_and_has_no_p() {
        let rr_s: Vec<f64> = (0..30).map(|i| [0.9, 0.54, 1.26][i % 3]).collect();
        let class = |i: usize| if i % 3 == 1 { BeatClass::V } else { BeatClass::N };
        let beats = series(&rr_s, class, Rhythm::Sinus);
        let samples = run(&beats, 20);
        // Width at half height.
        let width = |beat: &Beat| {
            let (at_s, mv) = height(&samples, beat.at_s, 0.1);
            let at = (at_s * f64::from(ECG_HZ)) as usize;
            let rest = samples[at - 60];
            let half = (mv + rest) / 2.0;
            let left = samples[..at].iter().rev().take_while(|s| **s > half).count();
            let right = samples[at..].iter().take_while(|s| **s > half).count();
            (left + right) as f64 / f64::from(ECG_HZ)
        };
        let mean = |class: BeatClass| {
            let widths: Vec<f64> = beats
                .iter()
                .filter(|beat| beat.class == class && beat.at_s > 2.0 && beat.at_s < 18.0)
                .map(&width)
                .collect();
            widths.iter().sum::<f64>() / widths.len() as f64
        };
        let (normal, ventricular) = (mean(BeatClass::N), mean(BeatClass::V));
        assert!(ventricular > 1.6 * normal, "{ventricular} s against {normal} s");
    }

    #[test]
    fn fibrillation_has_no_p_wave_but_a_restless_baseline() {
        let before_r = |rhythm| {
            let beats = series(&[0.8; 80], |_| BeatClass::N, rhythm);
            let samples = run(&beats, 40);
            // The mean over beats of what stands where P would be, against the line before it.
            let at = |s: f64| samples[(s * f64::from(ECG_HZ)).round() as usize];
            let beats: Vec<_> = beats.iter().filter(|b| b.at_s > 2.0 && b.at_s < 39.0).collect();
            beats.iter().map(|b| at(b.at_s - 0.14) - at(b.at_s - 0.26)).sum::<f64>()
                / beats.len() as f64
        };
        assert!(before_r(Rhythm::Sinus) > 0.12, "{}", before_r(Rhythm::Sinus));
        assert!(before_r(Rhythm::AtrialFibrillation).abs() < 0.05);
    }
}
