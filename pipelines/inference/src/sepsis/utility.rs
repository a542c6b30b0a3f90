//! The clinical utility of the PhysioNet/CinC Challenge 2019.
//!
//! Reyna et al., Crit Care Med 48(2), 2020, figure 2 and equations 1–2; constants and edges as in the challenge's own
//! `evaluate_sepsis_score.py`. A warning earns most six hours before onset, little before twelve and nothing three hours after; a
//! septic hour without one costs more and more; a false warning costs a little. The sum is normalised so that the
//! best possible warnings give 1 and no warnings at all give 0.

/// Hours before onset at which labels begin and a warning is worth most.
const OPTIMAL_H: f64 = -6.0;
/// From when on a warning is worth something.
const EARLY_H: f64 = -12.0;
/// After this hour nothing counts any more.
const LATE_H: f64 = 3.0;
const BEST: f64 = 1.0;
const WORST_MISS: f64 = -2.0;
const FALSE_WARNING: f64 = -0.05;

/// Utilities of one or more stays that can be added up.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Utility {
    observed: f64,
    best: f64,
    inaction: f64,
}

impl Utility {
    /// Of one stay: its hourly labels (1 from six hours before onset on) and at which hours there was a warning; hours that
    /// only one of the two has are left out.
    pub fn of_stay(labels: &[bool], warnings: &[bool]) -> Self {
        let onset = onset(labels);
        let mut utility = Self::default();
        for (hour, warning) in (0..labels.len()).zip(warnings) {
            let (with, without) = hourly(hour, onset);
            utility.observed += if *warning { with } else { without };
            utility.best += if with_best(hour, onset) { with } else { without };
            utility.inaction += without;
        }
        utility
    }

    /// Normalised: 1 for the best warnings, 0 for none. `None` if the two are the same, that is without a septic patient.
    pub fn normalised(&self) -> Option<f64> {
        let range = self.best - self.inaction;
        (range > 0.0).then(|| (self.observed - self.inaction) / range)
    }
}

impl std::ops::AddAssign for Utility {
    fn add_assign(&mut self, other: Self) {
        self.observed += other.observed;
        self.best += other.best;
        self.inaction += other.inaction;
    }
}

/// What a warning in an hour is worth over none, weighted so that the sum over all warnings is `observed - inaction`: what a
/// search for the best threshold adds up.
pub(super) fn gains(labels: &[bool]) -> Vec<f64> {
    let onset = onset(labels);
    (0..labels.len())
        .map(|hour| {
            let (with, without) = hourly(hour, onset);
            with - without
        })
        .collect()
}

/// Hours from the stay's begin to onset; `None` if there is none.
fn onset(labels: &[bool]) -> Option<f64> {
    labels.iter().position(|label| *label).map(|first| first as f64 - OPTIMAL_H)
}

/// Worth of an hour with a warning and without.
fn hourly(hour: usize, onset: Option<f64>) -> (f64, f64) {
    let Some(onset) = onset else { return (FALSE_WARNING, 0.0) };
    let from = hour as f64 - onset;
    if from > LATE_H {
        (0.0, 0.0)
    } else if from <= OPTIMAL_H {
        let rising = BEST * (from - EARLY_H) / (OPTIMAL_H - EARLY_H);
        (rising.max(FALSE_WARNING), 0.0)
    } else {
        let past = (from - OPTIMAL_H) / (LATE_H - OPTIMAL_H);
        (BEST * (1.0 - past), WORST_MISS * past)
    }
}

/// Whether the best possible warnings have one in this hour.
fn with_best(hour: usize, onset: Option<f64>) -> bool {
    onset.is_some_and(|onset| (EARLY_H..=LATE_H).contains(&(hour as f64 - onset)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A stay of 40 hours with labels from hour 20, so with onset at hour 26.
    fn septic() -> Vec<bool> {
        (0..40).map(|hour| hour >= 20).collect()
    }

    fn of(labels: &[bool], warn: impl Fn(usize) -> bool) -> Utility {
        let warnings: Vec<bool> = (0..labels.len()).map(warn).collect();
        Utility::of_stay(labels, &warnings)
    }

    /// What the challenge's evaluate_sepsis_score.py gives for these.
    #[test]
    fn figures_of_the_challenge() {
        let stay = septic();
        assert_eq!(of(&stay, |hour| (14..30).contains(&hour)).normalised(), Some(1.0));
        assert_eq!(of(&stay, |_| false).normalised(), Some(0.0));
        // Misses: -2 × (1 + ... + 9) / 9 = -10. Hours 14..20 rise 0, 1/6, .. 1; then 8/9 .. 0.
        let best = of(&stay, |hour| (14..30).contains(&hour));
        assert!((best.inaction + 10.0).abs() < 1e-12, "{best:?}");
        assert!((best.best - (3.5 + 4.0)).abs() < 1e-12, "{best:?}");
        // A warning at all hours: 14 false ones before hour 14.
        let all = of(&stay, |_| true);
        assert!((all.observed - (7.5 - 14.0 * 0.05)).abs() < 1e-12, "{all:?}");
        let healthy = of(&[false; 10], |hour| hour < 4);
        assert_eq!((healthy.observed, healthy.normalised()), (-0.2, None));
    }

    proptest! {
        #[test]
        fn nothing_beats_the_best(warnings in prop::collection::vec(any::<bool>(), 60), first in 0usize..80) {
            let labels: Vec<bool> = (0..60).map(|hour| hour >= first).collect();
            let utility = Utility::of_stay(&labels, &warnings);
            prop_assert!(utility.observed <= utility.best + 1e-9);
            let sum: f64 = gains(&labels).iter().zip(&warnings).filter(|w| *w.1).map(|w| w.0).sum();
            prop_assert!((utility.observed - utility.inaction - sum).abs() < 1e-9);
        }
    }
}
