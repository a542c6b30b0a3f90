//! Trend, variability and missingness of a vital sign that is measured now and then.
//!
//! - Slope: Theil 1950, Proc K Ned Akad Wet 53:386–392, and Sen 1968, "Estimates of the regression coefficient
//!   based on Kendall's tau", J Am Stat Assoc 63:1379–1389, with Sen's distribution-free 95 % interval.
//!   Up to 29 % of wild values do not move it without bound.
//! - Test of trend: Mann 1945, Econometrica 13:245–259, and Kendall, corrected for ties, with the normal
//!   approximation.
//! - Variability: median absolute deviation times 1.4826 (Hampel 1974, J Am Stat Assoc 69:383–393),
//!   coefficient of variation, root mean square of successive differences.
//! - Missingness: every microsecond of a window has one reason, so that the shares add up exactly.
//!
//! Times are microseconds of event time, values are in the vital's own unit, which is carried into the
//! names here as "units". Readings may come at any distances. Interval and test take the readings for
//! independent of each other: neighbouring seconds of a monitor are not, and make both too confident. Take
//! one reading a minute or fewer for them.

mod history;
mod missingness;

pub use history::{History, MAX_READINGS};
pub use missingness::{Missingness, Reading, Unmeasured, missingness};

/// More readings than this are brought down to it before slopes are taken, since those are quadratic:
/// medians, in time and in value, of as many neighbours as it needs.
pub const MAX_TREND_READINGS: usize = 512;

/// The fewest readings at different times for a trend.
pub const MIN_TREND_READINGS: usize = 4;

/// Normal quantile of a two-sided 95 % interval.
const Z_95: f64 = 1.959_963_984_540_054;

/// From the median absolute deviation to the standard deviation of a normal distribution.
const MAD_TO_DEVIATION: f64 = 1.482_602_218_505_602;

const US_PER_HOUR: f64 = 3.6e9;

/// A robust line through readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Theil–Sen slope in units per hour.
    pub slope_per_hour: f64,
    /// Lower end of its 95 % interval.
    pub low_per_hour: f64,
    /// Upper end of its 95 % interval.
    pub high_per_hour: f64,
    /// The line's value at the last reading: robust against that reading being wild.
    pub level: f64,
    /// Kendall's tau (b is not used: pairs that tie in value count as neither), −1 to 1.
    pub tau: f64,
    /// Two-sided p of Mann and Kendall: how often chance alone would order the readings so much. Normal
    /// approximation, to 10⁻⁶; for fewer than about ten readings it is rough.
    pub p: f64,
    /// Readings used, after bringing them down.
    pub readings: usize,
}

/// How much a vital varies, whatever its trend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variability {
    /// Mean, in units.
    pub mean: f64,
    /// Median, in units (the mean of two in the middle).
    pub median: f64,
    /// Standard deviation (n − 1), in units.
    pub deviation: f64,
    /// 1.4826 times the median absolute deviation from the median, in units.
    pub robust_deviation: f64,
    /// Standard deviation in per cent of the mean; absent unless the mean is positive.
    pub cv_percent: Option<f64>,
    /// Root mean square of successive differences, in units, whatever time lies between.
    pub rmssd: f64,
}

/// Why there is no trend or variability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrendError {
    /// Too few finite readings at different times.
    #[error("{found} readings at different times, {needed} are needed: look further back")]
    TooFew {
        /// Readings that there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
}

/// The trend of `(time in µs, value)` in rising order of time. Values that are not finite, and readings
/// that are not later than the one before, are left out.
pub fn trend(readings: &[(i64, f64)]) -> Result<Trend, TrendError> {
    let all = usable(readings);
    if all.len() < MIN_TREND_READINGS {
        return Err(TrendError::TooFew { found: all.len(), needed: MIN_TREND_READINGS });
    }
    let points = brought_down(&all);
    let mut slopes = Vec::with_capacity(points.len() * (points.len() - 1) / 2);
    let mut order = 0_i64;
    for (index, (time, value)) in points.iter().enumerate() {
        for (later, other) in &points[index + 1..] {
            slopes.push((other - value) / (later - time));
            order += i64::from(other > value) - i64::from(other < value);
        }
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let slope = middle(&slopes);
    let deviation = order_variance(&points).sqrt();
    // Sen's ranks, counted from zero and kept within the slopes.
    let (pairs, half) = (slopes.len() as f64, Z_95 * deviation / 2.0);
    let low = ((pairs / 2.0 - half).round() - 1.0).max(0.0) as usize;
    let high = ((pairs / 2.0 + half).round() as usize).min(slopes.len() - 1);
    let last = points[points.len() - 1].0;
    let mut levels: Vec<f64> =
        points.iter().map(|(time, value)| value + slope * (last - time)).collect();
    levels.sort_unstable_by(f64::total_cmp);
    let z = if deviation > 0.0 { (order.abs() - 1).max(0) as f64 / deviation } else { 0.0 };
    Ok(Trend {
        slope_per_hour: slope,
        low_per_hour: slopes[low],
        high_per_hour: slopes[high],
        level: middle(&levels),
        tau: order as f64 / pairs,
        p: two_sided_p(z),
        readings: points.len(),
    })
}

/// The variability of values in order of time; those that are not finite are left out. At least two.
pub fn variability(values: &[f64]) -> Result<Variability, TrendError> {
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    if finite.len() < 2 {
        return Err(TrendError::TooFew { found: finite.len(), needed: 2 });
    }
    let n = finite.len() as f64;
    let mean = finite.iter().sum::<f64>() / n;
    let squares: f64 = finite.iter().map(|value| (value - mean).powi(2)).sum();
    let steps: f64 = finite.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).sum();
    let deviation = (squares / (n - 1.0)).sqrt();
    let mut sorted = finite;
    sorted.sort_unstable_by(f64::total_cmp);
    let median = middle(&sorted);
    let mut away: Vec<f64> = sorted.iter().map(|value| (value - median).abs()).collect();
    away.sort_unstable_by(f64::total_cmp);
    Ok(Variability {
        mean,
        median,
        deviation,
        robust_deviation: MAD_TO_DEVIATION * middle(&away),
        cv_percent: (mean > 0.0).then(|| 100.0 * deviation / mean),
        rmssd: (steps / (n - 1.0)).sqrt(),
    })
}

/// Hours from the first reading, and value; rising in time.
fn usable(readings: &[(i64, f64)]) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::with_capacity(readings.len());
    let mut origin = None;
    for (time_us, value) in readings.iter().filter(|(_, value)| value.is_finite()) {
        let origin = *origin.get_or_insert(*time_us);
        let hours = time_us.saturating_sub(origin) as f64 / US_PER_HOUR;
        if points.last().is_none_or(|(last, _)| hours > *last) {
            points.push((hours, *value));
        }
    }
    points
}

/// At most [`MAX_TREND_READINGS`]: medians of neighbours.
fn brought_down(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(MAX_TREND_READINGS);
    if group <= 1 {
        return points.to_vec();
    }
    points
        .chunks(group)
        .map(|chunk| {
            let mut values: Vec<f64> = chunk.iter().map(|(_, value)| *value).collect();
            values.sort_unstable_by(f64::total_cmp);
            (chunk[chunk.len() / 2].0, middle(&values))
        })
        .collect()
}

/// Variance of the number of rising less falling pairs, corrected for values that tie.
fn order_variance(points: &[(f64, f64)]) -> f64 {
    let spread = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let mut values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    values.sort_unstable_by(f64::total_cmp);
    let ties: f64 = values.chunk_by(|a, b| a == b).map(|tied| spread(tied.len() as f64)).sum();
    ((spread(points.len() as f64) - ties) / 18.0).max(0.0)
}

/// Median of sorted values, of which there is at least one.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

/// Chance of a normal variable at least so far out, either way: Abramowitz & Stegun 1964, 7.1.26.
fn two_sided_p(z: f64) -> f64 {
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let polynomial = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    (polynomial * (-x * x).exp()).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn a_line_with_wild_values_is_that_line() {
        let readings: Vec<(i64, f64)> = (0..24)
            .map(|i| (i * HOUR / 2, if i % 5 == 2 { 300.0 } else { 80.0 + i as f64 }))
            .collect();
        let found = trend(&readings).unwrap();
        assert!((found.slope_per_hour - 2.0).abs() < 1e-9, "{found:?}");
        assert!((found.level - 103.0).abs() < 1e-9, "{found:?}");
        assert!(found.low_per_hour <= 2.0 && found.high_per_hour >= 2.0);
    }

    #[test]
    fn as_scipy_has_it() {
        // scipy.stats.theilslopes(y, x, 0.95) of scipy 1.17.1, and kendalltau's tau on untied values.
        let x = [0, 1, 2, 4, 5, 7, 8, 11];
        let y = [3.0, 4.5, 2.0, 7.0, 6.5, 9.0, 8.0, 15.0];
        let readings: Vec<(i64, f64)> =
            x.iter().zip(y).map(|(hours, value)| (hours * HOUR, value)).collect();
        let found = trend(&readings).unwrap();
        let (slope, low, high, tau) =
            (0.9285714285714286, 0.5, 1.4444444444444444, 0.7142857142857142);
        assert!((found.slope_per_hour - slope).abs() < 1e-9, "{found:?}");
        assert!((found.low_per_hour - low).abs() < 1e-9, "{found:?}");
        assert!((found.high_per_hour - high).abs() < 1e-9, "{found:?}");
        assert!((found.tau - tau).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn p_as_in_the_tables() {
        for (z, p) in [(0.0, 1.0), (1.0, 0.317_311), (1.959_964, 0.05), (3.290_527, 0.001)] {
            assert!((two_sided_p(z) - p).abs() < 2e-6, "{z}");
        }
        let constant: Vec<(i64, f64)> = (0..10).map(|i| (i * HOUR, 5.0)).collect();
        let found = trend(&constant).unwrap();
        assert!((found.slope_per_hour, found.tau) == (0.0, 0.0) && (found.p - 1.0).abs() < 1e-6);
    }

    #[test]
    fn variability_by_hand() {
        let found = variability(&[4.0, f64::NAN, 8.0, 6.0, 2.0, 30.0]).unwrap();
        assert_eq!((found.mean, found.median), (10.0, 6.0));
        assert!((found.deviation - 130.0_f64.sqrt()).abs() < 1e-12);
        // Away from the median: 0 2 2 4 24.
        assert!((found.robust_deviation - 2.0 * MAD_TO_DEVIATION).abs() < 1e-12);
        assert!((found.rmssd - (820.0_f64 / 4.0).sqrt()).abs() < 1e-12);
        assert!((found.cv_percent.unwrap() - 10.0 * 130.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!(variability(&[-1.0, -2.0]).unwrap().cv_percent, None);
        assert_eq!(variability(&[1.0]), Err(TrendError::TooFew { found: 1, needed: 2 }));
    }

    #[test]
    fn too_few_and_repeated_times() {
        let readings = [(5, 1.0), (5, 2.0), (9, f64::NAN), (4, 3.0), (10, 4.0)];
        let error = trend(&readings).unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 readings at different times, 4 are needed: look further back"
        );
    }

    #[test]
    fn many_readings_are_brought_down() {
        let readings: Vec<(i64, f64)> =
            (0..5_000).map(|i| (i * 1_000_000, 37.0 + 1e-4 * i as f64)).collect();
        let found = trend(&readings).unwrap();
        assert_eq!(found.readings, 500);
        assert!((found.slope_per_hour - 0.36).abs() < 1e-9, "{found:?}");
    }

    proptest! {
        #[test]
        fn the_slope_follows_its_values(
            steps in proptest::collection::vec((1i64..HOUR, -50.0..200.0f64), 4..60),
            tilt in -5.0..5.0f64,
        ) {
            let mut time = 1_795_000_000_000_000;
            let readings: Vec<(i64, f64)> =
                steps.iter().map(|(step, value)| { time += step; (time, *value) }).collect();
            let found = trend(&readings).unwrap();
            prop_assert!(found.low_per_hour <= found.slope_per_hour);
            prop_assert!(found.slope_per_hour <= found.high_per_hour);
            prop_assert!((-1.0..=1.0).contains(&found.tau) && (0.0..=1.0).contains(&found.p));
            let origin = readings[0].0;
            let tilted: Vec<(i64, f64)> = readings
                .iter()
                .map(|(t, v)| (*t, v + tilt * (t - origin) as f64 / HOUR as f64))
                .collect();
            let other = trend(&tilted).unwrap();
            let scale = 1.0 + found.slope_per_hour.abs();
            prop_assert!((other.slope_per_hour - found.slope_per_hour - tilt).abs() < 1e-6 * scale);
        }
    }
}
