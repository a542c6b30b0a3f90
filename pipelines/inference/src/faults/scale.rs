//! A stream in its own terms.

use super::Reading;
use crate::statistics::upper_median;

/// Fewest values from which a scale is taken.
pub const MIN_VALUES: usize = 16;

/// What is usual in a stream, by statistics that a minority of wrong readings does not move.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scale {
    /// Median, in the stream's unit.
    pub centre: f32,
    /// How far values lie from the median: 1.4826 × median absolute deviation (the standard deviation, were they normal), and no
    /// less than [`Scale::noise`].
    pub spread: f32,
    /// How far a value lies from the one before: the largest of 1.4826 × median absolute difference, 1.25 × mean absolute difference
    /// without the largest tenth, and half of [`Scale::step`]. Never zero.
    pub noise: f32,
    /// The smallest difference between neighbours that is not zero: the quantisation step where there is one. Zero in a
    /// constant stream.
    pub step: f32,
    /// Median interval between stamps that go forward, in seconds.
    pub interval_s: f64,
    /// Share of neighbours that are equal, the longest run of equal values left out.
    pub equal_share: f32,
}

impl Scale {
    /// The scale of some readings; `None` with fewer than [`MIN_VALUES`] values or no stamp that goes forward.
    pub fn of(readings: &[Reading]) -> Option<Self> {
        let mut values: Vec<f32> = finite(readings).collect();
        if values.len() < MIN_VALUES {
            return None;
        }
        let mut differences: Vec<f32> =
            values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
        let equal_share = equal_share(&differences);
        let centre = upper_median(&mut values)?;
        let mut deviations: Vec<f32> = values.iter().map(|value| (value - centre).abs()).collect();
        let spread = 1.4826 * upper_median(&mut deviations)?;
        let step = step(&differences, centre);
        let noise = noise(&mut differences, step, centre)?;
        let mut intervals: Vec<f64> = readings
            .windows(2)
            .map(|pair| pair[1].time_s - pair[0].time_s)
            .filter(|interval| *interval > 0.0)
            .collect();
        if intervals.is_empty() {
            return None;
        }
        intervals.sort_unstable_by(f64::total_cmp);
        let interval_s = intervals[intervals.len() / 2];
        Some(Self { centre, spread: spread.max(noise), noise, step, interval_s, equal_share })
    }

    /// A value rounded to the stream's step, where there is one that shows.
    pub fn quantised(&self, value: f32) -> f32 {
        if self.step > self.noise * 0.05 { (value / self.step).round() * self.step } else { value }
    }
}

fn finite(readings: &[Reading]) -> impl Iterator<Item = f32> {
    readings.iter().map(|reading| reading.value).filter(|value| value.is_finite())
}

fn equal_share(differences: &[f32]) -> f32 {
    let (mut longest, mut run, mut equal) = (0, 0, 0);
    for difference in differences {
        run = if *difference == 0.0 { run + 1 } else { 0 };
        equal += usize::from(run > 0);
        longest = longest.max(run);
    }
    let others = differences.len() - longest;
    if others == 0 { 1.0 } else { (equal - longest) as f32 / others as f32 }
}

fn step(differences: &[f32], centre: f32) -> f32 {
    let least = centre.abs() * 1e-5;
    let step = differences
        .iter()
        .copied()
        .filter(|difference| *difference > least)
        .fold(f32::INFINITY, f32::min);
    if step.is_finite() { step } else { 0.0 }
}

fn noise(differences: &mut [f32], step: f32, centre: f32) -> Option<f32> {
    differences.sort_unstable_by(f32::total_cmp);
    let by_median = 1.4826 * upper_median(&mut differences.to_vec())?;
    let most = &differences[..differences.len() - differences.len() / 10];
    let by_mean = 1.25 * most.iter().sum::<f32>() / most.len() as f32;
    Some(by_median.max(by_mean).max(step / 2.0).max(centre.abs() * 1e-5).max(1e-6))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(values: &[f32]) -> Vec<Reading> {
        let reading =
            |(at, value): (usize, &f32)| Reading { time_s: at as f64 * 5.0, value: *value };
        values.iter().enumerate().map(reading).collect()
    }

    #[test]
    fn of_a_counting_stream() {
        let values: Vec<f32> = (0..101).map(|at| 50.0 + (at % 5) as f32).collect();
        let scale = Scale::of(&readings(&values)).unwrap();
        assert_eq!((scale.centre, scale.step, scale.interval_s), (52.0, 1.0, 5.0));
        assert_eq!(scale.equal_share, 0.0);
        // Four differences of 1 for one of 4, the largest tenth left out.
        assert!((scale.noise - 1.25 * (80.0 + 40.0) / 90.0).abs() < 0.1, "{}", scale.noise);
        assert_eq!(scale.quantised(52.4), 52.0);
    }

    #[test]
    fn a_few_wild_values_do_not_move_it() {
        let mut values: Vec<f32> = (0..200).map(|at| 50.0 + (at % 5) as f32).collect();
        let before = Scale::of(&readings(&values)).unwrap();
        values[100..110].fill(1e6);
        let after = Scale::of(&readings(&values)).unwrap();
        assert_eq!(before.centre, after.centre);
        assert!((after.spread / before.spread - 1.0).abs() < 0.2);
        assert!((after.noise / before.noise - 1.0).abs() < 0.2);
    }

    #[test]
    fn constant_and_short_streams() {
        let scale = Scale::of(&readings(&[97.0; 40])).unwrap();
        assert_eq!((scale.step, scale.equal_share), (0.0, 1.0));
        assert!(scale.noise > 0.0 && scale.spread > 0.0);
        assert_eq!(Scale::of(&readings(&[1.0; MIN_VALUES - 1])), None);
        let still = vec![Reading { time_s: 1.0, value: 2.0 }; 40];
        assert_eq!(Scale::of(&still), None);
    }
}
