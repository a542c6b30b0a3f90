//! Whether a model still sees what it was trained on.

/// The population stability index between two histograms over the same bins: Σ (a − e) ln(a / e) over shares `e` expected and
/// `a` actual (Siddiqi, "Credit risk scorecards", 2006; it is the symmetrised Kullback-Leibler divergence). By
/// custom below 0.1 is stable and above 0.25 has shifted. An empty bin counts half a case. `None` if the lengths differ
/// or a histogram is empty.
pub fn population_stability(expected: &[u64], actual: &[u64]) -> Option<f64> {
    let total = |counts: &[u64]| counts.iter().sum::<u64>();
    if expected.len() != actual.len() || total(expected) == 0 || total(actual) == 0 {
        return None;
    }
    let share = |count: u64, all: u64| (count as f64).max(0.5) / all as f64;
    let (e_all, a_all) = (total(expected), total(actual));
    let sum = expected.iter().zip(actual).map(|(e, a)| {
        let (e, a) = (share(*e, e_all), share(*a, a_all));
        (a - e) * (a / e).ln()
    });
    Some(sum.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_stable_and_the_mirrored_is_not() {
        assert_eq!(population_stability(&[10, 20, 70], &[100, 200, 700]), Some(0.0));
        let index = population_stability(&[10, 20, 70], &[70, 20, 10]).unwrap();
        // 2 × 0.6 × ln 7
        assert!((index - 1.2 * 7.0_f64.ln()).abs() < 1e-12);
        assert!(population_stability(&[10, 0], &[0, 10]).unwrap().is_finite());
        assert_eq!(population_stability(&[0, 0], &[1, 1]), None);
        assert_eq!(population_stability(&[1], &[1, 1]), None);
    }
}
