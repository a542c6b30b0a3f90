//! Heart rate, SpO₂, breathing, pressure and temperature that evolve together.
//!
//! # Model
//! Each is an Ornstein–Uhlenbeck process about a target, stepped exactly once a second (Gillespie, "Exact
//! numerical simulation of the Ornstein–Uhlenbeck process and its integral", Phys Rev E 1996;54:2084–2091). The
//! noise of the pressures is shared, and a higher pressure slows the heart a little, as the baroreflex does.
//! The targets are a patient's own baseline plus what an illness adds; an illness sets in along a raised cosine
//! over the first half of its episode and then stays. Courses end near the thresholds of NEWS2 (Royal
//! College of Physicians, National Early Warning Score 2, 2017, chart 1), which [`news2`] computes as truth.
//!
//! Not modelled: treatment, oxygen given, sleep, drugs.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// One set of vitals.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Vitals {
    /// Heart rate per minute.
    pub heart_rate: f64,
    /// Oxygen saturation in percent.
    pub spo2: f64,
    /// Breaths per minute.
    pub respiration_rate: f64,
    /// Systolic pressure in `mm[Hg]`.
    pub systolic: f64,
    /// Diastolic pressure in `mm[Hg]`.
    pub diastolic: f64,
    /// Temperature in Cel.
    pub temperature: f64,
}

/// An illness that moves the vitals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Course {
    /// Heart and breathing faster, pressure and saturation down, fever.
    SepticShock,
    /// Saturation falls, breathing and heart follow.
    Hypoxia,
    /// The heart slows and the pressure with it.
    Bradycardia,
    /// Temperature rises, and the heart by about ten beats a degree (Liebermeister's rule).
    Fever,
}

impl Course {
    /// What it adds when it is fully there.
    fn change(self) -> Vitals {
        let [heart_rate, spo2, respiration_rate, systolic, diastolic, temperature] = match self {
            Self::SepticShock => [52.0, -8.0, 14.0, -36.0, -24.0, 2.3],
            Self::Hypoxia => [22.0, -12.0, 10.0, 6.0, 4.0, 0.0],
            Self::Bradycardia => [-34.0, -1.0, 0.0, -22.0, -12.0, 0.0],
            Self::Fever => [24.0, -0.5, 3.0, -4.0, -3.0, 2.5],
        };
        Vitals { heart_rate, spo2, respiration_rate, systolic, diastolic, temperature }
    }
}

/// How far an episode of `duration_s` has set in `elapsed_s` after its start: 0 to 1, 0 outside.
pub fn onset(elapsed_s: f64, duration_s: f64) -> f64 {
    if !(0.0..duration_s).contains(&elapsed_s) {
        return 0.0;
    }
    let share = (elapsed_s / (duration_s / 2.0)).min(1.0);
    0.5 - 0.5 * (PI * share).cos()
}

/// The process of one patient.
#[derive(Clone, Debug)]
pub struct VitalsModel {
    rng: ChaCha8Rng,
    baseline: Vitals,
    now: Vitals,
}

/// Standard deviation and time constant in seconds, in the order of [`Vitals`].
const WANDER: [(f64, f64); 6] =
    [(1.5, 15.0), (0.4, 20.0), (0.7, 20.0), (2.5, 30.0), (1.8, 30.0), (0.03, 60.0)];

/// Values stay inside, in the order of [`Vitals`].
const BOUNDS: [(f64, f64); 6] =
    [(30.0, 190.0), (60.0, 100.0), (5.0, 45.0), (50.0, 220.0), (25.0, 130.0), (33.0, 42.0)];

impl VitalsModel {
    /// A healthy adult, drawn from `rng`.
    pub fn new(mut rng: ChaCha8Rng) -> Self {
        let baseline = Vitals {
            heart_rate: rng.random_range(62.0..82.0),
            spo2: rng.random_range(96.5..98.5),
            respiration_rate: rng.random_range(13.0..17.0),
            systolic: rng.random_range(114.0..132.0),
            diastolic: rng.random_range(70.0..84.0),
            temperature: rng.random_range(36.5..37.1),
        };
        Self { rng, baseline, now: baseline }
    }

    /// The vitals now.
    pub fn now(&self) -> Vitals {
        self.now
    }

    /// One second on, with each course as far as it has set in.
    pub fn second(&mut self, courses: &[(Course, f64)]) -> Vitals {
        let mut target = array(self.baseline);
        for (course, share) in courses {
            for (target, change) in target.iter_mut().zip(array(course.change())) {
                *target += share * change;
            }
        }
        let mut noise: [f64; 6] = std::array::from_fn(|_| self.rng.sample(StandardNormal));
        noise[4] = 0.7 * noise[3] + 0.714 * noise[4];
        noise[0] = -0.3 * noise[3] + 0.954 * noise[0];
        let mut now = array(self.now);
        for i in 0..now.len() {
            let (deviation, tau_s) = WANDER[i];
            let keep = (-1.0 / tau_s).exp();
            let next = target[i]
                + (now[i] - target[i]) * keep
                + deviation * (1.0 - keep * keep).sqrt() * noise[i];
            now[i] = next.clamp(BOUNDS[i].0, BOUNDS[i].1);
        }
        // Diastole stays below systole.
        now[4] = now[4].min(now[3] - 15.0);
        let [heart_rate, spo2, respiration_rate, systolic, diastolic, temperature] = now;
        self.now = Vitals { heart_rate, spo2, respiration_rate, systolic, diastolic, temperature };
        self.now
    }
}

/// NEWS2 of these vitals on SpO₂ scale 1, for an alert patient who breathes air.
pub fn news2(vitals: &Vitals) -> u8 {
    let heart = match vitals.heart_rate.round() {
        ..=40.0 | 131.0.. => 3,
        111.0.. => 2,
        ..=50.0 | 91.0.. => 1,
        _ => 0,
    };
    let saturation = match vitals.spo2.round() {
        ..=91.0 => 3,
        ..=93.0 => 2,
        ..=95.0 => 1,
        _ => 0,
    };
    let breathing = match vitals.respiration_rate.round() {
        ..=8.0 | 25.0.. => 3,
        21.0.. => 2,
        ..=11.0 => 1,
        _ => 0,
    };
    let pressure = match vitals.systolic.round() {
        ..=90.0 | 220.0.. => 3,
        ..=100.0 => 2,
        ..=110.0 => 1,
        _ => 0,
    };
    let temperature = match (vitals.temperature * 10.0).round() {
        ..=350.0 => 3,
        391.0.. => 2,
        ..=360.0 | 381.0.. => 1,
        _ => 0,
    };
    heart + saturation + breathing + pressure + temperature
}

fn array(vitals: Vitals) -> [f64; 6] {
    let Vitals { heart_rate, spo2, respiration_rate, systolic, diastolic, temperature } = vitals;
    [heart_rate, spo2, respiration_rate, systolic, diastolic, temperature]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn run(seed: u64, courses: impl Fn(usize) -> Vec<(Course, f64)>) -> Vec<Vitals> {
        let mut model = VitalsModel::new(ChaCha8Rng::seed_from_u64(seed));
        (0..600).map(|second| model.second(&courses(second))).collect()
    }

    #[test]
    fn healthy_patients_stay_healthy() {
        for seed in 0..40 {
            for vitals in run(seed, |_| vec![]) {
                assert!(news2(&vitals) <= 3, "{vitals:?}");
                assert!(vitals.diastolic < vitals.systolic);
            }
        }
    }

    #[test]
    fn septic_shock_reaches_an_emergency_score() {
        for seed in 0..40 {
            let vitals =
                run(seed, |second| vec![(Course::SepticShock, onset(second as f64, 500.0))]);
            assert!(vitals[..60].iter().all(|vitals| news2(vitals) < 7));
            assert!(vitals[330..500].iter().all(|vitals| news2(vitals) >= 7), "{:?}", vitals[400]);
        }
    }

    #[test]
    fn fever_alone_is_no_emergency() {
        for seed in 0..40 {
            let vitals = run(seed, |_| vec![(Course::Fever, 1.0)]);
            assert!(vitals[300..].iter().all(|v| v.temperature > 38.4 && news2(v) < 7));
        }
    }

    #[test]
    fn the_score_follows_the_chart_at_its_edges() {
        let healthy = Vitals {
            heart_rate: 70.0,
            spo2: 97.0,
            respiration_rate: 15.0,
            systolic: 120.0,
            diastolic: 80.0,
            temperature: 37.0,
        };
        assert_eq!(news2(&healthy), 0);
        for (rate, points) in [(40.0, 3), (41.0, 1), (50.0, 1), (51.0, 0), (90.0, 0), (91.0, 1)]
            .into_iter()
            .chain([(110.0, 1), (111.0, 2), (130.0, 2), (131.0, 3)])
        {
            assert_eq!(news2(&Vitals { heart_rate: rate, ..healthy }), points, "{rate}");
        }
        for (temperature, points) in [(35.0, 3), (35.1, 1), (36.0, 1), (36.1, 0), (38.0, 0)]
            .into_iter()
            .chain([(38.1, 1), (39.0, 1), (39.1, 2)])
        {
            assert_eq!(news2(&Vitals { temperature, ..healthy }), points, "{temperature}");
        }
    }
}
