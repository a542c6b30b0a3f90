//! What the signal is made of apart from beats: its spectrum, what remains between beats, noise.
//!
//! Fibrillatory waves: Bollmann et al. 2006, Europace 8:911–926: 4 to 9 Hz, after the beats are taken away.

use super::signal::{Signal, WORKING_HZ};
use super::statistic::{Row, deviation, mean, median, quantile, share};
use haar_schema::SampleRate;
use haar_signals::ecg::quality;
use std::f64::consts::PI;

/// The spectrum is that of stretches of so many samples at a third of the rate (2.56 s), half overlapping.
const STRETCH: usize = 256;
const SPECTRUM_HZ: f64 = WORKING_HZ as f64 / 3.0;
/// Bands in Hz.
const BANDS: [(&str, f64, f64); 7] = [
    ("band_1_3", 1.0, 3.0),
    ("band_3_5", 3.0, 5.0),
    ("band_5_8", 5.0, 8.0),
    ("band_8_12", 8.0, 12.0),
    ("band_12_18", 12.0, 18.0),
    ("band_18_25", 18.0, 25.0),
    ("band_25_40", 25.0, 40.0),
];
const FIBRILLATION_HZ: (f64, f64) = (4.0, 9.0);

/// Features of the signal, and of its `residue` without the usual beats.
pub(super) fn texture(signal: &Signal, residue: &[f32], row: &mut Row) {
    bands(&spectrum(&signal.clean), row);
    fibrillation(signal, residue, row);
    noise(signal, row);
    let rate = SampleRate::from_hz(WORKING_HZ as u32);
    let quality = rate.and_then(|rate| quality(&signal.raw, rate, &signal.peaks));
    let part =
        |part: fn(&haar_signals::ecg::Quality) -> f64| quality.as_ref().map_or(f64::NAN, part);
    row.push("quality", part(|quality| quality.index));
    row.push("quality_agreement", part(|quality| quality.agreement));
    row.push("quality_baseline", part(|quality| quality.baseline));
    row.push("quality_kurtosis", part(|quality| quality.kurtosis.max(0.0).ln_1p()));
    row.push("quality_flat", part(|quality| quality.flat));
    row.push("quality_saturated", part(|quality| quality.saturated));
}

/// Power by frequency, in steps of [`SPECTRUM_HZ`] / [`STRETCH`]; Welch's mean of Hann windows.
fn spectrum(signal: &[f32]) -> Vec<f64> {
    let samples: Vec<f64> = signal.iter().step_by(3).map(|value| f64::from(*value)).collect();
    let mut power = vec![0.0; STRETCH / 2];
    let (cos, sin): (Vec<f64>, Vec<f64>) = (0..STRETCH)
        .map(|at| 2.0 * PI * at as f64 / STRETCH as f64)
        .map(|angle| (angle.cos(), angle.sin()))
        .unzip();
    let mut stretches = 0;
    for start in (0..).step_by(STRETCH / 2) {
        let Some(stretch) = samples.get(start..start + STRETCH) else { break };
        let middle = mean(stretch);
        let windowed: Vec<f64> = stretch
            .iter()
            .zip(&cos)
            .map(|(value, cos)| (value - middle) * (0.5 - 0.5 * cos))
            .collect();
        for (step, power) in power.iter_mut().enumerate() {
            let (mut real, mut imaginary) = (0.0, 0.0);
            for (at, value) in windowed.iter().enumerate() {
                let turn = step * at % STRETCH;
                real += value * cos[turn];
                imaginary += value * sin[turn];
            }
            *power += real * real + imaginary * imaginary;
        }
        stretches += 1;
    }
    power.iter_mut().for_each(|power| *power /= f64::from(stretches.max(1)));
    power
}

/// Sum of the power from `low` up to `high` Hz.
fn within(spectrum: &[f64], low: f64, high: f64) -> f64 {
    let step = |hz: f64| ((hz * STRETCH as f64 / SPECTRUM_HZ).round() as usize).min(spectrum.len());
    spectrum[step(low)..step(high)].iter().sum()
}

fn bands(spectrum: &[f64], row: &mut Row) {
    let whole = within(spectrum, 1.0, 40.0);
    for (name, low, high) in BANDS {
        row.push(name, (within(spectrum, low, high) / whole + 1e-4).ln());
    }
    row.push("spectrum_entropy", flatness(&spectrum[2..100]));
}

/// Shannon's entropy of the spectrum as a share of the most that it can be.
fn flatness(spectrum: &[f64]) -> f64 {
    let whole: f64 = spectrum.iter().sum();
    let entropy: f64 =
        spectrum.iter().map(|power| power / whole).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    entropy / (spectrum.len() as f64).ln()
}

fn fibrillation(signal: &Signal, residue: &[f32], row: &mut Row) {
    let rest = spectrum(residue);
    let (low, high) = FIBRILLATION_HZ;
    let whole = within(&rest, 1.0, 40.0);
    row.push("residue_share", (whole / within(&spectrum(&signal.clean), 1.0, 40.0) + 1e-4).ln());
    row.push("residue_fibrillation", within(&rest, low, high) / whole);
    row.push("residue_slow", within(&rest, 1.0, low) / whole);
    row.push("residue_fast", within(&rest, 15.0, 40.0) / whole);
    let step = |hz: f64| (hz * STRETCH as f64 / SPECTRUM_HZ).round() as usize;
    let band = &rest[step(low)..step(high)];
    let peak = quantile(band, 1.0);
    row.push("residue_peak", peak / band.iter().sum::<f64>());
    let place = band.iter().position(|power| *power == peak).unwrap_or(0) + step(low);
    row.push("residue_peak_hz", place as f64 * SPECTRUM_HZ / STRETCH as f64);
    row.push("residue_entropy", flatness(&rest[2..100]));
}

/// Noise: what lies above 40 Hz, how uneven the power is, how large the wander.
fn noise(signal: &Signal, row: &mut Row) {
    let seconds = |values: &[f32]| -> Vec<f64> {
        values
            .chunks_exact(WORKING_HZ)
            .map(|second| deviation(&second.iter().map(|v| f64::from(*v)).collect::<Vec<_>>()))
            .collect()
    };
    let steps: Vec<f32> =
        signal.raw.windows(3).map(|s| (s[0] - 2.0 * s[1] + s[2]) / signal.height_mv).collect();
    let rough = seconds(&steps);
    row.push("rough_median", (median(&rough) + 1e-4).ln());
    row.push("rough_q90", (quantile(&rough, 0.9) + 1e-4).ln());
    row.push("rough_least", (quantile(&rough, 0.0) + 1e-4).ln());
    let power = seconds(&signal.clean);
    let usual = median(&power);
    row.push("power_median", (usual + 1e-3).ln());
    row.push("power_most", (quantile(&power, 1.0) / usual + 1e-3).ln());
    row.push("power_least", (quantile(&power, 0.0) / usual + 1e-3).ln());
    row.push("power_uneven", share(&power, |power| power > 2.0 * usual || power < 0.5 * usual));
    row.push("power_cv", deviation(&power) / mean(&power));
    let relative: Vec<f32> = signal.raw.iter().map(|value| value / signal.height_mv).collect();
    let wander = seconds(&relative);
    row.push("wander_median", (median(&wander) + 1e-3).ln());
    row.push("wander_most", (quantile(&wander, 1.0) + 1e-3).ln());
    row.push("height_mv", f64::from(signal.height_mv).ln());
    row.push("turned", f64::from(u8::from(signal.turned)));
    let values: Vec<f64> = signal.clean.iter().map(|value| f64::from(*value)).collect();
    let scale = deviation(&values).max(1e-9);
    let moment =
        |power: i32| mean(&values.iter().map(|v| (v / scale).powi(power)).collect::<Vec<_>>());
    row.push("skewness", moment(3));
    row.push("kurtosis", moment(4).max(0.0).ln_1p());
    row.push("clean_most", (quantile(&values, 1.0) + 1e-3).ln());
    row.push("clean_least", (-quantile(&values, 0.0) + 1e-3).ln());
    row.push("clean_q99", quantile(&values, 0.99));
    row.push("clean_q01", quantile(&values, 0.01));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_found_in_its_band() {
        let wave: Vec<f32> =
            (0..9_000).map(|i| (2.0 * PI * 6.0 * f64::from(i) / 300.0).sin() as f32).collect();
        let power = spectrum(&wave);
        assert!(within(&power, 5.0, 8.0) > 0.98 * within(&power, 1.0, 40.0));
        assert!(flatness(&power[2..100]) < 0.4);
        assert!((flatness(&[1.0; 98]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn short_or_flat_signals_leave_gaps_not_panics() {
        let mut lengths = Vec::new();
        for mv in [vec![0.1; 5], vec![0.0; 600], (0..9_000).map(|i| (i as f32).sin()).collect()] {
            let signal = Signal::new(&mv, SampleRate::from_hz(300).unwrap()).unwrap();
            let mut row = Row::default();
            texture(&signal, &signal.clean, &mut row);
            lengths.push(row.0.len());
        }
        assert!(lengths.iter().all(|length| *length == lengths[2]));
    }
}
