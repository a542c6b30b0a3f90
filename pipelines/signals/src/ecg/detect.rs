//! R peaks.
//!
//! The chain is that of most QRS detectors since Pan & Tompkins 1985 (IEEE Trans Biomed Eng 32:230–236):
//! band-pass, slope, energy in a moving window, thresholds that follow the signal, search back. Two things
//! differ, because a slice is at hand whole: filters run both ways and shift nothing in time, and a
//! candidate is held against what lies *around* it and not only before it. So there is no learning phase, and
//! the first beat is found like any other.
//!
//! Not guaranteed: every threshold is relative, so that a slice without any ECG but with noise gives
//! peaks; `quality` tells. A paced beat is found by its complex, not by the spike. In ventricular flutter and
//! fibrillation there are no QRS complexes and no peaks are given; see `flutter_episodes`.

use std::ops::Range;

use haar_schema::SampleRate;

use super::filter::{Biquad, band_pass, fill_gaps, is_sample};
use super::flutter;

/// Below this rate a QRS complex is a sample or two, and nothing is detected.
pub const MIN_RATE_HZ: f64 = 50.0;

/// Band in which a QRS complex stands out from P and T waves, wander and muscle.
const BAND_HZ: (f64, f64) = (6.0, 18.0);

/// Width of a QRS complex: the window of the energy, in seconds.
const COMPLEX_S: f64 = 0.1;

/// How far the R lies at most from the middle of the energy, in seconds.
const PLACEMENT_S: f64 = 0.08;

/// Two beats are never nearer than this, in seconds: 250 per minute.
const REFRACTORY_S: f64 = 0.24;

/// Within this of a stronger complex a weak one is its P or T wave, in seconds (Pan & Tompkins: 360 ms).
const WAVE_S: f64 = 0.36;

/// And "weak" is less than this share of it (ibid.: half of the slope).
const WAVE_SHARE: f32 = 0.5;

/// Blocks in which the strongest complex is sought, in seconds: each holds a beat from 40 per minute up.
const BLOCK_S: f64 = 1.5;

/// Blocks on either side from which the usual strength is taken, so over 13.5 s in all.
const BLOCKS_AROUND: usize = 4;

/// Rank of the usual strength among them; below the median, because ectopic beats are often the stronger.
const USUAL_RANK: f64 = 0.45;

/// A complex has at least this share of the usual strength.
const THRESHOLD: f32 = 0.35;

/// And in a gap of the rhythm at least this one.
const SEARCH_BACK_THRESHOLD: f32 = 0.2;

/// A gap is longer than this many usual intervals.
const GAP: f64 = 1.5;

/// Intervals on either side from which the usual one is taken.
const INTERVALS_AROUND: usize = 4;

/// The least deflection of an R in the band, in mV: twice the usual step of a converter. Less is a flat line.
const MIN_R_MV: f32 = 0.01;

/// Finds the R peaks of one ECG lead: indices into `mv`, rising.
///
/// `mv` are samples in mV; NaN, infinite and absurd values (10 V) are no samples, are bridged, and never
/// bear a peak. Works from [`MIN_RATE_HZ`] up, on seconds as on hours; the result depends on nothing but the
/// slice.
/// A beat within a tenth of a second of either end may be missed.
pub fn detect_r_peaks(mv: &[f32], rate: SampleRate) -> Vec<usize> {
    let rate_hz = rate.hz();
    if rate_hz < MIN_RATE_HZ {
        return Vec::new();
    }
    let Some(mut signal) = fill_gaps(mv) else { return Vec::new() };
    let flutter = flutter::episodes(&signal, rate_hz);
    let (high, low) = (Biquad::high_pass(BAND_HZ.0, rate_hz), Biquad::low_pass(BAND_HZ.1, rate_hz));
    band_pass(&mut signal, high, low);
    let energy = slope_energy(&signal, (COMPLEX_S * rate_hz) as usize);
    let mut candidates = local_maxima(&energy, (REFRACTORY_S * rate_hz) as usize);
    drop(energy);
    leave_out(&mut candidates, &flutter);
    candidates.retain(|candidate| is_sample(mv[candidate.at]));

    let reach = (PLACEMENT_S * rate_hz) as usize;
    let mut peaks: Vec<usize> = choose(&candidates, mv.len(), rate_hz)
        .into_iter()
        .map(|candidate| largest_deflection(&signal, candidate.at, reach))
        .filter(|peak| signal[*peak].abs() >= MIN_R_MV && is_sample(mv[*peak]))
        .collect();
    peaks.dedup();
    peaks
}

/// A place that may be a QRS complex.
#[derive(Clone, Copy)]
struct Candidate {
    at: usize,
    /// Root of the slope energy.
    strength: f32,
}

/// Sum of the squared slope over a window around each sample.
fn slope_energy(signal: &[f32], width: usize) -> Vec<f32> {
    let half = width / 2;
    let slope = |index: usize| {
        let slope = f64::from(signal[index]) - f64::from(signal[index - 1]);
        slope * slope
    };
    let mut energy = Vec::with_capacity(signal.len());
    // A running sum; what a large artefact leaves behind of rounding is far below any beat.
    let mut sum: f64 = (1..signal.len().min(half)).map(slope).sum();
    for index in 0..signal.len() {
        if index + half < signal.len() && index + half > 0 {
            sum += slope(index + half);
        }
        if index > half + 1 {
            sum -= slope(index - half - 1);
        }
        energy.push(sum.max(0.0) as f32);
    }
    energy
}

/// Local maxima; of those nearer to each other than `distance` the larger.
fn local_maxima(energy: &[f32], distance: usize) -> Vec<Candidate> {
    let mut maxima: Vec<Candidate> = Vec::new();
    for (index, around) in energy.windows(3).enumerate() {
        if !(around[1] > around[0] && around[1] >= around[2]) {
            continue;
        }
        let here = Candidate { at: index + 1, strength: around[1].sqrt() };
        match maxima.last_mut() {
            Some(last) if here.at - last.at < distance => {
                if here.strength > last.strength {
                    *last = here;
                }
            }
            _ => maxima.push(here),
        }
    }
    maxima
}

/// Drops the candidates in `ranges`, which are in order.
fn leave_out(candidates: &mut Vec<Candidate>, ranges: &[Range<usize>]) {
    if !ranges.is_empty() {
        candidates.retain(|candidate| {
            let next = ranges.partition_point(|range| range.end <= candidate.at);
            !ranges.get(next).is_some_and(|range| range.contains(&candidate.at))
        });
    }
}

/// Those candidates that are beats.
fn choose(candidates: &[Candidate], samples: usize, rate_hz: f64) -> Vec<Candidate> {
    let block = ((BLOCK_S * rate_hz) as usize).max(1);
    let usual = usual_strengths(candidates, samples, block);
    let near = (WAVE_S * rate_hz) as usize;
    let outdone = |weak: &Candidate, strong: Option<&Candidate>| {
        strong.is_some_and(|strong| {
            weak.at.abs_diff(strong.at) < near && weak.strength < WAVE_SHARE * strong.strength
        })
    };
    // Not a P or T wave, with the share of the usual strength.
    let complexes: Vec<(Candidate, f32)> = candidates
        .iter()
        .enumerate()
        .filter(|(index, candidate)| {
            let before = index.checked_sub(1).and_then(|before| candidates.get(before));
            !outdone(candidate, before) && !outdone(candidate, candidates.get(index + 1))
        })
        .map(|(_, candidate)| (*candidate, candidate.strength / usual[candidate.at / block]))
        .collect();
    let sure: Vec<usize> =
        (0..complexes.len()).filter(|index| complexes[*index].1 >= THRESHOLD).collect();
    let intervals: Vec<usize> =
        sure.windows(2).map(|pair| complexes[pair[1]].0.at - complexes[pair[0]].0.at).collect();

    let mut beats = Vec::with_capacity(sure.len());
    let mut around = Vec::with_capacity(2 * INTERVALS_AROUND + 1);
    for (index, beat) in sure.iter().enumerate() {
        beats.push(complexes[*beat].0);
        let (Some(interval), Some(next)) = (intervals.get(index), sure.get(index + 1)) else {
            continue;
        };
        let first = index.saturating_sub(INTERVALS_AROUND);
        let last = (index + INTERVALS_AROUND + 1).min(intervals.len());
        around.clear();
        around.extend_from_slice(&intervals[first..last]);
        around.sort_unstable();
        if *interval as f64 > GAP * around[around.len() / 2] as f64 {
            let (from, to) = (complexes[*beat].0.at + near, complexes[*next].0.at - near);
            let found = complexes[beat + 1..*next]
                .iter()
                .filter(|(complex, share)| {
                    *share >= SEARCH_BACK_THRESHOLD && complex.at > from && complex.at < to
                })
                .max_by(|a, b| a.0.strength.total_cmp(&b.0.strength));
            beats.extend(found.map(|(complex, _)| *complex));
        }
    }
    beats
}

/// For every block the strength that complexes around it usually have; infinite where there are none.
fn usual_strengths(candidates: &[Candidate], samples: usize, block: usize) -> Vec<f32> {
    let mut strongest = vec![0.0_f32; samples.div_ceil(block)];
    for candidate in candidates {
        let block = &mut strongest[candidate.at / block];
        *block = block.max(candidate.strength);
    }
    let mut around = Vec::with_capacity(2 * BLOCKS_AROUND + 1);
    (0..strongest.len())
        .map(|index| {
            let first = index.saturating_sub(BLOCKS_AROUND);
            let last = (index + BLOCKS_AROUND + 1).min(strongest.len());
            around.clear();
            around.extend(strongest[first..last].iter().filter(|strength| **strength > 0.0));
            around.sort_unstable_by(f32::total_cmp);
            let rank = (around.len().saturating_sub(1) as f64 * USUAL_RANK) as usize;
            around.get(rank).copied().unwrap_or(f32::INFINITY)
        })
        .collect()
}

fn largest_deflection(signal: &[f32], at: usize, reach: usize) -> usize {
    let from = at.saturating_sub(reach);
    let mut largest = from;
    for index in from..(at + reach + 1).min(signal.len()) {
        if signal[index].abs() > signal[largest].abs() {
            largest = index;
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecg::tests::{noise, rhythm};
    use proptest::prelude::*;

    /// The beats of [`rhythm`] that lie within the slice.
    fn beats(rate_hz: f64, seconds: f64, interval_s: f64) -> Vec<usize> {
        (0..)
            .map(|beat| 0.4 + f64::from(beat) * interval_s)
            .take_while(|time| *time < seconds - 0.1)
            .map(|time| (time * rate_hz).round() as usize)
            .collect()
    }

    fn detect(mv: &[f32], rate_hz: f64) -> Vec<usize> {
        detect_r_peaks(mv, SampleRate::from_millihertz((rate_hz * 1e3) as u32).unwrap())
    }

    /// Every beat and nothing else, to within a sample and a bit.
    fn check(mv: &[f32], rate_hz: f64, expected: &[usize]) {
        let found = detect(mv, rate_hz);
        assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
        let reach = (0.012 * rate_hz) as usize + 1;
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.abs_diff(*expected) <= reach, "{found} {expected}");
        }
    }

    #[test]
    fn at_any_rate_and_heart_rate() {
        for rate_hz in [100.0, 125.0, 250.0, 360.0, 500.0, 1_000.0] {
            for interval_s in [0.35, 0.6, 0.8, 1.3] {
                let expected = beats(rate_hz, 30.0, interval_s);
                check(&rhythm(rate_hz, 30.0, interval_s), rate_hz, &expected);
            }
        }
    }

    #[test]
    fn through_wander_noise_and_inversion() {
        let clean = rhythm(250.0, 60.0, 0.8);
        let expected = beats(250.0, 60.0, 0.8);
        let wander: Vec<f32> =
            clean.iter().enumerate().map(|(i, v)| v + 2.0 * (i as f32 * 0.008).sin()).collect();
        check(&wander, 250.0, &expected);
        let noisy: Vec<f32> = clean.iter().zip(noise()).map(|(v, n)| v + 0.3 * n).collect();
        check(&noisy, 250.0, &expected);
        let inverted: Vec<f32> = clean.iter().map(|v| -v).collect();
        check(&inverted, 250.0, &expected);
        let saturated: Vec<f32> = clean.iter().map(|v| v.clamp(-0.4, 0.4)).collect();
        check(&saturated, 250.0, &expected);
    }

    #[test]
    fn a_gap_and_a_detached_lead_have_no_beats() {
        for nothing in [f32::NAN, 0.0, -5.0] {
            let mut mv = rhythm(250.0, 60.0, 0.8);
            mv[5_000..10_000].fill(nothing);
            let expected: Vec<usize> = beats(250.0, 60.0, 0.8)
                .into_iter()
                .filter(|beat| !(4_980..10_020).contains(beat))
                .collect();
            let found: Vec<usize> = detect(&mv, 250.0)
                .into_iter()
                // The step onto the rail and off it is a deflection like any other.
                .filter(|beat| !(4_960..5_040).contains(beat) && !(9_960..10_040).contains(beat))
                .collect();
            assert_eq!(found.len(), expected.len(), "{nothing}");
            assert!(!found.iter().any(|beat| (5_040..9_960).contains(beat)), "{nothing}");
        }
    }

    #[test]
    fn a_pause_is_a_pause_and_a_weak_beat_is_found() {
        let mut mv = rhythm(250.0, 30.0, 0.8);
        let mut expected = beats(250.0, 30.0, 0.8);
        mv[2_640..2_740].fill(0.0);
        expected.retain(|beat| !(2_640..2_740).contains(beat));
        // A third of the usual height.
        mv[4_640..4_760].iter_mut().for_each(|value| *value *= 0.33);
        check(&mv, 250.0, &expected);
    }

    #[test]
    fn flutter_has_no_beats() {
        let mut mv = rhythm(250.0, 60.0, 0.8);
        for (index, value) in mv[5_000..10_000].iter_mut().enumerate() {
            *value = 0.8 * (index as f32 * 0.113).sin();
        }
        let inside = detect(&mv, 250.0).into_iter().filter(|beat| (5_500..9_500).contains(beat));
        assert_eq!(inside.count(), 0);
    }

    #[test]
    fn of_nothing_comes_nothing() {
        assert!(detect(&[], 250.0).is_empty());
        assert!(detect(&[1.0], 250.0).is_empty());
        assert!(detect(&[1.0, 2.0, 1.0], 250.0).is_empty());
        assert!(detect(&vec![f32::NAN; 5_000], 250.0).is_empty());
        assert!(detect(&vec![0.4; 5_000], 250.0).is_empty());
        assert!(detect(&rhythm(250.0, 10.0, 0.8), 49.0).is_empty());
    }

    fn samples() -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(
            prop_oneof![
                20 => -3.0f32..3.0,
                1 => Just(f32::NAN),
                1 => Just(f32::INFINITY),
                1 => Just(f32::MAX),
                1 => Just(0.0f32),
            ],
            0..2_000,
        )
    }

    proptest! {
        #[test]
        fn anything_gives_rising_peaks_on_samples(mv in samples(), rate_hz in 1u32..2_000) {
            let rate_hz = f64::from(rate_hz);
            let peaks = detect(&mv, rate_hz);
            prop_assert!(peaks.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(peaks.iter().all(|peak| mv[*peak].is_finite()));
            prop_assert_eq!(detect(&mv, rate_hz), peaks);
        }

        #[test]
        fn gain_and_offset_change_nothing(
            interval_s in 0.4..1.4f64, power in -4i32..8, offset in -4.0f32..4.0,
        ) {
            let plain: Vec<f32> = rhythm(250.0, 20.0, interval_s)
                .iter()
                .zip(noise())
                .map(|(v, n)| v + 0.05 * n)
                .collect();
            // Whether a beat is there that the end of the slice cuts off, rounding may decide.
            let whole = |mv: &[f32]| {
                let mut peaks = detect(mv, 250.0);
                peaks.retain(|peak| peak + 25 < mv.len());
                peaks
            };
            let peaks = whole(&plain);
            // A power of two loses no digit; an offset loses a few, far below the noise.
            let gain = 2.0_f32.powi(power);
            let scaled: Vec<f32> = plain.iter().map(|v| v * gain).collect();
            prop_assert_eq!(&whole(&scaled), &peaks);
            let shifted: Vec<f32> = plain.iter().map(|v| v + offset).collect();
            let moved = whole(&shifted);
            prop_assert_eq!(moved.len(), peaks.len());
            prop_assert!(moved.iter().zip(&peaks).all(|(a, b)| a.abs_diff(*b) <= 1));
        }
    }
}
