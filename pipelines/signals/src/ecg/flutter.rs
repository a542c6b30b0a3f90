//! Ventricular flutter and fibrillation: a wave without QRS complexes.
//!
//! VF filter leakage: Kuo & Dillman 1978, "Computer detection of ventricular fibrillation", Computers in
//! Cardiology, 347–349. A wave that is nearly a sinusoid is cancelled by itself half a mean period later;
//! what is left over ("leaks") is 0 for a sinusoid and near 1 for narrow complexes. Their two thresholds
//! are used as begin and end of an episode.

use std::collections::VecDeque;
use std::ops::Range;

use haar_schema::SampleRate;

use super::detect::{Front, MIN_RATE_HZ, working_rate};
use super::filter::Biquad;
use super::filter::symmetric::Symmetric;

/// Windows in which the leakage is measured, in seconds; they follow each other by one second.
const WINDOW_S: usize = 4;

/// An episode begins where the leakage falls below this (Kuo & Dillman).
const BEGIN_LEAKAGE: f32 = 0.406;

/// And lasts while it stays below this (Kuo & Dillman), before that place for [`BACK`] windows at most.
const END_LEAKAGE: f32 = 0.625;

/// Windows before the begin that may yet turn out to belong to an episode. It bounds the delay.
const BACK: usize = 8;

/// Half a period of the slowest wave that is flutter, in seconds: 120 waves a minute. Slower sinusoids are
/// baseline wander.
const MAX_HALF_PERIOD_S: f64 = 0.25;

/// Band that is looked at.
const BAND_HZ: (f64, f64) = (2.0, 30.0);

/// The response of the band-pass is cut off this far from its middle, in seconds: eight time constants.
const BAND_REACH_S: f64 = 0.9;

/// The leakage is measured on means of so many working samples that about this rate remains.
const LEAKAGE_RATE_HZ: f64 = 60.0;

/// Where the signal is ventricular flutter or fibrillation rather than beats: ranges of samples, in order,
/// not touching. `mv` as for [`detect_r_peaks`](super::detect_r_peaks). Less than four seconds are not
/// judged, nor are rates below [`MIN_RATE_HZ`].
pub fn flutter_episodes(mv: &[f32], rate: SampleRate) -> Vec<Range<usize>> {
    let rate_hz = rate.hz();
    if rate_hz < MIN_RATE_HZ {
        return Vec::new();
    }
    let (divisor, working_hz) = working_rate(rate_hz);
    let (mut front, mut working) = (Front::new(divisor, rate_hz), Vec::new());
    front.push(mv, &mut working);
    front.finish(&mut working);
    let mut flutter = Flutter::new(working_hz, divisor);
    flutter.push(&working);
    flutter.finish();
    let mut episodes: Vec<Range<usize>> = Vec::new();
    for index in (0..flutter.decided.len()).filter(|index| flutter.decided[*index]) {
        let speaks_for = flutter.speaks_for(index, mv.len());
        match episodes.last_mut() {
            Some(last) if last.end >= speaks_for.start => last.end = speaks_for.end,
            _ => episodes.push(speaks_for),
        }
    }
    episodes
}

/// Judges working samples as they come.
pub(super) struct Flutter {
    /// Working samples in a sample of the leakage.
    divisor: usize,
    /// Samples of the stream in a second.
    second: usize,
    /// And samples of the leakage.
    window_step: usize,
    longest_half: usize,
    part: Vec<f32>,
    means: Vec<f32>,
    band_pass: Symmetric,
    band: Vec<f32>,
    /// Windows since the beginning: whether they are flutter, from window `first` on.
    decided: VecDeque<bool>,
    first: usize,
    /// Windows after those that the next one may yet make flutter.
    open: usize,
    ended: bool,
}

impl Flutter {
    /// For working samples at `working_hz`, each of which stands for `divisor` samples.
    pub(super) fn new(working_hz: f64, divisor: usize) -> Self {
        let further = ((working_hz / LEAKAGE_RATE_HZ) as usize).max(1);
        let leakage_hz = working_hz / further as f64;
        let window_step = (leakage_hz.round() as usize).max(1);
        let (high, low) =
            (Biquad::high_pass(BAND_HZ.0, leakage_hz), Biquad::low_pass(BAND_HZ.1, leakage_hz));
        Self {
            divisor: further,
            second: window_step * further * divisor,
            window_step,
            longest_half: (MAX_HALF_PERIOD_S * leakage_hz) as usize,
            part: Vec::new(),
            means: Vec::new(),
            band_pass: Symmetric::band_pass(high, low, (BAND_REACH_S * leakage_hz) as usize),
            band: Vec::new(),
            decided: VecDeque::new(),
            first: 0,
            open: 0,
            ended: false,
        }
    }

    /// Takes the next working samples.
    pub(super) fn push(&mut self, working: &[f32]) {
        self.part.extend_from_slice(working);
        let scale = 1.0 / self.divisor as f32;
        let means =
            self.part.chunks_exact(self.divisor).map(|part| part.iter().sum::<f32>() * scale);
        self.means.clear();
        self.means.extend(means);
        self.part.drain(..self.means.len() * self.divisor);
        self.band_pass.push(&self.means, &mut self.band);
        self.judge();
    }

    /// Ends the stream.
    pub(super) fn finish(&mut self) {
        self.band_pass.finish(&mut self.band);
        self.judge();
        self.close(false);
        self.ended = true;
    }

    /// Everything before this sample is decided.
    pub(super) fn frontier(&self) -> usize {
        match (self.first + self.decided.len(), self.ended) {
            (_, true) => usize::MAX,
            (0, false) => 0,
            (decided, false) => (decided + 1) * self.second,
        }
    }

    /// Whether sample `at`, before the frontier and not forgotten, lies in flutter.
    pub(super) fn contains(&self, at: usize) -> bool {
        // A window speaks for its middle half, the first and the last also for what lies beyond.
        let Some(last) = (self.first + self.decided.len()).checked_sub(1) else { return false };
        let later = (at / self.second).saturating_sub(1).min(last);
        let earlier = (at / self.second).saturating_sub(2).min(last);
        [earlier, later].iter().any(|window| self.decided[window - self.first])
    }

    /// Forgets what only samples before `at` need.
    pub(super) fn forget_before(&mut self, at: usize) {
        // The last one may have to speak for all that follows.
        let needed = (at / self.second).saturating_sub(2);
        while self.first < needed && self.decided.len() > 1 {
            self.decided.pop_front();
            self.first += 1;
        }
    }

    fn speaks_for(&self, window: usize, samples: usize) -> Range<usize> {
        let start = if window == 0 { 0 } else { (window + 1) * self.second };
        let last = window + 1 == self.decided.len();
        start..if last { samples } else { (window + 3) * self.second }
    }

    fn judge(&mut self) {
        let mut start = 0;
        while let Some(window) = self.band.get(start..start + WINDOW_S * self.window_step) {
            let leakage = leakage(window, self.longest_half);
            let goes_on = self.open == 0 && self.decided.back() == Some(&true);
            if leakage < BEGIN_LEAKAGE || (goes_on && leakage < END_LEAKAGE) {
                self.close(true);
                self.decided.push_back(true);
            } else if leakage < END_LEAKAGE {
                self.open += 1;
                if self.open > BACK {
                    self.open = BACK;
                    self.decided.push_back(false);
                }
            } else {
                self.close(false);
                self.decided.push_back(false);
            }
            start += self.window_step;
        }
        self.band.drain(..start);
    }

    fn close(&mut self, flutter: bool) {
        self.decided.extend(std::iter::repeat_n(flutter, std::mem::take(&mut self.open)));
    }
}

/// 0 for a sinusoid; 1 for what is none, or too slow.
fn leakage(window: &[f32], longest_half: usize) -> f32 {
    let level: f32 = window.iter().map(|value| value.abs()).sum();
    let change: f32 = window.windows(2).map(|pair| (pair[1] - pair[0]).abs()).sum();
    // Half of the mean period in samples: π Σ|v| / Σ|Δv|.
    let half = (std::f32::consts::PI * level / change + 0.5) as usize;
    if half == 0 || half >= longest_half {
        return 1.0;
    }
    let (mut left, mut all) = (0.0, 0.0);
    for (here, before) in window[half..].iter().zip(window) {
        left += (here + before).abs();
        all += here.abs() + before.abs();
    }
    if all > 0.0 { left / all } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(seconds: usize, hz: f64) -> Vec<f32> {
        (0..seconds * 250).map(|i| (i as f64 * hz * 0.025_132_741).sin() as f32).collect()
    }

    #[test]
    fn a_fast_sinusoid_is_flutter() {
        let rate = SampleRate::from_hz(250).unwrap();
        assert_eq!(flutter_episodes(&wave(20, 4.5), rate).first(), Some(&(0..5_000)));
        // Slow wander, a flat line, and nothing are not.
        assert!(flutter_episodes(&wave(20, 0.4), rate).is_empty());
        assert!(flutter_episodes(&vec![0.7; 5_000], rate).is_empty());
        assert!(flutter_episodes(&wave(3, 4.5), rate).is_empty());
        assert!(flutter_episodes(&[], rate).is_empty());
    }
}
