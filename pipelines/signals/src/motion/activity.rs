//! How much somebody moves, in epochs of five seconds.
//!
//! - ENMO: van Hees et al. 2013, PLoS ONE 8:e61691: mean of the length of acceleration less 1 g, negative
//!   values counted as zero. Wants a calibrated sensor: an error of 20 mg is 20 mg of activity.
//! - MAD: Vähä-Ypyä et al. 2015, Clin Physiol Funct Imaging 35:64–70: mean absolute deviation of the length
//!   from its mean in the epoch. Needs no calibration.

use haar_schema::SampleRate;

use super::{RateOutOfRange, length, samples};

/// Length of an epoch in seconds (both papers).
pub const EPOCH_S: f64 = 5.0;

/// Share of an epoch's samples that must be there.
const MIN_COVERAGE: f64 = 0.5;

/// Cuts a stream of samples into epochs; the first begins with the first sample.
#[derive(Clone, Debug)]
pub struct Activity {
    epoch_samples: usize,
    position: u64,
    lengths: Vec<f64>,
}

/// The activity of one epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// Its first sample, counted from the first that was pushed.
    pub start: u64,
    /// Share of its samples that were there, 0–1.
    pub coverage: f64,
    /// Euclidean norm minus one, in g; absent below half coverage. Vähä-Ypyä and others hold rest below
    /// about 0.02–0.05 and walking above about 0.1.
    pub enmo_g: Option<f64>,
    /// Mean amplitude deviation in g; absent below half coverage.
    pub mad_g: Option<f64>,
}

impl Activity {
    /// Of samples at a rate within the limits of [`super`].
    pub fn new(rate: SampleRate) -> Result<Self, RateOutOfRange> {
        let epoch_samples = samples(EPOCH_S, rate)?;
        Ok(Self { epoch_samples, position: 0, lengths: Vec::with_capacity(epoch_samples) })
    }

    /// Takes the next sample (x, y, z in g); gives the epoch that it completes. What is left at the end of
    /// the stream is no epoch.
    pub fn push(&mut self, g: [f32; 3]) -> Option<Epoch> {
        self.lengths.extend(length(g));
        self.position += 1;
        if !self.position.is_multiple_of(self.epoch_samples as u64) {
            return None;
        }
        let count = self.lengths.len() as f64;
        let coverage = count / self.epoch_samples as f64;
        let enough = coverage >= MIN_COVERAGE;
        let mean = self.lengths.iter().sum::<f64>() / count;
        let above: f64 = self.lengths.iter().map(|length| (length - 1.0).max(0.0)).sum();
        let away: f64 = self.lengths.iter().map(|length| (length - mean).abs()).sum();
        self.lengths.clear();
        Some(Epoch {
            start: self.position - self.epoch_samples as u64,
            coverage,
            enmo_g: enough.then(|| above / count),
            mad_g: enough.then(|| away / count),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epochs(samples: &[[f32; 3]]) -> Vec<Epoch> {
        let mut activity = Activity::new(SampleRate::from_hz(20).unwrap()).unwrap();
        samples.iter().filter_map(|g| activity.push(*g)).collect()
    }

    #[test]
    fn by_hand() {
        // Alternating 0.5 and 1.7 g: ENMO 0.35, mean 1.1, MAD 0.6.
        let shaken: Vec<[f32; 3]> =
            (0..250).map(|i| [0.0, if i % 2 == 0 { 0.5 } else { 1.7 }, 0.0]).collect();
        let found = epochs(&shaken);
        assert_eq!((found.len(), found[1].start, found[1].coverage), (2, 100, 1.0));
        assert!((found[0].enmo_g.unwrap() - 0.35).abs() < 1e-6);
        assert!((found[0].mad_g.unwrap() - 0.6).abs() < 1e-6);
        let still = epochs(&[[0.6, 0.0, 0.8]; 100]);
        assert!(still[0].enmo_g.unwrap() < 1e-6 && still[0].mad_g.unwrap() < 1e-6);
    }

    #[test]
    fn lost_samples_are_counted_and_too_many_are_said() {
        let mut samples = vec![[0.0, 1.0, 0.0]; 200];
        samples[..40].fill([f32::NAN; 3]);
        samples[100..160].fill([0.0, f32::NAN, 0.0]);
        let found = epochs(&samples);
        assert_eq!((found[0].coverage, found[0].mad_g), (0.6, Some(0.0)));
        assert_eq!((found[1].coverage, found[1].enmo_g, found[1].mad_g), (0.4, None, None));
        let none = epochs(&[[f32::NAN; 3]; 100]);
        assert_eq!((none[0].coverage, none[0].mad_g), (0.0, None));
    }

    proptest! {
        #[test]
        fn turning_the_sensor_changes_nothing(
            samples in proptest::collection::vec(proptest::array::uniform3(-4.0f32..4.0), 100..200),
        ) {
            let turned: Vec<[f32; 3]> = samples.iter().map(|[x, y, z]| [*z, -*x, *y]).collect();
            for (a, b) in epochs(&samples).iter().zip(epochs(&turned)) {
                prop_assert!((a.mad_g.unwrap() - b.mad_g.unwrap()).abs() < 1e-9);
                prop_assert!((a.enmo_g.unwrap() - b.enmo_g.unwrap()).abs() < 1e-9);
                prop_assert!(a.enmo_g.unwrap() >= 0.0 && a.mad_g.unwrap() >= 0.0);
            }
        }
    }
}
