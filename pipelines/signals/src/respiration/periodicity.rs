//! The rate of a slow wave, by its crests and by its spectrum.
//!
//! Where breathing is measured itself, the mean distance of the crests that stand out is best ("count-orig" of Schäfer
//! and Kratky, *Ann. Biomed. Eng.* 36:476, 2008, the best time-domain way in Charlton 2016). Where it only modulates
//! something, single crests drown, and what helps is the power spectrum, averaged over the modulations (Lázaro et
//! al., *IEEE J. Biomed. Health Inform.* 17(6):1009, 2013, average the conspicuous ones likewise).

use std::f64::consts::{PI, SQRT_2};

/// A crest or trough stands out if it reaches this share of the upper quartile of all of them (Schäfer and Kratky).
const STANDS_OUT: f64 = 0.2;
/// Fewer crests have no distances worth a mean.
const MIN_CRESTS: usize = 3;
/// The steps of a spectrum, per minute.
const STEP: f64 = 0.25;
/// Power this near to the highest, per minute, is of the same wave: the resolution of 32 s.
const SAME_WAVE: f64 = 2.0;
/// A spectrum's weight in an average is its concentration to this power.
const WEIGHT_POWER: i32 = 2;

/// What the crests say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Crests {
    /// Waves per minute by their mean distance.
    pub rate: f64,
    /// Deviation of the distances, as a share of their mean.
    pub unevenness: f64,
}

/// Counts the crests of a wave of `least` to `most` a minute in equally spaced samples; `None` with fewer than three.
pub(super) fn crests(wave: &[f64], rate_hz: f64, least: f64, most: f64) -> Option<Crests> {
    let distances = crest_distances(&band(wave, rate_hz, least, most));
    if distances.len() + 1 < MIN_CRESTS {
        return None;
    }
    let count = distances.len() as f64;
    let mean = distances.iter().sum::<f64>() / count;
    let variance = distances.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    Some(Crests { rate: 60.0 * rate_hz / mean, unevenness: variance.sqrt() / mean })
}

/// Power by rate, with a sum of 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spectrum {
    least: f64,
    power: Vec<f64>,
}

impl Spectrum {
    /// Of a wave from `least` to `most` a minute, under a Hann window; `None` if nothing swings.
    pub(super) fn of(wave: &[f64], rate_hz: f64, least: f64, most: f64) -> Option<Self> {
        let count = wave.len() as f64;
        let windowed: Vec<f64> = band(wave, rate_hz, least, most)
            .iter()
            .enumerate()
            .map(|(k, value)| value * (0.5 - 0.5 * (2.0 * PI * (k as f64 + 0.5) / count).cos()))
            .collect();
        let steps = ((most - least) / STEP).floor().max(0.0) as usize;
        let mut power: Vec<f64> = (0..=steps)
            .map(|step| goertzel(&windowed, (least + step as f64 * STEP) / 60.0 / rate_hz))
            .collect();
        let total: f64 = power.iter().sum();
        if !(total.is_finite() && total > f64::MIN_POSITIVE) {
            return None;
        }
        power.iter_mut().for_each(|value| *value /= total);
        Some(Self { least, power })
    }

    /// The mean of several from the same `least` on, each weighted by its concentration; `None` of none.
    pub(super) fn mean(all: &[Self]) -> Option<Self> {
        let longest = all.iter().map(|spectrum| spectrum.power.len()).max()?;
        let mut mean = Self { least: all.first()?.least, power: vec![0.0; longest] };
        let weights = all.iter().map(|spectrum| spectrum.peak().1.powi(WEIGHT_POWER));
        let total: f64 = weights.clone().sum();
        for (spectrum, weight) in all.iter().zip(weights) {
            for (sum, power) in mean.power.iter_mut().zip(&spectrum.power) {
                *sum += weight / total * power;
            }
        }
        Some(mean)
    }

    /// The rate of the highest power, and how much of all power is within 2 a minute of it: its concentration.
    pub(super) fn peak(&self) -> (f64, f64) {
        let higher = |best, k| if self.power[k] > self.power[best] { k } else { best };
        let highest = (0..self.power.len()).reduce(higher).unwrap_or(0);
        let reach = (SAME_WAVE / STEP) as usize;
        let near = highest.saturating_sub(reach)..(highest + reach + 1).min(self.power.len());
        (self.least + STEP * highest as f64, self.power[near].iter().sum())
    }
}

/// The power at one frequency, in cycles a sample (Goertzel's recurrence).
fn goertzel(wave: &[f64], frequency: f64) -> f64 {
    let twice_cosine = 2.0 * (2.0 * PI * frequency).cos();
    let (before, last) = wave
        .iter()
        .fold((0.0, 0.0), |(before, last), value| (last, value + twice_cosine * last - before));
    last * last + before * before - twice_cosine * last * before
}

/// Without its straight line, and without what is slower or faster than the range; forwards and backwards.
fn band(wave: &[f64], rate_hz: f64, least: f64, most: f64) -> Vec<f64> {
    if wave.len() < 3 {
        return Vec::new();
    }
    let count = wave.len() as f64;
    let (middle, mean) = ((count - 1.0) / 2.0, wave.iter().sum::<f64>() / count);
    let products = wave.iter().enumerate().map(|(k, value)| (k as f64 - middle) * (value - mean));
    let slope = products.sum::<f64>() / (count * (count * count - 1.0) / 12.0);
    let level = |(k, value): (usize, &f64)| value - mean - slope * (k as f64 - middle);
    let wave: Vec<f64> = wave.iter().enumerate().map(level).collect();
    let low = Biquad::low_pass(1.2 * most / 60.0, rate_hz).both_ways(&wave);
    Biquad::high_pass(0.7 * least / 60.0, rate_hz).both_ways(&low)
}

/// Where the parabola through three values has its summit, from the middle one.
fn summit(three: &[f64]) -> f64 {
    let curvature = three[0] - 2.0 * three[1] + three[2];
    if curvature < 0.0 { (0.5 * (three[0] - three[2]) / curvature).clamp(-0.5, 0.5) } else { 0.0 }
}

/// Distances in samples between crests that stand out and have a trough that stands out between them.
fn crest_distances(wave: &[f64]) -> Vec<f64> {
    let up = outstanding(wave, |value| *value);
    let down = outstanding(wave, |value| -value);
    let mut crests: Vec<usize> = Vec::new();
    for crest in up {
        match crests.last_mut() {
            // Two crests without a trough between them are one: the higher.
            Some(last) if !down.iter().any(|trough| (*last..crest).contains(trough)) => {
                if wave[crest] > wave[*last] {
                    *last = crest;
                }
            }
            _ => crests.push(crest),
        }
    }
    let place = |crest: usize| crest as f64 + summit(&wave[crest - 1..=crest + 1]);
    crests.windows(2).map(|pair| place(pair[1]) - place(pair[0])).collect()
}

/// Local maxima above a share of the upper quartile of all of them that are above zero.
fn outstanding(wave: &[f64], side: impl Fn(&f64) -> f64) -> Vec<usize> {
    let at = |k: usize| side(&wave[k]);
    let maxima: Vec<usize> = (1..wave.len().saturating_sub(1))
        .filter(|k| at(*k) > at(*k - 1) && at(*k) >= at(*k + 1) && at(*k) > 0.0)
        .collect();
    let mut heights: Vec<f64> = maxima.iter().map(|k| at(*k)).collect();
    heights.sort_by(f64::total_cmp);
    let quartile = heights.get(heights.len() * 3 / 4).copied().unwrap_or(0.0);
    maxima.into_iter().filter(|k| at(*k) >= STANDS_OUT * quartile).collect()
}

/// A Butterworth filter of second order.
struct Biquad {
    b: [f64; 3],
    a: [f64; 2],
}

impl Biquad {
    fn low_pass(cutoff_hz: f64, rate_hz: f64) -> Self {
        // Beyond the middle of the band there is nothing to take off.
        let k = (PI * (cutoff_hz / rate_hz).min(0.49)).tan();
        let norm = 1.0 / (1.0 + SQRT_2 * k + k * k);
        Self {
            b: [k * k * norm, 2.0 * k * k * norm, k * k * norm],
            a: [2.0 * (k * k - 1.0) * norm, (1.0 - SQRT_2 * k + k * k) * norm],
        }
    }

    fn high_pass(cutoff_hz: f64, rate_hz: f64) -> Self {
        let low = Self::low_pass(cutoff_hz, rate_hz);
        let k = (PI * (cutoff_hz / rate_hz).min(0.49)).tan();
        let norm = 1.0 / (1.0 + SQRT_2 * k + k * k);
        Self { b: [norm, -2.0 * norm, norm], a: low.a }
    }

    /// Forwards and backwards over the wave with its ends mirrored at their points, so that neither shifts nor rings there.
    fn both_ways(&self, wave: &[f64]) -> Vec<f64> {
        let (Some(first), Some(last)) = (wave.first(), wave.last()) else { return Vec::new() };
        let pad = wave.len() - 1;
        let before = wave[1..].iter().rev().map(|value| 2.0 * first - value);
        let after = wave[..pad].iter().rev().map(|value| 2.0 * last - value);
        let mut padded: Vec<f64> = before.chain(wave.iter().copied()).chain(after).collect();
        for _ in 0..2 {
            self.forwards(&mut padded);
            padded.reverse();
        }
        padded[pad..pad + wave.len()].to_vec()
    }

    fn forwards(&self, wave: &mut [f64]) {
        let ([b0, b1, b2], [a1, a2]) = (self.b, self.a);
        let (mut s1, mut s2) = (0.0, 0.0);
        for value in wave {
            let input = *value;
            let output = b0 * input + s1;
            s1 = b1 * input - a1 * output + s2;
            s2 = b2 * input - a2 * output;
            *value = output;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ppg::tests::noise;

    fn wave(per_minute: f64, shape: impl Fn(f64) -> f64) -> Vec<f64> {
        (0..256).map(|k| shape(2.0 * PI * per_minute / 60.0 * f64::from(k) / 8.0)).collect()
    }

    fn check(wave: &[f64], per_minute: f64) {
        let found = crests(wave, 8.0, 4.0, 60.0).unwrap();
        assert!((found.rate - per_minute).abs() < 0.6, "{per_minute}: {found:?}");
        assert!(found.unevenness < 0.1, "{per_minute}: {found:?}");
        let (rate, concentration) = Spectrum::of(wave, 8.0, 4.0, 60.0).unwrap().peak();
        assert!((rate - per_minute).abs() < 0.8, "{per_minute}: {rate}");
        assert!(concentration > 0.6, "{per_minute}: {concentration}");
    }

    #[test]
    fn of_plain_and_lopsided_waves() {
        for per_minute in [6.0, 9.3, 14.0, 22.5, 35.0, 50.0] {
            check(&wave(per_minute, f64::sin), per_minute);
            check(&wave(per_minute, |phase| phase.sin() + 0.4 * (2.0 * phase).sin()), per_minute);
            let drifting: Vec<f64> = wave(per_minute, f64::sin)
                .iter()
                .enumerate()
                .map(|(k, value)| value + 0.02 * k as f64)
                .collect();
            check(&drifting, per_minute);
        }
    }

    #[test]
    fn noise_is_uneven_and_nothing_is_nothing() {
        let noise: Vec<f64> = noise().take(256).map(f64::from).collect();
        assert!(crests(&noise, 8.0, 4.0, 60.0).unwrap().unevenness > 0.3);
        assert!(Spectrum::of(&noise, 8.0, 4.0, 60.0).unwrap().peak().1 < 0.4);
        for nothing in [&[3.0; 256][..], &[], &[1.0, 2.0]] {
            assert_eq!(crests(nothing, 8.0, 4.0, 60.0), None);
        }
        assert_eq!(Spectrum::of(&[0.0; 256], 8.0, 4.0, 60.0), None);
        assert_eq!(Spectrum::mean(&[]), None);
    }

    #[test]
    fn what_two_modulations_share_wins() {
        // Each alone swings more at a rate of its own.
        let mixed = |own: f64| -> Vec<f64> {
            let own = wave(own, f64::sin);
            wave(15.0, f64::sin).iter().zip(own).map(|(shared, own)| shared + 1.1 * own).collect()
        };
        let spectra =
            [9.0, 28.0, 40.0].map(|own| Spectrum::of(&mixed(own), 8.0, 7.0, 60.0).unwrap());
        assert!(spectra.iter().all(|spectrum| (spectrum.peak().0 - 15.0).abs() > 5.0));
        assert!((Spectrum::mean(&spectra).unwrap().peak().0 - 15.0).abs() < 0.5);
    }
}
