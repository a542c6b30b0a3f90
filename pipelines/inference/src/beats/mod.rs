//! Heart beats of an ECG in the five AAMI classes ([`BeatClass`]).
//!
//! [`beat_inputs`] makes the model's inputs from samples and R peaks, of one lead or two, and of as much context as
//! there is: a window of half a minute in the live path, hours of a recording elsewhere. [`BeatModel`] asks a
//! committee of boosted forests about them. Nothing outside the samples that are given is looked at.
//!
//! - `input`: the beat, cut out; `template`: the patient's own usual beat and the beats like this one; `shape`: the beat
//!   beside it, lead by lead; `intervals`, `surroundings`: the rhythm near by and further around.
//! - `model`: what is computed, and the committee; `alike`: beats that look alike are called alike; `training`, `synthesis`, `card`: how it comes about.
//! - `ec57`: how it is counted.

mod alike;
mod card;
mod class;
mod ec57;
mod input;
mod intervals;
mod model;
mod recordings;
mod shape;
mod surroundings;
mod synthesis;
mod template;
mod training;

pub use class::BeatClass;
pub use ec57::{Unmatched, ec57};
pub use input::{
    BeatInput, LEADS_MAX, MAX_WINDOW_SAMPLES, NUMBERS, SEGMENT_BEFORE, SEGMENT_RATE,
    SEGMENT_SAMPLES, beat_inputs, beat_inputs_of_leads,
};
pub use intervals::{RHYTHM_FEATURES, RHYTHM_NAMES};
pub use model::{Attribution, BEAT_TASK, BeatModel, BeatScore, ClassifyError};
pub use recordings::{AnnotatedRecord, LabelledBeat, ReadError};
pub use shape::{SHAPE_FEATURES, SHAPE_NAMES};
pub use surroundings::SURROUNDING_NAMES;
pub use training::{BeatProgress, BeatSettings, TrainError, train};
