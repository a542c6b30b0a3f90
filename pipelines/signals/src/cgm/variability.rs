//! Excursions, day-to-day differences and rate of change.

use super::{DAY_US, Glucose, MAX_PAUSE_US, usable};
use crate::trend::{Trend, TrendError, trend};

/// Mean amplitude of glycaemic excursions in mg/dL: of the swings larger than one standard deviation of the
/// whole, the mean of those that go the way of the first (Service et al. 1970).
///
/// Swings are those between the turning points at which glucose has come back by more than the deviation; smaller
/// ones on the way do not count, and a pause longer than [`MAX_PAUSE_US`] ends a swing. `None` if there is
/// no such swing. The published algorithms for MAGE differ by some per cent from each other.
pub fn mage_mg_dl(readings: &[Glucose]) -> Option<f64> {
    let used = usable(readings);
    let n = used.len() as f64;
    let mean = used.iter().map(|reading| reading.mg_dl).sum::<f64>() / n;
    let squares: f64 = used.iter().map(|reading| (reading.mg_dl - mean).powi(2)).sum();
    let deviation = (squares / (n - 1.0)).sqrt();
    // A NaN of too few readings is no deviation either.
    if deviation.is_nan() || deviation <= 0.0 {
        return None;
    }
    let stretches = used.chunk_by(|a, b| b.time_us - a.time_us <= MAX_PAUSE_US);
    let swings: Vec<f64> = stretches.flat_map(|stretch| swings(stretch, deviation)).collect();
    let first = swings.first()?.signum();
    let (mut sum, mut count) = (0.0, 0.0);
    for swing in swings.iter().filter(|swing| swing.signum() == first) {
        sum += swing.abs();
        count += 1.0;
    }
    Some(sum / count)
}

/// Mean of daily differences in mg/dL: of each reading and the one nearest to 24 hours before, if one lies
/// within half of `interval_us` of there (Molnar et al. 1972). `None` without such pairs.
pub fn modd_mg_dl(readings: &[Glucose], interval_us: i64) -> Option<f64> {
    let used = usable(readings);
    let (mut sum, mut count, mut near) = (0.0, 0_usize, 0);
    for reading in &used {
        let wanted = reading.time_us.saturating_sub(DAY_US);
        let away = |index: usize| used[index].time_us.abs_diff(wanted);
        while near + 1 < used.len() && away(near + 1) <= away(near) {
            near += 1;
        }
        if away(near) <= interval_us.unsigned_abs() / 2 {
            sum += (reading.mg_dl - used[near].mg_dl).abs();
            count += 1;
        }
    }
    (count > 0).then(|| sum / count as f64)
}

/// Rate of change in mg/dL per minute over the last `over_us` before the newest reading: the Theil–Sen slope
/// with its 95 % interval, of at least four readings without a pause longer than [`MAX_PAUSE_US`]. Twenty
/// minutes suit a sensor that reads every five. 1, 2 and 3 mg/dL/min are where sensors' arrows turn.
pub fn rate_of_change(readings: &[Glucose], over_us: i64) -> Result<RateOfChange, TrendError> {
    let used = usable(readings);
    let last_us = used.last().map_or(0, |last| last.time_us);
    let recent: Vec<(i64, f64)> = used
        .chunk_by(|a, b| b.time_us - a.time_us <= MAX_PAUSE_US)
        .next_back()
        .unwrap_or_default()
        .iter()
        .filter(|reading| last_us - reading.time_us <= over_us)
        .map(|reading| (reading.time_us, reading.mg_dl))
        .collect();
    let Trend { slope_per_hour, low_per_hour, high_per_hour, .. } = trend(&recent)?;
    Ok(RateOfChange {
        mg_dl_per_min: slope_per_hour / 60.0,
        low_mg_dl_per_min: low_per_hour / 60.0,
        high_mg_dl_per_min: high_per_hour / 60.0,
    })
}

/// How fast glucose rises (+) or falls (−).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateOfChange {
    /// Theil–Sen slope.
    pub mg_dl_per_min: f64,
    /// Lower end of its 95 % interval.
    pub low_mg_dl_per_min: f64,
    /// Upper end of its 95 % interval.
    pub high_mg_dl_per_min: f64,
}

/// Differences between successive turning points that are more than `least` apart, signed.
fn swings(stretch: &[Glucose], least: f64) -> Vec<f64> {
    let mut swings = Vec::new();
    let Some(first) = stretch.first().map(|reading| reading.mg_dl) else { return swings };
    // Until the first swing both extremes are open; then the turning point and the furthest since.
    let (mut lowest, mut highest) = (first, first);
    let mut turn: Option<(f64, f64)> = None;
    for value in stretch.iter().map(|reading| reading.mg_dl) {
        match &mut turn {
            None => {
                lowest = lowest.min(value);
                highest = highest.max(value);
                if value - lowest > least {
                    turn = Some((lowest, value));
                } else if highest - value > least {
                    turn = Some((highest, value));
                }
            }
            Some((from, to)) => {
                let rising = *to > *from;
                if (value > *to) == rising && value != *to {
                    *to = value;
                } else if (value - *to).abs() > least {
                    swings.push(*to - *from);
                    turn = Some((*to, value));
                }
            }
        }
    }
    swings.extend(turn.map(|(from, to)| to - from));
    swings
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FIVE_MINUTES, every_five_minutes};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn excursions_by_hand() {
        // Up 100, down 90 with a ripple on the way, up 80, down 100.
        let values = [80.0, 120.0, 180.0, 140.0, 150.0, 90.0, 130.0, 170.0, 70.0];
        assert_eq!(mage_mg_dl(&every_five_minutes(values)), Some(90.0));
        assert_eq!(mage_mg_dl(&every_five_minutes([100.0; 20])), None);
        assert_eq!(mage_mg_dl(&[]), None);
        // A pause breaks the swing in two that are too small to count.
        let mut readings = every_five_minutes([100.0, 110.0, 190.0, 200.0, 195.0]);
        assert!(mage_mg_dl(&readings).is_some());
        readings[2..].iter_mut().for_each(|reading| reading.time_us += 2 * MAX_PAUSE_US);
        assert_eq!(mage_mg_dl(&readings), None);
    }

    #[test]
    fn days_are_compared_at_the_same_time() {
        let readings = every_five_minutes((0..3 * 288).map(|i| {
            let (day, of_day) = (i / 288, i % 288);
            100.0 + f64::from(day * 10) + f64::from(of_day) * 0.1
        }));
        assert!((modd_mg_dl(&readings, FIVE_MINUTES).unwrap() - 10.0).abs() < 1e-9);
        assert_eq!(modd_mg_dl(&readings[..288], FIVE_MINUTES), None);
    }

    #[test]
    fn rates_in_minutes() {
        let readings = every_five_minutes((0..12).map(|i| 200.0 - 12.5 * f64::from(i)));
        let found = rate_of_change(&readings, 4 * FIVE_MINUTES).unwrap();
        assert!((found.mg_dl_per_min + 2.5).abs() < 1e-9);
        assert!(rate_of_change(&readings[..2], 4 * FIVE_MINUTES).is_err());
        assert!(rate_of_change(&[], 4 * FIVE_MINUTES).is_err());
    }

    proptest! {
        #[test]
        fn swings_alternate_and_are_large(values in proptest::collection::vec(40.0..400.0f64, 0..120)) {
            let swings = swings(&every_five_minutes(values), 30.0);
            prop_assert!(swings.iter().all(|swing| swing.abs() > 30.0));
            prop_assert!(swings.windows(2).all(|pair| pair[0] * pair[1] < 0.0));
        }
    }
}
