//! Novelty: how unlike its own past a stream is, reading by reading, as it comes.
//!
//! # Method
//! Five numbers describe each reading: its value, up and down; how far it lies from what this time of day had on earlier days (the median of
//! [`AROUND`] readings to each side, over as many days as are kept, at most [`DAYS`]); the mean of the last [`HOUR`] of these; and how far the shape of the last
//! [`SHAPE`] readings lies from the [`NEAREST`] most similar ones of the past (as in KNN-CAD: Burnaev, Ishimtsev,
//! "Conformalized density- and distance-based anomaly detection in time-series data", 2016).
//!
//! Each number is held against its own past: by rank where it has been seen, beyond the [`TAIL`] largest share by a generalised Pareto
//! tail fitted by moments (Hosking, Wallis, Technometrics 29(3), 1987; for streams: Siffer et al., KDD 2017). What is rarer than 1 in 10^[`RARE`] adds the decimal exponent
//! beyond that; the five sums together are the novelty. A reading that is no newer than another of the last [`REST`] says nothing: one event, one alarm.
//!
//! Nothing is trained, there is no unit, and memory is bounded. A day longer than half of [`HISTORY`] readings, or shorter than eight,
//! is not looked for: then the value and the shape are all there is.
//!
//! # Choice of constants
//! By reasoning, and by the Numenta Anomaly Benchmark's 31 series in `../shared/data` as a whole (see `haar evaluate faults`): the figures there are not held out.
//!
//! # Not guaranteed
//! What happens every day is not new; what never happened is, be it harmless. The first [`FEWEST`] numbers are not judged.

use std::collections::VecDeque;

/// Readings that are remembered.
pub const HISTORY: usize = 16_384;
/// Days that a time of day is compared with.
pub const DAYS: usize = 14;
/// Readings to each side of the same time of day.
pub const AROUND: usize = 1;
/// Readings whose distances from their time of day are averaged.
pub const HOUR: usize = 12;
/// Readings in a shape.
pub const SHAPE: usize = 30;
/// Shapes of the past that a shape is compared with.
pub const SHAPES: usize = 3_000;
/// Most similar shapes that the distance is the mean of.
pub const NEAREST: usize = 5;
/// Numbers of the past that a number is held against.
pub const MEMORY: usize = 4_000;
/// Share of the numbers that the tail is fitted to.
pub const TAIL: f64 = 0.02;
/// Decimal exponent of the odds from which on a number adds to the novelty: where the tail begins.
pub const RARE: f64 = 1.7;
/// Readings after a novelty in which only a greater one counts.
pub const REST: u64 = 100;
/// Fewest numbers of a kind before one is judged.
pub const FEWEST: usize = 100;

const DAY_S: f64 = 86_400.0;
/// Fewest and most readings in a day that has a time of day.
const DAY_READINGS: std::ops::RangeInclusive<usize> = 8..=HISTORY / 2 - 1;
/// Fewest numbers in a tail, and numbers between two fits.
const TAIL_FEWEST: usize = 10;
const REFIT: usize = 8;
/// Shapes of the past below which nothing is similar.
const SHAPES_FEWEST: usize = 50;

/// Follows one stream.
#[derive(Clone, PartialEq, Debug)]
pub struct Novelty {
    /// Readings in a day, where that makes sense.
    day: Option<usize>,
    values: VecDeque<f32>,
    by_day: VecDeque<f32>,
    shapes: VecDeque<[f32; SHAPE]>,
    measures: [Measure; 5],
    /// Novelties that are the greatest since, with when they were, oldest first.
    greatest: VecDeque<(u64, f64)>,
    readings: u64,
}

impl Novelty {
    /// For a stream with a reading every so many seconds.
    pub fn new(interval_s: f64) -> Self {
        let day = (DAY_S / interval_s).round();
        let day = (day.is_finite() && day > 0.0).then_some(day as usize);
        Self {
            day: day.filter(|day| DAY_READINGS.contains(day)),
            values: VecDeque::new(),
            by_day: VecDeque::new(),
            shapes: VecDeque::new(),
            measures: Default::default(),
            greatest: VecDeque::new(),
            readings: 0,
        }
    }

    /// How new the next reading is, in decimal exponents of odds; 0 is nothing new. What is not finite stands for the value before it.
    pub fn push(&mut self, value: f32) -> f64 {
        let last = self.values.back().copied().unwrap_or(0.0);
        let value = if value.is_finite() { value } else { last };
        keep(&mut self.values, value, HISTORY);
        self.readings += 1;
        let daily = self.off_time_of_day(value);
        if let Some(daily) = daily {
            keep(&mut self.by_day, daily, HOUR);
        }
        let hourly = daily.map(|_| self.by_day.iter().sum::<f32>() / self.by_day.len() as f32);
        let numbers = [Some(value), Some(-value), daily, hourly, self.off_known_shapes()];
        let novelty = numbers
            .into_iter()
            .zip(&mut self.measures)
            .filter_map(|(number, measure)| Some(measure.push(f64::from(number?))))
            .map(|rarity| (rarity - RARE).max(0.0))
            .sum();
        self.rested(novelty)
    }

    fn off_time_of_day(&self, value: f32) -> Option<f32> {
        let day = self.day?;
        let now = self.values.len() - 1;
        if now < 2 * day {
            return None;
        }
        let mut past: Vec<f32> = (1..=DAYS)
            .map_while(|days| now.checked_sub(days * day))
            .filter(|at| *at >= AROUND)
            .flat_map(|at| self.values.range(at - AROUND..=at + AROUND).copied())
            .collect();
        let middle = past.len() / 2;
        past.select_nth_unstable_by(middle, f32::total_cmp);
        Some((value - past[middle]).abs())
    }

    /// The mean distance of the newest shape from its neighbours; shapes that begin within [`SHAPE`] readings of overlapping with it are not among them, lest an
    /// event be like its own beginning.
    fn off_known_shapes(&mut self) -> Option<f32> {
        let begin = self.values.len().checked_sub(SHAPE)?;
        let mut shape = [0.0; SHAPE];
        for (own, value) in shape.iter_mut().zip(self.values.range(begin..)) {
            *own = *value;
        }
        let known = self.shapes.len().saturating_sub(2 * SHAPE);
        let mut squares: Vec<f32> = self
            .shapes
            .range(..known)
            .map(|past| past.iter().zip(&shape).map(|(a, b)| (a - b) * (a - b)).sum())
            .collect();
        if self.shapes.len() == SHAPES + 2 * SHAPE {
            self.shapes.pop_front();
        }
        self.shapes.push_back(shape);
        if squares.len() < SHAPES_FEWEST {
            return None;
        }
        squares.select_nth_unstable_by(NEAREST, f32::total_cmp);
        Some(squares[..NEAREST].iter().map(|square| square.sqrt()).sum::<f32>() / NEAREST as f32)
    }

    fn rested(&mut self, novelty: f64) -> f64 {
        while self.greatest.front().is_some_and(|(at, _)| at + REST < self.readings) {
            self.greatest.pop_front();
        }
        let said = if self.greatest.front().is_none_or(|(_, greatest)| novelty > *greatest) {
            novelty
        } else {
            0.0
        };
        while self.greatest.back().is_some_and(|(_, own)| *own <= novelty) {
            self.greatest.pop_back();
        }
        self.greatest.push_back((self.readings, novelty));
        said
    }
}

/// One kind of number and its past.
#[derive(Clone, PartialEq, Debug, Default)]
struct Measure {
    past: VecDeque<f64>,
    tail: Option<Tail>,
    /// Numbers since the tail was fitted.
    age: usize,
}

/// A generalised Pareto tail beyond `from`.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Tail {
    from: f64,
    scale: f64,
    shape: f64,
    /// Share of the past that was beyond `from`.
    share: f64,
}

impl Measure {
    /// The decimal exponent of the odds against so large a number or a larger, 0 within the body; then it is of the past.
    fn push(&mut self, number: f64) -> f64 {
        if self.past.len() >= FEWEST && (self.tail.is_none() || self.age >= REFIT) {
            self.tail = Some(Tail::of(&self.past));
            self.age = 0;
        }
        self.age += 1;
        if self.past.len() == MEMORY {
            self.past.pop_front();
        }
        self.past.push_back(number);
        self.tail.map_or(0.0, |tail| tail.rarity(number))
    }
}

impl Tail {
    fn of(past: &VecDeque<f64>) -> Self {
        let mut past: Vec<f64> = past.iter().copied().collect();
        let count = ((past.len() as f64 * TAIL) as usize).max(TAIL_FEWEST);
        let mean = past.iter().sum::<f64>() / past.len() as f64;
        let spread = past.iter().map(|own| (own - mean).powi(2)).sum::<f64>() / past.len() as f64;
        let rank = past.len() - count - 1;
        let (_, from, beyond) = past.select_nth_unstable_by(rank, f64::total_cmp);
        let from = *from;
        let excess = beyond.iter().map(|own| own - from).sum::<f64>() / count as f64;
        let variance =
            beyond.iter().map(|own| (own - from - excess).powi(2)).sum::<f64>() / count as f64;
        // Streams have heavier tails than an exponential one, and moments underrate them.
        let shape = (0.5 * (1.0 - excess * excess / variance.max(1e-300))).clamp(0.1, 0.5);
        // Where the tail is all one value, a thousandth of the spread is still nothing new.
        let scale = (excess * (1.0 - shape)).max(1e-3 * (spread.sqrt() + 1e-9));
        Self { from, scale, shape, share: count as f64 / (rank + 1 + count) as f64 }
    }

    fn rarity(&self, number: f64) -> f64 {
        let beyond = number - self.from;
        if beyond <= 0.0 {
            return 0.0;
        }
        -self.share.log10() + (1.0 + self.shape * beyond / self.scale).log10() / self.shape
    }
}

fn keep(values: &mut VecDeque<f32>, value: f32, most: usize) {
    if values.len() == most {
        values.pop_front();
    }
    values.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::super::inject::tests::wave;
    use super::*;

    /// Ten days of readings every half hour, high by day, with noise; one change.
    fn days(change: impl Fn(usize, f32) -> f32) -> Vec<f64> {
        let mut novelty = Novelty::new(1_800.0);
        wave(960, 7)
            .iter()
            .enumerate()
            .map(|(at, noise)| {
                let day = (at as f32 / 48.0 * std::f32::consts::TAU).sin() * 10.0;
                let noise = noise.value - 37.0 - (at as f32 / 30.0).sin();
                novelty.push(change(at, day + noise))
            })
            .collect()
    }

    fn greatest(numbers: &[f64]) -> usize {
        (0..numbers.len()).max_by(|a, b| numbers[*a].total_cmp(&numbers[*b])).unwrap()
    }

    #[test]
    fn an_outlier_is_new_when_it_comes_and_once() {
        let numbers = days(|at, value| if (700..704).contains(&at) { 40.0 } else { value });
        let most =
            |range: std::ops::Range<usize>| numbers[range].iter().copied().fold(0.0, f64::max);
        assert!(numbers[700] > most(0..700), "{numbers:?}");
        assert!((700..704).contains(&greatest(&numbers)));
        assert_eq!(most(704..760), 0.0);
    }

    /// A value that is usual at noon is new at midnight.
    #[test]
    fn the_time_of_day_matters() {
        let numbers = days(|at, value| if at == 612 + 48 * 2 - 24 { -value } else { value });
        assert_eq!(greatest(&numbers[400..]) + 400, 612 + 48 * 2 - 24, "{numbers:?}");
    }

    #[test]
    fn unit_does_not_matter_and_damage_is_passed_over() {
        let plain = days(|_, value| value);
        let scaled = days(|_, value| value * 1024.0);
        for (a, b) in plain.iter().zip(&scaled) {
            assert!((a - b).abs() < 1e-3 * (1.0 + a), "{a} {b}");
        }
        let mut novelty = Novelty::new(f64::NAN);
        for at in 0..400 {
            let value = if at % 3 == 0 { f32::NAN } else { 5.0 };
            assert_eq!(novelty.push(value), 0.0, "{at}");
        }
        assert!(Novelty::new(0.0).day.is_none() && Novelty::new(1.0).day.is_none());
        assert_eq!(Novelty::new(300.0).day, Some(288));
    }

    /// An exponential tail's odds are met within a third of a decade.
    #[test]
    fn odds_are_about_right() {
        let past: VecDeque<f64> =
            (0..4_000).map(|at| -((f64::from(at) + 0.5) / 4_000.0).ln()).collect();
        let tail = Tail::of(&past);
        let found = tail.rarity(3.0 * std::f64::consts::LN_10);
        assert!((found - 3.0).abs() < 0.33, "{found}");
        assert_eq!(tail.rarity(1.0), 0.0);
    }
}
