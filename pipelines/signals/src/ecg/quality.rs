//! How far a stretch of ECG can be trusted.
//!
//! - Agreement of two detectors (bSQI): Li, Mark & Clifford 2008, Physiol Meas 29:15–32. The second detector
//!   here is the curve length transform of Zong, Moody & Jiang 2003, Computers in Cardiology 30:737–740,
//!   with a fixed share of its usual height as threshold: another principle, and more easily misled by noise.
//! - Baseline power (basSQI) and kurtosis (kSQI): Clifford et al. 2012, Physiol Meas 33:1419–1433.
//! - Flat and saturated shares: what the entries to the PhysioNet/CinC Challenge 2011 had in common.
//!
//! The index is a product: each part alone can condemn a stretch. It says nothing about the rhythm.

use haar_schema::SampleRate;

use super::detect::MIN_RATE_HZ;
use super::filter::{Biquad, fill_gaps, is_sample};
use super::matching::match_beats;

/// Two detections are of the same beat within this, in seconds (EC57: 150 ms).
const SAME_BEAT_S: f64 = 0.15;

/// Kurtosis from which the part is 1 (Clifford 2012: 5 tells a clean ECG).
const CLEAN_KURTOSIS: f64 = 5.0;

/// Share of the power from which the baseline part is 1: wander has less than half.
const CLEAN_BASELINE: f64 = 0.5;

/// Baseline wander is below this (basSQI).
const BASELINE_HZ: f64 = 1.0;

/// And the power of an ECG below this.
const ECG_HZ: f64 = 40.0;

/// The signal does not move if it stays within this for [`FLAT_S`], in mV: a converter's usual step.
const FLAT_MV: f32 = 0.005;

/// A T-P line at rest is shorter, in seconds.
const FLAT_S: f64 = 0.5;

/// Saturation is at least so many equal samples on end at an extreme of the stretch, in seconds.
const SATURATED_S: f64 = 0.03;

/// Low-pass before the curve length, and its window (Zong 2003: 16 Hz, 130 ms).
const LENGTH_HZ: f64 = 16.0;
const LENGTH_S: f64 = 0.13;

/// Blocks in which the largest curve length is sought, in seconds.
const LENGTH_BLOCK_S: f64 = 2.0;

/// Share of the usual largest curve length, above the least, that a beat reaches.
const LENGTH_SHARE: f32 = 0.4;

/// Two beats are never nearer than this, in seconds (Zong 2003: 250 ms).
const LENGTH_REFRACTORY_S: f64 = 0.25;

/// How far a stretch of ECG can be trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// The signal quality index, 0 (worthless) to 1: agreement × baseline/0.5 (at most 1) ×
    /// kurtosis/5 (at most 1) × the share that is neither flat nor saturated.
    pub index: f64,
    /// Agreement of two detectors of different principle, 0–1 (bSQI).
    pub agreement: f64,
    /// Share of the power from 0 to 40 Hz that is not baseline wander below 1 Hz, 0–1 (basSQI).
    pub baseline: f64,
    /// Kurtosis of the samples; about 3 for noise, above 5 for a clean ECG (kSQI).
    pub kurtosis: f64,
    /// Share of samples in which the signal does not move for half a second, 0–1.
    pub flat: f64,
    /// Share of samples that stand still at the largest or smallest value, 0–1.
    pub saturated: f64,
}

/// Share of samples that are there (neither NaN nor absurd), 0–1; 0 for an empty slice.
pub fn coverage(mv: &[f32]) -> f64 {
    if mv.is_empty() {
        return 0.0;
    }
    mv.iter().filter(|value| is_sample(**value)).count() as f64 / mv.len() as f64
}

/// The quality of a stretch of ECG with the R peaks that [`detect_r_peaks`](super::detect_r_peaks) found in
/// it. `None` for less than two seconds, at rates below [`MIN_RATE_HZ`], and without any sample.
///
/// Gaps are bridged and do not lower the index; read [`coverage`] beside it.
pub fn quality(mv: &[f32], rate: SampleRate, peaks: &[usize]) -> Option<Quality> {
    let rate_hz = rate.hz();
    let block = (LENGTH_BLOCK_S * rate_hz) as usize;
    if rate_hz < MIN_RATE_HZ || mv.len() < block {
        return None;
    }
    let filled = fill_gaps(mv)?;
    let others = curve_length_beats(&filled, rate_hz, block);
    let agreement =
        match_beats(peaks, &others, (SAME_BEAT_S * rate_hz) as usize).f1().unwrap_or(0.0);
    let baseline = baseline_share(&filled, rate_hz);
    let kurtosis = kurtosis(&filled);
    let flat = flat_share(mv, (FLAT_S * rate_hz) as usize);
    let saturated = saturated_share(mv, (SATURATED_S * rate_hz).ceil() as usize);
    let usable = (1.0 - flat - saturated).max(0.0);
    let index = agreement
        * (baseline / CLEAN_BASELINE).min(1.0)
        * (kurtosis / CLEAN_KURTOSIS).min(1.0)
        * usable;
    Some(Quality { index, agreement, baseline, kurtosis, flat, saturated })
}

/// Beats where the length of the low-passed curve over a window stands out.
fn curve_length_beats(filled: &[f32], rate_hz: f64, block: usize) -> Vec<usize> {
    let mut curve = filled.to_vec();
    Biquad::low_pass(LENGTH_HZ, rate_hz).forwards(&mut curve);
    let window = ((LENGTH_S * rate_hz) as usize).max(1);
    let mut sum = 0.0_f64;
    let lengths: Vec<f32> = (0..curve.len())
        .map(|index| {
            let step = |at: usize| f64::from((curve[at] - curve[at.saturating_sub(1)]).abs());
            sum += step(index);
            if index >= window {
                sum -= step(index - window);
            }
            sum.max(0.0) as f32
        })
        .collect();
    let of_blocks = |choose: fn(f32, f32) -> f32| {
        let mut extremes: Vec<f32> = lengths
            .chunks_exact(block)
            .filter_map(|block| block.iter().copied().reduce(choose))
            .collect();
        extremes.sort_by(f32::total_cmp);
        extremes.get(extremes.len() / 2).copied().unwrap_or(0.0)
    };
    let (least, largest) = (of_blocks(f32::min), of_blocks(f32::max));
    let threshold = least + LENGTH_SHARE * (largest - least);
    let refractory = (LENGTH_REFRACTORY_S * rate_hz) as usize;
    let mut beats: Vec<(usize, f32)> = Vec::new();
    for (index, around) in lengths.windows(3).enumerate() {
        if around[1] <= threshold || around[1] <= around[0] || around[1] < around[2] {
            continue;
        }
        // The window ends at its sample and the filter lags; the beat is in its middle.
        let here = (index.saturating_sub(window / 2), around[1]);
        match beats.last_mut() {
            Some(last) if here.0 - last.0 < refractory => {
                if here.1 > last.1 {
                    *last = here;
                }
            }
            _ => beats.push(here),
        }
    }
    beats.into_iter().map(|(at, _)| at).collect()
}

/// 1 − P(0–1 Hz) / P(0–40 Hz), by filters instead of a spectrum; 0 for a flat line.
fn baseline_share(filled: &[f32], rate_hz: f64) -> f64 {
    let mean = filled.iter().map(|value| f64::from(*value)).sum::<f64>() / filled.len() as f64;
    let mut all: Vec<f32> = filled.iter().map(|value| value - mean as f32).collect();
    Biquad::low_pass(ECG_HZ, rate_hz).forwards(&mut all);
    let mut slow = all.clone();
    Biquad::low_pass(BASELINE_HZ, rate_hz).forwards(&mut slow);
    let power = |signal: &[f32]| signal.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    let whole = power(&all);
    if whole > 0.0 { (1.0 - power(&slow) / whole).clamp(0.0, 1.0) } else { 0.0 }
}

/// Fourth standardised moment; 0 for a flat line.
fn kurtosis(filled: &[f32]) -> f64 {
    let count = filled.len() as f64;
    let mean = filled.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let (squares, fourths) = filled.iter().fold((0.0, 0.0), |(squares, fourths), value| {
        let square = (f64::from(*value) - mean).powi(2);
        (squares + square, fourths + square * square)
    });
    if squares > 0.0 { count * fourths / (squares * squares) } else { 0.0 }
}

/// Share of samples in runs of at least `least` that stay within [`FLAT_MV`] of their first.
fn flat_share(mv: &[f32], least: usize) -> f64 {
    share_of_runs(mv, least, |first, value| (value - first).abs() <= FLAT_MV)
}

/// Share of samples in runs of at least `least` that stay at an extreme of the stretch.
fn saturated_share(mv: &[f32], least: usize) -> f64 {
    let samples = || mv.iter().copied().filter(|value| is_sample(*value));
    let lowest = samples().fold(f32::INFINITY, f32::min);
    let highest = samples().fold(f32::NEG_INFINITY, f32::max);
    share_of_runs(mv, least.max(2), |first, value| {
        value == first && (value == lowest || value == highest) && lowest < highest
    })
}

fn share_of_runs(mv: &[f32], least: usize, belongs: impl Fn(f32, f32) -> bool) -> f64 {
    let (mut counted, mut start) = (0, 0);
    for index in 0..mv.len() {
        // NaN belongs nowhere, so that a gap ends a run.
        if !belongs(mv[start], mv[index]) {
            start = index;
        }
        let run = index - start + 1;
        if belongs(mv[start], mv[index]) && run >= least {
            counted += if run == least { least } else { 1 };
        }
    }
    counted as f64 / mv.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecg::detect_r_peaks;
    use crate::ecg::tests::{noise, rhythm};
    use proptest::prelude::*;

    fn judge(mv: &[f32]) -> Quality {
        let rate = SampleRate::from_hz(250).unwrap();
        quality(mv, rate, &detect_r_peaks(mv, rate)).unwrap()
    }

    #[test]
    fn a_clean_rhythm_is_trusted_and_a_spoilt_one_is_not() {
        let clean = rhythm(250.0, 20.0, 0.8);
        assert!(judge(&clean).index > 0.9, "{:?}", judge(&clean));

        let noisy: Vec<f32> = clean.iter().zip(noise()).map(|(v, n)| v * 0.2 + n).collect();
        assert!(judge(&noisy).index < 0.6, "{:?}", judge(&noisy));

        let mut lead_off = clean.clone();
        lead_off[1_000..].fill(0.3);
        assert!(judge(&lead_off).flat > 0.75);
        assert!(judge(&lead_off).index < 0.25);

        let saturated: Vec<f32> = clean.iter().map(|v| (v * 20.0).clamp(-0.5, 1.0)).collect();
        assert!(judge(&saturated).saturated > 0.05, "{:?}", judge(&saturated));

        let wander: Vec<f32> =
            clean.iter().enumerate().map(|(i, v)| v + 3.0 * (i as f32 * 0.006).sin()).collect();
        assert!(judge(&wander).baseline < 0.1);
        assert!(judge(&wander).index < 0.25);
    }

    #[test]
    fn what_cannot_be_judged_is_not() {
        let rate = SampleRate::from_hz(250).unwrap();
        assert_eq!(quality(&[], rate, &[]), None);
        assert_eq!(quality(&[0.0; 499], rate, &[]), None);
        assert_eq!(quality(&[f32::NAN; 600], rate, &[]), None);
        assert_eq!(quality(&[0.0; 600], SampleRate::from_hz(20).unwrap(), &[]), None);
        assert_eq!(judge(&[0.5; 600]).index, 0.0);
    }

    #[test]
    fn coverage_counts_samples() {
        assert_eq!(coverage(&[]), 0.0);
        assert_eq!(coverage(&[0.1, f32::NAN, 0.2, f32::INFINITY]), 0.5);
    }

    proptest! {
        #[test]
        fn parts_are_shares(values in proptest::collection::vec(
            prop_oneof![20 => -5.0f32..5.0, 1 => Just(f32::NAN), 2 => Just(0.0f32)], 500..900)) {
            let rate = SampleRate::from_hz(250).unwrap();
            let quality = quality(&values, rate, &detect_r_peaks(&values, rate)).unwrap();
            for share in [quality.index, quality.agreement, quality.baseline, quality.flat, quality.saturated] {
                prop_assert!((0.0..=1.0).contains(&share), "{quality:?}");
            }
            prop_assert!(quality.kurtosis.is_finite());
        }
    }
}
