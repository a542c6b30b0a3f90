//! Slow waves at a common rate: impedance made coarser, and what breathing does to pulses and beats.

use haar_schema::SampleRate;

use crate::ppg::{Pulse, median};

/// The rate at which slow waves are looked at. The fastest breath has 60 a minute.
pub(super) const SLOW_HZ: f64 = 8.0;
/// The least share of a window that beats must span.
const MIN_SPAN: f64 = 0.8;
/// A longer stretch without a beat is not bridged. In seconds.
const MAX_GAP_S: f64 = 4.0;
/// A larger share of missing samples is no signal.
const MAX_MISSING: f64 = 0.1;
/// A value this many median deviations from the median of the series is an artefact.
const OUTLIER: f64 = 5.0;

/// Means over eighths of a second; short gaps bridged. `None` if too much is missing.
pub(super) fn coarse(signal: &[f32], rate: SampleRate) -> Option<Vec<f64>> {
    let missing = signal.iter().filter(|value| !value.is_finite()).count();
    if signal.is_empty() || missing as f64 > MAX_MISSING * signal.len() as f64 {
        return None;
    }
    let step = rate.hz() / SLOW_HZ;
    let count = (signal.len() as f64 / step) as usize;
    let points: Vec<(f64, f64)> = (0..count)
        .filter_map(|k| {
            let from = (k as f64 * step).round() as usize;
            let to = (((k + 1) as f64 * step).round() as usize).max(from + 1).min(signal.len());
            let values = signal.get(from..to)?.iter().filter(|value| value.is_finite());
            let (sum, n) =
                values.fold((0.0, 0.0), |(sum, n), value| (sum + f64::from(*value), n + 1.0));
            (n > 0.0).then(|| (k as f64 / SLOW_HZ, sum / n))
        })
        .collect();
    resample(&points, count as f64 / SLOW_HZ)
}

/// Height, baseline and frequency of the pulses.
pub(super) fn of_pulses(pulses: &[Pulse], rate: SampleRate, seconds: f64) -> [Option<Vec<f64>>; 3] {
    let time = |pulse: &Pulse| pulse.peak as f64 / rate.hz();
    let heights = pulses.iter().map(|pulse| (time(pulse), pulse.amplitude())).collect();
    let baselines =
        pulses.iter().map(|pulse| (time(pulse), (pulse.height + pulse.base) / 2.0)).collect();
    let intervals = pulses
        .windows(2)
        .map(|pair| (time(&pair[1]), (pair[1].foot - pair[0].foot) / rate.hz()))
        .collect();
    [heights, baselines, intervals].map(|series| slow(series, seconds))
}

/// Height of the R peaks over the trough before each (the larger side of the lead, so that its
/// polarity does not matter), and the RR intervals.
pub(super) fn of_r_peaks(
    ecg: &[f32],
    r_peaks: &[usize],
    rate: SampleRate,
    seconds: f64,
) -> [Option<Vec<f64>>; 2] {
    let reach = (0.1 * rate.hz()) as usize;
    let time = |peak: usize| peak as f64 / rate.hz();
    let heights = r_peaks
        .iter()
        .filter_map(|peak| {
            let around = ecg.get(peak.saturating_sub(reach)..(peak + reach + 1).min(ecg.len()))?;
            let finite = || around.iter().filter(|value| value.is_finite());
            let most = finite().copied().fold(f32::NEG_INFINITY, f32::max);
            let least = finite().copied().fold(f32::INFINITY, f32::min);
            (most >= least).then(|| (time(*peak), f64::from(most - least)))
        })
        .collect();
    let intervals =
        r_peaks.windows(2).map(|pair| (time(pair[1]), time(pair[1]) - time(pair[0]))).collect();
    [heights, intervals].map(|series| slow(series, seconds))
}

/// A series of beats as an evenly sampled wave, without artefacts.
fn slow(mut series: Vec<(f64, f64)>, seconds: f64) -> Option<Vec<f64>> {
    let middle = median(series.iter().map(|(_, value)| *value).collect())?;
    let deviation = median(series.iter().map(|(_, value)| (value - middle).abs()).collect())?;
    series.retain(|(_, value)| (value - middle).abs() <= OUTLIER * deviation.max(1e-12));
    let (first, last) = (series.first()?.0, series.last()?.0);
    let spans = last - first >= MIN_SPAN * seconds;
    let dense = series.windows(2).all(|pair| pair[1].0 - pair[0].0 <= MAX_GAP_S);
    (spans && dense).then(|| resample(&series, seconds))?
}

/// Straight lines between points of rising time; the ends go on level.
fn resample(points: &[(f64, f64)], seconds: f64) -> Option<Vec<f64>> {
    let mut next = 0;
    let (first, last) = (points.first()?, points.last()?);
    let at = |k: usize| {
        let time = k as f64 / SLOW_HZ;
        while points.get(next).is_some_and(|(there, _)| *there <= time) {
            next += 1;
        }
        match (next.checked_sub(1).map(|k| points[k]), points.get(next)) {
            (None, _) => first.1,
            (_, None) => last.1,
            (Some(before), Some(after)) => {
                let share = (time - before.0) / (after.0 - before.0);
                before.1 + share * (after.1 - before.1)
            }
        }
    };
    Some((0..(seconds * SLOW_HZ) as usize).map(at).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate() -> SampleRate {
        SampleRate::from_hz(125).unwrap()
    }

    #[test]
    fn coarse_means_bridge_gaps_and_refuse_much_missing() {
        let mut ramp: Vec<f32> = (0..4_000).map(|k| k as f32).collect();
        ramp[1_000..1_100].fill(f32::NAN);
        let wave = coarse(&ramp, rate()).unwrap();
        assert_eq!(wave.len(), 256);
        assert!(wave.windows(2).all(|pair| (pair[1] - pair[0] - 15.625).abs() < 8.0), "{wave:?}");
        ramp[2_000..2_500].fill(f32::NAN);
        assert_eq!(coarse(&ramp, rate()), None);
        assert_eq!(coarse(&[], rate()), None);
    }

    #[test]
    fn a_series_of_beats_loses_its_artefacts() {
        let beats = |height: fn(i32) -> f64| -> Vec<(f64, f64)> {
            (0..40).map(|beat| (0.8 * f64::from(beat), height(beat))).collect()
        };
        let wave =
            slow(beats(|beat| if beat == 20 { 50.0 } else { f64::from(beat % 4) }), 32.0).unwrap();
        assert!(wave.iter().all(|value| (0.0..=3.0).contains(value)), "{wave:?}");
        // Two points at 0 and 8 s, a line between them.
        let line = resample(&[(0.0, 1.0), (8.0, 9.0)], 8.0).unwrap();
        assert_eq!((line[0], line[8], line[63]), (1.0, 2.0, 8.875));
    }

    #[test]
    fn a_series_that_does_not_span_the_window_is_none() {
        let beats: Vec<(f64, f64)> =
            (0..40).map(|k| (0.8 * f64::from(k), f64::from(k % 3))).collect();
        assert!(slow(beats.clone(), 32.0).is_some());
        assert_eq!(slow(beats[..25].to_vec(), 32.0), None);
        let gap = beats.iter().filter(|(time, _)| !(10.0..15.0).contains(time)).copied().collect();
        assert_eq!(slow(gap, 32.0), None);
        assert_eq!(slow(Vec::new(), 32.0), None);
    }
}
