//! What the intervals between beats say about one beat.
//!
//! A supraventricular beat looks like any other of the patient's and is known by coming early. How early is a question of
//! what is usual here (the intervals near by) and for this patient (the intervals of minutes), and in atrial
//! fibrillation, where nothing is usual, it is no question at all; hence the spreads. After de Chazal, O'Dwyer, Reilly, "Automatic
//! classification of heartbeats using ECG morphology and heartbeat interval features", IEEE Trans Biomed Eng
//! 51(7):1196-1206, 2004, who give the interval before, after, near by and on average.

use crate::statistics::upper_median;
use haar_schema::SampleRate;

/// Numbers about the rhythm.
pub const RHYTHM_FEATURES: usize = RHYTHM_NAMES.len();
/// What they are, each clamped to ±3. `pre` is the interval before the beat, `post` the one after, `previous` the one
/// before `pre` and `next` the one after `post` (where unknown, their neighbour); `near` is the median of up to five
/// intervals on each side, `before` that of the up to six before `pre`, `far` that of all intervals between dominant beats
/// of the context (where these are fewer than five, of all intervals). A spread is the median of
/// |successive difference| by the median interval, a rank the share of shorter intervals less that of longer ones.
pub const RHYTHM_NAMES: [&str; 16] = [
    "4 ln(pre / near)",
    "4 ln(post / near)",
    "4 ln(pre / far)",
    "4 ln(post / far)",
    "4 ln((pre + post) / (2 near))",
    "4 ln(pre / previous)",
    "4 ln(post / pre)",
    "4 ln(pre / before)",
    "4 ln(previous / near)",
    "4 ln(next / near)",
    "rank of pre in near",
    "rank of pre in far",
    "(pre - 0.8 s) / 0.3 s",
    "(near - 0.8 s) / 0.3 s",
    "10 spread of near",
    "10 spread of far",
];

/// Bound on every number that the network is given.
pub(crate) const CLAMP: f32 = 3.0;
/// Intervals on each side that make up what is usual here.
const NEAR: usize = 5;
/// Intervals before the last one that make up what was usual until now.
const BEFORE: usize = 6;
/// Intervals without which nothing is usual.
const INTERVALS_MIN: usize = 3;
/// Intervals between dominant beats without which all intervals are taken.
const FAR_MIN: usize = 5;

/// The intervals of a window.
pub(crate) struct Intervals(Vec<Option<f32>>);

/// What is usual for the patient.
#[derive(Clone, Debug)]
pub(crate) struct Far {
    sorted: Vec<f32>,
    median: f32,
    spread: f32,
}

impl Intervals {
    /// Seconds from each peak to the next; `None` across a gap of `mv` or if the next does not lie behind.
    pub(crate) fn new(mv: &[f32], rate: SampleRate, peaks: &[usize]) -> Self {
        let interval = |pair: &[usize]| {
            let between = (pair[0] < pair[1]).then(|| mv.get(pair[0]..=pair[1])).flatten()?;
            let whole = between.iter().all(|mv| mv.is_finite());
            whole.then(|| ((pair[1] - pair[0]) as f64 / rate.hz()) as f32)
        };
        Self(peaks.windows(2).map(interval).collect())
    }

    #[cfg(test)]
    pub(crate) fn of(seconds: &[f32]) -> Self {
        Self(seconds.iter().map(|seconds| Some(*seconds)).collect())
    }

    /// The interval before a peak.
    pub(crate) fn pre(&self, peak: usize) -> Option<f32> {
        self.0.get(peak.checked_sub(1)?).copied().flatten()
    }

    /// The interval behind a peak.
    pub(crate) fn post(&self, peak: usize) -> Option<f32> {
        self.0.get(peak).copied().flatten()
    }

    /// The median of the intervals near a peak.
    pub(crate) fn near(&self, peak: usize) -> Option<f32> {
        let mut known = self.around(peak);
        (known.len() >= INTERVALS_MIN).then(|| median_or_zero(&mut known))
    }

    /// What is usual among the peaks of `context`, for which `dominant` says whether they are.
    pub(crate) fn far(
        &self,
        context: std::ops::Range<usize>,
        dominant: impl Fn(usize) -> bool,
    ) -> Option<Far> {
        let pick = |all: bool| -> Vec<f32> {
            context
                .clone()
                .filter(|peak| all || (*peak > 0 && dominant(peak - 1) && dominant(*peak)))
                .filter_map(|peak| self.pre(peak))
                .collect()
        };
        let mut sorted = pick(false);
        if sorted.len() < FAR_MIN {
            sorted = pick(true);
        }
        if sorted.len() < INTERVALS_MIN {
            return None;
        }
        let mut changes: Vec<f32> =
            sorted.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
        let spread = median_or_zero(&mut changes);
        sorted.sort_by(f32::total_cmp);
        let median = sorted[sorted.len() / 2];
        Some(Far { median, spread: spread / median, sorted })
    }

    /// The numbers about the rhythm at a peak; `None` where an interval beside it is unknown or nothing is usual.
    pub(crate) fn features(&self, peak: usize, far: &Far) -> Option<[f32; RHYTHM_FEATURES]> {
        let (pre, post, near) = (self.pre(peak)?, self.post(peak)?, self.near(peak)?);
        let previous = peak.checked_sub(1).and_then(|peak| self.pre(peak)).unwrap_or(pre);
        let next = self.post(peak + 1).unwrap_or(post);
        let mut around = self.around(peak);
        let mut changes: Vec<f32> =
            around.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
        let spread = median_or_zero(&mut changes) / near;
        around.sort_by(f32::total_cmp);
        let first = (peak - 1).saturating_sub(BEFORE);
        let mut before: Vec<f32> = self.0[first..peak - 1].iter().copied().flatten().collect();
        let before = if before.is_empty() { near } else { median_or_zero(&mut before) };
        let around_one = |seconds: f32| (seconds - 0.8) / 0.3;
        let ratio = |part: f32, whole: f32| 4.0 * (part / whole).ln();
        let features = [
            ratio(pre, near),
            ratio(post, near),
            ratio(pre, far.median),
            ratio(post, far.median),
            ratio(pre + post, 2.0 * near),
            ratio(pre, previous),
            ratio(post, pre),
            ratio(pre, before),
            ratio(previous, near),
            ratio(next, near),
            rank(&around, pre),
            rank(&far.sorted, pre),
            around_one(pre),
            around_one(near),
            10.0 * spread,
            10.0 * far.spread,
        ];
        Some(features.map(|value| value.clamp(-CLAMP, CLAMP)))
    }

    /// The known intervals near a peak, in order of time.
    fn around(&self, peak: usize) -> Vec<f32> {
        let to = (peak + NEAR).min(self.0.len());
        self.0[peak.saturating_sub(NEAR).min(to)..to].iter().copied().flatten().collect()
    }
}

/// The share of shorter values less that of longer ones.
fn rank(sorted: &[f32], value: f32) -> f32 {
    let shorter = sorted.partition_point(|other| *other < value);
    let longer = sorted.len() - sorted.partition_point(|other| *other <= value);
    (shorter as f32 - longer as f32) / sorted.len().max(1) as f32
}

/// The upper median; 0 of nothing.
pub(crate) fn median_or_zero(values: &mut [f32]) -> f32 {
    upper_median(values).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_against_the_intervals_near_by_and_the_dominant_ones() {
        // Bigeminy: what is usual is the interval between dominant beats, of which there are five.
        let mut seconds = vec![0.8; 6];
        seconds.extend([0.6, 1.0].repeat(6));
        let intervals = Intervals::of(&seconds);
        let far = intervals.far(0..seconds.len() + 1, |peak| peak <= 6).unwrap();
        let numbers = intervals.features(7, &far).unwrap();
        let wanted = |ratio: f32| 4.0 * ratio.ln();
        assert!((numbers[2] - wanted(0.6 / 0.8)).abs() < 1e-5);
        assert!((numbers[3] - wanted(1.0 / 0.8)).abs() < 1e-5);
        assert!((numbers[6] - wanted(1.0 / 0.6)).abs() < 1e-5);
        assert!((numbers[11] + 1.0).abs() < 1e-6, "shorter than all dominant intervals");
    }

    #[test]
    fn without_neighbours_nothing_is_said() {
        let short = Intervals::of(&[0.8, 0.8]);
        assert!(short.far(0..3, |_| true).is_none() && short.near(1).is_none());
        let gap = Intervals(vec![Some(0.8), Some(0.8), None, Some(0.8), Some(0.8)]);
        let far = gap.far(0..6, |_| true).unwrap();
        assert!(gap.features(2, &far).is_none() && gap.features(3, &far).is_none());
        assert!(gap.features(1, &far).is_some() && gap.features(0, &far).is_none());
    }

    #[test]
    fn a_rank_is_between_minus_one_and_one() {
        let sorted = [0.5, 0.8, 0.8, 1.0];
        assert_eq!([0.1, 0.8, 2.0].map(|value| rank(&sorted, value)), [-1.0, 0.0, 1.0]);
        assert_eq!(rank(&[], 1.0), 0.0);
    }
}
