//! Heart beats of an ECG in the five AAMI classes ([`BeatClass`]).
//!
//! [`beat_inputs`] makes the network's inputs from samples and R peaks, of one lead or two, and of as much context as
//! there is: a window of half a minute in the live path, hours of a recording elsewhere. [`BeatModel`] asks a
//! committee of networks about them. Nothing outside the samples that are given is looked at.
//!
//! - `input`: the beat, cut out; `template`: its shape beside the patient's own usual beat; `intervals`: the rhythm.
//! - `network`, `model`: what is computed, and the committee; `training`: how it comes about.

mod class;
mod ec57;
mod input;
mod intervals;
mod model;
mod network;
mod recordings;
mod template;
mod training;

pub use class::BeatClass;
pub use ec57::{Unmatched, ec57};
pub use input::{
    BeatInput, CHANNELS, LEADS_MAX, MAX_WINDOW_SAMPLES, NUMBERS, SEGMENT_BEFORE, SEGMENT_RATE,
    SEGMENT_SAMPLES, beat_inputs, beat_inputs_of_leads,
};
pub use intervals::{RHYTHM_FEATURES, RHYTHM_NAMES};
pub use model::{Attribution, BEAT_TASK, BeatModel, BeatScore, ClassifyError};
pub(crate) use network::log_softmax;
pub use recordings::{AnnotatedRecord, LabelledBeat, ReadError};
pub use template::{SHAPE_FEATURES, SHAPE_NAMES};
pub use training::{BeatSettings, TrainError, train};
