//! Rhythm of a short single-lead ECG.

pub mod input;
mod morphology;
mod signal;
mod statistic;
mod texture;
mod timing;
