//! RR intervals: cleaning, rate, variability, ectopy, irregularity.
//!
//! - Limits and NN intervals: Task Force of the ESC and NASPE 1996, "Heart rate variability", Circulation
//!   93:1043–1065. SDNN and RMSSD are over normal-to-normal intervals.
//! - Rejection of ectopic intervals: Malik et al. 1989, Eur Heart J 10:1060–1074: an interval that differs
//!   by more than 20 % from the last accepted one is not a normal one.
//! - Ectopic beats: Tsipouras et al. 2005, Artif Intell Med 33:237–250, first rule: an interval that is by
//!   the factor 1.15 shorter than both the one before and the one after (prematurity and pause).
//! - Irregularity: coefficient of sample entropy, Lake & Moorman 2011, Am J Physiol Heart Circ Physiol
//!   300:H319–H325.
//!
//! A statistic that needs more beats than there are is an error that says how many. The needs are small
//! numbers at which the formula is defined, not numbers at which it is precise.

use haar_schema::SampleRate;

/// The shortest interval that is taken for one, in ms: 250 beats per minute.
pub const MIN_INTERVAL_MS: f64 = 240.0;

/// The longest interval that is taken for one, in ms: 20 beats per minute. What is longer is a gap.
pub const MAX_INTERVAL_MS: f64 = 3_000.0;

/// How far a normal interval may lie from the last normal one (Malik 1989).
const NORMAL_CHANGE: f64 = 0.20;

/// How much an ectopic interval is shorter than its neighbours (Tsipouras 2005).
const PREMATURITY: f64 = 1.15;

/// Intervals after which a change of rate is believed rather than rejected for ever.
const REJECTED_IN_A_ROW: usize = 4;

/// Twelve beats, for which Lake & Moorman made their statistic.
const IRREGULARITY_INTERVALS: usize = 11;

/// The first tolerance of the coefficient of sample entropy, in ms (Lake & Moorman 2011).
const ENTROPY_TOLERANCE_MS: f64 = 30.0;

/// Matches of length two that the entropy needs before its tolerance is let be (ibid.: at least five).
const ENTROPY_MATCHES: usize = 5;

/// Intervals between successive beats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RrSeries {
    intervals: Vec<Interval>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Interval {
    ms: f64,
    kind: IntervalKind,
}

/// What an interval is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalKind {
    /// From one normal beat to the next (NN).
    Normal,
    /// Differs too much from the last normal one.
    Ectopic,
    /// Outside of [`MIN_INTERVAL_MS`] to [`MAX_INTERVAL_MS`]: a missed or a doubled beat, or a gap.
    Implausible,
}

/// There are too few beats for a statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} usable intervals between beats, {needed} are needed")]
pub struct TooFewBeats {
    /// Intervals, or pairs or triples of them, that there are.
    pub found: usize,
    /// How many the statistic needs.
    pub needed: usize,
}

impl RrSeries {
    /// From R peaks (sample indices in rising order).
    pub fn from_peaks(peaks: &[usize], rate: SampleRate) -> Self {
        let ms_per_sample = 1_000.0 / rate.hz();
        Self::from_intervals_ms(
            peaks.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64 * ms_per_sample),
        )
    }

    /// From intervals in ms.
    pub fn from_intervals_ms(intervals: impl IntoIterator<Item = f64>) -> Self {
        let mut intervals: Vec<Interval> = intervals
            .into_iter()
            .map(|ms| {
                let plausible = (MIN_INTERVAL_MS..=MAX_INTERVAL_MS).contains(&ms);
                let kind = if plausible { IntervalKind::Normal } else { IntervalKind::Implausible };
                Interval { ms, kind }
            })
            .collect();
        reject_ectopic(&mut intervals);
        Self { intervals }
    }

    /// The intervals in ms, with what each is taken for.
    pub fn intervals(&self) -> impl ExactSizeIterator<Item = (f64, IntervalKind)> + '_ {
        self.intervals.iter().map(|interval| (interval.ms, interval.kind))
    }

    /// Mean heart rate in beats per minute, over all plausible intervals, ectopic ones included.
    pub fn heart_rate(&self) -> Result<f64, TooFewBeats> {
        let plausible: Vec<f64> = self.plausible().collect();
        enough(plausible.len(), 1)?;
        Ok(60_000.0 * plausible.len() as f64 / plausible.iter().sum::<f64>())
    }

    /// Standard deviation of the NN intervals in ms (n − 1).
    pub fn sdnn_ms(&self) -> Result<f64, TooFewBeats> {
        let normal: Vec<f64> = self
            .intervals
            .iter()
            .filter(|interval| interval.kind == IntervalKind::Normal)
            .map(|interval| interval.ms)
            .collect();
        enough(normal.len(), 2)?;
        let mean = normal.iter().sum::<f64>() / normal.len() as f64;
        let squares: f64 = normal.iter().map(|ms| (ms - mean).powi(2)).sum();
        Ok((squares / (normal.len() - 1) as f64).sqrt())
    }

    /// Root mean square of the differences of adjacent NN intervals, in ms.
    pub fn rmssd_ms(&self) -> Result<f64, TooFewBeats> {
        let squares: Vec<f64> = self
            .intervals
            .windows(2)
            .filter(|pair| pair.iter().all(|interval| interval.kind == IntervalKind::Normal))
            .map(|pair| (pair[1].ms - pair[0].ms).powi(2))
            .collect();
        enough(squares.len(), 1)?;
        Ok((squares.iter().sum::<f64>() / squares.len() as f64).sqrt())
    }

    /// Share of beats that came early and were followed by a pause, 0–1.
    ///
    /// By timing alone: an interpolated or a late ectopic beat is not seen, and in atrial fibrillation
    /// about a third of all beats look so. Read it beside [`RrSeries::irregularity`].
    pub fn ectopic_fraction(&self) -> Result<f64, TooFewBeats> {
        let triples: Vec<bool> = self
            .intervals
            .windows(3)
            .filter(|triple| triple.iter().all(|i| i.kind != IntervalKind::Implausible))
            .map(|triple| {
                let limit = PREMATURITY * triple[1].ms;
                triple[0].ms > limit && triple[2].ms > limit
            })
            .collect();
        enough(triples.len(), 3)?;
        Ok(triples.iter().filter(|early| **early).count() as f64 / triples.len() as f64)
    }

    /// Coefficient of sample entropy of the plausible intervals, dimensionless. Higher is more irregular;
    /// Lake & Moorman found atrial fibrillation above −1.4.
    ///
    /// Sample entropy with m = 1 and a tolerance r of 30 ms, which is widened until at least five pairs match,
    /// plus ln 2r − ln of the mean interval. Quadratic in the number of beats: meant for windows.
    pub fn irregularity(&self) -> Result<f64, TooFewBeats> {
        let intervals: Vec<f64> = self.plausible().collect();
        enough(intervals.len(), IRREGULARITY_INTERVALS)?;
        let mut tolerance = ENTROPY_TOLERANCE_MS;
        loop {
            let (one, two) = entropy_matches(&intervals, tolerance);
            // All intervals lie within MAX_INTERVAL_MS of each other, so that this ends.
            if two >= ENTROPY_MATCHES {
                let mean = intervals.iter().sum::<f64>() / intervals.len() as f64;
                let sample_entropy = (one as f64 / two as f64).ln();
                return Ok(sample_entropy + (2.0 * tolerance).ln() - mean.ln());
            }
            tolerance *= 1.5;
        }
    }

    fn plausible(&self) -> impl Iterator<Item = f64> + '_ {
        self.intervals
            .iter()
            .filter(|interval| interval.kind != IntervalKind::Implausible)
            .map(|interval| interval.ms)
    }
}

fn enough(found: usize, needed: usize) -> Result<(), TooFewBeats> {
    if found < needed { Err(TooFewBeats { found, needed }) } else { Ok(()) }
}

/// Marks intervals that differ from the last normal one by more than [`NORMAL_CHANGE`].
fn reject_ectopic(intervals: &mut [Interval]) {
    // The median to begin with: the first interval may be an ectopic one.
    let mut plausible: Vec<f64> =
        intervals.iter().filter(|i| i.kind == IntervalKind::Normal).map(|i| i.ms).collect();
    plausible.sort_by(f64::total_cmp);
    let Some(mut last) = plausible.get(plausible.len() / 2).copied() else { return };
    let mut rejected = 0;
    for interval in intervals {
        if interval.kind == IntervalKind::Implausible {
            continue;
        }
        if (interval.ms - last).abs() <= NORMAL_CHANGE * last || rejected >= REJECTED_IN_A_ROW {
            last = interval.ms;
            rejected = 0;
        } else {
            interval.kind = IntervalKind::Ectopic;
            rejected += 1;
        }
    }
}

/// Pairs of intervals that lie within the tolerance (and have a successor), and those of them whose
/// successors do too.
fn entropy_matches(intervals: &[f64], tolerance: f64) -> (usize, usize) {
    let (mut one, mut two) = (0, 0);
    for (index, pair) in intervals.windows(2).enumerate() {
        for other in intervals[index + 1..].windows(2) {
            if (pair[0] - other[0]).abs() <= tolerance {
                one += 1;
                two += usize::from((pair[1] - other[1]).abs() <= tolerance);
            }
        }
    }
    (one, two)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn series(intervals: &[f64]) -> RrSeries {
        RrSeries::from_intervals_ms(intervals.iter().copied())
    }

    #[test]
    fn from_peaks() {
        let rate = SampleRate::from_hz(250).unwrap();
        let series = RrSeries::from_peaks(&[10, 260, 460], rate);
        let intervals: Vec<f64> = series.intervals().map(|(ms, _)| ms).collect();
        assert_eq!(intervals, [1_000.0, 800.0]);
        assert_eq!(series.heart_rate(), Ok(60_000.0 / 900.0));
    }

    #[test]
    fn variability_by_hand() {
        let series = series(&[800.0, 820.0, 790.0, 810.0]);
        // Differences 20, −30, 20; deviations −5, 15, −15, 5.
        assert!((series.rmssd_ms().unwrap() - (1_700.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        assert!((series.sdnn_ms().unwrap() - (500.0_f64 / 3.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn an_ectopic_beat_does_not_count_as_variability() {
        let series = series(&[800.0, 800.0, 800.0, 500.0, 1_100.0, 800.0, 800.0]);
        assert_eq!(series.rmssd_ms(), Ok(0.0));
        assert_eq!(series.sdnn_ms(), Ok(0.0));
        assert_eq!(series.ectopic_fraction(), Ok(1.0 / 5.0));
        assert_eq!(
            series.intervals().filter(|(_, kind)| *kind == IntervalKind::Ectopic).count(),
            2
        );
        assert_eq!(series.heart_rate(), Ok(75.0));
    }

    #[test]
    fn gaps_are_left_out() {
        let series = series(&[800.0, 9_000.0, 800.0, 100.0, 800.0]);
        assert_eq!(series.heart_rate(), Ok(75.0));
        assert_eq!(series.sdnn_ms(), Ok(0.0));
        // No two normal intervals touch.
        assert_eq!(series.rmssd_ms(), Err(TooFewBeats { found: 0, needed: 1 }));
    }

    #[test]
    fn a_new_rate_is_believed_after_a_while() {
        let mut intervals = vec![1_000.0; 10];
        intervals.extend([600.0; 10]);
        let kinds: Vec<IntervalKind> =
            series(&intervals).intervals().map(|(_, kind)| kind).collect();
        // The median is 1,000 or 600: either way most are accepted.
        assert_eq!(kinds.iter().filter(|kind| **kind == IntervalKind::Ectopic).count(), 4);
        assert_eq!(kinds[19], IntervalKind::Normal);
    }

    #[test]
    fn too_few_beats_say_how_many() {
        let series = series(&[]);
        assert_eq!(series.heart_rate(), Err(TooFewBeats { found: 0, needed: 1 }));
        assert_eq!(series.sdnn_ms(), Err(TooFewBeats { found: 0, needed: 2 }));
        assert_eq!(series.rmssd_ms(), Err(TooFewBeats { found: 0, needed: 1 }));
        assert_eq!(series.ectopic_fraction(), Err(TooFewBeats { found: 0, needed: 3 }));
        let error = series.irregularity().unwrap_err();
        assert_eq!(error.to_string(), "0 usable intervals between beats, 11 are needed");
    }

    #[test]
    fn fibrillation_is_told_from_rhythm() {
        let regular: Vec<f64> = (0..30).map(|i| 800.0 + f64::from(i % 4) * 10.0).collect();
        // No interval foretells the next one.
        let irregular: Vec<f64> =
            (0..30_u32).map(|i| f64::from(400 + i * i * 7_919 % 700)).collect();
        assert!(series(&regular).irregularity().unwrap() < -2.0);
        assert!(series(&irregular).irregularity().unwrap() > -1.0);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_order_of_magnitude_holds(
            intervals in proptest::collection::vec(
                prop_oneof![8 => 200.0..3_500.0f64, 1 => Just(f64::NAN), 1 => Just(0.0)], 0..60),
        ) {
            let series = series(&intervals);
            if let Ok(rate) = series.heart_rate() {
                prop_assert!((20.0..=250.0).contains(&rate));
            }
            if let Ok(share) = series.ectopic_fraction() {
                prop_assert!((0.0..=1.0).contains(&share));
            }
            prop_assert!(series.rmssd_ms().is_ok_and(f64::is_finite) || series.rmssd_ms().is_err());
            prop_assert!(series.sdnn_ms().is_ok_and(f64::is_finite) || series.sdnn_ms().is_err());
            prop_assert!(series.irregularity().is_ok_and(f64::is_finite) || series.irregularity().is_err());
        }
    }
}
