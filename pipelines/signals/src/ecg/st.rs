//! ST level: how far the segment after the J point lies above or below the isoelectric line.
//!
//! Measured 80 ms after the J point, or 60 ms after it above 120 beats per minute, against the level just
//! before the complex, as the European ST-T database was (Taddei et al. 1992, Eur Heart J 13:1164–1172).
//! Levels in mV of the lead as it was recorded: a high-pass of 0.5 Hz and more, as monitors have, bends the
//! ST segment, and no arithmetic brings it back (AHA 2007, Circulation 115:1306–1324, asks for 0.05 Hz).
//!
//! Take ectopic beats out first: their ST is secondary to the complex.

use haar_schema::SampleRate;

use super::delineate::{Absent, Delineation};
use super::filter::is_sample;

/// Above this heart rate the level is taken at J + 60 ms instead of J + 80 ms.
pub const FAST_RATE_PER_MIN: f64 = 120.0;

/// The fewest beats of which a median beat is made.
pub const MIN_MEDIAN_BEATS: usize = 5;

/// From the J point to where the level is taken, in seconds: usually, and at a high heart rate.
const AFTER_J_S: (f64, f64) = (0.08, 0.06);

/// The stretch before the complex that is isoelectric, in seconds: the end of the PR segment.
const ISOELECTRIC_S: f64 = 0.02;

/// Half of the stretch over which the level is averaged, in seconds.
const AROUND_S: f64 = 0.006;

/// The ST level of one beat, or of a median beat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StLevel {
    /// Above (+) or below (−) the isoelectric level, in mV.
    pub level_mv: f64,
    /// From the J point to where it was taken, in ms: 80 or 60.
    pub after_j_ms: f64,
    /// Slope from the J point to there, in mV per second.
    pub slope_mv_per_s: f64,
    /// Beats that it is made of.
    pub beats: usize,
}

/// Why there is no ST level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StError {
    /// The complex was not delineated.
    #[error("no complex to measure from: {0}")]
    NoComplex(#[from] Absent),
    /// Samples are missing, or the slice ends, before the complex or around J and the place to measure at.
    #[error("samples are missing around the isoelectric line or the ST segment")]
    Gap,
    /// Fewer than [`MIN_MEDIAN_BEATS`] beats can be measured.
    #[error("{found} usable beats, {MIN_MEDIAN_BEATS} are needed: take a longer window")]
    TooFewBeats {
        /// Beats that could be measured.
        found: usize,
    },
}

/// The ST level of every beat. `beats` as [`super::delineate`] gives them for the same `mv`, in mV; the
/// interval to the beat before (for the first: after) says how fast the heart beats.
pub fn st_levels(
    mv: &[f32],
    rate: SampleRate,
    beats: &[Delineation],
) -> Vec<Result<StLevel, StError>> {
    let rate_hz = rate.hz();
    (0..beats.len())
        .map(|index| {
            let qrs = beats[index].qrs?;
            let level = isoelectric_mv(mv, rate_hz, qrs.onset).ok_or(StError::Gap)?;
            let after_s = after_j_s(interval_s(beats, index, rate_hz));
            measure(|place| sample(mv, place), qrs.end, level, after_s, rate_hz).ok_or(StError::Gap)
        })
        .collect()
}

/// The ST level of the median beat: every sample the median of all beats that can be measured, aligned at
/// their R peaks, each from its own isoelectric level; J at the median distance from R. Less noisy than the
/// median of the levels, and blind to a few odd beats.
pub fn median_st(mv: &[f32], rate: SampleRate, beats: &[Delineation]) -> Result<StLevel, StError> {
    let rate_hz = rate.hz();
    let usable: Vec<(usize, f64, usize)> = beats
        .iter()
        .filter_map(|beat| {
            let qrs = beat.qrs.ok()?;
            let level = isoelectric_mv(mv, rate_hz, qrs.onset)?;
            Some((beat.r, level, qrs.end.checked_sub(beat.r)?))
        })
        .collect();
    if usable.len() < MIN_MEDIAN_BEATS {
        return Err(StError::TooFewBeats { found: usable.len() });
    }
    let mut intervals: Vec<f64> =
        (1..beats.len()).filter_map(|index| interval_s(beats, index, rate_hz)).collect();
    let after_s = after_j_s(upper_median(&mut intervals));
    let mut ends: Vec<f64> = usable.iter().map(|(_, _, end)| *end as f64).collect();
    let j = upper_median(&mut ends).unwrap_or(0.0) as usize;
    let mut across = Vec::with_capacity(usable.len());
    let mut median_sample = |place: usize| {
        across.clear();
        across
            .extend(usable.iter().filter_map(|(r, level, _)| Some(sample(mv, r + place)? - level)));
        upper_median(&mut across)
    };
    let st = measure(&mut median_sample, j, 0.0, after_s, rate_hz).ok_or(StError::Gap)?;
    Ok(StLevel { beats: usable.len(), ..st })
}

/// The level just before a complex: median over [`ISOELECTRIC_S`] before its onset.
pub(super) fn isoelectric_mv(mv: &[f32], rate_hz: f64, onset: usize) -> Option<f64> {
    let from = onset.checked_sub((ISOELECTRIC_S * rate_hz).round() as usize)?;
    let mut before: Vec<f64> = (from..=onset).filter_map(|place| sample(mv, place)).collect();
    upper_median(&mut before)
}

/// From the beat before to this one; of the first to the one after.
pub(super) fn interval_s(beats: &[Delineation], index: usize, rate_hz: f64) -> Option<f64> {
    let (from, to) = if index > 0 { (index - 1, index) } else { (0, 1) };
    let samples = beats.get(to)?.r.checked_sub(beats.get(from)?.r)?;
    (samples > 0).then(|| samples as f64 / rate_hz)
}

/// The median, the upper one of an even number; `None` of nothing. Reorders.
pub(super) fn upper_median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

fn after_j_s(interval_s: Option<f64>) -> f64 {
    let fast = interval_s.is_some_and(|interval| 60.0 / interval > FAST_RATE_PER_MIN);
    if fast { AFTER_J_S.1 } else { AFTER_J_S.0 }
}

fn measure(
    mut sample: impl FnMut(usize) -> Option<f64>,
    j: usize,
    isoelectric_mv: f64,
    after_s: f64,
    rate_hz: f64,
) -> Option<StLevel> {
    let around = (AROUND_S * rate_hz) as usize;
    let mut level = |place: usize| {
        let values: Option<Vec<f64>> =
            (place.checked_sub(around)?..=place + around).map(&mut sample).collect();
        values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
    };
    let there = j + (after_s * rate_hz).round() as usize;
    let (at_j, level_there) = (level(j)?, level(there)?);
    Some(StLevel {
        level_mv: level_there - isoelectric_mv,
        after_j_ms: after_s * 1e3,
        slope_mv_per_s: (level_there - at_j) * rate_hz / (there - j).max(1) as f64,
        beats: 1,
    })
}

fn sample(mv: &[f32], place: usize) -> Option<f64> {
    mv.get(place).copied().filter(|value| is_sample(*value)).map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecg::delineate;
    use crate::ecg::tests::{noise, rhythm};
    use proptest::prelude::*;

    const RATE_HZ: f64 = 500.0;

    fn rate() -> SampleRate {
        SampleRate::from_hz(500).unwrap()
    }

    /// Beats without T, and with so many mV between J and where T would be.
    fn shifted(interval_s: f64, shift_mv: f64) -> (Vec<f32>, Vec<usize>) {
        let mut mv = rhythm(RATE_HZ, 20.0, interval_s);
        let peaks: Vec<usize> = (0..)
            .map(|beat| ((0.4 + interval_s * f64::from(beat)) * RATE_HZ).round() as usize)
            .take_while(|peak| *peak < mv.len())
            .collect();
        for (index, value) in mv.iter_mut().enumerate() {
            let since = (index as f64 / RATE_HZ - 0.4).rem_euclid(interval_s);
            // From the S wave to beyond J + 80 ms, with soft edges.
            let step = |at: f64| 1.0 / (1.0 + (-(since - at) / 0.002).exp());
            *value += (shift_mv * (step(0.04) - step(0.2))) as f32;
        }
        (mv, peaks)
    }

    #[test]
    fn an_elevation_is_as_high_as_it_was_made() {
        for shift_mv in [-0.2, 0.0, 0.1, 0.3] {
            let (mv, peaks) = shifted(0.8, shift_mv);
            let beats = delineate(&mv, rate(), &peaks);
            let levels = st_levels(&mv, rate(), &beats);
            // T of 0.3 mV at 0.27 s with a width of 45 ms adds a little at J + 80 ms.
            let t = |s: f64| 0.3 * (-0.5 * ((s - 0.27) / 0.045).powi(2)).exp();
            let at_s = beats[5].qrs.map(|qrs| (qrs.end - beats[5].r) as f64 / RATE_HZ).unwrap();
            let expected = shift_mv + t(at_s + 0.08);
            let found = levels[5].unwrap();
            assert!((found.level_mv - expected).abs() < 0.02, "{found:?} {expected}");
            assert_eq!(found.after_j_ms, 80.0);
            let median = median_st(&mv, rate(), &beats).unwrap();
            assert!((median.level_mv - expected).abs() < 0.02, "{median:?} {expected}");
            assert!(median.beats >= 22);
        }
    }

    #[test]
    fn a_fast_heart_is_measured_earlier() {
        let (mv, peaks) = shifted(0.45, 0.1);
        let beats = delineate(&mv, rate(), &peaks);
        assert_eq!(st_levels(&mv, rate(), &beats)[5].map(|st| st.after_j_ms), Ok(60.0));
        assert_eq!(median_st(&mv, rate(), &beats).map(|st| st.after_j_ms), Ok(60.0));
    }

    #[test]
    fn noise_averages_out_of_the_median_beat() {
        let (clean, peaks) = shifted(0.8, -0.15);
        let noisy: Vec<f32> = clean.iter().zip(noise()).map(|(v, n)| v + 0.1 * n).collect();
        let of = |mv: &[f32]| median_st(mv, rate(), &delineate(mv, rate(), &peaks)).unwrap();
        let (a, b) = (of(&clean), of(&noisy));
        assert!((a.level_mv - b.level_mv).abs() < 0.03, "{a:?} {b:?}");
    }

    #[test]
    fn gaps_and_few_beats_say_so() {
        let (mut mv, peaks) = shifted(0.8, 0.1);
        let beats = delineate(&mv, rate(), &peaks);
        mv[peaks[3] + 40..peaks[3] + 90].fill(f32::NAN);
        assert_eq!(st_levels(&mv, rate(), &beats)[3], Err(StError::Gap));
        assert_eq!(median_st(&mv, rate(), &beats[..3]), Err(StError::TooFewBeats { found: 3 }));
        let flat = vec![0.0; 2_000];
        let none = delineate(&flat, rate(), &[1_000]);
        assert_eq!(st_levels(&flat, rate(), &none), [Err(StError::NoComplex(Absent::Indistinct))]);
        assert!(st_levels(&[], rate(), &beats).iter().all(|st| *st == Err(StError::Gap)));
    }

    proptest! {
        #[test]
        fn an_offset_changes_nothing_and_gain_scales(offset in -4.0f32..4.0, power in -2i32..3) {
            let (mv, peaks) = shifted(0.8, 0.2);
            let beats = delineate(&mv, rate(), &peaks);
            let st = median_st(&mv, rate(), &beats).unwrap().level_mv;
            let moved: Vec<f32> = mv.iter().map(|v| v + offset).collect();
            prop_assert!((median_st(&moved, rate(), &beats).unwrap().level_mv - st).abs() < 1e-5);
            let scaled: Vec<f32> = mv.iter().map(|v| v * 2.0_f32.powi(power)).collect();
            let expected = st * 2.0_f64.powi(power);
            prop_assert!((median_st(&scaled, rate(), &beats).unwrap().level_mv - expected).abs() < 1e-9);
        }
    }
}
