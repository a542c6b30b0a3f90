//! NN intervals: RR intervals without those that an artefact or an ectopic beat has bent.
//!
//! Lipponen & Tarvainen 2019, "A robust algorithm for heart rate variability time series artefact
//! correction using novel beat classification", J Med Eng Technol 43:173–181: the differences of successive
//! intervals, and the intervals' distances from their running median, are held against thresholds of 5.2
//! quartile deviations of the 91 beats around.
//!
//! Two things differ from the paper. Artefacts are left out instead of repaired, because nothing downstream
//! needs an unbroken series (the spectrum is [`crate::lomb`]'s, differences are taken only between
//! neighbours). And the thresholds have a floor, [`MIN_THRESHOLD_MS`]: a paced or a quantised rhythm has
//! quartile deviations of nearly zero.
//!
//! The method assumes a rhythm: in atrial fibrillation every interval is far from the others, the
//! thresholds widen, and next to nothing is an artefact. Ask [`RrSeries::irregularity`] first.

use std::collections::VecDeque;

use super::rr::{IntervalKind, MAX_INTERVAL_MS, RrSeries};

/// No threshold is lower than this, in ms: less is the grain of sampling and breathing.
pub const MIN_THRESHOLD_MS: f64 = 40.0;

/// The most beats that [`RrWindows`] holds: 20 minutes at 250 per minute. A longer window loses its oldest.
pub const MAX_WINDOW_BEATS: usize = 5_000;

/// Beats around, on either side, from which a threshold is taken (91 in all).
const THRESHOLD_AROUND: usize = 45;

/// Quartile deviations in a threshold.
const THRESHOLD_DEVIATIONS: f64 = 5.2;

/// Intervals around, on either side, of which the running median is taken (11 in all).
const MEDIAN_AROUND: usize = 5;

/// Slope and offset of the line that separates ectopic beats.
const ECTOPIC_LINE: (f64, f64) = (0.13, 0.17);

/// Shorter than the median counts twice: the distribution of intervals is skewed.
const SHORT_WEIGHT: f64 = 2.0;

/// How many thresholds away from the median an interval is long or short by itself.
const LONG_OR_SHORT: f64 = 3.0;

/// What is wrong with an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Artefact {
    /// It leads to or from an ectopic beat: short then long, or long then short.
    Ectopic,
    /// A beat was missed in it: about twice the median.
    Missed,
    /// One of two halves of an interval in which a beat was found that is none.
    Extra,
    /// Too long or too short for its neighbours without a known cause.
    LongOrShort,
    /// Longer than [`MAX_INTERVAL_MS`], or not a positive number: no signal rather than no beat.
    Gap,
}

/// Normal-to-normal intervals, where they lie in time, and which of them are neighbours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NnSeries {
    pub(super) end_s: Vec<f64>,
    pub(super) ms: Vec<f64>,
    /// Whether the interval before this one in time is the one before it here.
    pub(super) adjacent: Vec<bool>,
    total: usize,
}

impl RrSeries {
    /// What is wrong with each interval, or `None` for an NN interval, in the order of
    /// [`RrSeries::intervals`].
    ///
    /// Fewer than about twenty intervals give thresholds that say little; none is refused.
    pub fn artefacts(&self) -> Vec<Option<Artefact>> {
        let mut found: Vec<Option<Artefact>> = self
            .intervals()
            .map(|(ms, _)| (!(ms > 0.0 && ms <= MAX_INTERVAL_MS)).then_some(Artefact::Gap))
            .collect();
        let (places, ms): (Vec<usize>, Vec<f64>) = self
            .intervals()
            .enumerate()
            .filter(|(place, _)| found[*place].is_none())
            .map(|(place, (ms, _))| (place, ms))
            .unzip();
        let after_gap: Vec<bool> =
            (0..places.len()).map(|i| i == 0 || places[i] != places[i - 1] + 1).collect();
        for (index, artefact) in Evidence::new(ms, &after_gap).classify() {
            found[places[index]] = Some(artefact);
        }
        for (found, (_, kind)) in found.iter_mut().zip(self.intervals()) {
            // A heart does not beat 250 times a minute, whatever its neighbours do.
            if kind == IntervalKind::Implausible && found.is_none() {
                *found = Some(Artefact::LongOrShort);
            }
        }
        found
    }

    /// The NN intervals: those without [`RrSeries::artefacts`].
    pub fn nn(&self) -> NnSeries {
        let mut nn = NnSeries { total: self.intervals().len(), ..NnSeries::default() };
        let (mut end_s, mut before_is_nn) = (0.0, false);
        for ((ms, _), artefact) in self.intervals().zip(self.artefacts()) {
            // What is not a length takes no time.
            end_s += if ms > 0.0 && ms.is_finite() { ms * 1e-3 } else { 0.0 };
            if artefact.is_none() {
                nn.end_s.push(end_s);
                nn.ms.push(ms);
                nn.adjacent.push(before_is_nn);
            }
            before_is_nn = artefact.is_none();
        }
        nn
    }
}

impl NnSeries {
    /// The NN intervals in ms, in order.
    pub fn intervals_ms(&self) -> &[f64] {
        &self.ms
    }

    /// When each of them ends, in seconds from the start of the first RR interval.
    pub fn ends_s(&self) -> &[f64] {
        &self.end_s
    }

    /// Share of the RR intervals that were taken, 0–1; `None` if there were none. HRV of a window in which
    /// this is below about 0.9 is best not used.
    pub fn kept(&self) -> Option<f64> {
        (self.total > 0).then(|| self.ms.len() as f64 / self.total as f64)
    }

    /// Pairs of intervals that follow each other in time.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let pairs = self.ms.windows(2).zip(self.adjacent.iter().skip(1));
        pairs.filter(|(_, adjacent)| **adjacent).map(|(pair, _)| (pair[0], pair[1]))
    }
}

/// Cuts a stream of beats into windows of event time, whatever the pieces in which the beats arrive.
///
/// Windows start at whole multiples of their length. An interval belongs to the window in which it ends;
/// the one from the last beat of a window to the first of the next belongs to the next.
#[derive(Clone, Debug)]
pub struct RrWindows {
    length_us: i64,
    start_us: i64,
    last_us: Option<i64>,
    intervals: VecDeque<f64>,
}

/// A window that [`RrWindows`] has closed.
#[derive(Clone, Debug, PartialEq)]
pub struct RrWindow {
    /// Where it starts, in microseconds.
    pub start_us: i64,
    /// The intervals that end in it.
    pub intervals: RrSeries,
}

impl RrWindows {
    /// Windows of so many microseconds (at least one).
    pub fn new(length_us: i64) -> Self {
        let length_us = length_us.max(1);
        Self { length_us, start_us: i64::MIN, last_us: None, intervals: VecDeque::new() }
    }

    /// Adds a beat; gives the window that it closes, if it is the first of a later one and the open one has
    /// intervals. A beat that is not later than the last one is ignored.
    pub fn push(&mut self, beat_us: i64) -> Option<RrWindow> {
        if self.last_us.is_some_and(|last| beat_us <= last) {
            return None;
        }
        let start_us = beat_us - beat_us.rem_euclid(self.length_us);
        let closed = if start_us == self.start_us { None } else { self.close() };
        self.start_us = start_us;
        if let Some(last) = self.last_us {
            self.intervals.push_back(beat_us.saturating_sub(last) as f64 * 1e-3);
            if self.intervals.len() > MAX_WINDOW_BEATS {
                self.intervals.pop_front();
            }
        }
        self.last_us = Some(beat_us);
        closed
    }

    /// Closes the open window: for the end of the stream, or of patience.
    pub fn close(&mut self) -> Option<RrWindow> {
        let intervals = std::mem::take(&mut self.intervals);
        (!intervals.is_empty()).then(|| RrWindow {
            start_us: self.start_us,
            intervals: RrSeries::from_intervals_ms(intervals),
        })
    }
}

/// What the classification looks at: all in order of the intervals, gaps left out.
struct Evidence {
    ms: Vec<f64>,
    /// Differences from the interval before, in thresholds.
    change: Vec<f64>,
    median: Vec<f64>,
    /// Distances from the running median, in thresholds.
    distance: Vec<f64>,
    /// Threshold of the distance, in ms.
    distance_threshold: Vec<f64>,
}

impl Evidence {
    fn new(ms: Vec<f64>, after_gap: &[bool]) -> Self {
        let mut change: Vec<f64> =
            (0..ms.len()).map(|i| if after_gap[i] { 0.0 } else { ms[i] - ms[i - 1] }).collect();
        let mut median = Vec::with_capacity(ms.len());
        running(&ms, MEDIAN_AROUND, |sorted| median.push(quantile(sorted, 0.5)));
        let mut distance: Vec<f64> = ms
            .iter()
            .zip(&median)
            .map(|(ms, median)| ms - median)
            .map(|away| if away < 0.0 { SHORT_WEIGHT * away } else { away })
            .collect();
        let change_threshold = thresholds(&change);
        for (change, threshold) in change.iter_mut().zip(&change_threshold) {
            *change /= threshold;
        }
        let distance_threshold = thresholds(&distance);
        for (distance, threshold) in distance.iter_mut().zip(&distance_threshold) {
            *distance /= threshold;
        }
        Self { ms, change, median, distance, distance_threshold }
    }

    /// The flow chart of the paper's figure 1.
    fn classify(&self) -> Vec<(usize, Artefact)> {
        let mut found = Vec::new();
        let mut index = 0;
        while index < self.ms.len() {
            if self.change[index].abs() > 1.0 {
                if self.ends_ectopic_pair(index) {
                    found.extend(index.checked_sub(1).map(|first| (first, Artefact::Ectopic)));
                    found.push((index, Artefact::Ectopic));
                    index += 1;
                    continue;
                }
                index += self.out_of_line(index, &mut found);
            } else if self.distance[index].abs() > LONG_OR_SHORT {
                found.push((index, Artefact::LongOrShort));
            }
            index += 1;
        }
        found
    }

    /// Figure 2a: a change between two that go the other way.
    fn ends_ectopic_pair(&self, index: usize) -> bool {
        let change = self.change[index];
        let before = index.checked_sub(1).map_or(0.0, |before| self.change[before]);
        let after = self.change_at(index + 1);
        let (slope, offset) = ECTOPIC_LINE;
        if change > 0.0 {
            before.max(after) < -slope * change - offset
        } else {
            before.min(after) > -slope * change + offset
        }
    }

    /// Figure 2b, after the ectopic ones are out: long, short, missed, extra. How many intervals beyond
    /// this one are settled by it.
    fn out_of_line(&self, index: usize, found: &mut Vec<(usize, Artefact)>) -> usize {
        let change = self.change[index];
        let (next, second) = (self.change_at(index + 1), self.change_at(index + 2));
        let long = change > 1.0 && next.min(second) < -1.0;
        let short = change < -1.0 && next.max(second) > 1.0;
        if !long && !short && self.distance[index].abs() <= LONG_OR_SHORT {
            return 0;
        }
        let (ms, median) = (self.ms[index], self.median[index]);
        let threshold = self.distance_threshold[index];
        let with_next = self.ms.get(index + 1).map(|next| ms + next);
        if short && with_next.is_some_and(|both| (both - median).abs() < threshold) {
            found.extend([(index, Artefact::Extra), (index + 1, Artefact::Extra)]);
            return 1;
        }
        if long && (ms / 2.0 - median).abs() < threshold {
            found.push((index, Artefact::Missed));
        } else {
            found.push((index, Artefact::LongOrShort));
        }
        0
    }

    fn change_at(&self, index: usize) -> f64 {
        self.change.get(index).copied().unwrap_or(0.0)
    }
}

/// 5.2 quartile deviations of the absolute values around each, and not less than the floor.
fn thresholds(values: &[f64]) -> Vec<f64> {
    let sizes: Vec<f64> = values.iter().map(|value| value.abs()).collect();
    let mut thresholds = Vec::with_capacity(values.len());
    running(&sizes, THRESHOLD_AROUND, |sorted| {
        let deviation = (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / 2.0;
        thresholds.push((THRESHOLD_DEVIATIONS * deviation).max(MIN_THRESHOLD_MS));
    });
    thresholds
}

/// Calls `each` with the sorted values around every value, fewer at the ends.
fn running(values: &[f64], around: usize, mut each: impl FnMut(&[f64])) {
    let mut sorted: Vec<f64> = Vec::with_capacity(2 * around + 2);
    let place = |sorted: &[f64], value: f64| sorted.partition_point(|other| *other < value);
    for value in values.iter().take(around) {
        sorted.insert(place(&sorted, *value), *value);
    }
    for index in 0..values.len() {
        let (enters, leaves) = (values.get(index + around), index.checked_sub(around + 1));
        match (enters, leaves.map(|left| values[left])) {
            (Some(value), Some(left)) => {
                // One takes the other's place, and only what lies between them moves.
                let (from, to) = (place(&sorted, left), place(&sorted, *value));
                if from < to {
                    sorted.copy_within(from + 1..to, from);
                    sorted[to - 1] = *value;
                } else {
                    sorted.copy_within(to..from, to + 1);
                    sorted[to] = *value;
                }
            }
            (Some(value), None) => sorted.insert(place(&sorted, *value), *value),
            (None, Some(left)) => drop(sorted.remove(place(&sorted, left))),
            (None, None) => {}
        }
        each(&sorted);
    }
}

/// With linear interpolation between order statistics; of a slice that is not empty.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = share * (sorted.len() - 1) as f64;
    let below = rank as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (rank - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Breathing: 800 ± 30 ms.
    fn rhythm(count: usize) -> Vec<f64> {
        (0..count).map(|i| 800.0 + 30.0 * (i as f64 * 1.3).sin()).collect()
    }

    fn artefacts(intervals: &[f64]) -> Vec<(usize, Artefact)> {
        RrSeries::from_intervals_ms(intervals.iter().copied())
            .artefacts()
            .into_iter()
            .enumerate()
            .filter_map(|(index, artefact)| Some((index, artefact?)))
            .collect()
    }

    #[test]
    fn each_kind_is_known_and_nothing_else() {
        let mut intervals = rhythm(200);
        assert_eq!(artefacts(&intervals), []);
        // A premature beat with its pause, a late beat, a missed, an extra, a long one, and a gap.
        (intervals[20], intervals[21]) = (500.0, 1_100.0);
        (intervals[50], intervals[51]) = (1_150.0, 480.0);
        intervals[80] = 1_600.0;
        (intervals[110], intervals[111]) = (390.0, 420.0);
        intervals[140] = 1_200.0;
        intervals[170] = 7_000.0;
        use Artefact::{Ectopic, Extra, Gap, LongOrShort, Missed};
        let expected = [
            (20, Ectopic),
            (21, Ectopic),
            (50, Ectopic),
            (51, Ectopic),
            (80, Missed),
            (110, Extra),
            (111, Extra),
            (140, LongOrShort),
            (170, Gap),
        ];
        assert_eq!(artefacts(&intervals), expected);
    }

    #[test]
    fn a_steady_rhythm_with_grain_has_no_artefacts() {
        let paced: Vec<f64> = (0..100).map(|i| if i % 7 == 0 { 808.0 } else { 800.0 }).collect();
        assert_eq!(artefacts(&paced), []);
        // A change of rate over some beats is none either.
        let faster: Vec<f64> = (0..100).map(|i| 1_000.0 - 4.0 * f64::from(i)).collect();
        assert_eq!(artefacts(&faster), []);
    }

    #[test]
    fn nn_intervals_keep_their_time_and_know_their_neighbours() {
        let mut intervals = vec![800.0; 30];
        (intervals[10], intervals[11]) = (500.0, 1_100.0);
        let nn = RrSeries::from_intervals_ms(intervals).nn();
        assert_eq!(nn.intervals_ms(), [800.0; 28]);
        assert!((nn.ends_s()[27] - 24.0).abs() < 1e-9);
        assert!((nn.ends_s()[10] - 10.4).abs() < 1e-9);
        assert_eq!(nn.pairs().count(), 26);
        assert_eq!(nn.kept(), Some(28.0 / 30.0));
        assert_eq!(RrSeries::default().nn().kept(), None);
    }

    #[test]
    fn windows_take_the_intervals_that_end_in_them() {
        let mut windows = RrWindows::new(10_000_000);
        let closed: Vec<RrWindow> =
            (0..26).filter_map(|beat| windows.push(500_000 + beat * 1_000_000)).collect();
        let shown: Vec<(i64, usize)> = closed
            .iter()
            .map(|window| (window.start_us, window.intervals.intervals().len()))
            .collect();
        assert_eq!(shown, [(0, 9), (10_000_000, 10)]);
        assert_eq!(windows.push(3), None);
        assert_eq!(windows.close().map(|window| window.start_us), Some(20_000_000));
        assert_eq!(windows.close(), None);
    }

    proptest! {
        #[test]
        fn anything_gives_a_verdict_each(
            intervals in proptest::collection::vec(
                prop_oneof![8 => 200.0..3_500.0f64, 1 => Just(f64::NAN), 1 => -9.0..9.0f64], 0..200),
        ) {
            let rr = RrSeries::from_intervals_ms(intervals.iter().copied());
            prop_assert_eq!(rr.artefacts().len(), intervals.len());
            let nn = rr.nn();
            prop_assert!(nn.intervals_ms().iter().all(|ms| (240.0..=3_000.0).contains(ms)));
            prop_assert!(nn.ends_s().windows(2).all(|pair| pair[0] < pair[1]));
        }

        #[test]
        fn running_quantiles_are_those_of_a_sort(
            values in proptest::collection::vec(-5.0..5.0f64, 1..60), around in 0usize..20,
        ) {
            let mut index = 0_usize;
            running(&values, around, |sorted| {
                let mut expected =
                    values[index.saturating_sub(around)..(index + around + 1).min(values.len())].to_vec();
                expected.sort_by(f64::total_cmp);
                assert_eq!(sorted, expected);
                index += 1;
            });
        }
    }
}
