//! One rate from several sources.

use haar_schema::SampleRate;

use super::modulation::{SLOW_HZ, coarse, of_pulses, of_r_peaks};
use super::periodicity::{Spectrum, crests};
use crate::ecg::detect_r_peaks;
use crate::ppg::detect_pulses;

/// The usual length of a window in seconds (Charlton 2016; Karlen 2013).
pub const WINDOW_S: f64 = 32.0;
/// The shortest window: two of the slowest breaths. In seconds.
pub const MIN_WINDOW_S: f64 = 20.0;
/// The slowest breathing that impedance shows, breaths/min.
pub const MIN_RATE: f64 = 4.0;
/// The slowest breathing that is looked for in PPG and ECG: below it vasomotion (Mayer waves, about
/// 6 a minute) modulates them as well.
pub const MIN_MODULATION_RATE: f64 = 7.0;
/// The fastest breathing that is looked for; in PPG and ECG also no more than half the heart rate.
pub const MAX_RATE: f64 = 60.0;
/// The least quality of a rate. At this, sources err by about a breath and a half.
pub const MIN_QUALITY: f64 = 0.35;
/// Sources within this of each other agree, breaths/min.
pub const AGREEMENT: f64 = 3.0;

/// Unevenness of breaths in the impedance that leaves no quality.
const HOPELESS_UNEVENNESS: f64 = 0.4;
/// Concentration of a modulation spectrum that has no quality, and that which has all.
const POOR_CONCENTRATION: f64 = 0.2;
const FULL_CONCENTRATION: f64 = 0.8;
/// A heart so slow that less than this band of breaths/min is left shows no peak in it.
const MIN_BAND: f64 = 8.0;
/// Sources that contradict outweigh the others from this share of their quality on.
const CONTRADICTION: f64 = 0.6;
/// PPG and ECG are modulated by the same heart: the poorer of the two is worth this much of its quality beside
/// the better when they are weighed against impedance.
const SHARED_BEATS: f64 = 0.5;
/// An impedance wave within this share of the heart rate is the heart.
const CARDIAC: f64 = 0.05;

/// The signals of one window. They begin at the same instant and last equally long; NaN where there is no sample.
#[derive(Clone, Copy, Debug)]
pub struct Signals<'a> {
    /// Of all of them.
    pub rate: SampleRate,
    /// Thoracic impedance, any unit.
    pub impedance: Option<&'a [f32]>,
    /// Photoplethysmogram with systole upwards, any unit.
    pub ppg: Option<&'a [f32]>,
    /// One ECG lead in mV.
    pub ecg: Option<&'a [f32]>,
}

/// Where a rate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Impedance: the chest's own movement.
    Impedance,
    /// Height, baseline and frequency of the pulses.
    Ppg,
    /// Height of the R peaks, and RR intervals.
    Ecg,
}

/// What breathing modulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Modulation {
    /// The pulses' amplitude (respiratory-induced amplitude variation).
    PulseHeight,
    /// Their middle (intensity variation).
    PulseBaseline,
    /// The intervals between them (frequency variation).
    PulseFrequency,
    /// The R peaks' height.
    RHeight,
    /// The RR intervals (respiratory sinus arrhythmia).
    RrInterval,
}

/// The rate by one source.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Which.
    pub source: Source,
    /// Breaths per minute.
    pub rate: f64,
    /// From 0 (worthless) to 1. Scaled alike for all sources: at 0.5 they err by about a breath per minute.
    pub quality: f64,
    /// The rate and the concentration (0–1) of each modulation by itself; empty for impedance.
    pub modulations: Vec<(Modulation, f64, f64)>,
}

/// A respiration rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Respiration {
    /// Breaths per minute.
    pub rate: f64,
    /// From [`MIN_QUALITY`] to 1.
    pub quality: f64,
    /// The sources that it rests on.
    pub agreeing: Vec<Source>,
    /// What each source said.
    pub estimates: Vec<Estimate>,
}

/// Why there is no rate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No source with enough samples, beats or breaths in it.
    #[error("no signal shows breathing; check the sensors")]
    NoBreathing,
    /// The best that there is has less than [`MIN_QUALITY`].
    #[error("quality {quality:.2} is under {MIN_QUALITY}; wait for a steadier window")]
    PoorQuality {
        /// Of the best.
        quality: f64,
        /// What each source said.
        estimates: Vec<Estimate>,
    },
    /// Good sources are further apart than [`AGREEMENT`].
    #[error("sources say {rate:.0} and {other:.0} breaths/min; look at the patient")]
    Disagreement {
        /// What most quality stands for.
        rate: f64,
        /// What contradicts it.
        other: f64,
        /// What each source said.
        estimates: Vec<Estimate>,
    },
}

/// The respiration rate of one window, from whatever signals there are.
///
/// # Errors
/// A [`Refusal`]: the signals are too short ([`MIN_WINDOW_S`]) or gappy, too poor, or contradict one another.
pub fn respiration_rate(signals: &Signals<'_>) -> Result<Respiration, Refusal> {
    fuse(estimates(signals))
}

/// What each source says of one window, in the order of [`Source`]; those that say nothing are left out.
///
/// Impedance that swings at the heart's rate (of PPG or ECG) is the heart, and says nothing.
pub fn estimates(signals: &Signals<'_>) -> Vec<Estimate> {
    let (ppg, pulse_rate) = signals.ppg.map_or((None, None), |ppg| of_ppg(ppg, signals.rate));
    let (ecg, heart_rate) = signals.ecg.map_or((None, None), |ecg| of_ecg(ecg, signals.rate));
    let impedance = signals.impedance.and_then(|impedance| of_impedance(impedance, signals.rate));
    let is_heart = |rate: f64| {
        [pulse_rate, heart_rate]
            .into_iter()
            .flatten()
            .any(|beats| (rate - beats).abs() < CARDIAC * beats)
    };
    let impedance = impedance.filter(|estimate| !is_heart(estimate.rate));
    [impedance, ppg, ecg].into_iter().flatten().collect()
}

/// One rate of several estimates: the quality-weighted mean of those that agree with each other and together have
/// the most quality. Agreement raises the quality: it is that at least one of them is right.
///
/// # Errors
/// If that quality is under [`MIN_QUALITY`], or what contradicts it is nearly as good.
pub fn fuse(estimates: Vec<Estimate>) -> Result<Respiration, Refusal> {
    let agree = |a: &Estimate, b: &Estimate| (a.rate - b.rate).abs() <= AGREEMENT;
    let support = |of: &Estimate| -> f64 {
        let agreeing = estimates.iter().filter(|other| agree(of, other));
        let (direct, beats): (Vec<&Estimate>, Vec<&Estimate>) =
            agreeing.partition(|other| other.source == Source::Impedance);
        let sum = |of: &[&Estimate]| of.iter().map(|other| other.quality).sum::<f64>();
        let most = beats.iter().map(|other| other.quality).fold(0.0, f64::max);
        sum(&direct) + most + SHARED_BEATS * (sum(&beats) - most)
    };
    let Some(best) = estimates
        .iter()
        .reduce(|best, next| if support(next) > support(best) { next } else { best })
    else {
        return Err(Refusal::NoBreathing);
    };
    let (with, against): (Vec<&Estimate>, Vec<&Estimate>) =
        estimates.iter().partition(|other| agree(best, other));
    // An estimate's error falls about as its quality rises, so that its variance goes with the square.
    let weights: f64 = with.iter().map(|estimate| estimate.quality.powi(2)).sum();
    let weighted: f64 = with.iter().map(|estimate| estimate.quality.powi(2) * estimate.rate).sum();
    let rate = if weights > 0.0 { weighted / weights } else { best.rate };
    let quality = 1.0 - with.iter().map(|estimate| 1.0 - estimate.quality).product::<f64>();
    let worst = against.iter().max_by(|a, b| a.quality.total_cmp(&b.quality));
    if quality < MIN_QUALITY {
        return Err(Refusal::PoorQuality { quality, estimates });
    }
    if let Some(other) = worst.filter(|other| {
        other.quality >= MIN_QUALITY && other.quality > CONTRADICTION * support(best)
    }) {
        return Err(Refusal::Disagreement { rate, other: other.rate, estimates });
    }
    let agreeing = with.iter().map(|estimate| estimate.source).collect();
    Ok(Respiration { rate, quality, agreeing, estimates })
}

fn of_impedance(impedance: &[f32], rate: SampleRate) -> Option<Estimate> {
    long_enough(impedance, rate)?;
    let wave = coarse(impedance, rate)?;
    let found = crests(&wave, SLOW_HZ, MIN_RATE, MAX_RATE)
        .filter(|found| (MIN_RATE..=MAX_RATE).contains(&found.rate))?;
    let quality = (1.0 - found.unevenness / HOPELESS_UNEVENNESS).clamp(0.0, 1.0);
    let (source, rate) = (Source::Impedance, found.rate);
    Some(Estimate { source, rate, quality, modulations: Vec::new() })
}

/// The estimate, and the pulse rate.
fn of_ppg(ppg: &[f32], rate: SampleRate) -> (Option<Estimate>, Option<f64>) {
    let Some(seconds) = long_enough(ppg, rate) else { return (None, None) };
    let pulses = detect_pulses(ppg, rate);
    let ends = pulses.first().zip(pulses.last());
    let beats = ends.map(|(first, last)| (last.peak - first.peak) as f64 / rate.hz());
    let pulse_rate = per_minute(pulses.len(), beats);
    let waves = of_pulses(&pulses, rate, seconds);
    let kinds = [Modulation::PulseHeight, Modulation::PulseBaseline, Modulation::PulseFrequency];
    (modulated(Source::Ppg, kinds.into_iter().zip(waves), pulse_rate), pulse_rate)
}

/// The estimate, and the heart rate.
fn of_ecg(ecg: &[f32], rate: SampleRate) -> (Option<Estimate>, Option<f64>) {
    let Some(seconds) = long_enough(ecg, rate) else { return (None, None) };
    let peaks = detect_r_peaks(ecg, rate);
    let ends = peaks.first().zip(peaks.last());
    let beats = ends.map(|(first, last)| (last - first) as f64 / rate.hz());
    let heart_rate = per_minute(peaks.len(), beats);
    let waves = of_r_peaks(ecg, &peaks, rate, seconds);
    let kinds = [Modulation::RHeight, Modulation::RrInterval];
    (modulated(Source::Ecg, kinds.into_iter().zip(waves), heart_rate), heart_rate)
}

fn per_minute(beats: usize, seconds: Option<f64>) -> Option<f64> {
    seconds.filter(|seconds| *seconds > 0.0).map(|seconds| 60.0 * (beats - 1) as f64 / seconds)
}

/// The mean spectrum's peak.
fn modulated(
    source: Source,
    waves: impl Iterator<Item = (Modulation, Option<Vec<f64>>)>,
    heart_rate: Option<f64>,
) -> Option<Estimate> {
    // Beats sample the breathing: of what is faster than half of them they show nothing.
    let most = (heart_rate? / 2.0).min(MAX_RATE);
    if most < MIN_MODULATION_RATE + MIN_BAND {
        return None;
    }
    let (mut spectra, mut modulations) = (Vec::new(), Vec::new());
    for (kind, wave) in waves {
        let spectrum =
            wave.and_then(|wave| Spectrum::of(&wave, SLOW_HZ, MIN_MODULATION_RATE, most));
        if let Some(spectrum) = spectrum {
            let (rate, concentration) = spectrum.peak();
            modulations.push((kind, rate, concentration));
            spectra.push(spectrum);
        }
    }
    let (rate, concentration) = Spectrum::mean(&spectra)?.peak();
    let quality = (concentration - POOR_CONCENTRATION) / (FULL_CONCENTRATION - POOR_CONCENTRATION);
    Some(Estimate { source, rate, quality: quality.clamp(0.0, 1.0), modulations })
}

/// The length in seconds, if it is enough.
fn long_enough(signal: &[f32], rate: SampleRate) -> Option<f64> {
    Some(signal.len() as f64 / rate.hz()).filter(|seconds| *seconds >= MIN_WINDOW_S)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ppg::tests::{noise, pulses_at};
    use proptest::prelude::*;
    use std::f64::consts::PI;

    fn rate() -> SampleRate {
        SampleRate::from_hz(125).unwrap()
    }

    fn breathing(per_minute: f64) -> Vec<f32> {
        let wave = |k: i32| (2.0 * PI * per_minute / 60.0 * f64::from(k) / 125.0).sin() as f32;
        (0..4_000).map(wave).collect()
    }

    /// 75 pulses a minute, as much higher and lower as it breathes.
    fn modulated_ppg(per_minute: f64) -> Vec<f32> {
        let peaks: Vec<(f64, f64)> = (0..42)
            .map(|beat| 0.3 + 0.8 * f64::from(beat))
            .map(|time| (time, 1.0 + 0.2 * (2.0 * PI * per_minute / 60.0 * time).sin()))
            .collect();
        pulses_at(125.0, 32.0, &peaks)
    }

    fn nothing<'a>() -> Signals<'a> {
        Signals { rate: rate(), impedance: None, ppg: None, ecg: None }
    }

    fn estimate(source: Source, rate: f64, quality: f64) -> Estimate {
        Estimate { source, rate, quality, modulations: Vec::new() }
    }

    #[test]
    fn impedance_and_pulses_agree() {
        for per_minute in [9.0, 15.0, 24.0, 30.0] {
            let (impedance, ppg) = (breathing(per_minute), modulated_ppg(per_minute));
            let signals = Signals { impedance: Some(&impedance), ppg: Some(&ppg), ..nothing() };
            let found = respiration_rate(&signals).unwrap();
            assert!((found.rate - per_minute).abs() < 0.5, "{per_minute}: {found:?}");
            assert_eq!(found.agreeing, [Source::Impedance, Source::Ppg], "{found:?}");
            let ppg_alone = respiration_rate(&Signals { ppg: Some(&ppg), ..nothing() }).unwrap();
            assert!((ppg_alone.rate - per_minute).abs() < 1.0, "{per_minute}: {ppg_alone:?}");
        }
    }

    #[test]
    fn what_shows_no_breathing_is_refused() {
        assert_eq!(respiration_rate(&nothing()), Err(Refusal::NoBreathing));
        let flat = vec![1.0; 4_000];
        let gone = vec![f32::NAN; 4_000];
        let short = breathing(15.0)[..2_000].to_vec();
        for impedance in [&flat, &gone, &short] {
            let signals = Signals { impedance: Some(impedance), ..nothing() };
            assert_eq!(respiration_rate(&signals), Err(Refusal::NoBreathing));
        }
        let noise: Vec<f32> = noise().take(4_000).collect();
        let signals = Signals { impedance: Some(&noise), ppg: Some(&noise), ..nothing() };
        assert!(respiration_rate(&signals).is_err());
    }

    #[test]
    fn the_heart_in_the_impedance_is_no_breathing() {
        // Apnoea: what is left in the impedance has the rate of the pulse, here 50 a minute.
        let peaks: Vec<(f64, f64)> =
            (0..27).map(|beat| (0.3 + 1.2 * f64::from(beat), 1.0)).collect();
        let (impedance, ppg) = (breathing(50.0), pulses_at(125.0, 32.0, &peaks));
        let alone = Signals { impedance: Some(&impedance), ..nothing() };
        assert!((respiration_rate(&alone).unwrap().rate - 50.0).abs() < 1.0);
        let signals = Signals { ppg: Some(&ppg), ..alone };
        let found = estimates(&signals);
        assert!(found.iter().all(|estimate| estimate.source != Source::Impedance), "{found:?}");
    }

    #[test]
    fn agreement_raises_quality_and_contradiction_refuses() {
        use Source::{Ecg, Impedance, Ppg};
        let one = fuse(vec![estimate(Impedance, 15.0, 0.5)]).unwrap();
        assert_eq!((one.rate, one.quality), (15.0, 0.5));
        let both = fuse(vec![estimate(Impedance, 15.0, 0.5), estimate(Ppg, 17.0, 0.5)]).unwrap();
        assert_eq!((both.rate, both.quality), (16.0, 0.75));
        let voted = vec![
            estimate(Impedance, 30.0, 0.4),
            estimate(Ppg, 15.0, 0.5),
            estimate(Ecg, 15.0, 0.5),
        ];
        assert_eq!(fuse(voted).unwrap().agreeing, [Ppg, Ecg]);
        let apart = vec![estimate(Impedance, 30.0, 0.6), estimate(Ppg, 15.0, 0.5)];
        match fuse(apart).unwrap_err() {
            Refusal::Disagreement { rate, other, .. } => {
                assert!((rate - 30.0).abs() < 1e-9 && (other - 15.0).abs() < 1e-9);
            }
            refusal => panic!("{refusal}"),
        }
        let poor = fuse(vec![estimate(Ppg, 15.0, 0.2)]).unwrap_err();
        assert!(matches!(poor, Refusal::PoorQuality { quality, .. } if quality < 0.21), "{poor}");
        let worthless = fuse(vec![estimate(Ppg, 15.0, 0.0)]).unwrap_err();
        assert!(matches!(worthless, Refusal::PoorQuality { .. }));
    }

    fn samples() -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(
            prop_oneof![20 => -3.0f32..3.0, 1 => Just(f32::NAN), 1 => Just(f32::MAX), 1 => Just(0.0f32)],
            0..1_200,
        )
    }

    proptest! {
        #[test]
        fn anything_gives_a_rate_in_range_or_a_refusal(
            impedance in samples(), ppg in samples(), ecg in samples(), hz in 20u32..60,
        ) {
            let signals = Signals {
                rate: SampleRate::from_hz(hz).unwrap(),
                impedance: Some(&impedance),
                ppg: Some(&ppg),
                ecg: Some(&ecg),
            };
            for estimate in estimates(&signals) {
                prop_assert!((0.0..=1.0).contains(&estimate.quality), "{:?}", estimate);
            }
            if let Ok(found) = respiration_rate(&signals) {
                prop_assert!((MIN_RATE..=MAX_RATE).contains(&found.rate), "{:?}", found);
            }
        }
    }
}
