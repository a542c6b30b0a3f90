//! What the network sees of each reading: [`FEATURES`] numbers without a unit.
//!
//! Everything is measured in the stream's own [`Scale`], so that multiplying all values, or slowing down the clock, changes nothing.
//! Numbers that may be large go through the inverse hyperbolic sine: like themselves near zero, like a logarithm far away. A reading
//! without a value has zeros where a value is needed. Neighbours after a reading are looked at as well as before; at the
//! window's end there are none, which the network has seen in training.

use super::{CONTEXT, Reading, Scale, WINDOW};
use crate::statistics::upper_median;
use std::ops::Range;

/// Numbers for each reading.
pub const FEATURES: usize = 28;

/// What they are called, in order.
pub const NAMES: [&str; FEATURES] = [
    "level",
    "difference",
    "bend",
    "outlier",
    "gap",
    "stamp_stands",
    "stamp_behind",
    "clock_rate",
    "missing",
    "run",
    "run_surprise",
    "roughness",
    "missing_near",
    "trend",
    "shift",
    "step",
    "noise_share",
    "at_limit",
    "from_recent",
    "equal_share",
    "run_excess",
    "run_entry",
    "run_exit",
    "beyond",
    "wander_before",
    "wander_after",
    "difference_own",
    "bend_own",
];

/// Readings to each side that tell roughness and losses.
const NEAR: usize = 8;
/// Readings to each side that tell a trend.
const SIDE: usize = 12;
/// Readings before that tell the recent level.
const RECENT: usize = 64;
/// Readings over which a stream's usual way is taken.
const WAY: usize = 32;
/// Fewest values before the window for it to be compared with them alone; else all are taken.
const MIN_BEFORE: usize = 64;

/// A window as the network sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct Features {
    /// Readings in the window, at most [`WINDOW`].
    pub rows: usize,
    /// [`WINDOW`] × [`FEATURES`] numbers, by reading; zeros after the last reading.
    pub numbers: Vec<f32>,
}

/// The features of the last [`WINDOW`] of `readings` (all, if there are fewer) in the light of at most [`CONTEXT`]; `range` is the physical
/// range of the unit, if known. `None` when there is no [`Scale`].
pub fn features(readings: &[Reading], range: Option<(f32, f32)>) -> Option<Features> {
    let readings = &readings[readings.len().saturating_sub(CONTEXT)..];
    let first = readings.len().saturating_sub(WINDOW);
    let view = View::new(readings, range, first)?;
    let mut numbers = vec![0.0; WINDOW * FEATURES];
    for (row, at) in (first..readings.len()).enumerate() {
        let own = &mut numbers[row * FEATURES..(row + 1) * FEATURES];
        view.clock(at, own);
        view.losses(at, own);
        if readings[at].value.is_finite() {
            view.value(at, own);
        }
        own[15] = (view.scale.step / view.scale.noise).min(2.0) * 0.5;
        own[16] = (view.scale.noise / view.scale.spread).ln() * 0.3;
        own[19] = view.scale.equal_share;
    }
    Some(Features { rows: readings.len() - first, numbers })
}

fn squashed(value: f32) -> f32 {
    value.asinh() * 0.5
}

struct View<'a> {
    readings: &'a [Reading],
    range: Option<(f32, f32)>,
    scale: Scale,
    /// The readings with a value.
    finite: Vec<usize>,
    /// Where each reading stands among them; of one without a value, where the next stands.
    place: Vec<usize>,
    /// By reading with a value: the places of the equal ones that it stands among.
    runs: Vec<Range<usize>>,
    /// The latest stamp before each reading.
    latest: Vec<f64>,
    habits: Habits,
}

/// What the stream did before the window (or all of it, if that is too little), without a model of how values are distributed.
struct Habits {
    /// The two longest runs of equal values; the same twice where the window's own are not among them.
    longest: [usize; 2],
    /// Between these nearly all values lay.
    low: f32,
    high: f32,
    /// Nearly all differences between neighbours, bends and ways over [`WAY`] were smaller.
    difference: f32,
    bend: f32,
    way: f32,
}

impl Habits {
    /// Of the values of a stream whose window begins at place `first`, and its runs.
    fn new(values: &[f32], first: usize, runs: &[Range<usize>], scale: &Scale) -> Self {
        let known = if first >= MIN_BEFORE { &values[..first] } else { values };
        let mut longest = [0, 0];
        let mut begin = 0;
        while let Some(run) = runs.get(begin) {
            // A run that goes on into the window may be the fault itself.
            if run.end <= first || first < MIN_BEFORE {
                longest = match run.len() {
                    length if length > longest[0] => [length, longest[0]],
                    length => [longest[0], longest[1].max(length)],
                };
            }
            begin = run.end;
        }
        if first >= MIN_BEFORE {
            longest[1] = longest[0];
        }
        let of = |lag: usize| known.windows(lag + 1).map(move |w| (w[lag] - w[0]).abs());
        let bends = known.windows(3).map(|w| (w[1] - (w[0] + w[2]) / 2.0).abs());
        Self {
            longest,
            low: quantile(known.to_vec(), 0.02),
            high: quantile(known.to_vec(), 0.98),
            difference: quantile(of(1).collect(), 0.98).max(scale.noise),
            bend: quantile(bends.collect(), 0.98).max(scale.noise),
            way: quantile(of(WAY).collect(), 0.9).max(scale.noise),
        }
    }

    /// The longest run that is not the one asked about.
    fn other_run(&self, run: &Range<usize>) -> usize {
        if run.len() == self.longest[0] { self.longest[1] } else { self.longest[0] }
    }
}

/// The value below which a share lies; 0 of nothing.
fn quantile(mut values: Vec<f32>, share: f32) -> f32 {
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let at = (last as f32 * share).round() as usize;
    *values.select_nth_unstable_by(at.min(last), f32::total_cmp).1
}

impl<'a> View<'a> {
    fn new(readings: &'a [Reading], range: Option<(f32, f32)>, first: usize) -> Option<Self> {
        let scale = Scale::of(readings)?;
        let (mut finite, mut place, mut latest) = (Vec::new(), Vec::new(), Vec::new());
        let mut newest = f64::NEG_INFINITY;
        for (at, reading) in readings.iter().enumerate() {
            place.push(finite.len());
            latest.push(newest);
            newest = newest.max(reading.time_s);
            if reading.value.is_finite() {
                finite.push(at);
            }
        }
        let mut runs = vec![0..1; finite.len()];
        let mut begin = 0;
        for end in 1..=finite.len() {
            let differs =
                end == finite.len() || readings[finite[end]].value != readings[finite[begin]].value;
            if differs {
                runs[begin..end].fill(begin..end);
                begin = end;
            }
        }
        let values: Vec<f32> = finite.iter().map(|at| readings[*at].value).collect();
        let before = finite.partition_point(|at| *at < first);
        let habits = Habits::new(&values, before, &runs, &scale);
        Some(Self { readings, range, scale, finite, place, runs, latest, habits })
    }

    /// The values at places `from..to`, cut to what there is.
    fn values(&self, from: usize, to: usize) -> impl Iterator<Item = f32> + '_ {
        let to = to.min(self.finite.len());
        self.finite[from.min(to)..to].iter().map(|at| self.readings[*at].value)
    }

    fn middle(&self, from: usize, to: usize) -> Option<f32> {
        upper_median(&mut self.values(from, to).collect::<Vec<f32>>())
    }

    fn clock(&self, at: usize, own: &mut [f32]) {
        let Some(before) = at.checked_sub(1) else { return };
        let interval_s = self.scale.interval_s;
        let passed =
            ((self.readings[at].time_s - self.readings[before].time_s) / interval_s) as f32;
        let ahead = ((self.readings[at].time_s - self.latest[at]) / interval_s) as f32;
        own[4] = (passed - 1.0).max(0.0).ln_1p() * 0.5;
        own[5] = f32::from(u8::from(passed < 0.1));
        own[6] = squashed(ahead.min(0.0));
        own[7] = (passed - 1.0).clamp(-1.0, 1.5);
    }

    fn losses(&self, at: usize, own: &mut [f32]) {
        let near = at.saturating_sub(NEAR)..(at + NEAR + 1).min(self.readings.len());
        let rows = near.len() as f32;
        let hollow =
            self.readings[near.clone()].iter().filter(|reading| !reading.value.is_finite()).count();
        let gone: f64 = self.readings[near]
            .windows(2)
            .map(|pair| (pair[1].time_s - pair[0].time_s) / self.scale.interval_s - 1.0)
            .map(|missing| missing.round().clamp(0.0, 2.0 * NEAR as f64))
            .sum();
        own[8] = f32::from(u8::from(!self.readings[at].value.is_finite()));
        own[12] = (hollow as f32 + gone as f32) / (rows + gone as f32);
    }

    fn value(&self, at: usize, own: &mut [f32]) {
        let (place, scale, value) = (self.place[at], &self.scale, self.readings[at].value);
        own[0] = squashed((value - scale.centre) / scale.spread);
        let before = self.values(place.wrapping_sub(1).min(place), place).next();
        let after = self.values(place + 1, place + 2).next();
        if let Some(before) = before {
            own[1] = squashed((value - before) / scale.noise);
            if let Some(after) = after {
                own[2] = squashed((value - (before + after) / 2.0) / scale.noise);
            }
        }
        let around = self.middle(place.saturating_sub(3), place + 4).unwrap_or(value);
        own[3] = squashed((value - around) / scale.noise);
        let run = (self.runs[place].len() - 1) as f32;
        own[9] = run.ln_1p() / 3.0;
        own[10] = (run * -scale.equal_share.clamp(0.02, 0.98).ln()).ln_1p() / 3.0;
        own[11] = self.roughness(place);
        let mean = |from: usize, to: usize| {
            let (sum, count) = self
                .values(from, to)
                .fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
            (count > 0).then(|| sum / count as f32)
        };
        if let (Some(later), Some(earlier)) =
            (mean(place + 1, place + 1 + SIDE), mean(place.saturating_sub(SIDE), place))
        {
            own[13] = squashed((later - earlier) / scale.spread);
        }
        if let (Some(later), Some(earlier)) =
            (self.middle(place, place + 5), self.middle(place.saturating_sub(5), place))
        {
            own[14] = squashed((later - earlier) / scale.noise);
        }
        let (low, high) = self.range.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        own[17] = f32::from(u8::from(value <= low || value > high));
        if let Some(recent) = self.middle(place.saturating_sub(RECENT), place) {
            own[18] = squashed((value - recent) / scale.spread);
        }
        self.against_habits(place, value, own);
    }

    fn against_habits(&self, place: usize, value: f32, own: &mut [f32]) {
        let (scale, habits, run) = (&self.scale, &self.habits, &self.runs[place]);
        let other = habits.other_run(run).max(1) as f32;
        own[20] = (run.len() as f32 / other).ln() * 0.5;
        let at = |place: usize| self.values(place, place + 1).next();
        if let Some(entry) = run.start.checked_sub(1).and_then(at) {
            own[21] = squashed((value - entry) / scale.noise);
        }
        if let Some(exit) = at(run.end) {
            own[22] = squashed((exit - value) / scale.noise);
        }
        let beyond = (value - habits.high).max(0.0) + (value - habits.low).min(0.0);
        own[23] = squashed(beyond / scale.spread);
        let middle = self.middle(place.saturating_sub(2), place + 3).unwrap_or(value);
        let far = |at: usize| self.middle(at.saturating_sub(2), at + 3);
        if let Some(before) = place.checked_sub(WAY).and_then(far) {
            own[24] = squashed((middle - before) / habits.way);
        }
        if let Some(after) = far(place + WAY) {
            own[25] = squashed((after - middle) / habits.way);
        }
        let before = place.checked_sub(1).and_then(at).unwrap_or(value);
        let after = at(place + 1).unwrap_or(value);
        own[26] = squashed((value - before) / habits.difference);
        own[27] = squashed((value - (before + after) / 2.0) / habits.bend);
    }

    /// How much neighbours nearby differ, the two largest differences left out, as the logarithm of its ratio to the
    /// stream's noise.
    fn roughness(&self, place: usize) -> f32 {
        let values: Vec<f32> = self.values(place.saturating_sub(NEAR), place + NEAR + 1).collect();
        let mut differences: Vec<f32> =
            values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
        differences.sort_unstable_by(f32::total_cmp);
        differences.truncate(differences.len().saturating_sub(2).max(1));
        let mean = differences.iter().sum::<f32>() / differences.len().max(1) as f32;
        (mean / (0.8 * self.scale.noise) + 0.05).ln() * 0.5
    }
}

#[cfg(test)]
mod tests {
    use super::super::inject::tests::wave;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn unit_and_speed_do_not_matter(seed in 0..100_u64, factor in 0.01..100.0_f32, pace in 0.01..100.0_f64) {
            let readings = wave(300, seed);
            let scaled: Vec<Reading> = readings
                .iter()
                .map(|row| Reading { time_s: row.time_s * pace, value: row.value * factor })
                .collect();
            let (a, b) = (features(&readings, None).unwrap(), features(&scaled, None).unwrap());
            for (at, (a, b)) in a.numbers.iter().zip(&b.numbers).enumerate() {
                // Rounding to f32 blurs which neighbours are equal by a thousandth of a step.
                prop_assert!((a - b).abs() < 0.02, "{} {a} {b}", NAMES[at % FEATURES]);
            }
        }

        #[test]
        fn any_readings_give_finite_numbers_or_none(
            rows in prop::collection::vec((prop::num::f32::ANY, -1e6..1e6_f64), 0..200)
        ) {
            let readings: Vec<Reading> = rows
                .iter()
                .map(|(value, time_s)| Reading { time_s: *time_s, value: value.clamp(-1e12, 1e12) })
                .collect();
            if let Some(features) = features(&readings, Some((0.0, 1.0))) {
                prop_assert!(features.numbers.iter().all(|number| number.is_finite()));
            }
        }
    }

    #[test]
    fn each_flaw_shows_where_it_should() {
        let mut readings = wave(400, 5);
        let (first, at) = (400 - WINDOW, 64);
        let number = |readings: &[Reading], row: usize, name: &str| {
            let column = NAMES.iter().position(|own| *own == name).unwrap();
            features(readings, None).unwrap().numbers[row * FEATURES + column]
        };
        let quiet = number(&readings, at, "outlier").abs();
        readings[first + at].value += 10.0;
        assert!(number(&readings, at, "outlier") > quiet + 1.0);
        readings[first + at].value = f32::NAN;
        assert_eq!(number(&readings, at, "missing"), 1.0);
        assert_eq!(number(&readings, at, "level"), 0.0);
        readings[first + at].time_s = readings[first + at - 1].time_s;
        assert_eq!(number(&readings, at, "stamp_stands"), 1.0);
        readings[first + at].time_s -= 50.0;
        assert!(number(&readings, at, "stamp_behind") < -1.0);
        for row in 90..120 {
            readings[first + row].value = 37.0;
        }
        assert!(
            number(&readings, 100, "run_surprise") > number(&readings, 30, "run_surprise") + 0.5
        );
    }

    #[test]
    fn short_windows_are_padded() {
        let features = features(&wave(40, 1), None).unwrap();
        assert_eq!(features.rows, 40);
        assert!(features.numbers[40 * FEATURES..].iter().all(|number| *number == 0.0));
    }
}
