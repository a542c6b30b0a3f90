//! Filters of an ECG lead.
//!
//! - [`Recursive`]: Butterworth high-pass, low-pass, band-pass, and a notch for the mains, forwards only;
//! - [`BaselineRemoval`]: the baseline by medians, with a fixed delay and nothing shifted.
//!
//! Each has a form over a whole slice that is the streaming one given all at once. Samples are in mV, one after
//! the other at a constant rate from [`MIN_RATE_HZ`](super::MIN_RATE_HZ) up; NaN is no sample.

mod baseline;
mod iir;
pub(super) mod symmetric;

pub use baseline::{BaselineRemoval, remove_baseline};
pub use iir::{Recursive, band_pass, high_pass, low_pass, notch};

use std::f64::consts::{PI, SQRT_2};

/// Above this rate the windows of the medians are refused: 6,000 samples are sorted at a time.
pub const MAX_MEDIAN_RATE_HZ: f64 = 10_000.0;

/// Why a filter cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DesignError {
    /// Sampled too slowly or too fast.
    #[error("the sampling rate is out of range for this filter; resample the signal first")]
    Rate,
    /// A corner out of range.
    #[error(
        "the corner must lie above 0 Hz and at most at {share} of the sampling rate; choose another or resample"
    )]
    Corner {
        /// The most of the sampling rate that it may be.
        share: f64,
    },
    /// Corners the wrong way round.
    #[error("the lower corner must lie below the upper; exchange them")]
    Band,
}

/// Beyond this a sample is no ECG but an artefact of transmission, and counts as missing. In mV.
const MAX_MV: f32 = 10_000.0;

/// Whether there is a sample here.
pub(super) fn is_sample(mv: f32) -> bool {
    // NaN is not smaller than anything.
    mv.abs() < MAX_MV
}

/// The signal with the first sample's level taken off, and straight lines over gaps; `None` without samples.
pub(super) fn fill_gaps(mv: &[f32]) -> Option<Vec<f32>> {
    let level = *mv.iter().find(|value| is_sample(**value))?;
    let mut filled: Vec<f32> = Vec::with_capacity(mv.len());
    // Start of the gap that is open, and the value before it.
    let mut gap: Option<usize> = None;
    let mut before = 0.0;
    for (index, value) in mv.iter().enumerate() {
        if !is_sample(*value) {
            gap.get_or_insert(index);
            filled.push(before);
            continue;
        }
        let here = *value - level;
        if let Some(start) = gap.take() {
            let step = (here - before) / (index - start + 1) as f32;
            for (k, missing) in filled[start..].iter_mut().enumerate() {
                *missing = before + step * (k + 1) as f32;
            }
        }
        filled.push(here);
        before = here;
    }
    Some(filled)
}

/// A second-order section; bilinear transform of the Butterworth prototype.
#[derive(Clone, Copy)]
pub(crate) struct Biquad {
    b: [f64; 3],
    a: [f64; 2],
}

/// Its memory (direct form II transposed).
#[derive(Clone, Copy, Default)]
struct Memory(f64, f64);

impl Biquad {
    pub(super) fn low_pass(cutoff_hz: f64, rate_hz: f64) -> Self {
        let (w, norm) = Self::prototype(cutoff_hz, rate_hz);
        Self::new([w * w, 2.0 * w * w, w * w], w, norm)
    }

    pub(super) fn high_pass(cutoff_hz: f64, rate_hz: f64) -> Self {
        let (w, norm) = Self::prototype(cutoff_hz, rate_hz);
        Self::new([1.0, -2.0, 1.0], w, norm)
    }

    /// Bristow-Johnson, "Cookbook formulae for audio EQ biquad filter coefficients".
    fn notch(hz: f64, q: f64, rate_hz: f64) -> Self {
        let (sin, cos) = (2.0 * PI * hz / rate_hz).sin_cos();
        let norm = 1.0 / (1.0 + sin / (2.0 * q));
        let a = [-2.0 * cos * norm, (1.0 - sin / (2.0 * q)) * norm];
        Self { b: [norm, -2.0 * cos * norm, norm], a }
    }

    fn prototype(cutoff_hz: f64, rate_hz: f64) -> (f64, f64) {
        let w = (PI * (cutoff_hz / rate_hz).min(0.45)).tan();
        (w, 1.0 / (1.0 + SQRT_2 * w + w * w))
    }

    fn new(b: [f64; 3], w: f64, norm: f64) -> Self {
        let a = [2.0 * (w * w - 1.0) * norm, (1.0 - SQRT_2 * w + w * w) * norm];
        Self { b: b.map(|b| b * norm), a }
    }

    /// Forwards only, for where a lag does not matter.
    pub(super) fn forwards(&self, signal: &mut [f32]) {
        let mut memory = Memory::default();
        for value in signal {
            *value = self.step(&mut memory, f64::from(*value)) as f32;
        }
    }

    /// Forwards only, in full precision.
    fn run(&self, signal: &mut [f64]) {
        let mut memory = Memory::default();
        signal.iter_mut().for_each(|value| *value = self.step(&mut memory, *value));
    }

    /// The memory, and the output, if the input has always been `x`.
    fn settled(&self, x: f64) -> (Memory, f64) {
        let y = x * self.b.iter().sum::<f64>() / (1.0 + self.a[0] + self.a[1]);
        let later = self.b[2] * x - self.a[1] * y;
        (Memory(self.b[1] * x - self.a[0] * y + later, later), y)
    }

    #[inline(always)]
    fn step(&self, memory: &mut Memory, x: f64) -> f64 {
        let y = self.b[0] * x + memory.0;
        memory.0 = self.b[1] * x - self.a[0] * y + memory.1;
        memory.1 = self.b[2] * x - self.a[1] * y;
        y
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_become_straight_lines() {
        let nan = f32::NAN;
        let filled = fill_gaps(&[nan, 1.0, nan, f32::INFINITY, 4.0, nan]).unwrap();
        assert_eq!(filled, [0.0, 0.0, 1.0, 2.0, 3.0, 3.0]);
        assert_eq!(fill_gaps(&[nan, nan]), None);
        assert_eq!(fill_gaps(&[]), None);
    }
}
