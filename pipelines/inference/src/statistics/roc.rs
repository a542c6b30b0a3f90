//! Receiver operating characteristic and precision-recall.

use serde::Serialize;

/// A point of the ROC curve: what is called positive at a threshold.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct RocPoint {
    /// Scores from here up are called positive; infinite at the curve's beginning.
    pub threshold: f64,
    /// Share of negatives called positive, 1 − specificity.
    pub false_positive_rate: f64,
    /// Share of positives called positive, sensitivity.
    pub true_positive_rate: f64,
}

/// Area under the ROC curve: the chance that a positive scores higher than a negative, ties counting half (Mann,
/// Whitney 1947; Hanley, McNeil 1982). `None` without both classes.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let (mut area, mut below, mut all) = (0.0, 0.0, 0.0);
    for (positives, negatives) in ties(scores, positive).into_iter().rev() {
        area += positives * (below + negatives / 2.0);
        below += negatives;
        all += positives;
    }
    (all > 0.0 && below > 0.0).then(|| area / (all * below))
}

/// Area under the precision-recall curve as average precision: the mean, over positives, of the precision at their score
/// (a step function, not a trapezoid: Davis, Goadrich, ICML 2006). `None` without a positive.
pub fn auprc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let (mut hits, mut called, mut sum) = (0.0, 0.0, 0.0);
    for (positives, negatives) in ties(scores, positive) {
        hits += positives;
        called += positives + negatives;
        sum += positives * hits / called;
    }
    (hits > 0.0).then(|| sum / hits)
}

/// The ROC curve from (0, 0) to (1, 1), at most `points` of its corners (at least 2), evenly chosen. Empty without both classes.
pub fn roc_curve(scores: &[f64], positive: &[bool], points: usize) -> Vec<RocPoint> {
    let groups = ties(scores, positive);
    let positives: f64 = groups.iter().map(|group| group.0).sum();
    let negatives: f64 = groups.iter().map(|group| group.1).sum();
    if positives == 0.0 || negatives == 0.0 {
        return Vec::new();
    }
    let mut thresholds: Vec<f64> = scores.to_vec();
    thresholds.sort_by(|a, b| b.total_cmp(a));
    thresholds.dedup();
    let (mut hits, mut alarms) = (0.0, 0.0);
    let mut curve = vec![RocPoint {
        threshold: f64::INFINITY,
        false_positive_rate: 0.0,
        true_positive_rate: 0.0,
    }];
    for (threshold, (own, others)) in thresholds.into_iter().zip(groups) {
        hits += own;
        alarms += others;
        curve.push(RocPoint {
            threshold,
            false_positive_rate: alarms / negatives,
            true_positive_rate: hits / positives,
        });
    }
    let points = points.max(2);
    if curve.len() <= points {
        return curve;
    }
    (0..points).map(|at| curve[at * (curve.len() - 1) / (points - 1)]).collect()
}

/// Positives and negatives of each score, from the highest down.
fn ties(scores: &[f64], positive: &[bool]) -> Vec<(f64, f64)> {
    let mut order: Vec<(f64, bool)> =
        scores.iter().copied().zip(positive.iter().copied()).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut groups: Vec<(f64, f64)> = Vec::new();
    let mut last = None;
    for (score, positive) in order {
        if last != Some(score) {
            groups.push((0.0, 0.0));
            last = Some(score);
        }
        if let Some(group) = groups.last_mut() {
            if positive { group.0 += 1.0 } else { group.1 += 1.0 }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_areas() {
        // sklearn.metrics.roc_auc_score and average_precision_score of the same.
        let scores = [0.1, 0.4, 0.35, 0.8, 0.4];
        let positive = [false, false, true, true, true];
        assert!((auroc(&scores, &positive).unwrap() - 0.75).abs() < 1e-12);
        assert!(
            (auprc(&scores, &positive).unwrap() - (1.0 + 2.0 / 3.0 + 0.75) / 3.0).abs() < 1e-12
        );
        assert_eq!(auroc(&scores, &[true; 5]), None);
        assert_eq!(auprc(&scores, &[false; 5]), None);
        let curve = roc_curve(&scores, &positive, 100);
        assert_eq!((curve.len(), curve[2].true_positive_rate), (5, 2.0 / 3.0));
        assert_eq!(roc_curve(&scores, &positive, 2).len(), 2);
    }

    proptest! {
        #[test]
        fn the_area_is_what_counting_pairs_gives(
            cases in proptest::collection::vec((0_u8..12, any::<bool>()), 2..60)
        ) {
            let scores: Vec<f64> = cases.iter().map(|case| f64::from(case.0)).collect();
            let positive: Vec<bool> = cases.iter().map(|case| case.1).collect();
            let (mut sum, mut pairs) = (0.0, 0.0);
            for (a, _) in cases.iter().filter(|case| case.1) {
                for (b, _) in cases.iter().filter(|case| !case.1) {
                    pairs += 1.0;
                    sum += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
                }
            }
            let area = auroc(&scores, &positive);
            prop_assert_eq!(area.is_some(), pairs > 0.0);
            if let Some(area) = area {
                prop_assert!((area - sum / pairs).abs() < 1e-9);
                let curve = roc_curve(&scores, &positive, 1_000);
                let trapezoids: f64 = curve.windows(2).map(|pair| {
                    (pair[1].false_positive_rate - pair[0].false_positive_rate)
                        * (pair[1].true_positive_rate + pair[0].true_positive_rate) / 2.0
                }).sum();
                prop_assert!((area - trapezoids).abs() < 1e-9);
            }
        }
    }
}
