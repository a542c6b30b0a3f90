//! Rhythm of a short single-lead ECG: normal, atrial fibrillation, another one, or too noisy to say.
//!
//! A committee ([`RhythmModel`]). Each member adds what boosted forests say of described features (timing of the beats,
//! their shape, spectrum, noise) to what a convolutional network says of the waveform and its intervals.
//! [`train_rhythm`] makes one; [`af_burden`] sums windows up over hours.
//!
//! # Limits
//! Recordings of [`MIN_SECONDS`] to [`MAX_SECONDS`], from 50 samples/s.
//!
//! # Not guaranteed
//! Trained on lead I of a hand-held device. Scores are decision support, no medical device.

mod burden;
mod input;
mod model;
mod morphology;
mod network;
mod output;
mod signal;
mod statistic;
mod texture;
mod timing;
mod train;

pub use burden::{
    AfBurden, BurdenError, BurdenSettings, Episode, JudgedWindow, MAX_BURDEN_WINDOWS, af_burden,
};
pub use input::{InputError, MAX_SECONDS, MIN_SECONDS, RhythmInput, feature_names};
pub use model::{RHYTHM_TASK, RhythmAttribution, RhythmError, RhythmModel, RhythmScore};
pub use output::{DraftError, RhythmAbout, rhythm_draft};
pub use train::{Committee, RhythmCase, RhythmSettings, train_rhythm};

use haar_recordings::cinc2017::Rhythm;

/// The class of a recording (PhysioNet/CinC Challenge 2017).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RhythmClass {
    /// N: normal sinus rhythm.
    Normal,
    /// A: atrial fibrillation.
    Fibrillation,
    /// O: any other rhythm.
    Other,
    /// ~: too noisy to say.
    Noisy,
}

impl RhythmClass {
    /// All, in the order of a model's outputs.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Fibrillation, Self::Other, Self::Noisy];
    /// Names by index.
    pub const NAMES: &'static [&'static str] = &["N", "A", "O", "~"];

    /// Its place in [`RhythmClass::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The challenge's letter.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl From<Rhythm> for RhythmClass {
    fn from(rhythm: Rhythm) -> Self {
        match rhythm {
            Rhythm::Normal => Self::Normal,
            Rhythm::Fibrillation => Self::Fibrillation,
            Rhythm::Other => Self::Other,
            Rhythm::Noisy => Self::Noisy,
        }
    }
}
