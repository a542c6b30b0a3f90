//! Features of vital signs and waveforms, as pure functions.
//!
//! - [`cgm`]: continuous glucose: ranges, variability, risk, and a forecast.
//! - [`ecg`]: R peaks, RR intervals and rhythm statistics, signal quality.
//! - [`lomb`]: spectra of unevenly spaced samples.
//! - [`news2`]: the National Early Warning Score 2.
//! - [`ppg`]: pulses, perfusion, saturation, pulse arrival.
//! - [`respiration`]: its rate from impedance, PPG and ECG.
//! - [`scores`]: qSOFA, MEWS, shock index, PEWS.
//! - [`moments`]: mean, deviation, extremes and slope of a scalar series, mergeable.
//! - [`motion`]: activity, posture and falls from an accelerometer; dwell per zone.
//! - [`trend`]: trend, variability and missingness of a vital measured now and then.
//!
//! Samples are `f32` slices in which NaN means "no sample here". Nothing reads a clock, does I/O or
//! draws random numbers: the same samples give the same features.
#![forbid(unsafe_code)]

pub mod cgm;
pub mod ecg;
pub mod lomb;
pub mod moments;
pub mod motion;
pub mod news2;
pub mod ppg;
pub mod respiration;
pub mod scores;
pub mod trend;
