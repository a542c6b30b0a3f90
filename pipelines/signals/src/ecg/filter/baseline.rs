//! Baseline removal by medians: what wanders goes, and the ST segment stays where it is. Wander that climbs in
//! a third of a second by as much as a T wave is high is mistaken for one in part.

use std::collections::VecDeque;

use haar_schema::SampleRate;

use super::{DesignError, is_sample};
use crate::ecg::MIN_RATE_HZ;

/// The first median takes out QRS complexes and P waves, the second T waves: window widths in seconds (de
/// Chazal, O'Dwyer & Reilly 2004, IEEE Trans Biomed Eng 51:1196–1206).
const WINDOWS_S: [f64; 2] = [0.2, 0.6];

/// Takes off the baseline as [`remove_baseline`] does, as the samples come.
///
/// Output `i` belongs to input `i` and comes out once the 0.4 s after it are there; so many samples are kept.
/// However the stream is cut into frames, the result is the same to the last bit.
pub struct BaselineRemoval {
    medians: [RunningMedian; 2],
    /// Samples whose baseline is not known yet.
    waiting: VecDeque<f32>,
}

/// The signal less its baseline: a median over 200 ms and of that a median over 600 ms (de Chazal 2004).
///
/// Nothing is shifted in time. At either end the windows are cut off there, so the first and the last 0.4 s
/// follow the signal more closely. What is no sample (NaN, infinite, 10 V) takes no part in a median and comes
/// out as NaN. Rates from [`MIN_RATE_HZ`] to [`MAX_MEDIAN_RATE_HZ`](super::MAX_MEDIAN_RATE_HZ).
pub fn remove_baseline(mv: &[f32], rate: SampleRate) -> Result<Vec<f32>, DesignError> {
    let mut removal = BaselineRemoval::new(rate)?;
    let mut out = Vec::with_capacity(mv.len());
    removal.push(mv, &mut out);
    removal.finish(&mut out);
    Ok(out)
}

impl BaselineRemoval {
    /// For one lead.
    pub fn new(rate: SampleRate) -> Result<Self, DesignError> {
        if !(MIN_RATE_HZ..=super::MAX_MEDIAN_RATE_HZ).contains(&rate.hz()) {
            return Err(DesignError::Rate);
        }
        let medians =
            WINDOWS_S.map(|window| RunningMedian::new((0.5 * window * rate.hz()).round() as usize));
        Ok(Self { medians, waiting: VecDeque::new() })
    }

    /// Takes the next samples and appends to `out` what is settled.
    pub fn push(&mut self, mv: &[f32], out: &mut Vec<f32>) {
        let [first, second] = &mut self.medians;
        for value in mv {
            self.waiting.push_back(*value);
            if let Some(median) = first.push(*value)
                && let Some(baseline) = second.push(median)
            {
                out.extend(self.waiting.pop_front().map(|value| less(value, baseline)));
            }
        }
    }

    /// Appends what is left: all in all as many as were pushed.
    pub fn finish(self, out: &mut Vec<f32>) {
        let Self { medians: [mut first, mut second], mut waiting } = self;
        let mut baseline = Vec::new();
        while let Some(median) = first.drain() {
            baseline.extend(second.push(median));
        }
        while let Some(median) = second.drain() {
            baseline.push(median);
        }
        out.extend(waiting.drain(..).zip(baseline).map(|(value, baseline)| less(value, baseline)));
    }
}

fn less(value: f32, baseline: f32) -> f32 {
    if is_sample(value) { value - baseline } else { f32::NAN }
}

/// Medians over `half` values on either side and the one in the middle, as far as they are there.
struct RunningMedian {
    half: usize,
    window: VecDeque<f32>,
    /// Those of the window that are samples.
    sorted: Vec<f32>,
    /// Values in the window before the one whose median is next.
    before: usize,
}

impl RunningMedian {
    fn new(half: usize) -> Self {
        Self { half, window: VecDeque::new(), sorted: Vec::new(), before: 0 }
    }

    /// Takes a value and gives the median that is now complete.
    fn push(&mut self, value: f32) -> Option<f32> {
        self.window.push_back(value);
        if is_sample(value) {
            let at = self.sorted.partition_point(|other| other.total_cmp(&value).is_lt());
            self.sorted.insert(at, value);
        }
        if self.window.len() > self.before + self.half { Some(self.take()) } else { None }
    }

    /// A median for which no more values come; `None` after the last.
    fn drain(&mut self) -> Option<f32> {
        if self.window.len() > self.before { Some(self.take()) } else { None }
    }

    fn take(&mut self) -> f32 {
        let (middle, odd) = (self.sorted.len() / 2, self.sorted.len() % 2 == 1);
        let median = match self.sorted.get(middle) {
            None => f32::NAN,
            Some(upper) if odd => *upper,
            Some(upper) => 0.5 * (self.sorted[middle - 1] + upper),
        };
        if self.before < self.half {
            self.before += 1;
        } else if let Some(value) = self.window.pop_front()
            && is_sample(value)
        {
            let at = self.sorted.partition_point(|other| other.total_cmp(&value).is_lt());
            self.sorted.remove(at);
        }
        median
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecg::tests::rhythm;
    use proptest::prelude::*;

    fn rate() -> SampleRate {
        SampleRate::from_hz(250).unwrap()
    }

    /// The definition, computed anew at each sample.
    fn medians(values: &[f32], half: usize) -> Vec<f32> {
        (0..values.len())
            .map(|at| {
                let around = &values[at.saturating_sub(half)..(at + half + 1).min(values.len())];
                let mut around: Vec<f32> =
                    around.iter().copied().filter(|v| is_sample(*v)).collect();
                around.sort_by(f32::total_cmp);
                match around.len() {
                    0 => f32::NAN,
                    n if n % 2 == 1 => around[n / 2],
                    n => 0.5 * (around[n / 2 - 1] + around[n / 2]),
                }
            })
            .collect()
    }

    #[test]
    fn wander_goes_and_beats_stay() {
        let clean = rhythm(250.0, 30.0, 0.8);
        let wandering: Vec<f32> = clean
            .iter()
            .enumerate()
            .map(|(index, value)| value + 40.0 + 0.3 * (index as f32 * 0.005).sin())
            .collect();
        let out = remove_baseline(&wandering, rate()).unwrap();
        let still = remove_baseline(&clean, rate()).unwrap();
        for (still, out) in still.iter().zip(&out).skip(100).take(7_300) {
            assert!((still - out).abs() < 0.1, "{still} {out}");
        }
        for peak in (300..7_400).step_by(200) {
            assert!((clean[peak] - out[peak]).abs() < 0.1, "{} {}", clean[peak], out[peak]);
        }
    }

    #[test]
    fn rates_beyond_the_limits_are_refused() {
        for hz in [49, 10_001] {
            let rate = SampleRate::from_hz(hz).unwrap();
            assert_eq!(remove_baseline(&[], rate), Err(DesignError::Rate));
        }
    }

    proptest! {
        #[test]
        fn as_defined_and_however_cut(
            mv in proptest::collection::vec(
                prop_oneof![9 => -5.0f32..5.0, 2 => Just(f32::NAN), 1 => Just(1.0f32)], 0..500),
            cuts in proptest::collection::vec(1usize..120, 1..20),
        ) {
            let mut removal = BaselineRemoval::new(rate()).unwrap();
            let (mut out, mut rest) = (Vec::new(), &mv[..]);
            for cut in cuts.iter().cycle() {
                let (frame, after) = rest.split_at((*cut).min(rest.len()));
                removal.push(frame, &mut out);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            removal.finish(&mut out);
            let baseline = medians(&medians(&mv, 25), 75);
            let expected: Vec<u32> =
                mv.iter().zip(&baseline).map(|(v, b)| less(*v, *b).to_bits()).collect();
            prop_assert_eq!(out.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), expected);
        }
    }
}
