//! Whether a probability is one.

use serde::Serialize;

/// Cases of like predicted probability.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Bin {
    /// Cases in it.
    pub cases: u64,
    /// Mean of what was predicted.
    pub predicted: f64,
    /// Share that was positive.
    pub observed: f64,
}

/// How predicted probabilities compare with what happened.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Calibration {
    /// Bins of equal numbers of cases, by rising probability.
    pub bins: Vec<Bin>,
    /// Expected calibration error: mean distance of predicted and observed, weighted by cases (Naeini 2015).
    pub expected_error: f64,
    /// Mean squared error of the probabilities (Brier 1950).
    pub brier: f64,
    /// The mean predicted probability over the share that was positive; 1 is right.
    pub ratio: Option<f64>,
}

/// Mean squared error of probabilities (Brier, "Verification of forecasts expressed in terms of probability", 1950).
/// `None` without a case.
pub fn brier(probabilities: &[f64], positive: &[bool]) -> Option<f64> {
    let sum: f64 = probabilities
        .iter()
        .zip(positive)
        .map(|(p, positive)| (p - f64::from(u8::from(*positive))).powi(2))
        .sum();
    (!probabilities.is_empty()).then(|| sum / probabilities.len() as f64)
}

/// Calibration in `bins` bins of equal numbers of cases. `None` without a case.
pub fn calibration(probabilities: &[f64], positive: &[bool], bins: usize) -> Option<Calibration> {
    let brier = brier(probabilities, positive)?;
    let mut cases: Vec<(f64, bool)> =
        probabilities.iter().copied().zip(positive.iter().copied()).collect();
    cases.sort_by(|a, b| a.0.total_cmp(&b.0));
    let bins = bins.clamp(1, cases.len());
    let bins: Vec<Bin> = (0..bins)
        .map(|bin| {
            let own = &cases[bin * cases.len() / bins..(bin + 1) * cases.len() / bins];
            let count = own.len() as f64;
            Bin {
                cases: own.len() as u64,
                predicted: own.iter().map(|case| case.0).sum::<f64>() / count,
                observed: own.iter().filter(|case| case.1).count() as f64 / count,
            }
        })
        .collect();
    let total = cases.len() as f64;
    let expected_error = bins
        .iter()
        .map(|bin| bin.cases as f64 / total * (bin.predicted - bin.observed).abs())
        .sum();
    let happened = cases.iter().filter(|case| case.1).count() as f64;
    let predicted: f64 = cases.iter().map(|case| case.0).sum();
    let ratio = (happened > 0.0).then(|| predicted / happened);
    Some(Calibration { bins, expected_error, brier, ratio })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibrated_score_has_no_error() {
        let probabilities = [0.25, 0.25, 0.25, 0.25, 0.75, 0.75, 0.75, 0.75];
        let positive = [true, false, false, false, true, true, true, false];
        let good = calibration(&probabilities, &positive, 2).unwrap();
        assert_eq!((good.expected_error, good.ratio), (0.0, Some(1.0)));
        assert!((good.brier - 0.1875).abs() < 1e-12);
        let bad = calibration(&probabilities.map(|p| 1.0 - p), &positive, 2).unwrap();
        assert!((bad.expected_error - 0.5).abs() < 1e-12, "{bad:?}");
        assert_eq!(calibration(&[], &[], 10), None);
        assert_eq!(calibration(&[0.3], &[false], 10).unwrap().bins.len(), 1);
    }
}
