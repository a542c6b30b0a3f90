//! Holding detected beats against annotated ones.

use serde::Serialize;

/// How detected beats agree with annotated ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Matches {
    /// Annotated beats that were detected.
    pub true_positives: u64,
    /// Annotated beats that were missed.
    pub false_negatives: u64,
    /// Detections where no beat is annotated, second detections of one beat included.
    pub false_positives: u64,
}

/// Pairs each annotated beat, in order, with the nearer of the two detections around it, if that lies
/// within `tolerance` samples and is not taken yet (the pairing of ANSI/AAMI EC57 with 150 ms, as the
/// `wfdb` and NeuroKit2 comparisons do it).
///
/// Both slices are sample indices in rising order.
pub fn match_beats(reference: &[usize], detected: &[usize], tolerance: usize) -> Matches {
    let mut taken = vec![false; detected.len()];
    let mut after = 0;
    let mut found = 0;
    for beat in reference {
        while detected.get(after).is_some_and(|sample| sample < beat) {
            after += 1;
        }
        let nearest = [after.checked_sub(1), Some(after)]
            .into_iter()
            .flatten()
            .filter(|index| taken.get(*index).is_some_and(|taken| !taken))
            .filter(|index| detected[*index].abs_diff(*beat) <= tolerance)
            .min_by_key(|index| detected[*index].abs_diff(*beat));
        if let Some(index) = nearest {
            taken[index] = true;
            found += 1;
        }
    }
    Matches {
        true_positives: found,
        false_negatives: reference.len() as u64 - found,
        false_positives: detected.len() as u64 - found,
    }
}

impl Matches {
    /// Share of annotated beats that were detected, 0–1; `None` without annotated beats.
    pub fn sensitivity(&self) -> Option<f64> {
        share(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// Share of detections that are beats (positive predictive value), 0–1; `None` without detections.
    pub fn ppv(&self) -> Option<f64> {
        share(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Harmonic mean of the two, 0–1; `None` without beats and detections.
    pub fn f1(&self) -> Option<f64> {
        let twice = 2 * self.true_positives;
        share(twice, twice + self.false_negatives + self.false_positives)
    }
}

impl std::ops::AddAssign for Matches {
    fn add_assign(&mut self, other: Self) {
        self.true_positives += other.true_positives;
        self.false_negatives += other.false_negatives;
        self.false_positives += other.false_positives;
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_detection_counts_once() {
        let matches = match_beats(&[100, 140, 500], &[120, 480, 510, 900], 30);
        assert_eq!(matches.true_positives, 2);
        assert_eq!(matches.false_negatives, 1);
        assert_eq!(matches.false_positives, 2);
        assert_eq!(matches.sensitivity(), Some(2.0 / 3.0));
        assert_eq!(matches.ppv(), Some(0.5));
        assert_eq!(matches.f1(), Some(4.0 / 7.0));
    }

    #[test]
    fn of_nothing_there_is_no_share() {
        let matches = match_beats(&[], &[], 10);
        assert_eq!((matches.sensitivity(), matches.ppv(), matches.f1()), (None, None, None));
        assert_eq!(match_beats(&[], &[3], 10).ppv(), Some(0.0));
    }

    proptest! {
        #[test]
        fn counts_add_up(
            reference in proptest::collection::btree_set(0usize..5000, 0..60),
            detected in proptest::collection::btree_set(0usize..5000, 0..60),
            tolerance in 0usize..100,
        ) {
            let reference: Vec<usize> = reference.into_iter().collect();
            let detected: Vec<usize> = detected.into_iter().collect();
            let matches = match_beats(&reference, &detected, tolerance);
            prop_assert_eq!(matches.true_positives + matches.false_negatives, reference.len() as u64);
            prop_assert_eq!(matches.true_positives + matches.false_positives, detected.len() as u64);
            prop_assert_eq!(match_beats(&reference, &reference, tolerance).f1().unwrap_or(1.0), 1.0);
        }
    }
}
