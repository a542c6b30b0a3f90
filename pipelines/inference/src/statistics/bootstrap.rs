//! How much a figure would move with other patients.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// The most resamples.
pub const MAX_RESAMPLES: usize = 10_000;

/// An interval that holds 95 % of what resampled patients gave.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Interval {
    /// Its 2.5th percentile.
    pub lower: f64,
    /// Its 97.5th percentile.
    pub upper: f64,
}

/// The percentile bootstrap interval (Efron 1979) of `figure` over `patients`: it is given as many numbers of patients, drawn with
/// replacement from the seed, `resamples` times (at most [`MAX_RESAMPLES`]). Patients are drawn and not their hours or
/// beats, which are not independent of each other. `None` if the figure is never defined.
pub fn bootstrap(
    patients: usize,
    resamples: usize,
    seed: u64,
    mut figure: impl FnMut(&[usize]) -> Option<f64>,
) -> Option<Interval> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut figures: Vec<f64> = Vec::new();
    for _ in 0..resamples.min(MAX_RESAMPLES) {
        let drawn: Vec<usize> = match patients {
            0 => Vec::new(),
            _ => (0..patients).map(|_| rng.random_range(0..patients)).collect(),
        };
        figures.extend(figure(&drawn));
    }
    figures.sort_by(f64::total_cmp);
    let at = |share: f64| {
        figures.get(((figures.len().max(1) - 1) as f64 * share).round() as usize).copied()
    };
    Some(Interval { lower: at(0.025)?, upper: at(0.975)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_a_hundred_patients() {
        let values: Vec<f64> = (0..100).map(|patient| f64::from(patient % 10)).collect();
        let mean = |drawn: &[usize]| {
            Some(drawn.iter().map(|patient| values[*patient]).sum::<f64>() / drawn.len() as f64)
        };
        let interval = bootstrap(100, 2_000, 1, mean).unwrap();
        // Standard error 2.872 / 10, times 1.96.
        assert!((interval.lower - (4.5 - 0.563)).abs() < 0.06, "{interval:?}");
        assert!((interval.upper - (4.5 + 0.563)).abs() < 0.06, "{interval:?}");
        assert_eq!(bootstrap(100, 2_000, 1, mean), Some(interval));
        assert_eq!(bootstrap(0, 10, 1, |_| None), None);
    }
}
