//! QT interval by the tangent, and its correction for heart rate.
//!
//! Tangent: Lepeschkin & Surawicz 1952, "The measurement of the Q-T interval of the electrocardiogram",
//! Circulation 6:378–388. T ends where the steepest tangent to its last limb meets the isoelectric line,
//! which is drawn from before this complex to before the next. The tangent is shorter than the eye by some
//! 10 ms, and needs no threshold.
//!
//! Corrections take QT and RR in ms:
//! - Bazett 1920, Heart 7:353–370: QT/√RR. Too much at high and too little at low rates, but what limits are
//!   written for.
//! - Fridericia 1920, Acta Med Scand 53:469–486: QT/∛RR.
//! - Framingham: Sagie et al. 1992, Am J Cardiol 70:797–801: QT + 154 ms·(1 − RR).
//! - Hodges et al. 1983, J Am Coll Cardiol 1:694: QT + 1.75·(heart rate − 60).
//!
//! QT follows a change of rate over a minute or two: in an irregular rhythm correct the median of many
//! beats with the median RR, as [`summarise`] does, and not beat by beat. One lead gives that lead's QT.

use haar_schema::SampleRate;

use super::delineate::{Absent, Delineation, Wave};
use super::filter::is_sample;
use super::st::{interval_s, isoelectric_mv, upper_median};

/// The fewest beats of which [`summarise`] takes a median.
pub const MIN_QT_BEATS: usize = 5;

/// A QT outside of this is a wave taken for another, in ms.
pub const PLAUSIBLE_QT_MS: (f64, f64) = (180.0, 800.0);

/// The slope is that of a least-squares line over so many seconds.
const TANGENT_S: f64 = 0.024;

/// The last limb is the last whose slope reaches this share of the steepest.
const LAST_LIMB_SHARE: f64 = 0.5;

/// QT of one beat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Qt {
    /// From the onset of the complex to the end of T.
    pub qt_ms: f64,
    /// The RR interval before it (for the first beat: after it), if there is one.
    pub rr_ms: Option<f64>,
}

/// QT of many beats: medians.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QtSummary {
    /// Median QT.
    pub qt_ms: f64,
    /// Median RR of the same beats.
    pub rr_ms: f64,
    /// Between the quartiles of QT: how far to believe it. Above about 60 ms the lead shows no clear T, and
    /// the median is best not used.
    pub spread_ms: f64,
    /// Beats that were measured.
    pub beats: usize,
}

/// How QT is corrected for the heart rate; see the module for the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// Square root of RR.
    Bazett,
    /// Cube root of RR.
    Fridericia,
    /// Linear in RR.
    Framingham,
    /// Linear in heart rate.
    Hodges,
}

/// Why there is no QT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QtError {
    /// The complex or T was not delineated.
    #[error("no complex or no T wave to measure: {0}")]
    NoWave(#[from] Absent),
    /// The tangent does not meet the isoelectric line within [`PLAUSIBLE_QT_MS`], or samples are missing.
    #[error("the T wave has no tangent that meets the isoelectric line in time")]
    NoTangent,
    /// Fewer than [`MIN_QT_BEATS`] beats have a QT and an RR.
    #[error("{found} measurable beats, {MIN_QT_BEATS} are needed: take a longer window")]
    TooFewBeats {
        /// Beats that have both.
        found: usize,
    },
}

impl Correction {
    /// QTc in ms: what QT would be at 60 beats per minute. Both in ms; NaN if `rr_ms` is not positive.
    pub fn qtc_ms(self, qt_ms: f64, rr_ms: f64) -> f64 {
        if rr_ms.is_nan() || rr_ms <= 0.0 {
            return f64::NAN;
        }
        let rr_s = rr_ms * 1e-3;
        match self {
            Self::Bazett => qt_ms / rr_s.sqrt(),
            Self::Fridericia => qt_ms / rr_s.cbrt(),
            Self::Framingham => qt_ms + 154.0 * (1.0 - rr_s),
            Self::Hodges => qt_ms + 1.75 * (60.0 / rr_s - 60.0),
        }
    }
}

/// QT of every beat. `beats` as [`super::delineate`] gives them for the same `mv`, in mV.
pub fn qt_intervals(
    mv: &[f32],
    rate: SampleRate,
    beats: &[Delineation],
) -> Vec<Result<Qt, QtError>> {
    let rate_hz = rate.hz();
    (0..beats.len())
        .map(|index| {
            let (qrs, t) = (beats[index].qrs?, beats[index].t?);
            let level = isoelectric_mv(mv, rate_hz, qrs.onset).ok_or(QtError::NoTangent)?;
            let next = beats.get(index + 1).and_then(|next| next.qrs.ok());
            let rise = next
                .and_then(|next| {
                    let there = isoelectric_mv(mv, rate_hz, next.onset)?;
                    let away = next.onset.checked_sub(qrs.onset).filter(|away| *away > 0)?;
                    Some((there - level) / away as f64)
                })
                .unwrap_or(0.0);
            let line = |place: f64| level + rise * (place - qrs.onset as f64);
            let end = tangent_end(mv, rate_hz, t, line, rise).ok_or(QtError::NoTangent)?;
            let qt_ms = (end - qrs.onset as f64) * 1e3 / rate_hz;
            if !(PLAUSIBLE_QT_MS.0..=PLAUSIBLE_QT_MS.1).contains(&qt_ms) {
                return Err(QtError::NoTangent);
            }
            Ok(Qt { qt_ms, rr_ms: interval_s(beats, index, rate_hz).map(|s| s * 1e3) })
        })
        .collect()
}

/// Medians over the beats that have a QT and an RR.
pub fn summarise(intervals: &[Result<Qt, QtError>]) -> Result<QtSummary, QtError> {
    let (mut qt, mut rr): (Vec<f64>, Vec<f64>) = intervals
        .iter()
        .filter_map(|qt| qt.ok())
        .filter_map(|qt| Some((qt.qt_ms, qt.rr_ms?)))
        .unzip();
    let too_few = QtError::TooFewBeats { found: qt.len() };
    if qt.len() < MIN_QT_BEATS {
        return Err(too_few);
    }
    qt.sort_by(f64::total_cmp);
    let spread_ms = qt[qt.len() * 3 / 4] - qt[qt.len() / 4];
    let qt_ms = qt[qt.len() / 2];
    let rr_ms = upper_median(&mut rr).ok_or(too_few)?;
    Ok(QtSummary { qt_ms, rr_ms, spread_ms, beats: qt.len() })
}

/// Where the tangent to the last limb of T meets the line, in samples and parts of one.
fn tangent_end(
    mv: &[f32],
    rate_hz: f64,
    t: Wave,
    line: impl Fn(f64) -> f64,
    rise: f64,
) -> Option<f64> {
    let half = ((TANGENT_S * rate_hz / 2.0).round() as usize).max(1);
    // Slopes against the isoelectric line, at each place from the peak to the end.
    let slopes: Vec<(usize, f64, f64)> = (t.peak..=t.end)
        .filter_map(|place| {
            let (level, slope) = fitted(mv, place, half)?;
            Some((place, level, slope - rise))
        })
        .collect();
    let most = slopes.iter().map(|(_, _, slope)| slope.abs()).fold(0.0, f64::max);
    let steepest = |index: &usize| {
        let modulus = |index: usize| slopes.get(index).map_or(0.0, |(_, _, slope)| slope.abs());
        let here = modulus(*index);
        here >= LAST_LIMB_SHARE * most
            && here >= modulus(*index + 1)
            && index.checked_sub(1).is_none_or(|before| here > modulus(before))
    };
    let (place, level, slope) = slopes[(0..slopes.len()).rev().find(steepest)?];
    let above = level - line(place as f64);
    // The limb leads back to the line.
    (slope * above < 0.0).then(|| place as f64 - above / slope)
}

/// Level and slope per sample of the least-squares line over so many samples on either side.
fn fitted(mv: &[f32], place: usize, half: usize) -> Option<(f64, f64)> {
    let part = mv.get(place.checked_sub(half)?..=place + half)?;
    if part.iter().any(|value| !is_sample(*value)) {
        return None;
    }
    let (mut sum, mut tilt, mut squares) = (0.0, 0.0, 0.0);
    for (index, value) in part.iter().enumerate() {
        let away = index as f64 - half as f64;
        sum += f64::from(*value);
        tilt += away * f64::from(*value);
        squares += away * away;
    }
    Some((sum / part.len() as f64, tilt / squares))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecg::delineate;
    use crate::ecg::tests::{noise, rhythm};
    use proptest::prelude::*;

    fn measure(mv: &[f32], rate_hz: f64, interval_s: f64) -> Vec<Result<Qt, QtError>> {
        let rate = SampleRate::from_millihertz((rate_hz * 1e3) as u32).unwrap();
        let peaks: Vec<usize> = (0..)
            .map(|beat| ((0.4 + interval_s * f64::from(beat)) * rate_hz).round() as usize)
            .take_while(|peak| *peak < mv.len())
            .collect();
        qt_intervals(mv, rate, &delineate(mv, rate, &peaks))
    }

    #[test]
    fn the_tangent_to_a_gaussian_meets_the_line_two_widths_out() {
        // T at 270 ms with a width of 45 ms: 360 ms after R; the complex begins about 53 ms before R.
        for rate_hz in [125.0, 250.0, 500.0, 1_000.0] {
            for interval_s in [0.65, 0.8, 1.2] {
                let mv = rhythm(rate_hz, 20.0, interval_s);
                let found = summarise(&measure(&mv, rate_hz, interval_s)).unwrap();
                assert!((found.qt_ms - 413.0).abs() < 15.0, "{found:?} {rate_hz} {interval_s}");
                assert!((found.rr_ms - interval_s * 1e3).abs() <= 8.0, "{found:?}");
                assert!(found.spread_ms <= 8.0_f64.max(2_600.0 / rate_hz), "{found:?}");
                let inverted: Vec<f32> = mv.iter().map(|v| -v).collect();
                let other = summarise(&measure(&inverted, rate_hz, interval_s)).unwrap();
                assert!((found.qt_ms - other.qt_ms).abs() < 2.0, "{found:?} {other:?}");
            }
        }
    }

    #[test]
    fn noise_and_wander_cost_little() {
        let clean = rhythm(500.0, 30.0, 0.8);
        let disturbed: Vec<f32> = clean
            .iter()
            .zip(noise())
            .enumerate()
            .map(|(i, (v, n))| v + 0.03 * n + 0.3 * (i as f32 * 0.001).sin())
            .collect();
        let found = summarise(&measure(&disturbed, 500.0, 0.8)).unwrap();
        assert!((found.qt_ms - 413.0).abs() < 25.0, "{found:?}");
        assert!(found.beats > 25);
    }

    #[test]
    fn corrections_as_published() {
        let all = [
            (Correction::Bazett, 400.0 / 0.8_f64.sqrt()),
            (Correction::Fridericia, 400.0 / 0.8_f64.cbrt()),
            (Correction::Framingham, 430.8),
            (Correction::Hodges, 426.25),
        ];
        for (correction, expected) in all {
            assert!((correction.qtc_ms(400.0, 800.0) - expected).abs() < 1e-9, "{correction:?}");
            assert_eq!(correction.qtc_ms(400.0, 1_000.0), 400.0);
            assert!(correction.qtc_ms(400.0, 0.0).is_nan());
            assert!(correction.qtc_ms(400.0, f64::NAN).is_nan());
        }
    }

    #[test]
    fn what_cannot_be_measured_says_why() {
        let mut mv = rhythm(250.0, 9.6, 0.8);
        assert_eq!(measure(&mv, 250.0, 0.8).last(), Some(&Err(QtError::NoWave(Absent::CutOff))));
        mv[500 + 360..500 + 380].fill(f32::NAN);
        let found = measure(&mv, 250.0, 0.8);
        assert_eq!(found.iter().filter(|qt| qt.is_err()).count(), 2);
        let error = summarise(&found[..3]).unwrap_err();
        assert_eq!(error.to_string(), "3 measurable beats, 5 are needed: take a longer window");
    }

    proptest! {
        #[test]
        fn always_plausible(interval_s in 0.4..1.5f64, noise_mv in 0.0..1.0f32) {
            let mv: Vec<f32> = rhythm(250.0, 10.0, interval_s)
                .iter().zip(noise()).map(|(v, n)| v + noise_mv * n).collect();
            for qt in measure(&mv, 250.0, interval_s).into_iter().flatten() {
                prop_assert!((180.0..=800.0).contains(&qt.qt_ms));
            }
        }

        #[test]
        fn corrections_rise_with_qt_and_fall_with_rr(
            qt in 250.0..600.0f64, rr in 350.0..1_800.0f64, more in 1.0..50.0f64,
        ) {
            use Correction::{Bazett, Fridericia, Framingham, Hodges};
            for correction in [Bazett, Fridericia, Framingham, Hodges] {
                let here = correction.qtc_ms(qt, rr);
                prop_assert!(correction.qtc_ms(qt + more, rr) > here);
                prop_assert!(correction.qtc_ms(qt, rr + more) < here);
            }
        }
    }
}
