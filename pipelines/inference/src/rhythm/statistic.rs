//! Order and moment statistics of a few numbers, and the row that features are gathered in.

/// Features by name, in the order in which they were pushed. NaN where one is not defined.
#[derive(Debug, Default)]
pub(super) struct Row(pub(super) Vec<(&'static str, f32)>);

impl Row {
    pub(super) fn push(&mut self, name: &'static str, value: f64) {
        self.0.push((name, if value.is_finite() { value as f32 } else { f32::NAN }));
    }
}

/// Arithmetic mean; NaN for none.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation (n); NaN for none.
pub(super) fn deviation(values: &[f64]) -> f64 {
    let middle = mean(values);
    (values.iter().map(|value| (value - middle).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

/// The quantile `q` of 0 to 1, between ranks linearly; NaN for none.
pub(super) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return f64::NAN;
    }
    let place = q * (sorted.len() - 1) as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] * (1.0 - part) + sorted[above] * part
}

/// The middle value; NaN for none.
pub(super) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Share of values for which `holds`; NaN for none.
pub(super) fn share(values: &[f64], holds: impl Fn(f64) -> bool) -> f64 {
    values.iter().filter(|value| holds(**value)).count() as f64 / values.len() as f64
}

/// Pearson's correlation; NaN where one side does not vary.
pub(super) fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    let scale = (aa * bb).sqrt();
    if scale > 1e-12 { ab / scale } else { f64::NAN }
}

/// Shannon's entropy in nats of the histogram with bins of `width`, as a share of the most that so many values can
/// have; NaN for one value, 0 without any.
pub(super) fn entropy(values: &[f64], width: f64) -> f64 {
    let mut bins = std::collections::BTreeMap::<i64, usize>::new();
    for value in values {
        *bins.entry((value / width).round() as i64).or_default() += 1;
    }
    let count = values.len() as f64;
    let entropy: f64 = bins.values().map(|n| *n as f64 / count).map(|p| -p * p.ln()).sum();
    entropy / count.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(mean(&values), 2.5);
        assert_eq!(median(&values), 2.5);
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&values, 1.0), 4.0);
        assert!((deviation(&values) - 1.25_f64.sqrt()).abs() < 1e-12);
        assert_eq!(share(&values, |value| value > 2.5), 0.5);
        assert!((correlation(&values, &[8.0, 2.0, 6.0, 4.0]) - 1.0).abs() < 1e-12);
        assert!((entropy(&values, 1.0) - 1.0).abs() < 1e-12);
        assert_eq!(entropy(&[1.0, 1.0], 1.0), 0.0);
        for undefined in
            [median(&[]), mean(&[]), correlation(&values, &[1.0; 4]), entropy(&[1.0], 1.0)]
        {
            assert!(undefined.is_nan());
        }
    }
}
