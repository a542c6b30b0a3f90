//! Pulses of a photoplethysmogram.
//!
//! Two moving averages of the signal above its baseline, as wide as a systolic peak and as a whole beat, cross where a
//! pulse is (Elgendi et al., *Systolic Peak Detection in Acceleration Photoplethysmograms…*, PLoS ONE 8(10):e76585,
//! 2013). Changed from the paper: the band-pass is the difference of two centred moving means instead of a Butterworth
//! filter, because that delays every frequency equally and is the same forwards in a stream; the signal is not squared, the beat
//! window is 600 ms instead of 667 and a crest half as wide passes, because a weak pulse between strong ones was lost at
//! 120 a minute (judged by the ECG's R peaks on BIDMC, all recordings); instead of squaring, a rule about height and time
//! keeps dicrotic waves out.
//!
//! Everything is done sample after sample, so that how a stream is cut into frames cannot change a bit of the result.

use std::collections::VecDeque;

use haar_schema::SampleRate;

use super::smoothing::CentredMean;

/// Signals sampled more slowly than this have no pulses found in them.
pub const MIN_RATE_HZ: f64 = 20.0;
/// Nor have those sampled faster than this: reduce them first.
pub const MAX_RATE_HZ: f64 = 2_000.0;

/// Widths of the low-pass and of the baseline that is taken off.
const SMOOTH_S: f64 = 0.04;
const BASELINE_S: f64 = 0.8;
/// Elgendi's W1, W2 and β, and how far back the mean reaches that β is a share of (he takes the whole recording).
const PEAK_S: f64 = 0.111;
const BEAT_S: f64 = 0.6;
const OFFSET: f64 = 0.02;
const LEVEL_S: f64 = 8.0;
/// Two pulses are at least this far apart (220 a minute).
const REFRACTORY_S: f64 = 0.27;
/// A peak sooner after a pulse than this share of the last interval, and lower than this share of the pulse,
/// is the pulse's own dicrotic wave.
const DICROTIC_INTERVAL: f64 = 0.6;
const DICROTIC_HEIGHT: f64 = 0.25;
/// The longest upstroke.
const UPSTROKE_S: f64 = 0.6;
/// A longer crest is no pulse.
const CREST_S: f64 = 1.5;
/// Shorter gaps are bridged by a straight line; a longer one ends the stream and begins another.
const BRIDGE_S: f64 = 0.1;
/// Less than this share of the level is rounding, not a pulse.
const ROUNDING: f64 = 1e-6;

/// One pulse. Places are samples from the beginning of the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pulse {
    /// Its lowest place before the upstroke.
    pub onset: u64,
    /// Where the tangent at the steepest place of the upstroke meets the level of the onset (Chiu et al.,
    /// *Arterioscler. Thromb.* 11:1440, 1991); between samples, from `onset` to `peak`.
    pub foot: f64,
    /// The systolic peak.
    pub peak: u64,
    /// The signal at the onset, smoothed over 40 ms, in its own unit.
    pub base: f64,
    /// The signal at the peak, smoothed likewise.
    pub height: f64,
    /// The mean over a second around the peak: the steady part.
    pub level: f64,
}

impl Pulse {
    /// From onset to peak, above 0.
    pub fn amplitude(&self) -> f64 {
        self.height - self.base
    }
}

/// The pulses of a whole signal in which systole points upwards, in its own unit.
///
/// NaN and infinities are gaps; up to 100 ms are bridged, and a pulse cut off by a longer one or by an end of the
/// signal is left out. Outside of [`MIN_RATE_HZ`] to [`MAX_RATE_HZ`] there are none.
pub fn detect_pulses(ppg: &[f32], rate: SampleRate) -> Vec<Pulse> {
    let mut pulses = Vec::new();
    if let Some(mut detector) = PulseDetector::new(rate) {
        detector.push(ppg, &mut pulses);
        detector.finish(&mut pulses);
    }
    pulses
}

/// The same as a stream: any cut of the samples into frames gives the very pulses of [`detect_pulses`].
///
/// A pulse comes out within about a second and a half of its peak. Memory: about 12 s of samples.
#[derive(Clone, Debug)]
pub struct PulseDetector {
    rate_hz: f64,
    /// Of the next sample.
    index: u64,
    /// Samples missing since the last one.
    missing: u64,
    last: f64,
    run: Option<Run>,
}

impl PulseDetector {
    /// For a stream of this rate; `None` outside of [`MIN_RATE_HZ`] to [`MAX_RATE_HZ`].
    pub fn new(rate: SampleRate) -> Option<Self> {
        let rate_hz = rate.hz();
        (MIN_RATE_HZ..=MAX_RATE_HZ).contains(&rate_hz).then_some(Self {
            rate_hz,
            index: 0,
            missing: 0,
            last: 0.0,
            run: None,
        })
    }

    /// Takes the next samples and appends the pulses that they complete to `pulses`.
    pub fn push(&mut self, ppg: &[f32], pulses: &mut Vec<Pulse>) {
        let bridge = (BRIDGE_S * self.rate_hz) as u64;
        for sample in ppg {
            if sample.is_finite() {
                self.take(f64::from(*sample), pulses);
            } else {
                self.missing += 1;
                if self.missing > bridge {
                    self.close(pulses);
                }
            }
            self.index += 1;
        }
    }

    /// Ends the stream: appends what was still held back. What is pushed after that is a new run, counted on.
    pub fn finish(&mut self, pulses: &mut Vec<Pulse>) {
        self.close(pulses);
    }

    fn take(&mut self, value: f64, pulses: &mut Vec<Pulse>) {
        let run = self.run.get_or_insert_with(|| Run::new(self.index, self.rate_hz));
        if run.taken > 0 {
            for k in 1..=self.missing {
                let share = k as f64 / (self.missing + 1) as f64;
                run.take(self.last + share * (value - self.last), pulses);
            }
        }
        run.take(value, pulses);
        (self.missing, self.last) = (0, value);
    }

    fn close(&mut self, pulses: &mut Vec<Pulse>) {
        if let Some(run) = self.run.take() {
            run.end(pulses);
        }
        self.missing = 0;
    }
}

/// A run of samples without a gap. Places in it count from its first sample.
#[derive(Clone, Debug)]
struct Run {
    start: u64,
    rate_hz: f64,
    taken: u64,
    smooth: CentredMean,
    baseline: CentredMean,
    /// Smoothed values that wait for their baseline.
    waiting: VecDeque<f64>,
    peak: CentredMean,
    beat: CentredMean,
    /// Means over a peak that wait for theirs over a beat.
    peaks_waiting: VecDeque<f64>,
    /// The mean over the last [`LEVEL_S`], by a window that only looks back.
    level: TrailingMean,
    levels_waiting: VecDeque<f64>,
    /// Smoothed signal and baseline, the latest last.
    history: VecDeque<(f64, f64)>,
    history_start: usize,
    /// Of the next comparison of the two means.
    at: usize,
    crest_start: Option<usize>,
    held: Option<Pulse>,
    before: Option<Pulse>,
}

impl Run {
    fn new(start: u64, rate_hz: f64) -> Self {
        Self {
            start,
            rate_hz,
            taken: 0,
            smooth: CentredMean::spanning(SMOOTH_S, rate_hz),
            baseline: CentredMean::spanning(BASELINE_S, rate_hz),
            waiting: VecDeque::new(),
            peak: CentredMean::spanning(PEAK_S, rate_hz),
            beat: CentredMean::spanning(BEAT_S, rate_hz),
            peaks_waiting: VecDeque::new(),
            level: TrailingMean::new((LEVEL_S * rate_hz) as usize),
            levels_waiting: VecDeque::new(),
            history: VecDeque::new(),
            history_start: 0,
            at: 0,
            crest_start: None,
            held: None,
            before: None,
        }
    }

    fn take(&mut self, value: f64, pulses: &mut Vec<Pulse>) {
        self.taken += 1;
        if let Some(smooth) = self.smooth.push(value) {
            self.waiting.push_back(smooth);
        }
        if let Some(baseline) = self.baseline.push(value) {
            self.filtered(baseline, pulses);
        }
    }

    fn end(mut self, pulses: &mut Vec<Pulse>) {
        while let Some(smooth) = self.smooth.drain() {
            self.waiting.push_back(smooth);
        }
        while let Some(baseline) = self.baseline.drain() {
            self.filtered(baseline, pulses);
        }
        while let Some(peak) = self.peak.drain() {
            self.peaks_waiting.push_back(peak);
        }
        while let Some(beat) = self.beat.drain() {
            self.compare(beat, pulses);
        }
        self.crest_ends(pulses);
        self.release(pulses);
    }

    fn filtered(&mut self, baseline: f64, pulses: &mut Vec<Pulse>) {
        // The smoothing window is the narrower, so that its value is there.
        let Some(smooth) = self.waiting.pop_front() else { return };
        self.history.push_back((smooth, baseline));
        let keep = ((CREST_S + UPSTROKE_S + BEAT_S) * self.rate_hz) as usize + 2;
        if self.history.len() > keep {
            self.history.pop_front();
            self.history_start += 1;
        }
        let above = Some(smooth - baseline).filter(|above| *above > ROUNDING * baseline.abs());
        let above = above.unwrap_or(0.0);
        self.levels_waiting.push_back(self.level.push(above));
        if let Some(peak) = self.peak.push(above) {
            self.peaks_waiting.push_back(peak);
        }
        if let Some(beat) = self.beat.push(above) {
            self.compare(beat, pulses);
        }
    }

    fn compare(&mut self, beat: f64, pulses: &mut Vec<Pulse>) {
        let peak = self.peaks_waiting.pop_front().unwrap_or(0.0);
        let level = self.levels_waiting.pop_front().unwrap_or(0.0);
        if peak > beat + OFFSET * level {
            self.crest_start.get_or_insert(self.at);
        } else {
            self.crest_ends(pulses);
            let refractory = (REFRACTORY_S * self.rate_hz) as u64;
            if self.held.is_some_and(|held| self.at as u64 >= held.peak + refractory) {
                self.release(pulses);
            }
        }
        self.at += 1;
    }

    fn crest_ends(&mut self, pulses: &mut Vec<Pulse>) {
        let Some(start) = self.crest_start.take() else { return };
        let width = (self.at - start) as f64 / self.rate_hz;
        if !(PEAK_S / 2.0..=CREST_S).contains(&width) {
            return;
        }
        let Some(found) = self.measure(start) else { return };
        match self.held {
            Some(held) if found.amplitude() > held.amplitude() && self.too_near(&held, &found) => {
                self.held = Some(found);
            }
            Some(held) if self.too_near(&held, &found) || self.is_dicrotic(&held, &found) => {}
            _ => {
                self.release(pulses);
                let dicrotic = self.before.is_some_and(|last| self.is_dicrotic(&last, &found));
                if !dicrotic {
                    self.held = Some(found);
                }
            }
        }
    }

    /// The pulse whose crest begins at `start` and ends before [`Self::at`].
    fn measure(&self, start: usize) -> Option<Pulse> {
        let at = |place: usize| self.history.get(place - self.history_start).map_or(0.0, |v| v.0);
        let peak = (start..self.at).reduce(|best, k| if at(k) > at(best) { k } else { best })?;
        let last = self.held.or(self.before).map_or(0, |pulse| pulse.peak as usize);
        let reach = (UPSTROKE_S * self.rate_hz) as usize;
        let from = peak.saturating_sub(reach).max(self.history_start).max(last);
        // The latest of equals: a flat foot ends where the upstroke begins.
        let onset = (from..peak).reduce(|best, k| if at(k) <= at(best) { k } else { best })?;
        let steepest = (onset + 1..=peak)
            .reduce(|best, k| if slope(&at, k) > slope(&at, best) { k } else { best })?;
        let (base, height) = (at(onset), at(peak));
        let is_cut_off = onset == 0 || peak as u64 + 1 >= self.taken;
        if is_cut_off || height <= base {
            return None;
        }
        let middle = (at(steepest) + at(steepest - 1)) / 2.0;
        let foot = steepest as f64 - 0.5 - (middle - base) / slope(&at, steepest);
        let foot = foot.clamp(onset as f64, peak as f64);
        let level = self.history.get(peak - self.history_start).map_or(0.0, |v| v.1);
        Some(Pulse { onset: onset as u64, foot, peak: peak as u64, base, height, level })
    }

    fn too_near(&self, earlier: &Pulse, later: &Pulse) -> bool {
        ((later.peak - earlier.peak) as f64) < REFRACTORY_S * self.rate_hz
    }

    fn is_dicrotic(&self, pulse: &Pulse, later: &Pulse) -> bool {
        let interval = match self.before {
            Some(before) if before.peak < pulse.peak => (pulse.peak - before.peak) as f64,
            _ => BEAT_S * self.rate_hz,
        };
        later.amplitude() < DICROTIC_HEIGHT * pulse.amplitude()
            && ((later.peak - pulse.peak) as f64) < DICROTIC_INTERVAL * interval
    }

    fn release(&mut self, pulses: &mut Vec<Pulse>) {
        let Some(held) = self.held.take() else { return };
        self.before = Some(held);
        pulses.push(Pulse {
            onset: self.start + held.onset,
            foot: self.start as f64 + held.foot,
            peak: self.start + held.peak,
            ..held
        });
    }
}

fn slope(at: &impl Fn(usize) -> f64, place: usize) -> f64 {
    at(place) - at(place - 1)
}

/// The mean of the last so many values.
#[derive(Clone, Debug)]
struct TrailingMean {
    length: usize,
    ring: VecDeque<f64>,
    sum: f64,
    since_sum: usize,
}

impl TrailingMean {
    fn new(length: usize) -> Self {
        Self { length, ring: VecDeque::new(), sum: 0.0, since_sum: 0 }
    }

    fn push(&mut self, value: f64) -> f64 {
        self.ring.push_back(value);
        self.sum += value;
        if self.ring.len() > self.length {
            self.sum -= self.ring.pop_front().unwrap_or(0.0);
        }
        self.since_sum += 1;
        if self.since_sum >= self.length {
            self.since_sum = 0;
            self.sum = self.ring.iter().sum();
        }
        self.sum / self.ring.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ppg::tests::{noise, pulse_wave};
    use proptest::prelude::*;

    fn rate(hz: u32) -> SampleRate {
        SampleRate::from_hz(hz).unwrap()
    }

    /// Every pulse and nothing else, peak and foot where they were put.
    fn check(ppg: &[f32], hz: u32, interval_s: f64, seconds: f64) {
        // A fast pulse has a beat before the first that is counted.
        let mut pulses = detect_pulses(ppg, rate(hz));
        pulses.retain(|pulse| pulse.peak as f64 > 0.45 * f64::from(hz));
        let expected: Vec<f64> = (0..)
            .map(|beat| 0.6 + f64::from(beat) * interval_s)
            .take_while(|time| *time < seconds - 0.4)
            .collect();
        // Whether those at the very end are whole is left open.
        let more = pulses.len().checked_sub(expected.len());
        assert!(more.is_some_and(|more| more <= 1), "{hz} Hz, {interval_s} s: {more:?}");
        for (pulse, time) in pulses.iter().zip(expected) {
            let peak = pulse.peak as f64 / f64::from(hz);
            assert!((peak - time).abs() < 0.03, "{peak} {time}");
            assert!(pulse.onset < pulse.peak && pulse.amplitude() > 0.4, "{pulse:?}");
            assert!((pulse.onset as f64..=pulse.peak as f64).contains(&pulse.foot));
        }
    }

    #[test]
    fn at_any_rate_and_pulse_rate() {
        for hz in [25, 64, 125, 500, 1_000] {
            for interval_s in [0.35, 0.6, 0.9, 1.6] {
                check(&pulse_wave(f64::from(hz), 30.0, interval_s), hz, interval_s, 30.0);
            }
        }
    }

    #[test]
    fn through_wander_and_noise() {
        let clean = pulse_wave(125.0, 60.0, 0.8);
        let wander: Vec<f32> =
            clean.iter().enumerate().map(|(i, v)| v + 0.5 * (i as f32 * 0.012).sin()).collect();
        check(&wander, 125, 0.8, 60.0);
        let noisy: Vec<f32> = clean.iter().zip(noise()).map(|(v, n)| v + 0.1 * n).collect();
        check(&noisy, 125, 0.8, 60.0);
    }

    #[test]
    fn gaps_end_a_run_and_short_ones_do_not() {
        let clean = pulse_wave(125.0, 30.0, 0.8);
        let mut holes = clean.clone();
        holes.iter_mut().skip(40).step_by(97).for_each(|value| *value = f32::NAN);
        check(&holes, 125, 0.8, 30.0);
        let mut gap = clean.clone();
        gap[1_250..2_500].fill(f32::NAN);
        let pulses = detect_pulses(&gap, rate(125));
        assert!(pulses.iter().all(|pulse| !(1_250..2_500).contains(&pulse.peak)));
        let whole = detect_pulses(&clean, rate(125));
        let outside =
            whole.iter().filter(|pulse| pulse.peak < 1_200 || pulse.onset > 2_505).count();
        assert!(pulses.len().abs_diff(outside) <= 1, "{} {outside}", pulses.len());
    }

    #[test]
    fn of_nothing_comes_nothing() {
        for nothing in [vec![], vec![1.0], vec![f32::NAN; 500], vec![0.4; 5_000]] {
            assert!(detect_pulses(&nothing, rate(125)).is_empty());
        }
        assert!(detect_pulses(&pulse_wave(19.0, 20.0, 0.8), rate(19)).is_empty());
        assert!(PulseDetector::new(rate(2_001)).is_none());
    }

    #[test]
    fn the_foot_is_where_the_upstroke_begins() {
        // A ramp of 100 ms after a flat second, then a slow fall: the tangent meets the floor at the ramp's start.
        let ppg: Vec<f32> = (0..1_250)
            .map(|sample| match sample % 125 {
                100..=112 => (sample % 125 - 100) as f32 / 12.0,
                later @ 113.. => 1.0 - (later - 112) as f32 / 100.0,
                early => (0.87 - early as f32 / 40.0).max(0.0),
            })
            .collect();
        let pulses = detect_pulses(&ppg, rate(125));
        assert_eq!(pulses.len(), 10);
        for (beat, pulse) in pulses.iter().enumerate() {
            assert!((pulse.foot - (beat * 125 + 100) as f64).abs() < 1.0, "{pulse:?}");
        }
    }

    fn samples() -> impl Strategy<Value = Vec<f32>> {
        let wave = (0.3f64..1.5, 0.0f32..0.5).prop_map(|(interval_s, strength)| {
            let wave = pulse_wave(50.0, 30.0, interval_s);
            wave.iter().zip(noise()).map(|(v, n)| v + strength * n).collect()
        });
        let anything = proptest::collection::vec(
            prop_oneof![
                20 => -3.0f32..3.0,
                2 => Just(f32::NAN),
                1 => Just(f32::INFINITY),
                1 => Just(f32::MAX),
                1 => Just(0.0f32),
            ],
            0..1_500,
        );
        prop_oneof![wave, anything]
    }

    proptest! {
        #[test]
        fn cuts_change_no_bit(ppg in samples(), cuts in proptest::collection::vec(1usize..200, 1..40)) {
            let mut detector = PulseDetector::new(rate(50)).unwrap();
            let (mut pulses, mut rest) = (Vec::new(), ppg.as_slice());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (frame, after) = rest.split_at((*cut).min(rest.len()));
                detector.push(frame, &mut pulses);
                rest = after;
            }
            detector.finish(&mut pulses);
            prop_assert_eq!(pulses, detect_pulses(&ppg, rate(50)));
        }

        #[test]
        fn anything_gives_rising_pulses(ppg in samples(), hz in 20u32..2_000) {
            let pulses = detect_pulses(&ppg, rate(hz));
            prop_assert!(pulses.windows(2).all(|pair| pair[0].peak < pair[1].peak));
            prop_assert!(pulses.iter().all(|pulse| pulse.onset < pulse.peak
                && (pulse.peak as usize) < ppg.len()
                && pulse.amplitude() > 0.0
                && (pulse.onset as f64..=pulse.peak as f64).contains(&pulse.foot)));
        }

        #[test]
        fn gain_changes_no_place(interval_s in 0.4..1.4f64, power in -6i32..8) {
            let plain: Vec<f32> =
                pulse_wave(125.0, 20.0, interval_s).iter().zip(noise()).map(|(v, n)| v + 0.05 * n).collect();
            let scaled: Vec<f32> = plain.iter().map(|value| value * 2.0_f32.powi(power)).collect();
            let places = |ppg: &[f32]| -> Vec<(u64, u64)> {
                detect_pulses(ppg, rate(125)).iter().map(|pulse| (pulse.onset, pulse.peak)).collect()
            };
            prop_assert_eq!(places(&plain), places(&scaled));
        }
    }
}
