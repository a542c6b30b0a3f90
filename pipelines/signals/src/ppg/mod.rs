//! Features of a photoplethysmogram (PPG).
//!
//! [`detect_pulses`] and its streaming form [`PulseDetector`] find the pulses; what they tell is
//! [`perfusion_index`], [`pulse_rate_variability`], [`oxygen_saturation`] from red and infrared light, and
//! [`pulse_arrival`] after the ECG's R peaks. [`quality`] says how far to believe any of it.

mod arrival;
mod detect;
mod oximetry;
mod quality;
mod smoothing;
mod variability;

pub use arrival::{
    Arrival, ArrivalError, MAX_ARRIVAL_MS, MIN_ARRIVAL_MS, MIN_ARRIVALS, pulse_arrival,
};
pub use detect::{MAX_RATE_HZ, MIN_RATE_HZ, Pulse, PulseDetector, detect_pulses};
pub use oximetry::{
    Calibration, MAX_RATIO_SPREAD, MIN_PERFUSION_PERCENT, MIN_RATIOS, OximetryError, Saturation,
    oxygen_saturation, perfusion_index,
};
pub use quality::{MIN_CORRELATION, Objection, Quality, quality};
pub use variability::{
    MAX_INTERVAL_MS, MIN_INTERVAL_MS, MIN_INTERVALS, PulseRateVariability, TooFewPulses,
    pulse_rate_variability,
};

/// The middle of the values; `None` of none. The mean of the two middle ones of an even number.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    /// A systolic and a dicrotic wave on a level of 10, 1 high, one pulse every `interval_s` with its peak
    /// at 0.6 s first.
    pub(crate) fn pulse_wave(rate_hz: f64, seconds: f64, interval_s: f64) -> Vec<f32> {
        let peaks: Vec<f64> = (-2..)
            .map(|beat| 0.6 + f64::from(beat) * interval_s)
            .take_while(|time| *time < seconds + 2.0)
            .collect();
        pulses_at(rate_hz, seconds, &peaks.iter().map(|time| (*time, 1.0)).collect::<Vec<_>>())
    }

    /// Pulses with their peaks at these times, this high.
    pub(crate) fn pulses_at(rate_hz: f64, seconds: f64, peaks: &[(f64, f64)]) -> Vec<f32> {
        let count = (seconds * rate_hz) as usize;
        (0..count)
            .map(|sample| {
                let time = sample as f64 / rate_hz;
                let wave: f64 = peaks
                    .iter()
                    .map(|(peak, height)| {
                        let systole = (time - peak) / 0.07;
                        let dicrotic = (time - peak - 0.25) / 0.09;
                        height
                            * ((-0.5 * systole * systole).exp()
                                + 0.25 * (-0.5 * dicrotic * dicrotic).exp())
                    })
                    .sum();
                (10.0 + wave) as f32
            })
            .collect()
    }

    /// Reproducible noise of about ±0.5.
    pub(crate) fn noise() -> impl Iterator<Item = f32> {
        let mut state = 1_u32;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        })
    }
}
