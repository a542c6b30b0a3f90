//! Pulse-rate variability.
//!
//! Intervals between the feet of successive pulses, with the time-domain statistics of heart-rate variability
//! (Task Force of the ESC and NASPE, *Circulation* 93:1043, 1996). It is a surrogate: the time from heart to finger varies by
//! itself, so that RMSSD comes out larger than from an ECG, above all when moving or breathing deeply (Schäfer
//! and Vagedes, *Int. J. Cardiol.* 166:15, 2013).

use haar_schema::SampleRate;

use super::{Pulse, median};

/// Intervals outside of this to [`MAX_INTERVAL_MS`] are no pulse intervals.
pub const MIN_INTERVAL_MS: f64 = 270.0;
/// See [`MIN_INTERVAL_MS`].
pub const MAX_INTERVAL_MS: f64 = 2_000.0;
/// Fewer intervals than this tell nothing.
pub const MIN_INTERVALS: usize = 5;
/// An interval that differs by more than this share from the median of the five around it is a missed or a false
/// pulse, or an extrasystole (the 20 % rule of the Task Force).
const UNEVEN: f64 = 0.2;

/// What the intervals between pulses tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PulseRateVariability {
    /// Pulses per minute, from the mean interval.
    pub rate: f64,
    /// Mean interval in ms.
    pub mean_ms: f64,
    /// Standard deviation of the intervals in ms (divisor n − 1).
    pub sdnn_ms: f64,
    /// Root of the mean squared difference of neighbouring intervals in ms; 0 where no two neighbours were kept.
    pub rmssd_ms: f64,
    /// Intervals kept.
    pub kept: usize,
    /// Intervals left out as impossible or uneven.
    pub left_out: usize,
}

/// Too few intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} usable pulse intervals of {MIN_INTERVALS}; take a longer or steadier stretch")]
pub struct TooFewPulses {
    /// How many there were.
    pub found: usize,
}

/// Statistics of the intervals between the feet of `pulses`, which are of one stream and rising.
///
/// # Errors
/// With fewer than [`MIN_INTERVALS`] usable intervals.
pub fn pulse_rate_variability(
    pulses: &[Pulse],
    rate: SampleRate,
) -> Result<PulseRateVariability, TooFewPulses> {
    let intervals: Vec<f64> =
        pulses.windows(2).map(|pair| (pair[1].foot - pair[0].foot) / rate.hz() * 1_000.0).collect();
    let kept: Vec<Option<f64>> =
        (0..intervals.len()).map(|at| is_even(&intervals, at).then_some(intervals[at])).collect();
    let values: Vec<f64> = kept.iter().flatten().copied().collect();
    if values.len() < MIN_INTERVALS {
        return Err(TooFewPulses { found: values.len() });
    }
    let mean_ms = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean_ms).powi(2)).sum();
    let differences: Vec<f64> =
        kept.windows(2).filter_map(|pair| Some((pair[1]? - pair[0]?).powi(2))).collect();
    let rmssd_ms = (differences.iter().sum::<f64>() / differences.len().max(1) as f64).sqrt();
    Ok(PulseRateVariability {
        rate: 60_000.0 / mean_ms,
        mean_ms,
        sdnn_ms: (squares / (values.len() - 1) as f64).sqrt(),
        rmssd_ms,
        kept: values.len(),
        left_out: intervals.len() - values.len(),
    })
}

fn is_even(intervals: &[f64], at: usize) -> bool {
    let around = &intervals[at.saturating_sub(2)..(at + 3).min(intervals.len())];
    let usual = median(around.to_vec()).unwrap_or(f64::NAN);
    (MIN_INTERVAL_MS..=MAX_INTERVAL_MS).contains(&intervals[at])
        && (intervals[at] - usual).abs() <= UNEVEN * usual
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ppg::detect_pulses;
    use crate::ppg::tests::{pulse_wave, pulses_at};

    fn rate() -> SampleRate {
        SampleRate::from_hz(250).unwrap()
    }

    #[test]
    fn of_a_steady_pulse() {
        let pulses = detect_pulses(&pulse_wave(250.0, 30.0, 0.8), rate());
        let found = pulse_rate_variability(&pulses, rate()).unwrap();
        assert!((found.rate - 75.0).abs() < 0.05, "{found:?}");
        assert!(found.sdnn_ms < 2.0 && found.rmssd_ms < 2.0 && found.left_out == 0, "{found:?}");
    }

    #[test]
    fn of_intervals_that_alternate() {
        // 780 and 820 ms in turn: deviation 20 ms (and the n − 1), successive difference 40 ms.
        let mut time = 0.6;
        let peaks: Vec<(f64, f64)> = (0..40)
            .map(|beat| {
                time += if beat % 2 == 0 { 0.78 } else { 0.82 };
                (time, 1.0)
            })
            .collect();
        let pulses = detect_pulses(&pulses_at(250.0, 34.0, &peaks), rate());
        let found = pulse_rate_variability(&pulses, rate()).unwrap();
        assert!((found.mean_ms - 800.0).abs() < 2.0, "{found:?}");
        assert!((found.sdnn_ms - 20.3).abs() < 1.5, "{found:?}");
        assert!((found.rmssd_ms - 40.0).abs() < 2.0, "{found:?}");
    }

    #[test]
    fn a_missed_pulse_is_left_out() {
        let mut pulses = detect_pulses(&pulse_wave(250.0, 30.0, 0.8), rate());
        pulses.remove(10);
        let found = pulse_rate_variability(&pulses, rate()).unwrap();
        assert_eq!(found.left_out, 1);
        assert!((found.rate - 75.0).abs() < 0.05);
        let error = pulse_rate_variability(&pulses[..4], rate()).unwrap_err();
        assert_eq!(error.found, 3);
    }
}
