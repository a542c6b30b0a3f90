//! Models on candle: what they are, how they are loaded, asked, explained and trained.
//!
//! There is one model so far: [`BeatModel`] puts each heart beat of a single-lead ECG into one of the
//! five AAMI classes ([`BeatClass`]). Its input is made by [`beat_inputs`] from one window of samples
//! and the R peaks found in it; nothing outside the window is looked at.
//!
//! # A model
//! Two files in one folder: `manifest.toml` ([`Manifest`]: what goes in and in which unit, what
//! comes out, what it was trained on, how well it did on patients it had not seen) and
//! `weights.safetensors`. The manifest holds the SHA-256 of the weights, and a model's name in digests
//! ([`haar_schema::ModelRef`]) holds the SHA-256 of the manifest, so one hash settles both. Loading
//! refuses whatever does not fit: hash, shapes, units, classes.
//!
//! # Threads
//! Everything runs on the calling thread. candle asks `RAYON_NUM_THREADS` at every matrix product and
//! splits large ones over rayon's pool, which on small networks costs more than it gives and lets one
//! dataflow worker disturb another; loading a model therefore raises gemm's threshold for threading out of
//! reach, for the whole process. `RAYON_NUM_THREADS=1` in the environment does the same and is harmless.
//!
//! # Determinism
//! On one machine a beat's score is a function of its input and the weights, bit for bit: every
//! network call has the same padded batch shape ([`BATCH`]), and rows of a product do not mix. Another
//! processor may choose another kernel and differ in the last bits; digests decide sameness on
//! inputs and model hash, not on raw scores. Training is a function of data, settings and seed on one machine.
//!
//! # Not guaranteed
//! Scores are decision support, measured on the data that the manifest names. No medical device.
#![forbid(unsafe_code)]

mod attribution;
mod builtin;
mod class;
pub mod condition;
mod confusion;
mod conv;
pub mod explain;
pub mod faults;
mod input;
mod manifest;
mod model;
mod network;
pub mod package;
mod product;
pub mod registry;
pub mod rhythm;
pub mod sepsis;
pub mod statistics;
pub mod train;
pub mod training;
pub mod trees;

pub use attribution::{Attribution, MAX_ATTRIBUTION_STEPS};
pub use builtin::{BUILTIN, Builtin};
pub use class::BeatClass;
pub use confusion::{ClassMetrics, Confusion};
pub use conv::{Convolution, Stride, convolve, dense};
pub use input::{
    BeatInput, CHANNELS, MAX_WINDOW_SAMPLES, RR_FEATURES, RR_NAMES, SEGMENT_BEFORE, SEGMENT_RATE,
    SEGMENT_SAMPLES, beat_inputs,
};
pub use manifest::{
    InputSpec, MAX_MANIFEST_BYTES, Manifest, ManifestError, Metrics, Source, TrainingData,
    TrainingRun, WeightsFile,
};
pub(crate) use model::on_the_calling_thread;
pub use model::{BATCH, BeatModel, BeatScore, ClassifyError, LoadError, MAX_WEIGHTS_BYTES};
