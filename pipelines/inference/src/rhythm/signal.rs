//! What is done to the samples before anything is looked for in them.
//!
//! Gaps are bridged, the rate becomes [`WORKING_RATE`], baseline wander and what lies above 40 Hz are
//! taken away, and a recording that was taken upside down is turned: lead I of a hand-held device is
//! reversed when it is held the wrong way round. Filters are symmetric and shift nothing in time.

use haar_schema::SampleRate;
use haar_signals::ecg::detect_r_peaks;
use std::f64::consts::PI;

/// Samples per second in which everything is done: that of the training data.
pub(super) const WORKING_HZ: usize = 300;
/// Samples per second of the network's waveform.
pub(super) const WAVEFORM_HZ: usize = 100;

/// Beyond this a sample is an artefact of transmission, in mV.
const MAX_MV: f32 = 10_000.0;
/// Baseline wander is what is left after two running means over this, in seconds.
const BASELINE_S: f64 = 0.8;
/// Low-pass of the waveform in Hz, and half the length of its kernel in samples.
const LOW_PASS_HZ: f64 = 40.0;
const LOW_PASS_HALF: usize = 20;
/// Zero crossings of the resampling kernel on either side.
const CROSSINGS: f64 = 8.0;
/// Around an R peak the larger deflection says which way up the recording is, in seconds.
const POLARITY_S: f64 = 0.06;

/// A recording made ready.
#[derive(Clone, Debug)]
pub(super) struct Signal {
    /// At [`WORKING_HZ`] without gaps, in mV, otherwise as it came.
    pub(super) raw: Vec<f32>,
    /// Without wander and above 40 Hz, the right way up, in units of the usual R peak.
    pub(super) clean: Vec<f32>,
    /// R peaks, indices into both.
    pub(super) peaks: Vec<usize>,
    /// The usual height of an R peak in mV.
    pub(super) height_mv: f32,
    /// Whether it was turned.
    pub(super) turned: bool,
}

impl Signal {
    /// From samples in mV; `None` if there is not a single one.
    pub(super) fn new(mv: &[f32], rate: SampleRate) -> Option<Self> {
        let raw = resample(&bridge(mv)?, rate.hz());
        let working = SampleRate::from_hz(WORKING_HZ as u32)?;
        let peaks = detect_r_peaks(&raw, working);
        let mut clean = low_pass(&without_baseline(&raw));
        let (height_mv, turned) = height(&clean, &peaks);
        let scale = if turned { -1.0 } else { 1.0 } / height_mv;
        clean.iter_mut().for_each(|value| *value *= scale);
        Some(Self { raw, clean, peaks, height_mv, turned })
    }

    /// Every third sample of the clean signal: at [`WAVEFORM_HZ`].
    pub(super) fn waveform(&self) -> Vec<f32> {
        self.clean.iter().step_by(WORKING_HZ / WAVEFORM_HZ).copied().collect()
    }

    /// Length in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.raw.len() as f64 / WORKING_HZ as f64
    }
}

/// Straight lines over gaps.
fn bridge(mv: &[f32]) -> Option<Vec<f32>> {
    let first = *mv.iter().find(|value| value.abs() < MAX_MV)?;
    let mut bridged = Vec::with_capacity(mv.len());
    let mut before = first;
    for value in mv {
        if value.abs() < MAX_MV {
            let gap = bridged.iter().rev().take_while(|value: &&f32| value.is_nan()).count();
            let (start, step) = (bridged.len() - gap, (value - before) / (gap + 1) as f32);
            for (k, missing) in bridged[start..].iter_mut().enumerate() {
                *missing = before + step * (k + 1) as f32;
            }
            before = *value;
            bridged.push(*value);
        } else {
            bridged.push(f32::NAN);
        }
    }
    bridged.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = before);
    Some(bridged)
}

/// To [`WORKING_HZ`] by a windowed sinc, which also takes away what the lower rate cannot hold.
fn resample(signal: &[f32], rate_hz: f64) -> Vec<f32> {
    let working_hz = WORKING_HZ as f64;
    if (rate_hz - working_hz).abs() < 1e-9 {
        return signal.to_vec();
    }
    let cutoff = (working_hz / rate_hz).min(1.0);
    let reach = CROSSINGS / cutoff;
    let count = (signal.len() as f64 * working_hz / rate_hz).floor() as usize;
    let last = signal.len() as isize - 1;
    (0..count)
        .map(|index| {
            let place = index as f64 * rate_hz / working_hz;
            let (mut sum, mut weights) = (0.0, 0.0);
            for at in (place - reach).ceil() as isize..=(place + reach).floor() as isize {
                let away = at as f64 - place;
                let window = 0.5 + 0.5 * (PI * away / reach).cos();
                let weight = window * sinc(cutoff * away);
                sum += weight * f64::from(signal[at.clamp(0, last) as usize]);
                weights += weight;
            }
            (sum / weights) as f32
        })
        .collect()
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

fn without_baseline(signal: &[f32]) -> Vec<f32> {
    let half = (BASELINE_S * WORKING_HZ as f64 / 2.0) as usize;
    let baseline = running_mean(&running_mean(signal, half), half);
    signal.iter().zip(baseline).map(|(value, baseline)| value - baseline).collect()
}

/// Mean over up to `half` samples on either side.
fn running_mean(signal: &[f32], half: usize) -> Vec<f32> {
    let mut sums = Vec::with_capacity(signal.len() + 1);
    let mut sum = 0.0_f64;
    sums.push(sum);
    for value in signal {
        sum += f64::from(*value);
        sums.push(sum);
    }
    (0..signal.len())
        .map(|at| {
            let (from, to) = (at.saturating_sub(half), (at + half + 1).min(signal.len()));
            ((sums[to] - sums[from]) / (to - from) as f64) as f32
        })
        .collect()
}

/// A Hamming-windowed sinc of 41 taps; at the ends the outermost sample goes on.
fn low_pass(signal: &[f32]) -> Vec<f32> {
    let cutoff = 2.0 * LOW_PASS_HZ / WORKING_HZ as f64;
    let tap = |at: usize| {
        let away = at as f64 - LOW_PASS_HALF as f64;
        (0.54 + 0.46 * (PI * away / LOW_PASS_HALF as f64).cos()) * sinc(cutoff * away)
    };
    let taps: Vec<f64> = (0..=2 * LOW_PASS_HALF).map(tap).collect();
    let sum: f64 = taps.iter().sum();
    let taps: Vec<f32> = taps.iter().map(|tap| (tap / sum) as f32).collect();
    let (Some(first), Some(last)) = (signal.first(), signal.last()) else { return Vec::new() };
    let mut longer = vec![*first; LOW_PASS_HALF];
    longer.extend_from_slice(signal);
    longer.extend(std::iter::repeat_n(*last, LOW_PASS_HALF));
    longer
        .windows(taps.len())
        .map(|around| around.iter().zip(&taps).map(|(value, tap)| value * tap).sum())
        .collect()
}

/// The usual height of an R peak (or without any the signal's deviation), never zero; and whether they point down.
fn height(clean: &[f32], peaks: &[usize]) -> (f32, bool) {
    let reach = (POLARITY_S * WORKING_HZ as f64) as usize;
    let around = |peak: &usize| &clean[peak.saturating_sub(reach)..(peak + reach).min(clean.len())];
    let mut up: Vec<f32> =
        peaks.iter().map(|peak| around(peak).iter().fold(0.0, |a: f32, b| a.max(*b))).collect();
    let mut down: Vec<f32> =
        peaks.iter().map(|peak| around(peak).iter().fold(0.0, |a: f32, b| a.max(-*b))).collect();
    up.sort_by(f32::total_cmp);
    down.sort_by(f32::total_cmp);
    let middle = |values: &[f32]| values.get(values.len() / 2).copied().unwrap_or(0.0);
    let (up, down) = (middle(&up), middle(&down));
    let power: f32 = clean.iter().map(|value| value * value).sum();
    let deviation = (power / clean.len().max(1) as f32).sqrt();
    // A downward S wave deeper than R is common; only a recording that is mostly below the line is turned.
    let turned = down > 1.3 * up;
    let height = up.max(down);
    (if height > 0.0 { height } else { deviation.max(1e-3) }, turned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(hz: f64, sign: f32) -> Vec<f32> {
        (0..(20.0 * hz) as usize)
            .map(|at| {
                let time = at as f64 / hz;
                let away = ((time + 0.4) % 0.8 - 0.4) / 0.012;
                sign * (-0.5 * away * away).exp() as f32
            })
            .collect()
    }

    #[test]
    fn turned_and_of_another_rate_it_is_the_same() {
        let of = |hz: f64, sign| {
            let rate = SampleRate::from_millihertz((hz * 1e3) as u32).unwrap();
            Signal::new(&beats(hz, sign), rate).unwrap()
        };
        let reference = of(300.0, 1.0);
        assert!(!reference.turned && of(300.0, -1.0).turned);
        assert_eq!(reference.clean, of(300.0, -1.0).clean);
        for hz in [200.0, 360.0, 500.0] {
            let other = of(hz, -1.0);
            assert!(other.clean.len().abs_diff(6_000) <= 1);
            let off = |(a, b): (&f32, &f32)| (a - b).abs();
            let inner = 300..5_700;
            let pairs = reference.clean[inner.clone()].iter().zip(&other.clean[inner]);
            let worst = pairs.map(off).fold(0.0, f32::max);
            assert!(worst < 0.1, "{hz}: {worst}");
        }
    }

    #[test]
    fn gaps_are_bridged() {
        let nan = f32::NAN;
        assert_eq!(
            bridge(&[nan, 1.0, nan, f32::INFINITY, 4.0, nan]).unwrap(),
            [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]
        );
        assert_eq!(bridge(&[nan]), None);
        let rate = SampleRate::from_hz(300).unwrap();
        assert!(Signal::new(&[0.0; 3_000], rate).unwrap().clean.iter().all(|value| *value == 0.0));
    }

    #[test]
    fn filters_keep_what_they_should() {
        let wave = |hz: f64| -> Vec<f32> {
            (0..3_000).map(|i| (2.0 * PI * hz * f64::from(i) / 300.0).sin() as f32).collect()
        };
        let gain = |signal: Vec<f32>| {
            signal[600..2_400].iter().fold(0.0_f32, |most, value| most.max(value.abs()))
        };
        assert!(gain(low_pass(&wave(20.0))) > 0.95);
        assert!(gain(low_pass(&wave(60.0))) < 0.05);
        assert!(gain(without_baseline(&wave(0.2))) < 0.15);
        assert!(gain(without_baseline(&wave(5.0))) > 0.9);
    }
}
