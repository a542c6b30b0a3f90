//! Features of vital signs and waveforms, as pure functions.
//!
//! - [`ecg`]: R peaks, RR intervals and rhythm statistics, signal quality.
//! - [`lomb`]: spectra of unevenly spaced samples.
//! - [`news2`]: the National Early Warning Score 2.
//! - [`ppg`]: pulses, perfusion, saturation, pulse arrival.
//! - [`moments`]: mean, deviation, extremes and slope of a scalar series, mergeable.
//!
//! Samples are `f32` slices in which NaN means "no sample here". Nothing reads a clock, does I/O or
//! draws random numbers: the same samples give the same features.
#![forbid(unsafe_code)]

pub mod ecg;
pub mod lomb;
pub mod moments;
pub mod news2;
pub mod ppg;
pub mod respiration;
