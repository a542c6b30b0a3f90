//! The detector on synthetic rhythms.

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
    fn cuts_change_nothing(
        interval_s in 0.35..1.4f64,
        rate_hz in prop_oneof![Just(100.0), Just(125.0), Just(250.0), Just(360.0), Just(611.0)],
        spoilt in proptest::collection::vec((0.0..60.0f64, 0.001..6.0f64, 0usize..4), 0..6),
        cuts in proptest::collection::vec(1usize..3_000, 1..30),
    ) {
        let mut mv = rhythm(rate_hz, 60.0, interval_s);
        mv.iter_mut().zip(noise()).for_each(|(value, noise)| *value += 0.2 * noise);
        for (begin_s, length_s, how) in spoilt {
            let (begin, end) = ((begin_s * rate_hz) as usize, ((begin_s + length_s) * rate_hz) as usize);
            let end = end.min(mv.len());
            for (index, value) in mv[begin.min(end)..end].iter_mut().enumerate() {
                *value = match how {
                    0 => f32::NAN,
                    1 => 5.0,
                    2 => if index % 3 == 0 { f32::NAN } else { *value },
                    _ => (index as f64 * 28.0 / rate_hz).sin() as f32,
                };
            }
        }
        let mut detector = Detector::new(SampleRate::from_millihertz((rate_hz * 1e3) as u32).unwrap());
        let (mut peaks, mut rest) = (Vec::new(), &mv[..]);
        for cut in cuts.iter().cycle() {
            let (frame, after) = rest.split_at((*cut).min(rest.len()));
            peaks.extend(detector.push(frame));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        peaks.extend(detector.finish());
        prop_assert_eq!(peaks, detect(&mv, rate_hz));
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

#[test]
fn memory_and_delay_are_bounded() {
    // A swelling wave, a lead that is off, one lost sample in two, and nothing but a rail.
    let rate = SampleRate::from_hz(250).unwrap();
    let swelling = |index: usize| (index as f32 * 0.25).sin() * index as f32 * 1e-4;
    let parts: [&dyn Fn(usize) -> f32; 4] = [
        &swelling,
        &|_| f32::NAN,
        &|index| if index % 2 == 0 { f32::NAN } else { swelling(index) },
        &|_| 5.0,
    ];
    let mut detector = Detector::new(rate);
    let mut taken = 0;
    for part in parts {
        for second in 0..120 {
            let frame: Vec<f32> = (second * 250..(second + 1) * 250).map(part).collect();
            detector.push(&frame);
            taken += frame.len();
            let behind_s = (taken - detector.settled()) as f64 / 250.0;
            assert!(behind_s <= DELAY_S_MAX, "{behind_s} s at {taken}");
            let stages = detector.stages.as_ref().unwrap();
            assert!(stages.band.samples.len() < 500, "{}", stages.band.samples.len());
            assert!(stages.complexes.len() < 120, "{}", stages.complexes.len());
        }
    }
}
