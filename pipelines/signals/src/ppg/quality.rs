//! How far to believe a PPG: rules of possibility, and likeness of its pulses.
//!
//! Orphanidou et al., *Signal-Quality Indices for the Electrocardiogram and Photoplethysmogram*, IEEE J.
//! Biomed. Health Inform. 19(3):832, 2015: the pulse rate must be possible, no gap too long, intervals not too
//! uneven, and the mean correlation of the pulses with their own mean at least 0.86. The paper's windows are
//! of 10 s; 5 to 60 s serve.

use haar_schema::SampleRate;

use super::{Pulse, median};

/// The least mean correlation of an acceptable PPG.
pub const MIN_CORRELATION: f64 = 0.86;
/// Pulses per minute (the paper's range).
const RATE: std::ops::RangeInclusive<f64> = 40.0..=180.0;
/// The longest gap between two pulses, or an end and a pulse, in seconds.
const MAX_GAP_S: f64 = 3.0;
/// The largest ratio of the longest interval to the shortest.
const MAX_RATIO: f64 = 2.2;
/// Fewer pulses have no mean worth comparing with.
const MIN_PULSES: usize = 4;

/// How good a stretch of PPG is.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// Mean correlation of the pulses with their mean, 0 (or less) to 1; 0 with fewer than four whole pulses.
    pub correlation: f64,
    /// What speaks against it, none if it is acceptable.
    pub objections: Vec<Objection>,
}

impl Quality {
    /// Whether nothing speaks against it.
    pub fn is_acceptable(&self) -> bool {
        self.objections.is_empty()
    }
}

/// Why a PPG is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Objection {
    /// Fewer than four whole pulses.
    TooFewPulses,
    /// Not within 40 to 180 a minute.
    ImpossibleRate,
    /// More than 3 s without a pulse.
    Gap,
    /// The longest interval is over 2.2 times the shortest. Atrial fibrillation can be the cause.
    UnevenIntervals,
    /// The pulses do not look alike: [`MIN_CORRELATION`].
    UnlikeShapes,
}

/// Judges `ppg` by its `pulses` (of [`super::detect_pulses`] on the same samples).
///
/// Pulses are compared over a median interval around their peaks; those cut off by an end or with a missing
/// sample in them are left out of that.
pub fn quality(ppg: &[f32], rate: SampleRate, pulses: &[Pulse]) -> Quality {
    let peaks: Vec<usize> =
        pulses.iter().map(|pulse| pulse.peak as usize).filter(|peak| *peak < ppg.len()).collect();
    let intervals: Vec<f64> =
        peaks.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / rate.hz()).collect();
    let mut objections = Vec::new();
    let Some(usual) = median(intervals.clone()).filter(|_| peaks.len() >= MIN_PULSES) else {
        return Quality { correlation: 0.0, objections: vec![Objection::TooFewPulses] };
    };
    if !RATE.contains(&(60.0 * intervals.len() as f64 / intervals.iter().sum::<f64>())) {
        objections.push(Objection::ImpossibleRate);
    }
    let before = peaks[0] as f64 / rate.hz();
    let after = (ppg.len() - peaks[peaks.len() - 1]) as f64 / rate.hz();
    let longest = intervals.iter().copied().fold(0.0, f64::max);
    let shortest = intervals.iter().copied().fold(f64::INFINITY, f64::min);
    if longest.max(before).max(after) > MAX_GAP_S {
        objections.push(Objection::Gap);
    }
    if longest > MAX_RATIO * shortest {
        objections.push(Objection::UnevenIntervals);
    }
    let correlation = likeness(ppg, &peaks, (usual * rate.hz() / 2.0) as usize);
    match correlation {
        None => objections.push(Objection::TooFewPulses),
        Some(mean) if mean < MIN_CORRELATION => objections.push(Objection::UnlikeShapes),
        Some(_) => {}
    }
    Quality { correlation: correlation.unwrap_or(0.0), objections }
}

/// Mean correlation with the mean pulse.
fn likeness(ppg: &[f32], peaks: &[usize], half: usize) -> Option<f64> {
    let shapes: Vec<&[f32]> = peaks
        .iter()
        .filter_map(|peak| ppg.get(peak.checked_sub(half)?..=peak + half))
        .filter(|shape| shape.iter().all(|value| value.is_finite()))
        .collect();
    if shapes.len() < MIN_PULSES {
        return None;
    }
    let mut template = vec![0.0; 2 * half + 1];
    for shape in &shapes {
        // Each pulse counts alike, however high it stands or swings.
        for (sum, value) in
            template.iter_mut().zip(standardised(shape.iter().map(|v| f64::from(*v))))
        {
            *sum += value;
        }
    }
    let template: Vec<f64> = standardised(template.iter().copied()).collect();
    let total: f64 = shapes
        .iter()
        .map(|shape| {
            let shape = standardised(shape.iter().map(|value| f64::from(*value)));
            shape.zip(&template).map(|(a, b)| a * b).sum::<f64>()
        })
        .sum();
    Some(total / shapes.len() as f64)
}

/// With mean 0 and a sum of squares of 1, so that the product of two is their correlation; all 0 if constant.
fn standardised(values: impl ExactSizeIterator<Item = f64> + Clone) -> impl Iterator<Item = f64> {
    let mean = values.clone().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.clone().map(|value| (value - mean).powi(2)).sum();
    let scale = if squares > 0.0 { 1.0 / squares.sqrt() } else { 0.0 };
    values.map(move |value| (value - mean) * scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ppg::detect_pulses;
    use crate::ppg::tests::{noise, pulse_wave, pulses_at};

    fn judge(ppg: &[f32]) -> Quality {
        let rate = SampleRate::from_hz(125).unwrap();
        quality(ppg, rate, &detect_pulses(ppg, rate))
    }

    #[test]
    fn a_clean_pulse_is_acceptable_and_noise_lowers_it() {
        let clean = pulse_wave(125.0, 20.0, 0.8);
        assert!(judge(&clean).is_acceptable() && judge(&clean).correlation > 0.99);
        let correlations: Vec<f64> = [0.0, 0.3, 1.0, 3.0]
            .map(|strength| {
                let noisy: Vec<f32> =
                    clean.iter().zip(noise()).map(|(v, n)| v + strength * n).collect();
                judge(&noisy).correlation
            })
            .to_vec();
        assert!(correlations.windows(2).all(|pair| pair[0] > pair[1]), "{correlations:?}");
        let noisy: Vec<f32> = noise().take(2_500).collect();
        assert!(!judge(&noisy).is_acceptable());
    }

    #[test]
    fn each_rule_objects() {
        let train = |interval: f64| -> Vec<(f64, f64)> {
            (0..).map(|k| (0.6 + interval * f64::from(k), 1.0)).take_while(|p| p.0 < 29.0).collect()
        };
        let of = |peaks: &[(f64, f64)]| judge(&pulses_at(125.0, 30.0, peaks)).objections;
        assert_eq!(of(&train(0.8)), []);
        assert_eq!(of(&train(2.0)), [Objection::ImpossibleRate]);
        let mut pause = train(0.8);
        pause.retain(|(time, _)| !(10.0..14.0).contains(time));
        assert_eq!(of(&pause)[..2], [Objection::Gap, Objection::UnevenIntervals]);
        let mut uneven = train(0.8);
        uneven[15].0 -= 0.4;
        assert!(of(&uneven).contains(&Objection::UnevenIntervals));
        assert_eq!(of(&[]), [Objection::TooFewPulses]);
        assert_eq!(judge(&[]).correlation, 0.0);
    }
}
