//! Ventricular flutter and fibrillation: a wave without QRS complexes.
//!
//! VF filter leakage: Kuo & Dillman 1978, "Computer detection of ventricular fibrillation", Computers in
//! Cardiology, 347–349. A wave that is nearly a sinusoid is cancelled by itself half a mean period later;
//! what is left over ("leaks") is 0 for a sinusoid and near 1 for narrow complexes. Their two thresholds
//! are used as begin and end of an episode.

use std::ops::Range;

use haar_schema::SampleRate;

use super::filter::{Biquad, band_pass, fill_gaps};

/// Windows in which the leakage is measured, in seconds; they follow each other by one second.
const WINDOW_S: usize = 4;

/// An episode begins where the leakage falls below this (Kuo & Dillman).
const BEGIN_LEAKAGE: f32 = 0.406;

/// And lasts while it stays below this (Kuo & Dillman).
const END_LEAKAGE: f32 = 0.625;

/// Half a period of the slowest wave that is flutter, in seconds: 120 waves a minute. Slower sinusoids are
/// baseline wander.
const MAX_HALF_PERIOD_S: f64 = 0.25;

/// Band that is looked at.
const BAND_HZ: (f64, f64) = (2.0, 30.0);

/// The leakage is measured on means of so many samples that about this rate remains, which the band allows.
const WORKING_RATE_HZ: f64 = 90.0;

/// Where the signal is ventricular flutter or fibrillation rather than beats: ranges of samples, in order,
/// not touching. Less than four seconds are not judged.
pub fn flutter_episodes(mv: &[f32], rate: SampleRate) -> Vec<Range<usize>> {
    fill_gaps(mv).map_or_else(Vec::new, |filled| episodes(&filled, rate.hz()))
}

pub(super) fn episodes(filled: &[f32], rate_hz: f64) -> Vec<Range<usize>> {
    let factor = ((rate_hz / WORKING_RATE_HZ) as usize).max(1);
    let working_hz = rate_hz / factor as f64;
    let mut signal: Vec<f32> =
        filled.chunks_exact(factor).map(|part| part.iter().sum::<f32>() / factor as f32).collect();
    band_pass(
        &mut signal,
        Biquad::high_pass(BAND_HZ.0, working_hz),
        Biquad::low_pass(BAND_HZ.1, working_hz),
    );
    let second = (working_hz.round() as usize).max(1);
    let longest_half = (MAX_HALF_PERIOD_S * working_hz) as usize;
    let leakages: Vec<f32> = (0..)
        .map_while(|start| signal.get(start * second..(start + WINDOW_S) * second))
        .map(|window| leakage(window, longest_half))
        .collect();
    let mut flutter: Vec<bool> = leakages.iter().map(|leakage| *leakage < BEGIN_LEAKAGE).collect();
    for index in 1..flutter.len() {
        flutter[index] |= flutter[index - 1] && leakages[index] < END_LEAKAGE;
    }
    for index in (1..flutter.len()).rev() {
        flutter[index - 1] |= flutter[index] && leakages[index - 1] < END_LEAKAGE;
    }
    // A window speaks for its middle half, the first and the last also for what lies beyond.
    let mut episodes: Vec<Range<usize>> = Vec::new();
    let samples = second * factor;
    for (index, _) in flutter.iter().enumerate().filter(|(_, flutter)| **flutter) {
        let start = if index == 0 { 0 } else { (index + 1) * samples };
        let end = if index + 1 == flutter.len() { filled.len() } else { (index + 3) * samples };
        match episodes.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => episodes.push(start..end),
        }
    }
    episodes
}

/// 0 for a sinusoid; 1 for what is none, or too slow.
fn leakage(window: &[f32], longest_half: usize) -> f32 {
    let level: f32 = window.iter().map(|value| value.abs()).sum();
    let change: f32 = window.windows(2).map(|pair| (pair[1] - pair[0]).abs()).sum();
    // Half of the mean period in samples: π Σ|v| / Σ|Δv|.
    let half = (std::f32::consts::PI * level / change + 0.5) as usize;
    if half == 0 || half >= longest_half {
        return 1.0;
    }
    let (mut left, mut all) = (0.0, 0.0);
    for (here, before) in window[half..].iter().zip(window) {
        left += (here + before).abs();
        all += here.abs() + before.abs();
    }
    if all > 0.0 { left / all } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(seconds: usize, hz: f64) -> Vec<f32> {
        (0..seconds * 250).map(|i| (i as f64 * hz * 0.025_132_741).sin() as f32).collect()
    }

    #[test]
    fn a_fast_sinusoid_is_flutter() {
        let rate = SampleRate::from_hz(250).unwrap();
        assert_eq!(flutter_episodes(&wave(20, 4.5), rate).first(), Some(&(0..5_000)));
        // Slow wander, a flat line, and nothing are not.
        assert!(flutter_episodes(&wave(20, 0.4), rate).is_empty());
        assert!(flutter_episodes(&vec![0.7; 5_000], rate).is_empty());
        assert!(flutter_episodes(&wave(3, 4.5), rate).is_empty());
        assert!(flutter_episodes(&[], rate).is_empty());
    }
}
