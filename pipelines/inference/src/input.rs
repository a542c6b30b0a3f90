//! From samples and R peaks to what the network is given.
//!
//! Everything is computed from one window and never looks beyond it. Per beat there are
//!
//! - a *waveform*: [`CHANNELS`] × [`SEGMENT_SAMPLES`] samples at [`SEGMENT_RATE`] around the R peak, the
//!   first channel being the beat, the second what remains of it when the window's median beat is
//!   taken away (an odd beat stands out against the patient's own usual one, whatever that looks like);
//! - the *rhythm*: [`RR_FEATURES`] numbers from the intervals between peaks, see [`RR_NAMES`].
//!
//! # How the waveform is made
//! The baseline is the moving average over 0.6 s, taken twice (a triangle of 1.2 s), and is
//! subtracted. Each segment is read off at times `R + j / 250 Hz` by linear interpolation between the two
//! neighbouring samples, so that the R peak stands exactly in the middle of its sample for every rate.
//! Linear interpolation loses less than 1 dB below 40 Hz from 250 or 360 Hz; it does not guard against
//! aliasing from rates above 250 Hz, where an ECG holds little. All is divided by the height (largest minus
//! smallest value) of the median beat, so the network sees no millivolts: gain does not matter, polarity does.

use haar_schema::SampleRate;

/// Rate of the segment's samples.
pub const SEGMENT_RATE: SampleRate = match SampleRate::from_hz(250) {
    Some(rate) => rate,
    None => unreachable!(),
};
/// Samples of a segment before the R peak: 320 ms, where the P wave is.
pub const SEGMENT_BEFORE: usize = 80;
/// Samples of a segment: 780 ms, the peak among them.
pub const SEGMENT_SAMPLES: usize = 195;
/// The beat, and its difference from the window's median beat.
pub const CHANNELS: usize = 2;
/// Numbers about the rhythm.
pub const RR_FEATURES: usize = RR_NAMES.len();
/// What the numbers about the rhythm are, each clamped to ±3. `usual` is the median of the up to four
/// intervals on each side, `pre` the interval before the beat, `post` the one after, `previous` the one
/// before `pre` (or `pre` where that is unknown). `spread` is the median of |successive
/// difference| / usual over the same intervals.
pub const RR_NAMES: [&str; 8] = [
    "(pre - 0.8 s) / 0.3 s",
    "(post - 0.8 s) / 0.3 s",
    "(usual - 0.8 s) / 0.3 s",
    "4 ln(pre / usual)",
    "4 ln(post / usual)",
    "4 ln(pre / previous)",
    "4 ln(post / pre)",
    "10 spread",
];
/// The most samples in one window: an hour at 1 kHz. Behind it no beat has an input.
pub const MAX_WINDOW_SAMPLES: usize = 3_600_000;

/// Bound on every number about the rhythm.
const RR_CLAMP: f32 = 3.0;
/// Rates below cannot show a QRS complex.
const RATE_MIN_HZ: f64 = 100.0;
/// A median beat lower than this is a lead that is off.
const HEIGHT_MIN_MV: f32 = 0.05;
/// Half the width of the moving average that makes the baseline.
const BASELINE_HALF_S: f64 = 0.3;
/// Intervals on each side that make up what is usual here.
const NEIGHBOURS: usize = 4;
/// Intervals without which nothing is usual.
const INTERVALS_MIN: usize = 3;
/// The most beats that the median beat is made of, spread over the window.
const MEDIAN_BEATS_MAX: usize = 63;

/// What the network is given about one beat.
#[derive(Clone, PartialEq, Debug)]
pub struct BeatInput {
    waveform: Vec<f32>,
    rr: [f32; RR_FEATURES],
}

impl BeatInput {
    /// The channels one behind the other, [`CHANNELS`] × [`SEGMENT_SAMPLES`], in heights of the
    /// window's median beat.
    pub fn waveform(&self) -> &[f32] {
        &self.waveform
    }

    /// The rhythm, in the order of [`RR_NAMES`].
    pub const fn rr(&self) -> &[f32; RR_FEATURES] {
        &self.rr
    }

    pub(crate) fn from_parts(waveform: Vec<f32>, rr: [f32; RR_FEATURES]) -> Self {
        debug_assert_eq!(waveform.len(), CHANNELS * SEGMENT_SAMPLES);
        Self { waveform, rr }
    }
}

/// The inputs of a window's beats: `mv` are its samples in millivolt (NaN where there is none), `peaks` the
/// indices of its R peaks, ascending.
///
/// A beat has no input (`None`)
/// - at the window's edges: without a peak on both sides, or without 320 ms before and 456 ms after it;
/// - at a gap: with a missing sample in the segment or anywhere between the neighbouring peaks,
///   where a beat may have gone unseen;
/// - without at least three known intervals around it, for then no rhythm is usual;
/// - if its peak does not lie behind the one before it or not in the window;
///
/// and no beat of the window has one if the lead is flat (median beat below 0.05 mV), the rate is below
/// 100 Hz or the window longer than [`MAX_WINDOW_SAMPLES`].
pub fn beat_inputs(mv: &[f32], rate: SampleRate, peaks: &[usize]) -> Vec<Option<BeatInput>> {
    segments(mv, rate, peaks, 0)
        .into_iter()
        .map(|beat| beat.map(|beat| BeatInput::from_parts(beat.waveform(0.0), beat.rr)))
        .collect()
}

/// A beat cut with `margin` more samples on both sides, so that training may move it.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    margin: usize,
    /// `SEGMENT_SAMPLES + 2 * margin` samples, scaled.
    beat: Vec<f32>,
    /// The window's median beat, scaled; the same for all beats of the window.
    median: std::sync::Arc<Vec<f32>>,
    pub(crate) rr: [f32; RR_FEATURES],
}

impl Segment {
    /// Both channels, with the beat moved by `shift` samples (at most the margin) against its peak.
    pub(crate) fn waveform(&self, shift: f32) -> Vec<f32> {
        let limit = self.margin as f32;
        let position = limit + shift.clamp(-limit, limit);
        let whole = position.floor();
        let part = position - whole;
        let first = whole as usize;
        let mut both = Vec::with_capacity(CHANNELS * SEGMENT_SAMPLES);
        both.extend((first..first + SEGMENT_SAMPLES).map(|at| {
            let here = self.beat[at];
            // The last sample has no successor, but there `part` is zero.
            let next = self.beat.get(at + 1).copied().unwrap_or(here);
            here + part * (next - here)
        }));
        both.extend_from_within(..);
        for (deviation, usual) in both[SEGMENT_SAMPLES..].iter_mut().zip(&*self.median) {
            *deviation -= usual;
        }
        both
    }
}

pub(crate) fn segments(
    mv: &[f32],
    rate: SampleRate,
    peaks: &[usize],
    margin: usize,
) -> Vec<Option<Segment>> {
    let none = vec![None; peaks.len()];
    if mv.len() > MAX_WINDOW_SAMPLES || rate.hz() < RATE_MIN_HZ {
        return none;
    }
    let signal = without_baseline(mv, rate);
    let cuts: Vec<Option<Vec<f32>>> =
        peaks.iter().map(|peak| cut(&signal, rate, *peak, margin)).collect();
    let Some(median) = median_beat(&cuts, margin) else { return none };
    let height = height(&median);
    if height < HEIGHT_MIN_MV {
        return none;
    }
    let median = std::sync::Arc::new(median.into_iter().map(|mv| mv / height).collect::<Vec<_>>());
    let rhythm = rhythm(&intervals(mv, rate, peaks));
    cuts.into_iter()
        .zip(rhythm)
        .map(|(cut, rr)| {
            let beat = cut?.into_iter().map(|mv| mv / height).collect();
            Some(Segment { margin, beat, median: median.clone(), rr: rr? })
        })
        .collect()
}

/// Subtracts the moving average of the moving average. Missing samples stay missing and do not count.
fn without_baseline(mv: &[f32], rate: SampleRate) -> Vec<f32> {
    let half = ((rate.hz() * BASELINE_HALF_S).round() as usize).max(1);
    let once = moving_average(mv, half);
    let twice = moving_average(&once, half);
    mv.iter().zip(twice).map(|(mv, baseline)| mv - baseline).collect()
}

/// The mean of the samples at most `half` away that are there; at the edges of those inside.
fn moving_average(values: &[f32], half: usize) -> Vec<f32> {
    let present = |value: &f32| if value.is_finite() { (f64::from(*value), 1) } else { (0.0, 0) };
    let (mut sum, mut count) = (0.0, 0);
    for value in values.iter().take(half) {
        let (value, one) = present(value);
        sum += value;
        count += one;
    }
    (0..values.len())
        .map(|at| {
            if let Some((value, one)) = values.get(at + half).map(present) {
                sum += value;
                count += one;
            }
            if let Some((value, one)) = at.checked_sub(half + 1).map(|left| present(&values[left]))
            {
                sum -= value;
                count -= one;
            }
            if count == 0 { f32::NAN } else { (sum / f64::from(count)) as f32 }
        })
        .collect()
}

/// The segment around `peak`; `None` if a sample of it is missing.
fn cut(signal: &[f32], rate: SampleRate, peak: usize, margin: usize) -> Option<Vec<f32>> {
    let step = rate.hz() / SEGMENT_RATE.hz();
    let before = (SEGMENT_BEFORE + margin) as f64;
    (0..SEGMENT_SAMPLES + 2 * margin)
        .map(|at| {
            let position = peak as f64 + (at as f64 - before) * step;
            if position < 0.0 {
                return None;
            }
            let first = position as usize;
            let part = (position - first as f64) as f32;
            let here = *signal.get(first)?;
            let value =
                if part == 0.0 { here } else { here + part * (signal.get(first + 1)? - here) };
            value.is_finite().then_some(value)
        })
        .collect()
}

/// Sample by sample the median over the segments, without their margins.
fn median_beat(cuts: &[Option<Vec<f32>>], margin: usize) -> Option<Vec<f32>> {
    let whole: Vec<&Vec<f32>> = cuts.iter().flatten().collect();
    let stride = whole.len().div_ceil(MEDIAN_BEATS_MAX).max(1);
    let chosen: Vec<&Vec<f32>> = whole.into_iter().step_by(stride).collect();
    if chosen.is_empty() {
        return None;
    }
    let mut column = vec![0.0; chosen.len()];
    Some(
        (margin..margin + SEGMENT_SAMPLES)
            .map(|at| {
                for (value, segment) in column.iter_mut().zip(&chosen) {
                    *value = segment[at];
                }
                median(&mut column)
            })
            .collect(),
    )
}

/// The upper median; the slice may not be empty.
fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

fn height(values: &[f32]) -> f32 {
    let (low, high) = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    high - low
}

/// Seconds from each peak to the next; `None` across a gap or if the next does not lie behind.
fn intervals(mv: &[f32], rate: SampleRate, peaks: &[usize]) -> Vec<Option<f32>> {
    peaks
        .windows(2)
        .map(|pair| {
            let between = (pair[0] < pair[1]).then(|| mv.get(pair[0]..=pair[1])).flatten()?;
            let whole = between.iter().all(|mv| mv.is_finite());
            whole.then(|| ((pair[1] - pair[0]) as f64 / rate.hz()) as f32)
        })
        .collect()
}

/// The numbers about the rhythm at each peak; `intervals[i]` lies between peaks `i` and `i + 1`.
fn rhythm(intervals: &[Option<f32>]) -> Vec<Option<[f32; RR_FEATURES]>> {
    let clamp = |value: f32| value.clamp(-RR_CLAMP, RR_CLAMP);
    let around_one = |seconds: f32| clamp((seconds - 0.8) / 0.3);
    let ratio = |part: f32, whole: f32| clamp(4.0 * (part / whole).ln());
    (0..=intervals.len())
        .map(|peak| {
            let before = peak.checked_sub(1)?;
            let pre = (*intervals.get(before)?)?;
            let post = (*intervals.get(peak)?)?;
            let previous = before.checked_sub(1).and_then(|at| intervals[at]).unwrap_or(pre);
            let near = &intervals
                [peak.saturating_sub(NEIGHBOURS)..(peak + NEIGHBOURS).min(intervals.len())];
            let mut known: Vec<f32> = near.iter().copied().flatten().collect();
            if known.len() < INTERVALS_MIN {
                return None;
            }
            let mut changes: Vec<f32> =
                known.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
            let usual = median(&mut known);
            let spread = median(&mut changes) / usual;
            Some([
                around_one(pre),
                around_one(post),
                around_one(usual),
                ratio(pre, usual),
                ratio(post, usual),
                ratio(pre, previous),
                ratio(post, pre),
                clamp(10.0 * spread),
            ])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: SampleRate = SEGMENT_RATE;

    /// A spike of 1 mV and 40 ms at each peak, on a slow wave.
    fn train(rate: SampleRate, seconds: usize, peaks: &[usize]) -> Vec<f32> {
        let count = (rate.hz() * seconds as f64) as usize;
        let mut mv: Vec<f32> =
            (0..count).map(|at| (at as f64 / rate.hz() * 1.2).sin() as f32 * 0.2).collect();
        for peak in peaks {
            for (at, value) in mv.iter_mut().enumerate() {
                let away = (at as f64 - *peak as f64) / rate.hz() / 0.02;
                *value += (-away * away).exp() as f32;
            }
        }
        mv
    }

    #[test]
    fn a_regular_rhythm_is_neutral_and_the_peak_is_in_its_place() {
        for hz in [200, 250, 360, 500] {
            let rate = SampleRate::from_hz(hz).unwrap();
            let peaks: Vec<usize> = (1..12).map(|beat| beat * hz as usize * 4 / 5).collect();
            let inputs = beat_inputs(&train(rate, 10, &peaks), rate, &peaks);
            assert!(inputs[0].is_none() && inputs[10].is_none());
            for input in inputs[1..10].iter().flatten() {
                let wave = &input.waveform()[..SEGMENT_SAMPLES];
                let top = (0..SEGMENT_SAMPLES).max_by(|a, b| wave[*a].total_cmp(&wave[*b]));
                assert_eq!(top, Some(SEGMENT_BEFORE), "{hz} Hz");
                assert!(input.rr().iter().all(|value| value.abs() < 1e-3), "{:?}", input.rr());
                // Usual beats hardly differ from the median one.
                assert!(input.waveform()[SEGMENT_SAMPLES..].iter().all(|v| v.abs() < 0.1));
            }
            assert_eq!(inputs.iter().flatten().count(), 9);
        }
    }

    #[test]
    fn an_early_beat_is_early() {
        let mut peaks: Vec<usize> = (1..12).map(|beat| beat * 200).collect();
        peaks[5] -= 60;
        let inputs = beat_inputs(&train(RATE, 10, &peaks), RATE, &peaks);
        let rr = *inputs[5].as_ref().unwrap().rr();
        assert!(rr[3] < -1.0 && rr[4] > 0.9 && rr[5] < -1.0 && rr[6] > 2.0, "{rr:?}");
    }

    #[test]
    fn gaps_take_the_beats_that_they_touch() {
        let peaks: Vec<usize> = (1..12).map(|beat| beat * 200).collect();
        let mut mv = train(RATE, 10, &peaks);
        mv[1150] = f32::NAN;
        let inputs = beat_inputs(&mv, RATE, &peaks);
        let there: Vec<bool> = inputs.iter().map(Option::is_some).collect();
        // 1150 lies between the peaks at 1000 and 1200: neither knows its interval there.
        let expected = [false, true, true, true, false, false, true, true, true, true, false];
        assert_eq!(there, expected);
    }

    #[test]
    fn flat_slow_and_disordered_windows_have_no_inputs() {
        let peaks: Vec<usize> = (1..12).map(|beat| beat * 200).collect();
        assert!(beat_inputs(&vec![0.5; 2500], RATE, &peaks).iter().all(Option::is_none));
        let slow = SampleRate::from_hz(50).unwrap();
        assert!(beat_inputs(&train(RATE, 10, &peaks), slow, &peaks).iter().all(Option::is_none));
        assert!(beat_inputs(&[], RATE, &[7]).iter().all(Option::is_none));
        assert!(beat_inputs(&train(RATE, 10, &peaks), RATE, &[]).is_empty());
        let disordered = beat_inputs(&train(RATE, 10, &peaks), RATE, &[600, 400, 400, 9_999_999]);
        assert!(disordered.iter().all(Option::is_none));
    }

    #[test]
    fn a_shift_moves_the_beat_and_not_the_median() {
        let peaks: Vec<usize> = (1..12).map(|beat| beat * 200).collect();
        let mv = train(RATE, 10, &peaks);
        let wide = segments(&mv, RATE, &peaks, 5);
        let beat = wide[3].as_ref().unwrap();
        assert_eq!(beat.waveform(0.0), beat_inputs(&mv, RATE, &peaks)[3].clone().unwrap().waveform);
        let moved = beat.waveform(3.0);
        assert_eq!(moved[SEGMENT_BEFORE - 3], beat.waveform(0.0)[SEGMENT_BEFORE]);
        assert!(beat.waveform(99.0).iter().all(|value| value.is_finite()));
    }

    proptest! {
        #[test]
        fn any_window_gives_finite_inputs(
            mv in proptest::collection::vec(prop_oneof![9 => -5.0_f32..5.0, 1 => Just(f32::NAN)], 0..2000),
            peaks in proptest::collection::vec(0_usize..2100, 0..30),
        ) {
            let inputs = beat_inputs(&mv, RATE, &peaks);
            prop_assert_eq!(inputs.len(), peaks.len());
            for input in inputs.iter().flatten() {
                prop_assert!(input.waveform().iter().chain(input.rr()).all(|value| value.is_finite()));
            }
        }

        #[test]
        fn gain_does_not_matter(gain in 0.2_f32..5.0) {
            let peaks: Vec<usize> = (1..12).map(|beat| beat * 200).collect();
            let mv = train(RATE, 10, &peaks);
            let louder: Vec<f32> = mv.iter().map(|mv| mv * gain).collect();
            for (a, b) in beat_inputs(&mv, RATE, &peaks).iter().zip(beat_inputs(&louder, RATE, &peaks)) {
                if let (Some(a), Some(b)) = (a, b) {
                    for (a, b) in a.waveform().iter().zip(b.waveform()) {
                        prop_assert!((a - b).abs() < 1e-3);
                    }
                }
            }
        }
    }
}
