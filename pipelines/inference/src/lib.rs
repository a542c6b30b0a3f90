//! Models: what they are, how they are loaded, asked, explained, trained and decided about. Networks run on candle;
//! [`trees`] are boosted forests kept as tensors.
//!
//! - [`beats`]: each heart beat of an ECG in one of the five AAMI classes.
//! - [`rhythm`]: a short ECG as normal, fibrillation, other or noisy; burden of fibrillation.
//! - [`sepsis`]: a warning six hours ahead, from hourly stays.
//! - [`faults`]: what is wrong with a device, from its readings alone.
//! - [`condition`]: what a flagged window is about.
//! - [`personal`]: what is usual for one patient. No model of it is built in.
//! - [`registry`]: signed decisions on which models are at work. [`statistics`]: how good a score is.
//!
//! # A model
//! A committee of networks or forests in one folder, with its manifest, its lineage and a card: [`package`]. Loading refuses
//! whatever does not fit: hash, shapes, units, classes.
//!
//! # Threads
//! Everything runs on the calling thread. candle asks `RAYON_NUM_THREADS` at every matrix product and
//! splits large ones over rayon's pool, which on small networks costs more than it gives and lets one
//! dataflow worker disturb another; loading a model therefore raises gemm's threshold for threading out of
//! reach, for the whole process. `RAYON_NUM_THREADS=1` in the environment does the same and is harmless.
//!
//! # Determinism
//! On one machine a beat's score is a function of its input and the weights, bit for bit: every
//! element of our own products ([`Convolution`]) is one sum in one order, and rows do not mix. Another
//! processor may choose another kernel and differ in the last bits; digests decide sameness on
//! inputs and model hash, not on raw scores. Training is a function of data, settings and seed on one machine.
//!
//! # Not guaranteed
//! Scores are decision support, measured on the data that the manifest names. No medical device.
#![forbid(unsafe_code)]

pub mod beats;
mod builtin;
pub mod condition;
mod conv;
pub mod explain;
pub mod faults;
pub mod package;
pub mod personal;
mod product;
pub mod registry;
pub mod rhythm;
pub mod sepsis;
pub mod statistics;
pub mod training;
pub mod trees;

pub use beats::{
    BeatClass, BeatInput, BeatModel, BeatScore, ClassifyError, beat_inputs, beat_inputs_of_leads,
};
pub use builtin::{BUILTIN, Builtin};
pub use conv::{Convolution, Stride, convolve, dense, mean_over_length};
pub use package::LoadError;

/// Keeps candle's matrix products on the calling thread, in this whole process: see the crate's head.
pub(crate) fn on_the_calling_thread() {
    gemm::set_threading_threshold(usize::MAX);
}
