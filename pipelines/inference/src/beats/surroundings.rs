//! The rhythm further around a beat: runs, and whether it is irregular by nature.
//!
//! A run of supraventricular beats is regular in itself and known by how it begins and ends. In atrial fibrillation
//! intervals differ from each other at any distance, in bigeminy from the next one but not from the next but one.

use super::intervals::{Intervals, median_or_zero};
use std::ops::Range;

/// Numbers about the rhythm further around.
pub(super) const SURROUNDING_FEATURES: usize = SURROUNDING_NAMES.len();
/// What they are, each clamped to ±5. `pre` is the interval before the beat, `post` or interval 1 the one after, interval -1 the one
/// before `pre`, and so on; `wide` is the median of up to 16 intervals on each side, `far` are all of the context; a `long interval` is the
/// one that four fifths are shorter than. Longer and shorter mean by 12 % or more, within 40 beats (where there is none,
/// 40 and `pre` itself). A spread is the median |difference| of intervals between dominant beats from the next one, the next but one or the
/// next but two, by their median; the least spread is the least of the three.
pub const SURROUNDING_NAMES: [&str; 32] = [
    "4 ln(interval -4 / wide)",
    "4 ln(interval -3 / wide)",
    "4 ln(interval -2 / wide)",
    "4 ln(interval -1 / wide)",
    "4 ln(pre / wide)",
    "4 ln(post / wide)",
    "4 ln(interval 2 / wide)",
    "4 ln(interval 3 / wide)",
    "4 ln(interval 4 / wide)",
    "4 ln(pre / long interval of wide)",
    "4 ln(pre / long interval of far)",
    "4 ln((pre + post) / (2 long interval of wide))",
    "4 ln(wide / long interval of far)",
    "rank of pre in wide",
    "ln(1 + beats since an interval longer than pre)",
    "ln(1 + beats until an interval longer than pre)",
    "4 ln(that interval before / pre)",
    "4 ln(that interval after / pre)",
    "ln(1 + beats since an interval shorter than pre)",
    "ln(1 + beats until an interval shorter than pre)",
    "10 spread of wide, next",
    "10 spread of wide, next but one",
    "10 spread of wide, next but two",
    "10 least spread of wide",
    "10 spread of far, next",
    "10 spread of far, next but one",
    "10 least spread of far",
    "2 share of far that differ by a tenth",
    "2 share of wide that differ by a tenth",
    "4 ln(median of three before / median of six before those)",
    "4 ln(shortest of five before / wide)",
    "4 ln(longest of five before / wide)",
];

/// Intervals on each side that are around.
const WIDE: usize = 16;
/// Beats on each side among which the ends of a run are looked for.
const RUN: usize = 40;
/// By how much an interval at a run's end is longer.
const LONGER: f32 = 1.12;
/// Share of intervals that are shorter than a long one.
const LONG: f32 = 0.8;
/// Part of the median from which on intervals differ.
const TENTH: f32 = 0.1;
/// Intervals between dominant beats without which no spread is known.
const CLEAN_MIN: usize = 4;
/// Bound on every number.
const CLAMP: f32 = 5.0;

/// What is the same for all beats of a context.
#[derive(Clone, Debug)]
pub(super) struct Rhythm {
    long: f32,
    spreads: [f32; 3],
    differing: f32,
}

impl Rhythm {
    pub(super) fn new(
        intervals: &Intervals,
        context: Range<usize>,
        dominant: &dyn Fn(usize) -> bool,
    ) -> Self {
        let mut all: Vec<f32> = context.clone().filter_map(|beat| intervals.pre(beat)).collect();
        all.sort_by(f32::total_cmp);
        let (spreads, differing) = spreads(intervals, context, dominant);
        Self { long: quantile(&all, LONG), spreads, differing }
    }

    pub(super) fn around(
        &self,
        intervals: &Intervals,
        beat: usize,
        dominant: &dyn Fn(usize) -> bool,
    ) -> Option<[f32; SURROUNDING_FEATURES]> {
        let (pre, post) = (intervals.pre(beat)?, intervals.post(beat)?);
        let at = |offset: isize| intervals.pre(beat.checked_add_signed(offset)?);
        let range = beat.saturating_sub(WIDE)..beat + WIDE + 1;
        let mut wide: Vec<f32> = range.clone().filter_map(|beat| intervals.pre(beat)).collect();
        wide.sort_by(f32::total_cmp);
        let median = quantile(&wide, 0.5);
        let ratio = |part: f32, whole: f32| {
            if part > 0.0 && whole > 0.0 { 4.0 * (part / whole).ln() } else { 0.0 }
        };
        let beside = |offset| at(offset).map_or(0.0, |interval| ratio(interval, median));
        let run = |sign: isize, holds: &dyn Fn(f32) -> bool| -> (f32, f32) {
            for away in 1..=RUN as isize {
                match at(sign * away) {
                    Some(interval) if holds(interval) => return (away as f32, interval),
                    Some(_) => {}
                    None => break,
                }
            }
            (RUN as f32, pre)
        };
        let longer = |interval: f32| interval > LONGER * pre;
        let shorter = |interval: f32| interval * LONGER < pre;
        let ((since, bound_before), (until, bound_after)) = (run(-1, &longer), run(1, &longer));
        let ((since_short, _), (until_short, _)) = (run(-1, &shorter), run(1, &shorter));
        let (spread, differing) = spreads(intervals, range, dominant);
        let long = quantile(&wide, LONG);
        let before = |from: isize, to: isize| -> Vec<f32> { (from..to).filter_map(at).collect() };
        let (mut three, mut six, five) = (before(-3, 0), before(-9, -3), before(-5, 0));
        let (three, six) = (median_or_zero(&mut three), median_or_zero(&mut six));
        let least = |values: &[f32]| values.iter().copied().fold(f32::INFINITY, f32::min);
        let shortest = if five.is_empty() { median } else { least(&five) };
        let longest = five.iter().copied().fold(0.0, f32::max);
        let rank = {
            let less = wide.partition_point(|other| *other < pre);
            let more = wide.len() - wide.partition_point(|other| *other <= pre);
            (less as f32 - more as f32) / wide.len().max(1) as f32
        };
        let features = [
            beside(-4),
            beside(-3),
            beside(-2),
            beside(-1),
            beside(0),
            beside(1),
            beside(2),
            beside(3),
            beside(4),
            ratio(pre, long),
            ratio(pre, self.long),
            ratio(pre + post, 2.0 * long),
            ratio(median, self.long),
            rank,
            since.ln_1p(),
            until.ln_1p(),
            ratio(bound_before, pre),
            ratio(bound_after, pre),
            since_short.ln_1p(),
            until_short.ln_1p(),
            10.0 * spread[0],
            10.0 * spread[1],
            10.0 * spread[2],
            10.0 * least(&spread),
            10.0 * self.spreads[0],
            10.0 * self.spreads[1],
            10.0 * least(&self.spreads),
            2.0 * self.differing,
            2.0 * differing,
            ratio(three, six),
            ratio(shortest, median),
            ratio(longest, median),
        ];
        Some(features.map(|value| value.clamp(-CLAMP, CLAMP)))
    }
}

/// The median |difference| to the next, next but one and next but two interval by the median interval, of those between dominant beats, and
/// the share of them that differ from the next by a tenth.
fn spreads(
    intervals: &Intervals,
    context: Range<usize>,
    dominant: &dyn Fn(usize) -> bool,
) -> ([f32; 3], f32) {
    let clean: Vec<Option<f32>> = context
        .map(|beat| {
            let whole = beat > 0 && dominant(beat - 1) && dominant(beat);
            intervals.pre(beat).filter(|_| whole)
        })
        .collect();
    let mut known: Vec<f32> = clean.iter().flatten().copied().collect();
    if known.len() < CLEAN_MIN {
        return ([0.0; 3], 0.0);
    }
    let median = median_or_zero(&mut known).max(f32::MIN_POSITIVE);
    let changes = |lag: usize| -> Vec<f32> {
        clean
            .iter()
            .zip(clean.iter().skip(lag))
            .filter_map(|(a, b)| Some(((*b)? - (*a)?).abs() / median))
            .collect()
    };
    let next = changes(1);
    let differing = next.iter().filter(|change| **change > TENTH).count() as f32;
    let share = differing / next.len().max(1) as f32;
    ([1, 2, 3].map(|lag| median_or_zero(&mut changes(lag))), share)
}

/// Of sorted values; 0 of none.
fn quantile(sorted: &[f32], share: f32) -> f32 {
    let at = (sorted.len() as f32 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seconds: &[f32], beat: usize, name: &str) -> f32 {
        let intervals = Intervals::of(seconds);
        let all = |_: usize| true;
        let rhythm = Rhythm::new(&intervals, 0..seconds.len() + 1, &all);
        let at = SURROUNDING_NAMES.iter().position(|other| *other == name).unwrap();
        rhythm.around(&intervals, beat, &all).unwrap()[at]
    }

    #[test]
    fn a_run_has_a_beginning_and_an_end() {
        let mut seconds = vec![0.8; 20];
        seconds.extend([0.5; 6]);
        seconds.push(1.0);
        seconds.extend([0.8; 20]);
        // The third beat of the run: the interval before beat n is seconds[n - 1].
        let beat = 23;
        let since = of(&seconds, beat, "ln(1 + beats since an interval longer than pre)");
        let until = of(&seconds, beat, "ln(1 + beats until an interval longer than pre)");
        assert!((since - 4.0_f32.ln()).abs() < 1e-5 && (until - 5.0_f32.ln()).abs() < 1e-5);
        let after = of(&seconds, beat, "4 ln(that interval after / pre)");
        assert!((after - 4.0 * 2.0_f32.ln()).abs() < 1e-5);
        assert!(of(&seconds, beat, "4 ln(pre / long interval of far)") < -1.5);
        // In a regular rhythm there is neither.
        let regular = vec![0.8; 60];
        let none = of(&regular, 30, "ln(1 + beats since an interval longer than pre)");
        assert!((none - (RUN as f32).ln_1p()).abs() < 1e-5);
    }

    #[test]
    fn bigeminy_is_regular_at_a_distance_and_fibrillation_is_not() {
        let bigeminy = [0.6, 1.0].repeat(30);
        let irregular: Vec<f32> =
            (0..60).map(|at| 0.5 + 0.5 * ((at * at * 7 + at * 13) % 29) as f32 / 29.0).collect();
        for (seconds, is_irregular) in [(&bigeminy[..], false), (&irregular[..], true)] {
            assert!(of(seconds, 30, "10 spread of far, next") > 1.0);
            assert_eq!(of(seconds, 30, "10 least spread of far") > 1.0, is_irregular);
            assert_eq!(of(seconds, 30, "10 least spread of wide") > 1.0, is_irregular);
        }
    }
}
