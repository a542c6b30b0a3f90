//! Features of vital signs and waveforms, as pure functions.
#![forbid(unsafe_code)]

pub mod moments;
