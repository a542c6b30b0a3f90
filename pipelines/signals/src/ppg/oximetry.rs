//! Perfusion index, and oxygen saturation from two colours of light.
//!
//! Oxygenated and deoxygenated blood absorb red and infrared light differently. With every pulse of arterial blood less
//! light arrives; by Beer and Lambert's law the ratio of ratios
//!
//! R = ln(red at onset / red at peak) / ln(infrared at onset / infrared at peak)
//!
//! depends on the arterial saturation alone (peak-and-valley method; Webster, *Design of Pulse Oximeters*, 1997,
//! ch. 9). How it depends belongs to the *sensor*: makers find it by desaturating volunteers, and
//! without the coefficients of the very device ([`Calibration`]) there is no saturation to be had.

use haar_schema::SampleRate;

use super::{Pulse, detect_pulses, median};

/// The least perfusion index of the infrared light from which a saturation is derived, in per cent.
pub const MIN_PERFUSION_PERCENT: f64 = 0.2;
/// The fewest pulses from which a saturation is derived.
pub const MIN_RATIOS: usize = 5;
/// The largest median deviation of the pulses' ratios from their median, as a share of it.
pub const MAX_RATIO_SPREAD: f64 = 0.15;
/// Intensities are averaged over this to either side of onset and peak.
const AVERAGE_S: f64 = 0.02;

/// How a sensor's ratio of ratios R becomes a saturation: a + b·R + c·R² per cent. It belongs to the device
/// and its wavelengths; nothing here is a default on purpose. (Textbooks' 110 − 25·R is for illustration.)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// Per cent.
    pub a: f64,
    /// Per cent for each unit of R.
    pub b: f64,
    /// Per cent for each unit of R².
    pub c: f64,
    /// The least ratio that was calibrated.
    pub ratio_min: f64,
    /// The greatest ratio that was calibrated.
    pub ratio_max: f64,
}

/// A saturation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saturation {
    /// Per cent; not above 100, whatever the calibration gives.
    pub spo2: f64,
    /// The median ratio of ratios.
    pub ratio: f64,
    /// Median absolute deviation of the pulses' ratios.
    pub ratio_spread: f64,
    /// Perfusion index of the infrared light in per cent.
    pub perfusion: f64,
    /// How many pulses it is from.
    pub pulses: usize,
}

/// Why there is no saturation.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OximetryError {
    /// The two signals are not of equal length.
    #[error("{red} samples of red and {infrared} of infrared light; give the same stretch of both")]
    Lengths {
        /// Of red.
        red: usize,
        /// Of infrared.
        infrared: usize,
    },
    /// Fewer pulses than [`MIN_RATIOS`] in both.
    #[error(
        "{found} usable pulses of {MIN_RATIOS}; take a longer stretch or check the sensor's seat"
    )]
    TooFewPulses {
        /// How many there were.
        found: usize,
    },
    /// Under [`MIN_PERFUSION_PERCENT`].
    #[error(
        "perfusion of {percent:.2} % is under {MIN_PERFUSION_PERCENT} %; warm the hand or move the sensor"
    )]
    LowPerfusion {
        /// What it is.
        percent: f64,
    },
    /// Over [`MAX_RATIO_SPREAD`].
    #[error("the pulses disagree by {share:.2} of their median; wait until the hand is still")]
    Unsteady {
        /// By how much.
        share: f64,
    },
    /// Outside of what was calibrated.
    #[error(
        "the ratio {ratio:.2} is outside of the calibrated range; check the sensor and its coefficients"
    )]
    OutOfCalibration {
        /// What it is.
        ratio: f64,
    },
}

/// Perfusion index in per cent: the median over the pulses of 100 × amplitude / level. `None` without pulses or
/// where the level is not above 0, as after a high-pass filter: it needs the raw light, in which 0 is dark.
pub fn perfusion_index(pulses: &[Pulse]) -> Option<f64> {
    let shares: Vec<f64> = pulses.iter().map(|pulse| pulse.amplitude() / pulse.level).collect();
    let all_lit = pulses.iter().all(|pulse| pulse.level > 0.0);
    median(shares).filter(|_| all_lit).map(|share| 100.0 * share)
}

/// Oxygen saturation from the light received in both colours over the same stretch of time.
///
/// `red` and `infrared` are *intensities*: above 0, dark = 0, falling in systole; ambient light already taken off; any
/// unit. Pulses are found in the infrared light.
///
/// # Errors
/// If it cannot be told: see [`OximetryError`].
pub fn oxygen_saturation(
    red: &[f32],
    infrared: &[f32],
    rate: SampleRate,
    calibration: &Calibration,
) -> Result<Saturation, OximetryError> {
    if red.len() != infrared.len() {
        return Err(OximetryError::Lengths { red: red.len(), infrared: infrared.len() });
    }
    let absorbed: Vec<f32> = infrared.iter().map(|value| -value).collect();
    let mut pulses = detect_pulses(&absorbed, rate);
    let half = (AVERAGE_S * rate.hz()) as usize;
    let fall = |light: &[f32], pulse: &Pulse| {
        let at = |place: u64| {
            let place = place as usize;
            let around = &light[place.saturating_sub(half)..(place + half + 1).min(light.len())];
            around.iter().map(|value| f64::from(*value)).sum::<f64>() / around.len() as f64
        };
        (at(pulse.onset) / at(pulse.peak)).ln()
    };
    let ratios: Vec<f64> = pulses
        .iter()
        .map(|pulse| fall(red, pulse) / fall(infrared, pulse))
        // A negative or missing one is noise in one of the colours.
        .filter(|ratio| ratio.is_finite() && *ratio > 0.0)
        .collect();
    let found = ratios.len();
    let ratio = median(ratios.clone())
        .filter(|_| found >= MIN_RATIOS)
        .ok_or(OximetryError::TooFewPulses { found })?;
    pulses.iter_mut().for_each(|pulse| pulse.level = -pulse.level);
    let perfusion = perfusion_index(&pulses).unwrap_or(0.0);
    if perfusion < MIN_PERFUSION_PERCENT {
        return Err(OximetryError::LowPerfusion { percent: perfusion });
    }
    let deviations = ratios.iter().map(|value| (value - ratio).abs()).collect();
    let ratio_spread = median(deviations).unwrap_or(0.0);
    if ratio_spread > MAX_RATIO_SPREAD * ratio {
        return Err(OximetryError::Unsteady { share: ratio_spread / ratio });
    }
    if !(calibration.ratio_min..=calibration.ratio_max).contains(&ratio) {
        return Err(OximetryError::OutOfCalibration { ratio });
    }
    let spo2 = calibration.a + calibration.b * ratio + calibration.c * ratio * ratio;
    Ok(Saturation { spo2: spo2.min(100.0), ratio, ratio_spread, perfusion, pulses: found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ppg::tests::{noise, pulse_wave};

    const CALIBRATION: Calibration =
        Calibration { a: 110.0, b: -25.0, c: 0.0, ratio_min: 0.4, ratio_max: 1.6 };

    fn rate() -> SampleRate {
        SampleRate::from_hz(125).unwrap()
    }

    /// Light through tissue whose absorption swings by `depth` with every pulse.
    fn light(level: f64, depth: f64) -> Vec<f32> {
        pulse_wave(125.0, 20.0, 0.8)
            .iter()
            .map(|wave| (level * (-depth * (f64::from(*wave) - 10.0)).exp()) as f32)
            .collect()
    }

    #[test]
    fn the_ratio_is_that_of_the_absorptions() {
        for ratio in [0.5, 0.8, 1.2] {
            let found = oxygen_saturation(
                &light(700.0, 0.02 * ratio),
                &light(300.0, 0.02),
                rate(),
                &CALIBRATION,
            )
            .unwrap();
            assert!((found.ratio - ratio).abs() < 0.01, "{found:?}");
            assert!((found.spo2 - (110.0 - 25.0 * ratio)).abs() < 0.3, "{found:?}");
            assert!((found.perfusion - 2.0).abs() < 0.3, "{found:?}");
        }
        let high = Calibration { a: 120.0, ..CALIBRATION };
        let found = oxygen_saturation(&light(700.0, 0.01), &light(300.0, 0.02), rate(), &high);
        assert_eq!(found.unwrap().spo2, 100.0);
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        let of = |red: &[f32], infrared: &[f32]| {
            oxygen_saturation(red, infrared, rate(), &CALIBRATION).unwrap_err()
        };
        let infrared = light(300.0, 0.02);
        assert!(matches!(of(&infrared[1..], &infrared), OximetryError::Lengths { .. }));
        let dark = vec![0.0; infrared.len()];
        assert!(matches!(of(&dark, &dark), OximetryError::TooFewPulses { found: 0 }));
        let faint = light(300.0, 0.001);
        assert!(matches!(of(&faint, &faint), OximetryError::LowPerfusion { .. }));
        assert!(matches!(
            of(&light(700.0, 0.05), &infrared),
            OximetryError::OutOfCalibration { .. }
        ));
        let shaken: Vec<f32> =
            light(700.0, 0.014).iter().zip(noise()).map(|(v, n)| v + 40.0 * n).collect();
        assert!(matches!(of(&shaken, &infrared), OximetryError::Unsteady { .. }));
    }

    #[test]
    fn perfusion_needs_the_raw_light() {
        let pulses = detect_pulses(&pulse_wave(125.0, 20.0, 0.8), rate());
        assert!((perfusion_index(&pulses).unwrap() - 9.7).abs() < 0.4);
        let filtered: Vec<f32> =
            pulse_wave(125.0, 20.0, 0.8).iter().map(|value| value - 10.5).collect();
        assert_eq!(perfusion_index(&detect_pulses(&filtered, rate())), None);
        assert_eq!(perfusion_index(&[]), None);
    }
}
