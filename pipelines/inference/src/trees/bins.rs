//! Numbers as bins of a histogram.

/// Bins of one feature: 0 is missing, the others are cut at quantiles.
pub(super) const MAX_BINS: usize = 64;
/// Cases whose values the quantiles are taken from, evenly spread.
const QUANTILE_CASES: usize = 40_000;

/// A table by feature, each case's value as its bin.
pub(super) struct Binned {
    /// By feature, then case.
    pub(super) bins: Vec<Vec<u8>>,
    /// By feature: the upper ends of bins 1, 2, ..; the last bin has none.
    pub(super) cuts: Vec<Vec<f32>>,
}

impl Binned {
    /// Of the `cases` rows of a row-major table of `features` numbers each.
    pub(super) fn new(values: &[f32], features: usize, cases: &[usize]) -> Self {
        let (mut bins, mut all_cuts) = (Vec::new(), Vec::new());
        for feature in 0..features {
            let value = |case: &usize| values[case * features + feature];
            let step = cases.len().div_ceil(QUANTILE_CASES).max(1);
            let cuts = cuts(cases.iter().step_by(step).map(value).collect());
            bins.push(cases.iter().map(|case| bin(&cuts, value(case))).collect());
            all_cuts.push(cuts);
        }
        Self { bins, cuts: all_cuts }
    }
}

fn bin(cuts: &[f32], value: f32) -> u8 {
    if value.is_nan() { 0 } else { 1 + cuts.partition_point(|cut| *cut < value) as u8 }
}

/// Cuts half way between neighbouring values at the quantiles, so that rounding does not move a case over one.
fn cuts(mut values: Vec<f32>) -> Vec<f32> {
    values.retain(|value| !value.is_nan());
    values.sort_by(f32::total_cmp);
    let mut cuts: Vec<f32> = Vec::new();
    for at in 1..MAX_BINS - 1 {
        let place = at * values.len() / (MAX_BINS - 1);
        let Some(low) = values.get(place.saturating_sub(1)) else { break };
        let next = values.partition_point(|value| value <= low);
        let Some(high) = values.get(next) else { break };
        let cut = low + (high - low) / 2.0;
        if cuts.last().is_none_or(|last| *last < cut) {
            cuts.push(cut);
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn few_values_have_a_bin_each() {
        let values = [3.0, 1.0, f32::NAN, 2.0, 1.0];
        let binned = Binned::new(&values, 1, &[0, 1, 2, 3, 4]);
        assert_eq!(binned.bins, [[3, 1, 0, 2, 1]]);
        assert_eq!(binned.cuts, [[1.5, 2.5]]);
        assert!(Binned::new(&[f32::NAN; 3], 1, &[0, 1, 2]).cuts[0].is_empty());
    }

    proptest! {
        #[test]
        fn a_bin_is_between_its_cuts(values in prop::collection::vec(-9.0f32..9.0, 1..500)) {
            let cases: Vec<usize> = (0..values.len()).collect();
            let binned = Binned::new(&values, 1, &cases);
            prop_assert!(binned.cuts[0].len() < MAX_BINS - 1);
            for (value, bin) in values.iter().zip(&binned.bins[0]) {
                let bin = usize::from(*bin);
                prop_assert!(bin == 1 || binned.cuts[0][bin - 2] < *value);
                prop_assert!(binned.cuts[0].get(bin - 1).is_none_or(|cut| value <= cut));
            }
        }
    }
}
